"""The subscribers that are open in one block."""

from typing import TypeVar

import attrs

from trio_sagents.broadcast import Subscriber
from trio_sagents.data.config import SessionPolicy
from trio_sagents.data.scopes import Scope
from trio_sagents.supervisor import Services

S = TypeVar("S", bound=Subscriber)


@attrs.define(eq=False)
class Mailboxes:
    """Opens and closes subscribers, and tells all of them when the last event is out."""

    _services: Services
    _policy: SessionPolicy
    _open: dict[Subscriber, None] = attrs.field(factory=dict, repr=False)

    def open(self, kind: type[S], scope: Scope) -> S:
        """Return a new subscriber of one of the two kinds, `Subscriber` or `Watch`."""
        owner = self._services.access.owner_of(scope)  # a scope without an owner key is refused here, before anything is done
        subscriber = kind(self._services, scope, owner, self._policy.subscriber_events, self._policy.subscriber_text)
        self._open[subscriber] = None
        return subscriber

    def close(self, subscriber: Subscriber) -> None:
        """End all subscriptions of a subscriber."""
        self._open.pop(subscriber, None)
        subscriber.close()

    def hang_up(self) -> None:
        """Tell everybody who is still reading that the last event is out."""
        for subscriber in self._open:
            subscriber.hang_up()

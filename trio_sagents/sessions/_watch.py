"""Watching: a subscriber for one conversation, whose agent is running."""

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from trio_sagents.broadcast import Presence, Subscriber, Subscription
from trio_sagents.data.ids import conversation_topic
from trio_sagents.sessions._reports import SessionInfo
from trio_sagents.supervisor import ViewerAdmission


@attrs.define(eq=False)
class Watch(Subscriber):
    """A subscriber that is subscribed to one conversation; subscribe it to more as you like."""

    _info: SessionInfo | None = attrs.field(default=None, init=False)

    @property
    def info(self) -> SessionInfo:
        """The agent that was running, or was started, when the watch began."""
        assert self._info is not None
        return self._info

    @info.setter
    def info(self, info: SessionInfo) -> None:
        self._info = info


@contextmanager
def present(presence: Presence, admission: ViewerAdmission, subscription: Subscription, viewer: str) -> Iterator[None]:
    """Show a viewer among the viewers of a conversation while the block is open, and as long as the authorizer lets the viewer watch."""
    topic = conversation_topic(subscription.conversation_id)
    tracked = presence.enter(topic, viewer)

    def changed(may_watch: bool) -> None:  # noqa: FBT001  # the answer of the authorizer
        nonlocal tracked
        if not may_watch:
            tracked.leave()
        elif not tracked.is_present:
            tracked = presence.enter(topic, viewer)

    admission.present[subscription] = changed
    try:
        yield
    finally:
        del admission.present[subscription]
        tracked.leave()

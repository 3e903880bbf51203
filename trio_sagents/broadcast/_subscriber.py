"""A subscriber: the mailbox of one task of the host. It is one memory channel, fed by any number of conversations.

The channel carries subscriptions, not events. Each subscription is in it at most once, until it is taken. So the channel is bounded by the
number of subscriptions, `send_nowait` cannot block, the conversations take turns, and a noisy conversation never pushes out a quiet one.
How a reader waits is in `_announcements`.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Literal, Protocol, Self

import attrs
import trio

from trio_sagents._trio.place import require_run
from trio_sagents.broadcast._announcements import Announcements
from trio_sagents.broadcast._subscription import Mailbox, Subscription
from trio_sagents.data.cursors import CHANNELS, Channel, Cursor
from trio_sagents.data.events import Envelope
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import Opaque
from trio_sagents.data.records import Owner
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import SessionsClosed


class Switchboard(Protocol):
    """What a subscriber needs of the sessions that it listens to."""

    async def admit(self, subscription: Subscription) -> None:
        """Ask whether the scope may see the conversation. Keep the subscription, and enrol it if the scope may and an agent is up."""
        ...

    def withdraw(self, subscription: Subscription) -> None:
        """Forget the subscription."""
        ...


def _require_own_run(token: trio.lowlevel.TrioToken) -> None:
    """Raise RuntimeError in a thread, or in a run of Trio, that is not the subscriber's own."""
    require_run(token, "this subscriber and its sessions")


@attrs.define(eq=False)
class Subscriber:
    """A mailbox of events. It never ends by itself: after an agent's end the subscription is pending, until the next agent starts.

    Made by `Sessions.open_subscriber` and `Sessions.watch`. Reading is safe to cancel: no event is lost. Use it in the run of Trio that
    opened it: every async method raises RuntimeError in another thread or another run.
    """

    _switchboard: Switchboard = attrs.field(alias="switchboard", repr=False)
    scope: Scope = attrs.field(repr=False)
    _owner: Owner = attrs.field(alias="owner")
    _most_events: int = attrs.field(alias="most_events")
    _most_text: int = attrs.field(alias="most_text")
    _subscriptions: dict[tuple[str, Channel], Subscription] = attrs.field(factory=dict, init=False, repr=False)
    _ready: deque[Envelope] = attrs.field(factory=deque, init=False, repr=False)
    """Events that were taken and not handed to the reader yet: at most one batch of one wake-up."""
    _announced: Announcements = attrs.field(factory=Announcements, init=False, repr=False)
    _is_closed: bool = attrs.field(default=False, init=False)
    _wake: Callable[[], object] | None = attrs.field(default=None, init=False, repr=False)
    """Called after each announcement, and when no event comes any more."""
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token, init=False, repr=False)

    @property
    def subscriptions(self) -> Mapping[tuple[str, Channel], Literal["pending", "subscribed"]]:
        """The subscriptions: a new mapping from (conversation id, channel) to "pending" or "subscribed"."""
        return {key: subscription.state for key, subscription in self._subscriptions.items()}

    async def subscribe(
        self, conversation_id: str, *, channel: Channel = "main", after: Cursor | str | None = None, tag: Opaque = None
    ) -> None:
        """Listen to a conversation, whether its agent is up or not. A second call changes nothing, and gives no second snapshot.

        Args:
            conversation_id: the conversation.
            channel: "main", or "debug" for what developers want to see.
            after: the last place that the caller has seen. If the agent still knows this place, the events continue from there;
                otherwise they begin with a `Snapshot` that replaces it.
            tag: any object of the reader's own; every envelope of this subscription has it as `Envelope.tag`, also after a restart
                of the agent. A second call with another tag gives the subscription that tag; None leaves it.

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value; nothing was done.
            SessionsClosed: the `open_sessions` block was left.

        Cancellation: either the subscription exists, or nothing was done.
        """
        _require_own_run(self._token)
        subscription = self.reserve(conversation_id, channel=channel, after=after, tag=tag)
        if subscription is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._switchboard.admit(subscription)
        except BaseException:
            self.drop(subscription)
            raise

    def reserve(
        self, conversation_id: str, *, channel: Channel = "main", after: Cursor | str | None = None, tag: Opaque = None
    ) -> Subscription | None:
        """Make a pending subscription and return it; None if it exists already. For the runtime, which enrols the subscription."""
        check_id("conversation_id", conversation_id)
        if channel not in CHANNELS:
            raise ValueError(f'channel must be "main" or "debug", not {channel!r}')
        place = Cursor.of(after)
        if self._is_closed:
            raise SessionsClosed
        known = self._subscriptions.get((conversation_id, channel))
        if known is not None:
            known.tag = known.tag if tag is None else tag
            return None
        subscription = Subscription(
            conversation_id,
            channel,
            self.scope,
            self._owner,
            self._most_events,
            self._most_text,
            Mailbox(self._announce, self._recall),
            place,
        )
        subscription.tag = tag
        self._subscriptions[conversation_id, channel] = subscription
        return subscription

    def _announce(self, subscription: Subscription) -> None:
        self._announced.put(subscription)
        if self._wake is not None:
            self._wake()

    def subscription(self, conversation_id: str, channel: Channel = "main") -> Subscription:
        """Return the subscription that `reserve` made, in this call or before. For the runtime."""
        return self._subscriptions[conversation_id, channel]

    def drop(self, subscription: Subscription) -> None:
        """End one subscription: none of its events is read any more."""
        key = (subscription.conversation_id, subscription.channel)
        if self._subscriptions.get(key) is subscription:
            del self._subscriptions[key]
        self._switchboard.withdraw(subscription)
        subscription.close()
        self._recall(subscription)

    def _recall(self, subscription: Subscription) -> Sequence[Envelope]:
        """Take back the events of a subscription that were taken and not handed to the reader yet."""
        if not self._ready:
            return ()
        key = (subscription.conversation_id, subscription.channel)
        taken = [envelope for envelope in self._ready if (envelope.conversation_id, envelope.channel) == key]
        self._ready = deque(envelope for envelope in self._ready if (envelope.conversation_id, envelope.channel) != key)
        return taken

    async def unsubscribe(self, conversation_id: str, *, channel: Channel = "main") -> None:
        """Stop listening to a conversation. Does nothing if there is no such subscription.

        Cancellation: either the subscription has ended, or it is as before.
        """
        _require_own_run(self._token)
        check_id("conversation_id", conversation_id)
        await trio.lowlevel.checkpoint()
        if (subscription := self._subscriptions.get((conversation_id, channel))) is not None:
            self.drop(subscription)

    def close(self) -> None:
        """End all subscriptions. A task that reads gets `SessionsClosed`. For the runtime."""
        self._is_closed = True
        for subscription in tuple(self._subscriptions.values()):
            self.drop(subscription)
        self._announced.close()
        if self._wake is not None:
            self._wake()

    def hang_up(self) -> None:
        """Note that no event comes any more: a reader gets what is there, and then `SessionsClosed`. For the runtime."""
        self._announced.end()
        if self._wake is not None:
            self._wake()

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection  # an interrupt between the bell's note of the task and the task's sleep would break the bell
    async def __anext__(self) -> Envelope:
        """Return the next event.

        Raises:
            SessionsClosed: all events were read, and no more can come.

        Cancellation: either an event is returned, or nothing was taken.
        """
        _require_own_run(self._token)
        if self._ready:
            await trio.lowlevel.checkpoint()
        announced = self._announced
        while not self._ready:
            if announced.count:
                await trio.lowlevel.checkpoint()
            elif announced.is_ended:
                await trio.lowlevel.checkpoint()
                raise SessionsClosed
            else:
                await trio.lowlevel.wait_task_rescheduled(announced.waiter())
            # Cancellation: from here to the reader no checkpoint can lose what is taken.
            if announced.count:
                self._ready.extend(announced.take().take())
        return self._ready.popleft()

    def batches(self) -> AsyncIterator[Sequence[Envelope]]:
        """Return an iterator over batches. A batch is everything that there is at one wake-up; it is never empty."""
        return _Batches(self, self._announced, self._token)

    def take_nowait(self) -> Sequence[Envelope]:
        """Return the next batch without waiting. It may be called between two steps of Trio, in the thread of the run.

        Returns:
            What `batches` would return now; never empty.

        Raises:
            trio.WouldBlock: there is nothing to take.
            SessionsClosed: all events were read, and no more can come.
        """
        if left := self.take_left():
            return left
        if batch := self._announced.take_events():
            return batch
        if self._announced.is_ended:
            raise SessionsClosed
        raise trio.WouldBlock

    def call_when_ready(self, wake: Callable[[], object]) -> None:
        """Have a function called whenever `take_nowait` may have something new to say. For a reader that does not run on Trio.

        Args:
            wake: synchronous; called in the task that publishes, so it must be quick and must not raise. Replaces an earlier one.
        """
        self._wake = wake

    def take_left(self) -> Sequence[Envelope]:
        """Return what was taken and not handed out one by one. For `batches`."""
        left = tuple(self._ready)
        self._ready.clear()
        return left


@attrs.define(eq=False)
class _Batches:
    """Reads everything that there is at each wake-up. It is one coroutine deep: this is the way of many events to many readers."""

    _subscriber: Subscriber
    _announced: Announcements
    _token: trio.lowlevel.TrioToken

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection  # an interrupt between the bell's note of the task and the task's sleep would break the bell
    async def __anext__(self) -> Sequence[Envelope]:
        """Return the next batch.

        Raises:
            SessionsClosed: all events were read, and no more can come.

        Cancellation: either a batch is returned, or nothing was taken.
        """
        _require_own_run(self._token)
        if left := self._subscriber.take_left():
            await trio.lowlevel.cancel_shielded_checkpoint()
            return left
        announced = self._announced
        batch: Sequence[Envelope] = ()
        while not batch:
            if announced.count:
                await trio.lowlevel.checkpoint()
            elif announced.is_ended:
                await trio.lowlevel.checkpoint()
                raise SessionsClosed
            else:
                await trio.lowlevel.wait_task_rescheduled(announced.waiter())
            # Cancellation: from here to the reader no checkpoint can lose the batch.
            batch = announced.take_events()
        return batch

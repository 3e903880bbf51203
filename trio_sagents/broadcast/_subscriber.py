"""A subscriber: the mailbox of one task of the host. It is one memory channel, fed by any number of conversations.

The channel carries subscriptions, not events. Each subscription is in it at most once, until it is taken. So the channel is bounded by the
number of subscriptions, `send_nowait` cannot block, the conversations take turns, and a noisy conversation never pushes out a quiet one.
How a reader waits is in `_announcements`.
"""

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol, Self

import attrs
import trio

from trio_sagents.broadcast._announcements import Announcements
from trio_sagents.broadcast._subscription import Mailbox, Subscription
from trio_sagents.data.cursors import CHANNELS, Channel, Cursor
from trio_sagents.data.events import Envelope
from trio_sagents.data.ids import check_id
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


@attrs.define(eq=False)
class Subscriber:
    """A mailbox of events. It never ends by itself: after an agent's end the subscription is pending, until the next agent starts.

    Made by `Sessions.open_subscriber` and `Sessions.watch`. Reading is safe to cancel: no event is lost.
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

    @property
    def subscriptions(self) -> Mapping[tuple[str, Channel], Literal["pending", "subscribed"]]:
        """The subscriptions: a new mapping from (conversation id, channel) to "pending" or "subscribed"."""
        return {key: subscription.state for key, subscription in self._subscriptions.items()}

    async def subscribe(self, conversation_id: str, *, channel: Channel = "main", after: Cursor | str | None = None) -> None:
        """Listen to a conversation, whether its agent is up or not. A second call changes nothing, and gives no second snapshot.

        Args:
            conversation_id: the conversation.
            channel: "main", or "debug" for what developers want to see.
            after: the last place that the caller has seen. If the agent still knows this place, the events continue from there;
                otherwise they begin with a `Snapshot` that replaces it.

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value; nothing was done.
            SessionsClosed: the `open_sessions` block was left.

        Cancellation: either the subscription exists, or nothing was done.
        """
        subscription = self.reserve(conversation_id, channel=channel, after=after)
        if subscription is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._switchboard.admit(subscription)
        except BaseException:
            self.drop(subscription)
            raise

    def reserve(self, conversation_id: str, *, channel: Channel = "main", after: Cursor | str | None = None) -> Subscription | None:
        """Make a pending subscription and return it; None if it exists already. For the runtime, which enrols the subscription."""
        check_id("conversation_id", conversation_id)
        if channel not in CHANNELS:
            raise ValueError(f'channel must be "main" or "debug", not {channel!r}')
        place = Cursor.of(after)
        if self._is_closed:
            raise SessionsClosed
        if (conversation_id, channel) in self._subscriptions:
            return None
        subscription = Subscription(
            conversation_id,
            channel,
            self.scope,
            self._owner,
            self._most_events,
            self._most_text,
            Mailbox(self._announced.put, self._recall),
            place,
        )
        self._subscriptions[conversation_id, channel] = subscription
        return subscription

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

    def hang_up(self) -> None:
        """Note that no event comes any more: a reader gets what is there, and then `SessionsClosed`. For the runtime."""
        self._announced.end()

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection  # an interrupt between the bell's note of the task and the task's sleep would break the bell
    async def __anext__(self) -> Envelope:
        """Return the next event.

        Raises:
            SessionsClosed: all events were read, and no more can come.

        Cancellation: either an event is returned, or nothing was taken.
        """
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
        return _Batches(self, self._announced)

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

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection  # an interrupt between the bell's note of the task and the task's sleep would break the bell
    async def __anext__(self) -> Sequence[Envelope]:
        """Return the next batch.

        Raises:
            SessionsClosed: all events were read, and no more can come.

        Cancellation: either a batch is returned, or nothing was taken.
        """
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
            # A subscription that is announced again while this loop runs waits for the next wake-up.
            for _ in range(announced.count):
                events = announced.take().take()
                batch = (*batch, *events) if batch else events
        return batch

"""The announcements of one subscriber: a memory channel of subscriptions that have something to take, with a bell for the readers.

The channel carries the subscriptions. A reader waits at the bell instead of in `receive`, so it waits one coroutine deep, and a wake-up
raises no `WouldBlock` and makes no value to hand over. Waiting in `receive` costs a third more for each wake-up, and then a broadcast of
single events to many readers costs more than a channel of events for each of them.

A ring hands over nothing: the reader that wakes looks into the channel, and may find that another reader was quicker. So a reader that is
cancelled has taken nothing, and a ring for a reader that was cancelled at the same time is not lost, because the subscription is still in
the channel and the next reader looks before it waits.
"""

import math
from collections.abc import Callable, Sequence

import attrs
import trio

from trio_sagents.broadcast._subscription import Subscription
from trio_sagents.data.events import Envelope


@attrs.define(eq=False)
class Announcements:
    """The subscriptions of one subscriber that have something to take, in the order in which they were announced."""

    count: int = 0
    # Invariant: the number of subscriptions in the channel.
    is_ended: bool = False
    """Whether no subscription is announced any more."""
    _waiting: dict[trio.lowlevel.Task, None] = attrs.field(factory=dict)
    """The tasks that wait for the bell, in the order in which they came; usually none or one."""
    _send: "trio.MemorySendChannel[Subscription]" = attrs.field(init=False)
    _receive: "trio.MemoryReceiveChannel[Subscription]" = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Subscription](math.inf)

    def put(self, subscription: Subscription) -> None:
        """Announce a subscription, and wake a reader.

        Raises:
            trio.ClosedResourceError, trio.BrokenResourceError: nobody reads any more.
        """
        self._send.send_nowait(subscription)
        self.count += 1
        if self._waiting:
            self._wake(next(iter(self._waiting)))

    def take(self) -> Subscription:
        """Return the next subscription; call this only if `count` is not 0."""
        self.count -= 1
        return self._receive.receive_nowait()

    def take_events(self) -> Sequence[Envelope]:
        """Return the events of all subscriptions that are announced now; may be empty, as a subscription may be voided.

        A subscription that is announced again meanwhile waits for the next call.
        """
        batch: Sequence[Envelope] = ()
        for _ in range(self.count):
            events = self.take().take()
            batch = (*batch, *events) if batch else events
        return batch

    def end(self) -> None:
        """Stop announcing. What was announced can still be taken; readers that wait are woken."""
        self.is_ended = True
        self._send.close()
        for task in tuple(self._waiting):
            self._wake(task)

    def close(self) -> None:
        """End, and drop what was not taken."""
        self._receive.close()
        self.count = 0
        self.end()

    def waiter(self) -> Callable[[trio.lowlevel.RaiseCancelT], trio.lowlevel.Abort]:
        """Have the bell wake the calling task, which then waits with `wait_task_rescheduled`; return the abort function for that.

        No checkpoint until the task waits: the bell wakes tasks that sleep.
        """
        waiting, task = self._waiting, trio.lowlevel.current_task()
        waiting[task] = None

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            # Cancellation: nothing was taken. A ring that came before has removed the task, and then this is not called.
            del waiting[task]
            return trio.lowlevel.Abort.SUCCEEDED

        return abort

    def _wake(self, task: trio.lowlevel.Task) -> None:
        del self._waiting[task]
        trio.lowlevel.reschedule(task)

"""Ending the claims of a node: those of agents that end together by one call, and again until the engine has heard it."""

from collections.abc import Callable, Container, Sequence
from typing import Final

import attrs
import trio

from trio_sagents.nodes._calls import CallFailed, Calls, any_answer
from trio_sagents.nodes._ports import Cluster
from trio_sagents.supervisor._leases import RENEWALS

BATCH: Final = 1000
"""Conversations that are released by one call."""


@attrs.define(eq=False)
class _Batch:
    """What is sent together."""

    ids: dict[str, None] = attrs.field(factory=dict)
    sent: trio.Event = attrs.field(factory=trio.Event)
    """Set when the calls have ended, well or not."""


@attrs.define(eq=False)
class Releases:
    """The claims of one node that are to end."""

    cluster: Cluster
    calls: Calls
    patience: float
    """Seconds for which somebody waits for a release: whoever ends an agent does."""
    node: Callable[[], tuple[str, str]]
    """Returns the id and the name of the node, as they are now."""
    held: Container[str]
    """Conversation ids that the node has claimed, and must not release."""
    _next: _Batch = attrs.field(factory=_Batch)
    _sending: _Batch | None = None
    """What is under way."""
    _some: trio.Event = attrs.field(factory=trio.Event)
    """Set when there is something to release."""

    async def release(self, conversation_id: str) -> None:
        """Release a conversation, and wait for that, for a bounded time. What the engine has not heard is tried again later.

        Cancellation: whoever was cancelled waits for this all the same, bounded.
        """
        batch = self._next
        batch.ids[conversation_id] = None
        self._some.set()
        with trio.move_on_after(self.patience, shield=True):
            await batch.sent.wait()

    async def wait_released(self, conversation_id: str) -> None:
        """Wait until no release of an earlier claim can undo the next claim. Cancellation: nothing is changed, or it is not released."""
        while (sending := self._sending) is not None and conversation_id in sending.ids:
            await sending.sent.wait()
        self._next.ids.pop(conversation_id, None)

    async def run(self) -> None:
        """Release what is to be released, until cancelled."""
        while True:
            while not self._next.ids:
                self._some = trio.Event()
                await self._some.wait()
            await trio.lowlevel.checkpoint()  # agents that end in the same moment are released by the same call
            batch, self._next = self._next, _Batch()
            self._sending = batch
            is_done = await self._send(tuple(batch.ids))
            self._sending = None
            batch.sent.set()
            if not is_done:
                # A claim does not end by itself while its node lives, so it is tried again.
                self._next.ids.update({one: None for one in batch.ids if one not in self.held})
                await trio.sleep(self.calls.patience / RENEWALS)

    async def _send(self, conversation_ids: Sequence[str]) -> bool:
        node_id, name = self.node()
        try:
            for start in range(0, len(conversation_ids), BATCH):
                await self.calls.ask(any_answer, self.cluster.release, conversation_ids[start : start + BATCH], node_id)
        except CallFailed as exc:
            self.calls.log(exc, "node %r could not release %d conversations; trying again", name, len(conversation_ids))
            return False
        return True

"""Several nodes in one run: blocks of `open_sessions` that share a cluster and a store."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import trio

from tests.support.scenarios import make_config
from trio_sagents import Envelope, MemoryStore, Sessions, Snapshot, Subscriber, TextDelta, open_sessions
from trio_sagents.cluster import MemoryCluster
from trio_sagents.data.events import AgentShutdown, ChainError, Gap, MessageCompleted, ModelRetrying
from trio_sagents.testing import CrashStore, FaultyCluster


@attrs.define(eq=False)
class Nodes:
    """What several nodes share."""

    store: Any = attrs.field(factory=MemoryStore)
    cluster: Any = attrs.field(factory=MemoryCluster)
    router: Any = None
    settings: dict[str, Any] = attrs.field(factory=dict)

    @asynccontextmanager
    async def node(self, router: Any = None, *, cluster: Any = None, recover: bool = False, **settings: Any) -> AsyncIterator[Sessions]:
        """Open one node."""
        made = {"store": self.store, "cluster": cluster or self.cluster, **self.settings, **settings}
        async with open_sessions(make_config(router or self.router, **made), recover=recover) as sessions:
            yield sessions


@asynccontextmanager
async def two_nodes(router: Any = None, **settings: Any) -> AsyncIterator[tuple[Sessions, Sessions]]:
    """Open two nodes."""
    nodes = Nodes(router=router, settings=settings)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(nodes.node())
        other = await stack.enter_async_context(nodes.node())
        yield one, other


@attrs.define(eq=False)
class Killable:
    """A node in a task of its own, which can end like a process that is killed: nothing that it does counts any more."""

    nodes: Nodes
    seed: int = 0
    """Of the faults of its view."""
    view: FaultyCluster = attrs.field(init=False)
    disk: CrashStore = attrs.field(init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self.view = FaultyCluster(self.nodes.cluster, self.seed)
        self.disk = CrashStore(inner=self.nodes.store)

    async def run(self, task_status: trio.TaskStatus[Sessions] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the node until it is killed, or closed by its scope."""

        async def life() -> None:
            with self.scope:
                async with self.nodes.node(cluster=self.view, store=self.disk) as sessions:
                    task_status.started(sessions)
                    await trio.sleep_forever()

        await self.disk.live(life)

    def kill(self) -> None:
        """Kill the node, now."""
        self.view.is_dead = True
        self.disk.is_frozen = True
        self.scope.cancel()


class Reader:
    """A viewer that keeps the text of every message as it was told, and checks the numbers."""

    def __init__(self, conversation: str = "c") -> None:
        self.conversation = conversation
        self.completed: dict[str, str] = {}
        self.streamed: dict[str, str] = {}
        self.envelopes: list[Envelope] = []
        self.place: tuple[str, int] | None = None

    def take(self, envelope: Envelope) -> None:
        """Take one event."""
        self.envelopes.append(envelope)
        event = envelope.event
        match event:
            case Snapshot(streaming=streaming):
                self.streamed = {}
                if streaming is not None:
                    self.streamed[streaming.message_id] = "".join(getattr(part, "text", "") for part in streaming.parts)
                self.place = envelope.incarnation, envelope.seq
                return
            case Gap():
                self.place = envelope.incarnation, envelope.seq
                return
            case AgentShutdown() if self.place == (envelope.incarnation, envelope.seq):
                return  # the agent is lost: this event has no number of its own
            case TextDelta(text=text, message_id=message_id, offset=offset):
                known = self.streamed.get(message_id, "")
                assert offset == len(known), (offset, known, event)
                self.streamed[message_id] = known + text
            case ModelRetrying(message_id=message_id):
                self.streamed.pop(message_id, None)
            case ChainError(unsaved=True):
                self.streamed = {}
            case MessageCompleted(message=message) if message.role == "assistant":
                known = self.streamed.pop(message.message_id, None)
                assert known is None or known == message.text, (known, message.text)
                self.completed[message.message_id] = message.text
        if self.place is not None and self.place[0] == envelope.incarnation:
            assert envelope.first_seq == self.place[1] + 1, (self.place, envelope)
        self.place = envelope.incarnation, envelope.seq

    async def read(self, subscriber: Subscriber, until: Callable[[Envelope], bool] = lambda _: False) -> None:
        """Read until an event is the last one that is wanted."""
        async for envelope in subscriber:
            self.take(envelope)
            if until(envelope):
                return

    def kinds(self) -> Sequence[str]:
        """Return the names of the events."""
        return [type(envelope.event).__name__ for envelope in self.envelopes]

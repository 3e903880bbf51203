"""A conversation over several lives of its process, and the effects of its tools in all of these lives."""

import contextlib
import datetime
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import attrs
import trio

from tests.support.stores import Backend, MemoryBackend, SqliteBackend
from trio_sagents import (
    Agent,
    AgentHandle,
    Approvals,
    Approve,
    Commit,
    Completed,
    Conversation,
    DecisionRecord,
    Interrupt,
    Interrupted,
    Message,
    PendingCall,
    Receipt,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    StatusChanged,
    ToolContext,
    TurnOutcome,
    open_sessions,
)
from trio_sagents.testing import Reply, ScriptedModel
from trio_sagents.testing.machines import lockstep_threads

Meanwhile = Literal["awake", "asleep", "stopped", "restarted", "crashed"]
MEANWHILE: Sequence[Meanwhile] = ("awake", "asleep", "stopped", "restarted", "crashed")
"""What happens to the agent between a question and its answer."""
IDLE = 300.0
"""Seconds after which an idle agent leaves."""
CONVERSATION = "c"
BEGIN = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
"""The instant at which the virtual clock begins, for tests that use `instants`."""


@attrs.define(eq=False)
class Effects:
    """The effects of tools, over all lives. They stand for the outside world, which no crash undoes."""

    done: list[tuple[str, Mapping[str, Any]]] = attrs.field(factory=list)
    """(tool, arguments) of each run, in order."""
    keys: list[str] = attrs.field(factory=list)
    """The idempotency key of each run."""
    gates: dict[str, trio.Event] = attrs.field(factory=dict)
    """By tool: what its function waits for after its effect."""

    def tool(self, name: str, answer: Any = None) -> Any:
        """Return a tool function `name(amount: int)` that records each run."""

        async def function(amount: int, context: ToolContext) -> str:
            self.done.append((name, {"amount": amount}))
            self.keys.append(context.idempotency_key)
            await trio.lowlevel.checkpoint()
            if name in self.gates:
                await self.gates[name].wait()
            return answer if answer is not None else f"{name} {amount} done"

        function.__name__ = name
        function.__doc__ = f"Do {name}."
        return function

    def of(self, name: str) -> list[int]:
        """Return the amounts with which a tool ran, in order."""
        return [arguments["amount"] for tool, arguments in self.done if tool == name]

    @property
    def names(self) -> list[str]:
        """The tools that ran, in order."""
        return [name for name, _ in self.done]


@attrs.define(eq=False)
class WatchedStore:
    """A host's `ConversationStore` around a real store. It keeps what was committed, and fails as planned."""

    inner: Any
    commits: list[Commit] = attrs.field(factory=list)
    on_commit: Callable[[Commit], None] = lambda _: None
    """Called after the effect of each commit."""
    before_commit: Callable[[Commit], BaseException | None] = lambda _: None
    """Called before the effect of each commit. If it returns an error, the commit raises that error."""
    delay: float = 0.0

    @contextlib.asynccontextmanager
    async def open(self) -> Any:
        opening = getattr(self.inner, "open", None)
        async with opening() if opening is not None else contextlib.nullcontext():
            yield

    async def load(self, scope: Any, conversation_id: str) -> Conversation | None:
        return await self.inner.load(scope, conversation_id)

    async def commit(self, scope: Any, commit: Commit) -> int:
        error = self.before_commit(commit)
        await trio.sleep(self.delay)
        if error is not None:
            raise error
        revision = await self.inner.commit(scope, commit)
        self.commits.append(commit)
        self.on_commit(commit)
        return revision

    async def history(self, scope: Any, conversation_id: str, *, before: str | None, limit: int) -> Any:
        return await self.inner.history(scope, conversation_id, before=before, limit=limit)

    async def conversations(self, scope: Any, *, after: str | None, limit: int) -> Any:
        return await self.inner.conversations(scope, after=after, limit=limit)

    async def delete(self, scope: Any, conversation_id: str) -> bool:
        return await self.inner.delete(scope, conversation_id)


class World:
    """One store and one agent, in one process after the other.

    Args:
        agent: what answers; a function makes a new one for each process.
        backend: the store; None is one in memory.
        settings: of `SessionConfig`; `policy` may be a dict.
    """

    def __init__(self, agent: Agent | Callable[[], Agent], backend: Backend | None = None, **settings: Any) -> None:
        self.agent = agent
        self.backend: Backend = MemoryBackend() if backend is None else backend
        self.settings = {"inactivity_timeout": IDLE, **settings}
        self.policy = SessionPolicy(**self.settings.pop("policy", {}))
        self.store: WatchedStore
        self.sessions: Sessions
        self.scope = self.settings.pop("scope", None)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.__aexit__(kind, error, trace)  # noqa: ASYNC102  # it hands on to the sessions' own end, which is bounded

    async def _begin(self) -> None:
        self.store = WatchedStore(self.backend.store)
        agent = self.agent if isinstance(self.agent, Agent) else self.agent()
        config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=self.store, policy=self.policy, **self.settings)
        self.sessions = await self._stack.enter_async_context(open_sessions(config))

    # ── lives

    async def restart(self) -> None:
        """End the process in order, and begin another."""
        await self._stack.aclose()
        await self._begin()

    async def restart_with(self, meanwhile: Callable[[], None]) -> None:
        """End the process in order, do something to its store, and begin another process."""
        await self._stack.aclose()
        meanwhile()
        await self._begin()

    async def crash(self) -> None:
        """Crash, and begin another process with what is stored at this moment. Whatever the crashed process still stores is lost."""
        self.backend, old = self.backend.clone(), self._stack
        self._stack = contextlib.AsyncExitStack()
        await old.aclose()
        await self._begin()

    async def pass_time(self, how: Meanwhile) -> None:
        """Let happen what the test plans between a question and its answer."""
        match how:
            case "awake":
                await trio.sleep(1)
            case "asleep":
                await trio.sleep(IDLE + 2)
                assert not await self.sessions.running(CONVERSATION, scope=self.scope)
            case "stopped":
                await self.sessions.stop(CONVERSATION, scope=self.scope)
            case "restarted":
                await self.restart()
            case "crashed":
                await self.crash()

    # ── the front door

    async def post(self, text: str = "go", **more: Any) -> TurnOutcome:
        """Post, and wait for the outcome."""
        receipt = await self.sessions.post(CONVERSATION, text, scope=self.scope, **more)
        return await receipt.wait()

    async def ask(self, text: str = "go", **more: Any) -> Interrupt:
        """Post a message that leads to an interrupt, and return the interrupt."""
        return interrupt_in(await self.post(text, **more))

    async def resume(self, *decisions: Any, **more: Any) -> Receipt:
        """Resume with these decisions."""
        return await self.sessions.resume(CONVERSATION, decisions, **{"scope": self.scope, **more})

    async def decide(self, *decisions: Any, **more: Any) -> TurnOutcome:
        """Decide, and wait for the outcome."""
        return await (await self.resume(*decisions, **more)).wait()

    async def dismiss(self, **more: Any) -> None:
        """Acknowledge a halt."""
        await self.sessions.dismiss(CONVERSATION, **{"scope": self.scope, **more})

    # ── looking

    async def handle(self) -> AgentHandle:
        """Return the agent. If it sleeps, start it."""
        return (await self.sessions.start(CONVERSATION, scope=self.scope)).agent

    async def messages(self) -> Sequence[Message]:
        """Return the history. If the agent sleeps, start it."""
        return (await (await self.handle()).state()).messages

    async def interrupt(self) -> Interrupt | None:
        """Return the pending interrupt."""
        await self.handle()
        return (await self.sessions.agent_info(CONVERSATION, scope=self.scope)).interrupt

    async def results(self) -> Mapping[str, tuple[str, str]]:
        """Return (status, text) of the results, by the name of the tool. Of several calls of a tool, the last one counts."""
        return {result.name: (result.status, result.content) for message in await self.messages() for result in message.results}

    async def records(self) -> Sequence[DecisionRecord]:
        """Return all decisions on record, in the order of the history."""
        found = [
            decision for message in await self.messages() if message.role == "tool" for decision in message.metadata.get("decisions", ())
        ]
        return [DecisionRecord(**fields) for fields in found]

    def stored_state(self) -> dict[str, Any]:
        """Return the stored state, without the history."""
        return state_in(self.backend)


def state_in(backend: Backend) -> dict[str, Any]:
    """Return the state of the conversation in a store, without the history."""
    if isinstance(backend, SqliteBackend):
        with backend._connect() as connection:
            found = connection.execute("SELECT name, body FROM state").fetchall()
        return {name: json.loads(body) for name, body in found}
    assert isinstance(backend, MemoryBackend)
    return {name: json.loads(body) for name, body in backend.store._stored[CONVERSATION].state.items()}


def forge(backend: Backend, **state: Any) -> None:
    """Change the stored state, as an attacker who can write to the store could. The store is not open meanwhile."""
    for name, value in state.items():
        if isinstance(backend, SqliteBackend):
            with contextlib.closing(sqlite3.connect(backend.path)) as connection, connection:
                connection.execute("DELETE FROM state WHERE name = ?", (name,))
                if value is not None:
                    connection.execute("INSERT INTO state SELECT number, ?, ? FROM conversations", (name, json.dumps(value)))
        else:
            assert isinstance(backend, MemoryBackend)
            stored = backend.store._stored[CONVERSATION].state
            stored.pop(name, None)
            if value is not None:
                stored[name] = json.dumps(value)


@contextlib.contextmanager
def backend_of(kind: str) -> Iterator[Backend]:
    """Make a store for one test."""
    if kind == "memory":
        yield MemoryBackend()
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, lockstep_threads():
        yield SqliteBackend(Path(folder))


def scripted(*replies: Reply, **settings: Any) -> Agent:
    """Return an agent with scripted replies."""
    return Agent(model=ScriptedModel(list(replies)), **settings)


def gated(effects: Effects, *names: str, **settings: Any) -> Approvals:
    """Return a gate before some tools."""
    return Approvals(dict.fromkeys(names, True), **settings)


def interrupt_in(outcome: TurnOutcome) -> Interrupt:
    """Return the interrupt of an outcome, which must be an interrupt."""
    assert isinstance(outcome, Interrupted), outcome
    return outcome.interrupt


def call_of(interrupt: Interrupt, name: str, number: int = 0) -> PendingCall:
    """Return the pending call of a tool."""
    return [call for call in interrupt.calls if call.name == name][number]


def text_of(outcome: TurnOutcome) -> str:
    """Return the text of an answer."""
    assert isinstance(outcome, Completed), outcome
    return outcome.message.text


def statuses(envelopes: Iterable[Any]) -> list[str]:
    """Return the published statuses, in order."""
    return [envelope.event.status.value for envelope in envelopes if isinstance(envelope.event, StatusChanged)]


async def decide_while(world: World, meanwhile: Any) -> Any:
    """Decide, and do something else while the decision is on its way to the store. Return the outcome of the turn that the decision
    continues."""
    (call,) = (await world.ask()).calls
    world.store.delay = 1.0
    outcomes: list[Any] = []

    async def decide() -> None:
        outcomes.append(await (await world.resume(Approve(call))).wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(decide)
        await trio.sleep(0.5)
        await meanwhile()
    return outcomes[0]

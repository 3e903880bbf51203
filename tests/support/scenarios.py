"""Fakes and helpers for the scenarios. They use public names only."""

import copy
import datetime
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing

from trio_sagents import (
    Agent,
    AgentShutdown,
    Commit,
    Completed,
    Conflict,
    Conversation,
    ConversationPage,
    DisplayMessage,
    Envelope,
    HistoryPage,
    MemoryStore,
    Message,
    ModelRequest,
    PersistContext,
    SessionConfig,
    SessionOpts,
    SessionPolicy,
    Sessions,
    Snapshot,
    State,
    StateRestored,
    StoredState,
    Subscriber,
    TextDelta,
    TurnEnded,
    TurnOutcome,
    open_sessions,
)
from trio_sagents.testing import ScriptedModel

NEVER = math.inf


def said(request: ModelRequest) -> str:
    """Return the last text that a person posted."""
    return next(message.text for message in reversed(request.messages) if message.role == "user")


def echo(request: ModelRequest) -> str:
    """Answer "re: " and the posted text."""
    return f"re: {said(request)}"


def make_agent(*replies: Any, tools: Sequence[Any] = (), chunk_size: int = 4, chunk_interval: float = 0.0, **settings: Any) -> Agent:
    """Return an agent with scripted replies. Without replies it echoes."""
    model = ScriptedModel(list(replies) if replies else echo, chunk_size=chunk_size, chunk_interval=chunk_interval)
    return Agent(model=model, tools=tools, **settings)


def slow_agent(text: str = "x" * 100, *, seconds: float = 100.0, **settings: Any) -> Agent:
    """Return an agent that takes `seconds` for each answer, one character after the other."""
    model = ScriptedModel(lambda request: text, chunk_size=1, chunk_interval=seconds / len(text))
    return Agent(model=model, **settings)


@attrs.define(eq=False)
class Router:
    """A router and factory in one. It keeps what it was given, and can wait or fail at either stage."""

    agent: Any = attrs.field(factory=make_agent)
    opts: SessionOpts | None = None
    config: Any = attrs.field(factory=dict)
    route_delay: float = 0.0
    build_delay: float = 0.0
    route_error: BaseException | None = None
    build_error: BaseException | None = None
    resolved: list[tuple[Any, str, Any]] = attrs.field(factory=list)
    built: list[tuple[str, Any]] = attrs.field(factory=list)

    async def resolve(self, scope: Any, conversation_id: str, request_opts: Mapping[str, Any]) -> tuple[Any, Any]:
        self.resolved.append((scope, conversation_id, request_opts))
        await trio.sleep(self.route_delay)
        if self.route_error is not None:
            raise self.route_error
        return self, self.config

    async def create_agent(self, agent_id: str, config: Any) -> Any:
        self.built.append((agent_id, config))
        await trio.sleep(self.build_delay)
        if self.build_error is not None:
            raise self.build_error
        agent = self.agent(agent_id) if callable(self.agent) else self.agent
        return agent if self.opts is None else (agent, self.opts)


class StuckRouter(Router):
    """A factory whose first agent never comes, and which takes 100 seconds to react to its cancellation."""

    async def create_agent(self, agent_id: str, config: Any) -> Any:
        if self.built:
            return await super().create_agent(agent_id, config)
        self.built.append((agent_id, config))
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(100)


@attrs.define(eq=False)
class Faults:
    """Makes the n-th call of a method fail, hang or take some time, before or after its effect. Calls count from 1."""

    calls: Counter[str] = attrs.field(factory=Counter)
    latency: dict[str, float] = attrs.field(factory=dict)
    planned: dict[tuple[str, int], tuple[str, Any]] = attrs.field(factory=dict)
    every: dict[str, BaseException] = attrs.field(factory=dict)
    """Method to the error that every call of it raises, before any effect."""

    def fail(self, method: str, n: int = 1, error: BaseException | None = None, *, after: bool = False) -> None:
        """Make the n-th call from now on raise."""
        self.planned[method, self.calls[method] + n] = ("after" if after else "before", error or OSError("the disk is full"))

    def hang(self, method: str, n: int = 1) -> None:
        """Make the n-th call from now on wait for ever."""
        self.planned[method, self.calls[method] + n] = ("hang", None)

    def slow(self, method: str, seconds: float, n: int = 1) -> None:
        """Make the n-th call from now on take that long, before its effect."""
        self.planned[method, self.calls[method] + n] = ("slow", seconds)

    async def call(self, method: str, effect: Callable[[], Any]) -> Any:
        """Carry out the planned faults, and have the effect."""
        self.calls[method] += 1
        how, what = self.planned.get((method, self.calls[method]), ("", None))
        await trio.sleep(self.latency.get(method, 0.0) + (what if how == "slow" else 0.0))
        if how == "hang":
            await trio.sleep_forever()
        if how == "before":
            raise what
        if method in self.every:
            raise self.every[method]
        result = effect()
        if hasattr(result, "__await__"):
            result = await result
        if how == "after":
            raise what
        return result


class FaultyStore:
    """A host's `ConversationStore`: a `MemoryStore` behind planned faults."""

    def __init__(self, inner: MemoryStore | None = None) -> None:
        self.inner = inner or MemoryStore()
        self.faults = Faults()
        self.commits: list[Commit] = []
        """The commits that had their effect."""

    async def load(self, scope: Any, conversation_id: str) -> Conversation | None:
        return await self.faults.call("load", lambda: self.inner.load(scope, conversation_id))

    async def commit(self, scope: Any, commit: Commit) -> int:
        async def effect() -> int:
            revision = await self.inner.commit(scope, commit)
            self.commits.append(commit)
            return revision

        return await self.faults.call("commit", effect)

    async def history(self, scope: Any, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        return await self.faults.call("history", lambda: self.inner.history(scope, conversation_id, before=before, limit=limit))

    async def conversations(self, scope: Any, *, after: str | None, limit: int) -> ConversationPage:
        return await self.faults.call("conversations", lambda: self.inner.conversations(scope, after=after, limit=limit))

    async def delete(self, scope: Any, conversation_id: str) -> bool:
        return await self.faults.call("delete", lambda: self.inner.delete(scope, conversation_id))


class DictStates:
    """A host's own `AgentPersistence`, made of a dict."""

    def __init__(self) -> None:
        self.rows: dict[str, StoredState] = {}
        self.faults = Faults()
        self.loads: list[tuple[Any, PersistContext]] = []
        self.saves: list[tuple[Any, Any, PersistContext]] = []
        self.interrupted: list[bool] = []

    async def load_state(self, scope: Any, context: PersistContext) -> StoredState | None:
        self.loads.append((scope, context))
        return await self.faults.call("load_state", lambda: copy.deepcopy(self.rows.get(context.conversation_id)))

    async def persist_state(self, scope: Any, state_data: Mapping[str, Any], context: PersistContext) -> None:
        self.saves.append((scope, state_data, context))

        def effect() -> None:
            row = self.rows.get(context.conversation_id)
            found = None if row is None else (row.epoch, row.revision)
            if (0 if row is None else row.revision) != context.revision - 1 or (row is not None and row.epoch > context.epoch):
                raise Conflict(context.conversation_id, expected=(context.epoch, context.revision - 1), found=found)
            self.rows[context.conversation_id] = StoredState(
                copy.deepcopy(dict(state_data)), context.owner, context.epoch, context.revision
            )

        await self.faults.call("persist_state", effect)

    async def set_interrupted(self, scope: Any, context: PersistContext, interrupted: bool) -> None:
        self.interrupted.append(interrupted)


class DictRows:
    """A host's own `DisplayMessagePersistence`, made of a dict, idempotent by row id."""

    def __init__(self) -> None:
        self.rows: dict[str, DisplayMessage] = {}
        self.faults = Faults()
        self.offered: list[str] = []
        self.statuses: list[tuple[str, Any]] = []

    async def save_message(self, scope: Any, message: Message, context: PersistContext) -> Sequence[DisplayMessage]:
        self.offered.append(message.message_id)

        def effect() -> Sequence[DisplayMessage]:
            row = DisplayMessage(
                f"row:{message.message_id}", message.message_id, message.role, "text", {"text": message.text}, "completed", NOW
            )
            self.rows[row.row_id] = row
            return [row]

        return await self.faults.call("save_message", effect)

    async def update_tool_status(
        self, scope: Any, status: str, tool_info: Mapping[str, Any], context: PersistContext
    ) -> DisplayMessage | None:
        self.statuses.append((status, tool_info))
        return await self.faults.call("update_tool_status", lambda: None)


NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


class Verdicts:
    """A host's `Authorizer`: it allows what `allow` says, and keeps what it was asked."""

    def __init__(self, allow: Callable[[Any, str, str], bool] = lambda scope, conversation_id, action: True, delay: float = 0.0) -> None:
        self.allow = allow
        self.delay = delay
        self.asked: list[tuple[Any, str, str]] = []

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        self.asked.append((scope, conversation_id, action))
        await trio.sleep(self.delay)
        return self.allow(scope, conversation_id, action)


def make_config(router: Any = None, *, policy: Mapping[str, Any] | None = None, **settings: Any) -> SessionConfig:
    """Return a config. `router` may be an agent. Agents do not leave by themselves unless the test says so."""
    if router is None or isinstance(router, Agent):
        router = Router(router or make_agent())
    settings.setdefault("inactivity_timeout", NEVER)
    return SessionConfig(factory_router=router, policy=SessionPolicy(**(policy or {})), **settings)


@asynccontextmanager
async def opened(router: Any = None, **settings: Any) -> AsyncIterator[Sessions]:
    """Open sessions, and check that nothing of them keeps running."""
    before = tasks_living()
    async with open_sessions(make_config(router, **settings)) as sessions:
        yield sessions
    assert before == tasks_living()


def tasks_living() -> int:
    """Return how many tasks there are in this run."""
    return trio.lowlevel.current_statistics().tasks_living


async def ask(sessions: Sessions, text: str = "hi", conversation_id: str = "c", **settings: Any) -> TurnOutcome:
    """Post, and wait for the outcome."""
    receipt = await sessions.post(conversation_id, text, **settings)
    return await receipt.wait()


async def answer_to(sessions: Sessions, text: str = "hi", conversation_id: str = "c", **settings: Any) -> str:
    """Post, and return the text of the answer."""
    outcome = await ask(sessions, text, conversation_id, **settings)
    assert isinstance(outcome, Completed), outcome
    return outcome.message.text


async def state_of(sessions: Sessions, conversation_id: str = "c", **settings: Any) -> State:
    """Return the committed state of an agent. If the agent is not up, start it."""
    info = await sessions.start(conversation_id, **settings)
    return await info.agent.state()


async def transcript(sessions: Sessions, conversation_id: str = "c", **settings: Any) -> list[tuple[str, str, str | None]]:
    """Return (role, text, stop reason) of each message."""
    state = await state_of(sessions, conversation_id, **settings)
    return [
        (message.role, message.text or " ".join(result.content for result in message.results), message.stop_reason)
        for message in state.messages
    ]


async def read_until(subscriber: Subscriber, *kinds: type, count: int = 1) -> list[Envelope]:
    """Read until `count` events of these kinds have come, the last one included."""
    envelopes: list[Envelope] = []
    while count:
        envelopes.append(await subscriber.__anext__())
        count -= isinstance(envelopes[-1].event, kinds)
    return envelopes


async def read_all(subscriber: Subscriber) -> list[Envelope]:
    """Read all that there is: until every task waits, and not for a time, because a busy machine may spend that time elsewhere."""
    envelopes: list[Envelope] = []

    async def read() -> None:
        async for envelope in subscriber:
            envelopes.append(envelope)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return envelopes


def kinds_of(envelopes: Sequence[Envelope]) -> list[type]:
    """Return the classes of the events."""
    return [type(envelope.event) for envelope in envelopes]


def of_kind(envelopes: Sequence[Envelope], *kinds: type) -> list[Any]:
    """Return the events of these kinds."""
    return [envelope.event for envelope in envelopes if isinstance(envelope.event, kinds)]


def check_no_hole(envelopes: Sequence[Envelope]) -> None:
    """Check that the numbers of one conversation's events have no gap, from its snapshot on."""
    last: int | None = None
    for envelope in envelopes:
        if isinstance(envelope.event, Snapshot):
            last = envelope.seq
            continue
        if isinstance(envelope.event, StateRestored):
            continue
        assert last is not None, f"{envelope.event} came before any snapshot"
        assert last + 1 == envelope.first_seq, f"a hole before {envelope}"
        last = None if isinstance(envelope.event, AgentShutdown) else envelope.seq


def text_in(envelopes: Sequence[Envelope]) -> str:
    """Return the streamed text."""
    return "".join(event.text for event in of_kind(envelopes, TextDelta))


def outcomes_in(envelopes: Sequence[Envelope]) -> list[TurnOutcome]:
    """Return how the turns ended."""
    return [event.outcome for event in of_kind(envelopes, TurnEnded)]


def kill_9(store: MemoryStore) -> MemoryStore:
    """Return what a process that dies now would leave in its store."""
    return copy.deepcopy(store)

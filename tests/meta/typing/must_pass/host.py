"""A host's whole program, as strict type checkers must take it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import assert_never

import attrs
import trio

from trio_sagents import (
    Agent,
    AgentHandle,
    AgentShutdown,
    Cancelled,
    Completed,
    Cursor,
    DrainReport,
    Envelope,
    Failed,
    FinishChunk,
    HistoryPage,
    Interrupted,
    MemoryStore,
    ModelChunk,
    ModelRequest,
    Receipt,
    SameScope,
    SessionConfig,
    SessionInfo,
    SessionOpts,
    SessionPolicy,
    Sessions,
    ShutdownReason,
    SingleFactoryRouter,
    Snapshot,
    SqliteStore,
    State,
    Status,
    StatusChanged,
    Subscriber,
    TextChunk,
    TextDelta,
    Tool,
    ToolContext,
    ToolResult,
    TurnLimits,
    TurnOutcome,
    Unanswered,
    UserMessage,
    envelope_to_dict,
    open_sessions,
)
from trio_sagents.models.offline import OfflineModel
from trio_sagents.testing import Call, Hang, ScriptedModel


@attrs.frozen
class User:
    user_id: str


class Words:
    def __aiter__(self) -> "Words":
        return self

    async def __anext__(self) -> ModelChunk:
        await trio.lowlevel.checkpoint()
        return FinishChunk("stop")


class MyModel:
    name: str = "mine"

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelChunk]]:
        print(request.system, [message.text for message in request.messages])
        chunks: Sequence[ModelChunk] = (TextChunk("hello"), FinishChunk("stop"))
        print(chunks)
        yield Words()


async def search(query: str, context: ToolContext, limit: int = 5) -> Sequence[Mapping[str, str]]:
    """Search."""
    print(context.idempotency_key, context.state.last_text)
    return [{"query": query}] * limit


def plain(a: int) -> ToolResult:
    """Return a result."""
    return ToolResult(str(a))


agent = Agent(
    model=MyModel(),
    system_prompt="Be brief.",
    tools=[search, plain, Tool.of(search, name="find")],
    limits=TurnLimits(max_rounds=3, turn_timeout=60),
    name="helper",
)


async def build(agent_id: str, config: object) -> tuple[Agent, SessionOpts]:
    print(agent_id, config)
    return agent, SessionOpts(supervisor_opts={"viewer_grace": 3.0}, colour="red")


class Router:
    async def resolve(self, scope: User, conversation_id: str, request_opts: Mapping[str, object]) -> tuple["Router", int]:
        return self, 3

    async def create_agent(self, agent_id: str, config: int) -> Agent:
        return agent


configs: Sequence[SessionConfig] = (
    SessionConfig(factory_router=SingleFactoryRouter(agent)),
    SessionConfig(factory_router=SingleFactoryRouter(build), store=MemoryStore(), policy=SessionPolicy(grace_period=5)),
    SessionConfig(factory_router=Router(), store=SqliteStore("a.db", synchronous="NORMAL"), authorizer=SameScope(lambda user: str(user))),
)


def say(outcome: TurnOutcome) -> str:
    match outcome:
        case Completed(message=message):
            return message.text
        case Cancelled(cause=cause):
            return cause.value
        case Failed(error=error):
            return str(error)
        case Interrupted(interrupt=interrupt):
            return interrupt.interrupt_id
        case Unanswered(reason=reason):
            return str(reason)
        case _:
            assert_never(outcome)


def show(envelope: Envelope) -> str | None:
    match envelope.event:
        case Snapshot(status=status, queued=queued):
            return f"{status.value} {queued + 1}"
        case TextDelta(text=text, offset=offset):
            return text[offset:]
        case StatusChanged(status=Status.IDLE):
            return "idle"
        case AgentShutdown(reason=ShutdownReason.CRASHED):
            return "crashed"
        case _:
            return None


async def main(sessions: Sessions, user: User) -> None:
    info: SessionInfo = await sessions.start("1", scope=user, request_opts={"a": 1})
    handle: AgentHandle = info.agent
    state: State = await handle.state()
    print(state.messages[0].text, state.last_text)
    receipt: Receipt = await sessions.post("1", UserMessage("Hello", metadata={"a": 1}), scope=user, overlap="steer", message_id="m")
    print(say(await receipt.wait()), receipt.duplicate)
    cut: TurnOutcome | None = await handle.cancel_turn()
    print(cut, await handle.wait_ended() is ShutdownReason.STOPPED)
    page: HistoryPage = await sessions.history("1", scope=user, before=None, limit=10)
    print([row.content["text"] for row in page.rows])
    async with sessions.open_subscriber(scope=user) as subscriber:
        await listen(subscriber)
    async with sessions.watch("1", scope=user, viewer="u", after=Cursor.parse("x")) as watch:
        print(watch.info.started)
        async for envelope in watch:
            print(show(envelope), envelope_to_dict(envelope)["seq"], str(envelope.cursor))
    async with sessions.presence.changes("topic") as changes:
        async for diff in changes:
            print(diff.joins, diff.leaves)
    report: DrainReport = await sessions.drain()
    print(report.cancelled, sessions.statistics().agents)


async def listen(subscriber: Subscriber) -> None:
    await subscriber.subscribe("1", channel="debug")
    async for batch in subscriber.batches():
        print(len(batch), batch[0].event)


async def run() -> None:
    async with open_sessions(configs[0]) as sessions:
        await main(sessions, User("u"))


models = (
    OfflineModel(chunk_interval=0.0),
    ScriptedModel(["a", Call("b", c=1), ["d", Call("e")], ValueError("f"), Hang()]),
    ScriptedModel(lambda request: "g"),
)
agents = tuple(Agent(model=model) for model in models)

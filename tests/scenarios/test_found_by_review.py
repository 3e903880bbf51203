"""What an attacker's review found: each of these once bricked a conversation, harmed a stranger's agent or let a secret out."""

import contextlib
import gc
import json
import math
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.scenarios import (
    DictStates,
    FaultyStore,
    Router,
    Verdicts,
    answer_to,
    ask,
    make_agent,
    make_config,
    opened,
    read_all,
    read_until,
    slow_agent,
    state_of,
    transcript,
)
from trio_sagents import (
    Agent,
    AgentNotRunning,
    ChainError,
    Completed,
    ConversationNotFound,
    Failed,
    FilePart,
    FinishChunk,
    ImagePart,
    LimitExceeded,
    MemoryStore,
    Message,
    MessageConflict,
    ModelFailed,
    PersistenceError,
    SameScope,
    SessionOpts,
    SessionPolicy,
    SessionsClosed,
    SqliteStore,
    StartFailed,
    StateError,
    StatusChanged,
    TextChunk,
    TextDelta,
    TextPart,
    ThinkingChunk,
    Todo,
    ToolCall,
    ToolCallChunk,
    ToolContext,
    TurnEnded,
    TurnLimits,
    TurnStarted,
    Usage,
    UsageChunk,
    UserMessage,
    envelope_to_dict,
    open_sessions,
)
from trio_sagents.testing import Call, Hang, ScriptedModel


def nested(levels: int) -> Any:
    """Return dicts in dicts."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


class RawModel:
    """A model that yields these chunks, whatever they are; the last list again and again."""

    name = "raw"

    def __init__(self, *answers: Sequence[Any], delay: float = 0.0) -> None:
        self.answers = list(answers)
        self.delay = delay

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[AsyncIterator[Any]]:
        chunks = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

        async def generate() -> AsyncIterator[Any]:
            for chunk in chunks:
                await trio.sleep(self.delay)
                yield chunk

        generator = generate()
        try:
            yield generator
        finally:
            await generator.aclose()


async def test_post_with_the_id_of_the_answer_that_streams(autojump_clock: Any) -> None:
    """R1: an id is taken as soon as anybody can see it: no post gets it, and the conversation loads again."""
    store = MemoryStore()
    async with opened(slow_agent(seconds=20), store=store) as sessions, sessions.watch("c") as watch:
        receipt = await sessions.post("c", "hi")
        seen = (await read_until(watch, TextDelta))[-1].event.message_id
        with pytest.raises(MessageConflict):
            await sessions.post("c", "evil", message_id=seen)
        assert isinstance(await receipt.wait(), Completed)
    async with opened(store=store) as sessions:
        ids = [message.message_id for message in (await state_of(sessions)).messages]

        assert sorted(set(ids)) == sorted(ids)
        assert 1 == ids.count(seen)


@pytest.mark.parametrize("scope", [{"user": 1}, None], ids=repr)
async def test_subscriber_with_a_scope_that_the_key_refuses(autojump_clock: Any, scope: Any) -> None:
    """R2: a scope without a key is refused at once, and nobody else's agent boots for ever because of it."""
    router = Router()
    verdicts = SameScope() if scope else SameScope(lambda scope: scope["user"])
    alice: Any = "alice" if scope else {"user": "alice"}
    async with opened(router, authorizer=verdicts) as sessions:
        with contextlib.suppress(TypeError):
            async with sessions.open_subscriber(scope=scope) as subscriber:
                with pytest.raises(TypeError):
                    await subscriber.subscribe("c")
        with trio.fail_after(5):
            await sessions.start("c", scope=alice)

        assert await sessions.running("c", scope=alice)
        assert 1 == len(router.built)


async def test_failed_write_with_two_results_in_flight(autojump_clock: Any) -> None:
    """R3: a failed write under parallel tool results is one PersistenceError of the turn; the agent stays, and goes on."""

    async def tool() -> str:
        """Do."""
        await trio.sleep(1)
        return "x"

    store = FaultyStore()
    store.faults.latency["commit"] = 0.1
    async with opened(make_agent([Call("tool"), Call("tool")], "done", "later", tools=[tool]), store=store) as sessions:
        store.faults.fail("commit", 4)
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, PersistenceError)
        await trio.sleep(1)
        assert await sessions.running("c")
        assert isinstance(await ask(sessions, "again"), Completed)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [ValueError("bad name \udcff"), Unspeakable()], ids=["surrogate", "no str"])
async def test_tool_whose_error_has_no_text_that_can_be_stored(autojump_clock: Any, error: Exception) -> None:
    """R4: whatever a tool raises, the model reads an error result and the agent stays."""

    async def tool() -> str:
        """Do."""
        raise error

    store = MemoryStore()
    async with opened(make_agent(Call("tool"), "done", tools=[tool]), store=store) as sessions:
        assert "done" == await answer_to(sessions)
        assert await sessions.running("c")
    async with opened(store=store) as sessions:
        (result,) = [one for message in (await state_of(sessions)).messages for one in message.results]

        assert "failed" == result.status
        assert type(error).__name__ in result.content


@pytest.mark.parametrize(("where", "levels"), [("metadata", 64), ("arguments", 61), ("arguments", 62), ("arguments", 63)])
async def test_nesting_that_was_accepted_loads_again(autojump_clock: Any, where: str, levels: int) -> None:
    """R5: depth is counted where a value stands: what was accepted is shown by history() and loads."""
    store = MemoryStore()
    agent = make_agent("ok") if where == "metadata" else make_agent(Call("absent", x=nested(levels)), "ok")
    message = UserMessage("x", metadata=nested(levels)) if where == "metadata" else UserMessage("x")
    async with opened(agent, store=store) as sessions:
        await ask(sessions, message)  # type: ignore[arg-type]  # ask() hands it on
        assert (await sessions.history("c")).rows
    async with opened(store=store) as sessions:
        assert "user" == (await transcript(sessions))[0][0]
        assert (await sessions.history("c")).rows


@pytest.mark.parametrize(
    "part",
    [
        lambda: FilePart(1, "text/plain", "x"),  # type: ignore[arg-type]
        lambda: FilePart(None, "text/plain", "x"),  # type: ignore[arg-type]
        lambda: ImagePart(None, url="http://x"),  # type: ignore[arg-type]
        lambda: ImagePart("image/png"),
    ],
)
async def test_part_of_the_wrong_type(autojump_clock: Any, part: Callable[[], Any]) -> None:
    """R6: a part that could never be loaded is refused before any effect."""
    async with opened() as sessions:
        with pytest.raises((TypeError, ValueError)):
            await sessions.post("c", UserMessage([part()]))
        assert "re: fine" == await answer_to(sessions, "fine")
        assert ["fine", "re: fine"] == [text for _, text, _ in await transcript(sessions)]


async def test_turn_closed_at_the_limit_with_text_that_grows_as_json(autojump_clock: Any) -> None:
    """R7: what closes a turn at max_state_bytes loads again, however much longer the text is as JSON."""
    store, policy = MemoryStore(), {"max_state_bytes": 4000, "max_message_bytes": 1000}
    async with opened(Agent(model=ScriptedModel(lambda request: "\x01" * 990)), store=store, policy=policy) as sessions:
        outcome = await ask(sessions, "h")

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
    async with opened(store=store, policy=policy) as sessions:
        assert ("user", "h", None) == (await transcript(sessions))[0]


async def test_text_of_a_store_error_stays_on_the_server(autojump_clock: Any) -> None:
    """R8, S9: what a host's store raises reaches no browser; the host's own code finds it as the cause."""
    store = FaultyStore()
    async with opened(make_agent("one", "two"), store=store) as sessions, sessions.watch("c") as watch:
        store.faults.fail("commit", 2, OSError("password=CANARY"))
        outcome = await ask(sessions)
        envelopes = await read_all(watch)

        assert isinstance(outcome, Failed)
        assert any(isinstance(envelope.event, ChainError) for envelope in envelopes)
        assert "CANARY" not in json.dumps([envelope_to_dict(envelope) for envelope in envelopes])
        assert "CANARY" in str(outcome.error.__cause__)


async def test_posts_at_once_that_are_too_much_together(autojump_clock: Any) -> None:
    """R9: what is on its way to the store counts: posts at once do not pass max_state_bytes, and what was accepted loads."""
    store, refused = FaultyStore(), []
    store.faults.latency["commit"] = 1.0
    policy = {"max_state_bytes": 8000, "max_message_bytes": 1000, "queue_limit": 100}

    async def post(message_id: str) -> None:
        try:
            await sessions.post("c", "z" * 900, message_id=message_id)
        except LimitExceeded:
            refused.append(message_id)

    async with opened(make_agent(Hang()), store=store, policy=policy) as sessions:
        await sessions.start("c")
        async with trio.open_nursery() as nursery:
            for index in range(20):
                nursery.start_soon(post, f"m{index}")
        await sessions.stop("c")
    async with opened(make_agent(Hang()), store=store.inner, policy=policy) as sessions:
        await sessions.start("c")

        assert 10 <= len(refused) < 20
        await sessions.stop("c")


async def test_delete_that_hangs(autojump_clock: Any) -> None:
    """R10: a store that never deletes blocks a start for start_timeout at most, and not the end of the block."""
    store = FaultyStore()
    store.faults.hang("delete")
    async with trio.open_nursery() as nursery:
        began = trio.current_time()

        async def delete() -> None:
            with pytest.raises((PersistenceError, SessionsClosed)):
                await sessions.delete("c")

        async with open_sessions(make_config(store=store)) as sessions:
            await ask(sessions, "hello")
            await sessions.stop("c")
            nursery.start_soon(delete)
            await trio.sleep(1)
            with contextlib.suppress(StartFailed), trio.fail_after(60):
                await sessions.start("c")

        assert trio.current_time() - began < 200


async def test_delete_that_hangs_when_the_block_ends(autojump_clock: Any) -> None:
    """R10: leaving open_sessions does not wait for a store that never deletes."""
    store = FaultyStore()
    store.faults.hang("delete")
    async with trio.open_nursery() as nursery:

        async def delete() -> None:
            with pytest.raises((PersistenceError, SessionsClosed)):
                await sessions.delete("c")

        async with open_sessions(make_config(store=store)) as sessions:
            await ask(sessions, "hello")
            await sessions.stop("c")
            nursery.start_soon(delete)
            await trio.sleep(1)
            began = trio.current_time()

        assert trio.current_time() - began < 100


async def test_deleted_and_begun_anew_elsewhere(autojump_clock: Any) -> None:
    """R17: a deletion fences the agents of before, and what was deleted is answered from no more."""
    store = MemoryStore()
    async with open_sessions(make_config(store=store)) as one, open_sessions(make_config(store=store)) as two:
        await ask(two, "old secret")
        await (await two.get("c")).wait_idle()
        assert await one.delete("c")
        await ask(one, "new")
        await (await one.get("c")).wait_idle()
        with contextlib.suppress(PersistenceError, ConversationNotFound):
            await ask(two, "again")
    async with opened(store=store) as sessions:
        assert [("user", "new"), ("assistant", "re: new")] == [(role, text) for role, text, _ in await transcript(sessions)]


async def test_pending_viewer_about_whom_the_authorizer_fails(autojump_clock: Any) -> None:
    """R13: an authorizer that raises about one viewer leaves that one pending, and harms no agent."""

    def allow(scope: Any, conversation_id: str, action: str) -> bool:
        if scope == "bob" and verdicts.asked.count(("bob", conversation_id, action)) > 1:
            raise OSError("the directory is down")
        return True

    verdicts = Verdicts(allow)
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await subscriber.subscribe("c")
        await sessions.start("c", scope="alice")
        await trio.sleep(1)

        assert await sessions.running("c", scope="alice")
        assert {"pending"} == set(subscriber.subscriptions.values())


async def test_pending_viewer_about_whom_the_authorizer_never_answers(autojump_clock: Any) -> None:
    """R13: an authorizer that hangs about one viewer keeps no other viewer waiting."""

    class Hanging(Verdicts):
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            if scope == "bob" and hanging:
                await trio.sleep_forever()
            return True

    hanging = False
    async with (
        opened(authorizer=Hanging()) as sessions,
        sessions.open_subscriber(scope="bob") as bob,
        sessions.open_subscriber(scope="carol") as carol,
    ):
        await bob.subscribe("c")
        await carol.subscribe("c")
        hanging = True
        await sessions.start("c", scope="alice")
        await trio.sleep(1)

        assert {"pending"} == set(bob.subscriptions.values())
        assert {"subscribed"} == set(carol.subscriptions.values())


async def test_stuck_threads_of_a_stopped_agent() -> None:
    """R26: threads that hang in one conversation's tools take none from another conversation's."""
    release = threading.Event()

    def stuck() -> str:
        """Hang."""
        release.wait(15)
        return "x"

    def quick() -> str:
        """Do."""
        return "x"

    bad = make_agent([Call("stuck") for _ in range(45)], tools=[stuck], limits=TurnLimits(max_parallel=50))
    good = make_agent(Call("quick"), "done", tools=[quick])
    try:
        async with open_sessions(make_config(Router(lambda agent_id: bad if "bad" in agent_id else good))) as sessions:
            await sessions.post("bad", "go")
            await trio.sleep(0.3)
            await sessions.stop("bad", grace_period=0)
            with trio.fail_after(5):
                assert "done" == await answer_to(sessions, conversation_id="good")
    finally:
        release.set()


_QUEUED = {"v": 1, "message_id": "q1", "role": "user", "parts": [{"type": "text", "text": "x"}]}
_RESULT = {"type": "tool_result", "call_id": "zz", "name": "n", "content": "c", "status": "completed"}


def queued(**fields: Any) -> str:
    return f"insert into queue(conversation, message_id, body) values (1, 'q1', '{json.dumps(_QUEUED | fields)}')"


def said(**fields: Any) -> str:
    return (
        f"insert into messages(conversation, body) values (1, '{json.dumps(_QUEUED | fields)}');"
        "update conversations set message_count = message_count + 1"
    )


_CALL = {"type": "tool_call", "call_id": "zz", "name": "n", "arguments": {}, "status": "pending"}
DAMAGE = {
    "epoch too high": "update conversations set epoch = 9007199254740992",
    "epoch at the end": "update conversations set epoch = 9223372036854775807",
    "revision too high": "update conversations set revision = 9007199254740992",
    "queue repeats the history": "insert into queue(conversation, message_id, body)"
    " select 1, 'm1', body from messages where body like '%m1%'",
    "queued answer": queued(role="assistant"),
    "queued result": queued(role="tool", parts=[_RESULT]),
    "queued call": queued(parts=[_CALL]),
    "call of a user": said(parts=[_CALL]),
    "empty id": said(message_id=""),
    "endless id": said(message_id="a" * 1_000_000),
    "draft of a user": f"insert into state values (1, 'draft', '{json.dumps(_QUEUED)}')",
    "todos with one id": """update state set body = '[{"id":1,"content":"a","status":"pending"},{"id":1,"content":"b","status":"pending"}]'
        where name = 'todos'""",
    "todo with a negative id": """update state set body = '[{"id":-1,"content":"a","status":"pending"}]' where name = 'todos'""",
    "metadata without end": """update state set body = '{"a":1e999}' where name = 'metadata'""",
    "message without end": said(metadata={"a": "QQ"}).replace('"QQ"', "1e999"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
async def test_damaged_file(tmp_path: Path, damage: str) -> None:
    """R30: what cannot be right is a StateError at the load, and the rows stay as they are."""

    def rows() -> list[Any]:
        with contextlib.closing(sqlite3.connect(path)) as database:
            tables = ("conversations", "messages", "queue", "message_ids", "state", "transcript")
            return [database.execute(f"select * from {table}").fetchall() for table in tables]

    path = tmp_path / "x.db"
    async with opened(store=SqliteStore(path)) as sessions:
        await answer_to(sessions, "hello", message_id="m1")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(DAMAGE[damage])
        database.commit()
    before = rows()
    async with opened(store=SqliteStore(path)) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")
        assert isinstance(caught.value.__cause__, StateError)
    assert before == rows()


async def test_commit_that_hangs_when_the_agent_is_stopped(autojump_clock: Any) -> None:
    """R11: a post whose write never ends is told so once its agent has ended, not when the block is left."""
    store, told = FaultyStore(), []
    async with opened(store=store) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.hang("commit")

        async def post() -> None:
            with pytest.raises(PersistenceError):
                await sessions.post("c", "hi")
            told.append(trio.current_time())

        nursery.start_soon(post)
        await trio.sleep(1)
        await sessions.stop("c")
        await trio.sleep(10)

        assert 1 == len(told)


@pytest.mark.parametrize(
    "chunk",
    [
        lambda: UsageChunk(Usage(input_tokens=math.nan)),  # type: ignore[arg-type]
        lambda: UsageChunk(Usage(input_tokens=1 + 2j)),  # type: ignore[arg-type]
        lambda: UsageChunk(Usage(output_tokens=-1)),
        lambda: ThinkingChunk("a", signature=b"x"),  # type: ignore[arg-type]
        lambda: ThinkingChunk("a", signature=5),  # type: ignore[arg-type]
        lambda: ThinkingChunk("a", signature="\ud800"),
        lambda: ThinkingChunk("a", signature="x" * 30_000_000),
    ],
    ids=["nan", "complex", "negative", "bytes", "int", "surrogate", "30 MB"],
)
async def test_usage_and_signature_that_are_nonsense(autojump_clock: Any, chunk: Callable[[], Any]) -> None:
    """R12: nonsense of a provider fails the turn, never the agent, and the conversation loads again."""
    store = MemoryStore()
    async with opened(Agent(model=RawModel([TextChunk("a"), chunk(), FinishChunk("stop")])), store=store) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ModelFailed | LimitExceeded)
        assert await sessions.running("c")
    async with opened(store=store) as sessions:
        assert ("user", "hi", None) == (await transcript(sessions))[0]
        assert "re: on" == await answer_to(sessions, "on")


def test_replay_events_without_end() -> None:
    """R14: a limit that could not be counted with is refused where the policy is built."""
    with pytest.raises((TypeError, ValueError), match="replay_events"):
        SessionPolicy(replay_events=math.inf)  # type: ignore[arg-type]


SEEDS: dict[str, Callable[[], Any]] = {
    "one id twice": lambda: {"messages": [Message("a", "user", [TextPart("x")]), Message("a", "user", [TextPart("y")])]},
    "an id that is no text": lambda: {"messages": [Message(5, "user", [TextPart("x")])]},  # type: ignore[arg-type]
    "a role that is none": lambda: {"messages": [Message("a", "boss", [TextPart("x")])]},  # type: ignore[arg-type]
    "a part without text": lambda: {"messages": [Message("a", "user", [TextPart(None)])]},  # type: ignore[arg-type]
    "a todo's id": lambda: {"todos": [Todo("one", "x")]},  # type: ignore[arg-type]
    "a todo's text": lambda: {"todos": [Todo(1, 5)]},  # type: ignore[arg-type]
}


@pytest.mark.parametrize("seed", list(SEEDS))
async def test_seed_that_could_never_be_loaded(autojump_clock: Any, seed: str) -> None:
    """R15: a seed is checked as what is loaded is: the start fails, and nothing is stored."""

    def build(agent_id: str) -> Any:
        return make_agent(), SessionOpts(fresh_state_attrs=SEEDS[seed]())

    store = MemoryStore()
    async with opened(Router(build), store=store) as sessions:
        with pytest.raises(StartFailed):
            await sessions.start("c")
        with pytest.raises(ConversationNotFound):
            await sessions.history("c")


async def test_seed_with_an_open_call(autojump_clock: Any) -> None:
    """R15: the history that a provider reads is valid, whatever the seed: each call is answered, or the start fails."""
    agent = make_agent()
    seed = [Message("a", "assistant", [ToolCall("c", "t")], "tool_calls")]
    async with opened(Router(agent, SessionOpts(fresh_state_attrs={"messages": seed}))) as sessions:
        with contextlib.suppress(StartFailed):
            await ask(sessions)
    for request in agent.model.requests:
        calls = [call.call_id for message in request.messages for call in message.calls]
        assert calls == [result.call_id for message in request.messages for result in message.results]


async def test_documents_of_agents_that_have_ended(autojump_clock: Any) -> None:
    """R16: with an AgentPersistence, nothing of a conversation stays in memory when its agent has ended."""

    class Forgetful(DictStates):
        async def persist_state(self, scope: Any, state_data: Any, context: Any) -> None: ...

    async with opened(make_agent("ok"), agent_persistence=Forgetful()) as sessions:
        await ask(sessions, message_id="a name of its own")
        await sessions.stop("c")
        gc.collect()

        assert [] == [one for one in gc.get_objects() if isinstance(one, dict) and one.get("message_id") == "a name of its own"]


async def test_message_id_that_looks_like_a_call(autojump_clock: Any) -> None:
    """R18, S1: no message id takes the place of another row: what was acknowledged stands in the transcript."""
    model = RawModel([ToolCallChunk(0, id="0", name="absent"), FinishChunk("tool_calls")], [TextChunk("d"), FinishChunk("stop")], delay=1)
    async with opened(Agent(model=model)) as sessions, sessions.watch("c") as watch:
        await sessions.post("c", "hi")
        turn_id = (await read_until(watch, TurnStarted))[-1].event.turn_id
        await sessions.post("c", "important", message_id=f"{turn_id}:call")
        await (await sessions.get("c")).wait_idle()
        rows = (await sessions.history("c")).rows

        assert ["important"] == [row.content["text"] for row in rows if row.message_id == f"{turn_id}:call"]
        assert 1 == len([row for row in rows if row.content_type == "tool_call"])


class NurseryModel(RawModel):
    """What a Trio adapter looks like: a nursery around the stream, which groups what is raised in it."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__([TextChunk("x" * 1000)] * 100)
        self.error = error

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[AsyncIterator[Any]]:
        async def failing() -> AsyncIterator[Any]:
            async for chunk in chunks:
                yield chunk
                if self.error is not None:
                    raise self.error

        async with super().stream(request) as chunks, trio.open_nursery():
            generator = failing()
            try:
                yield generator
            finally:
                await generator.aclose()


@pytest.mark.parametrize("error", [ModelFailed("overloaded", retryable=True), None], ids=["model failed", "limit"])
async def test_model_with_a_nursery(autojump_clock: Any, error: ModelFailed | None) -> None:
    """R19: a nursery in an adapter hides neither a limit nor whether a failure may be tried again."""
    async with opened(Agent(model=NurseryModel(error)), policy={"max_message_bytes": 5000}) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        if error is None:
            assert isinstance(outcome.error, LimitExceeded)
        else:
            assert isinstance(outcome.error, ModelFailed)
            assert outcome.error.retryable


async def test_preprocessor_that_raises_agent_not_running(autojump_clock: Any) -> None:
    """R21: what a preprocessor raises about another agent is no word about this one: the post ends at once."""

    async def preprocess(message: UserMessage, scope: Any) -> UserMessage:
        raise AgentNotRunning("other")

    async with opened(Router(opts=SessionOpts(supervisor_opts={"message_preprocessor": preprocess}))) as sessions:
        with trio.fail_after(100), pytest.raises(Exception):  # noqa: B017  # which one is not promised
            await sessions.post("c", "hi")
        assert await sessions.running("c")


async def test_readers_when_a_tool_ends_the_program(autojump_clock: Any) -> None:
    """R22: however the block ends, those who read from it get SessionsClosed."""

    async def tool() -> str:
        """Leave."""
        raise SystemExit(3)

    ended = []
    async with trio.open_nursery() as nursery:

        async def read(*, task_status: Any) -> None:
            with pytest.raises(SessionsClosed):
                async with sessions.open_subscriber() as subscriber:
                    await subscriber.subscribe("c")
                    task_status.started()
                    async for _ in subscriber:
                        pass
            ended.append("closed")

        with contextlib.suppress(BaseException):
            async with open_sessions(make_config(make_agent(Call("tool"), tools=[tool]))) as sessions:
                await nursery.start(read)
                await sessions.post("c", "hi")
                await trio.sleep(10)
        await trio.sleep(100)
        assert ["closed"] == ended
        nursery.cancel_scope.cancel()


async def test_initial_subscriber_whom_the_authorizer_refuses(autojump_clock: Any) -> None:
    """R23: who starts an agent admits nobody whom the authorizer would refuse."""
    verdicts = Verdicts(lambda scope, conversation_id, action: scope == "alice")
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="mallory") as mallory:
        await sessions.start("c", scope="alice", initial_subscribers=[mallory])
        await ask(sessions, scope="alice")

        assert "subscribed" not in mallory.subscriptions.values()
        assert [] == await read_all(mallory)


async def test_tool_that_publishes_what_is_no_event(autojump_clock: Any) -> None:
    """R24: what is no event is a TypeError where it is published, and no viewer gets it."""

    async def tool(ctx: ToolContext) -> str:
        """Do."""
        with pytest.raises(TypeError):
            ctx.publish("garbage")  # type: ignore[arg-type]
        return "ok"

    async with opened(make_agent(Call("tool"), "done", tools=[tool])) as sessions, sessions.watch("c") as watch:
        assert "done" == await answer_to(sessions)
        envelopes = await read_all(watch)

        assert [] == [envelope for envelope in envelopes if isinstance(envelope.event, str)]
        json.dumps([envelope_to_dict(envelope) for envelope in envelopes])


async def test_text_of_a_tools_base_exception_stays_on_the_server(autojump_clock: Any) -> None:
    """R27, S9: the words of a crash reach no browser, in no event."""

    class Base(BaseException):
        pass

    async def tool() -> str:
        """Crash."""
        raise Base("CANARY")

    async with opened(make_agent(Call("tool"), tools=[tool])) as sessions, sessions.watch("c") as watch:
        await ask(sessions)
        await trio.sleep(1)
        envelopes = await read_all(watch)

        assert any(isinstance(envelope.event, StatusChanged) for envelope in envelopes)
        assert any(isinstance(envelope.event, TurnEnded) for envelope in envelopes)
        assert "CANARY" not in json.dumps([envelope_to_dict(envelope) for envelope in envelopes])


async def test_metadata_counts(autojump_clock: Any) -> None:
    """R28: max_message_bytes is about all of a message, the metadata included."""
    async with opened(policy={"max_message_bytes": 1000}) as sessions:
        with pytest.raises(LimitExceeded):
            await sessions.post("c", UserMessage("x", metadata={"a": "y" * 10_000}))
        assert "re: fine" == await answer_to(sessions, "fine")


@pytest.mark.parametrize("before", ["-2", " 3 ", "1_0", 3], ids=repr)
async def test_split_history_with_a_cursor_that_is_none(autojump_clock: Any, before: Any) -> None:
    """R29: with an AgentPersistence, too, a cursor that history() did not give is refused."""
    async with opened(agent_persistence=DictStates()) as sessions:
        for index in range(4):
            await ask(sessions, str(index))
        page = await sessions.history("c", limit=3)
        assert 3 == len((await sessions.history("c", limit=3, before=page.before)).rows)
        with pytest.raises((TypeError, ValueError)):
            await sessions.history("c", limit=3, before=before)

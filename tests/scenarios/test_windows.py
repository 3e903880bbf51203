"""Long lives: what an agent keeps of its conversation does not grow, and nothing that was said is lost or forgotten."""

import contextlib
import sqlite3
from typing import Any

import pytest
import trio

from tests.support.models import RawModel
from tests.support.records import check_request
from tests.support.scenarios import DictStates, FaultyStore, Router, answer_to, ask, make_agent, opened, state_of
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Approvals,
    Approve,
    Completed,
    Edit,
    Failed,
    FinishChunk,
    Halt,
    Interrupted,
    LimitExceeded,
    MemoryStore,
    Message,
    MessageConflict,
    Middleware,
    MiddlewareContext,
    ModelRequest,
    NotInterrupted,
    Reject,
    SessionConfig,
    SessionOpts,
    SessionPolicy,
    SingleFactoryRouter,
    SqliteStore,
    StartFailed,
    TextChunk,
    TextPart,
    ToolCallChunk,
    ToolContext,
    TurnSteps,
    UserMessage,
    open_sessions,
)
from trio_sagents.agent import converse
from trio_sagents.testing import Call, CrashAt, CrashStore, ScriptedModel
from trio_sagents.testing.invariants import check_messages

WINDOW = {"window": 4}


async def whole_history(store: Any, conversation_id: str = "c") -> list[Any]:
    """Return all records of a conversation: the older ones by page, and the window."""
    found: list[Any] = []
    before: str | None = None
    while True:
        page = await store.older_messages(None, conversation_id, before=before, limit=3)
        found[:0] = page.messages
        before = page.before
        if before is None:
            return found


async def test_post_when_the_window_is_small(autojump_clock: Any, backend: Backend) -> None:
    """The model reads the window, and people read everything: in the history, in the list, and by page. A restart changes nothing."""
    read: list[list[str]] = []

    def reply(request: ModelRequest) -> str:
        check_request(request.messages)
        read.append([message.text for message in request.messages])
        return f"re {read[-1][-1]}"

    for life in range(2):
        async with opened(Agent(model=ScriptedModel(reply)), store=backend.store, policy=WINDOW) as sessions:
            for number in range(5):
                await answer_to(sessions, f"{life}{number}")
            state = await state_of(sessions)
            rows = (await sessions.history("c")).rows
            (item,) = (await sessions.conversations()).items
            info = await sessions.get("c")
            assert 10 * life + 10 == len(rows) == item.message_count == (await info.info()).message_count
            assert len(state.messages) + state.older == len(rows)

    assert max(map(len, read)) <= 5
    assert ["02", "re 02", "03"] == read[3]
    assert ["04", "re 04", "10"] == read[5]


async def test_post_of_an_old_message(autojump_clock: Any, backend: Backend) -> None:
    """A message that has left the window is a duplicate with the outcome that it had; with other content it is a conflict."""
    first: Any = None
    for life in range(2):
        async with opened(make_agent(), store=backend.store, policy=WINDOW) as sessions:
            if not life:
                first = await (await sessions.post("c", "first", message_id="m")).wait()
                for number in range(6):
                    await ask(sessions, str(number))
            again = await sessions.post("c", "first", message_id="m")
            outcome = await again.wait()
            answer_id = first.message.message_id
            for message_id, content in (("m", "other"), (answer_id, "re: first"), ("m", UserMessage("first", metadata={"a": 1}))):
                with pytest.raises(MessageConflict):
                    await sessions.post("c", content, message_id=message_id)
            state = await state_of(sessions)

            assert again.duplicate
            assert isinstance(outcome, Completed)
            assert first == outcome
            assert state.older
            assert "m" not in {message.message_id for message in state.messages}


class AsksSlowly(MemoryStore):
    """A store that takes ten seconds to say what is before the window."""

    async def recall(self, *args: Any, **inside: Any) -> Any:
        found = await super().recall(*args, **inside)
        await trio.sleep(10)
        return found


async def test_post_of_an_old_message_while_a_checkpoint_is_made(autojump_clock: Any) -> None:
    """While the store is asked about an id, the message with this id is posted, answered, and leaves the window: it is known."""
    async with opened(make_agent(), store=AsksSlowly(), policy=WINDOW) as sessions:
        for number in range(3):
            await ask(sessions, str(number))
        receipts: list[Any] = []

        async def post() -> None:
            receipts.append(await sessions.post("c", "hi", message_id="m"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            await trio.sleep(5)
            nursery.start_soon(post)
            await trio.sleep(5.5)
            for number in range(4):
                await ask(sessions, str(number))
        rows = (await sessions.history("c")).rows

    assert [False, True] == [receipt.duplicate for receipt in receipts]
    assert 1 == [row.message_id for row in rows].count("m")


def paying(tool: Any) -> Agent:
    """Return an agent that asks before it pays, for each message that says so."""

    def reply(request: ModelRequest) -> Any:
        last = request.messages[-1]
        return Call("pay") if last.role == "user" and "pay" in last.text else "done"

    return Agent(model=ScriptedModel(reply), tools=[tool], middleware=[Approvals({"pay": True})])


async def test_decision_about_an_old_call(autojump_clock: Any, backend: Backend) -> None:
    """A decision about a call that has left the window is on record: made again it is a duplicate, and another one is refused."""
    runs: list[int] = []

    async def pay() -> str:
        """Pay."""
        runs.append(1)
        return "paid"

    call: Any = None
    for life in range(2):
        async with opened(paying(pay), store=backend.store, policy=WINDOW) as sessions:
            if not life:
                waits = await ask(sessions, "pay")
                assert isinstance(waits, Interrupted)
                (call,) = waits.interrupt.calls
                first = await (await sessions.resume("c", [Approve(call)])).wait()
                for number in range(6):
                    await ask(sessions, str(number))
            await sessions.start("c")
            again = await sessions.resume("c", [Approve(call)])
            outcome = await again.wait()
            with pytest.raises(AlreadyDecided) as caught:
                await sessions.resume("c", [Reject(call, "no")])
            unknown = Approve(call.interrupt_id, "unknown", call.digest)
            with pytest.raises(NotInterrupted):
                await sessions.resume("c", [unknown])

            assert "approve" == caught.value.decided
            assert again.duplicate
            assert isinstance(outcome, Completed)
            assert isinstance(first, Completed)
            assert first.message == outcome.message
            assert [1] == runs
            assert (await state_of(sessions)).older


async def test_decision_when_the_state_is_full(autojump_clock: Any, backend: Backend) -> None:
    """A decision that says much is taken in a full state, because older turns can leave the window; one that says too much is not."""
    ran: list[str] = []

    async def pay(note: str = "") -> str:
        """Pay."""
        ran.append(note)
        return "paid"

    async with opened(paying(pay), store=backend.store, policy={"max_state_bytes": 6000}) as sessions:
        for size in (1000, 800, 100):
            await ask(sessions, "x" * size)
        waits = await ask(sessions, "pay")
        assert isinstance(waits, Interrupted)
        (call,) = waits.interrupt.calls
        with pytest.raises(LimitExceeded):
            await sessions.resume("c", [Edit(call, {"note": "y" * 5000})])
        outcome = await (await sessions.resume("c", [Edit(call, {"note": "y" * 600})])).wait()
        assert isinstance(outcome, Completed)
    async with opened(paying(pay), store=backend.store, policy={"max_state_bytes": 6000}) as sessions:
        assert isinstance(await ask(sessions, "x" * 1000), Completed)

    assert ["y" * 600] == ran


async def test_old_decision_while_a_call_waits(autojump_clock: Any, backend: Backend) -> None:
    """An old decision and a new one in one call of `resume`: the new one is made, and the old one is known."""

    async def pay() -> str:
        """Pay."""
        return "paid"

    async with opened(paying(pay), store=backend.store, policy=WINDOW) as sessions:
        calls = []
        for text in ("pay", "1", "2", "3", "4", "pay"):
            outcome = await ask(sessions, text)
            if isinstance(outcome, Interrupted):
                calls.append(outcome.interrupt.calls[0])
                if len(calls) == 1:
                    await (await sessions.resume("c", [Approve(calls[0])])).wait()
        receipt = await sessions.resume("c", [Approve(call) for call in calls])

        assert not receipt.duplicate
        assert isinstance(await receipt.wait(), Completed)


async def test_dismissal_of_an_old_halt(autojump_clock: Any, backend: Backend) -> None:
    """A halt that was acknowledged, and has left the window, is known: acknowledging it again does nothing; an unknown one is refused."""

    async def stop() -> Halt:
        """Stop."""
        return Halt("it is hot")

    def reply(request: ModelRequest) -> Any:
        last = request.messages[-1]
        return Call("stop") if last.role == "user" and "stop" in last.text else "done"

    interrupt_id = ""
    for life in range(2):
        async with opened(Agent(model=ScriptedModel(reply), tools=[stop]), store=backend.store, policy=WINDOW) as sessions:
            if not life:
                halted = await ask(sessions, "stop")
                assert isinstance(halted, Interrupted)
                interrupt_id = halted.interrupt.interrupt_id
                await sessions.dismiss("c", interrupt_id=interrupt_id)
                for number in range(6):
                    await ask(sessions, str(number))
            await sessions.dismiss("c", interrupt_id=interrupt_id)
            with pytest.raises(NotInterrupted):
                await sessions.dismiss("c", interrupt_id="unknown")
            assert (await state_of(sessions)).older


async def test_call_with_an_old_id(autojump_clock: Any, backend: Backend) -> None:
    """A model that repeats the id of a call that has left the window gets another id: the key that a tool is given is never used twice."""
    keys: list[str] = []

    async def note(context: ToolContext) -> str:
        """Note."""
        keys.append(context.call_id)
        return "noted"

    asks = [ToolCallChunk(0, "call-1", "note", "{"), ToolCallChunk(0, "call-1", None, "}"), FinishChunk("tool_calls")]
    ends = [TextChunk("done"), FinishChunk("stop")]
    for _ in range(2):
        async with opened(Agent(model=RawModel(*[asks, ends] * 5), tools=[note]), store=backend.store, policy={"window": 6}) as sessions:
            for number in range(5):
                await ask(sessions, str(number))

    assert 10 == len(keys) == len(set(keys))
    assert "call-1" == keys[0]


class AnswersAgain(Middleware):
    """Gives the first answer of its life again."""

    def __init__(self) -> None:
        self.answer: Any = None

    async def around_model(self, context: MiddlewareContext, request: ModelRequest, call_next: Any) -> Any:
        if self.answer is None:
            self.answer = await call_next(request)
        return self.answer


async def test_cached_answer_of_an_old_turn(autojump_clock: Any, backend: Backend) -> None:
    """An answer that middleware gives again has an id of its own, also if the first one has left the window."""
    agent = make_agent(middleware=[AnswersAgain()])
    async with opened(agent, store=backend.store, policy=WINDOW) as sessions:
        answers = [await ask(sessions, str(number)) for number in range(6)]
        rows = (await sessions.history("c")).rows

    assert 6 == len({outcome.message.message_id for outcome in answers if isinstance(outcome, Completed)})
    assert 12 == len({row.row_id for row in rows})


class Reader(Middleware):
    """Reads what is before the window, before each turn."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    async def before_turn(self, context: MiddlewareContext) -> None:
        texts: list[str] = []
        before: str | None = None
        while True:
            page = await context.older_messages(before=before, limit=2)
            texts[:0] = [message.text for message in page.messages]
            before = page.before
            if before is None:
                break
        assert context.state.older == len(texts)
        self.seen.append(texts + [message.text for message in context.state.messages])


async def test_older_messages_when_middleware_asks(autojump_clock: Any, backend: Backend) -> None:
    """Middleware sees the window, and reads everything before it by page; so does a loop of the host."""
    seen: list[int] = []

    async def mode(turn: TurnSteps) -> Any:
        page = await turn.older_messages(limit=1000)
        seen.append(len(page.messages) + len(turn.messages()))
        return await converse(turn)

    reader = Reader()
    async with opened(make_agent(middleware=[reader], mode=mode), store=backend.store, policy=WINDOW) as sessions:
        for number in range(6):
            await ask(sessions, str(number))

    texts = [text for number in range(6) for text in (str(number), f"re: {number}")]
    assert texts[:11] == reader.seen[-1]
    assert list(range(1, 12, 2)) == seen


async def test_older_messages_when_there_are_none(autojump_clock: Any) -> None:
    """A store that keeps no windows has nothing before them, and neither has a sub-agent."""
    reader = Reader()
    async with opened(make_agent(middleware=[reader]), store=FaultyStore(), policy=WINDOW) as sessions:
        for number in range(4):
            await ask(sessions, str(number))
        state = await state_of(sessions)

    assert (0, 8) == (state.older, len(state.messages))
    assert 7 == len(reader.seen[-1])


@pytest.mark.parametrize("limit", [{"max_state_bytes": 5000}, {"window_bytes": 2000}, {"window": 5, "window_bytes": 2000}])
async def test_conversation_when_it_reaches_its_size(autojump_clock: Any, backend: Backend, limit: Any) -> None:
    """No length ends a conversation: a hundred turns are answered where there is room for few of them."""
    async with opened(make_agent(*["ok"] * 100), store=backend.store, policy=limit) as sessions:
        for _ in range(100):
            assert isinstance(await ask(sessions, "x" * 200), Completed)
        await sessions.stop("c")
        state = await state_of(sessions)

    assert 0 < len(state.messages) < 20
    assert 200 == state.older + len(state.messages)


async def test_message_that_is_larger_than_the_state(autojump_clock: Any, backend: Backend) -> None:
    """A message that would not fit into an empty window is refused, and nothing leaves the window for it."""
    async with opened(make_agent(), store=backend.store, policy={"max_state_bytes": 3000}) as sessions:
        await ask(sessions, "x" * 500)
        with pytest.raises(LimitExceeded) as caught:
            await sessions.post("c", "x" * 5000)
        state = await state_of(sessions)

    assert "" == caught.value.advice
    assert (0, 2) == (state.older, len(state.messages))


async def test_conversation_when_the_store_keeps_no_windows(autojump_clock: Any) -> None:
    """A store without windows goes on as before: its history is whole, and at the limit the error says what to do."""
    for settings in ({"store": FaultyStore()}, {"agent_persistence": DictStates()}):
        async with opened(make_agent(), policy={"max_state_bytes": 3000, "window": 4}, **settings) as sessions:
            with pytest.raises(LimitExceeded) as caught:
                for _ in range(20):
                    await ask(sessions, "x" * 200)
            state = await state_of(sessions)

        assert "raise SessionPolicy.max_state_bytes, or use a store that is a WindowedStore" in str(caught.value)
        assert 0 == state.older
        assert 4 < len(state.messages)


async def test_store_that_lost_its_windows(autojump_clock: Any) -> None:
    """A store that leaves messages out and cannot recall them is refused: an old id would be taken for a new one."""
    inner = MemoryStore()
    async with opened(make_agent(), store=inner, policy=WINDOW) as sessions:
        for number in range(5):
            await ask(sessions, str(number))
    async with opened(make_agent(), store=FaultyStore(inner)) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

    assert "are left out, and the store has no `recall` and `older_messages` (WindowedStore)" in str(caught.value.__cause__)


async def test_instructions_when_turns_leave(autojump_clock: Any, backend: Backend) -> None:
    """The instructions that a fresh conversation began with are read in every turn, also after a restart."""
    read: list[str] = []

    def reply(request: ModelRequest) -> str:
        check_request(request.messages)
        read.append(request.messages[0].role)
        return "ok"

    seeds = [Message("s", "system", (TextPart("Be kind."),))]
    for _ in range(2):
        router = Router(Agent(model=ScriptedModel(reply)), SessionOpts(fresh_state_attrs={"messages": seeds}))
        async with opened(router, store=backend.store, policy=WINDOW) as sessions:
            for number in range(5):
                await ask(sessions, str(number))
            state = await state_of(sessions)

    assert ["system"] * 10 == read
    assert ("s", 21) == (state.messages[0].message_id, state.older + len(state.messages))


async def test_interrupt_when_the_window_is_full(autojump_clock: Any, backend: Backend) -> None:
    """The turn that waits for a person stays whole, whatever the window is; what waits is decided after a restart."""

    async def pay() -> str:
        """Pay."""
        return "paid"

    for life in range(2):
        async with opened(paying(pay), store=backend.store, policy={"window": 1}) as sessions:
            if not life:
                for number in range(3):
                    await ask(sessions, str(number))
                await ask(sessions, "pay")
            await sessions.start("c")
            interrupt = (await (await sessions.get("c")).info()).interrupt
            assert interrupt is not None
            state = await state_of(sessions)
            assert ["user", "assistant"] * 2 == [message.role for message in state.messages]
            if life:
                assert isinstance(await (await sessions.resume("c", [Approve(interrupt.calls[0])])).wait(), Completed)
                check_messages((await state_of(sessions)).messages)


async def test_turn_that_is_larger_than_the_state(autojump_clock: Any, backend: Backend) -> None:
    """A turn that fills the state alone fails with the limit; the next message is answered, and the large turn has left the window."""

    async def talk() -> str:
        """Talk."""
        return "word " * 300

    def reply(request: ModelRequest) -> Any:
        check_request(request.messages)
        return Call("talk") if any("talk" in message.text for message in request.messages if message.role == "user") else "hello"

    policy = {"max_state_bytes": 6000, "max_message_bytes": 1000}
    async with opened(Agent(model=ScriptedModel(reply), tools=[talk]), store=backend.store, policy=policy) as sessions:
        failed = await ask(sessions, "talk")
        again = await ask(sessions, "hi")

        assert isinstance(failed, Failed)
        assert isinstance(failed.error, LimitExceeded)
        assert isinstance(again, Completed)


@pytest.mark.parametrize("how", ["before", "after"])
async def test_crash_at_every_write_of_a_checkpoint(autojump_clock: Any, how: Any) -> None:
    """Wherever the process dies, the next life has every acknowledged message once, and the whole history in order."""

    def config(store: Any) -> SessionConfig:
        agent = Agent(model=ScriptedModel(lambda request: check_request(request.messages) or f"re {request.messages[-1].text}"))
        return SessionConfig(factory_router=SingleFactoryRouter(agent), store=store, policy=SessionPolicy(window=4))

    for number in range(1, 200):
        disk = CrashStore([CrashAt(number, how)])

        async def life(disk: CrashStore = disk) -> None:
            async with open_sessions(config(disk)) as sessions:
                for index in range(6):
                    receipt = await sessions.post("c", str(index), message_id=f"m{index}")
                    disk.tell((f"m{index}", receipt.duplicate))
                    await receipt.wait()
                for index in range(6):
                    disk.tell((f"m{index}", (await sessions.post("c", str(index), message_id=f"m{index}")).duplicate))

        while await disk.live(life):
            pass
        stored = await disk.inner.load(None, "c")
        assert stored is not None
        records = [*await whole_history(disk.inner), *stored.messages]

        assert stored.older
        assert [f"m{index}" for index in range(6)] == [record["message_id"] for record in records if record["role"] == "user"]
        assert [True] * 6 == [duplicate for _, duplicate in disk.told[-6:]]
        if len(disk.writes) == 1:
            return
    raise AssertionError("the program never ended by itself")


async def test_conversation_of_an_older_file(tmp_path: Any) -> None:
    """A conversation that was stored whole is loaded whole, and gets its window with its next turn."""
    path = tmp_path / "old.db"
    async with opened(make_agent(), store=SqliteStore(path)) as sessions:
        for number in range(10):
            await ask(sessions, str(number))

    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE checkpoints; DROP TABLE known")
    async with opened(make_agent(), store=SqliteStore(path), policy=WINDOW) as sessions:
        await sessions.start("c")
        before = await state_of(sessions)
        await ask(sessions, "next")
        after = await state_of(sessions)
        receipt = await sessions.post("c", "0", message_id=before.messages[0].message_id)

    assert (0, 20) == (before.older, len(before.messages))
    assert (22, True) == (after.older + len(after.messages), len(after.messages) <= 4)
    assert receipt.duplicate

"""What is on record of a turn: why it failed, in words for people, and what it did; so that a reloaded page and a restart can tell."""

import datetime
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs
import pytest
import trio

from tests.support.scenarios import FaultyStore, ask, kill_9, make_agent, opened, read_all, said, state_of
from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    Budget,
    Cancelled,
    Commit,
    Completed,
    DisplayMessage,
    Failed,
    Interrupted,
    LimitExceeded,
    MemoryStore,
    Middleware,
    ModelFailed,
    PersistenceError,
    SqliteStore,
    SubAgents,
    Task,
    ToolNotCalled,
    TurnLimits,
    Usage,
    UsageChunk,
    envelope_to_dict,
)
from trio_sagents.conversation.failures import encode_error, error_in
from trio_sagents.data.errors import error_kind
from trio_sagents.testing import Call, Hang, ScriptedModel

SECRET: Final = "hunter2"
COST: Final = Usage(10, 5)
NOW: Final = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


class Broken(Middleware):
    """Fails before the model is asked."""

    async def before_model(self, context: Any, request: Any) -> Any:
        """Fail."""
        raise OSError(SECRET)


class Unsaved(Middleware):
    """Wants to keep something that the store does not take."""

    def __init__(self, store: FaultyStore) -> None:
        self.store = store

    async def before_model(self, context: Any, request: Any) -> Any:
        """Fail to keep something."""
        self.store.faults.fail("commit", error=OSError(SECRET))
        await context.update(metadata={"x": 1})


class Fatal(BaseException):
    """No `Exception`: it crashes the agent."""


async def nop() -> str:
    """Do nothing."""
    return "ok"


async def fatal() -> str:
    """Fail."""
    raise Fatal(SECRET)


def failing(kind: str, store: FaultyStore) -> Agent:
    """Return an agent whose turn fails so."""
    match kind:
        case "limit":
            return make_agent(Call("nop"), "Done.", tools=[nop], limits=TurnLimits(max_rounds=1))
        case "budget":
            return make_agent(Call("nop"), "Done.", tools=[nop], middleware=[Budget(max_calls=1)])
        case "provider":
            return make_agent(ModelFailed("overloaded today", kind="auth"))
        case "middleware":
            return make_agent(middleware=[Broken()])
        case "tool":
            return make_agent("No.", tools=[nop], until_tool="nop")
        case "storage":
            return make_agent(middleware=[Unsaved(store)])
        case _:
            return make_agent(Call("fatal"), tools=[fatal])


KINDS: Final = {
    "limit": "This turn reached a limit: max_rounds exceeded: 2, the limit is 1",
    "budget": "The budget for this is used up: budget_calls exceeded: 2, the limit is 1",
    "provider": "The model could not answer: overloaded today",
    "middleware": "A part of the agent failed: the middleware 'Broken' failed in before_model with OSError",
    "tool": "The model did not finish its task: the model ended its turn without calling 'nop'",
    "storage": "The conversation could not be stored: could not save conversation 'c': the store raised OSError; nothing of this was "
    "acknowledged, post again once the store works",
    "crash": "The turn was cut off: internal error",
}


async def rows_in(sessions: Any) -> Sequence[DisplayMessage]:
    """Return the rows of the transcript."""
    return tuple((await sessions.history("c")).rows)


@pytest.mark.parametrize("kind", KINDS)
async def test_turn_when_it_fails(autojump_clock: Any, kind: str) -> None:
    """A failed turn leaves one row of type "error", with a kind and words without the host's own; a duplicate post hears the same kind."""
    store = FaultyStore()
    async with opened(failing(kind, store), store=store) as sessions:
        receipt = await sessions.post("c", "hi", message_id="m")
        outcome = await receipt.wait()
        rows = await rows_in(sessions)
    (row,) = [row for row in rows if row.content_type == "error"]

    assert isinstance(outcome, Failed)
    assert kind == error_kind(outcome.error)
    assert ("system", "failed", True) == (row.role, row.status, row.is_final)
    assert {"kind": kind, "text": KINDS[kind]} == row.content
    assert rows[-1] == row
    assert SECRET not in repr(rows)
    async with opened(store=store) as sessions:
        again = await (await sessions.post("c", "hi", message_id="m")).wait()
        turn = (await state_of(sessions)).messages[-1].metadata["turn"]
        assert rows == await rows_in(sessions)

    assert isinstance(again, Failed)
    assert kind == error_kind(again.error)
    assert type(again.error) is type(outcome.error) or kind == "crash"
    assert ("failed", kind) == (turn["status"], turn["error"]["kind"])
    assert row.turn_id is not None


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"storage"}))
async def test_events_of_a_turn_that_fails_as_json(autojump_clock: Any, kind: str) -> None:
    """A browser reads the kind from the events, and so does not wait for the row: `ChainError` and `TurnEnded` have the same kind."""
    store = FaultyStore()
    async with opened(failing(kind, store), store=store) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await (await sessions.post("c", "hi")).wait()
        events = [envelope_to_dict(envelope)["event"] for envelope in await read_all(subscriber)]

    (chain,) = [event["error"] for event in events if event["type"] == "ChainError"]
    (ended,) = [event["outcome"]["error"] for event in events if event["type"] == "TurnEnded"]
    assert [kind, kind] == [chain["kind"], ended["kind"]]


async def test_turn_when_its_process_died(autojump_clock: Any) -> None:
    """After a kill the page says that the turn was cut off."""
    store = MemoryStore()
    async with opened(make_agent(Hang()), store=store) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(1)
        dead = kill_9(store)
    async with opened(store=dead) as sessions:
        await sessions.start("c")
        (row,) = [row for row in await rows_in(sessions) if row.content_type == "error"]
        turn = (await state_of(sessions)).messages[-1].metadata["turn"]

    assert {"kind": "crash", "text": "The turn was cut off: its process ended while it ran"} == row.content
    assert "crashed" == turn["status"]


async def test_turn_when_an_earlier_write_failed(autojump_clock: Any) -> None:
    """What a failed write cut is closed by the next turn, with the kind "storage"; that is what a later duplicate hears, too."""
    store = FaultyStore()
    async with opened(make_agent(Call("nop"), "Done.", "More.", tools=[nop]), store=store) as sessions:
        store.faults.fail("commit", 3)
        first = await (await sessions.post("c", "hi", message_id="m")).wait()
        await ask(sessions, "again")
        (row,) = [row for row in await rows_in(sessions) if row.content_type == "error"]
    async with opened(store=store) as sessions:
        again = await (await sessions.post("c", "hi", message_id="m")).wait()

    assert {"kind": "storage", "text": "The conversation could not be stored: a step of the turn could not be stored"} == row.content
    assert ["storage", "storage"] == [error_kind(outcome.error) for outcome in (first, again)]


class Costly(ScriptedModel):
    """Says what it costs before it says anything."""

    def chunks(self, reply: Any) -> Iterator[Any]:
        """Cost."""
        yield UsageChunk(COST)
        yield from super().chunks(reply)


class Using(Middleware):
    """Has a model call of its own."""

    async def before_turn(self, context: Any) -> None:
        """Use some."""
        context.add_usage(Usage(100, 50))


@pytest.mark.parametrize("kind", ["completed", "cancelled"])
async def test_totals_when_a_turn_ends(autojump_clock: Any, kind: str) -> None:
    """The last answer of a turn has its totals: rounds, calls, and the usage with that of sub-agents and middleware."""
    inner = Agent(model=Costly(["inner"]))
    last = "Done." if kind == "completed" else Hang()
    model = Costly([[Call("nop"), Call("task", name="x", instructions="do")], last])
    middleware = [SubAgents([Task(name="x", description="Does.", agent=inner)]), Using()]
    store = MemoryStore()
    async with opened(Agent(model=model, tools=[nop], middleware=middleware), store=store) as sessions:
        receipt = await sessions.post("c", "hi", message_id="m")
        if kind == "cancelled":
            await trio.sleep(1)
            await sessions.cancel_turn("c")
        outcome = await receipt.wait()
        turn = (await state_of(sessions)).messages[-1].metadata["turn"]
    used = Usage(130, 65)
    async with opened(store=store) as sessions:
        again = await (await sessions.post("c", "hi", message_id="m")).wait()

    assert (kind, 2, 2) == (turn["status"], turn["rounds"], turn["calls"])
    assert used == Usage(turn["usage"]["input_tokens"], turn["usage"]["output_tokens"])
    assert outcome == again
    assert isinstance(again, Completed | Cancelled)
    assert not isinstance(again, Completed) or used == again.usage


async def pay() -> str:
    """Pay."""
    return "paid"


@pytest.mark.parametrize("end", ["approved", "superseded"])
async def test_totals_when_a_turn_waited_for_people(autojump_clock: Any, end: str) -> None:
    """The totals are those of the whole turn, from before the interrupt on, also after a restart in between."""
    store = MemoryStore()
    model = Costly(lambda request: "Done." if request.messages[-1].results or said(request) == "no" else Call("pay"))
    agent = Agent(model=model, tools=[pay], middleware=[Approvals({"pay": True}), Using()])
    async with opened(agent, store=store) as sessions:
        outcome = await ask(sessions)
        assert isinstance(outcome, Interrupted)
    async with opened(agent, store=store) as sessions:
        if end == "approved":
            await (await sessions.resume("c", [Approve(outcome.interrupt.calls[0])])).wait()
        else:
            await ask(sessions, "no")
        messages = (await state_of(sessions)).messages
    turn = next(message.metadata["turn"] for message in messages if "turn" in message.metadata)

    wanted = ("completed", 2, 1, 120) if end == "approved" else ("cancelled", 1, 1, 110)
    assert wanted == (turn["status"], turn["rounds"], turn["calls"], turn["usage"]["input_tokens"])


class Forging(Middleware):
    """Says in each answer that the turn has failed."""

    async def after_model(self, context: Any, message: Any) -> Any:
        """Forge."""
        record = {"status": "failed", "error": {"kind": "crash", "text": "forged"}}
        return attrs.evolve(message, metadata={**message.metadata, "turn": record})


async def test_record_when_a_middleware_forges_one(autojump_clock: Any) -> None:
    """Only the library writes the record of a turn: what an answer says about that itself is dropped."""
    async with opened(make_agent(Call("nop"), "Done.", tools=[nop], middleware=[Forging()])) as sessions:
        await ask(sessions)
        messages = (await state_of(sessions)).messages
        rows = await rows_in(sessions)

    assert ["completed"] == [message.metadata["turn"]["status"] for message in messages if "turn" in message.metadata]
    assert [] == [row for row in rows if row.content_type == "error"]


ERRORS: Final = (LimitExceeded("x", math.inf), LimitExceeded("x", 3), LimitExceeded("x", 3, most=2), ToolNotCalled(("a", "b")))


@pytest.mark.parametrize("error", [*ERRORS, ModelFailed("no", kind="quota"), PersistenceError("no"), OSError("no")])
def test_error_when_it_is_stored(error: Exception) -> None:
    """A stored error is made again as one of its kind, even if it has a number that JSON does not have."""
    again = error_in(json.loads(json.dumps(encode_error(error), allow_nan=False)))

    assert again is not None
    assert error_kind(error) == error_kind(again)
    assert str(error) == str(again) or isinstance(error, OSError)


DAMAGED: Final[tuple[Any, ...]] = (
    None,
    3,
    {},
    {"kind": "limit"},
    {"kind": "other", "text": "x"},
    {"kind": ["limit"], "text": "x"},
    {"kind": "limit", "text": "x", "detail": 3},
    {"kind": "tool", "text": "x", "detail": [3]},
)


@pytest.mark.parametrize("record", DAMAGED, ids=repr)
def test_error_when_its_record_is_damaged(record: Any) -> None:
    """What is no record of an error gives no error, and raises nothing."""
    assert error_in(record) is None


async def test_rows_when_a_call_runs(autojump_clock: Any) -> None:
    """Each row of a turn has its id; a row that may still change says so."""
    async with opened(make_agent(Call("stuck"), tools=[stuck])) as sessions:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        running = await rows_in(sessions)
        await sessions.cancel_turn("c")
        await receipt.wait()
        ended = await rows_in(sessions)

    assert [("text", True), ("tool_call", False)] == [(row.content_type, row.is_final) for row in running]
    assert all(row.is_final for row in ended)
    assert 1 == len({row.turn_id for row in ended if row.role != "user"} - {None})


async def stuck() -> str:
    """Wait."""
    await trio.sleep_forever()
    return ""


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("content", [{"text": "x"}, {"_row": {"turn_id": "theirs"}}, {}], ids=["text", "same key", "empty"])
async def test_store_when_a_row_has_its_turn(kind: str, content: Any, tmp_path: Any) -> None:
    """Both stores keep the turn of a row and whether it is final, whatever the content is."""
    store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "chat.db")
    row = DisplayMessage("r1", "m1", "assistant", "text", content, "completed", NOW, "t1", False)
    rows = [row, attrs.evolve(row, row_id="r2", turn_id=None, is_final=True), attrs.evolve(row, row_id="r3", status="executing")]
    commit = Commit(conversation_id="c", agent_id="a", owner=None, epoch=1, revision=1, lifecycle="on_step", rows=rows)

    async def kept(opened_store: Any) -> Any:
        await opened_store.commit(None, commit)
        return (await opened_store.history(None, "c", before=None, limit=10)).rows

    if isinstance(store, SqliteStore):
        async with store.open():
            found = await kept(store)
    else:
        found = await kept(store)

    assert rows == list(found)

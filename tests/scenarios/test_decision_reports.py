"""What is reported of decisions: to the store, to viewers, and in the record."""

from typing import Any

import pytest

from tests.support.payments import STORES, Purse, decide, each_store, gate, halts, interrupt_of, paying
from tests.support.people import CONVERSATION, Effects, World, gated, interrupt_in, scripted, text_of
from tests.support.scenarios import (
    DictRows,
    DictStates,
    check_no_hole,
    of_kind,
    opened,
    read_all,
)
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    Answer,
    Approve,
    AskUser,
    DisplayMessageSaved,
    MessageCompleted,
    Reject,
    Snapshot,
    Status,
    StatusChanged,
    SubAgents,
    Task,
)
from trio_sagents.testing import Call, ScriptedModel


async def test_store_when_calls_are_decided(autojump_clock: Any) -> None:
    """A store is told what each commit is, and who caused it: some calls are decided, then the last, or a message comes instead."""
    effects = Effects()
    first, second = [Call("pay", amount=1), Call("pay", amount=2)], Call("pay", amount=3)
    agent = scripted(first, "done", second, "next", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    lifecycles, actors = [], set()
    async with World(agent, scope="alice") as world:
        one, two = (await world.ask()).calls
        for decision in (Approve(one), Reject(two)):
            world.store.commits.clear()
            await world.decide(decision)
            lifecycles.append(world.store.commits[0].lifecycle)
            actors |= {commit.actor for commit in world.store.commits}
        await world.ask()
        world.store.commits.clear()
        await world.post("never mind")
        lifecycles.append(world.store.commits[0].lifecycle)

    assert ["on_interrupt", "on_step", "on_message"] == lifecycles
    assert {"alice"} == actors


async def test_viewers_when_a_message_comes_instead(autojump_clock: Any) -> None:
    """Viewers get what closed the turn that waited, as it is in the history, and which turn it was."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        interrupt = await world.ask()
        before = len(await world.messages())
        async with world.sessions.open_subscriber() as subscriber:
            await subscriber.subscribe(CONVERSATION)
            assert "done" == text_of(await world.post("never mind"))
            told = of_kind(await read_all(subscriber), MessageCompleted)
        closing = [message for message in (await world.messages())[before:] if message.turn_id == interrupt.turn_id]

    assert closing == [event.message for event in told if event.turn_id == interrupt.turn_id]
    assert [True] == [bool(message.results) for message in closing if message.role == "tool"]


async def test_records_when_a_sub_agent_waits_again_and_is_superseded(autojump_clock: Any, backend: Backend) -> None:
    """The decision about the first call stays on record, besides the outcome of the second call."""
    effects = Effects()
    model = ScriptedModel([Call("pay", amount=1), Call("pay", amount=2), "its answer"])
    task = Task(name="t", description="d", model=model, tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    agent = scripted(Call("task", instructions="do it", name="t"), "done", middleware=[SubAgents([task], general_purpose=False)])
    async with World(agent, backend) as world:
        first = await world.ask()
        second = interrupt_in(await world.decide(Approve(first.calls[0])))
        assert "done" == text_of(await world.post("never mind"))
        kinds = {record.call_id: record.kind for record in await world.records()}

    assert {first.calls[0].call_id: "approve", second.calls[0].call_id: "superseded"} == kinds
    assert [1] == effects.of("pay")


async def test_row_of_a_gated_call_says_where_it_is(autojump_clock: Any) -> None:
    """The row says "executing" when the call executes, and not before."""
    seen: list[str] = []

    async def note() -> None:
        seen.extend(row.status for row in (await sessions.history("c")).rows if row.content_type == "tool_call")

    async def pay(amount: int) -> str:
        """Pay."""
        await note()
        return "paid"

    agent = Agent(model=ScriptedModel([Call("pay", amount=1), "end"]), tools=[pay], middleware=[gate()])
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        interrupt = await interrupt_of(sessions)
        saved = [event.row.status for event in of_kind(await read_all(watch), DisplayMessageSaved)]
        await note()
        await decide(sessions, Approve(interrupt.calls[0]))
        await note()

    assert "executing" not in saved
    assert ["interrupted", "executing", "completed"] == seen


@each_store
@pytest.mark.parametrize("how", ["resume", "dismiss"])
async def test_waiting_subscriber_sees_only_the_state_after_the_answer(autojump_clock: Any, store: str, how: str) -> None:
    """An answer wakes the agent: nobody is shown the question again, and no number is missing."""
    agent = Agent(
        model=ScriptedModel([Call("pay" if how == "resume" else "halts", **({"amount": 1} if how == "resume" else {})), "end"]),
        tools=[*Purse().tools, halts],
        middleware=[gate()],
    )
    async with opened(agent, **STORES[store]()) as sessions, sessions.open_subscriber() as subscriber:
        interrupt = await interrupt_of(sessions)
        await sessions.stop("c")
        await subscriber.subscribe("c")
        await (decide(sessions, Approve(interrupt.calls[0])) if how == "resume" else sessions.dismiss("c"))
        await (await sessions.get("c")).wait_idle()
        events = await read_all(subscriber)

        check_no_hole(events)
        assert Status.INTERRUPTED not in [event.status for event in of_kind(events, Snapshot, StatusChanged)]
        assert Status.IDLE is of_kind(events, Snapshot, StatusChanged)[-1].status


@each_store
async def test_cursor_of_every_event_around_an_interrupt(autojump_clock: Any, store: str) -> None:
    """A viewer who comes back with any cursor gets the next number; after a restart, a snapshot that replaces the cursor."""
    async with opened(paying(Purse()), **STORES[store]()) as sessions:
        async with sessions.watch("c") as watch:
            interrupt = await interrupt_of(sessions)
            await decide(sessions, Approve(interrupt.calls[0]))
            events = await read_all(watch)
        for envelope in events[:-1]:
            async with sessions.watch("c", after=str(envelope.cursor)) as watch:
                assert envelope.seq + 1 == (await anext(watch)).first_seq
        await sessions.stop("c")
        async with sessions.watch("c", after=events[-1].cursor) as watch:
            assert events[-1].cursor == (await anext(watch)).event.replaces  # type: ignore[union-attr]


async def test_transcript_of_a_host_when_calls_are_decided(autojump_clock: Any) -> None:
    """The transcript gets the end of every call, also of calls that do not run."""
    states, rows, effects = DictStates(), DictRows(), Effects()
    agent = scripted(
        [Call("pay", amount=1), Call("pay", amount=2), Call("ask_user", question="Who?")],
        "end",
        tools=[effects.tool("pay")],
        middleware=[gated(effects, "pay"), AskUser()],
    )
    async with opened(agent, agent_persistence=states, display_message_persistence=rows) as sessions:
        first, second, third = interrupt_in(await (await sessions.post(CONVERSATION, "go")).wait()).calls
        receipt = await sessions.resume(CONVERSATION, [Approve(first), Reject(second, "no"), Answer(third, "Ann")])
        await receipt.wait()

    told: dict[str, list[str]] = {}
    for status, info in rows.statuses:
        told.setdefault(info["call_id"], []).append(status)
    assert ["interrupted", "executing", "completed"] == told[first.call_id]
    assert ["interrupted", "cancelled"] == told[second.call_id]
    assert ["interrupted", "completed"] == told[third.call_id]

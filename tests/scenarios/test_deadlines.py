"""Deadlines: a call that nobody decides in time is decided as the policy says, and the decision is on record."""

import datetime
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.people import (
    BEGIN,
    CONVERSATION,
    IDLE,
    Effects,
    Meanwhile,
    World,
    call_of,
    forge,
    gated,
    interrupt_in,
    scripted,
    text_of,
)
from tests.support.stores import Backend
from trio_sagents import (
    AlreadyDecided,
    Answer,
    Approvals,
    Approve,
    AskUser,
    Middleware,
    PersistenceError,
    Reject,
    StatusChanged,
    SubAgents,
    Task,
)
from trio_sagents.testing import Call, ScriptedModel


class Later(Approvals):
    """A second policy."""

    @property
    def middleware_id(self) -> str:
        """A second name."""
        return "later"


def paying(effects: Effects, *amounts: int, timeout: float = 60.0) -> Any:
    """Return an agent that wants to pay, with a deadline."""
    calls = [Call("pay", amount=amount) for amount in amounts or (1,)]
    return scripted(calls, "then not", "next", tools=[effects.tool("pay")], middleware=[gated(effects, "pay", timeout=timeout)])


async def test_approval_when_nobody_decides(autojump_clock: Any, instants: None, backend: Backend) -> None:
    """At the deadline the call counts as rejected, on record as expired, and the turn continues. A late decision is refused."""
    effects = Effects()
    async with World(paying(effects), backend, scope="alice") as world:
        interrupt = await world.ask()
        assert interrupt.expires_at is not None
        assert 60.0 == interrupt.calls[0].timeout
        async with world.sessions.open_subscriber(scope="alice") as subscriber:
            await subscriber.subscribe(CONVERSATION)
            await trio.sleep(59)
            assert interrupt == await world.interrupt()
            await trio.sleep(2)
            await (await world.handle()).wait_idle()
            told = []
            with trio.move_on_after(1):
                async for envelope in subscriber:
                    told.append(envelope.event)

        assert await world.interrupt() is None
        assert ["running", "idle"] == [event.status.value for event in told if isinstance(event, StatusChanged)]
        assert ("cancelled", "This call was not run: nobody decided in time.") == (await world.results())["pay"]
        assert "then not" == (await world.messages())[-1].text
        assert ["expired"] == [record.kind for record in await world.records()]
        with pytest.raises(AlreadyDecided, match="expired"):
            await world.resume(Approve(interrupt.calls[0]))
        with pytest.raises(AlreadyDecided, match="expired"):
            await world.resume(Reject(interrupt.calls[0]))
        assert [] == effects.done


async def test_question_when_nobody_answers(autojump_clock: Any, instants: None) -> None:
    """A question with a deadline counts as not answered."""
    agent = scripted(Call("ask_user", question="Which?"), "then not", middleware=[AskUser(timeout=30)])
    async with World(agent) as world:
        interrupt = await world.ask()
        await trio.sleep(31)
        await (await world.handle()).wait_idle()

        assert "then not" == (await world.messages())[-1].text
        with pytest.raises(AlreadyDecided, match="expired"):
            await world.resume(Answer(interrupt.calls[0], "blue"))


async def test_deadline_when_it_is_decided_in_time(autojump_clock: Any, instants: None, backend: Backend) -> None:
    """A decision in time ends the deadline: nothing expires afterwards."""
    effects = Effects()
    async with World(paying(effects), backend) as world:
        interrupt = await world.ask()
        await trio.sleep(59.5)
        assert "then not" == text_of(await world.decide(Approve(interrupt.calls[0])))
        await trio.sleep(200)

        assert [1] == effects.of("pay")
        assert ["approve"] == [record.kind for record in await world.records()]


async def test_deadline_when_a_part_is_decided(autojump_clock: Any, instants: None, backend: Backend) -> None:
    """A decision in time counts: the approved call runs, and the other calls of the batch do not."""
    effects = Effects()
    async with World(paying(effects, 1, 2, 3), backend) as world:
        one, two, three = (await world.ask()).calls
        await world.decide(Approve(two))
        await world.crash()
        await trio.sleep(61)
        await (await world.handle()).wait_idle()

        assert [2] == effects.of("pay")
        assert {one.call_id: "expired", two.call_id: "approve", three.call_id: "expired"} == {
            record.call_id: record.kind for record in await world.records()
        }


async def test_deadline_when_only_some_calls_have_one(autojump_clock: Any, instants: None) -> None:
    """A call without a deadline waits for ever."""
    effects = Effects()

    class Patient(Approvals):
        @property
        def middleware_id(self) -> str:
            return "patient"

    agent = scripted(
        [Call("pay", amount=1), Call("move", amount=2)],
        "done",
        tools=[effects.tool("pay"), effects.tool("move")],
        middleware=[gated(effects, "pay", timeout=60), Patient({"move": True})],
    )
    async with World(agent, inactivity_timeout=float("inf")) as world:
        await world.ask()
        await trio.sleep(100_000)
        left = await world.interrupt()
        assert left is not None
        assert (["move"], None) == ([call.name for call in left.calls], left.expires_at)
        await world.decide(Approve(left.calls[0]))

        assert ["move"] == effects.names


@pytest.mark.parametrize("how", ["awake", "stopped", "restarted", "crashed"])
@pytest.mark.parametrize("decided", [None, "pay", "ask_user"])
async def test_deadline_is_that_of_each_call(
    autojump_clock: Any, instants: None, backend: Backend, how: Meanwhile, decided: str | None
) -> None:
    """Calls with other times beside it wait as long as they may themselves, whatever is decided meanwhile."""
    effects = Effects()

    def decision(call: Any) -> Any:
        return Approve(call) if call.name == "pay" else Answer(call, "Ann")

    agent = scripted(
        [Call("pay", amount=1), Call("ask_user", question="Who?"), Call("move", amount=2)],
        "done",
        tools=[effects.tool("pay"), effects.tool("move")],
        middleware=[gated(effects, "pay", timeout=60.0000001), AskUser(timeout=600), Later({"move": True}, timeout=6000)],
    )
    async with World(agent, backend, inactivity_timeout=float("inf")) as world:
        interrupt = await world.ask()
        if decided is not None:
            await world.decide(decision(call_of(interrupt, decided)))
        for seconds, over in ((65.0, {"pay"}), (550.0, {"pay", "ask_user"})):
            await world.pass_time(how)
            await trio.sleep(seconds)
            left = await world.interrupt()
            assert left is not None
            assert {"pay", "ask_user", "move"} - over - {decided} == {call.name for call in left.calls}
        assert left.expires_at is not None
        assert BEGIN + datetime.timedelta(seconds=6000) <= left.expires_at <= BEGIN + datetime.timedelta(seconds=6001)
        await world.pass_time(how)
        await trio.sleep(5500)
        await (await world.handle()).wait_idle()

        kinds = {record.call_id: record.kind for record in await world.records()}
        expected = ["approve" if decided == "pay" else "expired", "answer" if decided == "ask_user" else "expired", "expired"]
        assert expected == [kinds[call.call_id] for call in interrupt.calls]
        assert ["pay"] * (decided == "pay") == effects.names


async def test_deadlines_that_are_all_over(autojump_clock: Any, instants: None) -> None:
    """An answer that wakes the agent after several deadlines is too late for each of them."""
    effects = Effects()
    agent = scripted(
        [Call("pay", amount=1), Call("move", amount=2)],
        "done",
        tools=[effects.tool("pay"), effects.tool("move")],
        middleware=[gated(effects, "pay", timeout=60), Later({"move": True}, timeout=600)],
    )
    async with World(agent) as world:
        interrupt = await world.ask()
        await world.sessions.stop(CONVERSATION)
        await trio.sleep(700)
        with pytest.raises(AlreadyDecided, match="expired"):
            await world.resume(Approve(call_of(interrupt, "move")))
        await (await world.handle()).wait_idle()

        assert [] == effects.done


@pytest.mark.parametrize("how", ["asleep", "stopped", "restarted", "crashed"])
async def test_deadline_passes_while_nobody_is_there(autojump_clock: Any, instants: None, backend: Backend, how: Meanwhile) -> None:
    """The deadline is an instant: an answer that wakes the agent after it comes too late, whatever slept, and however long."""
    effects = Effects()
    timeout = IDLE + 60 if how == "asleep" else 60
    async with World(paying(effects, timeout=timeout), backend) as world:
        interrupt = await world.ask()
        await world.pass_time(how)
        if how in {"asleep", "stopped"}:
            await trio.sleep(timeout)
            with pytest.raises(AlreadyDecided, match="expired"):
                await world.resume(Approve(interrupt.calls[0]))
        else:
            await trio.sleep(timeout + 1)
            await world.sessions.start(CONVERSATION)
        await (await world.handle()).wait_idle()

        assert [] == effects.done
        assert ["expired"] == [record.kind for record in await world.records()]


@pytest.mark.parametrize("how", ["asleep", "stopped", "restarted", "crashed"])
async def test_deadline_is_not_begun_anew(autojump_clock: Any, instants: None, backend: Backend, how: Meanwhile) -> None:
    """A new life of the agent leaves the instant as it was."""
    effects = Effects()
    async with World(paying(effects, timeout=IDLE + 100), backend) as world:
        interrupt = await world.ask()
        await world.pass_time(how)
        again = await world.interrupt()
        assert again is not None
        assert interrupt.expires_at == again.expires_at
        await trio.sleep(IDLE + 100 if how != "asleep" else 99)
        await world.handle()
        await (await world.handle()).wait_idle()

        assert await world.interrupt() is None
        assert [] == effects.done


async def test_deadline_when_it_cannot_be_stored(autojump_clock: Any, instants: None, caplog: pytest.LogCaptureFixture) -> None:
    """The expiry is retried, the agent lives, and the call does not run."""
    effects = Effects()
    async with World(paying(effects)) as world:
        await world.ask()
        world.store.before_commit = lambda commit: OSError("full")
        await trio.sleep(75)
        assert await world.sessions.running(CONVERSATION)
        assert await world.interrupt() is not None
        world.store.before_commit = lambda commit: None
        await trio.sleep(6)
        await (await world.handle()).wait_idle()

        assert [] == effects.done
        assert ["expired"] == [record.kind for record in await world.records()]
        assert "could not store the expiry" in caplog.text


async def test_deadline_in_a_sub_agent(autojump_clock: Any, instants: None, backend: Backend) -> None:
    """A call inside a sub-agent that nobody decides does not run. The sub-agent reads that, and continues."""
    effects = Effects()
    sub = ScriptedModel([Call("pay", amount=1), "then not"])
    task = Task(name="t", description="d", model=sub, tools=[effects.tool("pay")], middleware=[gated(effects, "pay", timeout=60)])
    agent = scripted(Call("task", instructions="x", name="t"), "done", middleware=[SubAgents([task], general_purpose=False)])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        assert interrupt.expires_at is not None
        await world.crash()
        await world.handle()
        await trio.sleep(61)
        await (await world.handle()).wait_idle()

        assert [] == effects.done
        assert ("completed", "then not") == (await world.results())["task"]
        assert "done" == (await world.messages())[-1].text


@pytest.mark.parametrize("rounds", range(6))
async def test_decision_at_the_very_deadline(autojump_clock: Any, instants: None, rounds: int) -> None:
    """Either the decision or the expiry comes first, and only the first is on record."""
    effects = Effects()
    async with World(paying(effects)) as world:
        interrupt = await world.ask()
        world.store.delay = 0.5
        await trio.sleep(60 - 0.01 * rounds)
        try:
            outcome = await world.decide(Approve(interrupt.calls[0]))
        except AlreadyDecided:
            assert [] == effects.done
        else:
            assert "then not" == text_of(outcome)
            assert [1] == effects.of("pay")
        await trio.sleep(10)
        (record,) = await world.records()

        assert {"approve": [1], "expired": []}[record.kind] == effects.of("pay")


async def test_deadline_and_a_message_instead(autojump_clock: Any, instants: None) -> None:
    """A superseded interrupt does not expire, and the next interrupt has its own deadline."""
    effects = Effects()
    agent = scripted(
        Call("pay", amount=1), Call("pay", amount=2), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay", timeout=60)]
    )
    async with World(agent) as world:
        first = await world.ask()
        await trio.sleep(40)
        second = interrupt_in(await world.post("instead"))
        await trio.sleep(40)
        assert second == await world.interrupt()
        assert first.expires_at != second.expires_at
        await world.decide(Approve(call_of(second, "pay")))

        assert [2] == effects.of("pay")


async def test_deadline_while_a_decision_is_on_its_way_that_fails(autojump_clock: Any, instants: None) -> None:
    """If the deadline passes while a decision is being stored, and that fails, the call is rejected. It does not wait for ever."""
    effects = Effects()
    async with World(paying(effects)) as world:
        (call,) = (await world.ask()).calls
        await trio.sleep(59.5)
        errors = [OSError("full")]
        world.store.before_commit = lambda commit: errors.pop() if errors else None
        world.store.delay = 1.0
        with pytest.raises(PersistenceError):
            await world.resume(Approve(call))
        await (await world.handle()).wait_idle()
        await trio.sleep(10)

        assert await world.interrupt() is None
        assert ["expired"] == [record.kind for record in await world.records()]
        assert [] == effects.done


@pytest.mark.parametrize("seconds", [1e10, 1e12, 1e300])
async def test_deadline_behind_the_last_date(autojump_clock: Any, backend: Backend, seconds: float) -> None:
    """Such a deadline never comes: the call waits, and the agent lives."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay", timeout=seconds)])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        await world.restart()
        outcome = await world.decide(Approve(interrupt.calls[0]))

    assert "end" == text_of(outcome)
    assert seconds < 1e12 or interrupt.expires_at is None


class Takes(Middleware):
    """What it does with a message takes its time."""

    async def on_message(self, context: Any, message: Any) -> None:
        await trio.sleep(message)


async def test_expiry_while_the_agent_leaves(autojump_clock: Any, instants: None) -> None:
    """An agent that was asked to leave, and waits for a hook, decides nothing. The next agent decides before it goes live."""
    effects = Effects()
    middleware = [gated(effects, "pay", timeout=60.0), Takes()]
    agent = scripted(Call("pay", amount=1), "then not", tools=[effects.tool("pay")], middleware=middleware)
    async with World(agent) as world, trio.open_nursery() as nursery:
        await world.ask()
        nursery.start_soon((await world.handle()).notify_middleware, "Takes", 100)
        await trio.sleep(50)
        await world.sessions.stop(CONVERSATION, grace_period=1000.0)

        assert 100 <= trio.current_time() < 101
        assert world.stored_state()["interrupt"]["calls"]
        assert await world.interrupt() is None
        await (await world.handle()).wait_idle()
        assert ("cancelled", "This call was not run: nobody decided in time.") == (await world.results())["pay"]
        assert [] == effects.done


async def test_expiry_when_the_stored_calls_have_no_time(autojump_clock: Any, instants: None, backend: Backend) -> None:
    """A stored deadline that is over decides nothing about calls that may wait for ever; they wait on."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        assert interrupt.expires_at is None
        stored = {**world.stored_state()["interrupt"], "expires_at": (BEGIN - datetime.timedelta(days=1)).isoformat()}
        await world.restart_with(lambda: forge(world.backend, interrupt=stored))
        left = await world.interrupt()
        await trio.sleep(100)

        assert left is not None
        assert (interrupt.calls, left) == (left.calls, await world.interrupt())
        assert "done" == text_of(await world.decide(Approve(left.calls[0])))
        assert [1] == effects.of("pay")


async def test_deadline_while_a_decision_is_on_its_way(autojump_clock: Any) -> None:
    """The deadline waits for the decision, and then has nothing to reject."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay", timeout=60)])
    async with World(agent) as world:
        call = (await world.ask()).calls[0]
        await trio.sleep(58)
        world.store.delay = 5.0
        await world.decide(Approve(call))
        await trio.sleep(100)

        assert [1] == effects.of("pay")
        assert ["approve"] == [record.kind for record in await world.records()]

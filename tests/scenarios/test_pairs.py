"""What holds when two features meet, for pairs that no other test is about."""

from typing import Any

import pytest
import trio

from tests.support.people import CONVERSATION, IDLE, MEANWHILE, Effects, Meanwhile, World, gated, scripted, text_of
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Answer,
    Approve,
    AskUser,
    Budget,
    CancelCause,
    Cancelled,
    Failed,
    Halt,
    Interrupt,
    InvalidDecision,
    LimitExceeded,
    Middleware,
    Status,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.middleware import Summarization
from trio_sagents.testing import Call, ScriptedModel


async def stop(amount: int) -> Halt:
    """Stop."""
    return Halt(f"reactor {amount} is hot")


def asking() -> Agent:
    """Return an agent that asks a question in its first turn."""
    return scripted(Call("ask_user", question="Which?"), "next", "after", middleware=[AskUser()])


async def test_question_when_the_turn_is_cancelled(autojump_clock: Any) -> None:
    """A question that waits stays when somebody cancels the turn, because nothing runs; it can be answered after that."""
    async with World(asking()) as world:
        (call,) = (await world.ask()).calls
        cut = await world.sessions.cancel_turn(CONVERSATION)

        assert cut is None
        assert "next" == text_of(await world.decide(Answer(call, value="this")))


async def test_question_when_a_message_comes_instead(autojump_clock: Any) -> None:
    """A message closes the question on record, and the message is answered."""
    async with World(asking()) as world:
        await world.ask()

        assert "next" == text_of(await world.post("never mind"))
        assert await world.interrupt() is None
        assert ["superseded"] == [record.kind for record in await world.records()]


async def test_question_beside_a_halt(autojump_clock: Any) -> None:
    """A question beside a halt takes no answer; it is closed when the halt is acknowledged."""
    agent = scripted([Call("stop", amount=7), Call("ask_user", question="Which?")], "next", tools=[stop], middleware=[AskUser()])
    async with World(agent) as world:
        interrupt = await world.ask()
        assert "halt" == interrupt.kind
        for call in interrupt.calls:
            with pytest.raises(InvalidDecision):
                await world.resume(Answer(call, value="this"))
        await world.dismiss()

        assert await world.interrupt() is None
        assert "cancelled" == (await world.results())["ask_user"][0]


async def test_halt_when_much_time_passes(autojump_clock: Any) -> None:
    """A halt has no deadline: it waits until a person acknowledges it, also while its agent sleeps."""
    async with World(scripted(Call("stop", amount=7), "next", tools=[stop])) as world:
        interrupt = await world.ask()
        await trio.sleep(20 * IDLE)

        assert interrupt.expires_at is None
        assert interrupt == await world.interrupt()


async def test_cancel_turn_when_the_agent_sleeps(autojump_clock: Any) -> None:
    """There is nothing to cancel, and no agent is started for it; what waits is still there."""
    async with World(asking()) as world:
        interrupt = await world.ask()
        await trio.sleep(IDLE + 2)
        cut = await world.sessions.cancel_turn(CONVERSATION)

        assert cut is None
        assert not await world.sessions.running(CONVERSATION)
        assert interrupt == await world.interrupt()


async def test_message_instead_of_an_answer_after_a_restart(autojump_clock: Any, backend: Backend) -> None:
    """A message to another process closes what waited there, and the call is never run."""
    effects = Effects()
    model = scripted(Call("pay", amount=1), "next").model

    def agent() -> Agent:
        return Agent(model=model, tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])

    async with World(agent, backend) as world:
        await world.ask()
        await world.restart()

        assert "next" == text_of(await world.post("never mind"))
        assert await world.interrupt() is None
        assert [] == effects.done


async def test_deadline_when_the_turn_is_cancelled(autojump_clock: Any) -> None:
    """To cancel the turn neither ends nor moves the deadline of a call that waits."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "next", tools=[effects.tool("pay")], middleware=[gated(effects, "pay", timeout=60)])
    async with World(agent) as world:
        interrupt = await world.ask()
        await trio.sleep(30)
        await world.sessions.cancel_turn(CONVERSATION)
        assert interrupt == await world.interrupt()
        await trio.sleep(31)
        await (await world.handle()).wait_idle()

        assert await world.interrupt() is None
        assert ["expired"] == [record.kind for record in await world.records()]
        assert [] == effects.done


async def test_cancelled_turn_after_a_restart(autojump_clock: Any, backend: Backend) -> None:
    """A turn that was cancelled is on record as cancelled; the next process does not run its call again."""
    effects = Effects()
    effects.gates["pay"] = trio.Event()
    model = scripted(Call("pay", amount=1), "next").model
    async with World(lambda: Agent(model=model, tools=[effects.tool("pay")]), backend) as world:
        receipt = await world.sessions.post(CONVERSATION, "go")
        await trio.sleep(1)
        await world.sessions.cancel_turn(CONVERSATION)
        outcome = await receipt.wait()
        assert isinstance(outcome, Cancelled)
        assert CancelCause.USER is outcome.cause
        await world.restart()

        assert "cancelled" == (await world.results())["pay"][0]
        assert "next" == text_of(await world.post("again"))
        assert 1 >= len(effects.done)


async def test_question_when_the_budget_is_used_up(autojump_clock: Any) -> None:
    """An answer is accepted also if the budget of the turn is used up: it is on record, and then the turn ends with the limit."""
    agent = scripted(Call("ask_user", question="Which?"), "next", middleware=[AskUser(), Budget(max_calls=1)])
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        outcome = await world.decide(Answer(call, value="this"))

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
        assert "budget_calls" == outcome.error.limit
        assert ["answer"] == [record.kind for record in await world.records()]


async def test_halt_when_the_budget_is_used_up(autojump_clock: Any) -> None:
    """A halt is acknowledged also if the budget of its turn is used up, and the next turn has a budget of its own."""
    agent = scripted(Call("stop", amount=7), "next", tools=[stop], middleware=[Budget(max_calls=1)])
    async with World(agent) as world:
        await world.ask()
        await world.dismiss()

        assert await world.interrupt() is None
        assert "next" == text_of(await world.post("again"))


async def test_message_instead_of_an_answer_when_the_budget_is_used_up(autojump_clock: Any) -> None:
    """The message begins another turn, which has a budget of its own."""
    agent = scripted(Call("ask_user", question="Which?"), "next", middleware=[AskUser(), Budget(max_calls=1)])
    async with World(agent) as world:
        await world.ask()

        assert "next" == text_of(await world.post("never mind"))


async def test_deadline_when_the_budget_is_used_up(autojump_clock: Any) -> None:
    """The call expires on record, and nothing runs; then the turn ends with the limit, because the model cannot be asked again."""
    effects = Effects()
    middleware = [gated(effects, "pay", timeout=60), Budget(max_calls=1)]
    async with World(scripted(Call("pay", amount=1), "next", tools=[effects.tool("pay")], middleware=middleware)) as world:
        await world.ask()
        await trio.sleep(61)
        handle = await world.handle()
        await handle.wait_idle()

        assert Status.ERROR is (await handle.info()).status
        assert ["expired"] == [record.kind for record in await world.records()]
        assert [] == effects.done


def summing(*middleware: Any, asks: Any, tools: Any = ()) -> Agent:
    """Return an agent that makes a summary in its fourth turn, and asks people in that turn."""
    summarizer = ScriptedModel([f"S{number}" for number in range(1, 9)])
    short = Summarization(trigger_tokens=60, keep_messages=2, estimate=lambda request: 10 * len(request.messages), model=summarizer)
    return scripted("ok", "ok", "ok", asks, "next", "after", tools=tools, middleware=[short, *middleware])


async def ask_behind_a_summary(world: World) -> Interrupt:
    """Post until the turn waits, and return what it waits for. Its request began with a summary."""
    for text in ("one", "two", "three"):
        await world.post(text)
    interrupt = await world.ask("four")
    request = world.agent.model.requests[-1]  # type: ignore[union-attr]  # the scripted model
    assert not any("one" == message.text for message in request.messages)
    return interrupt


@pytest.mark.parametrize("nap", [0.0, IDLE + 2], ids=["awake", "asleep"])
async def test_approval_behind_a_summary(autojump_clock: Any, nap: float) -> None:
    """A call that waits behind a summary runs as it was approved, also if the agent has slept; the history is whole."""
    effects = Effects()
    agent = summing(gated(effects, "pay"), asks=Call("pay", amount=1), tools=[effects.tool("pay")])
    async with World(agent) as world:
        (call,) = (await ask_behind_a_summary(world)).calls
        await trio.sleep(nap)

        assert "next" == text_of(await world.decide(Approve(call)))
        assert [("pay", {"amount": 1})] == effects.done
        assert "one" == (await world.messages())[0].text


async def test_question_behind_a_summary(autojump_clock: Any) -> None:
    """A question that waits behind a summary takes its answer, and the model reads the answer."""
    async with World(summing(AskUser(), asks=Call("ask_user", question="Which?"))) as world:
        (call,) = (await ask_behind_a_summary(world)).calls

        assert "next" == text_of(await world.decide(Answer(call, value="this")))
        assert ("completed", "this") == (await world.results())["ask_user"]


async def test_halt_behind_a_summary(autojump_clock: Any) -> None:
    """A halt behind a summary is acknowledged, and the conversation continues."""
    async with World(summing(asks=Call("stop", amount=7), tools=[stop])) as world:
        await ask_behind_a_summary(world)
        await world.dismiss()

        assert "next" == text_of(await world.post("again"))


async def test_deadline_behind_a_summary(autojump_clock: Any) -> None:
    """A call that waits behind a summary expires as any other call."""
    effects = Effects()
    agent = summing(gated(effects, "pay", timeout=60), asks=Call("pay", amount=1), tools=[effects.tool("pay")])
    async with World(agent) as world:
        await ask_behind_a_summary(world)
        await trio.sleep(61)
        await (await world.handle()).wait_idle()

        assert ["expired"] == [record.kind for record in await world.records()]
        assert [] == effects.done


class Careful(Middleware):
    """Notes what it is told of the end of each turn, and demands an approval of its own."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def claim(self, context: Any, call: Any, tool: Any) -> Any:
        return pending(call, text="careful")

    async def after_turn(self, context: Any, outcome: Any) -> None:
        self.ends.append(type(outcome).__name__)


@pytest.mark.parametrize("how", MEANWHILE)
async def test_message_instead_of_what_a_middleware_demands(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """A message closes the claims of all middleware at once: nobody of them is asked, and the next turn is theirs as any other."""
    effects, careful = Effects(), Careful()
    model = scripted(Call("pay", amount=1), "next").model
    async with World(
        lambda: Agent(model=model, tools=[effects.tool("pay")], middleware=[careful, gated(effects, "pay")]), backend
    ) as world:
        (call,) = (await world.ask()).calls
        assert ("Careful", "Approvals") == call.claimed_by
        await world.pass_time(how)
        assert "next" == text_of(await world.post("never mind"))
        with pytest.raises(AlreadyDecided):
            await world.resume(Approve(call))

        assert ["superseded"] == [record.kind for record in await world.records()]
        assert ["Interrupted", "Completed"] == careful.ends
        assert [] == effects.done

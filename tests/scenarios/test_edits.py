"""An edit is a new call: the gates are asked again, and nobody is asked twice for the same."""

from typing import Any

import pytest
import trio

from tests.support.people import MEANWHILE, Effects, Meanwhile, World, gated, interrupt_in, scripted, text_of
from tests.support.scenarios import of_kind, read_all
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Approve,
    Edit,
    InvalidDecision,
    Middleware,
    PendingCall,
    Reject,
    SubAgents,
    Task,
    Tool,
    ToolExecutionUpdated,
)
from trio_sagents.agent._gate import MAX_ASKED
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, ScriptedModel


class Above(Middleware):
    """Wants to see the amounts above a limit."""

    def __init__(self, limit: int, name: str = "director", **claim: Any) -> None:
        self.limit, self.name, self.more = limit, name, claim
        self.answered: list[Any] = []

    @property
    def middleware_id(self) -> str:
        return self.name

    async def claim(self, context: Any, call: Any, tool: Any) -> PendingCall | None:
        if call.arguments.get("amount", 0) <= self.limit:
            return None
        return pending(call, text=f"above {self.limit}", **{"allowed": ("approve", "reject"), **self.more})

    async def answer(self, context: Any, call: Any, decision: Any) -> str | None:
        self.answered.append((call.arguments["amount"], decision.kind))
        return None


def paying(effects: Effects, *gates: Any, amount: int = 5) -> Any:
    """Return an agent that pays once, behind gates."""
    return scripted(Call("pay", amount=amount), "done", "next", tools=[effects.tool("pay")], middleware=[*gates])


@pytest.mark.parametrize("order", [1, -1], ids=["clerk first", "director first"])
@pytest.mark.parametrize("how", MEANWHILE)
async def test_gate_when_an_edit_comes_under_it(autojump_clock: Any, backend: Backend, how: Meanwhile, order: int) -> None:
    """A gate that looks at arguments is asked about edited ones, whatever became of the process, and only for what is not met."""
    effects, director = Effects(), Above(100)
    async with World(paying(effects, *[gated(effects, "pay"), director][::order]), backend) as world:
        (call,) = (await world.ask()).calls
        assert ("Approvals",) == call.claimed_by
        await world.pass_time(how)
        again = interrupt_in(await world.decide(Edit(call, {"amount": 500})))

        (asked,) = again.calls
        assert [] == effects.done
        assert (call.call_id, {"amount": 500}, ("director",), 1) == (asked.call_id, asked.arguments, asked.claimed_by, asked.asked_before)
        assert 'above 100\nEdited by a person: the arguments were {"amount":5}' == asked.text
        await world.pass_time(how)
        assert again == await world.interrupt()
        assert "done" == text_of(await world.decide(Approve(asked)))

        assert [500] == effects.of("pay")
        assert [(500, "approve")] == director.answered
        assert [("edit", 5), ("approve", 500)] == [(record.kind, 500 if record.arguments else 5) for record in await world.records()]


async def test_edit_when_nobody_else_cares(autojump_clock: Any) -> None:
    """Whoever edited has met what was asked, and is not asked for it again."""
    effects = Effects()
    async with World(paying(effects, gated(effects, "pay"), Above(100))) as world:
        (call,) = (await world.ask()).calls
        assert "done" == text_of(await world.decide(Edit(call, {"amount": 50})))

    assert [50] == effects.of("pay")


async def test_edit_when_the_same_gate_demands_more(autojump_clock: Any) -> None:
    """One gate may demand something else of other arguments: that was not met by the edit."""

    class Levels(Middleware):
        async def claim(self, context: Any, call: Any, tool: Any) -> PendingCall:
            return pending(call, text="the director decides" if call.arguments["amount"] > 100 else "the clerk decides")

    effects = Effects()
    async with World(paying(effects, Levels())) as world:
        (call,) = (await world.ask()).calls
        (asked,) = interrupt_in(await world.decide(Edit(call, {"amount": 500}))).calls

        assert [] == effects.done
        assert asked.text.startswith("the director decides\n")
        assert "done" == text_of(await world.decide(Edit(asked, {"amount": 501})))
        assert [501] == effects.of("pay")


async def test_edit_when_an_edit_of_the_director_concerns_the_clerk(autojump_clock: Any) -> None:
    """What the clerk allowed was for other arguments: after a second edit the clerk is asked again, and then nobody."""
    effects = Effects()
    gates = [gated(effects, "pay"), Above(100, allowed=("approve", "edit", "reject"))]
    async with World(paying(effects, *gates)) as world:
        (call,) = (await world.ask()).calls
        (asked,) = interrupt_in(await world.decide(Edit(call, {"amount": 500}))).calls
        (back,) = interrupt_in(await world.decide(Edit(asked, {"amount": 900}))).calls

        assert (("Approvals",), {"amount": 900}, 2) == (back.claimed_by, back.arguments, back.asked_before)
        assert "done" == text_of(await world.decide(Approve(back)))
        assert [900] == effects.of("pay")


async def test_edit_when_it_never_ends(autojump_clock: Any) -> None:
    """People are asked a bounded number of times: the last time they can approve or reject the call, and not edit it."""

    class Nosy(Middleware):
        async def claim(self, context: Any, call: Any, tool: Any) -> PendingCall:
            return pending(call, text=f"is {call.arguments['amount']} right?")

    effects = Effects()
    async with World(paying(effects, Nosy())) as world:
        interrupt = await world.ask()
        for number in range(1, MAX_ASKED):
            (call,) = interrupt.calls
            assert "edit" in call.allowed
            interrupt = interrupt_in(await world.decide(Edit(call, {"amount": 100 + number})))
        (last,) = interrupt.calls
        assert (("approve", "reject"), MAX_ASKED - 1) == (last.allowed, last.asked_before)
        with pytest.raises(InvalidDecision):
            await world.resume(Edit(last, {"amount": 1}))
        assert "done" == text_of(await world.decide(Approve(last)))

        assert [100 + MAX_ASKED - 1] == effects.of("pay")


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize("where", ["parent", "task"])
async def test_edit_inside_a_sub_agent(autojump_clock: Any, backend: Backend, how: Meanwhile, where: str) -> None:
    """The gates of the parent and of the sub-agent are asked about edited arguments of its calls, after a restart, too."""
    effects = Effects()

    def make() -> Any:
        director = Above(100)
        script = ScriptedModel(lambda request: "paid it" if request.messages[-1].role == "tool" else Call("pay", amount=5))
        task = Task(
            name="payer", description="pays", model=script, tools=[effects.tool("pay")], middleware=[director] if where == "task" else []
        )
        script = ScriptedModel(
            lambda request: "done" if request.messages[-1].role == "tool" else Call("task", name="payer", instructions="Pay.")
        )
        outer = [gated(effects, "pay"), *([director] if where == "parent" else []), SubAgents([task], general_purpose=False)]
        return Agent(model=script, middleware=outer)

    async with World(make, backend) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        (asked,) = interrupt_in(await world.decide(Edit(call, {"amount": 500}))).calls

        assert [] == effects.done
        assert (("payer",), {"amount": 500}, ("director",)) == (asked.path, asked.arguments, asked.claimed_by)
        await world.pass_time(how)
        assert "done" == text_of(await world.decide(Approve(asked)))
        assert [500] == effects.of("pay")


@pytest.mark.parametrize("how", MEANWHILE)
async def test_decisions_when_a_call_was_asked_about_again(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """Each decision belongs to its interrupt: the same again is a duplicate, another one is refused, in both rounds."""
    effects = Effects()
    async with World(paying(effects, gated(effects, "pay"), Above(100)), backend) as world:
        (call,) = (await world.ask()).calls
        edit = Edit(call, {"amount": 500})
        (asked,) = interrupt_in(await world.decide(edit)).calls
        await world.pass_time(how)
        assert (await world.resume(edit)).duplicate
        with pytest.raises(AlreadyDecided):
            await world.resume(Approve(call))
        assert "done" == text_of(await world.decide(Approve(asked)))
        await world.pass_time(how)

        assert (await world.resume(edit)).duplicate
        assert (await world.resume(Approve(asked))).duplicate
        with pytest.raises(AlreadyDecided):
            await world.resume(Reject(asked))
        assert [500] == effects.of("pay")


@pytest.mark.parametrize("how", MEANWHILE)
async def test_model_when_an_edited_call_was_rejected(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """An edited call that the next person rejects does not run, and the model reads its own call, and that it was rejected."""
    effects = Effects()
    async with World(paying(effects, gated(effects, "pay"), Above(100)), backend) as world:
        (call,) = (await world.ask()).calls
        (asked,) = interrupt_in(await world.decide(Edit(call, {"amount": 500}))).calls
        await world.pass_time(how)
        assert "done" == text_of(await world.decide(Reject(asked, "never")))

        assert [] == effects.done
        status, said = (await world.results())["pay"]
        assert ("cancelled", True) == (status, "never" in said)


async def test_message_instead_of_the_second_decision(autojump_clock: Any, backend: Backend) -> None:
    """A new message closes the call that was asked about again; nothing ran, and the conversation loads."""
    effects = Effects()
    async with World(paying(effects, gated(effects, "pay"), Above(100)), backend) as world:
        (call,) = (await world.ask()).calls
        await world.decide(Edit(call, {"amount": 500}))
        assert "done" == text_of(await world.post("never mind"))
        await world.restart()

        assert [] == effects.done
        assert ["edit", "superseded"] == [record.kind for record in await world.records()]


async def test_batch_when_one_edit_is_asked_about_again(autojump_clock: Any) -> None:
    """The other calls of the batch run as decided; the turn waits for the edited one alone."""
    effects = Effects()
    calls = [Call("pay", amount=5), Call("pay", amount=6)]
    agent = scripted(calls, "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay"), Above(100)])
    async with World(agent) as world:
        first, second = (await world.ask()).calls
        (asked,) = interrupt_in(await world.decide(Edit(first, {"amount": 500}), Approve(second))).calls

        assert [6] == effects.of("pay")
        assert first.call_id == asked.call_id
        assert "done" == text_of(await world.decide(Approve(asked)))
        assert [6, 500] == effects.of("pay")


async def test_edit_when_the_edited_arguments_are_refused(autojump_clock: Any) -> None:
    """Nobody is asked about edited arguments that the tool itself refuses: the model reads why."""

    async def check(context: Any, amount: int) -> None:
        await trio.lowlevel.checkpoint()
        if amount > 400:
            raise ValueError("the account has only 400")

    effects = Effects()
    tool = Tool.of(effects.tool("pay"), check=check)
    agent = scripted(Call("pay", amount=5), "done", tools=[tool], middleware=[gated(effects, "pay"), Above(100)])
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        assert "done" == text_of(await world.decide(Edit(call, {"amount": 500})))

        assert [] == effects.done
        assert ("failed", "the account has only 400") == (await world.results())["pay"]


async def test_gate_with_any_character_in_its_id(autojump_clock: Any) -> None:
    """The id of a middleware may have any character: each one that demanded something is asked about the answer, and no other."""
    first, second, other = Above(0, "a, b"), Above(0, "c"), Above(1000, "a")
    effects = Effects()
    async with World(paying(effects, first, second, other)) as world:
        (call,) = (await world.ask()).calls
        assert ("a, b", "c") == call.claimed_by
        await world.decide(Approve(call))

    assert [[(5, "approve")], [(5, "approve")], []] == [gate.answered for gate in (first, second, other)]
    assert [5] == effects.of("pay")


class Reading(Middleware):
    """Reads an argument, as a gate does that trusts the schema."""

    async def claim(self, context: Any, call: Any, tool: Any) -> PendingCall | None:
        return pending(call, text=f"{call.arguments['amount'] + 0}") if call.name == "pay" else None


async def test_gate_when_the_arguments_do_not_fit(autojump_clock: Any) -> None:
    """A gate is shown only arguments that fit the tool, from the model and from a person, in a sub-agent, too."""
    effects = Effects()
    script = ScriptedModel([Call("pay", wrong=1), Call("pay", amount=5), "paid it"])
    task = Task(name="payer", description="pays", model=script, tools=[effects.tool("pay")])
    agent = scripted(
        Call("task", name="payer", instructions="Pay."), "done", middleware=[Reading(), SubAgents([task], general_purpose=False)]
    )
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        assert "done" == text_of(await world.decide(Edit(call, {"wrong": 5})))

    assert [] == effects.done
    assert ["failed", "failed"] == [result.status for message in script.requests[-1].messages for result in message.results]


async def test_edit_that_nobody_decides_about_in_time(autojump_clock: Any, instants: None) -> None:
    """The second question has a time of its own; when it is over the call is rejected, and the turn continues."""
    effects = Effects()
    async with World(paying(effects, gated(effects, "pay"), Above(100, timeout=60.0))) as world:
        (call,) = (await world.ask()).calls
        receipt = await world.resume(Edit(call, {"amount": 500}))
        (asked,) = interrupt_in(await receipt.wait()).calls
        assert 60.0 == asked.timeout
        await trio.sleep(100)

        assert [] == effects.done
        assert ["edit", "expired"] == [record.kind for record in await world.records()]
        assert "next" == text_of(await world.post())


@pytest.mark.parametrize("how", ["rejected", "expired", "superseded"])
async def test_row_of_a_call_that_was_asked_about_again(autojump_clock: Any, backend: Backend, instants: None, how: str) -> None:
    """The row of a call that people refused has the arguments that they refused, not those that the model asked for."""
    effects = Effects()
    gates = [gated(effects, "pay"), Above(100, timeout=60.0)]
    async with World(paying(effects, *gates), backend) as world, world.sessions.open_subscriber() as subscriber:
        (call,) = (await world.ask()).calls
        (again,) = interrupt_in(await world.decide(Edit(call, {"amount": 500}))).calls
        await subscriber.subscribe("c")
        if how == "rejected":
            await world.decide(Reject(again))
        elif how == "expired":
            await trio.sleep(100)
        else:
            await world.post("never mind")
        await (await world.handle()).wait_idle()
        (row,) = [row for row in (await world.sessions.history("c")).rows if row.content_type == "tool_call"]
        ended = [event for event in of_kind(await read_all(subscriber), ToolExecutionUpdated) if event.status == "cancelled"]

    assert ("cancelled", {"amount": 500}, True) == (row.status, row.content["arguments"], row.is_final)
    assert [{"amount": 500}] == [event.call.arguments for event in ended]
    assert [] == effects.done

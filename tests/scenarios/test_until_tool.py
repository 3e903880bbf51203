"""Turns that end with a tool: through interrupts, restarts and sub-agents; and values out of texts."""

from typing import Any

import attrs
import pytest
import trio

from tests.support.people import MEANWHILE, Effects, Meanwhile, World, call_of, gated, interrupt_in, scripted
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    Answer,
    Approve,
    AskUser,
    Completed,
    Edit,
    Failed,
    Halt,
    LimitExceeded,
    ModelFailed,
    NotInterrupted,
    Reject,
    SubAgents,
    Task,
    ToolNotCalled,
    ToolResult,
    TurnLimits,
    TurnOutcome,
    extract,
)
from trio_sagents.testing import Call, ScriptedModel


@attrs.frozen
class Invoice:
    """An invoice."""

    number: str
    total: int


async def file_invoice(number: str, total: int) -> Invoice:
    """File it."""
    if total < 0:
        raise ValueError("a total is not negative")
    return Invoice(number, total)


GOOD = Call("file_invoice", number="A1", total=5)
BAD = Call("file_invoice", number="A1", total=-5)


def result_of(outcome: TurnOutcome) -> Any:
    """Return the value of a completed turn."""
    assert isinstance(outcome, Completed), outcome
    return outcome.result


async def test_turn_ends_with_the_tool(autojump_clock: Any) -> None:
    """The model is not asked again; the outcome has the function's own value, and its text is the answer that people see."""
    agent = scripted(GOOD, tools=[file_invoice], until_tool="file_invoice")
    async with World(agent) as world:
        outcome = await world.post()

        assert Invoice("A1", 5) == result_of(outcome)
        assert isinstance(outcome, Completed)
        assert '{"number": "A1", "total": 5}' == outcome.message.text
        assert "stop" == (await world.messages())[-1].stop_reason


async def test_failed_call_ends_only_until_tool(autojump_clock: Any) -> None:
    """`until_tool` ends with any call of the tool, `until_tool_success` with one that succeeded."""
    async with World(scripted(BAD, tools=[file_invoice], until_tool=[file_invoice])) as world:
        assert result_of(await world.post()) is None
    async with World(scripted(BAD, GOOD, tools=[file_invoice], until_tool_success=[file_invoice])) as world:
        assert Invoice("A1", 5) == result_of(await world.post())


async def test_tool_that_says_itself_that_it_failed(autojump_clock: Any) -> None:
    """A result that is an error is no success."""

    async def submit(ok: bool) -> ToolResult:
        """Submit."""
        return ToolResult("fine" if ok else "no", is_error=not ok, value=("the", "value"))

    async with World(scripted(Call("submit", ok=False), Call("submit", ok=True), tools=[submit], until_tool_success="submit")) as world:
        assert ("the", "value") == result_of(await world.post())


async def test_model_that_does_not_call_it(autojump_clock: Any) -> None:
    """An answer without the call is no answer: the turn fails, by name."""
    async with World(scripted("no need", tools=[file_invoice], until_tool="file_invoice")) as world:
        outcome = await world.post()

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ToolNotCalled)
        assert "file_invoice" in str(outcome.error)


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize("kind", ["approve", "edit"])
async def test_tool_that_is_approved(autojump_clock: Any, backend: Backend, how: Meanwhile, kind: str) -> None:
    """The tool that ends the turn may wait for a person: the value is that of the call as it ran."""
    agent = scripted(GOOD, tools=[file_invoice], until_tool_success="file_invoice", middleware=[gated(Effects(), "file_invoice")])
    async with World(agent, backend) as world:
        call = (await world.ask()).calls[0]
        await world.pass_time(how)
        decision = Approve(call) if kind == "approve" else Edit(call, {"number": "A1", "total": 50})

        assert Invoice("A1", 5 if kind == "approve" else 50) == result_of(await world.decide(decision))


async def test_tool_that_is_rejected(autojump_clock: Any, backend: Backend) -> None:
    """A call that a person rejected was no success: the model reads that, and tries again."""
    agent = scripted(GOOD, GOOD, tools=[file_invoice], until_tool_success="file_invoice", middleware=[gated(Effects(), "file_invoice")])
    async with World(agent, backend) as world:
        first = await world.ask()
        second = interrupt_in(await world.decide(Reject(first.calls[0], "wrong total")))
        assert Invoice("A1", 5) == result_of(await world.decide(Approve(second.calls[0])))


async def test_until_tool_that_is_rejected(autojump_clock: Any, backend: Backend) -> None:
    """A call that a person rejected is not an answer, also if any call of the tool ends the turn: the model is asked again."""
    agent = scripted(GOOD, GOOD, tools=[file_invoice], until_tool="file_invoice", middleware=[gated(Effects(), "file_invoice")])
    async with World(agent, backend) as world:
        first = await world.ask()
        second = interrupt_in(await world.decide(Reject(first.calls[0], "wrong total")))

        assert Invoice("A1", 5) == result_of(await world.decide(Approve(second.calls[0])))


async def test_value_beside_a_call_that_waits(autojump_clock: Any) -> None:
    """The value of a turn is the object that the tool returned, also if a neighbour of the call had to wait."""

    async def file_it() -> ToolResult:
        """File it."""
        await trio.lowlevel.checkpoint()
        return ToolResult("filed", value=Invoice("A1", 5))

    effects = Effects()
    agent = scripted(
        [Call("file_it"), Call("pay", amount=1)],
        tools=[file_it, effects.tool("pay")],
        until_tool_success="file_it",
        middleware=[gated(effects, "pay")],
    )
    async with World(agent) as world:
        (call,) = (await world.ask()).calls

        assert Invoice("A1", 5) == result_of(await world.decide(Approve(call)))


@pytest.mark.parametrize("how", MEANWHILE)
async def test_tool_that_had_run_before_the_answer(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """It ran beside a call that waited: the turn ends once that is settled, and has the value, read again after a restart."""
    effects = Effects()
    agent = scripted(
        [GOOD, Call("pay", amount=1)],
        tools=[file_invoice, effects.tool("pay")],
        until_tool="file_invoice",
        middleware=[gated(effects, "pay")],
    )
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        await world.pass_time(how)

        assert Invoice("A1", 5) == result_of(await world.decide(Reject(interrupt.calls[0])))
        assert [] == effects.done


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize("depth", [1, 2])
async def test_sub_agent_that_ends_with_a_tool(autojump_clock: Any, backend: Backend, how: Meanwhile, depth: int) -> None:
    """The value comes up through the task that its parent ends with, over questions and approvals inside."""
    effects = Effects()
    agent = Agent(
        model=ScriptedModel([[Call("ask_user", question="Which?"), Call("pay", amount=1)], BAD, GOOD]),
        tools=[file_invoice, effects.tool("pay")],
        until_tool_success="file_invoice",
        middleware=[gated(effects, "pay", "file_invoice"), AskUser()],
    )
    for _ in range(depth):
        task = Task(name="t", description="d", agent=agent)
        agent = scripted(
            Call("task", instructions="x", name="t"),
            middleware=[SubAgents([task], general_purpose=False, max_depth=5)],
            until_tool="task",
        )
    async with World(agent, backend) as world:
        first = await world.ask()
        assert [("t",) * depth] * 2 == [tuple(call.path) for call in first.calls]
        await world.decide(Answer(call_of(first, "ask_user"), "A1"))
        await world.pass_time(how)
        second = interrupt_in(await world.decide(Approve(call_of(first, "pay"))))
        await world.pass_time(how)
        third = interrupt_in(await world.decide(Approve(second.calls[0])))
        await world.pass_time(how)

        assert Invoice("A1", 5) == result_of(await world.decide(Approve(third.calls[0])))
        assert [1] == effects.of("pay")


async def test_result_is_gone_with_the_process(autojump_clock: Any) -> None:
    """The same decision again after a restart has the message of the outcome; the value is not stored."""
    agent = scripted(GOOD, tools=[file_invoice], until_tool="file_invoice", middleware=[gated(Effects(), "file_invoice")])
    async with World(agent) as world:
        interrupt = await world.ask()
        first = await world.decide(Approve(interrupt.calls[0]))
        await world.crash()
        again = await world.decide(Approve(interrupt.calls[0]))

        assert isinstance(first, Completed)
        assert isinstance(again, Completed)
        assert first.message == again.message


# ── extract


async def test_extract_reads_a_value(autojump_clock: Any) -> None:
    """What the model submits is read strictly; what does not fit goes back to it."""
    model = ScriptedModel([Call("submit", number="A1"), Call("submit", number="A1", total="five"), Call("submit", number="A1", total=5)])

    assert Invoice("A1", 5) == await extract(model, Invoice, "Invoice A1, 5 in total")
    assert 3 == len(model.requests)


async def test_extract_with_tools(autojump_clock: Any) -> None:
    """It may look things up first."""
    effects = Effects()
    model = ScriptedModel([Call("look", amount=1), Call("submit", number="A1", total=5)])

    assert Invoice("A1", 5) == await extract(model, Invoice, "Which?", tools=[effects.tool("look")])
    assert [1] == effects.of("look")


@pytest.mark.parametrize(
    ("replies", "limits", "error"),
    [
        (["I cannot"], None, ToolNotCalled),
        ([Call("submit", number="A1")] * 9, None, LimitExceeded),
        ([Call("submit", number="A1")] * 9, TurnLimits(max_rounds=2), LimitExceeded),
        ([ConnectionError("gone")], None, ModelFailed),
    ],
)
async def test_extract_when_it_fails(autojump_clock: Any, replies: Any, limits: Any, error: type[Exception]) -> None:
    """Each way to fail has its name."""
    with pytest.raises(error):
        await extract(ScriptedModel(replies), Invoice, "Invoice", limits=limits)


async def test_extract_when_it_would_have_to_ask(autojump_clock: Any) -> None:
    """There are no people behind an extraction: a tool that halts ends it, by name."""

    async def stop() -> Halt:
        """Stop."""
        return Halt("wait")

    with pytest.raises(NotInterrupted):
        await extract(ScriptedModel([Call("stop")]), Invoice, "Invoice", tools=[stop])


@pytest.mark.parametrize("result_type", [int, str, list, object])
async def test_extract_when_it_is_no_class_with_fields(autojump_clock: Any, result_type: Any) -> None:
    """It is refused before any model is asked."""
    model = ScriptedModel([])
    with pytest.raises(TypeError):
        await extract(model, result_type, "text")

    assert [] == model.requests


async def file_one(total: int) -> Invoice:
    """File an invoice."""
    return Invoice("A", total)


async def file_all(total: int) -> list[Invoice]:
    """File invoices."""
    return [Invoice("A", total)]


async def file_or_halt(total: int) -> Invoice | Halt:
    """File an invoice, or stop."""
    return Invoice("A", total)


async def file_perhaps(total: int) -> Invoice | None:
    """File an invoice, or not."""
    return Invoice("A", total) if total else None


async def file_said(total: int) -> str | None:
    """File an invoice, and say so."""
    return str(total)


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize(
    ("tool", "total", "expected"),
    [
        (file_one, 1, Invoice("A", 1)),
        (file_all, 1, [Invoice("A", 1)]),
        (file_or_halt, 1, Invoice("A", 1)),
        (file_perhaps, 1, Invoice("A", 1)),
        (file_perhaps, 0, None),
        (file_said, 12, "12"),
    ],
)
async def test_result_that_came_before_the_answer(autojump_clock: Any, how: Meanwhile, tool: Any, total: int, expected: Any) -> None:
    """The result is of the type that the tool is declared to return, also where the turn waited for another call meanwhile."""
    effects = Effects()
    agent = scripted(
        [Call(tool.__name__, total=total), Call("pay", amount=1)],
        tools=[tool, effects.tool("pay")],
        middleware=[gated(effects, "pay")],
        until_tool_success=tool.__name__,
    )
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        outcome = await world.decide(Approve(call))

    assert isinstance(outcome, Completed)
    assert expected == outcome.result


@pytest.mark.parametrize("text", [None, 5, "\ud800"])
async def test_extract_from_what_is_no_text(autojump_clock: Any, text: Any) -> None:
    """It is refused before a model is asked."""
    model = ScriptedModel([])
    with pytest.raises((TypeError, ValueError), match="text"):
        await extract(model, Invoice, text)
    assert [] == model.requests

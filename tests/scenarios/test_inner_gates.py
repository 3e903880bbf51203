"""Gates of sub-agents that look at decisions: which gates are asked, and what happens to a wrong answer."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.support.payments import Purse, hand_over
from tests.support.people import MEANWHILE, Effects, Meanwhile, World, scripted, text_of
from tests.support.scenarios import (
    ask,
    opened,
)
from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    Edit,
    Middleware,
    Reject,
    SubAgents,
    Task,
    Tool,
    ToolCall,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, ScriptedModel


@attrs.define(eq=False)
class Gate(Middleware):
    """Claims calls of some tools, and answers for them."""

    name: str
    claims: tuple[str, ...]
    says: Callable[[], Any] = lambda: None
    asked: list[str] = attrs.field(factory=list)

    @property
    def middleware_id(self) -> str:
        """The name of the gate."""
        return self.name

    async def claim(self, context: Any, call: ToolCall, tool: Any) -> Any:
        return pending(call) if call.name in self.claims else None

    async def answer(self, context: Any, call: Any, decision: Any) -> Any:
        self.asked.append(call.name)
        return self.says()


def handing_over(effects: Effects, *inner: Gate, outer: tuple[Gate, ...] = ()) -> tuple[Any, ScriptedModel]:
    """Return an agent that hands over to a sub-agent that wants to pay, and the sub-agent's model."""
    model = ScriptedModel([Call("pay", amount=1), "done"])
    task = Task(name="s", description="a task", tools=[effects.tool("pay")], middleware=inner, model=model)
    return scripted(Call("task", name="s", instructions="do"), "end", middleware=[*outer, SubAgents([task])]), model


async def test_answer_of_gates_when_only_some_claimed_the_call(autojump_clock: Any) -> None:
    """A decision is shown to the gates that claimed the call, once each. The first gate that answers counts."""
    effects = Effects()
    outer = Gate("outer", ("pay",))
    silent, first, second = Gate("silent", ("pay",)), Gate("first", ("pay",), lambda: "one"), Gate("second", ("pay",), lambda: "two")
    other = Gate("other", ("move",), lambda: "not mine")
    agent, model = handing_over(effects, other, outer, silent, first, second, outer=(outer,))
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        assert "end" == text_of(await world.decide(Reject(call)))

    (result,) = model.requests[-1].messages[-1].results
    assert [["pay"], ["pay"], ["pay"], ["pay"], []] == [gate.asked for gate in (outer, silent, first, second, other)]
    assert "one" == result.content
    assert [] == effects.done


def _raise() -> Any:
    raise OSError("the directory of people is away")


@pytest.mark.parametrize("decision", [Approve, Reject])
@pytest.mark.parametrize("says", [_raise, lambda: 5, lambda: b"text"], ids=["raises", "number", "bytes"])
async def test_answer_of_an_inner_gate_when_it_is_none(autojump_clock: Any, says: Any, decision: Any) -> None:
    """A gate of a sub-agent that fails, or answers with something that is not text, ends the sub-agent. The call does not run; the agent
    continues."""
    effects = Effects()
    agent, model = handing_over(effects, Gate("strict", ("pay",), says))
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        assert "end" == text_of(await world.decide(decision(call)))
        status, text = (await world.results())["task"]

        assert "failed" == status
        assert "'strict' failed in answer" in text
        assert 1 == len(model.requests)
        assert [] == effects.done


@pytest.mark.parametrize("newcomers", ["ask", "deny"])
async def test_newcomer_in_a_sub_agent(autojump_clock: Any, newcomers: str) -> None:
    """A tool that a middleware brings later is a newcomer, also for a sub-agent that inherits the middleware."""
    purse = Purse()
    brought: list[Any] = []

    class Brings(Middleware):
        async def tools(self, context: Any) -> Any:
            return list(brought)

    def reply(request: Any) -> Any:
        if request.messages[-1].role == "tool" or request.messages[-1].text == "hello":
            return "end"
        return hand_over("general-purpose") if "task" in [tool.name for tool in request.tools] else Call("added", amount=1)

    middleware = [Approvals({}, newcomers=newcomers), Brings(), SubAgents()]
    async with opened(Agent(model=ScriptedModel(reply), middleware=middleware)) as sessions:
        await ask(sessions, "hello")
        brought.append(Tool.of(purse.pay, name="added"))
        await ask(sessions, "go")

        assert [] == purse.paid


class Strict(Middleware):
    """A gate that looks at decisions."""

    def __init__(self, asked: list[Any]) -> None:
        self.asked = asked

    async def claim(self, context: Any, call: ToolCall, tool: Any) -> Any:
        return pending(call) if call.name == "pay" else None

    async def answer(self, context: Any, call: Any, decision: Any) -> str | None:
        self.asked.append((decision.kind, tuple(call.path), call.arguments))
        if decision.kind == "approve":
            raise ValueError("it takes two of you")
        return "said by the gate" if decision.kind == "reject" else None


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize("decision", [Approve, Reject, lambda call: Edit(call, {"amount": 2})])
@pytest.mark.parametrize("depth", [1, 2])
async def test_gate_of_a_sub_agent_looks_at_decisions(autojump_clock: Any, how: Meanwhile, decision: Any, depth: int) -> None:
    """What the gate of a task refuses is not run, and what it says is what the model reads; as with the gate of the agent."""
    effects = Effects()
    asked: list[Any] = []
    inner = ScriptedModel([Call("pay", amount=1), "done"])
    task = Task(name="s", description="a task", tools=[effects.tool("pay")], middleware=[Strict(asked)], model=inner)
    if depth == 2:
        middle = scripted(Call("task", name="s", instructions="do"), "middle", middleware=[SubAgents([task], max_depth=2)])
        task = Task(name="m", description="a task", agent=middle)
    agent = scripted(Call("task", name=task.name, instructions="do"), "end", middleware=[SubAgents([task], max_depth=2)])
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        outcome = await world.decide(decision(call))

    kind = decision(call).kind
    (result,) = inner.requests[-1].messages[-1].results
    assert "end" == text_of(outcome)
    assert [(kind, ("s",) if depth == 1 else ("m", "s"), {"amount": 1})] == asked
    assert ([2] if kind == "edit" else []) == effects.of("pay")
    assert {"approve": "it takes two", "reject": "said by the gate", "edit": "pay 2 done"}[kind] in result.content

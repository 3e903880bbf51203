"""Gates of sub-agents that look at decisions: who is asked, and what becomes of an answer that is none."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.support.people import Effects, World, scripted, text_of
from trio_sagents import Approve, Middleware, Reject, SubAgents, Task, ToolCall
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
        """Its name."""
        return self.name

    async def claim(self, context: Any, call: ToolCall, tool: Any) -> Any:
        return pending(call) if call.name in self.claims else None

    async def answer(self, context: Any, call: Any, decision: Any) -> Any:
        self.asked.append(call.name)
        return self.says()


def handing_over(effects: Effects, *inner: Gate, outer: tuple[Gate, ...] = ()) -> tuple[Any, ScriptedModel]:
    """Return an agent that hands over to a sub-agent that wants to pay, and the model of that one."""
    model = ScriptedModel([Call("pay", amount=1), "done"])
    task = Task(name="s", description="a task", tools=[effects.tool("pay")], middleware=inner, model=model)
    return scripted(Call("task", name="s", instructions="do"), "end", middleware=[*outer, SubAgents([task])]), model


async def test_answer_of_gates_when_only_some_claimed_the_call(autojump_clock: Any) -> None:
    """Asked about a decision are the gates that wanted it, each once; the first one that says something is heard."""
    effects = Effects()
    outer = Gate("outer", ("pay",))
    silent, first, second = Gate("silent", ("pay",)), Gate("first", ("pay",), lambda: "one"), Gate("second", ("pay",), lambda: "two")
    other = Gate("other", ("move",), lambda: "not mine")
    agent, model = handing_over(effects, other, outer, silent, first, second, outer=(outer,))
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        assert "end" == text_of(await world.decide(Reject(call)))

    (result,) = model.requests[-1].messages[-1].results
    assert [["pay"], ["pay"], ["pay"], ["pay"], []] == [one.asked for one in (outer, silent, first, second, other)]
    assert "one" == result.content
    assert [] == effects.done


def _raise() -> Any:
    raise OSError("the directory of people is away")


@pytest.mark.parametrize("decision", [Approve, Reject])
@pytest.mark.parametrize("says", [_raise, lambda: 5, lambda: b"text"], ids=["raises", "number", "bytes"])
async def test_answer_of_an_inner_gate_when_it_is_none(autojump_clock: Any, says: Any, decision: Any) -> None:
    """A gate of a sub-agent that fails, or answers with what is no text, ends the sub-agent: the call does not run, the agent goes on."""
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

"""Middleware that returns something wrong: the middleware is named, and the conversation loads again."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.payments import Purse, loads_again, paying
from tests.support.people import CONVERSATION, Effects, World, scripted
from tests.support.scenarios import (
    ask,
    opened,
    state_of,
)
from trio_sagents import (
    Agent,
    Completed,
    Failed,
    LimitExceeded,
    Message,
    Middleware,
    MiddlewareError,
    ModelAnswer,
    ModelFailed,
    SubAgents,
    Task,
    TextPart,
    ToolResult,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, ScriptedModel


def hook(name: str, change: Callable[[Any], Any]) -> Middleware:
    """Return a middleware whose hook changes what comes back; `claim` changes what it would claim."""

    async def around(self: Any, context: Any, given: Any, call_next: Any) -> Any:
        return change(await call_next(given))

    async def after(self: Any, context: Any, given: Any, *_: Any) -> Any:
        return change(pending(given) if name == "claim" else given)

    return type("Bad", (Middleware,), {name: around if name.startswith("around") else after})()  # type: ignore[no-any-return]


def answered(message_id: str | None, role: Any = "assistant") -> Callable[[Any], Any]:
    """Return a function that gives an answer another id and role."""
    return lambda answer: ModelAnswer(Message(message_id or answer.message.message_id, role, (TextPart("x"),), stop_reason="stop"))


WRONG: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "a result that is pending": ("around_tool", lambda result: attrs.evolve(result, status="pending")),
    "a result of no known status": ("around_tool", lambda result: attrs.evolve(result, status="whim")),
    "a result that is no text": ("around_tool", lambda result: attrs.evolve(result, content="\ud800")),
    "an answer of the user": ("around_model", answered(None, "user")),
    "a reason that is none": ("after_model", lambda message: attrs.evolve(message, stop_reason="whim")),
    "metadata that are no JSON": ("after_model", lambda message: attrs.evolve(message, metadata={"a": object()})),
    "a message that is no text": ("after_model", lambda message: attrs.evolve(message, parts=(TextPart("\ud800"), *message.parts))),
    "a claim of no known kind": ("claim", lambda call: attrs.evolve(call, kind="whim")),
    "a claim until NaN": ("claim", lambda call: attrs.evolve(call, timeout=float("nan"))),
    "a claim that is no text": ("claim", lambda call: attrs.evolve(call, text="\ud800")),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_a_middleware_returns_cannot_break_the_conversation(autojump_clock: Any, wrong: str) -> None:
    """A wrong value is refused by name, and the stored conversation loads."""
    name, change = WRONG[wrong]
    async with opened(paying(Purse(), middleware=[hook(name, change)])) as sessions:
        outcome = await ask(sessions, message_id="m-1")

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, MiddlewareError)
        assert (outcome.error.middleware_id, outcome.error.hook) == ("Bad", name)
        await loads_again(sessions)


async def test_answer_with_a_known_id_gets_its_own(autojump_clock: Any) -> None:
    """A middleware that answers with an old message breaks nothing: two messages never share an id."""
    async with opened(paying(Purse(), middleware=[hook("around_model", answered("m-1"))])) as sessions:
        assert isinstance(await ask(sessions, message_id="m-1"), Completed)
        await loads_again(sessions)
        ids = [message.message_id for message in (await state_of(sessions)).messages]

        assert len(ids) == len(set(ids))


async def test_result_of_the_wrong_kind_from_around_tool(autojump_clock: Any) -> None:
    """The error says which class a result is: there are two of that name."""

    class Block(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            return ToolResult("blocked")

    async def pay() -> str:
        return "paid"

    async with opened(Agent(model=ScriptedModel([Call("pay"), "hi"]), tools=[pay], middleware=[Block()])) as sessions:
        outcome: Any = await ask(sessions)

        assert "ToolResultPart('call-1', 'pay', text, status)" in str(outcome.error.__cause__)


async def test_answer_that_says_itself_what_waits(autojump_clock: Any) -> None:
    """The status that a cached answer claims for its calls is ignored: a call that had begun is never reported as not run."""

    class Cache(Middleware):
        async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
            answer = await call_next(request)
            ids = [call.call_id for call in answer.message.calls]
            return attrs.evolve(answer, message=attrs.evolve(answer.message, metadata={"gated": ids, "of": "mine"}))

    effects = Effects()
    effects.gates["pay"] = trio.Event()
    async with World(scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[Cache()])) as world:
        await world.sessions.post(CONVERSATION, "go")
        await trio.testing.wait_all_tasks_blocked()
        await world.crash()
        results = await world.results()
        asking = next(message for message in await world.messages() if message.calls)

    assert [1] == effects.of("pay")
    assert "unknown" == results["pay"][0]
    assert {"of": "mine"} == asking.metadata


@pytest.mark.parametrize("how", ["parts", "surrogates", "no texts", "no mapping"])
async def test_answer_with_what_is_no_part(autojump_clock: Any, how: str) -> None:
    """The middleware that made it fails, not the agent."""

    class Odd(Middleware):
        async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
            answer = await call_next(request)
            if how == "parts":
                parts = [pending(call) for call in answer.message.calls]
                return attrs.evolve(answer, message=attrs.evolve(answer.message, parts=parts))
            (call,) = answer.message.calls
            invalid: dict[str, Any] = {"surrogates": {call.call_id: "\ud800"}, "no texts": {call.call_id: 5}, "no mapping": 5}
            return attrs.evolve(answer, invalid=invalid[how])

    async with World(scripted(Call("pay", amount=1), tools=[Effects().tool("pay")], middleware=[Odd()])) as world:
        outcome = await world.post()
        assert await world.sessions.running(CONVERSATION)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, MiddlewareError)


FAULTS: dict[str, Any] = {
    "before the call": OSError("the hook"),
    "after the call": OSError("the hook"),
    "a limit": LimitExceeded("calls", 2, most=1),
    "a model": ModelFailed("no"),
    "a group": ExceptionGroup("two", [OSError("the hook"), MiddlewareError("Other", "around_model")]),
    "junk": None,
}


@pytest.mark.parametrize("inside", [False, True], ids=["agent", "sub-agent"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_siblings_of_a_call_whose_hook_fails(autojump_clock: Any, fault: str, inside: bool) -> None:
    """What runs beside the call ends, and its result is kept; what has not begun does not begin; then the turn ends with the error."""
    paid: list[str] = []

    async def pay(amount: int) -> str:
        """Pay in two steps."""
        paid.append(f"{amount} taken")
        await trio.sleep(5)
        paid.append(f"{amount} given")
        return "paid"

    async def look() -> str:
        """Look."""
        return "seen"

    class Wrong(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            if call.name != "look":
                if call.arguments["amount"] == 3:
                    await trio.sleep(2)
                return await call_next(call)
            await trio.sleep(1)
            if fault != "before the call":
                await call_next(call)
            if FAULTS[fault] is not None:
                raise FAULTS[fault]
            return None

    calls = [Call("look"), Call("pay", amount=1), Call("pay", amount=3)]
    tools = [look, pay]
    if inside:
        task = Task(name="t", description="d", model=ScriptedModel([calls, "end"]), tools=tools, middleware=[Wrong()])
        agent = scripted(Call("task", name="t", instructions="x"), "end", middleware=[SubAgents([task], general_purpose=False)])
    else:
        agent = scripted(calls, "end", tools=tools, middleware=[Wrong()])
    async with World(agent) as world:
        outcome = await world.post()
        results = [result for message in await world.messages() for result in message.results]

    assert ["1 taken", "1 given"] == paid
    if not inside:
        assert isinstance(outcome, Failed)
        assert {"call-1": "cancelled", "call-2": "completed", "call-3": "cancelled"} == {
            result.call_id.partition(":")[0]: result.status for result in results
        }

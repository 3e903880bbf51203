"""A host's own loop in place of the agent's: whatever the loop does, the history stays valid."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.payments import Purse, decide, gate, loads_again, paying
from tests.support.people import CONVERSATION, Effects, World, gated
from tests.support.scenarios import (
    ask,
    opened,
    state_of,
)
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    Approve,
    Completed,
    Failed,
    Interrupted,
    ToolCall,
    TurnSteps,
    converse,
)
from trio_sagents.testing import Call, ScriptedModel


async def runs_twice(turn: TurnSteps) -> Any:
    """Run an answer's calls twice."""
    answer = await turn.ask_model()
    await turn.run_tools(answer)
    await turn.run_tools(answer)
    return await converse(turn)


async def completes_twice(turn: TurnSteps) -> Any:
    """Complete twice."""
    answer = await turn.ask_model()
    await turn.complete(answer)
    return await turn.complete(answer)


async def completes_with_calls(turn: TurnSteps) -> Any:
    """Complete with what asks for tools."""
    return await turn.complete(await turn.ask_model())


async def ignores_the_interrupt(turn: TurnSteps) -> Any:
    """Continue as if nobody had to be asked."""
    await turn.run_tools(await turn.ask_model())
    return await converse(turn)


async def repeats_a_call(turn: TurnSteps) -> Any:
    """Give a call again that was approved before."""
    answer = await turn.ask_model()
    call = ToolCall("call-9", "pay", {"amount": 1})
    await turn.run_tools(attrs.evolve(answer, message=attrs.evolve(answer.message, parts=(call,), stop_reason="tool_calls")))
    return await converse(turn)


@pytest.mark.parametrize(
    ("mode", "gated"),
    [
        (runs_twice, False),
        (runs_twice, True),
        (completes_twice, False),
        (completes_with_calls, False),
        (ignores_the_interrupt, True),
        (repeats_a_call, True),
    ],
)
async def test_whatever_a_loop_does_the_history_stays_valid(autojump_clock: Any, mode: Any, gated: bool) -> None:
    """Each call runs once, each approval is used once, and the stored conversation loads."""
    purse = Purse()
    model = ScriptedModel(lambda request: "end" if request.messages[-1].role == "tool" else Call("pay", amount=1))
    agent = Agent(model=model, tools=purse.tools, mode=mode, middleware=[gate()] if gated else [])
    async with opened(agent) as sessions:
        outcome = await ask(sessions)
        if isinstance(outcome, Interrupted):
            await decide(sessions, Approve(outcome.interrupt.calls[0]))
        await ask(sessions, "again")
        await loads_again(sessions)
        messages = (await state_of(sessions)).messages
        asked = [call.call_id for message in messages for call in message.calls]

        assert len(asked) == len(set(asked))
        assert len(purse.paid) <= len(asked)


@pytest.mark.parametrize("result", [ValueError("no"), None, "x"])
async def test_loop_that_fails_harms_its_turn_only(autojump_clock: Any, result: Any) -> None:
    """The turn fails; the agent stays."""

    async def loop(turn: TurnSteps) -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    async with opened(paying(Purse(), mode=loop)) as sessions:
        assert isinstance(await ask(sessions), Failed)
        await trio.sleep(1)
        assert await sessions.running("c")


async def steers_while_calls_run(turn: TurnSteps) -> Any:
    """Take posted messages while a call runs."""
    answer = await turn.ask_model()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, turn)
        ended = await turn.run_tools(answer)
    return ended or await turn.complete(await turn.ask_model())


async def _later(turn: TurnSteps) -> None:
    await trio.sleep(10)
    await turn.take_steered()


async def steers_behind_an_interrupt(turn: TurnSteps) -> Any:
    """Take posted messages when the turn waits for people."""
    ended = await turn.run_tools(await turn.ask_model())
    await trio.sleep(10)
    await turn.take_steered()
    return ended


async def steers_twice_at_once(turn: TurnSteps) -> Any:
    """Take posted messages in two tasks at once."""
    answer = await turn.ask_model()
    await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn.take_steered)
        nursery.start_soon(turn.take_steered)
    return await turn.run_tools(answer) or await turn.complete(await turn.ask_model())


@pytest.mark.parametrize("mode", [steers_while_calls_run, steers_behind_an_interrupt, steers_twice_at_once])
@pytest.mark.parametrize("gate", [False, True])
async def test_loop_that_steers_when_it_must_not(autojump_clock: Any, backend: Backend, mode: Any, gate: bool) -> None:
    """Each call is answered before the next message, each message is taken once, and the conversation loads."""
    effects = Effects()
    effects.gates["pay"] = trio.Event()
    middleware = [gated(effects, "pay")] if gate else []
    replies: Callable[[Any], Any] = lambda request: "end" if request.messages[-1].results else Call("pay", amount=1)  # noqa: E731
    agent = Agent(model=ScriptedModel(replies), tools=[effects.tool("pay")], middleware=middleware, mode=mode)
    async with World(agent, backend) as world:
        receipt = await world.sessions.post(CONVERSATION, "go")
        await trio.sleep(5)
        await world.sessions.post(CONVERSATION, "steer", overlap="steer")
        await trio.sleep(10)
        effects.gates["pay"].set()
        outcome = await receipt.wait()
        await world.restart()
        messages = await world.messages()

    texts = [message.text for message in messages if message.role == "user"]
    assert len(texts) == len(set(texts))
    assert [bool(message.calls) for message in messages[:-1]] == [bool(message.results) for message in messages[1:]]
    assert mode is not steers_twice_at_once or isinstance(outcome, Interrupted if gate else Completed)

"""Tools inside a turn: errors without text, threads that hang, and events that a tool publishes."""

import json
import threading
from typing import Any

import pytest
import trio

from tests.support.scenarios import (
    Router,
    answer_to,
    make_agent,
    make_config,
    opened,
    read_all,
    state_of,
)
from trio_sagents import (
    Agent,
    MemoryStore,
    Middleware,
    MiddlewareAction,
    MiddlewareError,
    ToolContext,
    TurnLimits,
    envelope_to_dict,
    open_sessions,
)
from trio_sagents.testing import Call, ScriptedModel


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [ValueError("bad name \udcff"), Unspeakable()], ids=["surrogate", "no str"])
async def test_tool_whose_error_has_no_text_that_can_be_stored(autojump_clock: Any, error: Exception) -> None:
    """R4: whatever a tool raises, the model reads an error result and the agent stays."""

    async def tool() -> str:
        """Do."""
        raise error

    store = MemoryStore()
    async with opened(make_agent(Call("tool"), "done", tools=[tool]), store=store) as sessions:
        assert "done" == await answer_to(sessions)
        assert await sessions.running("c")
    async with opened(store=store) as sessions:
        (result,) = [result for message in (await state_of(sessions)).messages for result in message.results]

        assert "failed" == result.status
        assert type(error).__name__ in result.content


async def test_stuck_threads_of_a_stopped_agent() -> None:
    """R26: threads that hang in one conversation's tools take none from another conversation's."""
    release = threading.Event()

    def stuck() -> str:
        """Hang."""
        release.wait(15)
        return "x"

    def quick() -> str:
        """Do."""
        return "x"

    bad = make_agent([Call("stuck") for _ in range(45)], tools=[stuck], limits=TurnLimits(max_parallel=50))
    good = make_agent(Call("quick"), "done", tools=[quick])
    try:
        async with open_sessions(make_config(Router(lambda agent_id: bad if "bad" in agent_id else good))) as sessions:
            await sessions.post("bad", "go")
            await trio.sleep(0.3)
            await sessions.stop("bad", grace_period=0)
            with trio.fail_after(5):
                assert "done" == await answer_to(sessions, conversation_id="good")
    finally:
        release.set()


async def test_tool_that_publishes_what_is_no_event(autojump_clock: Any) -> None:
    """A value that is not an event is a TypeError where it is published, and no viewer gets it."""

    async def tool(ctx: ToolContext) -> str:
        """Do."""
        with pytest.raises(TypeError):
            ctx.publish("garbage")  # type: ignore[arg-type]
        return "ok"

    async with opened(make_agent(Call("tool"), "done", tools=[tool])) as sessions, sessions.watch("c") as watch:
        assert "done" == await answer_to(sessions)
        envelopes = await read_all(watch)

        assert [] == [envelope for envelope in envelopes if isinstance(envelope.event, str)]
        json.dumps([envelope_to_dict(envelope) for envelope in envelopes])


async def test_event_for_a_channel_that_does_not_exist(autojump_clock: Any) -> None:
    """Nobody would ever read it: it is an error, not silence."""

    class Shout(Middleware):
        async def on_message(self, context: Any, message: Any) -> None:
            context.publish(message, "loud")

    async with opened(Agent(model=ScriptedModel(["hi"]), middleware=[Shout()])) as sessions:
        handle = (await sessions.start("c")).agent
        with pytest.raises(MiddlewareError) as caught:
            await handle.notify_middleware("Shout", MiddlewareAction("Shout", {}))

        assert "not 'loud'" in str(caught.value.__cause__)

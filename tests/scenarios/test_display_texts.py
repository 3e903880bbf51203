"""What people read of calls: `display_text`, static or by call, in events, rows and snapshots; never for the model."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.people import Effects, gated, interrupt_in
from tests.support.scenarios import ask, kill_9, make_agent, of_kind, opened, read_until
from trio_sagents import (
    Agent,
    Approve,
    DisplayMessageUpdated,
    Edit,
    MemoryStore,
    SingleFactoryRouter,
    Status,
    StatusChanged,
    SubAgents,
    Task,
    Tool,
    ToolCallIdentified,
    ToolExecutionUpdated,
    TurnEnded,
)
from trio_sagents.testing import Call, ScriptedModel


async def look(what: str) -> str:
    """Look."""
    return f"saw {what}"


def of_arguments(arguments: Mapping[str, Any]) -> str:
    return f"Looking for {arguments['what']}"


def looking(display_text: Any, **settings: Any) -> Agent:
    return make_agent(Call("look", what="tea"), "done", tools=[Tool.of(look, display_text=display_text)], **settings)


async def rows_of_calls(sessions: Any) -> list[Any]:
    page = await sessions.history("c")
    return [row.content.get("display_text") for row in page.rows if row.content_type == "tool_call"]


@pytest.mark.parametrize(("given", "early", "late"), [("Looking", "Looking", "Looking"), (of_arguments, None, "Looking for tea")])
async def test_display_text_in_events_and_rows(given: Any, early: str | None, late: str) -> None:
    """A text is there from the first event on; a function is asked once the arguments are known. The row keeps it."""
    async with opened(SingleFactoryRouter(looking(given))) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await ask(sessions)
        events = await read_until(subscriber, TurnEnded)

        assert [early] == [event.call.display_text for event in of_kind(events, ToolCallIdentified)]
        assert {late} == {event.call.display_text for event in of_kind(events, ToolExecutionUpdated)}
        assert [late] == [
            event.row.content["display_text"] for event in of_kind(events, DisplayMessageUpdated) if event.row.content_type == "tool_call"
        ]
        assert [late] == await rows_of_calls(sessions)


async def test_display_text_is_not_for_the_model() -> None:
    """No request has it in what a provider is told."""
    agent = looking("Looking")
    async with opened(SingleFactoryRouter(agent)) as sessions:
        await ask(sessions)

    assert isinstance(agent.model, ScriptedModel)
    (call,) = agent.model.requests[1].messages[1].calls
    assert ("look", {"what": "tea"}) == (call.name, call.arguments)
    assert "Looking" not in agent.model.requests[0].system + agent.model.requests[0].tools[0].description


@pytest.mark.parametrize("broken", [lambda arguments: 1 / 0, lambda arguments: 5, lambda arguments: "\ud800"])
async def test_display_text_when_its_function_fails(broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The call runs all the same; people read the name of the tool, and the log says why."""
    async with opened(SingleFactoryRouter(looking(broken))) as sessions:
        assert "done" == (await ask(sessions)).message.text  # type: ignore[union-attr]
        assert [None] == await rows_of_calls(sessions)
    assert "display_text of the tool 'look' failed" in caplog.text


async def test_display_text_after_an_edit_and_a_restart() -> None:
    """An approval shows it, also after a restart; after an edit people read what it says of the edited arguments."""
    store, effects = MemoryStore(), Effects()
    tool = Tool.of(effects.tool("pay"), display_text=lambda arguments: f"Paying {arguments['amount']}")
    agent = make_agent(Call("pay", amount=1), "done", tools=[tool], middleware=[gated(effects, "pay")])
    async with opened(SingleFactoryRouter(agent), store=store) as sessions:
        (call,) = interrupt_in(await ask(sessions)).calls
        assert "Paying 1" == call.display_text
    async with opened(SingleFactoryRouter(agent), store=kill_9(store)) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        (waits,) = (await sessions.agent_info("c")).interrupt.calls  # type: ignore[union-attr]
        assert "Paying 1" == waits.display_text
        await sessions.resume("c", [Edit(waits, {"amount": 2})])
        events = await read_until(subscriber, TurnEnded, StatusChanged, count=1)
        again = (await sessions.agent_info("c")).interrupt
        if again is not None:
            await sessions.resume("c", [Approve(again.calls[0])])
        while not any(isinstance(envelope.event, StatusChanged) and envelope.event.status is Status.IDLE for envelope in events):
            events += await read_until(subscriber, StatusChanged)
        assert [2] == effects.of("pay")
        assert ["Paying 2"] == await rows_of_calls(sessions)


@pytest.mark.parametrize("given", ["Asking the expert", lambda arguments: f"Asking: {arguments['instructions']}"])
async def test_display_text_of_a_task(given: Any) -> None:
    """A task has its own text."""
    task = Task(name="expert", description="knows", model=ScriptedModel(["42"]), display_text=given)
    other = Task(name="other", description="knows less", model=ScriptedModel(["41"]))
    calls = [Call("task", name="expert", instructions="why"), Call("task", name="other", instructions="who")]
    agent = make_agent(calls, "done", middleware=[SubAgents([task, other], general_purpose=False)])
    async with opened(SingleFactoryRouter(agent)) as sessions:
        await ask(sessions)

        assert [given if isinstance(given, str) else "Asking: why", None] == await rows_of_calls(sessions)


def test_display_text_when_it_is_neither() -> None:
    """A wrong one is refused when the tool is made."""
    with pytest.raises(TypeError, match="display_text must be a text, or a function"):
        Tool.of(look, display_text=5)  # type: ignore[arg-type]

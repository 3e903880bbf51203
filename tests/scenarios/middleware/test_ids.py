"""The ids of the middleware that comes with the library: a host may choose them, so two of a class go together."""

import contextvars
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.middleware import StrictModel, agent_with
from tests.support.scenarios import ask, opened, state_of
from trio_sagents import Agent, Completed, Failed
from trio_sagents.files import open_files
from trio_sagents.mcp import Mcp, StdioServer
from trio_sagents.middleware import (
    Approvals,
    AskUser,
    Budget,
    ConversationTitle,
    DebugLog,
    Files,
    PatchToolCalls,
    ProcessContext,
    SubAgents,
    Summarization,
    TodoList,
)
from trio_sagents.otel import Tracing
from trio_sagents.testing import Call

MAKERS: dict[str, Callable[..., Any]] = {
    "Approvals": lambda **more: Approvals({}, **more),
    "AskUser": AskUser,
    "Budget:turn": lambda **more: Budget(max_calls=1, **more),
    "ConversationTitle": ConversationTitle,
    "DebugLog": lambda **more: DebugLog(Path("logs"), **more),
    "PatchToolCalls": PatchToolCalls,
    "ProcessContext": lambda **more: ProcessContext(contextvars.ContextVar("x"), **more),
    "SubAgents": SubAgents,
    "Summarization": Summarization,
    "TodoList": TodoList,
    "Mcp:stock": lambda **more: Mcp(StdioServer("stock"), **more),
    "Tracing": Tracing,
}


@pytest.mark.parametrize("name", MAKERS)
def test_id_when_given(name: str) -> None:
    """A middleware has the id that it was given, or the name of its class; an id that cannot be one is refused."""
    make = MAKERS[name]

    assert name == make().middleware_id
    assert "mine" == make(id="mine").middleware_id
    with pytest.raises(TypeError):
        make(id=5)
    with pytest.raises(ValueError, match="id"):
        make(id="")


async def test_id_of_files_when_given(autojump_clock: object) -> None:
    """`Files` has the id that it was given, or the name of its class."""
    async with open_files() as files:
        assert "Files" == Files(files, scope="s").middleware_id
        assert "mine" == Files(files, scope="s", id="mine").middleware_id


async def test_two_of_a_class_when_their_ids_differ(autojump_clock: object) -> None:
    """Two of a class work beside each other, each with its own account and its own messages."""
    agent = agent_with(
        Budget(max_calls=9, per="session", id="calls"),
        Budget(max_tokens=1, per="session", id="tokens"),
        ConversationTitle(id="title", model=StrictModel(["T"])),
    )
    async with opened(agent) as sessions:
        outcomes = [await ask(sessions) for _ in range(2)]
        await (await sessions.get("c")).notify_middleware("title", {"title": "Mine"})
        state = await state_of(sessions)

    assert [Completed, Failed] == [type(outcome) for outcome in outcomes]
    assert {"calls", "tokens"} <= set(state.metadata)


async def test_blocked_middleware_when_it_has_another_id(autojump_clock: object) -> None:
    """The general-purpose sub-agent does not inherit middleware of a blocked class, whatever its id is."""
    agent = Agent(
        model=StrictModel([Call("task", name="general-purpose", instructions="Go."), Call("ask_user", question="?"), "done", "done"]),
        middleware=[SubAgents(id="helpers"), AskUser(id="questions")],
    )
    async with opened(agent) as sessions:
        outcome = await ask(sessions)

    assert isinstance(outcome, Completed)

"""A real server from PyPI, `mcp-server-time`, over stdio: used, and gone."""

import faulthandler
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.apps.mcp._kit import children, descriptors, rude, time_server
from trio_sagents import Agent, Completed, MemoryStore, SessionConfig, Sessions, SingleFactoryRouter, open_sessions
from trio_sagents.data.requests import ModelRequest
from trio_sagents.mcp import Mcp, open_mcp
from trio_sagents.testing import Call, ScriptedModel

pytestmark = pytest.mark.slow

ASK = Call("time_convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo")
SESSIONS = int(os.environ.get("TRIO_SAGENTS_MCP_SESSIONS", "10"))
"""Each starts an interpreter that imports the SDK, which takes a processor for two seconds: a hundred are for the nightly run."""
AT_ONCE = 4
PATIENCE = 100.0
"""Seconds that a server may take to start, if the machine has much else to do."""


@pytest.fixture
def long() -> Iterator[None]:
    """Give a test the time that other processes take: they know no virtual time."""
    faulthandler.dump_traceback_later(120 + 4 * SESSIONS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def reply(request: ModelRequest) -> Any:
    """Ask the server; then say what it said."""
    results = request.messages[-1].results
    return results[0].content if results else ASK


async def converse(sessions: Sessions, conversation_id: str, limit: trio.CapacityLimiter, said: list[str]) -> None:
    """Let one session use the server, and stop it."""
    async with limit:
        outcome = await (await sessions.post(conversation_id, "What time is it in Tokyo at noon?")).wait()
        assert isinstance(outcome, Completed), outcome
        said.append(json.loads(outcome.message.text)["time_difference"])
        await sessions.stop(conversation_id)


async def test_server_when_asked(long: None) -> None:
    """The server's tools are there, and their results are read."""
    async with open_mcp(time_server(), name="time", start_timeout=PATIENCE) as connection:
        right = await connection.call("get_current_time", {"timezone": "UTC"})
        wrong = await connection.call("get_current_time", {"timezone": "Atlantis"})

        assert {"get_current_time", "convert_time"} == {tool.name for tool in connection.tools()}
        assert "UTC" == json.loads(right.content)["timezone"]
        assert (False, True) == (right.is_error, wrong.is_error)


async def check_that_nothing_is_left(mcp: Mcp, sessions_count: int) -> None:
    agent = Agent(model=ScriptedModel(reply), middleware=[mcp])
    limit, said = trio.CapacityLimiter(AT_ONCE), []
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore())
    async with open_sessions(config) as sessions:
        await converse(sessions, "warm-up", limit, said)
        before = (children(), descriptors())
        async with trio.open_nursery() as nursery:
            for number in range(sessions_count):
                nursery.start_soon(converse, sessions, str(number), limit, said)

        assert before == (children(), descriptors())
    assert ["+9.0h"] * (sessions_count + 1) == said


async def test_server_when_many_sessions_used_it(long: None) -> None:
    """After many sessions that used it and were stopped, no child and no pipe is left."""
    await check_that_nothing_is_left(Mcp(time_server(), name="time", prefix="time_", start_timeout=PATIENCE), SESSIONS)


async def test_quick_server_when_a_hundred_sessions_used_it(long: None) -> None:
    """The same, with a hundred sessions and a server that starts at once."""
    await check_that_nothing_is_left(Mcp(rude("--time"), name="time", prefix="time_", start_timeout=PATIENCE), 100)

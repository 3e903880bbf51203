"""A server as a child process: it speaks, it misbehaves, and it is gone when its owner is."""

import json
import logging
import os
import signal
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.apps.mcp._kit import appears, children, descriptors, is_alive, rude
from trio_sagents.mcp import McpDisconnected, StdioServer, _stdio, open_mcp


@pytest.fixture
def patient_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has ended may have its last lines read, however slow the machine is."""
    monkeypatch.setattr(_stdio, "DRAIN_TIMEOUT", 30.0)


async def test_call_when_server_is_well() -> None:
    """The server's answer is the result; its tools are there, with their schemas."""
    async with open_mcp(rude(), name="rude", prefix="r_") as connection:
        result = await connection.call("echo", {"text": "hello"})
        again = await connection.tools()[0].function(text="by the tool")

        assert "hello" == result.content
        assert "by the tool" == again.content
        assert ("r_echo", "echo", "rude") == (
            connection.tools()[0].name,
            connection.tools()[0].remote_name,
            connection.tools()[0].server,
        )
        assert "Be brief." == connection.instructions
        assert connection.is_connected


async def test_leaving_when_done() -> None:
    """The child has ended, and its pipes are closed, when the block is left."""
    before = (children(), descriptors())
    async with open_mcp(rude()) as connection:
        pid = int((await connection.call("pid", {})).content)

        assert pid in children()

    assert before == (children(), descriptors())


async def test_leaving_when_body_raises() -> None:
    """What the block raises leaves as that object, not in a group."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_mcp(rude()):
            raise error

    assert error is caught.value


async def test_leaving_when_cancelled() -> None:
    """A cancelled owner leaves no child."""
    before = (children(), descriptors())
    with trio.CancelScope() as scope:
        async with open_mcp(rude()):
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert before == (children(), descriptors())


async def test_leaving_when_server_is_stubborn() -> None:
    """A server that ignores the end of its input, and SIGTERM, is killed."""
    before = (children(), descriptors())
    async with open_mcp(rude("--stubborn", exit_timeout=0.05)):
        pass

    assert before == (children(), descriptors())


async def test_leaving_when_server_has_a_child() -> None:
    """A child of the server is killed with it, even if the server ends normally."""
    before = descriptors()
    async with open_mcp(rude("--child")) as connection:
        pids = [int(pid) for pid in (await connection.call("pid", {})).content.split()]

        assert [True, True] == [is_alive(pid) for pid in pids]

    while any(map(is_alive, pids)):  # noqa: ASYNC110  # killed already; whoever inherited it may need a moment to bury it
        await trio.sleep(0.001)
    assert before == descriptors()


async def test_start_when_command_is_missing() -> None:
    """A command that cannot be started is named; nothing is left."""
    before = (children(), descriptors())
    with pytest.raises(McpDisconnected, match=r"'/no/such/command' cannot be started: No such file"):
        async with open_mcp(StdioServer("/no/such/command")):
            raise AssertionError("unreachable")

    assert before == (children(), descriptors())


async def test_start_when_server_ends_at_once() -> None:
    """A server that ends before it is ready is reported at once, and not when the timeout is over."""
    with pytest.raises(McpDisconnected, match="it ended the connection"):
        async with open_mcp(StdioServer(sys.executable, ["-c", ""])):
            raise AssertionError("unreachable")


async def test_start_when_server_is_mute() -> None:
    """A server that never answers is given up, and ended."""
    before = (children(), descriptors())
    with pytest.raises(McpDisconnected, match=r"it was not ready within 0\.2 seconds"):
        async with open_mcp(rude("--mute"), start_timeout=0.2):
            raise AssertionError("unreachable")

    assert before == (children(), descriptors())


async def test_start_when_server_writes_junk() -> None:
    """Lines that are not messages are ignored."""
    async with open_mcp(rude("--junk")) as connection:
        assert "well" == (await connection.call("echo", {"text": "well"})).content


async def test_call_when_server_crashes() -> None:
    """The call that lost its server gets an error that names the server. The next call gets a new server."""
    async with open_mcp(rude(), name="rude") as connection:
        first = (await connection.call("pid", {})).content
        with pytest.raises(McpDisconnected, match="'rude': it was lost during the call, which may have taken effect, or not"):
            await connection.call("crash", {})
        second = (await connection.call("pid", {})).content

        assert first != second
        assert not is_alive(int(first))


async def test_call_when_server_died_between_calls() -> None:
    """A server that was killed while nobody called is started again at the next call, by one attempt for all callers."""
    async with open_mcp(rude()) as connection:
        pid = int((await connection.call("pid", {})).content)
        os.kill(pid, signal.SIGKILL)
        while connection.is_connected:  # noqa: ASYNC110  # nothing tells us sooner
            await trio.sleep(0.001)
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await connection.call("pid", {})).content)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)

        assert 5 == len(answers)
        assert 1 == len(set(answers))


async def test_call_when_server_always_crashes() -> None:
    """A server that is lost again and again is not started for ever."""
    async with open_mcp(rude(), reconnects=2) as connection:
        for _ in range(3):
            with pytest.raises(McpDisconnected, match="lost during the call"):
                await connection.call("crash", {})
        with pytest.raises(McpDisconnected, match="not opened again after 2 times in a row"):
            await connection.call("echo", {"text": "hello"})


async def test_call_when_reconnecting_is_forbidden() -> None:
    """`reconnects=0` never opens it again."""
    async with open_mcp(rude(), reconnects=0) as connection:
        with pytest.raises(McpDisconnected):
            await connection.call("crash", {})
        with pytest.raises(McpDisconnected, match="after 0 times"):
            await connection.call("echo", {})


async def test_call_when_owner_has_left() -> None:
    """A tool that is called after its connection was closed says so."""
    async with open_mcp(rude()) as connection:
        tool = connection.tools()[0]
    with pytest.raises(McpDisconnected, match="its owner has ended"):
        await tool.function(text="too late")


async def test_call_when_cancelled(tmp_path: Path) -> None:
    """A cancelled call is cancelled at the server, and the connection continues."""
    async with open_mcp(rude()) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "hang", {"text": str(tmp_path / "hanging")})
            await appears(tmp_path / "hanging")
            nursery.cancel_scope.cancel()
        answer = await connection.call("echo", {"text": "cancelled?"})

        assert nursery.cancel_scope.cancelled_caught
        assert "1 cancelled" == answer.content


async def test_call_when_message_is_endless() -> None:
    """A message over the limit ends the connection, and not the host's memory."""
    async with open_mcp(rude(exit_timeout=0.05)) as connection:
        with pytest.raises(McpDisconnected):
            await connection.call("flood", {})


async def test_environment_when_host_has_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child gets what it is given, and nothing of the host's that is not harmless."""
    monkeypatch.setenv("HOST_API_KEY", "not for servers")
    async with open_mcp(rude(env={"OWN": "own"})) as connection:
        env = json.loads((await connection.call("env", {})).content)

        assert "own" == env["OWN"]
        assert "HOST_API_KEY" not in env


async def test_errors_of_the_child_when_many(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], patient_drain: None
) -> None:
    """Standard error goes to the debug log, bounded and without secrets, and never to the terminal."""
    caplog.set_level(logging.DEBUG, "trio_sagents.mcp")
    async with open_mcp(rude(env={"SECRET": "hunter22"}), name="rude") as connection:
        await connection.call("noise", {})
    lines = [record.getMessage() for record in caplog.records if "noise" in record.getMessage()]

    assert 500 == len(lines)
    assert {"MCP server 'rude': noise ***"} == set(lines)
    assert ("", "") == tuple(capfd.readouterr())


async def test_tools_when_the_server_changes_them() -> None:
    """A server that says that its tools have changed is asked for them again."""
    async with open_mcp(rude()) as connection:
        before = [tool.name for tool in connection.tools()]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.wait_changed)
            await trio.testing.wait_all_tasks_blocked()
            await connection.call("change", {})

        assert [*before, "new-0"] == [tool.name for tool in connection.tools()]


async def test_start_when_server_says_why_it_ends(caplog: pytest.LogCaptureFixture, patient_drain: None) -> None:
    """What a server writes to its standard error before it ends is in the debug log, the last line without an end, too."""
    caplog.set_level(logging.DEBUG, "trio_sagents.mcp")
    with pytest.raises(McpDisconnected, match="the debug log"):
        async with open_mcp(StdioServer(sys.executable, ["-c", "import sys; sys.stderr.write('one\\ntwo')"]), name="brief"):
            raise AssertionError("unreachable")
    messages = [record.getMessage() for record in caplog.records]

    assert ["MCP server 'brief': one", "MCP server 'brief': two"] == messages[:2]

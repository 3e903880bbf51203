"""MCP servers on the command line: commands, names, and what is missing."""

import sys

import pytest

from tests.apps.cli._kit import Chat
from trio_sagents import Tool
from trio_sagents.cli._models import UsageError
from trio_sagents.cli._servers import mcp_servers, server_name, split_command


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("uvx mcp-server-time", "time"),
        ("python3.12 -m mcp_server_time --local-timezone UTC", "time"),
        ("npx -y @modelcontextprotocol/server-filesystem .", "filesystem"),
        ("github-mcp", "github"),
        ("'/opt/my servers/notes.py' --verbose", "notes"),
        ("uv run server.py", "server"),
        ("-x", "mcp"),
        ("mcp", "mcp"),
        ("äöü", "mcp"),
    ],
)
def test_a_server_has_a_short_name(command: str, name: str) -> None:
    """The name is what is left of the command without the words that only say how to run it."""
    assert name == server_name(split_command(command))


def test_two_servers_of_one_name_are_told_apart() -> None:
    """And each tool has the name of its server before it."""
    servers = mcp_servers(["uvx mcp-server-time", "uvx mcp-server-time"], frozenset())

    assert ["Mcp:time", "Mcp:time2"] == [hook.middleware_id for hook in servers.middleware]


def test_which_tools_ask() -> None:
    """The tools of servers ask, except for those that are allowed; no other tool does."""
    from trio_sagents.mcp import McpTool

    def tool(name: str) -> McpTool:
        return McpTool(name=name, function=lambda: "", server="a", remote_name=name)

    asks = mcp_servers(["a"], frozenset({"a_read"})).asks
    assert asks is not None

    assert [True, False, False] == [asks(tool("a_write")), asks(tool("a_read")), asks(Tool(name="own", function=lambda: ""))]
    assert mcp_servers([], frozenset()).asks is None


@pytest.mark.parametrize("command", ["", " ", "''", "a 'b"])
def test_a_command_that_cannot_be_read_is_a_usage_error(command: str) -> None:
    """Before anything is started."""
    with pytest.raises(UsageError, match="--mcp"):
        mcp_servers([command], frozenset())


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is not there."""
    for name in [name for name in sys.modules if name == "trio_sagents.mcp" or name.startswith("trio_sagents.mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "trio_sagents.mcp", None)
    with pytest.raises(UsageError, match=r"pip install 'trio-sagents\[mcp\]'"):
        mcp_servers(["a"], frozenset())


@pytest.mark.slow
def test_a_server_that_cannot_start_is_no_fault_of_the_database(chat: Chat) -> None:
    """The line names the server, and how to see what it said; another database is not recommended."""
    given = ("--once", "hi", "--mcp", "sh -c 'echo out of tea >&2; exit 1'")

    done, verbose = chat.run(*given), chat.run(*given, "--verbose")

    assert (1, 1) == (done.returncode, verbose.returncode)
    assert "MCP server 'sh'" in done.stderr
    assert "--verbose" in done.stderr
    assert "--db" not in done.stderr
    assert "out of tea" not in done.stderr
    assert "MCP server 'sh': out of tea" in verbose.stderr

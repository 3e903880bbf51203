"""MCP servers that are named on the command line."""

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Final

import attrs

from trio_sagents import Middleware, Tool
from trio_sagents.cli._models import UsageError

_RUNNERS: Final = frozenset({"uvx", "uv", "npx", "node", "python", "python3", "docker", "run", "tool"})
"""Words of a command that only say how the server is started."""
MAX_NAME: Final = 20


@attrs.frozen
class Servers:
    """MCP servers as sources of tools, and which of their tools need approval."""

    middleware: Sequence[Middleware] = ()
    asks: Callable[[Tool], bool] | None = None
    """Returns whether a person decides about the calls of a tool; None if there are no servers."""


def mcp_servers(commands: Sequence[str], allowed: frozenset[str]) -> Servers:
    """Return the servers of some commands; each agent starts its own processes.

    Args:
        commands: as for a shell, without a shell; may be empty.
        allowed: names of tools that run without asking; all others ask.

    Raises:
        UsageError: a command cannot be read, or the extra is not installed.
    """
    if not commands:
        return Servers()
    try:
        from trio_sagents.mcp import Mcp, StdioServer, is_mcp_tool  # noqa: PLC0415  # it needs an extra
    except ImportError as exc:
        raise UsageError("--mcp needs the package of the protocol: pip install 'trio-sagents[mcp]'") from exc

    def asks(tool: Tool) -> bool:
        return is_mcp_tool(tool) and tool.name not in allowed

    found: list[Middleware] = []
    names: set[str] = set()
    for command in commands:
        words = split_command(command)
        name = _free(server_name(words), names)
        names.add(name)
        found.append(Mcp(StdioServer(words[0], words[1:]), name=name, prefix=f"{name}_", required=True))
    return Servers(found, asks)


def split_command(command: str) -> Sequence[str]:
    """Return the words of a command.

    Raises:
        UsageError: there are none, or a quote is left open.
    """
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise UsageError(f"--mcp {command!r}: {exc}") from exc
    if not words or not words[0]:
        raise UsageError("--mcp takes the command that starts a server, such as --mcp 'uvx mcp-server-time'")
    return words


def server_name(words: Sequence[str]) -> str:
    """Return a short name for a server: of `uvx mcp-server-time --verbose` it is `time`."""
    for word in words:
        name = re.sub(r"\d+(\.\d+)*$", "", PurePath(word).stem)
        if not word.startswith("-") and word not in _RUNNERS and name not in _RUNNERS:
            name = re.sub(r"[^a-zA-Z0-9]+", "_", PurePath(word).stem).strip("_")
            name = re.sub(r"^(?:mcp_)?(?:server_)?(?=.)|_?mcp$", "", name)[:MAX_NAME].strip("_")
            return name or "mcp"
    return "mcp"


def _free(wanted: str, taken: set[str]) -> str:
    number = 1
    name = wanted
    while name in taken:
        number += 1
        name = f"{wanted}{number}"
    return name

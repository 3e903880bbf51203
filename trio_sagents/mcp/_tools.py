"""A server's tools as tools of an agent. Names, descriptions and schemas come from outside: they are bounded, or left out."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import attrs
import mcp_types

from trio_sagents.agent import Tool, ToolResult
from trio_sagents.data.json import JSON, JSONValue, digest_of
from trio_sagents.mcp._schemas import MAX_NAME, Taken, plain_names, take_schema

MAX_DESCRIPTION: Final = 8192
"""Characters that are taken of a tool's description."""
MAX_TOOLS: Final = 1000
"""Tools that are taken of one server."""

Warn = Callable[[str], None]


@attrs.frozen
class McpHints:
    """What a server says of a tool's effects. Untrusted: show the hints to people, but do not let them decide whether people are asked."""

    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None
    title: str | None = None


@attrs.frozen(kw_only=True)
class McpTool(Tool):
    """A tool that an MCP server runs."""

    server: str
    """The name of the connection."""
    remote_name: str
    """The name that the server calls the tool by; `name` is that, with the prefix, in characters that every provider takes."""
    hints: McpHints = attrs.field(factory=McpHints)

    @property
    def fingerprint(self) -> str:
        """A digest of what a model and a person are told of the tool: a tool with another one is another tool."""
        return digest_of([self.remote_name, self.description, self.parameters, attrs.astuple(self.hints)])


Caller = Callable[[McpTool, JSON], Awaitable[ToolResult]]
"""Calls a tool of a server, with the names that the server has for the arguments."""


def is_mcp_tool(tool: Tool, server: str | None = None) -> bool:
    """Return whether a tool is run by an MCP server: by any, or by the one with the given name."""
    return isinstance(tool, McpTool) and server in {None, tool.server}


def make_tools(listed: Iterable[mcp_types.Tool], server: str, prefix: str, call: Caller, warn: Warn) -> Sequence[McpTool]:
    """Return the tools of a listing, in its order: a new sequence.

    Args:
        listed: as the server listed the tools.
        server: the name of the connection.
        prefix: what each name begins with.
        call: calls a tool.
        warn: is told what was left out, and why.
    """
    found: dict[str, tuple[mcp_types.Tool, Taken]] = {}
    for entry in listed:
        if len(found) == MAX_TOOLS:
            warn(f"the server has more than {MAX_TOOLS} tools; the others are left out")
            break
        if entry.name in found:
            warn(f"the tool {entry.name[:100]!r} is listed twice; the second is left out")
            continue
        try:
            found[entry.name] = (entry, take_schema(entry.input_schema))
        except (TypeError, ValueError) as exc:
            warn(f"the tool {entry.name[:100]!r} is left out: {str(exc)[:300]}")
    names = plain_names(f"{prefix}{name}" for name in found)
    spare = plain_names([server])[server][: MAX_NAME // 2]
    return [_make_tool(entry, taken, server, names[f"{prefix}{entry.name}"], spare, call) for entry, taken in found.values()]


def _make_tool(listed: mcp_types.Tool, taken: Taken, server: str, name: str, spare: str, call: Caller) -> McpTool:
    async def run(**arguments: JSONValue) -> ToolResult:
        return await call(tool, {taken.keys.get(key, key): value for key, value in arguments.items()})

    tool = McpTool(
        name=name,
        description=_storable(listed.description or "")[:MAX_DESCRIPTION],
        parameters=taken.schema,
        function=run,
        origin=f"mcp:{server}",
        if_taken=f"{spare}_{name}"[:MAX_NAME],
        server=server,
        remote_name=listed.name,
        hints=(hints := _hints(listed)),
        display_text=hints.title,
    )
    return tool


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _hints(listed: mcp_types.Tool) -> McpHints:
    said = listed.annotations
    title = listed.title if said is None or said.title is None else said.title
    shown = None if title is None else _storable(title)[:MAX_NAME]
    if said is None:
        return McpHints(title=shown)
    return McpHints(said.read_only_hint, said.destructive_hint, said.idempotent_hint, said.open_world_hint, shown)

"""A server's tools as tools of an agent. Names, descriptions and schemas come from outside: they are bounded, or left out."""

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import attrs
import mcp_types

from trio_sagents.agent import Tool, ToolResult
from trio_sagents.data.json import JSON, JSONValue, canonical, plain_json

MAX_NAME: Final = 64
"""Characters of a tool's name."""
MAX_DESCRIPTION: Final = 8192
"""Characters that are taken of a tool's description."""
MAX_SCHEMA: Final = 64 * 1024
"""Characters that the JSON text of a tool's schema may have; the tool is left out otherwise."""
MAX_TOOLS: Final = 1000
"""Tools that are taken of one server."""
_FORBIDDEN: Final = re.compile(r"[^a-zA-Z0-9_-]")
log: Final = logging.getLogger("trio_sagents.mcp")

Caller = Callable[[str, JSON], Awaitable[ToolResult]]


@attrs.frozen
class McpHints:
    """What a server says of a tool's effects. Untrusted: show it, but don't let it decide whether a person is asked."""

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
    """What the server calls it; `name` is that, with the prefix, in characters that every provider takes."""
    hints: McpHints = attrs.field(factory=McpHints)


def is_mcp_tool(tool: Tool, server: str | None = None) -> bool:
    """Return whether a tool is run by an MCP server: by any, or by the one of that name."""
    return isinstance(tool, McpTool) and server in {None, tool.server}


def make_tools(listed: Iterable[mcp_types.Tool], server: str, prefix: str, call: Caller) -> Sequence[McpTool]:
    """Return the tools of a listing, in its order: a new sequence. What cannot be a tool is left out, and logged.

    Args:
        listed: as the server listed them.
        server: the name of the connection.
        prefix: stands before each name.
        call: calls one, by the server's name for it.
    """
    tools: dict[str, McpTool] = {}
    for one in listed:
        if len(tools) == MAX_TOOLS:
            log.warning("MCP server %r has more than %d tools; the rest is left out", server, MAX_TOOLS)
            break
        try:
            tool = _make_tool(one, server, _free_name(f"{prefix}{one.name}", tools), call)
        except (TypeError, ValueError) as exc:
            log.warning("a tool of MCP server %r is left out: %s", server, str(exc)[:200])
            continue
        tools[tool.name] = tool
    return tuple(tools.values())


def _make_tool(listed: mcp_types.Tool, server: str, name: str, call: Caller) -> McpTool:
    if len(canonical(plain_json(listed.input_schema, f"tool {name!r}: the schema"))) > MAX_SCHEMA:
        raise ValueError(f"tool {name!r}: the schema has more than {MAX_SCHEMA} characters")
    remote_name = listed.name

    async def run(**arguments: JSONValue) -> ToolResult:
        return await call(remote_name, arguments)

    description = _storable(listed.description or "")[:MAX_DESCRIPTION]
    return McpTool(
        name=name,
        description=description,
        parameters=listed.input_schema,
        function=run,
        server=server,
        remote_name=remote_name,
        hints=_hints(listed.annotations),
    )


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _hints(said: mcp_types.ToolAnnotations | None) -> McpHints:
    if said is None:
        return McpHints()
    title = None if said.title is None else _storable(said.title)[:MAX_NAME]
    return McpHints(said.read_only_hint, said.destructive_hint, said.idempotent_hint, said.open_world_hint, title)


def _free_name(wanted: str, taken: "dict[str, McpTool]") -> str:
    """Return a name that providers take, and no other tool has."""
    name = _FORBIDDEN.sub("_", wanted)[:MAX_NAME] or "_"
    number = 1
    free = name
    while free in taken:
        number += 1
        ending = f"_{number}"
        free = name[: MAX_NAME - len(ending)] + ending
    return free

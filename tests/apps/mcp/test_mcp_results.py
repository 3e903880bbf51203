"""What a server answers, as text; what it offers, as tools."""

import logging
from typing import Any

import mcp_types
import pytest

from trio_sagents import ToolResult
from trio_sagents.agent import Tool
from trio_sagents.mcp import HttpServer, Mcp, McpConnection, McpHints, McpTool, StdioServer, is_mcp_tool
from trio_sagents.mcp._results import MAX_OUTPUT, read_result
from trio_sagents.mcp._servers import redacted
from trio_sagents.mcp._tools import MAX_DESCRIPTION, MAX_SCHEMA, MAX_TOOLS, make_tools

TEXT = mcp_types.TextContent(text="one")


def result(*blocks: Any, **fields: Any) -> mcp_types.CallToolResult:
    return mcp_types.CallToolResult(content=list(blocks), **fields)


def listed(name: str, **fields: Any) -> mcp_types.Tool:
    return mcp_types.Tool(name=name, input_schema=fields.pop("schema", {"type": "object"}), **fields)


async def echo(name: str, arguments: Any) -> ToolResult:
    return ToolResult(f"{name} {dict(arguments)}")


def made(*tools: mcp_types.Tool, prefix: str = "") -> list[McpTool]:
    return list(make_tools(tools, "server", prefix, echo))


def test_result_when_texts() -> None:
    """Texts stand one below the other; structured content beside them is for the host alone."""
    read = read_result(result(TEXT, mcp_types.TextContent(text="two"), structured_content={"a": 1}))

    assert ToolResult("one\ntwo", value={"a": 1}) == read


def test_result_when_structured_alone() -> None:
    """Without a text the structured content is read as JSON."""
    assert '{"a": "é"}' == read_result(result(structured_content={"a": "é"})).content


@pytest.mark.parametrize("value", [None, float("nan")])
def test_result_when_nothing_to_read(value: Any) -> None:
    """Nothing, or what has no JSON form, is an empty text."""
    assert ToolResult("") == read_result(result(structured_content=value))


def test_result_when_error() -> None:
    """An error of the tool is one for the model."""
    assert ToolResult("one", is_error=True) == read_result(result(TEXT, is_error=True))


def test_result_when_not_text() -> None:
    """What is no text is named, with its size."""
    image = mcp_types.ImageContent(data="AAAA", mime_type="image/png")
    audio = mcp_types.AudioContent(data="AAA=", mime_type="audio/wav")
    link = mcp_types.ResourceLink(name="notes", uri="file:///notes")
    text = mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents(uri="file:///a", text="inside"))
    blob = mcp_types.EmbeddedResource(resource=mcp_types.BlobResourceContents(uri="file:///b", blob="AA=="))

    assert [
        "[image: image/png, 3 bytes; not shown]",
        "[audio: audio/wav, 2 bytes; not shown]",
        "[resource: 'notes', of unknown type, at file:///notes]",
        "inside",
        "[resource: of unknown type, 1 bytes, at file:///b; not shown]",
    ] == read_result(result(image, audio, link, text, blob)).content.split("\n")


def test_result_when_long() -> None:
    """A result is cut to a size, with a mark."""
    read = read_result(result(mcp_types.TextContent(text="x" * (MAX_OUTPUT + 5))))

    assert read.content.endswith(f"x\n[cut: {MAX_OUTPUT} of {MAX_OUTPUT + 5} characters shown]")


async def test_tool_when_called() -> None:
    """A tool has its name with the prefix, and calls the server by its own; arguments of any name reach it."""
    schema = {"type": "object", "properties": {"self": {"type": "string"}}}
    (tool,) = made(listed("get", description="Gets.", schema=schema), prefix="x_")

    assert ("x_get", "get", "Gets.", schema, "server", True) == (
        tool.name,
        tool.remote_name,
        tool.description,
        tool.parameters,
        tool.server,
        tool.is_async,
    )
    assert ToolResult("get {'self': 'a', 'name': 1}") == await tool.function(self="a", name=1)
    assert tool is Tool.of(tool)


def test_tools_when_names_are_odd() -> None:
    """Names are made such that every provider takes them, and no two are the same."""
    long = "n" * 70
    tools = made(listed("a.b"), listed("a/b"), listed("a_b"), listed("é"), listed(""), listed(long), listed(f"{long}!"))

    assert ["a_b", "a_b_2", "a_b_3", "_", "__2", "n" * 64, "n" * 62 + "_2"] == [tool.name for tool in tools]
    assert ["a.b", "a/b", "a_b", "é", "", long, f"{long}!"] == [tool.remote_name for tool in tools]


def test_tools_when_one_cannot_be(caplog: pytest.LogCaptureFixture) -> None:
    """A tool that cannot be is left out and logged; the others are there."""
    caplog.set_level(logging.WARNING)
    huge = {"type": "object", "description": "x" * MAX_SCHEMA}
    tools = made(
        listed("array", schema={"type": "array"}), listed("huge", schema=huge), listed("good"), listed("nan", schema={"type": float("nan")})
    )

    assert ["good"] == [tool.name for tool in tools]
    assert 3 == len(caplog.records)


def test_tools_when_many(caplog: pytest.LogCaptureFixture) -> None:
    """More tools than anybody can use are left out."""
    caplog.set_level(logging.WARNING)

    assert MAX_TOOLS == len(made(*(listed(f"t{number}") for number in range(MAX_TOOLS + 1))))
    assert "more than" in caplog.text


def test_tool_when_it_says_much() -> None:
    """A description is cut; hints are kept, and decide nothing."""
    notes = mcp_types.ToolAnnotations(read_only_hint=True, destructive_hint=False, title="T")
    (tool,) = made(listed("a", description="d" * 10_000, annotations=notes))

    assert MAX_DESCRIPTION == len(tool.description)
    assert McpHints(read_only=True, destructive=False, title="T") == tool.hints


def test_is_mcp_tool_when_asked() -> None:
    """One function tells MCP tools from others, and those of one server from those of another."""
    (tool,) = made(listed("a"))
    own = Tool(name="own", function=lambda: "own")

    assert [True, True, False, False] == [is_mcp_tool(tool), is_mcp_tool(tool, "server"), is_mcp_tool(tool, "other"), is_mcp_tool(own)]


def test_server_when_printed() -> None:
    """No value that may be a secret is printed."""
    stdio = StdioServer("/bin/x", ["--key", "secret1"], {"TOKEN": "secret2"})
    http = HttpServer("https://user:secret3@host/mcp?key=secret4", {"Authorization": "Bearer secret5"})
    texts = [repr(stdio), repr(http), repr(Mcp(stdio)), repr(McpConnection(http, "n")), repr(Mcp(http).debug_summary())]

    assert "StdioServer(command='/bin/x', args=<2>, env=<1>, cwd=None, exit_timeout=2.0)" == texts[0]
    assert "HttpServer(url='https://host/mcp', headers=<1>)" == texts[1]
    assert [] == [text for text in texts if "secret" in text]


def test_redacted_when_text_has_secrets() -> None:
    """What is secret of a server is struck out of other texts; what is too short to be one is not."""
    http = HttpServer("https://user:passw0rd@host/mcp?key=qu3ryk3y", {"Authorization": "Bearer t0k3n-1"})

    assert "*** *** *** host" == redacted("passw0rd qu3ryk3y t0k3n-1 host", http)
    assert "a 1" == redacted("a 1", StdioServer("x", env={"A": "1"}))


def test_names_when_none_is_given() -> None:
    """A server is called by its command, or its host."""
    assert ("uvx", "host") == (StdioServer("/usr/bin/uvx").name, HttpServer("http://host:1/mcp").name)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: StdioServer(""), ValueError, "command must not be empty"),
        (lambda: StdioServer(3), TypeError, "command must be a str"),  # type: ignore[arg-type]
        (lambda: StdioServer("x", "--flag"), TypeError, "args must be a sequence of str"),
        (lambda: StdioServer("x", env={"A": 1}), TypeError, "mappings of str to str"),  # type: ignore[dict-item]
        (lambda: StdioServer("x", exit_timeout=float("inf")), ValueError, "must be finite"),
        (lambda: HttpServer("ftp://host"), ValueError, "must begin with http"),
        (lambda: HttpServer("http://[bad"), ValueError, "cannot be read"),
        (lambda: HttpServer(b"http://host"), TypeError, "must be a str"),  # type: ignore[arg-type]
        (lambda: Mcp(StdioServer("x"), start_timeout=0), ValueError, "start_timeout must be > 0"),
        (lambda: Mcp(StdioServer("x"), call_timeout="1"), TypeError, "call_timeout must be seconds"),  # type: ignore[arg-type]
        (lambda: Mcp(StdioServer("x"), reconnects=-1), ValueError, "reconnects must be at least 0"),
        (lambda: Mcp(StdioServer("x"), reconnects=True), TypeError, "reconnects must be an int"),
        (lambda: Mcp(McpConnection(StdioServer("x"), "n"), prefix="p"), ValueError, "has its own name, prefix and limits"),
    ],
)
def test_arguments_when_wrong(make: Any, error: type[Exception], words: str) -> None:
    """What is wrong with a server or its limits is said when it is described."""
    with pytest.raises(error, match=words):
        make()

"""What a server answers, as text and media; what it offers, as tools."""

from typing import Any

import mcp_types
import pytest

from trio_sagents import FilePart, ImagePart, ToolResult
from trio_sagents.agent import Tool
from trio_sagents.mcp import HttpServer, Mcp, McpConnection, McpHints, McpTool, StdioServer, is_mcp_tool
from trio_sagents.mcp._results import MAX_OUTPUT, MAX_PARTS, read_result
from trio_sagents.mcp._schemas import MAX_SCHEMA
from trio_sagents.mcp._servers import redacted
from trio_sagents.mcp._tools import MAX_DESCRIPTION, MAX_TOOLS, make_tools
from trio_sagents.mcp._wire import UNREADABLE

TEXT = {"type": "text", "text": "one"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def result(*blocks: Any, **fields: Any) -> dict[str, Any]:
    return {"content": list(blocks), **fields}


def listed(name: str, **fields: Any) -> mcp_types.Tool:
    return mcp_types.Tool(name=name, input_schema=fields.pop("schema", {"type": "object"}), **fields)


async def echo(tool: McpTool, arguments: Any) -> ToolResult:
    return ToolResult(f"{tool.remote_name} {dict(arguments)}")


def made(*tools: mcp_types.Tool, prefix: str = "", warnings: list[str] | None = None) -> list[McpTool]:
    return list(make_tools(tools, "server", prefix, echo, ([] if warnings is None else warnings).append))


def test_result_when_texts() -> None:
    """Texts stand one below the other; structured content beside them is for the host alone."""
    read = read_result(result(TEXT, {"type": "text", "text": "two"}, structuredContent={"a": 1}))

    assert ToolResult("one\ntwo", value={"a": 1}) == read


def test_result_when_structured_alone() -> None:
    """Without a text the structured content is read as JSON."""
    assert '{"a": "é"}' == read_result(result(structuredContent={"a": "é"})).content


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (result(), ""),
        ({}, ""),
        (None, ""),
        ({"_meta": {}, "isError": False}, ""),
        ("done", "done"),
        (5, "5"),
        ([1, "a"], '[1, "a"]'),
        ({"value": 5, "_meta": {}}, '{"value": 5}'),
        ({"toolResult": {"a": 1}}, '{"toolResult": {"a": 1}}'),
        ({"content": "done"}, "done"),
        ({"content": {"type": "text", "text": "done"}}, "done"),
        ({"content": ["done", TEXT]}, "done\none"),
        ({"content": [TEXT, {"type": "video", "url": "x"}]}, 'one\n[a part in an unknown form: {"type": "video", "url": "x"}]'),
        ({"content": [{"type": "text"}, 5]}, '[a part in an unknown form: {"type": "text"}]\n[a part in an unknown form: 5]'),
        ({"structuredContent": [1]}, "[1]"),
        (result(structuredContent=float("nan")), "NaN"),
        ({UNREADABLE: '{"id": 5,'}, '[The call worked. The answer of the server cannot be read; it begins with: {"id": 5,]'),
    ],
)
def test_result_when_it_has_another_form(said: Any, text: str) -> None:
    """The call has had its effect: in whatever form the answer is, it is shown, and is not an error."""
    read = read_result(said)

    assert (text, False) == (read.content, read.is_error)


@pytest.mark.parametrize(
    ("flag", "expected"), [(True, True), ("true", True), (1, True), (False, False), ("no", False), (None, False), ({}, False)]
)
def test_result_when_it_is_an_error(flag: Any, expected: bool) -> None:  # by name in the table
    """An error of the tool is an error for the model, however the server writes it."""
    assert ToolResult("one", is_error=expected) == read_result(result(TEXT, isError=flag))
    assert expected == read_result({"isError": flag}).is_error


def test_result_when_it_has_media() -> None:
    """Images and files go to the model as such, each with a line in the text, and never as base64 text."""
    read = read_result(
        result(
            {"type": "image", "data": PNG, "mimeType": "image/png"},
            {"type": "audio", "data": "AAA=", "mimeType": "audio/x-wav"},
            {"type": "resource_link", "name": "notes", "uri": "file:///notes"},
            {"type": "resource_link", "uri": "file:///notes", "mimeType": "text/plain"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}},
            {"type": "resource", "resource": {"uri": "file:///b.pdf", "blob": "AA==", "mimeType": "application/pdf"}},
            {"type": "resource", "resource": {"uri": "file:///c.png", "blob": PNG, "mimeType": "image/png"}},
        )
    )
    picture = ImagePart("image/png", data=PNG)

    assert [
        "[image: image/png, 70 bytes]",
        "[audio: 'audio.wav', audio/x-wav, 2 bytes]",
        "[resource: 'notes', of unknown type, at file:///notes]",
        "[resource: without a name, text/plain, at file:///notes]",
        "inside",
        "[resource: 'b.pdf', application/pdf, 1 bytes]",
        "[resource: image/png, 70 bytes]",
    ] == read.content.split("\n")
    assert (picture, FilePart("audio.wav", "audio/x-wav", "AAA="), FilePart("b.pdf", "application/pdf", "AA=="), picture) == read.media


@pytest.mark.parametrize(
    ("block", "text", "media"),
    [
        ({"data": PNG, "mimeType": "image/jpeg"}, "[image: image/png, 70 bytes]", ImagePart("image/png", data=PNG)),
        ({"data": PNG}, "[image: image/png, 70 bytes]", ImagePart("image/png", data=PNG)),
        ({"data": f"data:image/png;base64,{PNG}"}, "[image: image/png, 70 bytes]", ImagePart("image/png", data=PNG)),
        ({"data": "AAAA", "mimeType": "image/png"}, "[image: 'image.png', image/png, 3 bytes]", FilePart("image.png", "image/png", "AAAA")),
        (
            {"data": "PHN2Zz4=", "mimeType": "Image/SVG+xml"},
            "[image: 'image.svg', image/svg+xml, 5 bytes]",
            FilePart("image.svg", "image/svg+xml", "PHN2Zz4="),
        ),
        ({"data": "AAAA"}, "[image: 'image', of unknown type, 3 bytes]", FilePart("image", "application/octet-stream", "AAAA")),
        ({"data": "no!", "mimeType": "image/png"}, "[image: image/png; not shown, for its data are not base64]", None),
    ],
)
def test_result_when_an_image_is_not_what_it_says(block: Any, text: str, media: Any) -> None:
    """A provider that refuses an image refuses the conversation for ever: what is not an image that all take is a file, or a note."""
    read = read_result(result({"type": "image", **block}))

    assert (text, () if media is None else (media,)) == (read.content, read.media)


def test_result_when_long() -> None:
    """A result is cut to a size, with a mark."""
    read = read_result(result({"type": "text", "text": "x" * (MAX_OUTPUT + 5)}))

    assert read.content.endswith(f"x\n[cut: {MAX_OUTPUT} of {MAX_OUTPUT + 5} characters shown]")
    assert f"[cut: {MAX_PARTS} of {MAX_PARTS + 1} parts shown]" == read_result(result(*[TEXT] * (MAX_PARTS + 1))).content.split("\n")[-1]


async def test_tool_when_called() -> None:
    """A tool has its name with the prefix, and calls the server by its own; arguments of any name reach it."""
    schema = {"type": "object", "properties": {"self": {"type": "string"}}}
    (tool,) = made(listed("get", description="Gets.", schema=schema), prefix="x_")

    assert ("x_get", "get", "Gets.", schema, "server", "mcp:server", True) == (
        tool.name,
        tool.remote_name,
        tool.description,
        tool.parameters,
        tool.server,
        tool.origin,
        tool.is_async,
    )
    assert ToolResult("get {'self': 'a', 'name': 1}") == await tool.function(self="a", name=1)
    assert tool is Tool.of(tool)


def test_tools_when_names_are_odd() -> None:
    """Names are made such that every provider takes them, and no two are the same, in whatever order they are listed."""
    long = "n" * 70
    odd = [listed("a.b"), listed("a/b"), listed("a_b"), listed("é"), listed("c.d"), listed(long), listed(f"{long}!")]
    names = {tool.remote_name: tool.name for tool in made(*odd)}

    assert ("a_b", "_", "c_d") == (names["a_b"], names["é"], names["c.d"])
    assert names["a.b"].startswith("a_b_")
    assert len(odd) == len(set(names.values()))
    assert all(len(name) <= 64 for name in names.values())
    assert names == {tool.remote_name: tool.name for tool in made(*reversed(odd))}


def test_tools_when_one_cannot_be() -> None:
    """A tool that cannot be is left out and named; the others are there."""
    huge = {"type": "object", "description": "x" * MAX_SCHEMA}
    warnings: list[str] = []
    tools = made(
        listed("array", schema={"type": "array"}),
        listed("huge", schema=huge),
        listed("good"),
        listed("nan", schema={"type": float("nan")}),
        listed("wrong", schema={"type": "object", "properties": {"a": {"type": "text"}}}),
        listed("good", description="again"),
        warnings=warnings,
    )

    words = "'text' is not valid under any of the given schemas"

    assert ["good"] == [tool.name for tool in tools]
    assert [
        "the tool 'array' is left out: its schema does not describe an object",
        f"the tool 'huge' is left out: its schema has more than {MAX_SCHEMA} characters",
        "the tool 'nan' is left out: the schema.type: nan has no JSON form",
        f"the tool 'wrong' is left out: its schema is not valid at ['properties']['a']['type']: {words}",
        "the tool 'good' is listed twice; the second is left out",
    ] == warnings


def test_tools_when_many() -> None:
    """More tools than anybody can use are left out."""
    warnings: list[str] = []

    assert MAX_TOOLS == len(made(*(listed(f"t{number}") for number in range(MAX_TOOLS + 1)), warnings=warnings))
    assert [f"the server has more than {MAX_TOOLS} tools; the others are left out"] == warnings


async def test_tool_when_its_arguments_have_odd_names() -> None:
    """Names of arguments that a provider would refuse are changed for the model, and changed back for the server."""
    schema = {"type": "object", "properties": {"$top": {"type": "integer"}, "a b": {}, "a_b": {}, "x.y": {}}, "required": ["$top", "a b"]}
    (tool,) = made(listed("get", schema=schema))
    top, other, plain, dotted = tool.parameters["properties"]

    assert ("_top", "a_b", "x.y") == (top, plain, dotted)
    assert [top, other] == tool.parameters["required"]
    assert ToolResult("get {'$top': 1, 'a b': 2, 'a_b': 3, 'new': 4}") == await tool.function(**{top: 1, other: 2, plain: 3, "new": 4})


def test_tool_when_it_says_much() -> None:
    """A description is cut; hints are kept, and decide nothing."""
    notes = mcp_types.ToolAnnotations(read_only_hint=True, destructive_hint=False, title="T")
    (tool,) = made(listed("a", description="d" * 10_000, annotations=notes))

    assert MAX_DESCRIPTION == len(tool.description)
    assert McpHints(read_only=True, destructive=False, title="T") == tool.hints
    assert McpHints(title="T") == made(listed("a", title="T"))[0].hints


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
    assert "HttpServer(url='https://host/mcp', headers=<1>, transport='streamable')" == texts[1]
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
        (lambda: Mcp(StdioServer("x"), call_timeout="1"), TypeError, "call_timeout must be a number of seconds"),  # type: ignore[arg-type]
        (lambda: Mcp(StdioServer("x"), reconnects=-1), ValueError, "reconnects must be at least 0"),
        (lambda: Mcp(StdioServer("x"), reconnects=True), TypeError, "reconnects must be an int"),
        (lambda: Mcp(StdioServer("x"), reconnects=0.5), TypeError, "reconnects must be an int"),
        (lambda: Mcp(McpConnection(StdioServer("x"), "n"), prefix="p"), ValueError, "has its own name, prefix and limits"),
    ],
)
def test_arguments_when_wrong(make: Any, error: type[Exception], words: str) -> None:
    """What is wrong with a server or its limits is said when it is described."""
    with pytest.raises(error, match=words):
        make()

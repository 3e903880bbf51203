"""MCP servers as they really are: each quirk in the table of docs/how-to/mcp.md, with the server that ships for users' tests."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.apps.mcp._kit import quirky, quirky_streams
from tests.apps.mcp.test_mcp_results import PNG
from trio_sagents import (
    Agent,
    Completed,
    FilePart,
    ImagePart,
    MemoryStore,
    SessionConfig,
    Sessions,
    SingleFactoryRouter,
    StartFailed,
    ToolResult,
    open_sessions,
)
from trio_sagents.mcp import Mcp, McpConnection, McpDisconnected, StdioServer, open_mcp
from trio_sagents.mcp._memory import Memory
from trio_sagents.mcp._opening import Opening
from trio_sagents.testing import Call, ScriptedModel
from trio_sagents.testing.mcp_server import ECHO, QuirkyServer, mcp_server

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "mcp.md"


def names(connection: McpConnection) -> Sequence[str]:
    return [tool.name for tool in connection.tools()]


def test_table_when_read() -> None:
    """Each row of the table of quirks names its test, and each test here of a quirk is in a row."""
    rows = re.findall(r"\| `(test_\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    tests = [name for name in globals() if name.startswith("test_server_")]

    assert sorted(tests) == sorted(rows)


# ── how a server is spoken to first ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("before", ["ends", "is silent", "answers without an id"])
async def test_server_that_knows_only_initialize(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends at another first request, or does not answer it, is used, and costs nothing at the next start."""
    modes: list[str] = []
    in_one_way = Opening._open

    async def counted(opening: Opening, mode: Any, memory: Memory, deadline: float) -> Any:
        modes.append(mode)
        return await in_one_way(opening, mode, memory, deadline)

    monkeypatch.setattr(Opening, "_open", counted)
    async with open_mcp(mcp_server(before=before)) as connection:
        answer = await connection.call("echo", {"text": "a"})

        assert (["echo"], '{"text": "a"}') == (names(connection), answer.content)
    assert "auto" == modes[0]
    del modes[:]
    connection = McpConnection(mcp_server(before=before), "again", memory=Memory(mode="legacy"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.own)
        await connection.ready()
        nursery.cancel_scope.cancel()

    assert ["legacy"] == modes


async def test_probe_when_nobody_answers_it(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request is waited for two seconds, and not at all once it is known that the server does not answer it."""
    memory, server = Memory(), QuirkyServer(before="is silent")
    durations: list[float] = []
    for _ in range(2):
        began = trio.current_time()
        server._has_begun = False
        async with quirky(server, monkeypatch, memory=memory) as connection:
            durations.append(trio.current_time() - began)

            assert ["echo"] == names(connection)

    assert [2.0, 0.0] == pytest.approx(durations, abs=0.1)


async def test_server_that_knows_only_the_newest_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without `initialize` is used, also if it had one the last time."""
    memory = Memory(mode="legacy")
    async with quirky(QuirkyServer(modern=True), monkeypatch, memory=memory) as connection:
        answer = await connection.call("echo", {"text": "a"})

        assert (["echo"], '{"text": "a"}', "auto") == (names(connection), answer.content, memory.mode)


@pytest.mark.parametrize(
    "said",
    [
        {"protocolVersion": "2019-01-01"},
        {"protocolVersion": 1},
        {"protocolVersion": None},
        {"capabilities": None},
        {"capabilities": {}},
        {"capabilities": {"tools": True}},
        {"serverInfo": None},
        {"serverInfo": "me"},
        {"instructions": {"a": 1}},
    ],
    ids=str,
)
async def test_server_that_introduces_itself_oddly(monkeypatch: pytest.MonkeyPatch, said: Mapping[str, object]) -> None:
    """An answer to `initialize` that lacks something, or has it in another form, does not cost the server."""
    async with quirky(QuirkyServer(initialize=said), monkeypatch) as connection:
        assert ["echo"] == names(connection)


# ── what a server lists ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "bad",
    [
        5,
        {},
        {"name": 5},
        {"name": "bad", "inputSchema": {"type": "array"}},
        {"name": "bad", "inputSchema": []},
        {"name": "bad", "inputSchema": {"properties": {"a": {"type": "text"}}}},
        {"name": "bad", "inputSchema": {"properties": {"a": {"$ref": "#/lost"}}}},
        {"name": "bad", "inputSchema": {"description": "x" * 100_000}},
        ECHO,
    ],
    ids=lambda bad: str(bad)[:40],
)
async def test_server_that_lists_one_tool_wrongly(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bad: object) -> None:
    """The tool is left out, with a warning; the others are there."""
    async with quirky(QuirkyServer(tools=[ECHO, bad, {**ECHO, "name": "last"}]), monkeypatch) as connection:
        assert ["echo", "last"] == names(connection)
    assert 1 == len([record for record in caplog.records if "out" in record.getMessage()])


@pytest.mark.parametrize(
    "odd",
    [
        {"inputSchema": {}},
        {"inputSchema": {"anyOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]}},
        {},
        {"inputSchema": {"type": "object"}, "annotations": {"title": 5}},
        {"annotations": []},
        {"outputSchema": "x"},
        {"description": None},
        {"inputSchema": {"type": "object", "properties": {"$top": {}}}},
    ],
    ids=str,
)
async def test_server_that_lists_one_tool_oddly(monkeypatch: pytest.MonkeyPatch, odd: Mapping[str, object]) -> None:
    """A tool without a schema, with alternatives at the top, or with notes of the wrong type can be used."""
    async with quirky(QuirkyServer(tools=[{"name": "odd", **odd}, ECHO]), monkeypatch) as connection:
        assert ["odd", "echo"] == names(connection)
        assert "object" == connection.tools()[0].parameters["type"]
        assert "{}" == (await connection.tools()[0].function()).content


async def test_server_that_names_tools_oddly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names get characters that all providers take, and each call goes to the tool that was named."""
    tools = [{"name": name} for name in ("files.read", "files/read", "files_read", "é", "x" * 100)]
    results = {tool["name"]: tool["name"] for tool in tools}
    async with quirky(QuirkyServer(tools=tools, results=results), monkeypatch) as connection:
        for tool in connection.tools():
            assert tool.remote_name == (await tool.function()).content
            assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", tool.name)
        assert 5 == len(set(names(connection)))


@pytest.mark.parametrize(
    "reply", [{"result": {"tools": None}}, {"result": []}, {"result": {}}, {"error": {"code": -32601, "message": "no"}}]
)
async def test_server_that_has_no_list(monkeypatch: pytest.MonkeyPatch, reply: Any) -> None:
    """A list in no form that can be read is a list without tools; the connection is there."""
    async with quirky(QuirkyServer(replies={"tools/list": reply}), monkeypatch) as connection:
        assert ([], True) == (names(connection), connection.is_connected)


async def test_server_that_lists_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are followed, and a page that leads to itself ends the list."""
    tools = [{"name": f"tool-{number}"} for number in range(25)]
    async with quirky(QuirkyServer(tools=tools, page_size=10), monkeypatch) as connection:
        assert [tool["name"] for tool in tools] == names(connection)
    page = {"result": {"tools": [ECHO], "nextCursor": "again"}}
    async with quirky(QuirkyServer(replies={"tools/list": page}), monkeypatch) as connection:
        assert ["echo"] == names(connection)


async def test_server_that_cannot_list_its_second_page(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What was listed is there."""

    class Failing(QuirkyServer):
        def _page(self, cursor: str | None) -> Any:
            return "broken" if cursor else {"tools": [ECHO], "nextCursor": "2"}

        def answer(self, line: str) -> Any:
            message = json.loads(line)
            if (message.get("params") or {}).get("cursor"):
                yield json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -1, "message": "no more"}})
            else:
                yield from super().answer(line)

    async with quirky(Failing(), monkeypatch) as connection:
        assert ["echo"] == names(connection)
    assert "only a part of its tools could be listed: it refused: no more" in caplog.text


async def test_server_that_always_reports_changes(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that reports a change whenever its tools are listed is asked once a second."""
    changed = {"method": "notifications/tools/list_changed"}
    lists: list[str] = []

    def count(line: str) -> Sequence[str]:
        if '"tools"' in line and "inputSchema" in line:
            lists.append(line)
        return [line]

    async with quirky(QuirkyServer(notices={"tools/list": [changed]}), monkeypatch, mutate=count):
        await trio.sleep(10)

    assert 9 <= len(lists) <= 12


# ── what a server writes ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_server_that_writes_other_things() -> None:
    """Lines that are not messages, log lines in JSON among them, are ignored."""
    greeting = ["starting up...", "", '{"level": "info", "message": "ready"}', "[", '"result"', "\x1b[32mok\x1b[0m"]
    async with open_mcp(mcp_server(greeting=greeting)) as connection:
        assert ["echo"] == names(connection)


@pytest.mark.parametrize(
    "line",
    [
        '\ufeff{"jsonrpc": "2.0", "id": {id}, "result": "done"}',
        '{"id": {id}, "result": "done", "error": null}',
        '{"jsonrpc": "2.0", "id": "{id}", "result": "done"}',
        '{"jsonrpc": "2.0", "id": {id}.0, "result": "done"}',
        '[{"jsonrpc": "2.0", "id": {id}, "result": "done"}]',
        '{"jsonrpc": "2.0", "id": {id}, "result": {"content": "done"}}',
        '{"jsonrpc": "2.0", "id": {id}, "result": {"content": {"type": "text", "text": "done"}}}',
        '{"jsonrpc": "2.0", "id": {id}, "result": {"content": ["done"], "isError": null}}',
        '{"jsonrpc": "2.0", "id": {id}, "result": {"content": [{"type": "text", "text": "done", "annotations": 5}], "_meta": 5}}',
    ],
)
async def test_server_that_answers_in_another_form(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """An answer with one meaning has that meaning: the call worked."""
    async with quirky(QuirkyServer(lines={"echo": [line]}), monkeypatch) as connection:
        assert ToolResult("done") == await connection.call("echo", {})


async def test_server_whose_answer_differs_from_its_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call worked: an answer that is not what the tool promised is shown, and is not an error."""
    tool = {**ECHO, "outputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}
    other = {"structuredContent": {"n": "five"}, "content": []}
    for result, text in ((other, '{"n": "five"}'), ({"content": []}, ""), ({"content": [], "structuredContent": [1]}, "[1]")):
        async with quirky(QuirkyServer(tools=[tool], results={"echo": result}), monkeypatch) as connection:
            answer = await connection.call("echo", {})

            assert (text, False) == (answer.content, answer.is_error)


UNREADABLE = "The call worked. The answer of the server cannot be read"
UNKNOWN = "sent an answer that cannot be read (the answer cannot be read: it has"


@pytest.mark.parametrize(
    ("line", "flag", "words"),
    [
        ('{"jsonrpc": "2.0", "id": {id}, "result": {"content": [{"type": "te', "worked", UNREADABLE),
        ('{"jsonrpc": "2.0", "result": {"content": []}}', "error", f"{UNKNOWN} no id): the outcome is unknown"),
        ('{"jsonrpc": "2.0", "id": null, "error": {"message": "busy"}}', "error", "refused the call: busy"),
        ('{"jsonrpc": "2.0", "id": {id}}', "error", f"{UNKNOWN} neither a result nor an error): the outcome is unknown"),
        ('{"jsonrpc": "2.0", "id": {id}, "error": "busy"}', "error", "refused the call: busy"),
    ],
)
async def test_server_whose_answer_is_damaged(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, line: str, flag: str, words: str
) -> None:
    """Nobody waits for ever for an answer that cannot be read, and an effect that happened is not told as a failure."""
    async with quirky(QuirkyServer(lines={"echo": [line]}), monkeypatch) as connection:
        answer = await connection.call("echo", {})

        assert (flag == "error") == answer.is_error
        assert words in answer.content
        assert trio.current_time() < 1


async def test_server_that_sends_images_and_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """They reach the model as such, through the agent."""
    blocks = [
        {"type": "image", "data": PNG, "mimeType": "image/png"},
        {"type": "resource", "resource": {"uri": "file:///a.pdf", "blob": "AA==", "mimeType": "application/pdf"}},
    ]
    server = QuirkyServer(results={"echo": {"content": blocks}})
    async with quirky(server, monkeypatch) as connection:
        agent = Agent(model=ScriptedModel([Call("echo"), "seen"]), middleware=[Mcp(connection)])
        async with opened(agent) as sessions:
            await told(sessions)
    (result,) = agent.model.requests[1].messages[-1].results  # type: ignore[attr-defined]  # of the scripted model

    assert (ImagePart("image/png", data=PNG), FilePart("a.pdf", "application/pdf", "AA==")) == result.media
    assert "[image: image/png, 70 bytes]\n[resource: 'a.pdf', application/pdf, 1 bytes]" == result.content


async def test_server_that_asks_for_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server asks of the client (a model, a person, folders, a sign of life) does not keep it from answering."""
    methods = ("sampling/createMessage", "elicitation/create", "roots/list", "ping", "what/ever")
    notices = [{"id": f"s-{number}", "method": method, "params": {"x": 1}} for number, method in enumerate(methods)]
    async with quirky(QuirkyServer(notices={"echo": [*notices, {"method": "notifications/odd"}]}), monkeypatch) as connection:
        assert '{"text": "a"}' == (await connection.call("echo", {"text": "a"})).content


async def test_server_that_does_not_answer(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is not answered ends after ten minutes, by default; the model reads that the outcome is unknown."""
    async with quirky(QuirkyServer(silent=["echo"]), monkeypatch) as connection:
        answer = await connection.call("echo", {})

    assert "The MCP server 'memory' did not answer within 600 seconds: the outcome is unknown." == answer.content
    assert 600 == pytest.approx(trio.current_time(), abs=1)


# ── a server that is not there ────────────────────────────────────────────────────────────────────────────────────────


def opened(agent: Agent) -> Any:
    return open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore()))


async def told(sessions: Sessions, conversation_id: str = "c") -> str:
    outcome = await (await sessions.post(conversation_id, "go")).wait()
    assert isinstance(outcome, Completed), outcome
    return outcome.message.text


def use_if_there(request: Any) -> Any:
    """Call the tool if there is one."""
    return "done" if request.messages[-1].role == "tool" or not request.tools else Call(request.tools[-1].name)


async def test_server_that_cannot_be_started(caplog: pytest.LogCaptureFixture) -> None:
    """A dead server costs the agent its tools, and a warning; `required=True` costs the start."""
    agent = Agent(model=ScriptedModel(use_if_there), middleware=[Mcp(StdioServer("/no/such/command"), name="dead")])
    async with opened(agent) as sessions:
        assert "done" == await told(sessions)
    assert "an agent starts without the tools of the MCP server 'dead': '/no/such/command' cannot be started" in caplog.text
    agent = Agent(model=ScriptedModel(use_if_there), middleware=[Mcp(StdioServer("/no/such/command"), required=True)])
    async with opened(agent) as sessions:
        with pytest.raises(StartFailed):
            await sessions.post("c", "go")


async def test_server_that_is_slow(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An agent waits ten seconds for a slow server, the next one a second; the tools are there when the server is ready."""
    server = QuirkyServer(silent=["initialize", "server/discover"])
    mcp = Mcp(StdioServer("in-memory"), name="slow")
    agent = Agent(model=ScriptedModel(use_if_there), middleware=[mcp])
    async with quirky(server, monkeypatch, required=False), opened(agent) as sessions:
        times = [trio.current_time()]
        for conversation in ("one", "two"):
            await told(sessions, conversation)
            times.append(trio.current_time())
        server.silent = frozenset()
        await trio.sleep(100)
        await told(sessions, "one")
        await trio.testing.wait_all_tasks_blocked()
        await told(sessions, "one")
    requests = agent.model.requests  # type: ignore[attr-defined]  # of the scripted model

    assert [10.0, 1.0] == pytest.approx([times[1] - times[0], times[2] - times[1]], abs=0.1)
    assert ["echo"] == [tool.name for tool in requests[-1].tools]
    assert [] == list(requests[0].tools)
    assert "an agent starts without the tools of the MCP server 'slow': it was not ready within 10 seconds" in caplog.text


async def test_server_that_comes_back(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was away is tried again for whoever asks next, after a while that doubles, and for ever."""
    server = QuirkyServer(ends=["initialize", "server/discover"])
    tries: list[float] = []

    class Counting(Memory):
        def note_failure(self, why: str) -> None:
            tries.append(trio.current_time())
            super().note_failure(why)

    async with quirky(server, monkeypatch, required=False, memory=Counting()) as connection:
        for _ in range(3000):
            connection.wake()
            await trio.sleep(0.1)
        with pytest.raises(McpDisconnected, match="it ended the connection; .* it is tried again in"):
            await connection.call("echo", {})
        server.ends = frozenset()
        await trio.sleep(60)
        answer = await connection.call("echo", {"text": "back"})
    gaps = [round(later - sooner, 1) for sooner, later in itertools.pairwise(tries)]

    assert [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0] == pytest.approx(gaps, abs=0.2)
    assert '{"text": "back"}' == answer.content


async def test_server_that_ends_during_a_call() -> None:
    """The call may have taken effect, or not, which the model reads; the next call finds a new server."""
    async with open_mcp(mcp_server(tools=[ECHO, {"name": "die"}], ends=["die"]), name="stock") as connection:
        with pytest.raises(McpDisconnected, match="it was lost during the call, which may have taken effect, or not"):
            await connection.call("die", {})
        assert '{"text": "a"}' == (await connection.call("echo", {"text": "a"})).content


async def test_server_that_comes_back_with_another_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that an agent was offered does not run as another one of the same name."""
    server = QuirkyServer(tools=[{**ECHO, "description": "List."}, {"name": "gone"}, {"name": "die"}], ends=["die"])
    async with quirky(server, monkeypatch) as connection:
        listing, gone, die = connection.tools()
        server.tools = [{**ECHO, "description": "DELETE."}]
        with pytest.raises(McpDisconnected):
            await die.function()
        changed, lost = await listing.function(text="a"), await gone.function()
        new = await connection.tools()[0].function(text="b")

    assert ("Not run: the MCP server 'memory' offers another tool of this name now.", True) == (changed.content, changed.is_error)
    assert ("Not run: the MCP server 'memory' does not offer the tool any more.", True) == (lost.content, lost.is_error)
    assert '{"text": "b"}' == new.content
    assert ["die", "echo"] == [name for name, _ in server.calls]


async def test_server_with_a_tool_of_a_taken_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool gets the name of the server in front; the agent's own tool keeps its name, and is called by it."""
    own: list[str] = []

    async def echo(text: str) -> str:
        """Do it here."""
        own.append(text)
        return "here"

    async with quirky(QuirkyServer(), monkeypatch) as connection:
        model = ScriptedModel([[Call("echo", text="a"), Call("memory_echo", text="b")], "done", "again"])
        agent = Agent(model=model, tools=[echo], middleware=[Mcp(connection)])
        async with opened(agent) as sessions:
            await told(sessions)
            await told(sessions)
    results = {result.name: result.content for message in model.requests[-1].messages for result in message.results}

    assert (["a"], {"echo": "here", "memory_echo": '{"text": "b"}'}) == (own, results)
    assert ["echo", "memory_echo"] == [tool.name for tool in model.requests[0].tools]


# ── the server itself ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_quirky_server_when_it_is_described_wrongly() -> None:
    """A quirk that does not exist is refused, also for a process."""
    with pytest.raises(ValueError, match="before is one of '', 'answers without an id', 'ends', 'is silent', not 'sleeps'"):
        QuirkyServer(before="sleeps")
    with pytest.raises(TypeError):
        mcp_server(unknown=True)


def test_quirky_server_when_it_is_used_without_a_process() -> None:
    """It is a function from lines to lines."""
    server = QuirkyServer()
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "a"}}}
    (line,) = server.answer(json.dumps(call))

    assert {"content": [{"type": "text", "text": '{"text": "a"}'}]} == json.loads(line)["result"]
    assert [("echo", {"text": "a"})] == server.calls
    assert [] == list(server.answer(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"})))


async def test_memory_when_noted_by_another_clock(autojump_clock: Any) -> None:
    """What was noted in another run of Trio does not keep anybody waiting."""
    memory = Memory()
    memory._retry_at = trio.current_time() + 1e6

    assert 0.0 == memory.delay()


# ── agents and their servers ──────────────────────────────────────────────────────────────────────────────────────────


async def test_post_when_a_shared_server_was_lost(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared server that ended while no agent was up is opened again for the next agent that starts, new or old."""
    server = QuirkyServer(tools=[{"name": "die"}, ECHO], ends=["die"])
    async with quirky(server, monkeypatch) as connection:
        agent = Agent(model=ScriptedModel(use_if_there), middleware=[Mcp(connection)])
        async with opened(agent) as sessions:
            for _ in range(2):
                await told(sessions, "old")
                await sessions.stop("old")
                with pytest.raises(McpDisconnected):
                    await connection.call("die", {})
                assert not connection.is_connected
                await told(sessions, "new")
                await sessions.stop("new")

                assert connection.is_connected


async def test_turns_when_a_server_adds_a_tool_of_a_taken_name(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversation goes on, also after a restart: the agent's own tool keeps its name, and the server's gets another one."""
    own: list[str] = []

    async def order(item: str) -> str:
        """Order an item."""
        own.append(item)
        return "ordered"

    def reply(request: Any) -> Any:
        return "done" if request.messages[-1].role == "tool" else Call("order", item="tea")

    changed = {"method": "notifications/tools/list_changed"}
    server = QuirkyServer(notices={"echo": [changed]})
    async with quirky(server, monkeypatch) as connection:
        model = ScriptedModel(reply)
        async with opened(Agent(model=model, tools=[order], middleware=[Mcp(connection)])) as sessions:
            await told(sessions)
            server.tools = [ECHO, {"name": "order"}]
            await connection.call("echo", {})
            for _ in range(2):
                await told(sessions)
                await sessions.stop("c")
            await told(sessions)

    assert (["tea"] * 4, ["echo"]) == (own, [name for name, _ in server.calls])
    assert ["order", "echo", "memory_order"] == [tool.name for tool in model.requests[-1].tools]


async def test_names_when_two_servers_have_one(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had a name keeps it when another server comes: a name never changes hands in a conversation."""
    first, second = QuirkyServer(silent=["initialize", "server/discover"]), QuirkyServer()
    servers = {"first": first, "second": second}

    @asynccontextmanager
    async def streams(server: StdioServer, name: str, on_lost: Any) -> Any:
        async with quirky_streams(servers[server.command], lambda line: [line], on_lost) as found:
            yield found

    monkeypatch.setattr("trio_sagents.mcp._opening.transport_to", streams)
    model = ScriptedModel(lambda _: "done")
    middleware = [Mcp(StdioServer(name), name=name) for name in servers]
    async with opened(Agent(model=model, middleware=middleware)) as sessions:
        await told(sessions)
        first.silent = frozenset()
        await trio.sleep(100)
        for _ in range(2):
            await told(sessions)
            await trio.testing.wait_all_tasks_blocked()

    assert [["echo"], ["first_echo", "echo"]] == [
        [tool.name for tool in request.tools] for request in (model.requests[0], model.requests[-1])
    ]

"""A small MCP server for tests, which speaks as real servers do, with their quirks.

`mcp_server(...)` gives it as a child process, for `Mcp` or `open_mcp`; `QuirkyServer(...).answer(line)` is the same server without a
process. The file is a program of its own that needs nothing but Python, so it starts at once; what needs the extra `mcp` is imported
only when it is needed.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from trio_sagents.mcp import StdioServer

Spec: TypeAlias = Mapping[str, Any]  # type: ignore[explicit-any]  # JSON
ECHO: Final[Spec] = {
    "name": "echo",
    "description": "Say it again.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}
"""A tool without quirks. A tool without a result in `results` answers with its arguments, as JSON."""
VERSION: Final = "2025-06-18"
MODERN: Final = "2026-07-28"
BEFORE: Final = frozenset({"", "ends", "is silent", "answers without an id"})


class Ended(Exception):  # what happened, not an error
    """The server ends here, as a process does that exits."""


class QuirkyServer:
    """An MCP server, as a function from the lines that it reads to the lines that it writes."""

    def __init__(
        self,
        *,
        tools: Sequence[object] = (ECHO,),
        results: Spec | None = None,
        replies: Spec | None = None,
        lines: Mapping[str, Sequence[str]] | None = None,
        notices: Mapping[str, Sequence[Spec]] | None = None,
        initialize: Spec | None = None,
        before: str = "",
        modern: bool = False,
        page_size: int = 1000,
        silent: Iterable[str] = (),
        ends: Iterable[str] = (),
        greeting: Sequence[str] = (),
    ) -> None:
        """Say what is odd about the server.

        Args:
            tools: the entries of its list of tools, as they are sent; they need not be right.
            results: by tool, the result of a call, as it is sent.
            replies: by method or tool, what an answer is made of instead of a "result": {"error": ...}, or {"id": None, ...}.
            lines: by method or tool, lines of text that are written instead of an answer; `{id}` is replaced by the id of the request.
            notices: by method or tool, notifications and requests that are sent before the answer.
            initialize: fields of the answer to `initialize`; None as a value leaves a field out.
            before: what the server does at a request before `initialize`: "" answers it; "ends", "is silent", "answers without an id".
            modern: whether it knows only the newest revision of the protocol, which has no `initialize`.
            page_size: tools on one page of the list.
            silent: methods and tools that are not answered.
            ends: methods and tools at which the server ends, before it answers.
            greeting: lines that are written at the start.

        Raises:
            ValueError: `before` is none of these.
        """
        if before not in BEFORE:
            raise ValueError(f"before is one of {', '.join(map(repr, sorted(BEFORE)))}, not {before!r}")
        self.tools = tools
        self.results: Spec = results or {}
        self.replies: Spec = replies or {}
        self.lines: Mapping[str, Sequence[str]] = lines or {}
        self.notices: Mapping[str, Sequence[Spec]] = notices or {}
        self.before = before
        self.modern = modern
        self.page_size = page_size
        self.silent: frozenset[str] = frozenset(silent)
        self.ends: frozenset[str] = frozenset(ends)
        self.greeting = greeting
        self.said: Spec = {
            "protocolVersion": VERSION,
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "quirky", "version": "1"},
            **(initialize or {}),
        }
        self.calls: list[tuple[str, Spec]] = []
        """The calls that the server was asked for: (name, arguments), oldest first."""
        self._has_begun = False

    def answer(self, line: str) -> Iterator[str]:
        """Yield the lines that the server writes when it reads a line.

        Raises:
            Ended: the server ends.
        """
        message = json.loads(line)
        method, number, params = str(message.get("method")), message.get("id"), message.get("params") or {}
        if number is None:
            return
        keys = [method]
        if method == "tools/call":
            keys.insert(0, params["name"])
            self.calls.append((params["name"], params.get("arguments") or {}))
        if not self._has_begun and method != "initialize" and self.before:
            if self.before == "ends":
                raise Ended
            if self.before == "answers without an id":
                yield _text(id=None, error={"code": -32000, "message": "Server not initialized"})
            return
        self._has_begun = self._has_begun or method == "initialize"
        for notice in _first(self.notices, keys, ()):
            yield _text(**notice)
        if self.ends.intersection(keys):
            raise Ended
        if self.silent.intersection(keys):
            return
        if (raw := _first(self.lines, keys, None)) is not None:
            yield from (text.replace("{id}", json.dumps(number)) for text in raw)
        elif (reply := _first(self.replies, keys, None)) is not None:
            yield _text(**{"id": number, **reply})
        else:
            yield _text(id=number, **self._answered(method, params))

    def _answered(self, method: str, params: Spec) -> Spec:
        match method:
            case "initialize" if not self.modern:
                return {"result": {key: value for key, value in self.said.items() if value is not None}}
            case "server/discover" if self.modern:
                versions = {"supportedVersions": [MODERN], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
                return {"result": {**versions, "capabilities": self.said["capabilities"]}}
            case "tools/list":
                return {"result": self._page(params.get("cursor"))}
            case "tools/call":
                name, arguments = params["name"], params.get("arguments") or {}
                echoed = {"content": [{"type": "text", "text": json.dumps(arguments)}]}
                return {"result": self.results.get(name, {**echoed, **({"resultType": "complete"} if self.modern else {})})}
            case _:
                return {"error": {"code": -32601, "message": f"no method {method}"}}

    def _page(self, cursor: str | None) -> Spec:
        start = int(cursor) if cursor else 0
        page: dict[str, object] = {"tools": self.tools[start : start + self.page_size]}
        if start + self.page_size < len(self.tools):
            page["nextCursor"] = str(start + self.page_size)
        return {**page, **({"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if self.modern else {})}


def _first(found: Mapping[str, Any], keys: Sequence[str], otherwise: object) -> Any:  # type: ignore[explicit-any]  # JSON
    return next((found[key] for key in keys if key in found), otherwise)


def _text(**fields: object) -> str:
    return json.dumps({"jsonrpc": "2.0", **fields})


def mcp_server(**spec: object) -> "StdioServer":
    """Return the server as a child process; the arguments are those of `QuirkyServer`, and must have a JSON form.

    Raises:
        ImportError: the extra `mcp` is not installed.
    """
    from trio_sagents.mcp import StdioServer  # noqa: PLC0415  # it needs an extra

    QuirkyServer(**spec)  # type: ignore[arg-type]  # so that a wrong argument is refused here
    return StdioServer(sys.executable, ["-I", __file__, json.dumps(spec)])


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(spec: str) -> None:
    """Serve over standard input and output, until the input ends."""
    server = QuirkyServer(**json.loads(spec))
    for line in server.greeting:
        _write(line)
    try:
        for line in sys.stdin:
            for text in server.answer(line):
                _write(text)
    except Ended:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])

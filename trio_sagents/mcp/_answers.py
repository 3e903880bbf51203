"""The answers of servers, put into a form that the SDK takes: what cannot be read of one part does not cost the others.

Pure. The SDK accepts or refuses an answer as a whole. Here each part is looked at by itself: a tool that is listed wrongly is left
out, and what a call returned reaches us as the server sent it, in any form.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

import attrs
from mcp_types import (
    METHOD_NOT_FOUND,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    methods,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.mcp._wire import UNREADABLE, unwrapped

RESULT_KEY: Final = "trio_sagents.io/result"
"""In the `_meta` of an answer to a call: the number under which `Answers` keeps what the server sent."""
MAX_KEPT: Final = 1000
"""Results of calls that wait to be taken."""
MAX_TEXT: Final = 64 * 1024
"""Characters that are kept of a text that describes a server or a tool."""
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_PAGE: Final[JSON] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
"""What the newest revision wants in a list."""
_FLAGS: Final = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")

Warn = Callable[[str], None]


@attrs.define(eq=False)
class Answers:
    """The requests of one connection that wait for answers, and the results of calls until they are taken."""

    warn: Warn
    """Is told what was left out of an answer."""
    on_changed: Callable[[], None] = lambda: None
    """Called when the server reports that its tools have changed: in the order of its messages, before the next answer is handed on."""
    waiting: dict[RequestId, str] = attrs.field(factory=dict)
    """By id: the method of a request that has no answer yet."""
    probe: RequestId | None = None
    """The id of the request that asks which revision of the protocol the server knows, until it is answered."""
    results: dict[int, JSONValue] = attrs.field(factory=dict)
    """What the server sent as results of calls; `take` removes them."""
    _count: int = 0

    def asked(self, message: JSONRPCMessage) -> None:
        """Note a message that goes to the server."""
        match message:
            case JSONRPCRequest(method="subscriptions/listen"):
                pass  # it is not answered as long as the connection lives
            case JSONRPCRequest():
                self.waiting[_key(message.id)] = message.method
                self.probe = message.id if message.method == "server/discover" else self.probe
            case JSONRPCNotification(method="notifications/cancelled", params={"requestId": int() | str() as request_id}):
                self.waiting.pop(_key(request_id), None)
            case _:
                pass

    def heard(self, message: JSONRPCMessage) -> JSONRPCMessage:
        """Return a message of the server as the SDK takes it.

        An answer without an id is given to the one request that waits; if several wait, nobody knows whose answer it is.
        """
        match message:
            case JSONRPCResponse():
                method = self._answered(message.id)
                return message if method is None else message.model_copy(update={"result": self._repaired(method, message.result)})
            case JSONRPCError(id=None) if len(self.waiting) == 1:
                (request_id,) = self.waiting
                self._answered(request_id)
                return message.model_copy(update={"id": request_id})
            case JSONRPCError(id=str() | int() as request_id):
                self._answered(request_id)
                return message
            case JSONRPCNotification(method="notifications/tools/list_changed"):
                self.on_changed()
                return message
            case _:
                return message

    def is_probe(self, message: JSONRPCMessage) -> bool:
        """Return whether a message is the probe, and waits for its answer."""
        return isinstance(message, JSONRPCRequest) and message.id == self.probe

    def give_up_probe(self) -> JSONRPCMessage:
        """Return the answer to a probe that the server does not answer: it does not know the method."""
        assert self.probe is not None
        error = ErrorData(code=METHOD_NOT_FOUND, message="the server did not answer the first request")
        return self.heard(JSONRPCError(jsonrpc="2.0", id=self.probe, error=error))

    def _answered(self, request_id: RequestId) -> str | None:
        """Note that a request has an answer; return its method."""
        if self.probe is not None and _key(self.probe) == _key(request_id):
            self.probe = None
        return self.waiting.pop(_key(request_id), None)

    def take(self, meta: Mapping[str, object] | None) -> JSONValue:
        """Return what the server sent as the result of a call, by the `_meta` of the SDK's answer; None if it is not known."""
        number = None if meta is None else meta.get(RESULT_KEY)
        return self.results.pop(number, None) if isinstance(number, int) else None

    def _repaired(self, method: str, result: JSON) -> JSON:
        match method:
            case "initialize":
                return repaired_initialize(result)
            case "tools/list":
                return repaired_list(result, self.warn)
            case "tools/call":
                return self._kept(result)
            case _:
                return result

    def _kept(self, result: JSON) -> JSON:
        """Keep the result of a call, and return one without content that leads to it."""
        if result.get("resultType") == "input_required":
            return result  # not a result yet: the SDK answers the server
        self._count += 1
        self.results[self._count] = unwrapped(result)
        self.results.pop(self._count - MAX_KEPT, None)  # of a caller who was cancelled
        return {"content": [], "resultType": "complete", "_meta": {RESULT_KEY: self._count}}


def _key(request_id: RequestId) -> RequestId:
    """Return the id under which an answer is looked up: some servers send 7 back as "7"."""
    return int(request_id) if isinstance(request_id, str) and request_id.isascii() and request_id.isdecimal() else request_id


def repaired_initialize(result: JSON) -> JSON:
    """Return an answer to `initialize` with everything that the SDK wants in it."""
    info, said = result.get("serverInfo"), result.get("instructions")
    info = info if isinstance(info, Mapping) else {}
    return {
        "protocolVersion": _version(result.get("protocolVersion")),
        "capabilities": _capabilities(result.get("capabilities")),
        "serverInfo": {key: info[key][:MAX_TEXT] if isinstance(info.get(key), str) else "unknown" for key in ("name", "version")},
        **({"instructions": said[:MAX_TEXT]} if isinstance(said, str) else {}),
    }


def _version(said: JSONValue) -> str:
    """Return the version of the protocol that a server means: the nearest one that is known."""
    if not isinstance(said, str) or _DATE.match(said) is None:
        return HANDSHAKE_PROTOCOL_VERSIONS[0]
    older = [version for version in HANDSHAKE_PROTOCOL_VERSIONS if version <= said]
    return older[-1] if older else HANDSHAKE_PROTOCOL_VERSIONS[0]


def _capabilities(said: JSONValue) -> JSON:
    """Return what a server says of its tools. One that says nothing at all about itself may have tools, and is asked for them."""
    if isinstance(said, Mapping) and said and "tools" not in said:
        return {}
    tools = said.get("tools") if isinstance(said, Mapping) else None
    return {"tools": {"listChanged": isinstance(tools, Mapping) and tools.get("listChanged") is True}}


def repaired_list(result: JSON, warn: Warn) -> JSON:
    """Return a page of tools with those entries alone that can be used; `warn` is told of the others."""
    listed = result.get("tools")
    if not isinstance(listed, list):
        warn(f"the list of tools is {_kind(listed)}" if UNREADABLE not in result else "the list of tools cannot be read")
        listed = []
    tools = [tool for place, entry in enumerate(listed) if (tool := _repaired_tool(entry, place, warn)) is not None]
    cursor = result.get("nextCursor")
    page = {"tools": tools, **_PAGE}
    return {**page, "nextCursor": cursor} if isinstance(cursor, str) and cursor else page


def _repaired_tool(entry: JSONValue, place: int, warn: Warn) -> JSON | None:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(name, str) or not name:
        warn(f"entry {place} of the list of tools is left out: it has no name")
        return None
    schema = entry.get("inputSchema", {})
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        warn(f"the tool {name[:100]!r} is left out: its schema does not describe an object")
        return None
    tool: dict[str, JSONValue] = {"name": name, "inputSchema": {**schema, "type": "object"}}
    if isinstance(properties := schema.get("properties"), Mapping):
        tool["inputSchema"]["properties"] = {key: {} if each is True else each for key, each in properties.items() if each is not False}
    if isinstance(description := entry.get("description"), str):
        tool["description"] = description[:MAX_TEXT]
    if isinstance(title := entry.get("title"), str):
        tool["title"] = title[:MAX_TEXT]
    if isinstance(notes := entry.get("annotations"), Mapping):
        tool["annotations"] = {key: notes[key] for key in _FLAGS if isinstance(notes.get(key), bool)}
        if isinstance(title := notes.get("title"), str):
            tool["annotations"]["title"] = title[:MAX_TEXT]
    if not _is_taken(tool):
        warn(f"the tool {name[:100]!r} is left out: its schema is not valid")
        return None
    return tool


def _is_taken(tool: JSON) -> bool:
    """Return whether the SDK takes a list with this tool alone, in each form that the protocol has had."""
    page = {"tools": [tool], **_PAGE}
    try:
        for version in (HANDSHAKE_PROTOCOL_VERSIONS[-1], MODERN_PROTOCOL_VERSIONS[-1]):
            methods.validate_server_result("tools/list", version, page)
    except (ValueError, RecursionError):
        return False
    return True


def _kind(value: JSONValue) -> str:
    return "missing" if value is None else f"not a list, but {type(value).__name__}"

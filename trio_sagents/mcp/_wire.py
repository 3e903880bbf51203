"""JSON-RPC as servers write it: one message of a line, read as leniently as it has one meaning.

Pure. Both transports read with this, before the SDK does: the SDK drops what is not exactly JSON-RPC, and whoever waits for a dropped
answer would wait for ever.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mcp_types import ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, RequestId

from trio_sagents.data.json import JSON, JSONValue

PARSE_ERROR: Final = -32700
"""The code of an answer that cannot be read: the request may have had its effect."""
INTERNAL_ERROR: Final = -32603
WRAPPED: Final = "trio_sagents.result"
"""The key under which a result is handed on that is not a JSON object."""
UNREADABLE: Final = "trio_sagents.unreadable"
"""The key under which the text of a result is handed on that is not JSON."""
MAX_UNREADABLE: Final = 2000
"""Characters that are kept of such a text."""
MAX_ID: Final = 256
"""Characters that the id of a message may have."""
_ID: Final = re.compile(r'"id"\s*:\s*("?)([0-9]{1,18})\1\s*[,}]')


def read_messages(data: bytes, reply_to: RequestId | None = None) -> Sequence[JSONRPCMessage]:
    """Return the messages in a line, or in the body of an answer: one, several if it is a batch, or none.

    Args:
        data: UTF-8; a byte order mark and blanks around the JSON are ignored.
        reply_to: the id of the request that the data answer, if the transport knows it. Then the first answer gets this id.

    Returns:
        Requests and notifications as the server sent them. An answer has the id that it was sent with, or None; a result that is not
        an object is under the key `WRAPPED`. Data that are not JSON, but look like an answer, are an answer; all other data are ignored.
    """
    text = data.decode(errors="replace").lstrip("\ufeff").strip()
    try:
        value = _storable(json.loads(text)) if text else None
    except (ValueError, RecursionError):
        found = _damaged(text)
    else:
        found = [message for each in (value if isinstance(value, list) else [value]) if (message := _message(each, reply_to)) is not None]
    return found if reply_to is None else list(_addressed(found, reply_to))


def _addressed(messages: Sequence[JSONRPCMessage], reply_to: RequestId) -> Iterator[JSONRPCMessage]:
    is_answered = False
    for message in messages:
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            if not is_answered:
                yield message.model_copy(update={"id": reply_to})
            is_answered = True
        else:
            yield message


def _storable(value: JSONValue) -> JSONValue:
    """Return a JSON value whose texts have UTF-8: an escape may stand for half of a character."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return {_storable(key): _storable(item) for key, item in value.items()} if isinstance(value, dict) else value


def _message(value: JSONValue, reply_to: RequestId | None) -> JSONRPCMessage | None:
    if not isinstance(value, dict):
        return None
    number = _id_of(value.get("id"))
    if isinstance(method := value.get("method"), str):
        given = value.get("params")
        params = {"params": given} if isinstance(given, dict) else {}
        if number is None:
            return JSONRPCNotification(jsonrpc="2.0", method=method, **params)
        return JSONRPCRequest(jsonrpc="2.0", id=number, method=method, **params)
    number = reply_to if number is None else number
    if value.get("error") is not None:
        return JSONRPCError(jsonrpc="2.0", id=number, error=_error(value["error"]))
    if "result" not in value:
        return JSONRPCError(jsonrpc="2.0", id=number, error=_unreadable("it has neither a result nor an error")) if "id" in value else None
    return _response(number, value["result"])


def _response(number: RequestId | None, result: JSONValue) -> JSONRPCMessage:
    if number is None:
        return JSONRPCError(jsonrpc="2.0", id=None, error=_unreadable("it has no id"))
    return JSONRPCResponse(jsonrpc="2.0", id=number, result=result if isinstance(result, dict) else {WRAPPED: result})


def _id_of(value: JSONValue) -> RequestId | None:
    match value:
        case bool():
            return None
        case float() if value.is_integer():
            return int(value)
        case int():
            return value
        case str() if 0 < len(value) <= MAX_ID:
            return value
        case _:
            return None


def _error(value: JSONValue) -> ErrorData:
    """Return an error, in any form in which the server wrote it."""
    if not isinstance(value, Mapping):
        return ErrorData(code=INTERNAL_ERROR, message=value if isinstance(value, str) else json.dumps(value))
    given, message = value.get("code"), value.get("message")
    code = given if isinstance(given, int) and not isinstance(given, bool) else INTERNAL_ERROR
    words = message if isinstance(message, str) and message else json.dumps({key: each for key, each in value.items() if key != "code"})
    return ErrorData(code=code, message=words, data=value.get("data"))


def _unreadable(why: str) -> ErrorData:
    return ErrorData(code=PARSE_ERROR, message=f"the answer cannot be read: {why}")


def _damaged(text: str) -> Sequence[JSONRPCMessage]:
    """Return the answer that a text seems to be which is not JSON; nothing for a text that does not look like one."""
    if '"jsonrpc"' not in text or not ('"result"' in text or '"error"' in text):
        return []  # such as a log line
    found = _ID.search(text)
    number = None if found is None else int(found[2])
    if number is not None and '"result"' in text and '"error"' not in text:
        return [JSONRPCResponse(jsonrpc="2.0", id=number, result={UNREADABLE: text[:MAX_UNREADABLE]})]
    return [JSONRPCError(jsonrpc="2.0", id=number, error=_unreadable("it is not JSON"))]


def unwrapped(result: JSON) -> JSONValue:
    """Return the result as the server sent it, also if it is not an object."""
    return result[WRAPPED] if set(result) == {WRAPPED} else result

"""A request as plain data: what guards and `authenticate` look at."""

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote

import attrs

from trio_sagents.web._asgi import Message

_SINGLE: Final = frozenset(
    {"authorization", "content-length", "content-type", "host", "last-event-id", "origin", "sec-fetch-site", "x-csrf-token"}
)
"""Headers that may come once. Two readers of a request might believe different ones."""
_MAX_QUERY: Final = 4096
_MAX_MEMBERS: Final = 100
"""How many members a query may have."""


class Refused(Exception):  # it is not an error of ours
    """A request is not carried out; has what the answer says."""

    def __init__(self, status: int, kind: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(status, kind, message)
        self.status: Final = status
        """The HTTP status."""
        self.kind: Final = kind
        """The "type" of the error."""
        self.message: Final = message
        """For people."""
        self.retry_after: Final = retry_after
        """Seconds after which the same request may succeed; None if it will not."""


def not_found() -> Refused:
    """Return the answer to a path that does not exist, or must look as if it did not."""
    return Refused(404, "NotFound", "there is no such page")


@attrs.frozen
class WebRequest:
    """A request, or the handshake of a WebSocket. `authenticate` gets one."""

    method: str
    """ "GET" or "POST", say. That of a WebSocket is "GET"."""
    segments: tuple[str, ...]
    """The path below the mount, decoded, without the slashes: "conversations/a%2Fb/history" is ("conversations", "a/b", "history")."""
    query: Mapping[str, str] = attrs.field(repr=False)
    """The query; of a name that is there twice, the first value."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """By lower-case name. Values of a header that is there several times are joined by ", "; cookies by "; "."""
    scheme: str
    """ "http" or "https", also for a WebSocket."""
    client: str | None = None
    """The address that the request came from, as the server says it; None if that is unknown."""
    is_websocket: bool = False
    root: str = ""
    """Where the bridge is mounted, without a slash at the end."""

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies; of a name that is there twice, the first value. Values are as they were sent."""
        found: dict[str, str] = {}
        for pair in self.headers.get("cookie", "").split(";"):
            name, separator, value = pair.strip().partition("=")
            if separator:
                found.setdefault(name, value)
        return found

    @property
    def bearer(self) -> str | None:
        """The bearer token of the header `Authorization`; None if there is none."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if kind.lower() == "bearer" else None


def read_request(scope: Message) -> WebRequest:
    """Return the request that a server has told of.

    Raises:
        Refused: a header that may come once came twice, or is not text; or the query is too long, or has too many members.
    """
    kind, root = scope["type"], str(scope.get("root_path", "")).rstrip("/")
    raw_query: bytes = scope.get("query_string", b"")
    if len(raw_query) > _MAX_QUERY:
        raise Refused(400, "Invalid", "the query is too long")
    client = scope.get("client")
    return WebRequest(
        str(scope.get("method", "GET")),
        _segments(str(scope.get("path", "")), scope.get("raw_path"), root),
        _query(raw_query.decode("latin-1")),
        _headers(scope.get("headers", ())),
        {"ws": "http", "wss": "https"}.get(scope.get("scheme", ""), str(scope.get("scheme", "http"))),
        str(client[0]) if client else None,
        kind == "websocket",
        root,
    )


def _query(text: str) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_MEMBERS)
    except ValueError:
        raise Refused(400, "Invalid", f"the query has more than {_MAX_MEMBERS} members") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name not in found:
            found[name] = value
        elif name in _SINGLE:
            raise Refused(400, "Invalid", f"the header {name} came twice")
        else:
            found[name] += ("; " if name == "cookie" else ", ") + value
    return found


def _segments(path: str, raw_path: object, root: str) -> tuple[str, ...]:
    """Return the segments below the mount. A slash inside a segment is only visible in the raw path."""
    skipped = root.count("/") if root and (path == root or path.startswith(root + "/")) else 0
    # A middleware may have changed the path and not the raw one; then the raw one says nothing.
    raw = raw_path.decode("latin-1").partition("?")[0] if isinstance(raw_path, bytes) else None
    is_usable = raw is not None and unquote(raw) == path
    found = [unquote(segment) for segment in raw.split("/")] if raw is not None and is_usable else path.split("/")
    return tuple(found[1 + skipped :])

"""The values of the web bridge: limits, visitors, requests, and what is refused before anything runs."""

import datetime
from typing import Any

import pytest

from trio_sagents import Sessions
from trio_sagents.web import Bridge, Visitor, WebPolicy, WebRequest
from trio_sagents.web._json import dumps, loads
from trio_sagents.web._rate import Rate
from trio_sagents.web._request import Refused, read_request


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"hosts": "localhost"}, TypeError),
        ({"hosts": [7]}, TypeError),
        ({"origins": "https://x"}, TypeError),
        ({"max_body_bytes": 0}, ValueError),
        ({"max_frame_bytes": 1.5}, TypeError),
        ({"frame_burst": True}, TypeError),
        ({"send_timeout": 0}, ValueError),
        ({"send_timeout": -1}, ValueError),
        ({"send_timeout": float("nan")}, ValueError),
        ({"send_timeout": "10"}, TypeError),
        ({"presence_grace": True}, TypeError),
        ({"presence_grace": -1}, ValueError),
        ({"idle_timeout": 20, "ping_interval": 20}, ValueError),
    ],
)
def test_policy_when_it_is_wrong(settings: dict[str, Any], error: type[Exception]) -> None:
    """A limit of the wrong type or out of range is refused, by its name."""
    with pytest.raises(error, match=next(iter(settings)) if "hosts" not in settings and "origins" not in settings else "str"):
        WebPolicy(**settings)


def test_policy_when_it_is_right() -> None:
    """0 turns a pause off, infinity a timeout; the default answers to this machine only."""
    policy = WebPolicy(event_interval=0, presence_grace=0, idle_timeout=float("inf"), ping_interval=float("inf"))

    assert ("127.0.0.1", "localhost", "[::1]") == policy.hosts
    assert float("inf") == policy.idle_timeout


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (lambda: Visitor("x", ""), ValueError),
        (lambda: Visitor("x", 7), TypeError),
        (lambda: Visitor("x", "x", viewer="\x00"), ValueError),
        (lambda: Visitor("x", "x", expires_at=datetime.datetime(2030, 1, 1)), TypeError),
        (lambda: Visitor("x", "x", expires_at=12), TypeError),
        (lambda: Visitor("x", "x", may_debug="yes"), TypeError),
    ],
)
def test_visitor_when_it_is_wrong(made: Any, error: type[Exception]) -> None:
    """A visitor needs a key that names it, and an aware instant."""
    with pytest.raises(error):
        made()


def test_visitor_when_it_is_shown() -> None:
    """The scope, which may have secrets, is not shown; the viewer is the key unless it is said."""
    visitor = Visitor({"password": "hunter2"}, "alice")

    assert "hunter2" not in repr(visitor)
    assert ("alice", "alice", False) == (visitor.key, visitor.viewer, visitor.may_debug)


def test_bridge_when_an_argument_is_wrong() -> None:
    """The arguments of a bridge are checked when it is made."""
    sessions: Any = object.__new__(Sessions)
    for arguments, error in (
        (("sessions", {"authenticate": len}), TypeError),
        ((sessions, {"authenticate": "alice"}), TypeError),
        ((sessions, {"authenticate": len, "policy": {}}), TypeError),
        ((sessions, {"authenticate": len, "secret": b"short"}), ValueError),
        ((sessions, {"authenticate": len, "secret": "x" * 32}), ValueError),
    ):
        with pytest.raises(error):
            Bridge(arguments[0], **arguments[1])


def request_of(path: str = "/", *, raw: Any = None, root: str = "", query: bytes = b"", headers: Any = (), **more: Any) -> WebRequest:
    scope = {"type": "http", "method": "GET", "path": path, "root_path": root, "query_string": query, "headers": list(headers), **more}
    return read_request(scope if raw is None else {**scope, "raw_path": raw})


@pytest.mark.parametrize(
    ("path", "raw", "root", "segments"),
    [
        ("/", None, "", ("",)),
        ("/a/b", None, "", ("a", "b")),
        ("/a/b/c", b"/a%2Fb/c", "", ("a/b", "c")),
        ("/a b", b"/a%20b", "", ("a b",)),
        ("/x/a", b"/other", "", ("x", "a")),  # somebody has changed one of the two
        ("/chat/a/b", b"/chat/a%2Fb", "/chat", ("a/b",)),
        ("/chat", b"/chat", "/chat", ()),
        ("/chat/", b"/chat/", "/chat/", ("",)),
        ("/chatter", b"/chatter", "/chat", ("chatter",)),
        ("/a", b"/a", "/chat", ("a",)),  # a server that has taken the root away
        ("/x/y/a", b"/x/y/a", "/x/y", ("a",)),
        ("/ä", "/ä".encode(), "", None),
        ("/a", b"/a?x=1", "", ("a",)),
    ],
)
def test_segments(path: str, raw: bytes | None, root: str, segments: tuple[str, ...] | None) -> None:
    """The path below the mount, decoded: a slash inside a segment is one character of it."""
    found = request_of(path, raw=raw, root=root).segments

    assert found == (("ä",) if segments is None else segments)


def test_request_when_it_has_parts() -> None:
    """Cookies, tokens, queries and addresses, as `authenticate` reads them."""
    headers = [
        (b"Cookie", b"a=1; b=x=y; a=2; nonsense"),
        (b"cookie", b"c=3"),
        (b"AUTHORIZATION", b"bearer  t0ken "),
        (b"x", b"1"),
        (b"x", b"2"),
    ]
    request = request_of("/", query=b"after=1&after=2&empty=&%C3%A4=%00", headers=headers, client=("::1", 7), scheme="wss")

    assert {"a": "1", "b": "x=y", "c": "3"} == request.cookies
    assert ("t0ken", "1, 2", "::1", "https") == (request.bearer, request.headers["x"], request.client, request.scheme)
    assert {"after": "1", "empty": "", "ä": "\x00"} == request.query
    nobody = request_of("/", headers=[(b"authorization", b"Bearer ")])
    assert (None, {}, None) == (nobody.bearer, nobody.cookies, nobody.client)
    assert "t0ken" not in repr(request)
    with pytest.raises(Refused):
        request_of("/", query=b"x" * 5000)


def test_rate_when_things_happen() -> None:
    """So many at once, and so many per second on average."""
    rate = Rate(per_second=2.0, burst=3)

    assert [True, True, True, False] == [rate.allows(100.0) for _ in range(4)]
    assert [False, True, False] == [rate.allows(100.0 + later) for later in (0.4, 0.5, 0.6)]
    assert [True, True, True, False] == [rate.allows(1000.0) for _ in range(4)]


@pytest.mark.parametrize(
    "text", ["", "7", "[]", "null", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', "[" * 100_000, '{"a":' * 5000]
)
def test_loads_when_it_is_damaged(text: str) -> None:
    """What is no JSON object, or could be read in two ways, is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_dumps_when_a_browser_could_not_read_it() -> None:
    """Whatever is written can be read by a browser."""
    assert '{"a":[null,1.5,"ä"]}' == dumps({"a": (float("nan"), 1.5, "ä")})
    assert '{"a":"\\ud800\\u00e4"}' == dumps({"a": "\ud800ä"})
    assert '{"a":{"b":null}}' == dumps({"a": {"b": float("inf")}})

"""What a load balancer asks: one bit, from anybody, and nothing else changes."""

from typing import Any

from tests.support.scenarios import make_config
from trio_sagents import open_sessions
from trio_sagents.web import with_health


async def answer_of(app: Any, path: str, method: str = "GET", kind: str = "http") -> tuple[int, bytes]:
    """Call an application, and return the status and the body."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("no body is read")

    await app({"type": kind, "method": method, "path": path}, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """Stand for the bridge."""
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"bridge"})


async def test_health(autojump_clock: Any) -> None:
    """A process that drains is alive and not ready; all other requests are the bridge's."""
    async with open_sessions(make_config()) as sessions:
        app = with_health(inner, sessions)
        assert (200, b"ok\n") == await answer_of(app, "/live")
        assert (200, b"ok\n") == await answer_of(app, "/ready")
        await sessions.drain()
        assert (200, b"ok\n") == await answer_of(app, "/live")
        assert (503, b"not ready\n") == await answer_of(app, "/ready")
        assert (503, b"") == await answer_of(app, "/ready", "HEAD")
        for path, method, kind in (
            ("/", "GET", "http"),
            ("/ready", "POST", "http"),
            ("/ready", "GET", "websocket"),
            ("/ready/", "GET", "http"),
        ):
            assert (418, b"bridge") == await answer_of(app, path, method, kind)

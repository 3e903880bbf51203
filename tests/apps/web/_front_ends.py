"""The real clients of both protocols, in Node, and a proxy that cuts their connections."""

import faulthandler
import json
import os
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final

import attrs
import pytest
import trio

from tests.apps.web._server import served
from trio_sagents import Agent, ModelChunk, ModelRequest, SessionConfig, Sessions, SingleFactoryRouter, open_sessions
from trio_sagents.testing import ScriptedModel

CLIENTS: Final = Path(__file__).parent / "clients"
REQUIRED: Final = "TRIO_SAGENTS_REQUIRE_CLIENTS"
"""The environment variable that forbids to skip the tests with the real clients."""


def require_clients() -> None:
    """Skip the test if the clients are not installed; fail it if they have to be. They are processes, so the test may take longer."""
    faulthandler.dump_traceback_later(120, exit=True)
    if shutil.which("node") and (CLIENTS / "node_modules").is_dir():
        return
    reason = "the clients are not installed: `npm ci` in tests/apps/web/clients installs them, and needs Node 20"
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


# ── clients


@attrs.define(eq=False)
class Client:
    """A client in Node: commands go in as lines of JSON, and answers come back."""

    process: trio.Process
    left: bytes = b""

    async def __call__(self, do: str, **fields: Any) -> Any:
        """Have a command carried out, and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        await self.process.stdin.send_all(json.dumps({"do": do, **fields}).encode() + b"\n")
        while b"\n" not in self.left:
            received = await self.process.stdout.receive_some()
            assert received, "the client has ended"
            self.left += received
        line, _, self.left = self.left.partition(b"\n")
        answer = json.loads(line)
        assert "failed" not in answer, answer["failed"]
        return answer


@asynccontextmanager
async def node(script: str, url: str, token: str = "alice") -> AsyncIterator[Client]:
    """Start a client."""
    process = await trio.lowlevel.open_process(["node", str(CLIENTS / script), url, token], stdin=PIPE, stdout=PIPE)
    try:
        yield Client(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()


# ── cuts


@attrs.define(eq=False)
class Proxy:
    """Forwards connections to a server, and cuts one with a reset when it has forwarded so many bytes of answers."""

    target: tuple[str, int]
    left: int | None = None
    """How many bytes of answers are still forwarded; None is any number."""
    cuts: int = 0

    async def serve(self, client: trio.SocketStream) -> None:
        """Forward one connection."""
        async with client, await trio.open_tcp_stream(*self.target) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._up, client, server, nursery.cancel_scope)
                nursery.start_soon(self._down, client, server, nursery.cancel_scope)

    async def _up(self, client: trio.SocketStream, server: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in client:
                await server.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def _down(self, client: trio.SocketStream, server: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in server:
                if self.left is not None:
                    kept, self.left = data[: self.left], self.left - len(data)
                    if self.left < 0:
                        await client.send_all(kept)
                        self.left = None
                        self.cuts += 1
                        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        break
                await client.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def cutting(address: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Put a proxy before a server, and yield it with its address."""
    host, _, port = address.removeprefix("http://").partition(":")
    proxy = Proxy((host, int(port)))
    async with trio.open_nursery() as nursery:
        listeners: Sequence[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1"))
        yield proxy, f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


# ── all of it


async def look(x: int) -> str:
    """Look."""
    await trio.lowlevel.checkpoint()
    return f"saw {x}"


async def pay(amount: int) -> str:
    """Pay."""
    await trio.lowlevel.checkpoint()
    return f"paid {amount}"


class HeldModel(ScriptedModel):
    """Gives the first 396 characters of its last reply, and the rest when it is told to go on."""

    def __init__(self, *replies: Any) -> None:
        """Take the replies, in order."""
        super().__init__(replies, chunk_size=4, chunk_interval=0.003)
        self.left = len(replies)
        self.may_go_on = trio.Event()

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelChunk]]:
        """Open the next answer."""
        self.left -= 1
        async with super().stream(request) as chunks:
            yield chunks if self.left else self._hold(chunks)

    async def _hold(self, chunks: AsyncIterator[ModelChunk]) -> AsyncIterator[ModelChunk]:
        number = 0
        async for chunk in chunks:
            number += 1
            if number == 100:
                await self.may_go_on.wait()
            yield chunk


@attrs.define(eq=False)
class House:
    """Sessions, a server before them, a proxy before it, and a client before that."""

    sessions: Sessions
    client: Client
    proxy: Proxy
    model: ScriptedModel

    def go_on(self) -> None:
        """Let a `HeldModel` give the rest of its answer."""
        assert isinstance(self.model, HeldModel)
        self.model.may_go_on.set()

    async def stored(self) -> list[str]:
        """Return the stored texts of the agent."""
        rows = (await self.sessions.history("c", scope="alice")).rows
        return [row.content["text"] for row in rows if row.role == "assistant" and row.content_type == "text"]


@asynccontextmanager
async def open_house(
    make_routes: Callable[[Sessions], Any], script: str, replies: Any, *, middleware: Sequence[Any] = (), **settings: Any
) -> AsyncIterator[House]:
    """Open everything. `replies` are those of a `ScriptedModel` with these settings, or a model."""
    model = replies if isinstance(replies, ScriptedModel) else ScriptedModel(replies, **settings)
    agent = Agent(model=model, tools=[look, pay], middleware=middleware)
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        app = make_routes(sessions)
        async with served(app, app.aclose) as direct, cutting(direct) as (proxy, address), node(script, address) as client:
            yield House(sessions, client, proxy, model)

"""A real browser on a real server: Chromium, driven from a thread, while the server runs under Trio in the same test."""

import os
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import attrs
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from trio_sagents import SessionConfig, Sessions, open_sessions
from trio_sagents.web import Bridge, Visitor, WebPolicy

CHROMIUM: Final = shutil.which("chromium")
IS_REQUIRED: Final = bool(os.environ.get("TRIO_SAGENTS_REQUIRE_BROWSER"))
"""Set by `.ci/run`: a test without a browser fails then, instead of being skipped."""
needs_browser: Final = pytest.mark.skipif(
    CHROMIUM is None and not IS_REQUIRED, reason="NO BROWSER: the pages are not tried. Install Debian's package chromium"
)
ARGUMENTS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip


@attrs.define(eq=False)
class Served:
    """A bridge on a server."""

    sessions: Sessions
    address: str
    """With a slash at the end."""
    proxy: "Proxy"


@attrs.define(eq=False)
class Proxy:
    """Stands between the browser and the server, and can cut every connection at once, without a farewell."""

    port: int
    streams: set[trio.SocketStream] = attrs.field(factory=set)
    cuts: int = 0

    async def carry(self, client: trio.SocketStream) -> None:
        """Carry one connection until one side ends it, or it is cut."""
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.port)
            self.streams |= {client, server}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, client, server, nursery.cancel_scope)
                await self._pump(server, client, nursery.cancel_scope)
        finally:
            for stream in (client, server):
                self.streams.discard(stream)
                stream.socket.close()

    @staticmethod
    async def _pump(source: trio.SocketStream, sink: trio.SocketStream, over: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # cut: that is what this is for
        over.cancel()

    def cut(self) -> None:
        """Reset every connection."""
        self.cuts += bool(self.streams)
        for stream in tuple(self.streams):
            if stream.socket.fileno() != -1:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.socket.close()


@asynccontextmanager
async def served(config: SessionConfig) -> AsyncIterator[Served]:
    """Serve a bridge, with everybody as one visitor who may debug."""
    async with open_sessions(config) as sessions, trio.open_nursery() as nursery:
        hosts = ("127.0.0.1",)
        policy = WebPolicy(hosts=hosts, origins=(), presence_grace=0)
        bridge = Bridge(sessions, authenticate=lambda _: Visitor(None, "me", may_debug=True), policy=policy)
        settings = Config()
        settings.bind = ["127.0.0.1:0"]
        settings.graceful_timeout = 1
        over = trio.Event()

        async def run(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
            await serve(bridge, settings, shutdown_trigger=over.wait, task_status=task_status)

        (bound,) = await nursery.start(run)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = Proxy(int(bound.rpartition(":")[2]))
        nursery.start_soon(trio.serve_listeners, proxy.carry, [listener])
        yield Served(sessions, f"http://127.0.0.1:{listener.socket.getsockname()[1]}/", proxy)
        await bridge.aclose()
        over.set()
        await trio.sleep(0)
        proxy.cut()
        nursery.cancel_scope.cancel()


@contextmanager
def open_browser() -> Iterator[Any]:
    """Open a browser, in the thread that calls this."""
    from playwright.sync_api import sync_playwright  # starts a process when it is used

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """Open a page that must not complain: an error, or a file that the policy refuses, fails the test."""
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" and "ERR_" not in line.text else None)
    page.set_default_timeout(60_000)
    page.goto(address)
    yield page
    context.close()
    assert [] == complaints


async def browse(visit: Callable[[Any], None]) -> None:
    """Run `visit` with a browser, in a thread."""

    def run() -> None:
        with open_browser() as browser:
            visit(browser)

    await trio.to_thread.run_sync(run)

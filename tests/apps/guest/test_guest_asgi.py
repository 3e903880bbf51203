"""An ASGI application of Trio in a real server of asyncio."""

import asyncio
import os
import signal
from typing import Any

import pytest
import trio

from tests.apps.guest._kit import LOOPS, assert_idle, left_in_trio, opened, run, until
from tests.apps.guest._served import Socket, client, served
from trio_sagents.asyncio import asyncio_app
from trio_sagents.asyncio._guest import running_guest


class Application:
    """Echoes bodies and sockets, streams for ever, and fails, all with code of Trio."""

    def __init__(self) -> None:
        self.active = self.ticks = self.waiting = 0
        self.ended: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert trio.lowlevel.in_trio_task()
        self.active += 1
        try:
            if scope["type"] == "lifespan":
                await self.live(receive, send)
            elif scope["type"] == "websocket":
                await self.talk(receive, send)
            else:
                await getattr(self, scope["path"].rpartition("/")[2])(receive, send)
        except trio.Cancelled:
            self.ended.append("cancelled")
            raise
        finally:
            self.active -= 1

    async def live(self, receive: Any, send: Any) -> None:
        assert "lifespan.startup" == (await receive())["type"]
        await send({"type": "lifespan.startup.complete"})
        assert "lifespan.shutdown" == (await receive())["type"]
        await send({"type": "lifespan.shutdown.complete"})

    async def echo(self, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        await trio.sleep(0.001)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def stream(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.tick, send)
            self.ended.append((await receive())["type"])
            nursery.cancel_scope.cancel()

    async def tick(self, send: Any) -> None:
        while True:
            await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})
            self.ticks += 1
            await trio.sleep(0.005)

    async def wait(self, receive: Any, send: Any) -> None:
        await receive()
        self.waiting += 1
        self.ended.append((await receive())["type"])

    async def fail(self, receive: Any, send: Any) -> None:
        raise ValueError("mine")

    async def talk(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"re: {message['text']}"})
        self.ended.append(f"{message['type']} {message['code']}")


class Polite(Application):
    """Says good-bye on its sockets when it is asked to close."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.sends: list[Any] = []
        self.closed = 0
        self.error = error

    async def talk(self, receive: Any, send: Any) -> None:
        self.sends.append(send)
        await super().talk(receive, send)

    async def aclose(self) -> None:
        self.closed += 1
        for send in self.sends:
            await send({"type": "websocket.send", "text": "come back"})
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_application_when_it_is_served(lifespan: str, loop: str) -> None:
    """Bodies, streams, sockets and errors cross over; clients that leave are seen to leave; nothing is left."""

    async def main() -> None:
        app = Application()
        async with served(asyncio_app(app), lifespan=lifespan) as port, client(port) as http:
            for size in (0, 5, 300_000):
                assert b"x" * size == (await http.post("/echo", content=b"x" * size)).content
            assert 500 == (await http.get("/fail")).status_code
            socket = await Socket.open(port, "/talk")
            socket.send("hello")
            assert "re: hello" == await socket.receive()
            await socket.close()
            async with http.stream("GET", "/stream") as response:
                ticks = response.aiter_lines()
                assert "data: tick" == await anext(ticks)
                await ticks.aclose()  # type: ignore[attr-defined]  # it is a generator
            left = await Socket.open(port, "/talk")
            await left.abort()
            await until(lambda: app.active == (lifespan == "on"))
            assert ["http.disconnect", "websocket.disconnect", "websocket.disconnect"] == sorted(each.split()[0] for each in app.ended)
            await until(lambda: (lifespan == "off") == (running_guest() is None))
        assert 0 == app.active

    run(main, loop)


def test_application_when_clients_abort(loop: str) -> None:
    """After many streams and sockets that were aborted at any moment, nothing is left on either side."""

    async def main() -> None:
        app = Application()
        async with opened(), served(asyncio_app(app), lifespan="off") as port:

            async def visit(number: int) -> None:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                path = ("stream", "wait", "echo")[number % 3]
                length = 10 if path == "echo" else 0
                writer.write(f"GET /{path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n".encode())
                await asyncio.sleep(0.001 * (number % 7))
                writer.transport.abort()

            for start in range(0, 120, 20):
                await asyncio.gather(*map(visit, range(start, start + 20)))
            await until(lambda: (0, 1) == (app.active, left_in_trio()))

    run(main, loop)


def test_application_when_the_streams_end(loop: str) -> None:
    """Open streams end as complete responses, sockets close with 1012, what is answered is answered, and the server can stop."""

    async def main() -> None:
        app = Application()
        async with opened() as sessions, served(asyncio_app(app), lifespan="off") as port, client(port) as http:
            socket = await Socket.open(port, "/talk")

            async def stream() -> list[str]:
                async with http.stream("GET", "/stream") as response:
                    return [line async for line in response.aiter_lines()]

            streaming = asyncio.ensure_future(stream())
            waiting = asyncio.ensure_future(http.get("/wait"))
            await until(lambda: app.active == 3 and app.ticks and app.waiting)
            sessions.end_streams()
            assert 1012 == await socket.receive()
            assert "data: tick" == (await streaming)[0]
            assert 503 == (await waiting).status_code
            assert b"still" == (await http.post("/echo", content=b"still")).content
            assert 503 == (await http.get("/wait")).status_code
            assert 0 == app.active
            await socket.abort()

    run(main, loop)


@pytest.mark.parametrize("error", [None, ValueError("mine")])
def test_application_when_it_has_a_last_word(error: Exception | None, loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """An application with `aclose` is asked to end its streams, once; those that are left then see their clients leave."""

    async def main() -> None:
        app = Polite(error)
        async with opened() as sessions, served(asyncio_app(app), lifespan="off") as port:
            sockets = [await Socket.open(port, "/talk") for _ in range(3)]
            sessions.end_streams()
            for socket in sockets:
                assert ["come back", 1012] == [await socket.receive(), await socket.receive()]
                await socket.abort()
            assert (1, 0) == (app.closed, app.active)

    run(main, loop)

    assert (["an application could not end its streams; its clients are disconnected"] if error else []) == [
        record.message for record in caplog.records if record.name == "trio_sagents"
    ]


def test_application_when_the_server_cancels_it() -> None:
    """A call that is cancelled in asyncio is cancelled in Trio, and has ended then."""

    async def never() -> Any:
        await asyncio.sleep(60)

    async def ignore(message: Any) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        app = Application()
        calling = asyncio.ensure_future(asyncio_app(app)({"type": "websocket", "path": "/talk"}, never, ignore))
        await until(lambda: app.active == 1)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert (["cancelled"], 0) == (app.ended, app.active)
        assert_idle()

    for loop in LOOPS:
        run(main, loop)


def test_application_when_a_signal_ends_its_streams(loop: str) -> None:
    """Without any block, the signals that shut the server down end the streams of the application; the handler is given back."""

    async def main() -> None:
        app, seen = Application(), []
        before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
        try:
            handler = signal.getsignal(signal.SIGUSR1)
            async with served(asyncio_app(app, end_streams_on=[signal.SIGUSR1]), lifespan="on") as port:
                assert signal.getsignal(signal.SIGUSR1) is handler
                socket = await Socket.open(port, "/talk")
                os.kill(os.getpid(), signal.SIGUSR1)
                assert 1012 == await socket.receive()
                await socket.abort()
            assert_idle()
            assert signal.getsignal(signal.SIGUSR1) is handler
            assert [signal.SIGUSR1] == seen
        finally:
            signal.signal(signal.SIGUSR1, before)

    run(main, loop)

"""What a handler of a route may do, and what becomes of it: for encoders of other protocols, which are routes of this bridge."""

from typing import Any

import pytest
import trio

from tests.apps.web._client import ORIGIN
from tests.apps.web._kit import World, as_user, open_world
from trio_sagents import QueueFull
from trio_sagents.web import WebPolicy
from trio_sagents.web._http import Answer, Call
from trio_sagents.web._routes import Route

ALICE = {**as_user("alice"), "origin": ORIGIN}


def with_handler(world: World, handler: Any, kind: Any = "stream") -> None:
    world.bridge._routes = (Route("GET", "x/{name}", kind, handler),)


async def forever(call: Call) -> Answer | None:
    await call.start("text/plain")
    while True:
        await call.write(b"more")
        await trio.sleep(1)


async def test_stream_when_it_is_whole(autojump_clock: Any) -> None:
    """A handler that returns has a whole body; one that raises, or is ended, has a body that is cut: nobody takes it for a whole one."""

    async def whole(call: Call) -> Answer | None:
        await call.start("text/plain", [("x-own", "1")])
        await call.write(call.parameters["name"].encode())
        return None

    async def broken(call: Call) -> Answer | None:
        await call.start("text/plain")
        await call.write(b"some")
        raise QueueFull("42", 1)

    async with open_world() as world:
        with_handler(world, whole)
        answer = await world.client.get("/x/y%2Fz", ALICE)
        assert (200, b"y/z", "1", True) == (answer.status, answer.body, answer.headers["x-own"], answer.is_whole)
        with_handler(world, broken)
        answer = await world.client.get("/x/y", ALICE)
        assert (200, b"some", False) == (answer.status, answer.body, answer.is_whole)
        with_handler(world, forever)
        async with world.client.stream("/x/y", ALICE) as stream:
            await stream.chunk()
            world.bridge.revoke("alice")
            while await stream.chunk():
                pass
            assert not stream.is_whole
        assert (0, 0, 0) == world.left


async def test_answer_when_the_request_is_ended(autojump_clock: Any) -> None:
    """A request that is ended before its answer says why: nobody is logged in any more."""

    async def slow(call: Call) -> Answer | None:
        await trio.sleep(1000)
        return None

    async with open_world() as world, trio.open_nursery() as nursery:
        with_handler(world, slow, "read")

        async def ask() -> None:
            answer = await world.client.get("/x/y", ALICE)
            assert (401, "Unauthorized") == (answer.status, answer.error)

        nursery.start_soon(ask)
        await trio.sleep(1)
        assert 1 == world.bridge.revoke("alice")


async def test_start_when_the_bridge_is_closed(autojump_clock: Any) -> None:
    """A stream that would begin while the bridge closes is refused, as a whole answer."""

    async def late(call: Call) -> Answer | None:
        await world.bridge.aclose()
        await call.start("text/plain")
        return None

    async with open_world(policy=WebPolicy(close_timeout=0.1)) as world:
        with_handler(world, late)
        answer = await world.client.get("/x/y", ALICE)

        assert (503, "SessionsClosed") == (answer.status, answer.error)


@pytest.mark.parametrize("kind", ["OSError", "slow"])
async def test_write_when_the_client_is_gone(autojump_clock: Any, kind: str) -> None:
    """A server that says at a send that the client has gone, or a send that takes too long, ends the request quietly."""
    async with open_world(policy=WebPolicy(send_timeout=1)) as world:
        with_handler(world, forever)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            await trio.lowlevel.checkpoint()
            if len(sent) > 3:
                if kind == "OSError":
                    raise BrokenPipeError
                await trio.sleep_forever()

        async def receive() -> Any:
            return await trio.sleep_forever()

        headers = [(name.encode(), value.encode()) for name, value in {**world.client.headers, **ALICE}.items()]
        scope = {"type": "http", "method": "GET", "path": "/x/y", "query_string": b"", "headers": headers}
        with trio.fail_after(20):
            try:
                await world.bridge(scope, receive, send)
            except ConnectionError:
                assert kind == "slow"
        assert (0, 0, 0) == world.left


async def test_socket_when_a_send_fails(autojump_clock: Any) -> None:
    """A server that says at a send that the page has gone ends the socket quietly, when it tells of the disconnect."""
    async with open_world() as world:
        gone = trio.Event()
        messages: list[Any] = [{"type": "websocket.connect"}]

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "websocket.send":
                gone.set()
                raise ConnectionResetError

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "websocket.disconnect", "code": 1006}

        headers = [(name.encode(), value.encode()) for name, value in {**world.client.headers, **ALICE}.items()]
        scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": headers, "scheme": "ws"}
        with trio.fail_after(20):
            await world.bridge(scope, receive, send)
        assert (0, 0, 0) == world.left


async def test_refusal_when_the_server_has_no_extension(autojump_clock: Any) -> None:
    """A WebSocket is refused with a close before it is accepted, if the server cannot say a status: it says 403 then."""
    async with open_world() as world, world.client.socket(headers={"cookie": "token=nobody"}, extensions={}) as socket:
        assert (False, None, 1008) == (socket.is_accepted, socket.status, socket.code)

"""The bridge behind real servers and frameworks, over real sockets."""

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import trio
from fastapi import FastAPI
from quart_trio import QuartTrio
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount

from tests.apps.web._kit import Page, World, as_user, open_world
from tests.apps.web._server import RealSocket, served
from tests.support.models import Speaker, is_answer
from tests.support.ports import reserved_port
from tests.support.scenarios import slow_agent
from trio_sagents import Agent
from trio_sagents.web import Bridge, WebPolicy, blueprint

ROOT: Final = Path(__file__).parents[3]
EXAMPLES: Final = sorted((ROOT / "examples").glob("web_*.py"))
POLICY: Final = WebPolicy(presence_grace=0.1, ping_interval=0.2, idle_timeout=60)
ALICE: Final = as_user("alice")


def starlette(bridge: Bridge) -> Any:
    return Starlette(routes=[Mount("/chat", bridge)])


def fastapi(bridge: Bridge) -> Any:
    app = FastAPI()
    app.mount("/chat", bridge)
    return app


def nested(bridge: Bridge) -> Any:
    return Starlette(routes=[Mount("/a", Starlette(routes=[Mount("/b", bridge)]))])


def with_middleware(bridge: Bridge) -> Any:
    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app = starlette(bridge)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    return app


def quart(bridge: Bridge) -> Any:
    app = QuartTrio(__name__)

    @app.get("/chatter")
    async def chatter() -> str:
        return "not the bridge's"

    app.register_blueprint(blueprint(bridge), url_prefix="/chat")
    return app


FRAMEWORKS: Final[dict[str, tuple[Any, str]]] = {
    "alone": (lambda bridge: bridge, ""),
    "starlette": (starlette, "/chat"),
    "nested": (nested, "/a/b"),
    "middleware": (with_middleware, "/chat"),
    "fastapi": (fastapi, "/chat"),
    "quart": (quart, "/chat"),
}


@pytest.fixture(autouse=True)
def _patience() -> None:
    """Real servers take real time, and more of it on a busy machine."""
    faulthandler.dump_traceback_later(120, exit=True)


async def wait_for_nothing(world: World) -> None:
    """Wait until nothing of any connection is left."""
    with trio.fail_after(60):
        while world.left != (0, 0, 0):
            await trio.sleep(0.01)


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_framework(framework: str) -> None:
    """The same bridge under each framework: pages, commands, a WebSocket, an event stream, aborts, and the end."""
    make, root = FRAMEWORKS[framework]
    async with open_world(policy=POLICY) as world, served(make(world.bridge), world.bridge.aclose) as address:
        async with httpx2.AsyncClient(base_url=f"{address}{root}", headers=ALICE, timeout=60) as client:
            assert 200 == (await client.get("/")).status_code
            token = (await client.get("/session")).json()["csrf"]
            headers = {"origin": address, "x-csrf-token": token}
            posted = await client.post("/conversations/a%2Fb/messages", json={"message_id": "m-1", "text": "Hello"}, headers=headers)
            assert {"message_id": "m-1", "duplicate": False} == posted.json()
            assert 403 == (await client.post("/conversations/42/messages", json={}, headers={"origin": "null"})).status_code
            assert ["a/b"] == [item["conversation_id"] for item in (await client.get("/conversations")).json()["items"]]

            async with client.stream("GET", "/conversations/a%2Fb/events", headers={"origin": address}) as stream:
                assert 200 == stream.status_code
                async with contextlib.aclosing(stream.aiter_lines()) as lines:
                    first = await anext(lines)
                    assert first.startswith("id: 1.")
        page = await RealSocket.open(address, f"{root}/ws", ALICE)
        await page.until("welcome")
        await page.send(op="subscribe", id="1", conversation_id="a/b")
        await page.until("reply", id="1", ok=True)
        await page.send(op="post", id="2", conversation_id="a/b", message_id="m-2", text="Again")
        await page.until("reply", id="2", ok=True)
        await page.until("ping")
        while len(await world.texts("a/b")) < 4:  # noqa: ASYNC110  # the answer may take longer than the ping
            await trio.sleep(0.001)
        assert ["Hello", "re: Hello", "Again", "re: Again"] == await world.texts("a/b")
        refused = await RealSocket.open(address, f"{root}/ws", {**ALICE, "origin": "http://evil.example"})
        assert 403 == refused.status
        await refused.stream.aclose()
        page.reset()
        await wait_for_nothing(world)

        last = await RealSocket.open(address, f"{root}/ws", ALICE)
        await last.until("welcome")
        await world.bridge.aclose()
        assert "shutdown" == (await last.until("bye"))["reason"]
        assert await last.next() is None
        assert 1012 == last.code
        await last.stream.aclose()
        await wait_for_nothing(world)


async def test_quart_when_a_path_is_not_below_the_prefix() -> None:
    """The blueprint takes what is below its prefix, and nothing beside it; it needs a prefix."""
    async with open_world(policy=POLICY) as world:
        async with served(quart(world.bridge), world.bridge.aclose) as address, httpx2.AsyncClient(base_url=address, timeout=60) as client:
            assert "not the bridge's" == (await client.get("/chatter")).text
            redirect = await client.get("/chat")
            assert (308, "/chat/") == (redirect.status_code, redirect.headers["location"])
        with pytest.raises(ValueError, match="url_prefix"):
            QuartTrio(__name__).register_blueprint(blueprint(world.bridge))


async def test_resets() -> None:
    """After 100 connections that end with a RST, in the middle of an answer, nothing is left."""
    policy = WebPolicy(presence_grace=0, connections_per_scope=200)
    async with open_world(slow_agent("x" * 1000, seconds=5), policy=policy) as world, served(world.bridge, world.bridge.aclose) as address:
        await world.sessions.post("42", "Hello", scope="alice")

        async def visit(number: int) -> None:
            page = await RealSocket.open(address, "/ws", ALICE)
            if number % 3:
                await page.send(op="subscribe", id="1", conversation_id="42")
                await page.until("events")
            page.reset()

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(visit, number)
        await wait_for_nothing(world)
        assert {} == await world.present()
        await world.sessions.stop("42", scope="alice")


async def test_cuts_by_reset() -> None:
    """Resets in the middle of one answer, over TCP: the page has the stored text, and each event once."""
    model = Speaker()
    policy = WebPolicy(presence_grace=0, event_interval=0, frames_per_second=1e6, frame_burst=10**6)
    async with open_world(Agent(model=model), policy=policy) as world, served(world.bridge, world.bridge.aclose) as address:
        await world.sessions.post("42", "sing", scope="alice")
        page, cuts, count = Page(), 0, 0
        while count == 0 or page.status != "idle":
            socket = await RealSocket.open(address, "/ws", ALICE)
            await socket.until("welcome")
            count = await page.follow(socket, stop_after=10)
            cuts += 1
            model.may_end = cuts > 10
            socket.reset()

        assert page.texts == await world.texts()
        assert ("sing", True) == (page.texts[0], is_answer(page.texts[1], whole=True))
        assert len(page.seen) == len(set(page.seen))
        await wait_for_nothing(world)


async def test_shutdown_when_streams_are_open() -> None:
    """Open streams do not hold the server: it stops at once, although its graceful timeout is long."""
    async with open_world(policy=POLICY) as world:
        async with served(world.bridge, world.bridge.aclose, graceful_timeout=60.0) as address:
            page = await RealSocket.open(address, "/ws", ALICE)
            await page.until("welcome")
            begun = trio.current_time()
        assert "shutdown" == (await page.until("bye"))["reason"]
        assert trio.current_time() - begun < 25
        await page.stream.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path, tmp_path: Path) -> None:
    """Each example has at most 12 lines of code; it runs as it is, serves a conversation, and stops when it is told to."""
    source = example.read_text(encoding="utf-8")
    code = [line for line in source.split('"""')[2].splitlines() if line.strip()]
    assert len(code) <= 12

    with reserved_port() as port:
        # The port is another one, so that two runs do not meet.
        bound = f'hypercorn.Config.from_mapping(bind="127.0.0.1:{port}")'
        program = source.replace("port=8000", f"port={port}").replace("hypercorn.Config()", bound)
        assert str(port) in program
        (tmp_path / "example.py").write_text(program, encoding="utf-8")
        command, environ = [sys.executable, "example.py"], {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            answer = trio.run(_try, f"http://127.0.0.1:{port}")
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()

    assert "text" in json.loads(answer), out
    assert 0 == process.returncode, out


async def _try(address: str) -> str:
    """Hold a conversation with an example by its WebSocket; return the answer."""
    with trio.fail_after(60):
        while True:
            try:
                page = await RealSocket.open(address, "/chat/ws", {})
                break
            except OSError:
                await trio.sleep(0.05)
        await page.until("welcome")
        await page.send(op="subscribe", id="1", conversation_id="42")
        await page.until("reply", id="1", ok=True)
        await page.send(op="post", id="2", conversation_id="42", message_id="m-1", text="Hello")
        await page.until("reply", id="2", ok=True)
        text = ""
        while not text:
            for envelope in (await page.until("events"))["events"]:
                if envelope["event"]["type"] == "DisplayMessageSaved" and envelope["event"]["row"]["role"] == "assistant":
                    text += json.dumps(envelope["event"]["row"]["content"])
        await page.stream.aclose()
        return text

"""FastAPI on uvicorn: posting, watching, leaving and coming back, and the end of the server."""

import asyncio
import contextlib
import importlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.apps.guest._kit import HANGS, assert_idle, left_in_trio, opened, run, until
from tests.apps.guest._program import make_app
from tests.apps.guest._served import Socket, client, events, served
from tests.support.models import is_answer
from trio_sagents import SqliteStore

ROOT = Path(__file__).parents[3]


def told(got: list[Any]) -> str:
    """Return the text that some events tell, in the order of their places."""
    pieces = {event["event"]["offset"]: event["event"]["text"] for event in got if event["event"]["type"] == "TextDelta"}
    return "".join(pieces[place] for place in sorted(pieces))


def kinds(got: list[Any]) -> set[str]:
    return {event["event"]["type"] for event in got}


EXAMPLES = {"asyncio_web": 12, "asyncio_fastapi": 14}
"""By name: how many lines of program an example may have, without its imports."""


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_when_it_is_read(example: str) -> None:
    """Each example is short: the web bridge takes at most 12 lines, and routes of one's own two more."""
    source = (ROOT / "examples" / f"{example}.py").read_text(encoding="utf-8")
    lines = [line for line in source.split('"""', 2)[2].splitlines() if line.strip() and not line.startswith(("from ", "import "))]

    assert len(lines) <= EXAMPLES[example]


def test_example_when_it_streams(loop: str) -> None:
    """The example with server-sent events answers."""
    example = importlib.import_module("examples.asyncio_fastapi")

    async def main() -> None:
        async with served(example.app) as port, client(port) as http:
            got = []
            async with http.stream("POST", "/42", params={"text": "what is 12*7?"}) as response:
                lines = response.aiter_lines()
                async for line in lines:
                    got.append(line)
                    if "TurnEnded" in line:
                        break
                await lines.aclose()  # type: ignore[attr-defined]  # it is a generator
        assert any("84" in line for line in got)

    run(main, loop)


@pytest.mark.slow
def test_example_when_it_has_the_bridge(loop: str) -> None:
    """The example with the web bridge has a page and answers on a socket; at SIGTERM the socket gets the bridge's last word."""
    with listening() as (port, fd):
        command = [sys.executable, "-m", "uvicorn", "examples.asyncio_web:app", "--fd", str(fd), "--loop", loop, "--ws", "wsproto"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, pass_fds=[fd])

    async def main() -> None:
        async with asyncio.timeout(HANGS):
            socket = await Socket.open(port, "/chat/ws")
            async with client(port) as http:
                assert 200 == (await http.get("/chat/")).status_code
            socket.send('{"op": "subscribe", "id": "1", "conversation_id": "42"}')
            socket.send('{"op": "post", "id": "2", "conversation_id": "42", "message_id": "m", "text": "what is 12*7?"}')
            said = ""
            while "TurnEnded" not in said:
                said += str(await socket.receive())
            assert "84" in said
            process.send_signal(signal.SIGTERM)
            while "bye" not in (word := str(await socket.receive())):
                pass
            assert '"reason":"shutdown"' in word
            assert 1012 == await socket.receive()
            await socket.abort()

    try:
        asyncio.run(main())
        output, _ = process.communicate(timeout=HANGS)
        assert "Application shutdown complete" in output
    finally:
        process.kill()
        process.communicate()


def test_watch_when_clients_are_cut_again_and_again(loop: str, tmp_path: Path) -> None:
    """Clients that leave in mid-answer and come back with their last id get the whole text, once; the turn never notices."""

    async def main() -> None:
        app = make_app(str(tmp_path / "x.db"), 5.0)
        async with served(app) as port, client(port) as http:
            assert not (await http.post("/c", params={"text": "x", "message_id": "m"})).json()["duplicate"]
            assert (await http.post("/c", params={"text": "x", "message_id": "m"})).json()["duplicate"]

            visits = [0, 0, 0]

            async def viewer(place: int, size: int) -> str:
                got: list[Any] = []
                name: str | None = None
                while "TurnEnded" not in kinds(got):
                    visits[place] += 1
                    app.state.model.may_end = min(visits) > 2
                    stream = events(http, "/c", name)
                    taken = 0
                    async for cursor, event in stream:
                        name = cursor
                        got.append(event)
                        taken += 1
                        if taken == size or event["event"]["type"] == "TurnEnded":
                            break
                    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
                first = got[0]["event"]
                before = first["streaming"]["parts"][0]["text"] if first.get("streaming") and first["streaming"]["parts"] else ""
                assert len([event for event in got if event["event"]["type"] == "Snapshot"]) == 1
                return before + told(got)

            texts = await asyncio.gather(*map(viewer, range(3), (3, 5, 8)))
            assert is_answer(texts[0], whole=True)
            assert [texts[0]] * 3 == texts
            await until(lambda: (0, 1) == (app.state.sessions.statistics().subscriptions, left_in_trio()))
            assert {} == await app.state.sessions.presence.list("conversation:c")
            assert ["x", texts[0]] == (await http.get("/c/history")).json()

    run(main, loop)


def test_server_when_clients_abort(loop: str, tmp_path: Path) -> None:
    """After hundreds of requests and streams that were aborted at any moment, no call, subscription or viewer is left."""

    async def main() -> None:
        app = make_app(str(tmp_path / "x.db"), 0.1)
        async with served(app) as port:
            app.state.model.may_end = True

            async def visit(number: int) -> None:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                request = ("POST /c?text=x", "GET /c", "GET /c/history")[number % 3]
                writer.write(f"{request} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
                await asyncio.sleep(0.0007 * (number % 11))
                writer.transport.abort()

            for start in range(0, 150, 15):
                await asyncio.gather(*map(visit, range(start, start + 15)))
            sessions = app.state.sessions
            await until(lambda: (0, 1) == (sessions.statistics().subscriptions, left_in_trio()))
            await sessions.stop("c")

    run(main, loop)


# ── signals


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, int]]:
    """Listen for a child process, and yield the port and the descriptor. Who connects before the child does waits in the backlog."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1], listener.fileno()


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run the program of `_program` until the block is left, and yield its port."""
    with listening() as (port, fd):
        command = [sys.executable, "-m", "tests.apps.guest._program", *arguments[:3], str(fd), *arguments[3:]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, pass_fds=[fd])
    try:
        assert process.stdout is not None
        assert "open" == process.stdout.readline().strip(), process.stderr.read() if process.stderr else ""
        yield port, process
    finally:
        process.kill()
        process.communicate()


async def until_the_end(http: httpx2.AsyncClient, process: subprocess.Popen[str], number: int, sent: list[int]) -> list[Any]:
    """Watch an answer, send a signal in the middle of it, and read the stream to its end. `sent` gets the signal."""
    got = []
    async for _, event in events(http, "/c"):
        got.append(event)
        if event["event"]["type"] == "TextDelta" and not sent:
            process.send_signal(number)
            sent.append(number)
    return got


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "speaks", "loop"),
    [(signal.SIGTERM, True, "asyncio"), (signal.SIGTERM, False, "uvloop"), (signal.SIGINT, True, "uvloop")],
    ids=["whole", "cut", "interrupt"],
)
def test_server_when_it_is_told_to_stop(loop: str, speaks: bool, number: int, tmp_path: Path) -> None:
    """The open stream ends at once and properly; the turn ends within its grace, or is cut; the row is stored, and the process ends."""
    database = tmp_path / "x.db"
    grace = str(HANGS) if speaks else "0.05"
    with program(str(database), grace, loop, "ends", "speaks" if speaks else "") as (port, process):

        async def main() -> None:
            async with client(port) as http:
                await http.post("/c", params={"text": "x"})
                assert "TurnEnded" not in kinds(await until_the_end(http, process, number, sent))

        sent: list[int] = []
        asyncio.run(main())
        output, errors = process.communicate(timeout=HANGS / 2)  # also if the grace would be longer
    assert "closed" == output.strip()
    assert "Traceback" not in errors or number == signal.SIGINT

    async def look() -> list[Any]:
        async with opened(store=SqliteStore(str(database))) as sessions:
            return [row.content.get("text") for row in (await sessions.history("c")).rows]

    rows = run(look)
    assert is_answer(rows[1], whole=speaks)


@pytest.mark.slow
def test_server_when_nobody_ends_the_streams(tmp_path: Path) -> None:
    """Without `end_streams_on` an open stream holds the server: this is what the call is for."""
    with program(str(tmp_path / "x.db"), "0.05", "asyncio", "holds", "") as (port, process):

        async def main() -> None:
            async with client(port) as http:
                await http.post("/c", params={"text": "x"})
                reading = asyncio.ensure_future(until_the_end(http, process, signal.SIGTERM, sent))
                await until(lambda: sent)
                await asyncio.sleep(1.0)
                assert not reading.done()
                assert process.poll() is None
                reading.cancel()
                await asyncio.wait([reading])

        sent: list[int] = []
        asyncio.run(main())
        output, _ = process.communicate(timeout=HANGS)
    assert "closed" == output.strip()
    assert_idle()

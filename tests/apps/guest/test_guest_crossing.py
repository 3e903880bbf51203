"""From Trio to asyncio and back: tools that use what the application has in its loop."""

import asyncio
import contextvars
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sniffio
import trio

from tests.apps.guest._kit import HANGS, breathe, cancelled_after, config, left_in_trio, opened, run, until
from trio_sagents import Agent, Cancelled, Completed, MemoryStore, SessionConfig, SingleFactoryRouter, Unanswered
from trio_sagents.asyncio import call_asyncio, call_trio, open_sessions
from trio_sagents.testing import Call, ScriptedModel

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


async def double(number: int) -> int:
    await asyncio.sleep(0.001)
    return 2 * number


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("mine")


def test_call_when_it_returns_or_raises(loop: str) -> None:
    """The value of the function, or its error as that object and in no group, comes back to Trio."""

    async def in_trio() -> None:
        assert 8 == await call_asyncio(double, 4)
        with pytest.raises(ValueError, match="mine"):
            await call_asyncio(fail)
        with pytest.raises(ExceptionGroup):
            await call_asyncio(fail_in_group)
        assert trio.lowlevel.in_trio_task()

    async def fail_in_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    run(lambda: call_trio(in_trio), loop)


def test_call_when_it_is_cancelled(loop: str) -> None:
    """A cancellation in Trio cancels the task of asyncio, and waits for its end; a result that came all the same counts."""
    seen: list[str] = []

    async def sleeps(scope: trio.CancelScope) -> None:
        asyncio.get_running_loop().call_soon(scope.cancel)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            seen.append("cleaned")

    async def resists(scope: trio.CancelScope) -> str:
        asyncio.get_running_loop().call_soon(scope.cancel)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "late"
        return "never"

    async def in_trio() -> None:
        with trio.CancelScope() as scope:
            await call_asyncio(sleeps, scope)
        assert scope.cancelled_caught
        assert ["cleaned"] == seen
        with trio.CancelScope() as scope:
            assert "late" == await call_asyncio(resists, scope)
        assert not scope.cancelled_caught

    run(lambda: call_trio(in_trio), loop)


def test_call_when_it_is_cancelled_at_each_pass(loop: str) -> None:
    """Whoever is cancelled in asyncio while its function in Trio waits for asyncio leaves nothing on either side."""

    async def in_trio() -> int:
        return await call_asyncio(double, 4)

    async def main() -> None:
        async with opened():
            number, result = 0, None
            while result != 8:
                result = await cancelled_after(number, call_trio(in_trio))
                assert (1, 1) == (left_in_trio(), len(asyncio.all_tasks()))
                number += 1
                await breathe() if number > 20 else None
            assert 3 < number

    run(main, loop)


def test_call_when_somebody_else_cancels_it(loop: str) -> None:
    """A cancellation that Trio has not asked for is an error there: no `CancelledError` passes through code of Trio."""
    tasks: list[Any] = []

    async def sleeps() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(60)

    async def in_trio() -> None:
        with pytest.raises(RuntimeError, match="was cancelled by somebody else"):
            await call_asyncio(sleeps)

    async def main() -> None:
        call = asyncio.ensure_future(call_trio(in_trio))
        while not tasks:
            await breathe()
        tasks[0].cancel()
        await call

    run(main, loop)


@pytest.mark.parametrize("how", ["stop", "drain"])
def test_call_when_a_tool_stops_its_own_agent(how: str, loop: str) -> None:
    """A tool that stops its own agent, or drains the sessions, through asyncio and back, does not wait for itself."""

    async def main() -> None:
        async with opened([Call("leave"), "done"], tools=[leave]) as sessions:

            async def stop() -> str:
                await asyncio.sleep(0.001)
                assert await sessions.stop("own")
                return "asked"

            async def drain() -> str:
                await sessions.drain()
                return "asked"

            ways["leave"] = stop if how == "stop" else drain
            outcome = await asyncio.wait_for((await sessions.post("own", "x")).wait(), HANGS)
            assert isinstance(outcome, Cancelled if how == "stop" else Completed)

    ways: dict[str, Any] = {}

    async def leave() -> str:
        """Leave."""
        return await call_asyncio(ways["leave"])

    run(main, loop)


def test_call_when_a_tool_is_cut_while_asyncio_calls_back(loop: str) -> None:
    """A tool that is cut while its code in asyncio waits for sessions: that call ends with `CancelledError`, and the tool has ended."""
    seen: list[Any] = []
    asked: list[bool] = []

    async def main() -> None:
        async with opened([Call("ask")], tools=[ask]) as sessions:

            async def asking() -> str:
                asked.append(True)
                try:
                    await (await sessions.get("own")).wait_idle()  # never, while its own turn runs
                except BaseException as exc:
                    seen.append(type(exc))
                    raise
                return "idle"

            ways["ask"] = asking
            receipt = await sessions.post("own", "x")
            await until(lambda: asked and left_in_trio() > 2)
            await asyncio.wait_for(sessions.cancel_turn("own"), HANGS)
            assert isinstance(await receipt.wait(), Cancelled)
            assert 1 == len(asyncio.all_tasks())

    ways: dict[str, Any] = {}

    async def ask() -> str:
        """Ask."""
        return await call_asyncio(ways["ask"])

    run(main, loop)

    assert [asyncio.CancelledError] == seen


def test_call_when_its_task_leaves_another_behind(loop: str) -> None:
    """A task that the function has left behind calls the sessions as any other task does, when the tool has returned."""

    async def main() -> None:
        async with opened(
            lambda request: "done" if request.messages[-1].results or request.messages[-1].text == "leaf" else Call("spawn"), tools=[spawn]
        ) as sessions:

            async def later() -> str:
                await asyncio.sleep(0.03)
                return str(await (await sessions.post("other", "leaf")).wait())

            async def spawning() -> str:
                tasks.append(asyncio.ensure_future(later()))
                return "spawned"

            ways["spawn"] = spawning
            assert isinstance(await (await sessions.post("own", "x")).wait(), Completed)
            assert "Completed" in await tasks[0]

    tasks: list[Any] = []
    ways: dict[str, Any] = {}

    async def spawn() -> str:
        """Spawn."""
        return await call_asyncio(ways["spawn"])

    run(main, loop)


def test_call_when_it_is_in_a_wrong_place() -> None:
    """In Trio without asyncio, and in asyncio itself, the error says what the function is for."""
    with pytest.raises(RuntimeError, match="call_asyncio is for tasks of Trio whose sessions were opened with"):
        trio.run(call_asyncio, double, 1)
    with pytest.raises(RuntimeError, match="call_asyncio is for tasks of Trio whose sessions were opened with"):
        run(lambda: call_asyncio(double, 1))
    with pytest.raises(RuntimeError, match="needs a running asyncio loop"):
        call_trio(trio.sleep, 0).send(None)


def test_sessions_when_a_tool_uses_them_directly(loop: str) -> None:
    """A tool that awaits the sessions of asyncio in Trio is told that it must not; with those of Trio it works."""
    told: list[str] = []

    async def main() -> None:
        async with opened(lambda request: "done" if request.messages[-1].results else Call("use"), tools=[use]) as sessions:
            ways["sessions"] = sessions
            await (await sessions.post("c", "x")).wait()

    ways: dict[str, Any] = {}

    async def use() -> str:
        """Use."""
        try:
            await ways["sessions"].running("c")
        except RuntimeError as exc:
            told.append(str(exc))
        return str(await ways["sessions"].trio.running("c"))

    run(main, loop)

    assert 1 == len(told)
    assert "this is a task of Trio" in told[0]


def test_libraries_when_they_ask_where_they_are(loop: str) -> None:
    """sniffio and anyio see Trio in a turn and asyncio outside of it, at the same time; a tool sees the context of its message."""
    seen: dict[str, Any] = {}

    async def look() -> str:
        """Look."""
        seen["tool"] = (sniffio.current_async_library(), request_id.get())
        await anyio.sleep(0.001)
        seen["thread"] = await anyio.to_thread.run_sync(lambda: "thread")
        seen["crossed"] = await call_asyncio(probe)
        return "seen"

    def look_in_thread() -> str:
        """Look in a thread."""
        seen["sync"] = request_id.get()
        return "seen"

    async def probe() -> Any:
        await anyio.sleep(0.001)
        return sniffio.current_async_library(), request_id.get()

    async def outside() -> None:
        for _ in range(20):
            assert "asyncio" == sniffio.current_async_library()
            await anyio.sleep(0.0005)
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0)

    async def main() -> None:
        calls = [Call("look"), Call("look_in_thread"), "done"]
        async with opened(calls, tools=[look, look_in_thread]) as sessions:
            request_id.set("r-1")
            probing = asyncio.ensure_future(outside())
            assert isinstance(await (await sessions.post("c", "x")).wait(), Completed)
            await probing

    run(main, loop)

    assert {"tool": ("trio", "r-1"), "thread": "thread", "crossed": ("asyncio", "r-1"), "sync": "r-1"} == seen


def test_call_when_a_factory_makes_the_tasks(loop: str) -> None:
    """A factory of tasks, which may run the first step of a task at once, is called outside of any step of Trio."""
    where: list[bool] = []

    def factory(host: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        where.append(trio.lowlevel.in_trio_task())
        return asyncio.Task(coroutine, loop=host, **options)

    async def in_trio() -> int:
        return await call_asyncio(double, 4)

    async def main() -> int:
        asyncio.get_running_loop().set_task_factory(factory)
        return await call_trio(in_trio)

    assert 8 == run(main, loop)
    assert where
    assert not any(where)


def test_run_under_anyio() -> None:
    """An application of anyio on asyncio is one of asyncio."""

    async def main() -> str:
        async with open_sessions(config()) as sessions:
            outcome = await (await sessions.post("c", "x")).wait()
            async with anyio.create_task_group() as group:
                group.start_soon(sessions.running, "c")
            return type(outcome).__name__

    assert "Completed" == anyio.run(main, backend="asyncio")


def test_http_when_both_sides_ask(loop: str) -> None:
    """httpx asks a server from a turn and from the application at once."""
    httpx2 = pytest.importorskip("httpx2")
    answers: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def fetch() -> str:
        """Fetch."""
        async with httpx2.AsyncClient(trust_env=False, timeout=HANGS) as client:
            answers.append((await client.get(url)).status_code)
        return "fetched"

    async def main() -> None:
        nonlocal url
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server, opened([Call("fetch"), Call("fetch"), "done"], tools=[fetch]) as sessions:
            waiting = asyncio.ensure_future((await sessions.post("c", "x")).wait())
            await asyncio.gather(*(fetch() for _ in range(5)))
            assert isinstance(await waiting, Completed)

    url = ""
    run(main, loop)

    assert [200] * 7 == answers


def test_agents_when_their_factory_is_of_asyncio(loop: str) -> None:
    """A factory that needs the application's loop calls it with `call_asyncio`."""

    async def read_settings() -> str:
        await asyncio.sleep(0.001)
        return "re: {}"

    async def factory(agent_id: str, config: Any) -> Agent:
        pattern = await call_asyncio(read_settings)
        return Agent(model=ScriptedModel(lambda request: pattern.format(request.messages[-1].text)))

    async def main() -> None:
        settings = SessionConfig(factory_router=SingleFactoryRouter(factory), store=MemoryStore())
        async with open_sessions(settings) as sessions:
            outcome = await (await sessions.post("c", "x")).wait()
            assert not isinstance(outcome, Unanswered)
            assert "re: x" == (await sessions.history("c")).rows[-1].content["text"]

    run(main, loop)

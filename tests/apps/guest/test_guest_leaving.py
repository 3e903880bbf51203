"""How a block of asyncio ends: with grace, cut, by an error, by a cancellation, by a crash of either side, or by a loop that is closed."""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
import trio

import trio_sagents
from tests.apps.guest._kit import HANGS, TEXT, assert_idle, config, in_thread, left_in_trio, new_loop, opened, passes, run, until
from trio_sagents import Cancelled, Completed, MemoryStore, SessionsClosed, TextDelta
from trio_sagents.asyncio import call_trio, open_sessions
from trio_sagents.asyncio._guest import running_guest
from trio_sagents.testing import Call, Hang


class Mine(Exception):
    """What a block raises."""


def cause_of(outcome: Any) -> str:
    assert isinstance(outcome, Cancelled), outcome
    return str(outcome.cause)


# ── leaving


def test_block_when_it_is_left_in_a_turn(loop: str) -> None:
    """The turn may finish within its grace; its answer is stored."""

    async def main() -> None:
        store = MemoryStore()
        async with opened(lambda request: TEXT, store=store, chunk_interval=0.002, grace_period=HANGS) as sessions:
            waiting = asyncio.ensure_future((await sessions.post("c", "x")).wait())
        assert isinstance(await waiting, Completed)
        async with opened(store=store) as sessions:
            assert TEXT == (await sessions.history("c")).rows[-1].content["text"]

    run(main, loop)


@pytest.mark.parametrize("times", [1, 3])
def test_block_when_it_is_cancelled_in_its_grace(times: int, loop: str) -> None:
    """A cancellation during the grace cuts the turn at once, however often it comes; the task ends as cancelled."""

    async def block() -> None:
        nonlocal waiting
        async with opened([Hang()], grace_period=60.0) as sessions:
            waiting = asyncio.ensure_future((await sessions.post("c", "x")).wait())

    async def main() -> None:
        task = asyncio.create_task(block())
        await until(lambda: waiting)
        for _ in range(times):
            task.cancel()
            await passes(2)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert waiting is not None
        assert cause_of(await waiting) in {"host_cancelled", "closed"}

    waiting: asyncio.Future[Any] | None = None
    run(main, loop)


def test_block_when_it_raises(loop: str) -> None:
    """An error cuts the turns, with that cause, and leaves the block as that object."""

    async def main() -> None:
        mine = Mine()
        with pytest.raises(Mine) as caught:
            async with opened([Hang()], grace_period=60.0) as sessions:
                waiting = asyncio.ensure_future((await sessions.post("c", "x")).wait())
                await passes(3)
                raise mine
        assert caught.value is mine
        assert "host_failed" == cause_of(await waiting)

    run(main, loop)


@pytest.mark.parametrize("how", ["task", "timeout", "group", "anyio"])
def test_block_when_it_is_cancelled(how: str, loop: str) -> None:
    """A cancellation cuts the turns, with that cause; the ways of asyncio see it as theirs."""

    async def block(ready: Callable[[], object]) -> None:
        nonlocal waiting
        async with opened([Hang()], grace_period=60.0) as sessions:
            waiting = asyncio.ensure_future((await sessions.post("c", "x")).wait())
            ready()
            await asyncio.sleep(60)

    async def fail() -> None:
        await until(lambda: waiting)
        raise Mine

    async def main() -> None:
        if how == "task":
            task = asyncio.create_task(block(lambda: task.cancel()))
            with pytest.raises(asyncio.CancelledError):
                await task
        elif how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as timeout:
                    await block(lambda: timeout.reschedule(asyncio.get_running_loop().time()))
        elif how == "group":
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(block(lambda: None))
                    group.create_task(fail())
        else:
            with anyio.CancelScope() as scope:
                await block(scope.cancel)
        assert waiting is not None
        assert "host_cancelled" == cause_of(await waiting)

    waiting: asyncio.Future[Any] | None = None
    run(main, loop)


def test_block_when_another_task_leaves_it(loop: str) -> None:
    """The task that enters may have ended when another one leaves, as cells of a notebook and fixtures do."""

    async def main() -> None:
        opening = open_sessions(config())
        sessions = await asyncio.create_task(opening.__aenter__())
        assert isinstance(await (await sessions.post("c", "x")).wait(), Completed)
        with pytest.raises(RuntimeError, match="entered before"):
            await opening.__aenter__()
        await asyncio.create_task(opening.__aexit__(None, None, None))

    run(main, loop)


def test_block_when_its_coroutine_is_thrown_away() -> None:
    """A coroutine that is closed while it enters, or in the block, leaves nothing running."""

    async def block() -> None:
        async with open_sessions(config()) as sessions:
            await sessions.start("c")
            inside.append(True)
            await asyncio.sleep(60)

    async def main() -> None:
        for number in range(6):
            inside.clear()
            coroutine: Any = block()
            for _ in range(number):
                future = coroutine.send(None)  # driven by hand, inside of another task
                if inside:
                    break
                await until(lambda future=future: future is None or future.done())  # type: ignore[misc]  # a default binds it
            with suppress(RuntimeError):
                coroutine.close()  # it may not wait any more, so it raises if it wants to
            del coroutine
            await until(lambda: running_guest() is None)
            assert_idle()
        assert inside

    inside: list[bool] = []
    run(main)


def test_block_when_it_is_in_an_async_generator(loop: str) -> None:
    """A generator that holds a block open, as a fixture or a dependency does, ends it when it is closed."""

    async def sessions() -> AsyncIterator[trio_sagents.asyncio.Sessions]:
        async with opened() as opened_sessions:
            yield opened_sessions

    async def main() -> None:
        generator = sessions()
        found = await anext(generator)
        await found.post("c", "x")
        await generator.aclose()  # type: ignore[attr-defined]  # it is a generator
        assert_idle()

    run(main, loop)


def test_block_when_nobody_leaves_it(loop: str) -> None:
    """`asyncio.run` closes the loop only when the agents of a forgotten block have settled."""
    store = MemoryStore()

    async def main() -> None:
        sessions = await open_sessions(config(lambda request: TEXT, store=store, chunk_interval=0.05)).__aenter__()
        watch = await sessions.watch("c").__aenter__()
        await sessions.post("c", "x")
        while not isinstance((await anext(watch)).event, TextDelta):
            pass

    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        runner.run(main())
    assert_idle()

    async def look() -> None:
        async with opened(store=store) as sessions:
            rows = (await sessions.history("c")).rows
            assert TEXT.startswith(rows[1].content["text"])
            assert rows[1].content["text"] != TEXT

    run(look, loop)


@pytest.mark.parametrize("doing", ["nothing", "streaming", "hanging", "crossing"])
def test_loop_when_it_is_closed_under_open_sessions(doing: str, loop: str) -> None:
    """The next block in the thread first lets the agents of a closed loop settle; then it works."""

    async def never() -> str:
        """Wait for ever in asyncio."""
        return await trio_sagents.asyncio.call_asyncio(asyncio.sleep, 1000)  # type: ignore[return-value]

    store = MemoryStore()
    replies: Any = {"nothing": None, "streaming": lambda request: TEXT, "hanging": [Hang()], "crossing": [Call("never")]}[doing]
    host = new_loop(loop)

    async def main() -> None:
        sessions = await open_sessions(config(replies, store=store, tools=[never], chunk_interval=0.01)).__aenter__()
        if doing != "nothing":
            await sessions.post("c", "x")
        await asyncio.sleep(0.05)

    host.run_until_complete(main())
    for task in asyncio.all_tasks(host):
        task.cancel()
        task.get_coro().close()  # type: ignore[union-attr]  # nobody will run it again
    host.close()
    gc.collect()

    async def look() -> None:
        async with opened(store=store) as sessions:
            assert isinstance(await (await sessions.post("d", "x")).wait(), Completed)
            if doing != "nothing":
                assert "user" == (await sessions.history("c")).rows[0].role
            assert 1 == left_in_trio()

    run(look, loop)


def test_block_when_its_loop_is_closed_before_it_is_left(loop: str) -> None:
    """A block whose loop is closed can be left in the next loop: its agents settle then. So does a task that was in it and never ended."""
    store = MemoryStore()
    opening = open_sessions(config([Hang()], store=store))
    host = new_loop(loop)

    async def inside() -> None:
        async with open_sessions(config()):
            entered.append(True)
            await asyncio.sleep(1000)

    async def main() -> asyncio.Task[None]:
        task = asyncio.ensure_future(inside())
        sessions = await opening.__aenter__()
        await sessions.post("c", "x")
        await until(lambda: entered)
        return task

    entered: list[bool] = []

    task = host.run_until_complete(main())
    host.close()

    async def leave() -> None:
        await opening.__aexit__(None, None, None)
        assert_idle()
        async with opened(store=store) as sessions:
            assert "user" == (await sessions.history("c")).rows[0].role

    with pytest.raises(SessionsClosed):
        run(leave, loop)
    assert_idle()
    with suppress(RuntimeError):
        task.get_coro().close()  # type: ignore[union-attr]  # nobody will run it again


# ── crashes


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_block_when_a_tool_exits(error: type[BaseException], loop: str) -> None:
    """The task of the block is cancelled; the exit leaves the block as itself; every waiter is told, and a new block works."""

    async def leave() -> str:
        """Leave."""
        raise error(3)

    async def main() -> None:
        here = asyncio.current_task()
        assert here is not None
        with pytest.raises(error):
            async with opened([Call("leave")], tools=[leave]) as sessions:
                receipt = await sessions.post("c", "x")
                waiting = asyncio.ensure_future(receipt.wait())
                await asyncio.sleep(60)
        assert 0 == here.cancelling()
        await asyncio.wait([waiting])
        async with opened() as sessions:
            assert isinstance(await (await sessions.post("c", "x")).wait(), Completed)

    run(main, loop)


def test_block_when_it_suppresses_the_cancellation_of_a_crash(loop: str) -> None:
    """A block that swallows the cancellation of a crash hears of the crash when it is left, and its task is not cancelled after that."""

    async def main() -> None:
        here = asyncio.current_task()
        assert here is not None
        with pytest.raises(SessionsClosed):
            async with open_sessions(config()):
                guest = running_guest()
                assert guest is not None
                guest.nursery.cancel_scope.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
        assert 0 == here.cancelling()
        await asyncio.sleep(0.01)

    run(main, loop)


def test_block_when_it_is_cancelled_besides_a_crash(loop: str) -> None:
    """If somebody else has cancelled the task too, that stays: the task is as cancelled as that somebody has made it."""

    async def block() -> None:
        async with open_sessions(config()):
            guest = running_guest()
            assert guest is not None
            guest.nursery.cancel_scope.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            here = asyncio.current_task()
            assert here is not None
            here.cancel()
            await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.ensure_future(block())
        await asyncio.wait([task])
        assert task.cancelled()
        assert 1 == task.cancelling()

    run(main, loop)


@pytest.mark.parametrize("kind", [trio.TrioInternalError, ExceptionGroup])
def test_run_when_trio_crashes(kind: type[Exception], loop: str) -> None:
    """If Trio itself fails, or code that abuses it does, every waiter ends with `SessionsClosed` from that error, and a new block works."""

    async def main() -> None:
        errors: list[BaseException] = []

        async def reading(sessions: Any) -> None:
            async with sessions.watch("c", viewer="v") as watch:
                async for _ in watch:
                    pass

        async def block() -> None:
            async with opened([Hang()]) as sessions:
                tasks = [
                    asyncio.ensure_future((await sessions.post("c", "x")).wait()),
                    asyncio.ensure_future(reading(sessions)),
                    asyncio.ensure_future((await sessions.get("c")).wait_idle()),
                ]
                await until(lambda: sessions.statistics().subscriptions == 1 and left_in_trio() == 4)
                guest = running_guest()
                assert guest is not None
                guest.nursery.start_soon(_break_trio if kind is trio.TrioInternalError else _abuse_trio)
                try:
                    await asyncio.sleep(60)
                finally:
                    errors.extend(await asyncio.gather(*tasks, return_exceptions=True))

        with pytest.raises(SessionsClosed) as caught:
            await block()
        assert isinstance(caught.value.__cause__, kind)
        if kind is trio.TrioInternalError:
            assert [kind] * 3 == [type(error.__cause__) for error in errors]
        async with opened() as sessions:
            assert isinstance(await (await sessions.post("c", "x")).wait(), Completed)

    run(main, loop)


def test_call_when_the_run_is_cancelled_around_it(loop: str) -> None:
    """What a call raises while the whole run is cancelled reaches its caller without what only means something in Trio."""

    async def fails_at_the_end() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                began.append(True)
                await trio.sleep_forever()
            finally:
                raise Mine

    async def main() -> None:
        opening = open_sessions(config())
        await opening.__aenter__()
        calls = [asyncio.ensure_future(call_trio(fn)) for fn in (fails_at_the_end, trio.sleep_forever)]
        await until(lambda: began)
        guest = running_guest()
        assert guest is not None
        guest.nursery.cancel_scope.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait(calls)
        group, closed = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(group, ExceptionGroup)
        assert [Mine] == [type(error) for error in group.exceptions]
        assert isinstance(closed, SessionsClosed)
        with pytest.raises(SessionsClosed):
            await opening.__aexit__(None, None, None)

    began: list[bool] = []
    run(main, loop)


async def _break_trio() -> None:
    with trio.move_on_after(0.01):
        await trio.lowlevel.wait_task_rescheduled(lambda _: "nonsense")  # type: ignore[arg-type, return-value]  # on purpose


class _Nonsense:
    def __await__(self) -> Any:
        yield "nonsense"


async def _abuse_trio() -> None:
    await _Nonsense()


# ── several


def test_blocks_when_there_are_several(loop: str) -> None:
    """Blocks of one loop share a run of Trio, which ends with the last of them; in between, each works by itself."""

    async def one(number: int) -> None:
        async with opened() as sessions:
            await asyncio.sleep(0.001 * (number % 5))
            assert isinstance(await (await sessions.post("c", str(number))).wait(), Completed)
            guests.add(running_guest())

    async def main() -> None:
        await asyncio.gather(*map(one, range(20)))
        assert_idle()
        async with opened() as first:
            async with opened() as second:
                await second.start("c")
                assert (0, 1) == (await first.agent_count(), await second.agent_count())
            with pytest.raises(SessionsClosed):
                await second.post("c", "x")
            await first.start("c")

    guests: set[Any] = set()
    run(main, loop)
    assert 1 == len(guests)


def test_blocks_when_each_thread_has_a_loop() -> None:
    """Each thread has a run of Trio of its own; objects of another thread's sessions are refused."""
    found: list[Any] = []
    refused: list[Any] = []

    def work() -> None:
        async def main() -> None:
            async with opened() as sessions:
                found.append(sessions)
                assert isinstance(await (await sessions.post("c", "x")).wait(), Completed)
                await until(lambda: len(found) == 3)
                other = next(each for each in found if each is not sessions)
                for use in (lambda: other.post("c", "x"), lambda: other.running("c")):
                    with pytest.raises(RuntimeError, match="belongs to another asyncio loop"):
                        await use()
                with pytest.raises(RuntimeError, match="belong"):
                    other.statistics()
                refused.append(sessions)
                await until(lambda: len(refused) == 3)  # the others' sessions are open until they were refused

        run(main)

    threads = [trio_thread(work) for _ in range(3)]
    for thread in threads:
        thread()


def trio_thread(work: Any) -> Any:
    """Start a thread; the function that is returned joins it."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=guarded)
    thread.start()

    def join() -> None:
        thread.join()
        for error in errors:
            raise error

    return join


def test_loop_when_it_is_run_several_times(loop: str) -> None:
    """A loop that is run in pieces finalises the generators of Trio in Trio, and the sessions stay open in between."""
    finalised: list[str] = []

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            finalised.append("trio" if trio.lowlevel.in_trio_task() else "asyncio")

    async def forget_generator() -> None:
        forgotten = generator()
        await anext(forgotten)
        del forgotten

    async def forget() -> None:
        await call_trio(forget_generator)
        gc.collect()
        await asyncio.sleep(0.01)

    host = new_loop(loop)
    opening = open_sessions(config())
    sessions = host.run_until_complete(opening.__aenter__())
    for _ in range(3):
        receipt = host.run_until_complete(sessions.post("c", "x"))
        with pytest.warns(ResourceWarning, match="garbage collected before it had been exhausted"):
            host.run_until_complete(forget())
        assert isinstance(host.run_until_complete(receipt.wait()), Completed)
    host.run_until_complete(opening.__aexit__(None, None, None))
    host.run_until_complete(host.shutdown_asyncgens())
    host.close()

    assert ["trio"] * 3 == finalised
    assert_idle()


def test_generators_when_asyncio_has_some(loop: str) -> None:
    """A generator of asyncio that is forgotten while sessions are open is finalised in asyncio."""
    finalised: list[str] = []

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            finalised.append("trio" if trio.lowlevel.in_trio_task() else "asyncio")

    async def main() -> None:
        async with opened() as sessions:
            forgotten = generator()
            await anext(forgotten)
            del forgotten
            gc.collect()
            await sessions.start("c")
            await asyncio.sleep(0.01)

    run(main, loop)

    assert ["asyncio"] == finalised


def test_block_when_it_is_garbage() -> None:
    """When a block is left, the sessions, the watch and the run are freed without the garbage collector's help, but for a cycle or two."""

    async def main() -> None:
        async with opened() as sessions, sessions.watch("c", viewer="v") as watch:
            await sessions.post("c", "x")
            await anext(watch)
            references.extend([weakref.ref(sessions.trio), weakref.ref(watch.trio), weakref.ref(running_guest())])

    references: list[Any] = []
    run(main)

    async def freed() -> None:
        """Wait for Trio's helper thread, too: it may still be at the end of its last job."""
        await until(lambda: gc.collect() >= 0 and [None] * 3 == [reference() for reference in references])

    asyncio.run(freed())

    assert [None] * 3 == [reference() for reference in references]


# ── places where a block cannot be


def test_open_sessions_when_it_is_in_a_wrong_place() -> None:
    """Outside of asyncio, in a task of Trio, and beside another run of Trio, the error says what to do instead."""

    async def enter() -> None:
        async with opened():
            pass

    async def nested() -> None:
        asyncio.new_event_loop().run_until_complete(enter())

    with pytest.raises(RuntimeError, match="needs a running asyncio loop"):
        enter().send(None)
    with pytest.raises(RuntimeError, match="is for tasks of asyncio, and this is a task of Trio"):
        trio.run(enter)
    with pytest.raises(TypeError, match="open_sessions takes a SessionConfig"):
        run(lambda: open_sessions("x").__aenter__())  # type: ignore[arg-type]  # on purpose
    in_thread(lambda: run(enter))
    assert_idle()


def test_open_sessions_when_another_loop_of_the_thread_has_some() -> None:
    """A second open loop in one thread is refused, and says why; a closed one is not."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    opening = open_sessions(config())
    first.run_until_complete(opening.__aenter__())
    with pytest.raises(RuntimeError, match="this thread runs Trio for another asyncio loop already"):
        second.run_until_complete(open_sessions(config()).__aenter__())
    first.run_until_complete(opening.__aexit__(None, None, None))
    again = open_sessions(config())
    second.run_until_complete(again.__aenter__())
    second.run_until_complete(again.__aexit__(None, None, None))
    for host in (first, second):
        host.run_until_complete(host.shutdown_asyncgens())
        host.close()

    assert_idle()
    assert sys.get_asyncgen_hooks() == (None, None)

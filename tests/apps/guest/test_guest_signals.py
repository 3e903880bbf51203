"""Signals: Ctrl-C tears neither loop, and every handler is given back."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.apps.guest._kit import HANGS, assert_idle, config, in_thread, new_loop, opened, run, until
from trio_sagents import Completed
from trio_sagents.asyncio import open_sessions

ROOT = Path(__file__).parents[3]


@contextmanager
def handled(number: int, handler: Any) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_interrupt_when_the_host_has_a_handler(loop: str) -> None:
    """The host's handler is called by the loop, once for each signal, and is there again afterwards; the sessions go on."""
    seen: list[int] = []

    async def main() -> None:
        with handled(signal.SIGINT, lambda number, frame: seen.append(number)):
            async with opened() as sessions:
                assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
                os.kill(os.getpid(), signal.SIGINT)
                await until(lambda: len(seen) == 1)
                os.kill(os.getpid(), signal.SIGINT)
                await until(lambda: len(seen) == 2)
                assert isinstance(await (await sessions.post("c", "x")).wait(), Completed)

    run(main, loop)

    assert [signal.SIGINT] * 2 == seen


def test_interrupt_when_the_runner_handles_it(loop: str) -> None:
    """`asyncio.run` cancels the main task at Ctrl-C, and the sessions end as at any cancellation; then it raises KeyboardInterrupt."""
    ends: list[str] = []

    async def main() -> None:
        try:
            async with opened() as sessions:
                await sessions.start("c")
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    before = signal.getsignal(signal.SIGINT)
    with (
        handled(signal.SIGINT, signal.default_int_handler),
        pytest.raises(KeyboardInterrupt),
        asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner,
    ):
        runner.run(main())

    assert ["cancelled"] == ends
    assert signal.getsignal(signal.SIGINT) is before
    assert_idle()


def test_interrupt_when_the_loop_is_stuck(loop: str) -> None:
    """A second signal that comes before the loop has seen the first reaches the host's handler at once."""
    seen: list[int] = []

    async def main() -> None:
        with handled(signal.SIGINT, lambda number, frame: seen.append(number)):
            async with opened():
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
                assert [] == seen
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
                assert 1 == len(seen)
                await until(lambda: len(seen) == 2)

    run(main, loop)


def test_interrupt_when_the_main_task_of_a_runner_is_done() -> None:
    """A handler of a runner whose main task is done is not given back: it would swallow every Ctrl-C."""
    host = new_loop("asyncio")

    async def enter() -> None:
        await open_sessions(config()).__aenter__()

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        runner = asyncio.Runner(loop_factory=lambda: host)
        runner.run(enter())
        runner.close()

        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert_idle()
    finally:
        signal.signal(signal.SIGINT, before)


def test_streams_when_a_signal_ends_them(loop: str) -> None:
    """`end_streams_on` ends the streams in the loop, calls the server's handler, and gives it back. It leaves other signals alone."""
    seen: list[int] = []

    async def main() -> None:
        with handled(signal.SIGUSR1, lambda number, frame: seen.append(number)):
            async with opened() as sessions, opened() as others:
                for each in (sessions, others):
                    each.end_streams_on([signal.SIGUSR1, signal.SIGUSR2])
                    each.end_streams_on([signal.SIGUSR1])
                assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL

                async def reading(which: Any) -> str:
                    async with which.open_subscriber() as subscriber:
                        async for _ in subscriber:
                            pass
                    return "ended"

                readers = [asyncio.ensure_future(reading(which)) for which in (sessions, others)]
                await asyncio.sleep(0.01)
                os.kill(os.getpid(), signal.SIGUSR1)
                assert ["ended"] * 2 == await asyncio.gather(*readers)
                assert isinstance(await (await sessions.post("c", "x")).wait(), Completed)

    run(main, loop)

    assert [signal.SIGUSR1] == seen


def test_handlers_when_blocks_are_left_in_any_order(loop: str) -> None:
    """The host's handler is there again when the last of several blocks is left, whichever that is."""

    async def main(order: list[int]) -> None:
        with handled(signal.SIGUSR1, lambda number, frame: None):
            openings = [open_sessions(config()) for _ in order]
            for opening in openings:
                (await opening.__aenter__()).end_streams_on([signal.SIGUSR1])
            for number in order:
                await openings[number].__aexit__(None, None, None)

    for order in permutations(range(3)):
        run(lambda order=order: main(list(order)), loop)  # type: ignore[misc]  # a default binds it


def test_signals_when_it_is_not_the_main_thread(loop: str) -> None:
    """In another thread there are no signals; nothing is changed, and nothing fails."""

    async def main() -> None:
        async with opened() as sessions:
            sessions.end_streams_on()
            await sessions.start("c")

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    in_thread(lambda: run(main, loop))

    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@pytest.mark.slow
@pytest.mark.parametrize(("times", "loop"), [(1, "asyncio"), (2, "uvloop")])
def test_program_when_it_is_interrupted_at_random(times: int, loop: str) -> None:
    """A program that is interrupted at any moment, once or twice, ends by KeyboardInterrupt, with everything given back."""
    random = Random(times)
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.apps.guest._interrupted", loop],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(2)
    ]
    for program in programs:
        assert program.stdout is not None
        assert "open" == program.stdout.readline().strip(), program.stderr.read() if program.stderr else ""
    for program in programs:
        for _ in range(times):
            time.sleep(random.random() * 0.02)
            program.send_signal(signal.SIGINT)
    ends = [program.communicate(timeout=HANGS) for program in programs]

    assert [0] * 2 == [program.returncode for program in programs] or times == 2, ends
    for program, (output, _errors) in zip(programs, ends, strict=True):
        assert output.strip() == "KeyboardInterrupt" or (times == 2 and program.returncode in {1, 130, -signal.SIGINT}), (output, _errors)

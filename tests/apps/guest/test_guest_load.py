"""A loop that is busy with other things."""

import asyncio
import time

import pytest
import trio

from tests.apps.guest._kit import HANGS, opened, run
from trio_sagents import Completed
from trio_sagents.asyncio import _steps, call_trio


def test_turns_when_the_loop_has_much_to_do(loop: str) -> None:
    """Callbacks of half a millisecond, with a pause after each, slow turns down, and do not stop them."""
    is_over = False

    async def work() -> None:
        while not is_over:
            end = time.perf_counter() + 0.0005
            while time.perf_counter() < end:
                pass
            await asyncio.sleep(0.001)

    async def main() -> None:
        nonlocal is_over
        async with opened(chunk_interval=0.001) as sessions:
            working = asyncio.ensure_future(work())
            async with asyncio.timeout(HANGS):
                for _ in range(10):
                    assert isinstance(await (await sessions.post("c", "x")).wait(), Completed)
            is_over = True
            await working

    run(main, loop)


def test_log_when_trio_is_woken_late(loop: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the loop was blocked so long that Trio's timers are late, the log says so, once a minute at most."""
    monkeypatch.setattr(_steps, "LATE", 0.05)

    async def sleep() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)  # before the next step of Trio
        await trio.sleep(0.03)

    async def main() -> None:
        async with opened():
            for _ in range(2):
                await call_trio(sleep)

    run(main, loop)

    (message,) = [record.getMessage() for record in caplog.records if record.name == "trio_sagents"]
    assert "late: the asyncio loop of this thread is busy, or was blocked; see docs/how-to/asyncio.md, 'Limits'" in message

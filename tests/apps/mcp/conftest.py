"""A test that waits for ever fails: in virtual time at once, else after a minute, for it may have to wait for a busy machine."""

import faulthandler
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
import trio

REAL: Final = 60.0
"""Seconds of real time."""


def _bounded(function: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(function)
    async def run(*args: object, **kwargs: object) -> None:
        if seconds == REAL:
            faulthandler.dump_traceback_later(2 * REAL, exit=True)
        with trio.fail_after(seconds):
            await function(*args, **kwargs)

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a deadline around every async test in this folder."""
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and item.path.parent.name == "mcp"
            and "real" not in item.path.name
            and inspect.iscoroutinefunction(item.obj)
        ):
            seconds = 1e6 if "autojump_clock" in item.fixturenames else REAL
            item.obj = _bounded(item.obj, seconds)

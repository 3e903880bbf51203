"""A test that waits for ever fails: in virtual time at once, else after 15 seconds."""

import functools
import inspect
from collections.abc import Awaitable, Callable

import pytest
import trio


def _bounded(function: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(function)
    async def run(*args: object, **kwargs: object) -> None:
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
            seconds = 1e6 if "autojump_clock" in item.fixturenames else 15
            item.obj = _bounded(item.obj, seconds)

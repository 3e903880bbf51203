"""A scenario that waits for ever fails: in virtual time at once, else after 20 seconds. The stores of this folder's tests."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio

from tests.machines.stores import Backend

from ._kit import backend_of


def _bounded(function: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(function)
    async def run(*args: object, **kwargs: object) -> None:
        # With the autojump clock this deadline is the last one there is, so a deadlock jumps straight to it.
        with trio.fail_after(seconds):
            await function(*args, **kwargs)

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a deadline around every async test in this folder."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent.name == "people" and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj, 1e6 if "autojump_clock" in item.fixturenames else 20)


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A store of each kind."""
    with backend_of(request.param) as made:
        yield made

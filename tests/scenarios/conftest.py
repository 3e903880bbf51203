"""Deadlines and stores of the scenarios: a scenario that waits for ever fails, in virtual time at once, else after 20 seconds."""

import datetime
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.people import BEGIN, backend_of
from tests.support.stores import Backend

HERE = Path(__file__).parent


def _bounded(function: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(function)
    async def run(*args: object, **kwargs: object) -> None:
        # With the autojump clock this deadline is the last one, so a deadlock jumps straight to it.
        with trio.fail_after(seconds):
            await function(*args, **kwargs)

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a deadline around every async test in this folder."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == HERE and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj, 1e6 if "autojump_clock" in item.fixturenames else 20)


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A store of each kind."""
    with backend_of(request.param) as made:
        yield made


@pytest.fixture
def instants(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the wall clock follow the virtual clock."""

    def wall_clock() -> datetime.datetime:
        return BEGIN + datetime.timedelta(seconds=trio.current_time())

    for name, module in list(sys.modules.items()):
        if name.startswith("trio_sagents.") and getattr(module, "wall_clock", None) is not None:
            monkeypatch.setattr(module, "wall_clock", wall_clock)

"""Functions whose result is used with `async with`, and which say so if the result is used in another way."""

import functools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, NoReturn, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Opened = TypeVar("Opened")


class Opening(AbstractAsyncContextManager[Opened], Generic[Opened]):
    """What an `open_x` function returns. Everything but `async with` raises an error that says how to write it."""

    def __init__(self, name: str, manager: AbstractAsyncContextManager[Opened]) -> None:
        self._name = name
        self._manager = manager

    async def __aenter__(self) -> Opened:
        return await self._manager.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        # Cancellation: the manager's own end bounds its waits.
        return await self._manager.__aexit__(kind, error, traceback)  # noqa: ASYNC102

    def __enter__(self) -> NoReturn:
        raise TypeError(self._hint())

    def __exit__(self, *_: object) -> NoReturn:
        raise TypeError(self._hint())

    def __await__(self) -> NoReturn:
        raise TypeError(self._hint())

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"{name!r} is not an attribute of what {self._name}(...) returns: {self._hint()}")

    def _hint(self) -> str:
        return (
            f"{self._name} is used with `async with`: write `async with {self._name}(...) as {self._name.removeprefix('open_')}:`, in an "
            "async function that trio.run(main) runs"
        )


def opening(function: Callable[Arguments, AbstractAsyncContextManager[Opened]]) -> Callable[Arguments, AbstractAsyncContextManager[Opened]]:
    """Have a function that returns a context manager, made by `asynccontextmanager`, return an `Opening`."""

    @functools.wraps(function)
    def open_it(*args: Arguments.args, **kwargs: Arguments.kwargs) -> AbstractAsyncContextManager[Opened]:
        return Opening(function.__name__, function(*args, **kwargs))

    return open_it

"""Splits the exceptions of a task tree into those that may be contained, and those that must be raised again."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def in_nursery(function: Callable[[trio.Nursery], Awaitable[T]]) -> T:
    """Call `function(nursery)`; its tasks end with it. One error leaves as it is, not in a group.

    Cancellation: `function` and all tasks have ended.
    """
    try:
        async with trio.open_nursery() as nursery:
            result = await function(nursery)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = unwrap(group)
        assert error is not None
        raise error from error.__cause__
    return result


def split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return (what may be contained, what must be re-raised); either may be None.

    Raised again are `Cancelled`, `KeyboardInterrupt`, `SystemExit` and `GeneratorExit`, alone or in a group. A group with one
    contained error is unwrapped to that error; its traceback keeps the way.
    """
    onward = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)
    if not isinstance(error, BaseExceptionGroup):
        return (None, error) if isinstance(error, onward) else (error, None)
    rest, contained = error.split(onward)
    return unwrap(contained), unwrap(rest)


def split_cancelled(error: BaseException) -> tuple[BaseException | None, ...]:
    """Return (contained errors, exits) without any `Cancelled`; either may be None."""
    contained, onward = split(error)
    if isinstance(onward, BaseExceptionGroup):
        onward = unwrap(onward.split(trio.Cancelled)[1])
    return contained, None if isinstance(onward, trio.Cancelled) else onward


def is_cancelled(error: BaseException) -> bool:
    """Return whether it is a cancellation and nothing else: alone, or in groups, as of a nursery that was cancelled."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


def unwrap(error: BaseException | None) -> BaseException | None:
    """Return the one error in a group of one, however deep; anything else as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        inner = error.exceptions[0]
        if inner.__traceback__ is None:
            inner = inner.with_traceback(error.__traceback__)
        error = inner
    return error


def leaves(error: BaseException) -> tuple[BaseException, ...]:
    """Return the errors in a group, however deep; of any other error, itself."""
    if isinstance(error, BaseExceptionGroup):
        return tuple(leaf for one in error.exceptions for leaf in leaves(one))
    return (error,)


def must_exit(error: BaseException | None) -> bool:
    """Return whether `KeyboardInterrupt`, `SystemExit` or `GeneratorExit` is in it."""
    exits = (KeyboardInterrupt, SystemExit, GeneratorExit)
    if isinstance(error, BaseExceptionGroup):
        return error.split(exits)[0] is not None
    return isinstance(error, exits)

"""Calling what a host wrote."""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class PlainFunction(TypeError):
    """A host's function is not `async def`, but must be."""


async def await_host(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what the host wrote, and wait for it.

    Raises:
        PlainFunction: it is a plain function; the message names it.
    """
    waiting: object = function(*args, **kwargs)
    if not isinstance(waiting, Awaitable):
        name = getattr(function, "__qualname__", repr(function))
        raise PlainFunction(f"{name} must be `async def`: it returned {type(waiting).__name__}, which cannot be awaited")
    result: T = await waiting
    return result

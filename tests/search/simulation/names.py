"""Every public coroutine and async context manager, computed from `__all__`: what the sweep must have a story for."""

import inspect
import types
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, get_origin

import trio_sagents
import trio_sagents.files
from trio_sagents.agent._steps import Steps

IMPLEMENTED: Final[Mapping[str, type]] = {"TurnSteps": Steps}
"""Protocols that the library implements, and a host calls: their methods are public, and run in the class that implements them."""
READERS: Final = ("__anext__",)
"""What `async for` calls: public, whatever its name."""


def _is_protocol(cls: type) -> bool:
    return bool(getattr(cls, "_is_protocol", False))


def _returns_context(function: Any) -> bool:
    annotation = getattr(function, "__annotations__", {}).get("return")
    if isinstance(annotation, str):
        return annotation.startswith(("AbstractAsyncContextManager", "AsyncIterator"))
    return get_origin(annotation) in {AbstractAsyncContextManager, AsyncIterator}


def waits(function: Any) -> bool:
    """Return whether calling it gives something to await, or to enter."""
    inner = inspect.unwrap(function)
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner) or _returns_context(inner)


def _methods(cls: type) -> Iterator[str]:
    public = [base for base in cls.__mro__[1:] if base.__name__ in trio_sagents.__all__]
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        if isinstance(found, staticmethod | classmethod):
            found = found.__func__
        if not isinstance(found, types.FunctionType) or (name.startswith("_") and name not in READERS):
            continue
        if any(inspect.getattr_static(base, name, None) is found for base in public):
            continue  # its base has the story
        if waits(found):
            yield name


FACADES: Final = (trio_sagents, trio_sagents.files)


def public_waits() -> frozenset[str]:
    """Return the names: "function", or "Class.method"."""
    names: set[str] = set()
    for name, value in [(name, getattr(module, name)) for module in FACADES for name in module.__all__]:
        if isinstance(value, types.FunctionType) and waits(value):
            names.add(name)
        if isinstance(value, type) and (name in IMPLEMENTED or not _is_protocol(value)):
            names.update(f"{name}.{method}" for method in _methods(value))
    return frozenset(names)

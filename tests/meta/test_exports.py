"""Public names are listed, sorted and documented, and async functions say what a cancellation leaves."""

import importlib
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

import trio_sagents
import trio_sagents.abc
import trio_sagents.testing
import trio_sagents.web
from trio_sagents.models import offline

FACADES: Final = (trio_sagents, trio_sagents.abc, trio_sagents.testing, trio_sagents.web)
VALUES: Final = frozenset({"AGENTS_TOPIC"})
"""Constants, whose meaning is written next to them in the source."""


def _public() -> Iterator[tuple[str, Any]]:
    for name in trio_sagents.__all__:
        yield name, getattr(trio_sagents, name)
    yield "models.offline.OfflineModel", offline.OfflineModel
    for module in ("anthropic", "openai"):
        if importlib.util.find_spec(module) is not None:
            name = {"anthropic": "AnthropicModel", "openai": "OpenAIModel"}[module]
            yield f"models.{name}", getattr(importlib.import_module("trio_sagents.models"), name)
    for name in trio_sagents.web.__all__:
        yield f"web.{name}", getattr(trio_sagents.web, name)
    for name in trio_sagents.testing.__all__:
        yield f"testing.{name}", getattr(trio_sagents.testing, name)


def _classes() -> list[tuple[str, type]]:
    return [(name, value) for name, value in _public() if isinstance(value, type)]


def _functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every public function, and every public method that this library wrote."""
    for name, value in _public():
        if isinstance(value, types.FunctionType):
            yield name, value
    for name, cls in _classes():
        for attribute in dir(cls):
            found = inspect.getattr_static(cls, attribute)
            if isinstance(found, staticmethod | classmethod):
                found = found.__func__
            if attribute.startswith("_") or not isinstance(found, types.FunctionType):
                continue
            if found.__module__.startswith("trio_sagents") or hasattr(found, "__wrapped__"):
                yield f"{name}.{attribute}", found


def _waits(function: Callable[..., Any]) -> bool:
    inner = inspect.unwrap(function)
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


@pytest.mark.parametrize("module", FACADES, ids=lambda module: module.__name__)
def test_all_when_compared(module: types.ModuleType) -> None:
    """`__all__` is sorted, names each thing once, and everything in it is there."""
    names = list(module.__all__)

    assert sorted(set(names)) == names
    assert [] == [name for name in names if not hasattr(module, name)]


def test_all_when_the_facade_imports_more() -> None:
    """The facade exports everything that it imports: there are no half-public names."""
    there = {name for name, value in vars(trio_sagents).items() if not name.startswith("_") and not isinstance(value, types.ModuleType)}

    assert there == set(trio_sagents.__all__)


@pytest.mark.parametrize(("name", "cls"), _classes(), ids=[name for name, _ in _classes()])
def test_class_when_documented(name: str, cls: type) -> None:
    """Every public class says what it is, in a sentence; the docstring is its own."""
    docstring = inspect.cleandoc(cls.__dict__.get("__doc__") or "")

    assert docstring, name
    assert docstring.splitlines()[0].endswith((".", ":", "?")), f"{name} begins with {docstring.splitlines()[0]!r}"


@pytest.mark.parametrize(("name", "function"), list(_functions()), ids=[name for name, _ in _functions()])
def test_function_when_documented(name: str, function: Callable[..., Any]) -> None:
    """Every public function and method says what it does, in a sentence."""
    assert (function.__doc__ or "").strip(), name


def _waiting() -> list[tuple[str, Callable[..., Any]]]:
    return [(name, function) for name, function in _functions() if _waits(function)]


@pytest.mark.parametrize(("name", "function"), _waiting(), ids=[name for name, _ in _waiting()])
def test_function_when_it_waits(name: str, function: Callable[..., Any]) -> None:
    """Every async function can be cancelled, so it says what that leaves: "Cancellation: either ... or ...".

    Where all methods of a class are alike in that, as in what a host implements, its class says it once.
    """
    owner = dict(_public()).get(name.rpartition(".")[0])
    bases = owner.__mro__ if isinstance(owner, type) else ()

    assert "Cancellation:" in "".join(documented.__doc__ or "" for documented in (function, *bases)), name


def test_constants_when_listed() -> None:
    """What is neither a class nor a function is a type or a known constant."""
    plain = {name for name in trio_sagents.__all__ if isinstance(getattr(trio_sagents, name), str | int | float)}

    assert plain == VALUES

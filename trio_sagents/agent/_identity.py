"""The identity of a tool: what an approval is bound to, beside the call itself.

A person who approves a call has been shown a tool: its name, its description, its parameters, and where it comes from. If any of
this changes before the call runs, the call would do something else than what was approved. `digest_of_tool` condenses all of it
into a text that is stored with the question and compared when the call is about to run, in the same process or in another one.

Two functions that were written in one place are not the same tool: `make_pay("sandbox")` and `make_pay("production")` share
their code. So the digest also covers the plain values that a function is bound to: in its closure, its defaults, and a `partial`.
Objects have no text that outlives a process. Within a process, `is_same_function` compares them by identity or equality.
"""

import dis
import enum
import functools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.agent._agent import MiddlewareContext
from trio_sagents.agent._tools import Tool
from trio_sagents.data.json import JSONValue, Opaque, canonical, digest_of

FACETS: Final = ("description", "parameters", "origin", "version", "bound values")
"""What a digest is about, in order; each part of the digest belongs to one of them."""
_PART: Final = 20
"""Hexadecimal digits of each part."""
_PLAIN: Final = (str, bytes, int, float, bool, complex, type(None))
_DEPTH: Final = 16
"""How many functions deep bound values are looked at."""


# ── over restarts: a digest


def digest_of_tool(tool: Tool, brought_by: str = "") -> str:
    """Return a text that is equal for two tools if people are shown the same tool.

    Args:
        tool: the tool.
        brought_by: the id of the middleware that brought the tool; empty for a tool of the agent itself.
    """
    facets: Sequence[JSONValue] = (
        ascii(tool.description),
        tool.parameters,
        [brought_by, type(tool).__name__, _place_of(tool.function)],
        ascii(tool.version),
        _bound_values(tool.function, ()),
    )
    return ".".join(digest_of(facet)[:_PART] for facet in facets)


def changed_facets(before: str, now: str) -> Sequence[str]:
    """Return what differs between two digests; all facets if one of them was made in another way."""
    ours, theirs = before.split("."), now.split(".")
    if len(ours) != len(FACETS) or len(theirs) != len(FACETS):
        return FACETS if before != now else ()
    return tuple(facet for facet, one, other in zip(FACETS, ours, theirs, strict=True) if one != other)


def familiar_id(tool: Tool, brought_by: str) -> str:
    """Return a short text by which a tool is known again in a conversation. A tool that states a version may change its texts."""
    if tool.version:
        return digest_of([tool.name, brought_by, _place_of(tool.function), tool.version])[:_PART]
    return digest_of([tool.name, digest_of_tool(tool, brought_by)])[:_PART]


def is_defined_in(tool: Tool, modules: Sequence[str]) -> bool:
    """Return whether the function of a tool was defined in one of these modules."""
    place = _place_of(tool.function)
    return any(place.startswith(f"{module}.") for module in modules)


def _place_of(function: Opaque) -> str:
    """Return where a function was defined: its module and its qualified name."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    named = function if isinstance(getattr(function, "__qualname__", None), str) else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _bound_values(function: Opaque, outer: Sequence[Opaque]) -> JSONValue:
    """Return the plain values that a function is bound to, and the names of the classes of the others."""
    if len(outer) > _DEPTH or any(function is each for each in outer):
        return "…"
    outer = (*outer, function)
    if isinstance(function, functools.partial):
        keywords = [[name, _value(value, outer)] for name, value in sorted(function.keywords.items())]
        return ["partial", _bound_values(function.func, outer), [_value(value, outer) for value in function.args], keywords]
    if isinstance(function, types.MethodType):
        return ["method", _class_of(function.__self__), _bound_values(function.__func__, outer)]
    if isinstance(function, types.FunctionType):
        cells = [[name, _value(value, outer)] for name, value in _cells(function) if name not in _rebound(function.__code__)]
        defaults = [_value(value, outer) for value in function.__defaults__ or ()]
        keywords = [[name, _value(value, outer)] for name, value in sorted((function.__kwdefaults__ or {}).items())]
        return ["function", _place_of(function), cells, defaults, keywords]
    return ["object", _class_of(function)]


def _value(value: Opaque, outer: Sequence[Opaque]) -> JSONValue:
    if isinstance(value, enum.Enum):
        return [_class_of(value), value.name]
    if type(value) in _PLAIN:
        return [type(value).__name__, ascii(value)]
    if type(value) in {tuple, frozenset}:
        inner = [_value(each, outer) for each in value]
        return [type(value).__name__, inner if isinstance(value, tuple) else sorted(inner, key=canonical)]
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return _bound_values(value, outer)
    return _class_of(value)


def _class_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _cells(function: types.FunctionType) -> Iterator[tuple[str, Opaque]]:
    """Yield (name, value) for each variable of the closure that has a value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue


@functools.lru_cache(maxsize=1024)
def _rebound(code: types.CodeType) -> frozenset[str]:
    """Return the `nonlocal` variables that a function assigns: a counter says nothing about what the function is."""
    return frozenset(each.argval for each in dis.get_instructions(code) if each.opname == "STORE_DEREF")


# ── in one process: the functions themselves


def is_same_function(one: Opaque, other: Opaque) -> bool:
    """Return whether two functions do the same: they are one, or have the same code and are bound to the same values and objects."""
    return _is_same(one, other, ())


def _is_same(one: Opaque, other: Opaque, outer: Sequence[tuple[int, int]]) -> bool:
    pair = (id(one), id(other))
    if one is other or pair in outer:
        return True
    if type(one) is not type(other) or len(outer) > _DEPTH:
        return False
    outer = (*outer, pair)
    match one:
        case functools.partial():
            return (
                _is_same(one.func, other.func, outer)
                and _all_same(one.args, other.args, outer)
                and _all_same_named(one.keywords, other.keywords, outer)
            )
        case types.MethodType():
            return _is_same(one.__func__, other.__func__, outer) and _is_same(one.__self__, other.__self__, outer)
        case types.FunctionType():
            return _is_same_plain(one, other, outer)
        case MiddlewareContext():  # made anew for each hook
            return (one.middleware_id, one.conversation_id, one.agent_id) == (other.middleware_id, other.conversation_id, other.agent_id)
        case tuple() | list():
            return _all_same(one, other, outer)
        case _:
            return _is_equal(one, other)


def _is_same_plain(one: types.FunctionType, other: types.FunctionType, outer: Sequence[tuple[int, int]]) -> bool:
    return (
        one.__code__ == other.__code__
        and one.__globals__ is other.__globals__
        and _all_same(one.__defaults__ or (), other.__defaults__ or (), outer)
        and _all_same_named(one.__kwdefaults__ or {}, other.__kwdefaults__ or {}, outer)
        and _all_same_named(dict(_cells(one)), dict(_cells(other)), outer)
    )


def _all_same(ones: Sequence[Opaque], others: Sequence[Opaque], outer: Sequence[tuple[int, int]]) -> bool:
    return len(ones) == len(others) and all(_is_same(one, other, outer) for one, other in zip(ones, others, strict=True))


def _all_same_named(ones: Mapping[str, Opaque], others: Mapping[str, Opaque], outer: Sequence[tuple[int, int]]) -> bool:
    return ones.keys() == others.keys() and all(_is_same(value, others[name], outer) for name, value in ones.items())


def _is_equal(one: Opaque, other: Opaque) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001  # the host's own `__eq__`: objects that cannot be compared are not the same
        return False


# ── the two together


@attrs.frozen
class KnownTool:
    """A tool as it was when a call of it began to wait; remembered as long as the agent lives."""

    digest: str
    function: Opaque
    description: str


def differences(asked: str, known: KnownTool | None, tool: Tool, digest: str) -> Sequence[str]:
    """Return what has changed about a tool since people were asked about a call of it; empty if it is still the same tool.

    Args:
        asked: the digest that was stored with the question; empty if an older version stored the question.
        known: the tool as this process remembers it; None after a restart, and for a tool that is made anew whenever its agent
            continues.
        tool: the tool that the call would run now.
        digest: of that tool.
    """
    if known is not None and asked not in {"", known.digest}:
        known = None  # of another question
    asked = asked or (digest if known is None else known.digest)
    changed = changed_facets(asked, digest)
    if known is not None:
        # This process has the function itself, which says more than a digest of its values.
        changed = [facet for facet in changed if facet != FACETS[-1]]
        if not is_same_function(known.function, tool.function):
            changed.append(FACETS[-1])
    return tuple(changed)


def text_of_change(changed: Sequence[str], known: KnownTool | None, tool: Tool) -> str:
    """Return how people are told that a tool has changed while its call waited."""
    text = f"Tool {tool.name!r} has changed since this call was approved: {', '.join(changed)}. Decide again."
    if FACETS[0] in changed:
        before = "" if known is None else f" It was described as: {_short(known.description)}."
        text += f"{before} It is described as: {_short(tool.description)}."
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 300 else f"{text[:299]}…")

"""The identity of a tool: what an approval is bound to, beside the call itself.

A person who approves a call has been shown a tool: its name, its description, its parameters, and where it comes from. If any of
this changes before the call runs, the call would do something that was not approved. `digest_of_tool` condenses all of it
into a text that is stored with the question and compared when the call is about to run, in the same process or in another one.

Two functions that were written in one place are not the same tool: `make_pay("sandbox")` and `make_pay("production")` share
their code. So the digest also covers the plain values that a function is bound to: in its closure, its defaults, and a `partial`.
Of an object that a function is bound to, such as the `self` of a method, the digest covers the class and the attributes with plain
values, but for those that a method of the class assigns later: a counter says nothing about what the object is. If a tool states its
`version`, its host says when the tool is another one, and objects count by their class alone. Within a process, `is_same_function`
compares objects by identity or equality.
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
from trio_sagents.data.json import JSON, JSONValue, Opaque, canonical, digest_of

FACETS: Final = ("description", "parameters", "origin", "version", "bound values")
"""What a digest is about, in order; each part of the digest belongs to one of them."""
_PART: Final = 20
"""Hexadecimal digits of each part."""
_PLAIN: Final = (str, bytes, int, float, bool, complex, type(None))
_DEPTH: Final = 16
"""How many functions deep bound values are looked at."""
_BY_CLASS: Final = object()
_MAKING: Final = frozenset(
    {"__init__", "__new__", "__post_init__", "__attrs_post_init__", "__attrs_pre_init__", "__attrs_init__", "__setstate__"}
)
"""The methods that make an object."""
_OWN: Final = "trio_sagents."
"""Objects of the library count by their class alone."""


# ── over restarts: a digest


def digest_of_tool(tool: Tool, brought_by: str = "", *, by_class: bool = False) -> str:
    """Return a text that is equal for two tools if people are shown the same tool.

    Args:
        tool: the tool.
        brought_by: the id of the middleware that brought the tool; empty for a tool of the agent itself.
        by_class: whether objects that the function is bound to count by their class alone.
    """
    facets: Sequence[JSONValue] = (
        ascii(tool.description),
        tool.parameters,
        [brought_by, type(tool).__name__, _place_of(tool.function), ascii(tool.origin)],
        ascii(tool.version),
        _bound_values(tool.function, (_BY_CLASS,) if tool.version or by_class else ()),
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
    return digest_of([tool.name, digest_of_tool(tool, brought_by, by_class=True)])[:_PART]


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
    """Return the plain values that a function is bound to, and what is known of the objects.

    Args:
        function: anything that can be called.
        outer: the functions and objects around it, outermost first; `_BY_CLASS` in it lets objects count by their class alone.
    """
    if len(outer) > _DEPTH or any(function is each for each in outer):
        return "…"
    outer = (*outer, function)
    if isinstance(function, functools.partial):
        keywords = [[name, _value(value, outer)] for name, value in sorted(function.keywords.items())]
        return ["partial", _bound_values(function.func, outer), [_value(value, outer) for value in function.args], keywords]
    if isinstance(function, types.MethodType):
        return ["method", _value(function.__self__, outer), _bound_values(function.__func__, outer)]
    if isinstance(function, types.FunctionType):
        cells = [[name, _value(value, outer)] for name, value in _cells(function) if name not in _rebound(function.__code__)]
        defaults = [_value(value, outer) for value in function.__defaults__ or ()]
        keywords = [[name, _value(value, outer)] for name, value in sorted((function.__kwdefaults__ or {}).items())]
        return ["function", _place_of(function), cells, defaults, keywords]
    return ["object", _object(function, outer)]


def _value(value: Opaque, outer: Sequence[Opaque]) -> JSONValue:
    if isinstance(value, enum.Enum):
        return [_class_of(value), value.name]
    if type(value) in _PLAIN:
        return [type(value).__name__, ascii(value)]
    if type(value) in {tuple, frozenset}:
        inner = [_value(each, outer) for each in value]
        return [type(value).__name__, inner if isinstance(value, tuple) else sorted(inner, key=canonical)]
    if isinstance(value, type):
        return ["class", f"{value.__module__}.{value.__qualname__}"]
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return _bound_values(value, outer)
    return _object(value, (*outer, value))


def _object(value: object, outer: Sequence[Opaque]) -> JSONValue:
    """Return the class of an object; and its attributes, if it is not held by another object: `outer` ends with the object itself."""
    held = [each for each in outer if not isinstance(each, types.FunctionType | types.MethodType | functools.partial)]
    if len(held) > 1 or type(value).__module__ == "builtins" or _class_of(value).startswith(_OWN):
        return _class_of(value)
    later = _assigned_later(type(value))  # type: ignore[arg-type]  # every class is hashable
    return [_class_of(value), [[name, _value(each, outer)] for name, each in sorted(_attributes(value)) if name not in later]]


def _attributes(value: object) -> Iterator[tuple[str, Opaque]]:
    """Yield (name, value) for each attribute that an object has itself; without running code of its class."""
    try:
        found: object = object.__getattribute__(value, "__dict__")
    except AttributeError:
        found = {}
    if isinstance(found, dict):
        yield from ((name, each) for name, each in found.items() if isinstance(name, str))
    for cls in type(value).__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, types.MemberDescriptorType):
                try:
                    yield name, member.__get__(value, type(value))
                except AttributeError:  # the attribute has no value yet
                    continue


@functools.lru_cache(maxsize=1024)
def _assigned_later(cls: type) -> frozenset[str]:
    """Return the names of the attributes that methods of a class assign after an object was made."""
    names: set[str] = set()
    for each in cls.__mro__:
        for name, member in vars(each).items():
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if name not in _MAKING and isinstance(function, types.FunctionType):
                names.update(_assigned_in(function.__code__))
    return frozenset(names)


def _assigned_in(code: types.CodeType) -> Iterator[str]:
    yield from (each.argval for each in dis.get_instructions(code) if each.opname in {"STORE_ATTR", "DELETE_ATTR"})
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _assigned_in(constant)


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
        case MiddlewareContext():  # made again for each hook
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
    tool: Tool


def differences(asked: str, known: KnownTool | None, tool: Tool, digest: str) -> Sequence[str]:
    """Return what has changed about a tool since people were asked about a call of it; empty if it is still the same tool.

    Args:
        asked: the digest that was stored with the question; empty if an older version stored the question.
        known: the tool as this process remembers it; None after a restart, and for a tool that is made again whenever its agent
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
        if not is_same_function(known.tool.function, tool.function):
            changed.append(FACETS[-1])
    return tuple(changed)


def text_of_change(changed: Sequence[str], known: KnownTool | None, tool: Tool) -> str:
    """Return how people are told that a tool has changed while its call waited: what it was, if this process knows that, and what it is."""
    text = f"Tool {tool.name!r} has changed since this call was approved: {', '.join(changed)}. Decide again."
    before = None if known is None else known.tool
    if "description" in changed:
        text += _told("described as", None if before is None else before.description, tool.description)
    if "parameters" in changed and before is not None:
        text += _text_of_parameters(before.parameters, tool.parameters)
    if "origin" in changed:
        text += _told("from", None if before is None else before.origin, tool.origin)
    if "version" in changed:
        text += _told("of version", None if before is None else before.version, tool.version)
    return text


def _told(how: str, before: str | None, now: str) -> str:
    was = "" if before is None else f" It was {how}: {_short(before)}."
    return f"{was} It is {how}: {_short(now)}."


def _text_of_parameters(before: JSON, now: JSON) -> str:
    """Return which parameters were added, removed or changed; empty if the difference is elsewhere in the schemas."""
    was, has = _properties(before), _properties(now)
    found = {
        "added": [name for name in has if name not in was],
        "removed": [name for name in was if name not in has],
        "changed": [name for name in has if name in was and has[name] != was[name]],
    }
    return "".join(f" Parameters {how}: {_short(', '.join(names))}." for how, names in found.items() if names)


def _properties(schema: JSON) -> JSON:
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def _short(text: str) -> str:
    return repr(text if len(text) <= 300 else f"{text[:299]}…")

"""From type hints to shapes: what a model is told about a parameter, and how its argument is read.

Classes stand inline where they are used; one that refers to itself has no such form and is refused. What has no shape is a
TypeError when the tool is made, never when it is called, and names the tool, the parameter and the place inside it.
"""

import collections.abc
import dataclasses
import enum
import inspect
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NotRequired, Required, TypeAlias, Union, get_args, get_origin

import attrs

from trio_sagents.agent._shapes import (
    ANYTHING,
    SCALARS,
    Field,
    Shape,
    array_of,
    choice_of,
    mapping_of,
    object_shape,
    set_of,
    tuple_of,
    union_of,
)
from trio_sagents.data.json import JSONValue, plain_json

Annotation: TypeAlias = Any  # type: ignore[explicit-any]  # whatever stands after a colon
Seen: TypeAlias = tuple[Annotation, ...]
"""The classes and aliases that the walk is inside of."""

SUPPORTED: Final = (
    "str, int, float, bool, None, Any, list, tuple, Sequence, set, dict and Mapping with str keys, Literal, Enum, Optional, Union, "
    "Annotated, attrs classes, dataclasses and TypedDict"
)
Found: TypeAlias = tuple[str, Annotation, object]
"""A field or parameter that can be given: its name, its annotation, its default, which is `...` for one that is not shown."""
MISSING: Final = object()
"""No default."""
_LISTS: Final = (list, collections.abc.Sequence, collections.abc.MutableSequence)
_SETS: Final[Mapping[Annotation, type[set[object]] | type[frozenset[object]]]] = {
    set: set,
    collections.abc.MutableSet: set,
    frozenset: frozenset,
    collections.abc.Set: frozenset,
}
_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
if sys.version_info >= (3, 13):
    _MARKS: Final[tuple[Annotation, ...]] = (Required, NotRequired, typing.ReadOnly)
else:
    _MARKS: Final[tuple[Annotation, ...]] = (Required, NotRequired)
_HEADER: Final = re.compile(r"(?P<name>[A-Z][A-Za-z ]*):\s*$")
_ENTRY: Final = re.compile(r"\*{0,2}(?P<name>\w+)\s*(\([^)]*\))?\s*:\s*(?P<text>.*)$")


def _origin_of(annotation: Annotation) -> Annotation:
    return get_origin(annotation)


def shape_of(annotation: Annotation, where: str, seen: Seen = ()) -> Shape:  # a table, by kind
    """Return the shape of an annotation.

    Args:
        annotation: resolved: no string, and none inside it.
        where: what errors begin with, such as "tool 'f': parameter 'x'".
        seen: the classes and aliases around it.

    Raises:
        TypeError: it has no JSON schema here, or refers to itself.
    """
    if annotation is None:
        return SCALARS[type(None)]
    if annotation is Any or annotation is object:
        return ANYTHING
    if isinstance(annotation, type) and annotation in SCALARS:
        return SCALARS[annotation]
    if isinstance(annotation, typing.NewType):
        return shape_of(annotation.__supertype__, where, seen)
    if sys.version_info >= (3, 12) and isinstance(annotation, typing.TypeAliasType):
        return shape_of(annotation.__value__, where, _enter(annotation, where, seen))
    origin, args = _origin_of(annotation), get_args(annotation)
    if origin is Annotated:
        return _described(shape_of(args[0], where, seen), _description_in(args[1:]))
    if origin is Union or origin is types.UnionType:
        return union_of([shape_of(member, where, seen) for member in args])
    if origin is Literal:
        return choice_of([(option, option) for option in args], where)
    collection = _collection(annotation if origin is None else origin, args, where, seen)
    if collection is not None:
        return collection
    if isinstance(annotation, type) and origin is None:
        return _class_shape(annotation, where, seen)
    raise _unsupported(annotation, where)


def _described(shape: Shape, text: str) -> Shape:
    """Return the shape with a description, or as it is where `text` is empty."""
    return attrs.evolve(shape, schema={**shape.schema, "description": text}) if text else shape


def _with_default(shape: Shape, default: object) -> Shape:
    """Return the shape with the default shown, where it has a JSON form."""
    if default is MISSING:
        return shape
    try:
        shown: JSONValue = plain_json(default.value if isinstance(default, enum.Enum) else default)
    except (TypeError, ValueError):
        return shape
    return attrs.evolve(shape, schema={**shape.schema, "default": shown})


def strip(annotation: Annotation) -> tuple[Annotation, str]:
    """Return the annotation without an `Annotated` around it, and the description found there, or ""."""
    if _origin_of(annotation) is not Annotated:
        return annotation, ""
    args = get_args(annotation)
    return args[0], _description_in(args[1:])


def hints_of(target: object, where: str) -> Mapping[str, Annotation]:
    """Return the annotations of a function or class, strings resolved; TypeError if one cannot be."""
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as exc:
        raise TypeError(
            f"{where}: its annotations cannot be resolved: {exc}; "
            "import the name outside `if TYPE_CHECKING`, and define classes at module level"
        ) from exc


def _description_in(extras: Sequence[object]) -> str:
    return next((extra for extra in extras if isinstance(extra, str)), "")


def _unsupported(annotation: Annotation, where: str) -> TypeError:
    name = annotation.__name__ if isinstance(annotation, type) and _origin_of(annotation) is None else repr(annotation)
    return TypeError(f"{where}: {name} is no type that a model can be asked for; use {SUPPORTED}")


def _enter(annotation: Annotation, where: str, seen: Seen) -> Seen:
    if any(annotation is one for one in seen):
        raise TypeError(f"{where}: {annotation.__name__} refers to itself; a tool's parameters cannot be recursive")
    return (*seen, annotation)


def _collection(origin: Annotation, args: tuple[Annotation, ...], where: str, seen: Seen) -> Shape | None:
    if not isinstance(origin, collections.abc.Hashable):
        raise _unsupported(origin, where)
    if origin in _LISTS:
        return array_of(shape_of(args[0] if args else Any, f"{where}, items", seen), list)
    if origin in _SETS:
        return set_of(shape_of(args[0] if args else Any, f"{where}, items", seen), _SETS[origin], where)
    if origin in _MAPPINGS:
        key, item = args or (str, Any)
        if key is not str:
            raise TypeError(f"{where}: the keys of {origin.__name__} must be str, not {key!r}")
        return mapping_of(shape_of(item, f"{where}, values", seen))
    if origin is not tuple:
        return None
    if len(args) == 2 and args[1] is Ellipsis:  # tuple[X, ...]
        item = shape_of(args[0], f"{where}, items", seen)
        return array_of(item, tuple, is_hashable=item.is_hashable)
    return tuple_of([shape_of(item, f"{where}, item {index}", seen) for index, item in enumerate(args)])


# ── classes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _class_shape(cls: type, where: str, seen: Seen) -> Shape:
    if issubclass(cls, enum.Enum):
        return choice_of([(_plain_scalar(member.value), member) for member in cls], where)
    inner = _enter(cls, where, seen)
    if attrs.has(cls):
        found = _attrs_fields(cls, where)
    elif dataclasses.is_dataclass(cls):
        found = _dataclass_fields(cls, where)
    elif issubclass(cls, dict) and "__required_keys__" in vars(cls):
        found = _typed_dict_fields(cls, where)
    else:
        raise _unsupported(cls, where)
    doc = vars(cls).get("__doc__")
    summary, texts = read_docstring(doc if isinstance(doc, str) and not doc.startswith(f"{cls.__name__}(") else "")
    fields = [field_of(one, texts.get(one[0], ""), f"{where}, field {one[0]!r}", inner) for one in found]
    is_hashable = cls.__hash__ is not None and all(field.shape.is_hashable for field in fields)
    return object_shape(fields, cls, words=f"an object ({cls.__name__})", is_hashable=is_hashable, description=summary)


def field_of(found: Found, text: str, where: str, seen: Seen = ()) -> Field:
    """Return a field, or a parameter.

    Args:
        found: its name, its annotation, its default.
        text: describes it, unless its annotation does.
        where: what errors begin with.
        seen: as for `shape_of`.

    Raises:
        TypeError: as `shape_of`.
    """
    name, annotation, default = found
    plain, own_text = strip(annotation)
    shape = _described(shape_of(plain, where, seen), own_text or text)
    return Field(name, _with_default(shape, default), required=default is MISSING)


def _plain_scalar(value: JSONValue) -> JSONValue:
    return str.__str__(value) if isinstance(value, str) else value


def _attrs_fields(cls: type, where: str) -> list[Found]:
    hints = hints_of(cls, where)
    found: list[Found] = []
    for field in attrs.fields(cls):
        if field.init:
            default = MISSING if field.default is attrs.NOTHING else field.default
            hidden = default is not MISSING and isinstance(default, attrs.Factory)  # type: ignore[arg-type]  # a class at run time
            if field.name not in hints and field.type is None:
                raise TypeError(f"{where}: the field {field.name!r} of {cls.__name__} has no annotation")
            found.append((field.alias or field.name, hints.get(field.name, field.type), ... if hidden else default))
    return _checked(cls, found, where)


def _dataclass_fields(cls: Annotation, where: str) -> list[Found]:
    hints = hints_of(cls, where)
    found: list[Found] = []
    for field in dataclasses.fields(cls):
        if field.init:
            hidden = field.default_factory is not dataclasses.MISSING
            default = MISSING if field.default is dataclasses.MISSING else field.default
            found.append((field.name, hints[field.name], ... if hidden else default))
    return _checked(cls, found, where)


def _checked(cls: type, found: list[Found], where: str) -> list[Found]:
    """Refuse a class that cannot be built from its fields alone."""
    names = {name for name, _, _ in found}
    for name, parameter in inspect.signature(cls).parameters.items():
        if name not in names and parameter.default is parameter.empty:
            raise TypeError(f"{where}: {cls.__name__} needs {name!r}, which is no field of it")
    return found


def _typed_dict_fields(cls: Annotation, where: str) -> list[Found]:
    found: list[Found] = []
    for name, whole in hints_of(cls, where).items():
        hint, default = whole, MISSING if name in cls.__required_keys__ else ...
        # the class itself does not see a `NotRequired` that is written as a string, as under `from __future__ import annotations`
        while _origin_of(hint) in _MARKS:
            default = {Required: MISSING, NotRequired: ...}.get(_origin_of(hint), default)
            (hint,) = get_args(hint)
        found.append((name, hint, default))
    return found


# ── docstrings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_docstring(text: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the first paragraph of a docstring in Google style, on one line, and what its `Args:` or `Attributes:` say.

    Args:
        text: the docstring as it stands in the source, or None.

    Returns:
        The paragraph, "" where there is none, and the description of each name there, on one line.
    """
    lines = inspect.cleandoc(text or "").splitlines()
    paragraph: list[str] = []
    for line in lines:
        if not line.strip() or _HEADER.match(line):
            break
        paragraph.append(line.strip())
    return " ".join(paragraph), _entries(lines)


def _entries(lines: Sequence[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    section, depth, name = "", 0, ""
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent == 0:
            header = _HEADER.match(line)
            section, depth, name = header["name"] if header else "", 0, ""
        elif line.strip() and section in {"Args", "Arguments", "Parameters", "Attributes"}:
            depth = depth or indent
            entry = _ENTRY.match(line.strip()) if indent <= depth else None
            if entry:
                name = entry["name"]
                found[name] = entry["text"]
            elif name:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return found

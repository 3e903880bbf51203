"""From type hints to shapes: what a model is told about a parameter, and how its argument is read.

The schema of a class is written out in each place that uses the class, so a class that refers to itself is refused. A type that
has no shape is a TypeError when the tool is made, never when it is called; the error names the tool, the parameter and the place
inside it.
"""

import collections.abc
import dataclasses
import enum
import inspect
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NotRequired, Required, TypeAlias, Union, get_args, get_origin

import attrs

from trio_sagents.agent._compounds import Field, array_of, mapping_of, object_shape, set_of, tuple_of
from trio_sagents.agent._constraints import constrained, constraints_in
from trio_sagents.agent._docstrings import read_docstring
from trio_sagents.agent._json_forms import json_form
from trio_sagents.agent._pydantic import description_of, is_model, model_shape
from trio_sagents.agent._shapes import ANYTHING, SCALARS, Shape, choice_of, enum_form, text_shape, union_of
from trio_sagents.agent._text_types import form_of

Annotation: TypeAlias = Any  # type: ignore[explicit-any]  # anything can be an annotation
Seen: TypeAlias = tuple[Annotation, ...]
"""The classes and aliases around the annotation that is being read."""

SUPPORTED: Final = (
    "str, int, float, bool, None, Any, list, tuple, Sequence, set, dict and Mapping, Literal, Enum, Optional, Union, Annotated, "
    "datetime, date, time, timedelta, UUID, Decimal, bytes, Path, attrs classes, dataclasses, TypedDict, NamedTuple and Pydantic models"
)
Found: TypeAlias = tuple[str, Annotation, object]
"""A field or parameter that can be given: its name, its annotation, and its default; `...` is a default that is not shown."""
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


def _origin_of(annotation: Annotation) -> Annotation:
    return get_origin(annotation)


def shape_of(annotation: Annotation, where: str, seen: Seen = ()) -> Shape:  # a table, by kind
    """Return the shape of an annotation.

    Args:
        annotation: a resolved one: neither a string, nor with a string inside.
        where: what errors begin with, such as "tool 'f': parameter 'x'".
        seen: the classes and aliases around the annotation.

    Raises:
        TypeError: the annotation has no JSON schema here, or refers to itself.
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
        return _annotated_shape(args[0], args[1:], where, seen)
    if _is_union(origin):
        return union_of([shape_of(member, where, seen) for member in args])
    if origin is Literal:
        return choice_of([(enum_form(option) if isinstance(option, enum.Enum) else option, option) for option in args], where)
    collection = _collection(annotation if origin is None else origin, args, where, seen)
    if collection is not None:
        return collection
    if isinstance(annotation, type) and origin is None:
        return _class_shape(annotation, where, seen)
    raise _unsupported(annotation, where)


def _is_union(origin: Annotation) -> bool:
    return origin is Union or origin is types.UnionType


def _annotated_shape(inner: Annotation, extras: Sequence[object], where: str, seen: Seen) -> Shape:
    """Return the shape of an annotation with what stands beside it: a description, and constraints."""
    constraints = constraints_in(extras)
    if constraints and _is_union(_origin_of(inner)):
        members = [shape_of(member, where, seen) for member in get_args(inner)]
        shape = constrained(union_of(members), constraints, where, members)
    else:
        shape = constrained(shape_of(inner, where, seen), constraints, where)
    return _described(shape, _description_in(extras))


def _described(shape: Shape, text: str) -> Shape:
    """Return the shape with a description, or the same shape if `text` is empty."""
    return attrs.evolve(shape, schema={**shape.schema, "description": text}) if text else shape


def _with_default(shape: Shape, default: object) -> Shape:
    """Return the shape with the default, if a model that gives what it is shown gives the default."""
    if default is MISSING or default is ...:
        return shape
    try:
        shown = json_form(default)
        if shape.read(shown) == default:
            return attrs.evolve(shape, schema={**shape.schema, "default": shown})
    except Exception:  # noqa: BLE001  # the default is the host's own object, which may raise anything; then it is not shown
        return shape
    return shape


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
    return next((text for extra in extras if (text := extra if isinstance(extra, str) else description_of(extra))), "")


def _unsupported(annotation: Annotation, where: str) -> TypeError:
    name = annotation.__name__ if isinstance(annotation, type) and _origin_of(annotation) is None else repr(annotation)
    return TypeError(f"{where}: unsupported parameter type {name}; use {SUPPORTED}")


def _enter(annotation: Annotation, where: str, seen: Seen) -> Seen:
    if any(annotation is each for each in seen):
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
        keys = shape_of(key, f"{where}, keys", seen)
        if keys.kinds != {"string"}:
            raise TypeError(f"{where}: the keys of {origin.__name__} must be str, or a type that is written as text; not {key!r}")
        return mapping_of(shape_of(item, f"{where}, values", seen), None if key is str else keys)
    if origin is not tuple:
        return None
    if len(args) == 2 and args[1] is Ellipsis:  # tuple[X, ...]
        item = shape_of(args[0], f"{where}, items", seen)
        return array_of(item, tuple, is_hashable=item.is_hashable)
    return tuple_of([shape_of(item, f"{where}, item {index}", seen) for index, item in enumerate(args)])


# ── classes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _class_shape(cls: type, where: str, seen: Seen) -> Shape:
    if issubclass(cls, enum.Enum):
        return choice_of([(enum_form(member), member) for member in cls], where)
    if (form := form_of(cls)) is not None:
        return text_shape(form)
    if is_model(cls):
        return model_shape(cls, where)
    inner = _enter(cls, where, seen)
    if attrs.has(cls):
        found = _attrs_fields(cls, where)
    elif dataclasses.is_dataclass(cls):
        found = _dataclass_fields(cls, where)
    elif issubclass(cls, dict) and "__required_keys__" in vars(cls):
        found = _typed_dict_fields(cls, where)
    elif issubclass(cls, tuple) and "_fields" in vars(cls):
        found = _named_tuple_fields(cls, where)
    else:
        raise _unsupported(cls, where)
    doc = vars(cls).get("__doc__")
    summary, texts = read_docstring(doc if isinstance(doc, str) and not doc.startswith(f"{cls.__name__}(") else "")
    fields = [field_of(each, texts.get(each[0], ""), f"{where}, field {each[0]!r}", inner) for each in found]
    is_hashable = cls.__hash__ is not None and all(field.shape.is_hashable for field in fields)
    return object_shape(fields, cls, words=f"an object ({cls.__name__})", is_hashable=is_hashable, description=summary)


def field_of(found: Found, text: str, where: str, seen: Seen = ()) -> Field:
    """Return a field, or a parameter.

    Args:
        found: its name, its annotation, its default.
        text: describes the field, unless its annotation does.
        where: what errors begin with.
        seen: as for `shape_of`.

    Raises:
        TypeError: as `shape_of`.
    """
    name, annotation, default = found
    _, own_text = strip(annotation)
    shape = _described(shape_of(annotation, where, seen), own_text or text)
    return Field(name, _with_default(shape, default), required=default is MISSING)


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
    """Return the fields; TypeError if an instance of the class cannot be made of its fields alone."""
    names = {name for name, _, _ in found}
    for name, parameter in inspect.signature(cls).parameters.items():
        if name not in names and parameter.default is parameter.empty:
            raise TypeError(f"{where}: {cls.__name__} needs {name!r}, which is not a field of the class")
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


def _named_tuple_fields(cls: Annotation, where: str) -> list[Found]:
    hints = hints_of(cls, where)
    return [(name, hints.get(name, Any), cls._field_defaults.get(name, MISSING)) for name in cls._fields]

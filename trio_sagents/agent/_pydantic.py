"""Pydantic models as parameters and as results, without a dependency on Pydantic.

A program that has a Pydantic model has imported Pydantic, so Pydantic is looked up among the imported modules, and never imported here.
"""

import json
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Final

from trio_sagents.agent._shapes import MAX_PROBLEMS, Misfit, Shape
from trio_sagents.data.json import JSON, JSONValue, Opaque, plain_json

_KINDS: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_REFERENCE: Final = "#/$defs/"


def _loaded(name: str) -> types.ModuleType | None:
    return sys.modules.get(name)


def is_model(cls: type) -> bool:
    """Return whether a class is a Pydantic model."""
    pydantic = _loaded("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def model_form(value: Opaque) -> JSONValue:
    """Return a Pydantic model as JSON, as the model itself says it is written; its bare fields if the model cannot be written."""
    try:
        return value.model_dump(mode="json", by_alias=True)
    except Exception:  # noqa: BLE001  # part of the tool boundary: the class is the host's, and what it raises is not known
        return dict(value)


def description_of(extra: object) -> str:
    """Return the description in a `Field(...)` or `Doc(...)` beside an annotation, or ""."""
    for module, name, attribute in (
        ("pydantic.fields", "FieldInfo", "description"),
        ("typing_extensions", "Doc", "documentation"),
        ("annotated_doc", "Doc", "documentation"),
    ):
        loaded = _loaded(module)
        cls = None if loaded is None else vars(loaded).get(name)
        if cls is not None and isinstance(extra, cls):
            return str(getattr(extra, attribute) or "")
    return ""


def model_shape(cls: Opaque, where: str) -> Shape:
    """Return the shape of a Pydantic model: its own schema, and its own validation.

    Args:
        cls: the class.
        where: what errors begin with.

    Raises:
        TypeError: the model has no JSON schema, or refers to itself.
    """
    try:
        whole: JSON = cls.model_json_schema(by_alias=True, mode="validation")
    except Exception as exc:  # the class is the host's, and what it raises is not known
        raise TypeError(f"{where}: {cls.__name__} has no JSON schema: {exc}") from exc
    schema = plain_json(_inlined(whole, whole.get("$defs", {}), (), f"{where}: {cls.__name__}"), where)

    def read(value: JSONValue) -> object:
        try:
            return cls.model_validate_json(json.dumps(plain_json(value)))
        except Exception as exc:  # part of the tool boundary: the validation is the host's, and this error is for the model
            raise Misfit(_problems_of(exc)) from exc

    return Shape(schema, read, _kinds_of(schema), f"an object ({cls.__name__})", is_hashable=cls.__hash__ is not None)


def _problems_of(error: Opaque) -> Sequence[tuple[str, str]]:
    pydantic = _loaded("pydantic")
    if pydantic is None or not isinstance(error, pydantic.ValidationError):
        return [("", str(error.args[0]) if error.args else type(error).__name__)]
    return [(_path(problem["loc"]), problem["msg"]) for problem in error.errors(include_url=False, include_context=False)[:MAX_PROBLEMS]]


def _path(steps: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _inlined(schema: JSONValue, definitions: JSON, around: tuple[str, ...], where: str) -> JSONValue:
    """Return a schema with each reference replaced by what it refers to: a nested `#/$defs/` would not be found."""
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_inlined(item, definitions, around, where) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        left_out = {"$defs", "discriminator"}
        return {key: _inlined(item, definitions, around, where) for key, item in schema.items() if key not in left_out}
    name = reference.removeprefix(_REFERENCE)
    if name in around:
        raise TypeError(f"{where} refers to itself; a tool's parameters cannot be recursive")
    beside = {key: item for key, item in schema.items() if key != "$ref"}
    found: JSON = _inlined(definitions[name], definitions, (*around, name), where)
    return {**found, **beside}


def _kinds_of(schema: JSON) -> frozenset[str]:
    """Return the kinds of JSON value that a schema may allow."""
    match schema:
        case {"anyOf": [*members]} | {"oneOf": [*members]}:
            return frozenset[str]().union(*(_kinds_of(member) for member in members))
        case {"type": "number"}:
            return frozenset({"integer", "number"})
        case {"type": str(kind)}:
            return frozenset({kind})
        case _:
            return _KINDS

"""The schemas of a server's tools, as providers take them.

Pure. One schema that a provider refuses makes it refuse every request of the agent. So each schema is checked, and put into the form
that all providers take: an object at the top, without alternatives there, whose keys have plain names.
"""

import collections
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs
from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]  # it comes with the SDK, without types
from jsonschema.validators import Draft202012Validator, validator_for  # type: ignore[import-untyped]  # likewise

from trio_sagents.data.json import JSON, JSONValue, canonical, plain_json

MAX_SCHEMA: Final = 64 * 1024
"""Characters that the JSON text of a schema may have."""
MAX_DEPTH: Final = 8
"""How deep alternatives at the top may nest."""
MAX_NAME: Final = 64
"""Characters of a name that all providers take."""
_FORBIDDEN: Final = re.compile(r"[^a-zA-Z0-9_-]")
_FORBIDDEN_IN_KEYS: Final = re.compile(r"[^a-zA-Z0-9_.-]")
_ALTERNATIVES: Final = ("anyOf", "oneOf", "allOf")
_NOT_AT_THE_TOP: Final = (*_ALTERNATIVES, "not", "enum", "const", "if", "then", "else", "$ref")


@attrs.frozen
class Taken:
    """A schema as providers take it."""

    schema: JSON
    keys: Mapping[str, str]
    """By the name of an argument here: its name at the server, if that is another one."""


def take_schema(schema: JSONValue) -> Taken:
    """Return a schema as providers take it.

    Raises:
        TypeError, ValueError: the schema is not a valid JSON schema of an object, or it is too large. The message says why.
    """
    plain = plain_json(schema, "the schema")
    if not isinstance(plain, dict) or plain.get("type", "object") != "object":
        raise ValueError("its schema does not describe an object")
    if len(canonical(plain)) > MAX_SCHEMA:
        raise ValueError(f"its schema has more than {MAX_SCHEMA} characters")
    _check(plain)
    flat = _flattened(plain)
    names = plain_names(flat["properties"], _FORBIDDEN_IN_KEYS)
    properties = {names[key]: {} if each is True else each for key, each in flat["properties"].items() if each is not False}
    required = [names[key] for key in flat["required"] if names[key] in properties]
    taken = {**_without(flat, "required"), "properties": properties, **({"required": required} if required else {})}
    return Taken(taken, {name: key for key, name in names.items() if name != key})


def plain_names(names: Iterable[str], forbidden: re.Pattern[str] = _FORBIDDEN) -> Mapping[str, str]:
    """Return, for each name, one without the characters that are `forbidden`; no two are the same.

    Of names that would become one, the name that needs no change keeps it, and the others end in a digest of what they were. So the
    order of the names does not matter: a server that lists its tools in another order gives them the same names.
    """
    plain = {name: forbidden.sub("_", name)[:MAX_NAME] or "_" for name in names}
    counts = collections.Counter(plain.values())
    return {name: each if counts[each] == 1 or each == name else _with_digest(each, name) for name, each in plain.items()}


def _with_digest(plain: str, name: str) -> str:
    ending = f"_{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"
    return plain[: MAX_NAME - len(ending)] + ending


def _check(schema: JSON) -> None:
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)  # pyright: ignore[reportArgumentType]
    except SchemaError as exc:
        place = "".join(f"[{step!r}]" for step in exc.absolute_path) or "the top"
        raise ValueError(f"its schema is not valid at {place}: {exc.message[:200]}") from exc
    _check_references(schema, schema)


def _check_references(part: JSONValue, whole: JSON) -> None:
    """Raise ValueError for a reference that leads out of the schema, or nowhere."""
    if isinstance(part, Mapping):
        reference = part.get("$ref")
        if isinstance(reference, str) and reference != "#" and _resolved(reference, whole) is None:
            raise ValueError(f"its schema refers to {reference[:100]!r}, which is not in it")
        for value in part.values():
            _check_references(value, whole)
    elif isinstance(part, Sequence) and not isinstance(part, str):
        for value in part:
            _check_references(value, whole)


def _resolved(reference: str, whole: JSON) -> JSONValue:
    """Return what a reference leads to, or None."""
    found: JSONValue = whole
    if not reference.startswith("#/"):
        return None
    for escaped in reference[2:].split("/"):
        step = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif isinstance(found, Sequence) and not isinstance(found, str) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def _without(schema: JSON, *keys: str) -> dict[str, JSONValue]:
    return {key: value for key, value in schema.items() if key not in keys}


def _flattened(schema: JSON) -> dict[str, JSONValue]:
    """Return the schema with alternatives at the top made into one object, which allows a little more than they do.

    The server checks the arguments by itself, so nothing is lost but a refusal before the call.
    """
    properties, required = _members(schema, schema, 0)
    kept = _without(schema, *_NOT_AT_THE_TOP, "$schema", "$id", "properties", "required")
    return {"type": "object", **kept, "properties": properties, "required": [key for key in properties if key in required]}


def _members(part: JSON, whole: JSON, depth: int) -> tuple[dict[str, JSONValue], set[str]]:
    """Return the properties of an object schema and of its alternatives, and the names of those that each alternative requires."""
    own, needed = part.get("properties", {}), part.get("required", [])
    properties: dict[str, JSONValue] = dict(own)
    required = set(needed)
    if depth > MAX_DEPTH:
        return properties, required
    reference = part.get("$ref")
    if isinstance(reference, str) and isinstance(found := _resolved(reference, whole), Mapping):
        more, wanted = _members(found, whole, depth + 1)
        properties, required = {**more, **properties}, required | wanted
    for word in _ALTERNATIVES:
        branches = [_members(each, whole, depth + 1) for each in part.get(word, ()) if isinstance(each, Mapping)]
        for more, _ in branches:
            properties = {**more, **properties}
        sets = [wanted for _, wanted in branches]
        if sets:
            required |= set.union(*sets) if word == "allOf" else set.intersection(*sets)
    return properties, required

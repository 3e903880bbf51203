"""What passes between a model and a tool as text: the arguments on the way in, the result on the way out.

Both sides are untrusted. Arguments are JSON that has one reading, or they are refused; a result is cut to a size and can always
be stored.
"""

import dataclasses
import enum
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import attrs

from trio_sagents.agent._shapes import cut, kind_of
from trio_sagents.data.config import type_validator
from trio_sagents.data.json import JSON, MAX_DEPTH, JSONValue, plain_json

MAX_REFUSAL: Final = 2000
"""How many characters of a refusal the model reads."""


class ArgumentsInvalid(ValueError):  # what happened, as all errors of this library are named
    """The arguments of a tool call cannot be used. The message is for the model: it names each wrong place."""

    def __init__(self, tool: str | None, problems: Sequence[str]) -> None:
        super().__init__(tool, problems)
        self.tool: Final = tool
        """The tool's name; None while only the text was read."""
        self.problems: Final = problems
        """At least one, such as `days[0]: must be an integer, not the string "5"`."""

    def __str__(self) -> str:
        of_tool = "" if self.tool is None else f" of {self.tool!r}"
        return storable(f"The arguments{of_tool} cannot be used: {'; '.join(self.problems)}"[:MAX_REFUSAL])


@attrs.frozen
class ToolResult:
    """What a tool may return to say more than its text."""

    content: str = attrs.field(validator=type_validator(str))
    """What the model reads."""
    is_error: bool = attrs.field(default=False, validator=type_validator(bool))
    """Whether the model is told that the call failed."""
    value: object = None
    """For the host's own use; the model does not see it."""


@attrs.frozen
class Halt:
    """What a tool may return to stop the conversation until a person has acknowledged it, by `dismiss`."""

    message: str = attrs.field(validator=type_validator(str))
    """For people."""


def storable(text: str) -> str:
    """Return `text`, its lone surrogates replaced: they have no UTF-8."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse_arguments(text: str) -> JSON:
    """Return the arguments that a model's JSON text stands for: a new object.

    Args:
        text: as it was streamed; "" and blanks stand for no arguments.

    Raises:
        ArgumentsInvalid: it is no JSON object, or one that two readers could read differently.
    """
    if not text.strip():
        return {}
    try:
        value = plain_json(json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant), "the object")
    except json.JSONDecodeError as exc:
        raise ArgumentsInvalid(None, [f"they are no valid JSON ({exc})"]) from exc
    except RecursionError as exc:
        raise ArgumentsInvalid(None, [f"they nest deeper than {MAX_DEPTH} levels"]) from exc
    except ValueError as exc:
        raise ArgumentsInvalid(None, [str(exc)]) from exc
    if not isinstance(value, dict):
        raise ArgumentsInvalid(None, [f"they must be a JSON object, not {kind_of(value)}"])
    return value


def _unique(pairs: list[tuple[str, JSONValue]]) -> dict[str, JSONValue]:
    found: dict[str, JSONValue] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {cut(key)} stands twice in one object")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def render_output(value: object, limit_bytes: int) -> tuple[str, bool]:
    """Return what the model reads of what a tool returned, and whether it was cut.

    Args:
        value: a str is taken as it is, None as "", a `ToolResult` by its content; attrs classes, dataclasses, enums and
            whatever has a JSON form become JSON text. Not kept.
        limit_bytes: how many bytes of UTF-8 are kept; what is longer ends, at a character, in a line that says so.

    Raises:
        TypeError: it has no JSON form; the message names the type.
        ValueError: as `plain_json`.
    """
    text = storable(_text_of(value.content if isinstance(value, ToolResult) else value))
    if len(text) <= limit_bytes and (text.isascii() or len(text) * 4 <= limit_bytes):
        return text, False
    data = text.encode()
    if len(data) <= limit_bytes:
        return text, False
    head = data[:limit_bytes].decode(errors="ignore")
    return f"{head}\n[cut: {len(head.encode())} of {len(data)} bytes shown]", True


def _text_of(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str(value)
    if inspect.iscoroutine(value):
        value.close()  # or it would warn, later and elsewhere, that nobody awaited it
    if inspect.isawaitable(value):
        raise TypeError(f"a tool returned {_article(value)}: declare it `async def`, or await inside it")
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise TypeError(f"a tool returned {_article(value)}: return the whole result, such as a list")
    return json.dumps(plain_json(_to_json(value, 0), "the returned value"), ensure_ascii=False)


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _to_json(value: object, depth: int) -> JSONValue:
    """Return `value` with the classes in it taken apart; what has no JSON form is left for `plain_json` to name."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the returned value nests deeper than {MAX_DEPTH} levels")
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _to_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return [_to_json(item, depth + 1) for item in value]
    return {name: _to_json(getattr(value, name), depth + 1) for name in names} if (names := _field_names(value)) is not None else value


def _field_names(value: object) -> Sequence[str] | None:
    cls = type(value)
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls)]
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    return None

"""Values as JSON, and back, strictly: what one node tells another.

What comes from the engine is untrusted: a class is found by its name in a closed table, no value is coerced, and no unknown key is
ignored. Two things are found at run time: the errors of this library, and a host's own subclasses of `MiddlewareEvent`. Both are found
among the classes that are loaded, by their names; nothing is imported.

Nothing that may hold a secret travels. An exception that is not one of the library's own travels as its public text, and a value of a
host that is not plain JSON is left out.
"""

import datetime
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar, get_args

import attrs
import cattrs
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from trio_sagents._text import text_of
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.decisions import Decision
from trio_sagents.data.errors import public_text
from trio_sagents.data.events import Event, MiddlewareAction, MiddlewareEvent
from trio_sagents.data.interrupt_wire import register_interrupts
from trio_sagents.data.interrupts import Interrupt, PendingCall
from trio_sagents.data.json import JSON, JSONValue, Opaque, plain_json
from trio_sagents.data.messages import FilePart, ImagePart, Part, TextPart, ToolCall, UserPart
from trio_sagents.data.outcomes import Completed, TurnOutcome
from trio_sagents.data.status import CancelCause, ShutdownReason, Status
from trio_sagents.data.wire import RECORD_DEPTH, encode_part, make_converter
from trio_sagents.exceptions import MODEL_FAILURE_KINDS, ModelFailed, SagentsError

log: Final = logging.getLogger("trio_sagents")
T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
Tagged: TypeAlias = Mapping[str, type]
_OF_PYTHON: Final[Mapping[str, type[Exception]]] = {"LookupError": LookupError, "TypeError": TypeError, "ValueError": ValueError}
"""Errors of Python by which a caller knows that an argument is wrong. Their texts may be a host's, and do not travel."""
MALFORMED: Final = (BaseValidationError, ForbiddenExtraKeysError, TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""What the functions here raise for a value that is not one of ours."""
_EVENTS: Final[Tagged] = {cls.__name__: cls for cls in get_args(Event) if cls is not MiddlewareEvent}
_OUTCOMES: Final[Tagged] = {cls.__name__: cls for cls in get_args(TurnOutcome)}


def tag_of(value: object) -> str:
    """Return the name under which a class of the library travels."""
    return type(value).__name__


def _make_converter() -> cattrs.Converter:
    converter = make_converter()
    register_interrupts(converter)
    for kind in (Status, ShutdownReason, CancelCause):
        # A text is all that they are for the converter, which would leave them one.
        converter.register_structure_hook(kind, _structure_enum)
    converter.register_structure_hook(float, _structure_number)
    converter.register_structure_hook(Cursor, lambda value, _: Cursor.parse(value))
    converter.register_unstructure_hook(Cursor, str)
    converter.register_unstructure_hook(datetime.datetime, datetime.datetime.isoformat)
    converter.register_unstructure_hook_func(_is(JSON), plain_json)
    converter.register_unstructure_hook_func(_is(Part), encode_part)
    converter.register_unstructure_hook_func(_is(UserPart), encode_part)
    converter.register_structure_hook_func(_is(UserPart), functools.partial(_structure_user_part, converter))
    converter.register_unstructure_hook_func(_is(Interrupt | str | None), functools.partial(_unstructure_data, converter))
    converter.register_structure_hook_func(_is(Interrupt | str | None), functools.partial(_structure_data, converter))
    converter.register_unstructure_hook_func(_is(ShutdownReason | str), str)
    converter.register_structure_hook_func(_is(ShutdownReason | str), _structure_reason)
    converter.register_unstructure_hook_func(_is(TurnOutcome), functools.partial(_unstructure_tagged, converter, _OUTCOMES))
    converter.register_structure_hook_func(_is(TurnOutcome), functools.partial(_structure_tagged, converter, _OUTCOMES))
    converter.register_unstructure_hook_func(_is_error, encode_error)
    converter.register_structure_hook_func(_is_error, lambda value, _: decode_error(value))
    converter.register_unstructure_hook_func(_is_decision, lambda value: dict(value.to_dict()))
    converter.register_structure_hook_func(_is_decision, lambda value, _: Decision.from_dict(value))
    # The digest of a call is computed, and neither told nor believed.
    converter.register_unstructure_hook(ToolCall, make_dict_unstructure_fn(ToolCall, converter))
    converter.register_unstructure_hook(PendingCall, make_dict_unstructure_fn(PendingCall, converter))
    converter.register_structure_hook(ToolCall, make_dict_structure_fn(ToolCall, converter, digest=override(omit=True)))
    converter.register_unstructure_hook(
        Completed, make_dict_unstructure_fn(Completed, converter, result=override(unstruct_hook=_plain_or_none))
    )
    converter.register_unstructure_hook(
        MiddlewareAction, make_dict_unstructure_fn(MiddlewareAction, converter, data=override(unstruct_hook=plain_json))
    )
    return converter


def _is(kind: object) -> Callable[[object], bool]:
    return lambda other: other == kind


def _structure_enum(value: object, kind: type[E]) -> E:
    if type(value) is not str:
        raise TypeError(f"expected a {kind.__name__}, got {type(value).__name__}")
    return kind(value)


def _is_error(kind: object) -> bool:
    return kind is Exception


def _is_decision(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Decision)


def _structure_number(value: object, _: object) -> float:
    if type(value) not in {int, float}:
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return value  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # just looked at


def _structure_user_part(converter: cattrs.Converter, value: object, _: object) -> UserPart:
    part: Part = converter.structure(value, Part)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a union of classes
    if not isinstance(part, TextPart | ImagePart | FilePart):
        raise TypeError(f"a {tag_of(part)} in a message of a person")
    return part


def _unstructure_data(converter: cattrs.Converter, value: Interrupt | str | None) -> JSONValue:
    return converter.unstructure(value) if isinstance(value, Interrupt) else value


def _structure_data(converter: cattrs.Converter, value: object, _: object) -> Interrupt | str | None:
    if value is None or isinstance(value, str):
        return value
    return converter.structure(value, Interrupt)


def _structure_reason(value: object, _: object) -> ShutdownReason | str:
    if not isinstance(value, str):
        raise TypeError(f"expected a reason, got {type(value).__name__}")
    return ShutdownReason(value) if value in set(ShutdownReason) else value


def _unstructure_tagged(converter: cattrs.Converter, classes: Tagged, value: object) -> JSONValue:
    name = tag_of(value)
    if classes.get(name) is not type(value):
        raise TypeError(f"{name} does not travel")
    return {"type": name, **converter.unstructure(value)}


def _structure_tagged(converter: cattrs.Converter, classes: Tagged, value: object, _: object) -> object:
    cls, fields = _tagged(classes, value)
    return converter.structure(fields, cls)


def _tagged(classes: Tagged, value: object) -> tuple[type, dict[str, JSONValue]]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    fields = dict(value)
    name = fields.pop("type", None)
    cls = classes.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"nothing of the type {name!r}"[:100])
    return cls, fields


def _plain_or_none(value: Opaque) -> JSONValue:
    """Return what a tool returned as plain JSON; None if it has no such form."""
    try:
        return plain_json(value)
    except (TypeError, ValueError, RecursionError):
        return None


# ── errors


def encode_error(error: BaseException) -> JSON:
    """Return an error as JSON: one of the library's own with its arguments, any other as its public text alone."""
    text = public_text(error)
    if isinstance(error, SagentsError):
        names = [cls.__name__ for cls in type(error).__mro__ if issubclass(cls, SagentsError)]
        fields = {name: value for name, value in vars(error).items() if name != "is_logged" and not name.startswith("__")}
        try:
            found: JSON = plain_json({"type": names, "args": list(error.args), "fields": fields, "text": text})
            read = decode_error(found)
        except MALFORMED:
            pass
        else:
            if public_text(read) == text:
                return found
    for name, cls in _OF_PYTHON.items():
        if isinstance(error, cls) and not isinstance(error, SagentsError):
            return {"type": [name], "args": [], "fields": {}, "text": "an argument was refused; the log of the agent's node says why"}
    return {"type": ["SagentsError"], "args": [text], "fields": {}, "text": text}


def decode_error(value: object) -> Exception:
    """Return the error that `encode_error` made JSON of.

    Returns:
        A new object of the most special class that is known here. Its cause does not travel.

    Raises:
        TypeError, ValueError, LookupError: it is none.
    """
    if not isinstance(value, dict) or set(value) != {"type", "args", "fields", "text"}:
        raise TypeError("expected an error")
    names, args, fields, text = value["type"], value["args"], value["fields"], value["text"]
    if not (isinstance(names, list) and isinstance(args, list) and isinstance(fields, dict) and isinstance(text, str)):
        raise TypeError("expected an error")
    if len(names) == 1 and names[0] in _OF_PYTHON:
        return _OF_PYTHON[names[0]](text)
    known = {cls.__name__: cls for cls in _subclasses(SagentsError) if cls.__module__.partition(".")[0] == "trio_sagents"}
    cls = next((known[name] for name in names if isinstance(name, str) and name in known), SagentsError)
    if cls is SagentsError or cls.__name__ != names[0]:
        return SagentsError(text)
    # Not by its constructor: an error keeps more than it was made with. What it is made of is checked instead.
    error = cls.__new__(cls, *_tuples(args))
    for name, field in fields.items():
        if not _fits(cls, name, field):
            raise ValueError(f"the field {name!r} of an error"[:100])
        vars(error)[name] = _tuples(field)
    if not isinstance(str(error), str) or not isinstance(error.public_text, str):
        raise TypeError("an error without a text")
    return error


def _fits(cls: type[SagentsError], name: str, value: JSONValue) -> bool:
    """Return whether an error of a class may have such a field. Those that the library calculates with are looked at."""
    if not name.isidentifier() or name.startswith("__") or (hasattr(cls, name) and name != "source"):
        return False
    if issubclass(cls, ModelFailed):
        kinds = {"kind": value in MODEL_FAILURE_KINDS if isinstance(value, str) else False, "retryable": isinstance(value, bool)}
        if name in kinds:
            return kinds[name]
    if name == "retry_after":
        return value is None or type(value) in {int, float}
    return True


def _tuples(value: JSONValue) -> JSONValue:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _subclasses(cls: type[T]) -> Iterable[type[T]]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


CONVERTER: Final = _make_converter()


def encode(value: object, kind: object) -> JSONValue:
    """Return a value as JSON, as a value of a type: of an attrs class, or of a union that this module knows."""
    return CONVERTER.unstructure(value, unstructure_as=kind)


def decode(value: JSONValue, kind: type[T]) -> T:
    """Return the value of a type that `encode` made JSON of; one of `MALFORMED` is raised if it is none."""
    return CONVERTER.structure(value, kind)


def encode_tagged(value: object, classes: Tagged) -> JSON:
    """Return an object of one of some classes as JSON, with the name of its class; TypeError if it is of another class."""
    tagged: JSON = _unstructure_tagged(CONVERTER, classes, value)
    return tagged


def decode_tagged(value: JSONValue, classes: Tagged) -> object:
    """Return the object that `encode_tagged` made JSON of; one of `MALFORMED` is raised if it is none."""
    return _structure_tagged(CONVERTER, classes, value, None)


# ── events


def encode_event(event: Event) -> JSON | None:
    """Return an event as JSON; None if it is an event of a host's that cannot travel, which is told in the log once for each class."""
    cls = type(event)
    if _EVENTS.get(cls.__name__) is cls:
        return encode_tagged(event, _EVENTS)
    name = _host_name(cls)
    try:
        if not isinstance(event, MiddlewareEvent):
            raise TypeError("it is not an event of this library, nor a MiddlewareEvent")  # told below, like the others
        fields = plain_json(CONVERTER.unstructure(event, unstructure_as=cls), depth=-RECORD_DEPTH)
        read = CONVERTER.structure(fields, cls)
        if type(read) is not cls:
            raise TypeError("it is another event when it is read")  # likewise
    except Exception as exc:  # noqa: BLE001  # the class is the host's, and so is what it raises
        _tell(name, _why(exc))
        return None
    return {"type": name, "fields": fields}


def decode_event(value: JSONValue) -> Event | None:
    """Return the event that `encode_event` made JSON of; None if it is of a class of the host's that is not loaded here, or differs.

    Raises: one of `MALFORMED` if it is none.
    """
    name = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str) or ":" not in name:
        event: Event = decode_tagged(value, _EVENTS)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # by its table
        return event
    if set(value) != {"type", "fields"}:
        raise ValueError("expected an event of a host's")
    for cls in _subclasses(MiddlewareEvent):
        if _host_name(cls) == name:
            try:
                return CONVERTER.structure(value["fields"], cls)
            except Exception as exc:  # noqa: BLE001  # the class is the host's, and so is what it raises
                _tell(name, _why(exc))
                return None
    _tell(name, "its class is not loaded here")
    return None


def _host_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


@functools.lru_cache(maxsize=1000)  # so each class is told once
def _tell(name: str, why: str) -> None:
    log.warning("events %r are left out for viewers on another node: %s", name[:200], why)


def _why(exc: Exception) -> str:
    return f"it cannot travel as JSON: {type(exc).__name__}: {text_of(exc)[:200]}"


def check_event(event: MiddlewareEvent) -> None:
    """Raise TypeError if an event of a host's cannot travel to the node where the agent runs."""
    if encode_event(event) is None:
        name = type(event).__name__
        raise TypeError(f"the agent runs on another node, and a {name} cannot travel there: give it fields that are plain JSON values")


@attrs.frozen
class Told:
    """One event for viewers, and its numbers, as of `Envelope`."""

    first_seq: int
    seq: int
    event: Event | None
    """None for an event that did not travel: its numbers are counted, and viewers do not get it."""


def _register_told(converter: cattrs.Converter) -> None:
    def unstructure(told: Told) -> JSONValue:
        return [told.first_seq, told.seq, None if told.event is None else encode_event(told.event)]

    def structure(value: object, _: object) -> Told:
        if not (isinstance(value, list) and len(value) == 3):  # the fields of Told
            raise TypeError("expected an event and its numbers")
        first, last, event = value
        if type(first) is not int or type(last) is not int or not 0 <= first <= last:
            raise TypeError("expected the numbers of an event")
        return Told(first, last, None if event is None else decode_event(event))

    converter.register_unstructure_hook(Told, unstructure)
    converter.register_structure_hook(Told, structure)


_register_told(CONVERTER)

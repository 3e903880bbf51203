"""Envelopes as JSON: what a browser speaks."""

import datetime
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

import attrs

from trio_sagents.data.cursors import Cursor
from trio_sagents.data.errors import public_text
from trio_sagents.data.events import Envelope, Event
from trio_sagents.data.interrupts import Interrupt, PendingCall
from trio_sagents.data.json import JSON, JSONValue, Opaque
from trio_sagents.data.messages import PART_TAGS, Message, OpaquePart, Part, ToolCall
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.records import DisplayMessage
from trio_sagents.data.wire import encode_part
from trio_sagents.exceptions import SagentsError

_PARTS: Final = tuple(PART_TAGS)


def envelope_to_dict(envelope: Envelope) -> JSON:
    """Return an envelope as a new JSON object.

    Its "event" has the "type", the event's class name, beside the event's fields. Cursors are their text, instants ISO 8601,
    errors {"type", "message"}; the message of an error that is not ours is left out, for it may hold secrets.
    """
    return {
        "agent_id": envelope.agent_id,
        "conversation_id": envelope.conversation_id,
        "channel": envelope.channel,
        "first_seq": envelope.first_seq,
        "seq": envelope.seq,
        "cursor": str(envelope.cursor),
        "event": event_to_dict(envelope.event),
    }


def event_to_dict(event: Event) -> JSON:
    """Return an event as a new JSON object, with its "type"."""
    return {"type": type(event).__name__, **_fields(event)}


def row_to_dict(row: DisplayMessage) -> JSON:
    """Return a row of the transcript as a new JSON object: its fields, with the instant in ISO 8601."""
    return _fields(row)


def interrupt_to_dict(interrupt: Interrupt) -> JSON:
    """Return an interrupt as a new JSON object, as `StatusChanged` and `Snapshot` have it in `envelope_to_dict`."""
    return {"type": "Interrupt", **_fields(interrupt)}


def outcome_to_dict(outcome: TurnOutcome) -> JSON:
    """Return the outcome of a turn as a new JSON object, as `TurnEnded` has it in `envelope_to_dict`: with its "type"."""
    return {"type": type(outcome).__name__, **_fields(outcome)}


def error_to_dict(error: BaseException) -> JSON:
    """Return an error as {"type", "message"}: the public text of ours, a general one for any other."""
    return {"type": type(error).__name__ if isinstance(error, SagentsError) else "Error", "message": public_text(error)}


def _fields(value: Opaque) -> dict[str, JSONValue]:
    return {field.name: _plain(getattr(value, field.name)) for field in attrs.fields(type(value))}


def _plain(value: object) -> JSONValue:
    match value:
        case Enum():
            return value.value
        case None | bool() | int() | float() | str():
            return value
        case Cursor():
            return str(value)
        case datetime.datetime():
            return value.isoformat()
        case BaseException():
            return error_to_dict(value)
        case Message():
            return {**_fields(value), "parts": [_shown_part(part) for part in value.parts]}
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case Sequence():
            return [_plain(item) for item in value]
        case _ if isinstance(value, _PARTS):
            return _part(value)
        case _:
            known = attrs.has(type(value))
            return {"type": type(value).__name__, **_fields(value)} if known else f"<{type(value).__name__}>"


def _part(part: Part) -> JSONValue:
    if isinstance(part, PendingCall):
        fields = _fields(part)
        del fields["opaque"]
        return {**fields, "type": "tool_call"}
    return {**_shown_part(part), "digest": part.digest} if isinstance(part, ToolCall) else _shown_part(part)


def _shown_part(part: Part) -> JSON:
    """Return a part as viewers get it: without what only the provider can read."""
    fields = encode_part(part)
    if isinstance(part, OpaquePart):
        del fields["data"]
    fields.pop("opaque", None)
    return fields

"""Interrupts and decision records as JSON, and back, strictly."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from trio_sagents.data.interrupts import RECORD_KINDS, DecisionRecord, Interrupt, PendingCall
from trio_sagents.data.json import JSON, JSONValue, plain_json
from trio_sagents.data.messages import Message
from trio_sagents.data.outcomes import Usage, encode_usage
from trio_sagents.data.wire import CONVERTER, decode_value, loads
from trio_sagents.exceptions import StateError

_ALWAYS: Final = frozenset({"interrupt_id", "call_id", "kind", "digest", "content", "text", "by", "at"})
"""The keys that each record has; older versions knew no others."""
DECISIONS: Final = "decisions"
"""In the metadata of a tool message: what was decided about its call, and about the calls of its sub-agent."""


def register_interrupts(converter: cattrs.Converter) -> None:
    """Teach a converter of `make_converter` interrupts, decision records, instants and owner keys."""

    def structure_instant(value: object, _: object) -> datetime.datetime:
        if not isinstance(value, str):
            raise TypeError(f"{type(value).__name__} where an instant is due")
        instant = datetime.datetime.fromisoformat(value)
        if instant.tzinfo is None:
            raise ValueError("an instant without a time zone")
        return instant

    def structure_key(value: object, _: object) -> str | int | None:
        if value is None or type(value) in {str, int}:
            return value  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # just looked at
        raise TypeError(f"{type(value).__name__} where an owner key is due")

    omit_digest = override(omit=True)
    structure_strictly = make_dict_structure_fn(PendingCall, converter, digest=omit_digest)

    def structure_pending(value: object, cls: type[PendingCall]) -> PendingCall:
        # Older versions stored the ids as one text, joined by commas.
        if isinstance(value, Mapping) and isinstance(value.get("claimed_by"), str):
            value = {**value, "claimed_by": [one for one in value["claimed_by"].split(", ") if one]}
        return structure_strictly(value, cls)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # it checks that itself

    converter.register_structure_hook(PendingCall, structure_pending)
    converter.register_structure_hook(datetime.datetime, structure_instant)
    converter.register_structure_hook_func(lambda kind: kind == (str | int | None), structure_key)


register_interrupts(CONVERTER)


def encode_record(record: DecisionRecord) -> JSON:
    """Return a decision record as JSON; what the record does not say is left out."""
    fields = attrs.asdict(record)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    return {name: value for name, value in plain.items() if name in _ALWAYS or value}


def encode_interrupt(interrupt: Interrupt, suspended: JSON, used: Usage | None = None) -> JSON:
    """Return an interrupt as a stored record, with the state of the sub-agents that wait in it, and what its turn has used."""
    record: dict[str, JSONValue] = {
        "interrupt_id": interrupt.interrupt_id,
        "turn_id": interrupt.turn_id,
        "calls": [encode_pending(call) for call in interrupt.calls],
        "kind": interrupt.kind,
        "restorable": interrupt.restorable,
        "decided": [encode_record(one) for one in interrupt.decided],
        "expires_at": None if interrupt.expires_at is None else interrupt.expires_at.isoformat(),
    }
    if interrupt.since is not None:
        record["since"] = interrupt.since.isoformat()
    if interrupt.asked_by is not None:
        record["asked_by"] = interrupt.asked_by
    if suspended:
        record["suspended"] = suspended
    if used is not None and used != Usage():
        record["used"] = encode_usage(used)
    return record


def encode_pending(call: PendingCall) -> JSON:
    """Return a waiting call as JSON."""
    fields = attrs.asdict(call, filter=lambda field, _: field.name not in {"digest", "arguments"})
    plain = plain_json({**fields, "arguments": call.arguments})
    assert isinstance(plain, dict)
    return plain


def decode_pending(conversation_id: str, value: JSONValue) -> PendingCall:
    """Return the waiting call that a record stands for; StateError if it is none."""
    return decode_value(conversation_id, value, PendingCall)


def decode_interrupt(conversation_id: str, value: JSONValue) -> tuple[Interrupt | None, JSON, Usage]:
    """Return the interrupt that a stored record stands for, the sub-agents that wait in it, and what its turn has used.

    Raises:
        StateError: it is none.
    """
    if value is None:
        return None, {}, Usage()
    if not isinstance(value, Mapping):
        raise StateError(conversation_id, f"the interrupt is {type(value).__name__}, not an object")
    fields = dict(value)
    suspended = fields.pop("suspended", {})
    if not isinstance(suspended, dict):
        raise StateError(conversation_id, f"the suspended sub-agents are {type(suspended).__name__}, not an object")
    used = decode_usage(conversation_id, fields.pop("used", {}))
    if isinstance(fields.get("calls"), list):  # what was stored before calls named their interrupt
        fields["calls"] = [
            {"interrupt_id": fields.get("interrupt_id"), **call} if isinstance(call, dict) else call for call in fields["calls"]
        ]
    interrupt = decode_value(conversation_id, fields, Interrupt)
    for record in interrupt.decided:
        _check_record(conversation_id, record)
    ids = [call.call_id for call in interrupt.calls] + [record.call_id for record in interrupt.decided]
    named = {call.interrupt_id for call in interrupt.calls} | {record.interrupt_id for record in interrupt.decided}
    if len(set(ids)) != len(ids) or named - {interrupt.interrupt_id}:
        raise StateError(conversation_id, "the calls of the interrupt are not its own")
    return interrupt, suspended, used


def read_interrupt(conversation_id: str, stored: JSONValue) -> Interrupt:
    """Return the interrupt that the "interrupt" of a stored state stands for.

    Args:
        conversation_id: for errors.
        stored: the JSON object that `Commit.state` had.

    Raises:
        StateError: it is none.
    """
    interrupt, _, _ = decode_interrupt(conversation_id, stored)
    if interrupt is None:
        raise StateError(conversation_id, "it does not wait for anybody")
    return interrupt


def decode_usage(conversation_id: str, value: JSONValue) -> Usage:
    """Return the usage that a record stands for; StateError if it is none."""
    usage = decode_value(conversation_id, value, Usage)
    if any(count < 0 for count in usage.counts):
        raise StateError(conversation_id, f"{value!r} tokens were used")
    return usage


def decode_records(conversation_id: str, value: JSONValue) -> Sequence[DecisionRecord]:
    """Return the decision records of a stored list; StateError if it is none."""
    if not isinstance(value, list):
        raise StateError(conversation_id, f"the decisions are {type(value).__name__}, not a list")
    records = tuple(decode_value(conversation_id, one, DecisionRecord) for one in value)
    for record in records:
        _check_record(conversation_id, record)
    return records


def _check_record(conversation_id: str, record: DecisionRecord) -> None:
    content = loads(conversation_id, record.content)
    if record.kind not in RECORD_KINDS or not isinstance(content, dict):
        raise StateError(conversation_id, f"the decision about the call {record.call_id!r} is none of ours")
    if record.arguments and not isinstance(loads(conversation_id, record.arguments), dict):
        raise StateError(conversation_id, f"the decision about the call {record.call_id!r} has arguments that are not an object")
    if record.kind == "edit" and not isinstance(content.get("arguments"), dict):
        raise StateError(conversation_id, f"the decision about the call {record.call_id!r} has no edited arguments")


def records_of(conversation_id: str, message: Message) -> Sequence[DecisionRecord]:
    """Return what was decided about the call that this tool message answers, and about those of its sub-agent."""
    if message.role != "tool" or DECISIONS not in message.metadata:
        return ()
    return decode_records(conversation_id, message.metadata[DECISIONS])


def waiting_in(conversation_id: str, record: JSONValue) -> Sequence[str]:
    """Return the ids of the calls that wait in the stored state of a sub-agent; StateError if it is none."""
    waiting = record.get("waiting") if isinstance(record, dict) else None
    if not isinstance(waiting, dict) or not all(isinstance(some, list) for some in waiting.values()):
        raise StateError(conversation_id, "a suspended sub-agent does not say what waits in it")
    return tuple(decode_pending(conversation_id, one).call_id for some in waiting.values() for one in some)

"""What presences say to each other on a bus, as bytes: written here, and read strictly, because anybody may write to a bus.

A payload is the id of the addressee in 16 characters ("*" sixteen times for everybody), a space, and one JSON object. So a presence that is
not addressed need not read the JSON. Each message names its sender and the number of the sender's last difference:

    beat    {"kind": "beat", "from", "seq", "every"}               "I am here, and this is the number of my last difference"
    diff    {..., "set": [[number, topic, key, meta]], "gone"}     entries that are new or have changed; numbers of entries that left
    state   {..., "set", "part", "last"}                           one part of all entries; to the sender of an "ask"
    ask     {"kind": "ask", "from"}                                "send me your state"
    bye     {"kind": "bye", "from"}                                "all my entries are gone"

Pure functions: nothing here knows Trio, a bus, or the clock.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs

from trio_sagents.data.json import JSON, JSONValue, check_text, plain_json
from trio_sagents.data.wire import dumps, loads
from trio_sagents.exceptions import StateError

EVERYBODY: Final = "*" * 16
MAX_PAYLOAD: Final = 64 * 1024
"""Bytes of one message, if the bus takes that much: small enough that reading one does not hold up the event loop."""
MAX_NAME: Final = 1024
"""Characters of a topic or a key."""
MAX_INTERVAL: Final = 60.0
"""Seconds between two beats."""
MAX_NUMBER: Final = 2**53
_FRAME: Final = 512
"""Bytes of a message beside its entries, at most."""
_PEER: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)


class Malformed(Exception):
    """A payload is not one of our messages. The error says why."""


@attrs.frozen
class Entry:
    """One entry of the sender."""

    number: int
    """Names the entry among all that the sender ever had."""
    topic: str
    key: str
    meta: JSON


@attrs.frozen
class Beat:
    """The sender is there."""

    sender: str
    seq: int
    """The number of the sender's last difference."""
    every: float
    """Seconds between two messages of the sender, at most."""


@attrs.frozen
class Diff:
    """What has changed since the sender's difference `seq` - 1."""

    sender: str
    seq: int
    every: float
    entries: Sequence[Entry]
    """New, or with another meta than before."""
    gone: Sequence[int]
    """The numbers of the entries that have left; a number may be unknown."""


@attrs.frozen
class StatePart:
    """A part of all entries that the sender had at its difference `seq`."""

    sender: str
    seq: int
    every: float
    entries: Sequence[Entry]
    part: int
    """The parts count from 0."""
    is_last: bool


@attrs.frozen
class Ask:
    """The sender wants the state of the addressee."""

    sender: str


@attrs.frozen
class Bye:
    """The sender has no entries any more."""

    sender: str


Word: TypeAlias = Beat | Diff | StatePart | Ask | Bye


# ── writing


def beat(sender: str, seq: int, every: float) -> bytes:
    """Return a beat for everybody."""
    return _framed(EVERYBODY, _head("beat", sender, seq, every))


def ask(sender: str, addressee: str) -> bytes:
    """Return a request for the state of one peer."""
    return _framed(addressee, {"kind": "ask", "from": sender})


def bye(sender: str) -> bytes:
    """Return a farewell to everybody."""
    return _framed(EVERYBODY, {"kind": "bye", "from": sender})


def diff(sender: str, seq: int, every: float, entries: Sequence[str], gone: Sequence[int]) -> bytes:
    """Return a difference for everybody; `entries` are texts that `entry_text` made."""
    return _framed(EVERYBODY, {**_head("diff", sender, seq, every), "gone": list(gone)}, entries)


def state(addressee: str, sender: str, seq: int, every: float, entries: Sequence[str], part: int, *, is_last: bool) -> bytes:
    """Return a part of the state for one peer; `entries` are texts that `entry_text` made."""
    return _framed(addressee, {**_head("state", sender, seq, every), "part": part, "last": is_last}, entries)


def entry_text(number: int, topic: str, key: str, meta: JSON) -> str:
    """Return one entry as it is written in a message."""
    return dumps([number, topic, key, meta])


def room(max_payload: int) -> int:
    """Return how many bytes of entries fit into one message on a bus."""
    return max(0, min(MAX_PAYLOAD, max_payload) - _FRAME)


def parts(entries: Iterable[str], most: int) -> Iterator[Sequence[str]]:
    """Yield the same texts in groups of at most `most` bytes, in order, and one empty group if there are none.

    Args:
        entries: none of them has more than `most` bytes.
        most: as `room` gives it.
    """
    group: list[str] = []
    size = 0
    for text in entries:
        length = len(text.encode()) + 1
        if group and size + length > most:
            yield group
            group, size = [], 0
        group.append(text)
        size += length
    yield group


def _head(kind: str, sender: str, seq: int, every: float) -> dict[str, JSONValue]:
    return {"kind": kind, "from": sender, "seq": seq, "every": every}


def _framed(addressee: str, fields: JSON, entries: Sequence[str] | None = None) -> bytes:
    text = dumps(fields)
    if entries is not None:
        text = f'{text[:-1]},"set":[{",".join(entries)}]}}'
    return f"{addressee} {text}".encode()


# ── reading


def read(payload: object, reader: str) -> Word | None:
    """Return what a payload says, or None if it is addressed to somebody else, or comes from the reader.

    Args:
        payload: the value that the bus gave, of any type.
        reader: the id of the presence that reads.

    Raises:
        Malformed: it is not one of the messages above.
    """
    if not isinstance(payload, bytes):
        raise Malformed(f"a payload is {type(payload).__name__}, not bytes")
    if len(payload) > MAX_PAYLOAD:
        raise Malformed(f"a payload has {len(payload)} bytes, more than {MAX_PAYLOAD}")
    addressee = payload[:17]
    if addressee not in {f"{EVERYBODY} ".encode(), f"{reader} ".encode()}:
        if len(addressee) == 17 and addressee.endswith(b" "):
            return None
        raise Malformed("a payload without an addressee")
    try:
        fields = loads("presence", payload[17:])
    except StateError as exc:
        raise Malformed(exc.why) from exc
    if not isinstance(fields, dict):
        raise Malformed(f"a message is {type(fields).__name__}, not an object")
    sender = fields.pop("from", None)
    if not (isinstance(sender, str) and _PEER.fullmatch(sender)):
        raise Malformed("a message without a sender")
    return None if sender == reader else _word(sender, fields)


def _word(sender: str, fields: dict[str, JSONValue]) -> Word:
    kind = fields.pop("kind", None)
    match kind, *sorted(fields):
        case ["ask"]:
            return Ask(sender)
        case ["bye"]:
            return Bye(sender)
        case ["beat", "every", "seq"]:
            return Beat(sender, _number(fields["seq"]), _interval(fields["every"]))
        case ["diff", "every", "gone", "seq", "set"]:
            gone = [_number(number) for number in _list(fields["gone"])]
            return Diff(sender, _number(fields["seq"]), _interval(fields["every"]), _entries(fields["set"]), gone)
        case ["state", "every", "last", "part", "seq", "set"] if isinstance(fields["last"], bool):
            every, part = _interval(fields["every"]), _number(fields["part"])
            return StatePart(sender, _number(fields["seq"]), every, _entries(fields["set"]), part, fields["last"])
        case _:
            raise Malformed(f"no message is called {str(kind)[:20]!r} and has the fields {sorted(fields)[:8]}")


def _list(value: JSONValue) -> Sequence[JSONValue]:
    if not isinstance(value, list):
        raise Malformed(f"{type(value).__name__} in place of a list")
    return value


def _number(value: JSONValue) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_NUMBER:
        raise Malformed(f"not a number from 0 to {MAX_NUMBER}")
    return value


def _interval(value: JSONValue) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_INTERVAL or not math.isfinite(value):
        raise Malformed(f"not an interval of more than 0 and at most {MAX_INTERVAL:g} seconds")
    return float(value)


def _entries(value: JSONValue) -> Sequence[Entry]:
    return [_entry(entry) for entry in _list(value)]


def _entry(value: JSONValue) -> Entry:
    match value:
        case [int() as number, str() as topic, str() as key, dict() as meta]:
            for name in (topic, key):
                if not 0 < len(name) <= MAX_NAME:
                    raise Malformed(f"a topic or a key has {len(name)} characters; it must have 1 to {MAX_NAME}")
            try:
                texts = check_text(topic, "a topic"), check_text(key, "a key")
                return Entry(_number(number), texts[0], texts[1], plain_json(meta, "meta"))
            except ValueError as exc:
                raise Malformed(str(exc)) from exc
        case _:
            raise Malformed("an entry is not [number, topic, key, meta]")

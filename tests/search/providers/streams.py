"""Good streams of both protocols, and mutations of them; stream number N of a seed is always the same.

A stream is a list of events, as JSON. Each piece of content in it says whose it is: the pieces of text are numbered, and the arguments
of a call hold the number of the call, so what an adapter makes of a mutated stream can be held against what was sent.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import attrs

Protocol: TypeAlias = Literal["openai", "anthropic"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("openai", "anthropic")
WORDS: Final = ("zebra", "STOPPED", "text_dleta", "", "erorr", "Stop ")
"""Words that no protocol knows; the empty one says nothing."""
OTHER_TYPES: Final = (5, 1.5, True, [7], {"x": "y"}, [], {})
NAME: Final = "look"


@attrs.frozen
class Event:
    """One event of a stream."""

    data: Any
    name: str | None = None
    """Its name as a server-sent event."""
    label: str = ""
    """Whose content is in it: "text", "thinking", "call 0"; "" for an event without content."""

    def wire(self) -> bytes:
        """Return it as bytes."""
        text = self.data if isinstance(self.data, str) else json.dumps(self.data)
        return (f"event: {self.name}\n" if self.name else "").encode() + f"data: {text}\n\n".encode()


@attrs.frozen
class Stream:
    """A mutated stream."""

    protocol: Protocol
    events: Sequence[Event]
    mutations: Sequence[str]
    """What was done to it, in order."""

    chunks: Sequence[bytes]
    """Its bytes, as they come."""

    @property
    def is_good(self) -> bool:
        """Whether nothing was taken from it: any reader that knows real servers gets all of it."""
        return {mutation.partition(" at ")[0] for mutation in self.mutations} <= BENIGN


def stream(protocol: Protocol, seed: int, number: int) -> Stream:
    """Return a stream: good, mutated, and cut into pieces of bytes anywhere."""
    rng = random.Random(f"{protocol} {seed} {number}")
    events = list(_MAKERS[protocol](rng))
    done: list[str] = []
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        name, mutate = rng.choice(MUTATIONS)
        place = mutate(events, rng)
        if place is not None:
            done.append(f"{name} at {place}")
    body = b"".join(event.wire() for event in events)
    if rng.random() < 0.15 and not any(event.label == "joined" for event in events):  # half of two events may be one of them
        place = rng.randrange(len(body) + 1)
        body = body[:place]
        done.append(f"cut at byte {place}")
        events = _whole(events, place)
    return Stream(protocol, events, done, list(_chunks(body, rng)))


def _whole(events: Sequence[Event], size: int) -> list[Event]:
    """Return the events that a body of this size has whole; the last one may lack the blank line that ends it."""
    kept: list[Event] = []
    for event in events:
        wire = event.wire()
        if size < len(wire.rstrip()):
            break
        kept.append(event)
        size -= len(wire)
    return kept


def _chunks(body: bytes, rng: random.Random) -> Sequence[bytes]:
    size = rng.choice((5, 100, 100, 100_000, 100_000))
    return [body[at : at + size] for at in range(0, len(body), size)]


# ── good streams


def _tokens(rng: random.Random) -> list[str]:
    return [f"w{number} " for number in range(rng.randint(1, 5))]


def _arguments(number: int, rng: random.Random) -> str:
    value = {"call": f"c{number}", "items": [f"c{number}-{item}" for item in range(rng.randint(0, 4))], "n": rng.randrange(1000)}
    return json.dumps(value, indent=rng.choice((None, None, 1)))


def _pieces(text: str, rng: random.Random) -> list[str]:
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randint(0, 4)))
    return [piece for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) if (piece := text[start:end])]


def _openai(rng: random.Random) -> Sequence[Event]:
    def event(delta: Any, label: str = "", reason: str | None = None) -> Event:
        return Event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}, label=label)

    events = [event({"role": "assistant", "content": ""})]
    if rng.random() < 0.3:
        events += [event({"reasoning_content": token}, "thinking") for token in _tokens(rng)]
    calls = rng.choice((0, 0, 1, 2, 3))
    if not calls or rng.random() < 0.5:
        events += [event({"content": token}, "text") for token in _tokens(rng)]
    groups = [_openai_call(number, rng, event) for number in range(calls)]
    if groups and rng.random() < 0.2:  # alternating, as parallel calls may be
        while groups := [group for group in groups if group]:
            events.append(rng.choice(groups).pop(0))
    else:
        events += [one for group in groups for one in group]
    events.append(event({}, reason="tool_calls" if calls else rng.choice(("stop", "stop", "length"))))
    events.append(Event({"object": "chat.completion.chunk", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}))
    return [*events, Event("[DONE]")]


def _openai_call(number: int, rng: random.Random, event: Callable[..., Event]) -> list[Event]:
    label, pieces = f"call {number}", _pieces(_arguments(number, rng), rng)
    head = {"index": number, "id": f"id{number}", "type": "function", "function": {"name": NAME, "arguments": ""}}
    if rng.random() < 0.3:
        head["function"] = {"name": NAME, "arguments": pieces.pop(0)}
    rest = [{"index": number, "function": {"arguments": piece}} for piece in pieces]
    return [event({"tool_calls": [piece]}, label) for piece in (head, *rest)]


def _anthropic(rng: random.Random) -> Sequence[Event]:
    usage = {"input_tokens": 3, "output_tokens": 1}
    events = [Event({"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": usage}}, "message_start")]
    index = 0

    def block(label: str, start: Any, *deltas: Any) -> None:
        nonlocal index
        place = {"index": index}
        events.append(Event({"type": "content_block_start", **place, "content_block": start}, "content_block_start", label))
        for delta in deltas:
            events.append(Event({"type": "content_block_delta", **place, "delta": delta}, "content_block_delta", label))
        events.append(Event({"type": "content_block_stop", **place}, "content_block_stop", label))
        index += 1

    calls = rng.choice((0, 0, 1, 2, 3))
    if rng.random() < 0.3:
        thoughts = [{"type": "thinking_delta", "thinking": token} for token in _tokens(rng)]
        block("thinking", {"type": "thinking", "thinking": "", "signature": ""}, *thoughts, {"type": "signature_delta", "signature": "S"})
    if not calls or rng.random() < 0.5:
        block("text", {"type": "text", "text": ""}, *[{"type": "text_delta", "text": token} for token in _tokens(rng)])
        if rng.random() < 0.3:
            events.append(Event({"type": "ping"}, "ping"))
    for number in range(calls):
        pieces = ["", *_pieces(_arguments(number, rng), rng)]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        block(f"call {number}", {"type": "tool_use", "id": f"id{number}", "name": NAME, "input": {}}, *deltas)
    reason = "tool_use" if calls else rng.choice(("end_turn", "end_turn", "max_tokens"))
    events.append(Event({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 4}}, "message_delta"))
    return [*events, Event({"type": "message_stop"}, "message_stop")]


_MAKERS: Final[dict[Protocol, Callable[[random.Random], Sequence[Event]]]] = {"openai": _openai, "anthropic": _anthropic}


# ── mutations: each changes the list, and returns the place; None if it could do nothing


def _drop(events: list[Event], rng: random.Random) -> int | None:
    place = rng.randrange(len(events))
    del events[place]
    return place if events else _restored(events)


def _restored(events: list[Event]) -> None:
    events.append(Event({"type": "ping", "choices": []}))


def _cut(events: list[Event], rng: random.Random) -> int:
    place = rng.randrange(1, len(events) + 1)
    del events[place:]
    return place


def _double(events: list[Event], rng: random.Random) -> int:
    place = rng.randrange(len(events))
    events.insert(place, events[place])
    return place


def _swap(events: list[Event], rng: random.Random) -> int | None:
    if len(events) < 2:
        return None
    place = rng.randrange(len(events) - 1)
    events[place], events[place + 1] = events[place + 1], events[place]
    return place


def _copied(event: Event) -> Event:
    return attrs.evolve(event, data=json.loads(json.dumps(event.data)))


def _places_of(data: Any, keys: frozenset[str]) -> list[tuple[Any, str]]:
    """Return (object, key) of each of these keys, however deep."""
    found: list[tuple[Any, str]] = []
    if isinstance(data, dict):
        found += [(data, key) for key in data if key in keys]
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        found += _places_of(value, keys)
    return found


CONTENT: Final = frozenset({"content", "arguments", "text", "partial_json", "delta", "tool_calls", "function", "content_block", "index"})
SAID: Final = frozenset({"content", "arguments", "text", "partial_json"})
SAYING: Final = frozenset({"type", "finish_reason", "stop_reason"})


def _retype(events: list[Event], rng: random.Random) -> str | None:
    return _replace(events, rng, CONTENT, OTHER_TYPES)


def _reword(events: list[Event], rng: random.Random) -> str | None:
    return _replace(events, rng, SAYING, WORDS)


def _nullify(events: list[Event], rng: random.Random) -> str | None:
    return _replace(events, rng, CONTENT - {"index"}, (None,))


def _replace(events: list[Event], rng: random.Random, keys: frozenset[str], values: Sequence[Any]) -> str | None:
    place = rng.randrange(len(events))
    event = _copied(events[place])
    found = _places_of(event.data, keys)
    if not found:
        return None
    holder, key = rng.choice(found)
    if holder[key] is None:
        return None
    # A choice of another number is not another type: it is an answer that nobody asked for.
    fitting = [value for value in values if key != "index" or type(value) is not int]
    holder[key] = rng.choice(fitting)
    if key == "type" and holder is event.data:  # the name of the event says the same
        event = attrs.evolve(event, name=None)
    events[place] = event
    return f"{place} {key}={holder[key]!r}"


def _split(events: list[Event], rng: random.Random) -> int | None:
    place = rng.randrange(len(events))
    first, second = _copied(events[place]), _copied(events[place])
    texts = [pair for pair in _places_of(first.data, SAID) if isinstance(pair[0][pair[1]], str) and len(pair[0][pair[1]]) > 1]
    if len(texts) != 1 or '"id"' in json.dumps(first.data):
        return None
    (holder, key), (other, _) = texts[0], _places_of(second.data, frozenset({texts[0][1]}))[-1]
    at = rng.randrange(1, len(holder[key]))
    holder[key], other[key] = holder[key][:at], other[key][at:]
    events[place : place + 1] = [first, second]
    return place


def _join(events: list[Event], rng: random.Random) -> int | None:
    """Put two events into one: two lines of data, as a relay may make of them that loses a blank line."""
    if len(events) < 2:
        return None
    place = rng.randrange(len(events) - 1)
    texts = [event.data if isinstance(event.data, str) else json.dumps(event.data) for event in events[place : place + 2]]
    events[place : place + 2] = [Event("\ndata: ".join(texts), events[place].name, "joined")]
    return place


def _say_something_new(events: list[Event], rng: random.Random) -> int:
    place = rng.randrange(len(events) + 1)
    events.insert(place, Event({"type": "a_later_invention", "object": "novelty", "choices": []}, rng.choice((None, "a_later_invention"))))
    return place


def _fail(events: list[Event], rng: random.Random) -> int:
    place = rng.randrange(len(events) + 1)
    error = rng.choice(
        (
            {"error": {"message": "It broke.", "type": "server_error"}},
            {"type": "error", "error": {"type": "overloaded_error", "message": "It broke."}},
            {"object": "error", "message": "It broke.", "code": 500},
            {"error": "It broke."},
        )
    )
    events.insert(place, Event(error, rng.choice((None, "error")), "error"))
    return place


def _lose_indexes(events: list[Event], rng: random.Random) -> str | None:
    """Have all calls come without an index, or with the same: only where they come one after the other."""
    labels = [event.label for event in events if event.label.startswith("call")]
    if labels != sorted(labels) or any(event.name for event in events):
        return None
    index = rng.choice((None, 0))
    for place, event in enumerate(events):
        if event.label.startswith("call") and isinstance(event.data, dict):
            copied = _copied(event)
            for piece in _calls_in(copied.data):
                piece.pop("index", None)
                if index is not None:
                    piece["index"] = index
            events[place] = copied
    return f"index {index}"


def _lose_ids(events: list[Event], rng: random.Random) -> str | None:
    given = rng.choice((None, "", "same"))
    if any(event.name for event in events):
        return None
    for place, event in enumerate(events):
        if event.label.startswith("call") and isinstance(event.data, dict):
            copied = _copied(event)
            for piece in _calls_in(copied.data):
                if "id" in piece:
                    piece["id"] = given
            events[place] = copied
    return f"id {given!r}"


def _calls_in(data: Any) -> list[Any]:
    """Return the pieces of calls in an event of OpenAI's, as far as they are still there."""
    try:
        return [piece for piece in data["choices"][0]["delta"]["tool_calls"] if isinstance(piece, dict)]
    except (KeyError, TypeError, IndexError):
        return []


def _end_again(events: list[Event], rng: random.Random) -> str | None:
    """End an answer once more, for another reason."""
    ends = [place for place, event in enumerate(events) if _places_of(event.data, _ENDS) and "null" not in json.dumps(event.data)]
    if not ends:
        return None
    event = _copied(events[ends[-1]])
    holder, key = _places_of(event.data, _ENDS)[0]
    if not isinstance(holder[key], str):
        return None
    holder[key] = rng.choice(_OTHER_ENDS[key])
    events.insert(ends[-1] + 1, event)
    return f"{ends[-1]} {holder[key]}"


_ENDS: Final = frozenset({"finish_reason", "stop_reason"})
_OTHER_ENDS: Final = {"finish_reason": ("stop", "length", "tool_calls"), "stop_reason": ("end_turn", "max_tokens", "tool_use")}
BENIGN: Final = frozenset({"split", "something new", "no index", "no ids"})
"""Mutations that take nothing from a stream: what real servers do."""

MUTATIONS: Final[tuple[tuple[str, Callable[[list[Event], random.Random], Any]], ...]] = (
    ("dropped", _drop),
    ("cut", _cut),
    ("doubled", _double),
    ("swapped", _swap),
    ("another type", _retype),
    ("an unknown word", _reword),
    ("null", _nullify),
    ("split", _split),
    ("joined", _join),
    ("something new", _say_something_new),
    ("an error", _fail),
    ("ended again", _end_again),
    ("no index", _lose_indexes),
    ("no ids", _lose_ids),
)

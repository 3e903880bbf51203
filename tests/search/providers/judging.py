"""What may come of a mutated stream: whatever was sent and understood, or a failure; never half of it as the whole."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from tests.search.providers.streams import NAME, Event, Stream
from trio_sagents.exceptions import ModelFailed

_REASONS: Final = {
    "openai": {"stop": "stop", "tool_calls": "tool_calls", "length": "length"},
    "anthropic": {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"},
}


@attrs.frozen
class Made:
    """What an adapter made of a stream."""

    text: str = ""
    calls: Sequence[tuple[str, str]] = ()
    """The name and the JSON text of the arguments of each call."""
    reason: str = ""
    error: BaseException | None = None
    """What it raised instead."""
    is_partial: bool = False
    """Whether the error stands for an answer that cannot be compared."""


def violations(stream: Stream, made: Made) -> Iterator[str]:
    """Yield what is wrong."""
    if made.error is not None:
        if not isinstance(made.error, ModelFailed):
            yield f"raised {type(made.error).__name__}: {made.error}"
        elif stream.is_good and not made.is_partial:
            yield f"a stream that lacks nothing has failed: {made.error}"
        return
    events = list(_visible(stream))
    reasons = [reason for event in events for reason in _reasons(stream, event)]
    known = [_REASONS[stream.protocol].get(reason) for reason in reasons]
    if not known:
        yield "an answer whose end never came passed for a whole one"
    elif None in known:
        yield f"an unknown reason passed for a known one: {reasons}"
    elif "length" in known and made.reason != "length":
        yield "a cut answer passed for a whole one"
    if any(event.label in {"joined", "error"} for event in events):
        yield "an event that cannot be read, or an error, was passed over"
    yield from _text_violations(stream, events, made)
    if made.reason != "length":
        yield from _call_violations(stream, events, made)


def _visible(stream: Stream) -> Iterator[Event]:
    """Yield the events up to the one that says that nothing more comes."""
    for event in stream.events:
        yield event
        if event.data == "[DONE]" or (stream.protocol == "anthropic" and isinstance(event.data, dict) and _kind(event) == "message_stop"):
            return


def _kind(event: Event) -> str:
    kind = event.data.get("type") if isinstance(event.data, dict) else None
    return kind if isinstance(kind, str) and kind else event.name or ""


def _reasons(stream: Stream, event: Event) -> Iterator[str]:
    if stream.protocol == "openai":
        found = _at(event.data, "choices", 0, "finish_reason")
    else:
        found = _at(event.data, "delta", "stop_reason") if _kind(event) == "message_delta" else []
    return (reason for reason in found if isinstance(reason, str) and reason)


def _at(data: Any, *path: Any) -> list[Any]:
    """Return the value at a path, in a list; nothing if there is none."""
    for step in path:
        try:
            data = data[step]
        except (KeyError, TypeError, IndexError):
            return []
    return [data]


def _text_violations(stream: Stream, events: Sequence[Event], made: Made) -> Iterator[str]:
    expected: list[str] = []
    for event in events:
        if event.label != "text":
            continue
        if stream.protocol == "openai":
            found = _at(event.data, "choices", 0, "delta", "content")
        else:
            if event.data.get("delta") is None and not any(_at(event.data, "content_block", "text")):
                continue  # the beginning or the end of a block has no text
            is_read = _kind(event) == "content_block_delta" and _at(event.data, "delta", "type") == ["text_delta"]
            found = _at(event.data, "delta", "text") if is_read else [object()]
        if found and found[0] not in (None, []) and not isinstance(found[0], str):
            yield "a piece of text that cannot be read was passed over"
            return
        expected += [text for text in found if isinstance(text, str)]
    if "".join(expected) != made.text:
        yield f"the text is {made.text!r}, and {''.join(expected)!r} was sent"


def _call_violations(stream: Stream, events: Sequence[Event], made: Made) -> Iterator[str]:
    sent = {label: list(_arguments(stream, events, label)) for label in {event.label for event in events if event.label.startswith("call")}}
    has_ids = not any("no ids" in mutation for mutation in stream.mutations)
    # Without ids a call without arguments may as well be the name of the next one, told twice.
    counted = [label for label, pieces in sent.items() if has_ids or any(pieces)]
    heads = sum(any(_is_head(stream, event) for event in events if event.label == label) for label in counted)
    # Where one call cannot be read the model is told, and it may be that nobody can say where the next one begins.
    if len(made.calls) < heads and (stream.is_good or all(_is_object(arguments) for _, arguments in made.calls)):
        yield f"{heads} calls were sent, and {len(made.calls)} came"
    for name, arguments in made.calls:
        if name != NAME:
            yield f"a call of {name!r}"
        if stream.is_good and not _is_object(arguments):
            yield f"a call that was sent whole came as {arguments}"
        if _is_object(arguments) and not any(_is_among(arguments, _acceptable(pieces, has_ids=has_ids)) for pieces in sent.values()):
            yield f"a call with the arguments {arguments}, which were not sent: {sent}"


def _arguments(stream: Stream, events: Sequence[Event], label: str) -> Iterator[str]:
    for event in events:
        if event.label != label:
            continue
        if stream.protocol == "openai":
            found = _at(event.data, "choices", 0, "delta", "tool_calls", 0, "function", "arguments")
        else:
            found = _at(event.data, "delta", "partial_json")
        for piece in found:
            if piece is not None:
                yield piece if isinstance(piece, str) else json.dumps(piece)


def _acceptable(pieces: Sequence[str], *, has_ids: bool) -> set[str]:
    """Return the arguments that these pieces of one call may come to: all of them; or, where whole calls came twice, each of them.

    Without ids, a beginning that comes twice is the beginning of a second call, without arguments.
    """
    joined = "".join(pieces)
    doubled = {"{}"} if "" in pieces and not has_ids else set()
    return {joined or "{}", *(piece for piece in pieces if _is_object(piece)), *doubled}


def _is_among(arguments: str, acceptable: set[str]) -> bool:
    """Return whether some arguments are what was sent. A piece of blanks alone may go to any call: it changes no arguments."""
    value = json.loads(arguments)
    return arguments in acceptable or any(_is_object(text) and json.loads(text) == value for text in acceptable)


def _is_head(stream: Stream, event: Event) -> bool:
    if stream.protocol == "openai":
        return _at(event.data, "choices", 0, "delta", "tool_calls", 0, "function", "name") == [NAME]
    return _kind(event) == "content_block_start" and _at(event.data, "content_block", "type") == ["tool_use"]


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False

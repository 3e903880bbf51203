"""What the model reads of a history: pure functions from the stored messages to the messages of a request.

These functions never change the stored history. It stays what people and models have said; a request may have less:

    as_read     leaves out what a provider has refused, so that the same content is not refused for ever
    shortened   cuts a request that is too long for the model, so that the conversation can continue

A message that a provider has refused is marked in the metadata of the assistant message that follows it: `UNSENT` has the ids of the
messages that are not sent any more, `UNSENT_MEDIA` the ids of those that are sent without their images and files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.data.estimates import estimate_tokens, messages_tokens, part_tokens
from trio_sagents.data.json import JSONValue, canonical
from trio_sagents.data.messages import FROM_TOOL, FilePart, ImagePart, Message, Part, TextPart, ToolCall, ToolResult
from trio_sagents.data.requests import ModelRequest

LIMITS: Final = "context_limits"
"""In the metadata of a conversation: by the name of the model, the estimated tokens of a request that the model takes."""
REFUSED: Final = frozenset({"refused_content", "invalid_request"})
"""The kinds of `ModelFailed` that the content of a request may have caused: the same content would be refused again."""
UNSENT: Final = "unsent"
UNSENT_MEDIA: Final = "unsent_media"
NOT_SENT: Final = "[A message of the person was here. The provider of the model refused it, so you cannot see it.]"
RESULT_NOT_SENT: Final = "[The result of this call was here. The provider of the model refused it, so you cannot see it.]"
MEDIA_NOT_SENT: Final = "[An image or a file was here. It is not sent any more.]"
LEFT_OUT: Final = "[The earlier messages of this conversation are left out, because it has become too long.]"
LEFT_OUT_READ: Final = "I see that earlier messages are left out."
LARGE: Final = 2000
"""A text with more characters may be cut."""
HEAD: Final = 1000
TAIL: Final = 400
"""How many characters stay at the beginning and at the end of a text that is cut."""


# ── what a provider has refused


def as_read(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages as a model is to read them: without the content that a provider has refused."""
    unsent = set(_marked(messages, UNSENT))
    without_media = set(_marked(messages, UNSENT_MEDIA))
    if not unsent and not without_media:
        return messages
    return tuple(
        _stub(message) if message.message_id in unsent else without_media_of(message) if message.message_id in without_media else message
        for message in messages
    )


def _marked(messages: Sequence[Message], key: str) -> Iterator[str]:
    for message in messages:
        if message.role == "assistant" and key in message.metadata:
            ids = message.metadata[key]
            yield from (str(message_id) for message_id in ids) if isinstance(ids, Sequence) and not isinstance(ids, str) else ()


def unread(messages: Sequence[Message]) -> Sequence[str]:
    """Return the ids of the messages at the end of a history that no answer has read yet: those that a refused request was about."""
    return tuple(message.message_id for message in messages[_fresh(messages) :])


def _stub(message: Message) -> Message:
    if message.role == "tool":
        parts = [attrs.evolve(part, content=RESULT_NOT_SENT, media=()) for part in message.results]
        return attrs.evolve(message, parts=parts)
    return attrs.evolve(message, parts=(TextPart(NOT_SENT),)) if message.role == "user" else message


def has_media(message: Message) -> bool:
    """Return whether a message has images or files."""
    return any(isinstance(part, ImagePart | FilePart) for part in message.parts) or any(result.media for result in message.results)


def without_media_of(message: Message) -> Message:
    """Return a message with a text instead of each of its images and files."""
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ImagePart | FilePart):
            parts.append(TextPart(MEDIA_NOT_SENT))
        elif isinstance(part, ToolResult) and part.media:
            parts.append(attrs.evolve(part, content=f"{part.content}\n{MEDIA_NOT_SENT}".strip(), media=()))
        else:
            parts.append(part)
    return attrs.evolve(message, parts=parts)


def without_history(request: ModelRequest) -> ModelRequest:
    """Return a request with nothing of the turns before the last message of a person; the same request if there is nothing before."""
    messages = request.messages
    leading, asked = _leading(messages), _questions(messages)
    if not asked or asked[0] == leading:
        return request
    kept = messages[asked[0] :]
    return attrs.evolve(request, messages=(*messages[:leading], *_note(messages, kept), *kept))


# ── what is too long


def shortened(request: ModelRequest, most_tokens: float) -> ModelRequest:
    """Return a request of at most about this many tokens, with as much of its messages as fits; else, the shortest that is possible.

    What the model has read already goes first, and a few large pieces go before many small ones: large results, call arguments and
    texts of earlier turns are cut to their beginning and end, with a note that says what was cut; images and files are left out. Then
    the oldest messages are left out, with a note. Last, results are cut that the model has not read yet. The message that the turn
    answers is never cut.

    Args:
        request: the request that is too long.
        most_tokens: the estimated size that it may have.
    """
    messages = list(request.messages)
    most = most_tokens - estimate_tokens(attrs.evolve(request, messages=()))
    asked = _questions(messages)
    fresh = _fresh(messages)
    _cut_largest(messages, lambda place: place < fresh and place not in asked, most)
    rest = _leave_out(messages, most, asked)
    if messages_tokens(rest) > most:
        _cut_largest(messages, lambda place: messages[place].role == "tool" or FROM_TOOL in messages[place].metadata, most)
        rest = _leave_out(messages, most, asked)
    return attrs.evolve(request, messages=rest)


def _leading(messages: Sequence[Message]) -> int:
    """Return how many instructions are at the beginning."""
    return next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))


def _questions(messages: Sequence[Message]) -> Sequence[int]:
    """Return the places of the messages that the turn answers: those of people in the turn of the last message, or at the end."""
    turn_id = messages[-1].turn_id if messages else None
    people = [place for place, message in enumerate(messages) if message.role == "user" and FROM_TOOL not in message.metadata]
    of_turn = [place for place in people if turn_id is not None and messages[place].turn_id == turn_id]
    if of_turn or not people:
        return of_turn
    first = last = people[-1]
    while first > 0 and messages[first - 1].role == "user":
        first -= 1
    return range(first, last + 1)


def _fresh(messages: Sequence[Message]) -> int:
    """Return the place behind the last answer: what comes after it was never read."""
    return next((place + 1 for place in range(len(messages) - 1, -1, -1) if messages[place].role == "assistant"), 0)


def _cut_largest(messages: list[Message], may_cut: Callable[[int], bool], most: float) -> None:
    """Cut the large parts of messages, the largest first, until the messages have at most `most` tokens or nothing large is left."""
    size = messages_tokens(messages)
    large = [
        (part_tokens(part), place, index)
        for place, message in enumerate(messages)
        if may_cut(place)
        for index, part in enumerate(message.parts)
        if _cut(part) != part
    ]
    for tokens, place, index in sorted(large, key=lambda found: (-found[0], found[1])):
        if size <= most:
            return
        parts = list(messages[place].parts)
        parts[index] = _cut(parts[index])
        messages[place] = attrs.evolve(messages[place], parts=parts)
        size -= tokens - part_tokens(parts[index])


def _cut(part: Part) -> Part:
    """Return a part that is small: the same part, or its beginning and its end with a note."""
    match part:
        case TextPart(text=text) if len(text) > LARGE:
            return TextPart(_middle_out(text, "of this text are left out, because the conversation has become too long"))
        case ImagePart() | FilePart():
            return TextPart(MEDIA_NOT_SENT)
        case ToolResult() if len(part.content) > LARGE or part.media:
            note = f"of this result are left out, because the conversation has become too long; call {part.name} again to read them"
            text = _middle_out(part.content, note) if len(part.content) > LARGE else part.content
            return attrs.evolve(part, content=f"{text}\n{MEDIA_NOT_SENT}" if part.media else text, media=())
        case ToolCall(arguments=arguments) if len(canonical(arguments)) > LARGE:
            return attrs.evolve(part, arguments={key: _cut_value(value) for key, value in arguments.items()})
        case _:
            return part


def _cut_value(value: JSONValue) -> JSONValue:
    """Return a value of an argument with its long texts cut."""
    match value:
        case str() if len(value) > LARGE:
            return _middle_out(value, "of this argument are left out, because the conversation has become too long")
        case list():
            return [_cut_value(item) for item in value]
        case dict():
            return {key: _cut_value(item) for key, item in value.items()}
        case _:
            return value


def _middle_out(text: str, note: str) -> str:
    return f"{text[:HEAD]}\n[{len(text) - HEAD - TAIL} characters {note}]\n{text[-TAIL:]}"


def _leave_out(messages: Sequence[Message], most: float, asked: Sequence[int]) -> Sequence[Message]:
    """Return the messages without the oldest, as few of them as will do; instructions and the messages that are answered stay."""
    leading = _leading(messages)
    weights = [messages_tokens((message,)) for message in messages]
    if sum(weights) <= most:
        return tuple(messages)
    around = sum(weights[:leading]) + messages_tokens(_note(messages, messages))  # what is before the first message that stays
    left = sum(weights[leading:])
    cut, passed = leading, leading
    for place in cut_places(messages, leading, len(messages) - 1):
        left -= sum(weights[passed:place])
        cut = passed = place
        if around + left + sum(weights[question] for question in asked if question < cut) <= most:
            break
    kept = (*(messages[question] for question in asked if question < cut), *messages[cut:])
    return tuple(messages) if cut == leading else (*messages[:leading], *_note(messages, kept), *kept)


def _note(messages: Sequence[Message], kept: Sequence[Message]) -> Sequence[Message]:
    """Return the messages that replace those that are left out; the roles still alternate."""
    ids = {message.message_id for message in messages}
    note = [Message(free_id("left-out", ids), "user", (TextPart(LEFT_OUT),))]
    if kept[0].role != "assistant":
        note.append(Message(free_id("left-out-read", ids), "assistant", (TextPart(LEFT_OUT_READ),), "stop"))
    return note


def free_id(wanted: str, taken: set[str]) -> str:
    """Return an id for a message that is in a request only, and that no other message of the request has."""
    while wanted in taken:
        wanted += "_"
    return wanted


def cut_places(messages: Sequence[Message], start: int, end: int) -> Sequence[int]:
    """Return the places behind `start`, up to `end`, at which the messages may be cut: none of them between a call and its results.

    Args:
        messages: oldest first.
        start: the place of the first message that is cut off.
        end: the last place that is wanted.
    """
    places: list[int] = []
    opened: set[str] = set()
    for place in range(start, min(end, len(messages) - 1) + 1):
        if place > start and not opened and messages[place].role != "tool":
            places.append(place)
        opened.update(call.call_id for call in messages[place].calls)
        opened.difference_update(result.call_id for result in messages[place].results)
    return places


# ── which size a model takes


def known_limit(metadata: Mapping[str, object], model: str) -> float | None:
    """Return the estimated size of a request that this model takes in this conversation, if it has refused a longer one."""
    limits = metadata.get(LIMITS)
    limit = limits.get(model) if isinstance(limits, Mapping) else None
    return limit if isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0 else None

"""A history in the one shape that every provider takes.

Turns alternate: a person speaks first and, unless results of tools are due, last; every call has its result; no part is empty; ids and
names have the characters that providers allow. The parts of an answer stay in the order in which the model gave them. The adapters
only write this shape down.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from trio_sagents.data.messages import FilePart, ImagePart, Message, OpaquePart, TextPart, ThinkingPart, ToolCall, ToolResult, UserPart
from trio_sagents.models._fields import whole_text

BEGIN_TEXT: Final = "(The conversation begins with your message.)"
"""Stands for the person if a history begins with an answer."""
CONTINUE_TEXT: Final = "Continue."
"""Stands for the person if a history ends with an answer."""
NO_RESULT_TEXT: Final = "The result of this call is not known."
EMPTY_RESULT_TEXT: Final = "(no output)"
MEDIA_RESULT_TEXT: Final = "(the output follows as images or files)"

MAX_NAME: Final = 64

AnswerPart: TypeAlias = TextPart | ThinkingPart | OpaquePart | ToolCall


@attrs.frozen
class Spoken:
    """What a person said between two answers."""

    parts: tuple[UserPart, ...]
    """At least one; no blank text."""


@attrs.frozen
class Answered:
    """What the model said, and the results of its calls."""

    parts: tuple[AnswerPart, ...]
    """In the model's order. At least one is text or a call; no blank text; the calls have unique ids."""
    results: tuple[ToolResult, ...] = ()
    """One for each call, in the order of the calls."""
    starts: tuple[int, ...] = (0,)
    """Where in `parts` each message begins that was merged into this answer."""

    @property
    def calls(self) -> Sequence[ToolCall]:
        """The calls in it."""
        return [part for part in self.parts if isinstance(part, ToolCall)]

    @property
    def messages(self) -> Iterator[Sequence[AnswerPart]]:
        """The parts of each message that was merged into this answer, oldest first."""
        for start, end in zip(self.starts, (*self.starts[1:], len(self.parts)), strict=True):
            yield self.parts[start:end]


Turn: TypeAlias = Spoken | Answered


@attrs.frozen
class History:
    """What goes to a provider, but for the wording."""

    system: str
    """May be empty."""
    turns: Sequence[Turn]
    """Begins with `Spoken`; ends with `Spoken`, with an `Answered` that has calls, or with one that its provider continues."""

    @property
    def present(self) -> int:
        """The place of the first turn behind the last words of a person: from there on, the model is at work."""
        return next((place + 1 for place in reversed(range(len(self.turns))) if isinstance(self.turns[place], Spoken)), 0)


def shape_history(
    system: str, messages: Sequence[Message], fit_id: Callable[[str], str], names: Collection[str], provider: str | None = None
) -> History:
    """Return the history in the shape that providers take.

    Args:
        system: the system prompt; system messages at the start are added to it, later ones are told as text.
        messages: oldest first; made valid, even if something is missing, duplicated or empty.
        fit_id: gives the form of a call id that the provider allows; need not be unique, but the id of an id is that id.
        names: of the tools offered now; other names of tools, which a model may have invented, are made to fit.
        provider: who is asked. What only another provider can read is left out (`count_foreign`); None keeps it all.
    """
    prompts, rest = _split_system(messages)
    turns: list[Turn] = []
    labels = _Labels(fit_id, names)
    for place, message in enumerate(rest):
        if message.role == "assistant":
            _add_answer(turns, message, _results_after(rest, place), labels, provider)
        elif message.role == "user":
            _add_spoken(turns, message.parts)
        elif message.role == "system" and message.text.strip():
            _add_spoken(turns, [TextPart(f"<system>\n{message.text}\n</system>")])
    if not turns or isinstance(turns[0], Answered):
        turns.insert(0, Spoken((TextPart(BEGIN_TEXT if turns else CONTINUE_TEXT),)))
    is_open = bool(rest) and _is_open(rest[-1], provider)
    if isinstance(last := turns[-1], Answered) and not last.calls and not is_open:
        turns.append(Spoken((TextPart(CONTINUE_TEXT),)))
    return History("\n\n".join(whole_text(text) for text in (system, *prompts) if text.strip()), turns)


def count_foreign(messages: Sequence[Message], provider: str) -> Mapping[str, int]:
    """Return how many parts of a history only other providers can read, by provider."""
    found: Counter[str] = Counter()
    for message in messages:
        if message.role == "assistant":
            for part in message.parts:
                owner = _owner_of(part.opaque if isinstance(part, ToolCall) else part)
                if owner is not None and owner != provider:
                    found[owner] += 1
    return found


def result_text(result: ToolResult) -> str:
    """Return what the model reads of a result; never blank."""
    if result.content.strip():
        return whole_text(result.content)
    return MEDIA_RESULT_TEXT if result.media else EMPTY_RESULT_TEXT


def _owner_of(part: object) -> str | None:
    return part.provider if isinstance(part, ThinkingPart | OpaquePart) else None


def _split_system(messages: Sequence[Message]) -> tuple[list[str], Sequence[Message]]:
    count = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    return [message.text for message in messages[:count]], messages[count:]


def _results_after(messages: Sequence[Message], place: int) -> dict[str, deque[ToolResult]]:
    """Return the results between this answer and the next, by the id of their call."""
    found: dict[str, deque[ToolResult]] = {}
    for message in messages[place + 1 :]:
        if message.role == "assistant":
            break
        for result in message.results:
            found.setdefault(result.call_id, deque()).append(result)
    return found


def _add_spoken(turns: list[Turn], parts: Iterable[object]) -> None:
    kept = tuple(_kept_user_parts(parts))
    if not kept:
        return
    if turns and isinstance(last := turns[-1], Spoken):
        turns[-1] = Spoken(last.parts + kept)
    else:
        turns.append(Spoken(kept))


def _kept_user_parts(parts: Iterable[object]) -> Iterator[UserPart]:
    for part in parts:
        match part:
            case TextPart(text=text) if text.strip():
                yield TextPart(whole_text(text))
            case ImagePart() | FilePart():
                yield part
            case _:
                pass


def _add_answer(
    turns: list[Turn], message: Message, results: dict[str, deque[ToolResult]], labels: "_Labels", provider: str | None
) -> None:
    said: list[AnswerPart] = []
    answers: list[ToolResult] = []
    for part in message.parts:
        match part:
            case TextPart(text=text) if text.strip():
                said.append(TextPart(whole_text(text)))
            case ThinkingPart() | OpaquePart() if provider is None or part.provider in {None, provider}:
                said.append(part)
            case ToolCall():
                call_id = labels.unused_id(part.call_id)
                opaque = part.opaque if part.opaque is None or provider in {None, part.opaque.provider} else None
                said.append(ToolCall(call_id, labels.name(part.name), part.arguments, part.status, opaque=opaque))
                known = results.get(part.call_id)
                result = known.popleft() if known else ToolResult(part.call_id, part.name, NO_RESULT_TEXT, "unknown")
                answers.append(attrs.evolve(result, call_id=call_id))
            case _:
                pass
    if not any(isinstance(part, TextPart | ToolCall) for part in said) and not _is_open(message, provider):
        return
    starts: tuple[int, ...] = (0,)
    if turns and isinstance(last := turns[-1], Answered) and not last.calls:
        turns.pop()
        starts = (*last.starts, len(last.parts))
        said = [*last.parts, *said]
    turns.append(Answered(tuple(said), tuple(answers), starts))


def _is_open(message: Message, provider: str | None) -> bool:
    """Return whether an answer is one that this provider has paused, and continues if it gets the answer back as it came."""
    return message.stop_reason == "continued" and any(isinstance(part, OpaquePart) and part.provider == provider for part in message.parts)


@attrs.define(eq=False)
class _Labels:
    """Ids and names of one request."""

    fit_id: Callable[[str], str]
    names: Collection[str]
    used: set[str] = attrs.field(factory=set)

    def unused_id(self, call_id: str) -> str:
        fitting = self.fit_id(call_id)
        candidate, number = fitting, 1
        while candidate in self.used:
            number += 1
            candidate = self.fit_id(f"{fitting[:30]}_{number}")
        self.used.add(candidate)
        return candidate

    def name(self, name: str) -> str:
        if name in self.names:
            return name
        return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:MAX_NAME] or "unknown"

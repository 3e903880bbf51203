"""A history in the one shape that every provider takes.

Turns alternate: a person speaks first and, unless results of tools are due, last; every call has its result; nothing is
empty; ids and names have the characters that providers allow. The adapters only write this shape down.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs

from trio_sagents.data.messages import FilePart, ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolResult, UserPart
from trio_sagents.models._fields import whole_text

BEGIN_TEXT: Final = "(The conversation begins with your message.)"
"""Stands for the person where a history begins with an answer."""
CONTINUE_TEXT: Final = "Continue."
"""Stands for the person where a history ends with an answer."""
NO_RESULT_TEXT: Final = "The result of this call is not known."
EMPTY_RESULT_TEXT: Final = "(no output)"

MAX_NAME: Final = 64

AnswerPart: TypeAlias = TextPart | ThinkingPart | ToolCall


@attrs.frozen
class Spoken:
    """What a person said between two answers."""

    parts: tuple[UserPart, ...]
    """At least one; no blank text."""


@attrs.frozen
class Answered:
    """What the model said, and what its calls came to."""

    parts: tuple[AnswerPart, ...]
    """At least one that is not thinking; no blank text; the calls last, with unique ids."""
    results: tuple[ToolResult, ...] = ()
    """One for each call, in the order of the calls."""

    @property
    def calls(self) -> Sequence[ToolCall]:
        """The calls in it."""
        return [part for part in self.parts if isinstance(part, ToolCall)]


Turn: TypeAlias = Spoken | Answered


@attrs.frozen
class History:
    """What goes to a provider, but for the wording."""

    system: str
    """May be empty."""
    turns: Sequence[Turn]
    """Begins with `Spoken`; ends with `Spoken`, or with an `Answered` that has calls."""


def shape_history(system: str, messages: Sequence[Message], fit_id: Callable[[str], str], names: Collection[str]) -> History:
    """Return the history in the shape that providers take.

    Args:
        system: the system prompt; system messages at the start are added to it, later ones are told as text.
        messages: oldest first; kept valid whatever is missing, doubled or empty in it.
        fit_id: gives the form of a call id that the provider allows; need not be unique.
        names: of the tools offered now; other names of tools, which a model may have invented, are made to fit.
    """
    prompts, rest = _split_system(messages)
    turns: list[Turn] = []
    labels = _Labels(fit_id, names)
    for place, message in enumerate(rest):
        if message.role == "assistant":
            _add_answer(turns, message, _results_after(rest, place), labels)
        elif message.role == "user":
            _add_spoken(turns, message.parts)
        elif message.role == "system" and message.text.strip():
            _add_spoken(turns, [TextPart(f"<system>\n{message.text}\n</system>")])
    if not turns or isinstance(turns[0], Answered):
        turns.insert(0, Spoken((TextPart(BEGIN_TEXT if turns else CONTINUE_TEXT),)))
    if isinstance(last := turns[-1], Answered) and not last.calls:
        turns.append(Spoken((TextPart(CONTINUE_TEXT),)))
    return History("\n\n".join(whole_text(text) for text in (system, *prompts) if text.strip()), turns)


def result_text(result: ToolResult) -> str:
    """Return what the model reads of a result; never blank."""
    return whole_text(result.content) if result.content.strip() else EMPTY_RESULT_TEXT


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


def _add_answer(turns: list[Turn], message: Message, results: dict[str, deque[ToolResult]], labels: "_Labels") -> None:
    said: list[AnswerPart] = []
    for part in message.parts:
        match part:
            case TextPart(text=text) if text.strip():
                said.append(TextPart(whole_text(text)))
            case ThinkingPart():
                said.append(part)
            case _:
                pass
    calls: list[ToolCall] = []
    answers: list[ToolResult] = []
    for call in message.calls:
        call_id = labels.unused_id(call.call_id)
        calls.append(ToolCall(call_id, labels.name(call.name), call.arguments, call.status))
        known = results.get(call.call_id)
        result = known.popleft() if known else ToolResult(call.call_id, call.name, NO_RESULT_TEXT, "unknown")
        answers.append(attrs.evolve(result, call_id=call_id))
    if not calls:
        while said and isinstance(said[-1], ThinkingPart):
            said.pop()
        if not said:
            return
    if turns and isinstance(last := turns[-1], Answered) and not last.calls:
        turns.pop()
        said = [*last.parts, *said]
    turns.append(Answered((*said, *calls), tuple(answers)))


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
            candidate = f"{fitting[:30]}_{number}"
        self.used.add(candidate)
        return candidate

    def name(self, name: str) -> str:
        if name in self.names:
            return name
        return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:MAX_NAME] or "unknown"

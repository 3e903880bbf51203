"""Repairs a history so that every provider accepts it.

The histories that the library stores are valid. A history that a host seeds, that another middleware makes of a request, or that
an older version has stored may be invalid. Providers refuse such a history, at each request, for ever.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from trio_sagents.agent import MiddlewareContext
from trio_sagents.data.messages import FilePart, ImagePart, Message, OpaquePart, Part, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.requests import ModelRequest
from trio_sagents.middleware._built_in import BuiltIn

CANCELLED_TEXT: Final = "This call was cancelled: it has no result."
BEGIN_TEXT: Final = "(The conversation begins here.)"
CONTINUE_TEXT: Final = "Continue."


@attrs.frozen(eq=False)
class PatchToolCalls(BuiltIn):
    """Make the history of each request valid; the stored one is not changed. Put it last among those that change requests.

    Each call is answered exactly once, right behind the answer that made the call. A missing result becomes "cancelled"; a duplicate
    result, and a result of no call, is left out. The roles are in order, nothing is empty, and ids are unique.
    """

    async def before_model(self, context: MiddlewareContext, request: ModelRequest) -> ModelRequest:
        """Return the request with a valid history; the same object if the history is valid already.

        Cancellation: nothing was done.
        """
        messages = valid_history(request.messages)
        return request if messages is request.messages else attrs.evolve(request, messages=messages)


def valid_history(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages in a form that every provider accepts; the same object if they are valid already.

    Args:
        messages: oldest first; with any content.
    """
    patched = _Patch(messages).run()
    is_same = len(patched) == len(messages) and all(new is old for new, old in zip(patched, messages, strict=True))
    return messages if is_same else patched


@attrs.define(eq=False)
class _Patch:
    """A history while it is built."""

    messages: Sequence[Message]
    patched: list[Message] = attrs.field(factory=list)
    ids: set[str] = attrs.field(factory=set)
    call_ids: set[str] = attrs.field(factory=set)
    results: dict[str, deque[tuple[int, Message, ToolResult]]] = attrs.field(factory=dict)
    """By call id: the results of the call, each with its message and the place of the message, oldest first."""

    def run(self) -> Sequence[Message]:
        for place, message in enumerate(self.messages):
            for result in message.results:
                self.results.setdefault(result.call_id, deque()).append((place, message, result))
        callers = _callers(self.messages)
        for place, message in enumerate(self.messages):
            match message.role:
                case "assistant":
                    self._add_answer(place, message, callers)
                case "user":
                    self._add(message, _user_parts(message.parts))
                case "system":
                    self._add_system(message)
                case _:
                    pass  # the results are behind their calls already
        first = next((place for place, message in enumerate(self.patched) if message.role != "system"), len(self.patched))
        if first == len(self.patched) or self.patched[first].role != "user":
            self.patched.insert(first, self._new("begin", "user", BEGIN_TEXT if first < len(self.patched) else CONTINUE_TEXT))
        if self.patched[-1].role == "assistant":
            self.patched.append(self._new("continue", "user", CONTINUE_TEXT))
        return self.patched

    def _add_system(self, message: Message) -> None:
        """Add instructions: unchanged at the beginning; later as text of the user, because providers accept them only at the beginning."""
        if not message.text.strip():
            return
        if all(patched.role == "system" for patched in self.patched):
            self._add(message, tuple(part for part in message.parts if isinstance(part, TextPart)))
        else:
            parts = (TextPart(f"<system>\n{message.text}\n</system>"),)
            self._add(attrs.evolve(message, role="user", parts=parts), parts)

    def _add(self, message: Message, parts: Sequence[Part]) -> None:
        if not parts:
            return
        message_id = self._free(message.message_id, self.ids)
        if tuple(parts) != tuple(message.parts) or message_id != message.message_id:
            message = attrs.evolve(message, parts=parts, message_id=message_id)
        self.patched.append(message)

    def _add_answer(self, place: int, message: Message, callers: "dict[str, list[int]]") -> None:
        calls: list[ToolCall] = []
        answers: list[tuple[int, Message | None, ToolResult]] = []
        for call in message.calls:
            found = self._result_of(call, place, callers)
            call_id = self._free(call.call_id or "call", self.call_ids)
            renamed = call if call_id == call.call_id else attrs.evolve(call, call_id=call_id)
            missing = (len(self.messages), None, ToolResult(call_id, call.name, CANCELLED_TEXT, "cancelled"))
            where, origin, result = missing if found is None else found
            if (result.call_id, result.name) != (call_id, call.name):
                origin, result = None, attrs.evolve(result, call_id=call_id, name=call.name)
            calls.append(renamed)
            answers.append((where, origin, result))
        parts = _answer_parts(message.parts, calls)
        if not parts:
            return
        last = self.patched[-1] if self.patched else None
        if last is not None and last.role == "assistant":  # two answers in a row become one answer; the first has no calls
            self.patched.pop()
            parts, message = (*last.parts, *parts), attrs.evolve(message, message_id=last.message_id)
            self.ids.discard(last.message_id)
        self._add(message, parts)
        for _, origin, result in sorted(answers, key=lambda answer: answer[0]):  # in the order in which they were stored
            if origin is not None and len(origin.parts) == 1 and origin.role == "tool":
                self._add(origin, origin.parts)
            else:
                self.patched.append(self._new(f"result-{result.call_id}", "tool", result))

    def _result_of(self, call: ToolCall, place: int, callers: "dict[str, list[int]]") -> tuple[int, Message, ToolResult] | None:
        """Return the first result behind a call, with its message and place; None if another call with that id comes before it."""
        following = next((later for later in callers[call.call_id] if later > place), len(self.messages))
        waiting = self.results.get(call.call_id)
        while waiting:
            where, message, result = waiting[0]
            if where >= following:
                break
            waiting.popleft()
            if where > place:
                return where, message, result
        return None

    def _new(self, name: str, role: str, content: str | ToolResult) -> Message:
        part: Part = content if isinstance(content, ToolResult) else TextPart(content)
        return Message(self._free(f"patched-{name}", self.ids), "tool" if role == "tool" else "user", (part,))

    def _free(self, wanted: str, taken: set[str]) -> str:
        """Return `wanted`, or a similar id if `wanted` is in use; mark the returned id as used."""
        free, number = wanted, 1
        while free in taken:
            number += 1
            free = f"{wanted}_{number}"
        taken.add(free)
        return free


def _callers(messages: Sequence[Message]) -> dict[str, list[int]]:
    """Return, for each call id, the places of the answers that use it."""
    found: dict[str, list[int]] = {}
    for place, message in enumerate(messages):
        if message.role == "assistant":
            for call in message.calls:
                found.setdefault(call.call_id, []).append(place)
    return found


def _user_parts(parts: Iterable[Part]) -> Sequence[Part]:
    kept = tuple(part for part in parts if isinstance(part, TextPart | ImagePart | FilePart))
    return kept if any(not isinstance(part, TextPart) or part.text.strip() for part in kept) else ()


def _answer_parts(parts: Iterable[Part], calls: Sequence[ToolCall]) -> Sequence[Part]:
    """Return the parts of an answer, with its calls as renamed; nothing if the answer has neither text nor calls."""
    renamed = iter(calls)
    kept: list[Part] = []
    for part in parts:
        if isinstance(part, ToolCall):
            kept.append(next(renamed))
        elif isinstance(part, TextPart | ThinkingPart | OpaquePart):
            kept.append(part)
    says = any(isinstance(part, ToolCall) or (isinstance(part, TextPart) and part.text.strip()) for part in kept)
    return tuple(kept) if says else ()

"""From events to text: what a terminal shows of a conversation, as pure decisions on plain data.

A `TurnView` remembers how much of each message is on the screen already. So a delta, a snapshot that repeats what was
streamed, a completed message and a row of the history may come in any mixture, and each character is shown once.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias, assert_never

import attrs

from trio_sagents import (
    AgentShutdown,
    Cancelled,
    ChainError,
    Completed,
    DisplayMessage,
    Event,
    Failed,
    Gap,
    Interrupted,
    Message,
    MessageCompleted,
    MessageQueued,
    ShutdownReason,
    Snapshot,
    StartFailed,
    Status,
    StatusChanged,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    ToolExecutionUpdated,
    ToolIgnoresCancellation,
    TurnEnded,
    TurnOutcome,
    TurnStarted,
    Unanswered,
)

Kind: TypeAlias = Literal["answer", "thinking", "user", "tool", "note", "error"]
MAX_SHOWN: Final = 200
"""Characters of a tool's arguments or output on one line."""
CUTS: Final[Mapping[str, str]] = {
    "crashed": "[cut by a crash]",
    "cancelled": "[cancelled]",
    "stream_error": "[cut: the provider's answer broke off]",
    "length": "[cut: the model's length limit]",
    "content_filtered": "[cut by the provider's content filter]",
}
_ENDS: Final[Mapping[ShutdownReason, str]] = {
    ShutdownReason.CRASHED: "[the agent crashed; the next message starts it again from what is saved]",
    ShutdownReason.FENCED: "[another program wrote to this conversation; the next message goes on from there]",
}


@attrs.frozen
class Piece:
    """Some text, and what it is."""

    text: str
    kind: Kind


def error_text(error: BaseException) -> str:
    """Return an error as one line for people: of a failed start, its cause."""
    if isinstance(error, StartFailed) and error.__cause__ is not None:
        return f"{error.__cause__} (while opening conversation {error.conversation_id!r})"
    return str(error) or type(error).__name__


def one_line(text: str, limit: int = MAX_SHOWN) -> str:
    """Return `text` on one line, cut to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def call_text(name: str, arguments: Mapping[str, object]) -> str:
    """Return a call as people write one."""
    inside = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"{name}({one_line(inside)})"


def outcome_text(outcome: TurnOutcome) -> str:
    """Return what to say of a turn that ended otherwise than completed; empty for a completed one."""
    match outcome:
        case Completed():
            return ""
        case Cancelled(cause=cause):
            return "[cancelled]" if cause == "user" else f"[cancelled: {cause}]"
        case Failed(error=error):
            return f"error: {error_text(error)}"
        case Interrupted(interrupt=interrupt):
            waiting = ", ".join(call_text(call.name, call.arguments) for call in interrupt.calls) or interrupt.kind
            return f"[waits for a person's decision: {waiting}; a new message goes on without it]"
        case Unanswered(reason=reason):
            return f"[not answered yet: {reason}; the message is saved]"
        case _:
            assert_never(outcome)


@attrs.define(eq=False)
class TurnView:
    """One conversation on one screen."""

    status: Status = Status.IDLE
    queued: int = 0
    """Accepted messages that wait for a turn, as far as this view knows."""
    has_gap: bool = False
    """Whether events were missed; the history has what they told."""
    _shown: dict[str, dict[int, int]] = attrs.field(factory=dict)
    """Characters shown of each message that is not whole yet, by part."""
    _whole: set[str] = attrs.field(factory=set)
    """Messages and rows that are shown to their end."""
    _typed: set[str] = attrs.field(factory=set)
    """User messages that were typed here, so the keyboard's echo shows them."""
    _called: set[str] = attrs.field(factory=set)
    """Tool calls of the running turn that are shown."""
    _told: set[str] = attrs.field(factory=set)
    """Turns whose ending was told."""
    _line: Kind | None = None
    """What the unfinished line at the cursor is; None at the start of a line."""

    @property
    def is_busy(self) -> bool:
        """Whether a turn runs, or is about to."""
        return self.status is Status.RUNNING or (self.queued > 0 and self.status in {Status.IDLE, Status.CANCELLED})

    def has_taken(self, message_id: str) -> bool:
        """Return whether a turn took this user message."""
        return message_id in self._whole

    def show(self, event: Event) -> Sequence[Piece]:
        """Return what to print for one event; may be empty."""
        return tuple(self._show(event))

    def show_rows(self, rows: Iterable[DisplayMessage]) -> Sequence[Piece]:
        """Return what to print for rows of the history, oldest first, of which some may be on the screen already."""
        before = frozenset(self._whole)
        return tuple(piece for row in rows if row.message_id not in before for piece in self._row(row))

    def show_line(self, text: str, kind: Kind) -> Sequence[Piece]:
        """Return what to print for a line of the chat itself."""
        return tuple(self._whole_line(text, kind))

    def note_typed(self, message_id: str) -> None:
        """Take note that this user message was typed here: the cursor is at the start of a line, and no row repeats it."""
        self._typed.add(message_id)
        self._line = None

    def _show(self, event: Event) -> Iterator[Piece]:
        match event:
            case TextDelta(text=text, message_id=message_id, part=part, offset=offset):
                yield from self._delta(text, message_id, part, offset, "answer")
            case ThinkingDelta(text=text, message_id=message_id, part=part, offset=offset):
                yield from self._delta(text, message_id, part, offset, "thinking")
            case MessageCompleted(message=message):
                yield from self._message(message)
            case ToolExecutionUpdated(call=call, status=status, output=output, error=error):
                yield from self._tool(call, status, output, error)
            case Snapshot():
                yield from self._snapshot(event)
            case TurnEnded() | ChainError() | ToolIgnoresCancellation() | AgentShutdown():
                yield from self._ending(event)
            case _:
                self._note(event)

    def _note(self, event: Event) -> None:
        """Take note of what has no text; what this screen has no place for is passed over."""
        match event:
            case StatusChanged(status=status):
                self.status = status
            case TurnStarted():
                self.status = Status.RUNNING
                self._called.clear()
            case MessageQueued():
                self.queued += 1
            case Gap():
                self.has_gap = True
            case _:
                pass

    def _ending(self, event: TurnEnded | ChainError | ToolIgnoresCancellation | AgentShutdown) -> Iterator[Piece]:
        match event:
            case TurnEnded(turn_id=turn_id, outcome=outcome):
                text = outcome_text(outcome)
                if text and turn_id not in self._told:
                    yield from self._whole_line(text, "error" if isinstance(outcome, Failed) else "note")
                self._told.discard(turn_id)
                yield from self._end_line()
            case ChainError(error=error, unsaved=unsaved, turn_id=told):
                if told is not None:
                    self._told.add(told)
                text = error_text(error) + (" [what was shown since the last save is lost]" if unsaved else "")
                yield from self._whole_line(f"error: {text}", "error")
            case ToolIgnoresCancellation(call=call):
                yield from self._whole_line(f"[{call.name} does not stop; waiting for it]", "note")
            case AgentShutdown(reason=reason):
                self.status = Status.IDLE
                self.queued = 0
                self.has_gap = self.has_gap or reason is ShutdownReason.FENCED  # what the other program wrote
                if reason in _ENDS:
                    yield from self._whole_line(_ENDS[reason], "error")

    def _snapshot(self, snapshot: Snapshot) -> Iterator[Piece]:
        self.status = snapshot.status
        self.queued = snapshot.queued
        if snapshot.streaming is None or snapshot.streaming.message_id in self._whole:
            return
        message_id = snapshot.streaming.message_id
        before = sum(self._shown.get(message_id, {}).values())
        counts: dict[int, int] = {}
        for index, part in enumerate(snapshot.streaming.parts):
            if isinstance(part, TextPart | ThinkingPart):
                kind: Kind = "answer" if isinstance(part, TextPart) else "thinking"
                yield from self._stream(part.text[before:], kind)
                before = max(0, before - len(part.text))
                counts[index] = len(part.text)
        self._shown[message_id] = counts

    def _delta(self, text: str, message_id: str, part: int, offset: int, kind: Kind) -> Iterator[Piece]:
        if message_id in self._whole:
            return
        parts = self._shown.setdefault(message_id, {})
        known = parts.get(part, 0)
        yield from self._stream(text[max(0, known - offset) :], kind)
        parts[part] = max(known, offset + len(text))

    def _message(self, message: Message) -> Iterator[Piece]:
        if message.role == "user":
            self.queued = max(0, self.queued - 1)
        is_known = message.message_id in self._whole
        self._whole.add(message.message_id)
        if is_known or message.role != "assistant":
            return
        for part in message.parts:
            if isinstance(part, TextPart | ThinkingPart):
                rest = self._rest(message.message_id, part.text)
                yield from self._stream(rest, "answer" if isinstance(part, TextPart) else "thinking")
        self._shown.pop(message.message_id, None)
        yield from self._cut(message.stop_reason, message.turn_id)

    def _cut(self, stop_reason: object, turn_id: str | None) -> Iterator[Piece]:
        if isinstance(stop_reason, str) and stop_reason in CUTS:
            yield from self._whole_line(CUTS[stop_reason], "note")
            if turn_id is not None and stop_reason == "cancelled":
                self._told.add(turn_id)
        yield from self._end_line()

    def _tool(self, call: ToolCall, status: str, output: str | None, error: str | None) -> Iterator[Piece]:
        self._called.add(call.call_id)
        if status == "executing":
            yield from self._whole_line(f"  · {call_text(call.name, call.arguments)} runs", "tool")
        elif status != "pending":
            yield from self._whole_line(_result_text(call.name, status, output if error is None else error), "tool")

    def _row(self, row: DisplayMessage) -> Iterator[Piece]:
        self._whole.add(row.message_id)
        text = str(row.content.get("text", ""))
        match row.content_type:
            case "text" if row.role == "user":
                if row.message_id not in self._typed:
                    yield from self._whole_line(f"> {text}", "user")
            case "text" | "thinking":
                yield from self._stream(self._rest(row.message_id, text), "answer" if row.content_type == "text" else "thinking")
                yield from self._cut(row.content.get("stop_reason"), None)
            case "tool_call" | "tool_result":
                yield from self._tool_row(row)
            case "notification" if row.content.get("stop_reason") in CUTS:
                yield from self._whole_line(f"[no answer] {CUTS[str(row.content['stop_reason'])]}", "note")
            case other:
                yield from self._whole_line(f"[{other}] {one_line(text)}".rstrip(), "note")

    def _tool_row(self, row: DisplayMessage) -> Iterator[Piece]:
        content = row.content
        call_id = content.get("call_id", content.get("tool_call_id"))
        name = str(content.get("name"))
        if call_id in self._called:
            return
        if row.content_type == "tool_call":
            yield from self._whole_line(f"  · {call_text(name, content.get('arguments', {}))} {row.status}", "tool")
        else:
            status = "failed" if content.get("is_error") else "completed"
            yield from self._whole_line(_result_text(name, status, str(content.get("content", ""))), "tool")

    def _rest(self, message_id: str, text: str) -> str:
        """Return what of this part of a whole message is not shown yet."""
        before = sum(self._shown.pop(message_id, {}).values())
        if before > len(text):
            self._shown[message_id] = {0: before - len(text)}
        return text[before:]

    def _stream(self, text: str, kind: Kind) -> Iterator[Piece]:
        if not text:
            return
        if self._line is not None and self._line != kind:
            yield Piece("\n", self._line)
        yield Piece(text, kind)
        self._line = None if text.endswith("\n") else kind

    def _end_line(self) -> Iterator[Piece]:
        if self._line is not None:
            yield Piece("\n", self._line)
            self._line = None

    def _whole_line(self, text: str, kind: Kind) -> Iterator[Piece]:
        yield from self._end_line()
        yield Piece(f"{text}\n", kind)


def _result_text(name: str, status: str, text: str | None) -> str:
    return f"  · {name} {status}" + (f": {one_line(text)}" if text else "")

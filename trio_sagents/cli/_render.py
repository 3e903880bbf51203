"""From events to text: what a terminal shows of a conversation, as pure decisions on plain data.

A `TurnView` remembers how much of each message is on the screen already. So a delta, a snapshot that repeats what was
streamed, a completed message and a row of the history may come in any mixture, and each character is shown once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents import (
    AgentShutdown,
    ChainError,
    DisplayMessage,
    Event,
    Failed,
    Gap,
    Interrupt,
    Interrupted,
    Message,
    MessageCompleted,
    MessageQueued,
    MiddlewareEvent,
    ModelFallback,
    ModelRetrying,
    ShutdownReason,
    Snapshot,
    Status,
    StatusChanged,
    SubAgentEvent,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    TodosUpdated,
    ToolCall,
    ToolExecutionUpdated,
    ToolIgnoresCancellation,
    TurnEnded,
    TurnStarted,
)
from trio_sagents.cli._news import news_text
from trio_sagents.cli._progress import Progress
from trio_sagents.cli._words import Kind, Piece, call_text, error_text, one_line, outcome_text
from trio_sagents.middleware import TitleGenerated

CUTS: Final[Mapping[str, str]] = {
    "crashed": "[cut by a crash]",
    "cancelled": "[cancelled]",
    "user": "[cancelled]",
    "dismissed": "[acknowledged]",
    "superseded": "[replaced by a new message]",
    "stream_error": "[cut: the provider's answer was broken off]",
    "length": "[cut: the model's length limit]",
    "content_filtered": "[cut by the provider's content filter]",
}
CANCELS: Final = frozenset({"cancelled", "user", "dismissed", "superseded"})
"""The causes of a turn that was cancelled: its end is not told again."""
_ENDS: Final[Mapping[ShutdownReason, str]] = {
    ShutdownReason.CRASHED: "[the agent crashed; the next message starts it again, from what is saved]",
    ShutdownReason.FENCED: "[another program has written to this conversation; the next message, or /decide, continues from there]",
}


HANDING_OVER: Final = "task"
"""The tool of sub-agents; the lines of a sub-agent say more than the arguments of its call."""
UNSHOWN: Final = frozenset({"write_todos"})
"""Tools whose effect is shown in another way."""


@attrs.define(eq=False)
class TurnView:
    """One conversation on one screen."""

    status: Status = Status.IDLE
    queued: int = 0
    """How many accepted messages wait for a turn, as far as this view knows."""
    has_gap: bool = False
    """Whether events were missed; the history has their content."""
    interrupt: Interrupt | None = None
    """What waits for a person."""
    title: str | None = None
    """The title of the conversation, as far as this view knows."""
    progress: Progress = attrs.field(factory=Progress)
    _shown: dict[str, dict[int, int]] = attrs.field(factory=dict)
    """By message that is not whole yet, and by part: how many characters are shown."""
    _whole: set[str] = attrs.field(factory=set)
    """The messages and rows that are shown completely."""
    _typed: set[str] = attrs.field(factory=set)
    """The user messages that were typed here, which the echo of the terminal has shown."""
    _called: set[str] = attrs.field(factory=set)
    """The tool calls of the running turn that are shown."""
    _told: set[str] = attrs.field(factory=set)
    """The turns whose end was told."""
    _later: list[Piece] = attrs.field(factory=list)
    """Lines that came in the middle of another line."""
    _line: Kind | None = None
    """The kind of the unfinished line at the cursor; None at the start of a line."""

    @property
    def is_busy(self) -> bool:
        """Whether a turn runs or is about to begin."""
        return self.status is Status.RUNNING or (self.queued > 0 and self.status in {Status.IDLE, Status.CANCELLED})

    def has_taken(self, message_id: str) -> bool:
        """Return whether a turn took this user message."""
        return message_id in self._whole

    @property
    def live(self) -> Sequence[Piece]:
        """The lines below the text that are redrawn with each change; none in the middle of a line."""
        return self.progress.lines() if self._line is None else ()

    def show(self, event: Event) -> Sequence[Piece]:
        """Return the pieces to print for an event of the main channel; may be empty."""
        return tuple(self._show(event))

    def show_debug(self, event: Event) -> Sequence[Piece]:
        """Return the pieces to print for an event of the debug channel, which says what sub-agents do; may be empty."""
        if not isinstance(event, SubAgentEvent):
            return ()
        return tuple(self._whole_lines(self.progress.hear(event)))

    def show_rows(self, rows: Iterable[DisplayMessage]) -> Sequence[Piece]:
        """Return the pieces to print for rows of the history, oldest first; some of the rows may be on the screen already."""
        before = frozenset(self._whole)
        return tuple(piece for row in rows if row.message_id not in before for piece in self._row(row))

    def show_line(self, text: str, kind: Kind) -> Sequence[Piece]:
        """Return the pieces to print for a line of the chat itself."""
        return tuple(self._whole_line(text, kind))

    def note_typed(self, message_id: str) -> None:
        """Note that this user message was typed here: the cursor is at the start of a line, and no row repeats the message."""
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
            case TodosUpdated(todos=todos):
                yield from self._whole_lines(self.progress.change(todos))
            case ModelRetrying() | ModelFallback():
                yield from self._voided(event)
            case MiddlewareEvent():
                yield from self._news(event)
            case TurnEnded() | ChainError() | ToolIgnoresCancellation() | AgentShutdown():
                yield from self._ending(event)
            case _:
                self._note(event)

    def _note(self, event: Event) -> None:
        """Note an event that has no text of its own; other events are not shown."""
        match event:
            case StatusChanged(status=status, data=data):
                self.status = status
                self.interrupt = data if isinstance(data, Interrupt) else None
            case TurnStarted():
                self.status = Status.RUNNING
                self._called.clear()
            case MessageQueued():
                self.queued += 1
            case Gap():
                self.has_gap = True
            case _:
                pass

    def _voided(self, event: ModelRetrying | ModelFallback) -> Iterator[Piece]:
        """Note that the text of a message is void: it stays on the screen, with a line that says that the model failed."""
        self._shown.pop(event.message_id, None)
        then = f"retrying in {event.delay:g} s" if isinstance(event, ModelRetrying) else f"{event.fallback} is asked"
        yield from self._whole_line(f"[{event.model} failed: {error_text(event.error)}; {then}]", "error")

    def _news(self, event: MiddlewareEvent) -> Iterator[Piece]:
        if isinstance(event, TitleGenerated):
            self.title = event.title
        text, kind = news_text(event)
        if text and self._line is not None:
            self._later.append(Piece(f"{text}\n", kind))
        elif text:
            yield from self._whole_line(text, kind)

    def _ending(self, event: TurnEnded | ChainError | ToolIgnoresCancellation | AgentShutdown) -> Iterator[Piece]:
        match event:
            case TurnEnded(turn_id=turn_id, outcome=outcome):
                self.progress.forget_helpers()
                text = "" if isinstance(outcome, Interrupted) else outcome_text(outcome)
                if text and turn_id not in self._told:
                    yield from self._whole_line(text, "error" if isinstance(outcome, Failed) else "note")
                self._told.discard(turn_id)
                yield from self._end_line()
                yield from self.progress.close()
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
                self.has_gap = self.has_gap or reason is ShutdownReason.FENCED  # the other program has written messages
                if reason in _ENDS:
                    yield from self._whole_line(_ENDS[reason], "error")

    def _snapshot(self, snapshot: Snapshot) -> Iterator[Piece]:
        self.status = snapshot.status
        self.queued = snapshot.queued
        self.interrupt = snapshot.interrupt
        self.progress.learn(snapshot.todos)
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
        yield from self._cut(message.metadata.get("cause", message.stop_reason), message.turn_id)

    def _cut(self, reason: object, turn_id: str | None) -> Iterator[Piece]:
        if isinstance(reason, str) and reason in CUTS:
            yield from self._whole_line(CUTS[reason], "note")
            if turn_id is not None and reason in CANCELS:
                self._told.add(turn_id)
        yield from self._end_line()

    def _tool(self, call: ToolCall, status: str, output: str | None, error: str | None) -> Iterator[Piece]:
        self._called.add(call.call_id)
        text = output if error is None else error
        is_over = status not in {"pending", "executing", "interrupted"}
        if call.name in UNSHOWN and status in {"executing", "completed"}:
            return
        if call.name == HANDING_OVER and status == "executing":
            yield from self._whole_lines(self.progress.begin(call.call_id, call.arguments))
        elif call.name == HANDING_OVER and is_over:
            yield from self._whole_lines(self.progress.end(call.call_id, call.arguments, status, text))
        elif status == "executing":
            yield from self._whole_line(f"  · {call_text(call.name, call.arguments)} runs", "tool")
        elif is_over:
            yield from self._whole_line(_result_text(call.name, status, text), "tool")

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
            case "error":
                yield from self._whole_line(f"error: {one_line(text)}", "error")
                if "unsent" in row.content:
                    yield from self._whole_line("[the model does not read that message any more]", "note")
            case other:
                yield from self._whole_line(f"[{other}] {one_line(text)}".rstrip(), "note")

    def _tool_row(self, row: DisplayMessage) -> Iterator[Piece]:
        content = row.content
        call_id = content.get("call_id", content.get("tool_call_id"))
        name = str(content.get("name"))
        if call_id in self._called or (name in UNSHOWN and row.status == "completed"):
            return
        if row.content_type == "tool_call":
            yield from self._whole_line(f"  · {call_text(name, content.get('arguments', {}))} {row.status}", "tool")
        else:
            status = "failed" if content.get("is_error") else "completed"
            yield from self._whole_line(_result_text(name, status, str(content.get("content", ""))), "tool")

    def _rest(self, message_id: str, text: str) -> str:
        """Return the rest of this part of a whole message, which is not shown yet."""
        before = sum(self._shown.pop(message_id, {}).values())
        if before > len(text):
            self._shown[message_id] = {0: before - len(text)}
        return text[before:]

    def _stream(self, text: str, kind: Kind) -> Iterator[Piece]:
        if not text:
            return
        if self._line is None:
            yield from self.progress.close()
        elif self._line != kind:
            yield Piece("\n", self._line)
        yield Piece(text, kind)
        self._line = None if text.endswith("\n") else kind

    def _end_line(self) -> Iterator[Piece]:
        if self._line is not None:
            yield Piece("\n", self._line)
            self._line = None
        later, self._later = self._later, []
        yield from later

    def _whole_lines(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            yield from self._end_line()
            yield piece

    def _whole_line(self, text: str, kind: Kind) -> Iterator[Piece]:
        yield from self._end_line()
        yield Piece(f"{text}\n", kind)


def _result_text(name: str, status: str, text: str | None) -> str:
    return f"  · {name} {status}" + (f": {one_line(text)}" if text else "")

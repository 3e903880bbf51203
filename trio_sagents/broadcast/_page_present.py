"""What a page shows of the present of one conversation: everything but the transcript, folded from events.

A pure value that changes: nothing here waits, and nothing here knows Trio.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import attrs

from trio_sagents.data.events import (
    AgentShutdown,
    ChainError,
    Event,
    Gap,
    MessageCompleted,
    MessageQueued,
    ModelFallback,
    ModelRetrying,
    Snapshot,
    StatusChanged,
    StreamingMessage,
    TextDelta,
    ThinkingDelta,
    TodosUpdated,
    ToolCallIdentified,
    ToolExecutionUpdated,
    TurnEnded,
    TurnStarted,
)
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.messages import Message, Part, TextPart, ThinkingPart, ToolCall, ToolStatus
from trio_sagents.data.status import Status
from trio_sagents.data.todos import Todo

PagePart: TypeAlias = Literal["rows", "streaming", "tool_calls", "status", "interrupt", "todos", "queued"]
"""A part of a page."""
_OPEN: Final[frozenset[ToolStatus]] = frozenset({"pending", "executing", "interrupted"})


@attrs.define(eq=False)
class _SpokenPart:
    """The text of one part of a message that a model is still speaking, in pieces: joining them at each delta would cost too much."""

    kind: type[TextPart] | type[ThinkingPart]
    pieces: list[str]
    size: int

    def put(self, offset: int, text: str) -> bool:
        """Put a text at its place, for the first time or again; False if something before it is missing."""
        if offset > self.size:
            return False
        if offset + len(text) > self.size:
            self.pieces.append(text[self.size - offset :])
            self.size = offset + len(text)
        return True

    def part(self) -> Part:
        """Return the part as it is now."""
        self.pieces = ["".join(self.pieces)]
        return self.kind(self.pieces[0])


@attrs.define(eq=False)
class _Spoken:
    """A message that a model is still speaking."""

    message_id: str
    parts: dict[int, _SpokenPart] = attrs.field(factory=dict)

    def put(self, delta: TextDelta | ThinkingDelta) -> bool:
        """Put the text of a delta at its place; False if something before it is missing."""
        kind = TextPart if isinstance(delta, TextDelta) else ThinkingPart
        return self.parts.setdefault(delta.part, _SpokenPart(kind, [], 0)).put(delta.offset, delta.text)

    def message(self) -> StreamingMessage:
        """Return the message as it is now."""
        return StreamingMessage(self.message_id, tuple(self.parts[index].part() for index in sorted(self.parts)))


def _spoken_of(message: StreamingMessage | None) -> _Spoken | None:
    if message is None:
        return None
    spoken = _Spoken(message.message_id)
    for index, part in enumerate(message.parts):
        if isinstance(part, TextPart | ThinkingPart):
            spoken.parts[index] = _SpokenPart(type(part), [part.text], len(part.text))
    return spoken


@attrs.define(eq=False)
class PagePresent:
    """What a page shows of the present of one conversation."""

    status: Status = Status.IDLE
    error: str | None = None
    """The text of the status ERROR, if it began while the page was open."""
    is_up: bool = False
    """Whether an agent of the conversation is up."""
    interrupt: Interrupt | None = None
    """What waits for people."""
    todos: Sequence[Todo] = ()
    queued: int = 0
    """How many accepted messages wait for a turn."""
    _spoken: _Spoken | None = None
    _calls: dict[str, tuple[ToolCall, str | None]] = attrs.field(factory=dict)
    # Invariant: the open calls of the running turn by call id, each with the id of its message until that message is in the history.
    _changed: set[PagePart] = attrs.field(factory=set)

    @property
    def streaming(self) -> StreamingMessage | None:
        """The message that is being spoken, with its text so far; None between messages."""
        return None if self._spoken is None else self._spoken.message()

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The open calls of the running turn, with their status."""
        return tuple(call for call, _ in self._calls.values())

    def take_changed(self) -> frozenset[PagePart]:
        """Return the parts that may be different since the last call."""
        changed = frozenset(self._changed)
        self._changed.clear()
        return changed

    def apply(self, event: Event) -> None:
        """Apply the next event of the channel "main"."""
        match event:
            case Snapshot():
                self._show(event)
            case Gap():
                self._speak(None)
            case TodosUpdated(todos=todos):
                self.todos = todos
                self._changed.add("todos")
            case StatusChanged(status=status, data=data):
                self._set_status(status, data if isinstance(data, str) else None, is_up=True)
                self._wait_for(data if isinstance(data, Interrupt) else None)
            case AgentShutdown(status=status, queued=queued):
                self._set_status(status, self.error, is_up=False)
                self._queue(queued)
                self._end_turn()
            case MessageQueued():
                self._queue(self.queued + 1)
            case MessageCompleted(message=message):
                self._complete(message)
            case _:
                self._apply_to_turn(event)

    def _apply_to_turn(self, event: Event) -> None:
        match event:
            case TurnStarted() | TurnEnded() | ChainError(unsaved=True):
                self._end_turn()
            case TextDelta() | ThinkingDelta():
                spoken = self._spoken
                if spoken is None or spoken.message_id != event.message_id:
                    spoken = _Spoken(event.message_id)
                # If a part of the text was missed, the message is shown when it is complete.
                self._speak(spoken if spoken.put(event) else None)
            case ModelRetrying(message_id=message_id) | ModelFallback(message_id=message_id):
                self._forget_spoken(message_id)
                for call_id in [call_id for call_id, (_, asked_by) in self._calls.items() if asked_by == message_id]:
                    self._drop_call(call_id)
            case ToolCallIdentified(call=call, message_id=message_id):
                self._put_call(call, message_id)
            case ToolExecutionUpdated(call=call, status=status):
                if status in _OPEN:
                    self._put_call(attrs.evolve(call, status=status), None)
                else:
                    self._drop_call(call.call_id)

    def _complete(self, message: Message) -> None:
        self._forget_spoken(message.message_id)
        if message.role == "user":
            self._queue(max(0, self.queued - 1))
        for call in message.calls:
            known, _ = self._calls.get(call.call_id, (call, None))
            self._put_call(attrs.evolve(call, status=known.status), None)
        for result in message.results:
            self._drop_call(result.call_id)

    def _show(self, snapshot: Snapshot) -> None:
        self._set_status(snapshot.status, None, is_up=True)
        self.todos = snapshot.todos
        self._calls = {call.call_id: (call, None) for call in snapshot.tool_calls}
        self._changed.update(("todos", "tool_calls"))
        self._wait_for(snapshot.interrupt)
        self._queue(snapshot.queued)
        self._speak(_spoken_of(snapshot.streaming))

    def _set_status(self, status: Status, error: str | None, *, is_up: bool) -> None:
        self.status, self.error, self.is_up = status, error, is_up
        self._changed.add("status")

    def _end_turn(self) -> None:
        self._speak(None)
        if self._calls:
            self._calls = {}
            self._changed.add("tool_calls")

    def _speak(self, spoken: _Spoken | None) -> None:
        if spoken is not None or self._spoken is not None:
            self._changed.add("streaming")
        self._spoken = spoken

    def _forget_spoken(self, message_id: str) -> None:
        if self._spoken is not None and self._spoken.message_id == message_id:
            self._speak(None)

    def _wait_for(self, interrupt: Interrupt | None) -> None:
        if interrupt != self.interrupt:
            self.interrupt = interrupt
            self._changed.add("interrupt")

    def _queue(self, queued: int) -> None:
        if queued != self.queued:
            self.queued = queued
            self._changed.add("queued")

    def _put_call(self, call: ToolCall, asked_by: str | None) -> None:
        self._calls[call.call_id] = (call, asked_by)
        self._changed.add("tool_calls")

    def _drop_call(self, call_id: str) -> None:
        if self._calls.pop(call_id, None) is not None:
            self._changed.add("tool_calls")

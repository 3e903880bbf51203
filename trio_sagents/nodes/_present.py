"""The present of an agent that runs on another node, folded from its events: for the snapshots of viewers on this node."""

import attrs

from trio_sagents.broadcast import PagePresent
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.events import (
    AgentShutdown,
    ChainError,
    Event,
    MessageCompleted,
    ModelFallback,
    ModelRetrying,
    Snapshot,
    StreamingMessage,
    TextDelta,
    ThinkingDelta,
    ToolCallIdentified,
    ToolExecutionUpdated,
    TurnEnded,
    TurnStarted,
)
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.messages import Part, TextKind, TextPart, ThinkingPart
from trio_sagents.data.status import Status


@attrs.define(eq=False)
class _Text:
    """One part of a message that is being spoken, in pieces."""

    is_thinking: bool
    kind: TextKind | None
    pieces: list[str]
    size: int

    def part(self) -> Part:
        """Return the part as it is now."""
        self.pieces = ["".join(self.pieces)]
        return ThinkingPart(self.pieces[0]) if self.is_thinking else TextPart(self.pieces[0], self.kind)


@attrs.define(eq=False)
class _Speech:
    """A message that is being spoken. Each part keeps its place: the next piece of text names the place that it belongs to."""

    message_id: str
    parts: list[_Text | Part] = attrs.field(factory=list)

    def put(self, delta: TextDelta | ThinkingDelta) -> None:
        """Add a piece of text."""
        while len(self.parts) <= delta.part:
            # What only the provider can read is not told, and has a place all the same.
            self.parts.append(_Text(isinstance(delta, ThinkingDelta), delta.kind if isinstance(delta, TextDelta) else None, [], 0))
        part = self.parts[delta.part]
        if isinstance(part, TextPart):
            part = self.parts[delta.part] = _Text(False, part.kind, [part.text], len(part.text))  # noqa: FBT003  # it is not thinking
        elif isinstance(part, ThinkingPart):
            part = self.parts[delta.part] = _Text(True, None, [part.text], len(part.text))  # noqa: FBT003  # it is
        if isinstance(part, _Text) and delta.offset <= part.size < delta.offset + len(delta.text):
            part.pieces.append(delta.text[part.size - delta.offset :])
            part.size = delta.offset + len(delta.text)

    def picture(self) -> StreamingMessage:
        """Return the message as it is now."""
        return StreamingMessage(self.message_id, tuple(part.part() if isinstance(part, _Text) else part for part in self.parts))


@attrs.define(eq=False)
class Present:
    """What a snapshot shows of an agent."""

    _page: PagePresent = attrs.field(factory=PagePresent)
    _speech: _Speech | None = None
    _turn_id: str | None = None
    _identified: set[str] = attrs.field(factory=set)
    """The ids of calls whose arguments are on their way still: a snapshot shows them in the message alone."""

    @property
    def status(self) -> Status:
        """The status of the agent."""
        return self._page.status

    @property
    def interrupt(self) -> Interrupt | None:
        """What waits for people."""
        return self._page.interrupt

    @property
    def queued(self) -> int:
        """How many accepted messages wait for a turn."""
        return self._page.queued

    def apply(self, event: Event) -> None:
        """Apply the next event of the channel "main"."""
        self._page.apply(event)
        self._page.take_changed()
        match event:
            case Snapshot(streaming=streaming, turn_id=turn_id):
                self._turn_id = turn_id
                self._speech = None if streaming is None else _Speech(streaming.message_id, list(streaming.parts))
            case TurnStarted(turn_id=turn_id):
                self._turn_id, self._speech = turn_id, None
                self._identified.clear()
            case TurnEnded() | AgentShutdown():
                self._turn_id = self._speech = None
            case ChainError(unsaved=True):
                self._speech = None
            case TextDelta() | ThinkingDelta():
                self._spoken(event.message_id).put(event)
            case ToolCallIdentified(call=call, message_id=message_id):
                self._spoken(message_id).parts.append(call)
                self._identified.add(call.call_id)
            case ToolExecutionUpdated(call=call):
                self._identified.discard(call.call_id)
            case MessageCompleted(message=message):
                self._forget(message.message_id)
                self._identified.difference_update(call.call_id for call in message.calls)
            case ModelRetrying(message_id=message_id) | ModelFallback(message_id=message_id):
                self._forget(message_id)

    def _spoken(self, message_id: str) -> _Speech:
        if self._speech is None or self._speech.message_id != message_id:
            self._speech = _Speech(message_id)
        return self._speech

    def _forget(self, message_id: str) -> None:
        if self._speech is not None and self._speech.message_id == message_id:
            self._speech = None

    def snapshot(self, place: Cursor, replaces: Cursor | None) -> Snapshot:
        """Return the picture of the agent, at a place and instead of another one."""
        page = self._page
        return Snapshot(
            page.status,
            page.interrupt,
            page.todos,
            None if self._speech is None else self._speech.picture(),
            tuple(call for call in page.tool_calls if call.call_id not in self._identified),
            page.queued,
            place,
            replaces,
            self._turn_id,
        )

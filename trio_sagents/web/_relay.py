"""What a client was told of one turn, and what it has to be told next.

A `TurnRelay` is fed with events, and with pictures of the present. Each call returns the moves that the client does not know yet. So the
same event may come twice, a picture may overlap with events, and events may be missing before a picture: the client gets each thing once.

- `apply` takes the next event.
- `catch_up` takes the rows of the turn and the message that is being spoken. It is how a stream begins in the middle of a turn, and how it
  continues behind a `Gap`.
- `resume_speaking` opens again what is open. It is for a client that was given the past in another way.

However the events come, the moves are well-formed: a part, a call, and a step begin before they end, each ends once, and nothing comes
after `Ended`. This module is pure: nothing waits here, and nothing knows Trio.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias, assert_never

import attrs

from trio_sagents import (
    JSON,
    AgentShutdown,
    AgentStateUpdated,
    ChainError,
    DisplayMessage,
    DisplayMessageSaved,
    DisplayMessageUpdated,
    Envelope,
    Gap,
    Interrupt,
    Interrupted,
    Message,
    MessageCompleted,
    MessageQueued,
    MiddlewareAction,
    MiddlewareEvent,
    ModelError,
    ModelFallback,
    ModelRetrying,
    Part,
    PendingCall,
    Snapshot,
    StateRestored,
    Status,
    StatusChanged,
    StreamingMessage,
    SubAgentEvent,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    TitleGenerated,
    Todo,
    TodosUpdated,
    TokenUsage,
    ToolCall,
    ToolCallIdentified,
    ToolExecutionUpdated,
    ToolIgnoresCancellation,
    TurnEnded,
    TurnOutcome,
    TurnStarted,
    Unanswered,
    Usage,
    envelope_to_dict,
)
from trio_sagents.web._moves import (
    CallBegan,
    CallDropped,
    CallEnded,
    CallReady,
    CallWaits,
    Ended,
    MessageVoid,
    Move,
    Noted,
    SpeechAdded,
    SpeechBegan,
    SpeechEnded,
    SpokenKind,
    StepBegan,
    StepEnded,
    SubAgentBegan,
    SubAgentEnded,
    TodosChanged,
    UsageChanged,
    UserSpoke,
)

_FINAL: Final = frozenset({"completed", "failed", "cancelled", "unknown"})
_LOST: Final = "The outcome of this call is not known."
_CUT: Final = "The model's answer ended before this call was complete. The call was not made."
_VOID: Final = "The model's answer is void, and so is this call. The call was not made."
_SUB_AGENT_ENDS: Final[Mapping[str, str]] = {
    "SubAgentCompleted": "completed",
    "SubAgentInterrupted": "interrupted",
    "SubAgentFailed": "failed",
    "SubAgentCancelled": "cancelled",
}


_TurnEvent: TypeAlias = (
    TextDelta
    | ThinkingDelta
    | ToolCallIdentified
    | ToolExecutionUpdated
    | TokenUsage
    | ModelRetrying
    | ModelFallback
    | ChainError
    | ToolIgnoresCancellation
    | TurnEnded
)
_OtherEvent: TypeAlias = (
    MessageCompleted
    | StatusChanged
    | AgentShutdown
    | Gap
    | Snapshot
    | TodosUpdated
    | MessageQueued
    | SubAgentEvent
    | AgentStateUpdated
    | MiddlewareAction
    | ModelError
    | MiddlewareEvent
    | TurnStarted
    | StateRestored
    | DisplayMessageSaved
    | DisplayMessageUpdated
)


@attrs.define(eq=False)
class _Speech:
    kind: SpokenKind
    size: int = 0
    """How many characters the client was told."""
    is_open: bool = True


@attrs.define(eq=False)
class _Told:
    """What the client was told of one message of the model."""

    message_id: str
    spoken: list[_Speech] = attrs.field(factory=list)
    ordinals: dict[int, int] = attrs.field(factory=dict)
    """From the index of a part in the message to its place in `spoken`."""
    is_open: bool = True
    is_complete: bool = False
    """Whether nothing more can come of the message: it was stored, or is void."""


@attrs.define(eq=False)
class _Call:
    """What the client was told of one call."""

    name: str
    message_id: str
    is_ready: bool = False
    is_ended: bool = False
    path: Sequence[str] = ()


@attrs.define(eq=False)
class TurnRelay:
    """What one client was told of one turn."""

    turn_id: str | None
    """None until the turn has begun that takes the client's message."""
    awaited: str | None = None
    """The id of the client's own message. The turn that takes it becomes the turn of the relay, if that is still unknown."""
    known_messages: Collection[str] = ()
    """Ids of messages of people that the client has already."""
    queued: int = 0
    """How many accepted messages wait for a turn."""
    todos: Sequence[Todo] = ()
    """The todo list that the client knows."""
    usage: Usage = attrs.field(factory=Usage)
    is_over: bool = False
    """Whether `Ended` was told."""
    needs_picture: bool = False
    """Whether events are missing, so that `catch_up` has to be called."""
    _messages: dict[str, _Told] = attrs.field(factory=dict)
    _calls: dict[str, _Call] = attrs.field(factory=dict)
    _sub_agents: dict[str, str] = attrs.field(factory=dict)

    # ── events

    def apply(self, envelope: Envelope) -> Sequence[Move]:
        """Return what the next event adds to what the client knows."""
        return () if self.is_over else tuple(self._of_event(envelope))

    def _of_event(self, envelope: Envelope) -> Iterator[Move]:
        event = envelope.event
        if envelope.channel == "debug":
            if isinstance(event, SubAgentEvent):
                yield from self._of_sub_agent(event)
        elif not isinstance(event, _TurnEvent):
            yield from self._of_conversation(event, envelope)
        elif self.turn_id is not None and event.turn_id == self.turn_id:
            yield from self._of_turn(event, envelope)

    def _of_turn(self, event: _TurnEvent, envelope: Envelope) -> Iterator[Move]:  # noqa: C901, PLR0912  # a closed union
        """Yield what an event of the relay's own turn adds."""
        match event:
            case TextDelta() | ThinkingDelta():
                yield from self._hear(event)
            case ToolCallIdentified(call=call, message_id=message_id):
                if not self._is_settled(message_id):
                    yield from self._begin_call(message_id, call.call_id, call.name)
            case ToolExecutionUpdated(call=call, status=status):
                if call.call_id in self._calls:
                    yield Noted("tool-status", {"callId": call.call_id, "name": call.name, "status": status})
            case TokenUsage(usage=usage):
                self.usage += usage
                yield UsageChanged(self.usage)
            case ModelRetrying(message_id=message_id, model=model, attempt=attempt, delay=delay):
                yield from self._void(message_id)
                yield Noted("model-retry", {"model": model, "attempt": attempt, "delay": delay})
            case ModelFallback(message_id=message_id, model=model, fallback=fallback):
                yield from self._void(message_id)
                yield Noted("model-fallback", {"model": model, "fallback": fallback})
            case ChainError(unsaved=unsaved):
                for told in [told for told in self._messages.values() if unsaved and not told.is_complete]:
                    yield from self._void(told.message_id)
                yield Noted("error", _fields_of(envelope))
            case ToolIgnoresCancellation(call=call):
                yield Noted("tool-ignores-cancellation", {"callId": call.call_id, "name": call.name})
            case TurnEnded(outcome=outcome):
                yield Noted("cursor", {"cursor": str(envelope.cursor)})
                yield from self._end(outcome)
            case _:
                assert_never(event)

    def _of_conversation(self, event: _OtherEvent, envelope: Envelope) -> Iterator[Move]:  # likewise
        """Yield what an event adds that is not only about one turn, or is about the beginning of one."""
        match event:
            case MessageCompleted(message=message, turn_id=turn_id):
                yield from self._of_message(message, turn_id)
            case StatusChanged():
                yield from self._of_status(event)
            case AgentShutdown(reason=reason):
                yield from self._end(Unanswered(reason))
            case Gap(first=first, last=last):
                self.needs_picture = True
                yield Noted("gap", {"first": first, "last": last})
            case Snapshot(todos=todos, queued=queued):
                self.needs_picture = True
                yield from self._list(todos)
                yield from self._queue(queued)
            case TodosUpdated(todos=todos):
                yield from self._list(todos)
            case MessageQueued():
                yield from self._queue(self.queued + 1)
            case TitleGenerated(title=title):
                yield Noted("title", {"title": title}, is_lasting=True)
            case AgentStateUpdated() | MiddlewareAction() | ModelError() | SubAgentEvent():
                pass  # for developers: these come by the debug channel, which has permissions of its own
            case MiddlewareEvent():
                yield Noted("event", _fields_of(envelope))
            case TurnStarted() | StateRestored() | DisplayMessageSaved() | DisplayMessageUpdated():
                pass  # other events tell the same of this turn
            case _:
                assert_never(event)

    def _of_status(self, event: StatusChanged) -> Iterator[Move]:
        waiting = event.data.calls if isinstance(event.data, Interrupt) else ()
        yield Noted("status", {"status": event.status.value, "waiting": [call.call_id for call in waiting]})
        if event.status is Status.INTERRUPTED and isinstance(event.data, Interrupt) and event.data.turn_id == self.turn_id:
            yield from self._end(Interrupted(event.data))

    def _of_message(self, message: Message, turn_id: str | None) -> Iterator[Move]:
        if message.role == "user":
            yield from self._queue(max(0, self.queued - 1))
            if self.turn_id is None and message.message_id == self.awaited:
                self.turn_id = turn_id
            elif turn_id is not None and turn_id == self.turn_id and message.message_id not in {self.awaited, *self.known_messages}:
                yield UserSpoke(message)
        elif turn_id is not None and turn_id == self.turn_id:
            if message.role == "assistant":
                yield from self._complete(message.message_id, message.parts)
            for result in message.results:
                yield from self._end_call(result.call_id, result.name, result.status, result.content, message)

    def _of_sub_agent(self, event: SubAgentEvent) -> Iterator[Move]:
        kind = str(event.data.get("type"))
        if kind in {"SubAgentStarted", "SubAgentResumed"} and event.sub_agent_id not in self._sub_agents:
            self._sub_agents[event.sub_agent_id] = event.name
            yield SubAgentBegan(event.sub_agent_id, event.name)
        elif kind in _SUB_AGENT_ENDS and event.sub_agent_id in self._sub_agents:
            yield self._end_sub_agent(event.sub_agent_id, _SUB_AGENT_ENDS[kind])

    def _end_sub_agent(self, sub_agent_id: str, status: str) -> Move:
        name = self._sub_agents.pop(sub_agent_id)
        match status:
            case "completed" | "interrupted" | "failed":
                return SubAgentEnded(sub_agent_id, name, status)
            case _:
                return SubAgentEnded(sub_agent_id, name, "cancelled")

    def _queue(self, queued: int) -> Iterator[Move]:
        if queued != self.queued:
            self.queued = queued
            yield Noted("queue", {"waiting": queued})

    def _list(self, todos: Sequence[Todo]) -> Iterator[Move]:
        if tuple(todos) != tuple(self.todos):
            self.todos = todos
            yield TodosChanged(todos)

    # ── pictures

    def catch_up(
        self, rows: Iterable[DisplayMessage], streaming: StreamingMessage | None, calls: Iterable[ToolCall] = ()
    ) -> Sequence[Move]:
        """Return what a picture of the present adds to what the client knows.

        Args:
            rows: rows of the transcript, oldest first; those of other turns are ignored.
            streaming: the message that is being spoken; None between messages.
            calls: the open calls of the running turn. Those that no row shows are in the message that is being spoken.
        """
        self.needs_picture = False
        return () if self.is_over else tuple(self._of_picture(rows, streaming, calls))

    def _of_picture(self, rows: Iterable[DisplayMessage], streaming: StreamingMessage | None, calls: Iterable[ToolCall]) -> Iterator[Move]:
        own = [row for row in rows if row.turn_id is not None and row.turn_id == self.turn_id]
        statuses = {row.content["call_id"]: row.status for row in own if row.content_type == "tool_call"}
        spoken: dict[str, list[Part]] = {}
        for row in own:
            if row.role == "assistant" and (part := _part_of(row)) is not None:
                spoken.setdefault(row.message_id, []).append(part)
        is_told: set[str] = set()
        for row in own:
            if row.message_id in spoken and row.message_id not in is_told:
                is_told.add(row.message_id)
                yield from self._complete(row.message_id, spoken[row.message_id])
            elif row.content_type == "tool_result":
                call_id = row.content["tool_call_id"]
                status = statuses.get(call_id, "failed" if row.content["is_error"] else "completed")
                status = status if status in _FINAL else "completed"
                yield from self._end_call(call_id, row.content["name"], status, row.content["content"], row.message_id)
        speaking = None if streaming is None else streaming.message_id
        for told in [told for told in self._messages.values() if not told.is_complete and told.message_id != speaking]:
            yield from self._void(told.message_id)
        if streaming is not None and self.turn_id is not None and not self._is_settled(streaming.message_id):
            yield from self._speak_whole(streaming.message_id, streaming.parts)
            for call in calls:
                if call.call_id not in statuses:
                    yield from self._begin_call(streaming.message_id, call.call_id, call.name)

    def resume_speaking(self) -> Sequence[Move]:
        """Return the moves that open again what is open, for a client that has the past already."""
        moves: list[Move] = []
        for told in self._messages.values():
            if not told.is_complete:
                moves.append(StepBegan(told.message_id))
                moves += [SpeechBegan(told.message_id, place, each.kind) for place, each in enumerate(told.spoken) if each.is_open]
        moves += [
            CallBegan(call.message_id, call_id, call.name, call.path)
            for call_id, call in self._calls.items()
            if not call.is_ready and not call.is_ended
        ]
        return moves

    def wait_for(self, interrupt: Interrupt) -> Sequence[Move]:
        """Return the calls that wait for people, as a client is told of them when the turn is interrupted."""
        return tuple(self._wait_for(interrupt))

    def end(self, outcome: TurnOutcome) -> Sequence[Move]:
        """Return what ends the stream, with an outcome that was learned in another way than by an event."""
        return tuple(self._end(outcome))

    # ── messages

    def _is_settled(self, message_id: str) -> bool:
        told = self._messages.get(message_id)
        return told is not None and told.is_complete

    def _open(self, message_id: str) -> Iterator[Move]:
        """Begin the message, or open it again, and close any other message that is still open."""
        known = self._messages.get(message_id)
        if known is not None and known.is_open:
            return
        for told in tuple(self._messages.values()):
            yield from self._close(told)
        if known is None:
            self._messages[message_id] = _Told(message_id)
        else:
            known.is_open = True
        yield StepBegan(message_id)

    def _close(self, told: _Told) -> Iterator[Move]:
        yield from self._hush(told)
        if told.is_open:
            told.is_open = False
            yield from self._drop_calls(told.message_id, _CUT)
            yield StepEnded(told.message_id)

    def _drop_calls(self, message_id: str, reason: str) -> Iterator[Move]:
        """Take back the calls whose arguments never came. The same call id may begin again, in another answer."""
        for call_id, call in tuple(self._calls.items()):
            if call.message_id == message_id and not call.is_ready:
                del self._calls[call_id]
                yield CallDropped(message_id, call_id, call.name, reason)

    def _hush(self, told: _Told) -> Iterator[Move]:
        for ordinal, speech in enumerate(told.spoken):
            if speech.is_open:
                speech.is_open = False
                yield SpeechEnded(told.message_id, ordinal, speech.kind)

    def _hear(self, delta: TextDelta | ThinkingDelta) -> Iterator[Move]:
        if self._is_settled(delta.message_id):
            return
        yield from self._open(delta.message_id)
        told = self._messages[delta.message_id]
        kind: SpokenKind = "text" if isinstance(delta, TextDelta) else "thinking"
        if delta.part not in told.ordinals:
            last = told.spoken[-1] if told.spoken else None
            if not delta.offset and delta.text:
                told.ordinals[delta.part] = len(told.spoken)
            elif last is not None and last.kind == kind and delta.offset <= last.size:
                # A picture has shown the part without its index.
                told.ordinals[delta.part] = len(told.spoken) - 1
            else:
                return  # its beginning is missing: the part comes when the message is complete
        ordinal = told.ordinals[delta.part]
        size = told.spoken[ordinal].size if ordinal < len(told.spoken) else 0
        if delta.offset <= size:
            yield from self._say(told, ordinal, kind, delta.text[size - delta.offset :])

    def _say(self, told: _Told, ordinal: int, kind: SpokenKind, text: str) -> Iterator[Move]:
        """Tell the next piece of a part; begin the part first if it is new, or was ended."""
        if ordinal == len(told.spoken):
            yield from self._hush(told)
            told.spoken.append(_Speech(kind))
            yield SpeechBegan(told.message_id, ordinal, kind)
        speech = told.spoken[ordinal]
        if text and speech.kind == kind:
            if not speech.is_open:
                yield from self._hush(told)
                speech.is_open = True
                yield SpeechBegan(told.message_id, ordinal, kind)
            speech.size += len(text)
            yield SpeechAdded(told.message_id, ordinal, kind, text)

    def _speak_whole(self, message_id: str, parts: Sequence[Part]) -> Iterator[Move]:
        """Tell a message as it is now; what was told of it before is not told again."""
        yield from self._open(message_id)
        told = self._messages[message_id]
        ordinal = 0
        for index, part in enumerate(parts):
            if isinstance(part, TextPart | ThinkingPart) and part.text:
                told.ordinals.setdefault(index, ordinal)
                size = told.spoken[ordinal].size if ordinal < len(told.spoken) else 0
                yield from self._say(told, ordinal, "text" if isinstance(part, TextPart) else "thinking", part.text[size:])
                ordinal += 1
            elif isinstance(part, ToolCall):
                yield from self._begin_call(message_id, part.call_id, part.name)

    def _complete(self, message_id: str, parts: Sequence[Part]) -> Iterator[Move]:
        if self._is_settled(message_id):
            return
        if message_id in self._messages or any(isinstance(part, ToolCall) or getattr(part, "text", "") for part in parts):
            yield from self._speak_whole(message_id, parts)
            told = self._messages[message_id]
            yield from self._hush(told)
            for part in parts:
                if isinstance(part, ToolCall):
                    yield from self._make_ready(message_id, part)
            yield from self._close(told)
            told.is_complete = True

    def _void(self, message_id: str) -> Iterator[Move]:
        told = self._messages.get(message_id)
        if told is None or told.is_complete:
            return
        yield from self._hush(told)
        yield from self._drop_calls(message_id, _VOID)
        yield from self._close(told)
        told.is_complete = True
        yield MessageVoid(message_id)

    # ── calls

    def _begin_call(self, message_id: str, call_id: str, name: str) -> Iterator[Move]:
        if call_id in self._calls:
            return
        yield from self._open(message_id)
        yield from self._hush(self._messages[message_id])
        self._calls[call_id] = _Call(name, message_id)
        yield CallBegan(message_id, call_id, name)

    def _make_ready(self, message_id: str, call: ToolCall) -> Iterator[Move]:
        yield from self._begin_call(message_id, call.call_id, call.name)
        known = self._calls[call.call_id]
        if not known.is_ready and not known.is_ended:
            known.is_ready = True
            yield CallReady(known.message_id, call.call_id, call.name, call.arguments)

    def _end_call(self, call_id: str, name: str, status: str, text: str, message: Message | str) -> Iterator[Move]:
        known = self._calls.get(call_id)
        if known is None or known.is_ended or not known.is_ready:
            return
        message_id = message if isinstance(message, str) else message.message_id
        records = () if isinstance(message, str) else _decisions_in(message)
        for record in records:
            inner = self._calls.get(record["call_id"])
            if record["call_id"] != call_id and inner is not None and inner.path and not inner.is_ended:
                yield self._finish(record["call_id"], inner, _status_after(record["kind"]), record["kind"], message_id)
        known.is_ended = True
        decision = next((str(record["kind"]) for record in reversed(records) if record["call_id"] == call_id), None)
        yield CallEnded(call_id, name, status, text, message_id, decision)

    def _finish(self, call_id: str, call: _Call, status: str, decision: str | None, message_id: str) -> Move:
        call.is_ended = True
        text = _LOST if decision is None else f"Decided: {decision}. The sub-agent continued with this decision."
        return CallEnded(call_id, call.name, status, text, f"{message_id}:{call_id}", decision)

    def _wait_for(self, interrupt: Interrupt) -> Iterator[Move]:
        expires_at = None if interrupt.expires_at is None else interrupt.expires_at.isoformat()
        for call in interrupt.calls:
            if call.call_id not in self._calls:
                # A call of a sub-agent. It is no part of the model's answer, so no step is begun for it.
                message_id = self._asking_message(interrupt)
                self._calls[call.call_id] = _Call(call.name, message_id, is_ready=True, path=call.path)
                yield CallBegan(message_id, call.call_id, call.name, call.path)
                yield CallReady(message_id, call.call_id, call.name, call.arguments, call.path)
            if not self._calls[call.call_id].is_ended:
                yield CallWaits(call, expires_at if call.timeout is not None else None)

    def _asking_message(self, interrupt: Interrupt) -> str:
        """Return the message in which a call of a sub-agent is shown: the last one of the turn."""
        return next(reversed(self._messages), f"{interrupt.interrupt_id}:calls")

    # ── the end

    def _end(self, outcome: TurnOutcome) -> Iterator[Move]:
        if self.is_over:
            return
        for told in self._messages.values():
            yield from self._close(told)
        waiting: Sequence[PendingCall] = ()
        if isinstance(outcome, Interrupted):
            waiting = outcome.interrupt.calls
            yield from self._wait_for(outcome.interrupt)
        for call_id, call in self._calls.items():
            # While the turn waits, a call that has begun a sub-agent is open, too; and a decided call waits for the other decisions.
            if not call.is_ended and not waiting:
                yield self._finish(call_id, call, "unknown", None, call.message_id)
        for sub_agent_id in tuple(self._sub_agents):
            yield self._end_sub_agent(sub_agent_id, "interrupted" if waiting else "cancelled")
        self.is_over = True
        yield Ended(outcome, getattr(outcome, "usage", self.usage))


def _part_of(row: DisplayMessage) -> Part | None:
    content = row.content
    match row.content_type:
        case "text":
            return TextPart(content["text"])
        case "thinking":
            return ThinkingPart(content["text"])
        case "tool_call":
            return ToolCall(content["call_id"], content["name"], content["arguments"])
        case _:
            return None


def _decisions_in(message: Message) -> Sequence[JSON]:
    """Return what was decided about the calls of a tool message, as it was recorded."""
    records = message.metadata.get("decisions", ())
    return [record for record in records if isinstance(record, Mapping) and {"call_id", "kind"} <= set(record)]


def _status_after(kind: str) -> str:
    return "completed" if kind in {"approve", "edit", "answer"} else "cancelled"


def _fields_of(envelope: Envelope) -> JSON:
    fields = envelope_to_dict(envelope)["event"]
    assert isinstance(fields, dict)
    return fields

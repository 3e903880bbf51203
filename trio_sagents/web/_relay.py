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
    ModelAnswered,
    ModelCalled,
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
    Ended,
    Move,
    Noted,
    SubAgentBegan,
    SubAgentEnded,
    TodosChanged,
    UsageChanged,
    UserSpoke,
)
from trio_sagents.web._told import Told

_FINAL: Final = frozenset({"completed", "failed", "cancelled", "unknown"})
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
    | ModelCalled
    | ModelAnswered
    | MiddlewareEvent
    | TurnStarted
    | StateRestored
    | DisplayMessageSaved
    | DisplayMessageUpdated
)


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
    _told: Told = attrs.field(factory=Told)
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
                yield from self._told.hear(event)
            case ToolCallIdentified(call=call, message_id=message_id):
                if not self._told.is_settled(message_id):
                    yield from self._told.begin_call(message_id, call.call_id, call.name)
            case ToolExecutionUpdated(call=call, status=status):
                if call.call_id in self._told.calls:
                    yield Noted("tool-status", {"callId": call.call_id, "name": call.name, "status": status})
            case TokenUsage(usage=usage):
                self.usage += usage
                yield UsageChanged(self.usage)
            case ModelRetrying(message_id=message_id, model=model, attempt=attempt, delay=delay):
                yield from self._told.void(message_id)
                yield Noted("model-retry", {"model": model, "attempt": attempt, "delay": delay})
            case ModelFallback(message_id=message_id, model=model, fallback=fallback):
                yield from self._told.void(message_id)
                yield Noted("model-fallback", {"model": model, "fallback": fallback})
            case ChainError(unsaved=unsaved):
                if unsaved:
                    yield from self._told.void_open()
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
            case AgentStateUpdated() | MiddlewareAction() | ModelError() | ModelCalled() | ModelAnswered() | SubAgentEvent():
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
                yield from self._told.complete(message.message_id, message.parts)
            for result in message.results:
                yield from self._end_call(result.call_id, result.name, result.status, result.content, message)

    def _end_call(self, call_id: str, name: str, status: str, text: str, message: Message | str) -> Iterator[Move]:
        """End a call, and before it the sub-agent inside it: the channel that tells of sub-agents may be behind."""
        if call_id in self._sub_agents:
            yield self._end_sub_agent(call_id, status)
        yield from self._told.end_call(call_id, name, status, text, message)

    def _of_sub_agent(self, event: SubAgentEvent) -> Iterator[Move]:
        kind = str(event.data.get("type"))
        if kind in {"SubAgentStarted", "SubAgentResumed"} and event.sub_agent_id not in self._sub_agents:
            if self._told.has_ended(event.sub_agent_id):
                return
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
                yield from self._told.complete(row.message_id, spoken[row.message_id])
            elif row.content_type == "tool_result":
                call_id = row.content["tool_call_id"]
                status = statuses.get(call_id, "failed" if row.content["is_error"] else "completed")
                status = status if status in _FINAL else "completed"
                yield from self._end_call(call_id, row.content["name"], status, row.content["content"], row.message_id)
        # A message that has nothing but calls so far is in no picture as a message; its calls are.
        unshown = [call.call_id for call in calls if call.call_id not in statuses and call.call_id in self._told.calls]
        speaking = streaming.message_id if streaming is not None else next((self._told.calls[each].message_id for each in unshown), None)
        yield from self._told.void_open(speaking)
        if streaming is not None and self.turn_id is not None and not self._told.is_settled(streaming.message_id):
            yield from self._told.speak_whole(streaming.message_id, streaming.parts)
            for call in calls:
                if call.call_id not in statuses:
                    yield from self._told.begin_call(streaming.message_id, call.call_id, call.name)

    def resume_speaking(self) -> Sequence[Move]:
        """Return the moves that open again what is open, for a client that has the past already."""
        return self._told.open_moves()

    def wait_for(self, interrupt: Interrupt) -> Sequence[Move]:
        """Return the calls that wait for people, as a client is told of them when the turn is interrupted."""
        return tuple(self._told.wait_for(interrupt))

    def end(self, outcome: TurnOutcome) -> Sequence[Move]:
        """Return what ends the stream, with an outcome that was learned in another way than by an event."""
        return tuple(self._end(outcome))

    # ── the end

    def _end(self, outcome: TurnOutcome) -> Iterator[Move]:
        if self.is_over:
            return
        yield from self._told.close_all()
        waiting: Sequence[PendingCall] = ()
        if isinstance(outcome, Interrupted):
            waiting = outcome.interrupt.calls
            yield from self._told.wait_for(outcome.interrupt)
        for sub_agent_id in tuple(self._sub_agents):
            yield self._end_sub_agent(sub_agent_id, "interrupted" if waiting else "cancelled")
        # While the turn waits, a call that has begun a sub-agent is open, too; and a decided call waits for the other decisions.
        if not waiting:
            yield from self._told.give_up_calls()
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


def _fields_of(envelope: Envelope) -> JSON:
    fields = envelope_to_dict(envelope)["event"]
    assert isinstance(fields, dict)
    return fields

"""Every event of the union, as an example, with what a client was told before it."""

import datetime
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from trio_sagents import (
    AgentShutdown,
    AgentStateUpdated,
    CancelCause,
    Cancelled,
    ChainError,
    Completed,
    Cursor,
    DisplayMessage,
    DisplayMessageSaved,
    DisplayMessageUpdated,
    Envelope,
    Event,
    Failed,
    Gap,
    Interrupt,
    Interrupted,
    LimitExceeded,
    Message,
    MessageCompleted,
    MessageQueued,
    MiddlewareAction,
    MiddlewareEvent,
    ModelAnswered,
    ModelCalled,
    ModelError,
    ModelFailed,
    ModelFallback,
    ModelRequest,
    ModelRetrying,
    PendingCall,
    Question,
    ShutdownReason,
    Snapshot,
    State,
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
    ToolResultPart,
    TurnEnded,
    TurnStarted,
    Usage,
)
from trio_sagents.web._relay import TurnRelay

AT: Final = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
TURN: Final = "turn-1"
PAY: Final = ToolCall("call-1", "pay", {"amount": 3})
PENDING: Final = PendingCall("call-1", "pay", {"amount": 3}, "interrupted", interrupt_id="interrupt-1", text="Much money", timeout=60)
QUESTION: Final = PendingCall(
    "call-1",
    "pay",
    {"amount": 3},
    "interrupted",
    interrupt_id="interrupt-1",
    kind="question",
    allowed=("answer",),
    question=Question("Which?"),
)
INNER: Final = PendingCall("call-9", "pay", {"amount": 9}, "interrupted", interrupt_id="interrupt-1", path=("worker",))
TEXT: Final = TextDelta("Hel", "answer-1", 0, 0, TURN)
ASKED: Final = Message("answer-1", "assistant", (TextPart("Hello"), PAY), "tool_calls", TURN)
ROW: Final = DisplayMessage("m:answer-1:0", "answer-1", "assistant", "text", {"text": "Hello"}, "completed", AT, TURN)


def envelope(event: Event, seq: int = 1) -> Envelope:
    """Return an event in its envelope, by the channel that it comes by."""
    debug = AgentStateUpdated | MiddlewareAction | SubAgentEvent | ModelError | ModelCalled | ModelAnswered
    return Envelope("agent", "c", "debug" if isinstance(event, debug) else "main", seq, seq, event, "incarnation-1")


@attrs.frozen
class Weather(MiddlewareEvent):
    """An event of a host's own."""

    sky: str


@attrs.frozen
class Example:
    """An event, and what was told before it."""

    name: str
    event: Event
    before: Sequence[Event] = ()

    def relay(self) -> TurnRelay:
        """Return a relay that has told what was before."""
        relay = TurnRelay(TURN)
        for event in self.before:
            relay.apply(envelope(event))
        return relay


def _ends() -> Iterator[Example]:
    asked = (MessageCompleted(ASKED, TURN),)
    usage = Usage(10, 20, 3, 4)
    whole = Message("answer-2", "assistant", (TextPart("Bye"),), "stop", TURN)
    yield Example("TurnEnded, completed", TurnEnded(TURN, Completed(whole, usage)))
    yield Example("TurnEnded, completed, of another turn", TurnEnded("turn-2", Completed(whole, usage)))
    yield Example("TurnEnded, cut by its length", TurnEnded(TURN, Completed(attrs.evolve(whole, stop_reason="length"), usage)))
    yield Example("TurnEnded, while text is open", TurnEnded(TURN, Completed(whole, usage)), (TEXT,))
    for name, call in (("approval", PENDING), ("question", QUESTION), ("approval in a sub-agent", INNER)):
        interrupt = Interrupt("interrupt-1", TURN, [call], call.kind, expires_at=AT)
        yield Example(f"TurnEnded, interrupted by an {name}", TurnEnded(TURN, Interrupted(interrupt)), asked)
    yield Example("TurnEnded, cancelled", TurnEnded(TURN, Cancelled(CancelCause.USER)), asked)
    yield Example("TurnEnded, drained", TurnEnded(TURN, Cancelled(CancelCause.DRAINED)))
    yield Example("TurnEnded, failed", TurnEnded(TURN, Failed(LimitExceeded("rounds", 21, most=20))))
    yield Example("TurnEnded, failed by foreign code", TurnEnded(TURN, Failed(ValueError("secret"))))


def examples() -> Sequence[Example]:
    """Return at least one example of each event."""
    result = Message("result-1", "tool", (ToolResultPart("call-1", "pay", "paid 3"),), None, TURN)
    rejected = Message(
        "result-1",
        "tool",
        (ToolResultPart("call-1", "pay", "not run", "cancelled"),),
        None,
        TURN,
        {"decisions": [{"call_id": "call-1", "kind": "reject"}]},
    )
    unknown = Message("result-1", "tool", (ToolResultPart("call-1", "pay", "nobody knows", "unknown"),), None, TURN)
    asked = (MessageCompleted(ASKED, TURN),)
    identified = ToolCallIdentified(attrs.evolve(PAY, arguments={}), "answer-1", TURN)
    person = Message("m-1", "user", (TextPart("Hi"),), None, TURN)
    failed = ModelFailed("overloaded", kind="overloaded")
    streaming = StreamingMessage("answer-1", (ThinkingPart("Hm"), TextPart("Hel")))
    cursor = Cursor("incarnation-1", "main", 7)
    return (
        Example("Snapshot", Snapshot(Status.RUNNING, None, [Todo(1, "work")], streaming, [], 2, cursor)),
        Example("Gap", Gap(3, 7)),
        Example("StatusChanged", StatusChanged(Status.RUNNING, None, TURN)),
        Example("StatusChanged, foreseen", StatusChanged(Status.RUNNING, Interrupt("", TURN, [PENDING]), TURN)),
        Example("StatusChanged, interrupted", StatusChanged(Status.INTERRUPTED, Interrupt("interrupt-1", TURN, [PENDING]), TURN), asked),
        Example("TurnStarted", TurnStarted(TURN)),
        *_ends(),
        Example("TextDelta, the first", TEXT),
        Example("TextDelta, the next", TextDelta("lo", "answer-1", 0, 3, TURN), (TEXT,)),
        Example("TextDelta, again", TEXT, (TEXT,)),
        Example("TextDelta, behind a hole", TextDelta("!", "answer-1", 0, 5, TURN), (TEXT,)),
        Example("TextDelta, of another turn", attrs.evolve(TEXT, turn_id="turn-2")),
        Example("ThinkingDelta", ThinkingDelta("Hm", "answer-1", 0, 0, TURN)),
        Example("MessageCompleted, an answer", MessageCompleted(ASKED, TURN), (TEXT, identified)),
        Example("MessageCompleted, an answer that was not streamed", MessageCompleted(ASKED, TURN)),
        Example(
            "MessageCompleted, an answer without the call",
            MessageCompleted(attrs.evolve(ASKED, parts=(TextPart("Hello"),)), TURN),
            (identified,),
        ),
        Example("MessageCompleted, a result", MessageCompleted(result, TURN), asked),
        Example("MessageCompleted, a rejected call", MessageCompleted(rejected, TURN), asked),
        Example("MessageCompleted, an unknown outcome", MessageCompleted(unknown, TURN), asked),
        Example("MessageCompleted, a person's", MessageCompleted(person, TURN)),
        Example("MessageQueued", MessageQueued(person)),
        Example("TokenUsage", TokenUsage(Usage(10, 20, 3, 4), "answer-1", TURN)),
        Example("ToolCallIdentified", identified, (TEXT,)),
        Example("ToolExecutionUpdated", ToolExecutionUpdated(PAY, "executing", TURN), asked),
        Example("DisplayMessageSaved", DisplayMessageSaved(ROW)),
        Example("DisplayMessageUpdated", DisplayMessageUpdated(ROW)),
        Example("TodosUpdated", TodosUpdated([Todo(1, "work", "in_progress")], TURN)),
        Example("StateRestored", StateRestored()),
        Example("ChainError", ChainError(failed, turn_id=TURN, source="model 'x'")),
        Example("ChainError, unsaved", ChainError(failed, True, TURN), (TEXT,)),
        Example("ModelRetrying", ModelRetrying(failed, "x", 2, 1.5, "answer-1", TURN), (TEXT, identified)),
        Example("ModelFallback", ModelFallback(failed, "x", "y", "answer-1", TURN), (TEXT,)),
        Example("ToolIgnoresCancellation", ToolIgnoresCancellation(PAY, TURN)),
        Example("AgentShutdown", AgentShutdown(ShutdownReason.STOPPED, Status.IDLE, 1, False, AT, AT), (TEXT,)),
        Example("AgentShutdown, crashed", AgentShutdown(ShutdownReason.CRASHED, Status.ERROR, 1, False, AT, AT), (TEXT,)),
        Example("AgentStateUpdated", AgentStateUpdated(State())),
        Example("MiddlewareAction", MiddlewareAction("Budget", {"secret": 1})),
        Example("SubAgentEvent, the first", SubAgentEvent("call-1", "worker", {"type": "SubAgentStarted", "prompt": "secret"})),
        Example(
            "SubAgentEvent, the last",
            SubAgentEvent("call-1", "worker", {"type": "SubAgentCompleted", "text": "secret"}),
            (SubAgentEvent("call-1", "worker", {"type": "SubAgentStarted"}),),
        ),
        Example("SubAgentEvent, another", SubAgentEvent("call-1", "worker", {"type": "TextDelta", "text": "secret"})),
        Example("ModelError", ModelError(failed, TURN)),
        Example("ModelCalled", ModelCalled("x", ModelRequest("secret", [Message("m-1", "user", (TextPart("secret"),))]), 1, TURN)),
        Example("ModelAnswered", ModelAnswered("x", "answer-1", Usage(1, 2), 3.0, TURN)),
        Example("MiddlewareEvent", Weather("sunny")),
        Example("MiddlewareEvent, a title", TitleGenerated("A title")),
    )

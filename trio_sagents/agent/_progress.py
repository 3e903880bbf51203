"""How far a turn has come, at any moment: what a snapshot shows, what a cut turn keeps, and whether the turn is halted."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import attrs
import trio

from trio_sagents.data.events import StreamingMessage
from trio_sagents.data.interrupts import PendingCall
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import (
    Message,
    OpaquePart,
    Part,
    StopReason,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    ToolStatus,
)
from trio_sagents.data.outcomes import Usage


@attrs.define(eq=False)
class _Stretch:
    """A part of the message that is streaming: pieces that are joined only when somebody looks."""

    kind: Literal["text", "narration", "thinking"]
    provider: str | None = None
    field: str | None = None
    pieces: list[str] = attrs.field(factory=list)
    size: int = 0
    signature: str | None = None

    def takes(self, kind: Literal["text", "narration", "thinking"], provider: str | None, field: str | None) -> bool:
        """Return whether a further piece belongs to this part. Thinking that is signed is over."""
        return self.signature is None and self.kind == kind and self.provider == provider and self.field == field

    def part(self) -> Part:
        text = "".join(self.pieces)
        match self.kind:
            case "text":
                return TextPart(text)
            case "narration":
                return TextPart(text, "narration")
            case _:
                return ThinkingPart(text, self.signature, self.provider, self.field)


@attrs.define(eq=False)
class Draft:
    """The message that the model is streaming."""

    message_id: str
    turn_id: str
    size: int = 0
    """Characters of text and thinking so far."""
    note_at: int = 0
    """The size from which on `TurnContext.note_draft` is called with each further piece."""
    _parts: list[_Stretch | OpaquePart | ToolCall] = attrs.field(factory=list)
    """A call is here as it was identified, without its arguments."""

    @property
    def last_part(self) -> int:
        """The index of the part that was begun last; -1 if there is none."""
        return len(self._parts) - 1

    def say(
        self,
        kind: Literal["text", "narration", "thinking"],
        text: str,
        signature: str | None = None,
        provider: str | None = None,
        field: str | None = None,
    ) -> int | None:
        """Append a piece to the last part, or to a new part; return where it begins there, or None for an empty piece."""
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _Stretch) and last.takes(kind, provider, field):
            stretch = last
        elif text or signature is not None:
            stretch = _Stretch(kind, provider, field)
            self._parts.append(stretch)
        else:
            return None
        if signature is not None:
            stretch.signature = signature
        if not text:
            return None
        offset = stretch.size
        stretch.pieces.append(text)
        stretch.size += len(text)
        self.size += len(text)
        return offset

    def add(self, part: OpaquePart | ToolCall) -> None:
        """Append a part that people do not read, or a call that was identified."""
        self._parts.append(part)

    def parts(self) -> Sequence[Part]:
        """Return the parts so far; a call in them has no arguments yet."""
        return tuple(part.part() if isinstance(part, _Stretch) else part for part in self._parts)

    def message(self, stop_reason: StopReason, calls: Sequence[ToolCall] = ()) -> Message:
        """Return the message as it is now, with these calls in their places; a call that is not among them is left out."""
        whole = {call.call_id: call for call in calls}
        parts = [whole.get(part.call_id) if isinstance(part, ToolCall) else part for part in self.parts()]
        return Message(self.message_id, "assistant", [part for part in parts if part is not None], stop_reason, self.turn_id)

    def picture(self) -> StreamingMessage:
        """Return what a snapshot shows of the message."""
        return StreamingMessage(self.message_id, self.parts())


@attrs.define(eq=False)
class OpenCall:
    """A tool call whose result was not submitted yet."""

    call: ToolCall
    status: ToolStatus = "pending"
    in_thread: bool = False
    """Whether the call runs in a thread, which nobody can stop."""
    result: ToolResult | None = None
    """The result of the call, until the result is submitted."""
    value: object = None
    """The value that the tool's function returned, unchanged."""
    shown: ToolCall | None = None
    """The call as it runs: after an edit, with other arguments."""
    requests: Sequence[PendingCall] = ()
    """What people have to decide before the call can continue: the call itself, or the calls of its sub-agent."""
    foreseen: Sequence[PendingCall] = ()
    """While the sub-agent of the call still runs: what people will have to decide in it."""
    claim: PendingCall | None = None
    """Of a call in a sub-agent that waited, and continues: the call as it waited."""
    has_passed: bool = False
    """Whether the gate was asked about the call, and lets it run."""
    has_run_agent: bool = False
    """Whether the call has run a sub-agent."""
    record: JSON | None = None
    """The sub-agent that waits in the call, as it is stored."""
    expands: Sequence[Message] = ()
    """The messages that the result of the call brings into the turn."""

    @property
    def known(self) -> ToolStatus:
        """What is known of the call if the turn is cut now."""
        if self.status == "interrupted":  # a sub-agent that waits, and a tool that halted, have begun
            has_begun = self.record is not None or any(request.kind == "halt" for request in self.requests)
            return "cancelled" if has_begun else "interrupted"
        if self.status == "pending":
            return "pending"
        return "unknown" if self.in_thread else "cancelled"


class Suspended(BaseException):
    """A sub-agent waits for people, and so does the call that it runs in. No `except Exception` of a tool can swallow this."""

    def __init__(self, requests: Sequence[PendingCall], record: JSON) -> None:
        super().__init__(requests, record)
        self.requests: Final = requests
        self.record: Final = record


@attrs.define(eq=False)
class HaltSignal:
    """Whether a tool halted the turn. A turn and its sub-agents share one signal.

    Once a call has returned `Halt`, no other call of the turn begins, and the calls that run are cancelled.
    """

    is_set: bool = False
    _running: list[trio.CancelScope] = attrs.field(factory=list)
    """The scopes of the calls that run."""

    @contextlib.contextmanager
    def watch(self) -> Iterator[trio.CancelScope]:
        """Run a call in a scope that the signal cancels."""
        with trio.CancelScope() as scope:
            self._running.append(scope)
            try:
                yield scope
            finally:
                self._running.remove(scope)

    def set(self, spared: Sequence[trio.CancelScope]) -> None:
        """Cancel all calls that run, except those in `spared`: the call that halted, and the calls around its sub-agent."""
        if self.is_set:
            return  # of two calls that halt in one step, neither cancels the other
        self.is_set = True
        for scope in self._running:
            if not any(scope is each for each in spared):
                scope.cancel()


@attrs.define(eq=False)
class Progress:
    """The mutable state of one turn; the task of the turn owns it, others only look."""

    draft: Draft | None = None
    """The message that is streaming; None between messages."""
    open_calls: dict[str, OpenCall] = attrs.field(factory=dict)
    """By call id, in the order the model asked for them."""
    usage: Usage = attrs.field(factory=Usage)
    """The usage of all model calls of the turn so far, with those of its sub-agents and its middleware."""
    usage_by_model: dict[str, Usage] = attrs.field(factory=dict)
    """By the name of the model: the same since the turn began or continued, with estimates of what providers did not report."""
    around: "Progress | None" = None
    """Of a sub-agent: the turn that it is a part of, which counts its usage immediately."""
    culprit: str = ""
    """The tool whose exception ended the turn, as `SagentsError.source` names things; empty if no tool did."""
    rounds: int = 0
    """Model calls begun."""
    calls: int = 0
    """Tool calls asked for."""
    inner: dict[str, ToolStatus] = attrs.field(factory=dict)
    """By call id: how the calls of sub-agents have ended that people decided about."""
    halt: HaltSignal = attrs.field(factory=HaltSignal)
    """Shared with the turns of sub-agents."""
    scopes: Sequence[trio.CancelScope] = ()
    """The scopes of the calls that this turn runs in, outermost first; empty unless it is the turn of a sub-agent."""

    def open(self, calls: Sequence[ToolCall], waiting: Mapping[str, PendingCall]) -> None:
        """Begin with the calls of an answer, which is not a draft any more; by call id, what people have to decide about some."""
        self.draft = None
        self.calls += len(calls)
        self.open_calls = {call.call_id: _opened(call, waiting.get(call.call_id)) for call in calls}

    def add_usage(self, usage: Usage, model: str, unreported: Usage) -> None:
        """Count the usage of a model, by its name, and an estimate of what its provider did not report."""
        self.usage += usage
        self.usage_by_model[model] = self.usage_by_model.get(model, Usage()) + usage + unreported
        if self.around is not None:
            self.around.add_usage(usage, model, unreported)

    def note_inner(self, call_id: str, status: ToolStatus) -> None:
        """Note how a call of a sub-agent has ended that people decided about."""
        self.inner[call_id] = status
        if self.around is not None:
            self.around.note_inner(call_id, status)

    def pictures(self) -> Sequence[ToolCall]:
        """Return the open calls with their status, for a snapshot."""
        return tuple(attrs.evolve(opened.shown or opened.call, status=opened.status) for opened in self.open_calls.values())

    def waiting(self) -> Sequence[PendingCall]:
        """Return the calls that wait for people, in the order the model asked for them, also those in sub-agents that still run."""
        return tuple(request for opened in self.open_calls.values() for request in opened.requests or opened.foreseen)


def _opened(call: ToolCall, wanted: PendingCall | None) -> OpenCall:
    return OpenCall(call, has_passed=True) if wanted is None else OpenCall(call, "interrupted", requests=(wanted,))

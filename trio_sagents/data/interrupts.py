"""Interrupts: a turn that waits for people, as plain data that survives a restart."""

import datetime
import math
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from trio_sagents.data.json import JSON, canonical
from trio_sagents.data.messages import ToolCall

InterruptKind: TypeAlias = Literal["approval", "question", "halt"]
DecisionKind: TypeAlias = Literal["approve", "edit", "reject", "answer"]
QuestionKind: TypeAlias = Literal["single", "multi", "text"]

APPROVAL_DECISIONS: Final[Sequence[DecisionKind]] = ("approve", "edit", "reject")
"""The kinds of decision that are allowed about a call by default."""


RECORD_KINDS: Final = frozenset({"approve", "edit", "reject", "answer", "superseded", "dismissed", "expired"})
"""How a call may have been decided."""


@attrs.frozen
class Option:
    """One answer that a question offers."""

    value: str
    """What the model reads."""
    label: str = ""
    """What people read. If empty, they read the value."""
    description: str = ""
    """What people read about it, beside the label; may be empty."""


def _options(given: Iterable[Option]) -> tuple[Option, ...]:
    return tuple(given)


@attrs.frozen
class Question:
    """A question to a person."""

    text: str
    kind: QuestionKind = "text"
    """One of the options, any number of them, or free text."""
    options: Sequence[Option] = attrs.field(default=(), converter=_options)
    """In the order to be shown; empty for free text."""
    allow_other: bool = False
    """Whether the person may answer with a text that is not one of the options."""
    allow_cancel: bool = True
    """Whether the person may decline to answer."""
    context: str = ""
    """What the person needs to know to answer, beside the question; may be empty."""


def _names(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


@attrs.frozen
class DecisionRecord:
    """What was decided about one call, by whom and when. It is kept for ever, and does not change.

    A call has more than one record if people were asked about it again. Each record names the interrupt that asked.
    """

    interrupt_id: str
    call_id: str
    kind: str
    """ "approve", "edit", "reject", "answer"; or "superseded" (a new message came instead), "dismissed", "expired"."""
    digest: str
    """Of the name and the arguments that were shown."""
    content: str
    """The canonical JSON text of what was decided beside the kind: edited arguments, a reason, an answer."""
    text: str
    """What the model reads if the call is not run."""
    by: str | int | None
    """The owner key of the scope that decided; None where there is none."""
    at: str
    """The instant, ISO 8601 in UTC."""
    name: str = ""
    """The tool, if `arguments` has the arguments."""
    arguments: str = ""
    """The canonical JSON text of the arguments that were shown, if no message of the history has them: for a call of a sub-agent, and
    for a call that people were asked about again. Else empty."""
    tool_digest: str = ""
    """Of the tool that was shown."""
    demands: Sequence[str] = attrs.field(default=(), converter=_names)
    """What the middleware demanded that asked for this decision, as digests."""
    met: Sequence[str] = attrs.field(default=(), converter=_names)
    """Demands that earlier decisions about the same arguments had met."""
    asked_before: int = 0
    """How often people had been asked about this call before."""
    outcome: str = attrs.field(default="", eq=False)
    """How the call ended, as the status of its result, also for a call of a sub-agent. Empty as long as the result is not stored, and in
    older records; "unknown" if the call may have begun, and nobody knows more."""


def _kinds(given: Iterable[DecisionKind]) -> tuple[DecisionKind, ...]:
    return tuple(given)


def _seconds(given: float | None) -> float | None:
    return None if given is None or given == math.inf else float(given)


@attrs.frozen
class PendingCall(ToolCall):
    """A call that waits for a person: what its answer has to name, and what may be answered."""

    interrupt_id: str = ""
    kind: InterruptKind = "approval"
    claimed_by: Sequence[str] = attrs.field(default=(), converter=_names)
    """The ids of the middleware that want an answer, outermost first; empty for a tool that halted the turn itself."""
    allowed: Sequence[DecisionKind] = attrs.field(default=APPROVAL_DECISIONS, converter=_kinds)
    question: Question | None = None
    text: str = ""
    """Why it waits, for people; for a halt, what the tool said."""
    path: Sequence[str] = attrs.field(default=(), converter=_names)
    """Names of the sub-agents that it comes from, outermost first; empty for the agent itself."""
    timeout: float | None = attrs.field(default=None, converter=_seconds)
    """Seconds after which the call counts as rejected if nobody has decided; None means never."""
    tool_digest: str = ""
    """Of the tool as people are shown it: its description, parameters, origin and version. A decision is bound to it."""
    demands: Sequence[str] = attrs.field(default=(), converter=_names)
    """What the middleware in `claimed_by` demand, as digests: what a decision about this call meets."""
    met: Sequence[str] = attrs.field(default=(), converter=_names)
    """Demands that earlier decisions about the same arguments have met."""
    asked_before: int = 0
    """How often people were asked about this call before: they edited it, or its tool changed. If this is not 0, the arguments may be
    others than those that the model asked for."""
    origin: str = ""
    """Where the tool comes from, as of `Tool.origin`; "" if the tool does not say, or an older version stored the call."""


def pending(call: ToolCall, **claim: object) -> PendingCall:
    """Return `call` as one that waits; `claim` has the other fields."""
    known = {"call_id": call.call_id, "name": call.name, "arguments": call.arguments, "display_text": call.display_text}
    fields = {**known, "status": "interrupted", **claim}
    return PendingCall(**fields)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # checked by the callers' types


def record_of(call: PendingCall, kind: str, content: JSON, text: str, by: str | int | None, at: str) -> DecisionRecord:
    """Return what is kept of a decision about a call.

    Args:
        call: as it was shown.
        kind: as of `DecisionRecord`, and so are the others.
        content: what was decided beside the kind; copied.
        text: what the model reads if the call is not run.
        by: the owner key of the scope that decided.
        at: the instant, ISO 8601 in UTC.
    """
    is_kept_elsewhere = not call.path and not call.asked_before
    return DecisionRecord(
        call.interrupt_id,
        call.call_id,
        kind,
        call.digest,
        canonical(content),
        text,
        by,
        at,
        name="" if is_kept_elsewhere else call.name,
        arguments="" if is_kept_elsewhere else canonical(call.arguments),
        tool_digest=call.tool_digest,
        demands=call.demands,
        met=call.met,
        asked_before=call.asked_before,
    )


def replaces(record: DecisionRecord, earlier: DecisionRecord | None) -> bool:
    """Return whether a record about a call takes the place of an earlier one, as what holds for that call now.

    A later decision holds. But a call that has run, and halted the conversation, was approved: that somebody dismissed or
    superseded the halt changes nothing about the call.
    """
    return earlier is None or record.kind not in {"superseded", "dismissed"} or bool(record.demands)


def _as_tuple(calls: Iterable[PendingCall]) -> tuple[PendingCall, ...]:
    return tuple(calls)


def _records(records: Iterable[DecisionRecord]) -> tuple[DecisionRecord, ...]:
    return tuple(records)


@attrs.frozen
class Interrupt:
    """The calls for which a turn waits. Decisions name the interrupt by `interrupt_id`; the turn continues when every call is decided."""

    interrupt_id: str
    turn_id: str
    calls: Sequence[PendingCall] = attrs.field(default=(), converter=_as_tuple)
    """The calls that nobody has decided yet, in the order the model asked for them."""
    kind: InterruptKind = "approval"
    """ "halt" where any call is halted, which `dismiss` acknowledges; else the kind of the first call."""
    restorable: bool = True
    """Whether it can be answered after the agent has left and come back."""
    decided: Sequence[DecisionRecord] = attrs.field(default=(), converter=_records)
    """The decisions about its calls that are already on record."""
    expires_at: datetime.datetime | None = None
    """When the first call with a timeout counts as rejected, if nobody has decided by then; None means never."""
    since: datetime.datetime | None = attrs.field(default=None, eq=False)
    """When the turn began to wait; None if it was stored before that was noted."""
    asked_by: str | int | None = attrs.field(default=None, eq=False)
    """For whom it waits: the key of whoever posted the message that began the turn, as of `DecisionRecord.by`; None if there is no key."""


def copy_of(interrupt: Interrupt) -> Interrupt:
    """Return an interrupt that shares nothing mutable with this one: the arguments of a call are a dict."""
    return attrs.evolve(interrupt, calls=[attrs.evolve(call) for call in interrupt.calls])


def interrupt_kind(calls: Sequence[PendingCall]) -> InterruptKind:
    """Return the kind of a batch: a halt wins."""
    return "halt" if any(call.kind == "halt" for call in calls) else calls[0].kind

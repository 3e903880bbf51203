"""Decisions: what a person says about a call that waits.

A decision names the interrupt, the call and the digest of the arguments that were shown, so it cannot be taken for another. From
the call itself: `Approve(call)`, `Edit(call, {...})`, `Reject(call, "why")`, `Answer(call, "blue")`, for each `call` of
`interrupt.calls`.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, TypeAlias

import attrs

from trio_sagents.data.interrupts import DecisionKind, DecisionRecord, PendingCall
from trio_sagents.data.json import JSON, JSONValue, canonical, check_text, plain_json

MAX_REASON: Final = 4096
"""Characters that a reason may have."""


@attrs.frozen
class Decision:
    """The decision about one call. One of `Approve`, `Edit`, `Reject`, `Answer`."""

    interrupt_id: str
    call_id: str
    digest: str

    kind: ClassVar[DecisionKind]

    @property
    def content(self) -> JSON:
        """What it says beside its kind; plain JSON."""
        return {}

    @staticmethod
    def from_dict(data: JSON) -> "Decision":
        """Return the decision that a browser sent: {"type", "interrupt_id", "call_id", "digest"} and what its type has.

        "edit" has "arguments", "reject" may have "reason", "answer" has "value", "other" or "cancel".

        Raises:
            TypeError, ValueError: it is none.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"a decision is a JSON object, not {type(data).__name__}")
        fields = dict(data)
        kind = fields.pop("type", None)
        cls = _KINDS.get(kind) if isinstance(kind, str) else None
        if cls is None:
            raise ValueError(f'a decision has the "type" {", ".join(map(repr, _KINDS))}; not {kind!r}')
        known = {"interrupt_id", "call_id", "digest", *_CONTENT[cls]}
        if unknown := set(fields) - known:
            raise ValueError(f"a decision of the type {kind!r} has no {min(map(str, unknown))!r}")
        if missing := {"interrupt_id", "call_id", "digest"} - set(fields):
            raise ValueError(f"the decision lacks {min(missing)!r}")
        return cls(**fields)

    def to_dict(self) -> JSON:
        """Return it as a new JSON object, for `from_dict`."""
        named = {"type": self.kind, "interrupt_id": self.interrupt_id, "call_id": self.call_id, "digest": self.digest}
        return {**named, **self.content}

    def same_as(self, record: DecisionRecord) -> bool:
        """Return whether this is what was recorded."""
        return (record.interrupt_id, record.call_id, record.digest, record.kind, record.content) == (
            self.interrupt_id,
            self.call_id,
            self.digest,
            self.kind,
            canonical(self.content),
        )


def _names(first: object, call_id: object, digest: object) -> tuple[str, str, str]:
    """Return what a decision names; the short form takes a call of an interrupt."""
    if isinstance(first, PendingCall):
        return first.interrupt_id, first.call_id, first.digest
    for name, value in (("interrupt_id", first), ("call_id", call_id), ("digest", digest)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str, or give a call of interrupt.calls alone; not {value!r}")
        check_text(value, name)
    return first, call_id, digest  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # checked above


@attrs.frozen(init=False)
class Approve(Decision):
    """Run the call with the arguments that were shown: `Approve(call)`."""

    kind: ClassVar[DecisionKind] = "approve"

    def __init__(self, interrupt_id: "str | PendingCall", call_id: str | None = None, digest: str | None = None) -> None:
        self.__attrs_init__(*_names(interrupt_id, call_id, digest))  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it


@attrs.frozen(init=False)
class Edit(Decision):
    """Run the call with these arguments instead: `Edit(call, {"amount": 5})`."""

    arguments: JSON
    """All of them; a JSON object, copied."""

    kind: ClassVar[DecisionKind] = "edit"

    def __init__(
        self,
        interrupt_id: "str | PendingCall",
        call_id: "str | JSON | None" = None,
        digest: str | None = None,
        arguments: "JSON | None" = None,
    ) -> None:
        if isinstance(interrupt_id, PendingCall) and isinstance(call_id, Mapping):
            call_id, arguments = None, call_id
        if not isinstance(arguments, Mapping):
            raise TypeError(f"the edited arguments must be a JSON object, not {arguments!r}")
        self.__attrs_init__(*_names(interrupt_id, call_id, digest), plain_json(arguments, "arguments"))  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it

    @property
    def content(self) -> JSON:
        """{"arguments"}."""
        return {"arguments": self.arguments}


@attrs.frozen(init=False)
class Reject(Decision):
    """Do not run the call: `Reject(call, "too much")`. The model reads the reason."""

    reason: str = ""

    kind: ClassVar[DecisionKind] = "reject"

    def __init__(
        self, interrupt_id: "str | PendingCall", call_id: str | None = None, digest: str | None = None, reason: str | None = None
    ) -> None:
        if isinstance(interrupt_id, PendingCall) and call_id is not None and reason is None:
            call_id, reason = None, call_id
        reason = "" if reason is None else reason
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a str, not {reason!r}")
        if len(check_text(reason, "reason")) > MAX_REASON:
            raise ValueError(f"reason has {len(reason)} characters, the limit is {MAX_REASON}")
        self.__attrs_init__(*_names(interrupt_id, call_id, digest), reason)  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it

    @property
    def content(self) -> JSON:
        """{"reason"}."""
        return {"reason": self.reason}


@attrs.frozen(init=False)
class Answer(Decision):
    """Answer a question: `Answer(call, "blue")`, `Answer(call, ["a", "b"])`, `Answer(call, other="teal")`, `Answer(call, cancel=True)`."""

    value: "str | Sequence[str] | None" = None
    """The value of an option, several of them, or free text."""
    other: str | None = None
    """A text that is not one of the options, if the question allows that."""
    cancel: bool = False
    """Decline to answer, if the question allows that."""

    kind: ClassVar[DecisionKind] = "answer"

    def __init__(
        self,
        interrupt_id: "str | PendingCall",
        call_id: "str | Sequence[str] | None" = None,
        digest: str | None = None,
        value: "str | Sequence[str] | None" = None,
        *,
        other: str | None = None,
        cancel: bool = False,
    ) -> None:
        if isinstance(interrupt_id, PendingCall) and call_id is not None and value is None:
            call_id, value = None, call_id
        if value is not None and not isinstance(value, str):
            if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
                raise TypeError(f"the value of an answer is a str or a sequence of them, not {value!r}")
            value = tuple(value)
        if other is not None and not isinstance(other, str):
            raise TypeError(f"other must be a str, not {other!r}")
        if not isinstance(cancel, bool):
            raise TypeError(f"cancel must be a bool, not {cancel!r}")
        if value is None and other is None and not cancel:
            raise ValueError("an answer has a value, an other text, or cancel=True")
        if cancel and not (value is None and other is None):
            raise ValueError("an answer either says something, or declines with cancel=True; not both")
        for text in (other, *((value,) if isinstance(value, str) else value or ())):
            if text is not None:
                check_text(text, "answer")
        self.__attrs_init__(*_names(interrupt_id, call_id, digest), value, other, cancel)  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it

    @property
    def content(self) -> JSON:
        """{"value", "other", "cancel"}, those that say something."""
        said: dict[str, JSONValue] = {}
        if self.value is not None:
            said["value"] = self.value if isinstance(self.value, str) else list(self.value)
        if self.other is not None:
            said["other"] = self.other
        if self.cancel:
            said["cancel"] = True
        return said


_KINDS: Final[Mapping[str, type[Approve] | type[Edit] | type[Reject] | type[Answer]]] = {
    "approve": Approve,
    "edit": Edit,
    "reject": Reject,
    "answer": Answer,
}
DECISION_KINDS: Final = frozenset(_KINDS)
"""What people decide; what else is on record happened without them."""
_CONTENT: Final[Mapping[type[Decision], Sequence[str]]] = {
    Approve: (),
    Edit: ("arguments",),
    Reject: ("reason",),
    Answer: ("value", "other", "cancel"),
}
AnyDecision: TypeAlias = Approve | Edit | Reject | Answer


def answer_text(call: PendingCall, answer: Answer) -> str:
    """Return what the model reads of an answer.

    Raises:
        ValueError: it does not answer the question of this call.
    """
    question = call.question
    if question is None:
        raise ValueError(f"the call {call.call_id!r} is not a question")
    if answer.cancel:
        if not question.allow_cancel:
            raise ValueError("this question must be answered")
        return "The person declined to answer."
    values = (answer.value,) if isinstance(answer.value, str) else tuple(answer.value or ())
    others = () if answer.other is None else (answer.other,)
    if question.kind == "text":
        if len(values) + len(others) != 1 or not "".join((*values, *others)).strip():
            raise ValueError("this question is answered by one text that is not empty")
        return "".join((*values, *others))
    # A value wins over the label of another option: labels are the model's to choose.
    by_name = {one.label: one.value for one in question.options if one.label} | {one.value: one.value for one in question.options}
    chosen = [by_name.get(value, value) for value in values]
    known = {one.value for one in question.options}
    others = (*others, *(value for value in chosen if value not in known))
    if others and not question.allow_other:
        raise ValueError(f"{others[0]!r} is not one of the options: {', '.join(map(repr, sorted(known)))}")
    if not all(text.strip() for text in others):
        raise ValueError("an answer that is not one of the options must be a text that is not empty")
    if question.kind == "single" and len(chosen) + (answer.other is not None) != 1:
        raise ValueError("this question takes one answer")
    if len(set(chosen)) != len(chosen):
        raise ValueError("an option was chosen twice")
    if not chosen and not others:
        raise ValueError("nothing was chosen")
    picked = [value for value in chosen if value in known]
    return ", ".join((*picked, *(f"other: {text}" for text in others)))

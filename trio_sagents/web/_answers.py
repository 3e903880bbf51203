"""What clients answer about calls that wait: decisions, and the names under which the calls travel.

A name holds the interrupt, the call, and the digest of the arguments that the person was shown. So the answer is bound to what was shown,
and nothing else of what the client sends about the call has to be believed.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from trio_sagents import JSON, Answer, Approve, Decision, Edit, Interrupt, PendingCall, Reject

_DIGEST: Final = 64
"""Characters of a digest."""


@attrs.frozen
class CallName:
    """Which call an answer is about."""

    interrupt_id: str
    call_id: str
    digest: str

    def __str__(self) -> str:
        return f"{self.interrupt_id}:{self.digest}:{self.call_id}"

    @classmethod
    def of(cls, call: PendingCall) -> "CallName":
        """Return the name of a call that waits."""
        return cls(call.interrupt_id, call.call_id, call.digest)

    @classmethod
    def parse(cls, text: object) -> "CallName":
        """Return the name that a text stands for.

        Raises:
            ValueError: the text is not a name.
        """
        parts = text.split(":", 2) if isinstance(text, str) else []
        if len(parts) != 3 or len(parts[1]) != _DIGEST or not parts[0] or not parts[2]:
            raise ValueError("not the id of a call that waits for an answer; send the id as you were given it")
        interrupt_id, digest, call_id = parts
        return cls(interrupt_id, call_id, digest)


@attrs.frozen
class CallAnswer:
    """What a person said about one call, as a client sent it."""

    name: CallName
    approved: bool | None = None
    """Whether the call may run; None if the person answered in another way."""
    reason: str = ""
    arguments: JSON | None = None
    """All arguments, if the person has edited them."""
    said: JSON = attrs.field(factory=dict)
    """The answer to a question: {"value"}, {"other"} or {"cancel": true}; empty if the person did not answer in this form."""

    def decision(self, call: PendingCall) -> Decision:
        """Return the decision that this answer is, about a call that waits.

        Args:
            call: the call, as it waits now. The decision keeps the digest of what the client was shown.

        Raises:
            TypeError, ValueError: the answer does not fit the kind of call.
        """
        named = (self.name.interrupt_id, self.name.call_id, self.name.digest)
        if call.kind == "question" or "answer" in call.allowed:
            return self._answer(named)
        if self.arguments is not None and self.approved is not False:
            return Edit(*named, self.arguments)
        match self.approved:
            case True:
                return Approve(*named)
            case False:
                return Reject(*named, self.reason)
            case None:
                raise ValueError(f"the answer about the call {self.name.call_id!r} does not say whether the call is approved")

    def _answer(self, named: tuple[str, str, str]) -> Answer:
        said = self.said
        if unknown := set(said) - {"value", "other", "cancel"}:
            raise ValueError(f'an answer has "value", "other" or "cancel", not {min(map(str, unknown))!r}')
        if said:
            return Answer(*named, said.get("value"), other=said.get("other"), cancel=said.get("cancel", False))
        if self.approved is False:
            return Answer(*named, cancel=True)
        if self.reason:
            return Answer(*named, self.reason)
        raise ValueError(f"the call {self.name.call_id!r} is a question: answer it with a text, or with a list of texts")


def said_in(output: object) -> JSON:
    """Return what a person said, from a value that a client sent: a text, a list of texts, or an object as in `CallAnswer.said`."""
    return dict(output) if isinstance(output, Mapping) else {"value": output}


def pending_call(interrupt: Interrupt | None, name: CallName) -> PendingCall | None:
    """Return the call of this name that waits now; None if it does not wait any more."""
    if interrupt is None or interrupt.interrupt_id != name.interrupt_id:
        return None
    return next((call for call in interrupt.calls if call.call_id == name.call_id), None)

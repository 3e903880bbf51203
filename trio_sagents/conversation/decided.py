"""A call as people decided it: whether the call runs, and with which arguments."""

import json

import attrs

from trio_sagents.data.interrupts import DecisionRecord
from trio_sagents.data.json import digest_of
from trio_sagents.data.messages import ToolCall


def digest_now(call: ToolCall) -> str:
    """Return the digest of a call as the call is at this moment: whoever was shown its arguments may have changed the dict."""
    return digest_of([call.name, call.arguments])


def runs(record: DecisionRecord) -> bool:
    """Return whether a decision lets the call run."""
    return record.kind in {"approve", "edit"}


def decided_call(call: ToolCall, record: DecisionRecord) -> ToolCall | None:
    """Return the call as it was decided to run; None if the decision is about other arguments."""
    if record.call_id != call.call_id or record.digest != digest_now(call):
        return None
    if record.kind != "edit":
        return attrs.evolve(call)  # a copy: whoever was shown the call still has that object, and may change its arguments
    return ToolCall(call.call_id, call.name, json.loads(record.content)["arguments"])


def as_run(call: ToolCall, record: DecisionRecord | None) -> ToolCall:
    """Return a call with the arguments that it ran with: after an edit, this is what the model reads in its history."""
    edited = None if record is None or record.kind != "edit" else decided_call(call, record)
    return call if edited is None else attrs.evolve(edited, status=call.status)

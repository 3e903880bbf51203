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
    """Return the call as it was decided to run; None if the decision is about other arguments than those of the call."""
    # A new object: whoever was shown the call has the old one, and may still change its arguments.
    shown = attrs.evolve(call, arguments=json.loads(record.arguments)) if record.arguments else attrs.evolve(call)
    if record.call_id != call.call_id or record.digest != digest_now(shown):
        return None
    if record.kind != "edit":
        return shown
    # What the tool said of the call was said of other arguments.
    return attrs.evolve(shown, arguments=json.loads(record.content)["arguments"], display_text=None)


def as_run(call: ToolCall, record: DecisionRecord | None) -> ToolCall:
    """Return a call with the arguments that it ran with: what the model reads in its history after an edit."""
    if record is None or not runs(record) or not (record.kind == "edit" or record.arguments):
        return call
    return decided_call(call, record) or call


def as_shown(call: ToolCall, record: DecisionRecord) -> ToolCall:
    """Return a call that people refused with the arguments that they were shown: after an edit, others than those of the model."""
    is_own = record.call_id == call.call_id and bool(record.arguments)
    return attrs.evolve(call, arguments=json.loads(record.arguments)) if is_own else call


def changes_arguments(record: DecisionRecord) -> bool:
    """Return whether a call with this decision may have run with other arguments than the model asked for."""
    return runs(record) and (record.kind == "edit" or bool(record.arguments))

"""The gate: which calls wait for a person, and what a decision allows.

Every call of every agent and sub-agent passes here right before it runs, and there is no other way to a tool's function. What
runs is the object that was looked at: an approval is bound to the digest of its arguments, an edit to its own.
"""

import json
from collections.abc import Mapping, Sequence

import attrs
import trio

from trio_sagents.agent._agent import id_of
from trio_sagents.agent._host import MiddlewareHost
from trio_sagents.agent._middleware import Pipeline
from trio_sagents.agent._tools import ArgumentsInvalid, Tool
from trio_sagents.conversation.decided import digest_now
from trio_sagents.data.decisions import DECISION_KINDS, Decision
from trio_sagents.data.interrupt_wire import decode_pending, encode_pending
from trio_sagents.data.interrupts import DecisionRecord, PendingCall
from trio_sagents.data.json import Opaque, check_text
from trio_sagents.data.messages import ToolCall
from trio_sagents.exceptions import MiddlewareError, StateError


@attrs.frozen
class Gated:
    """What the gate says of the calls of one answer, by call id; it lets all others run."""

    waiting: Mapping[str, PendingCall]
    """What people have to decide."""
    invalid: Mapping[str, str]
    """Why the arguments cannot be used: nobody is asked about a call that could not run."""


async def ask_gate(pipeline: Pipeline, host: MiddlewareHost, turn_id: str, calls: Sequence[ToolCall], invalid: Mapping[str, str]) -> Gated:
    """Ask the gate about the calls of an answer, in parallel, before any of them is on record.

    Args:
        pipeline: has the tools, and the gate.
        host: the turn's.
        turn_id: the turn.
        calls: of the answer. Those of tools that there are not cannot run, and are not asked about.
        invalid: by call id, why arguments cannot even be read.

    Cancellation: nothing was done.
    """
    if pipeline.parent is None:
        pipeline.claimed = None  # of answers before this one: their calls have ended, those of their sub-agents, too
    wanted: dict[str, PendingCall] = {}
    misfits: dict[str, str] = {**invalid}

    async def ask(call: ToolCall, tool: Tool) -> None:
        found = await claim(pipeline, host, turn_id, call, tool)
        if found is None:
            return
        try:
            tool.check(call.arguments)
        except ArgumentsInvalid as exc:
            misfits[call.call_id] = str(exc)
        else:
            wanted[call.call_id] = found

    async with trio.open_nursery() as nursery:
        for call in calls:
            tool = pipeline.tools.get(call.name)
            if tool is not None and call.call_id not in invalid:
                nursery.start_soon(ask, call, tool)
    return Gated({call.call_id: wanted[call.call_id] for call in calls if call.call_id in wanted}, misfits)


async def claim(pipeline: Pipeline, host: MiddlewareHost, turn_id: str, call: ToolCall, tool: Tool) -> PendingCall | None:
    """Return what has to be decided before a call runs; None where it may run now.

    The gate of the agent around a sub-agent comes first, so no sub-agent can do what its parent may not.

    Cancellation: nothing was done.
    """
    claimed: PendingCall | None = None
    for gate in _outermost_first(pipeline):
        for one in gate.having("claim"):
            context = attrs.evolve(gate.context(one, host, turn_id), path=pipeline.path, pipeline=pipeline)
            # A copy: what a hook does to the arguments changes neither what is stored nor what runs.
            wanted = await gate.call(one, "claim", context, attrs.evolve(call), tool)
            if wanted is not None:
                _check(one, wanted, call, host.conversation_id)
                claimed = _both(claimed, attrs.evolve(wanted, claimed_by=id_of(one), path=pipeline.path, status="interrupted"))
    if claimed is not None:
        _outermost_first(pipeline)[0].note_claim(call.call_id, tool)
    return claimed


def is_claimed_tool(pipeline: Pipeline, call: ToolCall, tool: Tool) -> bool:
    """Return whether a call that was decided would run the tool that it was to run when it began to wait, as far as that is known."""
    return _outermost_first(pipeline)[0].takes_claim(call.call_id, tool)


async def ask_inner_gates(pipeline: Pipeline, host: MiddlewareHost, turn_id: str, call: PendingCall, record: DecisionRecord) -> str | None:
    """Have the gates of sub-agents look at a decision about a call that they claimed, and return what the model is to read, or None.

    The gate of the agent itself was asked before the decision was recorded. Those of its sub-agents are there only while these run:
    they are asked when the call goes on, and what they refuse is not run.

    Raises:
        ValueError: it will not do.

    Cancellation: nothing was done.
    """
    outermost, *inner = _outermost_first(pipeline)
    if record.kind not in DECISION_KINDS:
        return None
    named = {"type": record.kind, "interrupt_id": record.interrupt_id, "call_id": record.call_id, "digest": record.digest}
    decision = Decision.from_dict({**named, **json.loads(record.content)})
    found: str | None = None
    for gate in inner:
        for one in gate.having("answer"):
            if id_of(one) not in call.claimed_by.split(", ") or any(one is other for other in outermost.agent.middleware):
                continue
            context = attrs.evolve(gate.context(one, host, turn_id), path=pipeline.path, pipeline=pipeline)
            try:
                text: object = await gate.call(one, "answer", context, attrs.evolve(call), decision)
            except MiddlewareError as exc:
                if isinstance(exc.__cause__, ValueError):
                    raise exc.__cause__ from exc
                raise
            if text is not None and not isinstance(text, str):
                raise MiddlewareError(id_of(one), "answer") from TypeError(f"answer returns a str or None, not {text!r}")
            if found is None and text is not None:
                found = check_text(text, "the answer")
    return found


def _check(one: Opaque, wanted: object, call: ToolCall, conversation_id: str) -> None:
    """Refuse what is no claim on this call, or could not be loaded again."""
    if not isinstance(wanted, PendingCall) or (wanted.call_id, digest_now(wanted)) != (call.call_id, digest_now(call)):
        raise MiddlewareError(id_of(one), "claim") from TypeError(f"claim returns None, or pending(call, ...); not {wanted!r}")
    try:
        decode_pending(conversation_id, encode_pending(wanted))
        if wanted.timeout is not None and not wanted.timeout > 0:
            raise ValueError(f"the timeout of a claim is > 0 seconds, not {wanted.timeout!r}")
        if not wanted.allowed and wanted.kind != "halt":
            raise ValueError("a claim allows at least one kind of decision: else nobody could answer it")
    except (StateError, TypeError, ValueError) as exc:
        raise MiddlewareError(id_of(one), "claim") from exc


def _both(first: PendingCall | None, second: PendingCall) -> PendingCall:
    """Return one claim for two: what both allow, within the shorter time; each is asked about the answer.

    There is always something to decide. A question can be answered whatever else is allowed, for that runs nothing; and where two
    agree on nothing the call can be rejected.
    """
    if first is None:
        return second
    asked = second if first.question is None and second.question is not None else first
    other = second if asked is first else first
    answers = ("answer",) if asked.question is not None else ()
    allowed = tuple(kind for kind in asked.allowed if kind in other.allowed or kind in answers)
    timeouts = [one.timeout for one in (first, second) if one.timeout is not None]
    return attrs.evolve(
        asked,
        allowed=allowed or ("reject",),
        timeout=min(timeouts) if timeouts else None,
        claimed_by=f"{first.claimed_by}, {second.claimed_by}",
    )


def _outermost_first(pipeline: Pipeline) -> Sequence[Pipeline]:
    chain = [pipeline]
    while chain[0].parent is not None:
        chain.insert(0, chain[0].parent)
    return chain

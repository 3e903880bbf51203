"""The gate: which calls wait for a person, and what a decision allows.

Every call of every agent and sub-agent passes here right before it runs, and there is no other way to a tool's function. The
call that runs is the call that was looked at: an approval is bound to the digest of the arguments and to the digest of the tool
that were shown.

An edit makes a new call. The middleware of all agents around it is asked again, with the edited arguments. A decision meets the
demands that people were shown with it, so nobody is asked twice for the same; what is demanded besides is asked in a new
interrupt. Arguments that a person edits a second time are new again. `MAX_ASKED` bounds how often people are asked about a call.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sagents.agent._agent import id_of
from trio_sagents.agent._checks import misfit_of, refusal_of
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._host import MiddlewareHost
from trio_sagents.agent._identity import differences, text_of_change
from trio_sagents.agent._middleware import Pipeline
from trio_sagents.agent._tools import Tool
from trio_sagents.conversation.decided import decided_call, digest_now
from trio_sagents.data.decisions import DECISION_KINDS, Decision
from trio_sagents.data.interrupt_wire import decode_pending, encode_pending
from trio_sagents.data.interrupts import DecisionRecord, PendingCall, Question, pending
from trio_sagents.data.json import JSON, JSONValue, Opaque, canonical, check_text, digest_of
from trio_sagents.data.messages import ToolCall
from trio_sagents.exceptions import MiddlewareError, StateError

MAX_ASKED: Final = 5
"""How often people are asked about one call. The last time they can approve or reject the call, and not edit it."""
_SHOWN: Final = 300
"""Characters of the arguments before an edit that people are told."""


# ── before an answer is stored


@attrs.frozen
class Gated:
    """What the gate says about the calls of one answer, by call id. Calls that are not named here may run."""

    waiting: Mapping[str, PendingCall]
    """The calls about which people have to decide."""
    invalid: Mapping[str, str]
    """Why a call cannot run: nobody is asked about such a call."""


async def ask_gate(pipeline: Pipeline, context: TurnContext, calls: Sequence[ToolCall], invalid: Mapping[str, str]) -> Gated:
    """Ask the gate about the calls of an answer, in parallel, before any of them is on record.

    Args:
        pipeline: has the tools, and the gate.
        context: the turn's.
        calls: of the answer. A call of an unknown tool cannot run, and nobody is asked about it.
        invalid: by call id, why arguments cannot even be read.

    Cancellation: nothing was done.
    """
    pipeline.forget_waiting()  # the calls of earlier answers have ended, and so have those of their sub-agents
    if not any(gate.having("claim") for gate in _outermost_first(pipeline)):
        await trio.lowlevel.checkpoint()
        return Gated({}, invalid)
    wanted: dict[str, PendingCall] = {}
    misfits: dict[str, str] = {**invalid}

    async def ask(call: ToolCall, tool: Tool) -> None:
        # The schema comes first: a gate that looks at arguments is only shown arguments that fit.
        misfit = misfit_of(tool, call)
        if misfit is not None:
            misfits[call.call_id] = misfit
            return
        found = await claim(pipeline, context, context.turn_id, call, tool)
        if found is None:
            return
        refusal = await refusal_of(tool, call, context, pipeline.agent.limits.tool_timeout)
        if refusal is None:
            wanted[call.call_id] = found
        else:
            misfits[call.call_id] = refusal

    async with trio.open_nursery() as nursery:
        for call in calls:
            tool = pipeline.tools.get(call.name)
            if tool is not None and call.call_id not in invalid:
                nursery.start_soon(ask, call, tool)
    return Gated({call.call_id: wanted[call.call_id] for call in calls if call.call_id in wanted}, misfits)


async def claim(
    pipeline: Pipeline, host: MiddlewareHost, turn_id: str, call: ToolCall, tool: Tool, met: Collection[str] = ()
) -> PendingCall | None:
    """Return what has to be decided before a call runs; None if the call may run now.

    The gate of the agent around a sub-agent comes first, so no sub-agent can do what its parent may not.

    Args:
        pipeline: of the agent that makes the call.
        host: for the hooks.
        turn_id: the turn.
        call: with the arguments that it is to run with.
        tool: the tool that it is to run.
        met: demands that a person has met for these arguments; they are not asked for again.

    Cancellation: nothing was done.
    """
    claimed: PendingCall | None = None
    for gate in _outermost_first(pipeline):
        for middleware in gate.having("claim"):
            context = attrs.evolve(gate.context(middleware, host, turn_id), path=pipeline.path, pipeline=pipeline)
            # A copy: what a hook does to the arguments changes neither what is stored nor what runs.
            wanted = await gate.call(middleware, "claim", context, attrs.evolve(call), tool)
            if wanted is None:
                continue
            _check(middleware, wanted, call, host.conversation_id)
            demand = demand_of(wanted, id_of(middleware), len(gate.path))
            if demand not in met:
                own = attrs.evolve(
                    wanted,
                    claimed_by=(id_of(middleware),),
                    path=pipeline.path,
                    status="interrupted",
                    demands=(demand,),
                    met=(),
                    asked_before=0,
                    tool_digest=pipeline.digest_of(tool),
                    origin=tool.origin,
                    display_text=tool.displayed(call.arguments),
                )
                claimed = own if claimed is None else both(claimed, own)
    if claimed is not None:
        _outermost_first(pipeline)[0].remembered.tools[call.call_id] = pipeline.known_tool(tool)
    return claimed


def _check(middleware: Opaque, wanted: object, call: ToolCall, conversation_id: str) -> None:
    """Refuse what is not a claim on this call, or could not be loaded again."""
    if not isinstance(wanted, PendingCall) or (wanted.call_id, digest_now(wanted)) != (call.call_id, digest_now(call)):
        raise MiddlewareError(id_of(middleware), "claim") from TypeError(f"claim returns None, or pending(call, ...); not {wanted!r}")
    try:
        decode_pending(conversation_id, encode_pending(wanted))
        if wanted.timeout is not None and not wanted.timeout > 0:
            raise ValueError(f"the timeout of a claim is > 0 seconds, not {wanted.timeout!r}")
        if not wanted.allowed and wanted.kind != "halt":
            raise ValueError("a claim must allow at least one kind of decision, or nobody can answer it")
    except (StateError, TypeError, ValueError) as exc:
        raise MiddlewareError(id_of(middleware), "claim") from exc


def demand_of(wanted: PendingCall, middleware_id: str, depth: int) -> str:
    """Return a digest of what one middleware demands of people, which is the same for every call.

    Args:
        wanted: the claim.
        middleware_id: who demands it.
        depth: of the agent whose gate it is; a sub-agent may have a middleware of the same id as its parent.
    """
    question = None if wanted.question is None else _plain_question(wanted.question)
    return digest_of([depth, middleware_id, wanted.kind, list(wanted.allowed), wanted.text, wanted.timeout, question])[:32]


def _plain_question(question: Question) -> JSON:
    """Return a question as it was always told in a demand; what later versions know of a question is told only if it is there."""
    fields: dict[str, JSONValue] = {name: value for name, value in attrs.asdict(question).items() if name != "context" or value}
    fields["options"] = [
        {name: value for name, value in attrs.asdict(option).items() if name != "description" or value} for option in question.options
    ]
    return fields


def both(first: PendingCall, second: PendingCall) -> PendingCall:
    """Return one claim for two: what both allow, within the shorter time; each middleware is asked about the answer.

    There is always something to decide. A question can always be answered, because an answer runs nothing. If the
    two agree on nothing else, the call can be rejected.
    """
    asked = second if first.question is None and second.question is not None else first
    other = second if asked is first else first
    answers = ("answer",) if asked.question is not None else ()
    allowed = tuple(kind for kind in asked.allowed if kind in other.allowed or kind in answers)
    timeouts = [claimed.timeout for claimed in (first, second) if claimed.timeout is not None]
    return attrs.evolve(
        asked,
        allowed=allowed or ("reject",),
        timeout=min(timeouts) if timeouts else None,
        claimed_by=(*first.claimed_by, *second.claimed_by),
        demands=(*first.demands, *second.demands),
    )


def _outermost_first(pipeline: Pipeline) -> Sequence[Pipeline]:
    chain = [pipeline]
    while chain[0].parent is not None:
        chain.insert(0, chain[0].parent)
    return chain


# ── when a call that was decided continues


@attrs.frozen
class NotRun:
    """A call that was decided does not run, and the model reads why."""

    text: str


async def pass_decided(
    pipeline: Pipeline, context: TurnContext, call: ToolCall, tool: Tool, record: DecisionRecord
) -> ToolCall | PendingCall | NotRun:
    """Return what a decision that lets a call run leads to now.

    Args:
        pipeline: of the agent that makes the call.
        context: the turn's.
        call: as the model asked for it.
        tool: the tool that would run now.
        record: the last decision about the call: an approval or an edit.

    Returns:
        The call as it may run; or what people are asked again, because the arguments or the tool are not those that were looked at;
        or why the call is not run.

    Cancellation: nothing was done.
    """
    decided = decided_call(call, record)
    if decided is None:
        return NotRun("Not run: the decision was made for other arguments.")
    if edits(record):
        decided = attrs.evolve(decided, arguments=tool.tidied(decided.arguments))  # as the gates have to see them
    known = _outermost_first(pipeline)[0].remembered.tools.get(call.call_id)
    digest = pipeline.digest_of(tool)
    changed = differences(record.tool_digest, known if pipeline.keeps_objects(tool) else None, tool, digest)
    if not changed and not edits(record):
        return decided
    misfit = misfit_of(tool, decided)
    if misfit is not None:
        return NotRun(misfit)
    met = () if changed else met_by(record)
    wanted = await claim(pipeline, context, context.turn_id, decided, tool, met)
    if changed:
        # Somebody decides about the tool as it is now, whether or not a middleware asks for that.
        shown = tool.displayed(decided.arguments)
        wanted = wanted or pending(
            decided,
            allowed=("approve", "reject"),
            path=pipeline.path,
            tool_digest=digest,
            origin=tool.origin,
            display_text=shown,
        )
        _outermost_first(pipeline)[0].remembered.tools[call.call_id] = pipeline.known_tool(tool)
    if wanted is None:
        return decided
    refusal = await refusal_of(tool, decided, context, pipeline.agent.limits.tool_timeout, pipeline.agent_name)
    if refusal is not None:
        return NotRun(refusal)
    if record.asked_before + 1 >= MAX_ASKED:
        return NotRun(f"Not run: people were asked about this call {MAX_ASKED} times, and it has changed again.")
    why = [text_of_change(changed, known, tool)] if changed else []
    if edits(record):
        why.append(text_of_edit(call, record))
    return ask_again(wanted, record, met, "\n".join(why))


def edits(record: DecisionRecord) -> bool:
    """Return whether a decision changes the arguments that were shown."""
    return record.kind == "edit"


def met_by(record: DecisionRecord) -> Sequence[str]:
    """Return the demands that are met for the arguments as decided.

    An approval adds to what was met for the same arguments. Edited arguments are new: only the demands count that the person who
    edited them was shown.
    """
    return tuple(record.demands) if edits(record) else (*record.met, *record.demands)


def ask_again(wanted: PendingCall, record: DecisionRecord, met: Sequence[str], why: str) -> PendingCall:
    """Return what people are asked about a call that they were asked about before; the last time, without the choice to edit."""
    asked = record.asked_before + 1
    allowed = wanted.allowed if asked + 1 < MAX_ASKED else tuple(kind for kind in wanted.allowed if kind != "edit") or ("reject",)
    text = f"{wanted.text}\n{why}" if wanted.text else why
    return attrs.evolve(wanted, asked_before=asked, met=met, allowed=allowed, text=text)


def text_of_edit(call: ToolCall, record: DecisionRecord) -> str:
    """Return how people are told that a call was edited."""
    before = record.arguments or canonical(call.arguments)
    return f"Edited by a person: the arguments were {before if len(before) <= _SHOWN else f'{before[: _SHOWN - 1]}…'}"


async def ask_inner_gates(pipeline: Pipeline, host: MiddlewareHost, turn_id: str, call: PendingCall, record: DecisionRecord) -> str | None:
    """Have the gates of sub-agents look at a decision about a call that they claimed; return what the model is to read, or None.

    The gate of the agent itself was asked before the decision was recorded. The gates of its sub-agents exist only while these run:
    they are asked when the call continues, and a call that they refuse is not run.

    Raises:
        ValueError: a gate refuses the decision.

    Cancellation: nothing was done.
    """
    outermost, *inner = _outermost_first(pipeline)
    if record.kind not in DECISION_KINDS:
        return None
    named = {"type": record.kind, "interrupt_id": record.interrupt_id, "call_id": record.call_id, "digest": record.digest}
    decision = Decision.from_dict({**named, **json.loads(record.content)})
    found: str | None = None
    for gate in inner:
        for middleware in gate.having("answer"):
            if id_of(middleware) not in call.claimed_by or any(middleware is other for other in outermost.agent.middleware):
                continue
            context = attrs.evolve(gate.context(middleware, host, turn_id), path=pipeline.path, pipeline=pipeline)
            try:
                text: object = await gate.call(middleware, "answer", context, attrs.evolve(call), decision)
            except MiddlewareError as exc:
                if isinstance(exc.__cause__, ValueError):
                    raise exc.__cause__ from exc
                raise
            if text is not None and not isinstance(text, str):
                raise MiddlewareError(id_of(middleware), "answer") from TypeError(f"answer returns a str or None, not {text!r}")
            if found is None and text is not None:
                found = check_text(text, "the answer")
    return found


def may_repeat(tools: Mapping[str, Tool], call: ToolCall, decided: Collection[str]) -> bool:
    """Return whether a call that was running when the process died may be run again.

    Args:
        tools: the registered tools, by name.
        call: an open call of the history, not of a sub-agent.
        decided: the ids of the calls that people decided about, or about a call inside them. None of these runs a second time.
    """
    tool = tools.get(call.name)
    return tool is not None and tool.recovery == "repeat" and call.call_id not in decided

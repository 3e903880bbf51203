"""The closing of open calls.

A turn may end before its calls have results, for five causes:

    cut           the turn was cancelled or failed while it ran
    crashed       its process died, or its last write failed
    superseded    a message came instead of a decision
    dismissed     a person acknowledged a halt
    expired       nobody decided in time (`decisions.expire`: the other calls of the turn continue)

A turn that a crash has cut also continues if one of its calls is repeated: a call of a tool that says that it is idempotent
(`repeat_after_crash`). A call is repeated once.

With `SessionPolicy.after_crash = "continue"` every turn that a crash has cut continues from its last commit (`continue_after_crash`): the
partial answer stays and is marked, and the model is asked again. A turn that ends its process again and again is closed in the end.

Whatever the cause, every other open call gets one result that says what is known of it; and a turn that does not continue ends with an
assistant message whose stop reason is its mark. A history is only ever appended to. A provider takes it afterwards, and no call runs again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.conversation.decided import as_run
from trio_sagents.conversation.failures import lost_error
from trio_sagents.conversation.history import is_cut, is_gated, open_calls
from trio_sagents.conversation.limits import fit
from trio_sagents.conversation.outcomes import Totals, TurnStatus, totals_of, turn_record, with_record, with_usage
from trio_sagents.conversation.results import Answered, asking_in, result_message, results_step, with_message
from trio_sagents.conversation.state import NOTHING, ConversationState, Moment, OpenDecisions, Step, with_decisions
from trio_sagents.conversation.unfinished import Unfinished
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import FROM_TOOL, Message, StopReason, TextPart, ThinkingPart, ToolCall, ToolResult, ToolStatus
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.reading import UNSENT
from trio_sagents.data.records import Lifecycle

CLOSING_TEXT: Final[Mapping[ToolStatus, str]] = {
    "pending": "This call was not run: the turn was cut before it began.",
    "cancelled": "This call was cancelled while it ran; it may have had some effect.",
    "interrupted": "This call was not run: nobody decided on it.",
    "unknown": "The outcome of this call is unknown: it had begun, and may have had its effect. Do not assume either.",
}
"""What the model reads of a call that was closed, by what is known of the call."""

REPEATED: Final = "repeated_calls"
"""In the metadata of a conversation: the ids of the calls that the last start after a crash has repeated."""
CRASHED: Final = "its process ended while it ran"
"""What people read of a turn whose process died."""
CRASHED_AGAIN: Final = "its process ended {count} times while it ran, so it is not continued any more"
"""What people read of a turn that was continued after crashes, and whose process died once too often."""
CONTINUES: Final = (
    "The process that ran you ended while you were answering. People have seen the text above, which was cut there. Finish the answer."
)
"""What the model reads behind the part of an answer that it had given before a crash."""
RECOVERY: Final = "recovery"
"""In the metadata of that message, as the name of the tool that has said it: no person has."""
UNSAVED: Final = "a step of the turn could not be stored"
"""What people read of a turn that a failed write cut."""
FAILED: Final[TurnStatus] = "failed"
AFTER_CRASH: Final[TurnStatus] = "crashed"


@attrs.frozen
class Closing:
    """How a turn is closed."""

    turn_id: str | None
    stop_reason: StopReason
    """The mark of the turn's last answer: "cancelled", "stream_error" or "crashed"."""
    lifecycle: Lifecycle
    cause: str | None = None
    """Kept in the metadata of that answer."""
    unsent: Sequence[str] = ()
    """The ids of messages that the provider refused: the answer marks them, and they are not sent to a model any more."""
    error: JSON | None = None
    """Why the turn failed, from `failures.encode_error`; kept there, too, and shown to people."""
    status: TurnStatus = "cancelled"
    """How the turn ended, for its record."""
    totals: Totals | None = None
    """What the turn did, for its record; None is what its history tells."""
    texts: Mapping[str, str] = attrs.field(factory=dict)
    """By call id: what the model reads instead of the usual text."""
    inner: Mapping[str, ToolStatus] = NOTHING
    """By call id: how calls of sub-agents have ended."""


def closed_result(call: ToolCall, known: ToolStatus, text: str | None = None) -> ToolResult:
    """Return the result of a call that is closed.

    Args:
        call: the open call.
        known: what is known of it: "pending" (not begun), "interrupted" (not decided), "cancelled" or "unknown".
        text: what the model reads; None is the usual text.
    """
    status: ToolStatus = "unknown" if known == "unknown" else "cancelled"
    usual = CLOSING_TEXT.get(known, CLOSING_TEXT["unknown"])
    return ToolResult(call.call_id, call.name, usual if text is None else text, status)


def marked_answer(partial: Message | None, closing: Closing, totals: Totals, new_ids: Iterator[str]) -> Message:
    """Return the last answer of a closed turn: text and thinking so far are kept; its calls are dropped, for they never began."""
    parts = () if partial is None else tuple(part for part in partial.parts if isinstance(part, TextPart | ThinkingPart) and part.text)
    message_id = next(new_ids) if partial is None else partial.message_id
    metadata: dict[str, JSONValue] = {} if closing.cause is None else {"cause": closing.cause}
    if closing.unsent:
        metadata[UNSENT] = list(closing.unsent)
    marked = Message(message_id, "assistant", parts, closing.stop_reason, closing.turn_id, metadata)
    return with_record(marked, turn_record(closing.status, totals, closing.error))


def close_turn(
    moment: Moment,
    calls: Sequence[tuple[ToolCall, ToolResult]],
    partial: Message | None,
    closing: Closing,
    *,
    asking: Message | None = None,
    decided: OpenDecisions | None = None,
    usage: Usage | None = None,
) -> Step:
    """Return the step that closes a turn: the results, then the marked answer. Texts are cut so that the state can be loaded again.

    Args:
        moment: the conversation.
        calls: the calls without a stored result, each with its result, in the order in which they are stored.
        partial: the answer so far, or None.
        closing: how.
        asking: the answer that asked for the calls, if its commit is still on its way; None is the last one of the state.
        decided: what was decided about the open calls; None is what the state has.
        usage: what the turn has used, for the marked answer; None leaves it out.
    """
    state, new_ids = moment.state, moment.ids.source()
    decided = state.open_decisions if decided is None else decided
    results = [result_message(result, closing.turn_id, new_ids) for _, result in calls]
    known = totals_of(state.messages, closing.turn_id) if closing.totals is None else closing.totals
    messages = (*with_decisions(results, decided, closing.inner), marked_answer(partial, closing, known, new_ids))
    limits = moment.limits
    fitted = fit(messages, limits.max_state_bytes + limits.slack_bytes - state.size)
    ran = [as_run(call, state.decisions.get(call.call_id)) for call, _ in calls]
    answered = [Answered(call, message) for call, message in zip(ran, fitted[:-1], strict=True)]
    step = results_step(answered, asking or asking_in(state.messages), closing.lifecycle, moment.now)
    answer = fitted[-1] if usage is None else with_usage(fitted[-1], usage)
    step = with_message(step, answer, moment.now)
    return attrs.evolve(step, draft=None, open_decisions={} if state.open_decisions else None)


def continue_after_crash(moment: Moment, kept: Collection[str], max_recoveries: int) -> Step | None:
    """Return the step with which a turn that a crash has cut continues from its last commit.

    Open calls get their results, but for those that are kept. The part of an answer that was stored stays, as an answer of its own that is
    marked, and a message tells the model so: most providers take no history that ends with an answer.

    Args:
        moment: the conversation, as it was loaded.
        kept: the ids of the open calls that stay open, because they run again, or have not begun and wait for a person.
        max_recoveries: how often a turn may be continued that does not get on.

    Returns:
        None if the turn was not cut, or must not be continued any more.
    """
    state, new_ids = moment.state, moment.ids.source()
    if state.waiting is not None or not is_cut(state.messages):
        return None
    turn_id = state.messages[-1].turn_id
    calls = [call for call in open_calls(state.messages) if call.call_id not in kept]
    results = [result_message(closed_result(call, _known_after_crash(state, call)), turn_id, new_ids) for call in calls]
    said = _said_before(state, turn_id)
    messages = (*with_decisions(results, state.open_decisions), *([] if said is None else [said, _note(next(new_ids), turn_id)]))
    seen = state.older + len(state.messages) + len(messages)
    earlier = state.unfinished or Unfinished()
    mark = earlier.continued(turn_id, gets_on=_gets_on(state, earlier.seen), seen=seen)
    if mark.is_over(max_recoveries):
        return None
    fitted = fit(messages, moment.limits.max_state_bytes + moment.limits.slack_bytes - state.size)
    ran = [as_run(call, state.decisions.get(call.call_id)) for call in calls]
    answered = [Answered(call, message) for call, message in zip(ran, fitted[: len(calls)], strict=True)]
    step = results_step(answered, asking_in(state.messages), "on_step", moment.now)
    for message in fitted[len(calls) :]:
        step = with_message(step, message, moment.now)
    repeated = [call_id for call_id in kept if call_id in {call.call_id for call in calls_to_repeat(state)}]
    metadata: JSON | None = {REPEATED: sorted(repeated)} if repeated else None
    decided = {call_id: records for call_id, records in state.open_decisions.items() if call_id in kept} if state.open_decisions else None
    return attrs.evolve(step, draft=None, open_decisions=decided, metadata=metadata, unfinished=mark)


def _said_before(state: ConversationState, turn_id: str | None) -> Message | None:
    """Return what the model had said of the answer that a crash cut, marked; None if nothing of it was stored."""
    draft = state.draft
    if draft is None or draft.turn_id != turn_id:
        return None
    parts = tuple(part for part in draft.parts if isinstance(part, TextPart | ThinkingPart) and part.text)
    has_text = any(isinstance(part, TextPart) for part in parts)
    return Message(draft.message_id, "assistant", parts, "crashed", turn_id) if has_text else None


def _note(message_id: str, turn_id: str | None) -> Message:
    return Message(message_id, "user", (TextPart(CONTINUES),), None, turn_id, {FROM_TOOL: RECOVERY})


def _gets_on(state: ConversationState, seen: int) -> bool:
    """Return whether a round of tool calls has ended since the history had so many messages: each call of an answer has a known result."""
    since = state.messages[max(seen - state.older, 0) :]
    known = {result.call_id for message in since for result in message.results if result.status != "unknown"}
    return any(message.calls and all(call.call_id in known for call in message.calls) for message in since)


def calls_not_begun(state: ConversationState) -> Sequence[ToolCall]:
    """Return the open calls of a turn that a crash has cut which wait for a person to decide, and so have not begun."""
    if state.waiting is not None or not is_cut(state.messages):
        return ()
    return [call for call in open_calls(state.messages) if _known_after_crash(state, call) == "interrupted"]


def close_after_crash(moment: Moment, *, was_unsaved: bool = False) -> Step | None:
    """Return the step that closes a history which a crash or a failed write cut; None if the history is whole.

    A call that is open had been stored before it began, so it may have run: its outcome is "unknown", and nobody runs it again.
    A call that was stored as waiting for a person, and that nobody decided on, has not begun.

    Args:
        moment: the conversation.
        was_unsaved: whether the agent lives, and a write of it failed.
    """
    state = moment.state
    if state.waiting is not None or not is_cut(state.messages):
        return None
    turn_id = state.messages[-1].turn_id
    partial = state.draft if state.draft is not None and state.draft.turn_id == turn_id else None
    closed = [(call, closed_result(call, _known_after_crash(state, call))) for call in open_calls(state.messages)]
    if was_unsaved:
        error, status = lost_error("storage", UNSAVED), FAILED
    else:
        count = 0 if state.unfinished is None or state.unfinished.turn_id != turn_id else state.unfinished.in_all
        words = CRASHED if not count else CRASHED_AGAIN.format(count=count + 1)
        error, status = lost_error("crash", words), AFTER_CRASH
    return close_turn(moment, closed, partial, Closing(turn_id, "crashed", "on_error", error=error, status=status))


def calls_to_repeat(state: ConversationState) -> Sequence[ToolCall]:
    """Return the open calls of a turn that a crash has cut, if these may run again as far as the conversation says: the tool decides.

    The calls are in the order in which the model asked for them. A call that waits for people, or that people decided about, is never
    repeated; nor is a call that was repeated already: perhaps it is what ends the process.
    """
    if state.waiting is not None or not is_cut(state.messages):
        return ()
    earlier, asking = state.metadata.get(REPEATED), asking_in(state.messages)
    repeated = earlier if isinstance(earlier, list | tuple) else ()
    settled = {*state.decisions, *state.open_decisions, *repeated}
    found = [call for call in open_calls(state.messages) if call.call_id not in settled]
    return [call for call in found if asking is None or not is_gated(asking, call.call_id)]


def repeat_after_crash(moment: Moment, repeated: Collection[str]) -> Step:
    """Return the step with which a turn that a crash has cut continues: all open calls but those that are repeated are closed.

    Args:
        moment: the conversation, as it was loaded.
        repeated: the ids of the calls to run again, from `calls_to_repeat`.
    """
    state, new_ids = moment.state, moment.ids.source()
    turn_id = state.messages[-1].turn_id
    calls = [call for call in open_calls(state.messages) if call.call_id not in repeated]
    results = [result_message(closed_result(call, _known_after_crash(state, call)), turn_id, new_ids) for call in calls]
    messages = with_decisions(results, state.open_decisions)
    ran = [as_run(call, state.decisions.get(call.call_id)) for call in calls]
    answered = [Answered(call, message) for call, message in zip(ran, messages, strict=True)]
    step = results_step(answered, asking_in(state.messages), "on_step", moment.now)
    metadata: JSON = {REPEATED: sorted(repeated)}
    return attrs.evolve(step, draft=None, open_decisions={} if state.open_decisions else None, metadata=metadata)


def _known_after_crash(state: ConversationState, call: ToolCall) -> ToolStatus:
    asking = asking_in(state.messages)
    has_begun = asking is None or call.call_id in state.open_decisions or not is_gated(asking, call.call_id)
    return "unknown" if has_begun else "interrupted"

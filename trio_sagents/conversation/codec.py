"""Stored records <-> the state of a conversation, strictly.

What a store gives is untrusted: every record is decoded without coercion, nothing unknown is ignored, and what no commit of this
library can have written is a `StateError`. A state that is refused is left as it is in the store.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits, message_bytes, size_of
from trio_sagents.conversation.state import ConversationState, OpenDecisions, Step, Unchanged, Waiting
from trio_sagents.conversation.unfinished import UNFINISHED, decode_unfinished
from trio_sagents.conversation.validity import check_draft, check_history, check_interrupt
from trio_sagents.data.draft_wire import DraftPiece, encode_piece, join_pieces, piece_key, piece_number
from trio_sagents.data.interrupt_wire import (
    decode_interrupt,
    decode_records,
    encode_interrupt,
    encode_record,
    records_of,
    waiting_in,
)
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message
from trio_sagents.data.records import Conversation
from trio_sagents.data.todos import Todo
from trio_sagents.data.wire import ReadRecords, decode_message, decode_messages, decode_metadata, decode_todos, encode_message, encode_todo
from trio_sagents.exceptions import StateError

MAX_COUNT: Final = 2**52
"""Epochs and revisions are below this bound, so that there is room to count on."""
OPEN_DECISIONS: Final = "open_decisions"
"""The key of the stored state that has the decisions about open calls."""
FORMER_OPEN_DECISIONS: Final = "taken"
"""The name of that key in older states, which are still read."""
KEYS: Final = frozenset({"todos", "metadata", "interrupt", "draft", UNFINISHED, OPEN_DECISIONS, FORMER_OPEN_DECISIONS})


def restored(stored: Conversation, ids: Ids, limits: Limits) -> ConversationState:
    """Return the state that a store has of a conversation, and mark its ids as used.

    Raises:
        StateError: the stored conversation cannot be used.
    """
    known = stored.conversation_id
    if not (0 <= stored.epoch < MAX_COUNT and 0 <= stored.revision < MAX_COUNT):
        raise StateError(known, f"its epoch and revision are {stored.epoch} and {stored.revision}")
    messages = decode_messages(known, stored.messages)
    queue = decode_messages(known, stored.queue)
    open_ids = check_history(known, messages, queue)
    queued = {message.message_id: message for message in queue}
    state = ConversationState(messages, queued, is_restored=True, older=stored.older)
    state.message_ids = _digests((*messages, *queue))
    state.message_ids.update(stored.message_ids)
    ids.claim((*messages, *queue))
    ids.messages.update(state.message_ids)
    _restore_rest(known, stored.state, state, ids)
    nested = {call_id for record in _suspended(state).values() for call_id in waiting_in(known, record)}
    check_interrupt(known, state.interrupt, messages, open_ids, nested)
    state.size = _stored_size(stored.messages) + _stored_size(stored.queue)
    whole = state.size + size_of(dict(stored.state))
    if not limits.can_load(whole):
        raise StateError(known, f"it has {whole} bytes, max_state_bytes is {limits.max_state_bytes}")
    return state


def _stored_size(records: Sequence[JSON]) -> int:
    """Return the bytes of records, as stored: a store that has read their texts knows it."""
    return records.size if isinstance(records, ReadRecords) else sum(size_of(record) for record in records)


def _restore_rest(known: str, stored: JSON, state: ConversationState, ids: Ids) -> None:
    pieces = {number: stored[key] for key in stored if (number := piece_number(key)) is not None}
    unknown = {key for key in stored if key not in KEYS and piece_number(key) is None}
    if unknown:
        raise StateError(known, f"the state has unknown keys: {', '.join(sorted(map(str, unknown)))}")
    state.todos = decode_todos(known, stored.get("todos", []))
    if len({todo.id for todo in state.todos}) != len(state.todos) or any(todo.id < 1 for todo in state.todos):
        raise StateError(known, "the ids of the todos are not distinct and positive")
    state.metadata = decode_metadata(known, stored.get("metadata", {}))
    state.unfinished = decode_unfinished(known, stored.get(UNFINISHED))
    draft = stored.get("draft")
    if pieces and not isinstance(draft, dict):
        raise StateError(known, "there are pieces of a draft, and no draft")
    state.draft = None if draft is None else decode_message(known, join_pieces(known, draft, pieces) if pieces else draft)
    state.draft_pieces = len(pieces)
    check_draft(known, state.draft, ids.messages)
    if state.draft is not None:
        ids.claim((state.draft,))
    interrupt, suspended, used = decode_interrupt(known, stored.get("interrupt"))
    state.waiting = None if interrupt is None else Waiting(interrupt, suspended, used)
    state.has_former_keys = FORMER_OPEN_DECISIONS in stored
    state.open_decisions = _open_decisions(known, stored)
    records = [record for message in state.messages for record in records_of(known, message)]
    records += [record for some in state.open_decisions.values() for record in some]
    if interrupt is not None:
        records += interrupt.decided
        ids.calls.update(call.call_id for call in interrupt.calls)
    state.note_decisions(records)


def _open_decisions(known: str, stored: JSON) -> OpenDecisions:
    decisions = stored.get(OPEN_DECISIONS)
    if decisions is None:
        decisions = stored.get(FORMER_OPEN_DECISIONS)
    if decisions is None:
        return {}
    if not isinstance(decisions, dict):
        raise StateError(known, f"the decisions are {type(decisions).__name__}, not an object")
    return {call_id: decode_records(known, records) for call_id, records in decisions.items()}


def _suspended(state: ConversationState) -> JSON:
    return {} if state.waiting is None else state.waiting.suspended


def seeded(conversation_id: str, messages: Sequence[Message], todos: Sequence[Todo], metadata: JSON, limits: Limits) -> ConversationState:
    """Return the state with which a fresh conversation begins: what a load gives once it is stored.

    Raises:
        ValueError: the state could not be loaded again, or no provider would take its history.
        LimitExceeded: it is too large.
    """
    try:
        for message in messages:
            decode_message(conversation_id, encode_message(message))
        decode_todos(conversation_id, [encode_todo(todo) for todo in todos])
        unanswered = check_history(conversation_id, messages)
        records = [record for message in messages for record in records_of(conversation_id, message)]
    except StateError as exc:
        raise ValueError(f"fresh_state_attrs cannot be used: {exc.why}") from exc
    if unanswered:
        raise ValueError(f"fresh_state_attrs['messages'] leaves the tool call {unanswered[0]!r} unanswered")
    size = message_bytes(messages)
    limits.check(size)
    state = ConversationState(list(messages), message_ids=_digests(messages), todos=tuple(todos), metadata=metadata, size=size)
    state.note_decisions(records)
    return state


def _digests(messages: Iterable[Message]) -> dict[str, str]:
    """Return the digests of the messages that were posted, by message id."""
    return {message.message_id: message.digest for message in messages if message.digest}


def encode_step(step: Step, metadata: JSON | None, pieces: int = 0) -> dict[str, JSONValue]:
    """Return the keys of the stored state that a step changes.

    Args:
        step: about to be committed.
        metadata: all metadata as they are after the step; None if the step leaves them.
        pieces: in how many pieces the draft may be stored before the step, beside its beginning.
    """
    changed: dict[str, JSONValue] = {}
    if not isinstance(step.draft, Unchanged):
        if isinstance(step.draft, DraftPiece):
            changed[piece_key(pieces + 1)] = encode_piece(step.draft)
        else:
            changed["draft"] = None if step.draft is None else encode_message(step.draft)
            changed.update((piece_key(number), None) for number in range(1, pieces + 1))
    if not isinstance(step.waiting, Unchanged):
        changed["interrupt"] = None if step.waiting is None else encode_waiting(step.waiting)
    if step.open_decisions is not None:
        changed[OPEN_DECISIONS] = encode_open_decisions(step.open_decisions) or None
    if step.todos is not None:
        changed["todos"] = [encode_todo(todo) for todo in step.todos]
    if metadata is not None:
        changed["metadata"] = metadata
    return changed


def encode_waiting(waiting: Waiting) -> JSON:
    """Return a turn that waits as a stored record."""
    return encode_interrupt(waiting.interrupt, waiting.suspended, waiting.used)


def encode_open_decisions(decisions: OpenDecisions) -> Mapping[str, JSONValue]:
    """Return the decisions about open calls as JSON, by call id."""
    return {call_id: [encode_record(record) for record in records] for call_id, records in decisions.items()}

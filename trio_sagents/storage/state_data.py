"""The state that an `AgentPersistence` keeps of a conversation, and how a commit changes it: plain functions.

The state is the JSON object that `AgentPersistence` describes as `state_data`. Beside the conversation it says what the host's
transcript (`DisplayMessagePersistence`) may not have yet, because the state is stored first, and the process may die before the
transcript is told:

- A message record with "unsaved" has perhaps not been saved in the transcript.
- "trio_sagents.tool_updates" in the metadata is a list of steps in the lives of tool calls that the transcript has perhaps not
  heard of, oldest first.

What the transcript has taken is left out of the next state that is stored, so a state names at least what one write brought.

Two more keys have their place there. A message record with "draft" is what a streaming answer had said so far: the last message,
already marked as cut by a crash, because that is what it becomes if the process dies now. "trio_sagents.taken" in the metadata
has the decisions about open calls.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, get_args

from trio_sagents.data.draft_wire import join_pieces, piece_number
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import ToolStatus
from trio_sagents.data.records import Commit, ToolUpdate
from trio_sagents.data.wire import SCHEMA_VERSION, dumps
from trio_sagents.exceptions import StateError, StateFromFuture

TAKEN: Final = "trio_sagents.taken"
"""A key of the stored metadata: the decisions about open calls."""
UPDATES: Final = "trio_sagents.tool_updates"
"""A key of the stored metadata: what the transcript may not have heard of tool calls."""
MAX_UPDATES_BYTES: Final = 1024 * 1024
"""How long the text of these steps may be. The oldest steps are dropped, so that a broken transcript does not let a state grow."""
_OWN_KEYS: Final = frozenset({TAKEN, UPDATES})
_STATUSES: Final = frozenset(get_args(ToolStatus))


def empty_state_data() -> dict[str, JSONValue]:
    """Return the state of a conversation before its first commit."""
    return {"version": SCHEMA_VERSION, "messages": [], "queue": [], "todos": [], "metadata": {}, "interrupt": None}


def check_state_data(conversation_id: str, data: JSON) -> dict[str, JSONValue]:
    """Return a copy of what `load_state` gave; its records of messages are copies, too.

    Raises:
        StateFromFuture: a later version of the library wrote it.
        StateError: it does not have the shape of a state; the message says what is wrong.
    """
    if not isinstance(data, Mapping):
        raise StateError(conversation_id, f"load_state gave {type(data).__name__}, not a mapping")
    version = data.get("version")
    if type(version) is not int or version < 1:
        raise StateError(conversation_id, f"it has the schema version {version!r}")
    if version > SCHEMA_VERSION:
        raise StateFromFuture(conversation_id, version, SCHEMA_VERSION)
    if set(data) != set(empty_state_data()):
        raise StateError(conversation_id, f"it has the keys {sorted(map(str, data))}")
    for key in ("messages", "queue"):
        if not isinstance(data[key], list) or not all(isinstance(record, dict) for record in data[key]):
            raise StateError(conversation_id, f"{key!r} is not a list of records")
    if not isinstance(data["metadata"], Mapping):
        raise StateError(conversation_id, f"metadata is {type(data['metadata']).__name__}, not an object")
    return {**data, "messages": [dict(record) for record in data["messages"]], "queue": [dict(record) for record in data["queue"]]}


def with_own_lists(data: JSON) -> dict[str, JSONValue]:
    """Return a copy whose lists of messages may be changed without changing those of `data`; the records are the same."""
    return {**data, "messages": list(data["messages"]), "queue": list(data["queue"])}


def own_metadata(data: JSON) -> JSON:
    """Return the metadata of the conversation, without the keys of this module."""
    return {key: value for key, value in data["metadata"].items() if key not in _OWN_KEYS}


def apply_commit(data: JSON, commit: Commit, unsaved: AbstractSet[str], updates: Iterable[ToolUpdate]) -> dict[str, JSONValue]:
    """Return the state after a commit; `data` stays as it is.

    Args:
        data: the state before the commit.
        commit: the change.
        unsaved: the ids of the commit's messages that the transcript is still to take.
        updates: the steps that the transcript is still to hear of, oldest first.
    """
    taken = set(commit.taken)
    waiting = {record["message_id"] for record in data["queue"] if record.get("unsaved")} & taken

    def marked(record: JSON) -> JSON:
        return {**record, "unsaved": True} if record["message_id"] in unsaved or record["message_id"] in waiting else record

    metadata = {key: value for key, value in commit.state.get("metadata", data["metadata"]).items() if key not in _OWN_KEYS}
    if decided := commit.state.get("taken") if "taken" in commit.state else data["metadata"].get(TAKEN):
        metadata[TAKEN] = decided
    if untold := [{"status": update.status, "tool_info": update.tool_info} for update in updates]:
        metadata[UPDATES] = untold
    messages = [record for record in data["messages"] if not record.get("draft")]
    draft = commit.state.get("draft", next((record for record in data["messages"] if record.get("draft")), None))
    pieces = [piece for key, piece in commit.state.items() if piece_number(key) is not None and piece is not None]
    if draft is not None and pieces:  # here the draft is stored whole each time, so that the state is one snapshot
        draft = join_pieces(commit.conversation_id, draft, dict(enumerate(pieces, 1)))
    messages += [marked(record) for record in commit.messages]
    if draft is not None:
        messages.append({**draft, "draft": True})
    return {
        "version": SCHEMA_VERSION,
        "messages": messages,
        "queue": [record for record in data["queue"] if record["message_id"] not in taken] + [marked(record) for record in commit.queued],
        **{key: commit.state.get(key, data[key]) for key in ("todos", "interrupt")},
        "metadata": metadata,
    }


def without_marks(record: JSON) -> JSON:
    """Return the record as a commit wrote it."""
    return {key: value for key, value in record.items() if key not in {"unsaved", "draft"}}


def unsaved_records(data: JSON) -> Sequence[JSON]:
    """Return the records that the transcript may not have, oldest first, without their marks."""
    return [without_marks(record) for key in ("messages", "queue") for record in data[key] if record.get("unsaved")]


def mark_saved(data: dict[str, JSONValue], message_id: str) -> None:
    """Note that the transcript has a message: the record loses its mark."""
    for records in (data["messages"], data["queue"]):
        for index in range(len(records) - 1, -1, -1):
            if records[index]["message_id"] == message_id:
                records[index] = without_marks(records[index])
                break


def read_updates(conversation_id: str, data: JSON) -> list[ToolUpdate]:
    """Return the steps that the transcript may not have heard of, oldest first; StateError if that list is damaged."""
    stored = data["metadata"].get(UPDATES, [])
    if not isinstance(stored, list):
        raise StateError(conversation_id, f"{UPDATES} is {type(stored).__name__}, not a list")
    updates: list[ToolUpdate] = []
    for entry in stored:
        if not isinstance(entry, dict) or set(entry) != {"status", "tool_info"} or not isinstance(entry["tool_info"], dict):
            raise StateError(conversation_id, f"an entry of {UPDATES} is not a step of a tool call")
        status = entry["status"]
        if not isinstance(status, str) or status not in _STATUSES or not isinstance(entry["tool_info"].get("call_id"), str):
            raise StateError(conversation_id, f"an entry of {UPDATES} does not have a status and a call id")
        updates.append(ToolUpdate(status, entry["tool_info"]))  # type: ignore[arg-type]  # one of the statuses, as was just checked
    return updates


def still_untold(updates: Sequence[ToolUpdate], told: AbstractSet[int]) -> tuple[list[ToolUpdate], int]:
    """Return the steps that the transcript is to hear of later, oldest first, and how many were given up.

    A step is left out if the transcript has heard of a later step of the same call, because it would undo that one. The oldest
    steps are given up if the list is longer than `MAX_UPDATES_BYTES`.

    Args:
        updates: all steps, oldest first.
        told: the indexes of those that the transcript has taken.
    """
    left: list[ToolUpdate] = []
    heard: set[JSONValue] = set()
    size = dropped = 0
    for index in range(len(updates) - 1, -1, -1):
        call_id = updates[index].tool_info["call_id"]
        if index in told:
            heard.add(call_id)
        elif call_id not in heard:
            size += len(dumps(updates[index].tool_info))
            if size > MAX_UPDATES_BYTES and left:
                dropped += 1
            else:
                left.append(updates[index])
    left.reverse()
    return left, dropped

"""The state that an `AgentPersistence` keeps of a conversation, and how a commit changes it: plain functions.

The state is a JSON object, the one that `AgentPersistence` describes. Two marks in its records are the library's own:

- "unsaved": the host's transcript has not taken the message yet. The message is offered again.
- "draft": the record is what a streaming answer had said so far. It is the last message, and it is already marked as cut by a
  crash, because that is what it becomes if the process dies now.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.records import Commit
from trio_sagents.data.wire import SCHEMA_VERSION
from trio_sagents.exceptions import StateError, StateFromFuture

TAKEN: Final = "trio_sagents.taken"
"""A key of the stored metadata: the decisions about open calls. The state that a host keeps has no other place for them."""


def empty_state_data() -> dict[str, JSONValue]:
    """Return the state of a conversation before its first commit."""
    return {"version": SCHEMA_VERSION, "messages": [], "queue": [], "todos": [], "metadata": {}, "interrupt": None}


def check_state_data(conversation_id: str, data: JSON) -> dict[str, JSONValue]:
    """Return a copy of what `load_state` gave.

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


def apply_commit(data: JSON, commit: Commit, unsaved: AbstractSet[str]) -> dict[str, JSONValue]:
    """Return the state after a commit; `data` stays as it is.

    Args:
        data: the state before the commit.
        commit: the change.
        unsaved: the ids of the commit's messages that the host's transcript is still to take.
    """
    taken = set(commit.taken)
    waiting = {record["message_id"] for record in data["queue"] if record.get("unsaved")} & taken

    def marked(record: JSON) -> JSON:
        return {**record, "unsaved": True} if record["message_id"] in unsaved or record["message_id"] in waiting else record

    plain = {key: value for key, value in commit.state.get("metadata", data["metadata"]).items() if key != TAKEN}
    decided = commit.state["taken"] if "taken" in commit.state else data["metadata"].get(TAKEN)
    messages = [record for record in data["messages"] if not record.get("draft")]
    draft = (
        commit.state.get("draft") if "draft" in commit.state else next((record for record in data["messages"] if record.get("draft")), None)
    )
    messages += [marked(record) for record in commit.messages]
    if draft is not None:
        messages.append({**draft, "draft": True})
    return {
        "version": SCHEMA_VERSION,
        "messages": messages,
        "queue": [record for record in data["queue"] if record["message_id"] not in taken] + [marked(record) for record in commit.queued],
        **{key: commit.state.get(key, data[key]) for key in ("todos", "interrupt")},
        "metadata": {**plain, TAKEN: decided} if decided else plain,
    }


def without_marks(record: JSON) -> JSON:
    """Return the record as a commit wrote it."""
    return {key: value for key, value in record.items() if key not in {"unsaved", "draft"}}

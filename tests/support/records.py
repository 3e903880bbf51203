"""The plain model of one conversation: what was committed, and the shape of every history. No Trio, no library code."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

Record = Mapping[str, Any]


def _is_piece(key: str) -> bool:
    return key.startswith("draft.")


def _with_piece(draft: Any, piece: Any) -> Any:
    """Return the record of a draft with one piece more."""
    assert piece["message_id"] == draft["message_id"]
    parts, more = list(draft["parts"]), list(piece["parts"])
    assert len(parts) - piece["part"] in {0, 1}
    if piece["part"] < len(parts):
        more[0] = {**more[0], "text": parts.pop()["text"] + more[0]["text"]}
    return {**draft, "parts": [*parts, *more]}


def draft_after(before: Any, state: Any) -> Any:
    """Return the record of the draft after a commit with this state, given the record before it."""
    draft = state.get("draft", before)
    for key in sorted((key for key in state if _is_piece(key) and state[key] is not None), key=lambda key: int(key[6:])):
        draft = _with_piece(draft, state[key])
    return draft


def drafts_of(commits: Iterable[Any]) -> list[Any]:
    """Return the whole draft after each commit that stores a draft, or a piece of a draft."""
    drafts: list[Any] = []
    before: Any = None
    for commit in commits:
        stores = any(commit.state[key] is not None for key in commit.state if key == "draft" or _is_piece(key))
        before = draft_after(before, commit.state)
        if stores:
            drafts.append(before)
    return drafts


def stored_draft(state: Any) -> Any:
    """Return the whole draft of a stored state, or None."""
    return draft_after(None, state)


class Violation(AssertionError):
    """A promise was broken. The message names the invariant."""


def check(condition: object, invariant: str, what: str) -> None:
    """Raise `Violation` if an invariant does not hold."""
    if not condition:
        raise Violation(f"{invariant}: {what}")


def plain(value: object) -> Any:
    """Return a value as JSON has it: lists for tuples, dicts for mappings."""
    return json.loads(json.dumps(value, default=lambda value: dict(value) if isinstance(value, Mapping) else list(value)))


@attrs.define
class ExpectedConversation:
    """One conversation, as its commits tell."""

    conversation_id: str
    owner: str | int | None = None
    epoch: int = 0
    revision: int = 0
    history: list[Record] = attrs.field(factory=list)
    queue: dict[str, Record] = attrs.field(factory=dict)
    ids: dict[str, str] = attrs.field(factory=dict)
    rows: dict[str, str] = attrs.field(factory=dict)
    """Row id to message id."""
    draft: Record | None = None
    since_end: int = 0
    """Messages that were accepted since the last turn ended."""
    last_change: float = 0.0
    """When the last commit that counts as activity was made, on the virtual clock."""

    @property
    def is_stored(self) -> bool:
        """Whether anything is stored."""
        return self.revision > 0

    def apply(self, commit: Any, now: float | None) -> None:
        """Record one commit, as the store reports it; at `now`, or None if nobody is told of it."""
        check(commit.revision == self.revision + 1, "I10", f"revision {commit.revision} follows {self.revision}")
        if self.is_stored:
            check(commit.epoch == self.epoch, "I10", f"a commit of epoch {commit.epoch} landed at epoch {self.epoch}")
            check(commit.owner == self.owner, "I20", f"a commit of {commit.owner!r} landed in {self.owner!r}'s conversation")
        self.owner, self.epoch, self.revision = commit.owner, commit.epoch, commit.revision
        for record in map(plain, commit.queued):
            check(record["message_id"] not in self.queue, "I15", f"{record['message_id']} is queued twice")
            self.queue[record["message_id"]] = record
        for message_id in commit.taken:
            check(message_id in self.queue, "I15", f"{message_id} is taken, but not queued")
            del self.queue[message_id]
        self.history.extend(plain(record) for record in commit.messages)
        for message_id, digest in commit.message_ids.items():
            check(message_id not in self.ids, "I15", f"the message id {message_id} is accepted twice")
            self.ids[message_id] = digest
        for row in commit.rows:
            self.rows[row.row_id] = row.message_id
        if any(_ends_turn(plain(record)) for record in commit.messages):
            self.since_end = 0
        if now is not None:
            self.since_end += len(commit.queued)
        self.draft = draft_after(self.draft, plain(dict(commit.state)))
        if now is not None and (commit.queued or commit.taken or commit.messages):
            self.last_change = now
        self.check_history(is_whole=False)

    def check_history(self, *, is_whole: bool) -> None:
        """Check what must hold of a history at any moment, or (`is_whole`) while no turn runs on it."""
        ids: set[str] = set()
        calls: dict[str, bool] = {}
        turns: list[str] = []
        for record in self.history:
            message_id = record["message_id"]
            check(message_id not in ids, "I8", f"message {message_id} is in the history twice")
            check(message_id not in self.queue, "I15", f"message {message_id} is in the history and in the queue")
            ids.add(message_id)
            turn_id = record["turn_id"]
            if turn_id is not None and (not turns or turns[-1] != turn_id):
                check(turn_id not in turns, "I9", f"a message of turn {turn_id} comes after a later turn")
                turns.append(turn_id)
            for part in record["parts"]:
                if part["type"] == "tool_call":
                    check(part["call_id"] not in calls, "I8", f"the call {part['call_id']} is there twice")
                    calls[part["call_id"]] = False
                if part["type"] == "tool_result":
                    check(calls.get(part["call_id"]) is False, "I8", f"a result for {part['call_id']}, which is not open")
                    calls[part["call_id"]] = True
        shown = set(self.rows.values())
        known = ids | set(self.queue)
        check(shown <= known, "I12", f"rows of unknown messages: {shown - known}")
        missing = {record["message_id"] for record in self.history if _is_visible(record)} - shown
        check(not missing, "I12", f"messages without rows: {missing}")
        if is_whole:
            check(all(calls.values()), "I8", f"open calls while no turn runs: {[call for call in calls if not calls[call]]}")
            last = self.history[-1] if self.history else None
            check(
                last is None or (last["role"] == "assistant" and last["stop_reason"] != "tool_calls"),
                "I15",
                f"the history ends inside a turn: {last}",
            )

    def answer_to(self, message_id: str) -> Record | None:
        """Return the assistant message that ends the turn which took a message; None if there is none yet."""
        turn_id = next((message["turn_id"] for message in self.history if message["message_id"] == message_id), None)
        of_turn = [message for message in self.history if message["turn_id"] == turn_id] if turn_id is not None else []
        last = of_turn[-1] if of_turn else None
        return last if last is not None and last["role"] == "assistant" and last["stop_reason"] != "tool_calls" else None


def _ends_turn(record: Record) -> bool:
    return bool(record["role"] == "assistant" and record["stop_reason"] != "tool_calls")


def _is_visible(record: Record) -> bool:
    return any(part["type"] != "text" or part["text"] for part in record["parts"]) or (
        record["role"] == "assistant" and record["stop_reason"] in {"cancelled", "stream_error", "crashed"}
    )


def check_request(messages: Sequence[Any]) -> None:
    """Check that a provider would accept this history: each call is answered right after it, and a user or a tool message comes last."""
    open_calls: set[str] = set()
    for message in messages:
        if message.role == "tool":
            for result in message.results:
                check(result.call_id in open_calls, "I8", f"the model is sent a result for {result.call_id}, which is not open")
                open_calls.discard(result.call_id)
            continue
        check(not open_calls, "I8", f"the model is sent open calls: {open_calls}")
        open_calls = {call.call_id for call in message.calls}
    check(not open_calls, "I8", f"the model is sent open calls: {open_calls}")
    check(messages and messages[-1].role in {"user", "tool"}, "I8", "the model is asked to answer nothing")

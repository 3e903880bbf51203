"""What must hold after any run, as far as public names show it; the messages have the numbers of the invariants.

`check_messages` looks at one history, `check_conversation` at what is stored, `CommitLog` at every write as it comes,
`check_told` at what somebody was promised, `check_closed` and `no_task_left` at what is left behind.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import trio

from trio_sagents import Sessions
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import Message
from trio_sagents.data.records import Commit, Conversation
from trio_sagents.data.wire import decode_message

__all__ = (
    "CommitLog",
    "Violation",
    "check",
    "check_closed",
    "check_conversation",
    "check_messages",
    "check_told",
    "no_task_left",
)


class Violation(AssertionError):
    """A promise is broken; the message begins with the number of the invariant."""


def check(condition: object, invariant: str, what: str) -> None:
    """Raise `Violation` unless `condition` is true."""
    if not condition:
        raise Violation(f"{invariant}: {what}")


def check_messages(messages: Sequence[Message], *, is_whole: bool = True) -> None:
    """Check a history, oldest message first, as a strict provider would (I8, I9).

    Args:
        messages: the history.
        is_whole: whether the history is complete: no turn runs, and no question to a person is open.
    """
    ids: set[str] = set()
    calls: dict[str, bool] = {}
    turns: list[str | None] = []
    open_calls: set[str] = set()
    for message in messages:
        check(message.message_id not in ids, "I8", f"duplicate message {message.message_id!r}")
        ids.add(message.message_id)
        if message.turn_id is not None and message.turn_id not in turns[-1:]:
            check(
                message.turn_id not in turns, "I9", f"message {message.message_id!r} of turn {message.turn_id!r} comes after a later turn"
            )
            turns.append(message.turn_id)
        if message.role != "tool":
            check(not open_calls, "I8", f"message {message.message_id!r} is between a call and its result: {sorted(open_calls)}")
        for call in message.calls:
            check(message.role == "assistant", "I8", f"a {message.role} message has the call {call.call_id!r}")
            check(call.call_id not in calls, "I8", f"the call {call.call_id!r} is there twice")
            calls[call.call_id] = False
            open_calls.add(call.call_id)
        for result in message.results:
            check(message.role == "tool", "I8", f"a {message.role} message has a result")
            check(calls.get(result.call_id) is False, "I8", f"a result for {result.call_id!r}, which is not open")
            calls[result.call_id] = True
            open_calls.discard(result.call_id)
    if is_whole:
        check(not open_calls, "I8", f"calls without a result: {sorted(open_calls)}")
        last = messages[-1] if messages else None
        if last is not None and last.role != "system" and (last.role != "assistant" or last.stop_reason in {None, "tool_calls"}):
            raise Violation(f"I14: the history ends inside a turn: {last}")


def check_conversation(stored: Conversation, *, is_whole: bool = True) -> None:
    """Check one stored conversation: its history, its queue, and the ids it has accepted (I8, I12, I15).

    Args:
        stored: the conversation, as `load` of a store returns it.
        is_whole: whether its agent has ended normally; after a crash, the next start closes what was cut.
    """
    history = [decode_message(stored.conversation_id, record) for record in stored.messages]
    queue = [decode_message(stored.conversation_id, record) for record in stored.queue]
    check_messages(history, is_whole=is_whole and stored.state.get("interrupt") is None)
    taken = {message.message_id for message in history}
    for message in queue:
        check(message.role == "user", "I15", f"a {message.role} message is queued")
        check(message.message_id not in taken, "I15", f"message {message.message_id!r} is in the history and in the queue")
    waiting = [message.message_id for message in queue]
    check(len(set(waiting)) == len(waiting), "I15", f"a message is queued twice: {waiting}")
    missing = set(stored.message_ids) - taken - set(waiting)
    check(not missing, "I15", f"accepted, but neither in the history nor in the queue: {sorted(missing)}")


def check_told(told: Iterable[str], stored: Conversation | None) -> None:
    """Check that each message whose `post` returned is stored, exactly once (I13).

    Args:
        told: the ids of messages, in any order; the id of a message that was posted twice may be there twice.
        stored: the conversation; None if there is none.
    """
    records: Sequence[JSON] = () if stored is None else (*stored.messages, *stored.queue)
    there = [record["message_id"] for record in records]
    for message_id in told:
        check(
            there.count(message_id) == 1, "I13", f"message {message_id!r} was acknowledged, and is stored {there.count(message_id)} times"
        )


@attrs.define(eq=False)
class CommitLog:
    """Follows the writes of a store, and checks each write when it comes (I9, I10, I12, I15).

    Args:
        is_restored: whether the store had conversations before, whose beginnings were not seen.
    """

    is_restored: bool = False
    _revisions: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    _queues: dict[str, dict[str, None]] = attrs.field(factory=dict)
    _ids: dict[str, set[str]] = attrs.field(factory=dict)
    _rows: dict[str, set[str]] = attrs.field(factory=dict)

    def add(self, commit: Commit | str) -> None:
        """Note a write that had its effect; raise `Violation` if it may not come after the writes before.

        Args:
            commit: the commit, or the id of a conversation that was deleted, as `FaultyStore.written` lists them.
        """
        if isinstance(commit, str):
            for kept in (self._revisions, self._queues, self._ids, self._rows):
                kept.pop(commit, None)
            return
        name = commit.conversation_id
        if name not in self._revisions and self.is_restored:
            self._revisions[name] = (commit.epoch, commit.revision - 1)
        epoch, revision = self._revisions.get(name, (commit.epoch, 0))
        check(commit.revision == revision + 1, "I10", f"revision {commit.revision} of {name!r} follows {revision}")
        check(commit.epoch >= epoch, "I10", f"a write of epoch {commit.epoch} of {name!r} came after a write of epoch {epoch}")
        self._revisions[name] = (commit.epoch, commit.revision)
        queue = self._queues.setdefault(name, {})
        ids = self._ids.setdefault(name, set())
        for message_id in commit.message_ids:
            check(message_id not in ids, "I15", f"message {message_id!r} of {name!r} is accepted twice")
        ids.update(commit.message_ids)
        queue.update((str(record["message_id"]), None) for record in commit.queued)
        for message_id in commit.taken:
            check(message_id in queue or self.is_restored, "I15", f"message {message_id!r} of {name!r} is taken, but was not queued")
            queue.pop(message_id, None)
        ids.update(str(record["message_id"]) for record in commit.messages)
        rows = self._rows.setdefault(name, set())
        rows.update(row.message_id for row in commit.rows)
        shown = [str(record["message_id"]) for record in commit.messages if _is_shown(record)]
        missing = [message_id for message_id in shown if message_id not in rows]
        check(not missing or self.is_restored, "I12", f"messages of {name!r} have no row in the same transaction: {missing}")


def _is_shown(record: JSON) -> bool:
    return any(part.get("text") if part["type"] == "text" else part["type"] != "opaque" for part in record["parts"])


def check_closed(sessions: Sessions) -> None:
    """Check that sessions have nothing left after their block (I2, I16, I29)."""
    left = {name: count for name, count in attrs.asdict(sessions.statistics()).items() if count}
    check(not left, "I29", f"the sessions are closed, but still have {left}")


@contextmanager
def no_task_left() -> Iterator[None]:
    """Check that there are as many tasks after the block as before it (I29)."""
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    after = trio.lowlevel.current_statistics().tasks_living
    check(after <= before, "I29", f"{after - before} tasks are left")

"""What must hold of a file after a crash, whatever the process was doing: read with plain SQL, compared with the acknowledgements."""

import datetime
import functools
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final, Literal, TypeAlias

import attrs

from tests.search.crashes.notes import Log, Notes
from tests.search.crashes.workload import text_of
from tests.support.stores import accepted_in
from trio_sagents.conversation.closing import CLOSING_TEXT
from trio_sagents.conversation.history import is_cut, is_gated
from trio_sagents.conversation.rows import rows_of
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.data.messages import Message, ToolCall, ToolResult, ToolStatus
from trio_sagents.data.wire import decode_message
from trio_sagents.persistence._records import decode_row
from trio_sagents.persistence._sqlite_tables import PARTS

State: TypeAlias = Literal["crashed", "left", "closed"]
"""The file after a crash; or after a life that ended normally, which has closed what was cut; or after everything was answered."""
_NO_TIME: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)


@attrs.frozen
class Row:
    """A row of the transcript, as far as it can be compared."""

    message_id: str
    role: str
    content: str
    status: str
    turn_id: str | None
    is_final: bool


def _encode(content: JSON) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


@functools.lru_cache(maxsize=50_000)
def _decoded(body: str) -> Message:
    return decode_message("of a test", json.loads(body))


@functools.lru_cache(maxsize=50_000)
def _asked(body: str) -> Sequence[ToolCall]:
    return _decoded(body).calls


@functools.lru_cache(maxsize=50_000)
def _answered(body: str) -> Sequence[ToolResult]:
    return _decoded(body).results


@functools.lru_cache(maxsize=50_000)
def _shown(body: str) -> Sequence[tuple[str, str | None, Row]]:
    """Return the rows that show a message: the row id, the call if it shows one, and what is expected."""
    found = []
    for row in rows_of(_decoded(body), _NO_TIME):
        call_id = str(row.content["call_id"]) if row.content_type == "tool_call" else None
        found.append((row.row_id, call_id, Row(row.message_id, row.role, _encode(row.content), row.status, row.turn_id, row.is_final)))
    return found


def forget() -> None:
    """Drop the decoded records after the last look at a file: no other file has the same, and a large process is slow to fork."""
    for known in (_decoded, _asked, _answered, _shown, text_of):
        known.cache_clear()


@attrs.frozen
class Stored:
    """One conversation as the file has it."""

    epoch: int
    revision: int
    message_count: int
    bodies: Sequence[str]
    queue: Sequence[str]
    message_ids: frozenset[str]
    state: JSON
    rows: Mapping[str, Row]
    """By row id."""

    @property
    def history(self) -> Sequence[Message]:
        """The messages that turns took or said."""
        return [_decoded(body) for body in self.bodies]

    @property
    def waiting(self) -> Sequence[Message]:
        """The queue."""
        return [_decoded(body) for body in self.queue]


def read(path: str) -> tuple[dict[str, Stored], list[str]]:
    """Return what is in the file, and what is wrong with the file itself."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            wrong = [f"the file: {text}" for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'transcript'").fetchone():
                return {}, wrong
            heads = connection.execute("SELECT conversation_id, number, epoch, revision, message_count FROM conversations").fetchall()
            found = {name: _read_one(connection, *head) for name, *head in heads}
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            for part in (part for part in PARTS if part in there):  # a file of the first version gets two when it is opened
                strays = connection.execute(f"SELECT count(*) FROM {part} WHERE conversation NOT IN (SELECT number FROM conversations)")
                wrong += [f"the file: {part} has rows of no conversation"] * (strays.fetchone() != (0,))
        except sqlite3.DatabaseError as exc:
            return {}, [f"the file: {exc}"]
    return found, wrong


def _read_one(connection: sqlite3.Connection, number: int, epoch: int, revision: int, message_count: int) -> Stored:
    def rows(query: str) -> list[tuple[Opaque, ...]]:
        return connection.execute(f"SELECT {query}", (number,)).fetchall()

    shown = "row_id, message_id, role, content_type, content, status, created_at FROM transcript WHERE conversation = ?"
    return Stored(
        epoch,
        revision,
        message_count,
        [body for (body,) in rows("body FROM messages WHERE conversation = ? ORDER BY place")],
        [body for (body,) in rows("body FROM queue WHERE conversation = ? ORDER BY place")],
        frozenset(message_id for message_id, _ in connection.execute(accepted_in(connection), (number,))),
        {key: json.loads(body) for key, body in rows("name, body FROM state WHERE conversation = ?")},
        {row_id: _row_of(row_id, fields) for row_id, *fields in rows(shown)},
    )


def _row_of(row_id: str, fields: Sequence[Opaque]) -> Row:
    row = decode_row("of a test", row_id, fields)
    return Row(row.message_id, row.role, _encode(row.content), row.status, row.turn_id, row.is_final)


@attrs.define
class Oracle:
    """Compares one file, life after life, with what was noted about it."""

    log: Log = attrs.field(factory=Log)
    _before: dict[str, Stored] = attrs.field(factory=dict)
    _open_calls: dict[str, dict[str, ToolStatus]] = attrs.field(factory=dict)
    """By conversation and id, the calls without a result that a crash has left, and what each must be closed as."""

    def check_image(self, path: str, *, promised: bool) -> tuple[list[str], dict[str, Stored]]:
        """Return what is wrong with a file of which the end may be missing, and what is in it; remember nothing.

        Args:
            path: of the file.
            promised: whether all that was acknowledged must be there.
        """
        found, wrong = read(path)
        for name, notes in self.log.conversations.items():
            if promised and name not in found and (notes.posted or notes.again or notes.started):
                wrong.append(f"{name}: not there, but messages were acknowledged: {[*notes.posted, *notes.again][:3]}")
        for name, stored in found.items():
            one = _Conversation(name, stored, self.log.conversations.get(name, Notes()))
            wrong += [f"{name}: {what}" for what in (*one.whole(), *(one.acknowledged() if promised else ()))]
        return wrong, found

    def check(self, path: str, state: State) -> list[str]:
        """Return what is wrong; remember what was found, for the next time."""
        found, wrong = read(path)
        for name, notes in self.log.conversations.items():
            if name not in found and (notes.posted or notes.again or notes.started):
                wrong.append(f"{name}: not there, but messages were acknowledged: {[*notes.posted, *notes.again][:3]}")
        for name, stored in found.items():
            notes = self.log.conversations.get(name, Notes())
            one = _Conversation(name, stored, notes)
            wrong += [f"{name}: {what}" for what in (*one.whole(), *one.acknowledged(), *self._since(one))]
            if state != "crashed":
                wrong += [f"{name}: {what}" for what in one.closed(self._open_calls.get(name, {}))]
                wrong += [f"{name}: {len(one.queue)} messages still wait"] * (state == "closed" and bool(one.queue))
            else:
                self._open_calls.setdefault(name, {}).update(one.cut_calls())
        self._before = found
        return wrong

    def _since(self, one: "_Conversation") -> list[str]:
        """Return what went backwards since the last look."""
        before = self._before.get(one.name)
        if before is None:
            return []
        wrong = []
        if (one.stored.epoch, one.stored.revision) < (before.epoch, before.revision) or one.stored.revision < before.revision:
            wrong.append(f"epoch and revision fell from {before.epoch, before.revision} to {one.stored.epoch, one.stored.revision}")
        if list(one.stored.bodies[: len(before.bodies)]) != list(before.bodies):
            wrong.append("the history changed, and did not only grow")
        if lost := before.message_ids - one.stored.message_ids:
            wrong.append(f"the message ids {sorted(lost)[:3]} are forgotten")
        return wrong


@attrs.define
class _Conversation:
    """One conversation in one look, and what most checks need of it, computed once."""

    name: str
    stored: Stored
    notes: Notes
    history: Sequence[Message] = attrs.field(init=False)
    queue: Sequence[Message] = attrs.field(init=False)
    calls: Sequence[ToolCall] = attrs.field(init=False)
    """All that the history asks for, in order."""
    results: Sequence[ToolResult] = attrs.field(init=False)
    """All that the history has, in order."""
    records: Sequence[JSON] = attrs.field(init=False)
    """All decisions on record."""
    open_calls: Sequence[str] = attrs.field(init=False)
    """The calls without a result, which are not waiting for a person."""

    def __attrs_post_init__(self) -> None:
        self.history, self.queue = self.stored.history, self.stored.waiting
        self.calls = [call for body in self.stored.bodies for call in _asked(body)]
        self.results = [result for body in self.stored.bodies for result in _answered(body)]
        self.records = self._records()
        answered = {result.call_id for result in self.results}
        # A turn that waits for a person outlives its process: nothing has cut its calls.
        self.open_calls = [] if self.is_interrupted else [call.call_id for call in self.calls if call.call_id not in answered]

    # ── in itself

    def whole(self) -> list[str]:
        """Return where its parts do not agree: each commit is there as a whole, or not at all."""
        wrong = []
        if len(self.history) != self.stored.message_count:
            wrong.append(f"{len(self.history)} messages, and should have {self.stored.message_count}")
        everything = [message.message_id for message in (*self.history, *self.queue)]
        if twice := [item for item, count in Counter(everything).items() if count > 1]:
            wrong.append(f"the messages {twice[:3]} stand twice")
        accepted = {message.message_id for message in (*self.history, *self.queue) if message.role == "user"}
        if accepted != self.stored.message_ids:
            wrong.append(f"the message ids differ from the messages in {sorted(accepted ^ self.stored.message_ids)[:3]}")
        for message in (*self.history, *self.queue):
            expected = f"closing {message.message_id}" if ".z." in message.message_id else text_of(message.message_id)
            if message.role == "user" and message.text != expected:
                wrong.append(f"the message {message.message_id} says {message.text[:20]!r}")
        draft = self.stored.state.get("draft")
        if draft is not None and not is_cut(self.history):
            wrong.append("there is a draft, and no turn")
        return [*wrong, *self._calls(), *self._order(), *self._transcript()]

    def _calls(self) -> list[str]:
        wrong = []
        asked = Counter(call.call_id for call in self.calls)
        answered = Counter(result.call_id for result in self.results)
        if twice := [call_id for call_id, count in (asked + answered).items() if count > 2 or answered[call_id] > 1]:
            wrong.append(f"the calls {twice[:3]} have more than one answer")
        if strays := set(answered) - set(asked):
            wrong.append(f"the results {sorted(strays)[:3]} answer no call")
        return wrong

    def _order(self) -> list[str]:
        """Return where the messages that one person posted in sequence are in another order than they were acknowledged in."""
        places = {message.message_id: place for place, message in enumerate((*self.history, *self.queue))}
        last: dict[str, str] = {}
        wrong = []
        for message_id in self.notes.posted:
            if message_id in places:
                before = last.get(person := message_id.split(".")[1])
                if before is not None and places[before] > places[message_id]:
                    wrong.append(f"the message {message_id} was acknowledged after {before}, and stands before it")
                last[person] = message_id
        return wrong

    def _transcript(self) -> list[str]:
        """Return where the transcript does not show exactly the messages of the history and the queue."""
        results = {result.call_id: result.status for result in self.results}
        edits = {record["call_id"]: json.loads(record["content"]) for record in self.records if record["kind"] == "edit"}
        not_begun = set(self.not_begun())
        expected: dict[str, Row] = {}
        for body in (*self.stored.bodies, *self.stored.queue):
            for row_id, call_id, shown in _shown(body):
                row, there = shown, self.stored.rows.get(row_id)
                if row.role == "user" and there is not None and there.turn_id is None:  # queued: it has its rows before a turn takes it
                    row = attrs.evolve(row, turn_id=None)
                if call_id is not None:  # a call without a result has to wait for a person, waits for a person, or runs
                    is_waiting = there is not None and there.status == "interrupted"
                    status = results.get(call_id, "pending" if call_id in not_begun else "interrupted" if is_waiting else "executing")
                    row = attrs.evolve(row, status=status, is_final=call_id in results)
                if call_id in edits:
                    edited = _encode({**json.loads(shown.content), **edits[call_id]})
                    if call_id in self.notes.paid or (there is not None and there.content == edited):  # people see what ran
                        row = attrs.evolve(row, content=edited)
                expected[row_id] = row
        differing = [row_id for row_id in {*expected, *self.stored.rows} if expected.get(row_id) != self.stored.rows.get(row_id)]
        return [
            f"the row {row_id} is {str(self.stored.rows.get(row_id))[:200]}, and should be {str(expected.get(row_id))[:200]}"
            for row_id in sorted(differing)[:3]
        ]

    # ── acknowledgements

    def acknowledged(self) -> list[str]:
        """Return what was acknowledged and is missing."""
        there = {message.message_id: message for message in (*self.history, *self.queue)}
        wrong = [
            f"the message {message_id} was acknowledged, and is lost"
            for message_id in (*self.notes.posted, *self.notes.again)
            if message_id not in there
        ]
        last = {message.turn_id: message for message in self.history if message.role == "assistant" and message.turn_id}
        for message_id, (kind, detail) in self.notes.outcomes.items():
            if message_id in there and not _has_outcome(last.get(there[message_id].turn_id), kind, detail):
                wrong.append(f"the outcome {kind} {detail} of {message_id} was told, and is not on record")
        cut = Counter(str(message.metadata["cause"]) for message in self.history if "cause" in message.metadata)
        for cause in ("user", "stopped"):
            if cut[cause] > self.notes.asked[cause]:
                wrong.append(f"{cut[cause]} turns were cut with the cause {cause}, and {self.notes.asked[cause]} were asked for")
        return [*wrong, *self._tools(), *self._decisions()]

    def _tools(self) -> list[str]:
        wrong = [f"the call {call_id} was run {count} times" for call_id, count in self.notes.started.items() if count > 1]
        asked = {call.call_id for call in self.calls}
        wrong += [f"the call {call_id} was run, and is not on record" for call_id in self.notes.started if call_id not in asked]
        for result in self.results:
            if result.status == "completed" and result.call_id not in self.notes.finished:
                wrong.append(f"the call {result.call_id} is completed, and was never seen to return")
        return wrong

    def _records(self) -> list[JSON]:
        """Return all decisions on record: of the open interrupt, of calls that are taken, of calls that have their result."""
        interrupt = self.stored.state.get("interrupt") or {}
        taken = self.stored.state.get("open_decisions") or {}
        records = [*interrupt.get("decided", ()), *(record for some in taken.values() for record in some)]
        for message in self.history:
            records += message.metadata.get("decisions", ())
        # While a turn runs, that of a call which has its result is in both places; only the one in the message has the outcome.
        plain = [{name: value for name, value in record.items() if name != "outcome"} for record in records]
        return [record for place, record in enumerate(plain) if record not in plain[:place]]

    def _decisions(self) -> list[str]:
        wrong = []
        kinds = {record["call_id"]: record["kind"] for record in self.records}
        if len(kinds) != len(self.records):
            wrong.append("a call has two decisions")
        for call_id, kind in self.notes.decided.items():
            if kinds.get(call_id) != kind:
                wrong.append(f"the decision {kind} about {call_id} was acknowledged, and {kinds.get(call_id)} is on record")
        for call_id, amount in self.notes.paid.items():
            allowed = {
                decision for decision in self.notes.deciding.get(call_id, ()) if decision[0] == self.notes.decided.get(call_id, decision[0])
            }
            if not any(kind != "reject" and approved == amount for kind, approved in allowed):
                wrong.append(f"the call {call_id} paid {amount}, and what was decided is {sorted(allowed)}")
            if kinds.get(call_id) not in {"approve", "edit"}:
                wrong.append(f"the call {call_id} paid, and its decision on record is {kinds.get(call_id)}")
        return wrong

    @property
    def is_interrupted(self) -> bool:
        """Whether a turn waits for a person."""
        return self.stored.state.get("interrupt") is not None

    # ── after a life that ended normally

    def not_begun(self) -> Sequence[str]:
        """Return the calls without a result whose answer says that they wait for a person, while there is no interrupt yet."""
        undecided = {*self.open_calls} - {record["call_id"] for record in self.records}
        if not undecided:
            return ()
        asking = {call.call_id: message for message in self.history for call in message.calls}
        return [call for call in self.open_calls if call in undecided and is_gated(asking[call], call)]

    def cut_calls(self) -> Mapping[str, ToolStatus]:
        """Return the calls that a crash has cut, and what is known of each. A call that had to wait for a person has not begun."""
        not_begun = set(self.not_begun())
        return {call: "interrupted" if call in not_begun else "unknown" for call in self.open_calls}

    def closed(self, cut: Mapping[str, ToolStatus]) -> list[str]:
        """Return what differs from the state that a life which ended normally leaves."""
        wrong = []
        if self.is_interrupted:
            pass  # a turn that waits for a person outlives its process
        elif is_cut(self.history):
            wrong.append("a turn is not closed")
        if self.open_calls:
            wrong.append(f"the calls {self.open_calls[:3]} have no answer")
        if self.stored.state.get("draft") is not None:
            wrong.append("there is still a draft")
        for result in self.results:
            known = cut.get(result.call_id)
            status = "unknown" if known == "unknown" else "cancelled"
            if known is not None and (result.status, result.content) != (status, CLOSING_TEXT[known]):
                wrong.append(f"a crash cut the call {result.call_id}, which is {known}: it is {result.status}, {result.content!r}")
        return wrong


def _has_outcome(last: Message | None, kind: str, detail: str) -> bool:
    """Return whether the last answer of a turn says how it ended."""
    match kind:
        case "completed":
            return last is not None and last.message_id == detail and last.stop_reason == "stop"
        case "cancelled":
            return last is not None and last.stop_reason == "cancelled" and last.metadata.get("cause") == detail
        case "failed":
            return last is not None and last.stop_reason == "stream_error"
        case _:
            return True  # unanswered: the message is there, which is all that was said

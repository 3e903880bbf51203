"""The stores under the machines: one that fails on demand and keeps a model of its contents, and ways to look into the real stores."""

import contextlib
import copy
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import attrs
import trio

from tests.support.records import ExpectedConversation, Record, Violation, check, plain
from trio_sagents import MemoryStore, PersistenceError, SqliteStore
from trio_sagents.data.records import UNCHECKED, Commit, Conversation, ConversationPage, HistoryPage, Owner
from trio_sagents.persistence._sqlite_schema import FIRST_TABLES, STORE_FILE

Fault = Literal["before", "after", "slow", "late"]
SLOW = {"slow": 0.5, "late": 8.0}
"""Virtual seconds of a slow commit; the longer one exceeds `settle_timeout`."""


@attrs.frozen
class Picture:
    """What a store has of one conversation, read without any of the store's own code."""

    owner: Owner
    epoch: int
    revision: int
    history: list[Record]
    queue: list[Record]
    ids: dict[str, str]
    rows: dict[str, str]


def expected_of(conversation_id: str, picture: Picture) -> ExpectedConversation:
    """Return the model of a conversation that is stored already."""
    queue = {record["message_id"]: record for record in picture.queue}
    return ExpectedConversation(
        conversation_id, picture.owner, picture.epoch, picture.revision, picture.history, queue, dict(picture.ids), dict(picture.rows)
    )


class Backend(Protocol):
    """A real store, and a way to look into it."""

    store: Any

    def look(self, conversation_id: str) -> Picture | None: ...

    def clone(self) -> "Backend":
        """Return what would be found after a kill -9 now."""
        ...


class MemoryBackend:
    """A `MemoryStore`."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def look(self, conversation_id: str) -> Picture | None:
        """Read its dict."""
        row = self.store._stored.get(conversation_id)
        if row is None:
            return None
        messages = [json.loads(text) for text in row.messages]
        queue = [json.loads(text) for text in row.queue.values()]
        rows = {row_id: fields[0] for row_id, fields in row.rows.items()}
        return Picture(row.owner, row.epoch, row.revision, messages, queue, dict(row.message_ids), rows)

    def clone(self) -> "MemoryBackend":
        """Copy it."""
        other = MemoryBackend()
        other.store = copy.deepcopy(self.store)
        return other


ACCEPTED = """SELECT message_id, digest FROM messages WHERE conversation = ?1 AND message_id IS NOT NULL
UNION ALL SELECT message_id, digest FROM queue WHERE conversation = ?1 AND digest IS NOT NULL
UNION ALL SELECT message_id, digest FROM message_ids WHERE conversation = ?1"""
"""The ids that were ever accepted in one conversation of a file."""


def accepted_in(connection: sqlite3.Connection) -> str:
    """Return the query for the ids that were ever accepted in one conversation, whichever version the file has."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return "SELECT message_id, digest FROM message_ids WHERE conversation = ?1" if version == 1 else ACCEPTED


def make_first(path: str | Path) -> None:
    """Make an empty file as a library of version 1 made it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in FIRST_TABLES.values():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {STORE_FILE.application_id}")
        connection.execute("PRAGMA user_version = 1")


class SqliteBackend:
    """A `SqliteStore`, on a file of its own."""

    def __init__(self, folder: Path, number: int = 0) -> None:
        self.folder = folder
        self.number = number
        self.path = folder / f"{number}.db"
        self.store = SqliteStore(self.path, synchronous="NORMAL")

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            yield connection
        finally:
            connection.close()

    def look(self, conversation_id: str) -> Picture | None:
        """Read the file through a separate connection."""
        if not self.path.exists():
            return None
        with self._connect() as connection:
            found = connection.execute(
                "SELECT number, owner, epoch, revision FROM conversations WHERE conversation_id = ?", (conversation_id,)
            ).fetchone()
            if found is None:
                return None
            number, owner, epoch, revision = found

            def bodies(table: str) -> list[Record]:
                query = f"SELECT body FROM {table} WHERE conversation = ? ORDER BY place"
                return [json.loads(body) for (body,) in connection.execute(query, (number,))]

            ids = dict(connection.execute(accepted_in(connection), (number,)))
            rows = dict(connection.execute("SELECT row_id, message_id FROM transcript WHERE conversation = ?", (number,)))
            return Picture(json.loads(owner), epoch, revision, bodies("messages"), bodies("queue"), ids, rows)

    def clone(self) -> "SqliteBackend":
        """Copy the file as its last transaction left it."""
        other = SqliteBackend(self.folder, self.number + 1)
        if self.path.exists():
            with self._connect() as source, contextlib.closing(sqlite3.connect(other.path)) as target:
                source.backup(target)
        return other


class WatchedStore:
    """A host's `ConversationStore` around a real store. It fails and delays as armed, and records what was stored."""

    checks_owner: Literal[True] = True

    def __init__(self, backend: Backend, expectations: dict[str, ExpectedConversation]) -> None:
        self.backend = backend
        self.expectations = expectations
        self.armed: dict[str, list[Fault | None]] = {}
        """By conversation: what happens to its next commits, in order; None is nothing."""
        self.armed_loads: dict[str, int] = {}
        self.faults = 0
        """How many faults have struck."""
        self.lies = 0
        """How many of these faults were reported for a commit that was done."""
        self.dawdled = 0
        """How many commits took so long that others may have given up."""
        self.busy = 0
        """Calls that are on their way."""
        self.violations: list[Violation] = []
        self._pictures: dict[str, tuple[tuple[int, int], Picture]] = {}

    def expected(self, conversation_id: str) -> ExpectedConversation:
        """Return the model of a conversation."""
        return self.expectations.setdefault(conversation_id, ExpectedConversation(conversation_id))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the real store."""
        opening = getattr(self.backend.store, "open", None)
        if opening is None:
            yield
        else:
            async with opening():
                yield

    async def load(self, scope: Any, conversation_id: str, **inside: Any) -> Conversation | None:
        """Load, with the further arguments of an `OwnedStore`; a load that is armed fails."""
        if self.armed_loads.get(conversation_id, 0):
            self.armed_loads[conversation_id] -= 1
            self.faults += 1
            await trio.lowlevel.checkpoint()
            raise OSError("armed: the load failed")
        self.busy += 1
        try:
            found: Conversation | None = await self.backend.store.load(scope, conversation_id, **inside)
            if found is not None:
                expected = self.expected(conversation_id)
                self._note(
                    lambda: check(found.epoch == expected.epoch + 1, "I10", f"a load gave epoch {found.epoch} after {expected.epoch}")
                )
                self._note(lambda: check(plain(found.messages) == expected.history, "I11", "a load gave another history"))
                self._note(lambda: check(plain(found.queue) == list(expected.queue.values()), "I15", "a load gave another queue"))
                expected.epoch = found.epoch
        finally:
            self.busy -= 1
        return found

    async def commit(self, scope: Any, commit: Commit, *, owner: Any = UNCHECKED) -> int:
        """Commit; fail before or after the effect, or take long, as armed."""
        armed = self.armed.get(commit.conversation_id)
        fault = armed.pop(0) if armed else None
        self.busy += 1
        try:
            if fault in SLOW:
                self.dawdled += fault == "late"
                await trio.sleep(SLOW[fault])
            if fault == "before":
                self.faults += 1
                await trio.lowlevel.checkpoint()
                raise OSError("armed: the commit failed, nothing was done")
            # No checkpoint from the effect to the model: MemoryStore and the lockstep threads answer at once.
            revision: int = await self.backend.store.commit(scope, commit, **({} if owner is UNCHECKED else {"owner": owner}))
            heard = None if fault == "after" else trio.current_time()
            self._note(lambda: self.expected(commit.conversation_id).apply(commit, heard))
            if fault == "after":
                self.faults += 1
                self.lies += 1
                await trio.lowlevel.checkpoint()
                raise OSError("armed: the commit was done, but its answer was lost")
        finally:
            self.busy -= 1
        return revision

    async def history(self, scope: Any, conversation_id: str, *, before: str | None, limit: int, owner: Any = UNCHECKED) -> HistoryPage:
        """Read."""
        page: HistoryPage = await self.backend.store.history(scope, conversation_id, before=before, limit=limit, owner=owner)
        return page

    async def conversations(self, scope: Any, *, after: str | None, limit: int, owner: Any = UNCHECKED) -> ConversationPage:
        """Read."""
        page: ConversationPage = await self.backend.store.conversations(scope, after=after, limit=limit, owner=owner)
        return page

    async def delete(self, scope: Any, conversation_id: str, *, owner: Any = UNCHECKED) -> bool:
        """Refuse: no rule of the machine deletes."""
        raise PersistenceError("the machine deletes nothing")

    def _note(self, step: Any) -> None:
        """Do a step of the model. A violation is kept for the machine, and does not reach the library."""
        try:
            step()
        except Violation as exc:
            self.violations.append(exc)

    def look(self, conversation_id: str) -> Picture | None:
        """Look into the real store. An unchanged conversation is not read again."""
        return self.backend.look(conversation_id)

    def check_expectations(self) -> None:
        """Compare the real store with the models. Only while no call is on its way."""
        for expected in self.expectations.values():
            seen = self._pictures.get(expected.conversation_id)
            if seen is not None and seen[0] == (expected.epoch, expected.revision):
                continue
            picture = self.look(expected.conversation_id)
            if picture is None:
                check(not expected.is_stored, "I13", f"conversation {expected.conversation_id} is gone from the store")
                continue
            self._pictures[expected.conversation_id] = ((expected.epoch, expected.revision), picture)
            check(picture.revision == expected.revision, "I10", f"the store is at {picture.revision}, the commits at {expected.revision}")
            check(picture.epoch == expected.epoch, "I10", f"the store has epoch {picture.epoch}, the loads gave {expected.epoch}")
            check(picture.history == expected.history, "I12", "the stored history is not what was committed")
            check(picture.queue == list(expected.queue.values()), "I12", "the stored queue is not what was committed")
            check(picture.ids == expected.ids, "I12", "the stored message ids are not those that were committed")
            check(picture.rows == expected.rows, "I12", "the stored rows are not those that were committed")

"""Files of version 1: used as they are, and rewritten as new files are. `version_1.sql` is what a library of that version left.

The file has a conversation at rest, one of another owner, one that waits for a person, one after a failure, and one whose process died
in the middle of a turn, with two messages in its queue.
"""

import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.scenarios import answer_to, ask, make_agent, opened, state_of
from tests.support.stores import accepted_in
from trio_sagents import Completed, Interrupted, MessageConflict, PersistenceError, SqliteStore, StateError, Unanswered
from trio_sagents.persistence import _sqlite_windows as windows
from trio_sagents.persistence._sqlite_migration import TO_SECOND
from trio_sagents.persistence._sqlite_schema import FIRST_TABLES, TABLES

NAMES = ("plain", "owned", "waiting", "held", "cut")
KILLED_AT = (1, 5, 9, 13, 18, 22, 25)
"""Before which statements of a migration its process is killed: some in its transaction, some behind it."""
KILLED = """
import os, signal, sqlite3, sys
from trio_sagents._sqlite import opening
from trio_sagents.persistence import _sqlite_migration as migration

class Mortal(sqlite3.Connection):
    left = 0
    def execute(self, *args):
        if args[0] == "BEGIN EXCLUSIVE":
            Mortal.left = int(sys.argv[2])
        elif Mortal.left:
            Mortal.left -= 1
            if not Mortal.left:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*args)

class Module:
    def connect(self, *args, **options):
        return sqlite3.connect(*args, factory=Mortal, **options)
    def __getattr__(self, name):
        return getattr(sqlite3, name)

opening.sqlite3 = Module()
migration.migrate(sys.argv[1], 5.0)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file of version 1."""
    found = tmp_path / "chat.db"
    with contextlib.closing(sqlite3.connect(found)) as connection:
        connection.executescript(Path(__file__).with_name("version_1.sql").read_text(encoding="utf-8"))
        connection.execute("PRAGMA journal_mode = WAL")
    return found


def version_of(path: Path) -> tuple[int, int]:
    """Return the version of a file, and the size of its pages."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "page_size"))  # type: ignore[return-value]  # two


async def content_of(path: Path) -> Mapping[str, Any]:
    """Return all that a store says of a file."""
    store, found = SqliteStore(path), {}
    async with store.open():
        for name in NAMES:
            stored = await store.load(None, name)
            assert stored is not None
            rows = (await store.history(None, name, before=None, limit=1000)).rows
            found[name] = (stored.owner, stored.revision, stored.messages, stored.queue, dict(stored.message_ids), stored.state, rows)
        found["list"] = await store.conversations(None, after=None, limit=10)
        found["owned list"] = await store.conversations(None, after=None, limit=10, owner="alice")
        found["waiting list"] = (await store.waiting(None, after=None, limit=10)).items
    return found


async def converse(path: Path) -> None:
    """Continue each conversation, as people do."""
    async with opened(make_agent(), store=SqliteStore(path)) as sessions:
        assert "re: again" == await answer_to(sessions, "again", conversation_id="plain")
        receipt = await sessions.post("plain", "hello", message_id="m1")
        assert receipt.duplicate
        with pytest.raises(MessageConflict):
            await sessions.post("plain", "another", message_id="m2")
        assert "re: again" == await answer_to(sessions, "again", conversation_id="owned", scope="alice", message_id="m9")
        assert Unanswered("crashed") == await ask(sessions, "hang", conversation_id="cut", message_id="h1")
        for message_id, text in (("h2", "queued behind"), ("h3", "and this")):  # the queue has run
            assert isinstance(await ask(sessions, text, conversation_id="cut", message_id=message_id), Completed)
        assert isinstance(await ask(sessions, "pay", conversation_id="waiting", message_id="p1"), Interrupted)
        for name in NAMES:
            await sessions.stop(name, scope="alice" if name == "owned" else None)
    for name in NAMES:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (number,) = connection.execute("SELECT number FROM conversations WHERE conversation_id = ?", (name,)).fetchone()
            accepted = [message_id for message_id, _ in connection.execute(accepted_in(connection), (number,))]
        assert sorted(set(accepted)) == sorted(accepted)


def test_tables_when_the_version_is_the_first() -> None:
    """The tables of version 1 are known to the letter: otherwise no old file could be opened."""
    assert {"conversations_by_change"} == set(FIRST_TABLES) - set(TABLES)
    assert {"messages_by_id"} == set(TABLES) - set(FIRST_TABLES)


async def test_conversations_when_the_file_is_not_migrated(path: Path) -> None:
    """A file of version 1 is used as it is, and stays a file of version 1."""
    await converse(path)

    assert (1, 4096) == version_of(path)


async def test_conversations_when_the_file_is_migrated(path: Path) -> None:
    """A migrated file has the same conversations, and they continue."""
    before = await content_of(path)
    migrated = await SqliteStore(path).migrate()
    after = await content_of(path)

    assert migrated
    assert before == after
    assert (2, 2048) == version_of(path)
    assert not await SqliteStore(path).migrate()
    await converse(path)


async def test_tables_when_the_file_is_migrated(path: Path) -> None:
    """A migrated file has the tables of a new file, to the letter, and the ids of its messages are in their rows."""
    await SqliteStore(path).migrate()

    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = dict(
            connection.execute(
                "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT IN ('state_waiting', 'state_unfinished')"
            )
        )
        ids = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("message_ids", "messages", "queue")]
        named = connection.execute("SELECT count(*) FROM messages WHERE message_id IS NOT NULL").fetchone()
        whole = connection.execute("PRAGMA integrity_check").fetchone()
    assert TABLES == {name: text for name, text in found.items() if name not in windows.PARTS}
    assert [0, 17, 2] == ids
    assert (8,) == named
    assert ("ok",) == whole


async def test_window_when_the_file_is_migrated(path: Path) -> None:
    """A conversation of the first version gets its window, and keeps it when its file is migrated: old messages are known all the same."""
    first: dict[str, str] = {}
    for life in range(3):
        async with opened(make_agent(), store=SqliteStore(path), policy={"window": 2}) as sessions:
            if not life:
                for number in range(4):
                    first[f"w{number}"] = (await (await sessions.post("plain", str(number), message_id=f"w{number}")).wait()).message.text
            for message_id, text in first.items():
                again = await sessions.post("plain", message_id[1:], message_id=message_id)
                assert (True, text) == (again.duplicate, (await again.wait()).message.text)
            state = await state_of(sessions, "plain")
            (item,) = [item for item in (await sessions.conversations()).items if item.conversation_id == "plain"]
            assert (4, item.message_count) == (len(state.messages), state.older + 4)
        if life == 1:
            assert await SqliteStore(path).migrate()


async def test_conversations_when_the_file_was_migrated_and_has_its_old_pages(path: Path) -> None:
    """A process may die between the two steps of a migration: the file can be used then, and the next migration continues."""
    before = await content_of(path)
    await SqliteStore(path).migrate()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in ("journal_mode = DELETE", "page_size = 4096"):
            connection.execute(f"PRAGMA {statement}")
        connection.execute("VACUUM")

    assert (2, 4096) == version_of(path)
    assert before == await content_of(path)
    assert await SqliteStore(path).migrate()
    assert (2, 2048) == version_of(path)
    assert before == await content_of(path)


@pytest.mark.slow
@pytest.mark.parametrize("statement", KILLED_AT)
async def test_migration_when_its_process_is_killed(path: Path, statement: int) -> None:
    """Whenever the process is killed, the file can be used as it is, nothing of it is lost, and the next migration completes."""
    before = await content_of(path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(statement)], check=False, capture_output=True, text=True)

    assert -signal.SIGKILL == done.returncode, done.stderr
    assert before == await content_of(path)
    assert await SqliteStore(path).migrate()
    assert before == await content_of(path)


def test_migration_when_it_is_killed_in_all_its_steps() -> None:
    """The kills strike before the first statement, in the transaction, at its end, and behind it."""
    counting = 6  # the queries that count, before and after the statements

    assert min(KILLED_AT) < counting < len(TO_SECOND) < max(KILLED_AT)


async def test_migration_when_a_conversation_is_damaged(path: Path) -> None:
    """A damaged conversation stays as damaged as it is, and costs the others nothing."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE messages SET body = 'not json' WHERE place = 2")
        connection.execute("UPDATE messages SET body = CAST(x'7bff7d' AS TEXT) WHERE place = 12")
        connection.execute("INSERT INTO messages (conversation, body) SELECT conversation, body FROM messages WHERE place = 9")
    assert await SqliteStore(path).migrate()
    store = SqliteStore(path)
    async with store.open():
        for name in ("plain", "owned", "waiting"):
            with pytest.raises(StateError):
                await store.load(None, name)
        assert await store.load(None, "held") is not None


async def test_migration_when_somebody_has_the_file_open(path: Path) -> None:
    """A file that is open, here or in another program, is not migrated, and the error says what to do."""
    store = SqliteStore(path, busy_timeout=0.01)
    async with store.open():
        with pytest.raises(PersistenceError, match="close the store"):
            await store.migrate()
        with pytest.raises(PersistenceError, match="open in this process already"):
            await SqliteStore(path).migrate()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM messages").fetchone()
        with pytest.raises(PersistenceError, match="another process holds it"):
            await store.migrate()

    assert (1, 4096) == version_of(path)


async def test_migration_when_there_is_no_such_file(tmp_path: Path) -> None:
    """A migration makes no file, and leaves files of other programs alone."""
    other = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(PersistenceError, match="no such file"):
        await SqliteStore(tmp_path / "absent.db").migrate()
    with pytest.raises(PersistenceError, match="another program"):
        await SqliteStore(other).migrate()

    assert [other] == list(tmp_path.iterdir())

"""Notes of a conversation, in their own table in the SQLite file of the library.

Every call is one transaction on its own connection, because tools run in threads at the same time. A change has the idempotency key of
its call, so the same call made twice has its effect once.
"""

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from trio_sagents import ToolContext

MAX_ENTRIES: Final = 1_000
MAX_TEXT: Final = 1_000
_BUSY_TIMEOUT: Final = 5.0
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS chat_notes (
    conversation_id TEXT NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL,
    call_key TEXT NOT NULL UNIQUE, PRIMARY KEY (conversation_id, number))
"""
_FILLER: Final = frozenset(
    """
    a about all am an and any are at called do for i in is it like me mine my name named of on our that the thing things to
    was were with
    """.split()  # noqa: SIM905  # a column of forty strings is harder to read
)
"""Words that say nothing about a note."""


class NotebookRefused(ValueError):
    """The note cannot be stored."""


class Notebook:
    """The note tools of the chat."""

    def __init__(self, path: Path) -> None:
        """Keep the path; the first call makes the table."""
        self._path = path

    def remember(self, note: str, context: ToolContext) -> str:
        """Keep a note for later.

        Args:
            note: one fact, as a sentence.
            context: of the call.
        """
        text = _text(note)
        with self._transaction() as db:
            _insert(db, text, context)
        return f"noted: {text}"

    def recall(self, context: ToolContext, about: str = "") -> str:
        """Find the notes kept earlier.

        Args:
            about: words to look for; empty finds all notes.
            context: of the call.
        """
        with self._transaction() as db:
            rows = db.execute("SELECT text FROM chat_notes WHERE conversation_id = ? ORDER BY number", [context.conversation_id])
            notes = [text for (text,) in rows]
        if not notes:
            return "I have no notes yet"
        found = _matching(notes, about)
        return "\n".join(f"- {note}" for note in found) or f"none of my {len(notes)} notes is about {about!r}"

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, isolation_level=None)) as db:
                db.execute(_TABLE)
                db.execute("BEGIN IMMEDIATE")
                with db:  # commits, or rolls back after an exception
                    yield db
        except sqlite3.Error as exc:
            raise NotebookRefused(f"the database {self._path.name!r} did not store the note: {exc}") from exc


def _insert(db: sqlite3.Connection, text: str, context: ToolContext) -> None:
    """Insert `text`, unless the same call has done so before."""
    key = f"{context.idempotency_key}#0"
    if db.execute("SELECT number FROM chat_notes WHERE call_key = ?", [key]).fetchone() is not None:
        return
    select = "SELECT count(*), coalesce(max(number), 0) FROM chat_notes WHERE conversation_id = ?"
    count, last = db.execute(select, [context.conversation_id]).fetchone()
    if count >= MAX_ENTRIES:
        raise NotebookRefused(f"there are {MAX_ENTRIES} notes already")
    insert = "INSERT INTO chat_notes (conversation_id, number, text, call_key) VALUES (?, ?, ?, ?)"
    db.execute(insert, [context.conversation_id, last + 1, text, key])


def _text(value: str) -> str:
    text = " ".join(value.split())
    if not text:
        raise NotebookRefused("a note must not be empty")
    if len(text) > MAX_TEXT:
        raise NotebookRefused(f"a note must have at most {MAX_TEXT} characters, not {len(text)}")
    return text


def _words(text: str) -> frozenset[str]:
    plain = text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    words = (word.strip("'").removesuffix("'s") for word in re.findall(r"[\w']+", plain))
    return frozenset(word.rstrip("s") or word for word in words if word and word not in _FILLER)


def _matching(notes: Sequence[str], about: str) -> Sequence[str]:
    """Return the notes that share words with `about`, those with the most shared words first; all notes if `about` says nothing."""
    wanted = _words(about)
    if not wanted:
        return notes
    scored = [(len(wanted & _words(note)), note) for note in notes]
    return [note for score, note in sorted(scored, key=lambda pair: -pair[0]) if score]

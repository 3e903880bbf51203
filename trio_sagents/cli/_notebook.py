"""Todos and notes of a conversation, in tables of their own beside the library's, in the same SQLite file.

Every call is one transaction on a connection of its own: tools run in threads, at the same time. A change carries the call's
idempotency key, so the same call made twice changes things once.
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
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS chat_todos (
    conversation_id TEXT NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0,
    call_key TEXT NOT NULL UNIQUE, PRIMARY KEY (conversation_id, number));
CREATE TABLE IF NOT EXISTS chat_notes (
    conversation_id TEXT NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL,
    call_key TEXT NOT NULL UNIQUE, PRIMARY KEY (conversation_id, number));
"""
_FILLER: Final = frozenset(
    """
    a about all am an and any are at called do for i in is it like me mine my name named of on our that the thing things to
    was were with
    """.split()  # noqa: SIM905  # a column of forty strings is harder to read
)
"""Words that tell nothing about a note."""


class NotebookRefused(ValueError):
    """The entry does not exist, or cannot be kept."""


class Notebook:
    """The todo and note tools of the chat."""

    def __init__(self, path: Path) -> None:
        """Keep the path; the tables are made at the first call."""
        self._path = path

    def add_todos(self, items: list[str], context: ToolContext) -> str:
        """Add things to the todo list.

        Args:
            items: what is to be done, one text for each todo.
            context: of the call.
        """
        texts = [_text(item) for item in items]
        if not texts:
            raise NotebookRefused("there is nothing to add")
        with self._transaction() as db:
            numbers = _insert(db, "chat_todos", texts, context)
        return "added " + ", ".join(f"{number}. {text}" for number, text in zip(numbers, texts, strict=True))

    def list_todos(self, context: ToolContext) -> str:
        """Show the whole todo list, with numbers; done ones are marked."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT number, text, done FROM chat_todos WHERE conversation_id = ? ORDER BY number", [context.conversation_id]
            ).fetchall()
        return "\n".join(f"{number}. [{'x' if done else ' '}] {text}" for number, text, done in rows) or "the todo list is empty"

    def complete_todos(self, numbers: list[int], context: ToolContext) -> str:
        """Mark todos as done.

        Args:
            numbers: as `list_todos` shows them.
            context: of the call.
        """
        with self._transaction() as db:
            found = _todos(db, numbers, context.conversation_id)
            db.executemany(
                "UPDATE chat_todos SET done = 1 WHERE conversation_id = ? AND number = ?",
                [(context.conversation_id, number) for number in numbers],
            )
        return "done: " + ", ".join(found)

    def remove_todos(self, numbers: list[int], context: ToolContext) -> str:
        """Remove todos from the list.

        Args:
            numbers: as `list_todos` shows them.
            context: of the call.
        """
        with self._transaction() as db:
            found = _todos(db, numbers, context.conversation_id)
            db.executemany(
                "DELETE FROM chat_todos WHERE conversation_id = ? AND number = ?",
                [(context.conversation_id, number) for number in numbers],
            )
        return "removed " + ", ".join(found)

    def remember(self, note: str, context: ToolContext) -> str:
        """Keep a note for later.

        Args:
            note: one fact, as a sentence.
            context: of the call.
        """
        text = _text(note)
        with self._transaction() as db:
            _insert(db, "chat_notes", [text], context)
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
                for statement in _TABLES.split(";")[:-1]:
                    db.execute(statement)
                db.execute("BEGIN IMMEDIATE")
                with db:  # commits, or rolls back what it is left with by an exception
                    yield db
        except sqlite3.Error as exc:
            raise NotebookRefused(f"the database {self._path.name!r} did not keep it: {exc}") from exc


def _insert(db: sqlite3.Connection, table: str, texts: Sequence[str], context: ToolContext) -> Sequence[int]:
    """Insert `texts` unless this very call did so before; return their numbers."""
    numbers = []
    for index, text in enumerate(texts):
        key = f"{context.idempotency_key}#{index}"
        known = db.execute(f"SELECT number FROM {table} WHERE call_key = ?", [key]).fetchone()  # noqa: S608  # one of two constants
        if known is None:
            select = f"SELECT count(*), coalesce(max(number), 0) FROM {table} WHERE conversation_id = ?"  # noqa: S608  # as above
            count, last = db.execute(select, [context.conversation_id]).fetchone()
            if count >= MAX_ENTRIES:
                raise NotebookRefused(f"there are {MAX_ENTRIES} entries already; remove some first")
            known = [last + 1]
            insert = f"INSERT INTO {table} (conversation_id, number, text, call_key) VALUES (?, ?, ?, ?)"  # noqa: S608  # as above
            db.execute(insert, [context.conversation_id, last + 1, text, key])
        numbers.append(int(known[0]))
    return numbers


def _todos(db: sqlite3.Connection, numbers: Sequence[int], conversation_id: str) -> Sequence[str]:
    if not numbers:
        raise NotebookRefused("which todo? Name its number")
    found = []
    for number in numbers:
        row = None
        if abs(number) < 2**63:
            row = db.execute("SELECT text FROM chat_todos WHERE conversation_id = ? AND number = ?", [conversation_id, number]).fetchone()
        if row is None:
            raise NotebookRefused(f"there is no todo {number}; nothing was changed")
        found.append(f"{number}. {row[0]}")
    return found


def _text(value: str) -> str:
    text = " ".join(value.split())
    if not text:
        raise NotebookRefused("an entry must not be empty")
    if len(text) > MAX_TEXT:
        raise NotebookRefused(f"an entry has at most {MAX_TEXT} characters, not {len(text)}")
    return text


def _words(text: str) -> frozenset[str]:
    plain = text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    words = (word.strip("'").removesuffix("'s") for word in re.findall(r"[\w']+", plain))
    return frozenset(word.rstrip("s") or word for word in words if word and word not in _FILLER)


def _matching(notes: Sequence[str], about: str) -> Sequence[str]:
    """Return the notes that share words with `about`, the most first; all of them where it has no telling word."""
    wanted = _words(about)
    if not wanted:
        return notes
    scored = [(len(wanted & _words(note)), note) for note in notes]
    return [note for score, note in sorted(scored, key=lambda pair: -pair[0]) if score]

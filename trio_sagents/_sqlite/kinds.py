"""What a database file of one kind has in it, and what its errors mean to a person."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

import attrs

from trio_sagents.exceptions import PersistenceError

Synchronous: TypeAlias = Literal["FULL", "NORMAL"]

_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "another process holds it; end that process, or wait until it is done",
    sqlite3.SQLITE_LOCKED: "another connection holds it; close that connection",
    sqlite3.SQLITE_FULL: "its disk is full; make room on the disk",
    sqlite3.SQLITE_READONLY: "it cannot be written; make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its folder exists and may be read and written",
    sqlite3.SQLITE_PERM: "it may not be opened; check its permissions",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database, or it is encrypted; give another path",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup, or try `sqlite3 FILE .recover`",
    sqlite3.SQLITE_IOERR: "reading or writing it failed; check its disk",
    sqlite3.SQLITE_ERROR: "its tables are no longer those of this library; restore it from a backup",
}


@attrs.frozen
class DatabaseKind:
    """One kind of database files."""

    noun: str
    """What errors call such a file, such as "database"."""
    holder: str
    """The class that opens such files."""
    application_id: int
    """In the header of each file of this kind, and of no other."""
    version: int
    """Of the tables, not of the records in them."""
    tables: Mapping[str, str]
    """The statements that make the tables and indexes, by name, in order; a file has exactly their text in its schema."""
    max_record_bytes: int | None = None
    """The longest text or blob; None for SQLite's own limit."""
    page_size: int | None = None
    """Bytes of a page in new files; None for SQLite's own choice."""
    older: Mapping[int, Mapping[str, str]] = attrs.field(factory=dict)
    """By version: the tables of older files that can be used as they are."""

    def name(self, path: str) -> str:
        """Return what errors call this file."""
        return f"the {self.noun} {path!r}"

    def explain(self, path: str, exc: sqlite3.Error | OSError) -> PersistenceError:
        """Return the error that says which file it was, what happened, and what to do."""
        if isinstance(exc, OSError):
            return PersistenceError(f"{self.name(path)}: {exc.strerror or exc}; check its folder and its permissions")
        code = getattr(exc, "sqlite_errorcode", None)  # absent if Python's own layer raised it
        base = code & 0xFF if isinstance(code, int) else None
        advice = f"a record has more than {self.max_record_bytes} bytes" if base == sqlite3.SQLITE_TOOBIG else _ADVICE.get(base or 0)
        return PersistenceError(f"{self.name(path)}: {exc}" if advice is None else f"{self.name(path)}: {advice} ({exc})")

    @contextmanager
    def explained(self, path: str) -> Iterator[None]:
        """Turn the errors of SQLite and of the system into PersistenceError."""
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise self.explain(path, exc) from exc

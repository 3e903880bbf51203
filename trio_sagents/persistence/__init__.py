"""The stores that come with the library: in memory, and in one SQLite file."""

from trio_sagents.persistence.memory import MemoryStore
from trio_sagents.persistence.sqlite import SqliteStore

__all__ = ("MemoryStore", "SqliteStore")

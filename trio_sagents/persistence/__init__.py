"""The stores that come with the library: in memory, in one SQLite file, and in PostgreSQL.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _records                what both stores share: checked arguments, encoded commits, cursors
    _windows                where the window of a conversation begins: what the databases do alike
    _sqlite_windows         where the windows of conversations begin, and the index of what is before them
    _sqlite_schema          the tables of a `SqliteStore`, and how its file is opened
    _sqlite_messages        where messages and their ids are, in each version of the tables
    _sqlite_tables          what is done inside a transaction
    _sqlite_group_commit    `GroupCommit`: many tasks, one transaction
    _sqlite_migration       files of earlier versions, rewritten
    memory                  `MemoryStore`
    sqlite                  `SqliteStore`
    _postgres_schema        the tables of a `PostgresStore`
    _postgres_windows       where the windows of conversations begin there
    _postgres_tables        what is done inside a transaction there
    postgres                `PostgresStore`, which is imported from here: it needs the extra `postgres`
"""

from trio_sagents.persistence.memory import MemoryStore
from trio_sagents.persistence.sqlite import SqliteStore

__all__ = ("MemoryStore", "SqliteStore")

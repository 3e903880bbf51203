"""SQLite files: how they are named in errors, made, claimed, opened, checked, and watched while they are open.

The modules, lowest first. Each module imports only modules that come before it in this list:

    kinds       `DatabaseKind`: what is in a file of one kind, and what its errors mean to a person
    opening     arguments, the file itself, connections, tables
    watching    `FileWatch`: whether the files that are open are still those at their paths

All functions block; call them in a thread.
"""

from trio_sagents._sqlite.kinds import DatabaseKind, Synchronous
from trio_sagents._sqlite.opening import FileKey, check_busy_timeout, check_path, claim, connect, create_file, pragma, prepare, release
from trio_sagents._sqlite.watching import FileWatch

__all__ = (
    "DatabaseKind",
    "FileKey",
    "FileWatch",
    "Synchronous",
    "check_busy_timeout",
    "check_path",
    "claim",
    "connect",
    "create_file",
    "pragma",
    "prepare",
    "release",
)

"""Bringing a schema up to date: one history of plain SQL, each step of which old programs can live with."""

from collections.abc import Sequence
from typing import Final, LiteralString, TypeAlias

import psycopg
from psycopg import sql

from trio_sagents.exceptions import PersistenceError

Connection: TypeAlias = "psycopg.Connection[tuple[object, ...]]"
_LOCK: Final = 0x7472696F5F736167
"""The advisory lock of those who migrate: the letters "trio_sag"."""


def migrate(connection: Connection, table: LiteralString, steps: Sequence[LiteralString]) -> None:
    """Do the steps that were not done yet, in one transaction. Of several programs at once, one does it, and the others wait.

    Args:
        connection: to the database.
        table: where it is written down which steps were done.
        steps: by version, from 1.

    Raises:
        PersistenceError: a later version of the library has made the schema.
    """
    name = sql.Identifier(table)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} (version integer NOT NULL)").format(name))
        found = connection.execute(sql.SQL("SELECT max(version) FROM {}").format(name)).fetchone()
        version = found[0] if found is not None and isinstance(found[0], int) else 0
        if version > len(steps):
            raise PersistenceError(
                f"the database has version {version} of the schema, and this version of the library knows {len(steps)}: "
                "use a version of the library that is at least as new as the one that made the schema"
            )
        for number, step in enumerate(steps[version:], version + 1):
            connection.execute(step)
            connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(name), (number,))

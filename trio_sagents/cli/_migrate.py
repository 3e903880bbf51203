"""`trio-sagents migrate FILE`: rewrite a database of an earlier version."""

from pathlib import Path
from typing import TextIO

from trio_sagents import SqliteStore


async def run_migrate(database: Path, out: TextIO) -> int:
    """Rewrite a database, say what was done, and return the exit status.

    Raises:
        PersistenceError: the file cannot be used; nothing is lost.

    Cancellation: the work runs to its end.
    """
    done = await SqliteStore(database).migrate()
    print(f"{database} is migrated." if done else f"{database} needs no migration.", file=out)
    return 0

"""`trio-sagents nodes PLACE`: the nodes of a cluster, as a table for operators."""

import datetime
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TextIO

import trio

from trio_sagents import SqliteCluster
from trio_sagents.cli._models import UsageError
from trio_sagents.nodes import NodeInfo

_HEAD = ("NAME", "STATE", "CONVERSATIONS", "AGE", "LEASE", "LIBRARY", "STATE VERSION", "ID")


async def run_nodes(place: str, out: TextIO) -> int:
    """Print the nodes of a cluster, and return the exit status. Nothing is changed.

    Args:
        place: the path of a file of a `SqliteCluster`, or where a database is, as a `PostgresCluster` takes it.
        out: where the table goes.

    Raises:
        UsageError: there is no cluster at that place.
        RegistryUnavailable, PersistenceError: the cluster cannot be read; the message says why.

    Cancellation: nothing is changed.
    """
    found = await (_in_postgres(place) if "=" in place or "://" in place else _in_sqlite(place))
    print(table_of(found, datetime.datetime.now(datetime.UTC)), file=out)
    return 0


async def _in_sqlite(place: str) -> Sequence[NodeInfo]:
    path = Path(place)
    if not await trio.Path(path).is_file():
        raise UsageError(f"nodes {place}: there is no such file; give the path of your SqliteCluster, or the URL of your PostgresCluster")
    if not await trio.to_thread.run_sync(_is_cluster, path):
        raise UsageError(f"nodes {place}: this file has no cluster; give the path of your SqliteCluster, not that of the store")
    return await SqliteCluster(path).nodes()


def _is_cluster(path: Path) -> bool:
    """Return whether a file has the tables of a cluster; nothing is written."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    except sqlite3.Error:
        return False
    return {"nodes", "claims", "lease_file"} <= names


async def _in_postgres(place: str) -> Sequence[NodeInfo]:
    try:
        from trio_sagents.cluster.postgres import read_nodes  # noqa: PLC0415  # the extra `postgres`
    except ImportError as exc:
        raise UsageError(str(exc)) from exc
    found = await read_nodes(place)
    if found is None:
        raise UsageError("nodes: this database has no cluster; give the URL and the schema that your PostgresCluster has")
    return found


def table_of(nodes: Sequence[NodeInfo], now: datetime.datetime) -> str:
    """Return a table of nodes, the oldest first, and a line that counts them.

    Args:
        nodes: may be empty.
        now: by the clock of this machine, which may differ a little from the engine's.
    """
    if not nodes:
        return "No node has joined this cluster, or all have left it."
    rows = [_HEAD, *(_row(info, now) for info in nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    states = [_state(info) for info in nodes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("live", "draining", "dead") if state in states)
    taken = sum(info.conversations for info in nodes if info.expires_in > 0)
    lines.append(f"{len(nodes)} node{'s' * (len(nodes) != 1)}: {counts}; {taken} conversation{'s' * (taken != 1)}.")
    if "dead" in states:
        lines.append("A dead node did not renew its lease: other nodes take its conversations when somebody asks for them.")
    return "\n".join(lines)


def _row(info: NodeInfo, now: datetime.datetime) -> tuple[str, ...]:
    node = info.node
    left = info.expires_in
    lease = f"{left:.0f} s left" if left > 0 else f"ended {duration(-left)} ago"
    age = duration((now - info.joined_at).total_seconds())
    name = "".join(character if character.isprintable() else "?" for character in node.name)  # it goes to a terminal
    return (name, _state(info), str(info.conversations), age, lease, node.code_version, str(node.state_version), node.node_id)


def _state(info: NodeInfo) -> str:
    if info.expires_in <= 0:
        return "dead"
    return "draining" if info.is_draining else "live"


def duration(seconds: float) -> str:
    """Return a duration in its largest unit: "5 s", "3 min", "2 h", "4 d"."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"

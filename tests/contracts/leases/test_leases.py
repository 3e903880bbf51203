"""The leases that the library brings, through the kit that hosts use for theirs, and what is each one's own."""

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_sagents import Leases, MemoryLeases, RegistryUnavailable, SqliteLeases
from trio_sagents.testing.conformance_lease import LeaseConformance


class TestMemory(LeaseConformance):
    @pytest.fixture(autouse=True)
    def _virtual_time(self, autojump_clock: Any) -> None:
        """Let time be virtual."""

    @asynccontextmanager
    async def open_leases(self) -> AsyncIterator[Leases]:
        yield MemoryLeases()


class TestSqlite(LeaseConformance):
    """By a clock of the test's own: what waits for a thread must not wait for a virtual clock."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "leases.db"
        self.now = 1e9
        yield

    @asynccontextmanager
    async def open_leases(self) -> AsyncIterator[Leases]:
        yield SqliteLeases(self.path, clock=lambda: self.now)

    async def pass_time(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.now += seconds

    async def test_clock_that_is_set_back(self) -> None:
        """A lease lasts no longer than it was given for, though the clock was set back by an hour."""
        async with self.open_leases() as leases:
            await leases.acquire("c", "a", 5)
            self.now -= 3600
            assert 5 == await leases.acquire("c", "b", 1)
            self.now += 5
            assert await leases.acquire("c", "b", 1) is None

    async def test_clock_that_asker_has_a_shorter_lease(self) -> None:
        """Who asks for less does not shorten what another has."""
        async with self.open_leases() as leases:
            await leases.acquire("c", "a", 50)
            assert 50 == await leases.acquire("c", "b", 1)


async def test_file_is_of_several_processes(tmp_path: Path) -> None:
    """Another process finds the lease, and gets it once it is given back."""
    leases = SqliteLeases(tmp_path / "leases.db")
    program = (
        "import sys, trio; from trio_sagents import SqliteLeases; print(trio.run(SqliteLeases(sys.argv[1]).acquire, 'c', 'other', 60.0))"
    )

    async def ask() -> str:
        done = await trio.run_process([sys.executable, "-c", program, str(leases.path)], capture_stdout=True, stderr=subprocess.STDOUT)
        return done.stdout.decode().strip()

    await leases.acquire("c", "me", 60.0)

    assert 0 < float(await ask()) <= 60
    await leases.release("c", "me")
    assert "None" == await ask()


async def test_file_that_cannot_be_used(tmp_path: Path) -> None:
    """What is no database, or no place for one, is an error that names it: never "it is free"."""
    (tmp_path / "text.db").write_text("this is no database, whatever its name may be, and it is longer than a header " * 20)
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE leases (id TEXT)")
    for name in ("text.db", "other.db", "no/folder/leases.db"):
        with pytest.raises(RegistryUnavailable, match="leases"):
            await SqliteLeases(tmp_path / name).acquire("c", "a", 1.0)


async def test_calls_leave_nothing_open(tmp_path: Path) -> None:
    """Nobody has the file open between calls."""
    leases = SqliteLeases(str(tmp_path / "leases.db"))
    await leases.acquire("c", "a", 1.0)
    await leases.renew(["c"], "a", 1.0)

    assert ["leases.db"] == [path.name for path in tmp_path.iterdir()]
    (tmp_path / "leases.db").unlink()
    assert await leases.acquire("c", "b", 1.0) is None

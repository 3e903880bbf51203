"""The library's own leases, through the kit that hosts use for theirs, and what is special about each."""

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_sagents import Leases, MemoryLeases, RegistryUnavailable, SqliteLeases, SqliteStore
from trio_sagents.cluster._file import SharedFile
from trio_sagents.testing.conformance_lease import LeaseConformance


class TestMemory(LeaseConformance):
    @pytest.fixture(autouse=True)
    def _virtual_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the clock of Trio, as the leases read it, be ahead by the time that passed. The tests of the kit ask for no clock."""
        self.passed = 0.0
        plain = trio.current_time
        monkeypatch.setattr(trio, "current_time", lambda: plain() + self.passed)

    @asynccontextmanager
    async def open_leases(self) -> AsyncIterator[Leases]:
        yield MemoryLeases()

    async def pass_time(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.passed += seconds


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


@pytest.mark.slow
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
    """A file that is not a database, or a path that cannot have one, is an error that names it; never "the lease is free"."""
    (tmp_path / "text.db").write_text("this is no database, whatever its name may be, and it is longer than a header " * 20)
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE leases (id TEXT)")
    for name in ("text.db", "other.db", "no/folder/leases.db"):
        with pytest.raises(RegistryUnavailable, match=rf"the lease file .*{name}"):
            await SqliteLeases(tmp_path / name).acquire("c", "a", 1.0)


async def test_calls_leave_nothing_open(tmp_path: Path) -> None:
    """Nobody has the file open between calls."""
    leases = SqliteLeases(str(tmp_path / "leases.db"))
    await leases.acquire("c", "a", 1.0)
    await leases.renew(["c"], "a", 1.0)

    assert ["leases.db"] == [path.name for path in tmp_path.iterdir()]


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("new", ["nothing", "another file"])
async def test_file_that_is_deleted_while_leases_last(tmp_path: Path, new: str) -> None:
    """In another file than before no lease is given or renewed while those of the old file may last; after that, leases are given again."""
    path, clock = tmp_path / "leases.db", Clock()
    here, there = SqliteLeases(path, clock=clock), SqliteLeases(path, clock=clock)
    await here.acquire("c", "a", 30.0)
    await there.acquire("d", "b", 30.0)
    path.unlink()
    if new != "nothing":
        await SqliteLeases(path, clock=clock).acquire("e", "x", 1.0)
    for call in (lambda: there.acquire("c", "b", 30.0), lambda: here.renew(["c"], "a", 30.0), lambda: there.acquire("new", "b", 30.0)):
        with pytest.raises(RegistryUnavailable, match=r"was deleted or replaced .* no lease is given for 30\.0 s"):
            await call()
    clock.now += 29
    with pytest.raises(RegistryUnavailable):
        await there.acquire("c", "b", 30.0)
    clock.now += 1

    assert await there.acquire("c", "b", 30.0) is None
    assert [] == list(await here.renew(["c"], "a", 30.0))


async def test_file_that_is_replaced_during_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that was written into a file that has just gone is not given."""
    path = tmp_path / "leases.db"
    leases = SqliteLeases(path)
    await leases.acquire("c", "a", 30.0)
    connected = SharedFile._connected

    @contextmanager
    def late(self: SharedFile, *args: Any) -> Iterator[sqlite3.Connection]:
        with connected(self, *args) as connection:
            yield connection
        path.unlink()

    monkeypatch.setattr(SharedFile, "_connected", late)
    with pytest.raises(RegistryUnavailable, match="was deleted or replaced while it was used; try again"):
        await leases.acquire("d", "a", 30.0)


async def test_clock_that_is_set_back_after_the_file_was_deleted(tmp_path: Path) -> None:
    """A clock that was set back does not make the time longer for which no lease is given."""
    path, clock = tmp_path / "leases.db", Clock()
    leases = SqliteLeases(path, clock=clock)
    await leases.acquire("c", "a", 30.0)
    path.unlink()
    for back in (0, 3600):
        clock.now -= back
        with pytest.raises(RegistryUnavailable):
            await leases.acquire("c", "a", 30.0)
    clock.now += 30

    assert await leases.acquire("c", "a", 30.0) is None


async def test_file_of_a_store(tmp_path: Path) -> None:
    """The database of a store is not used for leases, and is left as it is."""
    async with SqliteStore(tmp_path / "chat.db").open():
        pass
    before = (tmp_path / "chat.db").read_bytes()
    with pytest.raises(RegistryUnavailable, match="is the file of another program or class"):
        await SqliteLeases(tmp_path / "chat.db").acquire("c", "a", 1.0)

    assert before == (tmp_path / "chat.db").read_bytes()

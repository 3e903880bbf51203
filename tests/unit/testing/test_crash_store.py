"""The disk that freezes: what counts, what does not, and what the next life finds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_sagents import Agent, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.testing import CrashAt, CrashStore, ScriptedModel, Simulation, Violation, sweep_crashes
from trio_sagents.testing.conformance_store import StoreConformance
from trio_sagents.testing.invariants import check_told


class TestCrashStoreWithoutCrashes(StoreConformance):
    """Without a plan, the store behaves as the store behind it."""

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[CrashStore]:
        """Open a store."""
        yield CrashStore()


def config_of(store: CrashStore) -> SessionConfig:
    """Return sessions on a store."""
    return SessionConfig(factory_router=SingleFactoryRouter(Agent(model=ScriptedModel(lambda request: "answer"))), store=store)


@pytest.mark.parametrize(
    ("crash", "stored"), [(CrashAt(1, "after"), 0), (CrashAt(2), 0), (CrashAt(2, "after"), 1), (CrashAt(3), 1), (CrashAt(3, "after"), 2)]
)
async def test_crash_when_it_comes(crash: CrashAt, stored: int, autojump_clock: trio.testing.MockClock) -> None:
    """The planned write is lost, or the last that is done; whatever the dying life does then is not."""
    disk = CrashStore([crash])

    async def life() -> None:
        async with open_sessions(config_of(disk)) as sessions:
            disk.tell("begun")
            receipt = await sessions.post("c", "hello", message_id="m")
            await receipt.wait()
            disk.tell("answered")

    assert await disk.live(life)
    assert disk.is_frozen
    assert stored == len(disk.written)
    assert [crash.n] == disk.writes
    assert ["begun"] == disk.told

    assert not await disk.live(life)
    conversation = await disk.load(None, "c")
    check_told(["m"], conversation)
    assert ["begun", "begun", "answered"] == disk.told


async def test_crash_when_a_life_fails_by_itself() -> None:
    """What a life raises that no crash cut leaves as it is."""

    async def life() -> None:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        await CrashStore().live(life)


def test_sweep_crashes_when_an_acknowledgement_comes_too_early() -> None:
    """Each write is a crash point, twice; a program that tells before it stores is found out."""

    def program(is_careless: bool) -> Any:
        async def main(simulation: Simulation) -> None:
            disk = simulation.disk

            async def life() -> None:
                async with open_sessions(config_of(disk)) as sessions:
                    if is_careless:
                        disk.tell("m")
                    receipt = await sessions.post("c", "hello", message_id="m")
                    disk.tell("m")
                    await receipt.wait()

            while await disk.live(life):
                check_told(set(disk.told), await disk.inner.load(None, "c"))

        return main

    fine = sweep_crashes(program(False), twice=50)
    assert (0, []) == (fine.violations, fine.findings)
    assert 10 < fine.runs
    with pytest.raises(Violation, match="I13"):
        sweep_crashes(program(True))

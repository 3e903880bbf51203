"""The kit of leases finds broken leases: each of these is wrong in one way."""

import inspect
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from trio_sagents import Leases, MemoryLeases
from trio_sagents.testing.conformance_lease import LeaseConformance


class TwoGetIt(MemoryLeases):
    """If two ask at the same time, both get the lease."""

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        is_free = conversation_id not in self._held
        await trio.lowlevel.checkpoint()
        if not is_free:
            return await super().acquire(conversation_id, holder, ttl)
        self._held[conversation_id] = (holder, trio.current_time() + ttl)
        return None


class RefusedHasIt(MemoryLeases):
    """Who is refused is written down as the holder."""

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        remaining = await super().acquire(conversation_id, holder, ttl)
        if remaining is not None:
            self._held[conversation_id] = (holder, self._held[conversation_id][1])
        return remaining


class ShortIds(MemoryLeases):
    """The column for ids has 64 places."""

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        return await super().acquire(conversation_id[:64], holder, ttl)

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        kept = await super().renew([identifier[:64] for identifier in conversation_ids], holder, ttl)
        return [identifier for identifier in conversation_ids if identifier[:64] in kept]


class EndsEarly(MemoryLeases):
    """A lease lasts for seven eighths of its time."""

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        return await super().acquire(conversation_id, holder, 0.875 * ttl)


class TellsAlwaysTheSame(MemoryLeases):
    """Who is refused is told to wait for the whole of a lease."""

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        remaining = await super().acquire(conversation_id, holder, ttl)
        return None if remaining is None else ttl


class RenewsAll(MemoryLeases):
    """A renewal keeps whatever the holder has."""

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        kept = await super().renew(list(self._held), holder, ttl)
        return [identifier for identifier in conversation_ids if identifier in kept]


class RenewsWhatHasEnded(MemoryLeases):
    """A lease that has ended, and that nobody took, is renewed."""

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        await trio.lowlevel.checkpoint()
        kept = [identifier for identifier in conversation_ids if self._held.get(identifier, ("", 0))[0] == holder]
        self._held.update(dict.fromkeys(kept, (holder, trio.current_time() + ttl)))
        return kept


class ReleasesAnybodys(MemoryLeases):
    """Who gives back is not compared with who has it."""

    async def release(self, conversation_id: str, holder: str) -> None:
        await trio.lowlevel.checkpoint()
        self._held.pop(conversation_id, None)


def failed_tests(make: Callable[[], Leases]) -> list[str]:
    """Return the names of the kit's tests that fail."""

    class Kit(LeaseConformance):
        @asynccontextmanager
        async def open_leases(self) -> AsyncIterator[Leases]:
            yield make()

    failed: list[str] = []
    tests = [(name, test) for name, test in inspect.getmembers(Kit(), inspect.iscoroutinefunction) if name.startswith("test_")]
    for name, test in tests:
        try:
            trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))
        except (AssertionError, BaseExceptionGroup):
            failed.append(name)
    assert len(tests) > 10
    return failed


@pytest.mark.parametrize(
    ("broken", "found_by"),
    [
        (TwoGetIt, "test_acquire_when_many_ask_at_once"),
        (RefusedHasIt, "test_acquire_when_it_is_refused"),
        (ShortIds, "test_leases_are_apart"),
        (EndsEarly, "test_acquire_when_it_lasts_nearly_its_time"),
        (TellsAlwaysTheSame, "test_acquire_when_it_lasts_nearly_its_time"),
        (RenewsAll, "test_renew_when_others_are_held"),
        (RenewsWhatHasEnded, "test_renew_when_it_is_not_held"),
        (ReleasesAnybodys, "test_release_when_another_took_over"),
    ],
)
def test_kit_when_leases_are_broken(broken: Any, found_by: str) -> None:
    """Each of them is found, by the test that is about it."""
    assert found_by in failed_tests(broken)


def test_kit_when_leases_are_right() -> None:
    """Nothing is found in leases that are right."""
    assert [] == failed_tests(MemoryLeases)

"""What every `Leases` must do, as tests: subclass `LeaseConformance`, say how they are opened and how time passes, and run pytest.

    class TestMyLeases(LeaseConformance):
        @asynccontextmanager
        async def open_leases(self):
            yield MyLeases()

Needs pytest and pytest-trio. Leases that count by a clock of a server's own take the real time that `pass_time` sleeps: make `ttl`
small there.
"""

from contextlib import AbstractAsyncContextManager
from typing import ClassVar

import pytest
import trio

from trio_sagents.supervisor._leases import Leases


class LeaseConformance:
    """The tests. A subclass overrides `open_leases`; each test opens some that are empty."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.trio
    ttl: ClassVar[float] = 1.0
    """Seconds that a lease lasts in these tests."""

    def open_leases(self) -> AbstractAsyncContextManager[Leases]:
        """Open leases, of which nobody holds any."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let time pass by the clock of the leases."""
        await trio.sleep(seconds)

    async def test_acquire_when_it_is_free(self) -> None:
        """One holder has it; another is told how long it lasts at most."""
        async with self.open_leases() as leases:
            assert await leases.acquire("c", "a", self.ttl) is None
            remaining = await leases.acquire("c", "b", self.ttl)
            assert remaining is not None
            assert 0 < remaining <= self.ttl

    async def test_acquire_when_one_has_it(self) -> None:
        """A holder may acquire again, and the lease lasts from then on."""
        async with self.open_leases() as leases:
            assert await leases.acquire("c", "a", self.ttl) is None
            await self.pass_time(0.6 * self.ttl)
            assert await leases.acquire("c", "a", self.ttl) is None
            await self.pass_time(0.6 * self.ttl)
            assert await leases.acquire("c", "b", self.ttl) is not None

    async def test_acquire_when_it_has_ended(self) -> None:
        """A lease that was not renewed is free after its time, and not before."""
        async with self.open_leases() as leases:
            await leases.acquire("c", "a", self.ttl)
            await self.pass_time(0.5 * self.ttl)
            assert await leases.acquire("c", "b", self.ttl) is not None
            await self.pass_time(0.6 * self.ttl)
            assert await leases.acquire("c", "b", self.ttl) is None
            assert await leases.acquire("c", "a", self.ttl) is not None

    async def test_acquire_when_it_lasts_nearly_its_time(self) -> None:
        """A lease lasts as long as it was given for, even if others ask meanwhile; what is left of it becomes less."""
        async with self.open_leases() as leases:
            lasting = 4 * self.ttl
            assert await leases.acquire("c", "a", lasting) is None
            await self.pass_time(0.9 * lasting)
            remaining = await leases.acquire("c", "b", self.ttl)
            assert remaining is not None
            assert remaining <= 0.2 * lasting
            assert ["c"] == list(await leases.renew(["c"], "a", self.ttl))

    async def test_acquire_when_it_is_refused(self) -> None:
        """A holder that is refused has nothing, and the other holder keeps the lease."""
        async with self.open_leases() as leases:
            assert await leases.acquire("c", "a", self.ttl) is None
            for _ in range(2):
                assert await leases.acquire("c", "b", self.ttl) is not None
            assert [] == list(await leases.renew(["c"], "b", self.ttl))
            await leases.release("c", "b")
            assert ["c"] == list(await leases.renew(["c"], "a", self.ttl))
            assert await leases.acquire("c", "b", self.ttl) is not None

    async def test_leases_are_apart(self) -> None:
        """The leases of two conversations are independent, for all ids, of any length."""
        long = "c" * 255
        ids = ("c", "C", "c ", "c/d", "c%", "c_", "c'; --", "ç", "漢字", long, f"{long}1", f"{long}2")
        async with self.open_leases() as leases:
            for index, one in enumerate(ids):
                assert await leases.acquire(one, f"holder-{index}", self.ttl) is None
            for index, one in enumerate(ids):
                assert [one] == list(await leases.renew(ids, f"holder-{index}", self.ttl))

    async def test_renew_keeps(self) -> None:
        """What is renewed lasts from then on; all that is held is renewed by one call."""
        async with self.open_leases() as leases:
            for one in ("c", "d"):
                await leases.acquire(one, "a", self.ttl)
            for _ in range(3):
                await self.pass_time(0.6 * self.ttl)
                assert {"c", "d"} == set(await leases.renew(["c", "d"], "a", self.ttl))
            assert await leases.acquire("c", "b", self.ttl) is not None

    async def test_renew_when_others_are_held(self) -> None:
        """What is not asked for is not renewed, and not told of."""
        async with self.open_leases() as leases:
            for one in ("c", "d"):
                await leases.acquire(one, "a", self.ttl)
            await self.pass_time(0.6 * self.ttl)
            assert ["c"] == list(await leases.renew(["c"], "a", self.ttl))
            await self.pass_time(0.6 * self.ttl)
            assert await leases.acquire("c", "b", self.ttl) is not None
            assert await leases.acquire("d", "b", self.ttl) is None

    async def test_renew_when_it_is_not_held(self) -> None:
        """What was never had, what has ended, was given back, or is another's by now, is not renewed, and not taken."""
        async with self.open_leases() as leases:
            for one in ("ended", "taken"):
                await leases.acquire(one, "a", self.ttl)
            await self.pass_time(1.1 * self.ttl)
            assert await leases.acquire("taken", "b", self.ttl) is None
            for one in ("released", "kept"):
                await leases.acquire(one, "a", self.ttl)
            await leases.release("released", "a")
            ids = ["never", "ended", "taken", "released", "kept"]
            assert ["kept"] == list(await leases.renew(ids, "a", self.ttl))
            assert await leases.acquire("never", "b", self.ttl) is None
            assert await leases.acquire("released", "b", self.ttl) is None
            assert ["taken"] == list(await leases.renew(["taken"], "b", self.ttl))

    async def test_renew_of_nothing(self) -> None:
        """Nothing is renewed where nothing is asked for."""
        async with self.open_leases() as leases:
            assert [] == list(await leases.renew([], "a", self.ttl))

    async def test_release_frees(self) -> None:
        """A lease that was given back is free at once; giving back twice, or nothing, does nothing."""
        async with self.open_leases() as leases:
            await leases.acquire("c", "a", self.ttl)
            for _ in range(2):
                await leases.release("c", "a")
            assert await leases.acquire("c", "b", self.ttl) is None

    async def test_release_when_another_took_over(self) -> None:
        """Who comes too late to give back changes nothing."""
        async with self.open_leases() as leases:
            await leases.acquire("c", "a", self.ttl)
            await self.pass_time(1.1 * self.ttl)
            await leases.acquire("c", "b", self.ttl)
            await leases.release("c", "a")
            assert ["c"] == list(await leases.renew(["c"], "b", self.ttl))
            assert await leases.acquire("c", "a", self.ttl) is not None

    async def test_acquire_when_many_ask_at_once(self) -> None:
        """Of many that ask at once, one gets it."""
        async with self.open_leases() as leases:
            got: list[str] = []

            async def ask(holder: str) -> None:
                if await leases.acquire("c", holder, self.ttl) is None:
                    got.append(holder)

            async with trio.open_nursery() as nursery:
                for number in range(16):
                    nursery.start_soon(ask, f"holder-{number}")
            assert 1 == len(got)

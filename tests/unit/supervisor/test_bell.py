"""The bell of an agent."""

import trio
import trio.testing

from trio_sagents.supervisor._bell import Bell


async def _note(bell: Bell, name: str, woken: list[str]) -> None:
    await bell.wait()
    woken.append(name)


async def test_ring_when_several_wait(nursery: trio.Nursery) -> None:
    """Everybody who waits is woken, once; whoever waits after the ring waits for the next one."""
    bell, woken = Bell(), list[str]()
    for name in ("agent", "first", "second"):
        nursery.start_soon(_note, bell, name, woken)
    await trio.testing.wait_all_tasks_blocked()
    bell.ring()
    nursery.start_soon(_note, bell, "late", woken)
    await trio.testing.wait_all_tasks_blocked()

    assert {"agent", "first", "second"} == set(woken)
    bell.ring()
    bell.ring()
    await trio.testing.wait_all_tasks_blocked()
    assert ["late"] == woken[3:]


async def test_wait_when_cancelled(nursery: trio.Nursery) -> None:
    """A ring does not touch a task that was cancelled, and the next one that waits is woken."""
    bell, woken = Bell(), list[str]()
    with trio.CancelScope() as scope:
        scope.cancel()
        await bell.wait()
    bell.ring()
    with trio.move_on_after(0):
        await bell.wait()
    nursery.start_soon(_note, bell, "next", woken)
    await trio.testing.wait_all_tasks_blocked()
    bell.ring()
    await trio.testing.wait_all_tasks_blocked()

    assert ["next"] == woken


async def test_wait_when_the_ring_comes_before_the_cancellation(nursery: trio.Nursery) -> None:
    """A task that was rung and then cancelled, before it ran, does not take the place of the next one."""
    bell, woken = Bell(), list[str]()
    scope = trio.CancelScope()

    async def wait_in_scope() -> None:
        with scope:
            await bell.wait()
            woken.append("rung")

    nursery.start_soon(wait_in_scope)
    await trio.testing.wait_all_tasks_blocked()
    bell.ring()
    scope.cancel()
    nursery.start_soon(_note, bell, "next", woken)
    await trio.testing.wait_all_tasks_blocked()
    bell.ring()
    await trio.testing.wait_all_tasks_blocked()

    assert ["rung", "next"] == woken

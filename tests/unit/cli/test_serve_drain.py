"""A node that `trio-sagents serve` runs ends in three steps: not ready, drained, and then without streams."""

import os
import signal
from typing import Any

import attrs
import trio
import trio.testing

from tests.support.clusters import node
from tests.support.scenarios import make_agent
from trio_sagents import Completed
from trio_sagents.cli._serve import _drain_node
from trio_sagents.cluster import MemoryCluster
from trio_sagents.testing import Call


@attrs.define(eq=False)
class Bridge:
    """Stands for the bridge: knows when its streams ended."""

    closed_at: float = -1.0

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed_at = trio.current_time()


async def work() -> str:
    """Work."""
    await trio.sleep(5)
    return "done"


async def test_drain_when_the_turn_finishes(autojump_clock: Any) -> None:
    """SIGTERM makes the node not ready at once; the streams stay open until the running turn has ended."""
    bridge, told = Bridge(), list[str]()
    agent = make_agent(Call("work"), "well", tools=[work])
    async with node(agent, cluster=MemoryCluster(), policy={"grace_period": 60.0}) as sessions, trio.open_nursery() as nursery:
        receipt = await sessions.post("c", "go")
        nursery.start_soon(_drain_node, sessions, bridge, told.append)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(60):
            assert isinstance(await receipt.wait(), Completed)
        assert not sessions.ready()
        assert trio.current_time() - began >= 4.9
        await trio.testing.wait_all_tasks_blocked()
        assert bridge.closed_at >= began + 4.9
    assert "Draining" in told[0]


async def test_drain_when_a_second_signal_comes(autojump_clock: Any) -> None:
    """A second signal ends the wait for running turns."""
    bridge, told = Bridge(), list[str]()
    agent = make_agent(Call("work"), "well", tools=[work])
    async with node(agent, cluster=MemoryCluster(), policy={"grace_period": 60.0}) as sessions, trio.open_nursery() as nursery:
        await sessions.post("c", "go")
        nursery.start_soon(_drain_node, sessions, bridge, told.append)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep(1)
        assert began < bridge.closed_at <= began + 2.1

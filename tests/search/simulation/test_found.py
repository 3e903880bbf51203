"""What the simulator and the sweeps have found in the library: each with its own small program."""

from typing import Any

import trio

from trio_sagents import Agent, MemoryStore, Middleware, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.files import open_files
from trio_sagents.testing import FaultAt, FaultyStore, ScriptedModel, Simulation, simulate


def test_open_sessions_when_it_is_cancelled_already() -> None:
    """Entering sessions in a cancelled scope ends; it hung for ever, in the shield of a service that nobody had been told of."""

    async def main(simulation: Simulation) -> bool:
        config = SessionConfig(factory_router=SingleFactoryRouter(Agent(model=ScriptedModel(["hello"]))))
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_sessions(config):
                raise AssertionError("they were opened")
        return scope.cancelled_caught

    assert simulate(main, 0)[1]


def test_open_files_when_it_is_cancelled_already() -> None:
    """The same of files."""

    async def main(simulation: Simulation) -> bool:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_files():
                raise AssertionError("they were opened")
        return scope.cancelled_caught

    assert simulate(main, 0)[1]


class Noting(Middleware):
    """Keeps a note, outside of turns."""

    async def on_message(self, context: Any, message: Any) -> None:
        """Keep it."""
        await context.update(metadata={"note": message})


def test_idle_agent_when_a_write_of_its_middleware_is_slow() -> None:
    """An agent that is due to leave while such a write is on its way waits for it; it spun, and nothing else ran well."""

    async def main(simulation: Simulation) -> float:
        store = FaultyStore(simulation.faults, MemoryStore())
        agent = Agent(model=ScriptedModel(["hello"]), middleware=[Noting()])
        config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=store, inactivity_timeout=20)
        async with open_sessions(config) as sessions:
            handle = (await sessions.start("c")).agent
            await handle.notify_middleware("Noting", "n")
            await handle.wait_ended()
        return trio.current_time()

    simulation, ended = simulate(main, 0, jumps=False, faults=[FaultAt(2, "slow")], max_steps=5_000)
    assert ["store.commit (2:slow)"] == simulation.faults.struck
    assert ended is not None
    assert 30 <= ended < 60

"""Found by the cyclic garbage check: a mailbox that is closed with something untaken is left to the cyclic collector."""

import gc

from trio_sagents import Agent, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.testing import ScriptedModel


async def test_closed_subscriber_leaves_no_cycle() -> None:
    """A closed mailbox is gone with its last reference, also where there was something to take."""
    agent = Agent(model=ScriptedModel(["so be it"]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        await sessions.start("a")
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            async with sessions.open_subscriber() as reader:
                await reader.subscribe("a")
            del reader
            gc.collect()
            found = [type(one).__name__ for one in gc.garbage if str(type(one).__module__).startswith("trio_sagents")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert [] == found

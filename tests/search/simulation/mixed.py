"""A program that its seed draws: several callers, two conversations, anything that can be asked, in any order."""

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from tests.search.simulation.people_stories import decide, halt, with_payments
from tests.search.simulation.world import ALICE, Story, World
from trio_sagents import SagentsError
from trio_sagents.testing.invariants import check

TEXTS = (
    "pay them",
    "halt now",
    "say it",
    "long one",
    "slow one",
    "note it",
    "two tools",
    "fail now",
    "broken one",
    "unknown one",
    "wait a bit",
)
OVERLAPS = ("queue", "queue", "steer", "interrupt", "reject")


def _operations(world: World, rnd: random.Random) -> "list[Callable[[], Awaitable[object]]]":
    conversation_id = rnd.choice("ccd")
    text, overlap = rnd.choice(TEXTS), rnd.choice(OVERLAPS)
    message_id = rnd.choice((None, f"{text}-{rnd.randrange(2)}"))
    sessions = world.sessions

    async def post() -> None:
        await world.post(text, message_id, conversation_id, overlap=overlap)

    async def ask() -> None:
        await world.ask(text, message_id, conversation_id)

    async def watch() -> None:
        async with sessions.watch(conversation_id, scope=ALICE, viewer="v") as watched:
            with trio.move_on_after(rnd.random()):
                async for _ in watched:
                    pass

    async def stop() -> None:
        await sessions.stop(conversation_id, scope=ALICE, grace_period=rnd.choice((0, 1)))

    async def stop_handle() -> None:
        agent = await sessions.get(conversation_id, scope=ALICE)
        await agent.stop()
        check(await agent.wait_ended() is not None, "I3", "an agent that was stopped has not ended")

    async def look() -> None:
        await sessions.agent_info(conversation_id, scope=ALICE)
        await sessions.history(conversation_id, scope=ALICE)

    async def peek() -> None:
        agents = [info.conversation_id for info in await sessions.list_running(scope=ALICE)]
        check(len(set(agents)) == len(agents), "I1", f"two agents of one conversation: {agents}")

    async def answer() -> None:
        info = await sessions.agent_info(conversation_id, scope=ALICE)
        if info.interrupt is not None and info.interrupt.calls:
            await sessions.resume(conversation_id, decide(rnd.sample(info.interrupt.calls, 1)), scope=ALICE)
            if rnd.random() < 0.5:
                await sessions.resume(conversation_id, decide(info.interrupt.calls), scope=ALICE)

    async def pause() -> None:
        await trio.sleep(rnd.choice((0, 0.3, 1, 25)))

    return [
        post,
        post,
        post,
        ask,
        answer,
        answer,
        lambda: sessions.dismiss(conversation_id, scope=ALICE),
        watch,
        stop,
        stop_handle,
        look,
        peek,
        lambda: sessions.cancel_turn(conversation_id, scope=ALICE),
        lambda: sessions.start(conversation_id, scope=ALICE),
        pause,
    ]


async def _mix(world: World) -> None:
    rnd = random.Random(world.simulation.seed)
    paying = with_payments(world, [])
    world.make_agent = lambda model, tools: paying(model, [*tools, halt])

    async def caller(name: str, count: int) -> None:
        for _ in range(count):
            operation = rnd.choice(_operations(world, rnd))
            with suppress(SagentsError), trio.move_on_after(rnd.choice((0.01, 5, 40))):
                await world.strike(operation, name=name)

    async with trio.open_nursery() as nursery:
        for number in range(rnd.randrange(2, 5)):
            nursery.start_soon(caller, f"caller-{number}", rnd.randrange(1, 5))


async def _mix_leased(world: World) -> None:
    """The same, by one of several processes: each call of its leases may fail, too."""
    await _mix(world)


# As the programs are called, for the command that replays them.
_mix.__qualname__, _mix_leased.__qualname__ = "mixed", "leased"
mixed, leased = Story((), _mix), Story((), _mix_leased, "leased")
MIXED = (mixed, leased)

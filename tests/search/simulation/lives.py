"""Stories that a crash may cut anywhere: a client repeats its calls in each life, until a life ends normally."""

import functools
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from tests.search.simulation.people_stories import decide, with_payments
from tests.search.simulation.world import ALICE, WINDOW, World
from trio_sagents import Completed, Decision, Interrupted, SagentsError
from trio_sagents.testing import Simulation
from trio_sagents.testing.invariants import check

Body = Callable[["Lived"], Awaitable[object]]


@attrs.define(eq=False)
class Lived:
    """What a client of several lives knows."""

    world: World
    outcomes: dict[tuple[str, str], str] = attrs.field(factory=dict)
    """By conversation and message: the id of the answer that was seen."""
    paid: list[int] = attrs.field(factory=list)
    """Amounts that were paid, over all lives."""
    decisions: Sequence[Decision] = ()
    """What people have decided, once they were asked."""
    is_decided: bool = False
    """Whether they were told that it is on record."""

    async def ask(self, text: str, message_id: str, conversation_id: str = "c") -> None:
        """Post, as often as it takes over all lives, and remember the answer."""
        with suppress(SagentsError):
            outcome = await self.world.ask(text, message_id, conversation_id)
            if isinstance(outcome, Completed) and not self.world.store.is_frozen:
                seen = self.outcomes.setdefault((conversation_id, message_id), outcome.message.message_id)
                with self.world.noting():
                    check(seen == outcome.message.message_id, "I13", f"message {message_id!r} is answered twice")


@attrs.define(eq=False, slots=False)  # its names are those of its body
class Lives:
    """A program for the simulator: one body that is repeated in each life."""

    body: Body
    window: float = math.inf
    continues: bool = False
    """Whether turns continue after a crash."""

    def __attrs_post_init__(self) -> None:
        self.__module__ = self.body.__module__
        self.__qualname__ = self.body.__qualname__
        self.__doc__ = self.body.__doc__

    async def __call__(self, simulation: Simulation) -> None:
        """Run lives until one ends normally, and then look at the disk."""
        disk = simulation.disk
        world = World(simulation, disk)
        after_crash = "continue" if self.continues else "close"
        world.config = attrs.evolve(world.config, policy=attrs.evolve(world.config.policy, window=self.window, after_crash=after_crash))
        lived = Lived(world)
        world.make_agent = with_payments(world, lived.paid)

        async def life() -> None:
            world.models.clear()
            async with world.opened():
                await self.body(lived)
                simulation.calm()
                await world.check_liveness()

        while await disk.live(life):
            await world.check_stored(is_whole=False)
        await world.check_stored()
        for (conversation_id, message_id), answer in lived.outcomes.items():
            stored: Any = await world.whole(conversation_id)
            count = [record["message_id"] for record in stored.messages].count(answer)
            check(count == 1, "I13", f"the answer to {message_id!r} was seen, and is stored {count} times")


LIVES: Final[list[Lives]] = []


def lives(body: Body, window: float = math.inf, *, continues: bool = False) -> Lives:
    """Make a program of a body, of the bound of the windows of its conversations, and of what becomes of a turn that a crash has cut."""
    made = Lives(body, window, continues)
    LIVES.append(made)
    return made


@lives
async def chatting(lived: Lived) -> None:
    """Three turns, one of them with a tool."""
    for number, text in enumerate(("say one", "note two", "say three")):
        await lived.ask(text, f"m{number}")


@lives
async def crowding(lived: Lived) -> None:
    """Four messages at once, in two conversations, with tools in parallel."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lived.ask, "two tools", "m1")
        nursery.start_soon(lived.ask, "note one", "m2")
        nursery.start_soon(lived.ask, "long one", "m3")
        nursery.start_soon(lived.ask, "note other", "d1", "d")


@lives
async def restarting(lived: Lived) -> None:
    """Turns, with stops between, one of them in the middle of a turn."""
    sessions = lived.world.sessions
    await lived.ask("note one", "m1")
    with suppress(SagentsError):
        await sessions.stop("c", scope=ALICE)
        await lived.world.post("wait for it", "m2")
        await trio.sleep(1)
        await sessions.stop("c", scope=ALICE)
    await lived.ask("say three", "m3")


@lives
async def cutting(lived: Lived) -> None:
    """Turns that are cut: by a cancellation, by a message, by an error."""
    sessions = lived.world.sessions
    with suppress(SagentsError):
        await lived.world.post("slow one", "m1")
        await trio.sleep(0.7)
        await sessions.cancel_turn("c", scope=ALICE)
        await lived.world.post("two tools", "m2")
        await lived.world.post("say now", "m3", overlap="interrupt")
        await lived.world.post("fail now", "m4")
    await lived.ask("say five", "m5")


@lives
async def sleeping(lived: Lived) -> None:
    """An agent that leaves for want of work, and comes back."""
    await lived.ask("say one", "m1")
    await trio.sleep(30)
    await lived.ask("note two", "m2")


@lives
async def deciding(lived: Lived) -> None:
    """Payments that people decide about; what they decided they say again in each life."""
    world = lived.world
    sessions = world.sessions
    with suppress(SagentsError):
        if not lived.decisions:
            outcome = await world.ask("pay them", "m1")
            if isinstance(outcome, Interrupted):
                lived.decisions = decide(outcome.interrupt.calls)
        if lived.decisions:
            receipt = await sessions.resume("c", lived.decisions, scope=ALICE)
            with world.noting():
                check(receipt.duplicate or not lived.is_decided, "I26", "what was decided, and told, is to be decided again")
            lived.is_decided = lived.is_decided or not world.store.is_frozen
            await receipt.wait()
    await lived.ask("say two", "m2")


@functools.partial(lives, window=WINDOW)
async def growing_up(lived: Lived) -> None:
    """Payments, and more turns than the window holds; what was said and decided is said and decided again in each life."""
    await deciding.body(lived)
    for number in range(3):
        await lived.ask("say more", f"n{number}")
    await deciding.body(lived)
    await lived.ask("note it", "n3")


@functools.partial(lives, continues=True)
async def continuing(lived: Lived) -> None:
    """Messages at once, with tools and payments, in turns that continue after each crash: whatever was acknowledged is answered."""
    world = lived.world
    await crowding.body(lived)
    await deciding.body(lived)
    for text, message_id in (("two tools", "n1"), ("long one", "n2"), ("say one", "n3")):
        known = message_id in world.told.get("c", ())
        outcome = None
        with suppress(SagentsError):
            outcome = await world.ask(text, message_id)
        if known and outcome is not None and not world.store.is_frozen:
            with world.noting():
                check(isinstance(outcome, Completed), "I13", f"message {message_id!r} was acknowledged, and is {outcome}")

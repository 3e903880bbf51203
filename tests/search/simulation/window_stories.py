"""Stories of conversations that are longer than their window: checkpoints, old ids, old decisions, and older messages by page."""

from typing import Any

from tests.search.simulation.people_stories import decide, interrupt_of, with_payments
from tests.search.simulation.world import ALICE, World, story
from trio_sagents import Agent, AlreadyDecided, Middleware, MiddlewareContext, converse
from trio_sagents.testing.invariants import check


class ReadsOlder(Middleware):
    """Reads what is before the window, before each turn; it may be cut there."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def before_turn(self, context: MiddlewareContext) -> None:
        """Read all pages."""
        before: str | None = None
        count = 0
        while True:
            page = await context.older_messages(before=before, limit=1)
            count += len(page.messages)
            before = page.before
            if before is None:
                break
        with self.world.noting():
            check(count == context.state.older, "I12", f"{count} older messages are read, and {context.state.older} are told of")


@story("Sessions.post", "MiddlewareContext.older_messages", "TurnSteps.older_messages", kind="windowed", follows=True)
async def growing(world: World) -> None:
    """Turns whose window is smaller than they are; then all of their messages again, by two callers at once."""

    async def steps(turn: Any) -> Any:
        await world.simulation.named("step", lambda: turn.older_messages(limit=1))
        return await converse(turn)

    world.make_agent = lambda model, tools: Agent(model=model, tools=tools, mode=steps, middleware=[ReadsOlder(world)])
    for number, text in enumerate(("say one", "note two", "say three")):
        await world.strike(world.ask, text, f"m{number}")
    known = set(world.told.get("c", ()))
    for number, text in enumerate(("say one", "note two", "say three")):
        for name in ("caller", "rival"):
            receipt = await world.strike(world.post, text, f"m{number}", name=name)
            if receipt is not None and f"m{number}" in known:
                check(receipt.duplicate, "I13", f"message 'm{number}' was acknowledged, and is accepted again")


@story("Sessions.resume", kind="windowed")
async def deciding_long_ago(world: World) -> None:
    """Payments are decided, leave the window, and are decided again."""
    paid: list[int] = []
    world.make_agent = with_payments(world, paid)
    await world.strike(world.ask, "pay them", "m1", name="asker")
    interrupt = await interrupt_of(world)
    if interrupt is None:
        return
    decisions = decide(interrupt.calls)
    first = await world.strike(lambda: world.sessions.resume("c", decisions, scope=ALICE), name="decider")
    for number in range(2):
        await world.strike(world.ask, "say more", f"n{number}", name="asker")

    async def again() -> Any:
        try:
            return await world.sessions.resume("c", decisions, scope=ALICE)
        except AlreadyDecided as exc:
            check(first is None, "I26", f"what was decided is told to be decided otherwise: {exc}")

    receipt = await world.strike(again)
    check(first is None or receipt is None or receipt.duplicate, "I26", "what was decided, and told, is decided again")
    check(len(set(paid)) == len(paid), "I26", f"paid twice: {paid}")

"""One small story for each public coroutine and async context manager; what it is about runs as "caller", and can be struck."""

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from tests.search.simulation import file_stories, node_stories, people_stories, window_stories
from tests.search.simulation.hosts import Rows, States
from tests.search.simulation.world import ALICE, STORIES, Story, World, new_folder, story
from tests.support.stores import make_first
from trio_sagents import (
    AGENTS_TOPIC,
    Agent,
    Commit,
    LocalPubSub,
    MemoryStore,
    Presence,
    SameScope,
    SessionConfig,
    SingleFactoryRouter,
    Snapshot,
    SqliteStore,
    conversation_topic,
    open_sessions,
)
from trio_sagents.testing import FaultyStore, ScriptedModel
from trio_sagents.testing.invariants import check, check_closed, check_messages

__all__ = ("STORIES", "file_stories", "node_stories", "people_stories", "window_stories")


# ── the front door


@story("Sessions.start")
async def start(world: World) -> None:
    """Two callers start one agent."""

    async def call() -> None:
        await world.sessions.start("c", scope=ALICE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, call)
        nursery.start_soon(lambda: world.strike(call, name="rival"))


@story("Sessions.start")
async def start_with_subscribers(world: World) -> None:
    """A start with a subscriber of its own, which is withdrawn with a cancelled caller."""
    async with world.sessions.open_subscriber(scope=ALICE) as subscriber:

        async def call() -> None:
            await world.sessions.start("c", scope=ALICE, initial_subscribers=[subscriber])
            check(subscriber.subscriptions, "I16", "a start that returned has no subscription")

        await world.strike(call)


@story("Sessions.ensure_running")
async def ensure_running(world: World) -> None:
    """An agent and a subscription in one step, by two callers."""
    async with world.sessions.open_subscriber(scope=ALICE) as subscriber:

        async def call() -> None:
            await world.sessions.ensure_running("c", subscriber)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.strike, call)
            nursery.start_soon(lambda: world.strike(call, name="rival"))


@story("Sessions.running")
async def running(world: World) -> None:
    """Ask whether it runs."""
    await world.ready()
    await world.strike(lambda: world.sessions.running("c", scope=ALICE))


@story("Sessions.stop")
async def stop(world: World) -> None:
    """Stop in the middle of a turn; when it returns, the name is free."""
    await world.ready("slow one")
    await world.strike(world.post, "wait for it", "m1", name="poster")

    async def call() -> None:
        await world.sessions.stop("c", scope=ALICE)
        stopped = world.sessions.statistics().agents
        check(stopped == 0, "I3", f"stop returned, and {stopped} ids are taken")

    await world.strike(call)


@story("Sessions.stop")
async def stop_with_grace(world: World) -> None:
    """Stop with grace, against a second stop without, while messages come."""
    await world.strike(world.post, "slow one", "m1", name="poster")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, lambda: world.sessions.stop("c", scope=ALICE, grace_period=1))
        nursery.start_soon(lambda: world.strike(world.post, "say two", "m2", name="poster"))
        nursery.start_soon(lambda: world.strike(lambda: world.sessions.stop("c", scope=ALICE), name="rival"))


@story("Sessions.drain")
async def drain(world: World) -> None:
    """Drain while a turn runs, in sessions of its own: those of the story must still answer."""
    inner = World(world.simulation, FaultyStore(world.simulation.faults, MemoryStore()))
    async with open_sessions(inner.config) as inner.sessions:
        await world.strike(inner.post, "slow one", "m1", name="poster")
        await world.strike(inner.sessions.drain)
    check_closed(inner.sessions)
    await inner.check_stored(is_whole=not world.simulation.plan.faults)


@story("Sessions.post", "Receipt.wait")
async def post(world: World) -> None:
    """Three callers post to a sleeping agent, and wait."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, world.ask, "say one", "m1")
        nursery.start_soon(lambda: world.strike(world.ask, "note two", "m2", name="second"))
        nursery.start_soon(lambda: world.strike(world.post, "say one", "m1", name="twin"))


@story("Sessions.post")
async def post_interrupting(world: World) -> None:
    """A message that cuts the running turn, and one that steers it."""
    await world.strike(world.post, "two tools", "m1", name="poster")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, lambda: world.post("say now", "m2", overlap="interrupt"))
        nursery.start_soon(lambda: world.strike(lambda: world.post("say more", "m3", overlap="steer"), name="steerer"))


@story("Sessions.post", "Receipt.wait")
async def post_at_rest(world: World) -> None:
    """A message that begins its turn at once; others that come in the same moment, one of them to cut that turn; and a stop."""
    await world.ready()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, world.ask, "note one", "m1")
        nursery.start_soon(lambda: world.strike(world.post, "say two", "m2", name="second"))
        nursery.start_soon(lambda: world.strike(lambda: world.post("say now", "m3", overlap="interrupt"), name="cutter"))
        nursery.start_soon(lambda: world.strike(lambda: world.sessions.stop("c", scope=ALICE), name="rival"))


@story("Sessions.cancel_turn")
async def cancel_turn(world: World) -> None:
    """Cut a turn whose tools run."""
    await world.strike(world.post, "two tools", "m1", name="poster")
    await trio.sleep(0.5)
    await world.strike(lambda: world.sessions.cancel_turn("c", scope=ALICE))


@story("Sessions.get")
async def get(world: World) -> None:
    """Get a handle."""
    await world.ready()
    await world.strike(lambda: world.sessions.get("c", scope=ALICE))


@story("Sessions.agent_info", "Sessions.list_running", "Sessions.list_matching", "Sessions.agent_count")
async def looking(world: World) -> None:
    """Look around."""
    await world.ready()

    async def call() -> None:
        await world.sessions.agent_info("c", scope=ALICE)
        await world.sessions.list_running(scope=ALICE)
        await world.sessions.list_matching("conversation-*", scope=ALICE)
        check(await world.sessions.agent_count(scope=ALICE) <= 1, "I1", "two agents of one conversation")

    await world.strike(call)


@story("Sessions.history", "Sessions.conversations")
async def reading(world: World) -> None:
    """Read what is stored."""
    await world.ready("note one")

    async def call() -> None:
        page = await world.sessions.history("c", scope=ALICE, limit=2)
        if (before := getattr(page, "before", None)) is not None:  # a faulty store may have given something else
            await world.sessions.history("c", scope=ALICE, before=before)
        await world.sessions.conversations(scope=ALICE)

    await world.strike(call)


@story("Sessions.delete")
async def delete(world: World) -> None:
    """Stop and delete; a post that comes between makes a new conversation."""
    await world.ready()
    world.deleted.add("c")

    async def call() -> None:
        await world.sessions.stop("c", scope=ALICE)
        await world.sessions.delete("c", scope=ALICE)

    await world.strike(call)


@story("Sessions.open_subscriber", "Subscriber.subscribe", "Subscriber.unsubscribe", "Subscriber.__anext__", "Subscriber.batches")
async def subscribing(world: World) -> None:
    """Open, subscribe, read one by one and in batches, unsubscribe."""
    await world.strike(world.post, "slow one", "m1", name="poster")

    async def call() -> None:
        async with world.sessions.open_subscriber(scope=ALICE) as subscriber:
            await subscriber.subscribe("c")
            await subscriber.subscribe("c", channel="debug")
            await subscriber.__anext__()
            await subscriber.unsubscribe("c", channel="debug")
            async for _ in subscriber.batches():
                break
            await subscriber.unsubscribe("c")

    await world.strike(call)


@story("Sessions.watch")
async def watch(world: World) -> None:
    """Watch a conversation until its turn has ended."""

    async def call() -> None:
        async with world.sessions.watch("c", scope=ALICE, viewer="v") as watched:
            await world.post("say one", "m1")
            for _ in range(4):
                await watched.__anext__()

    await world.strike(call)
    check(not await world.sessions.presence.list(conversation_topic("c")), "I23", "a viewer who left is present")


@story("Sessions.page", "Page.__anext__", "Page.older", "Page.read_history")
async def paging(world: World) -> None:
    """Open a page, read older rows and changes, while the agent speaks, is stopped, and comes back."""
    await world.ready("note one")
    await world.strike(world.post, "slow one", "m1", name="poster")

    async def call() -> None:
        async with world.sessions.page("c", scope=ALICE, viewer="v", limit=1) as page:
            with trio.move_on_after(5):
                async for change in page:
                    check(not change.replaces_rows or change.rows == page.rows, "I17", "a change that replaces all rows has some of them")
                    if Snapshot in {type(event.event) for event in change.events}:
                        await page.older(2)
            stored = await world.sessions.history("c", scope=ALICE, limit=1000)
            ids = [row.row_id for row in page.rows]
            there = [row.row_id for row in getattr(stored, "rows", page.rows)]  # a faulty store may have given something else
            check(len(set(ids)) == len(ids), "I17", f"rows twice on a page: {ids}")
            check([row_id for row_id in there if row_id in ids] == ids, "I17", f"a page shows {ids}, stored is {there}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, call)
        await trio.sleep(1)
        await world.strike(lambda: world.sessions.stop("c", scope=ALICE), name="rival")
        await world.strike(world.post, "say two", "m2", name="poster")
    check(not await world.sessions.presence.list(conversation_topic("c")), "I23", "a viewer who left is present")


# ── handles


def _handle_story(name: str, body: Callable[[World, Any], Awaitable[object]]) -> Story:
    async def run(world: World) -> None:
        await world.ready()
        info = await world.strike(lambda: world.sessions.start("c", scope=ALICE), name="starter")
        if info is not None:
            await world.strike(body, world, info.agent)

    run.__qualname__ = f"handle_{name}"
    run.__doc__ = f"`AgentHandle.{name}`."
    return story(f"AgentHandle.{name}")(run)


async def _post(world: World, agent: Any) -> None:
    receipt = await agent.post("note one", message_id="m1")
    world.tell(receipt.message_id)
    await receipt.wait()


async def _cancel_turn(world: World, agent: Any) -> None:
    await agent.post("slow one", message_id="m1")
    await agent.cancel_turn()


async def _wait_ended(world: World, agent: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.wait_ended)
        await agent.stop()
    check(world.sessions.statistics().agents == 0, "I3", "the agent has ended, and its id is taken")


async def _stop(world: World, agent: Any) -> None:
    await agent.stop()
    check(world.sessions.statistics().agents == 0, "I3", "stop returned, and the id is taken")


handle_post = _handle_story("post", _post)
handle_cancel_turn = _handle_story("cancel_turn", _cancel_turn)
handle_touch = _handle_story("touch", lambda world, agent: agent.touch())
handle_info = _handle_story("info", lambda world, agent: agent.info())
handle_state = _handle_story("state", lambda world, agent: agent.state())
handle_wait_idle = _handle_story("wait_idle", lambda world, agent: agent.wait_idle())
handle_wait_ended = _handle_story("wait_ended", _wait_ended)
handle_stop = _handle_story("stop", _stop)


# ── the composition root


@story("open_sessions", kind="bare")
async def opening(world: World) -> None:
    """Open sessions, work in them, and leave: at each yield of it the host may be cancelled."""
    world.store = store = FaultyStore(world.simulation.faults, MemoryStore())
    opened: list[Any] = []

    async def call() -> None:
        async with open_sessions(attrs.evolve(world.config, store=store)) as sessions:
            opened.append(sessions)
            world.sessions = sessions
            await world.post("slow one", "m1")
            await world.post("two tools", "m2", "d")

    await world.strike(call)
    for sessions in opened:
        check_closed(sessions)
    world.simulation.calm()
    # A machine that is too slow to save within `settle_timeout` leaves a turn to be closed by the next start, as a store that fails does.
    await world.check_stored(is_whole=not (world.simulation.plan.faults or world.simulation.plan.jumps))
    async with open_sessions(attrs.evolve(world.config, store=store)) as world.sessions:
        await world.check_liveness()
        await world.check_liveness("d")
    await world.check_stored()


# ── presence and pubsub


@story("Presence.track", "Presence.list", "Presence.changes", kind="bare")
async def presence(world: World) -> None:
    """Track two keys, list them, and hear of the changes."""
    presence = Presence()

    async def listen() -> None:
        async with presence.changes("t") as changes:
            async for _ in changes:
                return

    async def call() -> None:
        async with presence.track("t", "a", {"n": 1}), presence.track("t", "b"):
            check(set(await presence.list("t")) == {"a", "b"}, "I23", "not everybody is present")
            await presence.list(AGENTS_TOPIC)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.strike(listen, name="listener"))
        await trio.sleep(1)
        await world.strike(call)
        nursery.cancel_scope.cancel()
    check(not await presence.list("t"), "I23", "somebody who left is present")


@story("Presence.run", kind="bare")
async def presences_on_a_bus(world: World) -> None:
    """Two presences on one bus, of which one comes and goes: what it tracked is seen by the other, and is gone with it."""
    bus = LocalPubSub()
    here, there = Presence(bus), Presence(bus)

    async def call() -> None:
        with trio.move_on_after(20):
            await there.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run)
        async with there.track("t", "a"):
            nursery.start_soon(world.strike, call)
            await trio.sleep(10)
            check(here.count("t") in {0, 1}, "I23", f"{here.count('t')} entries of one viewer")
        await trio.sleep(60)
        check(not await here.list("t"), "I23", "somebody who left is present in another process")
        check(not await there.list("t"), "I23", "somebody who left is present")
        nursery.cancel_scope.cancel()


@story("LocalPubSub.subscribe", kind="bare")
async def pubsub(world: World) -> None:
    """Listen, and hear."""
    bus = LocalPubSub()

    async def call() -> None:
        async with bus.subscribe("t") as payloads:
            bus.publish("t", b"one")
            async for payload in payloads:
                check(payload == b"one", "I17", f"heard {payload!r}")
                break

    await world.strike(call)


# ── what a host may use as it is


@story("SameScope.authorize", "SingleFactoryRouter.resolve", kind="bare")
async def hosts(world: World) -> None:
    """The library's own authorizer and router."""
    router = SingleFactoryRouter(Agent(model=ScriptedModel(["hello"])))

    async def call() -> None:
        await trio.lowlevel.checkpoint()  # neither waits for anything: what can be struck is that they are called in a cancelled scope
        check(await SameScope().authorize(ALICE, "c", "post"), "I20", "its own scope is refused")
        factory, config = await router.resolve(ALICE, "c", {})
        await factory.create_agent("a", config)

    await world.strike(call)


async def _use_store(world: World, store: Any) -> None:
    def change(revision: int, epoch: int = 1) -> Commit:
        message_id = f"m{revision}"
        return Commit(
            conversation_id="c",
            agent_id="a",
            owner=ALICE,
            epoch=epoch,
            revision=revision,
            lifecycle="on_message",
            queued=[{"v": 1, "message_id": message_id, "role": "user", "parts": [{"type": "text", "text": "hello"}]}],
            message_ids={message_id: "digest"},
        )

    acknowledged: list[str] = []

    async def call() -> None:
        for revision in (1, 2):
            await store.commit(ALICE, change(revision))
            acknowledged.append(f"m{revision}")
        await store.history(ALICE, "c", before=None, limit=10)
        await store.conversations(ALICE, after=None, limit=10)
        await store.waiting(ALICE, after=None, limit=10)
        await store.unfinished(ALICE, after=None, limit=10)
        await store.older_messages(ALICE, "c", before=None, limit=10)
        await store.recall(ALICE, "c", ["message:m1"])

    await world.strike(call)
    stored = await world.strike(lambda: store.load(ALICE, "c"), name="loader") or await store.load(ALICE, "c")
    ids = [] if stored is None else [record["message_id"] for record in stored.queue]
    check(ids[: len(acknowledged)] == acknowledged, "I13", f"{acknowledged} were acknowledged, {ids} are stored")
    check(stored is None or stored.revision == len(ids), "I10", f"revision {stored and stored.revision} with {ids}")
    await world.strike(lambda: store.delete(ALICE, "c"), name="deleter")
    again = await store.load(ALICE, "c")
    check(again is None or len(again.queue) == len(ids), "I12", "half a conversation is deleted")


@story(
    "MemoryStore.load",
    "MemoryStore.commit",
    "MemoryStore.history",
    "MemoryStore.conversations",
    "MemoryStore.waiting",
    "MemoryStore.unfinished",
    "MemoryStore.older_messages",
    "MemoryStore.recall",
    "MemoryStore.delete",
    kind="bare",
)
async def memory_store(world: World) -> None:
    """Each method of the store, called by itself."""
    await _use_store(world, MemoryStore())


@story(
    "SqliteStore.open",
    "SqliteStore.load",
    "SqliteStore.commit",
    "SqliteStore.history",
    "SqliteStore.conversations",
    "SqliteStore.waiting",
    "SqliteStore.unfinished",
    "SqliteStore.older_messages",
    "SqliteStore.recall",
    "SqliteStore.delete",
    kind="bare",
)
async def sqlite_store(world: World) -> None:
    """Each method of the store, called by itself; and opening it."""
    with new_folder() as folder:

        async def call() -> None:
            async with SqliteStore(folder / "other.db", synchronous="NORMAL").open():
                await trio.lowlevel.checkpoint()

        await world.strike(call, name="opener")
        store = SqliteStore(folder / "c.db", synchronous="NORMAL")
        async with store.open():
            await _use_store(world, store)


@story("SqliteStore.migrate", kind="bare")
async def migrating(world: World) -> None:
    """Migrate a file of an earlier version: whoever is cancelled, the work runs to its end, and a second call finds nothing to do."""
    with new_folder() as folder:
        make_first(folder / "c.db")
        store = SqliteStore(folder / "c.db", synchronous="NORMAL")

        await world.strike(store.migrate)
        await store.migrate()
        check(not await store.migrate(), "I12", "a file is migrated, and is to be migrated again")
        async with store.open():
            await _use_store(world, store)


@story("Sessions.post", kind="sqlite")
async def post_to_a_file(world: World) -> None:
    """Two callers, and a store whose work is done in threads."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, world.ask, "note one", "m1")
        nursery.start_soon(lambda: world.strike(world.ask, "say two", "m2", name="second"))


@story("Sessions.post", kind="bare")
async def post_to_two_stores(world: World) -> None:
    """Two callers, and a host's own stores: the state in one, the transcript in the other."""
    faults = world.simulation.faults
    states, rows = States(faults), Rows(faults)
    config = SessionConfig(factory_router=world, agent_persistence=states, display_message_persistence=rows, policy=world.config.policy)
    async with open_sessions(config) as world.sessions:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.strike, world.ask, "note one", "m1")
            nursery.start_soon(lambda: world.strike(world.ask, "say two", "m2", name="second"))
        world.simulation.calm()
        if any(fault.how == "hang" for fault in world.simulation.plan.faults):
            return
        await world.check_liveness()
    check_closed(world.sessions)
    async with open_sessions(config) as world.sessions:
        agent = (await world.sessions.start("c", scope=ALICE)).agent
        await agent.wait_idle()
        messages = (await agent.state()).messages
    check_messages(messages)
    there = [message.message_id for message in messages]
    for message_id in world.told["c"]:
        check(there.count(message_id) == 1, "I13", f"{message_id!r} was acknowledged, and is stored {there.count(message_id)} times")
    missing = {message.message_id for message in messages if message.text} - {row.message_id for row in rows.rows.values()}
    check(not missing, "I12", f"messages without a row: {missing}")

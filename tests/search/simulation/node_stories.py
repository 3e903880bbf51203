"""Stories of several processes: leases alone, and two blocks with one store that ask for the same conversation."""

from typing import Any

import attrs
import trio

from tests.search.simulation.world import ALICE, LEASE, WatchedModel, World, new_folder, story
from trio_sagents import (
    MemoryCluster,
    MemoryLeases,
    Presence,
    SagentsError,
    Sessions,
    SqliteCluster,
    SqliteLeases,
    open_sessions,
)
from trio_sagents.nodes import Mail, Node
from trio_sagents.testing.invariants import check


async def _use_leases(world: World, leases: Any) -> None:
    """One holder does everything and is cut. A second holder is told of each lease that the first one left, or gets it."""

    async def call() -> None:
        check(await leases.acquire("c", "a", LEASE) is None, "I6", "a free lease was refused")
        check(set(await leases.renew(["c", "d"], "a", LEASE)) <= {"c"}, "I6", "what was never had was renewed")
        await leases.release("c", "a")

    await world.strike(call)
    remaining = await leases.acquire("c", "b", LEASE)
    check(remaining is None or 0 < remaining <= LEASE, "I6", f"a lease lasts {remaining} seconds")
    await leases.release("c", "a")
    began = trio.current_time()
    check(await leases.acquire("c", "b", LEASE) is None, "I5", "a lease that was given back is not free")
    is_taken = await leases.acquire("c", "a", LEASE) is not None
    has_ended = trio.current_time() - began >= LEASE  # on a machine that was slow for as long
    check(is_taken or has_ended, "I1", "two have one lease")


@story("MemoryLeases.acquire", "MemoryLeases.renew", "MemoryLeases.release", kind="bare")
async def memory_leases(world: World) -> None:
    """In memory."""
    await _use_leases(world, MemoryLeases())


@story("SqliteLeases.acquire", "SqliteLeases.renew", "SqliteLeases.release", kind="bare")
async def sqlite_leases(world: World) -> None:
    """In a file."""
    with new_folder() as folder:
        await _use_leases(world, SqliteLeases(folder / "leases.db", clock=trio.current_time))


LONG = 1e6
"""Seconds: a machine that is slow for longer than a lease is not what the stories of engines are about."""
CALLS = ("open", "join", "renew", "leave", "nodes", "claim", "release", "holders", "send", "receive", "wait")


async def _use_cluster(world: World, cluster: Any) -> None:
    """One node does everything and is cut. Another one is told of what the first has left, and gets it when the first is gone."""
    here, there = Node("a", "here", "1", 1), Node("b", "there", "1", 1)

    async def call() -> None:
        await cluster.join(here, LONG)
        check(await cluster.claim("c", "a") is None, "I6", "a free conversation was refused")
        check(await cluster.renew("a", LONG), "I6", "a node that has joined is not there")
        check(set(await cluster.holders(["c", "d"])) <= {"c"}, "I6", "somebody has what was never claimed")
        await cluster.send([Mail("a", "a", "{}")])
        await cluster.wait("a")
        received = await cluster.receive("a", (), 10)
        await cluster.receive("a", [mail.number for mail in received], 10)
        await cluster.nodes()
        await cluster.release(["c"], "a")
        await cluster.leave("a")

    async with cluster.open():
        await cluster.join(there, LONG)
        await world.strike(call)
        held = await cluster.claim("c", "b")
        check(held is None or (held.node_id == "a" and 0 < held.expires_in <= LONG), "I6", f"the conversation is held by {held}")
        await cluster.leave("a")
        await cluster.renew("b", LONG)
        check(await cluster.claim("c", "b") is None, "I5", "a conversation whose node has left is not free")
        check(not await cluster.send([Mail("b", "b", "{}")]), "I6", "a node that lasts gets no mail")
        check([mail.body for mail in await cluster.receive("b", (), 10)] == ["{}"], "I6", "mail is lost, or there twice")


@story(*(f"MemoryCluster.{name}" for name in CALLS), kind="bare")
async def memory_cluster(world: World) -> None:
    """In memory."""
    await _use_cluster(world, MemoryCluster())


@story(*(f"SqliteCluster.{name}" for name in CALLS), kind="bare")
async def sqlite_cluster(world: World) -> None:
    """In a file."""
    with new_folder() as folder:
        await _use_cluster(world, SqliteCluster(folder / "cluster.db", clock=trio.current_time))


@story("open_sessions", "Sessions.post", "Sessions.stop", kind="leased")
async def two_processes(world: World) -> None:
    """Callers ask two processes at once: one answers, the other says where the agent runs, and the store has one chain of commits."""

    async def converse(sessions: Sessions, name: str) -> None:
        for number in range(2):
            receipt = await sessions.post("c", "note it", scope=ALICE, message_id=f"{name}-{number}")
            world.tell(receipt.message_id)
            await receipt.wait()
            await sessions.stop("c", scope=ALICE)

    # A process that slept through the end of its lease continues for a moment. What it saves is refused, and this is checked.
    world.models["c"] = WatchedModel(world, "c", is_alone=not world.simulation.plan.jumps)
    async with open_sessions(attrs.evolve(world.config, presence=Presence())) as second, trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, converse, world.sessions, "first")
        nursery.start_soon(lambda: world.strike(converse, second, "second", name="rival"))


@story("open_sessions", kind="leased")
async def idle_process(world: World) -> None:
    """An agent at rest keeps its lease, though renewals fail now and then, until it leaves; then the next process gets it."""
    await world.ready()

    async def take_over() -> None:
        await world.sessions.stop("c", scope=ALICE)
        async with open_sessions(attrs.evolve(world.config, presence=Presence())) as second:
            receipt = await second.post("c", "say more", scope=ALICE, message_id="second")
            world.tell(receipt.message_id)
            await receipt.wait()

    await trio.sleep(1.5 * LEASE)
    await world.strike(take_over)
    try:
        await world.sessions.start("c", scope=ALICE)
    except SagentsError as exc:
        world.simulation.say(f"{type(exc).__name__}: {exc}")


@story("open_sessions", "Sessions.post", "Sessions.watch", kind="node")
async def another_node(world: World) -> None:
    """Callers ask two nodes at once about one conversation: its one agent answers both, wherever it runs."""

    async def converse(sessions: Sessions, name: str) -> None:
        async with sessions.watch("c", scope=ALICE) as watch:
            for number in range(2):
                receipt = await sessions.post("c", "note it", scope=ALICE, message_id=f"{name}-{number}")
                world.tell(receipt.message_id)
                await receipt.wait()
            await watch.__anext__()

    await world.ready()
    async with open_sessions(attrs.evolve(world.config, presence=Presence())) as second, trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, converse, second, "second")
        nursery.start_soon(lambda: world.strike(converse, world.sessions, "first", name="rival"))


@story("Sessions.stop", "Sessions.cancel_turn", "AgentHandle.info", "AgentHandle.state", kind="node")
async def commands_from_another_node(world: World) -> None:
    """The agent of another node is looked at, cut and stopped."""
    await world.ready()

    async def command(sessions: Sessions) -> None:
        handle = await sessions.get("c", scope=ALICE)
        await handle.info()
        await handle.state()
        await sessions.cancel_turn("c", scope=ALICE)
        await sessions.stop("c", scope=ALICE)

    async with open_sessions(attrs.evolve(world.config, presence=Presence())) as second:
        await world.strike(command, second)

"""`open_sessions(recover=True)`: conversations that have work left are started by themselves."""

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio

from tests.support.nodes import Killable, Nodes
from tests.support.scenarios import Router, kill_9, make_config, slow_agent, tasks_living
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    Completed,
    MemoryLeases,
    MemoryStore,
    PersistenceError,
    SameScope,
    SessionPolicy,
    Sessions,
    open_sessions,
)
from trio_sagents.sessions._recovering import AT_ONCE
from trio_sagents.testing import FaultyCluster, ScriptedModel

QUICK = Agent(model=ScriptedModel(lambda request: "done"))


@contextlib.asynccontextmanager
async def living(store: Any, router: Any = None, *, recover: Any = False, policy: Any = None, **settings: Any) -> AsyncIterator[Sessions]:
    """Open sessions that continue what a crash has cut."""
    before = tasks_living()
    config = make_config(router or Router(QUICK), store=store, **settings)
    config = attrs.evolve(config, policy=SessionPolicy(after_crash="continue", **(policy or {})))
    async with open_sessions(config, recover=recover) as sessions:
        yield sessions
    assert before == tasks_living()


async def cut(store: Any, *names: str, scope: Any = None, **settings: Any) -> Any:
    """Have the process die while turns of conversations run; return what is left in the store."""
    async with living(store, Router(slow_agent()), **settings) as sessions:
        for name in names:
            await sessions.post(name, "go", message_id="m", scope=scope)
        await trio.sleep(1)
        left = kill_9(store)
        for name in names:
            await sessions.stop(name, scope=scope)
    return left


async def unfinished(store: Any) -> list[str]:
    """Return the conversations that have work left."""
    return [item.conversation_id for item in (await store.unfinished(None, after=None, limit=1000)).items]


async def answered(sessions: Sessions, name: str, scope: Any = None) -> bool:
    """Return whether the last row of a conversation is the answer."""
    rows = (await sessions.history(name, scope=scope)).rows
    return rows[-1].role == "assistant" and rows[-1].content["text"] == "done"


async def test_recover_when_turns_were_cut(autojump_clock: Any) -> None:
    """Their agents are started, and the turns continue; nobody has to come."""
    store = await cut(MemoryStore(), "a", "b", "c")
    async with living(store, recover=True) as sessions:
        await trio.sleep(1)

        assert [True] * 3 == [await answered(sessions, name) for name in "abc"]
        assert [] == await unfinished(store)


async def test_recover_when_the_store_is_a_file(autojump_clock: Any, backend: Backend) -> None:
    """The same on each store of the library, also after its own restart."""
    async with living(backend.store, Router(slow_agent())) as sessions:
        await sessions.post("a", "go", message_id="m")
        await trio.sleep(1)
        image = backend.clone()
    async with living(image.store, recover=True) as sessions:
        receipt = await sessions.post("a", "go", message_id="m")
        assert isinstance(await receipt.wait(), Completed)


async def test_recover_when_it_is_not_asked_for(autojump_clock: Any) -> None:
    """Nothing starts by itself."""
    store = await cut(MemoryStore(), "a")
    async with living(store) as sessions:
        await trio.sleep(5)

        assert 0 == await sessions.agent_count()
        assert ["a"] == await unfinished(store)


async def test_recover_when_there_is_no_room(autojump_clock: Any) -> None:
    """Conversations for which there is no room follow when others have left."""
    store = await cut(MemoryStore(), "a", "b", "c")
    async with living(store, recover=True, policy={"max_sessions": 1}, inactivity_timeout=2.0) as sessions:
        await trio.sleep(1)
        assert 1 == await sessions.agent_count()
        await trio.sleep(20)

        assert [True] * 3 == [await answered(sessions, name) for name in "abc"]


async def test_recover_when_there_are_many(autojump_clock: Any) -> None:
    """A few start at a time, whatever their number."""
    names = [f"c{number}" for number in range(3 * AT_ONCE)]
    store = await cut(MemoryStore(), *names)
    router = Router(QUICK, build_delay=1.0)
    async with living(store, router, recover=True) as sessions:
        for turn in (1, 2, 3):
            await trio.sleep(0.5)
            assert AT_ONCE >= sessions.statistics().booting
            await trio.sleep(0.6)
            assert min(AT_ONCE * turn, len(names)) >= await sessions.agent_count()
        await trio.sleep(5)

        assert [] == await unfinished(store)


async def test_recover_when_the_block_is_left(autojump_clock: Any) -> None:
    """What was not started yet is left as it is; the block does not wait for it."""
    names = [f"c{number}" for number in range(2 * AT_ONCE)]
    store = await cut(MemoryStore(), *names)
    async with living(store, Router(QUICK, build_delay=1.0), recover=True):
        await trio.sleep(0.5)
    assert names[AT_ONCE:] == [name for name in await unfinished(store) if name in names[AT_ONCE:]]


async def test_recover_when_one_fails(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One that cannot be started is logged, once, and the others continue."""
    store = await cut(MemoryStore(), "a", "b", "c")

    async def scope_of(conversation_id: str, owner: Any) -> Any:
        if conversation_id == "b":
            raise RuntimeError("who is that?")
        return owner

    async with living(store, recover=scope_of) as sessions:
        await trio.sleep(60)

        assert [True, False, True] == [await answered(sessions, name) for name in "abc"]
        assert ["b"] == await unfinished(store)
    failed = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert 1 == len(failed)
    assert "'b'" in failed[0].getMessage()


async def test_recover_when_conversations_have_owners(autojump_clock: Any) -> None:
    """With plain scopes the owner is the scope; with scopes of the host's own, the host says it."""
    store = await cut(MemoryStore(), "a", scope="alice")
    async with living(kill_9(store), recover=True) as sessions:
        await trio.sleep(1)
        assert await answered(sessions, "a", scope="alice")

    async def scope_of(conversation_id: str, owner: Any) -> Any:
        return {"user": owner}

    by_user = SameScope(lambda scope: scope["user"])
    with pytest.raises(TypeError, match="give recover an async function"):
        async with living(kill_9(store), recover=True, authorizer=by_user):
            pass
    async with living(kill_9(store), recover=scope_of, authorizer=by_user) as sessions:
        await trio.sleep(1)
        assert await answered(sessions, "a", scope={"user": "alice"})


async def test_recover_when_another_process_has_them(autojump_clock: Any) -> None:
    """A conversation that runs in another process is left to that process."""
    store, leases = await cut(MemoryStore(), "a"), MemoryLeases()
    await leases.acquire("a", "another", 1000.0)
    async with living(store, recover=True, leases=leases) as sessions:
        await trio.sleep(5)
        assert 0 == await sessions.agent_count()


@pytest.mark.parametrize(("recover", "error"), [("yes", "must be a bool"), (1, "must be a bool"), (None, "must be a bool")])
async def test_recover_when_it_cannot_be_meant(recover: Any, error: str) -> None:
    """Something else than a bool or a function is refused."""
    with pytest.raises(TypeError, match=error):
        async with living(MemoryStore(), recover=recover):
            pass


async def test_recover_when_the_store_cannot_list(autojump_clock: Any) -> None:
    """The error says what the store lacks, and nothing is opened."""

    class Plain:
        """A store of the host's own."""

        def __init__(self) -> None:
            inner = MemoryStore()
            self.load, self.commit, self.history = inner.load, inner.commit, inner.history
            self.conversations, self.delete = inner.conversations, inner.delete

    with pytest.raises(PersistenceError, match="UnfinishedLookup"):
        async with living(Plain(), recover=True):
            pass


async def test_recover_when_the_list_cannot_be_read(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The sessions work all the same, and the log says what is not done."""
    store = await cut(MemoryStore(), "a")

    async def unfinished(*args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise OSError("no disk")

    store.unfinished = unfinished
    async with living(store, recover=True) as sessions:
        receipt = await sessions.post("a", "go", message_id="m")
        assert isinstance(await receipt.wait(), Completed)
    assert "what a crash has cut could not be listed" in caplog.text


# ── nodes


async def test_recover_when_another_node_has_died(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """The turns of a node that is killed continue on another one, within its lease and a minute; nobody has to come."""
    nodes = Nodes(settings={"policy": {"after_crash": "continue", "lease_ttl": 30.0}})
    nodes.router = Router(slow_agent())
    doomed = Killable(nodes)
    first = await nursery.start(doomed.run)
    async with nodes.node(Router(QUICK), recover=True) as second:
        for name in "ab":
            await first.post(name, "go", message_id="m")
        await trio.sleep(5)
        doomed.kill()
        await trio.sleep(30 + 60 + 5)

        assert [True, True] == [await answered(second, name) for name in "ab"]
        assert [] == await unfinished(nodes.store)


async def test_recover_when_another_node_lives(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """What runs on another node is left alone, and nothing here looks at it again and again."""
    nodes = Nodes(settings={"policy": {"after_crash": "continue"}})
    async with nodes.node(Router(slow_agent(seconds=1000.0))) as first, nodes.node(Router(QUICK), recover=True) as second:
        await first.post("a", "go", message_id="m")
        await trio.sleep(300)

        assert ["a"] == [info.conversation_id for info in await first.list_running()]
        assert 0 == second.statistics().agents
        await first.stop("a")


async def test_recover_when_the_engine_is_away(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Conversations for which there was no room wait for the engine, too; the sessions work on."""
    nodes = Nodes(store=await cut(MemoryStore(), "a", "b", "c"))
    nodes.settings = {"policy": {"after_crash": "continue", "max_sessions": 1, "lease_ttl": 1000.0}, "inactivity_timeout": 3.0}
    view = FaultyCluster(nodes.cluster)
    async with nodes.node(Router(QUICK), cluster=view, recover=True) as sessions:
        await trio.sleep(0.5)
        view.is_cut = True
        await trio.sleep(30)
        view.is_cut = False
        await trio.sleep(180)

        assert [True] * 3 == [await answered(sessions, name) for name in "abc"]
    assert "it is unknown which conversations other nodes have left" in caplog.text

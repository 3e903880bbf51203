"""Two nodes on each engine that is a database: a conversation is used from both, and one continues when the other has left."""

import contextlib
import faulthandler
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.postgres import needs_postgres
from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    Completed,
    Interrupted,
    MemoryStore,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    SqliteCluster,
    TextDelta,
    TurnEnded,
    open_sessions,
)
from trio_sagents.testing import Call, ScriptedModel

pytestmark = pytest.mark.slow
Opener = Callable[[], contextlib.AbstractAsyncContextManager[Sessions]]


def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def agent() -> Agent:
    """Return an agent that pays if it is asked to, and otherwise answers at length."""

    def reply(request: Any) -> Any:
        last = request.messages[-1]
        return Call("pay", amount=5) if last.text == "pay" else f"re: {last.text or 'done'} " * 20

    return Agent(model=ScriptedModel(reply, chunk_interval=0.001), tools=[pay], middleware=[Approvals({"pay": True})])


@contextlib.asynccontextmanager
async def node(store: Any, cluster: Any) -> AsyncIterator[Sessions]:
    """Open one node."""
    policy = SessionPolicy(grace_period=1.0)
    config = SessionConfig(factory_router=SingleFactoryRouter(agent()), store=store, cluster=cluster, policy=policy)
    async with open_sessions(config) as sessions:
        yield sessions


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Return what opens one more node of a cluster."""
    faulthandler.dump_traceback_later(120, exit=True)
    if request.param == "sqlite":
        store = MemoryStore()
        return lambda: node(store, SqliteCluster(tmp_path / "cluster.db"))
    from trio_sagents.cluster.postgres import PostgresCluster
    from trio_sagents.persistence.postgres import PostgresStore

    conninfo = request.getfixturevalue("conninfo")
    return lambda: node(PostgresStore(conninfo, connections=3), PostgresCluster(conninfo))


async def text_seen(sessions: Sessions, name: str, seen: list[str], task_status: Any) -> None:
    """Read one turn, and keep its text."""
    async with sessions.watch(name) as watch:
        task_status.started()
        async for envelope in watch:
            if isinstance(envelope.event, TextDelta):
                seen.append(envelope.event.text)
            elif isinstance(envelope.event, TurnEnded):
                return


async def test_conversation_when_two_nodes_use_it(opener: Opener, request: pytest.FixtureRequest) -> None:
    """A message from the other node is answered, both see the same text, and what waits is decided from the other node."""
    name = request.node.name
    with trio.fail_after(60):
        async with opener() as one, opener() as other:
            assert isinstance(await (await one.post(name, "first")).wait(), Completed)
            texts: dict[str, list[str]] = {"one": [], "other": []}
            async with trio.open_nursery() as nursery:
                for who, sessions in (("one", one), ("other", other)):
                    await nursery.start(lambda task_status, who=who, sessions=sessions: text_seen(sessions, name, texts[who], task_status))
                outcome = await (await other.post(name, "second")).wait()
            assert isinstance(outcome, Completed)
            assert outcome.message.text == "".join(texts["one"]) == "".join(texts["other"])
            waiting = await (await other.post(name, "pay")).wait()
            assert isinstance(waiting, Interrupted)
            decided = await (await other.resume(name, [Approve(call) for call in waiting.interrupt.calls])).wait()
            assert isinstance(decided, Completed)
            assert [info.conversation_id for info in await one.list_running()] == [name]


async def test_conversation_when_its_node_leaves(opener: Opener, request: pytest.FixtureRequest) -> None:
    """The other node continues, with the whole history."""
    name = request.node.name
    with trio.fail_after(60):
        async with opener() as other:
            async with opener() as one:
                await (await one.post(name, "first")).wait()
                assert await other.running(name)
            while await other.running(name):  # until the last mail of the node that has left is read
                await trio.sleep(0.01)
            outcome = await (await other.post(name, "second")).wait()
            assert isinstance(outcome, Completed)
            assert ["user", "assistant"] * 2 == [row.role for row in (await other.history(name)).rows]

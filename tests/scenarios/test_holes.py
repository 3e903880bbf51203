"""Promises that nobody tested: each of these was found missing by a planted bug that survived."""

import contextlib
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.scenarios import (
    FaultyStore,
    Verdicts,
    answer_to,
    ask,
    make_agent,
    make_config,
    opened,
    read_all,
    read_until,
    state_of,
    transcript,
)
from trio_sagents import (
    AgentShutdown,
    CancelCause,
    Cancelled,
    ConversationNotFound,
    Failed,
    LimitExceeded,
    MemoryStore,
    Message,
    PersistenceError,
    Sessions,
    Snapshot,
    SqliteStore,
    StateError,
    StateFromFuture,
    TextPart,
    TurnEnded,
    TurnStarted,
    open_sessions,
)
from trio_sagents.broadcast import Feed
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.records import Owner
from trio_sagents.data.wire import SCHEMA_VERSION, decode_message, encode_message, loads
from trio_sagents.files.directory import DirectoryFiles
from trio_sagents.persistence._records import owner_key
from trio_sagents.testing import Call


@pytest.mark.parametrize("doing", ["create", "write", "move", "delete"])
async def test_write_when_the_power_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str) -> None:
    """A file's content is flushed before it takes its name, and the folder after: so the disk has the old one or the new one, whole."""
    backend = DirectoryFiles(tmp_path)
    done: list[str] = []

    def noted(name: str, *, is_naming: bool) -> None:
        plain: Any = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            kind = "named" if is_naming else "folder" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else "content"
            if "unlink" not in name or not str(args[0]).startswith("~"):
                done.append(kind)
            return plain(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    async with backend.open():
        await backend.create(("alice",), "/a.txt", "old")
        for name in ("link", "rename", "unlink"):
            noted(name, is_naming=True)
        noted("fsync", is_naming=False)
        # `os.supports_dir_fd` was asked when it was opened.
        match doing:
            case "create":
                await backend.create(("alice",), "/b.txt", "new")
            case "write":
                await backend.write(("alice",), "/a.txt", "new")
            case "move":
                await backend.move(("alice",), "/a.txt", "/b.txt")
            case _:
                await backend.delete(("alice",), "/a.txt")
        await trio.lowlevel.checkpoint()

    moments = [kind for index, kind in enumerate(done) if not index or done[index - 1] != kind]
    assert {"create": ["content", "named", "folder"], "write": ["content", "named", "folder"]}.get(doing, ["named", "folder"]) == moments


async def test_stop_when_a_post_is_on_its_way(autojump_clock: Any) -> None:
    """A stop returns when the last submitted write has ended, of whomever: not when the agent's own task has."""
    store = FaultyStore()
    async with opened(store=store) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.latency["commit"] = 2.0
        nursery.start_soon(sessions.post, "c", "hi")
        await trio.sleep(1)

        assert await sessions.stop("c")
        assert 1 == len(store.commits)
        nursery.cancel_scope.cancel()


async def give_up_on_a_write(sessions: Sessions, store: FaultyStore, nursery: trio.Nursery) -> None:
    """Stop an agent whose write takes longer than anybody waits for it; the write is still on its way."""
    await sessions.start("c")
    store.faults.slow("commit", 10.0)

    async def post() -> None:
        with pytest.raises(PersistenceError):
            await sessions.post("c", "hi")

    nursery.start_soon(post)
    await trio.sleep(1)
    await sessions.stop("c")
    assert [] == store.commits


async def test_start_when_the_write_of_an_agent_that_was_given_up_lands(autojump_clock: Any) -> None:
    """What an earlier agent submitted is loaded by the next one, also where the stop did not wait for it."""
    store = FaultyStore()
    async with opened(store=store, policy={"settle_timeout": 3.0}) as sessions, trio.open_nursery() as nursery:
        await give_up_on_a_write(sessions, store, nursery)
        info = await sessions.start("c")
        with trio.fail_after(1000):
            await info.agent.wait_idle()
        assert [("user", "hi", None), ("assistant", "re: hi", "stop")] == await transcript(sessions)


async def test_delete_when_the_write_of_an_agent_that_was_given_up_lands(autojump_clock: Any) -> None:
    """A deletion waits for what an earlier agent submitted, and takes it away, too: else it would be there again, behind the deletion."""
    store = FaultyStore()
    async with opened(store=store, policy={"settle_timeout": 3.0}) as sessions, trio.open_nursery() as nursery:
        await give_up_on_a_write(sessions, store, nursery)
        assert await sessions.delete("c")
        await trio.sleep(100)
        assert 1 == len(store.commits)
        assert await store.inner.load(None, "c") is None


async def test_subscribe_with_a_place_of_the_other_channel(autojump_clock: Any) -> None:
    """A place on the debug channel is none on the main one: its number says nothing there, so a snapshot comes first."""
    async with opened() as sessions, sessions.open_subscriber() as first, sessions.open_subscriber() as second:
        await sessions.start("c")
        await first.subscribe("c", channel="debug")
        (envelope,) = await read_all(first)
        await answer_to(sessions)
        assert isinstance(envelope.event, Snapshot)
        await second.subscribe("c", after=envelope.event.cursor)

        assert [Snapshot] == [type(one.event) for one in await read_all(second)]


def test_feed_when_it_drops_old_events() -> None:
    """At any time the log reaches back as far as it says, so that a viewer who was away for less gets every event."""

    def snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
        raise AssertionError("nobody asks for one")

    feed = Feed("a", "c", "incarnation", "main", 8, snapshot)
    for number in range(1, 100):
        feed.publish(TurnStarted(f"t{number}"))
        events = feed.since(max(0, number - 8))

        assert events is not None
        assert min(8, number) == len(events)


async def test_start_when_the_store_forgets_to_compare_owners(autojump_clock: Any) -> None:
    """The owner is compared at the boot, too: a store that says that it does, and does not, lets nobody in."""

    class Careless(MemoryStore):
        async def load(self, scope: Any, conversation_id: str, **settings: Any) -> Any:
            return await super().load(scope, conversation_id, check=settings["check"])

    async with opened(store=Careless()) as sessions:
        await answer_to(sessions, "mine", scope="alice")
        await sessions.stop("c", scope="alice")

        with pytest.raises(ConversationNotFound):
            await sessions.start("c", scope="bob")
        assert "re: again" == await answer_to(sessions, "again", scope="alice")


async def test_post_behind_one_that_failed(autojump_clock: Any) -> None:
    """What was submitted behind a failed write is not even tried: it would be a conflict, and fence an agent that has no rival."""
    store, failed = FaultyStore(), []
    async with opened(store=store) as sessions:
        info = await sessions.start("c")
        store.faults.latency["commit"] = 1.0
        store.faults.fail("commit")

        async def post(text: str) -> None:
            with pytest.raises(PersistenceError) as error:
                await sessions.post("c", text)
            failed.append(type(error.value))

        async with trio.open_nursery() as nursery:
            for text in ("1", "2", "3"):
                nursery.start_soon(post, text)

        assert [PersistenceError] * 3 == failed
        assert 1 == store.faults.calls["commit"]
        assert "re: 4" == await answer_to(sessions, "4")
        assert info.agent == await sessions.get("c")


async def test_cancelled_turn_when_it_is_superseded_as_well(autojump_clock: Any) -> None:
    """A turn that was cut, and takes its time to end, keeps the cause that it was cut for."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(50)
        return "done all the same"

    async with opened(make_agent(Call("stubborn"), "next", tools=[stubborn])) as sessions, trio.open_nursery() as nursery:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        nursery.start_soon(sessions.cancel_turn, "c")
        await trio.sleep(1)
        await sessions.post("c", "instead", overlap="interrupt")

        assert Cancelled(CancelCause.USER) == await receipt.wait()


async def test_result_that_does_not_fit_into_the_state(autojump_clock: Any) -> None:
    """A tool has run, and its result is too much for the state: the turn fails, and what the tool returned is kept, as far as it fits."""

    async def talk() -> str:
        """Talk."""
        return "word " * 2000

    policy = {"max_state_bytes": 5000}
    async with opened(make_agent(Call("talk"), "next", tools=[talk]), policy=policy) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
        await sessions.stop("c")
        (result,) = [one for message in (await state_of(sessions)).messages for one in message.results]
        assert ("completed", "word") == (result.status, result.content[:4])


async def test_leave_by_cancellation_when_a_post_is_on_its_way(autojump_clock: Any) -> None:
    """The block is cancelled from outside while a message is on its way to the store: it is stored, and its caller knows."""
    store, receipts = FaultyStore(), []

    async def post(sessions: Sessions) -> None:
        receipts.append(await sessions.post("c", "hi"))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as outer:
            async with open_sessions(make_config(store=store)) as sessions:
                await sessions.start("c")
                store.faults.latency["commit"] = 2.0
                nursery.start_soon(post, sessions)
                await trio.sleep(1)
                outer.cancel()
                await trio.sleep(1)

    assert outer.cancelled_caught
    assert 1 == len(store.commits)
    assert [False] == [receipt.duplicate for receipt in receipts]


async def test_store_when_nothing_is_said_about_flushing(tmp_path: Path) -> None:
    """What was acknowledged survives the loss of power, unless the host wants it otherwise."""
    store = SqliteStore(tmp_path / "chat.db")
    async with store.open():
        assert store._file is not None
        assert (2,) == store._file._writing.execute("PRAGMA synchronous").fetchone()


async def test_delete_of_the_conversation_that_came_last(tmp_path: Path) -> None:
    """Nothing of it stays in the file: neither for whoever reads that, nor for the conversation that gets its number."""
    name = tmp_path / "chat.db"
    store = SqliteStore(name)
    async with opened(store=store) as sessions:
        await answer_to(sessions, "secret")
        await sessions.stop("c")
        assert await sessions.delete("c")
        assert [] == _left_in(name)
        await answer_to(sessions, "other", "next")

        assert ["other", "re: other"] == [text for _, text, _ in await transcript(sessions, "next")]


def _left_in(name: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(name)) as connection:
        tables = [table for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [table for table in tables if connection.execute(f'SELECT count(*) FROM "{table}"').fetchone() != (0,)]  # its own names


@pytest.mark.parametrize(("left", "right"), [(1, "1"), (None, "null"), ("a", '"a"'), (-1, "-1"), ("", None)])
def test_owners_that_look_alike(left: Owner, right: Owner) -> None:
    """The stored text of an owner is that of no other."""
    assert owner_key(left) != owner_key(right)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 99])
def test_record_of_a_later_version_in_a_hosts_store(version: int) -> None:
    """A message that a newer version of the library wrote is not read as if it were one of ours."""
    record = {**encode_message(Message("m", "user", [TextPart("hi")])), "v": version}
    with pytest.raises(StateFromFuture):
        decode_message("c", record)


@pytest.mark.parametrize("text", ['{"v": 1, "v": 2}', '[{"a": {"b": 1, "b": 1}}]', "NaN", "[1e999]", "[" * 100_000])
def test_stored_text_with_more_than_one_reading(text: str) -> None:
    """What two readers would read differently is damage, whichever of the two was meant."""
    with pytest.raises(StateError):
        loads("c", text)


async def test_subscribe_that_is_cancelled_while_the_authorizer_is_asked(autojump_clock: Any) -> None:
    """Nothing of it is left: the subscription is not there, and can be made again."""
    async with opened(authorizer=Verdicts(delay=5.0)) as sessions, sessions.open_subscriber() as subscriber:
        with trio.move_on_after(1):
            await subscriber.subscribe("c")

        assert {} == subscriber.subscriptions
        await subscriber.subscribe("c")
        await sessions.start("c")
        with trio.fail_after(60):
            assert isinstance((await read_until(subscriber, Snapshot))[-1].event, Snapshot)


async def test_subscribe_that_is_cancelled_when_another_has_taken_its_place(autojump_clock: Any) -> None:
    """A subscription that was ended while it was asked about takes away itself alone, not the one that came after it."""
    asking = trio.CancelScope()
    async with opened(authorizer=Verdicts(delay=5.0)) as sessions, sessions.open_subscriber() as subscriber:

        async def ask_first() -> None:
            with asking:
                await subscriber.subscribe("c")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_first)
            await trio.sleep(1)
            await subscriber.unsubscribe("c")
            nursery.start_soon(subscriber.subscribe, "c")
            await trio.sleep(1)
            asking.cancel()

        assert {("c", "main"): "pending"} == subscriber.subscriptions


async def test_subscription_when_agents_come_and_go(autojump_clock: Any) -> None:
    """A viewer that does not read keeps what it has not taken of the first agent, and the last word of the last one: no more."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        for number in range(5):
            await answer_to(sessions, f"question {number}")
            await sessions.stop("c")
        events = [envelope.event for envelope in await read_all(subscriber)]

        assert ["re: question 0"] == [event.outcome.message.text for event in events if isinstance(event, TurnEnded)]
        assert [AgentShutdown] * 2 == [type(event) for event in events[-2:]]
        assert 2 == sum(isinstance(event, AgentShutdown) for event in events)


async def test_subscription_when_its_starter_may_see_no_more(autojump_clock: Any) -> None:
    """Who was admitted as the one that started an agent is asked about again for the next agent, as anybody is."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await sessions.start("c", scope="bob", initial_subscribers=[subscriber])
        await sessions.stop("c", scope="bob")
        await read_all(subscriber)
        verdicts.allow = lambda scope, conversation_id, action: scope != "bob"
        await answer_to(sessions, "secret", scope="alice")

        assert {("c", "main"): "pending"} == subscriber.subscriptions
        assert [] == await read_all(subscriber)

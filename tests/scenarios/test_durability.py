"""Durability with one store: what returned is stored, what could not be stored is reported, and what a crash leaves."""

from typing import Any

import pytest
import trio
import trio.testing

from tests.support.records import drafts_of
from tests.support.scenarios import (
    FaultyStore,
    Router,
    answer_to,
    ask,
    check_no_hole,
    kill_9,
    kinds_of,
    make_agent,
    make_config,
    of_kind,
    opened,
    read_all,
    read_until,
    slow_agent,
    state_of,
    transcript,
)
from trio_sagents import (
    AgentBusy,
    AgentShutdown,
    ChainError,
    Completed,
    Conflict,
    ConversationNotFound,
    Failed,
    ImagePart,
    LimitExceeded,
    MemoryStore,
    Message,
    MessageCompleted,
    PersistenceError,
    SessionOpts,
    Sessions,
    ShutdownReason,
    Snapshot,
    StartFailed,
    StateError,
    Status,
    TextDelta,
    TextPart,
    TurnEnded,
    Unanswered,
    UserMessage,
    open_sessions,
)
from trio_sagents.testing import Call, Hang


async def test_post_returns_when_durable_not_when_answered(autojump_clock: Any) -> None:
    """A message whose post returned is in the store; the answer need not be."""
    store = FaultyStore()
    async with opened(make_agent(Hang()), store=store) as sessions:
        store.faults.latency["commit"] = 2.0
        began = trio.current_time()
        await sessions.post("c", "hi", message_id="m1")

        assert 2 <= trio.current_time() - began <= 3
        assert ["m1"] == [record["message_id"] for commit in store.commits for record in commit.messages]
        await sessions.stop("c")


@pytest.mark.parametrize("n", range(1, 8))
async def test_kill_9_after_every_commit(autojump_clock: Any, n: int) -> None:
    """Whenever the process dies, every acknowledged message is there once, the history is valid, and the work continues."""

    async def tool() -> str:
        """Do."""
        runs.append(1)
        return "fact"

    runs: list[int] = []
    store = FaultyStore()
    image: MemoryStore | None = None
    acknowledged: list[str] = []
    plain = store.commit

    async def commit(scope: Any, commit: Any) -> int:
        nonlocal image
        revision = await plain(scope, commit)
        if len(store.commits) == n:
            image = kill_9(store.inner)
            died_with.extend(acknowledged)
        return revision

    died_with: list[str] = []
    store.commit = commit  # type: ignore[method-assign]  # takes the image
    async with opened(make_agent(["text", Call("tool")], "done", "two", tools=[tool]), store=store) as sessions:
        for message_id in ("m1", "m2"):
            receipt = await sessions.post("c", message_id, message_id=message_id)
            acknowledged.append(message_id)
            await receipt.wait()
    if image is None:
        pytest.skip("the run had fewer commits")
    before = len(runs)
    async with opened(make_agent("after", "after"), store=image) as sessions:
        await (await sessions.start("c")).agent.wait_idle()
        messages = (await state_of(sessions)).messages
        users = [message.message_id for message in messages if message.role == "user"]

        assert len(set(users)) == len(users)
        assert set(died_with) <= set(users)
        assert before == len(runs)
        assert "assistant" == messages[-1].role
        calls = [call.call_id for message in messages for call in message.calls]
        assert calls == [result.call_id for message in messages for result in message.results]
        assert "after" == await answer_to(sessions, "go on")


async def test_crash_in_mid_answer_leaves_the_marked_draft(autojump_clock: Any) -> None:
    """A draft is kept at most every draft_interval; found at load it becomes the partial message, marked as cut by a crash."""
    store = MemoryStore()
    async with opened(slow_agent("0123456789" * 10, seconds=100), store=store, policy={"draft_interval": 5.0}) as sessions:
        await sessions.post("c", "count")
        await trio.sleep(52.5)
        image = kill_9(store)
        await sessions.stop("c")
    agent = make_agent("next")
    async with opened(agent, store=image) as sessions:
        *_, (role, text, stop_reason) = await transcript(sessions)

        assert ("assistant", "crashed") == (role, stop_reason)
        assert ("0123456789" * 10).startswith(text)
        assert 45 <= len(text) <= 53
        assert [] == agent.model.requests
        assert Status.IDLE is (await sessions.agent_info("c")).status
        assert "next" == await answer_to(sessions, "go on")
        assert text in [row.content.get("text") for row in (await sessions.history("c")).rows]


async def test_drafts_do_not_flood_the_store(autojump_clock: Any) -> None:
    """At most one draft is stored every draft_interval."""
    store = FaultyStore()
    async with opened(slow_agent("x" * 1000, seconds=100), store=store, policy={"draft_interval": 10.0}) as sessions:
        await ask(sessions)

    assert 5 <= len(drafts_of(store.commits)) <= 11


async def test_drafts_by_size(autojump_clock: Any) -> None:
    """A draft is kept every 4 KiB, too, however little time passes."""
    store = MemoryStore()
    async with opened(make_agent(["x" * 10_000, Hang()], chunk_size=100), store=store, policy={"draft_interval": 1e6}) as sessions:
        await sessions.post("c", "go")
        await trio.sleep(1)
        image = kill_9(store)
        await sessions.stop("c")
    async with opened(store=image) as sessions:
        assert 10_000 - 4200 <= len((await transcript(sessions))[-1][1]) <= 10_000


async def test_draft_is_gone_when_the_answer_is_there(autojump_clock: Any) -> None:
    """A finished answer replaces its draft: nothing is doubled at the next load."""
    store = MemoryStore()
    async with opened(slow_agent("0123456789", seconds=10), store=store) as sessions:
        await ask(sessions)
    async with opened(store=store) as sessions:
        assert [("user", "hi", None), ("assistant", "0123456789", "stop")] == await transcript(sessions)


async def test_crash_with_open_tool_calls(autojump_clock: Any) -> None:
    """Open calls of a crashed turn are 'unknown'; nobody re-runs them silently; the model reads that."""
    store, runs = MemoryStore(), []

    async def pay() -> str:
        """Pay."""
        runs.append("pay")
        await trio.sleep_forever()
        return ""

    async with opened(make_agent(["text", Call("pay"), Call("pay")], tools=[pay]), store=store) as sessions:
        await sessions.post("c", "pay")
        await trio.sleep(1)
        image = kill_9(store)
        await sessions.stop("c")
    agent = make_agent("what now?", tools=[pay])
    async with opened(agent, store=image) as sessions:
        results = [result for message in (await state_of(sessions)).messages for result in message.results]

        assert ["unknown", "unknown"] == [result.status for result in results]
        assert ["pay", "pay"] == runs
        assert "crashed" == (await transcript(sessions))[-1][2]
        assert "what now?" == await answer_to(sessions, "go on")
        assert any("unknown" in result.content for message in agent.model.requests[0].messages for result in message.results)


async def test_queue_left_by_a_crash_runs_at_boot(autojump_clock: Any) -> None:
    """At boot a queue left by a crash runs; the turn cut by the crash does not."""
    store = MemoryStore()
    async with opened(make_agent(["partial", Hang()]), store=store) as sessions:
        await sessions.post("c", "one", message_id="m1")
        await trio.sleep(3)
        await sessions.post("c", "two", message_id="m2")
        image = kill_9(store)
        await sessions.stop("c")
    agent = make_agent("answer")
    async with opened(agent, store=image) as sessions:
        info = await sessions.start("c")
        again = await sessions.post("c", "two", message_id="m2")
        assert again.duplicate
        assert "answer" == (await again.wait()).message.text
        await info.agent.wait_idle()

        assert [("user", "one"), ("assistant", "partial"), ("user", "two"), ("assistant", "answer")] == [
            (role, text) for role, text, _ in await transcript(sessions)
        ]
        assert 1 == len(agent.model.requests)


async def test_receipt_of_a_message_that_a_crash_cut(autojump_clock: Any) -> None:
    """Posting the id of a message whose turn was cut by a crash gives a receipt that says so, and does not run it again."""
    store = MemoryStore()
    async with opened(make_agent(Hang()), store=store) as sessions:
        await sessions.post("c", "one", message_id="m1")
        await trio.sleep(1)
        image = kill_9(store)
        await sessions.stop("c")
    agent = make_agent()
    async with opened(agent, store=image) as sessions:
        again = await sessions.post("c", "one", message_id="m1")

        assert again.duplicate
        assert not isinstance(await again.wait(), Completed)
        assert [] == agent.model.requests


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_store_that_fails_at_the_post(autojump_clock: Any, after: bool) -> None:
    """A message that could not be stored is not acknowledged, and the error says so. The conversation continues with a working store.

    If the store has kept the message all the same, its turn was cut before it began, which a second post of the message tells.
    """
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await sessions.start("c")
        error = OSError("the disk is full")
        store.faults.fail("commit", error=error, after=after)
        with pytest.raises(PersistenceError, match="OSError") as caught:
            await sessions.post("c", "hi", message_id="m1")

        assert error is caught.value.__cause__
        with trio.move_on_after(100):
            while True:
                try:
                    outcome = await ask(sessions, "hi", message_id="m1")
                    break
                except PersistenceError:
                    await trio.sleep(1)
        assert (Unanswered("crashed") if after else "re: hi") == (outcome.message.text if isinstance(outcome, Completed) else outcome)
        assert "re: again" == await answer_to(sessions, "again")
        assert 1 == [text for _, text, _ in await transcript(sessions)].count("hi")


async def test_store_that_fails_in_mid_turn(autojump_clock: Any) -> None:
    """After a failed write: ChainError(unsaved=True) and a fresh Snapshot; memory is back at the last commit; the next message works."""
    store = FaultyStore()
    agent = make_agent(["one", Call("x")], "two", "three", "four")
    async with opened(agent, store=store) as sessions, sessions.watch("c") as watch:
        store.faults.fail("commit", n=3)
        outcome = await ask(sessions, "hi")
        seen = await read_until(watch, TurnEnded)
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, PersistenceError)
        (error,) = of_kind(seen, ChainError)
        assert error.unsaved
        assert 2 == kinds_of(seen).count(Snapshot)
        assert kinds_of(seen).index(ChainError) < len(seen) - 1 - kinds_of(seen)[::-1].index(Snapshot)
        assert ["hi"] == [message.text for message in (await (await sessions.get("c")).state()).messages if message.role == "user"]
        assert await answer_to(sessions, "again") in {"two", "three", "four"}
        stored = [record["message_id"] for commit in store.commits for record in commit.messages]
        assert stored == [message.message_id for message in (await state_of(sessions)).messages]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("n", range(1, 7))
async def test_store_that_fails_at_every_commit(autojump_clock: Any, n: int, after: bool) -> None:
    """Whichever write fails, before or after its effect: memory equals the store, nothing is doubled, and the next agent continues."""
    store = FaultyStore()
    async with opened(make_agent(["one", Call("x")], "two", *["more"] * 9), store=store) as sessions:
        store.faults.fail("commit", n=n, after=after)
        for text in ("a", "b", "c"):
            for _ in range(3):
                try:
                    await ask(sessions, text, message_id=text)
                    break
                except PersistenceError:
                    await trio.sleep(1)
    async with opened(make_agent("fine"), store=store.inner) as sessions:
        assert "fine" == await answer_to(sessions, "last")
        messages = (await state_of(sessions)).messages
        ids = [message.message_id for message in messages]
        calls = [call.call_id for message in messages for call in message.calls]

        assert len(set(ids)) == len(ids)
        assert {"a", "b", "c"} <= set(ids)
        assert calls == [result.call_id for message in messages for result in message.results]


async def test_later_writes_fail_with_a_failed_one(autojump_clock: Any) -> None:
    """The conversation's later submitted writes fail with a failed one, because each builds on the one before. Others are not harmed."""
    store, failed = FaultyStore(), []
    async with opened(slow_agent(), store=store) as sessions:
        await sessions.start("c")
        await sessions.start("other")
        store.faults.latency["commit"] = 1.0
        store.faults.fail("commit", 1)
        async with trio.open_nursery() as nursery:

            async def post(text: str) -> None:
                try:
                    await sessions.post("c", text)
                except PersistenceError:
                    failed.append(text)

            for text in ("1", "2", "3"):
                nursery.start_soon(post, text)
                await trio.testing.wait_all_tasks_blocked(0.001)
            nursery.start_soon(sessions.post, "other", "fine")

        assert ["1", "2", "3"] == sorted(failed)
        await sessions.post("c", "4")
        accepted = [message_id for commit in store.commits for message_id in commit.message_ids]
        assert 2 == len(accepted) == len(set(accepted))


async def test_conflict_fences_the_agent(autojump_clock: Any) -> None:
    """Compare-and-set on (epoch, revision): who lost the conversation saves nothing more, ends FENCED, and says so."""
    store = MemoryStore()
    config = make_config(store=store)
    async with open_sessions(config) as one, open_sessions(config) as two, one.open_subscriber() as subscriber:
        await one.ensure_running("c", subscriber)
        await answer_to(one, "one")
        await answer_to(two, "two")
        with pytest.raises((PersistenceError, StartFailed)) as caught:
            await one.post("c", "three")
        seen = await read_until(subscriber, AgentShutdown)

        assert isinstance(caught.value, Conflict)
        assert ShutdownReason.FENCED is seen[-1].event.reason
        assert "re: four" == await answer_to(one, "four")
        assert ["one", "re: one", "two", "re: two", "four", "re: four"] == [text for _, text, _ in await transcript(one)]


async def test_only_what_is_new_is_written(autojump_clock: Any) -> None:
    """The flat path writes only what is new: the cost of a turn does not grow with the conversation."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        for index in range(20):
            await answer_to(sessions, str(index))

    sizes = [len(commit.messages) + len(commit.queued) for commit in store.commits]
    assert max(sizes) <= 2
    assert sorted(commit.revision for commit in store.commits) == [commit.revision for commit in store.commits]


async def test_history_pages(autojump_clock: Any) -> None:
    """history(): pages of rows, the newest first, each oldest row first, whether the agent is up or not."""
    async with opened() as sessions:
        for index in range(5):
            await answer_to(sessions, str(index))
        await sessions.stop("c")
        page = await sessions.history("c", limit=4)
        older = await sessions.history("c", limit=4, before=page.before)
        oldest = await sessions.history("c", limit=4, before=older.before)
        texts = [row.content["text"] for part in (oldest, older, page) for row in part.rows]

        assert [text for index in range(5) for text in (str(index), f"re: {index}")] == texts
        assert oldest.before is None
        assert not await sessions.running("c")
        with pytest.raises(ConversationNotFound):
            await sessions.history("absent")


@pytest.mark.parametrize("limit", [0, -1, 10_000, "5", True, None, 1.5], ids=repr)
async def test_pages_with_limits_that_cannot_be(autojump_clock: Any, limit: Any) -> None:
    """A wrong limit or cursor is refused."""
    async with opened() as sessions:
        await answer_to(sessions)
        for call in (lambda: sessions.history("c", limit=limit), lambda: sessions.conversations(limit=limit)):
            with pytest.raises((TypeError, ValueError), match="limit"):
                await call()
        with pytest.raises(ValueError):  # which words is not promised
            await sessions.history("c", before="nonsense")
        with pytest.raises(ValueError):  # which words is not promised
            await sessions.conversations(after="nonsense")


async def test_conversations_pages(autojump_clock: Any) -> None:
    """conversations() lists in pages, the last changed conversation first."""
    async with opened() as sessions:
        for index in range(5):
            await answer_to(sessions, "hi", str(index))
        first = await sessions.conversations(limit=3)
        second = await sessions.conversations(limit=3, after=first.after)

        assert ["4", "3", "2", "1", "0"] == [item.conversation_id for page in (first, second) for item in page.items]
        assert second.after is None
        assert {2} == {item.message_count for item in first.items}


async def test_delete(autojump_clock: Any) -> None:
    """delete raises AgentBusy while the agent runs; then it gives True, and then False. A new conversation starts fresh."""
    async with opened() as sessions:
        await answer_to(sessions, "old", message_id="m1")
        with pytest.raises(AgentBusy):
            await sessions.delete("c")
        await sessions.stop("c")
        assert [True, False] == [await sessions.delete("c"), await sessions.delete("c")]
        with pytest.raises(ConversationNotFound):
            await sessions.history("c")

        assert "re: new" == await answer_to(sessions, "new", message_id="m1")
        assert ["new", "re: new"] == [text for _, text, _ in await transcript(sessions)]


async def test_delete_against_start(autojump_clock: Any) -> None:
    """A start during a delete waits for it, and starts fresh."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions, "old")
        await sessions.stop("c")
        store.faults.slow("delete", 5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.delete, "c")
            await trio.sleep(1)
            assert () == (await state_of(sessions)).messages


async def test_message_that_is_too_long(autojump_clock: Any) -> None:
    """An oversized message is a named limit error, before any effect; bytes of UTF-8 count."""
    store = FaultyStore()
    async with opened(store=store, policy={"max_message_bytes": 100}) as sessions:
        assert await answer_to(sessions, "é" * 40)
        for text in ("x" * 101, "é" * 51):
            with pytest.raises(LimitExceeded) as caught:
                await sessions.post("c", text)

        assert ("max_message_bytes", 102) == (caught.value.limit, caught.value.value)
        assert 1 == sum(len(commit.message_ids) for commit in store.commits)


async def test_state_that_grows_too_large(autojump_clock: Any) -> None:
    """If the store keeps no windows, a post that would make the state too large gets a named limit error; the conversation stays usable."""
    async with opened(make_agent(*["ok"] * 100), store=FaultyStore(), policy={"max_state_bytes": 5000}) as sessions:
        with pytest.raises(LimitExceeded) as caught:
            for _ in range(100):
                await ask(sessions, "x" * 200)

        assert "max_state_bytes" == caught.value.limit
        await sessions.stop("c")
        assert (await state_of(sessions)).messages


async def test_stored_state_that_is_too_large(autojump_clock: Any) -> None:
    """A stored state over the limit gives StateError naming the conversation, and stays as it is."""
    store = MemoryStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions, "x" * 50_000)
    async with opened(store=store, policy={"max_state_bytes": 1000, "max_message_bytes": 100, "max_tool_output_bytes": 100}) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")
        assert isinstance(caught.value.__cause__, StateError)
        assert "'c'" in str(caught.value.__cause__)
    async with opened(store=store) as sessions:
        assert "x" * 50_000 == (await transcript(sessions))[0][1]


class Boom(BaseException):
    """Not an Exception: it passes the tool boundary and crashes the agent."""


async def boom() -> str:
    """Crash."""
    raise Boom("in a tool")


async def test_crash_is_contained(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A crashed agent is reported once, with its cause, and contained: siblings live, the next post brings it back from its store."""
    agents = {"conversation-bad": make_agent(["said", Call("boom")], tools=[boom]), "conversation-good": slow_agent("fine", seconds=10)}
    async with opened(Router(agents.__getitem__)) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("bad", subscriber)
        receipt = await sessions.post("good", "hi")
        bad = await sessions.post("bad", "go")
        seen = await read_until(subscriber, AgentShutdown)
        assert ShutdownReason.CRASHED is seen[-1].event.reason
        assert isinstance(await receipt.wait(), Completed)
        assert not isinstance(await bad.wait(), Completed)
        agents["conversation-bad"] = make_agent("back")
        assert "back" == await answer_to(sessions, "again", "bad")
        messages = (await state_of(sessions, "bad")).messages
        calls = [call.call_id for message in messages for call in message.calls]

        assert calls == [result.call_id for message in messages for result in message.results]
        assert "said" == messages[1].text
    records = [record for record in caplog.records if record.exc_info and "Boom" in repr(record.exc_info[1])]
    assert 1 == len(records)


async def test_crash_of_a_model(autojump_clock: Any) -> None:
    """A BaseException out of a model crashes that agent alone, and keeps what it had said."""
    router = Router(make_agent(["partial", Boom("in the model")]))
    async with opened(router) as sessions:
        await sessions.start("sibling")
        info = await sessions.start("c")
        await ask(sessions)
        assert ShutdownReason.CRASHED is await info.agent.wait_ended()
        assert await sessions.running("sibling")
        router.agent = make_agent("next")

        assert ("assistant", "partial") == (await transcript(sessions))[-1][:2]
        assert "next" == await answer_to(sessions)


async def test_crash_then_start(autojump_clock: Any) -> None:
    """Crash then start works, and restores; exactly one AgentShutdown for the crash."""
    router = Router(make_agent("one", Call("boom"), tools=[boom]))
    async with opened(router) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await answer_to(sessions, "first")
        info = await sessions.start("c")
        await ask(sessions, "second")
        await info.agent.wait_ended()
        router.agent = make_agent()
        again = await sessions.start("c")
        seen = await read_all(subscriber)

        assert again.started
        assert again.agent != info.agent
        assert 1 == kinds_of(seen).count(AgentShutdown)
        assert ["first", "one", "second"] == [text for _, text, _ in (await transcript(sessions))[:3]]
        check_no_hole(seen)


async def test_crash_while_stopping(autojump_clock: Any) -> None:
    """A tool that raises while it is cancelled by a stop: contained, the stop returns, siblings live."""

    async def messy() -> str:
        """Raise on the way out."""
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup")
        return ""

    async with opened(make_agent(Call("messy"), tools=[messy])) as sessions:
        await sessions.start("sibling")
        await sessions.post("c", "go")
        await trio.sleep(1)
        assert await sessions.stop("c")
        assert await sessions.running("sibling")
        assert 1 == sessions.statistics().agents


async def test_events_of_a_failed_commit_do_not_go_out(autojump_clock: Any) -> None:
    """Nothing is announced as completed that is not stored."""
    store = FaultyStore()
    async with opened(make_agent("answer"), store=store) as sessions, sessions.watch("c") as watch:
        store.faults.fail("commit", n=2)
        await ask(sessions)
        seen = await read_until(watch, TurnEnded)

        assert ["user"] == [event.message.role for event in of_kind(seen, MessageCompleted)]
        assert "answer" == "".join(event.text for event in of_kind(seen, TextDelta))


async def test_a_whole_life_over_ten_hosts(autojump_clock: Any) -> None:
    """What was acknowledged survives ten hosts, one after the other, each killed: nothing is lost or doubled."""
    store, expected = MemoryStore(), []
    for index in range(10):
        async with open_sessions(make_config(make_agent(), store=store)) as sessions:
            await ask(sessions, f"q{index}", message_id=f"m{index}")
            expected += [f"q{index}", f"re: q{index}"]
            store = kill_9(store)
    async with opened(store=store) as sessions:
        assert expected == [text for _, text, _ in await transcript(sessions)]


async def test_seed_is_stored_by_the_first_commit(autojump_clock: Any) -> None:
    """A seeded message is stored by the first commit, once, and survives."""

    seed = Message("seed", "assistant", [TextPart("welcome")], "stop")
    store = MemoryStore()
    async with opened(Router(opts=SessionOpts(fresh_state_attrs={"messages": [seed], "metadata": {"a": 1}})), store=store) as sessions:
        await answer_to(sessions)
    async with opened(store=store) as sessions:
        state = await state_of(sessions)

        assert ["welcome", "hi", "re: hi"] == [message.text for message in state.messages]
        assert {"a": 1} == state.metadata


async def test_user_message_parts_and_metadata_survive(autojump_clock: Any) -> None:
    """A UserMessage with parts and metadata comes back as it was."""

    message = UserMessage([TextPart("look"), ImagePart("image/png", url="https://example.org/a.png")], metadata={"from": "phone"})
    store = MemoryStore()
    async with opened(make_agent("nice"), store=store) as sessions:
        await ask(sessions, message)
    async with opened(store=store) as sessions:
        stored = (await state_of(sessions)).messages[0]

        assert tuple(message.parts) == tuple(stored.parts)
        assert {"from": "phone"} == stored.metadata


def nested(levels: int) -> Any:
    """Return dicts in dicts."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


async def test_failed_write_with_two_results_in_flight(autojump_clock: Any) -> None:
    """A failed write under parallel tool results is one PersistenceError of the turn. The agent stays, and continues."""

    async def tool() -> str:
        """Do."""
        await trio.sleep(1)
        return "x"

    store = FaultyStore()
    store.faults.latency["commit"] = 0.1
    async with opened(make_agent([Call("tool"), Call("tool")], "done", "later", tools=[tool]), store=store) as sessions:
        store.faults.fail("commit", 4)
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, PersistenceError)
        await trio.sleep(1)
        assert await sessions.running("c")
        assert isinstance(await ask(sessions, "again"), Completed)


@pytest.mark.parametrize(("where", "levels"), [("metadata", 64), ("arguments", 61), ("arguments", 62), ("arguments", 63)])
async def test_nesting_that_was_accepted_loads_again(autojump_clock: Any, where: str, levels: int) -> None:
    """The depth is counted where a value is stored: history() shows what was accepted, and the conversation loads."""
    store = MemoryStore()
    agent = make_agent("ok") if where == "metadata" else make_agent(Call("absent", x=nested(levels)), "ok")
    message = UserMessage("x", metadata=nested(levels)) if where == "metadata" else UserMessage("x")
    async with opened(agent, store=store) as sessions:
        await ask(sessions, message)  # type: ignore[arg-type]  # ask() hands it on
        assert (await sessions.history("c")).rows
    async with opened(store=store) as sessions:
        assert "user" == (await transcript(sessions))[0][0]
        assert (await sessions.history("c")).rows


async def test_turn_when_an_earlier_one_could_not_be_saved(autojump_clock: Any) -> None:
    """A turn whose step was refused by the store fails; the next closes the history first, and answers."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions, "one")
        store.faults.fail("commit", 2)
        outcome = await ask(sessions, "two")
        assert "Failed" == type(outcome).__name__
        assert "re: three" == await answer_to(sessions, "three")
        assert ["one", "re: one", "two"] == [text for _, text, _ in await transcript(sessions)][:3]


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
    """The next agent loads what an earlier agent submitted, even if the stop did not wait for the write: its turn was cut, visibly."""
    store = FaultyStore()
    async with opened(store=store, policy={"settle_timeout": 3.0}) as sessions, trio.open_nursery() as nursery:
        await give_up_on_a_write(sessions, store, nursery)
        info = await sessions.start("c")
        with trio.fail_after(1000):
            await info.agent.wait_idle()
        assert [("user", "hi", None), ("assistant", "", "crashed")] == await transcript(sessions)
        assert "re: again" == await answer_to(sessions, "again")


async def test_delete_when_the_write_of_an_agent_that_was_given_up_lands(autojump_clock: Any) -> None:
    """A deletion waits for what an earlier agent submitted, and deletes it as well. Otherwise it would be back after the deletion."""
    store = FaultyStore()
    async with opened(store=store, policy={"settle_timeout": 3.0}) as sessions, trio.open_nursery() as nursery:
        await give_up_on_a_write(sessions, store, nursery)
        assert await sessions.delete("c")
        await trio.sleep(100)
        assert 1 == len(store.commits)
        assert await store.inner.load(None, "c") is None


async def test_post_behind_one_that_failed(autojump_clock: Any) -> None:
    """A write submitted after a failed one is not tried: it would be a conflict, and fence an agent that has no rival."""
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

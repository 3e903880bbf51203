"""Broadcast: a snapshot first, then every event in order, or a Gap that says what is missing."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.scenarios import (
    FaultyStore,
    Router,
    answer_to,
    ask,
    check_no_hole,
    kinds_of,
    make_agent,
    of_kind,
    opened,
    read_all,
    read_until,
    slow_agent,
    text_in,
)
from trio_sagents import (
    AgentShutdown,
    AgentStateUpdated,
    Completed,
    Cursor,
    DisplayMessageSaved,
    Envelope,
    Gap,
    MessageCompleted,
    MessageQueued,
    ModelAnswered,
    ModelCalled,
    SessionsClosed,
    ShutdownReason,
    Snapshot,
    Status,
    StatusChanged,
    TextDelta,
    ToolCallIdentified,
    ToolExecutionUpdated,
    TurnEnded,
    TurnStarted,
    envelope_to_dict,
)
from trio_sagents.testing import Call, Hang


async def test_events_of_a_turn_in_order(autojump_clock: Any) -> None:
    """A turn is told in order: queued, started, running, taken, spoken, completed, ended, idle; no number is missing."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await answer_to(sessions)
        seen = await read_all(subscriber)

        check_no_hole(seen)
        assert Snapshot is kinds_of(seen)[0]
        order = [kind for kind in kinds_of(seen) if kind not in {DisplayMessageSaved, TextDelta, Snapshot}]
        assert order[0] is MessageQueued
        assert {TurnStarted, StatusChanged} == set(order[1:3])
        assert [MessageCompleted, MessageCompleted] == order[3:5]
        assert {TurnEnded, StatusChanged} == set(order[5:])
        assert ["user", "assistant"] == [event.message.role for event in of_kind(seen, MessageCompleted)]
        assert [Status.RUNNING, Status.IDLE] == [event.status for event in of_kind(seen, StatusChanged)]
        assert "re: hi" == text_in(seen)
        assert kinds_of(seen).index(TextDelta) < kinds_of(seen).index(TurnEnded)


async def test_turn_ids_and_message_ids(autojump_clock: Any) -> None:
    """Every event that belongs to a turn has its turn_id, to a message its message_id."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        receipt = await sessions.post("c", "hi", message_id="m1")
        await receipt.wait()
        seen = await read_all(subscriber)
        (started,) = of_kind(seen, TurnStarted)
        user, answer = of_kind(seen, MessageCompleted)

        assert {started.turn_id} == {event.turn_id for event in of_kind(seen, TurnEnded, TextDelta, MessageCompleted)}
        assert {answer.message_id} == {event.message_id for event in of_kind(seen, TextDelta)}
        assert "m1" == user.message_id == of_kind(seen, MessageQueued)[0].message_id
        assert {"m1", answer.message_id} == {event.row.message_id for event in of_kind(seen, DisplayMessageSaved)}


async def test_boot_status_is_told_once(autojump_clock: Any) -> None:
    """A subscriber that was there before the boot gets the Snapshot with the boot status, and no StatusChanged for it."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        assert {("c", "main"): "pending"} == subscriber.subscriptions
        await sessions.start("c")
        seen = await read_all(subscriber)

        assert [Snapshot] == kinds_of(seen)
        assert (Status.IDLE, None) == (seen[0].event.status, seen[0].event.replaces)
        assert {("c", "main"): "subscribed"} == subscriber.subscriptions


async def test_ensure_running_is_atomic_start_and_subscribe(autojump_clock: Any) -> None:
    """ensure_running on a busy agent: the snapshot and what follows it make the whole text, without a hole."""
    async with opened(make_agent("abcdefghijklmnopqrstuvwxyz", chunk_size=1, chunk_interval=0.1)) as sessions:
        receipt = await sessions.post("c", "hi")
        texts = []

        async def join(after: float) -> None:
            await trio.sleep(after)
            async with sessions.open_subscriber() as subscriber:
                await sessions.ensure_running("c", subscriber)
                seen = await read_until(subscriber, TurnEnded)
                check_no_hole(seen)
                streaming = seen[0].event.streaming
                texts.append(("" if streaming is None else "".join(part.text for part in streaming.parts)) + text_in(seen))

        async with trio.open_nursery() as nursery:
            for index in range(20):
                nursery.start_soon(join, 0.05 + 0.11 * index)

        assert ["abcdefghijklmnopqrstuvwxyz"] * 20 == texts
        assert isinstance(await receipt.wait(), Completed)


async def test_text_deltas_have_offsets(autojump_clock: Any) -> None:
    """Each delta says where its text begins in its part; merged deltas span several numbers."""
    async with opened(make_agent("abcdefghij", chunk_size=1)) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await ask(sessions)
        seen = await read_all(subscriber)
        check_no_hole(seen)
        offset = 0
        for event in of_kind(seen, TextDelta):
            assert offset == event.offset
            offset += len(event.text)

        assert 10 == offset


async def test_coalescing_of_an_untaken_batch(autojump_clock: Any) -> None:
    """The deltas of an untaken batch are joined, and first_seq..seq spans them."""
    async with (
        opened(make_agent("abcdefghij" * 10, chunk_size=1, chunk_interval=0.01)) as sessions,
        sessions.open_subscriber() as subscriber,
    ):
        await sessions.ensure_running("c", subscriber)
        await ask(sessions)
        deltas = [envelope for envelope in await read_all(subscriber) if isinstance(envelope.event, TextDelta)]

        assert 1 == len(deltas)
        assert 100 == deltas[0].seq - deltas[0].first_seq + 1
        assert "abcdefghij" * 10 == deltas[0].event.text


async def test_subscribing_twice_gives_no_second_snapshot(autojump_clock: Any) -> None:
    """Twice is once, by whichever way; after an unsubscribe there is a new snapshot."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await subscriber.subscribe("c")
        await sessions.ensure_running("c", subscriber)
        await sessions.start("c", initial_subscribers=[subscriber])
        assert [Snapshot] == kinds_of(await read_all(subscriber))
        await subscriber.unsubscribe("c")
        assert {} == subscriber.subscriptions
        await subscriber.subscribe("c")
        assert [Snapshot] == kinds_of(await read_all(subscriber))


async def test_unsubscribe_ends_it_at_once(autojump_clock: Any) -> None:
    """After unsubscribe nothing of the conversation is read, not even what was waiting; twice is fine."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await sessions.ensure_running("d", subscriber)
        await answer_to(sessions)
        await subscriber.__anext__()
        await subscriber.unsubscribe("c")
        await subscriber.unsubscribe("c")
        await answer_to(sessions, "more")
        seen = await read_all(subscriber)

        assert {"d"} == {envelope.conversation_id for envelope in seen} | {"d"}
        assert 1 == sessions.statistics().subscriptions


async def test_resubscribe_while_waiting_to_be_read(autojump_clock: Any) -> None:
    """Unsubscribing and subscribing again before reading gives one snapshot, nothing older, and no gap."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await answer_to(sessions, "one")
        await subscriber.unsubscribe("c")
        await subscriber.subscribe("c")
        await answer_to(sessions, "two")
        seen = await read_all(subscriber)

        check_no_hole(seen)
        assert 1 == kinds_of(seen).count(Snapshot)
        assert "re: two" == text_in(seen)


async def test_two_conversations_in_one_mailbox(autojump_clock: Any) -> None:
    """A subscriber is fed by any number of conversations; each has its own numbers, and its own order."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        for name in "abc":
            await sessions.ensure_running(name, subscriber)
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(lambda name=name: answer_to(sessions, f"to {name}", name))
        seen = await read_all(subscriber)
        for name in "abc":
            own = [envelope for envelope in seen if envelope.conversation_id == name]
            check_no_hole(own)
            assert f"re: to {name}" == text_in(own)


async def test_a_noisy_conversation_never_pushes_out_a_quiet_one(autojump_clock: Any) -> None:
    """Delivery is round-robin per conversation, and the bound is per subscription."""
    router = Router(lambda agent_id: make_agent([Call("nothing")] * 50, "done") if "noisy" in agent_id else make_agent())
    async with opened(router, policy={"subscriber_events": 20}) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("noisy", subscriber)
        await sessions.ensure_running("quiet", subscriber)
        await answer_to(sessions, "go", "noisy")
        await answer_to(sessions, "go", "quiet")
        seen = await read_all(subscriber)
        quiet = [envelope for envelope in seen if envelope.conversation_id == "quiet"]

        check_no_hole(quiet)
        assert "re: go" == text_in(quiet)
        assert [Snapshot] == kinds_of([envelope for envelope in seen if envelope.conversation_id == "noisy"])


async def make_noise(sessions: Any, turns: int) -> None:
    """Have many events that cannot be merged."""
    for index in range(turns):
        await answer_to(sessions, f"noise {index}")


async def test_slow_subscriber_gets_a_gap_and_the_present(autojump_clock: Any) -> None:
    """A full batch costs nothing more. The reader gets Gap(first, last) of exactly what it missed, then a Snapshot rendered now."""
    async with opened(policy={"subscriber_events": 10}) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        (first,) = await read_all(subscriber)
        await make_noise(sessions, 5)
        gap, snapshot = await read_all(subscriber)

        assert [Gap, Snapshot] == kinds_of([gap, snapshot])
        assert (first.seq + 1, snapshot.seq) == (gap.event.first, gap.event.last)
        await answer_to(sessions, "now")
        check_no_hole([snapshot, *await read_all(subscriber)])


async def test_slow_subscriber_that_was_given_nothing_gets_no_gap(autojump_clock: Any) -> None:
    """A Gap comes only if something was given before. Otherwise one Snapshot comes, rendered when it is taken."""
    async with opened(policy={"subscriber_events": 10}) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await make_noise(sessions, 5)
        seen = await read_all(subscriber)

        assert [Snapshot] == kinds_of(seen)
        await answer_to(sessions, "now")
        check_no_hole([*seen, *await read_all(subscriber)])


async def test_slow_subscriber_by_text(autojump_clock: Any) -> None:
    """The bound on untaken text is per subscription, too."""
    async with opened(make_agent("x" * 1000), policy={"subscriber_text": 100}) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await read_all(subscriber)
        await ask(sessions)

        assert [Gap, Snapshot] == kinds_of(await read_all(subscriber))


async def test_slow_subscriber_never_slows_the_agent(autojump_clock: Any) -> None:
    """A subscriber that never reads costs the agent nothing: turns take as long as without it."""
    async with opened(slow_agent(seconds=10), policy={"subscriber_events": 5}) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        for _ in range(3):
            await ask(sessions)

        assert trio.current_time() <= 35


async def test_gap_with_a_shutdown_in_it(autojump_clock: Any) -> None:
    """An AgentShutdown that fell into the gap is told, and the Snapshot of the next agent follows."""
    async with opened(policy={"subscriber_events": 10}) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await read_all(subscriber)
        await make_noise(sessions, 5)
        await sessions.stop("c")
        assert [Gap, AgentShutdown] == kinds_of(await read_all(subscriber))
        await sessions.start("c")
        await make_noise(sessions, 5)
        await sessions.stop("c")
        await sessions.start("c")
        seen = await read_all(subscriber)

        assert AgentShutdown in kinds_of(seen)
        assert Snapshot is kinds_of(seen)[-1]


async def test_viewer_that_was_away_while_agents_came_and_went(autojump_clock: Any) -> None:
    """All events of all the agents come, in order, as long as they are within the bounds of a subscription."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await subscriber.__anext__()
        for text in ("one", "two", "three"):
            await answer_to(sessions, text)
            await sessions.stop("c")
        await sessions.start("c")
        seen = await read_all(subscriber)

        assert "re: onere: twore: three" == text_in(seen)
        assert [AgentShutdown, Snapshot] * 3 == [kind for kind in kinds_of(seen) if kind in {AgentShutdown, Snapshot}]
        ends = [envelope.cursor for envelope in seen if isinstance(envelope.event, AgentShutdown)]
        assert ends == [event.replaces for event in of_kind(seen, Snapshot)]


async def test_viewer_that_was_away_for_too_long_while_agents_came_and_went(autojump_clock: Any) -> None:
    """Beyond the bounds each agent is told by a gap that names what is missing, and by its end; then comes the present."""
    async with opened(policy={"subscriber_events": 10}) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        (first,) = await read_all(subscriber)
        for text in ("one", "two", "three"):
            await answer_to(sessions, text)
            await sessions.stop("c")
        await sessions.start("c")
        seen = await read_all(subscriber)

        assert [Gap, AgentShutdown] * 3 + [Snapshot] == kinds_of(seen)
        assert [first.seq + 1, 1, 1] == [event.first for event in of_kind(seen, Gap)]
        assert [gap.event.last + 1 for gap in seen[:-1:2]] == [end.seq for end in seen[1::2]]
        assert [None, *(end.cursor for end in seen[1::2])] == [event.replaces for event in of_kind(seen, Gap, Snapshot)]


async def test_agent_that_did_too_much_for_a_viewer_that_had_read_nothing(autojump_clock: Any) -> None:
    """An agent of which nothing was read is not told by its end alone: a gap over all of its events comes first."""
    async with opened(policy={"subscriber_events": 10}) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await make_noise(sessions, 5)
        await sessions.stop("c")
        gap, end = await read_all(subscriber)

        assert [Gap, AgentShutdown] == kinds_of([gap, end])
        assert (1, end.seq - 1) == (gap.event.first, gap.event.last)


async def test_shutdown_is_told_to_a_slow_reader_for_each_agent_that_it_saw(autojump_clock: Any) -> None:
    """A pending subscription gets the AgentShutdown of the old agent, then the Snapshot of the new one, which replaces the last cursor."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await answer_to(sessions, "one")
        await sessions.stop("c")
        before = await read_all(subscriber)
        await answer_to(sessions, "two")
        after = await read_all(subscriber)

        assert AgentShutdown is kinds_of(before)[-1]
        assert Snapshot is kinds_of(after)[0]
        assert before[-1].cursor == after[0].event.replaces
        check_no_hole(before + after)
        assert "re: two" == text_in(after)


class Boom(BaseException):
    """Not an Exception: it passes the tool boundary and crashes the agent."""


async def boom() -> str:
    """Crash."""
    raise Boom("in a tool")


async def test_pending_subscription_heals_after_a_crash(autojump_clock: Any) -> None:
    """After a crash the subscription is pending, and comes alive with the next agent; the crash is told as such."""
    router = Router(make_agent(Call("boom"), tools=[boom]))
    async with opened(router) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await sessions.post("c", "go")
        seen = await read_until(subscriber, AgentShutdown)
        assert ShutdownReason.CRASHED is seen[-1].event.reason
        assert {("c", "main"): "pending"} == subscriber.subscriptions
        router.agent = make_agent()
        assert "re: again" == await answer_to(sessions, "again")
        after = await read_until(subscriber, TurnEnded)

        check_no_hole(seen + after)
        assert Snapshot is kinds_of(after)[0]
        assert {("c", "main"): "subscribed"} == subscriber.subscriptions


async def test_cursor_replay(autojump_clock: Any) -> None:
    """With after=cursor the events continue from there, without a snapshot."""
    async with opened() as sessions:
        async with sessions.open_subscriber() as one:
            await sessions.ensure_running("c", one)
            await answer_to(sessions, "one")
            seen = await read_all(one)
        middle = next(envelope for envelope in seen if isinstance(envelope.event, TurnStarted))
        await answer_to(sessions, "two")
        async with sessions.open_subscriber() as two:
            await two.subscribe("c", after=middle.cursor)
            again = await read_all(two)

        assert Snapshot not in kinds_of(again)
        assert middle.seq + 1 == again[0].first_seq
        check_no_hole([*seen[: seen.index(middle) + 1], *again])
        assert "re: onere: two" == text_in(again)


@pytest.mark.parametrize("entry", ["subscribe", "ensure_running", "watch"])
async def test_cursor_as_text_at_every_entry(autojump_clock: Any, entry: str) -> None:
    """The cursor is opaque text that may travel in a URL; subscribe, ensure_running and watch take it."""
    async with opened() as sessions:
        async with sessions.open_subscriber() as one:
            await sessions.ensure_running("c", one)
            await answer_to(sessions, "one")
            cursor = (await read_all(one))[-1].cursor
        text = str(cursor)
        assert Cursor.parse(text) == cursor
        assert text.isascii()
        assert not set(text) & set(" /?&#%+")
        await answer_to(sessions, "two")
        if entry == "watch":
            async with sessions.watch("c", after=text) as watch:
                seen = await read_all(watch)
        else:
            async with sessions.open_subscriber() as two:
                await (two.subscribe("c", after=text) if entry == "subscribe" else sessions.ensure_running("c", two, after=text))
                seen = await read_all(two)

        assert "re: two" == text_in(seen)
        assert cursor.seq + 1 == seen[0].first_seq


async def test_cursor_at_every_place(autojump_clock: Any) -> None:
    """Every cursor that was handed out is a place from which the rest follows without a hole."""
    async with opened(make_agent(["some text", Call("nothing")], "more text")) as sessions, sessions.open_subscriber() as reader:
        await sessions.ensure_running("c", reader)
        seen: list[Envelope] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                seen.extend(await read_until(reader, TurnEnded))

            nursery.start_soon(read)
            await ask(sessions)
        for index, envelope in enumerate(seen):
            async with sessions.open_subscriber() as other:
                await other.subscribe("c", after=envelope.cursor)
                rest = await read_all(other)
                assert text_in(seen[index + 1 :]) == text_in(rest)
                check_no_hole([*seen[: index + 1], *rest])


async def test_cursor_that_is_too_old(autojump_clock: Any) -> None:
    """A cursor that the agent no longer reaches back to: a Gap that tells what is missing, and a fresh Snapshot."""
    async with opened(policy={"replay_events": 10}) as sessions:
        async with sessions.open_subscriber() as one:
            await sessions.ensure_running("c", one)
            (first,) = await read_all(one)
        await make_noise(sessions, 10)
        async with sessions.open_subscriber() as two:
            await two.subscribe("c", after=first.cursor)
            gap, snapshot = await read_all(two)

        assert [Gap, Snapshot] == kinds_of([gap, snapshot])
        assert (first.seq + 1, snapshot.seq) == (gap.event.first, gap.event.last)


async def test_cursor_of_another_incarnation(autojump_clock: Any) -> None:
    """A cursor of another incarnation gives Snapshot(replaces=cursor)."""
    async with opened() as sessions:
        async with sessions.open_subscriber() as one:
            await sessions.ensure_running("c", one)
            (first,) = await read_all(one)
        await sessions.stop("c")
        await sessions.start("c")
        async with sessions.open_subscriber() as two:
            await two.subscribe("c", after=first.cursor)
            (snapshot,) = await read_all(two)

        assert first.cursor == snapshot.event.replaces
        assert snapshot.cursor == snapshot.event.cursor


async def test_cursor_from_the_future_of_this_incarnation(autojump_clock: Any) -> None:
    """A cursor with a number that was not given yet is not a place here: the subscriber gets a Snapshot, and not silence."""
    async with opened() as sessions, sessions.open_subscriber() as one, sessions.open_subscriber() as two:
        await sessions.ensure_running("c", one)
        (first,) = await read_all(one)
        text = str(first.cursor)
        forged = text[: -len(str(first.seq))] + str(first.seq + 1000)
        await two.subscribe("c", after=forged)

        assert Snapshot is kinds_of(await read_all(two))[-1]


@pytest.mark.parametrize("bad", ["", "x", "1.2.3", "1.abc.main.-1", "1.abc.other.1", "1.abc.main.01", "1.abc.main.1\n"], ids=repr)
async def test_cursor_that_is_none(autojump_clock: Any, bad: str) -> None:
    """A value that is not a cursor is a ValueError before any side effect."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        with pytest.raises(ValueError, match="cursor"):
            await subscriber.subscribe("c", after=bad)
        with pytest.raises(ValueError, match="cursor"):
            await sessions.ensure_running("c", subscriber, after=bad)
        with pytest.raises(ValueError, match="cursor"):
            async with sessions.watch("c", after=bad):
                pass

        assert {} == subscriber.subscriptions
        assert 0 == sessions.statistics().agents


async def test_subscribe_with_arguments_that_cannot_be(autojump_clock: Any) -> None:
    """Wrong arguments of subscribe are refused before any side effect."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        with pytest.raises(ValueError, match="channel"):
            await subscriber.subscribe("c", channel="other")
        with pytest.raises(TypeError):
            await subscriber.subscribe(42)
        with pytest.raises(TypeError):
            await subscriber.subscribe("c", after=42)
        with pytest.raises(TypeError, match="Subscriber"):
            await sessions.ensure_running("c", "me")

        assert {} == subscriber.subscriptions


async def test_batches_give_all_there_is(autojump_clock: Any) -> None:
    """batches() gives everything there is, over all conversations, for each wake-up; the events are the same."""
    async with opened() as sessions, sessions.open_subscriber() as one, sessions.open_subscriber() as two:
        for name in "abc":
            await sessions.ensure_running(name, one)
            await sessions.ensure_running(name, two)
            await answer_to(sessions, "hi", name)
        batch = await one.batches().__anext__()
        single = await read_all(two)

        assert {"a", "b", "c"} == {envelope.conversation_id for envelope in batch}
        for name in "abc":
            assert [e for e in single if e.conversation_id == name] == [e for e in batch if e.conversation_id == name]
        with trio.move_on_after(10):
            raise AssertionError(await one.batches().__anext__())


async def test_batches_as_a_loop(autojump_clock: Any) -> None:
    """A loop over batches() sees the whole turn; no batch is empty."""
    seen: list[Envelope] = []
    async with opened(slow_agent("0123456789", seconds=10)) as sessions, sessions.watch("c") as watch:
        await sessions.post("c", "hi")
        async for batch in watch.batches():
            assert batch
            seen.extend(batch)
            if TurnEnded in kinds_of(batch):
                break

    check_no_hole(seen)
    assert "0123456789" == text_in(seen)


async def test_cancelled_reads_lose_nothing(autojump_clock: Any) -> None:
    """Reading is safe to cancel: either an event is returned, or nothing was taken."""
    seen: list[Envelope] = []
    async with (
        opened(make_agent("abcdefghij" * 5, chunk_size=1, chunk_interval=0.01)) as sessions,
        sessions.open_subscriber() as subscriber,
    ):
        await sessions.ensure_running("c", subscriber)
        await sessions.post("c", "hi")
        while TurnEnded not in kinds_of(seen):
            with trio.move_on_after(0.003):
                seen.append(await subscriber.__anext__())

    check_no_hole(seen)
    assert "abcdefghij" * 5 == text_in(seen)


async def test_watch_is_subscriber_start_and_presence(autojump_clock: Any) -> None:
    """watch has the agent up and its info ready, and gives its events. The agent continues afterwards."""
    async with opened() as sessions:
        async with sessions.watch("c", viewer="alice") as watch:
            assert watch.info.started
            await watch.info.agent.post("hi")
            seen = await read_until(watch, TurnEnded)
            await watch.subscribe("d")
            assert {("c", "main"): "subscribed", ("d", "main"): "pending"} == watch.subscriptions

        assert Snapshot is kinds_of(seen)[0]
        assert await sessions.running("c")
        assert 0 == sessions.statistics().subscriptions


async def test_watch_answers_to_the_loop_of_the_readme(autojump_clock: Any) -> None:
    """The loop of DESIGN 3: a match on the event, with async for."""
    text = ""
    async with opened() as sessions, sessions.watch("c", viewer="alice") as watch:
        await sessions.post("c", "Hello")
        async for envelope in watch:
            match envelope.event:
                case TextDelta(text=piece):
                    text += piece
                case StatusChanged(status=Status.IDLE):
                    break

    assert "re: Hello" == text


async def test_debug_channel(autojump_clock: Any) -> None:
    """The debug channel is a subscription of its own, beside main, with its own numbers and its own snapshot."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await subscriber.subscribe("c", channel="debug")
        assert {("c", "main"): "subscribed", ("c", "debug"): "subscribed"} == subscriber.subscriptions
        await answer_to(sessions)
        seen = await read_all(subscriber)
        debug = [envelope for envelope in seen if envelope.channel == "debug"]

        check_no_hole(debug)
        assert AgentStateUpdated in kinds_of(debug)
        assert AgentStateUpdated not in kinds_of([envelope for envelope in seen if envelope.channel == "main"])
        await subscriber.unsubscribe("c", channel="debug")
        assert {("c", "main"): "subscribed"} == subscriber.subscriptions


async def test_debug_channel_when_nobody_listened(autojump_clock: Any) -> None:
    """What is costly to make is not made while nobody listens; a developer who comes back with a cursor is told that it is missing."""
    async with opened() as sessions:
        async with sessions.open_subscriber() as first:
            await first.subscribe("c", channel="debug")
            await answer_to(sessions, "one")
            seen = await read_all(first)
        await answer_to(sessions, "two")
        async with sessions.open_subscriber() as second:
            await second.subscribe("c", channel="debug", after=seen[-1].cursor)
            again = await read_all(second)

        assert [Snapshot, ModelCalled, ModelAnswered, AgentStateUpdated] == kinds_of(seen)
        assert [Gap, Snapshot] == kinds_of(again)
        assert (seen[-1].seq + 1, seen[-1].seq + 3) == (again[0].event.first, again[0].event.last)


async def test_commit_before_event(autojump_clock: Any) -> None:
    """A finished step is committed before its event goes out: a viewer of the message finds it in the history."""
    store = FaultyStore()
    store.faults.latency["commit"] = 0.1
    async with opened(make_agent(["text", Call("nothing")], "done"), store=store) as sessions, sessions.watch("c") as watch:
        await sessions.post("c", "hi")
        while True:
            event = (await watch.__anext__()).event
            if isinstance(event, MessageCompleted):
                assert event.message_id in {record["message_id"] for commit in store.commits for record in commit.messages}
            if isinstance(event, DisplayMessageSaved):
                assert event.row.row_id in {row.row_id for row in (await sessions.history("c")).rows}
            if isinstance(event, TurnEnded):
                break


async def test_page_from_history_and_snapshot(autojump_clock: Any) -> None:
    """Subscribe first, then read the history, dedupe by row id: every row once, whenever the page was opened."""
    async with opened(make_agent(*[["a", Call("nothing")], "b"] * 3, chunk_interval=0.1)) as sessions:
        for index in range(3):
            receipt = await sessions.post("c", f"q{index}")
            await trio.sleep(0.25 * index)
            async with sessions.open_subscriber() as subscriber:
                await sessions.ensure_running("c", subscriber)
                rows = {row.row_id: row for row in (await sessions.history("c")).rows}
                await receipt.wait()
                for event in of_kind(await read_all(subscriber), DisplayMessageSaved):
                    rows.setdefault(event.row.row_id, event.row)

                assert {row.row_id for row in (await sessions.history("c")).rows} == set(rows)


async def test_snapshot_shows_what_runs(autojump_clock: Any) -> None:
    """A Snapshot in the middle shows the open tool calls with their status, and how many messages wait."""
    async with opened(make_agent(["text", Call("wait")], tools=[wait])) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.post("c", "one")
        await trio.sleep(1)
        await sessions.post("c", "two")
        await subscriber.subscribe("c")
        ((snapshot,),) = (of_kind(await read_all(subscriber), Snapshot),)

        assert (Status.RUNNING, 1, None) == (snapshot.status, snapshot.queued, snapshot.interrupt)
        assert [("wait", "executing")] == [(call.name, call.status) for call in snapshot.tool_calls]
        assert snapshot.streaming is None
        await sessions.stop("c")


async def wait() -> str:
    """Wait."""
    await trio.sleep_forever()
    return ""


async def test_snapshot_names_the_running_turn(autojump_clock: Any) -> None:
    """Whoever comes late can cut the turn that runs: the snapshot names it. Between turns it names none."""
    async with opened(slow_agent(seconds=10)) as sessions:
        await sessions.post("c", "hello")
        await trio.sleep(5)
        async with sessions.watch("c") as watch:
            snapshot = (await anext(watch)).event
            assert isinstance(snapshot, Snapshot)
            assert snapshot.turn_id is not None
            assert await sessions.cancel_turn("c", turn_id=snapshot.turn_id)
        async with sessions.watch("c") as watch:
            assert None is (await anext(watch)).event.turn_id


async def test_snapshot_shows_what_is_spoken(autojump_clock: Any) -> None:
    """A Snapshot in the middle of a message has its id and the text so far."""
    async with opened(make_agent(["abc", Hang()])) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.post("c", "one")
        await trio.sleep(1)
        await subscriber.subscribe("c")
        ((snapshot,),) = (of_kind(await read_all(subscriber), Snapshot),)

        assert ["abc"] == [part.text for part in snapshot.streaming.parts]
        assert snapshot.streaming.message_id
        await sessions.stop("c")


async def test_tool_events(autojump_clock: Any) -> None:
    """A tool call is told when it is identified, when it executes, and when it is completed, in this order."""

    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    async with opened(make_agent(Call("add", a=1, b=2), "3", tools=[add])) as sessions, sessions.watch("c") as watch:
        await sessions.post("c", "go")
        seen = await read_until(watch, TurnEnded)
        calls = of_kind(seen, ToolCallIdentified, ToolExecutionUpdated)

        assert [ToolCallIdentified, ToolExecutionUpdated, ToolExecutionUpdated] == [type(event) for event in calls]
        assert ["executing", "completed"] == [event.status for event in calls[1:]]
        assert "3" == calls[2].output
        assert {"a": 1, "b": 2} == calls[1].call.arguments
        assert 1 == len({event.call.call_id for event in calls})


async def test_subscriber_after_the_block(autojump_clock: Any) -> None:
    """A subscriber does not end while its sessions are open. After that it raises SessionsClosed."""
    ended = trio.Event()

    async def read() -> None:
        async with sessions.open_subscriber() as subscriber:
            with pytest.raises(SessionsClosed):
                await subscriber.__anext__()
        ended.set()

    async with trio.open_nursery() as nursery:
        async with opened() as sessions:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()

    assert ended.is_set()


@pytest.mark.parametrize(
    "play",
    [
        lambda: make_agent(["text", Call("wait")], tools=[wait]),
        lambda: make_agent(["text", Hang()]),
        lambda: make_agent(["text", Call("nothing")], "done"),
        lambda: make_agent(["text", ValueError("mine")]),
        lambda: make_agent(Call("boom"), tools=[boom]),
    ],
    ids=["tool", "hang", "unknown tool", "error", "crash"],
)
async def test_envelopes_become_json(autojump_clock: Any, play: Callable[[], Any]) -> None:
    """envelope_to_dict gives plain JSON for every event, with the cursor as text that leads back."""
    async with opened(play()) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await subscriber.subscribe("c", channel="debug")
        await sessions.post("c", "go")
        await trio.sleep(1)
        await sessions.stop("c")
        seen = await read_all(subscriber)

        assert AgentShutdown in kinds_of(seen)
        for envelope in seen:
            plain = json.loads(json.dumps(envelope_to_dict(envelope), allow_nan=False))
            assert str(envelope.cursor) in json.dumps(plain)
            assert type(envelope.event).__name__ in json.dumps(plain)


async def test_a_subscriber_is_withdrawn_when_its_block_ends(autojump_clock: Any) -> None:
    """All subscriptions end with their block, also those that were pending; nobody leaks."""
    async with opened() as sessions:
        async with sessions.open_subscriber() as subscriber:
            await sessions.ensure_running("c", subscriber)
            await subscriber.subscribe("pending")
            assert 2 == sessions.statistics().subscriptions
        assert 0 == sessions.statistics().subscriptions
        with pytest.raises(SessionsClosed):
            await subscriber.__anext__()
        await answer_to(sessions)


async def test_a_thousand_conversations_of_a_subscriber_that_never_reads(autojump_clock: Any) -> None:
    """A subscriber that never reads has bounded memory: one untaken batch for each subscription."""
    async with opened(policy={"subscriber_events": 10}) as sessions, sessions.open_subscriber() as subscriber:
        for index in range(20):
            await sessions.ensure_running(str(index), subscriber)
        for _ in range(5):
            for index in range(20):
                await answer_to(sessions, "hi", str(index))
        seen = await read_all(subscriber)

        assert 20 == len(seen)
        assert {Snapshot} == set(kinds_of(seen))


async def test_follow_up_turn_shows_no_idle_in_between(autojump_clock: Any) -> None:
    """Statuses: running, then, with a queue, running again, and idle at the end; each turn has its own start and end."""
    async with opened(slow_agent("ok", seconds=5)) as sessions, sessions.watch("c") as watch:
        await sessions.post("c", "one")
        await trio.sleep(1)
        receipt = await sessions.post("c", "two")
        await receipt.wait()
        seen = await read_all(watch)

        assert 2 == len(of_kind(seen, TurnStarted)) == len(of_kind(seen, TurnEnded))
        assert [Status.RUNNING, Status.RUNNING, Status.IDLE] == [event.status for event in of_kind(seen, StatusChanged)]

"""A page: the transcript and the present of a conversation, merged, whatever happens to its reader, its agent and its connection."""

import itertools
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.scenarios import (
    DictRows,
    DictStates,
    FaultyStore,
    Verdicts,
    answer_to,
    ask,
    kinds_of,
    make_agent,
    opened,
    slow_agent,
)
from trio_sagents import (
    Approvals,
    Approve,
    ConversationNotFound,
    DisplayMessage,
    Gap,
    HistoryPage,
    MiddlewareEvent,
    Page,
    PageChange,
    PersistenceError,
    Sessions,
    SessionsClosed,
    Snapshot,
    Status,
    TextDelta,
    ToolContext,
    TurnEnded,
)
from trio_sagents.broadcast import _page_view
from trio_sagents.testing import Call


def texts(page: Page) -> list[str]:
    """Return what the rows of a page say."""
    return [row.content.get("text", row.content_type) for row in page.rows]


def ids(rows: Any) -> list[str]:
    return [row.row_id for row in rows]


async def stored(sessions: Sessions, **settings: Any) -> list[DisplayMessage]:
    """Return all rows of the history."""
    return list((await sessions.history("c", limit=1000, **settings)).rows)


async def drawn(page: Page) -> list[PageChange]:
    """Iterate until nothing more comes."""
    changes: list[PageChange] = []

    async def read() -> None:
        async for change in page:
            changes.append(change)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return changes


def parts_in(changes: list[PageChange]) -> set[str]:
    return set().union(*(change.parts for change in changes))


async def test_page_when_it_is_opened(autojump_clock: Any) -> None:
    """It shows the newest rows and the present at once, before anybody iterates; there is nothing more to draw then."""
    async with opened() as sessions:
        await answer_to(sessions, "one")
        async with sessions.page("c", viewer="alice") as page:
            assert ["one", "re: one"] == texts(page)
            assert (Status.IDLE, True, None, 0, (), None, None, False) == (
                page.status,
                page.is_up,
                page.streaming,
                page.queued,
                page.tool_calls,
                page.interrupt,
                page.error,
                page.has_older,
            )
            assert 1 == (await sessions.agent_info("c")).viewers
            (change,) = await drawn(page)

        assert ((), False, frozenset(), [Snapshot]) == (change.rows, change.replaces_rows, change.parts, kinds_of(change.events))


async def test_page_when_nothing_was_said_yet(autojump_clock: Any) -> None:
    """It is empty, and goes on from there."""
    async with opened() as sessions, sessions.page("c") as page:
        assert [] == texts(page)
        await answer_to(sessions, "one")
        changes = await drawn(page)

        assert ["one", "re: one"] == texts(page)
        assert ids(page.rows) == [row_id for change in changes for row_id in ids(change.rows)]
        assert ids(page.rows) == ids(await stored(sessions))


async def test_page_when_a_turn_runs(autojump_clock: Any) -> None:
    """The message being spoken grows, the status follows, messages queue and are taken, and at the end there is the row."""
    async with opened(slow_agent("abcdefghij", seconds=10)) as sessions, sessions.page("c") as page:
        await sessions.post("c", "one")
        await trio.sleep(3.5)
        await sessions.post("c", "two")
        changes = await drawn(page)
        assert page.streaming is not None
        assert ("abc", Status.RUNNING, 1) == ("".join(part.text for part in page.streaming.parts), page.status, page.queued)  # type: ignore[union-attr]  # text
        assert {"rows", "streaming", "status", "queued"} == parts_in(changes)
        await trio.sleep(100)
        await drawn(page)

        assert (None, Status.IDLE, 0) == (page.streaming, page.status, page.queued)
        assert ["one", "two", "abcdefghij", "abcdefghij"] == texts(page)
        assert [row.row_id for row in await stored(sessions)] == ids(page.rows)


async def test_page_when_it_is_opened_in_the_middle(autojump_clock: Any) -> None:
    """What was said before, what is being said and what comes are one text, whenever the page is opened."""
    async with opened(slow_agent("abcdefghij", seconds=10)) as sessions:
        await sessions.post("c", "one")
        for _ in range(9):
            await trio.sleep(1)
            async with sessions.page("c") as page:
                assert page.streaming is not None
                assert page.streaming.parts
                before = page.streaming.parts[0].text  # type: ignore[union-attr]  # text
                assert "abcdefghij".startswith(before)
                await trio.sleep(0.05)
                await drawn(page)
                assert before == page.streaming.parts[0].text  # type: ignore[union-attr]  # text


async def test_page_when_a_tool_asks_a_person(autojump_clock: Any) -> None:
    """The call and what waits are shown, and go when it is decided."""

    async def pay(amount: int) -> str:
        """Pay."""
        return "paid"

    agent = make_agent([Call("pay", amount=1)], "done", tools=[pay], middleware=[Approvals({"pay": True})])
    async with opened(agent) as sessions, sessions.page("c") as page:
        await ask(sessions, "go")
        changes = await drawn(page)
        assert page.interrupt is not None
        assert {"interrupt", "status", "rows"} <= parts_in(changes)
        async with sessions.page("c") as other:
            assert other.interrupt == page.interrupt
            await (await sessions.resume("c", [Approve(call) for call in page.interrupt.calls])).wait()
            for shown in (page, other):
                await drawn(shown)
                assert (None, Status.IDLE, ()) == (shown.interrupt, shown.status, shown.tool_calls)
                assert await stored(sessions) == list(shown.rows)


async def test_page_when_a_tool_runs(autojump_clock: Any) -> None:
    """An open call is shown with its status, in a page that was there and in one that comes."""

    async def wait() -> str:
        """Wait."""
        await trio.sleep(10)
        return "waited"

    async with opened(make_agent([Call("wait")], "done", tools=[wait])) as sessions, sessions.page("c") as page:
        await sessions.post("c", "go")
        await trio.sleep(1)
        await drawn(page)
        async with sessions.page("c") as other:
            for shown in (page, other):
                assert [("wait", "executing")] == [(call.name, call.status) for call in shown.tool_calls]
        await trio.sleep(20)
        assert "tool_calls" in parts_in(await drawn(page))

        assert () == page.tool_calls
        assert await stored(sessions) == list(page.rows)


async def test_page_when_its_reader_is_too_slow(autojump_clock: Any) -> None:
    """Behind a gap the history is read again: every row is there, as it is stored, and the change says that all rows are to be drawn."""

    async def nop() -> str:
        """Do nothing."""
        return "ok"

    agent = make_agent(*[[Call("nop") for _ in range(4)]] * 3, "done", "more", tools=[nop])
    async with opened(agent, policy={"subscriber_events": 20}) as sessions, sessions.page("c") as page:
        await drawn(page)
        await ask(sessions, "go")
        (change,) = await drawn(page)

        assert [Gap, Snapshot] == kinds_of(change.events)
        assert change.replaces_rows
        assert change.rows == page.rows
        assert await stored(sessions) == list(page.rows)
        await ask(sessions, "go on")
        (change,) = await drawn(page)
        assert not change.replaces_rows
        assert await stored(sessions) == list(page.rows)


async def test_page_when_agents_come_and_go(autojump_clock: Any) -> None:
    """The page outlives its agents: it shows that none is up, and everything that later agents say."""
    async with opened(policy={"subscriber_events": 8}) as sessions, sessions.page("c") as page:
        await answer_to(sessions, "one")
        await sessions.stop("c")
        await drawn(page)
        assert (False, Status.IDLE) == (page.is_up, page.status)
        for text in ("two", "three", "four"):
            await answer_to(sessions, text)
            await sessions.stop("c")
        await drawn(page)
        assert not page.is_up
        assert await stored(sessions) == list(page.rows)
        assert 8 == len(page.rows)
        await answer_to(sessions, "five")
        changes = await drawn(page)

        assert page.is_up
        assert any(change.replaces_rows for change in changes)
        assert await stored(sessions) == list(page.rows)


async def test_page_when_a_connection_comes_back(autojump_clock: Any) -> None:
    """With the place that the browser has, the events go on from there if the agent knows it; the page is complete in any case."""
    async with opened(slow_agent("abcdefghij", seconds=10)) as sessions:
        async with sessions.page("c") as page:
            await sessions.post("c", "one")
            await trio.sleep(3.5)
            await drawn(page)
            cursor = page.cursor
        await trio.sleep(3)
        async with sessions.page("c", after=str(cursor)) as page:
            assert page.streaming is not None
            assert "abcdef" == page.streaming.parts[0].text  # type: ignore[union-attr]  # text
            (change,) = await drawn(page)
            assert [TextDelta] == kinds_of(change.events)
            assert "def" == change.events[0].event.text  # type: ignore[union-attr]  # a delta
            assert "abcdef" == page.streaming.parts[0].text  # type: ignore[union-attr]  # text
            assert not change.replaces_rows
            await trio.sleep(10)
            changes = await drawn(page)
            assert ["abcdefghij"] == [row.content["text"] for change in changes for row in change.rows]
            cursor = page.cursor
        await answer_to(sessions, "two")
        async with sessions.page("c", after=cursor) as page:
            assert 4 == len(page.rows)
            changes = await drawn(page)

            assert page.rows[2:] == tuple(row for change in changes for row in change.rows)
            assert not any(change.replaces_rows for change in changes)


async def test_page_when_a_connection_comes_back_to_another_agent(autojump_clock: Any) -> None:
    """The first change says that all rows are to be drawn: the browser has missed some that no event tells of."""
    async with opened() as sessions:
        async with sessions.page("c") as page:
            await answer_to(sessions, "one")
            await drawn(page)
            cursor = page.cursor
        await answer_to(sessions, "two")
        await sessions.stop("c")
        async with sessions.page("c", after=cursor) as page:
            (change,) = await drawn(page)

            assert change.replaces_rows
            assert await stored(sessions) == list(change.rows) == list(page.rows)


async def test_page_when_the_place_is_too_old(autojump_clock: Any) -> None:
    """The same if the agent does not reach back to that place."""
    async with opened(policy={"replay_events": 10}) as sessions:
        async with sessions.page("c") as page:
            await answer_to(sessions, "one")
            await drawn(page)
            cursor = page.cursor
        for _ in range(5):
            await answer_to(sessions, "two")
        async with sessions.page("c", after=cursor) as page:
            (change,) = await drawn(page)

            assert [Gap, Snapshot] == kinds_of(change.events)
            assert change.replaces_rows
            assert await stored(sessions) == list(change.rows)


async def test_older_rows(autojump_clock: Any) -> None:
    """Older rows are read on demand, before the others, and are kept when the history is read again."""
    async with opened(policy={"subscriber_events": 8}) as sessions:
        for number in range(10):
            await answer_to(sessions, str(number))
        async with sessions.page("c", limit=5) as page:
            assert (5, True) == (len(page.rows), page.has_older)
            older = await page.older(4)
            assert list(older) == list(page.rows)[:4]
            assert [row.row_id for row in await stored(sessions)][-9:] == ids(page.rows)
            await answer_to(sessions, "more")
            await sessions.stop("c")
            await answer_to(sessions, "more")
            await drawn(page)
            assert 9 <= len(page.rows)
            assert (await stored(sessions))[-len(page.rows) :] == list(page.rows)
            while page.has_older:
                assert await page.older()
            assert () == await page.older()

            assert await stored(sessions) == list(page.rows)


async def test_older_rows_that_are_asked_for_twice(autojump_clock: Any) -> None:
    """Two calls at once, and a page that reads its history again meanwhile, give each row once, in order."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        for number in range(10):
            await answer_to(sessions, str(number))
        async with sessions.page("c", limit=2) as page:
            await drawn(page)
            await sessions.stop("c")
            await sessions.start("c")
            store.faults.latency["history"] = 1.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(page.older, 3)
                nursery.start_soon(page.older, 3)
                await trio.sleep(0.5)
                with trio.move_on_after(10):
                    async for _ in page:
                        pass

            assert (await stored(sessions))[-len(page.rows) :] == list(page.rows)
            assert 5 <= len(page.rows)


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (1001, ValueError), ("5", TypeError), (True, TypeError)])
async def test_limit_that_is_wrong(autojump_clock: Any, limit: Any, error: type[Exception]) -> None:
    """A limit that cannot be is refused before anything is done."""
    async with opened() as sessions:
        with pytest.raises(error, match="limit"):
            sessions.page("c", limit=limit)
        assert 0 == sessions.statistics().agents
        await answer_to(sessions)
        async with sessions.page("c", limit=1) as page:
            with pytest.raises(error, match="limit"):
                await page.older(limit)


async def test_page_with_very_many_rows(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that has become too long begins again with the newest rows; the others can be read once more."""
    monkeypatch.setattr(_page_view, "MOST_ROWS", 6)
    async with opened() as sessions, sessions.page("c", limit=3) as page:
        for number in range(3):
            await answer_to(sessions, str(number))
        await drawn(page)
        assert (6, False) == (len(page.rows), page.has_older)
        await answer_to(sessions, "more")
        changes = await drawn(page)
        assert changes[-1].replaces_rows
        assert (3, True) == (len(page.rows), page.has_older)
        await page.older()

        assert await stored(sessions) == list(page.rows)


async def test_page_when_the_history_cannot_be_read(autojump_clock: Any) -> None:
    """At the opening the page is not there; later the call fails, nothing is lost, and the next call reads it."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions, "one")
        store.faults.fail("history")
        with pytest.raises(PersistenceError):
            async with sessions.page("c"):
                pass
        assert 0 == sessions.statistics().subscriptions
        async with sessions.page("c") as page:
            await drawn(page)
            await sessions.stop("c")
            await answer_to(sessions, "two")
            store.faults.fail("history")
            with pytest.raises(PersistenceError):
                await anext(page)
            changes = await drawn(page)

            assert TurnEnded in [kind for change in changes for kind in kinds_of(change.events)]
            assert await stored(sessions) == list(page.rows)


async def test_page_when_reading_is_cancelled(autojump_clock: Any) -> None:
    """A change is handed over or is part of the next one, wherever its reader is cancelled; every event comes once."""
    store = FaultyStore()
    store.faults.latency["history"] = 0.5
    async with opened(slow_agent("abcdefghij", seconds=10), store=store) as sessions, sessions.page("c") as page:
        seqs: list[int] = []
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                for _ in range(3):
                    await ask(sessions, "go")
                    await sessions.stop("c")

            nursery.start_soon(talk)
            ends = 0
            patience = itertools.cycle([0.3, 0.3, 1.1])
            while ends < 3:
                with trio.move_on_after(next(patience)):
                    change = await anext(page)
                    ends += sum(isinstance(envelope.event, TurnEnded) for envelope in change.events)
                    for envelope in change.events:
                        if isinstance(envelope.event, Snapshot):
                            seqs.clear()
                        else:
                            assert not seqs or seqs[-1] + 1 == envelope.first_seq
                        seqs.append(envelope.seq)
        await drawn(page)

        assert await stored(sessions) == list(page.rows)


async def test_page_when_two_tasks_iterate(autojump_clock: Any) -> None:
    """The second one is told so; the first one goes on."""
    async with opened() as sessions, sessions.page("c") as page, trio.open_nursery() as nursery:
        await drawn(page)
        changes: list[PageChange] = []

        async def read() -> None:
            changes.append(await anext(page))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task iterates"):
            await anext(page)
        await answer_to(sessions)
    assert 1 == len(changes)


async def test_page_when_the_sessions_are_gone(autojump_clock: Any) -> None:
    """What was there is read, and then `SessionsClosed` is raised."""
    ended = trio.Event()

    async def read() -> None:
        async with sessions.page("c") as page:
            opened_page.set()
            with pytest.raises(SessionsClosed):
                async for _ in page:
                    pass
            assert not page.is_up
        ended.set()

    async with trio.open_nursery() as nursery:
        async with opened() as sessions:
            opened_page = trio.Event()
            nursery.start_soon(read)
            await opened_page.wait()
    assert ended.is_set()


async def test_page_of_a_stranger(autojump_clock: Any) -> None:
    """It is refused as a watch is; a right that is withdrawn ends the changes, and older rows are refused."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions:
        for number in range(5):
            await answer_to(sessions, str(number), scope="alice")
        async with sessions.page("c", scope="bob", limit=2) as page:
            await drawn(page)
            verdicts.allow = lambda scope, conversation_id, action: scope != "bob"
            await trio.sleep(61)
            await answer_to(sessions, "secret", scope="alice")
            assert [] == await drawn(page)
            with pytest.raises(ConversationNotFound):
                await page.older()
        with pytest.raises(ConversationNotFound):
            async with sessions.page("c", scope="bob"):
                pass
        assert 0 == sessions.statistics().subscriptions


async def test_page_when_the_conversation_is_deleted(autojump_clock: Any) -> None:
    """Its rows go with it, at the next snapshot."""
    async with opened() as sessions, sessions.page("c") as page:
        await answer_to(sessions, "one")
        await drawn(page)
        await sessions.stop("c")
        await sessions.delete("c")
        await answer_to(sessions, "two")
        await drawn(page)

        assert ["two", "re: two"] == texts(page)


async def test_page_when_rows_are_saved_while_it_is_opened(autojump_clock: Any) -> None:
    """Rows that are saved between the subscription and the reading are in their order, also if the reading gives only the last of them."""

    async def nop() -> str:
        """Do nothing."""
        await trio.sleep(100)
        return "ok"

    store = FaultyStore()
    agent = make_agent(["text", Call("nop")], "done", tools=[nop], chunk_size=1, chunk_interval=1.0)
    async with opened(agent, store=store) as sessions:
        await sessions.post("c", "go")
        await trio.sleep(1)
        store.faults.slow("history", 50)
        async with sessions.page("c", limit=1) as page:
            assert ["tool_call"] == [row.content_type for row in page.rows]
            await drawn(page)
            assert ["text", "tool_call"] == [row.content_type for row in page.rows]
            assert page.has_older
            await page.older()

            assert await stored(sessions) == list(page.rows)


class Waved(MiddlewareEvent):
    """An event of our own."""


async def test_page_when_there_are_events_of_our_own(autojump_clock: Any) -> None:
    """They come with the changes."""

    async def wave(context: ToolContext) -> str:
        """Wave."""
        context.publish(Waved())
        return "waved"

    async with opened(make_agent([Call("wave")], "done", tools=[wave])) as sessions, sessions.page("c") as page:
        await ask(sessions, "go")

        assert Waved in [kind for change in await drawn(page) for kind in kinds_of(change.events)]


async def test_page_with_a_store_that_reports_no_rows(autojump_clock: Any) -> None:
    """A host's own store without a transcript tells of no row: the page reads them all the same."""
    async with opened(agent_persistence=DictStates()) as sessions, sessions.page("c") as page:
        await answer_to(sessions, "one")
        await drawn(page)
        assert ["one", "re: one"] == texts(page)
        await answer_to(sessions, "two")
        await drawn(page)

        assert ["one", "re: one", "two", "re: two"] == texts(page)


async def test_page_with_a_transcript_of_the_hosts(autojump_clock: Any) -> None:
    """With `history` a host's own transcript is what the page shows."""
    rows = DictRows()

    async def history(*, before: str | None, limit: int) -> HistoryPage:
        await trio.lowlevel.checkpoint()
        return HistoryPage(tuple(rows.rows.values()))

    async with opened(agent_persistence=DictStates(), display_message_persistence=rows) as sessions:
        await answer_to(sessions, "one")
        async with sessions.page("c", history=history) as page:
            await answer_to(sessions, "two")
            await drawn(page)

            assert list(rows.rows.values()) == list(page.rows)
            assert ["one", "re: one", "two", "re: two"] == texts(page)


@pytest.mark.parametrize("given", [None, HistoryPage(("a row",))], ids=["nothing", "another kind of rows"])  # type: ignore[arg-type]  # on purpose
async def test_page_with_a_history_of_something_else(autojump_clock: Any, given: Any) -> None:
    """What is not a page of rows is an error of the store."""

    async def history(*, before: str | None, limit: int) -> Any:
        await trio.lowlevel.checkpoint()
        return given

    async with opened() as sessions:
        with pytest.raises(PersistenceError, match="not a HistoryPage of DisplayMessages"):
            async with sessions.page("c", history=history):
                pass


async def test_page_with_a_history_that_is_not_async(autojump_clock: Any) -> None:
    """A plain function is named in the error."""

    def history(*, before: str | None, limit: int) -> HistoryPage:
        return HistoryPage(())

    async with opened() as sessions:
        with pytest.raises(TypeError, match="must be `async def`"):
            async with sessions.page("c", history=history):  # type: ignore[arg-type]  # on purpose
                pass


@pytest.mark.parametrize("when", range(1, 40, 3))
async def test_page_that_is_opened_at_any_moment(autojump_clock: Any, when: int) -> None:
    """Whenever a page is opened, and however seldom it is read: in the end its rows are those of the history, in their order."""

    async def nop() -> str:
        """Do nothing."""
        await trio.sleep(0.1)
        return "ok"

    agent = make_agent(*[["a", Call("nop")], "b"] * 3, tools=[nop], chunk_interval=0.1)
    async with opened(agent, policy={"subscriber_events": 12}) as sessions, trio.open_nursery() as nursery:

        async def talk() -> None:
            for number in range(3):
                await ask(sessions, f"q{number}")
                if number == 1:
                    await sessions.stop("c")

        nursery.start_soon(talk)
        await trio.sleep(when / 20)
        async with sessions.page("c") as page:
            for pause in (0.15, 0.4, 1.0, 100):
                await trio.sleep(pause)
                await drawn(page)

            assert await stored(sessions) == list(page.rows)
            assert (Status.IDLE, None, (), 0) == (page.status, page.streaming, page.tool_calls, page.queued)

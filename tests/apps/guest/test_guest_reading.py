"""Reading events in asyncio: whoever is cancelled at any moment misses nothing, and the streams end when they are told to."""

import asyncio
from typing import Any

import pytest

from tests.apps.guest._kit import HANGS, TEXT, breathe, config, left_in_trio, opened, passes, run, until
from trio_sagents import Completed, Envelope, MemoryStore, SessionsClosed, Snapshot, StreamingMessage, TextDelta, TextPart, TurnEnded
from trio_sagents.asyncio import Page, Watch, open_sessions


def told(envelopes: list[Envelope]) -> str:
    """Return the text that some events tell, in the order of their places. A snapshot tells what was said before the reader came."""
    got: dict[int, str] = {}
    for envelope in envelopes:
        match envelope.event:
            case Snapshot(streaming=StreamingMessage(parts=[TextPart(text)])):
                got[0] = text
            case TextDelta(offset=offset, text=text):
                got[offset] = text
            case _:
                pass
    return "".join(got[place] for place in sorted(got))


async def read_to_end(watch: Watch) -> list[Envelope]:
    envelopes = []
    async for envelope in watch:
        envelopes.append(envelope)
        if isinstance(envelope.event, TurnEnded):
            break
    return envelopes


@pytest.mark.parametrize("how", ["event", "batch", "wait_for", "timeout"])
def test_reader_when_it_is_cancelled_again_and_again(how: str, loop: str) -> None:
    """A reader that is cancelled at each event, at any pass of the loop, tells the whole text, each piece once."""

    async def main() -> None:
        envelopes: list[Envelope] = []
        cancelled = attempts = 0
        async with opened(lambda request: TEXT, chunk_interval=0.0005) as sessions, sessions.watch("c", viewer="v") as watch:
            receipt = await sessions.post("c", "x")
            batches = watch.batches()
            while not any(isinstance(envelope.event, TurnEnded) for envelope in envelopes[-3:]):
                try:
                    if how == "wait_for":
                        envelopes.append(await asyncio.wait_for(anext(watch), 0.0002))
                        continue
                    if how == "timeout":
                        async with asyncio.timeout(0.0002):
                            envelopes.append(await anext(watch))
                        continue
                    reading: Any = asyncio.ensure_future(anext(watch) if how == "event" else anext(batches))
                    await passes(attempts % 4)
                    attempts += 1
                    reading.cancel()
                    await breathe()
                    got = await reading
                except (TimeoutError, asyncio.CancelledError):
                    cancelled += 1
                else:
                    envelopes.extend([got] if how == "event" else got)
            assert isinstance(await receipt.wait(), Completed)
            assert 0 < cancelled
            numbers = [number for envelope in envelopes for number in range(envelope.first_seq, envelope.seq + 1) if envelope.first_seq]
            deltas = [envelope for envelope in envelopes if isinstance(envelope.event, TextDelta)]

        assert told(envelopes) == TEXT
        assert len(deltas) == len({envelope.event.offset for envelope in deltas})
        assert sorted(numbers[1:]) == numbers[1:]

    run(main, loop)


def test_watch_when_it_is_cut_and_resumed_with_a_cursor(loop: str) -> None:
    """A client that comes back with its cursor gets the rest: the pieces of all its visits are the text."""

    async def main() -> None:
        envelopes: list[Envelope] = []
        cursor = None
        async with opened(lambda request: TEXT, chunk_interval=0.001) as sessions, sessions.watch("c", viewer="keeper"):
            receipt = await sessions.post("c", "x")
            while not (envelopes and isinstance(envelopes[-1].event, TurnEnded)):
                async with sessions.watch("c", viewer="v", after=cursor) as watch:
                    for _ in range(7):
                        envelope = await anext(watch)
                        cursor = envelope.cursor
                        if isinstance(envelope.event, Snapshot):
                            assert not envelopes
                        envelopes.append(envelope)
                        if isinstance(envelope.event, TurnEnded):
                            break
            await receipt.wait()

        assert told(envelopes) == TEXT

    run(main, loop)


def test_page_when_its_reader_is_cancelled(loop: str) -> None:
    """A page whose reader is cancelled again and again shows in the end what the store has, each row once."""

    async def main() -> None:
        async with opened(lambda request: TEXT, chunk_interval=0.0005) as sessions:
            await (await sessions.post("c", "before")).wait()
            async with sessions.page("c", viewer="v") as page:
                receipt = await sessions.post("c", "x")
                waiting = asyncio.ensure_future(receipt.wait())
                spoken = 0
                number = 0
                while not (waiting.done() and page.streaming is None and len(page.rows) == 4):
                    reading = asyncio.ensure_future(anext(page))
                    await passes(number % 4)
                    reading.cancel()
                    await breathe()
                    number += 1
                    try:
                        await reading
                    except asyncio.CancelledError:
                        continue
                    if page.streaming is not None:
                        spoken += 1
                rows = (await sessions.history("c")).rows
                assert list(rows) == list(page.rows)
                assert 0 < spoken

    run(main, loop)


def test_page_when_the_host_reads_the_history(loop: str) -> None:
    """The function that reads the history is a function of asyncio."""
    asked = []

    async def main() -> None:
        async with opened() as sessions:
            await (await sessions.post("c", "x")).wait()

            async def history(*, before: str | None, limit: int) -> Any:
                await asyncio.sleep(0)
                asked.append((before, limit))
                return await sessions.history("c", before=before, limit=limit)

            async with sessions.page("c", limit=1, history=history) as page:
                assert 1 == len(page.rows)
                assert page.has_older
                assert 1 == len(await page.older(1))

        assert 2 == len(asked)

    run(main, loop)


def test_page_when_two_tasks_iterate() -> None:
    """As in Trio, one task iterates over a page."""

    async def read(page: Page) -> None:
        async for _ in page:
            pass

    async def main() -> None:
        async with opened() as sessions, sessions.page("c") as page:
            first = asyncio.ensure_future(read(page))
            await passes(1)
            with pytest.raises(Exception, match="another task iterates over this page"):
                await anext(page)
            first.cancel()
            await asyncio.wait([first])

    run(main)


def test_presence_when_its_listener_is_cancelled(loop: str) -> None:
    """Whoever listens to presence and is cancelled at any pass of the loop misses no change."""

    async def main() -> None:
        async with opened() as sessions, sessions.presence.changes("t") as changes:
            cancelled = 0
            for number in range(20):
                tracked = sessions.presence.trio.enter("t", f"k{number}")
                reading = asyncio.ensure_future(anext(changes))
                await passes(number % 10)
                reading.cancel()
                (diff,) = await asyncio.gather(reading, return_exceptions=True)
                if isinstance(diff, asyncio.CancelledError):
                    cancelled += 1
                    diff = await asyncio.wait_for(anext(changes), HANGS)
                assert [f"k{number}"] == list(diff.joins)
                tracked.leave()
                assert [f"k{number}"] == list((await anext(changes)).leaves)
            assert 0 < cancelled

    run(main, loop)


def test_readers_when_the_streams_end(loop: str) -> None:
    """`end_streams` ends each iteration as a loop that has come to its end, also those that begin later; the turn goes on."""

    async def main() -> None:
        async with opened(lambda request: TEXT, chunk_interval=0.001) as sessions:
            receipt = await sessions.post("c", "x")

            async def watching() -> str:
                async with sessions.watch("c", viewer="v") as watch:
                    async for _ in watch:
                        pass
                return "ended"

            async def batches() -> str:
                async with sessions.open_subscriber() as subscriber:
                    async for _ in subscriber.batches():
                        pass
                return "ended"

            async def paging() -> str:
                async with sessions.page("c") as page:
                    async for _ in page:
                        pass
                return "ended"

            async def present() -> str:
                async with sessions.presence.changes("t") as changes:
                    async for _ in changes:
                        pass
                return "ended"

            readers = [asyncio.ensure_future(read()) for read in (watching, batches, paging, present)]
            await asyncio.sleep(0.02)
            sessions.end_streams()
            assert ["ended"] * 4 == await asyncio.gather(*readers)
            assert "ended" == await watching()
            assert 1 == left_in_trio()
            assert isinstance(await receipt.wait(), Completed)

    run(main, loop)


def test_readers_when_the_block_is_left(loop: str) -> None:
    """Whoever still reads when the block is left gets what is there, and then `SessionsClosed`; leaving the watch then is quiet."""

    async def reader(sessions: Any) -> tuple[str, BaseException | None]:
        envelopes = []
        try:
            async with sessions.watch("c", viewer="v") as watch:
                posted.append(await sessions.post("c", "x"))
                async for envelope in watch:
                    envelopes.append(envelope)
        except SessionsClosed as exc:
            return told(envelopes), exc
        return told(envelopes), None

    async def main() -> None:
        store = MemoryStore()
        async with (
            opened(lambda request: TEXT, store=store, chunk_interval=0.0005, grace_period=HANGS) as sessions,
            sessions.open_subscriber() as quiet,
        ):
            reading = asyncio.ensure_future(reader(sessions))
            await until(lambda: posted)
        text, error = await reading

        assert text == TEXT
        assert isinstance(error, SessionsClosed)
        with pytest.raises(SessionsClosed):
            await anext(quiet)

    posted: list[Any] = []
    run(main, loop)


def test_calls_when_their_block_is_left_and_another_is_open(loop: str) -> None:
    """What still waits when its block is left ends with `SessionsClosed`, also if Trio goes on for another block."""

    async def listening(sessions: Any) -> None:
        async with sessions.presence.changes("t") as changes:
            listens.append(True)
            await anext(changes)

    async def main() -> None:
        async with opened() as others:
            async with opened() as sessions:
                listener = asyncio.ensure_future(listening(sessions))
                await until(lambda: listens and left_in_trio() == 4)
            with pytest.raises(SessionsClosed):
                await asyncio.wait_for(listener, HANGS)
            await others.start("c")

    listens: list[bool] = []
    run(main, loop)


def test_watch_when_another_task_leaves_it(loop: str) -> None:
    """A task may leave what another one has entered."""

    async def main() -> None:
        async with open_sessions(config()) as sessions:
            watching = sessions.watch("c", viewer="v")
            watch = await asyncio.create_task(watching.__aenter__())
            await sessions.post("c", "x")
            assert "re: x" == told(await read_to_end(watch))
            await asyncio.create_task(watching.__aexit__(None, None, None))
            assert 1 == left_in_trio()
            with pytest.raises(RuntimeError, match="entered before"):
                await watching.__aenter__()

    run(main, loop)

"""A live page: a watched conversation and its transcript, merged and kept up to date.

The rules are in `PageView`; here are the effects: subscribing, reading the history when the view needs it, and handing out changes.
The page has no task of its own. The task that iterates over the page takes the next batch of events. So a page that nobody reads costs
as much as a subscription that nobody reads, and has the same bounds.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, Self

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.broadcast import PageChange, PageView
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.events import Envelope, StreamingMessage
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.messages import ToolCall
from trio_sagents.data.records import DisplayMessage, HistoryPage
from trio_sagents.data.status import Status
from trio_sagents.data.todos import Todo
from trio_sagents.exceptions import ConversationNotFound, PersistenceError
from trio_sagents.sessions._admission import check_limit
from trio_sagents.sessions._watch import Watch

MOST_AT_ONCE = 1000
"""Rows in one page of the history."""


class ReadHistory(Protocol):
    """Reads a page of the transcript of one conversation, as `Sessions.history` does."""

    async def __call__(self, *, before: str | None, limit: int) -> HistoryPage:
        """Return the newest rows, or those before a place that an earlier page has named, oldest first."""
        ...


@attrs.define(eq=False)
class Page:
    """One conversation as a page shows it, kept up to date by the task that iterates over the page.

    Made by `Sessions.page`. For example::

        async with sessions.page("42", scope=alice, viewer="alice") as page:
            draw(page.rows, page.streaming, page.status)
            async for change in page:
                draw(change.rows, page.streaming, page.status)

    The page shows the state after the last change that was taken: it does not change while nobody iterates.
    """

    watch: Watch
    """The subscriber under the page. Read the page, and not this."""
    _view: PageView = attrs.field(repr=False)
    _history: ReadHistory = attrs.field(repr=False)
    _limit: int
    _batches: AsyncIterator[Sequence[Envelope]] = attrs.field(init=False, repr=False)
    _is_read: bool = attrs.field(default=False, init=False)
    """Whether a task iterates now."""

    def __attrs_post_init__(self) -> None:
        self._batches = self.watch.batches()

    @property
    def rows(self) -> Sequence[DisplayMessage]:
        """The rows of the transcript that were read so far, oldest first; a new sequence."""
        return self._view.rows

    @property
    def has_older(self) -> bool:
        """Whether there are rows before the first one of `rows`."""
        return self._view.before is not None

    @property
    def streaming(self) -> StreamingMessage | None:
        """The message that is being spoken, with its text so far; None between messages."""
        return self._view.present.streaming

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The open calls of the running turn, with their status."""
        return self._view.present.tool_calls

    @property
    def status(self) -> Status:
        """The status of the agent; that of its end if it is not up."""
        return self._view.present.status

    @property
    def error(self) -> str | None:
        """The text of the status ERROR, if it began while the page was open."""
        return self._view.present.error

    @property
    def is_up(self) -> bool:
        """Whether the agent is up. If it is not, the next message wakes the agent, and the page continues by itself."""
        return self._view.present.is_up

    @property
    def interrupt(self) -> Interrupt | None:
        """What waits for people."""
        return self._view.present.interrupt

    @property
    def todos(self) -> Sequence[Todo]:
        """The todo list of the agent."""
        return self._view.present.todos

    @property
    def queued(self) -> int:
        """How many accepted messages wait for a turn."""
        return self._view.present.queued

    @property
    def cursor(self) -> Cursor | None:
        """The place behind the last event of the last change; None before the first event."""
        return self._view.cursor

    async def older(self, limit: int = 100) -> Sequence[DisplayMessage]:
        """Read older rows, and put them before the others.

        Args:
            limit: how many rows to read, 1 to 1000.

        Returns:
            The rows that are new on the page, oldest first; empty if there are no older rows.

        Raises:
            ConversationNotFound: the conversation is gone, or the scope may not see it any more.
            PersistenceError: the store could not say; the page is as before.

        Cancellation: either the rows are on the page, or the page is as before.
        """
        check_limit(limit)
        view = self._view
        while view.before is not None:
            generation = view.generation
            page = await _read(self._history, view.before, limit)
            # No checkpoint from the look to the end. Race: the iterating task, or another call of this, may have read rows meanwhile.
            if generation == view.generation:
                return view.read_older(page)
        await trio.lowlevel.checkpoint()
        return ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PageChange:
        """Wait for something to change, and return it; it has been merged into the page.

        Raises:
            PersistenceError: the history has to be read again, and the store could not say. The next call tries again; nothing is lost.
            SessionsClosed: everything was read, and no more can come.
            trio.BusyResourceError: another task iterates over this page.

        Cancellation: either a change is returned, or it is part of the change that the next call returns.
        """
        if self._is_read:
            raise trio.BusyResourceError("another task iterates over this page")
        self._is_read = True
        try:
            while True:
                if self._view.needs_history:
                    await self.read_history()
                # No checkpoint from here to the return: a change that is taken is handed over.
                elif (change := self._view.take_change()) is not None:
                    return change
                else:
                    self._view.apply(await anext(self._batches))
        finally:
            self._is_read = False

    @property
    def needs_history(self) -> bool:
        """Whether the next change cannot be told before `read_history` has read rows of the store."""
        return self._view.needs_history

    async def read_history(self) -> None:
        """Read the newest rows. Iterating does this by itself; a reader that calls `take_nowait` does it if the page `needs_history`.

        Raises:
            PersistenceError: the store could not say; the page is as before.

        Cancellation: either the rows are on the page, or the page is as before.
        """
        await _read_rows(self._view, self._history, self._limit)

    def take_nowait(self) -> PageChange:
        """Return the next change without waiting; it has been merged into the page. It may be called between two steps of Trio.

        Raises:
            trio.WouldBlock: nothing has changed, or the page `needs_history`.
            SessionsClosed: everything was read, and no more can come.
        """
        view = self._view
        while not view.needs_history:
            if (change := view.take_change()) is not None:
                return change
            view.apply(self.watch.take_nowait())
        raise trio.WouldBlock


async def _read(history: ReadHistory, before: str | None, limit: int) -> HistoryPage:
    page: object = await await_host(history, before=before, limit=limit)
    if isinstance(page, HistoryPage) and all(isinstance(row, DisplayMessage) for row in page.rows):
        return page
    raise PersistenceError(f"the history gave {type(page).__name__}, and not a HistoryPage of DisplayMessages")


async def _read_rows(view: PageView, history: ReadHistory, limit: int) -> None:
    """Read the newest rows, and at least as many as the page has already."""
    rows: list[DisplayMessage] = []
    before: str | None = None
    while True:
        missing = max(limit, view.wanted) - len(rows)
        try:
            page = await _read(history, before, min(missing, MOST_AT_ONCE))
        except ConversationNotFound:  # nothing was said yet; or it was deleted, or the scope may not see it any more
            rows, page = [], HistoryPage(())
        rows[:0] = page.rows
        before = page.before
        if before is None or not page.rows or len(rows) >= max(limit, view.wanted):
            view.read(HistoryPage(rows, before))
            return


@asynccontextmanager
async def open_page(
    watching: AbstractAsyncContextManager[Watch], conversation_id: str, history: ReadHistory, limit: int
) -> AsyncIterator[Page]:
    """Watch a conversation, read its newest rows, and yield a page of it. Subscribe first, then read: no row falls between the two."""
    async with watching as watch:
        view = PageView()
        if (picture := watch.subscription(conversation_id).picture()) is not None:
            view.begin(picture)
        await _read_rows(view, history, limit)
        view.take_change()  # the reader draws the whole page first
        yield Page(watch, view, history, limit)

"""What a page shows of one conversation, folded from its events and its history.

**When the history has to be read.** Rows of the transcript come from two places: `history()` has those that are stored, and events tell of
those that are saved while the page is open. `PageView.needs_history` says when `history()` has to be read. This is the one place where it
is decided:

- at the beginning, behind the subscription: subscribe first, then read, so that no row falls between the two;
- behind each `Gap` and each `Snapshot`: a row that was saved or changed in the part that is missing has no event;
- behind a message that is in the history and whose rows no event told of: a host's own store need not report the rows that it has made;
- when the page has more than `MOST_ROWS` rows, to begin again with the newest ones.

**How rows are merged.** A row is known by its row id, and a changed row keeps its place. The order of the rows is that in which they were
saved, so it is that of the `DisplayMessageSaved`: each puts its row at the end, also a row that the history has already. This matters
because events wait, so they may be older than the history that was read. Say that one commit saves the rows `a` and `b`, and that only the
newest row was read, `b`. Then the event of `a` comes. Taken for a new row, `a` would stay behind `b`; but the event of `b` follows.

A view is a value that changes: nothing here waits, and nothing here knows Trio. `Sessions.page` keeps one up to date. A bridge with a
transport of its own can do the same: `apply` each batch of events, read the history while `needs_history` and hand it to `read`, and draw
what `take_change` returns.
"""

import datetime
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from trio_sagents.broadcast._page_present import PagePart, PagePresent
from trio_sagents.conversation.rows import OWN_ROWS, rows_of
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.events import (
    DisplayMessageSaved,
    DisplayMessageUpdated,
    Envelope,
    Event,
    Gap,
    MessageCompleted,
    MessageQueued,
    Snapshot,
)
from trio_sagents.data.messages import Message
from trio_sagents.data.records import DisplayMessage, HistoryPage

MOST_ROWS: Final = 10_000
"""A page with more rows than this forgets the older ones."""
_ANY_TIME: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)


@attrs.frozen
class PageChange:
    """What has changed on a page since the change before it."""

    rows: Sequence[DisplayMessage]
    """The rows that are new or have changed, as they are now, in the order of the page."""
    replaces_rows: bool
    """Whether the history was read again, or rows came between others. Then `rows` are all rows of the page; forget any other row."""
    parts: frozenset[PagePart]
    """The parts of the page that may be different now: "rows", "streaming", "tool_calls", "status", "interrupt", "todos", "queued"."""
    events: Sequence[Envelope]
    """The events that led to the change, in order, also those of your own middleware. May be empty."""


@attrs.define(eq=False)
class PageView:
    """What a page shows of one conversation."""

    present: PagePresent = attrs.field(factory=PagePresent)
    """Everything but the transcript."""
    cursor: Cursor | None = None
    """The place behind the last event that was applied."""
    before: str | None = None
    """For `history()`: where the rows before the oldest one here begin; None if there are no older rows."""
    needs_history: bool = True
    """Whether `history()` has to be read, and handed to `read`."""
    generation: int = 0
    """Changes whenever the oldest row may have changed: older rows that were read before do not fit any more."""
    _rows: dict[str, DisplayMessage] = attrs.field(factory=dict)
    # Invariant: by row id, in the order of the page.
    _picture: tuple[str, int] | None = None
    """The incarnation and the number of the snapshot that the view began with. Earlier events are in it, and in the history."""
    _changed_rows: set[str] = attrs.field(factory=set)
    _drawn: Sequence[str] = ()
    """The ids of all rows, in order, as the reader has drawn them."""
    _replaces_rows: bool = False
    _events: list[Envelope] = attrs.field(factory=list)

    @property
    def rows(self) -> Sequence[DisplayMessage]:
        """The rows of the transcript that were read so far, oldest first; a new sequence."""
        return tuple(self._rows.values())

    @property
    def wanted(self) -> int:
        """How many rows to read again, so that the page has as many as before; 0 if there are too many of them."""
        return len(self._rows) if len(self._rows) <= MOST_ROWS else 0

    def begin(self, envelope: Envelope) -> None:
        """Begin with a snapshot that was rendered behind the subscription, before any event is applied and before the history is read."""
        self._picture = (envelope.incarnation, envelope.seq)
        self.present.apply(envelope.event)

    def apply(self, batch: Iterable[Envelope]) -> None:
        """Apply events of one conversation, in the order in which a subscription gave them. Events of other channels change nothing."""
        told: list[Message] = []
        for envelope in batch:
            self._events.append(envelope)
            event = envelope.event
            if envelope.channel != "main":
                continue
            if self._picture is None or self._picture[0] != envelope.incarnation or envelope.seq > self._picture[1]:
                self.present.apply(event)
                self._apply_to_rows(event)
            else:
                self._apply_earlier(event)
            if isinstance(event, MessageCompleted | MessageQueued):
                told.append(event.message)
            self.cursor = envelope.cursor
        if len(self._rows) > MOST_ROWS or any(self._is_missing(message) for message in told):
            self.needs_history = True

    def _apply_to_rows(self, event: Event) -> None:
        match event:
            case Snapshot() | Gap():
                self.needs_history = True
            case DisplayMessageSaved(row=row):
                # A row that is known was read: what was read is the row as it was saved, or newer.
                self._put(self._rows.pop(row.row_id, row))
            case DisplayMessageUpdated(row=row) if row.row_id in self._rows or self.before is None:
                self._put(row)  # any other row is an older one, which was not read
            case DisplayMessageUpdated(row=row) if row.row_id.startswith(OWN_ROWS):
                self.needs_history = True  # it may be new: the agent does not know every key that an earlier one has used

    def _apply_earlier(self, event: Event) -> None:
        """Apply an event that is in the picture already, for those who draw: they may have seen nothing of it."""
        match event:
            case DisplayMessageSaved(row=row) | DisplayMessageUpdated(row=row) if row.row_id in self._rows:
                self._changed_rows.add(row.row_id)  # the row that the history has is as new as this one, or newer
            case Gap() | Snapshot(replaces=Cursor()):
                self.needs_history = True

    def _is_missing(self, message: Message) -> bool:
        # From the end: the rows of a message that is new are there.
        if any(row.message_id == message.message_id for row in reversed(self._rows.values())):
            return False
        return bool(rows_of(message, _ANY_TIME))

    def _put(self, row: DisplayMessage) -> None:
        self._rows[row.row_id] = row
        self._changed_rows.add(row.row_id)

    # ── the history

    def read(self, page: HistoryPage) -> None:
        """Take the newest rows of the history, in place of all rows here.

        Args:
            page: rows that were read behind the last event that was applied, oldest first, perhaps from several pages; `before` is that
                of the oldest page.
        """
        self._rows = {row.row_id: row for row in page.rows}
        self.before = page.before
        self.generation += 1
        self.needs_history = False
        self._replaces_rows = True

    def read_older(self, page: HistoryPage) -> Sequence[DisplayMessage]:
        """Take the rows before the oldest row here, and return those that are new.

        Args:
            page: read with `before` of this view, and with the `generation` that it still has.
        """
        new = {row.row_id: row for row in page.rows if row.row_id not in self._rows}
        self._rows = {**new, **self._rows}
        self._drawn = (*new, *self._drawn)
        self.before = page.before
        self.generation += 1
        return tuple(new.values())

    # ── what to draw

    def take_change(self) -> PageChange | None:
        """Return what has changed since the last call; None if nothing has, and no event was applied."""
        parts = self.present.take_changed()
        rows: Sequence[DisplayMessage] = ()
        if self._changed_rows:
            rows = tuple(row for row_id, row in self._rows.items() if row_id in self._changed_rows)
            # Rows that come between rows that are drawn already have no place that a change could name.
            self._replaces_rows = self._replaces_rows or tuple(self._rows)[: len(self._drawn)] != self._drawn
        if self._replaces_rows:
            rows = self.rows
        if self._replaces_rows or rows:
            parts |= {"rows"}
            self._drawn = tuple(self._rows)
        elif not (parts or self._events):
            return None
        change = PageChange(rows, self._replaces_rows, parts, tuple(self._events))  # pyright: ignore[reportArgumentType]
        self._changed_rows, self._replaces_rows, self._events = set(), False, []
        return change

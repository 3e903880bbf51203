"""The backlog of a subscription: what its reader has not taken of agents that have ended.

A reader that is away while agents come and go gets all their events, as long as these are no more than the bounds of a subscription.
Beyond the bounds each ended agent shrinks to a notice of two events: a `Gap` that names the missing numbers, and its `AgentShutdown`.
If even the notices are too many, those in the middle are dropped. The notice behind them then says so: its `Gap.replaces` names the
place from which on everything is missing, as `Snapshot.replaces` does for the snapshot of a new agent.

Pure functions on values: nothing here waits, and nothing here knows Trio.
"""

from collections.abc import Sequence

import attrs

from trio_sagents.broadcast._feed import Feed, shutdown_in, text_size
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.events import Envelope, Gap, Snapshot


@attrs.frozen
class Backlog:
    """What one ended agent has left untaken."""

    before: Cursor | None
    """The place that the reader was given, or was about to be given, before these events; None if there was none."""
    first: int
    """The number of the first event of the agent that the reader does not have."""
    is_continued: bool
    """Whether the reader already has something of this agent, so that no event has to say which place the agent's events follow."""
    events: Sequence[Envelope]
    """In order; not empty. The last event is the agent's `AgentShutdown`."""
    is_numbered: bool = True
    """Whether the last event has a number of its own: only what tells that an agent elsewhere is lost has none."""


def missed(feed: Feed, before: Cursor | None, first: int, *, is_continued: bool) -> Sequence[Envelope]:
    """Return the notice of an agent that has ended: a `Gap` over its events from number `first` on, then its `AgentShutdown`."""
    shutdown = feed.shutdown()
    last = feed.seq - len(shutdown)
    gap = (feed.gap(first, last, None if is_continued else before),) if first <= last else ()
    return (*gap, *shutdown)


def bounded(backlogs: Sequence[Backlog], most_events: int, most_text: int) -> Sequence[Backlog]:
    """Return the same backlogs, shrunk until they are within the bounds.

    Args:
        backlogs: of ended agents, the earliest agent first; not changed.
        most_events: how many events all of them together may hold. Two notices are kept in any case.
        most_text: how many characters of streamed text all of them together may hold.
    """
    events = [envelope for backlog in backlogs for envelope in backlog.events]
    if len(events) <= most_events and text_size(events) <= most_text:
        return backlogs
    notices = [_shrunk(backlog) for backlog in backlogs]
    fitting = max(2, most_events // 2)
    if len(notices) <= fitting:
        return notices
    # The first notice stays: it may hold the end of an agent that the reader has seen begin.
    first, *later = notices
    kept = later[1 - fitting :]
    return [first, _following(kept[0], first.events[-1].cursor), *kept[1:]]


def _shrunk(backlog: Backlog) -> Backlog:
    """Return the notice of one agent, in place of its events."""
    shutdown = shutdown_in(backlog.events)
    last = backlog.events[-1].seq - (len(shutdown) if backlog.is_numbered else 0)
    if last < backlog.first:
        # The agent did nothing: its snapshot, if the reader still needs one, and its end are not more than a notice.
        return backlog
    gap = Gap(backlog.first, last, None if backlog.is_continued else backlog.before)
    notice = attrs.evolve(backlog.events[-1], first_seq=backlog.first, seq=last, event=gap)
    return attrs.evolve(backlog, events=(notice, *shutdown))


def _following(backlog: Backlog, place: Cursor) -> Backlog:
    """Return a notice that follows another place: what came in between was dropped."""
    head, *rest = backlog.events
    assert isinstance(head.event, Gap | Snapshot)  # the reader has nothing of this agent: only of the first one it may have something
    head = attrs.evolve(head, event=attrs.evolve(head.event, replaces=place))
    return attrs.evolve(backlog, before=place, events=(head, *rest))

"""The feed: the log of one conversation's events."""

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents import (
    Envelope,
    Snapshot,
    StateRestored,
    Status,
    TextDelta,
    ThinkingDelta,
    TurnStarted,
)
from trio_sagents.broadcast import Feed, _feed
from trio_sagents.data.cursors import Cursor


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


def test_event_before_the_snapshot_when_a_reader_comes_back() -> None:
    """The place of the event is not a place to continue from: the snapshot that follows it has a number of its own."""

    def snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
        return Snapshot(Status.IDLE, None, (), None, (), 0, place, replaces)

    feed = Feed("a", "c", "incarnation", "main", 8, snapshot)
    told = feed.publish_before_snapshot(StateRestored())
    first = feed.present(None)

    assert (1, 2, 2) == (told.seq, first.first_seq, first.seq)
    assert [None, None, ()] == [feed.since(place) for place in (0, told.seq, first.seq)]
    feed.publish(TurnStarted("t"))
    assert [None, [3]] == [events if events is None else [event.seq for event in events] for events in (feed.since(1), feed.since(2))]


def _no_snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
    return Snapshot(Status.IDLE, None, (), None, (), 0, place, replaces)


def _plain(log: list[tuple[int, Any]]) -> list[tuple[int, int, Any]]:
    """Return (first number, last number, event) of events with their numbers; deltas that continue each other are one event."""
    out: list[tuple[int, int, Any]] = []
    for seq, event in log:
        if out and isinstance(event, TextDelta | ThinkingDelta):
            first, _, earlier = out[-1]
            if (
                type(earlier) is type(event)
                and (earlier.message_id, earlier.part) == (event.message_id, event.part)
                and earlier.offset + len(earlier.text) == event.offset
            ):
                out[-1] = (first, seq, attrs.evolve(earlier, text=earlier.text + event.text))
                continue
        out.append((seq, seq, event))
    return out


def _taken(events: Sequence[Envelope]) -> list[tuple[int, int, Any]]:
    return [(envelope.first_seq, envelope.seq, envelope.event) for envelope in events]


@attrs.define(eq=False)
class _Speaker:
    """Says pieces of messages, as a model does."""

    message: int = 0
    part: int = 0
    offset: int = 0

    def say(self, kind: Any, text: str) -> Any:
        event = kind(text, f"m{self.message}", self.part, self.offset, "t")
        self.offset += len(text)
        return event

    def begin(self, what: str) -> None:
        """Begin a part, another message, or a part whose text claims to begin where that of the last part ended."""
        self.message, self.part = (self.message + 1, self.part) if what == "message" else (self.message, self.part + 1)
        if what == "part":
            self.offset = 0


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.sampled_from(["a", "bc", "déf", ""])),
        st.tuples(st.just("thinking"), st.sampled_from(["x", "yz"])),
        st.tuples(st.sampled_from(["event", "part", "message", "odd part", "take", "present", "nobody"]), st.none()),
    ),
    max_size=60,
)


@pytest.mark.parametrize("pieces", [2, 3, 64])
@given(steps=_STEPS, kept=st.integers(1, 12), join_limit=st.sampled_from([3, 8, 4096]))
def test_feed_when_compared_with_a_log_of_each_delta(pieces: int, steps: Any, kept: int, join_limit: int) -> None:
    """From each place that was handed out the feed gives what a plain log of each delta gives, as far back as it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_feed, "PIECES", pieces)
        patch.setattr(_feed, "JOIN_LIMIT", join_limit)
        feed = Feed("a", "c", "incarnation", "main", kept, _no_snapshot)
        speaker, log, places, oldest = _Speaker(), list[tuple[int, Any]](), {0}, 0
        for kind, text in steps:
            match kind:
                case "text" | "thinking":
                    event = speaker.say(TextDelta if kind == "text" else ThinkingDelta, text)
                    feed.publish(event)
                    log.append((feed.seq, event))
                case "event":
                    feed.publish(TurnStarted(f"t{feed.seq}"))
                    log.append((feed.seq, TurnStarted(f"t{feed.seq - 1}")))
                case "nobody":  # nobody subscribes, so the event is not made, and its place and those before it are forgotten
                    feed.publish_lazily(lambda: TurnStarted("never"))
                    log.clear()
                    oldest = feed.seq
                case "part" | "message" | "odd part":
                    speaker.begin(kind)
                case "take":
                    feed.since(max(places))
                    places.add(feed.seq)
                case "present":
                    places.add(feed.present(None).seq)
        for place in places:
            events = feed.since(place)
            if events is None:
                assert place < oldest or feed.seq - place > kept
            elif place == feed.seq:
                assert () == events
            else:
                assert _plain([(seq, event) for seq, event in log if seq > place]) == _taken(events)


def test_feed_when_a_reader_comes_back_to_the_middle_of_a_run() -> None:
    """A place between two pieces of one part is a place: the reader who has it gets the rest of the part, from its offset on."""
    feed = Feed("a", "c", "incarnation", "main", 1024, _no_snapshot)
    for number in range(200):
        feed.publish_delta(TextDelta, f"{number:03}", "m", 0, 3 * number, "t")
        feed.since(number)
    whole = "".join(f"{number:03}" for number in range(200))

    assert [[(place + 1, 200, TextDelta(whole[3 * place :], "m", 0, 3 * place, "t"))] for place in range(200)] == [
        _taken(feed.since(place) or ()) for place in range(200)
    ]


def test_feed_when_a_cursor_names_no_place() -> None:
    """A number that no reader was ever given, inside text that was joined, is not followed: the reader gets a new picture instead."""
    feed = Feed("a", "c", "incarnation", "main", 1024, _no_snapshot)
    for number in range(100):
        feed.publish_delta(TextDelta, "abc", "m", 0, 3 * number, "t")

    assert [None, None, "abc"] == [events if events is None else _text(events) for events in map(feed.since, (1, 40, 99))]


def test_feed_when_nobody_reads_a_long_message() -> None:
    """A reader that is slow gets the whole text of a message with more deltas than the log keeps events, as one delta."""
    feed = Feed("a", "c", "incarnation", "main", 16, _no_snapshot)
    feed.publish(TurnStarted("t"))
    feed.since(0)
    for number in range(5_000):
        feed.publish_delta(TextDelta, "token ", "m", 0, 6 * number, "t")

    assert [(2, 5_001, TextDelta("token " * 5_000, "m", 0, 0, "t"))] == _taken(feed.since(1) or ())


def test_feed_when_several_readers_take_the_same() -> None:
    """Readers at the same place share their envelopes; a reader at another place, or a later event, gets envelopes of its own."""
    feed = Feed("a", "c", "incarnation", "main", 16, _no_snapshot)
    feed.subscriptions = {_Nobody(): None, _Nobody(): None}
    for number in range(3):
        feed.publish_delta(TextDelta, "a", "m", 0, number, "t")
        feed.since(number)
    first, second, other = feed.since(0), feed.since(0), feed.since(1)
    feed.publish_delta(TextDelta, "b", "m", 0, 3, "t")
    later = feed.since(1)

    assert first is not None
    assert first is second
    assert ["aaa", "aa", "aab"] == [_text(events) for events in (first, other, later)]


class _Nobody:
    """A reader that is told in vain."""

    def announce(self) -> None:
        pass

    def end(self) -> None:
        pass


def _text(events: Sequence[Envelope] | None) -> str:
    return "".join(envelope.event.text for envelope in events or () if isinstance(envelope.event, TextDelta))


def test_feed_when_a_stream_is_long() -> None:
    """However long a message streams, the log keeps a bounded number of pieces, and almost nothing that a garbage collection looks at."""
    feed = Feed("a", "c", "incarnation", "main", 256, _no_snapshot)
    tracked = []
    for number in range(20_000):
        feed.publish_delta(TextDelta, "tok", "m", 1, 3 * number, "t")
        feed.since(feed.seq - 1)
        if number % 1_000 == 999:
            tracked.append(len(feed._log))

    assert max(tracked) <= 16

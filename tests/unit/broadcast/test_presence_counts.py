"""Presence counts: who watches the number of entries of a topic is told at once, and a topic with nothing on it costs nothing."""

from collections.abc import Callable

from trio_sagents.broadcast._presence import Presence
from trio_sagents.broadcast._pubsub import LocalPubSub

TOPIC = "conversation:1"


def test_watch_count_when_entries_come_and_go() -> None:
    """The callback gets each new number, at once, until it is undone."""
    presence = Presence()
    counts: list[int] = []
    undo = presence.watch_count(TOPIC, counts.append)
    one = presence.enter(TOPIC, "alice")
    two = presence.enter(TOPIC, "alice")
    presence.enter("other", "alice")
    one.update({"n": 1})
    one.leave()
    one.leave()
    assert [1, 2, 1] == counts
    undo()
    undo()
    two.leave()

    assert [1, 2, 1] == counts


def test_watch_count_when_a_callback_changes_the_count() -> None:
    """Callbacks may enter and leave. The last number that each callback gets is the true number."""
    presence = Presence()
    first: list[int] = []
    second: list[int] = []

    def add_one(count: int) -> None:
        first.append(count)
        if count == 1:
            presence.enter(TOPIC, "bob")

    presence.watch_count(TOPIC, add_one)
    presence.watch_count(TOPIC, second.append)
    presence.enter(TOPIC, "alice")

    assert ([1, 2], [2, 2]) == (first, second)


def test_watch_count_when_a_callback_undoes_another() -> None:
    """Who was undone is not called any more, in the same round too."""
    presence = Presence()
    counts: list[int] = []
    undoes: list[Callable[[], None]] = []
    undoes.append(presence.watch_count(TOPIC, lambda _: [undo() for undo in undoes].clear()))
    undoes.append(presence.watch_count(TOPIC, counts.append))
    presence.enter(TOPIC, "alice").leave()

    assert [] == counts
    assert 0 == len(presence._topics)


def test_watch_count_when_a_callback_starts_the_topic_anew() -> None:
    """A topic that empties and fills again in a callback is not forgotten."""
    presence = Presence()

    def restart(count: int) -> None:
        undo()
        if not count:
            presence.enter(TOPIC, "bob")

    tracked = presence.enter(TOPIC, "alice")
    undo = presence.watch_count(TOPIC, restart)
    tracked.leave()

    assert 1 == presence.count(TOPIC)


async def test_topics_when_nothing_is_on_them() -> None:
    """A topic without entries, listeners and watchers occupies nothing."""
    presence = Presence(LocalPubSub())
    tracked = presence.enter("a", "alice")
    undo = presence.watch_count("b", lambda _: None)
    async with presence.changes("c"):
        assert (2, 1) == (len(presence._topics), len(presence._watchers))
    tracked.leave()
    undo()
    await presence.list("d")
    presence.count("e")

    assert (0, 0) == (len(presence._topics), len(presence._watchers))

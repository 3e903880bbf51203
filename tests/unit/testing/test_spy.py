"""The event spy passes what a viewer may see, and nothing else."""

import datetime
from typing import Any

import attrs
import pytest
import trio

from trio_sagents import (
    Agent,
    AgentShutdown,
    Completed,
    Envelope,
    Gap,
    SessionConfig,
    ShutdownReason,
    SingleFactoryRouter,
    Snapshot,
    Status,
    StreamingMessage,
    TextDelta,
    TextPart,
    TurnStarted,
    open_sessions,
)
from trio_sagents.data.cursors import Cursor
from trio_sagents.testing import EventSpy, ScriptedModel, Violation

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def envelope(first: int, event: Any, last: int | None = None, incarnation: str = "i") -> Envelope:
    """Return an envelope."""
    return Envelope("a", "c", "main", first, first if last is None else last, event, incarnation)


def snapshot(seq: int, incarnation: str = "i", text: str | None = None) -> Envelope:
    """Return a snapshot after event `seq`."""
    spoken = None if text is None else StreamingMessage("m", (TextPart(text),))
    return envelope(seq, Snapshot(Status.IDLE, None, (), spoken, (), 0, Cursor(incarnation, "main", seq)), None, incarnation)


def ended(seq: int) -> Envelope:
    """Return the end of an agent."""
    return envelope(seq, AgentShutdown(ShutdownReason.CLOSED, Status.IDLE, 0, False, NOW, NOW))


def turn(first: int, last: int | None = None) -> Envelope:
    """Return any event."""
    return envelope(first, TurnStarted("t"), last)


def delta(seq: int, offset: int, text: str) -> Envelope:
    """Return a piece of text."""
    return envelope(seq, TextDelta(text, "m", 0, offset, "t"))


@pytest.mark.parametrize(
    "envelopes",
    [
        [snapshot(0), turn(1), turn(2, 5), turn(6), ended(7)],
        [snapshot(4), turn(5), snapshot(5), turn(6)],
        [snapshot(0), envelope(1, Gap(1, 9), 9), snapshot(9), turn(10)],
        [snapshot(0), envelope(1, Gap(1, 9), 9), ended(10)],
        [snapshot(0), ended(1), snapshot(0, "j"), attrs.evolve(turn(1), incarnation="j")],
        [snapshot(3, text="ab"), delta(4, 2, "cd"), delta(5, 4, "e")],
        [envelope(1, Gap(1, 8), 8), ended(9)],
    ],
    ids=["plain", "second snapshot", "gap", "gap at the end", "next agent", "text", "an agent that was missed"],
)
def test_spy_when_all_is_well(envelopes: list[Envelope]) -> None:
    """What the rules allow passes."""
    spy = EventSpy()
    for seen in envelopes:
        spy.add(seen)

    assert envelopes == spy.envelopes


@pytest.mark.parametrize(
    ("invariant", "envelopes"),
    [
        ("I18", [turn(1)]),
        ("I18", [ended(9)]),
        ("I17", [snapshot(0), turn(2)]),
        ("I17", [snapshot(0), turn(1), turn(1)]),
        ("I17", [snapshot(0), envelope(1, Gap(1, 9), 9), turn(10)]),
        ("I17", [snapshot(0), envelope(2, Gap(2, 9), 9)]),
        ("I18", [snapshot(5), turn(6), snapshot(5)]),
        ("I19", [snapshot(0), ended(1), turn(2)]),
        ("I19", [snapshot(0), ended(1), ended(2)]),
        ("I19", [snapshot(0), ended(1), snapshot(0, "j"), snapshot(1)]),
        ("I17", [snapshot(3, text="ab"), delta(4, 1, "b")]),
        ("I17", [snapshot(0), delta(1, 0, "ab"), delta(2, 3, "d")]),
    ],
)
def test_spy_when_something_is_wrong(invariant: str, envelopes: list[Envelope]) -> None:
    """Each rule that is broken is named."""
    spy = EventSpy()

    with pytest.raises(Violation, match=invariant):
        for seen in envelopes:
            spy.add(seen)


def test_spy_when_no_end_was_seen() -> None:
    """An agent that was not seen to end is named."""
    spy = EventSpy()
    spy.add(snapshot(0))

    with pytest.raises(Violation, match="I19"):
        spy.check_complete()
    spy.add(ended(1))
    spy.check_complete()


async def test_spy_when_it_reads(autojump_clock: trio.testing.MockClock) -> None:
    """The spy reads a real viewer to its end."""
    agent = Agent(model=ScriptedModel(["the answer"]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        async with sessions.watch("c") as watch, EventSpy().reading(watch) as spy:
            await (await sessions.post("c", "hello")).wait()
            await sessions.stop("c")
        spy.check_complete()

    assert "the answer" == spy.text()
    assert [Completed] == [type(outcome) for outcome in spy.outcomes()]
    assert [ShutdownReason.STOPPED] == [event.reason for event in spy.of(AgentShutdown)]

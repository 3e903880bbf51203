"""The fuzzed provider, CI's volume: no half answer as a whole one, no call with other arguments than were sent, no turn without an end."""

import pytest

from tests.search.providers.judging import Made, violations
from tests.search.providers.nightly import rows
from tests.search.providers.running import run_events, run_sessions
from tests.search.providers.streams import MUTATIONS, PROTOCOLS, Protocol, stream

EVENTS = 500
SESSIONS = 40


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_streams_when_mutated(protocol: Protocol) -> None:
    """An adapter's event layer makes of a mutated stream what was sent, or a failure."""
    report = run_events(protocol, 11, 0, EVENTS)

    assert [] == report.found
    assert EVENTS == report.count
    assert report.answered > EVENTS // 5, "most good streams are answers"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_sessions_when_streams_are_mutated(protocol: Protocol) -> None:
    """Through the SDK, HTTP and a session, each turn ends, and no tool runs with the arguments of two calls."""
    report = await run_sessions(protocol, 12, SESSIONS)

    assert [] == report.found
    assert SESSIONS == report.count


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_streams_when_made_again(protocol: Protocol) -> None:
    """Stream number N of a seed is always the same, and each mutation is made."""
    assert stream(protocol, 3, 7) == stream(protocol, 3, 7)
    done = " ".join(mutation for number in range(400) for mutation in stream(protocol, 3, number).mutations)
    expected = {name for name, _ in MUTATIONS} - ({"no index", "no ids"} if protocol == "anthropic" else set())

    assert {name for name in expected if name in done} == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_violations_when_nothing_is_wrong(protocol: Protocol) -> None:
    """A judge that sees nothing proves nothing: of a good stream it takes the whole answer, and no other."""
    good = next(one for number in range(100) if not (one := stream(protocol, 3, number)).mutations and "call" in str(one.events))

    assert [] != list(violations(good, Made(reason="stop")))
    assert [] != list(violations(good, Made(error=ValueError())))


def test_rows_when_the_night_is_short() -> None:
    """The nightly table has a line for each protocol and each way to read it."""
    stages = ["fuzzed provider, openai", "fuzzed provider, anthropic", "fuzzed provider, in sessions", "long conversations"]

    assert [(stage, 0) for stage in stages] == [(row.stage, row.violations) for row in rows(0.001, processes=1)]


@pytest.mark.parametrize(("protocol", "number"), [("openai", 46060), ("openai", 87286), ("anthropic", 59687)])
def test_streams_when_they_were_misread_once(protocol: Protocol, number: int) -> None:
    """Streams of which a long run has told: pieces that name no call, in another order; and an event without a type, with no content."""
    assert [] == run_events(protocol, 960269584, number, 1).found

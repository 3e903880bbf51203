"""Expiry: which calls are rejected because nobody decided in time, and when the others are due."""

import datetime

import pytest

from trio_sagents.conversation.expiry import due_calls, expiry_of, expiry_of_rest
from trio_sagents.data.interrupts import Interrupt, PendingCall

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def call(name: str, timeout: float | None) -> PendingCall:
    return PendingCall(name, name, {}, timeout=timeout)


def interrupt_of(*calls: PendingCall) -> Interrupt:
    return Interrupt("i", "t", calls, expires_at=expiry_of(calls, NOW))


@pytest.mark.parametrize(
    ("seconds", "due"), [(0.0, ["a", "b"]), (10.0, ["a", "b"]), (19.0, ["a", "b"]), (20.0, ["a", "b", "c"]), (9e9, ["a", "b", "c"])]
)
def test_due_calls_when_each_has_a_time_of_its_own(seconds: float, due: list[str]) -> None:
    """Calls with the shortest time are due, whatever the clock says, and those whose own time is over; a call without a time never is."""
    interrupt = interrupt_of(call("a", 10.0), call("b", 10.0), call("c", 20.0), call("d", None))

    assert due == [waiting.call_id for waiting in due_calls(interrupt, NOW + datetime.timedelta(seconds=seconds))]


def test_due_calls_when_the_interrupt_has_no_deadline() -> None:
    """Calls that may wait for ever are never due."""
    interrupt = interrupt_of(call("a", None), call("b", None))

    assert interrupt.expires_at is None
    assert () == due_calls(interrupt, NOW + datetime.timedelta(days=10_000))


def test_expiry_of_rest_when_some_are_decided() -> None:
    """The calls that are left have the time that they had from the beginning."""
    calls = [call("a", 10.0), call("b", 20.0), call("c", None)]
    interrupt = interrupt_of(*calls)

    assert NOW + datetime.timedelta(seconds=20) == expiry_of_rest(interrupt, calls[1:])
    assert interrupt.expires_at == expiry_of_rest(interrupt, calls[:1])
    assert expiry_of_rest(interrupt, calls[2:]) is None


def test_expiry_when_the_time_is_longer_than_there_are_dates() -> None:
    """A call whose time would be over after the last date waits for ever."""
    last = datetime.datetime.max.replace(tzinfo=datetime.UTC)

    assert expiry_of([call("a", 1e12)], NOW) is None
    assert expiry_of([call("a", 10.0)], last) is None
    assert last - datetime.timedelta(seconds=5) == expiry_of([call("a", 5.0)], last - datetime.timedelta(seconds=10))


def test_expiry_of_rest_when_the_others_may_wait_for_ever() -> None:
    """Once the only calls with a time are decided, the others wait for ever, and an interrupt without a deadline gets none."""
    calls = [call("a", 10.0), call("b", None)]

    assert expiry_of_rest(interrupt_of(*calls), calls[1:]) is None
    assert expiry_of_rest(interrupt_of(calls[1]), calls[1:]) is None

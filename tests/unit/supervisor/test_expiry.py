"""Expiry: which calls are due, and when the others are."""

import datetime

import pytest

from trio_sagents import Interrupt, PendingCall
from trio_sagents.supervisor._expiry import due_calls, expiry_of, expiry_of_rest

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def call(name: str, timeout: float | None) -> PendingCall:
    return PendingCall(name, name, {}, timeout=timeout)


def interrupt_of(*calls: PendingCall) -> Interrupt:
    return Interrupt("i", "t", calls, expires_at=expiry_of(calls, NOW))


@pytest.mark.parametrize(
    ("seconds", "due"), [(0.0, ["a", "b"]), (10.0, ["a", "b"]), (19.0, ["a", "b"]), (20.0, ["a", "b", "c"]), (9e9, ["a", "b", "c"])]
)
def test_due_calls_when_each_has_a_time_of_its_own(seconds: float, due: list[str]) -> None:
    """The calls with the shortest time are due, whatever the clock says, and those whose time is over. A call without a time never is."""
    interrupt = interrupt_of(call("a", 10.0), call("b", 10.0), call("c", 20.0), call("d", None))

    assert due == [call.call_id for call in due_calls(interrupt, NOW + datetime.timedelta(seconds=seconds))]


def test_due_calls_when_the_interrupt_has_no_deadline() -> None:
    """A call that may wait for ever is never due."""
    interrupt = interrupt_of(call("a", None), call("b", None))

    assert interrupt.expires_at is None
    assert () == due_calls(interrupt, NOW + datetime.timedelta(days=10_000))


def test_expiry_of_rest_when_some_are_decided() -> None:
    """Who is left has the time that it had from the beginning."""
    calls = [call("a", 10.0), call("b", 20.0), call("c", None)]
    interrupt = interrupt_of(*calls)

    assert NOW + datetime.timedelta(seconds=20) == expiry_of_rest(interrupt, calls[1:])
    assert interrupt.expires_at == expiry_of_rest(interrupt, calls[:1])
    assert expiry_of_rest(interrupt, calls[2:]) is None

"""Expiry: when a call that nobody decides is rejected.

Each call of an interrupt has a time of its own, in seconds from the moment at which it began to wait. The interrupt keeps one
instant, at which the first call expires. The instants of the other calls follow from the differences of their times.
"""

import datetime
import math
from collections.abc import Iterable, Sequence

from trio_sagents.data.interrupts import Interrupt, PendingCall


def expiry_of(calls: Iterable[PendingCall], now: datetime.datetime) -> datetime.datetime | None:
    """Return when the first of these calls is rejected; None if they wait for ever, or for longer than there are dates."""
    return _later(now, _shortest(calls))


def expiry_of_rest(interrupt: Interrupt, calls: Sequence[PendingCall]) -> datetime.datetime | None:
    """Return the same for those of its calls that an interrupt still has, each by the time that it had from the beginning."""
    if interrupt.expires_at is None or math.isinf(_shortest(interrupt.calls)):
        return None
    return _later(interrupt.expires_at, _shortest(calls) - _shortest(interrupt.calls))


def due_calls(interrupt: Interrupt, now: datetime.datetime) -> Sequence[PendingCall]:
    """Return the calls whose time is over: those with the shortest time in any case, then each by its own."""
    if interrupt.expires_at is None:
        return ()
    passed = _shortest(interrupt.calls) + max((now - interrupt.expires_at).total_seconds(), 0.0)
    return [call for call in interrupt.calls if call.timeout is not None and call.timeout <= passed]


def _later(at: datetime.datetime, seconds: float) -> datetime.datetime | None:
    left = datetime.datetime.max.replace(tzinfo=datetime.UTC) - at
    return at + datetime.timedelta(seconds=seconds) if seconds < left.total_seconds() else None


def _shortest(calls: Iterable[PendingCall]) -> float:
    return min((call.timeout for call in calls if call.timeout is not None), default=math.inf)

"""When what nobody decides is decided by itself."""

import datetime
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from trio_sagents.data.interrupts import Interrupt, PendingCall
from trio_sagents.supervisor._runtime import wall_clock

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


def expiry_of(calls: Iterable[PendingCall], now: datetime.datetime) -> datetime.datetime | None:
    """Return when the first of these calls is taken as rejected; None where they wait for ever, or longer than there are dates."""
    return _later(now, _shortest(calls))


def expiry_of_rest(interrupt: Interrupt, calls: Sequence[PendingCall]) -> datetime.datetime | None:
    """Return the same for those of its calls that an interrupt still has, each by the time that it had from the beginning."""
    if interrupt.expires_at is None or math.isinf(_shortest(interrupt.calls)):
        return None
    return _later(interrupt.expires_at, _shortest(calls) - _shortest(interrupt.calls))


def due_calls(interrupt: Interrupt, now: datetime.datetime) -> Sequence[PendingCall]:
    """Return the calls whose time is over, those with the shortest in any case; each has a time of its own."""
    if interrupt.expires_at is None:
        return ()
    passed = _shortest(interrupt.calls) + max((now - interrupt.expires_at).total_seconds(), 0.0)
    return [call for call in interrupt.calls if call.timeout is not None and call.timeout <= passed]


def _later(at: datetime.datetime, seconds: float) -> datetime.datetime | None:
    left = datetime.datetime.max.replace(tzinfo=datetime.UTC) - at
    return at + datetime.timedelta(seconds=seconds) if seconds < left.total_seconds() else None


def _shortest(calls: Iterable[PendingCall]) -> float:
    return min((call.timeout for call in calls if call.timeout is not None), default=math.inf)


def expire_later(live: "LiveAgent", after: float = 0.0) -> None:
    """Have the open interrupt expire when its time is over, and `after` seconds at the earliest; instead of what was to expire before."""
    if live.expiry is not None:
        live.expiry.cancel()
        live.expiry = None
    interrupt = live.ledger.interrupt
    if interrupt is None or interrupt.expires_at is None:
        return

    def expire() -> None:
        live.expiry = None
        if live.is_accepting:
            live.nursery.start_soon(live.answering.expire, interrupt)

    seconds = max(after, (interrupt.expires_at - wall_clock()).total_seconds())
    live.expiry = live.runtime.timers.call_at(trio.current_time() + seconds, expire)

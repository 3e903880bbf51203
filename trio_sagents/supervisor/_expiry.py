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
    first = _shortest(calls)
    left = datetime.datetime.max.replace(tzinfo=datetime.UTC) - now
    return now + datetime.timedelta(seconds=first) if first < left.total_seconds() else None


def began_at(interrupt: Interrupt) -> datetime.datetime | None:
    """Return when an interrupt began, as its deadline tells; None where it has none."""
    if interrupt.expires_at is None:
        return None
    return interrupt.expires_at - datetime.timedelta(seconds=_shortest(interrupt.calls))


def due_calls(interrupt: Interrupt, now: datetime.datetime) -> Sequence[PendingCall]:
    """Return the calls whose time is over, those with the shortest in any case; each has a time of its own."""
    began = began_at(interrupt)
    if began is None:
        return ()
    over = max((now - began).total_seconds(), _shortest(interrupt.calls))
    return [call for call in interrupt.calls if call.timeout is not None and call.timeout <= over]


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
            live.nursery.start_soon(live.answering.expire)

    seconds = max(after, (interrupt.expires_at - wall_clock()).total_seconds())
    live.expiry = live.runtime.timers.call_at(trio.current_time() + seconds, expire)

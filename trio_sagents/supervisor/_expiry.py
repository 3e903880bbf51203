"""When what nobody decides is decided by itself."""

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from trio_sagents.data.interrupts import PendingCall
from trio_sagents.supervisor._runtime import wall_clock

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


def expiry_of(calls: Iterable[PendingCall], now: datetime.datetime) -> datetime.datetime | None:
    """Return when the first of these calls is taken as rejected; None where they wait for ever."""
    timeouts = [call.timeout for call in calls if call.timeout is not None]
    return now + datetime.timedelta(seconds=min(timeouts)) if timeouts else None


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

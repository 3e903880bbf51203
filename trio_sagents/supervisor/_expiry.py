"""When what nobody decides is decided by itself."""

import datetime
from collections.abc import Iterable

from trio_sagents.data.interrupts import PendingCall


def expiry_of(calls: Iterable[PendingCall], now: datetime.datetime) -> datetime.datetime | None:
    """Return when the first of these calls is taken as rejected; None where they wait for ever."""
    timeouts = [call.timeout for call in calls if call.timeout is not None]
    return now + datetime.timedelta(seconds=min(timeouts)) if timeouts else None

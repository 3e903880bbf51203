"""The garbage collector, set for a process with many live agents.

An agent that runs cleanly leaves no garbage in cycles, so what the collector does for it is pure cost: it looks again and again at objects
that live. With the settings of Python a full collection of a thousand agents that stream stops the event loop for 0.3 seconds, and the
collector takes more than half of the processor time of a token. The settings are those of the whole process, and other code of the host
may need others, so nothing here is done silently.
"""

import gc
from typing import Final

YOUNG: Final = 50_000
_MIDDLE: Final = 20
_OLD: Final = 100


def tune_gc(*, young: int = YOUNG, freeze: bool = False) -> tuple[int, int, int]:
    """Have Python look for garbage less often, in the whole process. Call this once, at the start of a server with many sessions.

    The young generation is collected after `young` new objects instead of 700 (2,000 in Python 3.13), and full collections are much
    rarer. Garbage in cycles therefore lives longer: a host that makes much of it should give a smaller `young`. Everything else is freed
    immediately, as always.

    Args:
        young: how many more objects may be made than freed before the young generation is collected; at least 1. 20,000 to 50,000 suit
            a server.
        freeze: whether to collect now, and never to look again at what is left (`gc.freeze`): for a process whose modules and caches
            are loaded. Objects that are frozen and become garbage in a cycle later are never freed.

    Returns:
        The thresholds that held before; `gc.set_threshold(*thresholds)` brings them back.

    Raises:
        TypeError, ValueError: `young` is not an int, or is less than 1; nothing was changed.
    """
    if type(young) is not int:
        raise TypeError(f"young must be an int, not {type(young).__name__}")
    if young < 1:
        raise ValueError(f"young must be at least 1, not {young}")
    before = gc.get_threshold()
    if freeze:
        gc.collect()
        gc.freeze()
    gc.set_threshold(young, _MIDDLE, _OLD)
    return before

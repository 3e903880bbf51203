"""The library's log, in stories that contain crashes on purpose."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("trio_sagents")


@contextmanager
def quiet_log() -> Iterator[None]:
    """Log nothing of the library in the block. The level is restored after the block, because other tests read the log."""
    level = _LOG.level
    _LOG.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        _LOG.setLevel(level)

"""The library's log, in stories whose crashes are part of them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("trio_sagents")


@contextmanager
def quiet_log() -> Iterator[None]:
    """Log nothing of the library in the block; behind it the level is what it was: other tests read the log."""
    level = _LOG.level
    _LOG.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        _LOG.setLevel(level)

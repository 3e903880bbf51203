"""What is remembered of a server from one connection to the next: how to speak to it first, and when to try again."""

import math
from typing import Final, Literal

import attrs
import trio

Mode = Literal["legacy", "auto"]
"""How a server is spoken to first: with `initialize`, or with a request of the newest revision of the protocol ("auto")."""
FIRST_DELAY: Final = 0.5
"""Seconds until a server is tried again that could not be connected to; they double with each failure."""
MAX_DELAY: Final = 60.0
"""Seconds between two attempts at the most. There is no last attempt."""
PATIENCE: Final = 10.0
"""Seconds that the start of an agent waits for a server that is not required."""
SHORT_PATIENCE: Final = 1.0
"""Seconds that it waits for a server that was not ready within `PATIENCE` the last time."""


@attrs.define(eq=False)
class Memory:
    """What came of the last attempts to connect to one server. `Mcp` has one for the connections of all its agents.

    Some servers end at a first request that is not `initialize`, and some never answer it. The next attempt, and the next agent, begins
    with what worked.
    """

    mode: Mode = "auto"
    failures: int = 0
    """Attempts in a row that failed."""
    why: str = ""
    """Why the last of them failed."""
    is_slow: bool = False
    """Whether the server was not ready in time when an agent started."""
    _retry_at: float = -math.inf

    def note_success(self, mode: Mode) -> None:
        """A connection is open; it was opened in this way."""
        self.mode, self.failures, self.why, self._retry_at = mode, 0, "", -math.inf

    def note_failure(self, why: str) -> None:
        """A connection could not be opened."""
        self.failures, self.why = self.failures + 1, why
        self._retry_at = trio.current_time() + min(MAX_DELAY, FIRST_DELAY * 2 ** min(self.failures - 1, 16))

    def delay(self) -> float:
        """Return the seconds until the server is tried again; 0 if it may be tried now."""
        left = self._retry_at - trio.current_time()
        return left if 0 < left <= MAX_DELAY else 0.0  # more than that was noted in another run of Trio, by another clock

    @property
    def patience(self) -> float:
        """Seconds that the start of an agent waits."""
        return SHORT_PATIENCE if self.is_slow else PATIENCE


def other(mode: Mode) -> Mode:
    """Return the other way to speak to a server first."""
    return "auto" if mode == "legacy" else "legacy"

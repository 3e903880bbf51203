"""What a model tells the log, once for each object, so that nobody believes what does not hold."""

import logging
from collections.abc import Sequence
from typing import Final

from trio_sagents.data.messages import Message
from trio_sagents.models._history import count_foreign

log: Final = logging.getLogger("trio_sagents")


class Notices:
    """The notices of one model."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._told: set[str] = set()

    def answered(self, *, has_usage: bool, is_complete: bool) -> None:
        """Warn if a whole answer came without usage: a limit on tokens has no effect then."""
        if is_complete and not has_usage and "usage" not in self._told:
            self._told.add("usage")
            log.warning(
                "%s: the provider does not report how many tokens an answer took, so limits on tokens cannot be enforced", self._who
            )

    def left_out(self, messages: Sequence[Message], provider: str) -> None:
        """Note that parts of the history, which only another provider can read, are left out of a request."""
        for owner, count in count_foreign(messages, provider).items():
            if owner not in self._told:
                self._told.add(owner)
                log.info("%s: left out %d parts of the history that only %s can read", self._who, count, owner)

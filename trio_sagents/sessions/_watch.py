"""Watching: a subscriber for one conversation, whose agent is running."""

import attrs

from trio_sagents.broadcast import Subscriber
from trio_sagents.sessions._reports import SessionInfo


@attrs.define(eq=False)
class Watch(Subscriber):
    """A subscriber that is subscribed to one conversation; subscribe it to more as you like."""

    _info: SessionInfo | None = attrs.field(default=None, init=False)

    @property
    def info(self) -> SessionInfo:
        """The agent that was running, or was started, when the watch began."""
        assert self._info is not None
        return self._info

    @info.setter
    def info(self, info: SessionInfo) -> None:
        self._info = info

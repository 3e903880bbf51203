"""The states of an agent, the ways it may leave, and why a turn was cut."""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """What an agent is doing."""

    IDLE = "idle"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    ERROR = "error"


class ShutdownReason(StrEnum):
    """Why an agent ended."""

    INACTIVITY = "inactivity"
    """Nothing happened for `inactivity_timeout`."""
    NO_VIEWERS = "no_viewers"
    """Its last viewer left, and nobody came within `viewer_grace`."""
    STOPPED = "stopped"
    """Somebody called `stop`."""
    CLOSED = "closed"
    """The `open_sessions` block was left, normally or by an error."""
    HOST_CANCELLED = "host_cancelled"
    """The `open_sessions` block was cancelled from outside."""
    CRASHED = "crashed"
    """The agent raised an exception; the log has the cause. The next start restores the agent from the store."""
    FENCED = "fenced"
    """Another writer took over the conversation; nothing of this agent was saved after that."""
    DRAINED = "drained"
    """`drain()` ended it."""


class CancelCause(StrEnum):
    """Why a turn was cut. The first cause wins."""

    USER = "user"
    """`cancel_turn`."""
    SUPERSEDED = "superseded"
    """A `post` with `overlap="interrupt"`."""
    STOPPED = "stopped"
    HOST_FAILED = "host_failed"
    HOST_CANCELLED = "host_cancelled"
    CLOSED = "closed"
    DRAINED = "drained"
    FENCED = "fenced"
    CRASHED = "crashed"
    DISMISSED = "dismissed"
    """A person acknowledged a halt: `dismiss`."""


HELD: Final = frozenset({Status.ERROR, Status.INTERRUPTED, Status.PAUSED})
"""Statuses in which the queue waits for the next `post` or `resume`."""

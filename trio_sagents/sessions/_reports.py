"""What the front door answers with."""

import attrs

from trio_sagents.supervisor import AgentHandle


@attrs.frozen
class SessionInfo:
    """A running agent."""

    agent_id: str
    conversation_id: str
    agent: AgentHandle
    """Bound to the scope of the call."""
    started: bool
    """Whether this call is the one that started it: exactly one call per boot."""


@attrs.frozen
class DrainReport:
    """What became of the agents when they were drained."""

    idle: int
    """Ended at once: they had nothing to do."""
    finished: int
    """Ended their turn within `grace_period`."""
    cancelled: int
    """Their turn was cut, and settled."""
    queued: int
    """Accepted messages that wait for the next start, over all agents."""


@attrs.frozen
class SessionsStatistics:
    """Counts at one moment."""

    agents: int
    """Ids that are taken: agents that boot, live or end."""
    booting: int
    running: int
    """Turns that run."""
    stopping: int
    subscriptions: int
    pending_writes: int
    """Conversations with writes at the store."""
    timers: int

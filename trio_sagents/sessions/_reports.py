"""The values that methods of `Sessions` return."""

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
    """Whether this call started the agent. Exactly one call per start gets True."""


@attrs.frozen
class DrainReport:
    """How the agents ended when they were drained."""

    idle: int
    """Agents that had nothing to do, and ended immediately."""
    finished: int
    """Agents that finished their turn within `grace_period`."""
    cancelled: int
    """Agents whose turn was cut, and settled."""
    queued: int
    """Accepted messages that wait for the next start, over all agents."""


@attrs.frozen
class SessionsStatistics:
    """Counts of one moment, over all scopes."""

    agents: int
    """Agent ids in use: `booting`, `stopping`, and those that accept commands."""
    booting: int
    """Agents that are starting."""
    running: int
    """Turns that are running."""
    stopping: int
    """Agents that are ending, and conversations that are being deleted."""
    subscriptions: int
    """Open subscriptions, whether an agent is running or not."""
    pending_writes: int
    """Conversations with writes that the store has not answered."""
    timers: int
    """Timers that are set."""

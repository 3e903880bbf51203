"""A picture of a running agent."""

import datetime
from collections.abc import Mapping

import attrs

from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import JSON
from trio_sagents.data.status import Status


@attrs.frozen
class AgentInfo:
    """A picture of a running agent."""

    agent_id: str
    conversation_id: str
    status: Status
    message_count: int
    """Messages in the history."""
    queued: int
    """Accepted messages that wait for a turn."""
    viewers: int
    interrupt: Interrupt | None
    started_at: datetime.datetime
    last_activity_at: datetime.datetime
    middleware: Mapping[str, JSON] = attrs.field(factory=dict)
    """By middleware id, in order: its settings, as its `debug_summary` tells them; {} if it has none. Empty in lists of agents."""

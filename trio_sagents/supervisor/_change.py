"""What one commit changes in the books, as values."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import attrs

from trio_sagents.data.interrupts import DecisionRecord, Interrupt
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import Message
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.records import DisplayMessage, Lifecycle, ToolUpdate
from trio_sagents.data.scopes import Scope
from trio_sagents.data.todos import Todo

Taken: TypeAlias = Mapping[str, Sequence[DecisionRecord]]
"""By the id of an open call: what was decided about it, and about the calls of its sub-agent."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})  # type: ignore[explicit-any]  # of whatever it has none
"""Shared by all agents, which mostly have no decisions."""
NO_CHANGE: Final = object()
"""Stands for "leave it as it is" where None is a value."""


@attrs.frozen(kw_only=True)
class Change:
    """What one commit changes, as values."""

    lifecycle: Lifecycle
    actor: Scope = attrs.field(default=None, repr=False)
    messages: Sequence[Message] = ()
    """Go to the history."""
    queued: Sequence[Message] = ()
    """Go to the queue."""
    taken: Sequence[str] = ()
    """Leave the queue."""
    new_ids: Mapping[str, str] = attrs.field(factory=dict)
    """Message ids that are used from now on, with their digests."""
    draft: "Message | object | None" = NO_CHANGE
    interrupt: "Interrupt | object | None" = NO_CHANGE
    suspended: JSON = attrs.field(factory=dict, repr=False)
    """By call id: the sub-agents that wait in the interrupt; goes with it."""
    used: Usage = attrs.field(factory=Usage)
    """What the turn that waits has used so far; goes with the interrupt, too."""
    decided: Sequence[DecisionRecord] = ()
    """Decisions that are new."""
    standing: "Taken | None" = None
    """The decisions about calls that are open; None leaves them."""
    todos: "Sequence[Todo] | None" = None
    metadata: JSON | None = None
    """Keys to set; None as a value removes the key. None leaves all."""
    shown: Sequence[Message] = ()
    """Messages that are new in the transcript."""
    rows: Sequence[DisplayMessage] = ()
    tool_updates: Sequence[ToolUpdate] = ()

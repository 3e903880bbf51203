"""Todos: the list an agent keeps of what it has to do."""

from typing import Literal, TypeAlias

import attrs

TodoStatus: TypeAlias = Literal["pending", "in_progress", "completed", "cancelled"]


@attrs.frozen
class Todo:
    """One thing to do."""

    id: int
    """Positive, unique in its list; the list is sorted by it."""
    content: str
    status: TodoStatus = "pending"

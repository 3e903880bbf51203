"""Todos: the list in which an agent keeps what it has to do."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sagents.data.json import check_text

TodoStatus: TypeAlias = Literal["pending", "in_progress", "completed", "cancelled"]


@attrs.frozen
class Todo:
    """Something to do."""

    id: int
    """A positive number, unique in its list; the list is sorted by it."""
    content: str
    status: TodoStatus = "pending"

    @property
    def is_open(self) -> bool:
        """Whether it is still to be done: it is neither completed nor cancelled."""
        return self.status in {"pending", "in_progress"}


_STATUSES: Final = frozenset(get_args(TodoStatus))


def checked_todos(todos: Iterable[Todo], where: str = "todos") -> Sequence[Todo]:
    """Return a list of todos as it can be stored, sorted by id; refuse what could not be loaded again.

    Args:
        todos: the whole list; read once, not kept.
        where: the name of the list in errors.

    Raises:
        TypeError: an element is not a `Todo`, or has a field of another type.
        ValueError: an id is not positive or not unique, a status is unknown, or a text cannot be stored.
    """
    if isinstance(todos, str) or not isinstance(todos, Iterable):
        raise TypeError(f"{where} must be a sequence of Todo, not {todos!r}")
    kept: dict[int, Todo] = {}
    for index, todo in enumerate(todos):
        place = f"{where}[{index}]"
        if not isinstance(todo, Todo):
            raise TypeError(f"{place} must be a Todo, not {todo!r}")
        if isinstance(todo.id, bool) or not isinstance(todo.id, int) or not isinstance(todo.content, str):
            raise TypeError(f"{place}: the id of a todo must be an int, and its content a str, not {todo!r}")
        if todo.id < 1 or todo.id in kept:
            raise ValueError(f"{place}: an id must be positive and unique in its list; {todo.id} is not")
        if todo.status not in _STATUSES:
            raise ValueError(f"{place}: the status must be one of {', '.join(sorted(_STATUSES))}, not {todo.status!r}")
        check_text(todo.content, place)
        kept[todo.id] = todo
    return tuple(kept[number] for number in sorted(kept))

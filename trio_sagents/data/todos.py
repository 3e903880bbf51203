"""Todos: the list an agent keeps of what it has to do."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sagents.data.json import check_text

TodoStatus: TypeAlias = Literal["pending", "in_progress", "completed", "cancelled"]


@attrs.frozen
class Todo:
    """One thing to do."""

    id: int
    """Positive, unique in its list; the list is sorted by it."""
    content: str
    status: TodoStatus = "pending"


_STATUSES: Final = frozenset(get_args(TodoStatus))


def checked_todos(todos: Iterable[Todo], where: str = "todos") -> Sequence[Todo]:
    """Return one list of todos as it can be kept, sorted by id: what could not be loaded again is refused here.

    Args:
        todos: the whole list; read once, not kept.
        where: what errors call it.

    Raises:
        TypeError: something in it is no `Todo`, or has a field of another type.
        ValueError: an id is not positive or is there twice, a status is unknown, or a text cannot be stored.
    """
    if isinstance(todos, str) or not isinstance(todos, Iterable):
        raise TypeError(f"{where} is a sequence of Todo, not {todos!r}")
    kept: dict[int, Todo] = {}
    for index, todo in enumerate(todos):
        place = f"{where}[{index}]"
        if not isinstance(todo, Todo):
            raise TypeError(f"{place} is a Todo, not {todo!r}")
        if isinstance(todo.id, bool) or not isinstance(todo.id, int) or not isinstance(todo.content, str):
            raise TypeError(f"{place}: a todo has an int as its id and a text, not {todo!r}")
        if todo.id < 1 or todo.id in kept:
            raise ValueError(f"{place}: ids are positive, and unique in their list; {todo.id} is not")
        if todo.status not in _STATUSES:
            raise ValueError(f"{place}: the status is one of {', '.join(sorted(_STATUSES))}, not {todo.status!r}")
        check_text(todo.content, place)
        kept[todo.id] = todo
    return tuple(kept[number] for number in sorted(kept))

"""A list of todos as it is kept: what could not be loaded again is refused."""

from typing import Any

import pytest

from trio_sagents import Todo
from trio_sagents.data.todos import TodoStatus, checked_todos


def test_checked_todos_when_they_are_in_any_order() -> None:
    """They are sorted by their ids; whatever can be iterated over will do."""
    assert (Todo(1, "a"), Todo(3, "b", "completed")) == checked_todos(todo for todo in (Todo(3, "b", "completed"), Todo(1, "a")))
    assert () == checked_todos([])


@pytest.mark.parametrize(
    ("todos", "error", "words"),
    [
        ("abc", TypeError, "todos must be a sequence of Todo"),
        (None, TypeError, "todos must be a sequence of Todo"),
        ([{"content": "a"}], TypeError, r"todos\[0\] must be a Todo"),
        ([Todo("1", "a")], TypeError, "the id of a todo must be an int"),  # type: ignore[arg-type]  # wrong on purpose, as the others
        ([Todo(True, "a")], TypeError, "the id of a todo must be an int"),
        ([Todo(1, 3)], TypeError, "its content a str"),  # type: ignore[arg-type]  # as above
        ([Todo(0, "a")], ValueError, "an id must be positive"),
        ([Todo(1, "a"), Todo(1, "b")], ValueError, r"todos\[1\]: an id must be positive and unique"),
        ([Todo(1, "a", "done")], ValueError, "not 'done'"),  # type: ignore[arg-type]  # as above
        ([Todo(1, "\ud800")], ValueError, "lone surrogates"),
    ],
)
def test_checked_todos_when_they_cannot_be_kept(todos: Any, error: type[Exception], words: str) -> None:
    """The error names the place."""
    with pytest.raises(error, match=words):
        checked_todos(todos)


@pytest.mark.parametrize(("status", "is_open"), [("pending", True), ("in_progress", True), ("completed", False), ("cancelled", False)])
def test_todo_when_it_is_open(status: TodoStatus, is_open: bool) -> None:
    """A todo is open until it is completed or cancelled."""
    assert is_open is Todo(1, "a", status).is_open

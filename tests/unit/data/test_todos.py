"""A list of todos as it is kept: what could not be loaded again is refused."""

from typing import Any

import pytest

from trio_sagents import Todo
from trio_sagents.data.todos import checked_todos


def test_checked_todos_when_they_are_in_any_order() -> None:
    """They are sorted by their ids; whatever can be iterated over will do."""
    assert (Todo(1, "a"), Todo(3, "b", "completed")) == checked_todos(todo for todo in (Todo(3, "b", "completed"), Todo(1, "a")))
    assert () == checked_todos([])


@pytest.mark.parametrize(
    ("todos", "error", "words"),
    [
        ("abc", TypeError, "todos is a sequence of Todo"),
        (None, TypeError, "todos is a sequence of Todo"),
        ([{"content": "a"}], TypeError, r"todos\[0\] is a Todo"),
        ([Todo("1", "a")], TypeError, "an int as its id"),  # type: ignore[arg-type]  # wrong on purpose, as the others
        ([Todo(True, "a")], TypeError, "an int as its id"),
        ([Todo(1, 3)], TypeError, "and a text"),  # type: ignore[arg-type]  # as above
        ([Todo(0, "a")], ValueError, "ids are positive"),
        ([Todo(1, "a"), Todo(1, "b")], ValueError, r"todos\[1\]: ids are positive, and unique"),
        ([Todo(1, "a", "done")], ValueError, "not 'done'"),  # type: ignore[arg-type]  # as above
        ([Todo(1, "\ud800")], ValueError, "lone surrogates"),
    ],
)
def test_checked_todos_when_they_cannot_be_kept(todos: Any, error: type[Exception], words: str) -> None:
    """The error names the place."""
    with pytest.raises(error, match=words):
        checked_todos(todos)

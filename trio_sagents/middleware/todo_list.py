"""Todos: a durable list in which the model keeps what it has to do; the model reads the list in each request.

The calls of one answer run in parallel, and each of them may replace the list as it was when the model spoke. So the calls of one
answer are put together in the order in which the model made them, whichever call runs first: no call undoes another.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.agent import MiddlewareContext, Tool, ToolContext
from trio_sagents.data.config import count_validator, type_validator
from trio_sagents.data.json import JSON
from trio_sagents.data.records import Row
from trio_sagents.data.requests import ModelRequest
from trio_sagents.data.todos import Todo, TodoStatus
from trio_sagents.middleware._built_in import BuiltIn

MAX_CONTENT: Final = 1000
"""How many characters a todo may have."""
MAX_ID: Final = 10**9
_KEY: Final = "answer"
_NUMBER: Final = re.compile(r"\s*0*([1-9][0-9]{0,9})\s*")

PROMPT: Final = """\
You keep a list of todos with the tool `write_todos`; the people see the list. Use it for work that takes three steps or more, not for \
a simple question. Write the list before you begin. Have one todo in_progress at a time. Mark a todo completed as soon as it is done, not \
later, and cancelled if it is not needed any more. With merge=true you send only todos that are new or have changed, and the other todos \
stay; without it, your list replaces the old one. When all todos are completed or cancelled, the list is cleared."""


class TodosInvalid(ValueError):  # named by what happened, as all errors of this library are
    """The todos of a call cannot be used; the list is unchanged. The message is for the model."""


@attrs.frozen
class TodoItem:
    """One todo, as a model writes todos."""

    content: str
    """What is to be done, in 1 to 1000 characters."""
    status: TodoStatus | None = None
    """None leaves the status of a todo that exists; a new todo is "pending"."""
    id: int | str | None = None
    """The number of the todo in the list, from 1; none for a new todo."""


@attrs.frozen
class Writing:
    """One call of `write_todos`."""

    items: Sequence[TodoItem]
    merge: bool


@attrs.define(eq=False)
class _Answer:
    """The calls of one answer that have run so far."""

    answer_id: str
    base: Sequence[Todo]
    """The list as it was when the model spoke."""
    writings: dict[int, Writing] = attrs.field(factory=dict)
    """By the place of the call in the answer."""


def write(base: Sequence[Todo], writings: Sequence[Writing], max_items: int) -> Sequence[Todo]:
    """Return the list that the calls of one answer make of `base`, sorted by id; an empty list if no todo is open.

    Args, raises: as `merged`.
    """
    todos = merged(base, writings, max_items)
    return todos if any(todo.is_open for todo in todos) else ()


def merged(base: Sequence[Todo], writings: Sequence[Writing], max_items: int) -> Sequence[Todo]:
    """Return the list that the calls of one answer make of `base`, sorted by id, also if no todo is open.

    Args:
        base: the list as it was when the model spoke.
        writings: the calls, in the order of the answer. A call without merge drops what is in `base`, but not what another call wrote.
        max_items: how many todos there may be.

    Raises:
        TodosInvalid: the todos cannot be used.
    """
    todos = {} if any(not writing.merge for writing in writings) else {todo.id: todo for todo in base}
    writers: dict[int, int] = {}
    for place, writing in enumerate(writings):
        if len(writing.items) > max_items:
            raise TodosInvalid(f"the call has {len(writing.items)} todos; the limit is {max_items}")
        _add(todos, writers, place, writing)
    if len(todos) > max_items:
        raise TodosInvalid(
            f"there would be {len(todos)} todos; the limit is {max_items}: join some of them, or leave out those that are done"
        )
    return tuple(todos[number] for number in sorted(todos))


def _add(todos: dict[int, Todo], writers: dict[int, int], place: int, writing: Writing) -> None:
    """Put the todos of one call into the list; `writers` says which call of this answer made which todo."""
    given = [_number(item.id, f"todos[{index}]") for index, item in enumerate(writing.items)]
    explicit = [number for number in given if number is not None]
    for wanted in explicit:
        if explicit.count(wanted) > 1:
            raise TodosInvalid(f"two todos have the id {wanted}; ids must be unique")
    others = {todos[number].content: number for number in writers}
    for index, item in enumerate(writing.items):
        content = _content(item.content, f"todos[{index}]")
        number = others.get(content) if given[index] is None else given[index]
        if number is None and not writing.merge and index + 1 not in {*explicit, *todos}:
            number = index + 1
        if number is None or (writers.get(number, place) != place and todos[number].content != content):
            number = max((0, *todos, *explicit)) + 1
        known = todos.get(number)
        if number not in writers and known is None:
            writers[number] = place
        todos[number] = Todo(number, content, item.status or ("pending" if known is None else known.status))


def _number(given: int | str | None, where: str) -> int | None:
    if given is None:
        return None
    if isinstance(given, str):
        match = _NUMBER.fullmatch(given)
        if match is None:
            raise TodosInvalid(f"{where}: the id must be a positive integer, not {given[:40]!r}; leave it out for a new todo")
        given = int(match[1])
    if not 1 <= given <= MAX_ID:
        raise TodosInvalid(f"{where}: the id must be an integer from 1 to {MAX_ID}, not {str(given)[:40]}")
    return given


def _content(text: str, where: str) -> str:
    if not text.strip():
        raise TodosInvalid(f"{where}: the content must not be empty")
    if len(text) > MAX_CONTENT:
        raise TodosInvalid(f"{where}: the content must have at most {MAX_CONTENT} characters, not {len(text)}")
    return text


def listed(todos: Sequence[Todo]) -> str:
    """Return the list as a text for the model."""
    return "\n".join(f"{todo.id}. [{todo.status}] {todo.content}" for todo in todos)


@attrs.frozen(eq=False, kw_only=True)
class TodoList(BuiltIn):
    """Gives the agent the tool `write_todos`, and shows the list to the model in each request.

    The list is durable and is in `State.todos`; viewers get `TodosUpdated`.
    """

    max_items: int = attrs.field(default=50, validator=count_validator(finite=True))
    """How many todos there may be."""
    rows: bool = attrs.field(default=False, validator=type_validator(bool))
    """Whether each answer that writes todos leaves a row of the content type "todos" in the transcript, {"todos": [{"id", "content",
    "status"}]}: the list as it was written, also if all of it is done and the list is cleared."""

    async def tools(self, context: MiddlewareContext) -> Sequence[Tool]:
        """Return `write_todos`.

        Cancellation: nothing changes.
        """

        async def write_todos(todos: list[TodoItem], tool_context: ToolContext, merge: bool = False) -> str:  # noqa: D417, FBT001, FBT002  # for a model
            """Write your list of todos, and read the list as it is then.

            Args:
                todos: The todos, each with its content and its status: "pending", "in_progress", "completed" or "cancelled".
                merge: Whether to change and add todos by their id and keep the others; false replaces the whole list.
            """
            return await self._write(context, tool_context, Writing(todos, merge))

        return (Tool.of(write_todos),)

    async def _write(self, context: MiddlewareContext, call: ToolContext, writing: Writing) -> str:
        answer_id, place = _place_of(call)
        answer = context.memory.get(_KEY)
        if not isinstance(answer, _Answer) or answer.answer_id != answer_id:
            answer = _Answer(answer_id, context.state.todos)
        writings = {**answer.writings, place: writing}
        written = merged(answer.base, [writings[number] for number in sorted(writings)], self.max_items)
        todos = written if any(todo.is_open for todo in written) else ()
        # No checkpoint until the list is submitted: a parallel call builds on what this call wrote, whether that is committed or not.
        answer.writings = writings
        context.memory[_KEY] = answer
        row = Row("todos", {"todos": [attrs.asdict(todo) for todo in written]}, key=f"todos:{answer_id}", role="assistant")
        await call.update(todos=todos, rows=(row,) if self.rows else ())
        return f"The todos now:\n{listed(todos)}" if todos else "The list is empty: nothing is left to do."

    async def system_prompt(self, context: MiddlewareContext) -> str:
        """Return the instructions for the tool.

        Cancellation: nothing changes.
        """
        return PROMPT

    async def before_model(self, context: MiddlewareContext, request: ModelRequest) -> ModelRequest:
        """Add the list as it is now to the instructions; the prompt of the turn may be older.

        Cancellation: nothing changes.
        """
        todos = context.state.todos
        if not todos:
            return request
        texts = (request.system, f"The todos now:\n{listed(todos)}")
        return attrs.evolve(request, system="\n\n".join(text for text in texts if text))

    def debug_summary(self) -> JSON:
        """Return the limit."""
        return {"max_items": self.max_items}


def _place_of(call: ToolContext) -> tuple[str, int]:
    """Return the id of the answer that made a call, and the place of the call in the answer; the call itself if none is found."""
    for message in reversed(call.state.messages):
        places: Mapping[str, int] = {made.call_id: place for place, made in enumerate(message.calls)}
        if call.call_id in places:
            return message.message_id, places[call.call_id]
    return call.call_id, 0

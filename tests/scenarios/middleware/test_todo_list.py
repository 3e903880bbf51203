"""`TodoList`: a durable list that the model keeps, and that no two calls spoil."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.middleware import agent_with, asked, on_file
from tests.support.scenarios import FaultyStore, ask, opened, read_all, state_of
from trio_sagents import (
    Agent,
    Middleware,
    MiddlewareError,
    SessionConfig,
    SessionOpts,
    SingleFactoryRouter,
    StartFailed,
    Todo,
    TodosUpdated,
    ToolContext,
    ToolResultPart,
    TurnLimits,
    open_sessions,
)
from trio_sagents.middleware import TodoList
from trio_sagents.middleware.todo_list import TodoItem, TodosInvalid, Writing, write
from trio_sagents.testing import Call, ScriptedModel


def item(content: str, status: Any = None, number: Any = None) -> TodoItem:
    return TodoItem(content, status, number)


def lines(todos: Any) -> list[str]:
    return [f"{todo.id} {todo.content} {todo.status}" for todo in todos]


def writing(*items: TodoItem, merge: bool = False) -> Writing:
    return Writing(items, merge)


BASE = (Todo(1, "a", "completed"), Todo(2, "b"))


@pytest.mark.parametrize(
    ("writings", "expected"),
    [
        ([writing(item("x"), item("y", "in_progress"))], ["1 x pending", "2 y in_progress"]),
        ([writing(item("x", None, "10"), item("y", None, 2))], ["2 y pending", "10 x pending"]),
        ([writing(item("x", None, "007"))], ["7 x pending"]),
        ([writing(item("x"), item("y", None, 1))], ["1 y pending", "2 x pending"]),
        ([writing(item("x"), item("z"), item("y", None, 1))], ["1 y pending", "2 x pending", "3 z pending"]),
        ([writing(item("b", "completed", 2), merge=True)], []),
        ([writing(item("b2", None, 2), merge=True)], ["1 a completed", "2 b2 pending"]),
        ([writing(item("a", None, 1), merge=True)], ["1 a completed", "2 b pending"]),
        ([writing(item("new"), merge=True)], ["1 a completed", "2 b pending", "3 new pending"]),
        ([writing(merge=True)], ["1 a completed", "2 b pending"]),
        ([writing()], []),
        ([writing(item("x", "completed"), item("y", "cancelled"))], []),
        # of one answer, in its order
        ([writing(item("x")), writing(item("y"))], ["1 x pending", "2 y pending"]),
        ([writing(item("x", None, 1)), writing(item("y", None, 1))], ["1 x pending", "2 y pending"]),
        ([writing(item("x")), writing(item("x", "completed"), item("y"))], ["1 x completed", "2 y pending"]),
        ([writing(item("x"), merge=True), writing(item("y"))], ["1 x pending", "2 y pending"]),
        ([writing(item("x")), writing(item("y"), merge=True)], ["1 x pending", "2 y pending"]),
        (
            [writing(item("x", None, 3), merge=True), writing(item("y", None, 3), merge=True)],
            ["1 a completed", "2 b pending", "3 x pending", "4 y pending"],
        ),
        (
            [writing(item("b", "completed", 2), merge=True), writing(item("c"), merge=True)],
            ["1 a completed", "2 b completed", "3 c pending"],
        ),
    ],
)
def test_write_when_valid(writings: list[Writing], expected: list[str]) -> None:
    """Replaced, merged by id, sorted, numbered, and empty where all is resolved."""
    assert expected == lines(write(BASE, writings, 50))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([item(" ")], "todos[0]: the content must not be empty"),
        ([item("x"), item("y" * 1001)], "todos[1]: the content must have at most 1000 characters, not 1001"),
        ([item("x", None, 0)], "todos[0]: the id must be an integer from 1"),
        ([item("x", None, -1)], "todos[0]: the id must be an integer from 1"),
        ([item("x", None, "first")], "todos[0]: the id must be a positive integer, not 'first'"),
        ([item("x", None, 4), item("y", None, "4")], "two todos have the id 4"),
        ([item(f"x{n}") for n in range(6)], "the call has 6 todos; the limit is 5"),
    ],
)
def test_write_when_invalid(items: list[TodoItem], words: str) -> None:
    """What cannot be used is refused as a whole, in words that a model can act on."""
    with pytest.raises(TodosInvalid, match=r".") as caught:
        write(BASE, [writing(*items)], 5)

    assert words in str(caught.value)


def test_write_when_merged_over_the_limit() -> None:
    """The limit holds for the list, not for the call."""
    with pytest.raises(TodosInvalid, match="there would be 3 todos; the limit is 2"):
        write(BASE, [writing(item("c"), merge=True)], 2)


_ITEMS = st.builds(
    TodoItem,
    st.sampled_from("abcdef"),
    st.sampled_from([None, "pending", "in_progress", "completed"]),
    st.none() | st.integers(1, 5),
)
_WRITINGS = st.lists(
    st.builds(Writing, st.lists(_ITEMS, max_size=3, unique_by=lambda todo: todo.id or todo.content), st.booleans()), min_size=1
)


@given(_WRITINGS)
@settings(deadline=None)
def test_write_when_calls_are_parallel(writings: list[Writing]) -> None:
    """The list has what any call of an answer wrote, unless a later call changed it by merging, or everything is done."""
    todos = write((), writings, 1000)

    assert sorted(todo.id for todo in todos) == [todo.id for todo in todos]
    if todos:
        for written in writings:
            for wanted in written.items:
                assert any(wanted.content == todo.content for todo in todos)


async def test_todos_when_the_process_is_restarted(autojump_clock: Any, database: Path) -> None:
    """The list is durable, shown to the model with each request as it is then, told to viewers, and cleared when all is done."""
    first = agent_with(
        TodoList(),
        replies=[Call("write_todos", todos=[{"content": "plan", "status": "in_progress"}, {"content": "do"}]), "planned"],
    )
    async with on_file(database, first) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await ask(sessions, "go")
        events = [envelope.event for envelope in await read_all(subscriber)]
    second = agent_with(
        TodoList(),
        replies=[
            Call("write_todos", merge=True, todos=[{"id": "1", "content": "plan", "status": "completed"}]),
            "half",
            Call("write_todos", merge=True, todos=[{"id": 2, "content": "do", "status": "cancelled"}]),
            "done",
        ],
    )
    async with on_file(database, second) as sessions:
        restored = (await state_of(sessions)).todos
        await ask(sessions, "go on")
        half = (await state_of(sessions)).todos
        await ask(sessions, "and the rest")
        done = (await state_of(sessions)).todos

    assert [["1 plan in_progress", "2 do pending"]] == [lines(event.todos) for event in events if isinstance(event, TodosUpdated)]
    assert ["1 plan in_progress", "2 do pending"] == lines(restored)
    assert ["1 plan completed", "2 do pending"] == lines(half)
    assert () == done
    assert "1. [in_progress] plan" not in asked(first)[0].system
    assert "1. [in_progress] plan\n2. [pending] do" in asked(first)[1].system
    assert "write_todos" in asked(first)[0].system
    assert "1. [in_progress] plan" in asked(second)[0].system
    assert "1. [completed] plan" in asked(second)[1].system
    assert "The todos now" not in asked(second)[3].system
    assert "The list is empty" in asked(second)[3].messages[-1].results[0].content


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("max_parallel", [1, 8])
async def test_todos_when_calls_are_parallel(autojump_clock: Any, database: Path, merge: bool, max_parallel: int) -> None:
    """Parallel calls of one answer lose none of each other's todos, and the order of the calls in the answer decides."""
    calls = [Call("write_todos", merge=merge, todos=[{"content": f"todo {n}"}]) for n in range(8)]
    agent = agent_with(TodoList(), replies=[calls, "written"], limits=TurnLimits(max_parallel=max_parallel))
    async with on_file(database, agent) as sessions:
        await ask(sessions)
        state = await state_of(sessions)

    assert [f"todo {n}" for n in range(8)] == [todo.content for todo in state.todos]


async def test_todos_when_a_call_is_wrong(autojump_clock: Any) -> None:
    """The model reads what is wrong, and the list is as it was; the other calls of the answer are written."""
    replies = [
        [
            Call("write_todos", merge=True, todos=[{"content": "good"}]),
            Call("write_todos", merge=True, todos=[{"content": ""}]),
            Call("write_todos", merge=True, todos=[{"content": "x", "status": "someday"}]),
            Call("write_todos", merge=True, todos=[{"content": "x", "id": 1.5}]),
        ],
        "ok",
    ]
    agent = agent_with(TodoList(), replies=replies)
    async with opened(agent) as sessions:
        await ask(sessions)
        state = await state_of(sessions)

    results: list[ToolResultPart] = sorted(
        (result for message in state.messages for result in message.results), key=lambda result: result.call_id
    )
    assert ["completed", "failed", "failed", "failed"] == [result.status for result in results]
    assert "TodosInvalid: todos[0]: the content must not be empty" in results[1].content
    assert "someday" in results[2].content
    assert ["good"] == [todo.content for todo in state.todos]


async def test_todos_when_the_write_fails(autojump_clock: Any) -> None:
    """A list that could not be stored is not shown, and the next call builds on the stored list."""
    store = FaultyStore()
    write_x = Call("write_todos", todos=[{"content": "x"}])
    write_y = Call("write_todos", merge=True, todos=[{"content": "y"}])
    agent = agent_with(TodoList(), replies=[write_x, write_y, "ok"])
    async with opened(agent, store=store) as sessions:
        store.faults.fail("commit", 3)  # post, answer, todos
        await ask(sessions)
        state = await state_of(sessions)

    first, second = (result for message in state.messages for result in message.results)
    assert ("failed", "completed") == (first.status, second.status)
    assert first.content.startswith("PersistenceError")
    assert "x" not in second.content
    assert ["y"] == [todo.content for todo in state.todos]


async def test_todos_when_a_call_times_out(autojump_clock: Any) -> None:
    """A call that was cut after its list was submitted has written it; what comes next keeps that."""
    store = FaultyStore()
    first, second = Call("write_todos", todos=[{"content": "x"}]), Call("write_todos", merge=True, todos=[{"content": "y"}])
    agent = agent_with(TodoList(), replies=[[first, second], "ok"], limits=TurnLimits(tool_timeout=1.0))
    async with opened(agent, store=store) as sessions:
        store.faults.slow("commit", 5.0, 4)
        await ask(sessions)
        state = await state_of(sessions)

    assert ["x", "y"] == [todo.content for todo in state.todos]


async def test_todos_when_agents_share_the_middleware(autojump_clock: Any) -> None:
    """One instance serves many conversations, each with its own list."""

    def reply(request: Any) -> Any:
        if request.messages[-1].role == "user":
            return Call("write_todos", todos=[{"content": request.messages[-1].text}])
        return "ok"

    agent = agent_with(TodoList(), replies=reply)
    async with opened(agent) as sessions:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(ask, sessions, f"of {name}", name)
        lists = [lines((await state_of(sessions, name)).todos) for name in "abc"]

    assert [["1 of a pending"], ["1 of b pending"], ["1 of c pending"]] == lists


@pytest.mark.parametrize("value", [0, "5", 2.5, True])
def test_max_items_when_wrong(value: Any) -> None:
    """A limit is a positive integer."""
    with pytest.raises((TypeError, ValueError), match="TodoList.max_items"):
        TodoList(max_items=value)


UNKEPT: Mapping[str, Sequence[Any]] = {
    "doubled id": [Todo(1, "a"), Todo(1, "b")],
    "id zero": [Todo(0, "a")],
    "no int": [Todo("1", "a")],  # type: ignore[arg-type]  # wrong on purpose, as the others
    "bool": [Todo(True, "a")],
    "no text": [Todo(1, 3)],  # type: ignore[arg-type]  # as above
    "no status": [Todo(1, "a", "done")],  # type: ignore[arg-type]  # as above
}


class Keeper(Middleware):
    """Keeps as todos what the host says."""

    async def on_message(self, context: Any, message: Any) -> None:
        await context.update(todos=message)


@pytest.mark.parametrize("wrong", [*UNKEPT, "no todo"])
async def test_todos_of_a_middleware_that_could_not_be_loaded_again(autojump_clock: Any, wrong: str) -> None:
    """Todos that could not be loaded again are refused before anything is stored, so the conversation starts again."""
    async with opened(Agent(model=ScriptedModel(["hi"]), middleware=[Keeper()])) as sessions:
        handle = (await sessions.start("c")).agent
        await handle.notify_middleware("Keeper", [Todo(2, "b"), Todo(1, "a")])
        with pytest.raises(MiddlewareError) as caught:
            await handle.notify_middleware("Keeper", UNKEPT.get(wrong, ["a"]))
        await sessions.stop("c")
        await sessions.start("c")

        assert "todos[" in str(caught.value.__cause__)
        assert (Todo(1, "a"), Todo(2, "b")) == (await state_of(sessions)).todos


async def test_todos_of_a_tool_that_could_not_be_loaded_again(autojump_clock: Any) -> None:
    """The model reads why; nothing was stored."""

    async def note(context: ToolContext) -> str:
        await context.update(todos=[Todo(1, "a"), Todo(1, "b")])
        return "noted"

    async with opened(Agent(model=ScriptedModel([Call("note"), "hi"]), tools=[note])) as sessions:
        await ask(sessions)
        await sessions.stop("c")
        await sessions.start("c")
        state = await state_of(sessions)

        assert () == state.todos
        assert ["failed"] == [result.status for message in state.messages for result in message.results]


@pytest.mark.parametrize("wrong", UNKEPT)
async def test_todos_of_a_seed_that_could_not_be_loaded_again(autojump_clock: Any, wrong: str) -> None:
    """The start fails, and nothing was stored."""

    async def build(_agent_id: str, _config: Any) -> tuple[Agent, SessionOpts]:
        return Agent(model=ScriptedModel(["hi"])), SessionOpts(fresh_state_attrs={"todos": UNKEPT[wrong]})

    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(build))) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.post("c", "Hello")

        assert "fresh_state_attrs['todos']" in str(caught.value.__cause__)
        assert [] == list((await sessions.conversations()).items)

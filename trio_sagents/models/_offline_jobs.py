"""From what a person asks to the tool calls that do it, and how far they have come.

An ask is a job of one or more steps, each of them one call. Nothing is remembered between two requests: which steps are done is
read from the calls of the running turn, so a turn continues after an interrupt, and after a restart.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import ToolCall, ToolResult
from trio_sagents.data.requests import ModelRequest
from trio_sagents.models._offline_asks import Ask

_TODO: Final = re.compile(r"(\d{1,10})\. \[(pending|in_progress|completed|cancelled)\] (.*)")
MARKS: Final[Mapping[str, str]] = {"pending": " ", "in_progress": "~", "completed": "x", "cancelled": "-"}


@attrs.frozen
class Resources:
    """What a request gives to work with."""

    tools: frozenset[str]
    todos: Mapping[int, tuple[str, str]] = attrs.field(factory=dict)
    """By number: status and text."""

    @classmethod
    def of(cls, request: ModelRequest) -> "Resources":
        """Return what a request has; the todos are in its system prompt, as `TodoList` shows them."""
        shown = request.system.rpartition("The todos now:\n")
        found = [_TODO.fullmatch(line) for line in shown[2].splitlines()] if shown[1] else []
        todos = {int(match[1]): (match[2], match[3]) for match in found if match is not None}
        return cls(frozenset(tool.name for tool in request.tools), todos)

    def number_of(self, text: str) -> int | None:
        """Return the number of the todo with this text."""
        return next((number for number, (_, known) in self.todos.items() if known == text), None)


Arguments = Callable[[Ask, Resources], "JSON | str"]
"""The arguments of a call; or a sentence that says why there is nothing to call."""


@attrs.frozen
class Step:
    """One call of a job."""

    tool: str
    """The name of the tool; empty if the ask names the tool."""
    arguments: Arguments
    thing: str = ""
    """What the call touches: calls that touch the same thing are not made at the same time."""
    is_reading: bool = False


@attrs.define
class Job:
    """An ask, and how far it has come."""

    ask: Ask
    done: list[tuple[ToolCall, ToolResult]] = attrs.field(factory=list)
    step: Step | None = None
    """The next step; None if nothing is left to do."""
    arguments: JSON = attrs.field(factory=dict)
    """The arguments of the next step."""
    note: str = ""
    """Why the ask was not done, if no tool said why."""
    is_last: bool = True
    """Whether no further step follows the next one."""

    @property
    def tool(self) -> str:
        """The tool of the next step."""
        assert self.step is not None
        return self.step.tool or str(self.ask.arguments["tool"])


def jobs_of(asks: Iterable[Ask], calls: Iterable[tuple[ToolCall, ToolResult]], resources: Resources) -> Sequence[Job]:
    """Return a job for each ask, in order.

    Args:
        asks: of the running turn.
        calls: made in it, with their results, in order.
        resources: of the request.
    """
    left = list(calls)
    return [_job(ask, left, resources) for ask in asks]


def _job(ask: Ask, left: list[tuple[ToolCall, ToolResult]], resources: Resources) -> Job:
    job = Job(ask)
    steps = STEPS.get(ask.kind, ())
    for index, step in enumerate(steps):
        tool = step.tool or str(ask.arguments["tool"])
        found = next((pair for pair in left if pair[0].name == tool and _is_for(ask, pair[0])), None)
        if found is not None:
            left.remove(found)
            job.done.append(found)
            if found[1].is_error:
                break
            continue
        arguments = step.arguments(ask, resources)
        if tool not in resources.tools:
            job.note = f"I would need the tool {tool!r} for that, and I was not given it."
        elif isinstance(arguments, str):
            job.note = arguments
        else:
            job.step, job.arguments, job.is_last = step, arguments, index == len(steps) - 1
        break
    if ask.kind == "list_todos":
        job.note = _todos_text(resources)
    return job


def _is_for(ask: Ask, call: ToolCall) -> bool:
    """Return whether a call was made for this ask, in case several asks use the same tool."""
    if call.name != "write_todos":
        return True
    todos = call.arguments.get("todos", ())
    texts = [todo.get("content") for todo in todos]
    match ask.kind:
        case "add_todos":
            return bool(texts == ask.arguments["items"]) and "id" not in todos[0]
        case "complete_todos":
            return bool([todo.get("id") for todo in todos] == ask.arguments["numbers"])
        case "remove_todos":
            return not call.arguments.get("merge")
        case _:
            return bool(set(texts) & set(_plan_items(ask)))


def next_batch(jobs: Iterable[Job]) -> Sequence[Job]:
    """Return the jobs whose next steps may run together: those before a job that touches what another changes, or has further steps."""
    batch: list[Job] = []
    touched: set[str] = set()
    changed: set[str] = set()
    for job in jobs:
        if job.step is None:
            continue
        thing, is_reading = job.step.thing, job.step.is_reading
        if thing and (thing in changed or (thing in touched and not is_reading)):
            break
        batch.append(job)
        if not job.is_last:
            break
        if thing:
            touched.add(thing)
        if thing and not is_reading:
            changed.add(thing)
    return batch


# ── arguments ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _as_said(ask: Ask, _: Resources) -> JSON:
    return dict(ask.arguments)


def _named(ask: Ask, _: Resources) -> JSON:
    arguments: JSON = ask.arguments["arguments"]
    return arguments


def _rooted(path: str) -> str:
    return "/" + path.removeprefix("./").lstrip("/")


def _of_file(ask: Ask, _: Resources) -> JSON:
    return {**ask.arguments, "path": _rooted(str(ask.arguments["path"]))}


def _of_move(ask: Ask, _: Resources) -> JSON:
    return {"old_path": _rooted(str(ask.arguments["path"])), "new_path": _rooted(str(ask.arguments["new_path"]))}


def _added(ask: Ask, _: Resources) -> JSON:
    return {"todos": [{"content": item, "status": "pending"} for item in ask.arguments["items"]], "merge": True}


def _unknown(ask: Ask, resources: Resources) -> str | None:
    missing = [number for number in ask.arguments["numbers"] if number not in resources.todos]
    return f"There is no todo {missing[0]}." if missing else None


def _completed(ask: Ask, resources: Resources) -> JSON | str:
    numbers: Sequence[int] = ask.arguments["numbers"]
    todos = [{"id": number, "content": resources.todos.get(number, ("", ""))[1], "status": "completed"} for number in numbers]
    return _unknown(ask, resources) or {"todos": todos, "merge": True}


def _removed(ask: Ask, resources: Resources) -> JSON | str:
    gone = ask.arguments["numbers"]
    kept = [{"id": number, "content": text, "status": status} for number, (status, text) in resources.todos.items() if number not in gone]
    return _unknown(ask, resources) or {"todos": kept, "merge": False}


def _handed_over(ask: Ask, _: Resources) -> JSON:
    return {"instructions": ask.arguments["task"], "name": "general-purpose"}


def _plan_items(ask: Ask) -> Sequence[str]:
    what = ask.arguments.get("what")
    return [f"collect ideas for {what}", f"choose a day for {what}", f"write down what {what} needs", f"tell everybody about {what}"]


def _planned(ask: Ask, _: Resources) -> JSON:
    statuses = ("in_progress", "pending", "pending", "pending")
    items = zip(_plan_items(ask), statuses, strict=True)
    return {"todos": [{"content": text, "status": status} for text, status in items], "merge": True}


def _begun(ask: Ask, _: Resources) -> JSON:
    return {"note": f"ideas for {ask.arguments['what']}: keep it small, ask for help, have a second plan for rain"}


def _moved_on(ask: Ask, resources: Resources) -> JSON:
    first, second, *_ = _plan_items(ask)
    changed: list[dict[str, JSONValue]] = [{"content": first, "status": "completed"}, {"content": second, "status": "in_progress"}]
    for todo in changed:
        number = resources.number_of(str(todo["content"]))
        if number is not None:
            todo["id"] = number
    return {"todos": changed, "merge": True}


def _todos_text(resources: Resources) -> str:
    if not resources.todos:
        return (
            "There are no todos."
            if "write_todos" in resources.tools
            else "I would need the tool 'write_todos' for that, and I was not given it."
        )
    return "Your todos:\n" + "\n".join(f"{number}. [{MARKS[status]}] {text}" for number, (status, text) in resources.todos.items())


STEPS: Final[Mapping[str, Sequence[Step]]] = {
    "calculate": (Step("calculate", _as_said),),
    "remember": (Step("remember", _as_said, "notes"),),
    "recall": (Step("recall", _as_said, "notes", is_reading=True),),
    "list_files": (Step("list_files", _as_said, "files", is_reading=True),),
    "read_file": (Step("read_file", _of_file, "files", is_reading=True),),
    "search": (Step("find_in_file", _of_file, "files", is_reading=True),),
    "write_file": (Step("create_file", _of_file, "files"),),
    "replace_text": (Step("replace_file_text", _of_file, "files"),),
    "delete_file": (Step("delete_file", _of_file, "files"),),
    "move_file": (Step("move_file", _of_move, "files"),),
    "add_todos": (Step("write_todos", _added, "todos"),),
    "complete_todos": (Step("write_todos", _completed, "todos"),),
    "remove_todos": (Step("write_todos", _removed, "todos"),),
    "plan": (Step("write_todos", _planned, "todos"), Step("remember", _begun, "notes"), Step("write_todos", _moved_on, "todos")),
    "ask_colour": (Step("ask_user", _as_said),),
    "ask_toppings": (Step("ask_user", _as_said),),
    "ask_choice": (Step("ask_user", _as_said),),
    "ask_text": (Step("ask_user", _as_said),),
    "pay": (Step("send_money", _as_said),),
    "halt": (Step("halt", _as_said),),
    "delegate": (Step("task", _handed_over),),
    "use": (Step("", _named),),
}
"""By kind of ask."""

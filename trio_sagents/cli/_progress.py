"""What is shown besides the text: the todo list, and a line for each sub-agent at work. Pure decisions on plain data.

If the screen can redraw lines, these are lines below the text that change in place; what remains of them is printed when they end.
Otherwise each change is printed as its own line.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents import JSON, SubAgentEvent, Todo
from trio_sagents.cli._words import Piece, call_text, one_line

MARKS: Final[Mapping[str, str]] = {"pending": "[ ]", "in_progress": "[~]", "completed": "[x]", "cancelled": "[-]"}
MAX_TASK: Final = 40
"""How many characters of a sub-agent's task its line shows."""
MAX_LIVE_TODOS: Final = 15
"""How many todos are shown in the lines that change: together with the sub-agents, they have to fit on a screen."""
_TAIL: Final = 60


def todo_lines(todos: Sequence[Todo]) -> Sequence[str]:
    """Return the todos, one line for each."""
    return [f"  {MARKS[todo.status]} {todo.id}. {one_line(todo.content, 100)}" for todo in todos]


@attrs.define
class _Helper:
    """A sub-agent at work."""

    name: str
    task: str = ""
    doing: str = "begins"
    said: str = ""

    @property
    def line(self) -> str:
        task = f" ({one_line(self.task, MAX_TASK)})" if self.task else ""
        return f"  » {self.name}{task}: {self.doing}"


@attrs.define(eq=False)
class Progress:
    """Todos and sub-agents of one conversation."""

    is_live: bool = False
    """Whether the screen can redraw lines."""
    todos: Sequence[Todo] = ()
    _are_new: bool = False
    """Whether the todos have changed since they were printed."""
    _helpers: dict[str, _Helper] = attrs.field(factory=dict)
    """By the id of the call that a sub-agent runs in."""
    _ended: set[str] = attrs.field(factory=set)
    # Invariant: no debug event, which may come late, brings back a sub-agent whose call has ended.

    def learn(self, todos: Sequence[Todo]) -> None:
        """Take the list as it is, without printing it."""
        self.todos = tuple(todos)

    def change(self, todos: Sequence[Todo]) -> Iterator[Piece]:
        """Note that the list has changed; yield what is printed now."""
        had_some = bool(self.todos)
        self._are_new = self._are_new or had_some or bool(todos)
        self.todos = tuple(todos)
        if not self.is_live:
            yield from self.close()

    def begin(self, call_id: str, arguments: JSON) -> Iterator[Piece]:
        """Note that a sub-agent begins; yield the line that says so."""
        name, task = str(arguments.get("name")), str(arguments.get("instructions"))
        doing = "continues" if call_id in self._ended else "begins"
        self._ended.discard(call_id)
        self._helpers[call_id] = _Helper(name, task, doing)
        yield Piece(f"  · sub-agent {name} {doing}: {one_line(task)}\n", "tool")

    def end(self, call_id: str, arguments: JSON, status: str, text: str | None) -> Iterator[Piece]:
        """Note that a sub-agent has ended; yield the line that says how."""
        self._helpers.pop(call_id, None)
        self._ended.add(call_id)
        said = f": {one_line(text)}" if text else ""
        yield Piece(f"  · sub-agent {arguments.get('name')} {status}{said}\n", "tool")

    def hear(self, event: SubAgentEvent) -> Iterator[Piece]:
        """Note what a sub-agent has done; yield what is printed now."""
        call_id = event.sub_agent_id
        if call_id in self._ended:
            return
        helper = self._helpers.setdefault(call_id, _Helper(event.name))
        before = helper.doing
        match event.data:
            case {"type": "SubAgentStarted", "prompt": str(prompt)}:
                helper.task = prompt
            case {"type": "SubAgentResumed"}:
                helper.doing = "continues"
            case {"type": "TextDelta", "text": str(text)}:
                helper.said = (helper.said + text)[-_TAIL:]
                helper.doing = f"“{one_line(helper.said, _TAIL)}”"
                return  # these are too many to print each as a line
            case {"type": "ToolExecutionUpdated", "status": "executing", "call": {"name": str(name), "arguments": arguments}}:
                helper.said = ""
                helper.doing = call_text(name, arguments)
            case {"type": "SubAgentInterrupted"}:
                helper.doing = "waits for you"
            case {"type": "SubAgentCompleted"}:
                helper.doing = "is done"
                return  # the result of the call says so
            case _:
                return
        if not self.is_live and helper.doing != before:
            yield Piece(f"{helper.line}\n", "tool")

    def lines(self) -> Sequence[Piece]:
        """Return the lines that change in place."""
        if not self.is_live:
            return ()
        shown = [*todo_lines(self.todos)[:MAX_LIVE_TODOS]] if self._are_new else []
        return [Piece(line, "tool") for line in (*shown, *(helper.line for helper in self._helpers.values()))]

    def close(self) -> Iterator[Piece]:
        """Yield what remains of the changing lines: the list, if it has changed."""
        if self._are_new:
            self._are_new = False
            lines = todo_lines(self.todos) or ["  [todos: nothing is left to do]"]
            yield from (Piece(f"{line}\n", "tool") for line in lines)

    def forget_helpers(self) -> None:
        """Note that the turn has ended or waits: no sub-agent is at work."""
        self._ended.update(self._helpers)
        self._helpers.clear()

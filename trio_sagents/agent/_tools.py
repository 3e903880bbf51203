"""Tools: functions that a model may call.

A tool is made once. If something is wrong with the tool, a TypeError or ValueError says so then, with the names of the tool and the
parameter. What a model sends is checked at each call, and refused in words that the model can act on: `ArgumentsInvalid`.
"""

import functools
import inspect
import logging
import re
import types
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, Union, get_args, get_origin

import attrs

from trio_sagents.agent._compounds import Field, object_shape
from trio_sagents.agent._docstrings import read_docstring
from trio_sagents.agent._model import Model
from trio_sagents.agent._schema import MISSING, Annotation, field_of, hints_of, strip
from trio_sagents.agent._shapes import Misfit, Shape, kind_of
from trio_sagents.agent._tool_text import ArgumentsInvalid, ToolResult, parse_arguments, render_output
from trio_sagents.data.config import type_validator
from trio_sagents.data.events import Event
from trio_sagents.data.json import JSON, JSONValue, Options, check_text, plain_json
from trio_sagents.data.messages import Message
from trio_sagents.data.outcomes import Completed
from trio_sagents.data.records import Row
from trio_sagents.data.requests import ToolSpec
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import State
from trio_sagents.data.todos import Todo, checked_todos

Function: TypeAlias = Callable[..., Any]  # type: ignore[explicit-any]  # any function can be a tool
Recovery: TypeAlias = Literal["unknown", "repeat"]
DisplayText: TypeAlias = str | Callable[[JSON], str | None]

MAX_DISPLAY_TEXT: Final = 1000
"""How many characters people read of a call, at most."""
MAX_NAME: Final = 64
"""How many characters the name of a tool may have: every provider takes as many."""
log: Final = logging.getLogger("trio_sagents")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@attrs.frozen(eq=False)
class ToolContext:
    """What a tool may know of the call that it answers. A parameter that is annotated with this class gets it."""

    conversation_id: str
    scope: Scope = attrs.field(repr=False)
    """That of the call that posted the message which began the turn: the host's own object."""
    call_id: str
    """Unique in the conversation."""
    idempotency_key: str
    """The same for the same call, and for no other call: give it to a service that accepts an idempotency key."""
    state: State = attrs.field(repr=False)
    """The conversation as it was last committed."""
    publish: Callable[[Event], None]
    """Send an event to the conversation's subscribers; returns immediately."""
    agent_id: str = ""
    """The agent's id; a sub-agent has that of its parent."""
    agent_name: str = ""
    """`Agent.name` of the agent that makes the call, or the name of the sub-agent; "" if it has none."""
    options: Options = attrs.field(factory=dict, repr=False)
    """The host's own options of this session: `SessionOpts.app_internal`. The same in all of its turns, and in sub-agents."""
    values: Options = attrs.field(factory=dict, repr=False)
    """The host's own values of the post that began the turn: `post(..., values=...)`. They are never stored: if the turn continues after
    a restart, they are empty."""
    _host: "ToolHost | None" = attrs.field(default=None, repr=False, alias="host")

    async def update(self, *, todos: Sequence[Todo] | None = None, metadata: JSON | None = None, rows: Sequence[Row] = ()) -> None:
        """Change the conversation's todos, keys of its metadata, or its transcript; durable when this returns. Async tools only.

        Args:
            todos: the whole list; None leaves the todos as they are.
            metadata: keys to set; a value of None removes the key. Other keys stay.
            rows: rows to add to the transcript, in order: people see them, and no model does. A sub-agent adds them to the transcript
                of the conversation.

        Raises:
            TypeError, ValueError: `metadata` is not a JSON object, `todos` is not a list of todos, or `rows` are not rows; nothing was
                changed.
            PersistenceError: the change could not be stored.

        Cancellation: either nothing was submitted, or the change is stored.
        """
        kept = None if todos is None else checked_todos(todos)
        await self._host_of().update(kept, None if metadata is None else plain_json(metadata, "metadata"), checked_rows(rows))

    async def run_agent(
        self, agent: "RunnableAgent", prompt: str, *, name: str, messages: Sequence[Message] = (), quiet: bool = False
    ) -> Completed:
        """Run a sub-agent to its end, in a nursery inside this call; once in a call. Async tools only.

        An approval or a question inside the sub-agent interrupts the whole turn. When a person has decided, the tool is called again
        with the same arguments, and this method continues where the sub-agent was.

        Args:
            agent: the `Agent` that runs; it has its own history, todos and metadata.
            prompt: the first message to the sub-agent.
            name: for events and interrupts.
            messages: what the sub-agent's history begins with, before the prompt: user and assistant messages without tool calls.
            quiet: whether the sub-agent tells the debug channel nothing.

        Raises:
            ModelFailed, LimitExceeded, MiddlewareError, ToolNotCalled: the sub-agent failed. If the tool does not catch the error,
                the model reads it.

        Cancellation: the sub-agent has ended, and only its usage is kept.
        """
        return await self._host_of().run_agent(agent, prompt, name, messages, quiet=quiet)

    def _host_of(self) -> "ToolHost":
        if self._host is None:
            raise RuntimeError("this ToolContext does not belong to a running turn, so it can neither update nor run a sub-agent")
        return self._host


class RunnableAgent(Protocol):
    """An agent that can be run inside a call: an `Agent`, which is defined above this module. Only an `Agent` is accepted."""

    @property
    def model(self) -> Model:
        """The model that answers."""
        ...

    @property
    def tools(self) -> "Sequence[Tool]":
        """The tools of the agent."""
        ...


class ToolHost(Protocol):
    """The tool host: what the context of a call asks of the turn that runs the call."""

    async def update(self, todos: Sequence[Todo] | None, metadata: JSON | None, rows: Sequence[Row] = ()) -> None:
        """As `ToolContext.update`."""
        ...

    async def run_agent(
        self, agent: "RunnableAgent", prompt: str, name: str, messages: Sequence[Message] = (), *, quiet: bool = False
    ) -> Completed:
        """As `ToolContext.run_agent`."""
        ...


def checked_rows(rows: object) -> Sequence[Row]:
    """Return rows as a tuple; TypeError if they are not rows."""
    if isinstance(rows, Row) or not isinstance(rows, Sequence) or not all(isinstance(row, Row) for row in rows):
        raise TypeError(f"rows must be a sequence of Row, not {type(rows).__name__}")
    return tuple(rows)


def _check_display_text(tool: "Tool", _field: object, text: DisplayText | None) -> None:
    if text is not None and not isinstance(text, str) and not callable(text):
        raise TypeError(f"{_place(tool.name)}: display_text must be a text, or a function of the arguments, not {text!r}")


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a tool must be a str, not {name!r}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"tool {name!r}: a name has 1 to {MAX_NAME} of the characters a-z, A-Z, 0-9, _ and -")


def shown_line(text: object) -> str:
    """Return a text that people read of a call; TypeError if it is not a text."""
    if not isinstance(text, str):
        raise TypeError(f"display_text must return a str, not {type(text).__name__}")
    return check_text(text, "display_text")[:MAX_DISPLAY_TEXT]


def _place(name: str) -> str:
    return f"tool {name!r}"


def _check_parameters(tool: "Tool", _field: object, schema: object) -> None:
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise ValueError(f'{_place(tool.name)}: parameters must be a JSON schema of type "object", not {schema!r}')


def _check_check(tool: "Tool", check: object) -> None:
    if check is not None and not callable(check):
        raise TypeError(f"{_place(tool.name)}: check must be a function of the context and the arguments, not {check!r}")


@attrs.frozen
class _Binding:
    """How the arguments of a call become those of the function."""

    read: Callable[[JSONValue], object]
    """Return a new dict, by parameter; `Misfit` if the arguments do not fit."""
    context: str | None
    """The parameter that receives the context."""
    tidy: Callable[[JSONValue], JSONValue] = lambda arguments: arguments
    """Return the arguments in the form of the schema."""


@attrs.frozen(kw_only=True)
class Tool:
    """A function that a model may call, and what the model is told about it.

    `Tool.of(function)` reads name, description and schema from the function. `Tool(name=..., parameters=..., function=...)` takes a
    schema as given: the function then gets the arguments by keyword, as plain JSON that was not compared with the schema.
    """

    name: str = attrs.field(validator=lambda _tool, _field, name: _check_name(name))
    """1 to 64 of a-z, A-Z, 0-9, _ and -."""
    description: str = attrs.field(default="", validator=type_validator(str))
    parameters: JSON = attrs.field(factory=lambda: {"type": "object", "properties": {}}, hash=False, validator=_check_parameters)
    """A JSON schema of type "object"; copied when built."""
    function: Function
    """Called with keyword arguments only."""
    origin: str = attrs.field(default="", validator=type_validator(str))
    """Where the tool comes from, for people: "module.function", or "mcp:server"; "" if nobody said."""
    if_taken: str = attrs.field(default="", validator=type_validator(str))
    """The name that the tool gets if its own is taken by another tool; "" makes two tools of one name an error."""
    version: str = attrs.field(default="", validator=type_validator(str))
    """A text of your own. People who approved a call of one version are asked again if another version would run."""
    check: Function | None = attrs.field(default=None, validator=lambda tool, _field, check: _check_check(tool, check))
    """Called with a `ToolContext` and the arguments, before a person is asked about a call and right before the call runs. A ValueError
    refuses the call; the model reads its text. A plain function or an `async def`."""
    recovery: Recovery = attrs.field(default="unknown", validator=attrs.validators.in_(get_args(Recovery)))
    """What becomes of a call that was running when the process died: its outcome is "unknown"; or, for a tool that is idempotent,
    "repeat" runs the call again, with the same idempotency key. A call that a person decided about is never repeated."""
    display_text: DisplayText | None = attrs.field(default=None, validator=_check_display_text, eq=False)
    """What people read of a call, such as "Searching the catalogue": a text, or a plain function that returns it for the arguments of a
    call, a JSON object. It is in events and in the row of the call. The model does not see it."""
    is_async: bool = attrs.field(
        init=False, default=attrs.Factory(lambda tool: _is_async(tool.function, _place(tool.name)), takes_self=True)
    )
    """Whether `function` is an `async def`; other functions run in a thread."""
    _binding: _Binding = attrs.field(
        default=attrs.Factory(lambda tool: _raw_binding(tool.function, _place(tool.name)), takes_self=True),
        eq=False,
        repr=False,
        alias="_binding",
    )

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "parameters", plain_json(self.parameters, f"{_place(self.name)}: parameters"))

    @classmethod
    def of(
        cls,
        function: "Tool | Function",
        *,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        check: Function | None = None,
        recovery: Recovery | None = None,
        display_text: DisplayText | None = None,
    ) -> "Tool":
        """Return the tool that a function is.

        Args:
            function: sync or async; also a bound method, a partial, or a callable object, which needs `name`. The schema is made of
                the type hints. The docstring is the description, but for what it says about parameters (in the style of Google,
                NumPy or Sphinx), which goes to the schema; the text in an `Annotated` goes there, too. A parameter annotated
                `ToolContext` gets the context and is not shown; what a partial binds is not shown either. A `Tool` is returned as
                it is.
            name: None takes the name of the function.
            description: None takes the docstring. A function without a docstring logs a warning, once.
            version: as of `Tool`; None is the default of `Tool`, or what the `Tool` has that is given. So are the others.
            check: as of `Tool`.
            recovery: as of `Tool`.
            display_text: as of `Tool`.

        Raises:
            TypeError: `function` is not a function, or a parameter has no annotation, or one without a JSON schema.
            ValueError: a model cannot call a tool by this name.
        """
        if isinstance(function, Tool):
            given = {"version": version, "check": check, "recovery": recovery, "display_text": display_text}
            return _changed(function, name=name, description=description, **given)
        name = _name_of(function) if name is None else name
        _check_name(name)
        where = _place(name)
        _check_function(function, where)
        own_text, texts = read_docstring(_docstring_of(function))
        shape, context = _shape_of_function(function, where, texts)
        origin = origin_of(function)
        if description is None and not own_text:
            _warn_of_no_docstring(name, origin)
        tool = cls(
            name=name,
            description=own_text if description is None else description,
            parameters=shape.schema,
            function=function,
            origin=origin,
            _binding=_Binding(shape.read, context, shape.tidy),
        )
        return _changed(tool, version=version, check=check, recovery=recovery, display_text=display_text)

    @property
    def spec(self) -> ToolSpec:
        """What the model is told about the tool."""
        return ToolSpec(self.name, self.description, self.parameters, self.display_text if isinstance(self.display_text, str) else None)

    def displayed(self, arguments: JSON) -> str | None:
        """Return what people read of a call with these arguments; None if the tool says nothing, or its function fails, which is logged."""
        if self.display_text is None or isinstance(self.display_text, str):
            return self.display_text
        try:
            text: object = self.display_text(plain_json(arguments))
            return None if text is None else shown_line(text)
        except Exception:  # the boundary to the host's function: what people are told of a call must not end the turn
            log.exception("display_text of the tool %r failed", self.name)
            return None

    @property
    def takes_context(self) -> bool:
        """Whether the function is given a `ToolContext`: such a tool may run a sub-agent."""
        return self._binding.context is not None

    def bind(self, arguments: JSON, context: ToolContext) -> Mapping[str, object]:
        """Return the keyword arguments of one call: a new object, which shares nothing mutable with `arguments`.

        Args:
            arguments: from the model: plain JSON.
            context: for the parameter that is annotated with `ToolContext`.

        Raises:
            ArgumentsInvalid: the arguments do not fit. There is no other error, even if a class of the host refuses its values.
        """
        values = self._read(arguments)
        if self._binding.context is not None:
            values[self._binding.context] = context
        return values

    def tidied(self, arguments: JSON) -> JSON:
        """Return arguments in the form of the schema, if a model wrote them in another form with only one meaning.

        Such as 5 for `5.0` or `"5"` where an integer is wanted. What has no meaning stays as it is, and is refused by `bind`. The
        arguments of a tool with a schema of its own stay as they are.
        """
        tidy: JSON = self._binding.tidy(arguments)
        return tidy

    def check_arguments(self, arguments: JSON) -> None:
        """Raise ArgumentsInvalid if the arguments of a call do not fit; the function is not called."""
        self._read(arguments)

    def _read(self, arguments: JSON) -> dict[str, object]:
        try:
            values = self._binding.read(self._binding.tidy(arguments))
        except Misfit as exc:
            raise ArgumentsInvalid(self.name, [_sentence(path, what) for path, what in exc.problems]) from exc
        assert isinstance(values, dict)
        if self._binding.context in values:
            raise ArgumentsInvalid(self.name, [f"{self._binding.context}: is not an argument that you can give"])
        return values


def named_apart(tools: Sequence[Tool], taken: Container[str], before: Mapping[str, Tool]) -> Sequence[Tool]:
    """Return tools that yield their names to others, under names that nobody else has: a new list, in the same order.

    Args:
        tools: each has an `if_taken`.
        taken: the names of other tools.
        before: all tools of the agent as they were, by name. The tool that had a name keeps it before a newcomer gets it, so that a
            name does not change hands when another server comes back. A tool that has not changed stays the same object.
    """

    def had_its_name(place: int) -> bool:
        tool = tools[place]
        return tool.name in before and before[tool.name].origin == tool.origin

    found: dict[int, Tool] = {}
    names: set[str] = set()
    for place in sorted(range(len(tools)), key=lambda place: not had_its_name(place)):
        tool = tools[place]
        name, number = tool.name, 1
        while name in taken or name in names:
            ending = "" if number == 1 else f"_{number}"
            name = tool.if_taken[: MAX_NAME - len(ending)] + ending
            number += 1
        names.add(name)
        renamed = tool if name == tool.name else attrs.evolve(tool, name=name)
        found[place] = before[name] if before.get(name) == renamed else renamed
    return [found[place] for place in range(len(tools))]


def submitting(name: str, description: str, shape: Shape) -> Tool:
    """Return a tool that takes the fields of a class, and returns the value of that class."""

    async def submit(value: object) -> object:  # noqa: ASYNC124  # a tool without a thread
        return value

    binding = _Binding(lambda arguments: {"value": shape.read(arguments)}, None, shape.tidy)
    return Tool(name=name, description=description, parameters=shape.schema, function=submit, _binding=binding)


def _sentence(path: str, what: str) -> str:
    return f"{path.removeprefix('.')}: {what}" if path else f"they {what}" if what.startswith("must ") else what


def _read_raw(arguments: JSONValue) -> object:
    if not isinstance(arguments, Mapping):
        raise Misfit([("", f"must be an object, not {kind_of(arguments)}")])
    try:
        return plain_json(arguments, "the arguments")
    except (TypeError, ValueError) as exc:
        raise Misfit([("", str(exc))]) from exc


# ── reading a function ────────────────────────────────────────────────────────────────────────────────────────────────


def _unwrapped(function: Function) -> Function:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _is_plain(function: Function) -> bool:
    return inspect.isroutine(function)


def _changed(tool: Tool, **changes: object) -> Tool:
    given = {name: value for name, value in changes.items() if value is not None}
    return attrs.evolve(tool, **given) if given else tool  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # validators check


def _check_function(function: object, where: str) -> None:
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"{where}: {function!r} is not a function")


def _name_of(function: Function) -> str:
    inner = _unwrapped(function)
    if not callable(inner):
        raise TypeError(f"a tool is a function or a Tool, not {function!r}")
    if isinstance(inner, type):
        raise TypeError(f"a tool is a function or a Tool, not the class {inner.__name__}")
    if not _is_plain(inner):
        raise TypeError(f"{function!r} is a callable object, which has no name of its own: use Tool.of(object, name=...)")
    return inner.__name__


def _docstring_of(function: Function) -> str | None:
    inner = _unwrapped(function)
    if _is_plain(inner):
        return inner.__doc__
    return type(inner).__call__.__doc__ or type(inner).__doc__


def origin_of(function: Function) -> str:
    """Return the module and the qualified name of a function, or of the class of a callable object."""
    inner = _unwrapped(function)
    named = inner if _is_plain(inner) else type(inner)
    module: str | None = getattr(named, "__module__", None)
    return f"{module}.{named.__qualname__}" if module else named.__qualname__


@functools.lru_cache(maxsize=4096)  # so that each function is named once, however many agents have it
def _warn_of_no_docstring(name: str, origin: str) -> None:
    log.warning("the tool %r (%s) is not described by a docstring: a model is told only its name and its parameters", name, origin)


def _annotated(function: Function) -> Function:
    """Return the function that has the annotations of `function`."""
    inner = _unwrapped(function)
    return inner if _is_plain(inner) else type(inner).__call__


def _is_async(function: Function, where: str) -> bool:
    _check_function(function, where)
    called = _annotated(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError(f"{where}: a generator cannot be a tool; return the whole result")
    return inspect.iscoroutinefunction(called)


def _parameters(function: Function, where: str, hints: Mapping[str, Annotation]) -> Mapping[str, tuple[inspect.Parameter, Annotation]]:
    """Return the parameters that can be given by keyword, with their annotations; not those that a partial binds."""
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError) as exc:
        raise TypeError(f"{where}: {function!r} has no signature that can be read; wrap it in a function with type hints") from exc
    bound: set[str] = set()
    while isinstance(function, functools.partial):
        bound.update(function.keywords)
        function = function.func
    return {name: (parameter, hints.get(name)) for name, parameter in found.items() if name not in bound}


def _is_context(annotation: Annotation) -> bool:
    plain, _ = strip(annotation)
    if get_origin(plain) in {Union, types.UnionType}:
        return any(member is ToolContext for member in get_args(plain))
    return plain is ToolContext


def _raw_binding(function: Function, where: str) -> _Binding:
    parameters = _parameters(function, where, hints_of(_annotated(function), where))
    return _Binding(_read_raw, _context_parameter(parameters, where))


def _context_parameter(parameters: Mapping[str, tuple[inspect.Parameter, Annotation]], where: str) -> str | None:
    names = [name for name, (_, annotation) in parameters.items() if _is_context(annotation)]
    if len(names) > 1:
        raise TypeError(f"{where}: the parameters {', '.join(map(repr, names))} are all annotated ToolContext; annotate only one")
    return names[0] if names else None


def _shape_of_function(function: Function, where: str, texts: Mapping[str, str]) -> tuple[Shape, str | None]:
    parameters = _parameters(function, where, hints_of(_annotated(function), where))
    fields: list[Field] = []
    for name, (parameter, annotation) in parameters.items():
        here = f"{where}: parameter {name!r}"
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise TypeError(f"{here} takes any number of values; a model needs each one by name")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"{here} is positional-only; arguments are given by name")
        if annotation is None:
            hint = "; give a bound method" if name in {"self", "cls"} else ""
            raise TypeError(f"{here} has no annotation{hint}")
        if not _is_context(annotation):
            default = MISSING if parameter.default is parameter.empty else parameter.default
            fields.append(field_of((name, annotation, default), texts.get(name, ""), here))
    return object_shape(fields, dict), _context_parameter(parameters, where)


__all__ = ("ArgumentsInvalid", "Tool", "ToolContext", "ToolResult", "parse_arguments", "render_output")

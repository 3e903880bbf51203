"""The definition of an agent: the agent itself, its middleware, and what a hook and a loop are given.

These types name each other, so one module declares them: an agent has middleware, a hook of a middleware is given a context that
has the agent, and an agent may have a loop of its own, which is given the steps of a turn of that agent. All of them are values
or ports. Nothing here runs: `_middleware` calls the hooks, and `_steps` implements the steps.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import ClassVar, Final, Protocol, TypeAlias, get_args

import attrs

from trio_sagents.agent._host import AsyncFunction, MiddlewareHost
from trio_sagents.agent._model import Model, ModelAnswer, name_of
from trio_sagents.agent._tools import Tool, checked_rows
from trio_sagents.data.config import TurnLimits, type_validator
from trio_sagents.data.cursors import Channel
from trio_sagents.data.decisions import Decision
from trio_sagents.data.events import Event
from trio_sagents.data.interrupts import PendingCall
from trio_sagents.data.json import JSON, Opaque, Options, plain_json
from trio_sagents.data.messages import Message, ToolCall
from trio_sagents.data.messages import ToolResult as CallResult
from trio_sagents.data.outcomes import Completed, Interrupted, TurnOutcome, Usage
from trio_sagents.data.records import DisplayMessage, Row
from trio_sagents.data.requests import ModelRequest
from trio_sagents.data.retries import RetryPolicy
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import OlderMessages, State
from trio_sagents.data.todos import Todo, checked_todos
from trio_sagents.exceptions import ModelFailed

ToolLike: TypeAlias = "Tool | Callable[..., Opaque]"  # type: ignore[explicit-any]  # any function can be a tool
Ended: TypeAlias = Completed | Interrupted
Mode: TypeAlias = "Callable[[TurnSteps], Awaitable[Ended]]"
_CHANNELS: Final = frozenset(get_args(Channel))


# ── the agent


def _tools(given: Sequence[ToolLike]) -> Sequence[Tool]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"Agent.tools must be a sequence of functions or Tools, not {given!r}")
    tools = tuple(Tool.of(tool) for tool in given)
    names = [tool.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Agent.tools has two tools named {name!r}")
    return tools


def _models(given: Iterable[Model]) -> tuple[Model, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"Agent.fallbacks must be a sequence of Models, not {given!r}")
    return tuple(given)


def _model(_agent: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
    if not callable(getattr(value, "stream", None)):
        raise TypeError(f"Agent.{attribute.name} must be a Model, with a method stream(request), not {value!r}")


def _all_models(_agent: object, attribute: "attrs.Attribute[Opaque]", value: Sequence[Opaque]) -> None:
    for model in value:
        _model(_agent, attribute, model)


def _middleware(given: Sequence[Opaque]) -> Sequence[Opaque]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"Agent.middleware must be a sequence of Middleware, not {given!r}")
    ids: set[str] = set()
    for middleware in given:
        if isinstance(middleware, type):
            raise TypeError(f"Agent.middleware has the class {middleware.__name__}; give an instance: {middleware.__name__}()")
        for hook in HOOKS:
            own = getattr(type(middleware), hook, None)
            if own is not None and inspect.iscoroutinefunction(own) != inspect.iscoroutinefunction(vars(Middleware)[hook]):
                kind = "`async def`" if inspect.iscoroutinefunction(vars(Middleware)[hook]) else "a plain function"
                raise TypeError(f"{type(middleware).__name__}.{hook} must be {kind}")
        if not any(getattr(type(middleware), hook, None) for hook in HOOKS):
            raise TypeError(f"Agent.middleware has {middleware!r}, which has no method of a Middleware")
        if id_of(middleware) in ids:
            raise ValueError(
                f"two middleware in Agent.middleware have the id {id_of(middleware)!r}; give one of them another middleware_id"
            )
        ids.add(id_of(middleware))
    return tuple(given)


def _names(given: "str | ToolLike | Sequence[str | ToolLike]") -> tuple[str, ...]:
    tools = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    return tuple(tool if isinstance(tool, str) else Tool.of(tool).name for tool in tools)


def _is_async(_agent: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
    if value is not None and not inspect.iscoroutinefunction(value):
        raise TypeError(f"Agent.{attribute.name} must be an async function of the turn's steps, not {value!r}")


@attrs.frozen(kw_only=True)
class Agent:
    """The definition of an agent: how it answers. A factory returns it."""

    model: Model = attrs.field(validator=_model)
    system_prompt: str = attrs.field(default="", validator=type_validator(str))
    tools: Sequence[Tool] = attrs.field(default=(), converter=_tools)
    """Functions, or `Tool`s. Their names are unique. Their schemas are made here, and wrong ones are refused here."""
    middleware: Sequence[Opaque] = attrs.field(default=(), converter=_middleware)
    """`Middleware` instances, outermost first; their ids are unique."""
    fallbacks: Sequence[Model] = attrs.field(default=(), converter=_models, validator=_all_models)
    """The models to ask, in this order, for a model call for which `model` failed."""
    retry: RetryPolicy = attrs.field(factory=RetryPolicy, validator=type_validator(RetryPolicy))
    """How often, and after how long, a model that failed for the moment is asked again."""
    limits: TurnLimits = attrs.field(factory=TurnLimits, validator=type_validator(TurnLimits))
    name: str | None = attrs.field(default=None, validator=type_validator(str, type(None)))
    mode: "Mode | None" = attrs.field(default=None, validator=_is_async)
    """The loop of a turn: an async function of its `TurnSteps`; None is `converse`."""
    until_tool: Sequence[str] = attrs.field(default=(), converter=_names)
    """Names of tools, or the tools. A turn ends when one of them was called; `Completed.result` is what the tool returned.

    A call that a person rejected is not an answer, and does not end the turn.
    """
    until_tool_success: Sequence[str] = attrs.field(default=(), converter=_names)
    """The same, but only a call that succeeded ends the turn; the model reads why another call failed."""
    own_tools: Mapping[str, Tool] = attrs.field(init=False, eq=False, repr=False)
    """`tools`, by name."""
    hooks: Mapping[str, Sequence[Opaque]] = attrs.field(init=False, eq=False, repr=False)
    """By hook: the middleware that has this hook."""

    @own_tools.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _own_tools(self) -> Mapping[str, Tool]:
        return {tool.name: tool for tool in self.tools}

    @hooks.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _hooks(self) -> Mapping[str, Sequence[Opaque]]:
        return hooks_of(self.middleware)

    def __attrs_post_init__(self) -> None:
        if self.until_tool and self.until_tool_success:
            raise ValueError("Agent takes until_tool, or until_tool_success, not both")


# ── its middleware


class Middleware:
    """What goes around a turn: instructions, tools, and steps of its own. Give instances: `TodoList(max_items=50)`.

    Inherit from this class and write only the methods that you need. An object that has some of these methods is accepted, too.
    All methods but `turn_ended`, `transform_row` and `debug_summary` are `async def`. One instance serves any number of
    conversations at once: keep what belongs to one conversation in `context.memory`, which is gone when the agent ends, or in the
    metadata of the conversation (`context.update`).

    Order: `before_*` and the outer halves of `around_*` run in the order of `Agent.middleware`, `after_*` run in the reverse
    order. An exception of a hook ends the turn as `Failed(MiddlewareError)`, which names the middleware and the hook. At the start
    of the agent, the exception ends the start.

    Cancellation: every hook of a turn is cancelled with the turn; start a task that is to outlive the turn by `context.start_soon`.
    """

    @property
    def middleware_id(self) -> str:
        """The id of this middleware, by default the name of its class. Two middleware of one class in an agent need different ids."""
        return type(self).__name__

    covers_sub_agents: ClassVar[bool] = False
    """Whether `before_model`, `around_model` and `around_tool` also run for the calls of all sub-agents, around their own middleware.

    Such a call has the memory and the state of this agent, so that a limit or an account of the whole turn can be kept; `context.path`
    tells where the call is made. A sub-agent that has the same middleware object itself does not run it twice.
    """

    async def system_prompt(self, context: "MiddlewareContext") -> str:
        """Return a text to add to the agent's prompt; asked before each turn. An empty text adds nothing."""
        return ""

    async def tools(self, context: "MiddlewareContext") -> Sequence[ToolLike]:
        """Return the tools of this middleware; asked at the start, and again before the turn after `context.refresh_tools()`."""
        return ()

    async def on_tools(self, context: "MiddlewareContext") -> None:
        """The tools of the agent were collected: at the start, and after each refresh; `context.tools` has all of them.

        An exception ends the start, or the turn before which the tools were collected.
        """

    async def on_start(self, context: "MiddlewareContext") -> None:
        """The agent starts: its state is loaded, and nobody sees it yet. An exception ends the start."""

    async def before_turn(self, context: "MiddlewareContext") -> None:
        """A turn begins; its messages are in the history. Not called when a turn continues after an interrupt."""

    async def after_turn(self, context: "MiddlewareContext", outcome: TurnOutcome) -> None:
        """A turn is about to end as `outcome`: completed, interrupted or failed. Not called for a turn that is cut."""

    def turn_ended(self, context: "MiddlewareContext", outcome: TurnOutcome) -> None:
        """A turn has ended, normally or not. Called once for each turn. Synchronous; exceptions are logged."""

    async def before_model(self, context: "MiddlewareContext", request: ModelRequest) -> ModelRequest:
        """A model is about to be asked: return the request, or another one. The stored history does not change."""
        return request

    async def after_model(self, context: "MiddlewareContext", message: Message) -> Message:
        """A model has answered: return the message, or a copy with other text; the copy may drop calls, and add none."""
        return message

    async def before_fallback(self, context: "MiddlewareContext", request: ModelRequest, error: ModelFailed, model: Model) -> ModelRequest:
        """A model has failed, and the next one of `Agent.fallbacks` is about to be asked: return the request for it, or another one.

        Args:
            context: the conversation.
            request: the request that failed.
            error: why it failed.
            model: the model that is asked now.

        An exception ends the turn, and no other model is asked.
        """
        return request

    async def shorten_request(self, context: "MiddlewareContext", request: ModelRequest, most_tokens: float) -> ModelRequest:
        """Return a shorter request: the model has refused this one, or an earlier one of its size, as too long.

        What is still too long afterwards is cut: large results lose their middle, and the oldest messages are left out.

        Args:
            context: the conversation.
            request: the request, as the other hooks made it.
            most_tokens: the size that the request should have, as `data.estimates.estimate_tokens` estimates it.
        """
        return request

    async def around_model(
        self, context: "MiddlewareContext", request: ModelRequest, call_next: Callable[[ModelRequest], Awaitable[ModelAnswer]]
    ) -> ModelAnswer:
        """Ask the model, by `call_next(request)`."""
        return await call_next(request)

    async def around_tool(
        self, context: "MiddlewareContext", call: ToolCall, call_next: Callable[[ToolCall], Awaitable[CallResult]]
    ) -> CallResult:
        """Run a call, by `call_next(call)`, at most once and unchanged; or return a result without running the call."""
        return await call_next(call)

    async def claim(self, context: "MiddlewareContext", call: ToolCall, tool: Tool) -> PendingCall | None:
        """Return what a person has to decide before this call is run (`data.interrupts.pending`), or None."""
        return None

    async def answer(self, context: "MiddlewareContext", call: PendingCall, decision: Decision) -> str | None:
        """Look at a decision about a call that this middleware claimed, before the decision is recorded.

        In a task of `SubAgents`, and wherever a sub-agent has this middleware and its parent does not, the hook is called when the
        call continues, because this middleware exists only while its sub-agent runs. The decision is on record by then; if the hook
        refuses it, the call is not run.

        Returns:
            What the model reads instead of a result, for a call that is not run; None is the default text.

        Raises:
            ValueError: raise to refuse the decision: the caller gets `InvalidDecision`, and the call stays pending.
        """
        return None

    async def on_message(self, context: "MiddlewareContext", message: Opaque) -> None:
        """Take what the host sent by `notify_middleware`."""

    def transform_row(self, row: DisplayMessage) -> DisplayMessage | None:
        """Return a row of the transcript as people are to see it, with the same id; None leaves the row out. Synchronous.

        A `DisplayMessagePersistence` of the host stores its rows as it made them. With such a host, viewers see the transformed
        rows, and `Sessions.history`, which such a host does not need, renders the state without the transformation.
        """
        return row

    def debug_summary(self) -> JSON:
        """Return the settings of this middleware, for people who debug; no secrets. Synchronous."""
        return {}


HOOKS: Final = tuple(name for name in vars(Middleware) if not name.startswith("_") and name not in {"middleware_id", "covers_sub_agents"})
"""The names of all hooks."""


def hooks_of(middleware: Sequence[Opaque]) -> Mapping[str, Sequence[Opaque]]:
    """Return, for each hook that any middleware has, the middleware that have this hook, in order."""
    found: dict[str, list[Opaque]] = {}
    for each in middleware:
        for hook in HOOKS:
            own = getattr(type(each), hook, None)
            if own is not None and own is not vars(Middleware)[hook]:
                found.setdefault(hook, []).append(each)
    return {hook: tuple(having) for hook, having in found.items()}


def id_of(middleware: Opaque) -> str:
    """Return the id of a middleware; an object that does not inherit from `Middleware` may have none, and goes by its class."""
    return str(getattr(middleware, "middleware_id", type(middleware).__name__))


# ── what a hook is given


class HookRunner(Protocol):
    """The part of the pipeline that the context of a hook needs."""

    async def guard(self, middleware_id: str, hook: str, function: AsyncFunction, *args: Opaque) -> Opaque:
        """Call a function; its exceptions become a `MiddlewareError`."""
        ...

    def is_own_tool(self, name: str) -> bool:
        """Return whether a tool belongs to the definition of this agent."""
        ...

    def own_tools(self) -> Mapping[str, Tool]:
        """Return the tools that belong to the definition of this agent."""
        ...

    def origin_of(self, name: str) -> str:
        """Return the id of the middleware that brought a tool."""
        ...

    def refresh_tools(self) -> None:
        """Have all middleware asked for their tools before the next turn."""
        ...


@attrs.frozen(eq=False)
class MiddlewareContext:
    """What a hook is given: the conversation, as its middleware may see and change it."""

    middleware_id: str
    agent: Agent
    turn_id: str | None
    """The running turn; None outside of turns."""
    memory: dict[str, Opaque]
    """A dict of this middleware's own, for this agent, with any content. It is gone when the agent ends."""
    path: Sequence[str]
    """Names of the sub-agents that the hook runs in, outermost first; empty for the agent itself."""
    tools: Mapping[str, Tool]
    """The registered tools, by name; empty until the start hooks have run."""
    _host: MiddlewareHost = attrs.field(repr=False)
    _pipeline: HookRunner = attrs.field(repr=False)

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        return self._host.conversation_id

    @property
    def agent_id(self) -> str:
        """The agent's id; a sub-agent has that of its parent."""
        return self._host.agent_id

    @property
    def scope(self) -> Scope:
        """In a turn, that of the call that posted its first message; else that of the call that started the agent."""
        return self._host.scope

    @property
    def options(self) -> Options:
        """The host's own options of this session: `SessionOpts.app_internal`."""
        return self._host.options

    @property
    def values(self) -> Options:
        """The host's own values of the post that began the running turn, as of `ToolContext.values`; empty outside of turns."""
        return self._host.values

    @property
    def state(self) -> State:
        """The conversation as last committed."""
        return self._host.state()

    @property
    def usage(self) -> Usage:
        """What the running turn has used so far, with its retries and its sub-agents; zero outside of turns."""
        return self._host.usage

    @property
    def usage_by_model(self) -> Mapping[str, Usage]:
        """By the name of the model: what the running turn has used since it began or continued; empty outside of turns.

        Counts that a provider did not report are estimated; then `Usage.is_estimated` is set.
        """
        return self._host.usage_by_model

    def add_usage(self, usage: Usage, *, model: str = "") -> None:
        """Count what this middleware used by a model call of its own towards the running turn.

        Args:
            usage: the usage of the call. An estimate (`Usage.is_estimated`) counts only in `usage_by_model`, such as for budgets.
            model: the name of the model; "" is the agent's own model.
        """
        reported, unreported = (Usage(), usage) if usage.is_estimated else (usage, Usage())
        self._host.add_usage(reported, model or name_of(self.agent.model), unreported)

    def publish(self, event: Event, channel: Channel = "main") -> None:
        """Send an event to the subscribers of a channel: an event of the library, or of your own class of `MiddlewareEvent`."""
        check_event(event)
        if channel not in _CHANNELS:
            raise ValueError(f"the channel of an event is 'main' or 'debug', not {channel!r}")
        self._host.publish(event, channel)

    async def update(
        self,
        *,
        todos: Sequence[Todo] | None = None,
        metadata: JSON | None = None,
        rows: Sequence[Row] = (),
        covers: str | None = None,
    ) -> None:
        """Change the conversation's todos, keys of its metadata, or its transcript; durable when this returns.

        Args:
            todos: the whole list; None leaves the list unchanged.
            metadata: keys to set; a value of None removes the key. Other keys stay.
            rows: rows to add to the transcript, in order: people see them, and no model does. A sub-agent adds them to the transcript
                of the conversation.
            covers: the id of a message of the history, if what is set stands for all messages up to that one, as a summary does: they may
                leave the window in the same commit (`State.older`). Whole turns leave, and never the running one.

        Raises:
            TypeError, ValueError: `metadata` is not a JSON object, `todos` is not a list of todos, or `rows` are not rows; nothing was
                changed.
            PersistenceError: the change could not be stored.

        Cancellation: either nothing was submitted, or the change is kept.
        """
        kept = None if todos is None else checked_todos(todos)
        await self._host.update(kept, None if metadata is None else plain_json(metadata, "metadata"), checked_rows(rows), covers)

    async def older_messages(self, *, before: str | None = None, limit: int = 100) -> OlderMessages:
        """Return a page of the messages before the window: those that `state` does not have any more (`State.older` says how many).

        Args:
            before: `OlderMessages.before` of a page, for the next older page; None for the page right before the window.
            limit: the most messages on the page, 1 to 1000.

        Raises:
            PersistenceError: the store could not be read.
            ValueError: `before` does not come from a page, or `limit` is out of range.

        Cancellation: nothing is changed.
        """
        return await self._host.older_messages(before, limit)

    def start_soon(self, function: AsyncFunction, *args: Opaque) -> None:
        """Start a task in the agent's nursery: the task outlives the turn, and ends with the agent.

        An exception of the task crashes the agent, as `MiddlewareError`.
        """
        self._host.start_soon(functools.partial(self._pipeline.guard, self.middleware_id, "start_soon", function), *args)

    def is_own_tool(self, name: str) -> bool:
        """Return whether a tool belongs to the definition of this agent or sub-agent: its own tool, or of middleware that only it has."""
        return self._pipeline.is_own_tool(name)

    def own_tools(self) -> Mapping[str, Tool]:
        """Return the tools for which `is_own_tool` is true, by name; a new mapping."""
        return self._pipeline.own_tools()

    def origin_of(self, name: str) -> str:
        """Return the id of the middleware that brought a tool; empty for a tool of the agent itself."""
        return self._pipeline.origin_of(name)

    def refresh_tools(self) -> None:
        """Have the hook `tools` asked again before the next turn."""
        self._pipeline.refresh_tools()


def check_event(event: object) -> None:
    """Raise TypeError unless `event` can be published."""
    if not isinstance(event, get_args(Event)):
        raise TypeError(f"events are those of trio_sagents, or a class of your own that inherits MiddlewareEvent; not {event!r}")


# ── what a loop is given


class TurnSteps(Protocol):
    """What a loop (`Agent.mode`) may do with its turn, and see of it.

    Whatever a loop does, the history stays valid, no call runs without passing the gate, and each call is answered once: the steps
    see to that.
    """

    @property
    def agent(self) -> Agent:
        """The agent."""
        ...

    @property
    def system(self) -> str:
        """The system prompt of this turn."""
        ...

    def messages(self) -> Sequence[Message]:
        """Return the history so far, oldest first, as the model is to read it; a new sequence. After a checkpoint it is the window."""
        ...

    async def older_messages(self, *, before: str | None = None, limit: int = 100) -> OlderMessages:
        """Return a page of the messages before the window, as `MiddlewareContext.older_messages` does. Cancellation: nothing is changed."""
        ...

    def calls_of(self, answer: ModelAnswer) -> Sequence[ToolCall]:
        """Return the calls to run for an answer."""
        ...

    async def take_steered(self) -> None:
        """Take into the history what people posted to steer this turn. Not while calls run, because they are answered first.

        Cancellation: either the messages are taken, or they are still in the queue.
        """
        ...

    async def ask_model(self, request: ModelRequest | None = None) -> ModelAnswer:
        """Ask the model, with its retries and fallbacks, and with the middleware around it.

        Args:
            request: None is the whole history, with the turn's prompt and all tools.

        Returns:
            The answer. The answer is not kept before `run_tools` or `complete` is called.

        Raises:
            LimitExceeded: more rounds than `limits.max_rounds`.
            ModelFailed: no model answered.

        Cancellation: the text so far stays, as the partial answer of the turn.
        """
        ...

    async def run_tools(self, answer: ModelAnswer) -> Ended | None:
        """Keep an answer that asks for tools, and run those calls that may run now, in parallel.

        Returns:
            None if the model is to be asked again; else how the turn ended: a call waits for a person, or the tool that ends the
            turn was called.

        Cancellation: tools in tasks have ended; the results that were there are kept.
        """
        ...

    def is_continued(self, answer: ModelAnswer) -> bool:
        """Return whether the model is not done with an answer that asks for no tool: it has only narrated, or its provider paused it."""
        ...

    async def keep(self, answer: ModelAnswer) -> None:
        """Keep an answer after which the model is asked again. The answer calls no tools.

        Cancellation: either the answer is kept, or nothing was submitted.
        """
        ...

    async def complete(self, answer: ModelAnswer) -> Completed:
        """Keep the last answer; the turn ends.

        Raises:
            ToolNotCalled: the turn was to end with a tool.

        Cancellation: from here on the turn is completed, even if it is cancelled.
        """
        ...

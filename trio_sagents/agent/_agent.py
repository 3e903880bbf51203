"""What an agent is: a model, a prompt, tools and limits. A value; the one that lives is made from it."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import attrs

from trio_sagents.agent._hooks import Middleware, Model
from trio_sagents.agent._middleware import HOOKS, hooks_of, id_of
from trio_sagents.agent._tools import Tool
from trio_sagents.data.config import TurnLimits, type_validator
from trio_sagents.data.json import Opaque
from trio_sagents.data.retries import RetryPolicy

if TYPE_CHECKING:
    from trio_sagents.agent._steps import Mode

ToolLike: TypeAlias = "Tool | Callable[..., Opaque]"  # type: ignore[explicit-any]  # any function can be a tool


def _tools(given: Sequence[ToolLike]) -> Sequence[Tool]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"Agent.tools must be a sequence of functions or Tools, not {given!r}")
    tools = tuple(Tool.of(one) for one in given)
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
    for one in value:
        _model(_agent, attribute, one)


def _middleware(given: Sequence[Opaque]) -> Sequence[Opaque]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"Agent.middleware must be a sequence of Middleware, not {given!r}")
    ids: set[str] = set()
    for one in given:
        if isinstance(one, type):
            raise TypeError(f"Agent.middleware has the class {one.__name__}; give an instance: {one.__name__}()")
        for hook in HOOKS:
            own = getattr(type(one), hook, None)
            if own is not None and inspect.iscoroutinefunction(own) != inspect.iscoroutinefunction(vars(Middleware)[hook]):
                kind = "`async def`" if inspect.iscoroutinefunction(vars(Middleware)[hook]) else "a plain function"
                raise TypeError(f"{type(one).__name__}.{hook} must be {kind}")
        if not any(getattr(type(one), hook, None) for hook in HOOKS):
            raise TypeError(f"Agent.middleware has {one!r}, which has no method of a Middleware")
        if id_of(one) in ids:
            raise ValueError(f"Agent.middleware has two with the id {id_of(one)!r}; give one of them another middleware_id")
        ids.add(id_of(one))
    return tuple(given)


def _names(given: "str | ToolLike | Sequence[str | ToolLike]") -> tuple[str, ...]:
    ones = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    return tuple(one if isinstance(one, str) else Tool.of(one).name for one in ones)


def _is_async(_agent: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
    if value is not None and not inspect.iscoroutinefunction(value):
        raise TypeError(f"Agent.{attribute.name} must be an async function of the turn's steps, not {value!r}")


@attrs.frozen(kw_only=True)
class Agent:
    """What a factory returns: how to answer."""

    model: Model = attrs.field(validator=_model)
    system_prompt: str = attrs.field(default="", validator=type_validator(str))
    tools: Sequence[Tool] = attrs.field(default=(), converter=_tools)
    """Functions, or `Tool`s. Names are unique; schemas are made, and bad ones refused, here."""
    middleware: Sequence[Opaque] = attrs.field(default=(), converter=_middleware)
    """`Middleware` instances, outermost first; their ids are unique."""
    fallbacks: Sequence[Model] = attrs.field(default=(), converter=_models, validator=_all_models)
    """Asked in this order, for one model call, where the model before failed."""
    retry: RetryPolicy = attrs.field(factory=RetryPolicy, validator=type_validator(RetryPolicy))
    """How often, and after how long, a model is asked again that failed for the moment."""
    limits: TurnLimits = attrs.field(factory=TurnLimits, validator=type_validator(TurnLimits))
    name: str | None = attrs.field(default=None, validator=type_validator(str, type(None)))
    mode: "Mode | None" = attrs.field(default=None, validator=_is_async)
    """The loop of a turn: an async function of its `TurnSteps`; None is `converse`."""
    until_tool: Sequence[str] = attrs.field(default=(), converter=_names)
    """Names of tools, or the tools: a turn ends when one of them was called; `Completed.result` is what it returned."""
    until_tool_success: Sequence[str] = attrs.field(default=(), converter=_names)
    """Likewise, but only a call that succeeded ends it: what failed goes back to the model."""
    own_tools: Mapping[str, Tool] = attrs.field(init=False, eq=False, repr=False)
    """`tools`, by name."""
    hooks: Mapping[str, Sequence[Opaque]] = attrs.field(init=False, eq=False, repr=False)
    """Which middleware has which hook."""

    @own_tools.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _own_tools(self) -> Mapping[str, Tool]:
        return {tool.name: tool for tool in self.tools}

    @hooks.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _hooks(self) -> Mapping[str, Sequence[Opaque]]:
        return hooks_of(self.middleware)

    def __attrs_post_init__(self) -> None:
        if self.until_tool and self.until_tool_success:
            raise ValueError("Agent takes until_tool, or until_tool_success, not both")

"""What an agent is: a model, a prompt, tools and limits. A value; the one that lives is made from it."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import attrs

from trio_sagents.abc import Model
from trio_sagents.agent._tools import Tool
from trio_sagents.data.config import TurnLimits
from trio_sagents.data.json import Opaque

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
    return tuple(given)


def _model(_agent: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
    if not callable(getattr(value, "stream", None)):
        raise TypeError(f"Agent.{attribute.name} must be a Model, with a method stream(request), not {value!r}")


def _none_yet(_agent: object, attribute: "attrs.Attribute[Opaque]", value: Sequence[Opaque]) -> None:
    if value:
        raise ValueError(f"Agent.{attribute.name} must be empty: this version has no {attribute.name} yet")


@attrs.frozen(kw_only=True)
class Agent:
    """What a factory returns: how to answer."""

    model: Model = attrs.field(validator=_model)
    system_prompt: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    tools: Sequence[Tool] = attrs.field(default=(), converter=_tools)
    """Functions, or `Tool`s. Names are unique; schemas are made, and bad ones refused, here."""
    middleware: Sequence[object] = attrs.field(default=(), converter=tuple, validator=_none_yet)
    """Must be empty in this version."""
    fallbacks: Sequence[Model] = attrs.field(default=(), converter=_models, validator=_none_yet)
    """Must be empty in this version."""
    limits: TurnLimits = attrs.field(factory=TurnLimits, validator=attrs.validators.instance_of(TurnLimits))
    name: str | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.instance_of(str)))

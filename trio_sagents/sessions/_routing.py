"""From a conversation id to an agent: the ports that a host implements, and a router for hosts with one kind of agent."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, TypeAlias, TypeVar

import attrs
import cattrs

from trio_sagents._text import did_you_mean, shown
from trio_sagents.agent import Agent
from trio_sagents.data.config import SessionOpts, is_class_for_instance
from trio_sagents.data.json import Opaque, Options
from trio_sagents.data.scopes import Scope
from trio_sagents.supervisor import await_host

T = TypeVar("T")
Built: TypeAlias = Agent | tuple[Agent, SessionOpts]
"""The value that a factory returns."""


class Factory(Protocol):
    """Builds agents.

    Cancellation: the start of the agent is being aborted, by a stop or by `start_timeout`: leave nothing behind.
    """

    async def create_agent(self, agent_id: str, config: Opaque) -> Built:
        """Return an agent, or an agent and the options of its session."""
        ...


class FactoryRouter(Protocol):
    """Says which factory builds the agent of a conversation. Asked once per start, never while the agent is running.

    Cancellation: the start of the agent is being aborted, by a stop or by `start_timeout`: leave nothing behind.
    """

    async def resolve(self, scope: Scope, conversation_id: str, request_opts: Options) -> tuple[Factory, Opaque]:
        """Return a factory, and the config that the factory gets, unchanged.

        Args:
            scope: of the caller whose call starts the agent.
            conversation_id: as the caller gave it.
            request_opts: the caller's, as they are.
        """
        ...


@attrs.frozen
class _OneAgent:
    """A factory that gives the same agent to every conversation."""

    agent: Agent

    async def create_agent(self, agent_id: str, config: object) -> Agent:
        """Return the agent; it is a value, so conversations can share it."""
        return self.agent


@attrs.frozen
class _ByFunction:
    """A factory made of one function."""

    function: Callable[[str, Opaque], Awaitable[Built]]

    async def create_agent(self, agent_id: str, config: object) -> Built:
        """Return what the function returns."""
        return await await_host(self.function, agent_id, config)


class SingleFactoryRouter:
    """Routes every conversation to one factory.

    Args:
        factory: an `Agent` for all, a `Factory`, or an async function (agent_id, config) that returns an agent, or an agent
            and `SessionOpts`.
        config: a class for the factory's config. If it has a class method `from_inputs(mapping)`, that makes the config from
            {**request_opts, "scope", "conversation_id"}. If it is an attrs class, the config gets the fields that the class
            declares, strictly. If it is None, the factory gets that mapping itself.

    Cancellation: either it routes, or nothing was done.
    """

    def __init__(
        self,
        factory: Agent | Factory | Callable[[str, Opaque], Awaitable[Built]],
        config: type | None = None,
    ) -> None:
        self._factory = _factory_of(factory)
        if config is not None and not callable(getattr(config, "from_inputs", None)) and not attrs.has(config):
            raise TypeError(
                f"SingleFactoryRouter takes as config an attrs class, or a class with from_inputs(mapping); {shown(config)} is neither"
            )
        self._config = config

    async def resolve(
        self,
        scope: Scope,
        conversation_id: str,
        request_opts: Options,
    ) -> tuple[Factory, Opaque]:
        """Return the factory, and its config."""
        inputs = {**request_opts, "scope": scope, "conversation_id": conversation_id}
        if self._config is None:
            return self._factory, inputs
        from_inputs = getattr(self._config, "from_inputs", None)
        return self._factory, from_inputs(inputs) if callable(from_inputs) else _config_of(self._config, inputs)


def _factory_of(given: Opaque) -> Factory:
    """Return what `SingleFactoryRouter` was given, as a factory."""
    if isinstance(given, Agent):
        return _OneAgent(given)
    if is_class_for_instance(given, "create_agent") or (isinstance(given, type) and not hasattr(given, "create_agent")):
        raise TypeError(f"SingleFactoryRouter needs an instance, not {shown(given)}; did you mean {given.__name__}(...)?")
    if callable(getattr(given, "create_agent", None)):
        factory: Factory = given  # pyright: ignore[reportAssignmentType]
        return factory
    if callable(given):
        return _ByFunction(given)  # pyright: ignore[reportArgumentType]
    hint = "; a router goes into SessionConfig(factory_router=...) itself" if callable(getattr(given, "resolve", None)) else ""
    raise TypeError(f"SingleFactoryRouter takes an Agent, a Factory or an async function, not {shown(given)}{hint}")


# ── a config from what a request says


def _config_of(config: type, inputs: Mapping[str, object]) -> object:
    """Return an instance of an attrs class, made of the inputs that the class declares; nothing is converted."""
    declared = {field.name: field for field in attrs.fields(attrs.resolve_types(config)) if field.init}
    unknown = [name for name in inputs if name not in declared and name not in {"scope", "conversation_id"}]
    if unknown:
        name = unknown[0]
        names = [field for field in declared if field not in {"scope", "conversation_id"}]
        hint = did_you_mean(name, names) or (f"; it declares {', '.join(names)}" if names else "")
        raise TypeError(f"request_opts has the key {shown(name)}, and {config.__name__} declares no such field{hint}")
    given: dict[str, object] = {}
    for name, field in declared.items():
        if name in inputs:
            given[field.alias] = inputs[name] if name == "scope" else _checked(config, name, inputs[name], field.type)
        elif field.default is attrs.NOTHING:
            raise TypeError(f"request_opts needs the key {name!r}: {config.__name__} declares it without a default")
    return config(**given)


def _checked(config: type, name: str, value: object, kind: Opaque) -> object:
    """Return a value of a declared field, if it has the declared type. The value is not shown: it may be a secret."""
    if kind is None or kind is Opaque or kind is object:
        return value
    try:
        return _strict_converter().structure(value, kind)
    except Exception as exc:
        wanted = kind.__name__ if isinstance(kind, type) else inspect.formatannotation(kind)
        raise TypeError(f"request_opts[{name!r}] must be {wanted}, as {config.__name__} declares it, not {type(value).__name__}") from exc


def _strict_converter() -> cattrs.Converter:
    """Return a converter that converts nothing: a config gets what the caller gave, or an error."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _exact)
    converter.register_structure_hook_func(lambda kind: isinstance(kind, type) and not attrs.has(kind) and kind not in _PLAIN, _same)
    return converter


_PLAIN: Final = (str, int, float, bool, object)


def _exact(value: object, kind: type[T]) -> T:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value  # type: ignore[return-value]  # just compared; an int may stand for a float


def _same(value: object, kind: type) -> object:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value

"""The router for hosts with one kind of agent."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias, TypeVar

import attrs
import cattrs

from trio_sagents.agent import Agent
from trio_sagents.data.config import SessionOpts
from trio_sagents.data.json import Opaque, Options
from trio_sagents.data.scopes import Scope
from trio_sagents.supervisor import await_host

T = TypeVar("T")
Built: TypeAlias = Agent | tuple[Agent, SessionOpts]
"""What a factory returns."""


class Factory(Protocol):
    """Builds agents.

    Cancellation: the boot is being aborted, by a stop or by `start_timeout`: leave nothing behind.
    """

    async def create_agent(self, agent_id: str, config: Opaque) -> Built:
        """Return an agent, or an agent and the options of its session."""
        ...


class FactoryRouter(Protocol):
    """Says which factory builds the agent of a conversation. Asked once per boot, never while the agent runs.

    Cancellation: the boot is being aborted, by a stop or by `start_timeout`: leave nothing behind.
    """

    async def resolve(self, scope: Scope, conversation_id: str, request_opts: Options) -> tuple[Factory, Opaque]:
        """Return the factory, and the config that goes to it as it is.

        Args:
            scope: of the caller whose call boots the agent.
            conversation_id: as the caller gave it.
            request_opts: the caller's, as they are.
        """
        ...


@attrs.frozen
class _Always:
    """A factory that gives the same agent to every conversation."""

    agent: Agent

    async def create_agent(self, agent_id: str, config: object) -> Agent:
        """Return the agent; it is a value, so it can be shared."""
        return self.agent


@attrs.frozen
class _ByFunction:
    """A factory made of one function."""

    function: Callable[[str, Opaque], Awaitable[Built]]

    async def create_agent(self, agent_id: str, config: object) -> Built:
        """Return what the function builds."""
        return await await_host(self.function, agent_id, config)


def _same(value: object, kind: type) -> object:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _strict_converter() -> cattrs.Converter:
    """Return a converter that coerces nothing: a config gets what the caller gave, or an error."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _exact)
    converter.register_structure_hook_func(lambda kind: isinstance(kind, type) and not attrs.has(kind) and kind not in _PLAIN, _same)
    return converter


_PLAIN = (str, int, float, bool, object)


def _exact(value: object, kind: type[T]) -> T:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{value!r} is {type(value).__name__}, not {kind.__name__}")
    return value  # type: ignore[return-value]  # just compared; an int is a fine float


class SingleFactoryRouter:
    """Routes every conversation to one factory.

    Args:
        factory: an `Agent` for all, a `Factory`, or an async function (agent_id, config) that returns an agent, or an agent
            and `SessionOpts`.
        config: a class for the factory's config. With a class method `from_inputs(mapping)`, that builds it from
            {**request_opts, "scope", "conversation_id"}; an attrs class is built from the fields it declares, strictly. None:
            the factory gets that mapping itself.

    Cancellation: either it routes, or nothing was done.
    """

    def __init__(
        self,
        factory: Agent | Factory | Callable[[str, Opaque], Awaitable[Built]],
        config: type | None = None,
    ) -> None:
        self._factory: Factory
        if isinstance(factory, Agent):
            self._factory = _Always(factory)
        elif callable(getattr(factory, "create_agent", None)):
            self._factory = factory  # type: ignore[assignment]  # has create_agent, as just seen
        elif callable(factory):
            self._factory = _ByFunction(factory)
        else:
            raise TypeError(f"SingleFactoryRouter takes an Agent, a Factory or an async function, not {factory!r}")
        if config is not None and not callable(getattr(config, "from_inputs", None)) and not attrs.has(config):
            raise TypeError(f"config must be an attrs class, or have from_inputs(mapping); {config!r} is neither")
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
        return self._factory, from_inputs(inputs) if callable(from_inputs) else _build(self._config, inputs)


def _build(config: type, inputs: Mapping[str, object]) -> object:
    """Return an instance of an attrs class, made of the inputs that it declares; nothing is coerced."""
    declared = {field.name: field for field in attrs.fields(attrs.resolve_types(config)) if field.init}
    unknown = sorted(set(inputs) - set(declared) - {"scope", "conversation_id"})
    if unknown:
        raise TypeError(f"{config.__name__} declares no field {unknown[0]!r}; it has {', '.join(declared)}")
    given: dict[str, object] = {}
    for name, field in declared.items():
        if name in inputs:
            given[field.alias] = inputs[name] if name == "scope" else _checked(config, name, inputs[name], field.type)
        elif field.default is attrs.NOTHING:
            raise TypeError(f"{config.__name__}.{name} is missing in request_opts")
    return config(**given)


def _checked(config: type, name: str, value: object, kind: Opaque) -> object:
    if kind is None or kind is Opaque or kind is object:
        return value
    try:
        return _strict_converter().structure(value, kind)
    except Exception as exc:
        raise TypeError(f"{config.__name__}.{name} does not take {value!r}") from exc

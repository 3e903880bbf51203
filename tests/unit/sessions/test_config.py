"""A config is checked when it is built, and what was probably meant is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.support.scenarios import make_agent
from trio_sagents import Agent, MemoryStore, Presence, SameScope, SessionConfig, SessionPolicy, SingleFactoryRouter, SqliteStore


async def build(agent_id: str, config: Any) -> Agent:
    """Build."""
    return make_agent()


class Router:
    """A router, and a factory."""

    async def resolve(self, scope: Any, conversation_id: str, request_opts: Any) -> Any:
        """Route."""
        return self, None

    async def create_agent(self, agent_id: str, config: Any) -> Agent:
        """Build."""
        return make_agent()


class Factory:
    """A factory alone."""

    async def create_agent(self, agent_id: str, config: Any) -> Agent:
        """Build."""
        return make_agent()


class ClassRouter:
    """A router that is a class."""

    @staticmethod
    async def resolve(scope: Any, conversation_id: str, request_opts: Any) -> Any:
        """Route."""
        return Factory(), None


ROUTER = "SessionConfig.factory_router must have the method resolve(), not be "
CASES: list[tuple[dict[str, Any], str]] = [
    ({"factory_router": make_agent()}, f"{ROUTER}an Agent; did you mean SingleFactoryRouter(agent)?"),
    ({"factory_router": Agent}, f"{ROUTER}the class Agent; did you mean SingleFactoryRouter(Agent(...))?"),
    ({"factory_router": build}, f"{ROUTER}the function build; did you mean SingleFactoryRouter(build)?"),
    ({"factory_router": lambda *_: None}, f"{ROUTER}the function <lambda>; did you mean SingleFactoryRouter(function)?"),
    ({"factory_router": Factory()}, f"{ROUTER}a Factory; did you mean SingleFactoryRouter(factory)?"),
    ({"factory_router": Factory}, f"{ROUTER}the class Factory; did you mean SingleFactoryRouter(Factory(...))?"),
    (
        {"factory_router": Router},
        "SessionConfig.factory_router must be an instance, not the class Router; did you mean Router(...)?",
    ),
    ({"factory_router": {"a": "b" * 1000}}, f"{ROUTER}a dict"),
    ({"store": "chat.db"}, 'SessionConfig.store must have the method load(), not be a str; did you mean SqliteStore("chat.db")?'),
    (
        {"store": Path("chat.db")},
        'SessionConfig.store must have the method load(), not be a PosixPath; did you mean SqliteStore("chat.db")?',
    ),
    (
        {"store": "postgres://me:secret@db/chat"},
        "SessionConfig.store must have the method load(), not be a str; did you mean SqliteStore(path)?",
    ),
    ({"store": SqliteStore}, "SessionConfig.store must be an instance, not the class SqliteStore; did you mean SqliteStore(...)?"),
    ({"store": MemoryStore}, "SessionConfig.store must be an instance, not the class MemoryStore; did you mean MemoryStore(...)?"),
    (
        {"authorizer": lambda user: user.id},
        "SessionConfig.authorizer must have the method authorize(), not be the function <lambda>; did you mean SameScope(function)?",
    ),
    ({"authorizer": SameScope}, "SessionConfig.authorizer must be an instance, not the class SameScope; did you mean SameScope(...)?"),
    ({"presence": Presence}, "SessionConfig.presence must be Presence, not the class Presence; did you mean an instance, Presence(...)?"),
    (
        {"policy": SessionPolicy},
        "SessionConfig.policy must be SessionPolicy, not the class SessionPolicy; did you mean an instance, SessionPolicy(...)?",
    ),
    ({"policy": {"queue_limit": 1}}, "SessionConfig.policy must be SessionPolicy, not dict"),
    ({"inactivity_timeout": None}, "SessionConfig.inactivity_timeout must be a number of seconds, not None; math.inf means never"),
]


@pytest.mark.parametrize(("settings", "words"), CASES, ids=[f"{next(iter(settings))}-{place}" for place, (settings, _) in enumerate(CASES)])
def test_config_when_something_else_was_meant(settings: dict[str, Any], words: str) -> None:
    """A wrong object is refused, without its repr; the error says what was probably meant."""
    with pytest.raises(TypeError) as caught:
        SessionConfig(**{"factory_router": Router(), **settings})

    assert words == str(caught.value)


def test_config_when_a_class_is_a_router() -> None:
    """A class whose methods need no instance is as good as an instance."""
    assert ClassRouter is SessionConfig(factory_router=ClassRouter).factory_router


@attrs.frozen
class Wanted:
    """What a request may say."""

    tone: str
    scope: Any = None
    limit: int = 3
    tags: list[str] = attrs.field(factory=list)


async def wanted(**request_opts: Any) -> Any:
    """Return the config that a router makes of a request."""
    _, config = await SingleFactoryRouter(build, Wanted).resolve("alice", "c", request_opts)
    return config


@pytest.mark.parametrize(
    ("request_opts", "words"),
    [
        ({"tone": "brief", "tonne": "x"}, "request_opts has the key 'tonne', and Wanted declares no such field; did you mean 'tone'?"),
        ({"tone": "brief", "x": 1}, "request_opts has the key 'x', and Wanted declares no such field; it declares tone, limit, tags"),
        ({}, "request_opts needs the key 'tone': Wanted declares it without a default"),
        ({"tone": 5}, "request_opts['tone'] must be str, as Wanted declares it, not int"),
        ({"tone": "brief", "limit": "secret"}, "request_opts['limit'] must be int, as Wanted declares it, not str"),
        ({"tone": "brief", "tags": [1]}, "request_opts['tags'] must be list[str], as Wanted declares it, not list"),
    ],
    ids=range(6),
)
async def test_config_of_a_request_when_it_does_not_fit(request_opts: Any, words: str) -> None:
    """A key or a value that the config does not declare is refused by name; a value is not shown, for it may be a secret."""
    with pytest.raises(TypeError) as caught:
        await wanted(**request_opts)

    assert words == str(caught.value)


async def test_config_of_a_request_when_it_fits() -> None:
    """The config gets what the request says, as it is."""
    assert Wanted("brief", "alice", 3, ["a"]) == await wanted(tone="brief", tags=["a"])


Maker = Callable[[], Any]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SingleFactoryRouter(Agent), "SingleFactoryRouter needs an instance, not the class Agent; did you mean Agent(...)?"),
        (lambda: SingleFactoryRouter(Factory), "SingleFactoryRouter needs an instance, not the class Factory; did you mean Factory(...)?"),
        (lambda: SingleFactoryRouter("x"), "SingleFactoryRouter takes an Agent, a Factory or an async function, not 'x'"),
        (
            lambda: SingleFactoryRouter(SingleFactoryRouter(build)),
            (
                "SingleFactoryRouter takes an Agent, a Factory or an async function, not a SingleFactoryRouter; "
                "a router goes into SessionConfig(factory_router=...) itself"
            ),
        ),
        (
            lambda: SingleFactoryRouter(build, dict),
            "SingleFactoryRouter takes as config an attrs class, or a class with from_inputs(mapping); the class dict is neither",
        ),
    ],
    ids=range(5),
)
def test_single_factory_router_when_something_else_was_meant(make: Maker, words: str) -> None:
    """What cannot be a factory is refused when the router is built, with what was probably meant."""
    with pytest.raises(TypeError) as caught:
        make()

    assert words == str(caught.value)

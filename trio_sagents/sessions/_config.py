"""The settings of one `open_sessions` block."""

import inspect
import os
from collections.abc import Callable
from typing import Final

import attrs

from trio_sagents._text import shown
from trio_sagents.agent import Agent
from trio_sagents.broadcast import LocalPubSub, Presence
from trio_sagents.broadcast._pubsub import PubSub
from trio_sagents.data.config import (
    Check,
    SessionPolicy,
    check_timeout,
    function_validator,
    is_class_for_instance,
    type_validator,
)
from trio_sagents.data.ids import default_agent_id
from trio_sagents.data.json import Opaque
from trio_sagents.nodes import Cluster, NodeBus
from trio_sagents.persistence.memory import MemoryStore
from trio_sagents.sessions._routing import FactoryRouter
from trio_sagents.storage import MemoryStates, SplitStore, StoreAdapter, UnifiedStore
from trio_sagents.storage.ports import AgentPersistence, ConversationStore, DisplayMessagePersistence
from trio_sagents.supervisor import SameScope
from trio_sagents.supervisor._access import Authorizer
from trio_sagents.supervisor._leases import Leases

CLUSTER_METHODS: Final = ("open", "join", "renew", "leave", "nodes", "claim", "release", "holders", "send", "receive", "wait")


def _no_hint(_value: Opaque) -> str:
    return ""


def router_hint(value: Opaque) -> str:
    """Return how to make a router of a value that is not one; empty if that is unknown."""
    if isinstance(value, Agent):
        return "SingleFactoryRouter(agent)"
    if isinstance(value, type) and issubclass(value, Agent):
        return "SingleFactoryRouter(Agent(...))"
    if is_class_for_instance(value, "create_agent"):
        return f"SingleFactoryRouter({value.__name__}(...))"
    if callable(getattr(value, "create_agent", None)):
        return "SingleFactoryRouter(factory)"
    if inspect.iscoroutinefunction(value):
        return f"SingleFactoryRouter({value.__name__})"
    return "SingleFactoryRouter(function)" if callable(value) and not isinstance(value, type) else ""


def _store_hint(value: Opaque) -> str:
    if not isinstance(value, str | os.PathLike):
        return ""
    text = os.fspath(value)
    # A URL of a database may hold a password.
    return f'SqliteStore("{text}")' if isinstance(text, str) and len(text) < 100 and "://" not in text else "SqliteStore(path)"


def _cluster_hint(value: Opaque) -> str:
    return "SqliteCluster(path)" if isinstance(value, os.PathLike) or (isinstance(value, str) and "://" not in value) else ""


def _authorizer_hint(value: Opaque) -> str:
    return "SameScope(function)" if callable(value) and not isinstance(value, type) else ""


def _having(*methods: str, optional: bool = False, hint: Callable[[Opaque], str] = _no_hint) -> Check:
    """Return a validator of objects with some methods.

    Args:
        methods: what the object must have.
        optional: whether None is allowed, too.
        hint: from an object that does not have them, what was probably meant; empty if that is unknown.
    """

    def check(_config: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
        if value is None and optional:
            return
        name = f"SessionConfig.{attribute.name}"
        if is_class_for_instance(value, *methods):
            raise TypeError(f"{name} must be an instance, not {shown(value)}; did you mean {value.__name__}(...)?")  # pyright: ignore[reportOptionalMemberAccess]
        missing = [method for method in methods if not callable(getattr(value, method, None))]
        if missing:
            meant = hint(value)
            found = "a str" if isinstance(value, str) else shown(value)  # not the text: it may be a URL with a password
            raise TypeError(f"{name} must have the method {missing[0]}(), not be {found}{f'; did you mean {meant}?' if meant else ''}")

    return check


def _bus(cluster: Cluster | None) -> PubSub:
    return LocalPubSub() if cluster is None else NodeBus()


def _timeout(_config: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
    check_timeout(f"SessionConfig.{attribute.name}", value)


@attrs.frozen(kw_only=True)
class SessionConfig:
    """Settings; only the router is required. They are checked here, and nothing is opened."""

    factory_router: FactoryRouter = attrs.field(validator=_having("resolve", hint=router_hint))
    """Says which factory builds the agent of a conversation."""
    store: ConversationStore | None = attrs.field(
        default=None, validator=_having("load", "commit", "history", "conversations", "delete", optional=True, hint=_store_hint)
    )
    """One store for state and transcript, as a unit. If no store is given at all: a `MemoryStore`."""
    agent_persistence: AgentPersistence | None = attrs.field(default=None, validator=_having("load_state", "persist_state", optional=True))
    """A host's own store of states, in place of `store`. It gets whole snapshots, so each write costs as much as the conversation is
    long."""
    display_message_persistence: DisplayMessagePersistence | None = attrs.field(
        default=None, validator=_having("save_message", "update_tool_status", optional=True)
    )
    """A host's own store of the transcript. Without an `agent_persistence` beside it, states are kept in memory: they are gone
    with the process."""
    cluster: Cluster | None = attrs.field(default=None, validator=_having(*CLUSTER_METHODS, optional=True, hint=_cluster_hint))
    """The engine that this block shares with the other nodes of its cluster: then the block is a node, and a conversation runs on at most
    one of them. Not together with `leases`, which are for processes that share nothing else."""
    pubsub: PubSub = attrs.field(
        default=attrs.Factory(lambda self: _bus(self.cluster), takes_self=True), validator=_having("publish", "subscribe")
    )
    """Carries presence between this block and others, in this process or elsewhere: blocks that share a bus see each other's viewers and
    agents. By default a bus between the nodes of the `cluster`; without a cluster a bus of its own, so there are no others. Not used if
    `presence` is given: that has a bus of its own."""
    presence: Presence = attrs.field(
        default=attrs.Factory(lambda self: Presence(self.pubsub), takes_self=True), validator=type_validator(Presence)
    )
    """Who watches what, and which agents are running; several blocks may share it."""
    inactivity_timeout: float = attrs.field(default=300.0, validator=_timeout)
    """Seconds of idleness after which an agent leaves; `math.inf` disables; > 0."""
    agent_id_fun: Callable[[str], str] = attrs.field(default=default_agent_id, validator=function_validator())
    """Makes the agent id of a conversation id; must give each conversation an id of its own."""
    authorizer: Authorizer = attrs.field(factory=SameScope, validator=_having("authorize", hint=_authorizer_hint))
    """Says who may do what."""
    leases: Leases | None = attrs.field(default=None, validator=_having("acquire", "renew", "release", optional=True))
    """Which of several processes may run a conversation's agent. None: the process that loads it last is its writer."""
    node_name: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    """What people read of this node, if there is a cluster; need not be unique. Empty: the name of the host, and the process id."""
    policy: SessionPolicy = attrs.field(factory=SessionPolicy, validator=type_validator(SessionPolicy))
    """Durations and bounds."""

    def __attrs_post_init__(self) -> None:
        if self.store is not None and (self.agent_persistence is not None or self.display_message_persistence is not None):
            raise ValueError("SessionConfig takes either store, or agent_persistence and display_message_persistence, not both")
        if self.cluster is not None and self.leases is not None:
            raise ValueError("SessionConfig takes either cluster or leases, not both: a cluster has one lease for each node")

    def store_adapter(self) -> StoreAdapter:
        """Return the way to the store. One object that is given for both keys, and that can commit, is used as one store."""
        if self.store is not None:
            return UnifiedStore(self.store)
        states, display = self.agent_persistence, self.display_message_persistence
        if states is None and display is None:
            return UnifiedStore(MemoryStore())
        both: object = states
        if both is display and isinstance(both, ConversationStore):
            return UnifiedStore(both)
        return SplitStore(MemoryStates() if states is None else states, display, self.policy.settle_timeout / 2)

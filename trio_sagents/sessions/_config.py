"""The settings of one `open_sessions` block."""

from collections.abc import Callable

import attrs

from trio_sagents.broadcast import LocalPubSub, Presence
from trio_sagents.broadcast._pubsub import PubSub
from trio_sagents.data.config import Check, SessionPolicy, check_timeout, function_validator, type_validator
from trio_sagents.data.ids import default_agent_id
from trio_sagents.data.json import Opaque
from trio_sagents.persistence.memory import MemoryStore
from trio_sagents.sessions._routing import FactoryRouter
from trio_sagents.storage import SplitStore, StoreAdapter, UnifiedStore
from trio_sagents.storage.ports import AgentPersistence, ConversationStore, DisplayMessagePersistence
from trio_sagents.supervisor import SameScope
from trio_sagents.supervisor._access import Authorizer
from trio_sagents.supervisor._leases import Leases


def _having(*methods: str, optional: bool = False) -> Check:
    def check(_config: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
        if value is None and optional:
            return
        missing = [name for name in methods if not callable(getattr(value, name, None))]
        if missing:
            raise TypeError(f"SessionConfig.{attribute.name} must have the method {missing[0]}(); {value!r} has none")

    return check


def _timeout(_config: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
    check_timeout(f"SessionConfig.{attribute.name}", value)


@attrs.frozen(kw_only=True)
class SessionConfig:
    """Settings; only the router is required. Checked when built; nothing is opened."""

    factory_router: FactoryRouter = attrs.field(validator=_having("resolve"))
    """Says which factory builds the agent of a conversation."""
    store: ConversationStore | None = attrs.field(
        default=None, validator=_having("load", "commit", "history", "conversations", "delete", optional=True)
    )
    """One store for state and transcript, as a unit. Nothing given at all: a `MemoryStore`."""
    agent_persistence: AgentPersistence | None = attrs.field(default=None, validator=_having("load_state", "persist_state", optional=True))
    """A host's own store of states, in place of `store`; whole snapshots, so each write costs as much as the conversation is long."""
    display_message_persistence: DisplayMessagePersistence | None = attrs.field(
        default=None, validator=_having("save_message", "update_tool_status", optional=True)
    )
    """A host's own store of the transcript, beside `agent_persistence`."""
    pubsub: PubSub = attrs.field(factory=LocalPubSub, validator=_having("publish", "subscribe"))
    """Carries presence between processes."""
    presence: Presence = attrs.field(
        default=attrs.Factory(lambda self: Presence(self.pubsub), takes_self=True), validator=type_validator(Presence)
    )
    """Who watches what, and which agents are up; may be shared by several blocks."""
    inactivity_timeout: float = attrs.field(default=300.0, validator=_timeout)
    """Seconds of idleness after which an agent leaves; `math.inf` disables; > 0."""
    agent_id_fun: Callable[[str], str] = attrs.field(default=default_agent_id, validator=function_validator())
    """Makes the agent id of a conversation id; must give each conversation an id of its own."""
    authorizer: Authorizer = attrs.field(factory=SameScope, validator=_having("authorize"))
    """Says who may do what."""
    leases: Leases | None = attrs.field(default=None, validator=_having("acquire", "renew", "release", optional=True))
    """Which of several processes may run a conversation's agent. None: whoever loads it last is its writer."""
    policy: SessionPolicy = attrs.field(factory=SessionPolicy, validator=type_validator(SessionPolicy))

    def __attrs_post_init__(self) -> None:
        if self.store is not None and (self.agent_persistence is not None or self.display_message_persistence is not None):
            raise ValueError("SessionConfig takes either store, or agent_persistence and display_message_persistence, not both")
        if self.agent_persistence is None and self.display_message_persistence is not None:
            raise ValueError("SessionConfig.display_message_persistence needs an agent_persistence beside it, or use store for both")

    def store_adapter(self) -> StoreAdapter:
        """Return the way to the store. One object in both places, that can commit, is used as one transactional unit."""
        if self.store is not None:
            return UnifiedStore(self.store)
        if self.agent_persistence is None:
            return UnifiedStore(MemoryStore())
        both: object = self.agent_persistence
        if both is self.display_message_persistence and isinstance(both, ConversationStore):
            return UnifiedStore(both)
        return SplitStore(self.agent_persistence, self.display_message_persistence)

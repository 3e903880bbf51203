"""The public names of this version, with the signatures that programs are written against.

`test_api.py` compares this page with the real objects: a name that is here exists, with these parameters, kinds and defaults, these
attributes in this order where the class is built from them, and these bases. Names may be added to the library freely, and
parameters that have defaults. A line with nothing but a string says from which module the names below it are imported.
"""

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Any, Literal, Protocol, Self

"trio_sagents"

JSON = Mapping[str, Any]
Channel = Literal["main", "debug"]
Overlap = Literal["queue", "steer", "interrupt", "reject"]
Action = Literal["start", "view", "post", "decide", "cancel", "stop", "debug", "list", "delete"]
ModelFailureKind = Literal[
    "auth",
    "quota",
    "rate_limited",
    "overloaded",
    "server_error",
    "context_overflow",
    "refused_content",
    "invalid_request",
    "network",
    "timeout",
    "protocol",
    "incomplete",
    "unknown",
]
Lifecycle = Literal[
    "on_message", "on_step", "on_completion", "on_cancel", "on_error", "on_interrupt", "on_title_generated", "on_shutdown"
]

# What a host sets.

class SessionConfig:
    def __init__(
        self,
        *,
        factory_router: FactoryRouter,
        store: ConversationStore | None = None,
        agent_persistence: AgentPersistence | None = None,
        display_message_persistence: DisplayMessagePersistence | None = None,
        pubsub: PubSub = ...,
        presence: Presence = ...,
        inactivity_timeout: float = 300.0,
        agent_id_fun: Callable[[str], str] = ...,
        authorizer: Authorizer = ...,
        policy: SessionPolicy = ...,
    ) -> None: ...

class SessionPolicy:
    def __init__(
        self,
        *,
        viewer_grace: float = 1.0,
        grace_period: float = 30.0,
        settle_timeout: float = 5.0,
        start_timeout: float = 30.0,
        cancel_grace: float = 5.0,
        draft_interval: float = 1.0,
        flush_interval: float = 0.0,
        queue_limit: int = 64,
        subscriber_events: int = 256,
        subscriber_text: int = 262144,
        replay_events: int = 1024,
        reauthorize_interval: float = 60.0,
        blocking_warning: float = 0.5,
        max_sessions: int = ...,
        max_sessions_per_scope: int = ...,
        max_message_bytes: int = ...,
        max_state_bytes: int = ...,
        window: float = ...,
        window_bytes: float = ...,
        max_tool_output_bytes: int = ...,
    ) -> None: ...

class TurnLimits:
    def __init__(
        self, *, max_rounds: int = ..., max_calls: int = ..., turn_timeout: float = ..., tool_timeout: float = ..., max_parallel: int = ...
    ) -> None: ...

class SessionOpts:
    def __init__(self, *, fresh_state_attrs: Mapping[str, Any] = ..., supervisor_opts: Mapping[str, Any] = ..., **app_internal: Any) -> None: ...

def open_sessions(config: SessionConfig) -> AbstractAsyncContextManager[Sessions]: ...
def tune_gc(*, young: int = 50000, freeze: bool = False) -> tuple[int, int, int]: ...

# The front door.

class Sessions:
    @property
    def presence(self) -> Presence: ...
    async def start(
        self,
        conversation_id: str,
        *,
        scope: Any = None,
        request_opts: Mapping[str, Any] | None = None,
        initial_subscribers: Sequence[Subscriber] = (),
    ) -> SessionInfo: ...
    async def ensure_running(
        self,
        conversation_id: str,
        subscriber: Subscriber,
        *,
        request_opts: Mapping[str, Any] | None = None,
        after: Cursor | str | None = None,
    ) -> SessionInfo: ...
    async def running(self, conversation_id: str, *, scope: Any = None) -> bool: ...
    async def stop(self, conversation_id: str, *, scope: Any = None, grace_period: float = 0.0) -> bool: ...
    async def resume(
        self, conversation_id: str, decisions: Sequence[Decision], *, scope: Any = None, request_opts: Mapping[str, Any] | None = None
    ) -> Receipt: ...
    async def dismiss(
        self, conversation_id: str, *, scope: Any = None, interrupt_id: str | None = None, request_opts: Mapping[str, Any] | None = None
    ) -> None: ...
    async def post(
        self,
        conversation_id: str,
        message: str | UserMessage,
        *,
        scope: Any = None,
        message_id: str | None = None,
        overlap: Overlap = "queue",
        request_opts: Mapping[str, Any] | None = None,
    ) -> Receipt: ...
    async def cancel_turn(self, conversation_id: str, *, scope: Any = None, turn_id: str | None = None) -> TurnOutcome | None: ...
    async def get(self, conversation_id: str, *, scope: Any = None) -> AgentHandle: ...
    def open_subscriber(self, *, scope: Any = None) -> AbstractAsyncContextManager[Subscriber]: ...
    def watch(
        self,
        conversation_id: str,
        *,
        scope: Any = None,
        viewer: str | None = None,
        after: Cursor | str | None = None,
        request_opts: Mapping[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[Watch]: ...
    def page(
        self,
        conversation_id: str,
        *,
        scope: Any = None,
        viewer: str | None = None,
        after: Cursor | str | None = None,
        limit: int = 100,
        history: Callable[..., Awaitable[HistoryPage]] | None = None,
        request_opts: Mapping[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[Page]: ...
    async def history(self, conversation_id: str, *, scope: Any = None, before: str | None = None, limit: int = 100) -> HistoryPage: ...
    async def conversations(self, *, scope: Any = None, after: str | None = None, limit: int = 100) -> ConversationPage: ...
    async def delete(self, conversation_id: str, *, scope: Any = None) -> bool: ...
    async def agent_info(self, conversation_id: str, *, scope: Any = None) -> AgentInfo: ...
    async def list_running(self, *, scope: Any = None) -> Sequence[AgentInfo]: ...
    async def list_matching(self, pattern: str, *, scope: Any = None) -> Sequence[AgentInfo]: ...
    async def agent_count(self, *, scope: Any = None) -> int: ...
    async def drain(self) -> DrainReport: ...
    def statistics(self) -> SessionsStatistics: ...

class SessionInfo:
    agent_id: str
    conversation_id: str
    agent: AgentHandle
    started: bool

class DrainReport: ...
class SessionsStatistics: ...

class AgentHandle:
    @property
    def agent_id(self) -> str: ...
    @property
    def conversation_id(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    async def post(self, message: str | UserMessage, *, message_id: str | None = None, overlap: Overlap = "queue") -> Receipt: ...
    async def cancel_turn(self, *, turn_id: str | None = None) -> TurnOutcome | None: ...
    async def touch(self) -> None: ...
    async def info(self) -> AgentInfo: ...
    async def state(self) -> State: ...
    async def wait_idle(self) -> None: ...
    async def wait_ended(self) -> ShutdownReason: ...
    async def stop(self, *, grace_period: float = 0.0) -> bool: ...
    async def resume(self, decisions: Sequence[Decision]) -> Receipt: ...
    async def dismiss(self, *, interrupt_id: str | None = None) -> None: ...
    async def notify_middleware(self, middleware_id: str, message: Any) -> None: ...

class Receipt:
    message_id: str
    duplicate: bool
    async def wait(self) -> TurnOutcome: ...

class AgentInfo:
    agent_id: str
    conversation_id: str
    status: Status
    message_count: int
    queued: int
    viewers: int
    interrupt: Interrupt | None
    started_at: datetime.datetime
    last_activity_at: datetime.datetime
    turn_id: str | None

class Status(Enum):
    IDLE = "idle"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    ERROR = "error"

class ShutdownReason(Enum):
    INACTIVITY = ...
    NO_VIEWERS = ...
    STOPPED = ...
    CLOSED = ...
    HOST_CANCELLED = ...
    CRASHED = ...
    FENCED = ...
    DRAINED = ...

class Completed:
    message: Message
    usage: Usage
    result: Any
    @property
    def cut(self) -> Literal["length", "content_filtered"] | None: ...

class Interrupted:
    interrupt: Interrupt

class Cancelled:
    cause: CancelCause

class Failed:
    error: Exception

class Unanswered:
    reason: ShutdownReason | str

TurnOutcome = Completed | Interrupted | Cancelled | Failed | Unanswered

# Viewers.

class Subscriber:
    @property
    def subscriptions(self) -> Mapping[tuple[str, Channel], Literal["pending", "subscribed"]]: ...
    async def subscribe(self, conversation_id: str, *, channel: Channel = "main", after: Cursor | str | None = None) -> None: ...
    async def unsubscribe(self, conversation_id: str, *, channel: Channel = "main") -> None: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Envelope: ...
    def batches(self) -> AsyncIterator[Sequence[Envelope]]: ...
    def take_nowait(self) -> Sequence[Envelope]: ...
    def call_when_ready(self, wake: Callable[[], object]) -> None: ...

class Watch(Subscriber):
    @property
    def info(self) -> SessionInfo: ...

class Page:
    @property
    def rows(self) -> Sequence[DisplayMessage]: ...
    @property
    def has_older(self) -> bool: ...
    @property
    def streaming(self) -> StreamingMessage | None: ...
    @property
    def tool_calls(self) -> Sequence[ToolCall]: ...
    @property
    def status(self) -> Status: ...
    @property
    def error(self) -> str | None: ...
    @property
    def is_up(self) -> bool: ...
    @property
    def interrupt(self) -> Interrupt | None: ...
    @property
    def todos(self) -> Sequence[Todo]: ...
    @property
    def queued(self) -> int: ...
    @property
    def cursor(self) -> Cursor | None: ...
    async def older(self, limit: int = 100) -> Sequence[DisplayMessage]: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> PageChange: ...
    @property
    def needs_history(self) -> bool: ...
    async def read_history(self) -> None: ...
    def take_nowait(self) -> PageChange: ...

class PageChange:
    rows: Sequence[DisplayMessage]
    replaces_rows: bool
    parts: frozenset[PagePart]
    events: Sequence[Envelope]

class PagePresent:
    status: Status
    error: str | None
    is_up: bool
    interrupt: Interrupt | None
    todos: Sequence[Todo]
    queued: int
    @property
    def streaming(self) -> StreamingMessage | None: ...
    @property
    def tool_calls(self) -> Sequence[ToolCall]: ...

class PageView:
    def __init__(self) -> None: ...
    present: PagePresent
    cursor: Cursor | None
    before: str | None
    needs_history: bool
    generation: int
    @property
    def rows(self) -> Sequence[DisplayMessage]: ...
    @property
    def wanted(self) -> int: ...
    def begin(self, envelope: Envelope) -> None: ...
    def apply(self, batch: Iterable[Envelope]) -> None: ...
    def read(self, page: HistoryPage) -> None: ...
    def read_older(self, page: HistoryPage) -> Sequence[DisplayMessage]: ...
    def take_change(self) -> PageChange | None: ...

class Envelope:
    agent_id: str
    conversation_id: str
    channel: Channel
    first_seq: int
    seq: int
    event: Event
    @property
    def cursor(self) -> Cursor: ...

class Cursor:
    def __str__(self) -> str: ...
    @classmethod
    def parse(cls, text: str) -> Self: ...

def envelope_to_dict(envelope: Envelope) -> JSON: ...
def check_id(name: str, value: Any) -> str: ...
def row_to_dict(row: DisplayMessage) -> JSON: ...
def interrupt_to_dict(interrupt: Interrupt) -> JSON: ...
def outcome_to_dict(outcome: TurnOutcome) -> JSON: ...

class Presence:
    def __init__(self, pubsub: PubSub | None = None, *, heartbeat_interval: float = 5.0) -> None: ...
    def track(self, topic: str, key: str, meta: JSON | None = None) -> AbstractAsyncContextManager[None]: ...
    async def list(self, topic: str) -> Mapping[str, Sequence[JSON]]: ...
    def changes(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PresenceDiff]]: ...
    async def run(self) -> None: ...

class PresenceDiff:
    joins: Mapping[str, Sequence[JSON]]
    leaves: Mapping[str, Sequence[JSON]]

def conversation_topic(conversation_id: str) -> str: ...

AGENTS_TOPIC = "agent_server:presence"

class LocalPubSub: ...

# Events.

class Snapshot:
    status: Status
    interrupt: Interrupt | None
    todos: Sequence[Todo]
    streaming: StreamingMessage | None
    tool_calls: Sequence[ToolCall]
    queued: int
    cursor: Cursor
    replaces: Cursor | None
    turn_id: str | None

class StreamingMessage:
    message_id: str
    parts: Sequence[Part]

class Gap:
    first: int
    last: int
    replaces: Cursor | None

class StatusChanged:
    status: Status
    data: Interrupt | str | None

class TurnStarted:
    turn_id: str

class TurnEnded:
    turn_id: str
    outcome: TurnOutcome

class TextDelta:
    text: str
    message_id: str
    part: int
    offset: int
    turn_id: str

class ThinkingDelta:
    text: str
    message_id: str
    part: int
    offset: int
    turn_id: str

class MessageCompleted:
    message: Message
    turn_id: str | None
    @property
    def message_id(self) -> str: ...

class MessageQueued:
    message: Message
    @property
    def message_id(self) -> str: ...

class TokenUsage:
    usage: Usage
    message_id: str
    turn_id: str

class ToolCallIdentified:
    call: ToolCall
    message_id: str
    turn_id: str

class ToolExecutionUpdated:
    call: ToolCall
    status: str
    turn_id: str
    output: str | None
    error: str | None

class DisplayMessageSaved:
    row: DisplayMessage
    @property
    def message_id(self) -> str: ...

class DisplayMessageUpdated:
    row: DisplayMessage
    @property
    def message_id(self) -> str: ...

class TodosUpdated:
    todos: Sequence[Todo]

class StateRestored: ...

class ChainError:
    error: Exception
    unsaved: bool
    turn_id: str | None
    source: str

class ToolIgnoresCancellation:
    call: ToolCall
    turn_id: str

class AgentShutdown:
    reason: ShutdownReason
    status: Status
    queued: int
    interrupt_restorable: bool
    last_activity_at: datetime.datetime
    shutdown_at: datetime.datetime

class AgentStateUpdated:
    state: State

class MiddlewareAction: ...
class RequestShortened: ...
class SubAgentEvent: ...

class ModelCalled:
    model: str
    request: ModelRequest
    attempt: int
    turn_id: str

class ModelAnswered:
    model: str
    message_id: str
    usage: Usage
    seconds: float
    turn_id: str

class ModelError:
    error: Exception

# What a host implements.

class PubSub(Protocol):
    max_payload: int
    def publish(self, topic: str, payload: bytes) -> None: ...
    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...

class FactoryRouter(Protocol):
    async def resolve(self, scope: Any, conversation_id: str, request_opts: Mapping[str, Any]) -> tuple[Factory, Any]: ...

class Factory(Protocol):
    async def create_agent(self, agent_id: str, config: Any) -> Agent | tuple[Agent, SessionOpts]: ...

class SingleFactoryRouter:
    def __init__(
        self, factory: Agent | Factory | Callable[[str, Any], Awaitable[Agent | tuple[Agent, SessionOpts]]], config: type | None = None
    ) -> None: ...
    async def resolve(self, scope: Any, conversation_id: str, request_opts: Mapping[str, Any]) -> tuple[Factory, Any]: ...

class Authorizer(Protocol):
    async def authorize(self, scope: Any, conversation_id: str, action: Action) -> bool: ...

class UnknownScope:
    actor: str | int | None = None

class SameScope:
    def __init__(self, key: Callable[[Any], str | int | None] = ...) -> None: ...
    async def authorize(self, scope: Any, conversation_id: str, action: Action) -> bool: ...

MessagePreprocessor = Callable[[UserMessage, Any], Awaitable[UserMessage | tuple[UserMessage, UserMessage]]]

class PersistContext:
    agent_id: str
    conversation_id: str
    lifecycle: Lifecycle
    actor: Any
    owner: str | int | None
    epoch: int
    revision: int

class StoredState:
    data: JSON
    owner: str | int | None
    epoch: int
    revision: int

class AgentPersistence(Protocol):
    async def load_state(self, scope: Any, context: PersistContext) -> StoredState | None: ...
    async def persist_state(self, scope: Any, state_data: JSON, context: PersistContext) -> None: ...

class DisplayMessagePersistence(Protocol):
    async def save_message(self, scope: Any, message: Message, context: PersistContext) -> Sequence[DisplayMessage]: ...
    async def update_tool_status(self, scope: Any, status: str, tool_info: JSON, context: PersistContext) -> DisplayMessage | None: ...

class ConversationStore(Protocol):
    async def load(self, scope: Any, conversation_id: str) -> Conversation | None: ...
    async def commit(self, scope: Any, commit: Commit) -> int: ...
    async def history(self, scope: Any, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage: ...
    async def conversations(self, scope: Any, *, after: str | None, limit: int) -> ConversationPage: ...
    async def delete(self, scope: Any, conversation_id: str) -> bool: ...

class MemoryStore:
    def __init__(self) -> None: ...
    async def load(self, scope: Any, conversation_id: str) -> Conversation | None: ...
    async def commit(self, scope: Any, commit: Commit) -> int: ...
    async def history(self, scope: Any, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage: ...
    async def conversations(self, scope: Any, *, after: str | None, limit: int) -> ConversationPage: ...
    async def delete(self, scope: Any, conversation_id: str) -> bool: ...

class SqliteStore:
    def __init__(self, path: Any, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None: ...
    async def load(self, scope: Any, conversation_id: str) -> Conversation | None: ...
    async def commit(self, scope: Any, commit: Commit) -> int: ...
    async def history(self, scope: Any, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage: ...
    async def conversations(self, scope: Any, *, after: str | None, limit: int) -> ConversationPage: ...
    async def delete(self, scope: Any, conversation_id: str) -> bool: ...
    async def migrate(self) -> bool: ...

class Conversation: ...
class Commit: ...

class Checkpoint:
    lead: int
    older: int
    known: Mapping[str, Sequence[int]]

class Recalled:
    message: JSON
    last: JSON

class OlderPage:
    messages: Sequence[JSON]
    before: str | None

class WindowedStore(Protocol):
    async def recall(self, scope: Any, conversation_id: str, names: Sequence[str]) -> Mapping[str, Recalled]: ...
    async def older_messages(self, scope: Any, conversation_id: str, *, before: str | None, limit: int) -> OlderPage: ...

class HistoryPage:
    rows: Sequence[DisplayMessage]
    before: str | None

class ConversationPage:
    items: Sequence[ConversationItem]
    after: str | None

class ConversationItem:
    conversation_id: str

class DisplayMessage:
    row_id: str
    message_id: str
    role: str
    content_type: str
    content: JSON
    status: str
    created_at: datetime.datetime
    turn_id: str | None
    is_final: bool

# The agent.

class Agent:
    def __init__(
        self,
        *,
        model: Model,
        system_prompt: str = "",
        tools: Sequence[Tool | Callable[..., Any]] = (),
        limits: TurnLimits = ...,
        name: str | None = None,
    ) -> None: ...

class Model(Protocol):
    name: str
    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelChunk]]: ...

class ModelRequest:
    system: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec]
    settings: Mapping[str, Any]

class ToolSpec:
    name: str
    description: str
    parameters: JSON

class TextChunk:
    text: str

class ThinkingChunk:
    text: str
    signature: str | None
    provider: str | None
    field: str | None

class OpaqueChunk:
    part: OpaquePart

class ToolCallChunk:
    index: int
    id: str | None
    name: str | None
    arguments_json: str
    opaque: OpaquePart | None

class UsageChunk:
    usage: Usage

class FinishChunk:
    reason: str

class Tool:
    name: str
    description: str
    parameters: JSON
    origin: str
    if_taken: str
    def tidied(self, arguments: JSON) -> JSON: ...
    version: str
    check: Callable[..., Any] | None
    recovery: Literal["unknown", "repeat"]
    @classmethod
    def of(
        cls,
        function: Any,
        *,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        check: Callable[..., Any] | None = None,
        recovery: Literal["unknown", "repeat"] | None = None,
    ) -> Tool: ...

class Row:
    def __init__(self, content_type: str, content: JSON, *, key: str | None = ..., role: str = ...) -> None: ...
    content_type: str
    content: JSON
    key: str | None
    role: str

class PostContext:
    conversation_id: str
    agent_id: str
    message_id: str
    state: State
    display: UserMessage | None
    options: Mapping[str, Any]
    values: Mapping[str, Any]

def rows_of(message: Message, created_at: datetime.datetime, call_status: str = ...) -> Sequence[DisplayMessage]: ...

class ToolContext:
    conversation_id: str
    scope: Any
    call_id: str
    idempotency_key: str
    state: State
    publish: Callable[[Event], None]
    agent_id: str
    agent_name: str
    options: Mapping[str, Any]
    values: Mapping[str, Any]

class ToolResult:
    def __init__(self, content: Any = ..., is_error: Any = ..., value: object = ..., media: Any = ..., messages: Any = ...) -> None: ...
    content: str
    is_error: bool
    value: object
    media: Sequence[ImagePart | FilePart]

class Message:
    message_id: str
    role: Literal["user", "assistant", "tool", "system"]
    parts: Sequence[Part]
    stop_reason: str | None
    @property
    def text(self) -> str: ...

class UserMessage:
    def __init__(self, parts: Any, *, metadata: JSON = ...) -> None: ...
    @property
    def text(self) -> str: ...

class ToolCall:
    call_id: str
    name: str
    arguments: JSON
    status: str
    digest: str

class OpaquePart:
    provider: str
    data: JSON

class OlderMessages:
    messages: Sequence[Message]
    before: str | None

class State:
    messages: Sequence[Message]
    todos: Sequence[Todo]
    metadata: JSON
    older: int
    @property
    def last_text(self) -> str: ...

class Todo: ...
class Interrupt: ...
class Usage: ...

# Errors.

class SagentsError(Exception):
    @property
    def public_text(self) -> str: ...         # for viewers, browsers and models
class ConversationNotFound(SagentsError, LookupError): ...
class AgentNotRunning(SagentsError): ...
class AgentStopped(AgentNotRunning): ...
class AgentBusy(SagentsError): ...
class QueueFull(SagentsError): ...
class MessageConflict(SagentsError): ...

class StartFailed(SagentsError):
    conversation_id: str
    stage: str

class SessionsClosed(SagentsError): ...
class PersistenceError(SagentsError): ...
class Conflict(PersistenceError): ...
class StateError(PersistenceError): ...
class StateFromFuture(StateError): ...
class RegistryUnavailable(SagentsError): ...

class LimitExceeded(SagentsError):
    limit: str
    value: float

class AlreadyDecided(SagentsError): ...

class ModelFailed(SagentsError):
    kind: ModelFailureKind
    retryable: bool
    retry_after: float | None

"trio_sagents.models"

PROVIDERS: tuple[str, ...]

def model_of(name: str, **settings: Any) -> Any: ...
def split_name(name: str) -> tuple[str | None, str]: ...

class Thinking:
    def __init__(self, *, effort: str | None = None, budget_tokens: int | None = None) -> None: ...

class AnthropicModel:
    def __init__(self, name: str, client: Any = None) -> None: ...
    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelChunk]]: ...

class OpenAIModel:
    def __init__(self, name: str, base_url: str | None = None, client: Any = None) -> None: ...
    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelChunk]]: ...

"trio_sagents.web"

class VercelRoutes:
    def __init__(
        self,
        sessions: Sessions,
        authenticate: Callable[[WebRequest], Any],
        *,
        policy: WebPolicy | None = None,
        overlap: Overlap = "queue",
        sub_agents: bool = False,
        secret: bytes | None = None,
    ) -> None: ...
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...
    async def aclose(self) -> None: ...
    async def wait_shutdown(self) -> None: ...
    def revoke(self, key: str) -> int: ...

class AgUiRoutes:
    def __init__(
        self,
        sessions: Sessions,
        authenticate: Callable[[WebRequest], Any],
        *,
        policy: WebPolicy | None = None,
        overlap: Overlap = "queue",
        state_keys: Collection[str] = (),
        sub_agents: bool = False,
        secret: bytes | None = None,
    ) -> None: ...
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...
    async def aclose(self) -> None: ...
    async def wait_shutdown(self) -> None: ...
    def revoke(self, key: str) -> int: ...

"trio_sagents.testing"

class ScriptedModel:
    name: str
    def __init__(self, replies: Iterable[Reply] | Callable[[Any], Reply], *, chunk_size: int = 4, chunk_interval: float = 0.0) -> None: ...
    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelChunk]]: ...

class Call: ...
class Hang: ...

"trio_sagents.asyncio"

# The classes have the methods of their namesakes in trio_sagents; a test compares them.
def open_sessions(config: SessionConfig) -> AbstractAsyncContextManager[Any]: ...
async def call_asyncio(fn: Callable[..., Awaitable[Any]], *args: Any) -> Any: ...
async def call_trio(fn: Callable[..., Awaitable[Any]], *args: Any) -> Any: ...
def asyncio_app(app: Any) -> Any: ...

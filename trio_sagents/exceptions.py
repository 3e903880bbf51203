"""Every error that the library raises on purpose.

SagentsError
├── ConversationNotFound (LookupError)   the conversation does not exist, or this scope may not see it: both look the same
├── AgentNotRunning                      the agent does not accept commands now
│   └── AgentStopped                     because somebody stopped it
├── AgentBusy                            refused before any effect; try again when the agent is idle
├── QueueFull                            too many accepted messages are waiting
├── MessageConflict                      a message id was used before, with other content
├── StartFailed                          an agent could not start; has the stage and the reason
├── SessionsClosed                       the `open_sessions` block was left, or is draining
├── PersistenceError                     the store failed
│   ├── Conflict                         another writer changed the conversation first
│   └── StateError                       the stored state is unusable; it was not changed
│       └── StateFromFuture              the stored state was written by a newer version
├── RegistryUnavailable                  it is unknown whether the agent is running
├── RunsElsewhere                        another process holds the lease of the conversation
├── LimitExceeded                        a named limit was reached; has the value that went over it
├── AlreadyDecided                       the call has another decision on record
├── InvalidDecision (ValueError)         the decision does not fit any call that is waiting
├── NotInterrupted                       nothing is waiting for this answer
├── MiddlewareError                      a middleware raised; has its id and the hook
├── ToolNotCalled                        the turn had to end with a tool call, and the model did not make it
├── FileError                            virtual files; its own tree is in `trio_sagents.files`
├── McpDisconnected                      an MCP server cannot be reached; in `trio_sagents.mcp`
└── ModelFailed                          the provider failed

Every error has two texts. `str(error)` is for the host: it may contain the words of an exception that the host's own code raised.
`error.public_text` is for viewers, browsers and models: it leaves those words out.
"""

from typing import Final, Literal, TypeAlias, get_args

from trio_sagents._text import reason_of, text_of


class SagentsError(Exception):
    """Base of every error that this library raises on purpose."""

    source: str = ""
    """What failed, by its kind and name: "middleware 'Budget'", "model 'gpt-x'", "store SqliteStore". Empty if nothing of these failed."""
    is_logged: bool = False
    """Whether the library has written this error to the log, with the traceback of its cause."""

    @property
    def public_text(self) -> str:
        """What anybody may read: the message, without the words of an exception that the host's own code raised."""
        return text_of(self)


class ConversationNotFound(SagentsError, LookupError):
    """The conversation does not exist, or this scope may not see it. Both cases have the same message."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(conversation_id)
        self.conversation_id: Final = conversation_id

    def __str__(self) -> str:
        return f"no conversation {self.conversation_id!r}"


class AgentNotRunning(SagentsError):
    """The agent of this conversation does not accept commands now. `Sessions.post` starts it again."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(conversation_id)
        self.conversation_id: Final = conversation_id

    def __str__(self) -> str:
        return f"the agent of conversation {self.conversation_id!r} is not running"


class AgentStopped(AgentNotRunning):
    """The agent of this conversation was stopped."""

    def __str__(self) -> str:
        return f"the agent of conversation {self.conversation_id!r} was stopped"


class AgentBusy(SagentsError):
    """The agent is running a turn, or is still running. The call was refused, and nothing was done."""

    def __init__(self, conversation_id: str, why: str = "it is running a turn") -> None:
        super().__init__(conversation_id, why)
        self.conversation_id: Final = conversation_id
        self.why: Final = why
        """Why the call was refused, as a clause."""

    def __str__(self) -> str:
        return f"the agent of conversation {self.conversation_id!r} is busy: {self.why}"


class QueueFull(SagentsError):
    """`SessionPolicy.queue_limit` accepted messages are already waiting. The message was refused, and nothing was done."""

    def __init__(self, conversation_id: str, limit: int) -> None:
        super().__init__(conversation_id, limit)
        self.conversation_id: Final = conversation_id
        self.limit: Final = limit
        """The `queue_limit` of the session."""

    def __str__(self) -> str:
        return (
            f"conversation {self.conversation_id!r} already has {self.limit} messages waiting, which is its queue_limit; "
            "post again after a turn has taken some of them"
        )


class MessageConflict(SagentsError):
    """This message id was used before in this conversation, with other content. Nothing was changed."""

    def __init__(self, conversation_id: str, message_id: str) -> None:
        super().__init__(conversation_id, message_id)
        self.conversation_id: Final = conversation_id
        self.message_id: Final = message_id

    def __str__(self) -> str:
        return (
            f"conversation {self.conversation_id!r} already has a message {self.message_id!r} with other content; "
            "use a new message_id for a new message"
        )


_STAGES: Final = {
    "authorize": "SessionConfig.authorizer",
    "route": "SessionConfig.factory_router",
    "build": "create_agent() of the factory",
    "load": "the lease or the store",
    "start": "the agent and its middleware",
}
"""By stage, whose code runs in it."""


class StartFailed(SagentsError):
    """An agent could not start. Nothing of the attempt is left, and the next call tries again.

    `__cause__` is the exception that ended the start, often one of the host's own code. `str()` shows its type and its text, so do
    not show that to other people: an exception of a database driver may contain a password. `public_text` shows its type only.
    """

    def __init__(self, conversation_id: str, stage: str) -> None:
        super().__init__(conversation_id, stage)
        self.conversation_id: Final = conversation_id
        self.stage: Final = stage
        """One of "authorize", "route", "build", "load", "start"."""

    @property
    def public_text(self) -> str:
        """What anybody may read: of a cause that is not one of the library's own errors, the type only."""
        cause = self.__cause__
        if cause is None:
            return self._beginning
        why = f"{type(cause).__name__}: {cause.public_text}" if isinstance(cause, SagentsError) else type(cause).__name__
        return f"{self._beginning}: {why}"

    @property
    def _beginning(self) -> str:
        return f"could not start the agent of conversation {self.conversation_id!r}, at stage {self.stage!r}"

    def __str__(self) -> str:
        cause = self.__cause__
        if cause is None:
            return self._beginning
        reason = reason_of(cause)
        inner = cause.__cause__ if isinstance(cause, SagentsError) else None
        if inner is not None:  # our own error says where, its cause says what
            reason = f"{reason.removesuffix(f' {type(inner).__name__}')}: {reason_of(inner)}"
        whose = _STAGES.get(self.stage)
        return f"{self._beginning}{'' if whose is None else f' ({whose})'}: {reason}"


class SessionsClosed(SagentsError):
    """The `open_sessions` block was left, or `drain()` was called. No agent starts any more."""

    def __init__(self) -> None:
        super().__init__("these sessions are closed: their open_sessions block was left, or is draining")


class PersistenceError(SagentsError):
    """The store failed. Whatever is not stored was not acknowledged."""


class Conflict(PersistenceError):
    """The stored conversation has another revision than this write builds on: another writer changed it first."""

    def __init__(self, conversation_id: str, *, expected: tuple[int, int], found: tuple[int, int] | None) -> None:
        super().__init__(conversation_id, expected, found)
        self.conversation_id: Final = conversation_id
        self.expected: Final = expected
        """(epoch, revision) that the write builds on."""
        self.found: Final = found
        """(epoch, revision) in the store, or None if the conversation is gone."""

    def __str__(self) -> str:
        found = "the conversation is gone" if self.found is None else f"the store has {self.found}"
        return (
            f"another writer changed conversation {self.conversation_id!r}: this write builds on "
            f"(epoch, revision) {self.expected}, and {found}; start the agent again to continue from what is stored"
        )


class StateError(PersistenceError):
    """The stored state of a conversation is unusable. It was not changed."""

    def __init__(self, conversation_id: str, why: str) -> None:
        super().__init__(conversation_id, why)
        self.conversation_id: Final = conversation_id
        self.why: Final = why
        """What is wrong with the stored state, as a clause."""

    def __str__(self) -> str:
        return f"the stored state of conversation {self.conversation_id!r} is unusable ({self.why}); it was not changed"


class StateFromFuture(StateError):
    """The stored state has a schema version that this version of the library does not know."""

    def __init__(self, conversation_id: str, version: int, known: int) -> None:
        super().__init__(
            conversation_id, f"its schema version is {version}, and this library knows versions up to {known}; upgrade trio_sagents"
        )
        self.version: Final = version
        self.known: Final = known


class RegistryUnavailable(SagentsError):
    """It is unknown whether the agent is running. Never read this as "not running"."""


class RunsElsewhere(SagentsError):
    """Another process holds the lease of this conversation: the agent is running there, or was running until a moment ago."""

    def __init__(self, conversation_id: str, retry_after: float) -> None:
        super().__init__(conversation_id, retry_after)
        self.conversation_id: Final = conversation_id
        self.retry_after: Final = retry_after
        """Seconds until the lease ends, unless its holder renews it."""

    def __str__(self) -> str:
        return (
            f"conversation {self.conversation_id!r} is running in another process; send the call there, or try again after its lease "
            f"has ended (in {self.retry_after:.1f} seconds, unless it is renewed)"
        )


class LimitExceeded(SagentsError):
    """A named limit was reached. Nothing was done beyond it."""

    def __init__(self, limit: str, value: float, *, most: float | None = None, advice: str = "") -> None:
        super().__init__(limit, value, most)
        self.limit: Final = limit
        """The name of the limit, as in `SessionPolicy` or `TurnLimits`."""
        self.value: Final = value
        """The value that went over the limit, in the unit of the limit."""
        self.most: Final = most
        """The value of the limit, if it is known."""
        self.advice: Final = advice
        """What to do about it, if that is known."""

    def __str__(self) -> str:
        bound = "" if self.most is None else f", the limit is {self._number(self.most)}"
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.limit} exceeded: {self._number(self.value)}{bound}{advice}"

    @staticmethod
    def _number(value: float | None) -> str:
        """Return a number for people: a count with all its digits, a measure with six significant digits."""
        return f"{value:g}" if isinstance(value, float) else str(value)


class AlreadyDecided(SagentsError):
    """This call has another decision on record. That decision stays, and nothing was changed."""

    def __init__(self, conversation_id: str, call_id: str, decided: str) -> None:
        super().__init__(conversation_id, call_id, decided)
        self.conversation_id: Final = conversation_id
        self.call_id: Final = call_id
        self.decided: Final = decided
        """The kind of the decision on record: "approve", "edit", "reject", "answer", "superseded", "dismissed" or "expired"."""

    def __str__(self) -> str:
        return f"the call {self.call_id!r} of conversation {self.conversation_id!r} was decided before: {self.decided}"


class InvalidDecision(SagentsError, ValueError):
    """A decision does not fit any call that is waiting: it names another interrupt or digest, or is not allowed. Nothing was changed."""

    def __init__(self, conversation_id: str, why: str) -> None:
        super().__init__(conversation_id, why)
        self.conversation_id: Final = conversation_id
        self.why: Final = why
        """What is wrong with the decision, as a clause."""

    def __str__(self) -> str:
        return f"the decision for conversation {self.conversation_id!r} was not accepted: {self.why}"


class NotInterrupted(SagentsError):
    """Nothing in this conversation is waiting for this answer. Nothing was changed."""

    def __init__(self, conversation_id: str, why: str = "it is not interrupted") -> None:
        super().__init__(conversation_id, why)
        self.conversation_id: Final = conversation_id
        self.why: Final = why
        """What the conversation is doing instead, as a clause."""

    def __str__(self) -> str:
        return f"conversation {self.conversation_id!r} is not waiting for this answer: {self.why}"


class MiddlewareError(SagentsError):
    """A middleware raised. Its exception is `__cause__`; the message shows the type of that, and not its text."""

    def __init__(self, middleware_id: str, hook: str) -> None:
        super().__init__(middleware_id, hook)
        self.source: str = f"middleware {middleware_id!r}"
        self.middleware_id: Final = middleware_id
        self.hook: Final = hook
        """The method that raised."""

    def __str__(self) -> str:
        cause = "" if self.__cause__ is None else f" with {type(self.__cause__).__name__}"
        return f"the middleware {self.middleware_id!r} failed in {self.hook}{cause}"


class ToolNotCalled(SagentsError):
    """The turn had to end with a call of one of these tools, and the model ended it without such a call."""

    def __init__(self, tools: "tuple[str, ...]", cut: str | None = None) -> None:
        super().__init__(tools)
        self.tools: Final = tools
        """The names of the tools, any of which would have ended the turn."""
        self.cut: Final = cut
        """Why the provider ended the last answer before it was whole, such as "length"; None if the answer was whole."""

    def __str__(self) -> str:
        how = "ended its turn" if self.cut is None else f"was cut off ({self.cut})"
        return f"the model {how} without calling {' or '.join(map(repr, self.tools))}"


ModelFailureKind: TypeAlias = Literal[
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
"""What went wrong with a model; `docs/how-to/providers.md` says what each kind means."""
MODEL_FAILURE_KINDS: Final = frozenset(get_args(ModelFailureKind))
RETRYABLE_KINDS: Final[frozenset[ModelFailureKind]] = frozenset(
    {"rate_limited", "overloaded", "server_error", "network", "timeout", "protocol"}
)
"""Kinds for which the same request may succeed later, if the error does not say otherwise."""


class ModelFailed(SagentsError):
    """The model's provider failed, refused the request, or gave an answer that is not one.

    Args:
        message: what went wrong, in the provider's words if there are any; without secrets.
        retryable: whether the same request may succeed later; None decides by `kind`.
        retry_after: seconds that the provider asked to wait, or None.
        kind: what went wrong, as one of a closed set of words.

    Raises:
        ValueError: there is no such kind.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        kind: ModelFailureKind = "unknown",
    ) -> None:
        if kind not in MODEL_FAILURE_KINDS:
            raise ValueError(f"kind must be one of {', '.join(sorted(MODEL_FAILURE_KINDS))}, not {kind!r}")
        super().__init__(message)
        self.kind: Final = kind
        """What went wrong. Retries and fallbacks look at this, and hosts may."""
        self.retryable: Final = kind in RETRYABLE_KINDS if retryable is None else retryable
        """Whether the same request may succeed later."""
        self.retry_after: Final = retry_after
        """Seconds that the provider asked to wait, or None."""

"""Every error the library raises on purpose.

SagentsError
├── ConversationNotFound (LookupError)   no such conversation, or not yours: the two look alike
├── AgentNotRunning                      the agent does not accept commands now
│   └── AgentStopped                     because somebody stopped it
├── AgentBusy                            refused before any effect; try again when it is idle
├── QueueFull                            too many accepted messages wait
├── MessageConflict                      a used message id came with other content
├── StartFailed                          a boot failed; the stage and the cause are inside
├── SessionsClosed                       the `open_sessions` block was left, or is draining
├── PersistenceError                     the store could not do it
│   ├── Conflict                         another writer was there first
│   └── StateError                       what is stored cannot be used; it was left as it is
│       └── StateFromFuture              it was written by a newer version
├── RegistryUnavailable                  nobody can say whether the agent runs
├── RunsElsewhere                        another process has the lease of the conversation
├── LimitExceeded                        a named limit, and the value that went over it
├── AlreadyDecided                       the call was decided otherwise before
├── InvalidDecision (ValueError)         a decision that fits no call that waits
├── NotInterrupted                       nothing waits for an answer
├── MiddlewareError                      a middleware raised; its id and the hook are inside
├── ToolNotCalled                        the turn was to end with a tool that the model did not call
├── FileError                            virtual files; its own tree is in `trio_sagents.files`
├── McpDisconnected                      an MCP server is not there; `trio_sagents.mcp`
└── ModelFailed                          the provider's fault
"""

from typing import Final, Literal, TypeAlias, get_args


class SagentsError(Exception):
    """Base of every error that this library raises on purpose."""


class ConversationNotFound(SagentsError, LookupError):
    """There is no such conversation for this scope. A refused caller gets the same words."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(conversation_id)
        self.conversation_id: Final = conversation_id

    def __str__(self) -> str:
        return f"no conversation {self.conversation_id!r}"


class AgentNotRunning(SagentsError):
    """The agent of this conversation does not accept commands now; a `post` through `Sessions` wakes it."""

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
    """Refused, with nothing done, because the agent is at work or still runs."""

    def __init__(self, conversation_id: str, why: str = "it is at work on a turn") -> None:
        super().__init__(conversation_id, why)
        self.conversation_id: Final = conversation_id
        self.why: Final = why

    def __str__(self) -> str:
        return f"the agent of conversation {self.conversation_id!r} is busy: {self.why}"


class QueueFull(SagentsError):
    """Refused, with nothing done: `SessionPolicy.queue_limit` accepted messages wait already."""

    def __init__(self, conversation_id: str, limit: int) -> None:
        super().__init__(conversation_id, limit)
        self.conversation_id: Final = conversation_id
        self.limit: Final = limit

    def __str__(self) -> str:
        return (
            f"conversation {self.conversation_id!r} has {self.limit} accepted messages waiting, "
            "which is its queue_limit; post again when a turn has taken them"
        )


class MessageConflict(SagentsError):
    """This message id was used before in this conversation, with other content. Nothing was changed."""

    def __init__(self, conversation_id: str, message_id: str) -> None:
        super().__init__(conversation_id, message_id)
        self.conversation_id: Final = conversation_id
        self.message_id: Final = message_id

    def __str__(self) -> str:
        return (
            f"conversation {self.conversation_id!r} has a message {self.message_id!r} with other content; "
            "use a new message_id for a new message"
        )


class StartFailed(SagentsError):
    """A boot failed and left nothing behind. The host's error is `__cause__`."""

    def __init__(self, conversation_id: str, stage: str) -> None:
        super().__init__(conversation_id, stage)
        self.conversation_id: Final = conversation_id
        self.stage: Final = stage
        """One of "authorize", "route", "build", "load", "start"."""

    def __str__(self) -> str:
        cause = self.__cause__  # of a foreign error the class alone: its words may be a secret, and stand in the traceback
        why = "" if cause is None else f": {cause!r}" if isinstance(cause, SagentsError) else f": {type(cause).__name__}"
        return f"could not start the agent of conversation {self.conversation_id!r}, at stage {self.stage!r}{why}"


class SessionsClosed(SagentsError):
    """The `open_sessions` block was left, or `drain()` was called: nothing starts any more."""

    def __init__(self) -> None:
        super().__init__("these sessions are closed: their open_sessions block was left, or is draining")


class PersistenceError(SagentsError):
    """The store could not do what was asked. Nothing was acknowledged that is not stored."""


class Conflict(PersistenceError):
    """The stored conversation is not at the revision this write builds on: another writer was there first."""

    def __init__(self, conversation_id: str, *, expected: tuple[int, int], found: tuple[int, int] | None) -> None:
        super().__init__(conversation_id, expected, found)
        self.conversation_id: Final = conversation_id
        self.expected: Final = expected
        """(epoch, revision) that the write builds on."""
        self.found: Final = found
        """(epoch, revision) in the store, or None where the row is gone."""

    def __str__(self) -> str:
        return (
            f"conversation {self.conversation_id!r} was written by somebody else: this write builds on "
            f"(epoch, revision) {self.expected}, the store has {self.found}; start it anew to go on from there"
        )


class StateError(PersistenceError):
    """What is stored for this conversation cannot be used. The stored row was left as it is."""

    def __init__(self, conversation_id: str, why: str) -> None:
        super().__init__(conversation_id, why)
        self.conversation_id: Final = conversation_id
        self.why: Final = why

    def __str__(self) -> str:
        return f"the stored state of conversation {self.conversation_id!r} cannot be used ({self.why}); it was left as it is"


class StateFromFuture(StateError):
    """The stored state has a schema version that this version of the library does not know."""

    def __init__(self, conversation_id: str, version: int, known: int) -> None:
        super().__init__(conversation_id, f"it has schema version {version}, this library knows up to {known}; upgrade it")
        self.version: Final = version
        self.known: Final = known


class RegistryUnavailable(SagentsError):
    """Nobody can say whether the agent runs: never to be read as "not running"."""


class RunsElsewhere(SagentsError):
    """Another process has the lease of this conversation: its agent runs there, or did until a moment ago."""

    def __init__(self, conversation_id: str, retry_after: float) -> None:
        super().__init__(conversation_id, retry_after)
        self.conversation_id: Final = conversation_id
        self.retry_after: Final = retry_after
        """Seconds until the lease ends, if it is not renewed."""

    def __str__(self) -> str:
        return (
            f"conversation {self.conversation_id!r} runs in another process; send the call there, or try again once its lease has "
            f"ended, in {self.retry_after:.1f} seconds if it is not renewed"
        )


class LimitExceeded(SagentsError):
    """A named limit was reached. Nothing was done beyond it."""

    def __init__(self, limit: str, value: float, *, most: float | None = None) -> None:
        super().__init__(limit, value, most)
        self.limit: Final = limit
        """The name of the limit, as in `SessionPolicy` or `TurnLimits`."""
        self.value: Final = value
        """The value that went over it, in the unit of the limit."""
        self.most: Final = most
        """The limit's value, where known."""

    def __str__(self) -> str:
        bound = "" if self.most is None else f", the limit is {self._number(self.most)}"
        return f"{self.limit} exceeded: {self._number(self.value)}{bound}"

    @staticmethod
    def _number(value: float | None) -> str:
        """Return a number for people: a count with all its digits, a measure with the six that matter."""
        return f"{value:g}" if isinstance(value, float) else str(value)


class AlreadyDecided(SagentsError):
    """This call was decided before, otherwise. The recorded decision stands, and nothing was changed."""

    def __init__(self, conversation_id: str, call_id: str, decided: str) -> None:
        super().__init__(conversation_id, call_id, decided)
        self.conversation_id: Final = conversation_id
        self.call_id: Final = call_id
        self.decided: Final = decided
        """The kind of the decision that stands: "approve", "edit", "reject", "answer", "superseded", "dismissed", "expired"."""

    def __str__(self) -> str:
        return f"the call {self.call_id!r} of conversation {self.conversation_id!r} was decided before: {self.decided}"


class InvalidDecision(SagentsError, ValueError):
    """A decision fits no call that waits: another interrupt, another digest, or not what may be decided. Nothing was changed."""

    def __init__(self, conversation_id: str, why: str) -> None:
        super().__init__(conversation_id, why)
        self.conversation_id: Final = conversation_id
        self.why: Final = why

    def __str__(self) -> str:
        return f"the decision about conversation {self.conversation_id!r} cannot be taken: {self.why}"


class NotInterrupted(SagentsError):
    """Nothing in this conversation waits for such an answer. Nothing was changed."""

    def __init__(self, conversation_id: str, why: str = "it is not interrupted") -> None:
        super().__init__(conversation_id, why)
        self.conversation_id: Final = conversation_id
        self.why: Final = why

    def __str__(self) -> str:
        return f"conversation {self.conversation_id!r} waits for no such answer: {self.why}"


class MiddlewareError(SagentsError):
    """A middleware raised. Its error is `__cause__`."""

    def __init__(self, middleware_id: str, hook: str) -> None:
        super().__init__(middleware_id, hook)
        self.middleware_id: Final = middleware_id
        self.hook: Final = hook
        """The method that raised."""

    def __str__(self) -> str:
        cause = "" if self.__cause__ is None else f" with {type(self.__cause__).__name__}"
        return f"the middleware {self.middleware_id!r} failed in {self.hook}{cause}"


class ToolNotCalled(SagentsError):
    """The turn was to end with the result of a tool, and the model ended it without calling one."""

    def __init__(self, tools: "tuple[str, ...]", cut: str | None = None) -> None:
        super().__init__(tools)
        self.tools: Final = tools
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
            raise ValueError(f"a model fails for one of the kinds {', '.join(sorted(MODEL_FAILURE_KINDS))}, not for {kind!r}")
        super().__init__(message)
        self.kind: Final = kind
        """What went wrong. Retries and fallbacks look at this, and hosts may."""
        self.retryable: Final = kind in RETRYABLE_KINDS if retryable is None else retryable
        """Whether the same request may succeed later."""
        self.retry_after: Final = retry_after
        """Seconds that the provider asked to wait, or None."""

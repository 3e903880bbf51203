"""How a turn ended: a closed union of values; match them and end with `assert_never`."""

from typing import TypeAlias

import attrs

from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import CutReason, Message
from trio_sagents.data.status import CancelCause, ShutdownReason


@attrs.frozen
class Usage:
    """Tokens, as the provider counted them; summed over the model calls of a turn."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
            self.cache_read_tokens - other.cache_read_tokens,
            self.cache_write_tokens - other.cache_write_tokens,
        )


@attrs.frozen
class Completed:
    """The model and its tools had finished. Look at `cut` before you take the answer for a whole one."""

    message: Message
    """The last assistant message."""
    usage: Usage = attrs.field(factory=Usage)
    result: Opaque = None
    """The value of the tool that ended the turn, where one was to end it; else None."""

    @property
    def cut(self) -> CutReason | None:
        """Why the provider ended the answer before it was whole: "length" or "content_filtered". None for a whole answer."""
        return self.message.cut


@attrs.frozen
class Interrupted:
    """The turn waits for a person."""

    interrupt: Interrupt


@attrs.frozen
class Cancelled:
    """The turn was cut; what had been said is kept, and marked."""

    cause: CancelCause


@attrs.frozen
class Failed:
    """The turn failed, visibly; the conversation goes on with the next message."""

    error: Exception
    """A `SagentsError`: `ModelFailed`, `LimitExceeded`, `PersistenceError`; or what crashed the agent."""


@attrs.frozen
class Unanswered:
    """The message is durable, and no turn of this agent took it to an end; a later start may answer it."""

    reason: ShutdownReason | str


TurnOutcome: TypeAlias = Completed | Interrupted | Cancelled | Failed | Unanswered

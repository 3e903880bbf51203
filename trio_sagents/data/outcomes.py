"""How a turn ended: a closed union of values; match them and end with `assert_never`."""

from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs

from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import JSONValue, Opaque
from trio_sagents.data.messages import CutReason, Message
from trio_sagents.data.status import CancelCause, ShutdownReason

COUNT_NAMES: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


@attrs.frozen
class Usage:
    """Tokens, as the provider counted them; summed over the model calls of a turn."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    is_estimated: bool = attrs.field(default=False, kw_only=True)
    """Whether some of the counts are estimates, because the provider did not report them."""

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The four counts, in the order of the fields."""
        return self.input_tokens, self.output_tokens, self.cache_read_tokens, self.cache_write_tokens

    def __add__(self, other: "Usage") -> "Usage":
        counts = (one + two for one, two in zip(self.counts, other.counts, strict=True))
        return Usage(*counts, is_estimated=self.is_estimated or other.is_estimated)

    def __sub__(self, other: "Usage") -> "Usage":
        counts = (one - two for one, two in zip(self.counts, other.counts, strict=True))
        return Usage(*counts, is_estimated=self.is_estimated)


def encode_usage(usage: Usage) -> dict[str, JSONValue]:
    """Return a usage as a stored record; the mark of an estimate is stored only if it is set."""
    record: dict[str, JSONValue] = dict(zip(COUNT_NAMES, usage.counts, strict=True))
    return {**record, "is_estimated": True} if usage.is_estimated else record


def usage_in(record: JSONValue) -> Usage | None:
    """Return the usage of a stored record; None if the record is not one."""
    if not isinstance(record, Mapping) or not {*COUNT_NAMES} <= set(record) <= {*COUNT_NAMES, "is_estimated"}:
        return None
    counts = [record[name] for name in COUNT_NAMES]
    is_estimated = record.get("is_estimated", False)
    if not isinstance(is_estimated, bool) or any(type(count) is not int or count < 0 for count in counts):
        return None
    return Usage(*counts, is_estimated=is_estimated)


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
    """The turn failed, visibly; the conversation continues with the next message."""

    error: Exception
    """A `SagentsError`: `ModelFailed`, `LimitExceeded`, `PersistenceError`; or what crashed the agent."""


@attrs.frozen
class Unanswered:
    """The message is durable, and no turn of this agent took it to an end; a later start may answer it."""

    reason: ShutdownReason | str


TurnOutcome: TypeAlias = Completed | Interrupted | Cancelled | Failed | Unanswered

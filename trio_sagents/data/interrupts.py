"""Interrupts: a turn that waits for a person, as plain data that survives a restart."""

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import attrs

from trio_sagents.data.messages import ToolCall

InterruptKind: TypeAlias = Literal["approval", "question", "halt"]


def _as_tuple(calls: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(calls)


@attrs.frozen
class Interrupt:
    """What a turn waits for. Its answer names it by `interrupt_id`."""

    interrupt_id: str
    turn_id: str
    calls: Sequence[ToolCall] = attrs.field(default=(), converter=_as_tuple)
    """The calls that wait, in the order the model asked for them."""
    kind: InterruptKind = "approval"
    restorable: bool = True
    """Whether it can be answered after the agent has left and come back."""

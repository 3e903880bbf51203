"""The window of a conversation: which messages an agent keeps in memory, and when the older ones are left to the store.

A conversation has two parts: its *window*, from the last *checkpoint* on, and the older messages before it. The agent loads and keeps
the window alone, so what an agent costs does not grow with the length of its conversation. The store keeps everything.

    load      the store gives the window, and how many messages are older
    commit    a step may bring a checkpoint: the store moves the beginning of the window, and indexes the ids of what left it
    recall    is this id known? The store answers from its index, with the message and the last answer of its turn
    page      the store gives older messages, one page after the other

A checkpoint is made with a step that is stored anyway, in the same commit. `due` decides about it:

- A summary covers the messages up to one place, so what is before that place need not be read any more (`Step.covers`).
- A turn begins, and the window has more messages or bytes than its bounds allow: then about half of it leaves, so that a checkpoint is
  rare. Inside a turn these bounds are not looked at: the model reads the same beginning in all requests of a turn.
- Or the state would be larger than `max_state_bytes` after the step.

The window begins with the instructions of a conversation (system messages at its very beginning), which never leave it. It continues
at the beginning of a turn. So no checkpoint comes between a call and its result, inside an open turn, or behind an open interrupt: the
messages of these belong to the last turn. All messages leave only if the last turn has ended, and nothing less would make enough room
for the state.

Invariant: the state in memory after a checkpoint is the state that a load would give.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.conversation.history import is_cut
from trio_sagents.conversation.limits import Limits, message_bytes
from trio_sagents.conversation.rows import TURN
from trio_sagents.data.interrupt_wire import DECISIONS, records_of
from trio_sagents.data.interrupts import DecisionRecord
from trio_sagents.data.messages import Message
from trio_sagents.data.records import Checkpoint, Recalled
from trio_sagents.data.wire import decode_message

_MESSAGE: Final = "message:"
_CALL: Final = "call:"
_INTERRUPT: Final = "interrupt:"


def message_name(message_id: str) -> str:
    """Return the name under which the store's index has a message."""
    return _MESSAGE + message_id


def call_name(call_id: str) -> str:
    """Return the name under which the store's index has a tool call."""
    return _CALL + call_id


def interrupt_name(interrupt_id: str) -> str:
    """Return the name under which the store's index has a halt that was dismissed."""
    return _INTERRUPT + interrupt_id


@attrs.frozen
class Window:
    """The window as the last commit left it, and how large it will be with the steps that are on their way, and with one more."""

    messages: Sequence[Message]
    """Oldest first."""
    older: int
    """How many messages the store has that are not in the window."""
    count: int
    """How many messages the window will have."""
    size: int
    """How many bytes the window, the queue and what waits for people will have."""
    begins_turn: bool = False
    """Whether a turn begins with the step."""


@attrs.frozen
class Cut:
    """The messages that leave the window with a step."""

    first: int
    """The place of the first one in the window."""
    end: int
    """The place behind the last one."""
    size: int
    """Their bytes, as stored."""
    checkpoint: Checkpoint
    """The checkpoint, as the store gets it."""

    def has_call(self, call_id: str) -> bool:
        """Return whether a call leaves the window, or a call of its sub-agent."""
        return call_name(call_id) in self.checkpoint.known


def due(window: Window, limits: Limits, covers: str | None = None) -> Cut | None:
    """Return which messages leave the window now; None if no checkpoint is due, or none is possible.

    Args:
        window: the window.
        limits: its bounds.
        covers: the id of the last message that a new summary covers; None if there is no new summary.
    """
    if not limits.keeps_windows:
        return None
    is_long = window.begins_turn and (window.count > limits.window or window.size > limits.window_bytes)
    is_over = is_long or window.size > limits.max_state_bytes
    if not is_over and covers is None:
        return None
    first = leading(window.messages)
    end, size = _fitting(window, limits, first) if is_over else (first, 0)
    covered = _covered(window.messages, first, covers)
    if covered > end:
        size += message_bytes(window.messages[end:covered])
        end = covered
    if end == first:
        return None
    known = _known(window.messages, first, end, window.older)
    return Cut(first, end, size, Checkpoint(first, window.older + end - first, known))


def leading(messages: Sequence[Message]) -> int:
    """Return how many instructions are at the beginning; they never leave the window."""
    return next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))


def begins_turn(messages: Sequence[Message], more: Sequence[Message]) -> bool:
    """Return whether a turn begins with messages that are appended."""
    return bool(messages and more) and more[-1].role == "user" and more[-1].turn_id != messages[-1].turn_id


def turn_starts(messages: Sequence[Message], first: int) -> Iterator[int]:
    """Return the places behind `first` at which a turn begins, and the turn before it has ended; ascending."""
    for place in range(first + 1, len(messages)):
        message, before = messages[place], messages[place - 1]
        begins = message.role == "user" and (message.turn_id is None or message.turn_id != before.turn_id)
        if begins and before.role == "assistant" and not before.calls:
            yield place


def _fitting(window: Window, limits: Limits, first: int) -> tuple[int, int]:
    """Return the first place from which on the rest has half of what the bounds allow, and the bytes before that place.

    If there is no such place, the last turn alone stays; not even that turn if there would be no room without its end.
    """
    messages, end, freed = window.messages, first, 0
    for place in turn_starts(messages, first):
        freed += message_bytes(messages[end:place])
        end = place
        if window.count - (end - first) <= limits.window / 2 and window.size - freed <= limits.most_bytes / 2:
            return end, freed
    if window.size - freed > limits.max_state_bytes and _has_ended(window):
        return len(messages), freed + message_bytes(messages[end:])
    return end, freed


def _has_ended(window: Window) -> bool:
    """Return whether the last turn has ended: another one begins, or it says so. An answer without calls may also be in mid-turn."""
    messages = window.messages
    return bool(messages) and not is_cut(messages) and (window.begins_turn or TURN in messages[-1].metadata)


def _covered(messages: Sequence[Message], first: int, covers: str | None) -> int:
    """Return the last place at which a turn begins and everything before it is covered; `first` if there is none."""
    if covers is None:
        return first
    last = next((place for place in range(len(messages) - 1, -1, -1) if messages[place].message_id == covers), -1)
    return max((place for place in turn_starts(messages, first) if place <= last + 1), default=first)


def _known(messages: Sequence[Message], first: int, end: int, older: int) -> Mapping[str, tuple[int, int]]:
    """Return the names of what leaves the window, each with two places in the whole history: its own, and the end of its turn.

    The place of a call is that of the message that answers the call: there are the decisions, too. A halt that was dismissed
    is known, too, by its interrupt.
    """
    known: dict[str, tuple[int, int]] = {}
    ends: dict[str, int] = {}
    for place in range(end - 1, first - 1, -1):
        message = messages[place]
        last = place if message.turn_id is None else ends.setdefault(message.turn_id, place)
        where = (place + older, last + older)
        known[message_name(message.message_id)] = where
        for result in message.results:
            known[call_name(result.call_id)] = where
        for record in message.metadata.get(DECISIONS, ()) if message.role == "tool" else ():
            known[call_name(record["call_id"])] = where
            if record["kind"] == "dismissed":
                known[interrupt_name(record["interrupt_id"])] = where
    return known


@attrs.frozen
class Past:
    """A message that has left the window, as the store remembers it."""

    message: Message
    """Of a call, the message that answers the call."""
    last: Message
    """The last message of its turn."""
    decisions: Sequence[DecisionRecord]
    """What was decided about the call, and about the calls of its sub-agent."""


def recalled(conversation_id: str, stored: Recalled) -> Past:
    """Return what a store remembers; StateError if it cannot be used."""
    message = decode_message(conversation_id, stored.message)
    return Past(message, decode_message(conversation_id, stored.last), records_of(conversation_id, message))

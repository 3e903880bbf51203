"""Where the window of a conversation begins, in places of a store's own: what the stores that are databases do alike.

Messages have places that rise with the history. The window has the messages up to the place of the lead, and those behind the place of the
last message that a checkpoint has left out.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from trio_sagents.data.records import Checkpoint
from trio_sagents.exceptions import PersistenceError, StateError

NO_END: Final = 1 << 62
"""Larger than any place."""


@attrs.frozen
class Beginning:
    """Where the window of a conversation begins: messages up to `lead_place`, and those behind `last_place`."""

    lead: int = 0
    lead_place: int = 0
    older: int = 0
    last_place: int = 0
    """Of the last message that is before the window; that of the lead if there is none."""

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """The places of the window, as ranges: behind the first place of each pair, up to the second."""
        rest = (self.last_place, NO_END)
        return ((0, self.lead_place), rest) if self.lead_place else (rest,)


def beginning_of(conversation_id: str, row: Sequence[object] | None) -> Beginning:
    """Return the beginning that a stored row tells; without a checkpoint (None), the window is the whole history.

    Raises:
        StateError: the row is damaged.
    """
    if row is None:
        return Beginning()
    counts = [count for count in row if type(count) is int and count >= 0]
    if len(counts) != len(row):
        raise StateError(conversation_id, f"its checkpoint is {row!r}"[:300])
    return Beginning(*counts)


@attrs.frozen
class Move:
    """A checkpoint that moves the beginning of a window, and the messages whose places it needs."""

    conversation_id: str
    former: Beginning
    checkpoint: Checkpoint
    base: int
    """How many messages are not looked at again, because they had left the window before."""
    after: int
    """The place behind which the places of messages are looked up."""

    @classmethod
    def of(cls, conversation_id: str, former: Beginning, checkpoint: Checkpoint) -> "Move":
        """Return what a checkpoint needs."""
        base, after = former.lead + former.older, former.last_place
        is_known = all(place >= base for where in checkpoint.known.values() for place in where)
        if former.lead != checkpoint.lead or checkpoint.lead + checkpoint.older < base or not is_known:
            base, after = 0, 0
        return cls(conversation_id, former, checkpoint, base, after)

    @property
    def count(self) -> int:
        """How many places are needed."""
        return self.checkpoint.lead + self.checkpoint.older - self.base

    def beginning(self, places: Sequence[int]) -> Beginning:
        """Return the new beginning.

        Args:
            places: of the first `count` messages behind `after`.

        Raises:
            PersistenceError: the conversation has fewer messages than the checkpoint leaves out.
        """
        checkpoint = self.checkpoint
        if len(places) < self.count:
            end, found = checkpoint.lead + checkpoint.older, self.base + len(places)
            raise PersistenceError(f"a checkpoint leaves out {end} messages of conversation {self.conversation_id!r}, which has {found}")
        lead_place = self.former.lead_place
        if self.base == 0:
            lead_place = places[checkpoint.lead - 1] if checkpoint.lead else 0
        return Beginning(checkpoint.lead, lead_place, checkpoint.older, places[-1] if places else self.after)

    def known(self, places: Sequence[int]) -> Sequence[tuple[str, int, int]]:
        """Return the names that go into the index, each with its two places."""
        base = self.base
        return [(name, places[place - base], places[last - base]) for name, (place, last) in sorted(self.checkpoint.known.items())]

"""The mark of a conversation that has work left: a turn that has not ended, or messages that no turn has taken.

With `SessionPolicy.after_crash = "continue"` each commit after which there is work left keeps the mark in the stored state, under the key
"unfinished". A store has an index of these marks (`UnfinishedLookup`), so that the next process finds what a crash has cut without reading
all conversations. A conversation that waits for people has no mark: nothing is to be done there before somebody decides.

The mark also counts how often the turn was continued after a crash. A turn that ends its process again and again must not do so for ever.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.exceptions import StateError

UNFINISHED: Final = "unfinished"
"""The key of the stored state."""
IN_ALL: Final = 5
"""A turn is continued at most this many times `max_recoveries`, even if it gets on between the crashes."""
_COUNTS: Final = ("recoveries", "in_all", "seen")


@attrs.frozen
class Unfinished:
    """What is stored of work that is left."""

    turn_id: str | None = None
    """The turn that was continued after a crash; None if none was."""
    recoveries: int = 0
    """How often that turn was continued without having finished a round of tool calls in between."""
    in_all: int = 0
    """How often that turn was continued."""
    seen: int = 0
    """How many messages the history had after the turn was continued last."""

    def continued(self, turn_id: str | None, *, gets_on: bool, seen: int) -> "Unfinished":
        """Return the mark of the turn that is continued once more.

        Args:
            turn_id: the turn.
            gets_on: whether it has finished a round of tool calls since it was continued last.
            seen: how many messages the history has after this.
        """
        if turn_id != self.turn_id:
            return Unfinished(turn_id, 1, 1, seen)
        return Unfinished(turn_id, 1 if gets_on else self.recoveries + 1, self.in_all + 1, seen)

    def is_over(self, max_recoveries: int) -> bool:
        """Return whether this is more than a turn may be continued."""
        return self.recoveries > max_recoveries or self.in_all > IN_ALL * max_recoveries


def encode_unfinished(mark: Unfinished) -> JSON:
    """Return a mark as it is stored; that of a turn without a crash is empty."""
    if mark.turn_id is None:
        return {}
    return {"turn_id": mark.turn_id, "recoveries": mark.recoveries, "in_all": mark.in_all, "seen": mark.seen}


def decode_unfinished(known: str, record: JSONValue) -> Unfinished | None:
    """Return the mark that is stored; None for None.

    Raises:
        StateError: it is not a mark.
    """
    if record is None:
        return None
    if not isinstance(record, Mapping) or (record and set(record) != {"turn_id", *_COUNTS}):
        raise StateError(known, f"its mark of unfinished work is {record!r}"[:300])
    if not record:
        return Unfinished()
    turn_id, *counts = (record[name] for name in ("turn_id", *_COUNTS))
    numbers = [count for count in counts if type(count) is int and 0 <= count < 2**52]
    if not isinstance(turn_id, str) or len(numbers) != len(_COUNTS):
        raise StateError(known, f"its mark of unfinished work is {record!r}"[:300])
    return Unfinished(turn_id, *numbers)

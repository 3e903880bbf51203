"""The own side of a presence on a bus: it numbers its differences, and writes them, its state and its beats as messages.

Everything here is synchronous, and nothing here sends anything.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import attrs

from trio_sagents.broadcast._presence_wire import MAX_NAME, beat, diff, entry_text, parts, state
from trio_sagents.data.ids import new_token
from trio_sagents.data.json import JSON

log: Final = logging.getLogger("trio_sagents")
_BYTES_FOR_NUMBER: Final = 20


class OwnEntry(Protocol):
    """An entry of this process."""

    number: int
    """Names the entry among all that this presence ever had."""
    key: str

    @property
    def topic(self) -> str:
        """The name of its topic."""
        ...

    @property
    def is_present(self) -> bool:
        """Whether it has not left yet."""
        ...

    def read_meta(self) -> JSON:
        """Return its meta."""
        ...


class OwnRoster(Protocol):
    """Where the entries of this process are."""

    def own_entries(self) -> Iterator[OwnEntry]:
        """Yield the entries of this process."""
        ...


@attrs.define(eq=False)
class Differences:
    """What one presence tells the others of its entries."""

    roster: OwnRoster
    every: float
    """Seconds between two messages, at most: each message says so."""
    peer_id: str = attrs.field(factory=new_token)
    changed: dict[OwnEntry, None] = attrs.field(factory=dict)
    """The entries that changed since the last difference, while somebody wanted to know."""
    _seq: int = 0
    _is_stale: bool = False
    """Whether entries changed that are in no difference: then the next message has a new number."""
    _too_large: set[int] = attrs.field(factory=set)
    """The numbers of entries that do not fit into a message, which the log has named."""

    def note(self, entry: OwnEntry) -> None:
        """Note that an entry has come, has changed or has left, for the next difference."""
        self.changed[entry] = None

    def note_unheard(self) -> None:
        """Note that something has changed, or may have, that no difference will tell: nobody listens."""
        self._is_stale = True

    def drop_changed(self) -> None:
        """Note that nobody listens any more."""
        self._is_stale = self._is_stale or bool(self.changed)
        self.changed = {}

    def beat(self) -> bytes:
        """Return a beat, with the number of the last difference."""
        return beat(self.peer_id, self._number(), self.every)

    def differences(self, most: int) -> Iterator[bytes]:
        """Yield what has changed, as differences with at most `most` bytes of entries each. All of them have to be sent."""
        changed, self.changed = self.changed, {}
        texts: list[str] = []
        gone: list[int] = []
        for entry in changed:
            text = self._text(entry, most)
            if text is None:
                gone.append(entry.number)
            else:
                texts.append(text)
        # What has come is told before what has left, so that a viewer who changes places is never away.
        for group in parts(texts, most) if texts else ():
            yield self._next(group, ())
        step = max(1, most // _BYTES_FOR_NUMBER)
        for start in range(0, len(gone), step):
            yield self._next((), gone[start : start + step])

    def state(self, addressee: str, most: int) -> Iterator[bytes]:
        """Yield the whole state for one peer, in parts.

        What changes while the parts are sent is in the state as it was or as it is, and in a later difference in any case.
        """
        number, entries = self._number(), list(self.roster.own_entries())
        groups = parts((text for entry in entries if (text := self._text(entry, most)) is not None), most)
        group: Sequence[str] | None = next(groups)
        part = 0
        while group is not None:
            following = next(groups, None)
            yield state(addressee, self.peer_id, number, self.every, group, part, is_last=following is None)
            group, part = following, part + 1

    def _next(self, texts: Sequence[str], gone: Sequence[int]) -> bytes:
        self._seq = self._number() + 1
        return diff(self.peer_id, self._seq, self.every, texts, gone)

    def _number(self) -> int:
        """Return the number of the last difference."""
        if self._is_stale:
            self._is_stale = False
            self._seq += 1
        return self._seq

    def _text(self, entry: OwnEntry, most: int) -> str | None:
        """Return an entry as it is in a message; None if it has left, or does not fit into a message."""
        if not entry.is_present:
            self._too_large.discard(entry.number)
            return None
        text = entry_text(entry.number, entry.topic, entry.key, entry.read_meta())
        if len(text.encode()) < most and max(len(entry.topic), len(entry.key)) <= MAX_NAME:
            self._too_large.discard(entry.number)
            return text
        if entry.number not in self._too_large:
            self._too_large.add(entry.number)
            log.warning(
                "the entry %.80r on the presence topic %.80r does not fit into one message of the bus; other processes do not see it",
                entry.key,
                entry.topic,
            )
        return None

"""The mails between two nodes: letters in numbered mails, so that a receiver knows what is new, what came twice, and what is missing.

A mail is a JSON object: its format, its number, the lowest number of a call that its sender still waits for, and letters. A letter that is
too large for one mail travels in parts, each in a mail of its own. Nothing here waits, and nothing here knows Trio.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from trio_sagents.data.json import JSONValue
from trio_sagents.data.wire import dumps, loads
from trio_sagents.exceptions import LimitExceeded, StateError

FORMAT: Final = 1
HEAD: Final = 128
"""Bytes of a mail that are not letters, at most."""
MAX_LETTER: Final = 32 * 1024 * 1024
"""Characters of one letter."""
MAX_WAITING: Final = 64 * 1024 * 1024
"""Characters of the letters to one node that wait to be sent."""
BATCH: Final = 32
"""Mails to one node that are sent at once."""


@attrs.define(eq=False)
class Outgoing:
    """What waits to be sent to one node."""

    number: int = 0
    """Of the last mail."""
    size: int = 0
    # Invariant: the characters of all letters that wait.
    _waiting: deque[str] = attrs.field(factory=deque)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, letter: str) -> None:
        """Add a letter.

        Raises:
            LimitExceeded: the letter is too large, or too much waits already; nothing was added.
        """
        if len(letter) > MAX_LETTER:
            raise LimitExceeded("characters of one letter to another node", len(letter), most=MAX_LETTER)
        if self.size + len(letter) > MAX_WAITING:
            raise LimitExceeded("characters that wait to be sent to another node", self.size + len(letter), most=MAX_WAITING)
        self._waiting.append(letter)
        self.size += len(letter)

    def clear(self) -> None:
        """Drop what waits, because the receiver does not get it. It finds out, for a number is left out."""
        self._waiting.clear()
        self.size = 0
        self.number += 1

    def take(self, max_mail: int, low: int) -> Iterator[str]:
        """Take what waits, as the bodies of at most about `BATCH` mails.

        Args:
            max_mail: the most bytes of one mail.
            low: the lowest number of a call that this node waits for.
        """
        letters: list[str] = []
        room, count = max_mail - HEAD, 0
        while self._waiting and count < BATCH:
            letter = self._waiting.popleft()
            self.size -= len(letter)
            size = len(letter) if letter.isascii() else len(letter.encode())
            if letters and size + 1 > room:
                yield self._whole(letters, low)
                count += 1
                room, letters = max_mail - HEAD, []
            if size > max_mail - HEAD:
                for body in self._parts(letter, max_mail, low):
                    yield body
                    count += 1
                continue
            letters.append(letter)
            room -= size + 1
        if letters:
            yield self._whole(letters, low)

    def ping(self, low: int) -> str:
        """Return the body of a mail that only says how many mails there were."""
        return f'{{"v":{FORMAT},"n":{self.number},"low":{low}}}'

    def _whole(self, letters: Sequence[str], low: int) -> str:
        self.number += 1
        return f'{{"v":{FORMAT},"n":{self.number},"low":{low},"letters":[{",".join(letters)}]}}'

    def _parts(self, letter: str, max_mail: int, low: int) -> Iterator[str]:
        step = (max_mail - HEAD) // 6  # a character takes at most six bytes in a JSON text
        for start in range(0, len(letter), step):
            self.number += 1
            is_last = start + step >= len(letter)
            last = "true" if is_last else "false"
            yield f'{{"v":{FORMAT},"n":{self.number},"low":{low},"at":{start},"part":{dumps(letter[start : start + step])},"last":{last}}}'


@attrs.frozen
class Arrived:
    """What one mail has brought."""

    letters: Sequence[JSONValue] = ()
    low: int = 0
    is_hole: bool = False
    """Whether mails before this one are missing."""


@attrs.define(eq=False)
class Incoming:
    """What has come from one node."""

    number: int | None = None
    """Of the last mail; None before the first."""
    heard_at: float = 0.0
    _parts: list[str] = attrs.field(factory=list)
    # Invariant: the beginning of one letter; bounded by MAX_LETTER.

    def take(self, body: str) -> Arrived:
        """Return what a mail brings; nothing if the mail came before.

        Raises:
            StateError: it is not a mail.
        """
        mail = loads("", body)
        number, low = _head(mail)
        if "letters" not in mail and "part" not in mail:
            is_hole = number > (self.number or 0)
            self.number = max(number, self.number or 0)
            if is_hole:
                self._parts.clear()
            return Arrived((), low, is_hole)
        if self.number is not None and number <= self.number:
            return Arrived((), low)
        is_hole = number != (self.number or 0) + 1
        self.number = number
        if is_hole:
            self._parts.clear()
        if "letters" in mail:
            letters = mail["letters"]
            self._parts.clear()
            if set(mail) != {"v", "n", "low", "letters"} or not isinstance(letters, list):
                raise StateError("", "a mail without letters")
            return Arrived(letters, low, is_hole)
        return Arrived(self._joined(mail), low, is_hole)

    def _joined(self, mail: dict[str, JSONValue]) -> Sequence[JSONValue]:
        part, start, is_last = mail["part"], mail.get("at"), mail.get("last")
        if set(mail) != {"v", "n", "low", "at", "part", "last"} or not isinstance(part, str) or not isinstance(is_last, bool):
            raise StateError("", "a mail with a part that is none")
        size = sum(map(len, self._parts))
        if start != size or size + len(part) > MAX_LETTER:
            self._parts.clear()
            if start != 0:
                return ()  # its beginning is missing
        self._parts.append(part)
        if not is_last:
            return ()
        text = "".join(self._parts)
        self._parts.clear()
        return (loads("", text),)


def _head(mail: JSONValue) -> tuple[int, int]:
    if not isinstance(mail, dict) or mail.get("v") != FORMAT:
        raise StateError("", "not a mail of a format that is known here")
    number, low = mail.get("n"), mail.get("low")
    if type(number) is not int or type(low) is not int or number < 0 or low < 0:
        raise StateError("", "a mail without numbers")
    return number, low

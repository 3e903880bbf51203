"""Cursors: a place in one agent's events, as opaque text that may travel in a URL."""

import re
from typing import Final, Literal, Self, TypeAlias

import attrs

Channel: TypeAlias = Literal["main", "debug"]
CHANNELS: Final[frozenset[str]] = frozenset({"main", "debug"})
_TEXT: Final = re.compile(r"1\.([0-9a-z-]{1,64})\.(main|debug)\.(0|[1-9][0-9]{0,17})", re.ASCII)


@attrs.frozen
class Cursor:
    """A place between two events; opaque. `str(cursor)` is its text, `Cursor.parse(text)` reads it back."""

    incarnation: str
    channel: Channel
    seq: int

    def __str__(self) -> str:
        return f"1.{self.incarnation}.{self.channel}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that was written as `text`.

        Raises:
            TypeError: `text` is not a str.
            ValueError: it is not the text of a cursor.
        """
        if not isinstance(text, str):
            raise TypeError(f"a cursor is parsed from a str, not from {type(text).__name__}")
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a cursor: {text[:80]!r}")
        incarnation, channel, seq = match.groups()
        return cls(incarnation, "main" if channel == "main" else "debug", int(seq))

    @classmethod
    def of(cls, value: "Cursor | str | None") -> "Cursor | None":
        """Return a cursor for what a caller may hand in: a cursor, its text, or None."""
        if value is None or isinstance(value, Cursor):
            return value
        return cls.parse(value)

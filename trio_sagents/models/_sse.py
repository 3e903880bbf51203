"""Server-sent events, decoded from bytes that may be split anywhere."""

import re
from collections.abc import Iterator
from typing import Final

import attrs

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""The longest event that is read; providers send a few hundred bytes each."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


@attrs.frozen
class ServerSentEvent:
    """One event of a stream."""

    name: str
    """The event's name; "" where it has none."""
    data: str
    """Its data lines, joined by newlines."""


class SSEDecoder:
    """Turns bytes into events, in order."""

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._name = ""
        self._data: list[str] = []
        self._data_size = 0

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that `data` completes.

        Raises:
            ValueError: a line is not UTF-8, or an event is longer than `MAX_EVENT_BYTES`.
        """
        if self._tail_size + self._data_size > MAX_EVENT_BYTES:
            raise ValueError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        self._tail.append(data)
        self._tail_size += len(data)
        if b"\n" not in data and b"\r" not in data and not self._tail[0].endswith(b"\r"):
            return
        text = b"".join(self._tail)
        # A carriage return at the very end may be the first half of a line end.
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(text[: len(text) - len(held)])
        self._tail = [rest + held]
        self._tail_size = len(self._tail[0])
        for line in lines:
            yield from self._line(line)

    def end(self) -> Iterator[ServerSentEvent]:
        """Yield what stands at the end of the body without the blank line that should have closed it."""
        last = b"".join(self._tail).rstrip(b"\r")
        self._tail, self._tail_size = [], 0
        if last:
            yield from self._line(last)
        yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[ServerSentEvent]:
        if not line:
            if self._data:
                yield ServerSentEvent(self._name, "\n".join(self._data))
            self._name, self._data, self._data_size = "", [], 0
            return
        field, _, value = line.removeprefix(b"\xef\xbb\xbf").decode().partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._data_size += len(line)
        elif field == "event":
            self._name = value

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
    """The event's name; "" if it has none."""
    data: str
    """The event's data lines, joined by newlines."""


class SSEDecoder:
    """Turns bytes into events, in order.

    Two lines that are no server-sent events are events here, because servers report errors in them: `error: ...`, which is an event
    with the name "error", and a line that begins with a brace, which is an event without a name.
    """

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
        if b"\r" in text:
            # A carriage return at the very end may be the first half of a line end.
            held = b"\r" if text.endswith(b"\r") else b""
            *lines, rest = _LINE_END.split(text[: len(text) - len(held)])
            rest += held
        else:
            *lines, rest = text.split(b"\n")
        self._tail = [rest]
        self._tail_size = len(rest)
        for line in lines:
            if (event := self._line(line)) is not None:
                yield event

    def end(self) -> Iterator[ServerSentEvent]:
        """Yield the event at the end of the body that no blank line closed."""
        last = b"".join(self._tail).rstrip(b"\r")
        self._tail, self._tail_size = [], 0
        for line in (last, b"") if last else (b"",):
            if (event := self._line(line)) is not None:
                yield event

    def _line(self, line: bytes) -> ServerSentEvent | None:
        """Take a line; return the event that the line ends, or is."""
        if not line:
            event = ServerSentEvent(self._name, "\n".join(self._data)) if self._data else None
            self._name, self._data, self._data_size = "", [], 0
            return event
        text = line.removeprefix(b"\xef\xbb\xbf").decode()
        if text.startswith("{"):
            return ServerSentEvent("", text)
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._data_size += len(line)
        elif field == "event":
            self._name = value
        elif field == "error":
            return ServerSentEvent("error", value)
        return None

"""The text of files: lines, search, replacement, UTF-8. Pure functions. A line ends with a line feed and with nothing else."""

import hashlib
from collections.abc import Iterator
from typing import Final

import attrs

from trio_sagents.files._errors import NotText, TextNotFound, TextNotUnique

MAX_SHOWN: Final = 400
"""How many characters of a line a match shows."""


@attrs.frozen
class FileText:
    """The part of a file that was read."""

    path: str
    text: str
    """Exactly as in the file, line ends included."""
    offset: int
    """How many lines of the file come before `text`."""
    line_count: int
    """How many lines the whole file has."""

    @property
    def is_whole(self) -> bool:
        """Whether `text` is the whole file."""
        return self.offset == 0 and count_lines(self.text) == self.line_count


@attrs.frozen
class FileMatch:
    """A line that contains the text that was looked for."""

    path: str
    line: int
    """The number of the line, from 1; of the first line, if the text spans several lines."""
    text: str
    """The line without its line end; cut after `MAX_SHOWN` characters, with "…" at the cut."""


def count_lines(text: str) -> int:
    """Return how many lines `text` has. The text after the last line feed is a line, too, unless it is empty."""
    return text.count("\n") + (not text.endswith("\n") and bool(text))


def cut_lines(path: str, text: str, offset: int, limit: float) -> FileText:
    """Return at most `limit` lines of `text`, after the first `offset`."""
    start = _skip(text, 0, offset)
    end = _skip(text, start, limit)
    return FileText(path, text[start:end], min(offset, count_lines(text)), count_lines(text))


def _skip(text: str, place: int, lines: float) -> int:
    if lines >= len(text):
        return len(text)
    while lines > 0:
        end = text.find("\n", place)
        if end < 0:
            return len(text)
        place = end + 1
        lines -= 1
    return place


def find_text(path: str, content: str, text: str) -> Iterator[FileMatch]:
    """Yield each line in which an occurrence of `text` begins, once, in order."""
    number, counted, place = 1, 0, content.find(text)
    while place >= 0:
        start = content.rfind("\n", 0, place) + 1
        end = content.find("\n", start)
        end = len(content) if end < 0 else end
        number += content.count("\n", counted, start)
        counted = start
        line = content[start:end]
        yield FileMatch(path, number, line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}…")
        place = content.find(text, max(end, place + 1))


def replace_text(path: str, content: str, old: str, new: str, *, all_of_them: bool) -> tuple[str, int]:
    """Return `content` with `old` replaced, and how often `old` was replaced.

    Raises:
        TextNotFound: `old` is not in `content`.
        TextNotUnique: `old` is in `content` more than once, and not all occurrences are to be replaced.
    """
    place = content.find(old)
    if place < 0:
        raise TextNotFound(path)
    if all_of_them:
        return content.replace(old, new), content.count(old)
    if content.find(old, place + 1) >= 0:  # one character further, not one text further: "aaa" contains "aa" twice
        raise TextNotUnique(path, _count_overlapping(content, old))
    return content[:place] + new + content[place + len(old) :], 1


def _count_overlapping(content: str, text: str) -> int:
    count, place = 0, content.find(text)
    while place >= 0:
        count += 1
        place = content.find(text, place + 1)
    return count


def encode(path: str, content: object) -> bytes:
    """Return `content` as UTF-8.

    Raises:
        TypeError: `content` is not a str.
        NotText: `content` has lone surrogates.
    """
    if not isinstance(content, str):
        raise TypeError(f"the content of {path!r} must be a str, not {type(content).__name__}")
    try:
        return content.encode()
    except UnicodeEncodeError:
        raise NotText(path, "it has lone surrogates, which UTF-8 cannot represent") from None


def decode(path: str, data: bytes) -> str:
    """Return the text in `data`; raise NotText if `data` is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise NotText(path, f"it is not UTF-8 (at byte {exc.start})") from None


def digest_of(content: str | bytes) -> bytes:
    """Return the SHA-256 of a content: what tells whether a stored file is still the one that was read."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).digest()

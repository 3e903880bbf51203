"""What can go wrong with a file, by meaning.

FileError (SagentsError)
├── InvalidPath (ValueError)         no file can have this path
├── FileNotFound (LookupError)       there is no such file
├── FileExists                       the place is taken
├── FileReadOnly                     the place cannot be changed
├── MoveRefused                      this cannot go there
├── TextNotFound (LookupError)       the text to replace is not in the file
├── TextNotUnique                    it is there more than once
├── NotText (ValueError)             what is in the file, or was to go there, is no text
├── FileRefused                      what has that name in the storage is no plain file of this tree
├── QuotaExceeded (LimitExceeded)    the file, or its scope, would be too large
├── FileNotStored (PersistenceError) the storage could not do it
├── FilesUnsaved (PersistenceError)  the storage did not take some edits, and they were given up
└── FilesClosed                      the `open_files` block was left
"""

import os
from collections.abc import Sequence
from typing import Final

import attrs

from trio_sagents.exceptions import LimitExceeded, PersistenceError, SagentsError


class FileError(SagentsError):
    """Base of every error about a file."""


class InvalidPath(FileError, ValueError):
    """No file can have this path. Nothing was done."""

    def __init__(self, path: object, why: str) -> None:
        super().__init__(path, why)
        self.path: Final = path
        self.why: Final = why

    def __str__(self) -> str:
        text = repr(self.path)
        return f"the path {text if len(text) <= 200 else text[:200] + '…'} {self.why}"


class FileNotFound(FileError, LookupError):
    """There is no file of this path in this scope."""

    def __init__(self, path: str, *, is_folder: bool = False) -> None:
        super().__init__(path, is_folder)
        self.path: Final = path
        self.is_folder: Final = is_folder
        """Whether there are files below the path."""

    def __str__(self) -> str:
        return f"there is no file {self.path!r}" + (", it is a folder; name a file in it" if self.is_folder else "")


class FileExists(FileError):
    """The place is taken: by a file, or because a file and a folder would have one name. Nothing was changed."""

    def __init__(self, path: str, why: str = "there is a file of that path already; edit it, or use another path") -> None:
        super().__init__(path, why)
        self.path: Final = path
        self.why: Final = why

    def __str__(self) -> str:
        return f"{self.path!r} is taken: {self.why}"


class FileReadOnly(FileError):
    """This part of the tree can be read, and not changed."""

    def __init__(self, path: str, prefix: str) -> None:
        super().__init__(path, prefix)
        self.path: Final = path
        self.prefix: Final = prefix
        """Of the mount that is read-only."""

    def __str__(self) -> str:
        return f"{self.path!r} cannot be changed: all of {self.prefix!r} is read-only; write elsewhere"


class MoveRefused(FileError):
    """This cannot go there. Nothing was changed."""

    def __init__(self, old: str, new: str, why: str) -> None:
        super().__init__(old, new, why)
        self.old: Final = old
        self.new: Final = new
        self.why: Final = why

    def __str__(self) -> str:
        return f"{self.old!r} cannot be moved to {self.new!r}: {self.why}"


class TextNotFound(FileError, LookupError):
    """The text to replace is not in the file. Nothing was changed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path: Final = path

    def __str__(self) -> str:
        return f"the text to replace is not in {self.path!r}; read the file, and give the text exactly as it is there, blanks included"


class TextNotUnique(FileError):
    """The text to replace is in the file more than once. Nothing was changed."""

    def __init__(self, path: str, count: int) -> None:
        super().__init__(path, count)
        self.path: Final = path
        self.count: Final = count
        """How often it is there; of overlapping ones each counts."""

    def __str__(self) -> str:
        return f"the text to replace is {self.count} times in {self.path!r}; give more of the text around it, or replace all"


class NotText(FileError, ValueError):
    """What is in the file, or was to go there, is no text."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path: Final = path
        self.why: Final = why

    def __str__(self) -> str:
        return f"{self.path!r} is no text file: {self.why}"


class FileRefused(FileError):
    """What has that name in the storage is no plain file of this tree: a link, a device, a file with a second name. Left alone."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path: Final = path
        self.why: Final = why

    def __str__(self) -> str:
        return f"{self.path!r} is left alone: {self.why}"


class QuotaExceeded(FileError, LimitExceeded):
    """The file, or all files of its scope, would be too large or too many. Nothing was changed."""

    def __init__(self, limit: str, value: float, *, most: float, path: str) -> None:
        LimitExceeded.__init__(self, limit, value, most=most)
        self.path: Final = path

    def __str__(self) -> str:
        value, most = self._number(self.value), self._number(self.most)
        return f"{self.path!r}: {self.limit} would be {value}, the limit is {most}; delete or shorten something first"


class FileNotStored(FileError, PersistenceError):
    """The storage failed; its own error is `__cause__`. What the call was to change is as it was."""

    def __init__(self, path: str, doing: str) -> None:
        super().__init__(path, doing)
        self.path: Final = path
        self.doing: Final = doing
        """What was tried, as in "reading"."""

    def __str__(self) -> str:
        return f"{self.doing} {self.path!r} failed: {_reason(self)}"


def _reason(error: BaseException) -> str:
    """Return what the system says of a failure, in its own fixed words; what a storage says of itself stays in the traceback."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"{os.strerror(cause.errno)}; nothing was changed, and it cannot be done before that is mended"
        cause = cause.__cause__
    return "the storage did not do it; try again later"


@attrs.frozen
class UnsavedFile:
    """A file with an edit that the storage did not take."""

    scope: tuple[str, ...]
    path: str
    content: str = attrs.field(repr=False)
    """The whole file as it should be stored."""
    error: Exception | None = None
    """Why the last attempt failed; None where it had no answer."""


class FilesUnsaved(FileError, PersistenceError):
    """The storage did not take some edits in time. `files` has them, for whoever can put them elsewhere."""

    def __init__(self, files: Sequence[UnsavedFile]) -> None:
        super().__init__(tuple(files))
        self.files: Final = tuple(files)

    def __str__(self) -> str:
        names = ", ".join(f"{file.path!r} of {'/'.join(file.scope)!r}" for file in self.files)
        return f"{len(self.files)} files have edits that the storage did not take: {names}; their text is in this error's `files`"


class FilesClosed(FileError):
    """The `open_files` block was left: nothing is done any more."""

    def __init__(self) -> None:
        super().__init__("these files are closed: their open_files block was left")

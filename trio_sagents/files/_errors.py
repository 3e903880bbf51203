"""The errors about files, by meaning.

FileError (SagentsError)
├── InvalidPath (ValueError)         no file can have this path
├── FileNotFound (LookupError)       there is no such file
├── FileExists                       the path is taken
├── FileReadOnly                     the path is in a read-only mount
├── FileConflict                     the stored file has changed since it was read
├── MoveRefused                      this file or folder cannot be moved to this path
├── TextNotFound (LookupError)       the text to replace is not in the file
├── TextNotUnique                    the text to replace is in the file more than once
├── NotText (ValueError)             the content of the file is not UTF-8 text
├── FileRefused                      the storage has something else than a plain file under this name
├── QuotaExceeded (LimitExceeded)    the file, or all files of its scope, would be too large
├── FileNotStored (PersistenceError) the storage failed
├── FilesUnsaved (PersistenceError)  some edits are not in the storage
└── FilesClosed                      the `open_files` block has been left
"""

import os
from collections.abc import Sequence
from typing import Final

import attrs

from trio_sagents.exceptions import LimitExceeded, PersistenceError, SagentsError


class FileError(SagentsError):
    """Base of every error about a file."""


class InvalidPath(FileError, ValueError):
    """No file can have this path. Nothing was changed."""

    def __init__(self, path: object, why: str) -> None:
        super().__init__(path, why)
        self.path: Final = path
        self.why: Final = why

    def __str__(self) -> str:
        text = repr(self.path)
        return f"the path {text if len(text) <= 200 else text[:200] + '…'} {self.why}"


class FileNotFound(FileError, LookupError):
    """There is no file with this path in this scope."""

    def __init__(self, path: str, *, is_folder: bool = False) -> None:
        super().__init__(path, is_folder)
        self.path: Final = path
        self.is_folder: Final = is_folder
        """Whether there are files below the path."""

    def __str__(self) -> str:
        return f"there is no file {self.path!r}" + ("; it is a folder: name a file in it" if self.is_folder else "")


class FileExists(FileError):
    """The path is taken by a file, or a file and a folder would have the same name. Nothing was changed."""

    def __init__(self, path: str, why: str = "there is already a file with that path; edit it, or use another path") -> None:
        super().__init__(path, why)
        self.path: Final = path
        self.why: Final = why

    def __str__(self) -> str:
        return f"{self.path!r} is taken: {self.why}"


class FileReadOnly(FileError):
    """The path is in a read-only mount. Nothing was changed."""

    def __init__(self, path: str, prefix: str) -> None:
        super().__init__(path, prefix)
        self.path: Final = path
        self.prefix: Final = prefix
        """The prefix of the mount that is read-only."""

    def __str__(self) -> str:
        return f"{self.path!r} cannot be changed: everything in {self.prefix!r} is read-only; use a path outside of it"


class FileConflict(FileError):
    """The stored file is not the one that the edit was made of: somebody else has changed, deleted or moved it. The edit was not made.

    Nothing of the stored file was changed. The next read returns what is stored now.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path: Final = path

    def __str__(self) -> str:
        return f"the file {self.path!r} has changed since it was read, so it was not changed now; read it again"


class MoveRefused(FileError):
    """This file or folder cannot be moved to this path. Nothing was changed."""

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
        return (
            f"the text to replace is not in {self.path!r}; read the file, and give the text exactly as it is in the file, "
            "spaces and line breaks included"
        )


class TextNotUnique(FileError):
    """The text to replace is in the file more than once. Nothing was changed."""

    def __init__(self, path: str, count: int) -> None:
        super().__init__(path, count)
        self.path: Final = path
        self.count: Final = count
        """How often the text is in the file; overlapping occurrences count each."""

    def __str__(self) -> str:
        return f"the text to replace is in {self.path!r} {self.count} times; give more of the text around it, or replace all"


class NotText(FileError, ValueError):
    """The content of the file, or the content that it was to get, is not UTF-8 text."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path: Final = path
        self.why: Final = why

    def __str__(self) -> str:
        return f"{self.path!r} is not a text file: {self.why}"


class FileRefused(FileError):
    """The storage has something else than a plain file of this tree under this name: a link, a device, a file with a second name."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path: Final = path
        self.why: Final = why

    def __str__(self) -> str:
        return f"{self.path!r} cannot be used: {self.why}"


class QuotaExceeded(FileError, LimitExceeded):
    """The file would be too large, or the files of its scope too large or too many. Nothing was changed."""

    def __init__(self, limit: str, value: float, *, most: float, path: str) -> None:
        LimitExceeded.__init__(self, limit, value, most=most)
        self.path: Final = path

    def __str__(self) -> str:
        value, most = self._number(self.value), self._number(self.most)
        return f"{self.path!r}: {self.limit} would be {value}, the limit is {most}; delete or shorten something first"


class FileNotStored(FileError, PersistenceError):
    """The storage failed; its own error is `__cause__`. What the call was to change is unchanged."""

    def __init__(self, path: str, doing: str) -> None:
        super().__init__(path, doing)
        self.path: Final = path
        self.doing: Final = doing
        """What was tried, such as "reading"."""

    def __str__(self) -> str:
        return f"{self.doing} {self.path!r} failed: {_reason(self)}"


def _reason(error: BaseException) -> str:
    """Return why a storage failed, in the operating system's fixed words; the words of the storage stay in the traceback."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"{os.strerror(cause.errno)}; nothing was changed, and a retry fails until that is repaired"
        cause = cause.__cause__
    return "the storage did not do it; try again later"


@attrs.frozen
class UnsavedFile:
    """A file with an edit that is not in the storage."""

    scope: tuple[str, ...]
    path: str
    content: str = attrs.field(repr=False)
    """The whole file as it should be stored."""
    error: Exception | None = None
    """Why the last attempt failed; None if the storage has not answered. After a `FileConflict` the edit is not retried."""


class FilesUnsaved(FileError, PersistenceError):
    """Some edits are not in the storage. `files` has their texts, so that they can be kept elsewhere."""

    def __init__(self, files: Sequence[UnsavedFile]) -> None:
        super().__init__(tuple(files))
        self.files: Final = tuple(files)

    def __str__(self) -> str:
        names = ", ".join(f"{file.path!r} of {'/'.join(file.scope)!r}" for file in self.files)
        return f"edits of {len(self.files)} files are not stored: {names}; their texts are in this error's `files`"


class FilesClosed(FileError):
    """The `open_files` block has been left. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("these files are closed: their open_files block has been left")

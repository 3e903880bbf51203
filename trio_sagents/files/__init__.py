"""Files that agents share: trees by scope, kept in memory, in SQLite, or in a directory; longer-lived than any agent."""

from trio_sagents.files._area import FileArea, FileInfo, FileMatches
from trio_sagents.files._backend import FileBackend, FileRecord, OpenableFiles
from trio_sagents.files._changes import (
    FileChange,
    FileChanges,
    FileChangesLost,
    FileDeleted,
    FileMoved,
    FileSaved,
    FileSaveFailed,
    FileUpdated,
)
from trio_sagents.files._config import FilesConfig, Mount
from trio_sagents.files._errors import (
    FileError,
    FileExists,
    FileNotFound,
    FileNotStored,
    FileReadOnly,
    FileRefused,
    FilesClosed,
    FilesUnsaved,
    InvalidPath,
    MoveRefused,
    NotText,
    QuotaExceeded,
    TextNotFound,
    TextNotUnique,
    UnsavedFile,
)
from trio_sagents.files._system import FileSystem, open_files
from trio_sagents.files._text import FileMatch, FileText
from trio_sagents.files.directory import DirectoryFiles
from trio_sagents.files.memory import MemoryFiles
from trio_sagents.files.sqlite import SqliteFiles

__all__ = (
    "DirectoryFiles",
    "FileArea",
    "FileBackend",
    "FileChange",
    "FileChanges",
    "FileChangesLost",
    "FileDeleted",
    "FileError",
    "FileExists",
    "FileInfo",
    "FileMatch",
    "FileMatches",
    "FileMoved",
    "FileNotFound",
    "FileNotStored",
    "FileReadOnly",
    "FileRecord",
    "FileRefused",
    "FileSaveFailed",
    "FileSaved",
    "FileSystem",
    "FileText",
    "FileUpdated",
    "FilesClosed",
    "FilesConfig",
    "FilesUnsaved",
    "InvalidPath",
    "MemoryFiles",
    "Mount",
    "MoveRefused",
    "NotText",
    "OpenableFiles",
    "QuotaExceeded",
    "SqliteFiles",
    "TextNotFound",
    "TextNotUnique",
    "UnsavedFile",
    "open_files",
)

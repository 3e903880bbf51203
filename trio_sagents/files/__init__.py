"""Files that agents share: trees by scope, stored in memory, in SQLite, or in a directory. They live longer than any agent.

The modules, lowest first; each one imports only modules that come before it:

    _errors         the errors about files, and their texts for models
    _paths          which paths and scopes are valid
    _text           lines, search and replacement in a text
    _backend        the protocols of storages: `FileBackend`, `ComparingFiles`, `OpenableFiles`
    _config         `FilesConfig` and `Mount`
    _changes        changes told to listeners
    _serial_queue   one job at a time for each backend and scope
    _entry          a file in memory, with its unsaved edits; the cache; the quota
    _volume         the files of one scope in one mount, and what is known of their storage
    _details        titles, types and notes of files
    _saving         from an edit in memory to the storage; conflicts with other writers
    _changing       adding, removing and moving files
    _tree           the volumes of one scope
    _area           `FileArea`: the operations for agents and hosts
    memory          `MemoryFiles`
    _walk           files below a directory, reached without following links
    directory       `DirectoryFiles`
    sqlite          `SqliteFiles`
    _system         `open_files`: the trees of all scopes, the services, the closing
"""

from trio_sagents.files._area import FileArea, FileInfo, FileMatches
from trio_sagents.files._backend import ComparingFiles, FileBackend, FileRecord, OpenableFiles
from trio_sagents.files._changes import (
    FileChange,
    FileChanges,
    FileChangesLost,
    FileDeleted,
    FileEditLost,
    FileMoved,
    FileSaved,
    FileSaveFailed,
    FileUpdated,
)
from trio_sagents.files._config import FilesConfig, Mount
from trio_sagents.files._entry import FileDetails
from trio_sagents.files._errors import (
    FileConflict,
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
    "ComparingFiles",
    "DirectoryFiles",
    "FileArea",
    "FileBackend",
    "FileChange",
    "FileChanges",
    "FileChangesLost",
    "FileConflict",
    "FileDeleted",
    "FileDetails",
    "FileEditLost",
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

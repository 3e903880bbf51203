"""A disk that can be watched, below the library's own `SqliteStore`: an SQLite VFS around the one of the system.

Python's `sqlite3` opens files through SQLite's default VFS. `watch` puts another in its place, made with ctypes out of the very
SQLite that `sqlite3` is linked with: it is the system's, but each write, truncation, sync and deletion is told to a watcher first. A
watcher may note it, end the process in the middle of it, or swallow it, as a disk does that lies.

The log in shared memory (`-shm`) is no file that SQLite ever syncs, and is made anew from the WAL when a file is opened after a
crash: it is not watched.
"""

import _sqlite3  # everything that links SQLite, or holds it
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

import attrs

Kind: TypeAlias = Literal["open", "write", "truncate", "sync", "delete"]
_OK: Final = 0
_IOERR: Final = 10
_CREATES: Final = 0x4
_SYNCS_FOLDER: Final = 0x800 | 0x4000 | 0x80000
"""SQLITE_OPEN_MAIN_JOURNAL, _SUPER_JOURNAL, _WAL: with the first sync of such a file SQLite syncs its folder, too."""
_Pointer: TypeAlias = ctypes.c_void_p
_Int: TypeAlias = ctypes.c_int
_Place: TypeAlias = ctypes.c_int64
_Open: Final = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Pointer, _Int, _Pointer)
_Delete: Final = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Int)
_Close: Final = ctypes.CFUNCTYPE(_Int, _Pointer)
_Write: Final = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Int, _Place)
_Truncate: Final = ctypes.CFUNCTYPE(_Int, _Pointer, _Place)
_Sync: Final = ctypes.CFUNCTYPE(_Int, _Pointer, _Int)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = [  # type: ignore[mutable-override]  # as ctypes wants it
        ("iVersion", _Int),
        ("szOsFile", _Int),
        ("mxPathname", _Int),
        ("pNext", _Pointer),
        ("zName", ctypes.c_char_p),
        ("pAppData", _Pointer),
        ("xOpen", _Open),
        ("xDelete", _Delete),
        ("others", _Pointer * 14),
    ]


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = [  # type: ignore[mutable-override]  # as ctypes wants it
        ("iVersion", _Int),
        ("xClose", _Close),
        ("xRead", _Pointer),
        ("xWrite", _Write),
        ("xTruncate", _Truncate),
        ("xSync", _Sync),
        ("others", _Pointer * 13),
    ]


@attrs.frozen
class Step:
    """One operation on a file."""

    kind: Kind
    name: str
    """Of the file, without its folder."""
    place: int = 0
    """For a write, where it begins; for a truncation, the size after it."""
    data: bytes = b""
    is_new: bool = False
    """Of an opening: whether it made the file."""
    syncs_folder: bool = False
    """Of a sync or a deletion: whether the names in the folder are synced with it."""
    finish: Callable[[bytes], None] = attrs.field(default=lambda data: None, eq=False, repr=False)
    """Of a write: writes these bytes in the place of all. For watchers that stop in the middle."""


Watcher: TypeAlias = Callable[[Step], bool]
"""Told before each step; False means that the disk lies: it says that it did it, and did not."""


@attrs.define(eq=False)
class _File:
    name: str
    methods: _Methods
    """The system's."""
    syncs_folder: bool


@attrs.define(eq=False)
class _Watched:
    """Our VFS: the system's, and what it calls in its place."""

    watcher: Watcher
    system: _Vfs
    system_at: int
    ours: _Vfs = attrs.field(init=False)
    files: dict[int, _File] = attrs.field(factory=dict)
    """By address, while open."""
    kept: list[object] = attrs.field(factory=list)
    """What SQLite has pointers to."""
    methods: dict[int, _Methods] = attrs.field(factory=dict)
    """Ours, by the address of the system's."""

    def __attrs_post_init__(self) -> None:
        self.ours = _Vfs.from_buffer_copy(self.system)
        self.ours.zName = b"watched"
        self.ours.pNext = None
        self.ours.xOpen = _Open(self._open)
        self.ours.xDelete = _Delete(self._delete)

    def _open(self, _vfs: int, name: int | None, file: int, flags: int, flags_out: int | None) -> int:
        path = ctypes.string_at(name).decode() if name else None
        is_new = path is not None and bool(flags & _CREATES) and not os.path.exists(path)  # noqa: PTH110  # inside a callback
        status: int = self.system.xOpen(self.system_at, name, file, flags, flags_out)
        if status != _OK or path is None:
            return status
        slot = ctypes.c_void_p.from_address(file)
        assert slot.value is not None
        theirs = _Methods.from_address(slot.value)
        self.files[file] = _File(os.path.basename(path), theirs, bool(flags & _SYNCS_FOLDER) and is_new)  # noqa: PTH119
        if slot.value not in self.methods:
            assert theirs.iVersion >= 3
            ours = self.methods[slot.value] = _Methods.from_buffer_copy(theirs)
            ours.xClose, ours.xWrite = _Close(self._close), _Write(self._write)
            ours.xTruncate, ours.xSync = _Truncate(self._truncate), _Sync(self._sync)
        slot.value = ctypes.addressof(self.methods[slot.value])
        self._tell(Step("open", self.files[file].name, is_new=is_new))
        return status

    def _tell(self, step: Step) -> bool | None:
        """Ask the watcher. None if it fails, which becomes an error of the disk."""
        try:
            return self.watcher(step)
        except Exception as exc:  # it must not be lost in a callback
            os.write(2, f"the watcher of the disk failed: {exc!r}\n".encode())
            return None

    def _delete(self, _vfs: int, name: int, sync: int) -> int:
        base = os.path.basename(ctypes.string_at(name).decode())  # noqa: PTH119
        if self._tell(Step("delete", base, syncs_folder=bool(sync))) is None:
            return _IOERR
        status: int = self.system.xDelete(self.system_at, name, sync)
        return status

    def _close(self, file: int) -> int:
        status: int = self.files.pop(file).methods.xClose(file)
        return status

    def _write(self, file: int, data: int, size: int, place: int) -> int:
        one = self.files[file]

        def finish(part: bytes) -> None:
            one.methods.xWrite(file, ctypes.cast(ctypes.c_char_p(part), _Pointer), len(part), place)

        told = self._tell(Step("write", one.name, place, ctypes.string_at(data, size), finish=finish))
        status: int = _IOERR if told is None else one.methods.xWrite(file, data, size, place) if told else _OK
        return status

    def _truncate(self, file: int, size: int) -> int:
        one = self.files[file]
        told = self._tell(Step("truncate", one.name, size))
        status: int = _IOERR if told is None else one.methods.xTruncate(file, size) if told else _OK
        return status

    def _sync(self, file: int, flags: int) -> int:
        one = self.files[file]
        told = self._tell(Step("sync", one.name, syncs_folder=one.syncs_folder))
        one.syncs_folder = False
        status: int = _IOERR if told is None else one.methods.xSync(file, flags) if told else _OK
        return status


def _sqlite() -> ctypes.CDLL:
    """Return the SQLite that Python's `sqlite3` uses: no other knows of our VFS."""
    where = getattr(_sqlite3, "__file__", None)  # None if the module is built into the interpreter
    library = ctypes.CDLL(where)
    try:
        library.sqlite3_vfs_find.restype = ctypes.c_void_p
        library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
        library.sqlite3_vfs_register.argtypes = [ctypes.c_void_p, _Int]
        library.sqlite3_vfs_unregister.argtypes = [ctypes.c_void_p]
    except AttributeError as exc:
        raise RuntimeError(
            f"the SQLite in {where or 'this interpreter'} hides its functions; use a Python linked with a shared one"
        ) from exc
    return library


@contextmanager
def watch(watcher: Watcher) -> Iterator[None]:
    """Have every file that SQLite opens in this process watched, from now until the block is left; then all must be closed."""
    library = _sqlite()
    at = library.sqlite3_vfs_find(None)
    vfs = _Vfs.from_address(at)
    assert vfs.iVersion >= 3
    watched = _Watched(watcher, vfs, at)
    library.sqlite3_vfs_register(ctypes.addressof(watched.ours), 1)
    try:
        yield
    finally:
        library.sqlite3_vfs_register(at, 1)
        library.sqlite3_vfs_unregister(ctypes.addressof(watched.ours))
        assert not watched.files, "files are open that were opened while the disk was watched"

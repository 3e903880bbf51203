"""Files below a directory, reached name by name, so that no path and no link leads out of it.

Each step opens one name in the directory that is open already, and follows no link: what the disk is made to look like between two
steps cannot change where the earlier ones led. What is no plain file with one name is refused: links, devices, pipes, and
files that have a second name, which may stand outside. A file is replaced as a whole, by a new one that takes its name.

Names that begin with "~" are none that a file of ours can have; those of `TEMPORARY` are what a write left that was cut off.
All of this blocks: it runs in threads.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from trio_sagents.exceptions import LimitExceeded
from trio_sagents.files._backend import FileRecord
from trio_sagents.files._errors import FileExists, FileNotFound, FileRefused, QuotaExceeded
from trio_sagents.files._paths import MAX_DEPTH, is_name

TEMPORARY: Final = "~trio-sagents-"
MAX_ENTRIES: Final = 100_000
"""Files in one tree; more are no tree for agents, and listing them would take long."""
_NO_LINK: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_CHUNK: Final = 1024 * 1024


def read(root: int, names: Sequence[str], path: str, max_bytes: float) -> bytes:
    """Return the content of a file; as `FileBackend.read`."""
    with _folder(root, names[:-1], path) as folder, _plain_file(folder, names[-1], path) as file:
        size = os.fstat(file).st_size
        chunks: list[bytes] = []
        read = 0
        while read <= max_bytes and (chunk := os.read(file, _CHUNK)):  # it may grow while it is read
            chunks.append(chunk)
            read += len(chunk)
        if read > max_bytes:
            raise QuotaExceeded("max_file_bytes", max(size, read), most=max_bytes, path=path)
        return b"".join(chunks)


def index(root: int, names: Sequence[str]) -> list[FileRecord]:
    """Return all plain files below a directory; none where there is no such directory."""
    found: list[FileRecord] = []
    try:
        with _folder(root, names, "/") as folder:
            _collect(folder, "", 1, found)
    except FileNotFound:
        pass
    return found


def _collect(folder: int, prefix: str, depth: int, found: list[FileRecord]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY):
                with suppress(OSError):
                    os.unlink(entry.name, dir_fd=folder)
                continue
            if not is_name(entry.name):
                continue
            path = f"{prefix}/{entry.name}"
            try:
                status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and depth < MAX_DEPTH:
                    with _step(folder, entry.name, path) as inner:
                        _collect(inner, path, depth + 1, found)
                elif _is_plain(status):
                    found.append(FileRecord(path, status.st_size))
            except (FileNotFoundError, PermissionError, FileNotFound, FileRefused):
                continue  # gone meanwhile, or not for us
            if len(found) > MAX_ENTRIES:
                raise LimitExceeded("files in a directory", len(found), most=MAX_ENTRIES)


def create(root: int, names: Sequence[str], path: str, data: bytes) -> None:
    """Make a file; as `FileBackend.create`. After a crash it is there as a whole, or not at all."""
    with _pruned_on_error(root, names), _folder(root, names[:-1], path, make=True) as folder:
        with _temporary(folder, data, 0o600) as temporary:
            _clear(folder, names[-1], path)
            # A second name, and then the first one is taken away: unlike a rename, this never replaces what is there.
            try:
                os.link(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                raise FileExists(path) from None
        os.fsync(folder)


def write(root: int, names: Sequence[str], path: str, data: bytes) -> None:
    """Give a file this content; as `FileBackend.write`. After a crash it has the old content, or the new one."""
    with _folder(root, names[:-1], path, make=True) as folder:
        status = _look(folder, names[-1])
        if status is not None:
            _check_plain(status, path)
        mode = 0o600 if status is None else stat.S_IMODE(status.st_mode) & 0o777
        with _temporary(folder, data, mode) as temporary:
            os.rename(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def delete(root: int, names: Sequence[str], path: str) -> None:
    """Delete a file, and the directories that are empty without it; as `FileBackend.delete`."""
    try:
        with _folder(root, names[:-1], path) as folder:
            status = _look(folder, names[-1])
            if status is None:
                return
            _check_plain(status, path)
            os.unlink(names[-1], dir_fd=folder)
            os.fsync(folder)
    except FileNotFound:
        return
    _prune(root, names)


def move(root: int, old: Sequence[str], new: Sequence[str], path: str, there: str) -> None:
    """Move a file or a directory; as `FileBackend.move`. After a crash all of it is at one of the two."""
    with _pruned_on_error(root, new), _folder(root, old[:-1], path) as source:
        status = _look(source, old[-1])
        if status is None:
            raise FileNotFound(path)
        if not stat.S_ISDIR(status.st_mode):
            _check_plain(status, path)
        with _folder(root, new[:-1], there, make=True) as target:
            _clear(target, new[-1], there)
            # Only another program could put something there now, and only a file; a link would be replaced, not followed.
            os.rename(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target)
            os.fsync(target)
        os.fsync(source)
    _prune(root, old)


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _closed(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _step(folder: int, name: str, path: str) -> Iterator[int]:
    with _closed(_open_folder(folder, name, path)) as inner:
        yield inner


def _open_folder(folder: int, name: str, path: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        raise FileNotFound(path) from None
    except OSError as exc:
        if exc.errno in _NO_LINK:
            raise FileRefused(path, f"{name!r} is no folder of this tree; links are not followed") from None
        raise


@contextmanager
def _folder(root: int, names: Sequence[str], path: str, *, make: bool = False) -> Iterator[int]:
    """Open the directory that `names` lead to, and close it again."""
    here = os.dup(root)
    try:
        for name in names:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=here)
                    os.fsync(here)
            inner = _open_folder(here, name, path)
            os.close(here)
            here = inner
        yield here
    finally:
        os.close(here)


@contextmanager
def _plain_file(folder: int, name: str, path: str) -> Iterator[int]:
    status = _look(folder, name)
    if status is None:
        raise FileNotFound(path)
    _check_plain(status, path)  # before it is opened: opening a device may do something
    try:
        file = os.open(name, _FILE, dir_fd=folder)
    except FileNotFoundError:
        raise FileNotFound(path) from None
    except OSError as exc:
        if exc.errno in _NO_LINK:
            raise FileRefused(path, "it is a link; links are not followed") from None
        raise
    with _closed(file):
        _check_plain(os.fstat(file), path)  # what was opened, which may be another than was looked at
        yield file


def _look(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_plain(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1


def _check_plain(status: os.stat_result, path: str) -> None:
    if not _is_plain(status):
        why = "it has a second name elsewhere" if stat.S_ISREG(status.st_mode) else "it is a link, a folder or a device, and no plain file"
        raise FileRefused(path, why)


def _clear(folder: int, name: str, path: str) -> None:
    """See to it that nothing has this name; an empty directory is in nobody's way."""
    status = _look(folder, name)
    if status is None:
        return
    if stat.S_ISDIR(status.st_mode):
        with suppress(OSError):
            os.rmdir(name, dir_fd=folder)
            return
    raise FileExists(path)


@contextmanager
def _temporary(folder: int, data: bytes, mode: int) -> Iterator[str]:
    """Write a file of a name that is never seen, and yield that name; what is left of it is removed."""
    name = f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        with _closed(os.open(name, _NEW, 0o600, dir_fd=folder)) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fchmod(file, mode)
            os.fsync(file)
        yield name
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)


def _prune(root: int, names: Sequence[str]) -> None:
    """Remove the directories that `names` were in, the innermost first, until one is not empty."""
    for depth in range(len(names) - 1, 0, -1):
        try:
            with _folder(root, names[: depth - 1], "/") as folder:
                os.rmdir(names[depth - 1], dir_fd=folder)
        except (OSError, FileNotFound, FileRefused):
            return


@contextmanager
def _pruned_on_error(root: int, names: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _prune(root, names)
        raise

"""Files below a directory, reached name by name, so that no path and no link leads out of the directory.

Each step opens one name in the directory that is already open, and follows no link. So a change of the disk between two steps
cannot change where the earlier steps led. Everything that is not a plain file with a single name is refused: links, devices,
pipes, and files that have a second name, which may be outside. A file is replaced as a whole, by a new file that takes its name.

Code that changes a file holds the lock of its folder meanwhile (`flock`), also in other processes. So a file that is compared before
it is replaced is still the same file when it is replaced. Programs that do not know of the lock can still change the file in
between; there is no way to exclude them.

No file of a tree can have a name that begins with "~". Names that begin with `TEMPORARY` are left over from writes that were cut off.
All functions block: they run in threads.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from trio_sagents.exceptions import LimitExceeded
from trio_sagents.files._backend import FileRecord
from trio_sagents.files._errors import FileConflict, FileExists, FileNotFound, FileRefused, QuotaExceeded
from trio_sagents.files._paths import DETAILS_NAME, MAX_DEPTH, is_name

TEMPORARY: Final = "~trio-sagents-"
MAX_ENTRIES: Final = 100_000
"""The largest number of files in a tree; listing more would take too long."""
_NO_LINK: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_CHUNK: Final = 1024 * 1024


def read(root: int, names: Sequence[str], path: str, max_bytes: float) -> bytes:
    """Return the content of a file, as `FileBackend.read` does."""
    with _folder(root, names[:-1], path) as folder, _plain_file(folder, names[-1], path) as file:
        size = os.fstat(file).st_size
        chunks: list[bytes] = []
        read = 0
        while read <= max_bytes and (chunk := os.read(file, _CHUNK)):  # the file may grow while it is read
            chunks.append(chunk)
            read += len(chunk)
        if read > max_bytes:
            raise QuotaExceeded("max_file_bytes", max(size, read), most=max_bytes, path=path)
        return b"".join(chunks)


def index(root: int, names: Sequence[str]) -> list[FileRecord]:
    """Return all plain files below a directory; an empty list if there is no such directory."""
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
                _remove_temporary(folder, entry.name)
                continue
            if not is_name(entry.name) and not (depth == 1 and entry.name == DETAILS_NAME):
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
                continue  # it is gone by now, or it cannot be used
            if len(found) > MAX_ENTRIES:
                raise LimitExceeded("files in a directory", len(found), most=MAX_ENTRIES)


def _remove_temporary(folder: int, name: str) -> None:
    """Remove what a write that was cut off has left; not the file of a write that is at work, which holds the lock."""
    with suppress(OSError), _locked(folder, wait=False):
        os.unlink(name, dir_fd=folder)


def create(root: int, names: Sequence[str], path: str, data: bytes) -> None:
    """Make a file, as `FileBackend.create` does. After a crash, either the whole file is there, or nothing of it."""
    with _pruned_on_error(root, names), _folder(root, names[:-1], path, make=True) as folder, _locked(folder):
        with _temporary(folder, data, 0o600) as temporary:
            _clear(folder, names[-1], path)
            # The file gets a second name, and then loses its first one. Unlike a rename, this never replaces another file.
            try:
                os.link(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                raise FileExists(path) from None
        os.fsync(folder)


def write(root: int, names: Sequence[str], path: str, data: bytes) -> None:
    """Replace the content of a file, as `FileBackend.write` does. After a crash, the file has the old content or the new one."""
    with _folder(root, names[:-1], path, make=True) as folder, _locked(folder):
        _write(folder, names[-1], path, data)


def write_if(root: int, names: Sequence[str], path: str, data: bytes, digests: Collection[bytes]) -> None:
    """Replace the content of a file if it has one of these digests, as `ComparingFiles.write_if` does."""
    with _conflict_if_gone(path), _folder(root, names[:-1], path) as folder, _locked(folder):
        if _digest(folder, names[-1], path) not in digests:
            raise FileConflict(path)
        _write(folder, names[-1], path, data)


def _write(folder: int, name: str, path: str, data: bytes) -> None:
    status = _look(folder, name)
    if status is not None:
        _check_plain(status, path)
    mode = 0o600 if status is None else stat.S_IMODE(status.st_mode) & 0o777
    with _temporary(folder, data, mode) as temporary:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def delete(root: int, names: Sequence[str], path: str) -> None:
    """Delete a file, and the directories that are empty without it, as `FileBackend.delete` does."""
    _delete(root, names, path, None)


def delete_if(root: int, names: Sequence[str], path: str, digests: Collection[bytes]) -> None:
    """Delete a file if it has one of these digests, as `ComparingFiles.delete_if` does."""
    _delete(root, names, path, digests)


def _delete(root: int, names: Sequence[str], path: str, digests: Collection[bytes] | None) -> None:
    try:
        with _folder(root, names[:-1], path) as folder, _locked(folder):
            status = _look(folder, names[-1])
            if status is None:
                return
            _check_plain(status, path)
            if digests is not None and _digest(folder, names[-1], path) not in digests:
                raise FileConflict(path)
            os.unlink(names[-1], dir_fd=folder)
            os.fsync(folder)
    except FileNotFound:
        return
    _prune(root, names)


def move(root: int, old: Sequence[str], new: Sequence[str], path: str, there: str) -> None:
    """Move a file or a directory, as `FileBackend.move` does. After a crash, everything is at one of the two paths."""
    with _pruned_on_error(root, new), _folder(root, old[:-1], path) as source:
        status = _look(source, old[-1])
        if status is None:
            raise FileNotFound(path)
        if not stat.S_ISDIR(status.st_mode):
            _check_plain(status, path)
        with _folder(root, new[:-1], there, make=True) as target, _locked(source, target):
            _clear(target, new[-1], there)
            # Only a program that does not know of the lock could make a file at `new` now; a link would be replaced, not followed.
            os.rename(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target)
            os.fsync(target)
        os.fsync(source)
    _prune(root, old)


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _locked(*folders: int, wait: bool = True) -> Iterator[None]:
    """Hold the locks of these folders: other code that changes files in them has to wait, also in another process.

    Each lock belongs to an open file of its own, for two descriptors of one open file would share the lock. Two folders are locked in
    the order of their inodes, so two moves cannot wait for each other. With `wait=False`, a lock that is taken is a BlockingIOError.
    """
    how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    places = {(status.st_dev, status.st_ino): folder for folder in folders for status in [os.fstat(folder)]}
    with ExitStack() as stack:
        for place in sorted(places):
            fcntl.flock(stack.enter_context(_closed(os.open(".", _FOLDER, dir_fd=places[place]))), how)
        yield


@contextmanager
def _conflict_if_gone(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFound:
        raise FileConflict(path) from None


def _digest(folder: int, name: str, path: str) -> bytes:
    """Return the digest of the content of a file; raise FileNotFound if there is none."""
    digest = hashlib.sha256()
    with _plain_file(folder, name, path) as file:
        while chunk := os.read(file, _CHUNK):
            digest.update(chunk)
    return digest.digest()


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
            raise FileRefused(path, f"{name!r} is not a folder of this tree; links are not followed") from None
        raise


@contextmanager
def _folder(root: int, names: Sequence[str], path: str, *, make: bool = False) -> Iterator[int]:
    """Open the directory that `names` lead to; close it when the block is left."""
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
    _check_plain(status, path)  # before the file is opened: opening a device may have an effect
    try:
        file = os.open(name, _FILE, dir_fd=folder)
    except FileNotFoundError:
        raise FileNotFound(path) from None
    except OSError as exc:
        if exc.errno in _NO_LINK:
            raise FileRefused(path, "it is a link; links are not followed") from None
        raise
    with _closed(file):
        _check_plain(os.fstat(file), path)  # what was opened may be something else than what was looked at
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
        why = "it has a second name elsewhere" if stat.S_ISREG(status.st_mode) else "it is a link, a folder or a device, not a plain file"
        raise FileRefused(path, why)


def _clear(folder: int, name: str, path: str) -> None:
    """Make sure that nothing has this name; an empty directory of this name is removed."""
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
    """Write a file under a name that nobody sees, and yield the name; remove the file if it still has the name in the end."""
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
    """Remove the directories that contained `names`, the innermost first, up to the first that is not empty."""
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

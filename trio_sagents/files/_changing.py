"""Adding, removing and moving files: decided and done in the serial queue, first by the backend, then in memory.

Between the decision and the backend's answer, nobody else can add, remove or move a file of this volume. Edits can be made
meanwhile, and stay with their file.
"""

from collections.abc import Sequence

from trio_sagents.files import _details as details
from trio_sagents.files._changes import FileMoved, FileSaved, FileUpdated
from trio_sagents.files._entry import Entry
from trio_sagents.files._errors import FileConflict, FileExists, FileNotFound, MoveRefused
from trio_sagents.files._paths import check_path, is_under
from trio_sagents.files._saving import edit, give_up
from trio_sagents.files._text import digest_of
from trio_sagents.files._volume import Volume


async def create(volume: Volume, path: str, content: str, size: int) -> None:
    """Make a file, in the serial queue.

    Cancellation: the files close; either the file is there, or it is not.
    """
    volume.check_free(path)
    volume.usage.grow(path, files=1, size=size)
    try:
        await volume.ask("creating", path, volume.mount.backend.create(volume.scope, volume.inner(path), content))
    except BaseException:
        volume.usage.add(-1, -size)
        volume.is_doubtful = True
        raise
    entry = Entry(path, size, content, (digest_of(content),))
    volume.add(entry)
    volume.services.cache.used(entry)
    volume.publish(FileUpdated(path))
    volume.publish(FileSaved(path))


async def write(volume: Volume, path: str, content: str, size: int) -> None:
    """Give a file this content, or make the file, in the serial queue.

    Cancellation: as for `create`.
    """
    entry = volume.entries.get(path)
    if entry is None:
        await create(volume, path, content, size)
    else:
        edit(volume, entry, content, size)


async def delete(volume: Volume, path: str) -> None:
    """Delete a file, in the serial queue.

    Cancellation: the files close; either the file is gone, or it is not.
    """
    entry = volume.find(path)
    try:
        await volume.delete_stored(entry)
    except FileConflict as exc:
        give_up(volume, entry, exc)
        raise
    except BaseException:
        volume.is_doubtful = True
        raise
    volume.drop(entry)
    await details.moved(volume, {path: ""})


async def move(volume: Volume, old: str, new: str) -> Sequence[str]:
    """Move a file, or all files below a folder, in the serial queue; return the new paths, sorted.

    Cancellation: the files close; either everything was moved, or nothing.
    """
    moved = {new + path[len(old) :]: entry for path, entry in volume.entries.items() if is_under(path, old)}
    if not moved:
        raise FileNotFound(old)
    if is_under(new, old):
        raise MoveRefused(old, new, "the new path is inside of the old one; give a path outside of it")
    volume.check_free(new)
    for path in moved:
        check_path(path)
    backend = volume.mount.backend
    try:
        await volume.ask("moving", old, backend.move(volume.scope, volume.inner(old), volume.inner(new)))
    except FileExists:
        volume.is_doubtful = True
        raise FileExists(new) from None
    except BaseException:
        volume.is_doubtful = True
        raise
    for entry in moved.values():
        volume.remove(entry)
    before_of: dict[str, str] = {}
    for path, entry in moved.items():
        before, entry.path = entry.path, path
        volume.add(entry)
        before_of[before] = path
        volume.publish(FileMoved(before, path))
    await details.moved(volume, before_of)
    return sorted(moved)

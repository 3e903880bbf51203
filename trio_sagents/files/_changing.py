"""What adds, removes and moves files: decided and done in the lane, first by the backend, then in memory.

Between the decision and the backend's answer nothing else can add, remove or move a file of this volume; edits can be made, and
go with their file.
"""

from collections.abc import Sequence

from trio_sagents.files._changes import FileMoved, FileSaved, FileUpdated
from trio_sagents.files._entry import Entry
from trio_sagents.files._errors import FileExists, FileNotFound, MoveRefused
from trio_sagents.files._paths import check_path, is_under
from trio_sagents.files._saving import edit
from trio_sagents.files._volume import Volume


async def create(volume: Volume, path: str, content: str, size: int) -> None:
    """Make a file, in the lane.

    Cancellation: the files close; it is there, or it is not.
    """
    volume.check_free(path)
    volume.usage.grow(path, files=1, size=size)
    try:
        await volume.ask("creating", path, volume.mount.backend.create(volume.scope, volume.inner(path), content))
    except BaseException:
        volume.usage.add(-1, -size)
        volume.is_doubtful = True
        raise
    entry = Entry(path, size, content)
    volume.add(entry)
    volume.services.cache.used(entry)
    volume.publish(FileUpdated(path))
    volume.publish(FileSaved(path))


async def write(volume: Volume, path: str, content: str, size: int) -> None:
    """Give a file this content, or make it, in the lane.

    Cancellation: as of `create`.
    """
    entry = volume.entries.get(path)
    if entry is None:
        await create(volume, path, content, size)
    else:
        edit(volume, entry, content, size)


async def delete(volume: Volume, path: str) -> None:
    """Delete a file, in the lane.

    Cancellation: the files close; it is gone, or it is not.
    """
    entry = volume.find(path)
    try:
        await volume.ask("deleting", path, volume.mount.backend.delete(volume.scope, volume.inner(path)))
    except BaseException:
        volume.is_doubtful = True
        raise
    volume.drop(entry)


async def move(volume: Volume, old: str, new: str) -> Sequence[str]:
    """Move a file, or all below a folder, in the lane; return the new paths, sorted.

    Cancellation: the files close; all is moved, or nothing.
    """
    moved = {new + path[len(old) :]: entry for path, entry in volume.entries.items() if is_under(path, old)}
    if not moved:
        raise FileNotFound(old)
    if is_under(new, old):
        raise MoveRefused(old, new, "it would be inside itself; give a path outside of it")
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
    for path, entry in moved.items():
        before, entry.path = entry.path, path
        volume.add(entry)
        volume.publish(FileMoved(before, path))
    return sorted(moved)

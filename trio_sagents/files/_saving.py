"""From an edit in memory to its backend: when it is saved, and what happens where that fails.

    clean --edit--> dirty --left alone, or dirty for too long--> queued --begun--> saving --done--> clean, or dirty again
                      ^                                                             |
                      `-------- retry_interval, doubled each time -------- failed --'

An edit leaves `dirty` when the backend has it, when its file is deleted, or when the files close and nothing helps: then it is
named, in `FilesUnsaved`. What is pending belongs to the file, not to its path, so a move takes it along.
"""

import logging
from functools import partial
from typing import Final

import trio

from trio_sagents.files._changes import FileSaved, FileSaveFailed, FileUpdated
from trio_sagents.files._entry import Entry
from trio_sagents.files._errors import FileError, UnsavedFile
from trio_sagents.files._volume import Volume

log: Final = logging.getLogger("trio_sagents.files")


def edit(volume: Volume, entry: Entry, content: str, size: int) -> None:
    """Give a file another content, in one step.

    Args:
        volume: where the file is.
        entry: the file; it is not gone.
        content: valid text.
        size: its bytes.

    Raises:
        QuotaExceeded: it would be too large, or its scope; nothing was changed.
        FilesClosed: nothing is saved any more.
    """
    volume.services.check_open()
    volume.usage.check_file(entry.path, size)
    if content == entry.content:
        return
    volume.usage.grow(entry.path, size=size - entry.size)
    now = trio.current_time()
    if entry.revision == entry.taken:
        entry.unsaved_since = now
    entry.content, entry.size, entry.edited_at = content, size, now
    entry.revision += 1
    volume.unsaved[entry] = None
    volume.services.cache.forget(entry)
    volume.publish(FileUpdated(entry.path))
    schedule(volume, entry)


def schedule(volume: Volume, entry: Entry) -> None:
    """See to it that a dirty file is saved when it is due. A timer that is early looks again."""
    due = entry.save_at(volume.services.config)
    if entry.timer is not None:
        if entry.timer.deadline <= due:
            return
        entry.timer.cancel()
    entry.timer = volume.services.timers.call_at(due, partial(_look, volume, entry))


def _look(volume: Volume, entry: Entry) -> None:
    entry.timer = None
    if not entry.is_dirty:
        return
    if entry.save_at(volume.services.config) > trio.current_time():
        schedule(volume, entry)
    else:
        submit(volume, entry)


def submit(volume: Volume, entry: Entry) -> None:
    """Have a file saved in its turn; once until that has begun."""
    if not entry.is_queued:
        entry.is_queued = True
        volume.lane.submit(partial(save, volume, entry))


async def save(volume: Volume, entry: Entry) -> None:
    """Write what is unsaved of a file, in the lane. A failure is kept in the file, told, and tried again later.

    Cancellation: the files close; it stays dirty.
    """
    entry.is_queued = False
    if not entry.is_dirty:
        return
    assert entry.content is not None
    revision = entry.taken = entry.revision
    writing = volume.mount.backend.write(volume.scope, volume.inner(entry.path), entry.content)
    try:
        await volume.ask("saving", entry.path, writing)
    except FileError as exc:
        _failed(volume, entry, exc)
        return
    entry.saved = revision
    entry.failures, entry.error = 0, None
    if entry.is_dirty:
        schedule(volume, entry)
        return
    volume.unsaved.pop(entry, None)
    volume.services.cache.used(entry)
    volume.publish(FileSaved(entry.path))


def _failed(volume: Volume, entry: Entry, error: FileError) -> None:
    entry.failures += 1
    entry.error = error
    wait = volume.services.config.retry_after(entry.failures)
    entry.retry_at = trio.current_time() + wait
    log.warning("file %r of scope %r is not saved after %d attempts: %s", entry.path, volume.scope, entry.failures, error)
    volume.publish(FileSaveFailed(entry.path, entry.failures, wait))
    schedule(volume, entry)


async def flush(volume: Volume) -> list[UnsavedFile]:
    """Save what is unsaved now, and return what could not be.

    Cancellation: what was saved is saved, the rest stays dirty.
    """
    entries = list(volume.unsaved)
    for entry in entries:
        await volume.run(partial(save, volume, entry))
    return [as_unsaved(volume, entry) for entry in entries if entry.is_dirty and entry.failures]


async def settle(volume: Volume) -> None:
    """Save all that is unsaved, and end when that is done, however often it takes.

    Cancellation: time is up; what is dirty stays dirty.
    """
    rounds = 0
    while True:
        for entry in list(volume.unsaved):
            submit(volume, entry)
        await volume.lane.wait_idle()
        if not volume.unsaved:
            return
        rounds += 1
        await trio.sleep(volume.services.config.retry_after(rounds))


def as_unsaved(volume: Volume, entry: Entry) -> UnsavedFile:
    """Return what is told of a file that could not be saved."""
    assert entry.content is not None
    return UnsavedFile(volume.scope, entry.path, entry.content, entry.error)

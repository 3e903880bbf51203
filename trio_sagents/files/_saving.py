"""From an edit in memory to its backend: when an edit is saved, and what happens if that fails.

    clean --edit--> dirty --left alone, or dirty for too long--> queued --begun--> saving --stored--> clean, or dirty again
                      ^                                                           |  |
                      `-------- retry_interval, doubled each time ------- failed -'  `-conflict--> clean: the edit is given up

A file stops being dirty when the backend has its edits, when the file is deleted, when the edits are given up because the stored file
is not the one that they were made of, or when the files close although nothing helped: then `FilesUnsaved` names the file. Unsaved
edits belong to the file, not to its path, so they move with the file.
"""

import logging
from functools import partial
from typing import Final

import trio

from trio_sagents.files._changes import FileEditLost, FileSaved, FileSaveFailed, FileUpdated
from trio_sagents.files._entry import AwaitedEdit, Entry
from trio_sagents.files._errors import FileConflict, FileError, FilesUnsaved, UnsavedFile
from trio_sagents.files._text import digest_of
from trio_sagents.files._volume import Volume

log: Final = logging.getLogger("trio_sagents.files")


def edit(volume: Volume, entry: Entry, content: str, size: int, *, is_awaited: bool = False) -> None:
    """Give a file another content in memory, in one step.

    Args:
        volume: the volume of the file.
        entry: the file; it is not gone.
        content: valid text.
        size: the size of the content in bytes.
        is_awaited: whether the caller calls `wait_stored` next, without a checkpoint in between.

    Raises:
        QuotaExceeded: the file or its scope would be too large; nothing was changed.
        FilesClosed: nothing is saved any more.
    """
    volume.services.check_open()
    volume.usage.check_file(entry.path, size)
    if content == entry.content:
        return
    volume.usage.grow(entry.path, size=size - entry.size)
    now = trio.current_time()
    saving = entry.saving
    if saving.revision == saving.taken:
        saving.unsaved_since = now
    entry.content, entry.size, saving.edited_at = content, size, now
    saving.revision += 1
    saving.is_unwatched = saving.is_unwatched or not is_awaited
    volume.unsaved[entry] = None
    volume.services.cache.forget(entry)
    volume.publish(FileUpdated(entry.path))
    schedule(volume, entry)


async def wait_stored(volume: Volume, entry: Entry) -> None:
    """Save a file now, and wait until the backend has all edits that were made before the call.

    Raises:
        FileConflict: the stored file was not the one that the edits were made of; they are given up.
        FilesUnsaved: the backend failed, or has not answered within `store_timeout`; the edits are kept, and saving is retried.
        FilesClosed: the files were closed before.

    Cancellation: the edits are kept, and are saved as others are.
    """
    if not entry.is_dirty:
        await trio.lowlevel.checkpoint()
        return
    saving = entry.saving
    awaited = AwaitedEdit(saving.revision)
    saving.awaited.append(awaited)
    try:
        with trio.move_on_after(volume.services.config.store_timeout):
            await volume.run(partial(save, volume, entry))
    finally:
        if awaited in saving.awaited:
            saving.awaited.remove(awaited)
            saving.is_unwatched = True
    if awaited.is_lost:
        raise FileConflict(entry.path)
    if not awaited.is_stored and entry.is_dirty:
        raise FilesUnsaved([as_unsaved(volume, entry)])


def schedule(volume: Volume, entry: Entry) -> None:
    """Make sure that a dirty file is saved when it is due. A timer that is early looks again."""
    saving = entry.saving
    due = saving.due_at(volume.services.config)
    if saving.timer is not None:
        if saving.timer.deadline <= due:
            return
        saving.timer.cancel()
    saving.timer = volume.services.timers.call_at(due, partial(_look, volume, entry))


def _look(volume: Volume, entry: Entry) -> None:
    entry.saving.timer = None
    if not entry.is_dirty:
        return
    if entry.saving.due_at(volume.services.config) > trio.current_time():
        schedule(volume, entry)
    else:
        submit(volume, entry)


def submit(volume: Volume, entry: Entry) -> None:
    """Queue the save of a file, unless a save is queued already."""
    if not entry.saving.is_queued:
        entry.saving.is_queued = True
        volume.queue.submit(partial(save, volume, entry))


async def save(volume: Volume, entry: Entry) -> None:
    """Write the unsaved edits of a file, in the serial queue. A failure is noted in the file, published, and retried later.

    Cancellation: the files close; the file stays dirty.
    """
    saving = entry.saving
    saving.is_queued = False
    if not entry.is_dirty:
        return
    content = entry.content
    assert content is not None
    revision = saving.taken = saving.revision
    try:
        await volume.replace_stored(entry, content)
    except FileConflict as exc:
        give_up(volume, entry, exc)
        return
    except FileError as exc:
        if entry.digests:
            entry.digests = {*entry.digests, digest_of(content)}  # a call that failed may have done its work
        _failed(volume, entry, exc)
        return
    saving.stored(revision)
    entry.digests = (digest_of(content),)
    if entry.is_dirty:
        schedule(volume, entry)
        return
    volume.unsaved.pop(entry, None)
    volume.services.cache.used(entry)
    volume.publish(FileSaved(entry.path))


def give_up(volume: Volume, entry: Entry, conflict: FileConflict) -> None:
    """Forget what is known of a file, its unsaved edits included, because the stored file has changed; tell the callers that wait."""
    volume.is_doubtful = True
    if entry.is_dirty:
        if entry.saving.is_unwatched:
            volume.lost[entry.path] = as_unsaved(volume, entry, conflict)
        log.warning("an edit of file %r of scope %r is lost: somebody else has changed the stored file", entry.path, volume.scope)
        entry.saving.give_up()
        volume.unsaved.pop(entry, None)
        volume.publish(FileEditLost(entry.path))
    volume.forget_content(entry)


def _failed(volume: Volume, entry: Entry, error: FileError) -> None:
    saving = entry.saving
    saving.failures += 1
    saving.error = error
    wait = volume.services.config.retry_after(saving.failures)
    saving.retry_at = trio.current_time() + wait
    log.warning(
        "file %r of scope %r is not saved after %d attempts; the next one is in %g s: %s",
        entry.path,
        volume.scope,
        saving.failures,
        wait,
        error,
    )
    volume.publish(FileSaveFailed(entry.path, saving.failures, wait))
    schedule(volume, entry)


async def flush(volume: Volume) -> list[UnsavedFile]:
    """Save all unsaved edits now, and return the files whose edits could not be saved, or were given up before.

    Cancellation: what was saved is saved, the rest stays dirty.
    """
    entries = list(volume.unsaved)
    for entry in entries:
        await volume.run(partial(save, volume, entry))
    return [*take_lost(volume), *(as_unsaved(volume, entry) for entry in entries if entry.is_dirty and entry.saving.failures)]


def take_lost(volume: Volume) -> list[UnsavedFile]:
    """Return the edits that were given up and that nobody has been told of; they count as told now."""
    lost = list(volume.lost.values())
    volume.lost.clear()
    return lost


async def settle(volume: Volume) -> None:
    """Save all unsaved edits, and return when that is done, however many attempts it takes.

    Cancellation: the time is over; what is dirty stays dirty.
    """
    rounds = 0
    while True:
        for entry in list(volume.unsaved):
            submit(volume, entry)
        await volume.queue.wait_idle()
        if not volume.unsaved:
            return
        rounds += 1
        await trio.sleep(volume.services.config.retry_after(rounds))


def as_unsaved(volume: Volume, entry: Entry, error: Exception | None = None) -> UnsavedFile:
    """Return what callers are told of a file whose edits are not saved; the error of the last attempt unless another is given."""
    assert entry.content is not None
    return UnsavedFile(volume.scope, entry.path, entry.content, error or entry.saving.error)

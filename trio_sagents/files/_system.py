"""The files of all scopes: opened around the sessions, because files live longer than any agent.

    backends
    └── services nursery      timers, and a task for each serial queue that has jobs; in a shielded scope
        └── the host's block

The services are shielded, so that unsaved edits are still saved when the block is cancelled; `settle_timeout` bounds the shield.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import trio

from trio_sagents._trio.groups import is_cancelled, split_cancelled
from trio_sagents._trio.opening import opening
from trio_sagents._trio.timers import Timers
from trio_sagents.files._area import FileArea
from trio_sagents.files._backend import OpenableFiles
from trio_sagents.files._changes import FileChanges, Publisher
from trio_sagents.files._config import FilesConfig, Mount
from trio_sagents.files._entry import Cache, Services
from trio_sagents.files._errors import FilesUnsaved, UnsavedFile
from trio_sagents.files._paths import ROOT, ScopeKey, scope_key
from trio_sagents.files._saving import as_unsaved, settle, take_lost
from trio_sagents.files._tree import Tree, plant
from trio_sagents.files._volume import Volume
from trio_sagents.files.memory import MemoryFiles

log: Final = logging.getLogger("trio_sagents.files")
_LOOKS: Final = 8
"""How many scopes are examined, when there is one too many, to find a scope at rest."""


class FileSystem:
    """The files of all scopes; made by `open_files`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        mounts = list(services.config.mounts)
        if all(mount.prefix != ROOT for mount in mounts):
            mounts.append(Mount(ROOT, MemoryFiles()))
            # Invariant: files that are only in memory are in a backend, too, so a scope at rest can always be forgotten.
        self._mounts = sorted(mounts, key=lambda mount: -len(mount.prefix))
        self._trees: OrderedDict[ScopeKey, Tree] = OrderedDict()
        # Invariant: ordered by last use, the least recently used first.

    def __repr__(self) -> str:
        return f"<FileSystem, {len(self._trees)} scopes loaded{', closed' if self._services.is_closed else ''}>"

    def area(self, scope: str | tuple[str, ...]) -> FileArea:
        """Return the files of one scope. Nothing is loaded until the files are used.

        Args:
            scope: the name of the tree, such as "user:42" or ("tenant", "user"); the same scope has the same files.

        Raises:
            TypeError: `scope` is neither a str nor a tuple of str.
            ValueError: a part is empty, too long, or has control characters.
        """
        return FileArea(scope_key(scope), self)

    @asynccontextmanager
    async def changes(self, scope: str | tuple[str, ...]) -> AsyncIterator[FileChanges]:
        """Listen to the changes of one scope from now on: iterate over the value of the block.

        At most `max_changes` changes wait for a slow listener; after them comes a `FileChangesLost`. The iteration ends when the
        files are closed, after the last saves.

        Args:
            scope: as for `area`.

        Raises:
            TypeError: `scope` is neither a str nor a tuple of str.
            ValueError: a part is empty, too long, or has control characters.

        Ordering: changes come in the order in which they were made; `FileSaved` comes after the changes that were saved.

        Cancellation: nothing was done.
        """
        key = scope_key(scope)
        await trio.lowlevel.checkpoint()
        with self._services.publisher.listen(key) as changes:
            yield changes

    def tree(self, key: ScopeKey) -> Tree:
        """Return the tree of a scope; make the tree if there is none."""
        tree = self._trees.get(key)
        if tree is None:
            tree = self._trees[key] = plant(key, self._mounts, self._services)
            self._forget_some(tree)
        else:
            self._trees.move_to_end(key)
        return tree

    def _forget_some(self, new: Tree) -> None:
        """Forget scopes at rest while there are too many scopes."""
        for _ in range(_LOOKS):
            if len(self._trees) <= max(self._services.config.cached_scopes, 1):
                return
            key, tree = next(iter(self._trees.items()))
            if tree is new or not tree.is_at_rest:
                self._trees.move_to_end(key)
                continue
            del self._trees[key]
            for volume in tree.volumes:
                for entry in volume.entries.values():
                    self._services.cache.forget(entry)

    async def close(self) -> None:
        """Refuse further calls, and save all unsaved edits.

        Cancellation: the saves are shielded, and bounded by `settle_timeout`.
        """
        services = self._services
        services.is_closed = True
        # Cancellation: acknowledged edits have to be saved, also if the block is cancelled; `settle_timeout` bounds the shield.
        with trio.move_on_after(services.config.settle_timeout, shield=True):
            async with trio.open_nursery() as nursery:
                for volume in self._busy():
                    nursery.start_soon(settle, volume)
        services.publisher.close()

    def unsaved(self) -> FilesUnsaved | None:
        """Return the error that names the edits that are not saved, for the time when the services have ended; None if all are."""
        left: list[UnsavedFile] = []
        for volume in self._busy():
            left += [*take_lost(volume), *(as_unsaved(volume, entry) for entry in volume.unsaved)]
        return FilesUnsaved(left) if left else None

    def _busy(self) -> Sequence[Volume]:
        return [volume for tree in self._trees.values() for volume in tree.volumes if not volume.is_at_rest]


@opening
@asynccontextmanager
async def open_files(config: FilesConfig | None = None) -> AsyncIterator[FileSystem]:
    """Open the files of one host; leaving the block saves all unsaved edits.

    Open the files around `open_sessions`: files live longer than the agents that use them. An error that the block raises leaves as
    it is. If some edits are not saved, FilesUnsaved leaves, too, in a group with the error of the block if there is one.

    Args:
        config: the settings; without them, all files are in memory.

    Raises:
        PersistenceError: a backend could not be opened; nothing was started.
        FilesUnsaved: when the block is left: some edits were not stored within `settle_timeout`, or were given up before because
            somebody else had changed the stored file. The error has their texts, and the log names the files.

    Cancellation: either nothing was opened; or, when the block is left, every unsaved edit is saved or named, and all is closed.
    """
    config = FilesConfig() if config is None else config
    if not isinstance(config, FilesConfig):
        raise TypeError(f"open_files takes a FilesConfig, not {config!r}")
    async with AsyncExitStack() as stack:
        for mount in config.mounts:
            if isinstance(mount.backend, OpenableFiles):
                await stack.enter_async_context(mount.backend.open())
        async with _serve(config) as files:
            yield files


@asynccontextmanager
async def _serve(config: FilesConfig) -> AsyncIterator[FileSystem]:
    host: BaseException | None = None
    trouble: BaseException | None = None
    files: FileSystem | None = None
    try:
        async with trio.open_nursery() as nursery:
            shield = trio.CancelScope()
            files = FileSystem(await nursery.start(_open_services, shield, config))
            # Cancellation: the host's cancellation must not reach the saves. The shield is set only now: if `start()` is cancelled,
            # it starts nothing, and nothing would end the shielded task.
            shield.shield = True
            try:
                try:
                    yield files
                except BaseException as exc:  # noqa: ASYNC103, BLE001  # kept, and raised again below, unchanged
                    host = exc
                await files.close()
            finally:
                shield.cancel()
    except BaseException as exc:  # noqa: ASYNC103, BLE001  # raised again below, together with the error of the host
        trouble = exc
    unsaved = None if files is None else files.unsaved()
    if unsaved is not None:
        log.error("the files were closed with edits that are not saved: %s", unsaved)
    _raise(host, trouble, unsaved)


async def _open_services(shield: trio.CancelScope, config: FilesConfig, *, task_status: trio.TaskStatus[Services]) -> None:
    with shield:
        async with trio.open_nursery() as nursery:
            timers = Timers()
            nursery.start_soon(timers.run, name="timers")
            task_status.started(Services(config, nursery, timers, Publisher(config.max_changes), Cache(config.cache_bytes)))
            await trio.sleep_forever()


def _raise(host: BaseException | None, trouble: BaseException | None, unsaved: FilesUnsaved | None) -> None:
    """Raise the error of the block unchanged, and what else went wrong; in a group if there is more than one error."""
    cancelled = host if host is not None and is_cancelled(host) else trouble if host is None else None
    errors = [] if host is None or host is cancelled else [host]
    errors += [] if trouble is None else [error for error in split_cancelled(trouble) if error is not None]
    errors += [] if unsaved is None else [unsaved]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup("the block and the closing of open_files failed", errors)
    if cancelled is not None:
        raise cancelled

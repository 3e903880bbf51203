"""The files of all scopes: opened beside the sessions, living longer than any agent.

    backends
    └── services nursery      timers, and a task for each lane at work; in a shielded scope
        └── the host's block

The services are shielded, so that what is unsaved still lands when the block is cancelled; `settle_timeout` bounds the shield.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import trio

from trio_sagents._trio.groups import is_cancelled, split_cancelled
from trio_sagents._trio.timers import Timers
from trio_sagents.files._area import FileArea
from trio_sagents.files._backend import OpenableFiles
from trio_sagents.files._changes import FileChanges, Publisher
from trio_sagents.files._config import FilesConfig, Mount
from trio_sagents.files._entry import Cache, Services
from trio_sagents.files._errors import FilesUnsaved
from trio_sagents.files._paths import ROOT, ScopeKey, scope_key
from trio_sagents.files._saving import as_unsaved, settle
from trio_sagents.files._tree import Tree, plant
from trio_sagents.files._volume import Volume
from trio_sagents.files.memory import MemoryFiles

log: Final = logging.getLogger("trio_sagents.files")
_LOOKS: Final = 8
"""How many scopes are looked at, when one too many is kept, for one that is at rest."""


class FileSystem:
    """Files by scope; made by `open_files`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        mounts = list(services.config.mounts)
        if all(mount.prefix != ROOT for mount in mounts):
            mounts.append(Mount(ROOT, MemoryFiles()))
            # Invariant: what is only in memory is in a backend, too, so a scope at rest can always be forgotten.
        self._mounts = sorted(mounts, key=lambda mount: -len(mount.prefix))
        self._trees: OrderedDict[ScopeKey, Tree] = OrderedDict()
        # Invariant: the least recently used first.

    def __repr__(self) -> str:
        return f"<FileSystem, {len(self._trees)} scopes loaded{', closed' if self._services.is_closed else ''}>"

    def area(self, scope: str | tuple[str, ...]) -> FileArea:
        """Return the files of one scope. Nothing is loaded until they are used.

        Args:
            scope: names the tree, as "user:42" or ("tenant", "user"); whoever gives the same has the same files.

        Raises:
            TypeError: it is neither a str nor a tuple of str.
            ValueError: a part is empty, too long, or has control characters.
        """
        return FileArea(scope_key(scope), self)

    @asynccontextmanager
    async def changes(self, scope: str | tuple[str, ...]) -> AsyncIterator[FileChanges]:
        """Listen to the changes of one scope, from now on: iterate over what it gives.

        At most `max_changes` are kept for a listener that is slow; then comes a `FileChangesLost`. The iteration ends when the
        files are closed, after the saves of the closing.

        Args:
            scope: as of `area`.

        Raises:
            TypeError: it is neither a str nor a tuple of str.
            ValueError: a part is empty, too long, or has control characters.

        Ordering: changes come in the order in which they were made; `FileSaved` after what it saved.

        Cancellation: either it listens, or nothing was done.
        """
        key = scope_key(scope)
        await trio.lowlevel.checkpoint()
        with self._services.publisher.listen(key) as changes:
            yield changes

    def tree(self, key: ScopeKey) -> Tree:
        """Return the tree of a scope, planted if need be."""
        tree = self._trees.get(key)
        if tree is None:
            tree = self._trees[key] = plant(key, self._mounts, self._services)
            self._forget_some(tree)
        else:
            self._trees.move_to_end(key)
        return tree

    def _forget_some(self, new: Tree) -> None:
        """Forget scopes at rest, while there are too many."""
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
        """Refuse what comes now, and save what is unsaved.

        Cancellation: it is shielded, and bounded by `settle_timeout`.
        """
        services = self._services
        services.is_closed = True
        # Cancellation: what was acknowledged has to be saved, whoever cancels; bounded.
        with trio.move_on_after(services.config.settle_timeout, shield=True):
            async with trio.open_nursery() as nursery:
                for volume in self._busy():
                    nursery.start_soon(settle, volume)
        services.publisher.close()

    def unsaved(self) -> FilesUnsaved | None:
        """Return the error that names what could not be saved; for when the services have ended."""
        left = [as_unsaved(volume, entry) for volume in self._busy() for entry in volume.unsaved]
        return FilesUnsaved(left) if left else None

    def _busy(self) -> Sequence[Volume]:
        return [volume for tree in self._trees.values() for volume in tree.volumes if not volume.is_at_rest]


@asynccontextmanager
async def open_files(config: FilesConfig | None = None) -> AsyncIterator[FileSystem]:
    """Open the files of one host; leaving the block saves what is unsaved.

    Open it around `open_sessions`: files live longer than the agents that use them. Whatever the block raised leaves as it is;
    if some edits could not be saved, that leaves too, in a group with the block's own error where there is one.

    Args:
        config: the settings; without one, all files are in memory.

    Raises:
        PersistenceError: a backend could not be opened; nothing was started.
        FilesUnsaved: when the block is left: some edits were not taken in `settle_timeout`; it has them, and the log names them.

    Cancellation: either nothing was opened, or all that is unsaved is saved, or named, and all is closed when the block is left.
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
            # Cancellation: the host's cancellation must not reach what saves. Not before it has started: a starter that is cancelled
            # starts nothing, and nobody would end what sleeps in a shield.
            shield.shield = True
            try:
                try:
                    yield files
                except BaseException as exc:  # noqa: ASYNC103, BLE001  # kept, and raised again below, as it is
                    host = exc
                await files.close()
            finally:
                shield.cancel()
    except BaseException as exc:  # noqa: ASYNC103, BLE001  # raised again below, together with the host's
        trouble = exc
    unsaved = None if files is None else files.unsaved()
    if unsaved is not None:
        log.error("files were closed with edits that are not saved: %s", unsaved)
    _raise(host, trouble, unsaved)


async def _open_services(shield: trio.CancelScope, config: FilesConfig, *, task_status: trio.TaskStatus[Services]) -> None:
    with shield:
        async with trio.open_nursery() as nursery:
            timers = Timers()
            nursery.start_soon(timers.run, name="timers")
            task_status.started(Services(config, nursery, timers, Publisher(config.max_changes), Cache(config.cache_bytes)))
            await trio.sleep_forever()


def _raise(host: BaseException | None, trouble: BaseException | None, unsaved: FilesUnsaved | None) -> None:
    """Raise what the block raised, as it is, and what went wrong beside it; in a group where that is more than one."""
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

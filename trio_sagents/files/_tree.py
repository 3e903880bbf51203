"""The tree of one scope: which volume has a path, and what may be done there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from trio_sagents.files._config import Mount
from trio_sagents.files._entry import Services, Usage
from trio_sagents.files._errors import FileExists, FileNotFound, FileReadOnly, MoveRefused
from trio_sagents.files._paths import ROOT, ScopeKey, is_under
from trio_sagents.files._volume import Volume


@attrs.define(eq=False)
class Tree:
    """The files of one scope, in all mounts."""

    scope: ScopeKey
    services: Services
    volumes: Sequence[Volume] = ()
    """The longest prefix first, so the first that fits has the path; the last one is at "/"."""
    _users: int = 0

    @property
    def is_at_rest(self) -> bool:
        """Whether it could be forgotten, and be read again when it is wanted."""
        return not self._users and all(volume.is_at_rest for volume in self.volumes)

    @contextmanager
    def used(self) -> Iterator["Tree"]:
        """Keep it while the block runs."""
        self.services.check_open()
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1

    def volume_of(self, path: str) -> Volume:
        """Return the volume that has `path`."""
        return next(volume for volume in self.volumes if is_under(path, volume.mount.prefix))

    def volumes_under(self, prefix: str) -> Sequence[Volume]:
        """Return the volumes that can have files at `prefix` or below it, in the order of their prefixes."""
        inside = [volume for volume in self.volumes if is_under(volume.mount.prefix, prefix)]
        around = self.volume_of(prefix)
        return sorted({*inside, around}, key=lambda volume: volume.mount.prefix)

    def writable(self, path: str, *, is_new: bool = True) -> Volume:
        """Return the volume in which the file `path` may be made or, where it is not new, changed.

        Raises:
            FileReadOnly: it may not.
            FileExists: there is a mount of that path, or below it, so there can be no such file.
            FileNotFound: likewise, where it is not new.
        """
        volume = self.volume_of(path)
        if volume.mount.read_only:
            raise FileReadOnly(path, volume.mount.prefix)
        if self._is_mount_folder(path):
            if not is_new:
                raise FileNotFound(path, is_folder=True)
            raise FileExists(path, "it is a folder; name a file in it, or use another path")
        return volume

    def movable(self, old: str, new: str) -> Volume:
        """Return the volume in which `old` may be moved to `new`.

        Raises:
            FileReadOnly: one of the two cannot be changed.
            MoveRefused: they are kept apart, or one of them is a mount or has one below it.
        """
        for path in (old, new):
            volume = self.volume_of(path)
            if volume.mount.read_only:
                raise FileReadOnly(path, volume.mount.prefix)
        volume = self.volume_of(old)
        if volume is not self.volume_of(new):
            raise MoveRefused(old, new, "the two are stored in different places; create the new file, then delete the old one")
        for path in (old, new):
            if self._is_mount_folder(path):
                raise MoveRefused(old, new, f"{path!r} is a folder that cannot be moved or replaced; move what is in it")
        return volume

    async def load_writable(self) -> None:
        """Know all files that count for the quota.

        Cancellation: either they are known, or will be, or nothing was begun.
        """
        for volume in self.volumes:
            if not volume.mount.read_only:
                await volume.load()

    def _is_mount_folder(self, path: str) -> bool:
        return any(is_under(volume.mount.prefix, path) for volume in self.volumes if volume.mount.prefix != ROOT)


def plant(scope: ScopeKey, mounts: Sequence[Mount], services: Services) -> Tree:
    """Return the tree of a scope, of which nothing is known yet.

    Args:
        scope: its key.
        mounts: the longest prefix first, the last one at "/".
        services: of the file system.
    """
    tree = Tree(scope, services)
    usage = Usage(services.config)
    tree.volumes = tuple(Volume(scope, mount, _Hides(mount, mounts), services, usage) for mount in mounts)
    return tree


@attrs.frozen
class _Hides:
    """Says of each path in one mount whether another mount has its place."""

    mount: Mount
    mounts: Sequence[Mount]

    def __call__(self, path: str) -> bool:
        inside = [mount.prefix for mount in self.mounts if mount is not self.mount and is_under(mount.prefix, self.mount.prefix)]
        return any(is_under(path, prefix) or is_under(prefix, path) for prefix in inside)

"""The tree of one scope: which volume a path belongs to, and what may be done with the path."""

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
    """All files of one scope, in all mounts."""

    scope: ScopeKey
    services: Services
    volumes: Sequence[Volume] = ()
    """Ordered by prefix, the longest first, so a path belongs to the first volume whose prefix fits; the last prefix is "/"."""
    _users: int = 0

    @property
    def is_at_rest(self) -> bool:
        """Whether the tree could be forgotten, and be read again when somebody needs it."""
        return not self._users and all(volume.is_at_rest for volume in self.volumes)

    @contextmanager
    def used(self) -> Iterator["Tree"]:
        """Keep the tree while the block runs."""
        self.services.check_open()
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1

    def volume_of(self, path: str) -> Volume:
        """Return the volume that `path` belongs to."""
        return next(volume for volume in self.volumes if is_under(path, volume.mount.prefix))

    def volumes_under(self, prefix: str) -> Sequence[Volume]:
        """Return the volumes that can have files at `prefix` or below it, ordered by prefix."""
        inside = [volume for volume in self.volumes if is_under(volume.mount.prefix, prefix)]
        around = self.volume_of(prefix)
        return sorted({*inside, around}, key=lambda volume: volume.mount.prefix)

    def writable(self, path: str, *, is_new: bool = True) -> Volume:
        """Return the volume of `path`, if the file may be made there; if it is not new, may be changed.

        Raises:
            FileReadOnly: the volume is read-only.
            FileExists: there is a mount at that path or below it, so there can be no such file.
            FileNotFound: the same, for a file that is not new.
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
            FileReadOnly: one of the two paths is in a read-only mount.
            MoveRefused: they are in different mounts, or one of them is a mount or has a mount below it.
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
                raise MoveRefused(old, new, f"{path!r} is a folder that cannot be moved or replaced; move the files in it")
        return volume

    async def load_writable(self) -> None:
        """Read the indexes of all volumes that count for the quota.

        Cancellation: either they are known, or they will be, or nothing was begun.
        """
        for volume in self.volumes:
            if not volume.mount.read_only:
                await volume.load()

    def _is_mount_folder(self, path: str) -> bool:
        return any(is_under(volume.mount.prefix, path) for volume in self.volumes if volume.mount.prefix != ROOT)


def plant(scope: ScopeKey, mounts: Sequence[Mount], services: Services) -> Tree:
    """Return the tree of a scope; nothing is known of its files yet.

    Args:
        scope: the key of the scope.
        mounts: ordered by prefix, the longest first; the last prefix is "/".
        services: the services of the file system.
    """
    tree = Tree(scope, services)
    usage = Usage(services.config)
    tree.volumes = tuple(Volume(scope, mount, _Hides(mount, mounts), services, usage) for mount in mounts)
    return tree


@attrs.frozen
class _Hides:
    """Says of each path in one mount whether another mount is in its place."""

    mount: Mount
    mounts: Sequence[Mount]

    def __call__(self, path: str) -> bool:
        inside = [mount.prefix for mount in self.mounts if mount is not self.mount and is_under(mount.prefix, self.mount.prefix)]
        return any(is_under(path, prefix) or is_under(prefix, path) for prefix in inside)

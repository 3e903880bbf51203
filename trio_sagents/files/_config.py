"""Settings: which backend stores which files, how long an edit may stay unsaved, and how large everything may become."""

import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from trio_sagents.data.config import count_validator, seconds_validator, type_validator
from trio_sagents.data.json import Opaque
from trio_sagents.files._backend import FileBackend
from trio_sagents.files._paths import check_prefix

_METHODS: Final = ("index", "read", "create", "write", "delete", "move")


def _check_backend(_mount: object, _field: "attrs.Attribute[Opaque]", backend: object) -> None:
    if isinstance(backend, type) or not isinstance(backend, FileBackend):
        raise TypeError(f"Mount.backend must be a FileBackend, such as SqliteFiles('files.db'), not {backend!r}")
    for name in _METHODS:
        if not inspect.iscoroutinefunction(getattr(backend, name)):
            raise TypeError(f"{type(backend).__name__}.{name} must be `async def`")


@attrs.frozen
class Mount:
    """A part of every tree, and the backend that stores it."""

    prefix: str = attrs.field(converter=check_prefix)
    """The folder: `backend` stores all paths below it, except those of a mount with a longer prefix. "/" is the whole tree."""
    backend: FileBackend = attrs.field(validator=_check_backend)
    """Sees paths relative to the prefix: "/docs/a.md" in the mount "/docs" is "/a.md"."""
    read_only: bool = attrs.field(default=False, kw_only=True, validator=type_validator(bool))
    """Whether agents and hosts may only read these files."""


def _as_tuple(mounts: Iterable[Mount]) -> Sequence[Mount]:
    return tuple(mounts)


def _check_mounts(_config: object, _field: "attrs.Attribute[Opaque]", mounts: Sequence[Mount]) -> None:
    for mount in mounts:
        if not isinstance(mount, Mount):
            raise TypeError(f"FilesConfig.mounts takes Mount objects, not {mount!r}")
    for number, mount in enumerate(mounts):
        for other in mounts[:number]:
            if mount.prefix == other.prefix:
                raise ValueError(f"FilesConfig.mounts has two mounts at {mount.prefix!r}; keep one of them")
            if mount.backend is other.backend:
                raise ValueError(
                    f"FilesConfig.mounts has the same backend at {other.prefix!r} and at {mount.prefix!r}, which would mix their "
                    "files; give each mount its own backend"
                )


@attrs.frozen(kw_only=True)
class FilesConfig:
    """The settings of `open_files`. Durations are in seconds, sizes in bytes of UTF-8; `math.inf` means no limit."""

    mounts: Sequence[Mount] = attrs.field(default=(), converter=_as_tuple, validator=_check_mounts)
    """Parts of every tree, in any order; the longest prefix that fits a path wins. Files outside of all mounts are in memory only."""
    debounce: float = attrs.field(default=5.0, validator=seconds_validator())
    """How long nobody must edit a file before its edits are saved; `math.inf` saves only on `flush()` and at the end."""
    max_unsaved_period: float = attrs.field(default=30.0, validator=seconds_validator())
    """The longest time from the first unsaved edit of a file to its save, however often the file is edited."""
    retry_interval: float = attrs.field(default=1.0, validator=seconds_validator(minimum_open=True))
    """The time until a failed save is tried again; it doubles with each further failure."""
    max_retry_interval: float = attrs.field(default=60.0, validator=seconds_validator(minimum_open=True))
    """The longest time between two attempts."""
    store_timeout: float = attrs.field(default=10.0, validator=seconds_validator(minimum_open=True))
    """How long a durable edit waits for its storage; after that, the edit counts as not stored yet."""
    settle_timeout: float = attrs.field(default=10.0, validator=seconds_validator(minimum_open=True))
    """How long the last saves may take when the `open_files` block is left."""
    max_file_bytes: float = attrs.field(default=1024 * 1024, validator=count_validator())
    """The largest size of a file; larger files are not read, either."""
    max_scope_bytes: float = attrs.field(default=64 * 1024 * 1024, validator=count_validator())
    """The largest size of all files of a scope together, without those in read-only mounts."""
    max_scope_files: float = attrs.field(default=10_000, validator=count_validator())
    """The largest number of files of a scope, without those in read-only mounts."""
    max_changes: float = attrs.field(default=256, validator=count_validator())
    """How many changes wait for one listener; if there are more, the listener gets a `FileChangesLost`."""
    cache_bytes: float = attrs.field(default=64 * 1024 * 1024, validator=count_validator(0))
    """The size of all contents, of all scopes together, that stay in memory although their backend has them."""
    cached_scopes: float = attrs.field(default=1024, validator=count_validator(0))
    """How many unused scopes keep their index in memory."""

    def retry_after(self, failures: int) -> float:
        """Return the seconds until the next attempt, after this number of failed attempts in a row."""
        return min(math.ldexp(self.retry_interval, min(failures - 1, 64)), self.max_retry_interval)

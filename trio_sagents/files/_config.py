"""Settings: what is kept where, how long an edit may stay unsaved, and how much there may be."""

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
        raise TypeError(f"a mount takes a FileBackend, as SqliteFiles('files.db'), not {backend!r}")
    for name in _METHODS:
        if not inspect.iscoroutinefunction(getattr(backend, name)):
            raise TypeError(f"{type(backend).__name__}.{name} must be `async def`")


@attrs.frozen
class Mount:
    """A part of every tree, and what keeps it."""

    prefix: str = attrs.field(converter=check_prefix)
    """The folder: all paths below it are kept by `backend`, apart from those of a longer prefix. "/" is the whole tree."""
    backend: FileBackend = attrs.field(validator=_check_backend)
    """Sees paths from the prefix on: "/docs/a.md" under "/docs" is "/a.md"."""
    read_only: bool = attrs.field(default=False, kw_only=True, validator=type_validator(bool))
    """Whether agents and hosts may only read there."""


def _as_tuple(mounts: Iterable[Mount]) -> Sequence[Mount]:
    return tuple(mounts)


def _check_mounts(_config: object, _field: "attrs.Attribute[Opaque]", mounts: Sequence[Mount]) -> None:
    for mount in mounts:
        if not isinstance(mount, Mount):
            raise TypeError(f"FilesConfig.mounts takes Mount objects, not {mount!r}")
    for number, mount in enumerate(mounts):
        for other in mounts[:number]:
            if mount.prefix == other.prefix:
                raise ValueError(f"FilesConfig.mounts has two mounts at {mount.prefix!r}; keep one")
            if mount.backend is other.backend:
                raise ValueError(
                    f"FilesConfig.mounts has one backend at {other.prefix!r} and at {mount.prefix!r}; their files would be "
                    "mixed up: give each mount a backend of its own"
                )


@attrs.frozen(kw_only=True)
class FilesConfig:
    """What `open_files` needs. Durations in seconds, sizes in bytes of UTF-8; `math.inf` is no limit."""

    mounts: Sequence[Mount] = attrs.field(default=(), converter=_as_tuple, validator=_check_mounts)
    """Parts of every tree, in any order; the longest prefix that fits wins. What is under none of them is in memory only."""
    debounce: float = attrs.field(default=5.0, validator=seconds_validator())
    """An edited file is saved when it was left alone for so long; `math.inf` saves at the end, and on `flush()`."""
    max_unsaved_period: float = attrs.field(default=30.0, validator=seconds_validator())
    """And at the latest so long after its first unsaved edit, however often it is edited."""
    retry_interval: float = attrs.field(default=1.0, validator=seconds_validator(minimum_open=True))
    """Until a failed save is tried again; doubled with each further failure."""
    max_retry_interval: float = attrs.field(default=60.0, validator=seconds_validator(minimum_open=True))
    """The most that it is doubled to."""
    settle_timeout: float = attrs.field(default=10.0, validator=seconds_validator(minimum_open=True))
    """How long saving what is unsaved may take when the `open_files` block is left."""
    max_file_bytes: float = attrs.field(default=1024 * 1024, validator=count_validator())
    """One file; also the most that is read of one."""
    max_scope_bytes: float = attrs.field(default=64 * 1024 * 1024, validator=count_validator())
    """All files of one scope, apart from those in read-only mounts."""
    max_scope_files: float = attrs.field(default=10_000, validator=count_validator())
    """How many these are."""
    max_changes: float = attrs.field(default=256, validator=count_validator())
    """Untaken changes per listener; beyond it the listener gets a `FileChangesLost`."""
    cache_bytes: float = attrs.field(default=64 * 1024 * 1024, validator=count_validator(0))
    """Contents that are kept though their backend has them, of all scopes together."""
    cached_scopes: float = attrs.field(default=1024, validator=count_validator(0))
    """Scopes at rest whose index is kept."""

    def retry_after(self, failures: int) -> float:
        """Return the seconds until the next attempt, after so many failed ones."""
        return min(math.ldexp(self.retry_interval, min(failures - 1, 64)), self.max_retry_interval)

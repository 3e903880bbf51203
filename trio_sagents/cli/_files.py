"""The working folder, as far as an agent may read it."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 64 * 1024
"""What is read of one file; the rest is cut, with a mark."""
MAX_ENTRIES: Final = 200


class FileRefused(ValueError):
    """This path is not for the agent, or cannot be read."""


class Folder:
    """Reads files below one folder, and nothing else."""

    def __init__(self, root: Path, private: Sequence[Path] = ()) -> None:
        """Keep the paths.

        Args:
            root: the folder; must exist.
            private: files in it that are never opened, such as the chat's own database.
        """
        self._root = root.resolve(strict=True)
        self._private = tuple(private)

    def read_file(self, path: str) -> str:
        """Read a text file of the working folder.

        Args:
            path: relative to the working folder, such as "README.md" or "docs/index.md".
        """
        target = self._find(path)
        try:
            # NONBLOCK: a pipe put here by somebody must not hold the thread; NOFOLLOW: nor a link made since the check.
            handle = os.open(target, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError as exc:
            raise FileRefused(f"{path!r} cannot be read: {exc.strerror}") from exc
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            raise FileRefused(f"{path!r} is not a file")
        with os.fdopen(handle, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if b"\0" in data:
            raise FileRefused(f"{path!r} is not a text file")
        text = data[:MAX_BYTES].decode(errors="replace")
        return text if len(data) <= MAX_BYTES else f"{text}\n[cut here: the file has {found.st_size} bytes]"

    def list_files(self, path: str = ".") -> str:
        """List the files of the working folder, or of a folder in it.

        Args:
            path: relative to the working folder.
        """
        target = self._find(path)
        if not target.is_dir():
            raise FileRefused(f"{path!r} is not a folder")
        names = list(self._names(target))
        shown = names[:MAX_ENTRIES]
        if len(names) > len(shown):
            shown.append(f"[{len(names) - len(shown)} more]")
        return "\n".join(shown) or "no files"

    def _names(self, folder: Path) -> Iterator[str]:
        for entry in sorted(folder.iterdir()):
            if not entry.name.startswith("."):
                yield f"{entry.name}/" if entry.is_dir() else entry.name

    def _find(self, path: str) -> Path:
        if not path.strip() or "\0" in path:
            raise FileRefused(f"{path!r} is not a path")
        try:
            target = (self._root / path).resolve(strict=True)
        except FileNotFoundError:
            raise FileRefused(f"there is no file {path!r} in the working folder") from None
        except (OSError, RuntimeError) as exc:  # too long, a loop of links, no permission
            raise FileRefused(f"{path!r} cannot be read: {exc}") from exc
        if not target.is_relative_to(self._root):
            raise FileRefused(f"{path!r} is outside the working folder")
        if any(part.startswith(".") for part in target.relative_to(self._root).parts):
            raise FileRefused(f"{path!r} is hidden; hidden files are not read")
        if self._is_private(target):
            raise FileRefused(f"{path!r} is this chat's own database")
        return target

    def _is_private(self, target: Path) -> bool:
        # Invariant: these are never opened here. Closing a file drops every lock this process has on it, SQLite's included.
        return any(private.exists() and target.samefile(private) for private in self._private)

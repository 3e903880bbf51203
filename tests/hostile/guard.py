"""An audit hook that forbids nearly everything, switched by a flag: a hook cannot be removed, so it runs in child processes alone."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

HARMLESS: Final = frozenset(
    {
        "builtins.id",
        "gc.get_objects",
        "object.__delattr__",
        "object.__getattr__",
        "object.__setattr__",
        "sys._getframe",
        "sys.unraisablehook",
    }
)
"""What decoding may do that the interpreter reports; all else is refused: import, open, exec, compile, sockets, pickle, processes."""
KEPT: Final = 10


class Forbidden(BaseException):
    """Code under guard did what only code does that was led astray. No `except Exception` hides it."""


class Guard:
    """The hook of this process."""

    def __init__(self, *more_harmless: str) -> None:
        self.found: list[str] = []
        """The first events that were refused, even if the error was swallowed."""
        self.count = 0
        self._harmless = HARMLESS | set(more_harmless)
        self._is_armed = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: Sequence[object]) -> None:
        if self._is_armed and event not in self._harmless:
            self._refuse(event, args)

    def _refuse(self, event: str, args: Sequence[object]) -> NoReturn:
        self._is_armed = False  # what follows looks around, and is ours
        try:
            self.count += 1
            if self.count <= KEPT:
                self.found.append(f"{event}{args!r}"[:200])
        finally:
            self._is_armed = True
        raise Forbidden(event)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Refuse, for the length of the context."""
        self._is_armed = True
        try:
            yield
        finally:
            self._is_armed = False

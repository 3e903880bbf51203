"""Fresh processes: `python -m benchmarks.children PROGRAM ARGUMENT...` runs one; the rest of the module talks to it.

A program prints a JSON line when it is ready, and another for each line that it reads; it ends with its input.
"""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Final, Self, TypeAlias

Figures: TypeAlias = Mapping[str, float]
PROGRAMS: Final = {
    "memory": "benchmarks.memory",
    "crowd": "benchmarks.crowd",
    "streaming": "benchmarks.streaming",
}
"""By name, the module whose `child(*arguments)` is the program."""


class Child:
    """A process that measures on demand."""

    def __init__(self, program: str, *arguments: str) -> None:
        """Start it, without waiting for it."""
        command = [sys.executable, "-m", "benchmarks.children", program, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._is_ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def ready(self) -> Figures:
        """Wait for its first line, and return what it says."""
        self._is_ready = True
        return self._hear()

    def ask(self, command: str) -> Figures:
        """Send a command, and return the answer."""
        assert self._process.stdin is not None
        if not self._is_ready:
            self.ready()
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Figures:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark process ended with status {self._process.wait()} before it had measured")
        figures: dict[str, float] = json.loads(line)
        return figures


def measured(program: str, *arguments: str) -> Figures:
    """Return the figures of a program that measures once."""
    with Child(program, *arguments) as child:
        return child.ready()


@cache
def kept(program: str, *arguments: str) -> Child:
    """Return a process that stays for the benchmarks that come later: what takes long to build is built once."""
    child = Child(program, *arguments)
    atexit.register(child.end)
    return child


def tell(**figures: float) -> None:
    """Answer the parent."""
    print(json.dumps(figures), flush=True)


def main() -> None:
    """Run the program that the arguments name, and leave without taking down what it has built."""
    program, *arguments = sys.argv[1:]
    import_module(PROGRAMS[program]).child(*arguments)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

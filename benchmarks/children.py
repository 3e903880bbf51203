"""Fresh processes: `python -m benchmarks.children PROGRAM ARGUMENT...` runs one, the rest of the module talks to it.

A program prints one JSON line when it is ready, and one for each line that it reads; it ends with its input.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Final, Self

Figures = Mapping[str, float]
PROGRAMS: Final = {"memory": "benchmarks.memory", "crowd": "benchmarks.crowd", "streaming": "benchmarks.streaming"}
"""By name, the module whose `child(*arguments)` runs in the process."""


class Child:
    """A process that measures on demand."""

    def __init__(self, program: str, *arguments: str) -> None:
        """Start it; `ready` waits for it."""
        command = [sys.executable, "-m", "benchmarks.children", program, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def ready(self) -> Figures:
        """Wait for the next line, and return what it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark process ended with status {self._process.wait()} before it had measured")
        figures: dict[str, float] = json.loads(line)
        return figures

    def ask(self, command: str) -> Figures:
        """Send a command, and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self.ready()


def measured(program: str, *arguments: str) -> Figures:
    """Run a program that measures once."""
    with Child(program, *arguments) as child:
        return child.ready()


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

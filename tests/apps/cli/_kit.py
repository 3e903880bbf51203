"""The chat as people run it: a process of its own, at pipes and at a terminal, in real time. Every wait is for output."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pexpect  # type: ignore[import-untyped]  # it has no types
import pytest

ROOT: Final = Path(__file__).parents[3]
RUN: Final = (sys.executable, "-W", "error", "-m", "trio_sagents.cli", "chat")
SECRET: Final = "sk-not-to-be-seen"
PLAIN_PROMPT: Final = "> "
PROMPT: Final = r"\x1b\[\?2004h"  # prompt_toolkit switches bracketed paste on when it begins to read

READERS: Final = pytest.mark.parametrize(
    ("arguments", "prompt"), [((), PROMPT), (("--plain",), PLAIN_PROMPT)], ids=["prompt_toolkit", "plain"]
)


class Chat:
    """Runs the command in an empty folder."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = dict(environ)

    def run(self, *arguments: str, said: str = "") -> "subprocess.CompletedProcess[str]":
        """Run to the end, with `said` on standard input."""
        done = subprocess.run(
            [*RUN, *arguments], input=said, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert "--verbose" in arguments or "Traceback" not in done.stderr, done.stderr
        return done

    @contextlib.contextmanager
    def terminal(self, *arguments: str) -> Iterator["pexpect.spawn[str]"]:
        """Run at a terminal."""
        command, *rest = [*RUN, *arguments]
        child = pexpect.spawn(command, rest, cwd=str(self.folder), env=self.environ, encoding="utf-8", timeout=60, dimensions=(50, 200))
        try:
            yield child
        finally:
            if child.isalive():
                child.kill(signal.SIGKILL)
                child.wait()  # however long a busy machine takes for that; `close` gives it a tenth of a second
            child.close()


def leave(child: "pexpect.spawn[str]") -> int | None:
    """Wait for the end and return the exit status."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus

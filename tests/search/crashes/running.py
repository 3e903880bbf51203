"""How the tests run the programs next to them: as processes of their own, because a program that forks must have one thread."""

import faulthandler
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trio_sagents.data.json import Opaque

ROOT: Final = Path(__file__).parents[3]
SEED: Final = int(os.environ.get("TRIO_SAGENTS_SEED", "20240229"))
KILLS: Final = int(os.environ.get("TRIO_SAGENTS_KILLS", "300"))
TERMS: Final = max(48, KILLS // 10)
IMAGES: Final = int(os.environ.get("TRIO_SAGENTS_IMAGES", "400"))


def run(program: str, *arguments: Sequence[str | int | Path], limit: float = 300) -> list[dict[str, Opaque]]:
    """Run a program once for each list of arguments, all at the same time, and return their reports.

    Args:
        program: its module, in this folder.
        arguments: one list for each process.
        limit: seconds after which the test counts as hanging, in the place of pytest's own limit.
    """
    faulthandler.cancel_dump_traceback_later()
    deadline = time.monotonic() + limit
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"tests.search.crashes.{program}", "--seed", str(SEED), *map(str, some)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for some in arguments
    ]
    try:
        ended = [(*process.communicate(timeout=deadline - time.monotonic()), process.returncode) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    for out, errors, status in ended:
        assert status == 0, errors
        assert out, errors
    return [{**json.loads(out.splitlines()[-1]), "stderr": errors} for out, errors, _ in ended]


def in_all(reports: list[dict[str, Opaque]], name: str) -> int:
    """Return the sum of a count over all reports."""
    return sum(report[name] for report in reports)


def violations(reports: list[dict[str, Opaque]]) -> list[str]:
    """Return the violations in all reports."""
    return [violation for report in reports for violation in report["violations"]]

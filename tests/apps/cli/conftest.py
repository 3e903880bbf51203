"""The command, ready to be run."""

import faulthandler
import os
from pathlib import Path

import pytest

from tests.apps.cli._kit import ROOT, Chat


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment without keys, at home in an empty folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "OPENAI_", "TRIO_SAGENTS_", "XDG_"))}
    return {
        **kept,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "TERM": "xterm",
        "NO_COLOR": "1",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "TRIO_SAGENTS_DB": str(tmp_path / "chat.db"),
    }


@pytest.fixture
def chat(tmp_path: Path, environ: dict[str, str]) -> Chat:
    """The command, in an empty folder; its tests may take longer than others, for they start processes."""
    faulthandler.dump_traceback_later(120, exit=True)
    return Chat(tmp_path, environ)

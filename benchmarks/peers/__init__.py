"""Other libraries that people would pick, doing the same work with the same fake model: `python -m benchmarks --compare`.

Each library is used as its own documentation shows it: with the store for SQLite that it comes with, or, if it has none, with the few lines
that its documentation suggests. Each runs in an environment of its own, in a fresh process. The programs `with_*.py` know nothing of this
project but `common.py`, which imports nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks.rounds import Spread, ratios
from benchmarks.table import Row

HERE: Final = Path(__file__).parent
LENGTHS: Final = (10, 1_000, 5_000)


@attrs.frozen
class Peer:
    """One library."""

    name: str
    program: str
    requirements: Sequence[str]
    """What pip installs into its environment; for ours nothing, because it runs in this one."""


OURS: Final = Peer("trio_sagents", "with_trio_sagents.py", ())
PEERS: Final = (
    Peer("langgraph", "with_langgraph.py", ("langgraph>=1.2", "langgraph-checkpoint-sqlite>=3.1")),
    Peer("openai-agents", "with_openai_agents.py", ("openai-agents>=0.24",)),
    Peer("pydantic-ai", "with_pydantic_ai.py", ("pydantic-ai-slim>=2.68",)),
    Peer("google-adk", "with_google_adk.py", ("google-adk[db]>=2.13",)),
)


def compare(environments: Path, *, quick: bool) -> Sequence[Row]:
    """Return rows for each peer.

    Args:
        environments: the folder of the peers' environments; those that are missing are made, which needs a package index.
        quick: measure shorter conversations, once.
    """
    pythons = {peer.name: _environment(environments, peer) for peer in PEERS} | {OURS.name: Path(sys.executable)}
    rounds, lengths = (1, LENGTHS[:2]) if quick else (3, LENGTHS)
    figures: dict[str, list[Mapping[str, float]]] = {OURS.name: [], **{peer.name: [] for peer in PEERS}}
    for _ in range(rounds):
        for peer in (OURS, *PEERS):
            print(f"{peer.name} …", file=sys.stderr, flush=True)
            figures[peer.name].append(_measure(pythons[peer.name], peer, lengths))
    what = {f"turn.{length}": f"a turn at {length:,} stored messages, SQLite; CPU" for length in lengths}
    what |= {f"written.{length}": f"bytes that a turn at {length:,} stored messages hands to the system" for length in lengths}
    what |= {"token": "a streamed token, to one reader; CPU", "memory": "a conversation of two messages, kept in memory; resident bytes"}
    return [_row(key, text, peer, figures) for key, text in what.items() for peer in PEERS]


def _row(key: str, what: str, peer: Peer, figures: Mapping[str, Sequence[Mapping[str, float]]]) -> Row:
    ours, theirs = ([round_[key] for round_ in figures[name]] for name in (OURS.name, peer.name))
    return Row(
        name=peer.name,
        what=what,
        ours=_text(key, Spread.of(ours).median),
        baseline=_text(key, Spread.of(theirs).median),
        ratio=ratios(theirs, ours),
    )


def _text(key: str, figure: float) -> str:
    if key.startswith("turn"):
        return f"{figure * 1e3:.2f} ms"
    return f"{figure * 1e6:.1f} us" if key == "token" else f"{figure / 1e3:.1f} KB"


def _measure(python: Path, peer: Peer, lengths: Sequence[int]) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), str(HERE / peer.program), folder, *map(str, lengths)]
        # No trace leaves this machine, whatever a library does by default.
        environ = {**os.environ, "OPENAI_AGENTS_DISABLE_TRACING": "1", "LANGSMITH_TRACING": "false", "ADK_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environ)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _environment(folder: Path, peer: Peer) -> Path:
    """Return the Python of a peer's environment, and make the environment if it is missing."""
    home = folder / peer.name
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        venv.create(home, with_pip=True, clear=True)
        print(f"installing {peer.name} into {home} …", file=sys.stderr, flush=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *peer.requirements], check=True, stdout=sys.stderr)
        (home / "complete").touch()
    return python

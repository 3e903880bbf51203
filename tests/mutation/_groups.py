"""What is mutated, and which tests are asked."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LIBRARY: Final = ROOT / "trio_sagents"

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "registry": ("supervisor/_registry.py",),
    "agent task": ("supervisor/_agent_task.py", "supervisor/_live.py", "supervisor/_turns.py"),
    "stores": (
        "persistence/*.py",
        "supervisor/_writer.py",
        "supervisor/_flat_vault.py",
        "supervisor/_vaults.py",
        "supervisor/_ledger.py",
    ),
    "approvals": (
        "middleware/approvals.py",
        "agent/_gate.py",
        "supervisor/_answering.py",
        "supervisor/_decisions.py",
        "data/decisions.py",
        "data/interrupts.py",
    ),
}

TESTS: Final = (
    "tests/unit/test_registry.py",
    "tests/unit/test_books.py",
    "tests/unit/test_memory_store.py",
    "tests/unit/test_sqlite_store.py",
    "tests/unit/test_sqlite_file.py",
    "tests/unit/test_ledger.py",
    "tests/unit/test_vaults.py",
    "tests/unit/test_decisions.py",
    "tests/unit/test_refusals.py",
    "tests/flow",
    "tests/people",
    "tests/middleware/test_todo_list.py",
    "tests/mutants/test_holes.py",
    "tests/mutants/test_holes_people.py",
    "tests/attacks/test_files.py",
    "tests/attacks/test_keys.py",
    "tests/attacks/test_limits.py",
    "tests/attacks/test_secrets.py",
    "tests/attacks/test_tenants.py",
)
"""Those that are quick, and look at these modules; the long searches have planted bugs of their own."""
SLOW: Final = ("tests/people/test_machine.py", "tests/people/test_crashes.py")
"""Asked last: each takes seconds."""


def files_of(group: str) -> tuple[Path, ...]:
    """Return the modules of a group, in order of their names within each pattern."""
    return tuple(path for pattern in GROUPS[group] for path in sorted(LIBRARY.glob(pattern)))

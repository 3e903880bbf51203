"""Which modules are mutated, and which tests are run."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
LIBRARY: Final = ROOT / "trio_sagents"

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "rules": ("conversation/*.py",),
    "registry": ("supervisor/_registry.py",),
    "agent task": ("sessions/_task.py", "supervisor/_agent.py", "supervisor/_turns.py", "supervisor/_lifetime.py"),
    "stores": ("persistence/*.py", "storage/*.py", "supervisor/_journal.py"),
    "approvals": (
        "middleware/approvals.py",
        "agent/_gate.py",
        "supervisor/_approvals.py",
        "data/decisions.py",
        "data/interrupts.py",
    ),
}

TESTS: Final = (
    "tests/unit/conversation",
    "tests/unit/data",
    "tests/unit/storage",
    "tests/unit/persistence",
    "tests/unit/supervisor",
    "tests/contracts/stores/test_memory.py",
    "tests/contracts/stores/test_sqlite.py",
    "tests/scenarios",
    "tests/hostile/test_files.py",
    "tests/hostile/test_keys.py",
    "tests/hostile/test_limits.py",
    "tests/hostile/test_secrets.py",
    "tests/hostile/test_tenants.py",
)
"""Quick tests of these modules. The long searches have planted bugs of their own."""
SLOW: Final = ("tests/search/people/test_machine.py", "tests/scenarios/test_crashes.py")
"""Asked last: each takes seconds."""


def files_of(group: str) -> tuple[Path, ...]:
    """Return the modules of a group, in order of their names within each pattern."""
    return tuple(path for pattern in GROUPS[group] for path in sorted(LIBRARY.glob(pattern)))

"""The table of feature by feature on the page about decisions: it is complete, and its tests exist."""

import itertools
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "explanation" / "decisions.md"
TABLE: Final = PAGE.read_text(encoding="utf-8").partition("## Feature by feature")[2]
FEATURES: Final = (
    "approvals",
    "questions",
    "halts",
    "sub-agents",
    "MCP",
    "budgets",
    "middleware",
    "summaries",
    "restart",
    "sleep",
    "cancel",
    "supersede",
    "deadline",
)
ROWS: Final = re.findall(r"^\| ([\w-]+) \| ([\w-]+) \| (.*?) ?\| (.+) \|$", TABLE, re.MULTILINE)[1:]


def test_table_when_its_pairs_are_counted() -> None:
    """Each pair of features has one row."""
    assert list(itertools.combinations(FEATURES, 2)) == [(first, second) for first, second, _, _ in ROWS]


def test_table_when_it_names_tests() -> None:
    """Each row has a rule, and names a test that exists, in the file that the link leads to."""
    wrong = []
    for first, second, rule, cell in ROWS:
        named = re.fullmatch(r"\[(test_\w+)\]\((.+\.py)\)", cell)
        if named is None:
            is_right = False
        else:
            path = PAGE.parent / named[2]
            is_right = rule != "" and path.is_file() and re.search(rf"def {named[1]}\(", path.read_text(encoding="utf-8")) is not None
        if not is_right:
            wrong.append((first, second, cell))

    assert [] == wrong

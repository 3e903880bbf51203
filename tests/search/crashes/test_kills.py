"""kill -9 of processes with busy conversations: what was acknowledged is there, once, and every conversation continues.

TRIO_SAGENTS_KILLS sets how many processes are killed: 300 by default, 10,000 at night. What is killed, and what is looked at afterwards, is
told in `workload`, `kills` and `oracle`.
"""

from pathlib import Path

import pytest

from tests.search.crashes.running import KILLS, in_all, run, violations

pytestmark = pytest.mark.slow

BUGS = (
    "commit_lazily",
    "halve_commits",
    "acknowledge_first",
    "run_first",
    "leave_cut",
    "hide_unknown",
    "forget_queue",
    "ask_nobody",
    "forget_decided",
)


def test_kill_nine_of_busy_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing acknowledged is lost or doubled, no tool runs twice, histories stay valid, and the next process continues."""
    arguments: list[list[str | int | Path]] = []
    for place, synchronous in enumerate(("FULL", "NORMAL")):
        folder = tmp_path / synchronous
        folder.mkdir()
        arguments.append(["--folder", folder, "--synchronous", synchronous, "--kills", KILLS // 2, "--file", place * 100_000])
    reports = run("kills", *arguments, limit=120 + 5 * KILLS)

    found = violations(reports)
    kills, acknowledged = in_all(reports, "kills"), in_all(reports, "acknowledged")
    seconds = max(report["seconds"] for report in reports)
    with capsys.disabled():
        print(
            f"\n{kills} processes killed ({in_all(reports, 'in_steps')} in the midst of a write, {in_all(reports, 'silent')} before they "
            f"acknowledged anything), {60 * kills / seconds:.0f} a minute; {acknowledged} acknowledgements, "
            f"{in_all(reports, 'turns')} turns after it; violations: {len(found)}"
        )
    assert [] == found
    assert kills == KILLS // 2 * 2
    assert in_all(reports, "silent") < kills / 2  # or it tests little
    assert acknowledged > 10 * kills
    assert in_all(reports, "turns") >= 4 * (kills - in_all(reports, "silent")) // 2


def test_kill_nine_of_migrated_files(tmp_path: Path) -> None:
    """The same holds on files that an earlier library made, as they are and when they are migrated between two lives."""
    arguments: list[list[str | int | Path]] = []
    for files in ("first", "migrated"):
        folder = tmp_path / files
        folder.mkdir()
        arguments.append(["--folder", folder, "--kills", KILLS // 5, "--files", files])
    reports = run("kills", *arguments, limit=120 + 5 * KILLS)

    assert [] == violations(reports)
    assert [0, -(-KILLS // 5 // 12)] == [report["migrated"] for report in reports]
    assert in_all(reports, "acknowledged") > KILLS


@pytest.mark.parametrize("bug", BUGS)
def test_kill_nine_finds(bug: str, tmp_path: Path) -> None:
    """A planted bug is found by some of the kills."""
    (report,) = run("kills", ["--folder", tmp_path, "--kills", 120, "--stop-at", 1, "--planted", bug])

    assert report["violations"]

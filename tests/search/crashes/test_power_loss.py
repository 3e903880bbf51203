"""Loss of power: what a disk may hold that has done what it was told to sync, and any part of the rest.

TRIO_SAGENTS_IMAGES sets how many such disks are looked at: 2,000 by default, 100,000 at night. See `power`, `images` and `disk`.
"""

import random
import sqlite3
from pathlib import Path

import pytest

from tests.search.crashes.disk import Step, watch
from tests.search.crashes.images import Committed, Recording, images, wrong_prefix
from tests.search.crashes.running import IMAGES, in_all, run, violations

pytestmark = pytest.mark.slow


def test_power_loss_with_full(capsys: pytest.CaptureFixture[str]) -> None:
    """With FULL nothing acknowledged is missing from any image, the file is whole, and the library continues from it."""
    half = IMAGES // 2
    reports = run("power", ["--images", half, "--checkpoint-pages", 20], ["--images", half, "--disk", 100_000], limit=120 + IMAGES)

    found = violations(reports)
    with capsys.disabled():
        print(
            f"\nFULL: {in_all(reports, 'images')} disks after a loss of power, in {in_all(reports, 'steps')} steps, "
            f"{in_all(reports, 'recovered')} of them recovered; {in_all(reports, 'acknowledged')} acknowledged; violations: {len(found)}"
        )
    assert [] == found
    assert (half * 2, 0, 0) == tuple(in_all(reports, name) for name in ("images", "with_loss", "most_lost"))
    assert in_all(reports, "recovered") > 0
    assert in_all(reports, "acknowledged") > 0


def test_power_loss_with_normal(capsys: pytest.CaptureFixture[str]) -> None:
    """With NORMAL the file is exactly as it was after one of its commits. Later acknowledged commits are gone."""
    half = IMAGES // 4
    reports = run(
        "power",
        ["--synchronous", "NORMAL", "--images", half, "--checkpoint-pages", 20],
        ["--synchronous", "NORMAL", "--images", half],
        limit=120 + IMAGES,
    )

    found = violations(reports)
    checkpointed, plain = reports
    with capsys.disabled():
        print(
            f"\nNORMAL: {in_all(reports, 'images')} disks after a loss of power; of {plain['images']} without a checkpoint "
            f"{plain['with_loss']} lack acknowledged messages, at most {plain['most_lost']}; with them {checkpointed['with_loss']} of "
            f"{checkpointed['images']}, at most {checkpointed['most_lost']}; violations: {len(found)}"
        )
    assert [] == found
    assert in_all(reports, "with_loss") > 0  # or nothing was at stake
    assert checkpointed["most_lost"] < plain["most_lost"]


@pytest.mark.parametrize(
    "broken",
    [
        ("--sync", "none"),
        ("--sync", "log_never"),
        ("--sync", "log_never", "--checkpoint-pages", "20"),
        ("--as-full", "--synchronous", "NORMAL"),
        ("--planted", "acknowledge_first"),
        ("--planted", "commit_lazily"),
        ("--planted", "halve_commits"),
    ],
    ids=" ".join,
)
def test_power_loss_finds(broken: tuple[str, ...]) -> None:
    """A disk that lies, NORMAL where FULL is promised, and planted bugs are found by some of the images."""
    (report,) = run("power", ["--images", 400, "--stop-at", 1, *broken])

    assert report["violations"]


# ── the recorder itself


def test_watch_sees_what_sqlite_does(tmp_path: Path) -> None:
    """Writes to the log are seen before its sync, and the sync before the commit returns. The folder is synced with the first file."""
    steps: list[Step] = []
    path = str(tmp_path / "watched.db")

    def watcher(step: Step) -> bool:
        steps.append(step)
        return True

    with watch(watcher):
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        steps.clear()
        connection.execute("CREATE TABLE one (number)")
        made = [(step.kind, step.name) for step in steps]
        folder_synced = [step.syncs_folder for step in steps if step.kind == "sync"]
        connection.close()

    assert ("open", "watched.db-wal") == made[0]
    assert {("write", "watched.db-wal"), ("sync", "watched.db-wal")} == set(made[1:])
    assert ("sync", "watched.db-wal") == made[-1]
    assert [True, False] == folder_synced
    assert [(0,)] == sqlite3.connect(path).execute("SELECT count(*) FROM one").fetchall()


def test_watch_when_the_disk_lies(tmp_path: Path) -> None:
    """A write that the watcher swallows is not done."""
    path = tmp_path / "lied.db"
    with watch(lambda step: step.kind != "write"):
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE one (number)")
        connection.close()

    assert b"" == path.read_bytes()


def _step(kind: str, name: str, place: int = 0, data: bytes = b"", *, syncs_folder: bool = False) -> Step:
    return Step(kind, name, place, data, syncs_folder=syncs_folder)  # type: ignore[arg-type]  # one of the kinds


def test_images_when_all_is_synced() -> None:
    """Everything that was synced is in every image, whole."""
    steps = [_step("open", "f-wal"), _step("write", "f-wal", 0, b"a" * 9000), _step("sync", "f-wal", syncs_folder=True)]
    recording = Recording({}, [*steps, "posted"])

    found = [image.files for image in images(recording, 200, random.Random(1)) if image.moment == len(recording.entries)]

    assert found
    assert all(files == {"f-wal": b"a" * 9000} for files in found)


def test_images_when_nothing_is_synced() -> None:
    """Anything that was not synced is there, or missing, or there in parts, in any combination; names too."""
    steps = [_step("open", "f"), _step("write", "f", 0, b"a" * 512), _step("write", "f", 512, b"b" * 1024)]
    found = {image.files.get("f") for image in images(Recording({}, [*steps]), 3000, random.Random(1)) if image.moment == 3}

    hole = bytes(512)
    a, b = b"a" * 512, b"b" * 512
    assert {None, b"", a, hole + b + b, a + b, a + hole + b, a + b + b} <= found


def test_wrong_prefix_when_a_commit_is_missing() -> None:
    """A file with a later commit of one conversation and without an earlier one of another was never there."""
    entries = [Committed("a", 1), Committed("b", 1), Committed("a", 2)]

    assert [] == wrong_prefix(entries, {}, {"a": 1, "b": 1})
    assert [] == wrong_prefix(entries, {}, {})
    assert ["b: it is at revision 0, but at 1 when the last commit was made that is there"] == wrong_prefix(entries, {}, {"a": 2})
    assert ["c: it is at revision 0, but at 5 when the last commit was made that is there"] == wrong_prefix(entries, {"c": 5}, {"a": 1})

"""Damaged conversations, by the hundred thousand: each is refused with `StateError`, or loads as a valid history; nothing else happens."""

import faulthandler
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.blobs import SEEDS, from_json, judge
from tests.attacks.fuzz import drawn, gathered, spawn

COUNT = int(os.environ.get("TRIO_SAGENTS_BLOBS", "100000"))
ROWS = int(os.environ.get("TRIO_SAGENTS_ROWS", "3000"))
CORPUS = [json.loads(line) for line in (Path(__file__).parent / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_seed_is_valid(number: int) -> None:
    """What the fuzzer damages is valid before that: a fuzzer of nonsense would find everything refused."""
    assert ("loaded", None) == judge(SEEDS[number])


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["name"].replace(" ", "_"))
def test_found_case(case: Any) -> None:
    """What was found once stays closed."""
    assert judge(from_json(case["blob"]))[1] is None


def test_fuzzed_blobs(capsys: pytest.CaptureFixture[str]) -> None:
    """Each damaged conversation is refused or valid; and decoding imports, opens, compiles, unpickles and starts nothing."""
    faulthandler.cancel_dump_traceback_later()
    report = gathered([spawn(COUNT // 2, 1), spawn(COUNT - COUNT // 2, 2)])
    with capsys.disabled():
        print(f"\n{report.line('fuzzed blobs')}")

    assert {} == report.examples
    assert [] == report.forbidden
    assert {} == report.found
    assert COUNT == report.count
    assert report.loaded > COUNT // 30  # or the oracle would look at nothing
    assert report.refused > COUNT // 3


def test_fuzzed_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """The same through a SQLite file and `start`: a refused row is left as it was, to the byte; an accepted one starts again."""
    faulthandler.cancel_dump_traceback_later()
    report = gathered([spawn(ROWS, 3, "--rows")])
    with capsys.disabled():
        print(f"\n{report.line('fuzzed rows')}")

    assert {} == report.examples
    assert [] == report.forbidden
    assert {} == report.found
    assert report.loaded > ROWS // 30
    assert report.refused > ROWS // 3


@pytest.mark.parametrize(
    ("deed", "event"),
    [
        ("import", "open"),
        ("open", "open"),
        ("exec", "compile"),
        ("pickle", "pickle.find_class"),
        ("process", "open"),
        ("hidden", "compile"),
    ],
)
def test_guard_sees(deed: str, event: str) -> None:
    """The guard is no formality: a decoder that does what none may is caught, also where it hides the error."""
    report = gathered([spawn(50, 1, "--plant", deed)])

    assert report.found[f"did {event}"] > 10
    assert report.forbidden


def test_blob_of_a_seed_is_always_the_same() -> None:
    """A violation is named by seed and number, and that is enough to have it again."""
    assert drawn(1, 17) == drawn(1, 17)
    assert 190 < len({str(drawn(1, number)) for number in range(200)})

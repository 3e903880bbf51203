"""Damaged conversations, by the hundred thousand: each is refused with `StateError`, or loads as a valid history; nothing else happens."""

import faulthandler
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.blobs import NAME, SEEDS, from_json, judge, restored
from tests.hostile.fuzz import Report, drawn, gathered, spawn
from trio_sagents.data.records import Conversation
from trio_sagents.exceptions import StateError

COUNT = int(os.environ.get("TRIO_SAGENTS_BLOBS", "100000"))
ROWS = int(os.environ.get("TRIO_SAGENTS_ROWS", "1500"))
CORPUS = [json.loads(line) for line in (Path(__file__).parent / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_seed_is_valid(number: int) -> None:
    """What the fuzzer damages is valid before that: a fuzzer of nonsense would find everything refused."""
    assert ("loaded", None) == judge(SEEDS[number])


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["name"])
def test_found_case(case: Any) -> None:
    """What was found once stays closed."""
    assert judge(from_json(case["blob"]))[1] is None


def check(report: Report) -> None:
    """See that nothing was found."""
    assert {} == report.examples
    assert [] == report.forbidden
    assert not report.found


@pytest.mark.slow
def test_fuzzed_blobs(capsys: pytest.CaptureFixture[str]) -> None:
    """Each damaged conversation is refused or valid; and decoding imports, opens, compiles, unpickles and starts nothing."""
    faulthandler.cancel_dump_traceback_later()
    report = gathered([spawn(COUNT // 2, 1), spawn(COUNT - COUNT // 2, 2)])
    with capsys.disabled():
        print(f"\n{report.line('fuzzed blobs')}")

    check(report)
    assert COUNT == report.count
    assert report.loaded > COUNT // 30  # or the oracle would look at nothing
    assert report.refused > COUNT // 3


@pytest.mark.slow
def test_fuzzed_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """The same through a SQLite file and `start`: a refused row stays unchanged to the byte, and an accepted row starts again."""
    faulthandler.cancel_dump_traceback_later()
    report = gathered([spawn(ROWS, 3, "--rows")])
    with capsys.disabled():
        print(f"\n{report.line('fuzzed rows')}")

    check(report)
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
    """The guard catches a decoder that does something forbidden, even if the decoder hides the error."""
    report = gathered([spawn(50, 1, "--plant", deed)])

    assert report.found[f"did {event}"] > 10
    assert report.forbidden


def test_blob_of_a_seed_is_always_the_same() -> None:
    """A violation is named by seed and number, and that is enough to have it again."""
    assert drawn(1, 17) == drawn(1, 17)
    assert 190 < len({str(drawn(1, number)) for number in range(200)})


def _deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


VALUES: dict[str, Any] = {
    "NaN": {"a": float("nan")},
    "infinity": {"a": float("inf")},
    "a number without end": {"a": 10**5000},
    "an object": {"a": object()},
    "bytes": {"a": b"x"},
    "a set": {"a": {1}},
    "a key that is no text": {1: "a"},
    "a key with half a character": {"\ud800": 1},
    "great depth": _deep(100_000),
    "a list of great depth": {"a": json.loads("[" * 900 + "]" * 900)},
}


@pytest.mark.parametrize("where", ["message", "queue", "metadata", "todos", "interrupt", "draft", "state"])
@pytest.mark.parametrize("what", VALUES)
def test_values_of_a_hosts_store(what: str, where: str) -> None:
    """A host's own store may give Python objects that no JSON text could: they are refused like damage."""
    value = VALUES[what]
    record = {"v": 1, "message_id": "u1", "role": "user", "parts": [{"type": "text", "text": "x"}], "metadata": value}
    state: dict[Any, Any] = {"metadata": value, "todos": [value], "interrupt": value, "draft": {**record, "role": "assistant"}}
    stored = Conversation(
        conversation_id=NAME,
        owner=None,
        epoch=1,
        revision=1,
        messages=[record] if where == "message" else [],
        queue=[record] if where == "queue" else [],
        message_ids={},
        state=value if where == "state" else {where: state[where]} if where in state else {},
    )
    with pytest.raises(StateError):
        restored(stored)

"""What a stored state says that the host's transcript may not have yet."""

from typing import Any

import attrs
import pytest

from trio_sagents.data.records import Commit, ToolUpdate
from trio_sagents.exceptions import StateError
from trio_sagents.storage import state_data
from trio_sagents.storage.state_data import UPDATES, apply_commit, empty_state_data, mark_saved, own_metadata, read_updates, still_untold

COMMIT = Commit(conversation_id="c", agent_id="a", owner=None, epoch=1, revision=1, lifecycle="on_step")


def step(call_id: str, status: Any = "executing", **more: Any) -> ToolUpdate:
    return ToolUpdate(status, {"call_id": call_id, "name": "pay", **more})


def record(message_id: str) -> dict[str, Any]:
    return {"v": 1, "message_id": message_id}


def test_apply_commit_when_steps_are_untold() -> None:
    """Untold steps stand in the stored metadata, come back as they were, and are not among the metadata of the conversation."""
    steps = [step("1", arguments={"amount": 5}), step("1", "failed", error="no")]
    commit = attrs.evolve(COMMIT, state={"metadata": {"title": "t", UPDATES: "the host's"}, "taken": {"1": []}})
    data = apply_commit(empty_state_data(), commit, frozenset(), steps)

    assert steps == read_updates("c", data)
    assert {"title": "t"} == own_metadata(data)
    assert {"title": "t"} == apply_commit(data, attrs.evolve(COMMIT, state={"taken": None}), frozenset(), ())["metadata"]


def test_apply_commit_when_a_message_is_unsaved() -> None:
    """A message keeps its mark while it moves from the queue into the history, and loses it when the transcript has it."""
    queued = apply_commit(empty_state_data(), attrs.evolve(COMMIT, queued=[record("m1"), record("m2")]), {"m1", "m2"}, ())
    moved = apply_commit(queued, attrs.evolve(COMMIT, taken=["m1"], messages=[record("m1")]), frozenset(), ())
    assert [record("m1"), record("m2")] == state_data.unsaved_records(moved)

    mark_saved(moved, "m1")
    assert [record("m2")] == state_data.unsaved_records(moved)
    assert [record("m1")] == moved["messages"]


@pytest.mark.parametrize(
    ("updates", "told", "left"),
    [
        ([], [], []),
        ([step("1"), step("2")], [], [0, 1]),
        ([step("1"), step("2")], [0], [1]),
        ([step("1"), step("1", "completed")], [1], []),
        ([step("1"), step("2"), step("1", "completed")], [2], [1]),
        ([step("1"), step("1", "completed")], [0], [1]),
        ([step("1"), step("1", "completed")], [], [0, 1]),
    ],
)
def test_still_untold_when_some_were_told(updates: Any, told: Any, left: Any) -> None:
    """What was not told stays, in order, unless a later step of the same call was told: an earlier one would undo that."""
    assert ([updates[index] for index in left], 0) == still_untold(updates, set(told))


def test_still_untold_when_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest steps are given up when the list becomes too long; the newest step is always kept."""
    monkeypatch.setattr(state_data, "MAX_UPDATES_BYTES", 150)
    updates = [step(str(number), result="x" * 40) for number in range(5)]
    assert (updates[4:], 4) == still_untold(updates, set())

    monkeypatch.setattr(state_data, "MAX_UPDATES_BYTES", 1)
    assert (updates[4:], 4) == still_untold(updates, set())


@pytest.mark.parametrize(
    "stored",
    [
        {},
        "text",
        [1],
        [{}],
        [{"status": "executing"}],
        [{"status": "done", "tool_info": {"call_id": "1"}}],
        [{"status": ["executing"], "tool_info": {"call_id": "1"}}],
        [{"status": "executing", "tool_info": []}],
        [{"status": "executing", "tool_info": {"name": "pay"}}],
        [{"status": "executing", "tool_info": {"call_id": 1}}],
        [{"status": "executing", "tool_info": {"call_id": "1"}, "more": 1}],
    ],
    ids=repr,
)
def test_read_updates_when_the_list_is_damaged(stored: Any) -> None:
    """A damaged list is a StateError that names the conversation; nothing in it is coerced or ignored."""
    with pytest.raises(StateError, match="'c'"):
        read_updates("c", {**empty_state_data(), "metadata": {UPDATES: stored}})

"""What a host's store returns is what it must return, or an error that names the class and the method."""

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from trio_sagents.data.json import MAX_DEPTH
from trio_sagents.data.records import (
    Commit,
    Conversation,
    ConversationItem,
    ConversationPage,
    DisplayMessage,
    HistoryPage,
    StoredState,
)
from trio_sagents.exceptions import PersistenceError
from trio_sagents.storage import returned

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
ROW = DisplayMessage("r1", "m1", "user", "text", {"text": "hi"}, "completed", NOW)
ITEM = ConversationItem("c", "alice", "a title", 3, NOW)
CONVERSATION = Conversation(
    conversation_id="c", owner=None, epoch=1, revision=2, messages=(), queue=[], message_ids={"m1": "digest"}, state={}
)
STATE = StoredState({"any": "thing"}, 7, 1, 2)
JUNK: tuple[Any, ...] = (None, True, 1, "text", b"bytes", {}, [], {"row_id": "r1"}, object(), ROW)


class Shop:
    """A host's store."""


def odd(value: Any, **wrong: Any) -> list[Any]:
    """Return copies of a value, each with one wrong field."""
    return [attrs.evolve(value, **{name: junk}) for name, some in wrong.items() for junk in some]


ODD_ROWS = odd(
    ROW,
    row_id=["", 1, None, "\ud800"],
    message_id=[1, None],
    role=["admin", None, ["user"]],
    content_type=[None, 1],
    content=["text", None, [1], {"at": NOW}, {1: "x"}, {"x": float("nan")}],
    status=["done", None, {}],
    created_at=[None, "2024-01-01", NOW.replace(tzinfo=None), NOW.timestamp()],
)
ODD_ITEMS = odd(
    ITEM,
    conversation_id=["", 1, None, "a\nb"],
    owner=[True, 1.5, ("a",)],
    title=[1, b"x"],
    message_count=["3", None, True],
    updated_at=[None, "2024", NOW.replace(tzinfo=None)],
)
ODD_CONVERSATIONS = odd(
    CONVERSATION,
    conversation_id=["d", None],
    owner=[True, 1.5, object()],
    epoch=["1", None, True, -1, 2**53],
    revision=["2", None, False, -1],
    messages=[None, "text", 1, {}],
    queue=[None, "text", 1, {}],
    message_ids=[None, [], {1: "digest"}, {"m1": None}],
    state=[None, [], "text"],
)
ODD_STATES = odd(STATE, owner=[True, object()], epoch=[None, "1", -1, True], revision=[None, 1.0, -1])
ODD_HISTORIES = [
    *odd(HistoryPage((ROW,), "1"), rows=[None, "rows", {}, 1, iter((ROW,)), [None], [{}]], before=[1, b"x", object()]),
    *(HistoryPage([ROW, row]) for row in ODD_ROWS),
]
ODD_LISTS = [
    *odd(ConversationPage((ITEM,), "1"), items=[None, "items", {}, 1, iter((ITEM,)), [None], [ROW]], after=[1, b"x", object()]),
    *(ConversationPage([ITEM, item]) for item in ODD_ITEMS),
]
COMMIT = Commit(conversation_id="c", agent_id="a", owner=None, epoch=1, revision=5, lifecycle="on_step")

CHECKS: dict[str, tuple[Callable[[Any], Any], list[Any], list[Any]]] = {
    "load": (lambda value: returned.checked_conversation(Shop(), "c", value), [CONVERSATION], [*JUNK, *ODD_CONVERSATIONS]),
    "commit": (lambda value: returned.checked_revision(Shop(), COMMIT, value), [5], [*JUNK, 4, 6, 5.0, "5"]),
    "history": (
        lambda value: returned.checked_history(Shop(), value),
        [HistoryPage(()), HistoryPage([ROW], "r7")],
        [*JUNK, *ODD_HISTORIES],
    ),
    "conversations": (
        lambda value: returned.checked_list(Shop(), value),
        [ConversationPage(()), ConversationPage([ITEM, attrs.evolve(ITEM, title=None, owner=1)], "c7")],
        [*JUNK, *ODD_LISTS],
    ),
    "delete": (
        lambda value: returned.checked_deletion(Shop(), value),
        [True, False],
        [value for value in JUNK if value is not True] + [0, 1],
    ),
    "get_owner": (
        lambda value: returned.checked_owner(Shop(), value),
        [None, "alice", "", 0],
        [value for value in JUNK if value is not None and value not in (1, "text")] + [True, 1.5],
    ),
    "load_state": (
        lambda value: returned.checked_state(Shop(), value),
        [None, STATE],
        [value for value in JUNK if value is not None] + ODD_STATES,
    ),
    "save_message": (
        lambda value: returned.checked_rows(Shop(), value),
        [(), (ROW, ROW)],
        [value for value in JUNK if value != []] + [iter(()), [None], ["r1"], [{}], *([ROW, row] for row in ODD_ROWS)],
    ),
    "update_tool_status": (
        lambda value: returned.checked_update(Shop(), value),
        [None, ROW],
        [value for value in JUNK if value is not None and value is not ROW] + ODD_ROWS,
    ),
}


def cases(which: int) -> Iterator[Any]:
    for method, check in CHECKS.items():
        for index, value in enumerate(check[which]):  # type: ignore[arg-type]  # a list, for 1 and 2
            yield pytest.param(method, value, id=f"{method}-{index}-{type(value).__name__}")


@pytest.mark.parametrize(("method", "value"), [*cases(1)])
def test_checks_when_the_value_is_right(method: str, value: Any) -> None:
    """A right value passes as it is."""
    assert value == CHECKS[method][0](value)


@pytest.mark.parametrize(("method", "value"), [*cases(2)])
def test_checks_when_the_value_is_wrong(method: str, value: Any) -> None:
    """A wrong value is a PersistenceError that names the class and the method, and is one line."""
    with pytest.raises(PersistenceError, match=rf"^Shop\.{method} (must return|returned|was asked)") as caught:
        CHECKS[method][0](value)

    assert len(str(caught.value)) < 300


def test_check_row_when_it_nests_as_deep_as_a_call_may() -> None:
    """A row may nest as deep as what may be stored, with the levels that the row itself adds."""
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = {"a": deep}
    row = attrs.evolve(ROW, content={"arguments": deep})

    assert row is returned.checked_update(Shop(), row)

"""Why a turn failed, as it is stored and shown."""

import math
from typing import Any

import pytest

from trio_sagents.conversation.failures import MAX_TEXT, WORDS, encode_error, error_in, lost_error, shown_error
from trio_sagents.data.errors import error_kind, is_budget
from trio_sagents.data.json import plain_json
from trio_sagents.exceptions import MODEL_FAILURE_KINDS, LimitExceeded, MiddlewareError, ModelFailed, PersistenceError, ToolNotCalled

ERRORS: list[tuple[Exception, str]] = [
    (LimitExceeded("max_rounds", 50, most=50), "limit"),
    (LimitExceeded("max_rounds", 50), "limit"),
    (LimitExceeded("budget_tokens", math.inf), "budget"),
    (ModelFailed("overloaded", kind="overloaded"), "provider"),
    (MiddlewareError("approvals", "before_model"), "middleware"),
    (ToolNotCalled(("done",)), "tool"),
    (PersistenceError("full"), "storage"),
    (RuntimeError("secret"), "crash"),
    (OSError("secret"), "crash"),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=lambda value: value if isinstance(value, str) else type(value).__name__)
def test_error_when_it_is_stored(error: Exception, kind: str) -> None:
    """Each error has one kind; what is stored is plain JSON, and comes back as an error of the same kind."""
    record = encode_error(error)
    again = error_in(plain_json(record))

    assert kind == error_kind(error) == record["kind"]
    assert record == plain_json(record)
    assert again is not None
    assert kind == error_kind(again)
    assert kind == "crash" or type(error) is type(again)
    assert "secret" not in str(record)


def test_error_when_it_says_more() -> None:
    """Limits, kinds of failures, hooks and tools come back as they were."""
    limit, failed, middleware, tool = (
        error_in(encode_error(error))
        for error in (
            LimitExceeded("max_rounds", 50, most=5),
            ModelFailed("x", kind="auth"),
            MiddlewareError("m", "h"),
            ToolNotCalled(("a",)),
        )
    )

    assert isinstance(limit, LimitExceeded)
    assert isinstance(failed, ModelFailed)
    assert isinstance(middleware, MiddlewareError)
    assert isinstance(tool, ToolNotCalled)
    assert ("max_rounds", 50, 5, "auth", "m", "h", ("a",)) == (
        limit.limit,
        limit.value,
        limit.most,
        failed.kind,
        middleware.middleware_id,
        middleware.hook,
        tool.tools,
    )


@pytest.mark.parametrize("kind", sorted(MODEL_FAILURE_KINDS))
def test_error_when_a_model_failed(kind: Any) -> None:
    """Every kind of a model's failure comes back."""
    again = error_in(encode_error(ModelFailed("x", kind=kind)))

    assert isinstance(again, ModelFailed)
    assert kind == again.kind


@pytest.mark.parametrize(
    "record",
    [
        None,
        "x",
        [],
        {},
        {"kind": "limit"},
        {"kind": "limit", "text": 5},
        {"kind": ["limit"], "text": "x"},
        {"kind": "whim", "text": "x"},
        {"kind": "limit", "text": "x"},
        {"kind": "limit", "text": "x", "detail": [5]},
        {"kind": "provider", "text": "x", "detail": ["whim"]},
        {"kind": "middleware", "text": "x", "detail": ["m"]},
        {"kind": "tool", "text": "x", "detail": [1]},
    ],
)
def test_error_when_the_record_is_damaged(record: Any) -> None:
    """A record that is damaged stands for no error; nothing is raised."""
    assert error_in(record) is None


@pytest.mark.parametrize("kind", WORDS)
def test_shown_error_when_people_read_it(kind: Any) -> None:
    """People read what kind of failure it was, and its text; for a record that is none there is nothing to read."""
    assert {"kind": kind, "text": f"{WORDS[kind]}: why"} == shown_error(lost_error(kind, "why"))
    assert shown_error({"kind": kind}) is None


def test_encode_error_when_its_text_cannot_be_stored() -> None:
    """A long text is cut, and a text that is not Unicode is stored all the same."""
    assert MAX_TEXT == len(encode_error(PersistenceError("x" * 5000))["text"])
    assert plain_json(encode_error(MiddlewareError("\ud800", "h")))


@pytest.mark.parametrize(("name", "expected"), [("budget_tokens", True), ("budget_cost", True), ("max_rounds", False)])
def test_is_budget_when_a_limit_is_named(name: str, *, expected: bool) -> None:
    """The limits of a `Budget` are told apart by their names."""
    assert expected is is_budget(LimitExceeded(name, 1))

"""Settings are checked where they are given: a bad value is refused with the name of its key and what to give instead."""

import datetime
import math
from typing import Any

import attrs
import pytest

from trio_sagents import Presence, SessionConfig, SessionOpts, SessionPolicy, TurnLimits
from trio_sagents.data.config import OF_THE_BLOCK, OVERRIDE_KEYS, choice_validator, function_validator
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import Opaque

NEWLINES = repr("\n" * 60)
ACCENTS = "e\u0301" * 30

PER_SESSION = frozenset(
    {
        "viewer_grace",
        "grace_period",
        "settle_timeout",
        "cancel_grace",
        "draft_interval",
        "queue_limit",
        "max_unattended_turns",
        "replay_events",
        "max_message_bytes",
        "max_state_bytes",
        "max_tool_output_bytes",
        "window",
        "window_bytes",
        "after_crash",
        "max_recoveries",
    }
)
"""The fields that a session can override. Each has a test of its effect, in `tests/scenarios/test_session_options.py`."""


def test_policy_when_a_field_is_new() -> None:
    """Each field of a policy can be overridden by a session, and has a test of that; or is refused, with the reason."""
    fields = {field.name for field in attrs.fields(SessionPolicy)}

    assert fields == PER_SESSION | set(OF_THE_BLOCK)
    assert PER_SESSION | {"inactivity_timeout", "message_preprocessor"} == OVERRIDE_KEYS


@pytest.mark.parametrize("key", sorted(OF_THE_BLOCK))
def test_supervisor_opts_when_they_hold_for_the_block(key: str) -> None:
    """What a session cannot override is refused; the error names the key, says why, and says where to set it."""
    with pytest.raises(ValueError, match=f"SessionOpts.supervisor_opts cannot set '{key}' for one session, because ") as caught:
        SessionOpts(supervisor_opts={key: attrs.fields_dict(SessionPolicy)[key].default})

    assert OF_THE_BLOCK[key] in str(caught.value)
    assert str(caught.value).endswith("; set it for all, in SessionConfig.policy")


async def preprocess(message: Any, scope: Any) -> Any:
    """Preprocess."""
    return message


class Preprocessor:
    """An instance of it can be called."""

    async def __call__(self, message: Any, scope: Any) -> Any:
        """Preprocess."""
        return message


@pytest.mark.parametrize("value", [preprocess, Preprocessor(), None], ids=["function", "instance", "none"])
def test_supervisor_opts_when_the_preprocessor_can_be_called(value: Any) -> None:
    """A preprocessor is a function, an instance that can be called, or None."""
    assert value is SessionOpts(supervisor_opts={"message_preprocessor": value}).supervisor_opts["message_preprocessor"]


BAD: list[tuple[str, Any, type[Exception], str]] = [
    ("queue_limit", 0, ValueError, "must be at least 1, not 0"),
    ("queue_limit", "many", TypeError, "must be an int, not 'many'"),
    ("queue_limit", True, TypeError, "must be an int, not True"),
    ("queue_limit", -math.inf, TypeError, "must be an int, not -inf"),
    ("viewer_grace", -1, ValueError, "must be >= 0 seconds, not -1"),
    ("viewer_grace", math.nan, ValueError, "must be >= 0 seconds, not nan"),
    ("viewer_grace", None, TypeError, "must be a number of seconds, not None; math.inf means never"),
    ("settle_timeout", 0, ValueError, "must be > 0 seconds, not 0"),
    ("grace_period", datetime.timedelta(1), TypeError, "must be a number of seconds, not a timedelta; use its total_seconds()"),
    ("inactivity_timeout", 0, ValueError, "must be > 0 seconds, math.inf disables it; not 0"),
    ("inactivity_timeout", {"a": "b" * 1000}, TypeError, "must be a number of seconds, not a dict"),
    ("message_preprocessor", "x", TypeError, "must be an async function, or None, not 'x'"),
    ("message_preprocessor", Preprocessor, TypeError, "must be an async function, or None, not the class Preprocessor"),
]


@pytest.mark.parametrize(("key", "value", "kind", "words"), BAD, ids=[f"{key}-{place}" for place, (key, *_) in enumerate(BAD)])
def test_supervisor_opts_when_a_value_is_bad(key: str, value: Any, kind: type[Exception], words: str) -> None:
    """A bad value is refused where it is given; the error names the key."""
    with pytest.raises(kind) as caught:
        SessionOpts(supervisor_opts={key: value})

    assert f"SessionOpts.supervisor_opts['{key}'] {words}" == str(caught.value)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ({"supervisor_opts": {"queue_limt": 1}}, "SessionOpts.supervisor_opts has no key 'queue_limt'; did you mean 'queue_limit'?"),
        ({"fresh_state_attrs": {"todo": []}}, "SessionOpts.fresh_state_attrs has no key 'todo'; did you mean 'todos'?"),
        ({"fresh_state_attrs": {7: []}}, "SessionOpts.fresh_state_attrs has no key 7; its keys are messages, metadata, todos"),
    ],
)
def test_session_opts_when_a_key_is_misspelled(opts: Any, words: str) -> None:
    """An unknown key is refused, and the known key that is most like it is suggested."""
    with pytest.raises(ValueError, match="has no key") as caught:
        SessionOpts(**opts)

    assert words == str(caught.value)


@attrs.frozen
class Choosing:
    """Has a field of each kind."""

    word: str = attrs.field(default="turn", validator=choice_validator("turn", "session"))
    function: Opaque = attrs.field(default=preprocess, validator=function_validator())


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (
            lambda: SessionPolicy(queue_limit="x" * 1000),
            TypeError,
            f"SessionPolicy.queue_limit must be an int, not '{'x' * 60}' and 940 more",
        ),
        (
            lambda: TurnLimits(turn_timeout=None),
            TypeError,
            "TurnLimits.turn_timeout must be a number of seconds, not None; math.inf means never",
        ),
        (
            lambda: Choosing(word="sesion"),
            ValueError,
            "Choosing.word must be one of 'turn', 'session', not 'sesion'; did you mean 'session'?",
        ),
        (lambda: Choosing(function={}), TypeError, "Choosing.function must be a function, not a dict"),
        (
            lambda: SessionConfig(factory_router=None, presence=Presence),
            TypeError,
            "SessionConfig.factory_router must have the method resolve(), not be None",
        ),
    ],
    ids=range(5),
)
def test_value_when_it_is_bad(make: Any, kind: type[Exception], words: str) -> None:
    """An error of a setting names it, and shows the value in few words."""
    with pytest.raises(kind) as caught:
        make()

    assert words == str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (7, "conversation_id must be a str, not 7"),
        (b"c" * 1000, f"conversation_id must be a str, not b'{'c' * 60}' and 940 more"),
        ({"id": "secret"}, "conversation_id must be a str, not a dict"),
        ("\n" * 1000, f"conversation_id must not have control characters: {NEWLINES} and 940 more"),
        ("e\u0301" * 1000, f"conversation_id must be in Unicode normal form C: '{ACCENTS}' and 1940 more"),
    ],
    ids=range(5),
)
def test_id_when_it_cannot_be_one(value: Any, words: str) -> None:
    """An id that cannot be one is shown cut: a caller of the host's may have sent anything."""
    with pytest.raises((TypeError, ValueError)) as caught:
        check_id("conversation_id", value)

    assert words == str(caught.value)

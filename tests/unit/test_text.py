"""How messages show what somebody else wrote: short, without secrets, and whatever its own methods do."""

import functools
from typing import Any

import pytest

from trio_sagents._text import MAX_REASON, did_you_mean, reason_of, shown, text_of


class Hostile(Exception):  # not an error of ours
    """Whatever it is asked for, it raises."""

    def __str__(self) -> str:
        raise ValueError("no")

    def __repr__(self) -> str:
        raise ValueError("no")


class Owner:
    """A value whose repr holds a secret."""

    def __repr__(self) -> str:
        return "Owner(password='secret')" * 1000


async def build() -> None:
    """Build."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (7, "7"),
        (0.5, "0.5"),
        ("chat.db", "'chat.db'"),
        (b"x", "b'x'"),
        ("x" * 100, f"'{'x' * 60}' and 40 more"),
        (10**5000, "an int of 16610 bits"),
        ({"a": 1}, "a dict"),
        (Owner(), "an Owner"),
        (Owner, "the class Owner"),
        (build, "the function build"),
        (Owner().__repr__, "the function __repr__"),
        (len, "the function len"),
        (functools.partial(build), "a partial function"),
        (Hostile(), "a Hostile"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "of",
)
def test_shown_when_it_is_anything(value: Any, text: str) -> None:
    """Plain values are shown cut, everything else by its type: no text grows with a value, and no foreign repr is called."""
    assert text == shown(value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("mine"), "KeyError: 'mine'"),
        (OSError(), "OSError"),
        (ValueError("a\n  b"), "ValueError: a b"),
        (Hostile(), "Hostile: (its text could not be read: ValueError)"),
        (ValueError("\ud800"), "ValueError: ?"),
        (ValueError("x" * 1000), f"ValueError: {'x' * MAX_REASON}…"),
        (ExceptionGroup("two", [ExceptionGroup("inner", [KeyError("a"), OSError()]), OSError()]), "KeyError: 'a' (and 2 more)"),
    ],
    ids=range(7),
)
def test_reason_of_when_it_is_anything(error: BaseException, text: str) -> None:
    """A reason is one line with the type and the text, cut; of a group its first error, whatever the error does."""
    assert text == reason_of(error)


def test_text_of_when_the_error_has_no_text() -> None:
    """An error whose `__str__` fails says that."""
    assert "(its text could not be read: ValueError)" == text_of(Hostile())


@pytest.mark.parametrize(("name", "hint"), [("queue_limt", "; did you mean 'queue_limit'?"), ("x", ""), (7, "")])
def test_did_you_mean_when_a_name_is_like_one(name: Any, hint: str) -> None:
    """A name that is like a known one is suggested; nothing is guessed otherwise."""
    assert hint == did_you_mean(name, ["queue_limit", "viewer_grace"])

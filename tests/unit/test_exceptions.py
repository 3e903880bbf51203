"""Errors say what failed, why, and what to do; what other people may read of them holds no words of the host's own exceptions."""

from typing import Any

import pytest

from trio_sagents.data.errors import describe, public_text
from trio_sagents.data.event_wire import error_to_dict
from trio_sagents.exceptions import Conflict, MiddlewareError, PersistenceError, RunsElsewhere, SagentsError, StartFailed

BEGINNING = "could not start the agent of conversation 'c', at stage"


def failed(stage: str, cause: BaseException | None) -> StartFailed:
    error = StartFailed("c", stage)
    error.__cause__ = cause
    return error


def caused(error: SagentsError, cause: BaseException) -> SagentsError:
    error.__cause__ = cause
    return error


class Hostile(Exception):  # not an error of ours
    """It has no text."""

    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (failed("load", None), f"{BEGINNING} 'load'"),
        (failed("route", KeyError("tier")), f"{BEGINNING} 'route' (SessionConfig.factory_router): KeyError: 'tier'"),
        (
            failed("build", Hostile()),
            f"{BEGINNING} 'build' (create_agent() of the factory): Hostile: (its text could not be read: ValueError)",
        ),
        (failed("authorize", OSError("gone")), f"{BEGINNING} 'authorize' (SessionConfig.authorizer): OSError: gone"),
        (
            failed("load", RunsElsewhere("c", 3.0)),
            (
                f"{BEGINNING} 'load' (the lease or the store): RunsElsewhere: conversation 'c' is running in another process; send the "
                "call there, or try again after its lease has ended (in 3.0 seconds, unless it is renewed)"
            ),
        ),
        (
            failed("start", caused(MiddlewareError("guard", "on_start"), ValueError("no key"))),
            (
                f"{BEGINNING} 'start' (the agent and its middleware): MiddlewareError: the middleware 'guard' failed in on_start with: "
                "ValueError: no key"
            ),
        ),
        (failed("nowhere", OSError("gone")), f"{BEGINNING} 'nowhere': OSError: gone"),
    ],
    ids=range(7),
)
def test_start_failed_when_it_is_read(error: StartFailed, text: str) -> None:
    """The text of a failed start has the stage, whose code that is, and the type and words of the cause, also of a cause's cause."""
    assert text == str(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (failed("load", None), f"{BEGINNING} 'load'"),
        (failed("load", OSError("password=x")), f"{BEGINNING} 'load': OSError"),
        (
            failed("load", caused(PersistenceError("reading failed"), OSError("password=x"))),
            f"{BEGINNING} 'load': PersistenceError: reading failed",
        ),
        (failed("load", failed("load", OSError("password=x"))), f"{BEGINNING} 'load': StartFailed: {BEGINNING} 'load': OSError"),
    ],
    ids=range(4),
)
def test_public_text_when_a_start_failed(error: StartFailed, text: str) -> None:
    """What viewers, browsers and models read of a failed start has no words of an exception that is not the library's own."""
    assert text == error.public_text == public_text(error)
    assert {"type": "StartFailed", "kind": "crash", "message": text} == error_to_dict(error)
    assert f"StartFailed: {text}" == describe(error)


@pytest.mark.parametrize(("error", "text"), [(OSError("password=x"), "internal error"), (PersistenceError("gone"), "gone")])
def test_public_text_when_it_is_another_error(error: Exception, text: str) -> None:
    """Of the library's own errors everybody may read the text, of any other nothing."""
    assert text == public_text(error)


@pytest.mark.parametrize(("found", "words"), [((2, 5), "the store has (2, 5)"), (None, "the conversation is gone")])
def test_conflict_when_it_is_read(found: Any, words: str) -> None:
    """A conflict says what the store has now, and what to do."""
    error = Conflict("c", expected=(1, 4), found=found)

    assert (
        f"another writer changed conversation 'c': this write builds on (epoch, revision) (1, 4), and {words}; "
        "start the agent again to continue from what is stored"
    ) == str(error)

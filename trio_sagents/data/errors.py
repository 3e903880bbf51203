"""Errors as text: for a model to read, and for people to see; and the kinds of errors that end a turn."""

from typing import Final, Literal, TypeAlias

from trio_sagents._text import text_of
from trio_sagents.exceptions import LimitExceeded, MiddlewareError, ModelFailed, PersistenceError, SagentsError, ToolNotCalled

TurnErrorKind: TypeAlias = Literal["limit", "budget", "provider", "middleware", "tool", "storage", "crash"]
"""Why a turn failed."""
_BUDGET: Final = "budget_"


def describe(error: BaseException) -> str:
    """Return "Type: message" for a model to read; valid Unicode, even if the error's own `__str__` fails."""
    text = error.public_text if isinstance(error, SagentsError) else text_of(error)
    return f"{type(error).__name__}: {text}"


def source_of(error: BaseException) -> str:
    """Return what failed, by its kind and name, as far as an error of the library says it; empty for any other error."""
    return error.source if isinstance(error, SagentsError) else ""


def public_text(error: BaseException) -> str:
    """Return what anybody may read of an error: the public text of ours; "internal error" for any other, which may hold secrets."""
    return error.public_text if isinstance(error, SagentsError) else "internal error"


def is_budget(error: LimitExceeded) -> bool:
    """Return whether the limit is one of a `Budget`."""
    return error.limit.startswith(_BUDGET)


def error_kind(error: BaseException) -> TurnErrorKind:
    """Return why a turn failed that ended with this error."""
    match error:
        case LimitExceeded():
            return "budget" if is_budget(error) else "limit"
        case ModelFailed():
            return "provider"
        case MiddlewareError():
            return "middleware"
        case ToolNotCalled():
            return "tool"
        case PersistenceError():
            return "storage"
        case _:
            return "crash"

"""Why a turn failed, as it is stored and shown: a closed set of kinds, and words for people.

The words are safe for everybody who may read the conversation: they contain nothing that the host's own code has raised. The record
also keeps what is needed to make an error of the same class again, if a caller asks for the outcome after a restart.
"""

import math
from collections.abc import Mapping
from typing import Final, TypeGuard, cast, get_args

from trio_sagents.data.errors import TurnErrorKind, error_kind, public_text
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.exceptions import (
    MODEL_FAILURE_KINDS,
    LimitExceeded,
    MiddlewareError,
    ModelFailed,
    ModelFailureKind,
    PersistenceError,
    ToolNotCalled,
)

WORDS: Final[Mapping[TurnErrorKind, str]] = {
    "limit": "This turn reached a limit",
    "budget": "The budget for this is used up",
    "provider": "The model could not answer",
    "middleware": "A part of the agent failed",
    "tool": "The model did not finish its task",
    "storage": "The conversation could not be stored",
    "crash": "The turn was cut off",
}
"""By kind, what people read before the text of the error."""
MAX_TEXT: Final = 500
"""Characters of the text of an error that are kept."""
_KINDS: Final = frozenset(get_args(TurnErrorKind))


def encode_error(error: BaseException) -> JSON:
    """Return an error as it is stored with its turn: {"kind", "text"}, and "detail" if it takes more to make the error again."""
    record: dict[str, JSONValue] = {"kind": error_kind(error), "text": _plain(public_text(error))[:MAX_TEXT]}
    match error:
        case LimitExceeded():
            numbers = [error.value, *(() if error.most is None else (error.most,))]
            is_json = all(math.isfinite(number) for number in numbers)
            record["detail"] = [_plain(error.limit), *(numbers if is_json else ())]
        case ModelFailed():
            record["detail"] = [error.kind]
        case MiddlewareError():
            record["detail"] = [_plain(error.middleware_id), _plain(error.hook)]
        case ToolNotCalled():
            record["detail"] = [_plain(name) for name in error.tools]
        case _:
            pass
    return record


def lost_error(kind: TurnErrorKind, text: str) -> JSON:
    """Return the record of a failure whose error nobody has any more."""
    return {"kind": kind, "text": text}


def error_in(record: JSONValue) -> Exception | None:
    """Return an error of the same kind and class as the one that a record was made of; None if it is not such a record."""
    if not _is_record(record):
        return None
    text, detail = record["text"], record.get("detail", ())
    match record["kind"], detail:
        case "limit" | "budget", [str(limit)]:
            return LimitExceeded(limit, math.inf)  # JSON has no such number
        case "limit" | "budget", [str(limit), int() | float() as value]:
            return LimitExceeded(limit, value)
        case "limit" | "budget", [str(limit), int() | float() as value, int() | float() as most]:
            return LimitExceeded(limit, value, most=most)
        case "provider", [str(kind)] if kind in MODEL_FAILURE_KINDS:
            return ModelFailed(text, kind=cast("ModelFailureKind", kind))
        case "middleware", [str(middleware_id), str(hook)]:
            return MiddlewareError(middleware_id, hook)
        case "tool", [*names] if all(isinstance(name, str) for name in names):
            return ToolNotCalled(tuple(names))
        case "storage", _:
            return PersistenceError(text)
        case "crash", _:
            return RuntimeError(text)
        case _:
            return None


def shown_error(record: JSONValue) -> JSON | None:
    """Return the content of the row that shows a failure to people: {"kind", "text"}; None if it is not such a record."""
    if not _is_record(record):
        return None
    kind: TurnErrorKind = record["kind"]
    return {"kind": kind, "text": f"{WORDS[kind]}: {record['text']}"}


def _is_record(record: JSONValue) -> TypeGuard[JSON]:
    if not isinstance(record, Mapping):
        return False
    kind, text = record.get("kind"), record.get("text")
    return isinstance(kind, str) and kind in _KINDS and isinstance(text, str)


def _plain(text: str) -> str:
    """Return a text that can be stored, for any name that a host has given."""
    return text.encode(errors="replace").decode()

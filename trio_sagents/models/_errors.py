"""What goes wrong with a provider, as `ModelFailed`. No text here ever holds a key or a header."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2

from trio_sagents.data.json import JSON
from trio_sagents.exceptions import ModelFailed

MAX_DETAIL: Final = 400
"""How much of a provider's own words goes into a message, in characters."""

_RETRYABLE_STATUS: Final = frozenset({408, 409, 425, 429})
_SERVER_ERROR: Final = 500
_FINAL_CODES: Final = frozenset({"insufficient_quota", "context_length_exceeded"})
_FINAL_TYPES: Final = frozenset(
    {"invalid_request_error", "authentication_error", "permission_error", "not_found_error", "billing_error", "request_too_large"}
)
_SECRET_NAME: Final = re.compile(r"auth|key|token|secret|cookie|password|credential", re.IGNORECASE)
_KEY_SHAPE: Final = re.compile(r"\b(?:sk|pk|rk)-[\w*.-]{6,}")
_MIN_SECRET: Final = 4


def status_failure(who: str, response: httpx2.Response, body: object) -> ModelFailed:
    """Return the error for an answer with a status other than 2xx.

    Args:
        who: names the model.
        response: its headers may say whether and when to try again.
        body: the parsed body, or its text.
    """
    kind, code, words = _detail(body)
    status = response.status_code
    retryable = (status in _RETRYABLE_STATUS or status >= _SERVER_ERROR) and code not in _FINAL_CODES
    advice = response.headers.get("x-should-retry")
    if advice in {"true", "false"}:
        retryable = advice == "true"
    text = _sentence(f"{who}: the provider answered {status}", kind or code, words)
    return ModelFailed(redacted(text, response.request), retryable=retryable, retry_after=_retry_after(response.headers))


def event_failure(who: str, body: object, request: httpx2.Request) -> ModelFailed:
    """Return the error for an error that came inside the stream of an answer that had begun."""
    kind, code, words = _detail(body)
    if code.isdecimal():
        retryable = int(code) in _RETRYABLE_STATUS or int(code) >= _SERVER_ERROR
    else:
        retryable = kind not in _FINAL_TYPES and code not in _FINAL_CODES
    text = _sentence(f"{who}: the provider broke off its answer with an error", kind or code, words)
    return ModelFailed(redacted(text, request), retryable=retryable)


def connection_failure(who: str, error: BaseException, request: httpx2.Request | None, what: str = "no connection") -> ModelFailed:
    """Return the error for a connection that could not be made, was cut, or stayed silent too long."""
    text = _sentence(f"{who}: {what}", type(error).__name__, str(error))
    return ModelFailed(redacted(text, request), retryable=True)


def answer_failure(who: str, why: str) -> ModelFailed:
    """Return the error for an answer that is no answer: cut short, or not what the protocol says."""
    return ModelFailed(f"{who}: {why}", retryable=True)


def public_cause(error: BaseException, request: httpx2.Request | None) -> BaseException | None:
    """Return `error`, to raise from; None where its text, or that of its own cause, holds a secret.

    Tracebacks print the texts of causes, and some providers repeat the key that they refuse.
    """
    return error if all(redacted(text, request) == text for text in _texts(error)) else None


def redacted(text: str, request: httpx2.Request | None) -> str:
    """Return `text` without any key, password or token that `request` carries, or that looks like a key."""
    if request is not None:
        for secret in sorted(_secrets(request), key=len, reverse=True):
            text = text.replace(secret, "[redacted]")
    return _KEY_SHAPE.sub("[redacted]", text)


def _texts(error: BaseException) -> Iterator[str]:
    seen: BaseException | None = error
    while seen is not None:
        yield str(seen)
        seen = seen.__cause__ or seen.__context__


def _secrets(request: httpx2.Request) -> Iterator[str]:
    found = [value for name, value in request.headers.items() if _SECRET_NAME.search(name)]
    found += [word for value in found for word in value.split()[1:]]
    found += [value for name, value in request.url.params.multi_items() if _SECRET_NAME.search(name)]
    found.append(request.url.password)
    return (secret for secret in found if len(secret) >= _MIN_SECRET)


def _detail(body: object) -> tuple[str, str, str]:
    """Return (type, code, message) of an error body; each may be ""."""
    if isinstance(body, str):
        words = body.strip()
        return "", "", "" if words.startswith("<") else words
    if not isinstance(body, Mapping):
        return "", "", ""
    fields: JSON = body
    inner = fields.get("error")
    if isinstance(inner, Mapping):
        fields = inner
    elif isinstance(inner, str):
        return "", "", inner
    kind, code = fields.get("type"), fields.get("code")
    words = fields.get("message") or fields.get("detail") or ""
    return (
        kind if isinstance(kind, str) else "",
        str(code) if isinstance(code, str | int) else "",
        words if isinstance(words, str) else "",
    )


def _sentence(start: str, kind: str, words: str) -> str:
    words = " ".join(words.split())
    if len(words) > MAX_DETAIL:
        words = words[:MAX_DETAIL] + "…"
    return f"{start}{f' ({kind})' if kind else ''}{f': {words}' if words else ''}"


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Return how many seconds the provider asks to wait; None where it does not say."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())

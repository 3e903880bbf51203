"""What goes wrong with a provider, as `ModelFailed` in the provider's own words. No text here ever holds a key or a header."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import attrs
import httpx2

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.exceptions import RETRYABLE_KINDS, ModelFailed, ModelFailureKind
from trio_sagents.models._failure_words import kind_of_failure
from trio_sagents.models._fields import whole_text

MAX_DETAIL: Final = 400
"""How much of a provider's own words goes into a message, in characters."""
_MAX_STATUS: Final = 599
_LEAST_STATUS: Final = 400
_SECRET_NAME: Final = re.compile(r"auth|key|token|secret|cookie|password|credential", re.IGNORECASE)
_KEY_SHAPE: Final = re.compile(
    r"\b(?:(?:sk|pk|rk|xai|csk|fw|pplx)-|(?:gsk|hf|r8|ghp|tgp|nvapi)[_-]|AIza|AKIA)[\w*.\-]{6,}|(?<=\bBearer )[\w*.\-=/+~]{6,}",
)
_MIN_SECRET: Final = 4
_WORD_KEYS: Final = ("message", "detail", "msg", "error_message", "error_msg", "error_description", "description", "reason", "title")


@attrs.frozen
class Detail:
    """What the body of an error says."""

    kind: str = ""
    """The error's type, in the provider's words."""
    code: str = ""
    words: str = ""
    retry_after: float | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status that the code or the type means; None if neither means one."""
        for text in (self.code, self.kind):
            if text.isascii() and text.isdecimal() and _LEAST_STATUS <= int(text[:9]) <= _MAX_STATUS:
                return int(text[:9])
        return None


def status_failure(who: str, response: httpx2.Response, body: object) -> ModelFailed:
    """Return the error for an answer with a status other than 2xx.

    Args:
        who: names the model.
        response: its headers may say whether and when to try again.
        body: the parsed body, or its text.
    """
    detail = read_detail(body)
    status = response.status_code
    kind = kind_of_failure(status, detail.kind, detail.code, detail.words)
    advice = response.headers.get("x-should-retry")
    retryable = advice == "true" if advice in {"true", "false"} else None
    text = _sentence(f"{who}: the provider answered {status}", detail, response.request)
    retry_after = _retry_after(response.headers)
    return ModelFailed(
        text,
        kind=kind,
        retryable=retryable,
        retry_after=detail.retry_after if retry_after is None else retry_after,
    )


def event_failure(who: str, body: object, request: httpx2.Request) -> ModelFailed:
    """Return the error for an error that came inside the stream of an answer that had begun."""
    return told_failure(f"{who}: the provider broke off its answer with an error", body, request)


def told_failure(start: str, body: object, request: httpx2.Request) -> ModelFailed:
    """Return the error for an error that came with a status of 200; `start` begins the sentence.

    An error of no known kind may be asked about again: the provider had accepted the request.
    """
    detail = read_detail(body)
    kind = kind_of_failure(detail.status, detail.kind, detail.code, detail.words)
    retryable = kind in RETRYABLE_KINDS or kind == "unknown"
    text = _sentence(start, detail, request)
    return ModelFailed(text, kind=kind, retryable=retryable, retry_after=detail.retry_after)


def connection_failure(
    who: str,
    error: BaseException,
    request: httpx2.Request | None,
    what: str = "no connection",
    kind: ModelFailureKind = "network",
) -> ModelFailed:
    """Return the error for a connection that could not be made, was cut, or stayed silent."""
    text = _sentence(f"{who}: {what}", Detail(type(error).__name__, words=str(error)), request)
    return ModelFailed(text, kind=kind)


def silence_failure(who: str, what: str) -> ModelFailed:
    """Return the error for a provider that sent no content in time."""
    return ModelFailed(f"{who}: {what}", kind="timeout")


def answer_failure(who: str, why: str, kind: ModelFailureKind = "protocol", *, retryable: bool | None = None) -> ModelFailed:
    """Return the error for an answer that is not one: cut short, or not what the protocol says."""
    return ModelFailed(f"{who}: {why}", kind=kind, retryable=retryable)


def public_cause(error: BaseException, request: httpx2.Request | None) -> BaseException | None:
    """Return `error`, to raise from; None if its text, or that of its own cause, holds a secret.

    Tracebacks print the texts of causes, and some providers repeat the key that they refuse.
    """
    return error if all(redacted(text, request) == text for text in _texts(error)) else None


def redacted(text: str, request: httpx2.Request | None) -> str:
    """Return `text` without any key, password or token that `request` carries, or that looks like a key."""
    if request is not None:
        for secret in sorted(_secrets(request), key=len, reverse=True):
            text = text.replace(secret, "[redacted]")
    return _KEY_SHAPE.sub("[redacted]", text)


def read_detail(body: object) -> Detail:
    """Return what an error's body says, whatever form the provider gives its errors; a field that is not there is empty."""
    return _read(body, 0)


def shortened(words: str) -> str:
    """Return words of a provider in one line of bounded length."""
    words = " ".join(whole_text(words).split())
    return words if len(words) <= MAX_DETAIL else words[:MAX_DETAIL] + "…"


_NESTING: Final = 4


def _read(body: object, depth: int) -> Detail:
    if isinstance(body, str):
        return _read_text(body, depth)
    if isinstance(body, Sequence) and not isinstance(body, bytes):  # Google sends a list of one
        return _read(next((item for item in body if isinstance(item, Mapping)), None), depth)
    if not isinstance(body, Mapping):
        return Detail()
    fields: JSON = body
    inner = fields.get("error") or fields.get("errors")
    if isinstance(inner, Mapping | list) and inner and depth < _NESTING:
        outer = _read_fields(fields, depth)
        found = _read(inner, depth + 1)
        return attrs.evolve(found, kind=found.kind or outer.kind, code=found.code or outer.code, words=found.words or outer.words)
    if isinstance(inner, str):
        return _merged(_read_fields(fields, depth), Detail(words=inner))
    found = _read_fields(fields, depth)
    return found if found.words or not fields else attrs.evolve(found, words=_json_text(fields))


def _read_text(text: str, depth: int) -> Detail:
    words = text.strip()
    if words[:1] in {"{", "["} and depth < _NESTING:
        try:
            return _read(json.loads(words), depth + 1)
        except (ValueError, RecursionError):
            pass
    return Detail(words="" if words.startswith("<") else words)


def _merged(fields: Detail, inner: Detail) -> Detail:
    words = inner.words if fields.words in {"", inner.words} else f"{inner.words}: {fields.words}"
    return attrs.evolve(fields, words=words)


def _read_fields(fields: JSON, depth: int) -> Detail:
    words = next((words for key in _WORD_KEYS if (words := _words_of(fields.get(key), depth))), "")
    metadata = fields.get("metadata")
    if isinstance(metadata, Mapping):  # OpenRouter: the words of the provider behind it
        raw = _words_of(metadata.get("raw"), depth)
        words = f"{words}: {raw}" if raw and raw not in words else words
    kind = next((value for key in ("type", "status") if isinstance(value := fields.get(key), str) and value != "error"), "")
    code = next((value for key in ("code", "status") if isinstance(value := fields.get(key), str | int)), "")
    return Detail(whole_text(kind), whole_text(str(code)), words, _retry_delay(fields.get("details")))


def _words_of(value: JSONValue, depth: int) -> str:
    if isinstance(value, str):
        return _read_text(value, depth).words
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):  # FastAPI: one entry for each field
        entries = [_read_fields(item, depth).words if depth < _NESTING else "" for item in value]
        return "; ".join(entry for entry in entries if entry)
    return _read(value, depth + 1).words if isinstance(value, Mapping) and depth < _NESTING else ""


def _retry_delay(details: JSONValue) -> float | None:
    """Return the seconds to wait that Google's `RetryInfo` names; None if there is none."""
    for item in details if isinstance(details, list) else ():
        delay = item.get("retryDelay") if isinstance(item, Mapping) else None
        if isinstance(delay, str) and (match := re.fullmatch(r"(\d{1,6}(?:\.\d{1,9})?)s", delay)):
            return float(match[1])
    return None


def _json_text(fields: JSON) -> str:
    try:
        return json.dumps(fields, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return ""


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


def _sentence(start: str, detail: Detail, request: httpx2.Request | None) -> str:
    # Secrets go first: a cut through a key would leave half of it, which nothing recognises.
    kind, words = (shortened(redacted(text, request)) for text in (detail.kind or detail.code, detail.words))
    return redacted(f"{start}{f' ({kind})' if kind else ''}{f': {words}' if words else ''}", request)


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Return how many seconds the provider asks to wait; None if it does not say."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):  # the latter for a year or a zone with too many digits
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())

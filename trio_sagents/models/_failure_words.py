"""Which words of which provider mean which kind of failure: one table, in the order in which it is asked.

A provider's words count more than its status: a prompt that is too long comes with 400, 413, 422, 429 or 500, depending on whom you
ask. Each pattern has a test with the words of the providers that use it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from trio_sagents.exceptions import ModelFailureKind

_PATTERNS: Final[tuple[tuple[ModelFailureKind, str], ...]] = (
    # What is asked for first wins: "the image is too large" is about an image, "the request is too large" about the whole context.
    ("refused_content", r"\bimage\b.{0,60}\b(exceeds?|too large|too big|dimensions?|pixels)\b"),
    ("refused_content", r"\b(exceeds?|too large|too big|too many)\b.{0,40}\b(images?|pages|pdf)\b"),
    ("context_overflow", r"context[\s_-]*(length|window|size|limit)[\s_-]*(was |is |has been )?(exceeded|exceeds|overflow)"),
    ("context_overflow", r"exceed\w*[\s_](\S+\s){0,5}?context([\s_-](length|window|size|limit))?\b"),
    ("context_overflow", r"exceed_?context_?size|contextwindowexceeded|context overflow|mid-generation context"),
    ("context_overflow", r"maximum (context|prompt|model|input) (length|size)\b|max(imum)? model length"),
    ("context_overflow", r"(longer|larger|bigger|more) than (\S+\s){0,4}?(context|model length)"),
    ("context_overflow", r"\b(prompt|input|messages?|conversation)\b.{0,40}\btoo (long|large|many tokens)\b"),
    ("context_overflow", r"too (long|large) for (\S+\s){0,3}?model|too many (input |prompt )?tokens"),
    ("context_overflow", r"input (token count|tokens|length).{0,60}\b(exceeds?|exceeded|only supports|must be less)\b"),
    ("context_overflow", r"prompt token count.{0,40}exceeds|prompt exceeds|tokens exceed the configured limit"),
    ("context_overflow", r"exceeded model token limit|token limit exceeded|tokens_limit_reached|model_max_prompt_tokens"),
    ("context_overflow", r"`?inputs`? (tokens )?(must have less than|\+ `?max_new_tokens`? must be)"),
    ("context_overflow", r"reduce (the )?(length|size) of (the |your )?(messages|prompt|input|request)|decrease input length"),
    ("context_overflow", r"range of input length should be|requested token count exceeds|keep the first \d+ tokens"),
    ("context_overflow", r"tokens to keep .{0,60}greater than the context"),
    ("context_overflow", r"exceeds? max_?(seq|sequence|input|prompt)_?len(gth)?\b"),
    ("context_overflow", r"(prompt|输入|上下文|内容|文本)\S{0,8}\s?(超长|过长|超出|超过)|(超出|超过).{0,12}(长度|上下文|token)"),
    ("context_overflow", r"request (body )?(is )?too large|request_too_large|request entity too large|payload too large"),
    ("context_overflow", r"request exceeds the maximum (allowed )?(size|number of bytes)|string_above_max_length|string too long"),
    ("auth", r"(invalid|incorrect|missing|expired|unauthori[sz]ed|no|wrong)[\s_](\S+\s)?api[\s_-]?key"),
    ("auth", r"api[\s_-]?key[\s_](is |was |provided is )?(not valid|invalid|missing|expired|incorrect|not found)"),
    ("auth", r"authentication_error|permission_error|permission_denied|invalid_api_key|unauthenticated|no auth credentials"),
    ("auth", r"not authenticated|authentication (failed|required|is required)|\bunauthori[sz]ed\b|login fail|access denied"),
    ("auth", r"(invalid|expired|missing) (access |auth\w* |bearer )?token\b"),
    ("quota", r"insufficient[\s_](quota|balance|credits?|funds)|credit balance is too low|billing_(error|hard_limit|not_active)"),
    ("quota", r"(requires|purchase|add) more credits|exceeded_current_quota|out of credits|spend(ing)? limit"),
    ("refused_content", r"content[\s_-]?(filter|policy|management|moderation)|data_inspection_failed|moderation_blocked"),
    ("refused_content", r"\bflagged\b|inappropriate content|content exists risk|sensitive_words|prohibited_content|\bunsafe\b"),
    ("refused_content", r"blocked by (the |our |a )?(\S+\s)?(filter|safety|policy|guardrail)|safety (system|settings|policy|filter)"),
    ("refused_content", r"usage polic|violat\w* (\S+\s){0,3}?polic|invalid_prompt"),
    (
        "refused_content",
        r"(could not|cannot|unable to|failed to|error while) (process|download|fetch|read|decode)\w* .{0,40}(image|file|pdf|url|http)",
    ),
    ("refused_content", r"\b(image|picture|pdf|file|document)\b.{0,60}\b(cannot|could not|not valid|invalid|unsupported|corrupt\w*)\b"),
    ("refused_content", r"(invalid|unsupported|corrupt\w*|bad)[\s_](\S+[\s_])?(image|pdf|file|document|media|base64)"),
    ("refused_content", r"(image|vision|file|pdf|document|audio|multimodal)\S*( input)?s? (is|are) not (supported|allowed|enabled)"),
    ("refused_content", r"(not|n't) support (\S+\s){0,2}?(image|vision|file|pdf|audio)|support image input|not a multimodal model"),
    ("refused_content", r"missing data required for image|does not match the provided media type|unknown variant `?image_url"),
    ("overloaded", r"overloaded|over capacity|at capacity|no capacity|server is busy|system is busy|engine_overloaded"),
    ("overloaded", r"insufficient_system_resource|model is (currently )?loading|loading model|unavailable_error|try again later"),
    ("overloaded", r"(currently|temporarily) unavailable|service unavailable"),
    ("rate_limited", r"rate[\s_-]?limit|too many requests|resource_exhausted|tokens per min|requests per min|throttl"),
    ("timeout", r"timeout_error|deadline[\s_]exceeded|timed out|gateway time-?out"),
    ("network", r"network_error|connection (reset|refused|error|closed)|upstream connect error"),
    ("server_error", r"\bapi_error|server_?error|internal[\s_](server[\s_])?error|out of memory|upstream error|provider returned error"),
    ("invalid_request", r"invalid_request|bad_?request|not_found|invalid_argument|validation_?error|unprocessable|does not exist"),
)
_COMPILED: Final = tuple((kind, re.compile(pattern, re.IGNORECASE | re.DOTALL)) for kind, pattern in _PATTERNS)

_STATUS_KINDS: Final[Mapping[int, ModelFailureKind]] = {
    401: "auth",
    402: "quota",
    403: "auth",
    408: "timeout",
    409: "server_error",
    413: "context_overflow",
    425: "server_error",
    429: "rate_limited",
    498: "overloaded",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_LEAST_ERROR: Final = 400
_LEAST_SERVER_ERROR: Final = 500

_STRONG: Final = frozenset({"context_overflow", "auth", "quota", "refused_content"})
"""Kinds for which a provider's words count more than its status."""

_FOR_THE_MOMENT: Final = frozenset({"server_error", "network", "timeout"})


def kind_of_failure(status: int | None, kind: str, code: str, words: str) -> ModelFailureKind:
    """Return what a provider's error means.

    Args:
        status: of the HTTP response, or a number in the error that stands for one; None if there is neither.
        kind: the error's type, in the provider's own words; may be empty.
        code: the error's code; may be empty.
        words: the error's message; may be empty.
    """
    named = tuple(_kinds_in(f"{kind} {code}"))
    told = tuple(_kinds_in(words))
    for found in (*named, *told):
        if found in _STRONG and (found != "refused_content" or _is_about_content(status, words)):
            return found
    by_status = _kind_of_status(status)
    if by_status is not None and by_status != "invalid_request":
        return by_status
    for found in named:
        # A type may say more than "400"; but what is refused with 400 will be refused again.
        if by_status is None or found not in _FOR_THE_MOMENT:
            return found
    if by_status is not None:
        return by_status
    return told[0] if told else "unknown"


def _kinds_in(text: str) -> Iterator[ModelFailureKind]:
    return (kind for kind, pattern in _COMPILED if pattern.search(text))  # pyright: ignore[reportReturnType]


def _is_about_content(status: int | None, words: str) -> bool:
    """Return whether a refusal of content is meant.

    "500: could not decode the image" may be a fault of the moment, while "500: image input is not supported" will be said again.
    """
    return status is None or _LEAST_ERROR <= status < _LEAST_SERVER_ERROR or "support" in words


def _kind_of_status(status: int | None) -> ModelFailureKind | None:
    if status is None or status < _LEAST_ERROR:
        return None
    if status in _STATUS_KINDS:
        return _STATUS_KINDS[status]
    return "server_error" if status >= _LEAST_SERVER_ERROR else "invalid_request"

"""Histories as Hypothesis makes them, and what each provider says to a body: a strict checker instead of its 400s."""

import json
import re
import string
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.support.providers.adapter import without_marks
from trio_sagents.data.messages import FilePart, ImagePart, Message, OpaquePart, Part, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.requests import ToolSpec

_WORDS = st.text(st.sampled_from(string.ascii_letters + " \nä🌍"), min_size=1, max_size=12)
_BLANKS = st.sampled_from(["", " ", "\n\t", "\u3000"])
_SAID = _WORDS.filter(lambda text: bool(text.strip()))
_ANYTHING = st.text(max_size=12) | _BLANKS
_ARGUMENTS = st.dictionaries(_WORDS, st.none() | st.integers() | _WORDS | st.lists(st.booleans(), max_size=2), max_size=2)
_NAMES = st.sampled_from(["find", "write_file", "no-op"])
_FINAL_STATUS: st.SearchStrategy[Any] = st.sampled_from(["completed", "failed", "cancelled", "unknown"])
_CUTS = st.sampled_from(["cancelled", "stream_error", "crashed"])
_IMAGES = st.builds(ImagePart, st.sampled_from(["image/png", "image/tiff"]), data=st.sampled_from(["AAAA", None])) | st.just(
    ImagePart("image/png", url="https://example.org/a.png"),
)
_FILES = st.builds(
    FilePart,
    _ANYTHING,
    st.sampled_from(["text/plain", "application/pdf", "application/zip"]),
    st.sampled_from(["SGFsbG8=", "", "not base64", "/w=="]),
)
ME, OTHER = "me", "other"
"""The provider that is asked, and one whose parts it must not get."""
SECRET = "only-other-reads-this"
_FOREIGN = OpaquePart(OTHER, {"type": "sealed", "reasoning_details": [SECRET], "data": SECRET})
_THINKING = st.builds(ThinkingPart, _WORDS, st.none() | st.just("sig"), st.none() | st.just(ME)) | st.sampled_from(
    [_FOREIGN, ThinkingPart(SECRET, "sig", OTHER, "reasoning_content")]
)
_ATTACHED = st.none() | st.just(_FOREIGN)
_MEDIA = st.lists(_IMAGES.filter(lambda image: bool(image.data or image.url)) | _FILES, max_size=2)


def tool_specs() -> st.SearchStrategy[list[ToolSpec]]:
    """Tools offered, maybe none."""
    return st.lists(st.builds(ToolSpec, _NAMES, _WORDS, st.just({})), max_size=2, unique_by=lambda spec: spec.name)


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Histories as the library keeps them: every call answered once, in any order; every turn ended, but maybe the last."""
    messages: list[Message] = []
    serial = iter(range(10_000))

    def add(role: Any, parts: Sequence[Part], stop_reason: Any = None) -> None:
        messages.append(Message(f"m-{next(serial)}", role, tuple(parts), stop_reason))

    for _ in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.integers(1, 2))):
            add("user", [TextPart(draw(_SAID)), *draw(st.lists(st.builds(TextPart, _WORDS) | _IMAGES, max_size=2))])
        for _ in range(draw(st.integers(0, 2))):
            calls = [
                ToolCall(f"call_{next(serial)}", draw(_NAMES), draw(_ARGUMENTS), opaque=draw(_ATTACHED))
                for _ in range(draw(st.integers(1, 3)))
            ]
            spoken: list[Part] = draw(st.lists(_THINKING | st.builds(TextPart, _WORDS), max_size=2))
            add("assistant", draw(st.permutations([*spoken, *calls])), "tool_calls")
            for call in draw(st.permutations(calls)):
                add("tool", [ToolResult(call.call_id, call.name, draw(_SAID), draw(_FINAL_STATUS), draw(_MEDIA))])
        last: list[Part] = draw(st.lists(_THINKING | st.builds(TextPart, _WORDS), max_size=2))
        add("assistant", last, draw(_CUTS | st.just("stop")))
    if draw(st.booleans()):
        messages.pop()
    return messages


def wild_histories() -> st.SearchStrategy[list[Message]]:
    """Any messages in any order, with ids and names of calls that are odd, doubled and left open."""
    ids = st.sampled_from(["a", "b", "functions.f:0", "", "x" * 70, "call_é"])
    names = _NAMES | st.sampled_from(["", "a b", "ünknown", "n" * 80])
    part: st.SearchStrategy[Part] = st.one_of(
        st.builds(TextPart, _ANYTHING),
        st.builds(ThinkingPart, _ANYTHING, st.sampled_from([None, "", "sig", "redacted_thinking:x"]), st.sampled_from([None, ME, OTHER])),
        st.just(_FOREIGN),
        _IMAGES,
        _FILES,
        st.builds(ToolCall, ids, names, _ARGUMENTS, opaque=_ATTACHED),
        st.builds(ToolResult, ids, names, _ANYTHING, _FINAL_STATUS, _MEDIA.map(tuple)),
    )
    message = st.builds(
        Message,
        st.just("m"),
        st.sampled_from(["user", "assistant", "tool", "system"]),
        st.lists(part, max_size=4),
        st.none() | _CUTS,
    )
    return st.lists(message, max_size=10)


def spoken_texts(history: Sequence[Message]) -> list[str]:
    """Return every text that is not blank, in order, with a word for each image that providers do not take."""
    found: list[str] = []
    for message in history:
        for part in message.parts:
            if isinstance(part, TextPart) and part.text.strip():
                found.append(part.text)
            elif isinstance(part, ImagePart) and not part.url and (part.data is None or part.media_type != "image/png"):
                found.append(f"[An image of type {part.media_type!r} stood here; it cannot be shown to you.]")
    return found


_ANTHROPIC_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_anthropic(body: Any) -> None:
    """Fail where Anthropic's Messages API would answer 400."""
    json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    assert _count_marks(body) <= 4, "the API takes four cache points"
    body = without_marks(body)
    messages = body["messages"]
    assert [("user", "assistant")[place % 2] for place in range(len(messages))] == [message["role"] for message in messages]
    assert messages[-1]["role"] == "user"
    system = body.get("system", "none")
    assert "".join(block["text"] for block in system).strip() if isinstance(system, list) else system.strip()
    due: list[str] = []
    used: set[str] = set()
    for message in messages:
        blocks = message["content"]
        assert isinstance(blocks, list)
        assert blocks
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert due == results
        assert results == [block.get("tool_use_id") for block in blocks[: len(results)]], "results stand first"
        for block in blocks:
            _check_anthropic_block(block, message["role"])
        due = [block["id"] for block in blocks if block["type"] == "tool_use"]
        assert len(used | set(due)) == len(used) + len(due), "ids are unique"
        used.update(due)
        if message["role"] == "assistant":
            assert blocks[-1]["type"] not in {"thinking", "redacted_thinking"}
    assert not due
    assert not used or body["tools"], "a history with calls needs tools"


def _count_marks(value: Any) -> int:
    """Return how many cache points a body has; none of them on thinking, or on nothing."""
    if isinstance(value, list):
        return sum(_count_marks(item) for item in value)
    if not isinstance(value, dict):
        return 0
    if "cache_control" in value:
        assert value.get("type") not in {"thinking", "redacted_thinking"}
        assert value["cache_control"]["type"] == "ephemeral"
    return ("cache_control" in value) + sum(_count_marks(item) for item in value.values())


def _check_anthropic_block(block: Any, role: str) -> None:
    allowed = {"text", "image", "document", "tool_result"} if role == "user" else {"text", "thinking", "redacted_thinking", "tool_use"}
    assert block["type"] in allowed
    match block:
        case {"type": "text", "text": str(text)}:
            assert text.strip()
            assert len(block) == 2
        case {"type": "thinking", "thinking": str(), "signature": str(signature)}:
            assert signature
            assert len(block) == 3
        case {"type": "redacted_thinking", "data": str(data)}:
            assert data
            assert len(block) == 2
        case {"type": "tool_use", "id": str(call_id), "name": str(name), "input": dict()}:
            assert _ANTHROPIC_ID.fullmatch(call_id)
            assert _NAME.fullmatch(name)
            assert len(block) == 4
        case {"type": "tool_result", "tool_use_id": str(), "content": str(content), "is_error": bool()}:
            assert content.strip()
            assert len(block) == 4
        case {"type": "tool_result", "tool_use_id": str(), "content": [{"type": "text"}, *_] as parts, "is_error": bool()}:
            assert len(block) == 4
            for part in parts:
                assert part["type"] in {"text", "image", "document"}
                _check_anthropic_block(part, "user")
        case {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": str(data)}}:
            assert data
            assert media_type in {"image/png", "image/jpeg", "image/gif", "image/webp"}
            assert len(block) == 2
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            assert url
            assert len(block) == 2
        case {"type": "document", "source": {"type": "base64" | "text", "media_type": str(), "data": str(data)}}:
            assert data.strip()
            assert set(block) <= {"type", "source", "title"}
        case _:
            raise AssertionError(f"no such block: {block!r}")


def check_openai(body: Any) -> None:
    """Fail where the chat completions API, or a local server's template that wants strict alternation, would refuse."""
    json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    messages = list(body["messages"])
    if messages[0]["role"] == "system":
        assert messages.pop(0)["content"].strip()
    assert messages[0]["role"] == "user"
    assert messages[-1]["role"] in {"user", "tool"}
    due: list[str] = []
    used: set[str] = set()
    before = "start"
    for message in messages:
        role = message["role"]
        assert (role == "tool") == bool(due), "results follow their calls, and nothing else comes between"
        assert role != "user" or before != "user", "people and models take turns"
        assert role != "assistant" or before != "assistant", "people and models take turns"
        if role == "tool":
            assert {"role": "tool", "tool_call_id": due.pop(0), "content": message["content"]} == message
            assert message["content"].strip()
        else:
            due = _check_openai_message(message)
            assert len(used | set(due)) == len(used) + len(due), "ids are unique"
            used.update(due)
        before = role
    assert not due


def _check_openai_message(message: Any) -> list[str]:
    """Return the ids of the calls in it."""
    match message:
        case {"role": "user", "content": str(text), **rest}:
            assert text.strip()
            assert not rest
        case {"role": "user", "content": [*parts], **rest}:
            assert parts
            assert not rest
            for part in parts:
                _check_openai_part(part)
        case {"role": "assistant", "content": str() | None as text, "tool_calls": [_, *_] as calls, **rest}:
            assert text is None or text.strip()
            assert not rest
            for call in calls:
                assert call["type"] == "function"
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
                assert _NAME.fullmatch(call["function"]["name"])
                assert 0 < len(call["id"]) <= 40
            return [call["id"] for call in calls]
        case {"role": "assistant", "content": str(text), **rest}:
            assert text.strip()
            assert not rest
        case _:
            raise AssertionError(f"no such message: {message!r}")
    return []


def _check_openai_part(part: Any) -> None:
    match part:
        case {"type": "text", "text": str(text)}:
            assert text.strip()
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            assert url.startswith(("https://", "data:image/png;base64,"))
        case {"type": "file", "file": {"filename": str(name), "file_data": str(data)}}:
            assert name
            assert data.startswith("data:application/pdf;base64,")
        case _:
            raise AssertionError(f"no such part: {part!r}")

"""Fields that only the server understands: put together from pieces, and written back as they came."""

from typing import Any

import pytest

from trio_sagents.data.messages import Message, OpaquePart, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.requests import ModelRequest
from trio_sagents.models._dialects import DIALECTS
from trio_sagents.models._openai_extras import Extras
from trio_sagents.models._openai_request import Speech, openai_body


def joined(*deltas: dict[str, Any]) -> dict[str, Any]:
    """Return what the pieces come to."""
    extras = Extras()
    for delta in deltas:
        extras.add(delta)
    return extras.fields


def details(*items: dict[str, Any]) -> dict[str, Any]:
    """Return a piece with these reasoning details."""
    return {"reasoning_details": list(items)}


@pytest.mark.parametrize(
    ("deltas", "fields"),
    [
        ([{"content": "x", "role": "assistant", "reasoning": "y", "annotations": [1], "name": "n"}], {}),
        ([{"x": None, "y": "", "z": [], "w": {}}], {}),
        ([details({"type": "reasoning.encrypted", "data": "S", "id": "r1", "index": 0})], None),
        (
            [details({"type": "t", "text": "ha", "index": 0}), details({"type": "t", "text": "ha", "index": 0})],
            details({"type": "t", "text": "haha", "index": 0}),
        ),
        (
            [details({"type": "t", "text": "a", "index": 0}), details({"type": "t", "signature": "S", "index": 0, "format": "v1"})],
            details({"type": "t", "text": "a", "signature": "S", "index": 0, "format": "v1"}),
        ),
        (
            [details({"type": "t", "text": "a", "signature": "S"}), details({"type": "t", "text": "b"})],
            details({"type": "t", "text": "a", "signature": "S"}, {"type": "t", "text": "b"}),
        ),
        (
            [details({"type": "t", "text": "a", "index": 0}), details({"type": "t", "text": "b", "index": 1})],
            details({"type": "t", "text": "a", "index": 0}, {"type": "t", "text": "b", "index": 1}),
        ),
        (
            [
                {"thinking_blocks": [{"type": "thinking", "thinking": "a", "signature": ""}]},
                {"thinking_blocks": [{"type": "thinking", "thinking": "b", "signature": "S"}]},
            ],
            {"thinking_blocks": [{"type": "thinking", "thinking": "ab", "signature": "S"}]},
        ),
        ([{"seal": "S"}, {"seal": "S"}], {"seal": "S"}),
        ([{"seal": "S"}, {"seal": "T"}], {"seal": "ST"}),
        ([{"seal": {"a": "1", "n": 1}}, {"seal": {"b": None, "n": 2}}], {"seal": {"a": "1", "n": 2}}),
        ([{"seal": [1]}, {"seal": [2]}], {"seal": [1, 2]}),
        ([{"seal": 1}, {"seal": "x"}], {"seal": "x"}),
    ],
)
def test_fields_in_pieces(deltas: list[dict[str, Any]], fields: dict[str, Any] | None) -> None:
    """What comes at once is kept as it is; neighbouring pieces of one object are that object."""
    assert (deltas[0] if fields is None else fields) == joined(*deltas)


def sent(*parts: Any, dialect: str = "compatible", is_present: bool = True) -> Any:
    """Return the assistant message of a request that goes to the server "me"."""
    history = [Message("1", "user", (TextPart("Go"),)), Message("2", "assistant", parts, "tool_calls")]
    history += [Message(f"r{part.call_id}", "tool", (ToolResult(part.call_id, "f", "1"),)) for part in parts if isinstance(part, ToolCall)]
    if not is_present:
        history += [Message("3", "assistant", (TextPart("Done"),), "stop"), Message("4", "user", (TextPart("And?"),))]
    return openai_body("m", ModelRequest("", history), {}, Speech(DIALECTS[dialect], "me"))["messages"][1]


CALL = ToolCall("a", "f", opaque=OpaquePart("me", {"extra_content": {"s": 1}, "odd": 2, "id": "x", "function": {"name": "evil", "sig": 3}}))


def test_fields_when_they_go_back() -> None:
    """They stand where they stood, and replace nothing that is known by name."""
    message = sent(OpaquePart("me", {"later": [1], "role": "user", "content": "evil"}), TextPart("Hm"), CALL)

    assert {
        "role": "assistant",
        "content": "Hm",
        "later": [1],
        "tool_calls": [
            {
                "extra_content": {"s": 1},
                "odd": 2,
                "id": "a",
                "type": "function",
                "function": {"sig": 3, "name": "f", "arguments": "{}"},
            }
        ],
    } == message


def test_fields_when_the_server_is_strict() -> None:
    """A server that refuses fields that it does not know gets back only those that are known."""
    message = sent(OpaquePart("me", {"later": [1], "extra_content": 5}), CALL, dialect="openai")

    assert [5, False] == [message["extra_content"], "later" in message]
    assert {"extra_content", "id", "type", "function"} == set(message["tool_calls"][0])
    assert {"name", "arguments"} == set(message["tool_calls"][0]["function"])


def test_thinking_when_it_goes_back() -> None:
    """Thinking goes back in the field that it came in, byte for byte, to its own server, until a person speaks again."""
    first, second = (ThinkingPart(text, None, "me", "reasoning_content") for text in (" Hm\n", "so "))
    parts = (first, TextPart("x"), second, CALL)
    other = (ThinkingPart("Hm", None, "you", "reasoning_content"), ThinkingPart("Hm", "sig"), CALL)

    assert " Hm\nso " == sent(*parts)["reasoning_content"]
    assert [False, False] == ["reasoning_content" in sent(*other), "reasoning_content" in sent(*parts, is_present=False)]


def test_thinking_when_its_details_go_back() -> None:
    """The details hold the same thoughts, so these go back once."""
    message = sent(ThinkingPart("Hm", None, "me", "reasoning"), OpaquePart("me", details({"type": "t", "text": "Hm"})), CALL)

    assert [True, False] == ["reasoning_details" in message, "reasoning" in message]


def test_thinking_when_it_stood_in_the_content() -> None:
    """Mistral's thinking goes back among the text; later the text stands alone."""
    parts = (ThinkingPart("Hm", None, "me", "content"), TextPart("I look."), CALL)
    blocks = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": "I look."}]

    assert [blocks, "I look."] == [sent(*parts)["content"], sent(*parts, is_present=False)["content"]]

"""Any history becomes a valid body of the Messages API."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given

from tests.support.providers.adapter import KEY, ask, chunks_of, without_marks
from tests.support.providers.histories import ME, SECRET, check_anthropic, histories, spoken_texts, tool_specs, wild_histories
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import FilePart, ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.requests import ModelRequest, ToolSpec
from trio_sagents.models import AnthropicModel
from trio_sagents.models._anthropic_request import anthropic_body
from trio_sagents.testing.providers import (
    anthropic_reply,
    open_provider,
    text,
)


def messages_of(*history: Message, settings: JSON | None = None, tools: tuple[ToolSpec, ...] = ()) -> Any:
    """Return the messages that go out for a history, after a strict check of the whole body."""
    return body_of(*history, settings=settings, tools=tools)["messages"]


def body_of(*history: Message, settings: JSON | None = None, tools: tuple[ToolSpec, ...] = (), system: str = "") -> Any:
    """Return the body that goes out for a history, strictly checked."""
    body = json.loads(json.dumps(anthropic_body("claude", ModelRequest(system, history, tools), 100, settings or {})))
    check_anthropic(body)
    return body


def said(message_id: str, words: str) -> Message:
    """Return a user message."""
    return Message(message_id, "user", (TextPart(words),))


def result(message_id: str, call_id: str, content: str, status: Any = "completed") -> Message:
    """Return a tool message."""
    return Message(message_id, "tool", (ToolResult(call_id, "f", content, status),))


def test_results_go_in_one_message_by_order_of_calls() -> None:
    """Parallel results, stored as they completed, stand in one user message in the order of their calls, before new words."""
    calls = (ToolCall("a", "f", {"n": 1}), ToolCall("b", "f"), ToolCall("c", "f"))
    messages = messages_of(
        said("1", "Go"),
        Message("2", "assistant", (TextPart("I go."), *calls), "tool_calls"),
        result("3", "c", "third"),
        result("4", "a", "", "failed"),
        result("5", "b", "second", "unknown"),
        said("6", "Faster"),
    )

    assert messages == [
        {"role": "user", "content": [{"type": "text", "text": "Go"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I go."},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"n": 1}},
                {"type": "tool_use", "id": "b", "name": "f", "input": {}},
                {"type": "tool_use", "id": "c", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "(no output)", "is_error": True},
                {"type": "tool_result", "tool_use_id": "b", "content": "second", "is_error": True},
                {"type": "tool_result", "tool_use_id": "c", "content": "third", "is_error": False},
                {"type": "text", "text": "Faster"},
            ],
        },
    ]


def test_cut_answers_send_what_they_said() -> None:
    """The text of a cut answer goes out, an empty cut answer is left out, and neighbours are merged."""
    messages = messages_of(
        said("1", "Go"),
        Message("2", "assistant", (TextPart("I was"),), "cancelled"),
        said("3", "Again"),
        Message("4", "assistant", (), "crashed"),
        said("5", "And again"),
        Message("6", "assistant", (ThinkingPart("Hm", "sig"), TextPart(" \n")), "stream_error"),
        said("7", "Well?"),
    )

    assert [(message["role"], [block["text"] for block in message["content"]]) for message in messages] == [
        ("user", ["Go"]),
        ("assistant", ["I was"]),
        ("user", ["Again", "And again", "Well?"]),
    ]


def test_neighbouring_answers_are_merged() -> None:
    """Two answers in a row, as a cut and its mark may leave them, go out as one, each part in its place."""
    messages = messages_of(
        said("1", "Go"),
        Message("2", "assistant", (TextPart("I was"),), "stream_error"),
        Message("3", "assistant", (ToolCall("a", "f"), TextPart("I am")), "tool_calls"),
        result("4", "a", "1"),
    )

    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [block.get("text") or block["id"] for block in messages[1]["content"]] == ["I was", "a", "I am"]


def test_thinking_goes_back_with_its_signature_only() -> None:
    """Sealed thinking goes back unchanged and in its place; thinking without a seal stays here."""
    messages = messages_of(
        said("1", "Go"),
        Message("2", "assistant", (ThinkingPart("Hm", "sig"), ThinkingPart("unsealed"), TextPart("Yes"), ToolCall("a", "f")), "tool_calls"),
        result("3", "a", "1"),
    )

    assert messages[1]["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "text", "text": "Yes"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {}},
    ]


def test_history_of_answers_alone_is_framed() -> None:
    """A history that begins or ends with an answer still begins and ends with a person."""
    messages = messages_of(Message("1", "assistant", (TextPart("Welcome!"),), "stop"))

    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [message["role"] for message in messages_of()] == ["user"]


def test_system_messages_join_the_prompt_or_are_told() -> None:
    """System messages at the start are part of the prompt; a later one is told in its place."""
    body = body_of(
        Message("1", "system", (TextPart("Be brief."),)),
        said("2", "Hi"),
        Message("3", "system", (TextPart("It is late."),)),
        system="You help.",
    )

    assert body["system"] == "You help.\n\nBe brief."
    assert [block["text"] for block in body["messages"][0]["content"]] == ["Hi", "<system>\nIt is late.\n</system>"]


def test_images_and_files_are_mapped() -> None:
    """Images and files go out as the API takes them; what it does not take is named in words."""
    parts = (
        ImagePart("image/png", data="AAAA"),
        ImagePart("image/png", url="https://example.org/a.png"),
        ImagePart("image/tiff", data="AAAA"),
        FilePart("a.pdf", "application/pdf", "JVBERg=="),
        FilePart("a.txt", "text/plain; charset=utf-8", "SGFsbG8="),
        FilePart("a.bin", "application/octet-stream", "AAAA"),
        FilePart("b.txt", "text/plain", "not base64"),
    )
    content = messages_of(Message("1", "user", parts))[0]["content"]

    assert [content[0], content[1], content[3], content[4]] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}, "title": "a.pdf"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hallo"}, "title": "a.txt"},
    ]
    assert ["image/tiff" in content[2]["text"], "a.bin" in content[5]["text"], "b.txt" in content[6]["text"]] == [True] * 3


def test_ids_and_names_of_other_models_are_made_to_fit() -> None:
    """Ids that are odd, doubled or reused, and invented names of tools, do not spoil the conversation."""
    calls = (ToolCall("functions.f:0", "no such tool!"), ToolCall("functions.f:0", "f"))
    messages = messages_of(
        said("1", "Go"),
        Message("2", "assistant", calls, "tool_calls"),
        result("3", "functions.f:0", "first"),
        result("4", "functions.f:0", "second"),
        Message("5", "assistant", (ToolCall("functions.f:0", "f"),), "tool_calls"),
        result("6", "functions.f:0", "third"),
    )

    assert [[block["id"] for block in message["content"]] for message in messages if message["role"] == "assistant"] == [
        ["functions_f_0", "functions_f_0_2"],
        ["functions_f_0_3"],
    ]
    assert [[block["content"] for block in message["content"]] for message in messages[2::2]] == [["first", "second"], ["third"]]
    assert messages[1]["content"][0]["name"] == "no_such_tool_"


def test_unanswered_call_gets_an_error_result() -> None:
    """A call without a result, which should not be, is answered with an error instead of a refusal of the whole request."""
    messages = messages_of(said("1", "Go"), Message("2", "assistant", (ToolCall("a", "f"),), "crashed"), said("3", "Well?"))

    assert (messages[2]["content"][0]["tool_use_id"], messages[2]["content"][0]["is_error"]) == ("a", True)


def test_tools_are_described() -> None:
    """Tools go out with a schema of type object; a history with calls but no tools names them, and offers none."""
    spec = ToolSpec("f", "Does f.", {"properties": {"n": {"type": "integer"}}})
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    called = (said("1", "Go"), Message("2", "assistant", (ToolCall("a", "g"),), "tool_calls"), result("3", "a", "1"))

    assert [{"name": "f", "description": "Does f.", "input_schema": schema}] == body_of(said("1", "Hi"), tools=(spec,))["tools"]
    assert "tools" not in body_of(said("1", "Hi"))
    assert ([tool["name"] for tool in body_of(*called)["tools"]], body_of(*called)["tool_choice"]) == (["g"], {"type": "none"})


def test_thinking_is_not_asked_for_in_a_turn_begun_without() -> None:
    """Where another model made the calls without thinking, thinking is asked for again only in the next turn."""
    settings = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    begun_without = (said("1", "Go"), Message("2", "assistant", (ToolCall("a", "f"),), "tool_calls"), result("3", "a", "1"))
    call_after_thought = (ThinkingPart("Hm", "sig"), ToolCall("a", "f"))
    begun_with = (said("1", "Go"), Message("2", "assistant", call_after_thought, "tool_calls"), result("3", "a", "1"))
    over = (*begun_without, Message("4", "assistant", (TextPart("Done."),), "stop"), said("5", "And now?"))

    assert ["thinking" in body_of(*each, settings=settings) for each in (begun_without, begun_with, over)] == [False, True, True]


async def test_body_arrives_as_it_was_built() -> None:
    """What the SDK sends is the body, byte for byte of JSON, to the Messages API."""
    history = (said("1", "Gö 🌍"), Message("2", "assistant", (ToolCall("a", "f", {"x": [1, None]}),), "tool_calls"), result("3", "a", "1"))
    request = ModelRequest("Be kind.", history, [ToolSpec("f", "", {})])
    async with open_provider(anthropic_reply(text("x"))) as provider:
        await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url, max_tokens=9), request)

    assert anthropic_body("claude", request, 9, {}, cache="5m") == provider.bodies[0]
    assert (provider.exchanges[0].method, provider.exchanges[0].path) == ("POST", "/v1/messages")


@pytest.mark.slow
@given(histories(), tool_specs())
def test_valid_histories_become_valid_bodies(history: list[Message], tools: list[ToolSpec]) -> None:
    """Every history of ours is a valid request, and says all that was said, in order, and nothing that another provider sealed."""
    body = anthropic_body("claude", ModelRequest("", history, tools), 100, {}, provider=ME, cache="5m")

    check_anthropic(body)
    assert SECRET not in json.dumps(body)
    texts = [block["text"] for message in body["messages"] for block in message["content"] if block["type"] == "text"]
    results = {
        block["tool_use_id"]: block["content"] if isinstance(block["content"], str) else block["content"][0]["text"]
        for message in body["messages"]
        for block in message["content"]
        if block["type"] == "tool_result"
    }
    assert spoken_texts(history) == [item for item in texts if item not in {"Continue.", "(The conversation begins with your message.)"}]
    assert {item.call_id: item.content for message in history for item in message.results} == results


@pytest.mark.slow
@given(wild_histories(), tool_specs())
def test_any_history_becomes_a_valid_body(history: list[Message], tools: list[ToolSpec]) -> None:
    """Whatever a history lacks, doubles or mixes up, the request is valid."""
    body = anthropic_body("claude", ModelRequest("", history, tools), 100, {}, provider=ME, cache="1h")

    check_anthropic(body)
    assert SECRET not in json.dumps(body)


async def test_ask_is_sent_as_one_block() -> None:
    """The simplest request is the simplest body."""
    async with open_provider(anthropic_reply(text("x"))) as provider:
        await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url), ask("Hi"))

    content = [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]
    assert [{"role": "user", "content": content}] == provider.bodies[0]["messages"]


def marked(body: Any) -> list[str]:
    """Return where a body has cache points."""
    places = [name for name in ("tools", "system") if name in body and "cache_control" in body[name][-1]]
    return places + [
        f"{number}.{place}"
        for number, message in enumerate(body["messages"])
        for place, block in enumerate(message["content"])
        if "cache_control" in block
    ]


TURN = (
    said("1", "Go"),
    Message("2", "assistant", (ThinkingPart("Hm", "sig"), ToolCall("a", "f"), ToolCall("b", "f")), "tool_calls"),
    result("3", "a", "1"),
    result("4", "b", "2"),
    said("5", "And?"),
    Message("6", "assistant", (TextPart("Done."),), "stop"),
    said("7", "Again"),
)
TOOL = ToolSpec("f", "", {})


def test_cache_points_of_a_request() -> None:
    """Behind the tools, the prompt, and the last two messages of people; none without being asked for, with another time if asked for."""
    request = ModelRequest("Be kind.", TURN, [TOOL])
    body = anthropic_body("claude", request, 9, {}, cache="1h")

    assert ["tools", "system", "2.2", "4.0"] == marked(body)
    assert {"type": "ephemeral", "ttl": "1h"} == body["system"][0]["cache_control"]
    assert [] == marked(anthropic_body("claude", request, 9, {}))
    assert ["0.0"] == marked(anthropic_body("claude", ModelRequest("", TURN[:1]), 9, {}, cache="5m"))


def test_cache_points_when_the_host_has_one() -> None:
    """The host's own, which the API places itself, is one of the four."""
    body = anthropic_body("claude", ModelRequest("Be kind.", TURN, [TOOL]), 9, {"cache_control": {"type": "ephemeral"}}, cache="5m")

    assert ["tools", "system", "4.0"] == marked(body)


def test_beginning_of_a_request_when_the_conversation_grows() -> None:
    """Each request begins with the one before it, but for the marks: else nothing of the cache would be found."""
    bodies = [anthropic_body("claude", ModelRequest("Be kind.", TURN[:end], [TOOL]), 9, {}, cache="5m") for end in (1, 4, 7)]
    plain = [without_marks(body) for body in bodies]

    for before, after in pairwise(plain):
        assert [before["tools"], before["system"]] == [after["tools"], after["system"]]
        kept = len(before["messages"])
        assert before["messages"][:-1] == after["messages"][: kept - 1]
        last = before["messages"][-1]["content"]
        assert last == after["messages"][kept - 1]["content"][: len(last)]

"""Any history becomes a valid body of the chat completions API."""

import json
import re
from typing import Any

import pytest
from hypothesis import given

from tests.support.providers.adapter import ask, chunks_of
from tests.support.providers.histories import ME, SECRET, check_openai, histories, spoken_texts, tool_specs, wild_histories
from trio_sagents.data.messages import FilePart, ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.requests import ModelRequest, ToolSpec
from trio_sagents.models import OpenAIModel
from trio_sagents.models._dialects import DIALECTS
from trio_sagents.models._openai_request import Speech, openai_body
from trio_sagents.testing.providers import open_provider, openai_reply


def messages_of(*history: Message, system: str = "", reasoning_field: str | None = None) -> Any:
    """Return the messages that go out for a history, after a strict check of the whole body."""
    body = json.loads(json.dumps(openai_body("gpt", ModelRequest(system, history), {}, Speech(reasoning_field=reasoning_field))))
    if reasoning_field is None:
        check_openai(body)
    return body["messages"]


def said(message_id: str, words: str) -> Message:
    """Return a user message."""
    return Message(message_id, "user", (TextPart(words),))


def result(message_id: str, call_id: str, content: str, status: Any = "completed") -> Message:
    """Return a tool message."""
    return Message(message_id, "tool", (ToolResult(call_id, "f", content, status),))


def test_results_follow_their_answer_by_order_of_calls() -> None:
    """Each result is a message of its own right after the answer, in the order of the calls; a failed one says so."""
    messages = messages_of(
        said("1", "Go"),
        Message("2", "assistant", (TextPart("I go."), ToolCall("a", "f", {"ä": 1}), ToolCall("b", "f"), ToolCall("c", "f")), "tool_calls"),
        result("3", "c", "Error: third", "failed"),
        result("4", "a", "first", "unknown"),
        result("5", "b", ""),
        said("6", "Faster"),
        system="You help.",
    )

    assert messages == [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "Go"},
        {
            "role": "assistant",
            "content": "I go.",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"ä": 1}'}},
                {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "Error: first"},
        {"role": "tool", "tool_call_id": "b", "content": "(no output)"},
        {"role": "tool", "tool_call_id": "c", "content": "Error: third"},
        {"role": "user", "content": "Faster"},
    ]


def test_cut_answers_send_what_they_said() -> None:
    """The text of a cut answer goes out, an empty one is left out, and neighbours are merged."""
    messages = messages_of(
        said("1", "Go"),
        Message("2", "assistant", (TextPart("I was"),), "cancelled"),
        said("3", "Again"),
        Message("4", "assistant", (), "crashed"),
        said("5", "And again"),
    )

    assert [message["content"] for message in messages] == ["Go", "I was", "Again\n\nAnd again"]


def test_thinking_stays_here_unless_a_field_is_named() -> None:
    """Thinking is sent back in the field that the host names, and in none by default."""
    history = (said("1", "Go"), Message("2", "assistant", (ThinkingPart("Hm", "sig"), TextPart("Yes")), "stop"), said("3", "Sure?"))

    assert messages_of(*history)[1] == {"role": "assistant", "content": "Yes"}
    assert messages_of(*history, reasoning_field="reasoning_content")[1] == {
        "role": "assistant",
        "content": "Yes",
        "reasoning_content": "Hm",
    }


def test_images_and_files_are_mapped() -> None:
    """Images and files go out as the API takes them; what it does not take is named in words."""
    parts = (
        TextPart("Look"),
        ImagePart("image/png", data="AAAA"),
        ImagePart("image/png", url="https://example.org/a.png"),
        ImagePart("image/png"),
        FilePart("a.pdf", "application/pdf", "JVBERg=="),
        FilePart("a.txt", "text/plain", "SGFsbG8="),
        FilePart("a.bin", "application/octet-stream", "AAAA"),
    )
    content = messages_of(Message("1", "user", parts))[0]["content"]

    assert [*content[:3], *content[4:6]] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "text", "text": '<file name="a.txt">\nHallo\n</file>'},
    ]
    assert ["image/png" in content[3]["text"], "a.bin" in content[6]["text"]] == [True, True]


def test_long_and_doubled_ids_are_made_to_fit() -> None:
    """Ids are unique and of a length that OpenAI takes; others stay as the server gave them."""
    calls = (ToolCall("functions.f:0", "f"), ToolCall("x" * 70, "f"), ToolCall("functions.f:0", "f"))
    messages = messages_of(said("1", "Go"), Message("2", "assistant", calls, "tool_calls"), result("3", "x" * 70, "second"))
    ids = [call["id"] for call in messages[1]["tool_calls"]]

    assert ids[::2] == ["functions.f:0", "functions.f:0_2"]
    assert {"role": "tool", "tool_call_id": ids[1], "content": "second"} == messages[3]
    assert len(ids[1]) <= 40


async def test_body_arrives_as_it_was_built() -> None:
    """What the SDK sends is the body, to the chat completions API."""
    history = (said("1", "Gö 🌍"), Message("2", "assistant", (ToolCall("a", "f", {"x": [1, None]}),), "tool_calls"), result("3", "a", "1"))
    request = ModelRequest("Be kind.", history, [ToolSpec("f", "Does f.", {"properties": {}})])
    async with open_provider(openai_reply({"content": "x"})) as provider:
        await chunks_of(OpenAIModel("gpt", f"{provider.url}/v1"), request)

    assert openai_body("gpt", request, {}) == provider.bodies[0]
    assert (provider.exchanges[0].method, provider.exchanges[0].path) == ("POST", "/v1/chat/completions")
    assert provider.bodies[0]["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "Does f.", "parameters": {"type": "object", "properties": {}}}},
    ]


async def test_simplest_request_is_plain_text() -> None:
    """Text goes out as text, which every local server takes."""
    async with open_provider(openai_reply({"content": "x"})) as provider:
        await chunks_of(OpenAIModel("gpt", f"{provider.url}/v1"), ask("Hi"))

    assert provider.bodies[0]["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.slow
@given(histories(), tool_specs())
def test_valid_histories_become_valid_bodies(history: list[Message], tools: list[ToolSpec]) -> None:
    """Every history of ours is a valid request, and says all that was said, in order, and nothing that another provider sealed."""
    body = openai_body("gpt", ModelRequest("", history, tools), {}, Speech(provider=ME))

    check_openai(body)
    assert SECRET not in json.dumps(body)
    results = {message["tool_call_id"]: message["content"] for message in body["messages"] if message["role"] == "tool"}
    sent = "\n\n".join(_words(message) for message in body["messages"] if message["role"] != "tool" and message["content"])
    position = 0
    for words in spoken_texts(history):
        position = sent.index(words, position) + len(words)
    assert {item.call_id for message in history for item in message.results} == set(results)
    assert all(results[item.call_id].endswith(item.content) for message in history for item in message.results)


@pytest.mark.slow
@given(wild_histories(), tool_specs())
def test_any_history_becomes_a_valid_body(history: list[Message], tools: list[ToolSpec]) -> None:
    """Whatever a history lacks, doubles or mixes up, the request is valid."""
    body = openai_body("gpt", ModelRequest("", history, tools), {}, Speech(provider=ME))

    check_openai(body)
    assert SECRET not in json.dumps(body)


def _words(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n\n".join(part.get("text", "") for part in content)


IMAGE = ImagePart("image/png", data="AAAA")
SEEN = (
    said("1", "Go"),
    Message("2", "assistant", (ToolCall("a", "f"), ToolCall("b", "f")), "tool_calls"),
    Message("3", "tool", (ToolResult("a", "f", "", media=(IMAGE,)),)),
    result("4", "b", "2"),
    said("5", "And?"),
)


def sent_to(dialect: str, *history: Message) -> Any:
    """Return the messages that go to a server of this dialect."""
    return openai_body("m", ModelRequest("", history), {}, Speech(DIALECTS[dialect]))["messages"]


def test_images_of_results() -> None:
    """They follow behind all results, with the next words of a person; inside the result where the server takes that; else in words."""
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    line = {"type": "text", "text": "(Output of the tool f, call a:)"}
    behind, inside, named = (sent_to(dialect, *SEEN) for dialect in ("openai", "mistral", "deepseek"))

    assert ["tool", "tool", "user"] == [message["role"] for message in behind[2:]]
    assert [line, shown, {"type": "text", "text": "And?"}] == behind[-1]["content"]
    assert "(the output follows as images or files)" == behind[2]["content"]
    assert [shown] == inside[2]["content"][1:]
    assert ["tool", "tool", "assistant", "user"] == [message["role"] for message in inside[2:]]
    assert "AAAA" not in str(named)
    assert "image/png" in named[-1]["content"]
    assert [line, shown] == sent_to("openai", *SEEN[:4])[-1]["content"]


def test_files_when_the_server_takes_none() -> None:
    """A PDF is a file where servers take files, and is named in words elsewhere."""
    history = (Message("1", "user", (TextPart("Read."), FilePart("a.pdf", "application/pdf", "JVBERg=="))),)

    assert ["file", "file"] == [sent_to(dialect, *history)[0]["content"][1]["type"] for dialect in ("openai", "litellm")]
    assert [True, True] == ["a.pdf" in sent_to(dialect, *history)[0]["content"] for dialect in ("groq", "ollama")]


@pytest.mark.parametrize("call_id", ["abcABC123", "functions.f:0", "x" * 70, "", "ä"])
def test_ids_of_mistral(call_id: str) -> None:
    """Ids of nine characters stay; any others become such, each its own, always the same."""
    history = (said("1", "Go"), Message("2", "assistant", (ToolCall(call_id, "f"), ToolCall(call_id, "f")), "tool_calls"))
    first, second = ([call["id"] for call in sent_to("mistral", *history)[1]["tool_calls"]] for _ in range(2))

    assert first == second
    assert 2 == len(set(first))
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", given) for given in first)
    assert (call_id == "abcABC123") == (first[0] == call_id)


def test_body_when_the_server_is_asked_for_usage() -> None:
    """Usage is asked for where it has to be."""
    request = ModelRequest("", (said("1", "Go"),))

    assert "stream_options" in openai_body("m", request, {})
    assert "stream_options" not in openai_body("m", request, {}, Speech(DIALECTS["mistral"]))


def test_text_when_it_stood_among_calls() -> None:
    """The pieces of one answer's text are joined as they came; answers that follow each other are set apart."""
    history = (
        said("1", "Go"),
        Message("2", "assistant", (TextPart("One,"),), "cancelled"),
        Message("3", "assistant", (TextPart("two"), ToolCall("a", "f"), TextPart(" three.")), "tool_calls"),
        result("4", "a", "1"),
    )

    assert "One,\n\ntwo three." == messages_of(*history)[1]["content"]

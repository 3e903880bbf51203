"""OpenAIResponsesModel, through the real SDK, against a local server that speaks the Responses API."""

from typing import Any

import openai
import pytest

from tests.contracts.providers.contract import AdapterContract
from tests.contracts.providers.contract_content import PDF as RESULT_PDF
from tests.contracts.providers.contract_content import PNG as RESULT_PNG
from tests.contracts.providers.contract_parts import ADDRESS, JPEG, PDF, PNG
from tests.support.providers.adapter import KEY, chunks_of, failure_of
from tests.support.scenarios import ask, opened
from trio_sagents import Agent, Completed, TextPart
from trio_sagents.abc import Model
from trio_sagents.data.messages import Message, OpaquePart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import FinishChunk, ModelRequest, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
from trio_sagents.models import OpenAIResponsesModel, Thinking, model_of
from trio_sagents.testing.providers import (
    SPEAKERS,
    Exchange,
    Provider,
    Reply,
    error_reply,
    open_provider,
    responses_call,
    responses_events,
    responses_message,
    responses_reasoning,
    responses_reply,
    sse,
)


class TestResponsesContract(AdapterContract):
    """What every adapter promises."""

    def model(self, provider: Provider, **more: Any) -> Model:
        """Return a model at this server."""
        return model_at(provider, **more)

    def client(self, provider: Provider) -> Any:
        """Return a host's client."""
        return openai.AsyncOpenAI(api_key=KEY, base_url=f"{provider.url}/v1", max_retries=0)

    def model_of(self, client: Any) -> Model:
        """Return a model that uses it."""
        return OpenAIResponsesModel("gpt", client=client)

    def says(self, *pieces: str) -> Reply:
        """Return an answer of text."""
        return Reply([*responses_events(responses_message(*pieces)), b": bye\n\n"])

    def asks(self, call_id: str, name: str, *pieces: str) -> Reply:
        """Return an answer that asks for a tool."""
        return responses_reply(responses_call(call_id, name, *pieces, item_id=""))

    def sent(self) -> list[Any]:
        """Return the parts of `POSTED`."""
        return [
            {"type": "input_text", "text": "Compare these."},
            {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
            {"type": "input_image", "image_url": f"data:image/jpeg;base64,{JPEG}", "detail": "auto"},
            {"type": "input_image", "image_url": ADDRESS, "detail": "auto"},
            {"type": "input_file", "filename": "Bericht ä.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
            {"type": "input_text", "text": '<file name="notes.txt">\nGrüße\n\n</file>'},
            {"type": "input_text", "text": "What differs?"},
        ]

    def ends(self, reason: str) -> Reply:
        """Return an answer that ends for this reason."""
        return responses_reply(responses_message("Hi"), status="incomplete", reason=reason)

    def words_for(self, cut: str) -> str:
        """Return the API's word for a cut."""
        return {"length": "max_output_tokens", "content_filtered": "content_filter"}[cut]

    def costs(self, count: int) -> Reply:
        """Return an answer that costs so much."""
        return responses_reply(responses_message("Hi"), usage={"input_tokens": count, "output_tokens": count, "total_tokens": 2 * count})

    def odd(self) -> list[Reply]:
        """Return answers with odd content."""
        number = responses_message("Hi")
        number["pieces"] = [5]
        audio = responses_message("Hi")
        audio["content"] = [{"type": "output_audio", "data": "x"}]
        return [responses_reply(number), responses_reply(audio), responses_reply({"type": ""})]

    def shown(self) -> Any:
        """Return the items of a result with an image and a PDF."""
        output = [
            {"type": "input_text", "text": "two"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{RESULT_PNG}", "detail": "auto"},
            {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{RESULT_PDF}"},
        ]
        return [{"type": "function_call_output", "call_id": "a", "output": output}]

    def error_event(self, kind: str, message: str) -> bytes:
        """Return an error event."""
        return sse({"type": "error", "code": kind, "message": message, "param": None}, "error")

    def error(self, status: int, kind: str, message: str, **headers: str) -> Reply:
        """Return an error."""
        return error_reply(status, {"error": {"message": message, "type": kind, "param": None, "code": None}}, **headers)


def model_at(provider: Provider, **more: Any) -> OpenAIResponsesModel:
    """Return a model at this server."""
    return OpenAIResponsesModel("gpt", f"{provider.url}/v1", **{"api_key": KEY, **more})


async def test_reasoning_text_and_calls_come_in_order() -> None:
    """Reasoning is a summary for people and goes back as it came; the phase of a text is its kind; calls have their arguments."""
    items = [
        responses_reasoning("Let me ", "see.", seal="SEAL"),
        responses_message("I ", "look.", phase="commentary"),
        responses_call("call_a", "find", '{"word":', ' "ä"}'),
        responses_call("call_b", "now", "{}", item_id="fc_2"),
    ]
    async with open_provider(responses_reply(*items)) as provider:
        chunks = await chunks_of(model_at(provider))

    assert [ThinkingChunk, ThinkingChunk] == [type(chunk) for chunk in chunks[:2]]
    assert [("I ", "narration"), ("look.", "narration")] == [(each.text, each.kind) for each in chunks if isinstance(each, TextChunk)]
    calls = [each for each in chunks if isinstance(each, ToolCallChunk)]
    assert ['{"word": "ä"}', "{}"] == ["".join(each.arguments_json for each in calls if each.index == index) for index in (0, 1)]
    assert [("call_a", "find"), ("call_b", "now")] == [(each.id, each.name) for each in calls if each.name]
    assert [UsageChunk(Usage(11, 7, 3, 0)), FinishChunk("tool_calls")] == chunks[-2:]


async def test_history_goes_back_as_it_came() -> None:
    """Over two turns and a restart of the process, the server gets its reasoning, its phases and its calls back, in order."""
    speaker = SPEAKERS["openai-responses"]
    left = [
        responses_reply(
            responses_reasoning("Hm.", seal="c2VhbA=="),
            responses_message("I look.", phase="commentary"),
            responses_call("c1", "look", "{}", item_id="fc_1"),
        ),
        responses_reply(responses_message("Found.", phase="final_answer")),
        responses_reply(responses_message("Again.", phase="final_answer")),
    ]

    def respond(exchange: Exchange) -> Reply:
        return speaker.respond(exchange, left.pop(0))

    async def look() -> str:
        """Look."""
        return "seen"

    async with open_provider() as provider:
        provider.respond = respond
        async with opened(Agent(model=model_at(provider), tools=[look], system_prompt="Be brief.")) as sessions:
            assert isinstance(await ask(sessions), Completed)
            assert isinstance(await ask(sessions, "more"), Completed)
        items = provider.bodies[2]["input"]

    assert ["message", "reasoning", "message", "function_call", "function_call_output", "message", "message"] == [
        item.get("type", "message") for item in items
    ]
    assert [None, "commentary", "final_answer", None] == [item.get("phase") for item in items if item.get("type", "message") == "message"]
    assert ("c2VhbA==", "rs_1", "fc_1") == (items[1]["encrypted_content"], items[1]["id"], items[3]["id"])
    assert "Be brief." == provider.bodies[2]["instructions"]


async def test_narration_does_not_end_the_turn() -> None:
    """An answer of commentary alone is asked on; `end_turn` of the provider decides before the phase."""
    replies = [
        responses_reply(responses_message("I begin.", phase="commentary")),
        responses_reply(responses_message("More to come.", phase="final_answer"), end_turn=False),
        responses_reply(responses_message("Done.", phase="commentary"), end_turn=True),
    ]
    async with open_provider(*replies) as provider, opened(Agent(model=model_at(provider))) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Completed)
        assert "Done." == outcome.message.text
        assert ["message", "message", "message"] == [item.get("type", "message") for item in provider.bodies[2]["input"]]


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (lambda good: [*good[:4], *good[5:]], "do not make the whole"),  # a piece is lost
        (lambda good: [*good[:4], good[3], *good[4:]], "do not make the whole"),  # a piece comes twice
        (lambda good: [*good[:3], good[4], good[3], *good[5:]], "do not make the whole"),  # in another order
        (lambda good: good[:-1], "before the provider said why"),
        (lambda good: [*good[:4], good[-1]], "do not make the whole"),
        (lambda good: [good[0], *good[3:]], "not open"),
        (lambda good: [*good[:-1], good[-1].replace(b'"completed", "output"', b'"novel", "output"')], "novel"),
        (lambda good: [*good[:-1], sse({"type": "response.failed", "response": {"error": {"code": "x", "message": "boom"}}})], "boom"),
        (lambda good: [*good[:3], sse({"type": "response.output_audio.delta", "delta": "x"}), *good[3:]], "unexpected type"),
    ],
)
async def test_stream_when_it_is_damaged(events: Any, words: str) -> None:
    """A stream that lacks a piece, has one twice, or ends early is a failure, never a whole answer."""
    good = responses_events(responses_message("one ", "two "))
    async with open_provider(Reply(events(good))) as provider:
        failure = await failure_of(model_at(provider))

    assert any(word in str(failure) for word in words.split("|"))


async def test_response_that_comes_whole() -> None:
    """A server that does not stream answers all the same."""
    whole = {
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}],
    }
    async with open_provider(error_reply(200, whole)) as provider:
        chunks = await chunks_of(model_at(provider))

    assert [TextChunk("Hi"), FinishChunk("stop")] == chunks


async def test_parts_of_other_providers_are_left_out() -> None:
    """What only another provider can read is not sent; calls have no id of this API then."""
    sealed = OpaquePart("elsewhere", {"type": "seal"})
    answer = Message(
        "2", "assistant", (ThinkingPart("Hm", "S", "elsewhere"), sealed, TextPart("Hi"), ToolCall("a", "f", opaque=sealed)), "tool_calls"
    )
    history = [Message("1", "user", (TextPart("Go"),)), answer, Message("3", "tool", (ToolResult("a", "f", "no", "failed"),))]
    async with open_provider(responses_reply(responses_message("ok"))) as provider:
        await chunks_of(model_at(provider), ModelRequest("", history))

        assert [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi", "annotations": []}]},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "Error: no"},
        ] == provider.bodies[0]["input"][1:]


@pytest.mark.parametrize("name", ["input", "store", "previous_response_id", "conversation", "background"])
def test_setting_that_would_move_the_history(name: str) -> None:
    """The history is kept here."""
    with pytest.raises(ValueError, match=name):
        OpenAIResponsesModel("gpt", "http://127.0.0.1:9/v1", settings={name: "x"})


async def test_thinking_as_a_setting() -> None:
    """An effort is a field of the body; a budget has no words."""
    async with open_provider(responses_reply(responses_message("ok"))) as provider:
        await chunks_of(model_at(provider, thinking=Thinking(effort="low")))

        assert {"effort": "low", "summary": "auto"} == provider.bodies[0]["reasoning"]
    with pytest.raises(ValueError, match="does not support a budget"):
        OpenAIResponsesModel("gpt", "http://127.0.0.1:9/v1", thinking=Thinking(budget_tokens=1))


def test_name_of_the_adapter() -> None:
    """`openai-responses:model` names it."""
    assert isinstance(model_of("openai-responses:gpt", api_key="k"), OpenAIResponsesModel)

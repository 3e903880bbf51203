"""OpenAIModel, through the real SDK, against a local server that speaks the chat completions API and its dialects."""

import subprocess
import sys
from typing import Any

import openai
import pytest

import trio_sagents.models
from tests.contracts.providers.contract import AdapterContract
from tests.contracts.providers.contract_content import PDF as RESULT_PDF
from tests.contracts.providers.contract_content import PNG as RESULT_PNG
from tests.contracts.providers.contract_parts import ADDRESS, JPEG, PDF, PNG
from tests.support.providers.adapter import KEY, chunks_of, failure_of, text_of
from trio_sagents.abc import Model
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import FinishChunk, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
from trio_sagents.models import OpenAIModel
from trio_sagents.testing.providers import Provider, Reply, call_deltas, error_reply, open_provider, openai_events, openai_reply, sse


def provider_of(provider: Provider) -> str:
    """Return the name under which a model keeps what this server hands out to get back."""
    return provider.url.removeprefix("http://")


class TestOpenAIContract(AdapterContract):
    """What every adapter promises."""

    def model(self, provider: Provider, **more: Any) -> Model:
        """Return a model at this server."""
        return OpenAIModel("gpt", f"{provider.url}/v1", api_key=KEY, **more)

    def client(self, provider: Provider) -> Any:
        """Return a host's client."""
        return openai.AsyncOpenAI(api_key=KEY, base_url=f"{provider.url}/v1", max_retries=0)

    def model_of(self, client: Any) -> Model:
        """Return a model that uses it."""
        return OpenAIModel("gpt", client=client)

    def says(self, *pieces: str) -> Reply:
        """Return an answer of text."""
        return openai_reply({"content": ""}, {}, *[{"content": piece} for piece in pieces])

    def asks(self, call_id: str, name: str, *pieces: str) -> Reply:
        """Return an answer that asks for a tool."""
        return openai_reply(*call_deltas(0, call_id, name, *pieces), finish_reason="tool_calls")

    def sent(self) -> list[Any]:
        """Return the parts of `POSTED`."""
        return [
            {"type": "text", "text": "Compare these."},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{JPEG}"}},
            {"type": "image_url", "image_url": {"url": ADDRESS}},
            {"type": "file", "file": {"filename": "Bericht ä.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
            {"type": "text", "text": '<file name="notes.txt">\nGrüße\n\n</file>'},
            {"type": "text", "text": "What differs?"},
        ]

    def ends(self, reason: str) -> Reply:
        """Return an answer that ends for this reason."""
        return openai_reply({"content": "Hi"}, finish_reason=reason)

    def words_for(self, cut: str) -> str:
        """Return OpenAI's word for a cut."""
        return {"length": "length", "content_filtered": "content_filter"}[cut]

    def costs(self, count: int) -> Reply:
        """Return an answer that costs so much."""
        return openai_reply({"content": "Hi"}, usage={"prompt_tokens": count, "completion_tokens": count, "total_tokens": 2 * count})

    def odd(self) -> list[Reply]:
        """Return answers with odd content."""
        return [openai_reply({"content": "Hi"}, delta) for delta in ({"content": 5}, {"tool_calls": "x"}, {"images": [{"url": "u"}]})]

    def shown(self) -> Any:
        """Return the messages of a result with an image and a PDF."""
        content = [
            {"type": "text", "text": "(Output of the tool f, call a:)"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{RESULT_PNG}"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{RESULT_PDF}"}},
        ]
        return [{"role": "tool", "tool_call_id": "a", "content": "two"}, {"role": "user", "content": content}]

    def error_event(self, kind: str, message: str) -> bytes:
        """Return an error event."""
        return sse({"error": {"message": message, "type": kind, "param": None, "code": None}})

    def error(self, status: int, kind: str, message: str, **headers: str) -> Reply:
        """Return an error."""
        return error_reply(status, {"error": {"message": message, "type": kind, "param": None, "code": None}}, **headers)


def model_at(provider: Provider, **more: Any) -> OpenAIModel:
    """Return a model at this server."""
    return OpenAIModel("gpt", f"{provider.url}/v1", **more)


async def test_thinking_text_and_calls_come_in_order() -> None:
    """Thinking, text, and the pieces of parallel calls, which may alternate, keep their order; the finish comes after the usage."""
    first, second = call_deltas(0, "call_a", "find", '{"word": "ä', 'pfel"}'), call_deltas(1, "call_b", "now")
    reply = openai_reply(
        {"reasoning_content": "Let me "},
        {"reasoning": "see."},
        {"content": "I look."},
        *first[:2],
        *second,
        *first[2:],
        finish_reason="tool_calls",
        usage={"prompt_tokens": 120, "completion_tokens": 50, "total_tokens": 170, "prompt_tokens_details": {"cached_tokens": 100}},
    )
    async with open_provider(reply.split(5)) as provider:
        chunks = await chunks_of(model_at(provider))

    assert [
        ThinkingChunk("Let me ", provider=provider_of(provider), field="reasoning_content"),
        ThinkingChunk("see.", provider=provider_of(provider), field="reasoning"),
        TextChunk("I look."),
        ToolCallChunk(0, "call_a", "find"),
        ToolCallChunk(0, arguments_json='{"word": "ä'),
        ToolCallChunk(1, "call_b", "now"),
        ToolCallChunk(0, arguments_json='pfel"}'),
        UsageChunk(Usage(120, 50, 100)),
        ToolCallChunk(1, arguments_json="{}"),
        FinishChunk("tool_calls"),
    ] == chunks


@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filtered"),
        ("eos", "stop"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("SAFETY", "content_filtered"),
    ],
)
async def test_finish_reason_is_mapped(finish_reason: str, reason: str) -> None:
    """Each finish reason that is known is one of four, in whatever spelling."""
    async with open_provider(openai_reply({"content": "x"}, finish_reason=finish_reason)) as provider:
        chunks = await chunks_of(model_at(provider))

    assert FinishChunk(reason) == chunks[-1]


@pytest.mark.parametrize(("finish_reason", "reason"), [("stop", "tool_calls"), ("tool_calls", "tool_calls"), ("length", "length")])
async def test_calls_make_the_finish_one_of_calls(finish_reason: str, reason: str) -> None:
    """A server that says "stop" after calls is understood; an answer that was cut is not taken for calls."""
    async with open_provider(openai_reply(*call_deltas(0, "a", "f", "{}"), finish_reason=finish_reason)) as provider:
        chunks = await chunks_of(model_at(provider))

    assert FinishChunk(reason) == chunks[-1]


async def test_refusal_is_text_and_filtered() -> None:
    """A refusal is shown, and marked."""
    async with open_provider(openai_reply({"refusal": "I can't "}, {"refusal": "do that."})) as provider:
        chunks = await chunks_of(model_at(provider))

    assert text_of(chunks) == "I can't do that."
    assert FinishChunk("content_filtered") == chunks[-1]


async def test_calls_of_sloppy_servers_are_kept_apart() -> None:
    """Calls that all have index 0, or none, are told apart by their ids, and repeated ids are one call."""
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"n":1'}},
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": "}"}},
        {"index": 0, "id": "b", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c", "function": {"name": "g", "arguments": {"m": 2}}},
        {"function": {"arguments": ""}},
    ]
    async with open_provider(openai_reply(*[{"tool_calls": [piece]} for piece in pieces], finish_reason="tool_calls")) as provider:
        chunks = await chunks_of(model_at(provider))

    assert [
        ToolCallChunk(0, "a", "f", '{"n":1'),
        ToolCallChunk(0, arguments_json="}"),
        ToolCallChunk(1, "b", "f", "{}"),
        ToolCallChunk(2, "c", "g", '{"m": 2}'),
    ] == [chunk for chunk in chunks if isinstance(chunk, ToolCallChunk)]


async def test_call_without_id_gets_one() -> None:
    """A call without an id from the server gets a unique id."""
    pieces = [{"tool_calls": [{"index": index, "function": {"name": "f", "arguments": "{}"}}]} for index in range(2)]
    async with open_provider(openai_reply(*pieces)) as provider:
        chunks = await chunks_of(model_at(provider))

    ids = [chunk.id for chunk in chunks if isinstance(chunk, ToolCallChunk)]
    assert len({call_id for call_id in ids if call_id}) == 2


async def test_name_may_come_late() -> None:
    """A call whose name comes after its id is handed on when the name comes."""
    pieces = [{"index": 0, "id": "a", "function": {}}, {"index": 0, "function": {"name": "f", "arguments": "{}"}}]
    async with open_provider(openai_reply(*[{"tool_calls": [piece]} for piece in pieces])) as provider:
        chunks = await chunks_of(model_at(provider))

    assert [ToolCallChunk(0, "a", "f", "{}")] == [chunk for chunk in chunks if isinstance(chunk, ToolCallChunk)]


async def test_running_totals_of_usage_are_counted_once() -> None:
    """A server that reports its totals with every chunk is not counted several times."""
    totals = [sse({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": count}}) for count in (1, 2, 3)]
    async with open_provider(
        Reply([*totals, *openai_events({"content": "x"}, usage={"prompt_tokens": 10, "completion_tokens": 4})]),
    ) as provider:
        chunks = await chunks_of(model_at(provider))

    assert Usage(10, 4) == sum((chunk.usage for chunk in chunks if isinstance(chunk, UsageChunk)), Usage())


async def test_closing_mark_may_be_missing() -> None:
    """A body that ends after the finish without the closing mark is a whole answer."""
    async with open_provider(openai_reply({"content": "x"}, done=False)) as provider:
        chunks = await chunks_of(model_at(provider))

    assert FinishChunk("stop") == chunks[-1]


async def test_closing_mark_without_finish_fails() -> None:
    """A closing mark before any finish reason is not an answer."""
    async with open_provider(openai_reply({"content": "x"}, finish_reason=None)) as provider:
        failure = await failure_of(model_at(provider))

    assert failure.retryable


@pytest.mark.parametrize(
    ("status", "body", "retryable", "words"),
    [
        (429, {"error": {"code": "insufficient_quota", "type": "insufficient_quota", "message": "Pay."}}, False, "Pay."),
        (404, {"error": "model 'gpt' not found"}, False, "model 'gpt' not found"),
        (400, {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}, False, "too long"),
        (503, {"detail": "loading"}, True, "loading"),
        (500, [], True, "500"),
    ],
)
async def test_errors_of_other_servers_are_read(status: int, body: Any, retryable: bool, words: str) -> None:
    """What Ollama, vLLM and others say in their errors is in the message."""
    async with open_provider(error_reply(status, body)) as provider:
        failure = await failure_of(model_at(provider))

    assert words in str(failure)
    assert retryable == failure.retryable


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ({"message": "No.", "code": 503}, True),
        ({"message": "No.", "code": "429"}, True),
        ({"message": "No.", "code": 400}, False),
        ({"message": "No.", "code": "context_length_exceeded"}, False),
        ("No.", True),
    ],
)
async def test_error_events_of_other_servers_are_read(error: Any, retryable: bool) -> None:
    """A number in an error event is read as a status, and a text as the error's words."""
    event = sse({"error": error})
    async with open_provider(openai_reply({"content": "x"}).until(2, event)) as provider:
        failure = await failure_of(model_at(provider))

    assert retryable == failure.retryable
    assert "No." in str(failure)


async def test_environments_key_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of OpenAI in the environment never goes to another address."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with open_provider(openai_reply({"content": "x"})) as provider:
        await chunks_of(model_at(provider))

    assert KEY not in str(provider.exchanges[0].headers)


def test_missing_key_fails_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key for OpenAI's own address no model can be described, and the error names the setting."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)

    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        OpenAIModel("gpt")


def test_arguments_are_checked() -> None:
    """Nonsense is refused when the model is described."""
    with pytest.raises(ValueError, match="must not be empty"):
        OpenAIModel("")
    with pytest.raises(ValueError, match="base_url"):
        OpenAIModel("gpt", "http://127.0.0.1:9/v1", openai.AsyncOpenAI(api_key=KEY))


# ── the package ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_importing_models_imports_no_sdk() -> None:
    """The package of models loads neither SDK, and each model only its own."""
    script = (
        "import sys, trio_sagents.models as m\n"
        "assert not {'anthropic', 'openai', 'httpx2'} & set(sys.modules), 'on import'\n"
        "assert 'OpenAIModel' in dir(m)\n"
        "m.OpenAIModel\n"
        "assert 'anthropic' not in sys.modules\n"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(("sdk", "name"), [("anthropic", "AnthropicModel"), ("openai", "OpenAIModel")])
def test_missing_sdk_names_the_extra(monkeypatch: pytest.MonkeyPatch, sdk: str, name: str) -> None:
    """Where the SDK is not installed the error says what to install."""
    monkeypatch.setitem(sys.modules, sdk, None)
    monkeypatch.delitem(sys.modules, f"trio_sagents.models.{sdk}", raising=False)

    with pytest.raises(ImportError, match=rf'pip install "trio-sagents\[{sdk}\]"'):
        getattr(trio_sagents.models, name)


def test_unknown_name_is_an_attribute_error() -> None:
    """The package has no other attributes."""
    with pytest.raises(AttributeError, match="GeminiModel"):
        _ = trio_sagents.models.GeminiModel

"""AnthropicModel, through the real SDK, against a local server that speaks the Messages API."""

from typing import Any

import anthropic
import pytest

from tests.contracts.providers.contract import AdapterContract
from tests.contracts.providers.contract_parts import ADDRESS, JPEG, PDF, PNG
from tests.support.providers.adapter import KEY, chunks_of, failure_of
from tests.support.providers.server import (
    Provider,
    Reply,
    anthropic_error,
    anthropic_reply,
    error_reply,
    open_provider,
    sse,
    text,
    thinking,
    tool_use,
)
from trio_sagents.abc import Model
from trio_sagents.data.messages import Message, TextPart, ThinkingPart
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import FinishChunk, ModelRequest, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
from trio_sagents.models import AnthropicModel


class TestAnthropicContract(AdapterContract):
    """What every adapter promises."""

    def model(self, provider: Provider, **more: Any) -> Model:
        """Return a model at this server."""
        return AnthropicModel("claude", api_key=KEY, base_url=provider.url, **more)

    def client(self, provider: Provider) -> Any:
        """Return a host's client."""
        return anthropic.AsyncAnthropic(api_key=KEY, base_url=provider.url, max_retries=0)

    def model_of(self, client: Any) -> Model:
        """Return a model that uses it."""
        return AnthropicModel("claude", client)

    def says(self, *pieces: str) -> Reply:
        """Return an answer of text."""
        return anthropic_reply(text(*pieces))

    def asks(self, call_id: str, name: str, *pieces: str) -> Reply:
        """Return an answer that asks for a tool."""
        return anthropic_reply(tool_use(call_id, name, *pieces), stop_reason="tool_use")

    def sent(self) -> list[Any]:
        """Return the blocks of `POSTED`."""
        return [
            {"type": "text", "text": "Compare these."},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": JPEG}},
            {"type": "image", "source": {"type": "url", "url": ADDRESS}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}, "title": "Bericht ä.pdf"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße\n"}, "title": "notes.txt"},
            {"type": "text", "text": "What differs?"},
        ]

    def error_event(self, kind: str, message: str) -> bytes:
        """Return an error event."""
        return sse(anthropic_error(kind, message), "error")

    def error(self, status: int, kind: str, message: str, **headers: str) -> Reply:
        """Return an error."""
        return error_reply(status, anthropic_error(kind, message), **headers)


async def test_thinking_text_and_calls_come_in_order() -> None:
    """Thinking ends with its signature, text follows, parallel calls keep their pieces apart, usage adds up."""
    reply = anthropic_reply(
        thinking("Let me ", "see.", signature="EqQB"),
        text("I ", "look."),
        tool_use("toolu_1", "find", '{"word": "ä', 'pfel"', "}"),
        tool_use("toolu_2", "now"),
        stop_reason="tool_use",
        usage={"cache_read_input_tokens": 100, "cache_creation_input_tokens": 20},
        output_tokens=50,
    )
    async with open_provider(reply.split(3)) as provider:
        chunks = await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url))

    assert [
        UsageChunk(Usage(11, 1, 100, 20)),
        ThinkingChunk("Let me "),
        ThinkingChunk("see."),
        ThinkingChunk("", "EqQB"),
        TextChunk("I "),
        TextChunk("look."),
        ToolCallChunk(0, "toolu_1", "find"),
        ToolCallChunk(0, arguments_json='{"word": "ä'),
        ToolCallChunk(0, arguments_json='pfel"'),
        ToolCallChunk(0, arguments_json="}"),
        ToolCallChunk(1, "toolu_2", "now"),
        ToolCallChunk(1, arguments_json="{}"),
        UsageChunk(Usage(0, 49, 0, 0)),
        FinishChunk("tool_calls"),
    ] == chunks


@pytest.mark.parametrize(
    ("stop_reason", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filtered"),
        ("tool_use", "stop"),
        ("an_invention", "stop"),
    ],
)
async def test_stop_reason_is_mapped(stop_reason: str, reason: str) -> None:
    """Each stop reason of the API is one of four; calls are only meant where calls came."""
    async with open_provider(anthropic_reply(text("x"), stop_reason=stop_reason)) as provider:
        chunks = await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url))

    assert FinishChunk(reason) == chunks[-1]


async def test_redacted_thinking_goes_there_and_back() -> None:
    """Encrypted thinking becomes a chunk without text, and a part made of it goes back as it came."""
    block: Any = {"type": "redacted_thinking", "data": "3q2+7w=="}, ()
    async with open_provider(anthropic_reply(block, text("x")), anthropic_reply(text("y"))) as provider:
        model = AnthropicModel("claude", api_key=KEY, base_url=provider.url)
        chunk = (await chunks_of(model))[1]
        assert isinstance(chunk, ThinkingChunk)
        history = [
            Message("1", "user", (TextPart("Hi"),)),
            Message("2", "assistant", (ThinkingPart(chunk.text, chunk.signature), TextPart("x")), "stop"),
            Message("3", "user", (TextPart("Go on"),)),
        ]
        await chunks_of(model, ModelRequest("", history))

    assert [block[0], {"type": "text", "text": "x"}] == provider.bodies[1]["messages"][1]["content"]


async def test_arguments_that_come_whole_are_kept() -> None:
    """A gateway that gives a call's arguments at once, without pieces, is understood."""
    block: Any = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}, ()
    async with open_provider(anthropic_reply(block, stop_reason="tool_use")) as provider:
        chunks = await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url))

    assert [ToolCallChunk(0, "t", "f"), ToolCallChunk(0, arguments_json='{"a": 1}')] == [
        chunk for chunk in chunks if isinstance(chunk, ToolCallChunk)
    ]


async def test_blocks_of_the_providers_own_tools_are_passed_over() -> None:
    """Blocks and deltas that have no chunk of their own leave the rest as it is."""
    search: Any = (
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        [{"type": "input_json_delta", "partial_json": "{}"}],
    )
    cited: Any = {"type": "text", "text": "As "}, [{"type": "citations_delta", "citation": {}}, {"type": "text_delta", "text": "found."}]
    begun: Any = {"type": "thinking", "thinking": "Hm", "signature": "sig"}, [{"type": "thinking_delta", "thinking": ""}]
    async with open_provider(anthropic_reply(search, begun, cited)) as provider:
        chunks = await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url))

    assert [ThinkingChunk("Hm"), ThinkingChunk("", "sig"), TextChunk("As "), TextChunk("found."), FinishChunk("stop")] == [
        chunk for chunk in chunks if not isinstance(chunk, UsageChunk)
    ]


async def test_lone_surrogates_are_replaced() -> None:
    """Text that no store could encode is made encodable on its way in."""
    broken = sse('{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\\ud800b\\ud83c\\udf0d"}}')
    reply = anthropic_reply(text("x"))
    async with open_provider(Reply([*reply.steps[:3], broken, *reply.steps[4:]])) as provider:
        chunks = await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url))

    assert [TextChunk("a\ufffdb🌍")] == [chunk for chunk in chunks if isinstance(chunk, TextChunk)]


async def test_missing_key_fails_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Without any credentials the call fails for good, and names the setting."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE", "ANTHROPIC_IDENTITY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))

    failure = await failure_of(AnthropicModel("claude", base_url="http://127.0.0.1:9"))

    assert "ANTHROPIC_API_KEY" in str(failure)
    assert not failure.retryable


def test_arguments_are_checked() -> None:
    """Nonsense is refused when the model is described."""
    with pytest.raises(ValueError, match="must not be empty"):
        AnthropicModel(" ")
    with pytest.raises(ValueError, match="max_tokens"):
        AnthropicModel("claude", max_tokens=0)
    with pytest.raises(ValueError, match="api_key"):
        AnthropicModel("claude", anthropic.AsyncAnthropic(api_key=KEY), api_key=KEY)
    with pytest.raises(TypeError, match="name of a model"):
        AnthropicModel(None)  # type: ignore[arg-type]  # what a host may do

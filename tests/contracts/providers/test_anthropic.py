"""AnthropicModel, through the real SDK, against a local server that speaks the Messages API."""

import json
from typing import Any

import anthropic
import pytest

from tests.contracts.providers.contract import AdapterContract
from tests.contracts.providers.contract_content import PDF as RESULT_PDF
from tests.contracts.providers.contract_content import PNG as RESULT_PNG
from tests.contracts.providers.contract_parts import ADDRESS, JPEG, PDF, PNG
from tests.support.providers.adapter import KEY, chunks_of, without_marks
from tests.support.scenarios import answer_to, opened
from trio_sagents import Agent
from trio_sagents.abc import Model
from trio_sagents.data.messages import Message, OpaquePart, TextPart, ThinkingPart
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import FinishChunk, ModelRequest, OpaqueChunk, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
from trio_sagents.models import AnthropicModel
from trio_sagents.models._anthropic_events import AnthropicEvents
from trio_sagents.models._sse import ServerSentEvent
from trio_sagents.testing.providers import (
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


def provider_of(provider: Provider) -> str:
    """Return the name under which a model keeps what this server hands out to get back."""
    return provider.url.removeprefix("http://")


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

    def ends(self, reason: str) -> Reply:
        """Return an answer that ends for this reason."""
        return anthropic_reply(text("Hi"), stop_reason=reason)

    def words_for(self, cut: str) -> str:
        """Return Anthropic's word for a cut."""
        return {"length": "max_tokens", "content_filtered": "refusal"}[cut]

    def costs(self, count: int) -> Reply:
        """Return an answer that costs so much."""
        return anthropic_reply(text("Hi"), usage={"input_tokens": count, "output_tokens": 0}, output_tokens=count)

    def odd(self) -> list[Reply]:
        """Return answers with odd content."""
        number: Any = {"type": "text", "text": ""}, [{"type": "text_delta", "text": 5}]
        unknown: Any = {"type": "text", "text": ""}, [{"type": "novel_delta", "text": "x"}]
        wrong: Any = {"type": "text", "text": ""}, [{"type": "input_json_delta", "partial_json": "{}"}]
        return [anthropic_reply(block) for block in (number, unknown, wrong)]

    def shown(self) -> Any:
        """Return the messages of a result with an image and a PDF."""
        content = [
            {"type": "text", "text": "two"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": RESULT_PNG}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": RESULT_PDF}, "title": "a.pdf"},
        ]
        result = {"type": "tool_result", "tool_use_id": "a", "content": content, "is_error": False}
        return [{"role": "user", "content": [result]}]

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
        ThinkingChunk("Let me ", provider=provider_of(provider)),
        ThinkingChunk("see.", provider=provider_of(provider)),
        ThinkingChunk("", "EqQB", provider_of(provider)),
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
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filtered"),
    ],
)
async def test_stop_reason_is_mapped(stop_reason: str, reason: str) -> None:
    """Each stop reason of the API is one of four."""
    async with open_provider(anthropic_reply(text("x"), stop_reason=stop_reason)) as provider:
        chunks = await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url))

    assert FinishChunk(reason) == chunks[-1]


@pytest.mark.parametrize("is_old", [False, True])
async def test_redacted_thinking_goes_there_and_back(is_old: bool) -> None:
    """Encrypted thinking becomes an opaque part that goes back unchanged, also in the form that an earlier release stored."""
    block: Any = {"type": "redacted_thinking", "data": "3q2+7w=="}, ()
    async with open_provider(anthropic_reply(block, text("x")), anthropic_reply(text("y"))) as provider:
        model = AnthropicModel("claude", api_key=KEY, base_url=provider.url)
        chunk = (await chunks_of(model))[1]
        assert isinstance(chunk, OpaqueChunk)
        kept = ThinkingPart("", "redacted_thinking:3q2+7w==") if is_old else chunk.part
        history = [
            Message("1", "user", (TextPart("Hi"),)),
            Message("2", "assistant", (kept, TextPart("x")), "stop"),
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


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize(("call_id", "second"), [("", "g"), ("", "f"), ("same", "g")])
def test_calls_in_one_place_that_are_not_closed(is_whole: bool, call_id: str, second: str) -> None:
    """A call that begins where another one was never closed is a call of its own: neither is lost, nor gets the other's arguments."""
    events = AnthropicEvents()
    chunks: list[Any] = []
    for name, arguments in (("f", {"a": 1}), (second, {"b": 2})):
        block = {"type": "tool_use", "id": call_id, "name": name, "input": arguments if is_whole else {}}
        told: list[Any] = [{"type": "content_block_start", "index": 0, "content_block": block}]
        if not is_whole:
            delta: Any = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
            told.append({"type": "content_block_delta", "index": 0, "delta": delta})
        for event in told:
            chunks += events.translate(ServerSentEvent("", json.dumps(event)))
    chunks += events.translate(ServerSentEvent("", '{"type": "message_delta", "delta": {"stop_reason": "tool_use"}}'))
    calls = [chunk for chunk in (*chunks, *events.finish()) if isinstance(chunk, ToolCallChunk)]

    assert [(0, "f"), (1, second)] == [(chunk.index, chunk.name) for chunk in calls if chunk.name]
    assert [(0, '{"a": 1}'), (1, '{"b": 2}')] == [(chunk.index, chunk.arguments_json) for chunk in calls if chunk.arguments_json]


async def test_blocks_of_the_providers_own_tools_are_kept_for_it() -> None:
    """Blocks that have no chunk of their own are opaque parts, whole and in their place; so are the citations of a text."""
    search: Any = (
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"que', 'ry": "x"}')],
    )
    citation: Any = {"type": "citations_delta", "citation": {"url": "u"}}
    cited: Any = {"type": "text", "text": "As "}, [citation, {"type": "text_delta", "text": "found."}]
    begun: Any = {"type": "thinking", "thinking": "Hm", "signature": "sig"}, [{"type": "thinking_delta", "thinking": ""}]
    async with open_provider(anthropic_reply(search, begun, cited)) as provider:
        chunks = await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url))

    who = provider_of(provider)
    assert [
        OpaqueChunk(OpaquePart(who, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}})),
        ThinkingChunk("Hm", provider=who),
        ThinkingChunk("", "sig", who),
        TextChunk("As "),
        TextChunk("found."),
        OpaqueChunk(OpaquePart(who, {"type": "citations", "citations": [{"url": "u"}]})),
        FinishChunk("stop"),
    ] == [chunk for chunk in chunks if not isinstance(chunk, UsageChunk)]


async def test_lone_surrogates_are_replaced() -> None:
    """Text that no store could encode is made encodable on its way in."""
    broken = sse('{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\\ud800b\\ud83c\\udf0d"}}')
    reply = anthropic_reply(text("x"))
    async with open_provider(Reply([*reply.steps[:3], broken, *reply.steps[4:]])) as provider:
        chunks = await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url))

    assert [TextChunk("a\ufffdb🌍")] == [chunk for chunk in chunks if isinstance(chunk, TextChunk)]


def test_missing_key_fails_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Without any credentials no model can be described, and the error names the setting."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE", "ANTHROPIC_IDENTITY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))

    with pytest.raises(ValueError, match="ANTHROPIC_API_KEY"):
        AnthropicModel("claude", base_url="http://127.0.0.1:9")


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


def searching(stop_reason: str, *pieces: str) -> Reply:
    """Return an answer in which the provider's own tool is at work."""
    search: Any = (
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}},
        [{"type": "input_json_delta", "partial_json": '{"query": "tea"}'}],
    )
    return anthropic_reply(*([text(*pieces)] if pieces else []), search, stop_reason=stop_reason)


@pytest.mark.parametrize("pieces", [("I search. ",), ()])
async def test_answer_that_the_provider_pauses(pieces: tuple[str, ...]) -> None:
    """After `pause_turn` the provider gets its answer back as it came, and nothing behind it; the turn ends with the rest."""
    replies = [searching("pause_turn", *pieces), anthropic_reply(text("Found tea."))]
    async with open_provider(*replies, anthropic_reply(text("More."))) as provider:
        model = AnthropicModel("claude", api_key=KEY, base_url=provider.url)
        async with opened(Agent(model=model)) as sessions:
            assert "Found tea." == await answer_to(sessions)
            assert "More." == await answer_to(sessions, "more")

    paused = [{"type": "text", "text": piece} for piece in pieces]
    paused.append({"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "tea"}})
    resumed, later = [without_marks(body)["messages"] for body in provider.bodies[1:3]]
    assert [("user", 1), ("assistant", len(paused))] == [(message["role"], len(message["content"])) for message in resumed]
    assert paused == resumed[-1]["content"]
    assert [*paused, {"type": "text", "text": "Found tea."}] == later[1]["content"]


async def test_paused_answer_when_another_provider_continues() -> None:
    """Another provider gets the words of a paused answer, and is asked to continue."""
    async with open_provider(anthropic_reply(text("ok"))) as provider:
        sealed = OpaquePart("elsewhere", {"type": "server_tool_use", "id": "x"})
        history = [
            Message("1", "user", (TextPart("Hi"),)),
            Message("2", "assistant", (TextPart("I search."), sealed), "continued"),
        ]
        await chunks_of(AnthropicModel("claude", api_key=KEY, base_url=provider.url), ModelRequest("", history))

    messages = without_marks(provider.bodies[0])["messages"]
    assert [["Hi"], ["I search."], ["Continue."]] == [[block["text"] for block in message["content"]] for message in messages]

"""A provider on 127.0.0.1, scripted reply by reply: raw HTTP/1.1, so that a test says every byte and every break.

    async with open_provider() as provider:
        provider.replies.append(anthropic_reply(text("Hello")))
        model = AnthropicModel("claude", api_key="k", base_url=provider.url)       # OpenAIModel("gpt", provider.url + "/v1")

Replies are given in the order of the requests. If `provider.respond` is set, it is asked instead. A step of a reply that is
not bytes is something that happens: `HANG`, `CLOSE`, `RESET`, or a `Gate` that the test opens.

`SPEAKERS` has the manners of real servers by name: how each one streams, calls tools, thinks, counts and fails, and which requests it
refuses. Use it to test an adapter of your own, or an agent.
"""

from trio_sagents.testing._local_server import (
    CLOSE,
    HANG,
    RESET,
    Break,
    Exchange,
    Gate,
    Provider,
    Reply,
    Step,
    error_reply,
    open_provider,
)
from trio_sagents.testing._speakers import SEAL, SPEAKERS, AskedCall, Speaker
from trio_sagents.testing._wire_words import (
    Block,
    anthropic_error,
    anthropic_events,
    anthropic_reply,
    call_deltas,
    openai_chunk,
    openai_events,
    openai_reply,
    responses_call,
    responses_events,
    responses_message,
    responses_reasoning,
    responses_reply,
    sse,
    text,
    thinking,
    tool_use,
)

__all__ = (
    "CLOSE",
    "HANG",
    "RESET",
    "SEAL",
    "SPEAKERS",
    "AskedCall",
    "Block",
    "Break",
    "Exchange",
    "Gate",
    "Provider",
    "Reply",
    "Speaker",
    "Step",
    "anthropic_error",
    "anthropic_events",
    "anthropic_reply",
    "call_deltas",
    "error_reply",
    "open_provider",
    "openai_chunk",
    "openai_events",
    "openai_reply",
    "responses_call",
    "responses_events",
    "responses_message",
    "responses_reasoning",
    "responses_reply",
    "sse",
    "text",
    "thinking",
    "tool_use",
)

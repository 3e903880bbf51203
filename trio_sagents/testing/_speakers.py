"""The manners of real servers: how each one streams, thinks, calls tools, counts and fails, and which requests it refuses.

A speaker is written from what its server is known to send. What two servers do alike is in a class that both inherit.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.testing._local_server import Exchange, Reply, error_reply
from trio_sagents.testing._wire_words import (
    anthropic_error,
    anthropic_events,
    anthropic_reply,
    openai_chunk,
    responses_call,
    responses_message,
    responses_reasoning,
    responses_reply,
    sse,
    text,
    thinking,
    tool_use,
)

SEAL: Final = "c2VhbA=="
"""The signature that speakers hand out, and want back."""
_ID_OF_MISTRAL: Final = re.compile(r"[a-zA-Z0-9]{9}")
_MAX_ID: Final = 40
_MAX_CACHE_POINTS: Final = 4


@attrs.frozen
class AskedCall:
    """A call of a tool, as a model asks for it."""

    name: str
    arguments: str = "{}"
    """The JSON text of the arguments."""
    call_id: str = "call_1"
    """A speaker whose server gives no ids, or ids of its own form, gives its own."""


class Speaker:
    """A server that speaks the chat completions API as OpenAI does. The other servers differ from it."""

    name: ClassVar[str] = "openai"
    path: ClassVar[str] = "/v1"
    """What follows the server's address in the base URL."""
    fields: ClassVar[frozenset[str]] = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", "refusal"})
    """The fields of a message that the server takes."""
    takes_any_field: ClassVar[bool] = False
    asks_for_usage: ClassVar[bool] = True
    """Whether a request has to ask for usage."""

    def says(self, *pieces: str) -> Reply:
        """Return a whole answer in words."""
        return self._streamed([*self._preamble(), *[self._chunk({"content": piece}) for piece in pieces], *self._end("stop")])

    def asks(self, *calls: AskedCall, thought: str = "") -> Reply:
        """Return an answer that calls tools, after some thinking."""
        deltas = [*(self._thought(thought) if thought else ()), *self._calls(calls)]
        return self._streamed([*self._preamble(), *[self._chunk(delta) for delta in deltas], *self._end(self._word_for_calls())])

    def breaks_off(self, *pieces: str) -> Reply:
        """Return an answer that the server broke off, as it says so."""
        said = [self._chunk({"content": piece}) for piece in pieces]
        return Reply([*self._preamble(), *said, sse(self._error("The server had an error.", 500))])

    def too_long(self) -> Reply:
        """Return how the server refuses a request that is too long for the model."""
        words = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
        return error_reply(400, self._error(words, 400, "context_length_exceeded"))

    def refusal(self, words: str) -> Reply:
        """Return how the server refuses a request."""
        return error_reply(400, self._error(words, 400))

    def respond(self, exchange: Exchange, reply: Reply) -> Reply:
        """Return the reply to a request, or a refusal if the server would refuse the request."""
        why = self.refuses(exchange.body)
        return reply if why is None else self.refusal(why)

    def refuses(self, body: JSON) -> str | None:
        """Return why the server refuses a request; None if it does not."""
        due: list[str] = []
        for message in body["messages"]:
            unknown = set(message) - self.fields
            if unknown and not self.takes_any_field:
                return f"unknown field {min(unknown)!r} in a message"
            if (message["role"] == "tool") != bool(due):
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            if message["role"] == "tool":
                if message["tool_call_id"] != due.pop(0):
                    return "a tool_call_id was not found in the 'tool_calls' of the previous message"
                continue
            due = [call["id"] for call in message.get("tool_calls", ())]
            why = next((why for call in message.get("tool_calls", ()) if (why := self._refuses_call(call)) is not None), None)
            if why is not None:
                return why
        return "the calls of the last message have no results" if due else self._refuses_returned(body)

    def _refuses_call(self, call: JSON) -> str | None:
        if not 0 < len(call["id"]) <= _MAX_ID:
            return f"the id of a call has {len(call['id'])} characters"
        return None if isinstance(json.loads(call["function"]["arguments"]), dict) else "the arguments of a call are not an object"

    def _refuses_returned(self, body: JSON) -> str | None:
        """Return why the server misses something that it handed out; None if it does not."""
        return None

    def _streamed(self, events: Sequence[bytes]) -> Reply:
        return Reply([*events, sse("[DONE]")])

    def _preamble(self) -> Sequence[bytes]:
        return [self._chunk({"role": "assistant", "content": ""})]

    def _thought(self, thought: str) -> Sequence[JSON]:
        """OpenAI keeps it to itself."""
        return ()

    def _calls(self, calls: Sequence[AskedCall]) -> Sequence[JSON]:
        deltas: list[JSON] = []
        for index, call in enumerate(calls):
            head = {"index": index, "id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            pieces = [call.arguments[at : at + 5] for at in range(0, len(call.arguments), 5)]
            deltas += [{"tool_calls": [head]}, *[{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces]]
        return deltas

    def _word_for_calls(self) -> str:
        return "tool_calls"

    def _end(self, reason: str) -> Sequence[bytes]:
        return [self._chunk({}, reason), openai_chunk([], usage=self._usage())]

    def _usage(self) -> JSON:
        return {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "prompt_tokens_details": {"cached_tokens": 3}}

    def _chunk(self, delta: JSON, reason: str | None = None) -> bytes:
        return openai_chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}])

    def _error(self, words: str, status: int, code: str | None = None) -> JSONValue:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": words, "type": kind, "param": None, "code": code}}


def _present(body: JSON) -> Sequence[JSON]:
    """Return the assistant messages behind the last words of a person."""
    messages = list(body["messages"])
    last = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=-1)
    return [message for message in messages[last + 1 :] if message["role"] == "assistant"]


def _calling(messages: Sequence[JSON]) -> Sequence[JSON]:
    return [message for message in messages if message.get("tool_calls")]


class AzureSpeaker(Speaker):
    """Azure: the first event has no choice, and each choice has the results of the content filter."""

    name = "azure"
    path = "/openai/v1"

    def _preamble(self) -> Sequence[bytes]:
        filtered = {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
        return [sse({"choices": [], "id": "", "model": "", "object": "", "prompt_filter_results": [filtered]}), *super()._preamble()]

    def _chunk(self, delta: JSON, reason: str | None = None) -> bytes:
        return openai_chunk([{"index": 0, "delta": delta, "finish_reason": reason, "content_filter_results": {}}])


class OpenRouterSpeaker(Speaker):
    """OpenRouter: comments while it waits, thinking as `reasoning_details` that it wants back, errors inside a choice."""

    name = "openrouter"
    path = "/api/v1"
    takes_any_field = True

    def _preamble(self) -> Sequence[bytes]:
        return [b": OPENROUTER PROCESSING\n\n", b": OPENROUTER PROCESSING\n\n", *super()._preamble()]

    def _thought(self, thought: str) -> Sequence[JSON]:
        piece = {"type": "reasoning.text", "text": thought, "format": "anthropic-claude-v1", "index": 0}
        sealed = {"type": "reasoning.text", "signature": SEAL, "format": "anthropic-claude-v1", "index": 0}
        return [{"reasoning": thought, "reasoning_details": [piece]}, {"reasoning": None, "reasoning_details": [sealed]}]

    def _refuses_returned(self, body: JSON) -> str | None:
        for message in _calling(body["messages"]):
            details = message.get("reasoning_details") or [{}]
            if len(details) != 1 or details[0].get("signature") != SEAL or not details[0].get("text"):
                return "reasoning_details of the last answer are missing"
        return None

    def breaks_off(self, *pieces: str) -> Reply:
        said = [self._chunk({"content": piece}) for piece in pieces]
        failed = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": None}
        choice = {**failed, "error": {"code": 502, "message": "The upstream died", "metadata": {"provider_name": "P", "raw": "EOF"}}}
        return self._streamed([*self._preamble(), *said, openai_chunk([choice])])

    def too_long(self) -> Reply:
        raw = json.dumps({"error": {"message": "prompt is too long: 214315 tokens > 204798 maximum", "type": "invalid_request_error"}})
        error = {"code": 400, "message": "Provider returned error", "metadata": {"raw": raw, "provider_name": "Anthropic"}}
        return error_reply(400, {"error": error, "user_id": "u"})

    def _error(self, words: str, status: int, code: str | None = None) -> JSONValue:
        return {"error": {"code": status, "message": words}}


class GroqSpeaker(Speaker):
    """Groq: thinking as `reasoning`, usage in a field of its own, and no field that it does not know."""

    name = "groq"
    path = "/openai/v1"
    fields = Speaker.fields | {"reasoning"}

    def _thought(self, thought: str) -> Sequence[JSON]:
        return [{"reasoning": thought, "channel": "analysis"}]

    def _end(self, reason: str) -> Sequence[bytes]:
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}
        return [openai_chunk([choice], x_groq={"id": "req_1", "usage": self._usage()})]

    def too_long(self) -> Reply:
        return error_reply(400, self._error("Please reduce the length of the messages or completion.", 400, "context_length_exceeded"))


class GeminiSpeaker(Speaker):
    """Gemini's compatible endpoint: calls come whole, with an empty id and a signature that has to come back; errors are a list."""

    name = "gemini"
    path = "/v1beta/openai"
    takes_any_field = True

    def _calls(self, calls: Sequence[AskedCall]) -> Sequence[JSON]:
        pieces: list[JSON] = []
        for call in calls:
            function = {"name": call.name, "arguments": call.arguments}
            extra = {"google": {"thought_signature": SEAL}}
            pieces.append({"index": 0, "id": "", "type": "function", "function": function, "extra_content": extra})
        return [{"role": "assistant", "tool_calls": [piece]} for piece in pieces]

    def _word_for_calls(self) -> str:
        return "stop"

    def _refuses_returned(self, body: JSON) -> str | None:
        for message in _calling(_present(body)):
            for call in message["tool_calls"]:
                if call.get("extra_content", {}).get("google", {}).get("thought_signature") != SEAL:
                    return "Function call is missing a thought_signature in functionCall parts."
        return None

    def breaks_off(self, *pieces: str) -> Reply:
        said = [self._chunk({"content": piece}) for piece in pieces]
        return self._streamed([*self._preamble(), *said, self._chunk({}, "MALFORMED_FUNCTION_CALL")])

    def too_long(self) -> Reply:
        words = "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."
        return error_reply(400, self._error(words, 400))

    def _error(self, words: str, status: int, code: str | None = None) -> JSONValue:
        kind = "INVALID_ARGUMENT" if status < 500 else "INTERNAL"
        return [{"error": {"code": status, "message": words, "status": kind}}]


class DeepSeekSpeaker(Speaker):
    """DeepSeek: comments while it waits, and `reasoning_content` that has to come back while the model is at work, and not later."""

    name = "deepseek"
    fields = Speaker.fields | {"reasoning_content"}

    def _preamble(self) -> Sequence[bytes]:
        return [b": keep-alive\n\n", *super()._preamble()]

    def _thought(self, thought: str) -> Sequence[JSON]:
        return [{"content": None, "reasoning_content": piece} for piece in (thought[:3], thought[3:])]

    def _refuses_returned(self, body: JSON) -> str | None:
        present = _present(body)
        if any("reasoning_content" not in message for message in _calling(present)):
            return "Missing `reasoning_content` field in the assistant message."
        later = [message for message in body["messages"] if message not in present and "reasoning_content" in message]
        return "The reasoning_content of earlier turns must not be passed." if later else None

    def breaks_off(self, *pieces: str) -> Reply:
        said = [self._chunk({"content": piece}) for piece in pieces]
        return self._streamed([*self._preamble(), *said, self._chunk({}, "insufficient_system_resource")])

    def _usage(self) -> JSON:
        return {"prompt_tokens": 11, "completion_tokens": 7, "prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 8}


class MistralSpeaker(Speaker):
    """Mistral: thinking among the text, ids of nine characters, usage without being asked, and no field that it does not know."""

    name = "mistral"
    fields = Speaker.fields | {"prefix"}
    asks_for_usage = False

    def _thought(self, thought: str) -> Sequence[JSON]:
        return [{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}]}]

    def _calls(self, calls: Sequence[AskedCall]) -> Sequence[JSON]:
        pieces = [
            {"index": index, "id": f"call0000{index}", "function": {"name": call.name, "arguments": call.arguments}}
            for index, call in enumerate(calls)
        ]
        return [{"content": "", "tool_calls": pieces}]

    def _end(self, reason: str) -> Sequence[bytes]:
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": reason}
        return [openai_chunk([choice], usage=self._usage())]

    def refuses(self, body: JSON) -> str | None:
        if "stream_options" in body:
            return "extra_forbidden: stream_options"
        roles = [message["role"] for message in body["messages"]]
        if ("tool", "user") in itertools.pairwise(roles):
            return "Unexpected role 'user' after role 'tool'"
        return super().refuses(body)

    def _refuses_call(self, call: JSON) -> str | None:
        if not _ID_OF_MISTRAL.fullmatch(call["id"]):
            return f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length of 9."
        return super()._refuses_call(call)

    def too_long(self) -> Reply:
        words = "Prompt contains 65673 tokens and 0 draft tokens, too large for model with 32768 maximum context length"
        return error_reply(400, self._error(words, 400))

    def _error(self, words: str, status: int, code: str | None = None) -> JSONValue:
        kind = "invalid_request_error" if status < 500 else "internal_server_error"
        return {"object": "error", "message": words, "type": kind, "param": None, "code": None}


class VllmSpeaker(Speaker):
    """vLLM: thinking as `reasoning`, a new id with each piece of a call, flat errors."""

    name = "vllm"
    takes_any_field = True

    def _thought(self, thought: str) -> Sequence[JSON]:
        return [{"reasoning": thought}]

    def _calls(self, calls: Sequence[AskedCall]) -> Sequence[JSON]:
        deltas: list[JSON] = []
        for place, delta in enumerate(super()._calls(calls)):
            deltas.append({"tool_calls": [{**piece, "id": f"chatcmpl-tool-{place}"} for piece in delta["tool_calls"]]})
        return deltas

    def breaks_off(self, *pieces: str) -> Reply:
        said = [self._chunk({"content": piece}) for piece in pieces]
        return self._streamed([*self._preamble(), *said, self._chunk({}, "abort")])

    def _error(self, words: str, status: int, code: str | None = None) -> JSONValue:
        kind = "BadRequestError" if status < 500 else "InternalServerError"
        return {"object": "error", "message": words, "type": kind, "param": None, "code": status}


class SglangSpeaker(VllmSpeaker):
    """SGLang: thinking in two fields, calls whose arguments come under another index than their name."""

    name = "sglang"

    def _thought(self, thought: str) -> Sequence[JSON]:
        return [{"reasoning_content": thought, "reasoning": thought, "content": None}]

    def _calls(self, calls: Sequence[AskedCall]) -> Sequence[JSON]:
        deltas: list[JSON] = []
        for index, call in enumerate(calls):
            head = {"index": 0, "id": f"call_{index}", "type": "function", "function": {"name": call.name, "arguments": ""}}
            rest = {"index": index + 1, "id": None, "type": "function", "function": {"name": None, "arguments": call.arguments}}
            deltas += [{"tool_calls": [head]}, {"tool_calls": [rest]}]
        return deltas

    def too_long(self) -> Reply:
        words = "The input (9000 tokens) is longer than the model's context length (8192 tokens)."
        return error_reply(400, self._error(words, 400))


class LlamaCppSpeaker(Speaker):
    """llama.cpp: an error in a line of its own, and an error with the sizes that did not fit."""

    name = "llamacpp"
    takes_any_field = True

    def _thought(self, thought: str) -> Sequence[JSON]:
        return [{"reasoning_content": thought}]

    def breaks_off(self, *pieces: str) -> Reply:
        said = [self._chunk({"content": piece}) for piece in pieces]
        line = f"error: {json.dumps(self._error('The slot was lost', 500))}\n\n"
        return Reply([*self._preamble(), *said, line.encode()])

    def too_long(self) -> Reply:
        words = "the request exceeds the available context size (4096 tokens), try increasing it"
        error = {"code": 400, "message": words, "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 4096}
        return error_reply(400, {"error": error})

    def _end(self, reason: str) -> Sequence[bytes]:
        return [self._chunk({}, reason), openai_chunk([], usage=self._usage(), timings={"prompt_n": 11, "predicted_n": 7})]

    def _error(self, words: str, status: int, code: str | None = None) -> JSONValue:
        return {"error": {"code": status, "message": words, "type": "invalid_request_error" if status < 500 else "server_error"}}


class LmStudioSpeaker(Speaker):
    """LM Studio: errors as plain text, and as an event called "error"."""

    name = "lmstudio"
    takes_any_field = True

    def _thought(self, thought: str) -> Sequence[JSON]:
        return [{"reasoning": thought}]

    def breaks_off(self, *pieces: str) -> Reply:
        said = [self._chunk({"content": piece}) for piece in pieces]
        return Reply([*self._preamble(), *said, sse({"error": {"message": "The model has crashed"}}, "error")])

    def too_long(self) -> Reply:
        words = (
            "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length of only 4096"
        )
        return error_reply(400, self._error(words, 400))

    def _error(self, words: str, status: int, code: str | None = None) -> JSONValue:
        return {"error": words}


class OllamaSpeaker(Speaker):
    """Ollama: each call whole, all under index 0; thinking as `reasoning`; a status of 200 with an error as JSON."""

    name = "ollama"
    takes_any_field = True

    def _thought(self, thought: str) -> Sequence[JSON]:
        return [{"role": "assistant", "content": "", "reasoning": thought}]

    def _calls(self, calls: Sequence[AskedCall]) -> Sequence[JSON]:
        return [
            {"tool_calls": [{"index": 0, "id": f"call_{index}", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}]}
            for index, call in enumerate(calls)
        ]

    def breaks_off(self, *pieces: str) -> Reply:
        return error_reply(200, self._error("llama runner process has terminated", 500))

    def too_long(self) -> Reply:
        return error_reply(400, self._error("input length exceeds the context length", 400))

    def _error(self, words: str, status: int, code: str | None = None) -> JSONValue:
        return {"error": {"message": words, "type": "api_error" if status >= 500 else "invalid_request_error", "param": None, "code": None}}


class LiteLlmSpeaker(Speaker):
    """LiteLLM: thinking as `thinking_blocks` that it wants back, and errors that name their class."""

    name = "litellm"
    takes_any_field = True

    def _thought(self, thought: str) -> Sequence[JSON]:
        piece = {"type": "thinking", "thinking": thought, "signature": None}
        sealed = {"type": "thinking", "thinking": "", "signature": SEAL}
        return [{"reasoning_content": thought, "thinking_blocks": [piece]}, {"reasoning_content": "", "thinking_blocks": [sealed]}]

    def _refuses_returned(self, body: JSON) -> str | None:
        for message in _calling(body["messages"]):
            blocks = message.get("thinking_blocks") or [{}]
            if len(blocks) != 1 or blocks[0].get("signature") != SEAL or not blocks[0].get("thinking"):
                return "Expected `thinking` or `redacted_thinking`, but found `tool_use`."
        return None

    def too_long(self) -> Reply:
        words = "litellm.ContextWindowExceededError: litellm.BadRequestError: input is too long for requested model"
        return error_reply(400, self._error(words, 400))

    def _error(self, words: str, status: int, code: str | None = None) -> JSONValue:
        return {"error": {"message": words, "type": None, "param": None, "code": str(status)}}


class AnthropicSpeaker(Speaker):
    """Anthropic's Messages API: another protocol, which wants its thinking back in its place."""

    name = "anthropic"
    path = ""

    def says(self, *pieces: str) -> Reply:
        return anthropic_reply(text(*pieces))

    def asks(self, *calls: AskedCall, thought: str = "") -> Reply:
        blocks = [tool_use(f"toolu_{index}", call.name, call.arguments) for index, call in enumerate(calls)]
        thoughts = [thinking(thought, signature=SEAL)] if thought else []
        return anthropic_reply(*thoughts, *blocks, stop_reason="tool_use")

    def breaks_off(self, *pieces: str) -> Reply:
        return Reply([*anthropic_events(text(*pieces))[:-2], sse(anthropic_error("api_error", "Internal server error"), "error")])

    def too_long(self) -> Reply:
        return self.refusal("prompt is too long: 214315 tokens > 204798 maximum")

    def refusal(self, words: str) -> Reply:
        return error_reply(400, anthropic_error("invalid_request_error", words))

    def refuses(self, body: JSON) -> str | None:
        if json.dumps(body).count('"cache_control"') > _MAX_CACHE_POINTS:
            return "A maximum of 4 blocks with cache_control may be provided."
        answers = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        if any(block["type"] == "thinking" and block.get("signature") != SEAL for blocks in answers for block in blocks):
            return "messages.1.content.0: Invalid `signature` in `thinking` block"
        thinks = isinstance(body.get("thinking"), Mapping) and body["thinking"].get("type") == "enabled"
        asked = [block["type"] for block in body["messages"][-1]["content"]]
        if thinks and "tool_result" in asked and answers[-1][0]["type"] != "thinking":
            return "Expected `thinking` or `redacted_thinking`, but found `tool_use`."
        return None


class ResponsesSpeaker(Speaker):
    """OpenAI's Responses API: a history of items, with reasoning that it wants back in its place, and no field that it does not know."""

    name = "openai-responses"
    item_fields: ClassVar[Mapping[str, frozenset[str]]] = {
        "message": frozenset({"type", "role", "content", "phase", "id", "status"}),
        "function_call": frozenset({"type", "id", "call_id", "name", "arguments", "status"}),
        "function_call_output": frozenset({"type", "id", "call_id", "output", "status"}),
        "reasoning": frozenset({"type", "id", "summary", "content", "encrypted_content", "status"}),
    }
    """By the type of an item: the fields that the server takes."""

    def says(self, *pieces: str) -> Reply:
        return responses_reply(responses_message(*pieces, phase="final_answer"))

    def asks(self, *calls: AskedCall, thought: str = "") -> Reply:
        thoughts = [responses_reasoning(thought, seal=SEAL)] if thought else []
        made = [
            responses_call(call.call_id, call.name, *_halves(call.arguments), item_id=f"fc_{'thought' if thought else 'quick'}_{number}")
            for number, call in enumerate(calls)
        ]
        return responses_reply(*thoughts, *made)

    def breaks_off(self, *pieces: str) -> Reply:
        error = {"code": "server_error", "message": "The model failed."}
        return responses_reply(responses_message(*pieces), status="failed", error=error)

    def refuses(self, body: JSON) -> str | None:
        if body.get("store") is not False:
            return "this organisation keeps nothing"
        due: list[str] = []
        sealed = False
        for item in body["input"]:
            kind = item.get("type", "message")
            unknown = set(item) - self.item_fields.get(kind, frozenset())
            if unknown:
                return f"Unknown parameter: 'input[0].{min(unknown)}'."
            if kind == "function_call_output":
                if item["call_id"] not in due:
                    return f"No tool call found for function call output with call_id {item['call_id']}."
                due.remove(item["call_id"])
            elif due and kind != "function_call":
                return f"No tool output found for function call {due[0]}."
            if kind == "reasoning":
                sealed = item.get("encrypted_content") == SEAL
                if not sealed:
                    return "The encrypted content could not be verified."
            if kind == "function_call":
                due.append(item["call_id"])
                why = self._refuses_item(item, is_sealed=sealed)
                if why is not None:
                    return why
            elif kind == "message":
                sealed = False
        return f"No tool output found for function call {due[0]}." if due else None

    def _refuses_item(self, call: JSON, *, is_sealed: bool) -> str | None:
        if str(call.get("id", "")).startswith("fc_thought") and not is_sealed:
            return f"Item '{call['id']}' of type 'function_call' was provided without its required 'reasoning' item: 'rs_1'."
        return None if isinstance(json.loads(call["arguments"]), dict) else "the arguments of a call are not an object"


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


SPEAKERS: Final[Mapping[str, Speaker]] = {
    speaker.name: speaker
    for speaker in (
        Speaker(),
        AzureSpeaker(),
        OpenRouterSpeaker(),
        GroqSpeaker(),
        GeminiSpeaker(),
        DeepSeekSpeaker(),
        MistralSpeaker(),
        VllmSpeaker(),
        SglangSpeaker(),
        LlamaCppSpeaker(),
        LmStudioSpeaker(),
        OllamaSpeaker(),
        LiteLlmSpeaker(),
        AnthropicSpeaker(),
        ResponsesSpeaker(),
    )
}
"""Every speaker, by the name of its dialect."""

"""Answers in the words of the two protocols: Anthropic's messages, and OpenAI's chat completions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.testing._local_server import Reply


def sse(data: JSONValue, name: str | None = None) -> bytes:
    """Return one server-sent event, as bytes."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


# ── Anthropic ────────────────────────────────────────────────────────────────────────────────────────────────────────

Block: TypeAlias = tuple[dict[str, JSONValue], Sequence[dict[str, JSONValue]]]
"""The beginning of a content block, and its deltas."""


def text(*pieces: str) -> Block:
    """Return a text block."""
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]


def thinking(*pieces: str, signature: str = "c2ln") -> Block:
    """Return a thinking block with its signature."""
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, {"type": "signature_delta", "signature": signature}]


def tool_use(call_id: str, name: str, *pieces: str) -> Block:
    """Return a tool call whose arguments come in these pieces of JSON."""
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return {"type": "tool_use", "id": call_id, "name": name, "input": {}}, deltas


def anthropic_events(
    *blocks: Block,
    stop_reason: str = "end_turn",
    usage: Mapping[str, int] | None = None,
    output_tokens: int = 7,
) -> list[bytes]:
    """Return the events of one answer, in the API's own order, a ping among them."""
    counts = {"input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1, **(usage or {})}
    message: dict[str, JSONValue] = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counts,
    }
    events = [sse({"type": "message_start", "message": message}, "message_start")]
    for index, (start, deltas) in enumerate(blocks):
        events.append(sse({"type": "content_block_start", "index": index, "content_block": start}, "content_block_start"))
        if index == 0:
            events.append(sse({"type": "ping"}, "ping"))
        events += [sse({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta") for delta in deltas]
        events.append(sse({"type": "content_block_stop", "index": index}, "content_block_stop"))
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    events.append(sse({"type": "message_delta", "delta": delta, "usage": {"output_tokens": output_tokens}}, "message_delta"))
    return [*events, sse({"type": "message_stop"}, "message_stop")]


def anthropic_reply(*blocks: Block, **how: JSONValue) -> Reply:
    """Return a whole answer of Anthropic's Messages API; arguments as of `anthropic_events`."""
    return Reply(anthropic_events(*blocks, **how))


def anthropic_error(kind: str, message: str) -> dict[str, JSONValue]:
    """Return the body of an error, as with a status and as in an error event."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_01"}


# ── OpenAI ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def call_deltas(index: int, call_id: str, name: str, *pieces: str) -> list[dict[str, JSONValue]]:
    """Return the deltas of a tool call whose arguments come in these pieces of JSON."""
    first = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
    return [{"tool_calls": [piece]} for piece in (first, *rest)]


def openai_chunk(choices: Iterable[JSONValue], **more: JSONValue) -> bytes:
    """Return one event of a streamed completion."""
    return sse({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt", "choices": list(choices), **more})


def openai_events(
    *deltas: JSON,
    finish_reason: str | None = "stop",
    usage: JSON | None = None,
    done: bool = True,
) -> list[bytes]:
    """Return the events of one answer: the role, the deltas, the finish, the usage, and the closing mark."""
    every = [{"role": "assistant", "content": ""}, *deltas]
    events = [openai_chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}], usage=None) for delta in every]
    if finish_reason is not None:
        events.append(openai_chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish_reason}], usage=None))
    counts = usage or {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    events.append(openai_chunk([], usage=dict(counts)))
    return [*events, *([sse("[DONE]")] if done else [])]


def openai_reply(*deltas: JSON, **how: JSONValue) -> Reply:
    """Return a whole answer of the chat completions API; arguments as of `openai_events`."""
    return Reply(openai_events(*deltas, **how))


# ── OpenAI's Responses API ───────────────────────────────────────────────────────────────────────────────────────────


def responses_message(*pieces: str, phase: str | None = None) -> dict[str, JSONValue]:
    """Return an item of text that comes in these pieces."""
    content = [{"type": "output_text", "text": "".join(pieces), "annotations": [], "logprobs": []}]
    item: dict[str, JSONValue] = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
    return {**item, "pieces": list(pieces), **({} if phase is None else {"phase": phase})}


def responses_call(call_id: str, name: str, *pieces: str, item_id: str = "fc_1") -> dict[str, JSONValue]:
    """Return an item that calls a tool, whose arguments come in these pieces of JSON."""
    item = {"id": item_id, "type": "function_call", "status": "completed", "call_id": call_id, "name": name}
    return {**item, "arguments": "".join(pieces), "pieces": list(pieces)}


def responses_reasoning(*pieces: str, seal: str = "c2ln", item_id: str = "rs_1") -> dict[str, JSONValue]:
    """Return an item of reasoning, with a summary that comes in these pieces."""
    summary = [{"type": "summary_text", "text": "".join(pieces)}] if pieces else []
    return {"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": seal, "pieces": list(pieces)}


_DELTAS = {
    "message": "response.output_text.delta",
    "function_call": "response.function_call_arguments.delta",
    "reasoning": "response.reasoning_summary_text.delta",
}


def responses_events(
    *items: Mapping[str, JSONValue],
    status: str = "completed",
    reason: str | None = None,
    usage: JSON | None = None,
    **more: JSONValue,
) -> list[bytes]:
    """Return the events of one answer of the Responses API, in its own order.

    Args:
        items: from `responses_message`, `responses_call` and `responses_reasoning`, or any others, which come whole.
        status: of the response.
        reason: why it is incomplete.
        usage: what it cost.
        more: further fields of the response.
    """
    response: dict[str, JSONValue] = {"id": "resp_1", "object": "response", "model": "gpt", "status": "in_progress", "output": []}
    events = [_responses_event("response.created", response=response), _responses_event("response.in_progress", response=response)]
    whole: list[JSONValue] = []
    for index, given in enumerate(items):
        item = {key: value for key, value in given.items() if key != "pieces"}
        whole.append(item)
        begun = {key: value for key, value in item.items() if key not in {"content", "encrypted_content"}}
        begun |= {key: "" for key in ("arguments",) if key in item} | {"status": "in_progress"}
        begun |= {key: [] for key in ("summary",) if key in item}
        place: dict[str, JSONValue] = {"item_id": given.get("id"), "output_index": index, "content_index": 0}
        is_text = given["type"] == "message"
        part = _responses_event("response.content_part.added", **place, part={"type": "output_text", "text": ""}) if is_text else b""
        events.append(_responses_event("response.output_item.added", output_index=index, item=begun) + part)
        delta = _DELTAS.get(str(given["type"]), "")
        events += [_responses_event(delta, **place, delta=piece) for piece in given.get("pieces", ())]
        if is_text:
            events.append(_responses_event("response.output_text.done", **place, text="".join(map(str, given.get("pieces", ())))))
        events.append(_responses_event("response.output_item.done", output_index=index, item=item))
    counts = usage or {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 3}, "output_tokens": 7, "total_tokens": 18}
    details = None if reason is None else {"reason": reason}
    ended = {**response, "status": status, "output": whole, "usage": dict(counts), "incomplete_details": details, **more}
    return [*events, _responses_event(f"response.{status}", response=ended)]


def _responses_event(kind: str, **fields: JSONValue) -> bytes:
    return sse({"type": kind, "sequence_number": 1, **fields}, kind)


def responses_reply(*items: Mapping[str, JSONValue], **how: JSONValue) -> Reply:
    """Return a whole answer of the Responses API; arguments as of `responses_events`."""
    return Reply(responses_events(*items, **how))

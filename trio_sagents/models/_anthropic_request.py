"""A model request as the body of Anthropic's Messages API."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import FilePart, ImagePart, OpaquePart, TextPart, ThinkingPart, ToolCall, ToolResult, UserPart
from trio_sagents.data.requests import ModelRequest
from trio_sagents.models._fields import whole_text
from trio_sagents.models._history import Answered, AnswerPart, History, Spoken, result_text, shape_history
from trio_sagents.models._parts import file_note, file_text, image_data, image_note, image_url, pdf_data
from trio_sagents.models._thinking import Thinking

PROVIDER: Final = "anthropic"
"""Who gets back what Anthropic gave out: its API, and the clouds that offer it."""
REDACTED_MARK: Final = "redacted_thinking:"
"""In histories of earlier releases: the beginning of the signature of a `ThinkingPart` that holds encrypted thinking."""
CITATIONS: Final = "citations"
"""The type of an opaque part with the citations of the text before it."""

CacheTime: TypeAlias = Literal["5m", "1h"]

_MAX_ID: Final = 64
_MAX_TITLE: Final = 500
"""The longest title of a document that the API takes."""
_CACHE_POINTS: Final = 4
"""Cache points that the API takes in one request."""
_MIN_BUDGET: Final = 1024
_THINKING_BLOCKS: Final = frozenset({"thinking", "redacted_thinking"})


def anthropic_body(
    name: str, request: ModelRequest, max_tokens: int, settings: JSON, *, provider: str | None = None, cache: CacheTime | None = None
) -> dict[str, JSONValue]:
    """Return the body of a streamed request.

    Args:
        name: of the model.
        request: its history may be any; the body is valid all the same.
        max_tokens: unless the settings say otherwise.
        settings: of the model and the request, merged; checked.
        provider: who is asked; what only other providers can read is left out. None leaves nothing out.
        cache: how long the provider keeps the beginning of the request, so that the next one costs less; None asks for no cache.
    """
    history = shape_history(request.system, request.messages, _fit_id, {tool.name for tool in request.tools}, provider)
    body: dict[str, JSONValue] = {"model": name, "max_tokens": max_tokens, "stream": True, "messages": _messages(history)}
    if history.system:
        body["system"] = history.system
    body.update(_tools(request, history))
    body.update(settings)
    if _lacks_thinking(history, body):
        del body["thinking"]
    if cache is not None:
        _mark_for_cache(body, cache)
    return body


def anthropic_thinking(thinking: Thinking | None, max_tokens: int) -> JSON:
    """Return the fields of a request that say how much to think. ValueError if the API has no words for it."""
    if thinking is None:
        return {}
    fields: dict[str, JSONValue] = {}
    if thinking.effort == "minimal":
        raise ValueError("Anthropic has no effort 'minimal'; use 'low'")
    if thinking.budget_tokens is not None:
        if not _MIN_BUDGET <= thinking.budget_tokens < max_tokens:
            raise ValueError(
                f"Thinking.budget_tokens must be at least {_MIN_BUDGET} and less than max_tokens ({max_tokens}),"
                f" not {thinking.budget_tokens}"
            )
        if thinking.effort == "none":
            raise ValueError("Thinking has an effort of 'none' and a budget; give one of the two")
        fields["thinking"] = {"type": "enabled", "budget_tokens": thinking.budget_tokens}
    elif thinking.effort == "none":
        return {"thinking": {"type": "disabled"}}
    else:
        fields["thinking"] = {"type": "adaptive"}
    if thinking.effort is not None:
        fields["output_config"] = {"effort": thinking.effort}
    return fields


def _fit_id(call_id: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call_id)[:_MAX_ID] or "call"


def _messages(history: History) -> list[dict[str, JSONValue]]:
    messages: list[dict[str, JSONValue]] = []
    asked: list[JSON] = []
    for turn in history.turns:
        if isinstance(turn, Spoken):
            asked.extend(_user_block(part) for part in turn.parts)
            continue
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": _answer_blocks(turn)})
        asked = [_result_block(result) for result in turn.results]
    if asked:  # else the last answer is one that the API has paused, and continues
        messages.append({"role": "user", "content": asked})
    return messages


def _result_block(result: ToolResult) -> JSON:
    text = result_text(result)
    content: JSONValue = text
    if result.media:
        content = [{"type": "text", "text": text}, *(_user_block(part) for part in result.media)]
    return {"type": "tool_result", "tool_use_id": result.call_id, "content": content, "is_error": result.is_error}


def _user_block(part: UserPart) -> JSON:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart():
            return _image_block(part) or {"type": "text", "text": image_note(part)}
        case FilePart():
            return _image_block(part) or _file_block(part)


def _image_block(part: ImagePart | FilePart) -> JSON | None:
    image = image_data(part)
    if image is not None:
        return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": image.data}}
    url = image_url(part) if isinstance(part, ImagePart) else None
    return None if url is None else {"type": "image", "source": {"type": "url", "url": url}}


def _file_block(file: FilePart) -> JSON:
    name = whole_text(file.name).strip()[:_MAX_TITLE]
    title = {"title": name} if name else {}
    pdf = pdf_data(file)
    if pdf is not None:
        return {"type": "document", "source": {"type": "base64", "media_type": pdf.media_type, "data": pdf.data}, **title}
    text = file_text(file)
    if text is not None:
        return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}, **title}
    return {"type": "text", "text": file_note(file)}


def _answer_blocks(turn: Answered) -> list[dict[str, JSONValue]]:
    blocks: list[dict[str, JSONValue]] = []
    for part in turn.parts:
        if isinstance(part, OpaquePart) and part.data.get("type") == CITATIONS:
            if blocks and blocks[-1]["type"] == "text":
                blocks[-1]["citations"] = part.data.get("citations")
        elif (block := _answer_block(part)) is not None:
            blocks.append(block)
    while blocks[-1]["type"] in _THINKING_BLOCKS:  # the API refuses an answer that ends with thinking
        blocks.pop()
    return blocks


def _answer_block(part: AnswerPart) -> dict[str, JSONValue] | None:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ThinkingPart(text=text, signature=signature):
            if not signature:
                return None
            if signature.startswith(REDACTED_MARK):
                return {"type": "redacted_thinking", "data": signature.removeprefix(REDACTED_MARK)}
            return {"type": "thinking", "thinking": whole_text(text), "signature": signature}
        case OpaquePart(data=data):
            return dict(data) if isinstance(data.get("type"), str) else None
        case ToolCall(call_id=call_id, name=name, arguments=arguments):
            return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def _tools(request: ModelRequest, history: History) -> JSON:
    tools: list[JSON] = [
        {
            "name": tool.name,
            **({"description": tool.description} if tool.description.strip() else {}),
            "input_schema": {"type": "object", **tool.parameters},
        }
        for tool in request.tools
    ]
    if tools:
        return {"tools": tools}
    # The API refuses a history with calls in it if no tools are given: those of the past are named, and not offered.
    past = {call.name: None for turn in history.turns if isinstance(turn, Answered) for call in turn.calls}
    if not past:
        return {}
    gone: list[JSON] = [{"name": name, "description": "Not available any more.", "input_schema": {"type": "object"}} for name in past]
    return {"tools": gone, "tool_choice": {"type": "none"}}


def _lacks_thinking(history: History, body: Mapping[str, JSONValue]) -> bool:
    """Return whether thinking is asked for in the middle of a turn that was begun without.

    The API refuses that. It happens if another model made the calls whose results go out now.
    """
    thinking = body.get("thinking")
    if not isinstance(thinking, Mapping) or thinking.get("type") != "enabled":
        return False
    last = next((turn for turn in reversed(history.turns) if isinstance(turn, Answered)), None)
    if last is None or not last.calls:
        return False
    first = next(iter(_answer_blocks(last)))
    return first["type"] not in _THINKING_BLOCKS


def _mark_for_cache(body: dict[str, JSONValue], cache: CacheTime) -> None:
    """Mark where the beginning of the request is to be cached: behind the tools, the prompt, and the last two messages of people.

    The next request begins with all of this one up to its last message, and finds what was cached behind it. The mark before is for a
    turn with many parallel calls: the API looks back twenty blocks only.
    """
    # The host's own automatic cache point, a top-level `cache_control`, takes one of the four.
    left = _CACHE_POINTS - (1 if "cache_control" in body else 0)
    mark: JSON = {"type": "ephemeral"} if cache == "5m" else {"type": "ephemeral", "ttl": cache}
    if isinstance(body.get("system"), str):
        body["system"] = [{"type": "text", "text": body["system"]}]
    for blocks in _cached(body):
        if left and blocks and blocks[-1].get("type") not in _THINKING_BLOCKS:
            blocks[-1] = {**blocks[-1], "cache_control": mark}
            left -= 1


def _cached(body: Mapping[str, JSONValue]) -> Iterator[list[JSON]]:
    asked: Sequence[JSON] = [message for message in body["messages"] if message["role"] == "user"]
    yield asked[-1]["content"]
    for name in ("system", "tools"):
        if name in body:
            yield body[name]
    if len(asked) > 1:
        yield asked[-2]["content"]

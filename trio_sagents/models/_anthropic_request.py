"""A model request as the body of Anthropic's Messages API."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import FilePart, ImagePart, TextPart, ThinkingPart, ToolCall, UserPart
from trio_sagents.data.requests import ModelRequest
from trio_sagents.models._fields import whole_text
from trio_sagents.models._history import Answered, AnswerPart, History, Spoken, result_text, shape_history
from trio_sagents.models._parts import file_note, file_text, image_data, image_note, image_url, pdf_data

REDACTED_MARK: Final = "redacted_thinking:"
"""Begins the signature of a `ThinkingPart` that stands for thinking which the provider sent encrypted."""

_MAX_ID: Final = 64
_MAX_TITLE: Final = 500
"""The longest title of a document that the API takes."""


def anthropic_body(name: str, request: ModelRequest, max_tokens: int, settings: JSON) -> dict[str, JSONValue]:
    """Return the body of a streamed request.

    Args:
        name: of the model.
        request: its history may be any; the body is valid all the same.
        max_tokens: unless the settings say otherwise.
        settings: of the model and the request, merged; checked.
    """
    history = shape_history(request.system, request.messages, _fit_id, {tool.name for tool in request.tools})
    body: dict[str, JSONValue] = {"model": name, "max_tokens": max_tokens, "stream": True, "messages": _messages(history)}
    if history.system:
        body["system"] = history.system
    body.update(_tools(request, history))
    body.update(settings)
    if _lacks_thinking(history, body):
        del body["thinking"]
    return body


def _fit_id(call_id: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call_id)[:_MAX_ID] or "call"


def _messages(history: History) -> list[JSON]:
    messages: list[JSON] = []
    asked: list[JSON] = []
    for turn in history.turns:
        if isinstance(turn, Spoken):
            asked.extend(_user_block(part) for part in turn.parts)
            continue
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": list(_answer_blocks(turn))})
        asked = [
            {"type": "tool_result", "tool_use_id": result.call_id, "content": result_text(result), "is_error": result.is_error}
            for result in turn.results
        ]
    messages.append({"role": "user", "content": asked})
    return messages


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


def _answer_blocks(turn: Answered) -> Iterator[JSON]:
    for part in turn.parts:
        block = _answer_block(part)
        if block is not None:
            yield block


def _answer_block(part: AnswerPart) -> JSON | None:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ThinkingPart(text=text, signature=signature):
            if not signature:
                return None
            if signature.startswith(REDACTED_MARK):
                return {"type": "redacted_thinking", "data": signature.removeprefix(REDACTED_MARK)}
            return {"type": "thinking", "thinking": whole_text(text), "signature": signature}
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
    # The API refuses a history with calls in it where no tools are given: those of the past are named, and not offered.
    past = {call.name: None for turn in history.turns if isinstance(turn, Answered) for call in turn.calls}
    if not past:
        return {}
    gone: list[JSON] = [{"name": name, "description": "Not available any more.", "input_schema": {"type": "object"}} for name in past]
    return {"tools": gone, "tool_choice": {"type": "none"}}


def _lacks_thinking(history: History, body: Mapping[str, JSONValue]) -> bool:
    """Return whether thinking is asked for in the middle of a turn that was begun without.

    The API refuses that. It happens where another model made the calls whose results go out now.
    """
    thinking = body.get("thinking")
    if not isinstance(thinking, Mapping) or thinking.get("type") != "enabled":
        return False
    last = next((turn for turn in reversed(history.turns) if isinstance(turn, Answered)), None)
    if last is None or not last.calls:
        return False
    first = last.parts[0]
    return not (isinstance(first, ThinkingPart) and first.signature)

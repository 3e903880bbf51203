"""A model request as the body of the chat completions API, as OpenAI and local servers take it."""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import FilePart, ImagePart, TextPart, ThinkingPart, ToolResult, UserPart
from trio_sagents.data.requests import ModelRequest
from trio_sagents.models._fields import whole_text
from trio_sagents.models._history import Answered, History, Spoken, result_text, shape_history
from trio_sagents.models._parts import file_note, file_text, image_data, image_note, image_url, pdf_data

MAX_ID: Final = 40
"""The longest id of a call that OpenAI takes."""


def openai_body(name: str, request: ModelRequest, settings: JSON, reasoning_field: str | None = None) -> dict[str, JSONValue]:
    """Return the body of a streamed request.

    Args:
        name: of the model.
        request: its history may be any; the body is valid all the same.
        settings: of the model and the request, merged; checked.
        reasoning_field: the field of an assistant message in which its thinking goes back; None sends none.
    """
    history = shape_history(request.system, request.messages, _fit_id, {tool.name for tool in request.tools})
    body: dict[str, JSONValue] = {
        "model": name,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": _messages(history, reasoning_field),
    }
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": {"type": "object", **tool.parameters}},
            }
            for tool in request.tools
        ]
    body.update(settings)
    return body


def _fit_id(call_id: str) -> str:
    call_id = whole_text(call_id)
    if len(call_id) > MAX_ID:
        return f"call_{hashlib.sha256(call_id.encode()).hexdigest()[:24]}"
    return call_id or "call"


def _messages(history: History, reasoning_field: str | None) -> list[JSON]:
    messages: list[JSON] = [{"role": "system", "content": history.system}] if history.system else []
    for turn in history.turns:
        if isinstance(turn, Spoken):
            messages.append({"role": "user", "content": _user_content(turn.parts)})
        else:
            messages.append(_assistant_message(turn, reasoning_field))
            messages.extend(_tool_message(result) for result in turn.results)
    return messages


def _user_content(parts: Sequence[UserPart]) -> str | list[JSON]:
    blocks = [_user_block(part) for part in parts]
    if all(block["type"] == "text" for block in blocks):
        # Local servers' templates often take only text that is not in a list.
        return "\n\n".join(block["text"] for block in blocks)
    return blocks


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
    url = image.url if image is not None else image_url(part) if isinstance(part, ImagePart) else None
    return None if url is None else {"type": "image_url", "image_url": {"url": url}}


def _file_block(file: FilePart) -> JSON:
    name = whole_text(file.name) if file.name.strip() else "file"
    pdf = pdf_data(file)
    if pdf is not None:
        return {"type": "file", "file": {"filename": name, "file_data": pdf.url}}
    text = file_text(file)
    if text is not None:
        return {"type": "text", "text": f"<file name={json.dumps(name, ensure_ascii=False)}>\n{text}\n</file>"}
    return {"type": "text", "text": file_note(file)}


def _assistant_message(turn: Answered, reasoning_field: str | None) -> JSON:
    texts = [part.text for part in turn.parts if isinstance(part, TextPart)]
    message: dict[str, JSONValue] = {"role": "assistant", "content": "\n\n".join(texts) if texts else None}
    thoughts = [whole_text(part.text) for part in turn.parts if isinstance(part, ThinkingPart) and part.text.strip()]
    if reasoning_field is not None and thoughts:
        message[reasoning_field] = "\n\n".join(thoughts)
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in turn.calls
        ]
    return message


def _tool_message(result: ToolResult) -> JSON:
    text = result_text(result)
    # The API has no mark for a failed call, so the text has to say it.
    if result.is_error and not text.lower().startswith("error"):
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": result.call_id, "content": text}

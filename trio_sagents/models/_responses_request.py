"""A model request as the body of OpenAI's Responses API.

Nothing is kept by the provider (`store` is false): each request has the whole history, as items. Reasoning goes back as the items that
came, encrypted, in their place among the calls. What a model says before its answer is an item with the phase "commentary".
"""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import FilePart, ImagePart, OpaquePart, TextPart, ThinkingPart, ToolCall, ToolResult, UserPart
from trio_sagents.data.requests import ModelRequest
from trio_sagents.models._fields import whole_text
from trio_sagents.models._history import Answered, Spoken, result_text, shape_history
from trio_sagents.models._openai_request import fit_id
from trio_sagents.models._parts import file_note, file_text, image_data, image_note, image_url, pdf_data
from trio_sagents.models._thinking import Thinking

PHASE: Final = "phase"
"""The type of an opaque part that says which phase the text after it has."""
COMMENTARY: Final = "commentary"
FINAL: Final = "final_answer"


def responses_body(name: str, request: ModelRequest, settings: JSON, provider: str | None = None) -> dict[str, JSONValue]:
    """Return the body of a streamed request.

    Args:
        name: of the model.
        request: its history may be any; the body is valid all the same.
        settings: of the model and the request, merged; checked.
        provider: who is asked; what only other providers can read is left out. None leaves nothing out.
    """
    history = shape_history(request.system, request.messages, fit_id, {tool.name for tool in request.tools}, provider)
    body: dict[str, JSONValue] = {"model": name, "stream": True, "store": False, "include": ["reasoning.encrypted_content"]}
    if history.system:
        body["instructions"] = history.system
    body["input"] = [item for turn in history.turns for item in (_spoken(turn) if isinstance(turn, Spoken) else _answered(turn))]
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": {"type": "object", **tool.parameters},
                "strict": False,
            }
            for tool in request.tools
        ]
    body.update(settings)
    return body


def responses_thinking(thinking: Thinking | None) -> JSON:
    """Return the fields of a request that say how much to think. ValueError if the API has no words for it."""
    if thinking is None:
        return {}
    if thinking.budget_tokens is not None:
        raise ValueError("the Responses API does not support a budget for thinking; give Thinking(effort=...)")
    return {"reasoning": {"effort": thinking.effort, "summary": "auto"}}


def _spoken(turn: Spoken) -> Iterator[JSON]:
    yield {"role": "user", "content": [_user_block(part) for part in turn.parts]}


def _user_block(part: UserPart) -> JSON:
    match part:
        case TextPart(text=text):
            return {"type": "input_text", "text": text}
        case ImagePart():
            return _image_block(part) or {"type": "input_text", "text": image_note(part)}
        case FilePart():
            return _image_block(part) or _file_block(part)


def _image_block(part: ImagePart | FilePart) -> JSON | None:
    image = image_data(part)
    url = image.url if image is not None else image_url(part) if isinstance(part, ImagePart) else None
    return None if url is None else {"type": "input_image", "image_url": url, "detail": "auto"}


def _file_block(file: FilePart) -> JSON:
    name = whole_text(file.name) if file.name.strip() else "file"
    pdf = pdf_data(file)
    if pdf is not None:
        return {"type": "input_file", "filename": name, "file_data": pdf.url}
    text = file_text(file)
    if text is not None:
        return {"type": "input_text", "text": f"<file name={json.dumps(name, ensure_ascii=False)}>\n{text}\n</file>"}
    return {"type": "input_text", "text": file_note(file)}


def _answered(turn: Answered) -> Iterator[JSON]:
    """Yield the items of an answer, in the order in which they came, then the results of its calls."""
    phase: JSONValue = None
    texts: list[TextPart] = []
    for part in turn.parts:
        match part:
            case TextPart():
                if texts and texts[-1].kind != part.kind:
                    yield _message(texts, phase)
                    texts, phase = [], None
                texts.append(part)
                continue
            case ThinkingPart():
                continue  # a summary for people; the reasoning itself goes back as it came
            case OpaquePart(data=data) if data.get("type") == PHASE:
                if texts:
                    yield _message(texts, phase)
                texts, phase = [], data.get("phase")
                continue
        if texts:
            yield _message(texts, phase)
            texts, phase = [], None
        match part:
            case OpaquePart(data=data):
                yield dict(data)
            case ToolCall():
                yield _call(part)
    if texts:
        yield _message(texts, phase)
    yield from (_result(result) for result in turn.results)


def _message(texts: Sequence[TextPart], phase: JSONValue) -> JSON:
    if phase is None and texts[0].kind is not None:
        phase = COMMENTARY
    content = [{"type": "output_text", "text": "".join(part.text for part in texts), "annotations": []}]
    message: JSON = {"type": "message", "role": "assistant", "content": content}
    return message if phase is None else {**message, "phase": phase}


def _call(call: ToolCall) -> JSON:
    extras = {} if call.opaque is None else {"id": call.opaque.data["id"]} if isinstance(call.opaque.data.get("id"), str) else {}
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"type": "function_call", **extras, "call_id": call.call_id, "name": call.name, "arguments": arguments}


def _result(result: ToolResult) -> JSON:
    text = result_text(result)
    # The API has no mark for a failed call, so the text has to say it.
    if result.is_error and not text.lower().startswith("error"):
        text = f"Error: {text}"
    output: JSONValue = text
    if result.media:
        output = [{"type": "input_text", "text": text}, *(_user_block(part) for part in result.media)]
    return {"type": "function_call_output", "call_id": result.call_id, "output": output}

"""A model request as the body of the chat completions API, in the dialect of the server that is asked."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import FilePart, ImagePart, OpaquePart, TextPart, ThinkingPart, ToolCall, ToolResult, UserPart
from trio_sagents.data.requests import ModelRequest
from trio_sagents.models._dialects import DIALECTS, Dialect
from trio_sagents.models._fields import whole_text
from trio_sagents.models._history import Answered, AnswerPart, History, Spoken, Turn, result_text, shape_history
from trio_sagents.models._openai_extras import KNOWN_EXTRAS
from trio_sagents.models._parts import file_note, file_text, image_data, image_note, image_url, pdf_data

MAX_ID: Final = 40
"""The longest id of a call that OpenAI takes."""
BETWEEN_TEXT: Final = "(The results are above.)"
"""Stands for the model if a person speaks right after a result, and the server does not take that."""

_NINE: Final = re.compile(r"[a-zA-Z0-9]{9}")
_OWN_FIELDS: Final = frozenset({"role", "content", "tool_calls", "id", "type", "index"})
"""Fields that nothing of a server's replaces."""


@attrs.frozen
class Speech:
    """How a request is written for one server."""

    dialect: Dialect = DIALECTS["compatible"]
    provider: str | None = None
    """Who is asked; what only other providers can read is left out. None leaves nothing out."""
    reasoning_field: str | None = None
    """The field of an assistant message in which all thinking goes back. None: each thought goes back in the field that it came in, to the
    provider that gave it, and only until a person speaks again."""


def openai_body(name: str, request: ModelRequest, settings: JSON, speech: Speech | None = None) -> dict[str, JSONValue]:
    """Return the body of a streamed request.

    Args:
        name: of the model.
        request: its history may be any; the body is valid all the same.
        settings: of the model and the request, merged; checked.
        speech: None is that of a server of which nothing is known.
    """
    speech = speech or Speech()
    fitting = _nine if speech.dialect.call_ids == "nine" else fit_id
    history = shape_history(request.system, request.messages, fitting, {tool.name for tool in request.tools}, speech.provider)
    body: dict[str, JSONValue] = {"model": name, "stream": True}
    if speech.dialect.has_stream_options:
        body["stream_options"] = {"include_usage": True}
    body["messages"] = list(_messages(history, speech))
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


def fit_id(call_id: str) -> str:
    """Return an id of a call as OpenAI takes it: the given id, unless it is too long or empty."""
    call_id = whole_text(call_id)
    if len(call_id) > MAX_ID:
        return f"call_{hashlib.sha256(call_id.encode()).hexdigest()[:24]}"
    return call_id or "call"


def _nine(call_id: str) -> str:
    """Return an id of nine letters and digits: the given id, if it has that form."""
    if _NINE.fullmatch(call_id):
        return call_id
    return hashlib.sha256(whole_text(call_id).encode()).hexdigest()[:9]


def _messages(history: History, speech: Speech) -> Iterator[JSON]:
    if history.system:
        yield {"role": "system", "content": history.system}
    present = history.present
    before: Turn | None = None
    for place, turn in enumerate(history.turns):
        following = history.turns[place + 1] if place + 1 < len(history.turns) else None
        if isinstance(turn, Spoken):
            media = [] if speech.dialect.images_in_results else _media_of(before)
            if isinstance(before, Answered) and before.calls and speech.dialect.needs_answer_before_user:
                yield {"role": "assistant", "content": BETWEEN_TEXT}
            yield {"role": "user", "content": _user_content([*media, *turn.parts], speech.dialect)}
        else:
            yield _assistant_message(turn, speech, is_present=place >= present)
            yield from (_tool_message(result, speech.dialect) for result in turn.results)
            media = [] if speech.dialect.images_in_results else _media_of(turn)
            if media and not isinstance(following, Spoken):
                yield {"role": "user", "content": _user_content(media, speech.dialect)}
        before = turn


def _media_of(turn: Turn | None) -> list[UserPart]:
    """Return the images and files of the results of an answer, each group under a line that says whose it is."""
    found: list[UserPart] = []
    for result in turn.results if isinstance(turn, Answered) else ():
        if result.media:
            found += [TextPart(f"(Output of the tool {result.name}, call {result.call_id}:)"), *result.media]
    return found


def _user_content(parts: Sequence[UserPart], dialect: Dialect) -> str | list[JSON]:
    blocks = [_user_block(part, dialect) for part in parts]
    if all(block["type"] == "text" for block in blocks):
        # Local servers' templates often take only text that is not in a list.
        return "\n\n".join(block["text"] for block in blocks)
    return blocks


def _user_block(part: UserPart, dialect: Dialect) -> JSON:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart():
            return _image_block(part, dialect) or {"type": "text", "text": image_note(part)}
        case FilePart():
            return _image_block(part, dialect) or _file_block(part, dialect)


def _image_block(part: ImagePart | FilePart, dialect: Dialect) -> JSON | None:
    if not dialect.takes_images:
        return None
    image = image_data(part)
    url = image.url if image is not None else image_url(part) if isinstance(part, ImagePart) else None
    return None if url is None else {"type": "image_url", "image_url": {"url": url}}


def _file_block(file: FilePart, dialect: Dialect) -> JSON:
    name = whole_text(file.name) if file.name.strip() else "file"
    pdf = pdf_data(file) if dialect.takes_files else None
    if pdf is not None:
        return {"type": "file", "file": {"filename": name, "file_data": pdf.url}}
    text = file_text(file)
    if text is not None:
        return {"type": "text", "text": f"<file name={json.dumps(name, ensure_ascii=False)}>\n{text}\n</file>"}
    return {"type": "text", "text": file_note(file)}


def _assistant_message(turn: Answered, speech: Speech, *, is_present: bool) -> JSON:
    message: dict[str, JSONValue] = {"role": "assistant", "content": _said(turn, speech, is_present=is_present)}
    for part in turn.parts:
        if isinstance(part, OpaquePart):
            for name, value in _returned(part.data, speech).items():
                present = message.get(name)
                message[name] = [*present, *value] if isinstance(present, list) and isinstance(value, list) else value
    if "reasoning_details" not in message:  # they hold the same thoughts
        message.update(_thoughts(turn, speech, is_present=is_present))
    if turn.calls:
        message["tool_calls"] = [_call(call, speech) for call in turn.calls]
    return message


def _said(turn: Answered, speech: Speech, *, is_present: bool) -> JSONValue:
    """Return the content of an assistant message: its text as it was said, with the thinking that stood among it."""
    in_content = [part for part in turn.parts if isinstance(part, ThinkingPart) and part.field == "content"]
    if is_present and in_content and speech.reasoning_field is None:
        return [block for part in turn.parts if (block := _content_block(part)) is not None]
    texts = ["".join(part.text for part in parts if isinstance(part, TextPart)) for parts in turn.messages]
    return "\n\n".join(text for text in texts if text) or None


def _content_block(part: AnswerPart) -> JSON | None:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ThinkingPart(text=text, field="content"):
            return {"type": "thinking", "thinking": [{"type": "text", "text": whole_text(text)}]}
        case _:
            return None


def _thoughts(turn: Answered, speech: Speech, *, is_present: bool) -> dict[str, JSONValue]:
    """Return the thinking that goes back in fields of its own."""
    thoughts = [part for part in turn.parts if isinstance(part, ThinkingPart)]
    if speech.reasoning_field is not None:
        texts = [whole_text(part.text) for part in thoughts if part.text.strip()]
        return {speech.reasoning_field: "\n\n".join(texts)} if texts else {}
    fields: dict[str, JSONValue] = {}
    for part in thoughts:
        # In later turns nobody needs it, and some servers refuse it.
        if is_present and part.field not in {None, "content"} and part.provider is not None:
            fields[part.field] = fields.get(part.field, "") + whole_text(part.text)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return fields


def _call(call: ToolCall, speech: Speech) -> JSON:
    function: dict[str, JSONValue] = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    extras = {} if call.opaque is None else dict(_returned(call.opaque.data, speech))
    inner = extras.pop("function", None)
    if isinstance(inner, dict):
        function = {**inner, **function}
    return {**extras, "id": call.call_id, "type": "function", "function": function}


def _returned(fields: JSON, speech: Speech) -> JSON:
    """Return the fields that go back to the server; those that are not known only to servers that take them."""
    takes_all = speech.dialect.takes_unknown_fields
    return {name: value for name, value in fields.items() if name not in _OWN_FIELDS and (takes_all or name in KNOWN_EXTRAS)}


def _tool_message(result: ToolResult, dialect: Dialect) -> JSON:
    text = result_text(result)
    # The API has no mark for a failed call, so the text has to say it.
    if result.is_error and not text.lower().startswith("error"):
        text = f"Error: {text}"
    content: str | list[JSON] = text
    if result.media and dialect.images_in_results:
        content = _user_content([TextPart(text), *result.media], dialect)
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}

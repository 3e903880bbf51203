"""What a server answers to a call, as the texts, images and files that a model reads.

Pure, and without an error: the call has had its effect when the server answers, so even if the answer is malformed, the model reads
that the call worked, and as much as can be shown.
"""

import base64
import binascii
import json
import mimetypes
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.agent import ToolResult
from trio_sagents.data.json import JSON, JSONValue, Opaque, plain_json
from trio_sagents.data.messages import FilePart, ImagePart, MediaPart
from trio_sagents.mcp._wire import UNREADABLE

MAX_OUTPUT: Final = 1024 * 1024
"""Characters that are taken of one result; `SessionPolicy.max_tool_output_bytes` bounds what the model reads of them."""
MAX_LINK: Final = 2048
"""Characters that are taken of an address."""
MAX_KIND: Final = 100
"""Characters that are taken of the type of an image or a file."""
MAX_PARTS: Final = 1000
"""Parts of a result that are read."""
_IMAGES: Final = {"iVBORw0KGgo": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}
"""How the base64 of the images begins that providers take. Servers name other types, or wrong ones, and then a provider refuses the
request, and every later one of the conversation: such an image is a file."""


@attrs.define
class _Reader:
    """The parts of one result, as they are read."""

    texts: list[str] = attrs.field(factory=list)
    media: list[MediaPart] = attrs.field(factory=list)
    has_text: bool = False

    def read(self, block: JSONValue) -> None:
        """Read one part; one in an unknown form is shown as JSON."""
        match block:
            case str(text) | {"type": "text", "text": str(text)}:
                self.has_text = True
                self.texts.append(text)
            case {"type": "image" | "audio" as kind, "data": str(data), **more}:
                self._read_data(kind, data, more.get("mimeType"))
            case {"type": "resource", "resource": {"text": str(text)}}:
                self.has_text = True
                self.texts.append(text)
            case {"type": "resource", "resource": {"blob": str(data), **more}}:
                self._read_data("resource", data, more.get("mimeType"), more.get("uri"))
            case {"type": "resource_link", "uri": str(uri), **more}:
                name = more.get("name")
                shown = repr(name[:MAX_LINK]) if isinstance(name, str) else "without a name"
                self.texts.append(f"[resource: {shown}, {_kind(more.get('mimeType')) or 'of unknown type'}, at {uri[:MAX_LINK]}]")
            case _:
                self.texts.append(f"[a part in an unknown form: {_as_json(block)}]")

    def _read_data(self, what: str, data: str, mime_type: JSONValue, uri: JSONValue = None) -> None:
        kind = _kind(mime_type) or "of unknown type"
        if data.startswith("data:") and "," in data[:MAX_LINK]:
            head, _, data = data.partition(",")
            kind = head.removeprefix("data:").partition(";")[0] or kind
        try:
            size = len(base64.b64decode(data, validate=True))
        except (binascii.Error, ValueError):
            self.texts.append(f"[{what}: {kind}; not shown, for its data are not base64]")
            return
        shown = next((name for start, name in _IMAGES.items() if data.startswith(start)), None)
        if shown is not None and (what == "image" or kind.startswith("image/")):
            self.media.append(ImagePart(shown, data=data))
            self.texts.append(f"[{what}: {shown}, {size} bytes]")
        else:
            name = _name(what, kind, uri)
            self.media.append(FilePart(name, kind if "/" in kind else "application/octet-stream", data))
            self.texts.append(f"[{what}: {name!r}, {kind}, {size} bytes]")


def read_result(result: JSONValue) -> ToolResult:
    """Return a server's answer to a call.

    Args:
        result: as the server sent it, in any form.

    Returns:
        The texts, one below the other; or, without any, the structured content as JSON. Images and files are `media`, each with a
        line of its own in the text. `value` is the structured content.
    """
    if not isinstance(result, Mapping):
        return _answered(_as_text(result))
    if UNREADABLE in result:
        return _answered(f"[The call worked. The answer of the server cannot be read; it begins with: {result[UNREADABLE]}]")
    content, structured = result.get("content"), result.get("structuredContent")
    if content is None and structured is None:
        rest = {key: each for key, each in result.items() if key not in {"_meta", "isError", "resultType"}}
        return _answered(_as_json(rest) if rest and "content" not in rest else "", is_error=_flag(result))
    reader = _Reader()
    blocks: Sequence[JSONValue] = content if isinstance(content, list) else [] if content is None else [content]
    for block in blocks[:MAX_PARTS]:
        reader.read(block)
    if len(blocks) > MAX_PARTS:
        reader.texts.append(f"[cut: {MAX_PARTS} of {len(blocks)} parts shown]")
    if structured is not None and not reader.has_text:
        reader.texts.append(_as_json(structured))
    return _answered("\n".join(reader.texts), is_error=_flag(result), value=_plain(structured), media=reader.media)


def _answered(text: str, *, is_error: bool = False, value: Opaque = None, media: Sequence[MediaPart] = ()) -> ToolResult:
    if len(text) > MAX_OUTPUT:
        text = f"{text[:MAX_OUTPUT]}\n[cut: {MAX_OUTPUT} of {len(text)} characters shown]"
    return ToolResult(text, is_error=is_error, value=value, media=media)


def _flag(result: JSON) -> bool:
    """Return whether the server says that the tool failed; some servers write it as a text or a number."""
    said = result.get("isError")
    return said is True or (isinstance(said, str) and said.lower() == "true") or (not isinstance(said, bool) and said == 1)


def _plain(value: JSONValue) -> JSONValue:
    try:
        return plain_json(value, "the structured content")
    except (TypeError, ValueError):
        return None


def _as_text(value: JSONValue) -> str:
    return "" if value is None else value if isinstance(value, str) else _as_json(value)


def _as_json(value: JSONValue) -> str:
    return json.dumps(value, ensure_ascii=False)


def _kind(mime_type: JSONValue) -> str:
    return mime_type.strip().lower()[:MAX_KIND] if isinstance(mime_type, str) else ""


def _name(what: str, kind: str, uri: JSONValue) -> str:
    """Return a name for a file that has only a type, and perhaps an address."""
    last = uri.rstrip("/").rpartition("/")[2][:MAX_KIND] if isinstance(uri, str) else ""
    return last or f"{what}{mimetypes.guess_extension(kind) or ''}"

"""Images and files of a message: which can be sent as they are, and what is sent instead of the others.

A part that a provider refuses would make every later request of its conversation fail, for the history keeps it. So a type is
written as providers spell it, an image is of the type that its bytes say, and what cannot be sent is named in words.
"""

import base64
import re
from typing import Final

import attrs

from trio_sagents.data.messages import FilePart, ImagePart
from trio_sagents.models._fields import whole_text

IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
PDF: Final = "application/pdf"

_ALIASES: Final = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png", "application/x-pdf": PDF}
_MAGIC: Final = ((b"\x89PNG\r\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF87a", "image/gif"), (b"GIF89a", "image/gif"))
_WEBP: Final = (b"RIFF", b"WEBP")
_TEXT_TYPES: Final = frozenset(
    {
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/sql",
        "application/toml",
        "application/x-ndjson",
        "application/x-sh",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
    }
)
_TEXT_SUFFIXES: Final = ("+json", "+xml", "+yaml")
_DATA_URL: Final = re.compile(r"data:([^,;]*)(?:;[^,;]*)*;base64,", re.IGNORECASE)
_WEB_URL: Final = re.compile(r"https?://", re.IGNORECASE)


@attrs.frozen
class Encoded:
    """Data as providers take it."""

    media_type: str
    data: str
    """Base64, valid and not empty."""

    @property
    def url(self) -> str:
        """The data as a data URL."""
        return f"data:{self.media_type};base64,{self.data}"


def image_data(part: ImagePart | FilePart) -> Encoded | None:
    """Return the image in a part, by its data or a data URL; None if the part has no image that providers take."""
    encoded = _encoded(part.media_type, part.data)
    if encoded is None and isinstance(part, ImagePart) and part.url and (head := _DATA_URL.match(part.url)):
        encoded = _encoded(head[1], part.url[head.end() :])
    if encoded is None:
        return None
    media_type = _type_of(base64.b64decode(encoded.data[:16])) or encoded.media_type
    return Encoded(media_type, encoded.data) if media_type in IMAGE_TYPES else None


def image_url(image: ImagePart) -> str | None:
    """Return the address of an image that a provider can fetch; None if the image has no such address."""
    return image.url if image.url and _WEB_URL.match(image.url) else None


def image_note(image: ImagePart) -> str:
    """Return the text that is sent instead of an image that cannot be sent."""
    return f"[An image of type {whole_text(image.media_type)!r} stood here; it cannot be shown to you.]"


def pdf_data(file: FilePart) -> Encoded | None:
    """Return the PDF in a file; None if the file is not a PDF, or its data cannot be read."""
    return _encoded(PDF, file.data) if _bare(file.media_type) == PDF else None


def file_note(file: FilePart) -> str:
    """Return the text that is sent instead of a file that cannot be sent."""
    return f"[The file {whole_text(file.name)!r} of type {whole_text(file.media_type)!r} stood here; it cannot be shown to you.]"


def file_text(file: FilePart) -> str | None:
    """Return the text of a text file; None if the file is not text, is blank, or its data cannot be read."""
    media_type = _bare(file.media_type)
    if not (media_type.startswith("text/") or media_type in _TEXT_TYPES or media_type.endswith(_TEXT_SUFFIXES)):
        return None
    try:
        text = base64.b64decode(file.data, validate=True).decode("utf-8-sig")
    except ValueError:
        return None
    return text if text.strip() else None


def _bare(media_type: str) -> str:
    bare = media_type.partition(";")[0].strip().lower()
    return _ALIASES.get(bare, bare)


def _encoded(media_type: str, data: str | None) -> Encoded | None:
    data = "".join((data or "").split())  # some encoders break lines, which providers refuse
    try:
        is_valid = bool(base64.b64decode(data, validate=True))
    except ValueError:
        return None
    return Encoded(_bare(media_type), data) if is_valid else None


def _type_of(head: bytes) -> str | None:
    """Return the type that the first bytes of an image stand for; None if it is not a type that providers take."""
    if (head[:4], head[8:12]) == _WEBP:
        return "image/webp"
    return next((media_type for magic, media_type in _MAGIC if head.startswith(magic)), None)

"""Images and files of a message: what can be sent as such, and what stands in for the rest."""

import base64
from typing import Final

from trio_sagents.data.messages import FilePart, ImagePart
from trio_sagents.models._fields import whole_text

IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_TEXT_TYPES: Final = frozenset({"application/json", "application/xml", "application/yaml", "application/toml", "application/x-yaml"})


def is_sendable(image: ImagePart) -> bool:
    """Return whether providers take this image: by its address, or as data of a type that they know."""
    return bool(image.url) or bool(image.data and image.media_type in IMAGE_TYPES)


def image_note(image: ImagePart) -> str:
    """Return the text that stands for an image that cannot be sent."""
    return f"[An image of type {whole_text(image.media_type)!r} stood here; it cannot be shown to you.]"


def file_note(file: FilePart) -> str:
    """Return the text that stands for a file that cannot be sent."""
    return f"[The file {whole_text(file.name)!r} of type {whole_text(file.media_type)!r} stood here; it cannot be shown to you.]"


def file_text(file: FilePart) -> str | None:
    """Return what a text file says; None where it is no text, is blank, or its data cannot be read."""
    media_type = file.media_type.partition(";")[0].strip().lower()
    if not (media_type.startswith("text/") or media_type in _TEXT_TYPES):
        return None
    try:
        text = base64.b64decode(file.data, validate=True).decode()
    except ValueError:
        return None
    return text if text.strip() else None

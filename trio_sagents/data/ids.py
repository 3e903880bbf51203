"""Identifiers: what a conversation id may be, and how new ids are made."""

import secrets
import unicodedata
from typing import Final

from trio_sagents._text import shown

MAX_ID_BYTES: Final = 256
AGENTS_TOPIC: Final = "agent_server:presence"
"""The presence topic on which every agent that is up tracks itself; its key is the agent id."""


def check_id(name: str, value: object) -> str:
    """Return `value` if it can be an id.

    Args:
        name: what the value is called in errors.
        value: must be a str of 1 to 256 bytes of UTF-8, in normal form C, without control characters.

    Raises:
        TypeError: `value` is not a str.
        ValueError: `value` breaks one of the rules; the message says which.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {shown(value)}")
    if not value:
        raise ValueError(f"{name} must not be empty")
    if value.isascii():
        size = len(value)
        if not value.isprintable():
            raise ValueError(f"{name} must not have control characters: {shown(value)}")
    else:
        size = _check_unicode(name, value)
    if size > MAX_ID_BYTES:
        raise ValueError(f"{name} must be at most {MAX_ID_BYTES} bytes of UTF-8, not {size}")
    return value


def is_id(value: object) -> bool:
    """Return whether `check_id` takes it."""
    try:
        check_id("id", value)
    except (TypeError, ValueError):
        return False
    return True


def _check_unicode(name: str, value: str) -> int:
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in value):
        raise ValueError(f"{name} must not have control characters: {shown(value)}")
    if not unicodedata.is_normalized("NFC", value):
        raise ValueError(f"{name} must be in Unicode normal form C: {shown(value)}")
    return len(value.encode())


def default_agent_id(conversation_id: str) -> str:
    """Return "conversation-<id>", the agent id of a conversation unless the host's `agent_id_fun` says otherwise."""
    return f"conversation-{conversation_id}"


def conversation_topic(conversation_id: str) -> str:
    """Return "conversation:<id>", the presence topic on which tracking makes a viewer of the conversation."""
    return f"conversation:{conversation_id}"


def new_token() -> str:
    """Return 16 random hex digits: never used before, for all practical purposes."""
    return secrets.token_hex(8)

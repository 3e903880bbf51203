"""Settings: fields of the request's body that the host chooses."""

import math
from collections.abc import Mapping
from typing import Final

from trio_sagents.data.json import JSON, JSONValue, plain_json

RESERVED: Final = frozenset({"model", "messages", "stream", "system", "tools"})
"""Fields that the adapters write themselves."""

CONNECT_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 600.0


def check_settings(settings: Mapping[str, JSONValue] | None) -> JSON:
    """Return a copy of `settings`; ValueError for a field that the adapter writes itself."""
    plain: dict[str, JSONValue] = dict(plain_json(settings or {}))
    for name in plain:
        if name in RESERVED:
            raise ValueError(f"{name!r} cannot be a setting: it is a part of every request")
    return plain


def check_name(name: str) -> str:
    """Return the name of a model; ValueError where it is blank."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a model must be a str, not {type(name).__name__}")
    if not name.strip():
        raise ValueError("the name of a model must not be empty")
    return name


def check_own_client(**given: object) -> None:
    """Raise ValueError where something is given that a client of the host's has already."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"give either a client or {name}: a client has its own")


def finite_or_none(seconds: float, name: str) -> float | None:
    """Return a duration as the SDKs take it, with None for never; ValueError where it is not positive."""
    if not seconds > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {seconds!r}")
    return None if math.isinf(seconds) else seconds

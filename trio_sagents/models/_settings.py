"""Settings of a model: fields of the request's body that the host chooses, timeouts and limits."""

import math
from collections.abc import Mapping
from typing import Final

import httpx2

from trio_sagents.data.config import check_timeout
from trio_sagents.data.json import JSON, JSONValue, plain_json
from trio_sagents.models._answer import Patience

RESERVED: Final = frozenset({"model", "messages", "stream", "system", "tools"})
"""Fields that the adapters write themselves."""

CONNECT_TIMEOUT: Final = 10.0
"""How long a connection may take to be made, in seconds."""
READ_TIMEOUT: Final = 600.0
MAX_CONNECTIONS: Final = 1000
"""Answers of one model at a time; further ones wait."""
_KEPT_CONNECTIONS: Final = 100


def check_settings(settings: Mapping[str, JSONValue] | None) -> JSON:
    """Return a copy of `settings`; ValueError for a field that the adapter writes itself."""
    plain: dict[str, JSONValue] = dict(plain_json(settings or {}))
    for name in plain:
        if name in RESERVED:
            raise ValueError(f"{name!r} cannot be a setting: it is a part of every request")
    return plain


def with_thinking(settings: JSON, thinking: JSON) -> JSON:
    """Return the settings with the fields that say how much to think; ValueError if the settings have one of them."""
    for name in thinking:
        if name in settings:
            raise ValueError(f"give either thinking or the setting {name!r}: both say how much to think")
    return {**settings, **thinking}


def check_name(name: str) -> str:
    """Return the name of a model; ValueError if it is blank."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a model must be a str, not {type(name).__name__}")
    if not name.strip():
        raise ValueError("the name of a model must not be empty")
    return name


def check_own_client(**given: object) -> None:
    """Raise ValueError if a value is given that a client of the host has already."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"give either a client or {name}: a client has its own")


def check_patience(first_timeout: float | None, read_timeout: float, read_interval: float = 0.0) -> Patience:
    """Return how long to wait for content, and between reads; `first_timeout` None is `read_timeout`."""
    following = check_timeout("read_timeout", read_timeout)
    interval = 0.0 if read_interval == 0 and not isinstance(read_interval, bool) else check_timeout("read_interval", read_interval)
    if interval == math.inf:
        raise ValueError("read_interval must be a finite number of seconds; 0 turns it off")
    return Patience(following if first_timeout is None else check_timeout("first_timeout", first_timeout), following, interval)


def check_connections(most: int) -> int:
    """Return how many answers may be read at a time; ValueError if it is less than 1."""
    if type(most) is not int:
        raise TypeError(f"max_connections must be an int, not {type(most).__name__}")
    if most < 1:
        raise ValueError(f"max_connections must be at least 1, not {most!r}")
    return most


def client_limits(most: int) -> tuple[httpx2.Timeout, httpx2.Limits]:
    """Return the timeouts and limits of a client that reads at most so many answers at a time.

    The client itself waits as long as it takes: the deadlines of an answer are kept around its reads, and comments do not count there.
    """
    return httpx2.Timeout(None, connect=CONNECT_TIMEOUT), httpx2.Limits(
        max_connections=most, max_keepalive_connections=min(most, _KEPT_CONNECTIONS)
    )

"""Where an MCP server is, and how it is reached: values. What may be a secret in a value is never printed."""

import math
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from trio_sagents.data.config import check_timeout, choice_validator
from trio_sagents.data.json import Opaque

MIN_SECRET: Final = 6
"""Characters that a value must have to be struck out of other texts: "1" and "true" are in too many of them."""


def _count(given: Sequence[str] | Mapping[str, str]) -> str:
    return f"<{len(given)}>"


def _words(given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise TypeError("StdioServer.args must be a sequence of str")
    return tuple(given)


def _texts(given: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(given, Mapping) or not all(isinstance(text, str) for pair in given.items() for text in pair):
        raise TypeError("the env and the headers of a server are mappings of str to str")
    return dict(given)


def _filled(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{type(instance).__name__}.{attribute.name} must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{type(instance).__name__}.{attribute.name} must not be empty")


def _seconds(instance: object, attribute: "attrs.Attribute[Opaque]", value: float) -> None:
    if check_timeout(f"{type(instance).__name__}.{attribute.name}", value) == math.inf:
        raise ValueError(f"{type(instance).__name__}.{attribute.name} must be finite: the end of a connection waits for it")


@attrs.frozen
class StdioServer:
    """A server that is a program. It is started for each connection, and spoken with over its standard input and output."""

    command: str = attrs.field(validator=_filled)
    """The program: a path, or a name that is found on PATH."""
    args: Sequence[str] = attrs.field(default=(), converter=_words, repr=_count)
    """The arguments of the program; not printed, for some servers take keys there."""
    env: Mapping[str, str] = attrs.field(factory=dict, converter=_texts, repr=_count, hash=False)
    """Environment variables, beside HOME, LOGNAME, PATH, SHELL, TERM and USER; other variables of the host are not handed on."""
    cwd: str | pathlib.Path | None = None
    """The directory in which the program runs; None is the host's own."""
    exit_timeout: float = attrs.field(default=2.0, validator=_seconds, kw_only=True)
    """Seconds that the program has to end by itself when its input has ended; then it is terminated, and a second later killed."""

    @property
    def name(self) -> str:
        """The name of the connection, if no other name is given."""
        return pathlib.PurePath(self.command).name

    @property
    def secrets(self) -> Sequence[str]:
        """The texts that must not appear in an error or a log."""
        return (*self.env.values(), *self.args)


def _check_url(_server: object, _attribute: "attrs.Attribute[Opaque]", value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"HttpServer.url must be a str, not {type(value).__name__}")
    try:
        parts = urllib.parse.urlsplit(value)
    except ValueError:
        raise ValueError("HttpServer.url cannot be read as a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("HttpServer.url must begin with http:// or https:// and name a host")


def _without_secrets(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return repr(urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))


@attrs.frozen
class HttpServer:
    """A server that listens somewhere, and is spoken with over HTTP."""

    url: str = attrs.field(validator=_check_url, repr=_without_secrets)
    """The endpoint. It is printed without user and query; but keep keys in `headers`, for log records of an HTTP library show URLs."""
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_texts, repr=_count, hash=False)
    """Headers of every request, such as {"Authorization": "Bearer ..."}."""
    transport: Literal["streamable", "sse"] = attrs.field(
        default="streamable", kw_only=True, validator=choice_validator("streamable", "sse")
    )
    """"streamable" is the present transport; "sse" is the one of before 2025, in which answers come as events of one long response. In that
    one, a message of more than 1 MiB ends the connection."""

    @property
    def name(self) -> str:
        """The name of the connection, if no other name is given."""
        return urllib.parse.urlsplit(self.url).hostname or "http"

    @property
    def secrets(self) -> Sequence[str]:
        """The texts that must not appear in an error or a log."""
        parts = urllib.parse.urlsplit(self.url)
        words = [word for value in self.headers.values() for word in (value, value.rpartition(" ")[2])]
        return (*words, parts.password or "", parts.query, *(value for _, value in urllib.parse.parse_qsl(parts.query)))


Server: TypeAlias = StdioServer | HttpServer


def check_server(value: object) -> None:
    """Raise TypeError unless `value` is a server."""
    if not isinstance(value, StdioServer | HttpServer):
        hint = " such as StdioServer('uvx', ['mcp-server-time'])"
        raise TypeError(f"an MCP server is a StdioServer or an HttpServer,{hint}, not {type(value).__name__}")


def redacted(text: str, server: Server) -> str:
    """Return `text` with the secrets of a server struck out."""
    for secret in sorted(server.secrets, key=len, reverse=True):
        if len(secret) >= MIN_SECRET:
            text = text.replace(secret, "***")
    return text

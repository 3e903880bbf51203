"""Finds the address and the key of a provider, and says what is wrong with them while there is still somebody to read it.

Everything here raises `ValueError` when a model is described. What only the provider can know, such as whether it accepts the key, is a
`ModelFailed` later.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final, TypeVar
from urllib.parse import urlsplit

import attrs
import httpx2

from trio_sagents.models._dialects import Dialect, dialect_of
from trio_sagents.models._errors import redacted

NO_KEY: Final = "none"
"""Sent to a server that needs no key, because the SDK wants one; such a server does not look at it."""
_PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_ENDPOINTS: Final = ("/chat/completions", "/completions", "/responses", "/messages")
_AZURE_PATH: Final = "/openai/v1"

ClientT = TypeVar("ClientT")


@attrs.frozen
class Address:
    """Where a provider is, and the key for it."""

    base_url: str
    key: str = attrs.field(repr=False)


def find_address(
    who: str, dialect: Dialect, base_url: str | None, api_key: str | None, environ: Mapping[str, str] | None = None
) -> Address:
    """Return the address and the key of a server that speaks the chat completions API.

    A key of the environment is sent to the address that belongs to it, and to no other: the provider's own, or that of the environment.

    Args:
        who: names the model in errors.
        dialect: of the server.
        base_url: None takes the address of the environment, else the provider's own.
        api_key: None takes the key of the environment, if that key may be sent to the address.
        environ: None is `os.environ`.

    Raises:
        ValueError: the address or the key is missing, or cannot be used.
    """
    environ = os.environ if environ is None else environ
    given = base_url
    if base_url is None and dialect.url_env is not None:
        base_url = environ.get(dialect.url_env) or None
    base_url = base_url or dialect.base_url
    if base_url is None:
        where = "" if dialect.url_env is None else f", or set {dialect.url_env}"
        raise ValueError(f"{who}: there is no address of the server; give base_url{where}")
    check_base_url(who, base_url)
    if dialect.name == "azure" and urlsplit(base_url).path.rstrip("/") == "":
        base_url = base_url.rstrip("/") + _AZURE_PATH
    if api_key is None and (given is None or (dialect.needs_key and dialect_of(given) is dialect)):
        api_key = environ.get(dialect.key_env or "") or None
    if api_key is None:
        if dialect.needs_key and (given is not None or dialect_of(base_url) is dialect):
            raise ValueError(f"{who}: there is no API key for {dialect.title}; give api_key{_or_set(dialect, given)}")
        api_key = NO_KEY
    check_key(who, api_key)
    return Address(base_url, api_key)


def _or_set(dialect: Dialect, given: str | None) -> str:
    is_sent = given is None or dialect_of(given) is dialect
    return f", or set {dialect.key_env}" if is_sent and dialect.key_env is not None else ""


def check_base_url(who: str, base_url: str) -> None:
    """Raise ValueError unless this can be the address of an API."""
    shown = base_url.rpartition("@")[2]  # without a password
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(f"{who}: base_url {shown!r} is not an address: {exc}") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError(f'{who}: base_url must begin with "http://" or "https://" and name a host, not {shown!r}')
    ending = next((ending for ending in _ENDPOINTS if parts.path.rstrip("/").endswith(ending)), None)
    if ending is not None:
        raise ValueError(f"{who}: base_url must end before {ending!r}, which is added to it; it is {shown!r}")


def check_key(who: str, key: str) -> None:
    """Raise ValueError unless this text can be sent as a key. The text is in no message."""
    if not isinstance(key, str):
        raise TypeError(f"{who}: api_key must be a str, not {type(key).__name__}")
    if not key.strip():
        raise ValueError(f"{who}: the API key is empty")
    if not key.isascii() or not key.isprintable() or any(mark in key for mark in " \"'"):
        raise ValueError(f"{who}: the API key has a blank, a quote, a line break or a character that no key has; look at how it was copied")


def checked_client(who: str, make: Callable[[], ClientT]) -> ClientT:
    """Return the client that `make` gives; ValueError if the proxies or certificates of the environment cannot be used."""
    try:
        return make()
    except (ImportError, httpx2.InvalidURL, OSError, ValueError) as exc:
        raise ValueError(_told(who, exc)) from None


def _told(who: str, error: Exception) -> str:
    names = [name for name in (*_PROXIES, *_CERTIFICATES) if os.environ.get(name) or os.environ.get(name.lower())]
    words = str(error)
    for name in names:  # an address of a proxy often has a password in it
        for value in (os.environ.get(name, ""), os.environ.get(name.lower(), "")):
            words = words.replace(value, f"${name}") if value else words
    hint = f"; look at {', '.join(names)} in the environment" if names else ""
    return f"{who}: no client could be made ({redacted(words, None)}){hint}"

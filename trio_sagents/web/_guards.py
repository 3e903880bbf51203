"""What is looked at before anything else is done with a request. Pure: each guard returns, or raises what the answer says.

A page of another site can have a browser send requests here, with the cookies of whoever looks at it. Three things tell them apart. The
browser says in `Origin` which page sends, and a script cannot change that. A script of another site cannot read the CSRF token. And it
cannot send `Authorization` or `application/json` without asking first, which is never granted.
"""

import hashlib
import hmac
from typing import Final, Literal, TypeAlias

from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._request import Refused, WebRequest

Kind: TypeAlias = Literal["page", "read", "stream", "write", "socket"]
"""What a request does: fetch a file, read, keep a stream open, change something, open a WebSocket."""
MAX_TOKEN: Final = 256


def check_host(request: WebRequest, policy: WebPolicy) -> None:
    """Refuse a `Host` that is not in the policy."""
    host = request.headers.get("host", "").lower()
    name = host[: host.rindex("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
    port = host[len(name) :]
    if port and not (port[0] == ":" and port[1:].isascii() and port[1:].isdigit()):
        raise Refused(400, "Invalid", "the Host is not valid")
    known = [allowed.lower() for allowed in policy.hosts]
    if not host or (host not in known and name not in known):
        raise Refused(400, "Invalid", "this server does not answer to that Host; WebPolicy.hosts lists those that it answers to")


def check_origin(request: WebRequest, policy: WebPolicy, kind: Kind) -> None:
    """Refuse a request of a foreign page, and one that does not say where it comes from although it could do harm."""
    origin = request.headers.get("origin")
    if origin is not None:
        own = f"{request.scheme}://{request.headers.get('host', '')}"
        if origin != own and origin not in policy.origins:
            raise Refused(403, "Forbidden", "this Origin may not use the server; WebPolicy.origins lists those that may")
        return
    if kind in {"page", "read"} or request.bearer is not None:
        return
    # A browser sends no Origin with a GET of its own page, but says that itself; a script cannot set this header.
    if kind == "stream" and request.headers.get("sec-fetch-site") == "same-origin":
        return
    raise Refused(403, "Forbidden", "the request has no Origin; only one with a bearer token needs none")


def check_json(request: WebRequest) -> None:
    """Refuse a command that is not sent as JSON: a form of another site could send it."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Refused(415, "Invalid", "send the command as application/json")


def check_csrf(request: WebRequest, key: str, secret: bytes) -> None:
    """Refuse a command whose sender could not read the CSRF token. A bearer token is no less a proof."""
    if request.bearer is not None:
        return
    given = request.headers.get("x-csrf-token", "")[:MAX_TOKEN]
    if not hmac.compare_digest(given.encode("latin-1", "replace"), csrf_token(key, secret).encode()):
        raise Refused(403, "Forbidden", "the CSRF token is missing or wrong; read it from the route session")


def csrf_token(key: str, secret: bytes) -> str:
    """Return the CSRF token of a visitor."""
    return hmac.new(secret, b"csrf:" + key.encode(), hashlib.sha256).hexdigest()

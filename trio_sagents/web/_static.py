"""The files of the page, out of the package: read once, and served from memory."""

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import attrs

from trio_sagents.web._http import SAFE_HEADERS, Answer, Headers
from trio_sagents.web._request import WebRequest, not_found

TYPES: Final[Mapping[str, str]] = {
    "css": "text/css; charset=utf-8",
    "gif": "image/gif",
    "html": "text/html; charset=utf-8",
    "ico": "image/vnd.microsoft.icon",
    "jpg": "image/jpeg",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "md": "text/plain; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "webmanifest": "application/manifest+json",
    "webp": "image/webp",
    "woff2": "font/woff2",
}
"""By the ending of a file's name. A file with another ending is not served."""
INDEX: Final = "index.html"


@attrs.frozen
class File:
    """A file to be served."""

    content_type: str
    body: bytes = attrs.field(repr=False)
    tag: str
    """Of the content: the same file has the same tag."""


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry


def read_files() -> Mapping[str, File]:
    """Return the files of the page, by their names below the folder, such as "lib/page.js"."""
    found: dict[str, File] = {}
    for name, entry in _walk(files("trio_sagents.web") / "static"):
        content_type = TYPES.get(name.rpartition(".")[2])
        if content_type is not None:
            body = entry.read_bytes()
            found[name] = File(content_type, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found


def page_policy(request: WebRequest) -> str:
    """Return the Content-Security-Policy of a page: only files of this server, and nothing that stands in the page itself, may run."""
    host = request.headers.get("host", "")
    # 'self' does not cover WebSockets in every browser. The Host was compared with the policy, so it can stand here.
    sockets = f"{'wss' if request.scheme == 'https' else 'ws'}://{host}"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; manifest-src 'self'; "
        f"img-src 'self' data: blob:; connect-src 'self' {sockets}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    )


def file_answer(request: WebRequest, found: Mapping[str, File], name: str) -> Answer:
    """Return the answer to a request for a file.

    Raises:
        Refused: there is no such file.
    """
    file = found.get(name)
    if file is None:
        raise not_found()
    headers: Headers = (
        *SAFE_HEADERS,
        ("etag", file.tag),
        ("cache-control", "no-cache"),
        ("content-security-policy", page_policy(request)),
        ("cross-origin-opener-policy", "same-origin"),
    )
    if request.headers.get("if-none-match") == file.tag:
        return Answer(304, file.content_type, b"", headers)
    return Answer(200, file.content_type, file.body, headers)

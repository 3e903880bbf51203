"""Titles, types and notes of files.

They are stored beside the contents, in a JSON file at a path that no other file can have, so every backend can store them. An index
says whether a tree has such a file; a tree without one is never asked for it. The file is small and is always written as a whole. If
another process has written it in between, the change is made again, of what is stored then.
"""

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import attrs

from trio_sagents.data.json import JSONValue
from trio_sagents.files._backend import ComparingFiles
from trio_sagents.files._entry import FileDetails
from trio_sagents.files._errors import FileConflict, FileError, FileExists, FileNotFound, QuotaExceeded
from trio_sagents.files._paths import DETAILS
from trio_sagents.files._text import digest_of
from trio_sagents.files._volume import Volume

Known = Mapping[str, FileDetails]
MAX_BYTES: Final = 1024 * 1024
"""The largest size of all titles and notes of one scope in one mount, as stored."""
ATTEMPTS: Final = 8
PLAIN: Final = "text/plain"
TYPES: Final[Mapping[str, str]] = {
    "c": "text/x-c",
    "css": "text/css",
    "csv": "text/csv",
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "md": "text/markdown",
    "py": "text/x-python",
    "rst": "text/x-rst",
    "sh": "text/x-shellscript",
    "sql": "application/sql",
    "svg": "image/svg+xml",
    "toml": "application/toml",
    "tsv": "text/tab-separated-values",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
}
"""By the end of a name: the type of a file that has no type of its own."""
log: Final = logging.getLogger("trio_sagents.files")


def type_of(path: str) -> str:
    """Return the media type of a file, by the end of its name."""
    return TYPES.get(path.rpartition(".")[2].lower(), PLAIN)


async def known_details(volume: Volume) -> Known:
    """Return the details of all files that have some, by path; an empty mapping if they cannot be read.

    Cancellation: either they are known, or they will be, or nothing was begun.
    """
    if volume.details.has_file and volume.details.known is None:
        try:
            await volume.run(partial(_load, volume))
        except FileError as exc:
            log.warning("the titles and notes of files in %r of scope %r cannot be read: %s", volume.mount.prefix, volume.scope, exc)
    return volume.details.known or {}


async def describe(volume: Volume, path: str, details: FileDetails) -> None:
    """Give a file these details, in the serial queue.

    Cancellation: the files close; either the details are stored, or not.
    """
    volume.find(path)
    await _rewrite(volume, path, lambda known: {**known, path: details})


async def moved(volume: Volume, paths: Mapping[str, str]) -> None:
    """Have the details of files move with them, in the serial queue: by the old path of each, the new one; "" for a file that is gone."""
    known = await _known_in_queue(volume)
    if not any(path in known for path in paths):
        return
    try:
        await _rewrite(volume, next(iter(paths)), lambda known: {paths.get(path, path): details for path, details in known.items()})
    except FileError as exc:  # the change itself is done, and is not undone
        log.warning("the titles and notes of moved files of scope %r are not stored: %s", volume.scope, exc)


async def _known_in_queue(volume: Volume) -> Known:
    if volume.details.has_file and volume.details.known is None:
        try:
            await _load(volume)
        except FileError:
            return {}
    return volume.details.known or {}


async def _load(volume: Volume) -> None:
    backend, own = volume.mount.backend, volume.details
    try:
        own.text = await volume.ask("reading the details of", volume.mount.prefix, backend.read(volume.scope, DETAILS, max_bytes=MAX_BYTES))
    except FileNotFound:
        own.text = None
    own.has_file = own.text is not None
    own.known = {} if own.text is None else _decoded(own.text)


async def _rewrite(volume: Volume, path: str, change: Callable[[Known], Mapping[str, FileDetails]]) -> None:
    """Store the details after a change of what is stored now. Files that are not known here may be those of another process."""
    own = volume.details
    for _ in range(ATTEMPTS):
        await _load(volume)
        known = {name: details for name, details in change(own.known or {}).items() if name and details != FileDetails()}
        if known == own.known:
            return
        text = json.dumps({name: attrs.asdict(details) for name, details in sorted(known.items())}, ensure_ascii=False)
        if len(text.encode()) > MAX_BYTES:
            raise QuotaExceeded("bytes of titles and notes", len(text.encode()), most=MAX_BYTES, path=path)
        try:
            await _store(volume, path, text)
        except (FileConflict, FileExists):
            continue
        own.text, own.known, own.has_file = text, known, True
        return
    raise FileConflict(path)


async def _store(volume: Volume, path: str, text: str) -> None:
    backend, scope, before = volume.mount.backend, volume.scope, volume.details.text
    if before is None:
        await volume.ask("describing", path, backend.create(scope, DETAILS, text))
    elif isinstance(backend, ComparingFiles):
        await volume.ask("describing", path, backend.write_if(scope, DETAILS, text, digests=(digest_of(before),)))
    else:
        await volume.ask("describing", path, backend.write(scope, DETAILS, text))


def _decoded(text: str) -> dict[str, FileDetails]:
    """Return the stored details; what cannot be read is left out."""
    try:
        stored: JSONValue = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    found: dict[str, FileDetails] = {}
    for path, record in stored.items() if isinstance(stored, dict) else ():
        try:
            found[path] = FileDetails(**record)
        except (TypeError, ValueError):
            continue
    return found

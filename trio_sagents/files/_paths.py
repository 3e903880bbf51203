"""The paths of files and the keys of scopes: which ones are valid. Nothing here uses a disk.

A path is never changed to make it valid. A path that would have to be changed is refused, so each file has exactly one spelling.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from trio_sagents.data.ids import check_id
from trio_sagents.files._errors import InvalidPath

ScopeKey: TypeAlias = tuple[str, ...]
"""The name of a tree, in its only form."""

ROOT: Final = "/"
MAX_PATH_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 200
MAX_DEPTH: Final = 16
MAX_KEY_PARTS: Final = 8
DETAILS_NAME: Final = "~details.json"
DETAILS: Final = f"/{DETAILS_NAME}"
"""Where a backend stores the titles and notes of files: a path that no file of a tree can have."""
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""The Unicode categories of characters that people cannot see, or that have no meaning of their own."""


def scope_key(scope: object) -> ScopeKey:
    """Return the only form of a scope: a tuple of its parts. `"a"` and `("a",)` are the same scope; `"a:b"` and `("a", "b")` are not.

    Raises:
        TypeError: the scope is neither a str nor a sequence of str.
        ValueError: a part cannot be an id, or the scope has no parts, or more than `MAX_KEY_PARTS`.
    """
    if isinstance(scope, str):
        return (check_id("scope", scope),)
    if not isinstance(scope, tuple | list):
        raise TypeError(f"a scope must be a str or a tuple of str, not {scope!r}")
    if not 1 <= len(scope) <= MAX_KEY_PARTS:
        raise ValueError(f"a scope must have 1 to {MAX_KEY_PARTS} parts, not {len(scope)}: {scope!r}")
    return tuple(check_id("a part of the scope", part) for part in scope)


def check_path(path: object) -> str:
    """Return `path` if a file can have this path.

    Args:
        path: "/", then names with "/" between them: at most `MAX_DEPTH` names of 1 to `MAX_NAME_BYTES` bytes each.

    Raises:
        InvalidPath: the path breaks a rule; the message says which.
    """
    if not isinstance(path, str):
        raise InvalidPath(path, f"must be a str, not {type(path).__name__}")
    if not path.startswith(ROOT):
        raise InvalidPath(path, "must begin with '/'")
    if path == ROOT:
        raise InvalidPath(path, "is the folder of all files, not a file; name a file in it")
    if len(path) > MAX_PATH_BYTES or len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        raise InvalidPath(path, f"is longer than {MAX_PATH_BYTES} bytes")
    names = path[1:].split("/")
    if len(names) > MAX_DEPTH:
        raise InvalidPath(path, f"is deeper than {MAX_DEPTH} levels")
    for name in names:
        why = _fault(name)
        if why is not None:
            raise InvalidPath(path, why)
    return path


def check_prefix(prefix: object) -> str:
    """Return `prefix` if it can be the path of a file or of a folder, `"/"` included. A "/" at its end is removed.

    Raises:
        InvalidPath: neither a file nor a folder can have this path.
    """
    if prefix == ROOT:
        return ROOT
    if isinstance(prefix, str) and len(prefix) > 1 and prefix.endswith("/"):
        prefix = prefix[:-1]
    return check_path(prefix)


def is_path(path: str) -> bool:
    """Return whether a file can have this path."""
    try:
        check_path(path)
    except InvalidPath:
        return False
    return True


def is_name(name: str) -> bool:
    """Return whether a file or folder can have this name."""
    return _fault(name) is None


def _fault(name: str) -> str | None:
    if not name:
        return "has an empty part; write one '/' between names, and no '/' at the end"
    if name.isascii():
        fault = None if name.isprintable() else "has control characters"
        size = len(name)
    else:
        fault = _unicode_fault(name)
        size = len(name.encode(errors="replace"))
    if fault is not None:
        return fault
    if name.strip(".") == "":
        return f"has the part {name!r}; name the folder itself"
    if name != name.strip():
        return f"has the part {name!r}, which begins or ends with a space"
    if name.startswith("~"):
        return f"has the part {name!r}; a name cannot begin with '~'"
    if "\\" in name:
        return "has a backslash; write '/' between names"
    return f"has a part of more than {MAX_NAME_BYTES} bytes" if size > MAX_NAME_BYTES else None


def _unicode_fault(name: str) -> str | None:
    if any(unicodedata.category(char) in _HIDDEN for char in name):
        return "has control characters, or characters that cannot be seen"
    if not unicodedata.is_normalized("NFC", name):
        return "must be in Unicode normal form C"
    plain = unicodedata.normalize("NFKC", name)  # how people and some programs read a full-width slash or dot
    if "/" in plain or "\\" in plain or plain.strip(". ") == "" or plain.startswith("~"):
        return f"has the part {name!r}, which looks like another path"
    return None


def is_under(path: str, prefix: str) -> bool:
    """Return whether `path` is `prefix` or is below it."""
    return prefix in {ROOT, path} or path.startswith(f"{prefix}/")


def parents(path: str) -> Iterator[str]:
    """Yield the folders that contain `path`, the innermost first, without "/"."""
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)


def below(prefix: str, path: str) -> str:
    """Return `path` as seen from `prefix`, which must contain it. The result begins with "/", too."""
    return path if prefix == ROOT else path[len(prefix) :] or ROOT


def join(prefix: str, path: str) -> str:
    """Return the whole path of a `path` that is seen from `prefix`: the opposite of `below`."""
    if prefix == ROOT:
        return path
    return prefix if path == ROOT else prefix + path


def names_of(path: str) -> Sequence[str]:
    """Return the names in a path; an empty sequence for "/"."""
    return () if path == ROOT else path[1:].split("/")

"""How messages show what somebody else wrote: objects, exceptions and names of a host.

A message must not grow with the object that it is about, must not print an object that may hold secrets, and must not fail because
the object's own `__repr__` or `__str__` fails. So plain values are shown cut, and everything else is shown by its type.
"""

import difflib
import functools
import types
from collections.abc import Iterable
from typing import Final

MAX_SHOWN: Final = 60
"""Characters of a value that a message shows."""
MAX_REASON: Final = 500
"""Characters of a foreign exception's text that a message shows."""
_PLAIN: Final = frozenset({bool, int, float, str, bytes, type(None)})
_FUNCTIONS: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def shown(value: object) -> str:
    """Return a short text for any value: `'chat.db'`, `a dict`, `an Agent`, `the class Agent`, `the function build`."""
    kind = type(value)
    if kind in _PLAIN:
        return _cut_repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, _FUNCTIONS):
        return f"the function {value.__name__}"
    if isinstance(value, functools.partial):
        return "a partial function"
    name = kind.__name__
    return f"{'an' if name.lstrip('_')[:1] in 'AEIOaeio' else 'a'} {name}"


def _cut_repr(value: object) -> str:
    if isinstance(value, str | bytes) and len(value) > MAX_SHOWN:
        return f"{value[:MAX_SHOWN]!r} and {len(value) - MAX_SHOWN} more"
    if isinstance(value, int) and value.bit_length() > 4 * MAX_SHOWN:
        return f"an int of {value.bit_length()} bits"
    return repr(value)


def text_of(error: BaseException) -> str:
    """Return what an exception says; valid Unicode, even if the exception's own `__str__` fails."""
    try:
        text = str(error)
    except Exception as exc:  # noqa: BLE001  # a host's exception may fail in its own __str__
        text = f"(its text could not be read: {type(exc).__name__})"
    return text.encode(errors="replace").decode()


def reason_of(error: BaseException) -> str:
    """Return "Type: text" for one line of a message, cut to `MAX_REASON` characters; of a group, its first error and their number."""
    more = 0
    while isinstance(error, BaseExceptionGroup):
        more += len(error.exceptions) - 1
        error = error.exceptions[0]
    text = " ".join(text_of(error).split())
    if len(text) > MAX_REASON:
        text = f"{text[:MAX_REASON]}…"
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{reason} (and {more} more)" if more else reason


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name that is most like `name`; empty if none is."""
    close = difflib.get_close_matches(name, list(known), 1) if isinstance(name, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""

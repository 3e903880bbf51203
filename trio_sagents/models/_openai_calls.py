"""Puts the pieces of tool calls together, even if a server leaves parts of a piece out, or gets them wrong.

OpenAI gives each piece the index of its call, and the first piece of a call its id and its name. Other servers give all calls the same
index, or none; no ids, empty ids, or a new id with each piece; the name in each piece; or the arguments under another index than the
name. So a piece is placed by everything that it says, and by what is still missing: a call whose arguments are a whole JSON object takes
no further piece, and a piece without a name begins no call.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final
from uuid import uuid4

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.requests import ToolCallChunk
from trio_sagents.models._answer import BadFinish
from trio_sagents.models._fields import UnexpectedContent, number_at, text_at

_KNOWN: Final = frozenset({"index", "id", "type", "function"})
_KNOWN_OF_FUNCTION: Final = frozenset({"name", "arguments"})
_MARKS: Final = re.compile(r'["\\{}\[\]]')


@attrs.define(eq=False)
class _Scan:
    """How far the JSON text of some arguments has come; each character is looked at once."""

    depth: int = 0
    is_in_text: bool = False
    is_escaped: bool = False
    has_begun: bool = False

    def feed(self, piece: str) -> None:
        """Take the next piece."""
        if not self.has_begun and piece.strip():
            self.has_begun = True
        place = 0
        while place < len(piece):
            if self.is_escaped:
                self.is_escaped = False
                place += 1
                continue
            mark = _MARKS.search(piece, place)
            if mark is None:
                return
            place = mark.end()
            self._mark(mark[0])

    def _mark(self, mark: str) -> None:
        if self.is_in_text:
            self.is_escaped = mark == "\\"
            self.is_in_text = mark != '"'
        elif mark == '"':
            self.is_in_text = True
        else:
            self.depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark, 0)

    @property
    def is_whole(self) -> bool:
        """Whether the text is a whole value: text that follows belongs to something else."""
        return self.has_begun and self.depth <= 0 and not self.is_in_text


@attrs.define(eq=False)
class Call:
    """A call while its pieces arrive."""

    number: int
    """Calls count from 0 in the order in which they began."""
    index: int | None
    """The index that its first piece had."""
    call_id: str = ""
    """The id that the server gave it; "" if it gave none."""
    name: str = ""
    held: str = ""
    """Arguments that came before the name."""
    pieces: list[str] = attrs.field(factory=list)
    """The JSON text of its arguments."""
    has_arguments: bool = False
    scan: _Scan = attrs.field(factory=_Scan)
    first: str = ""
    """The arguments in its first piece."""
    is_one_piece: bool = False
    """Whether the first piece had all the arguments."""
    extras: dict[str, JSONValue] = attrs.field(factory=dict)
    """Fields of the pieces that are not known by name."""

    @property
    def is_broken(self) -> bool:
        """Whether the arguments are no JSON."""
        text = "".join(self.pieces)
        try:
            json.loads(text or "{}")
        except (ValueError, RecursionError):
            return True
        return False

    def is_told_again(self, call_id: str, index: int | None, name: str, arguments: str) -> bool:
        """Return whether a piece says nothing that was not said before.

        Raises:
            UnexpectedContent: the call is whole, and the piece has something else: it is of another call, and nobody knows which.
        """
        if not self.scan.is_whole or not arguments.strip():
            return False
        if self.repeats(call_id, index, name, arguments) or "".join(self.pieces) == arguments:
            return True
        raise UnexpectedContent("arguments for a call that has all of them")

    def repeats(self, call_id: str, index: int | None, name: str, arguments: str) -> bool:
        """Return whether a piece is the whole call once more: the server sent an event twice."""
        is_one_piece = bool(call_id and name and self.first) and self.is_one_piece
        return is_one_piece and (self.call_id, self.index, self.name, self.first) == (call_id, index, name, arguments)


class CallAssembly:
    """The calls of one answer."""

    def __init__(self) -> None:
        self.calls: Final[list[Call]] = []
        self._current: dict[int | None, Call] = {}
        self._is_guessed = False
        """Whether a piece that did not say whose it is was given to one of several calls."""

    def add(self, piece: JSON) -> Iterator[ToolCallChunk]:
        """Yield the chunks of the next piece.

        Raises:
            UnexpectedContent: the piece is of no call that could be run.
        """
        kind = piece.get("type")
        if kind not in {None, "", "function"}:
            raise UnexpectedContent(f"a call of the type {kind!r}"[:80])
        function = piece.get("function")
        if function is not None and not isinstance(function, Mapping):
            raise UnexpectedContent(f"'function' is {type(function).__name__}, not an object")
        function = function or {}
        index, name, arguments = _index(piece), text_at(function, "name"), _arguments_text(function)
        call_id = text_at(piece, "id") or str(number_at(piece, "id") or "")
        call = self._call_of(index, call_id, name, arguments)
        self._is_guessed = self._is_guessed or (index is None and not call_id and not name and len(self.calls) > 1)
        if call is not None and call.is_told_again(call_id, index, name, arguments):
            return
        is_new = call is None
        if call is None:
            stray = self._current.get(index)
            if stray is not None and stray.index != index and not stray.scan.is_whole:
                raise UnexpectedContent("a piece of a call that came before the call's beginning")
            call = Call(len(self.calls), index, call_id, first=arguments)
            self.calls.append(call)
        self._current[index] = call
        _keep_extras(call, piece, function)
        yield from self._grow(call, name if is_new or not call.name else "", arguments)

    def finish(self) -> Iterator[ToolCallChunk]:
        """Yield what completes calls without arguments.

        Raises:
            BadFinish: a call has no name, so it could not be run; or a call lacks the arguments that another one seems to have too much.
        """
        for call in self.calls:
            if not call.name:
                raise BadFinish("the provider sent the pieces of a call without the name of a tool")
        if self._is_guessed and any(not call.has_arguments for call in self.calls) and any(call.is_broken for call in self.calls):
            raise BadFinish("the provider sent pieces of several calls, and does not say which piece belongs to which call")
        for call in self.calls:
            if not call.has_arguments:
                yield ToolCallChunk(call.number, arguments_json="{}")

    def _grow(self, call: Call, name: str, arguments: str) -> Iterator[ToolCallChunk]:
        call.scan.feed(arguments)
        call.pieces.append(arguments)
        call.is_one_piece = call.is_one_piece or (call.scan.is_whole and not call.has_arguments)
        call.has_arguments = call.has_arguments or bool(arguments)
        if name:
            call.name = name
            # Some servers leave out ids; each call needs one.
            given = call.call_id or f"call_{uuid4().hex[:24]}"
            yield ToolCallChunk(call.number, given, name, call.held + arguments)
            call.held = ""
        elif not call.name:
            call.held += arguments
        elif arguments:
            yield ToolCallChunk(call.number, arguments_json=arguments)

    def _call_of(self, index: int | None, call_id: str, name: str, arguments: str) -> Call | None:
        """Return the call that a piece belongs to; None if the piece begins a call."""
        present = self._current.get(index)
        if call_id:
            known = next((call for call in reversed(self.calls) if call.call_id == call_id), None)
            if known is not None:
                return known if self._continues_known(known, index, name, arguments) else None
            # A new id: of a new call, unless the piece has no name and the call at its index still waits for arguments.
            continues = not name and present is not None and bool(present.name) and not present.scan.is_whole
            return present if continues else None
        if name:
            return present if present is not None and self._continues_named(present, name) else None
        return self._waiting_call(present, index, arguments)

    def _continues_known(self, known: Call, index: int | None, name: str, arguments: str) -> bool:
        """Return whether a piece continues the call that has its id. Some servers give the same id to all calls."""
        if not name or not known.name or known.repeats(known.call_id, index, name, arguments):
            return True
        return known.index == index and known.name == name and not known.scan.is_whole

    def _continues_named(self, call: Call, name: str) -> bool:
        """Return whether a piece with a name and without an id continues a call: the name comes late, or once more."""
        return not call.name or (call.name == name and not call.scan.is_whole)

    def _waiting_call(self, present: Call | None, index: int | None, arguments: str) -> Call | None:
        """Return the call that a piece of arguments alone belongs to: the call at its index, if that can take more, else the last."""
        last = self.calls[-1] if self.calls else None
        if present is None:
            if any(call.has_arguments and not call.scan.is_whole for call in self.calls[:-1]):
                raise UnexpectedContent("a piece of a call that may belong to several")
            # If all calls are whole, or later ones have begun, the piece begins a call; it came before its name, or its name is lost.
            is_early = last is not None and index is not None and last.index is not None and index < last.index
            return None if last is None or is_early or (last.scan.is_whole and arguments.strip()) else last
        # A server whose indexes are steady means what it says.
        is_meant = present.index == index or not present.scan.is_whole or not arguments.strip()
        return present if is_meant else last


def _index(piece: JSON) -> int | None:
    """Return the index of a piece; None if it has none."""
    index = piece.get("index")
    if isinstance(index, str) and index.isascii() and index.isdecimal():
        return int(index[:9])
    if index is not None and number_at(piece, "index") is None:
        raise UnexpectedContent(f"the index of a call is {type(index).__name__}, not a number")
    return number_at(piece, "index")


def _keep_extras(call: Call, piece: JSON, function: JSON) -> None:
    extras = {name: value for name, value in piece.items() if name not in _KNOWN and value is not None}
    inner = {name: value for name, value in function.items() if name not in _KNOWN_OF_FUNCTION and value is not None}
    if inner:
        extras["function"] = inner
    for name, value in extras.items():
        call.extras[name] = {**call.extras[name], **value} if name == "function" and name in call.extras else value


def _arguments_text(function: JSON) -> str:
    """Return the next piece of the JSON text of the arguments; some servers send the arguments themselves instead of their text."""
    arguments = function.get("arguments")
    if arguments is None:
        return ""
    return text_at(function, "arguments") if isinstance(arguments, str) else json.dumps(arguments)

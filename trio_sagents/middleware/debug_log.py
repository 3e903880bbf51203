"""A log file for each agent: what happened, how long it took, how large it was.

Lines are JSON. The hooks only put them into a list; a task writes what has come together, in a thread, and holds the file open
for no longer than that. It never raises into the run: a file that cannot be written is told once, by `logging`.
"""

import datetime
import hashlib
import json
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias, cast

import attrs
import trio

from trio_sagents.agent import MiddlewareContext, ModelAnswer
from trio_sagents.data.config import count_validator
from trio_sagents.data.json import JSON, JSONValue, Opaque
from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, TurnOutcome
from trio_sagents.data.requests import ModelRequest
from trio_sagents.middleware._built_in import BuiltIn

PathLike: TypeAlias = "str | os.PathLike[str]"
MAX_LINES: Final = 1000
"""Lines that wait for the thread; the oldest go, and the next line says how many."""
MAX_LINE: Final = 64 * 1024
"""Characters of a line."""
WRITE_TIMEOUT: Final = 5.0
"""Seconds that the last lines of an agent may take."""
log: Final = logging.getLogger("trio_sagents")
_KEY: Final = "lines"


def _as_path(given: Opaque) -> "Path | Callable[[MiddlewareContext], PathLike]":
    if isinstance(given, str | os.PathLike):
        return Path(given)
    if not callable(given):
        raise TypeError(f"DebugLog.path is a directory, or a function from the context to a file, not {given!r}")
    return cast("Callable[[MiddlewareContext], PathLike]", given)


@attrs.define(eq=False)
class _Lines:
    """What is to be written for one agent."""

    path: Path
    waiting: "deque[str]" = attrs.field(factory=lambda: deque(maxlen=MAX_LINES))
    """Oldest first; hooks append, the thread that writes takes away."""
    lost: int = 0
    is_writing: bool = False
    thread: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    """Its own: a thread that hangs takes none from others, and no second one is begun beside it."""


@attrs.frozen(eq=False)
class DebugLog(BuiltIn):
    """Write what an agent does to a file of its own: turns, model calls, tool calls, with ids, sizes and seconds.

    Contents (what people, models and tools say, and the text of errors) are written only with `contents`: they may hold secrets.
    With `enabled=False` it does nothing at all. Put it first in `Agent.middleware`, so it sees what the others cost.
    """

    path: "Path | Callable[[MiddlewareContext], PathLike]" = attrs.field(converter=_as_path)
    """A directory, made where it is missing, in which each agent has a file named after it; or a function that returns the file."""
    enabled: bool = attrs.field(default=True, kw_only=True)
    max_bytes: int = attrs.field(default=16 * 1024 * 1024, kw_only=True, validator=count_validator(1024, finite=True))
    """Bytes that the log of an agent may have, in two files: when one has half of it, it takes the place of `<file>.1`."""
    contents: bool = attrs.field(default=False, kw_only=True)
    _lock: threading.Lock = attrs.field(init=False, repr=False, factory=threading.Lock)
    # Invariant: held by the thread that writes: agents may share a file.

    # ── hooks

    async def on_start(self, context: MiddlewareContext) -> None:
        """Note that the agent starts.

        Cancellation: nothing is left open.
        """
        if self.enabled:
            self._note(context, "start", {"messages": len(context.state.messages), "scope": type(context.scope).__name__})
            context.start_soon(self._note_end, context)

    async def _note_end(self, context: MiddlewareContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._note(context, "end", {})

    async def before_turn(self, context: MiddlewareContext) -> None:
        """Note that a turn begins.

        Cancellation: noted.
        """
        if self.enabled:
            self._note(context, "turn", {"messages": len(context.state.messages)})

    def turn_ended(self, context: MiddlewareContext, outcome: TurnOutcome) -> None:
        """Note how a turn has ended."""
        if self.enabled:
            fields: dict[str, JSONValue] = {"outcome": type(outcome).__name__}
            match outcome:
                case Completed(usage=usage):
                    fields["usage"] = attrs.asdict(usage)
                case Failed(error=error):
                    fields["error"] = self._error(error)
                case Cancelled(cause=cause):
                    fields["cause"] = cause.value
                case _:
                    pass
            self._note(context, "turn_end", fields)

    async def around_model(
        self, context: MiddlewareContext, request: ModelRequest, call_next: Callable[[ModelRequest], Awaitable[ModelAnswer]]
    ) -> ModelAnswer:
        """Note a model call and its answer.

        Cancellation: noted.
        """
        if not self.enabled:
            return await call_next(request)
        fields: dict[str, JSONValue] = {
            "model": str(getattr(context.agent.model, "name", "")),
            "messages": len(request.messages),
            "tools": len(request.tools),
            "system_chars": len(request.system),
        }
        if self.contents:
            fields |= {"system": request.system, "last": _said(request.messages[-1:])}
        self._note(context, "model", fields)
        began = trio.current_time()
        try:
            answer = await call_next(request)
        except BaseException as error:
            self._note(context, "model_failed", {"seconds": trio.current_time() - began, "error": self._error(error)})
            raise
        message = answer.message
        fields = {
            "seconds": trio.current_time() - began,
            "message_id": message.message_id,
            "stop_reason": message.stop_reason,
            "chars": len(message.text),
            "calls": [call.call_id for call in message.calls],
            "usage": attrs.asdict(answer.usage),
        }
        if self.contents:
            fields["said"] = _said([message])
        self._note(context, "model_answer", fields)
        return answer

    async def around_tool(
        self, context: MiddlewareContext, call: ToolCall, call_next: Callable[[ToolCall], Awaitable[ToolResult]]
    ) -> ToolResult:
        """Note a tool call and its result.

        Cancellation: noted.
        """
        if not self.enabled:
            return await call_next(call)
        named: dict[str, JSONValue] = {"call_id": call.call_id, "tool": call.name}
        shown: dict[str, JSONValue] = {"arguments": dict(call.arguments)} if self.contents else {"arguments": len(call.arguments)}
        self._note(context, "tool", named | shown)
        began = trio.current_time()
        try:
            result = await call_next(call)
        except BaseException as error:
            self._note(context, "tool_failed", named | {"seconds": trio.current_time() - began, "error": self._error(error)})
            raise
        fields = named | {"seconds": trio.current_time() - began, "status": result.status, "chars": len(result.content)}
        self._note(context, "tool_result", fields | ({"said": result.content} if self.contents else {}))
        return result

    def debug_summary(self) -> JSON:
        """Return what is written, not where to."""
        return {"enabled": self.enabled, "contents": self.contents, "max_bytes": self.max_bytes}

    # ── lines

    def _error(self, error: BaseException) -> str:
        return f"{type(error).__name__}: {error}" if self.contents else type(error).__name__

    def _note(self, context: MiddlewareContext, what: str, fields: JSON) -> None:
        """Put down a line, and have it written. Never raises, never waits."""
        lines = self._put(context, what, fields)
        if lines is not None and not lines.is_writing:
            lines.is_writing = True
            context.start_soon(self._write_soon, lines)

    def _put(self, context: MiddlewareContext, what: str, fields: JSON) -> _Lines | None:
        try:
            lines = context.memory.get(_KEY)
            if lines is None:
                lines = context.memory[_KEY] = _Lines(self._path_of(context))
            record = {
                "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
                "what": what,
                "conversation_id": context.conversation_id,
                "turn_id": context.turn_id,
                "path": list(context.path),
                **fields,
            }
            line = json.dumps(record, default=repr)
            if len(line) > MAX_LINE:
                line = json.dumps({**{key: record[key] for key in list(record)[:5]}, "cut": line[: MAX_LINE // 2]})
            lines.lost += len(lines.waiting) == MAX_LINES
            lines.waiting.append(line)
        except Exception:  # whatever a host's path function or values do: a log is not worth a failed turn
            log.exception("DebugLog could not note %r for the agent of conversation %r", what, context.conversation_id)
            return None
        return lines

    def _path_of(self, context: MiddlewareContext) -> Path:
        if isinstance(self.path, Path):
            return self.path / f"{file_name(context.agent_id)}.log"
        return Path(self.path(context))

    async def _write_soon(self, lines: _Lines) -> None:
        """Write what has come together, until nothing more comes. Cancellation: the agent ends; what there is is written first."""
        try:
            while lines.waiting:
                await self._write_all(lines)
        finally:
            lines.is_writing = False
            if lines.waiting:
                # Cancellation: in bounded time, for a disk may hang.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_TIMEOUT):
                    await self._write_all(lines)

    async def _write_all(self, lines: _Lines) -> None:
        # Cancellation: lines leave the list only in the thread, so each is written once, also where this is cut.
        await trio.to_thread.run_sync(self._append, lines, abandon_on_cancel=True, limiter=lines.thread)

    def _append(self, lines: _Lines) -> None:
        """Append what has come together to the file, in a thread; the file is made anew where it is full."""
        most = self.max_bytes // 2
        with self._lock:
            data = _taken(lines)
            data = data[-most:].partition(b"\n")[2] if len(data) > most else data
            path = lines.path
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists() and path.stat().st_size + len(data) > most:
                    path.replace(path.with_name(f"{path.name}.1"))
                with open(path, "ab", opener=_private) as file:  # with an opener
                    file.write(data)
            except OSError:
                log.warning("DebugLog cannot write %s; these lines are lost", path, exc_info=True)


def _taken(lines: _Lines) -> bytes:
    taken = [f'{{"what": "lost", "lines": {lines.lost}}}'] if lines.lost else []
    lines.lost = 0
    while lines.waiting:
        taken.append(lines.waiting.popleft())
    return "".join(f"{line}\n" for line in taken).encode(errors="replace")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def file_name(agent_id: str) -> str:
    """Return a name for the file of an agent: no separator, no dots at its beginning, and different for different agents."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", agent_id)[:80]
    return plain if plain == agent_id else f"{plain}-{hashlib.sha256(agent_id.encode()).hexdigest()[:16]}"


def _said(messages: Sequence[Message]) -> JSONValue:
    return [{"role": one.role, "text": one.text, "results": [result.content for result in one.results]} for one in messages]

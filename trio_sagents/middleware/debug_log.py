"""A log file for each agent: what happened, how long it took, and how large it was.

Each line is a JSON object. The hooks only put lines into a list; a task writes the lines of the list in a thread, and keeps the file open
only while it writes. Nothing is raised into a turn: a file that cannot be written is told once, by `logging`.
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
"""How many lines wait for the thread; the oldest lines are dropped, and the next line says how many."""
MAX_LINE: Final = 64 * 1024
"""How many characters a line may have."""
WRITE_TIMEOUT: Final = 5.0
"""How many seconds the last lines of an agent may take."""
log: Final = logging.getLogger("trio_sagents")
_KEY: Final = "lines"


def _as_path(given: Opaque) -> "Path | Callable[[MiddlewareContext], PathLike]":
    if isinstance(given, str | os.PathLike):
        return Path(given)
    if not callable(given):
        raise TypeError(f"DebugLog.path must be a directory, or a function from the context to a file, not {given!r}")
    return cast("Callable[[MiddlewareContext], PathLike]", given)


@attrs.define(eq=False)
class _Lines:
    """The lines of one agent that are to be written."""

    path: Path
    waiting: "deque[str]" = attrs.field(factory=lambda: deque(maxlen=MAX_LINES))
    """Oldest first; hooks append lines, and the thread that writes removes them."""
    lost: int = 0
    is_writing: bool = False
    thread: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    """The limiter of this agent alone: a thread that hangs keeps nobody else waiting, and no second thread is started beside it."""


@attrs.frozen(eq=False)
class DebugLog(BuiltIn):
    """Writes what an agent does to a file: turns, model calls and tool calls, with ids, sizes and seconds.

    Contents (what people, models and tools say, and the texts of errors) are written only with `contents`, because they may have secrets.
    With `enabled=False` this middleware does nothing. Put it first in `Agent.middleware`, so that its times include the other middleware.
    """

    path: "Path | Callable[[MiddlewareContext], PathLike]" = attrs.field(converter=_as_path)
    """A directory, made if it is missing, in which each agent has a file with its name; or a function that returns the file."""
    enabled: bool = attrs.field(default=True, kw_only=True)
    max_bytes: int = attrs.field(default=16 * 1024 * 1024, kw_only=True, validator=count_validator(1024, finite=True))
    """How many bytes the log of an agent may have, in two files: when a file has half of that, it replaces `<file>.1`."""
    contents: bool = attrs.field(default=False, kw_only=True)
    _lock: threading.Lock = attrs.field(init=False, repr=False, factory=threading.Lock)
    # Invariant: the thread that writes holds the lock, because agents may share a file.

    # ── hooks

    async def on_start(self, context: MiddlewareContext) -> None:
        """Write that the agent starts.

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
        """Write that a turn begins.

        Cancellation: noted.
        """
        if self.enabled:
            self._note(context, "turn", {"messages": len(context.state.messages)})

    def turn_ended(self, context: MiddlewareContext, outcome: TurnOutcome) -> None:
        """Write how a turn has ended."""
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
        """Write a model call and its answer.

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
        """Write a tool call and its result.

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
        """Return the settings, without the path."""
        return {"enabled": self.enabled, "contents": self.contents, "max_bytes": self.max_bytes}

    # ── lines

    def _error(self, error: BaseException) -> str:
        return f"{type(error).__name__}: {error}" if self.contents else type(error).__name__

    def _note(self, context: MiddlewareContext, what: str, fields: JSON) -> None:
        """Add a line, and have it written. This never raises and never waits."""
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
        except Exception:  # the host's path function and values may raise anything: a log must not fail a turn
            log.exception("DebugLog could not note %r for the agent of conversation %r", what, context.conversation_id)
            return None
        return lines

    def _path_of(self, context: MiddlewareContext) -> Path:
        if isinstance(self.path, Path):
            return self.path / f"{file_name(context.agent_id)}.log"
        return Path(self.path(context))

    async def _write_soon(self, lines: _Lines) -> None:
        """Write lines until there are no more. Cancellation: the agent ends; the lines that are there are written first."""
        try:
            while lines.waiting:
                await self._write_all(lines)
        finally:
            lines.is_writing = False
            if lines.waiting:
                # Cancellation: the lines are written in bounded time, because a disk may hang.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_TIMEOUT):
                    await self._write_all(lines)

    async def _write_all(self, lines: _Lines) -> None:
        # Cancellation: lines leave the list only in the thread, so each line is written once, even if this wait is cut.
        await trio.to_thread.run_sync(self._append, lines, abandon_on_cancel=True, limiter=lines.thread)

    def _append(self, lines: _Lines) -> None:
        """Append the lines to the file, in a thread; begin a new file if it is full."""
        most = self.max_bytes // 2
        with self._lock:
            data = _taken(lines)
            data = data[-most:].partition(b"\n")[2] if len(data) > most else data
            path = lines.path
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists() and path.stat().st_size + len(data) > most:
                    path.replace(path.with_name(f"{path.name}.1"))
                with open(path, "ab", opener=_private) as file:  # open() with an opener
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
    """Return a name for the file of an agent: without separators, without dots at its beginning, and different for each agent."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", agent_id)[:80]
    return plain if plain == agent_id else f"{plain}-{hashlib.sha256(agent_id.encode()).hexdigest()[:16]}"


def _said(messages: Sequence[Message]) -> JSONValue:
    return [{"role": one.role, "text": one.text, "results": [result.content for result in one.results]} for one in messages]

"""A model that gives scripted answers, for tests without a provider."""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import attrs
import trio

from trio_sagents.data.json import JSONValue, Opaque
from trio_sagents.data.requests import FinishChunk, ModelChunk, ModelRequest, TextChunk, ToolCallChunk


@attrs.frozen(init=False)
class Call:
    """Ask for a tool: `Call("add", a=1, b=2)`."""

    name: str
    arguments: "dict[str, JSONValue]"

    def __init__(self, name: str, /, **arguments: JSONValue) -> None:
        self.__attrs_init__(name, arguments)  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it


@attrs.frozen
class Hang:
    """Say nothing more until the turn is cancelled."""


Reply: TypeAlias = "str | Call | Sequence[str | Call | BaseException | Hang] | BaseException | Hang"
"""A text; a call; texts, and then parallel calls; an error that is raised in mid-stream; or silence. In a sequence, the last element may be
an error or silence, which comes after the elements before it."""


@attrs.define(eq=False, init=False)
class ScriptedModel:
    """A `Model` that gives scripted replies, in order, and records the requests.

    Args:
        replies: a reply for each call, or a function from the `ModelRequest` to a reply. A call after the last reply raises
            `RuntimeError`, which the turn reports as a failed model.
        chunk_size: how many characters each chunk of a text or of arguments has.
        chunk_interval: seconds between chunks; 0 gives other tasks a turn between them.

    Cancellation: the chunks so far have been given; the reply counts as used.
    """

    _replies: "Iterator[Reply] | Callable[[Opaque], Reply]"
    chunk_size: int
    chunk_interval: float
    name: str
    requests: list[ModelRequest]
    """The requests, in order."""
    _calls: int

    def __init__(
        self,
        replies: "Iterable[Reply] | Callable[[Opaque], Reply]",
        *,
        chunk_size: int = 4,
        chunk_interval: float = 0.0,
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, not {chunk_size!r}")
        if isinstance(replies, str):
            raise TypeError("replies must be a sequence of replies, or a function; [text] is a script of one")
        self._replies = replies if callable(replies) else iter(replies)
        self.chunk_size = chunk_size
        self.chunk_interval = chunk_interval
        self.name = "scripted"
        self.requests = []
        self._calls = 0

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelChunk]]:
        """Open the next scripted answer."""
        self.requests.append(request)
        yield _Chunks(self, self._next(request))

    def _next(self, request: ModelRequest) -> Reply:
        if callable(self._replies):
            return self._replies(request)
        for reply in self._replies:
            return reply
        raise RuntimeError(f"the script has no reply for request {len(self.requests)}")

    def chunks(self, reply: Reply) -> Iterator[ModelChunk]:
        """Return the chunks of a reply; raise the error if the reply is an error."""
        said, _ = _said(reply)
        texts = [piece for piece in said if isinstance(piece, str)]
        calls = [piece for piece in said if isinstance(piece, Call)]
        for text in texts:
            for start in range(0, len(text), self.chunk_size):
                yield TextChunk(text[start : start + self.chunk_size])
        for index, call in enumerate(calls):
            self._calls += 1
            yield ToolCallChunk(index, f"call-{self._calls}", call.name)
            text = json.dumps(call.arguments)
            for start in range(0, len(text), self.chunk_size):
                yield ToolCallChunk(index, arguments_json=text[start : start + self.chunk_size])
        yield FinishChunk("tool_calls" if calls else "stop")


def _said(reply: object) -> "tuple[Sequence[str | Call], BaseException | Hang | None]":
    """Return the texts and calls of a reply, and what comes instead of its end."""
    if isinstance(reply, str | Call):
        return (reply,), None
    if isinstance(reply, Hang):
        return (), reply
    if isinstance(reply, BaseException):
        return ("partial",), reply
    if isinstance(reply, Sequence):
        cut = reply[-1] if reply and isinstance(reply[-1], BaseException | Hang) else None
        said = reply[:-1] if cut is not None else reply
        if all(isinstance(piece, str | Call) for piece in said):
            return said, cut
    raise TypeError(f"not a reply: {reply!r}")


@attrs.define(eq=False)
class _Chunks:
    _model: ScriptedModel
    _reply: Reply
    _left: "Iterator[ModelChunk] | None" = None

    def __aiter__(self) -> "AsyncIterator[ModelChunk]":
        return self

    async def __anext__(self) -> ModelChunk:
        await trio.sleep(self._model.chunk_interval)
        if self._left is None:
            self._left = self._model.chunks(self._reply)
        for chunk in self._left:
            if isinstance(chunk, FinishChunk):
                await self._cut()
            return chunk
        raise StopAsyncIteration

    async def _cut(self) -> None:
        _, cut = _said(self._reply)
        if isinstance(cut, BaseException):
            raise cut
        if cut is not None:
            await trio.sleep_forever()

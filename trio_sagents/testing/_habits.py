"""The mistakes of providers, as changes of a correct stream."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sagents.data.json import Opaque
from trio_sagents.data.requests import FinishChunk, ModelChunk, TextChunk, ToolCallChunk

Habit: TypeAlias = Literal["same_ids", "no_ids", "unknown_tools", "broken_json", "no_finish", "late_text", "twice", "odd_text", "no_chunk"]
"""How a model misbehaves in every answer.

"same_ids": all calls have the same id. "no_ids": no call has an id. "unknown_tools": the model asks for tools that do not exist.
"broken_json": arguments are not valid JSON. "no_finish": the stream ends without a finish. "late_text": the stream continues after its
finish. "twice": each chunk comes twice. "odd_text": the text has lone surrogates. "no_chunk": the stream has an object that is not a chunk.
"""
HABITS: Final[Sequence[Habit]] = get_args(Habit)


def _begun(chunk: ModelChunk, change: Callable[[ToolCallChunk], ToolCallChunk]) -> Sequence[Opaque]:
    return (change(chunk),) if isinstance(chunk, ToolCallChunk) and chunk.id is not None else (chunk,)


def _broken(chunk: ModelChunk) -> Sequence[Opaque]:
    return (attrs.evolve(chunk, arguments_json="{"),) if isinstance(chunk, ToolCallChunk) and chunk.arguments_json else (chunk,)


_CHANGES: Final[Mapping[Habit, Callable[[ModelChunk], Sequence[Opaque]]]] = {
    "same_ids": lambda chunk: _begun(chunk, lambda call: attrs.evolve(call, id="call-1")),
    "no_ids": lambda chunk: _begun(chunk, lambda call: attrs.evolve(call, id=None)),
    "unknown_tools": lambda chunk: _begun(chunk, lambda call: attrs.evolve(call, name="no_such_tool")),
    "broken_json": _broken,
    "no_finish": lambda chunk: () if isinstance(chunk, FinishChunk) else (chunk,),
    "late_text": lambda chunk: (chunk, TextChunk("and another thing")) if isinstance(chunk, FinishChunk) else (chunk,),
    "twice": lambda chunk: (chunk, chunk),
    "odd_text": lambda chunk: (TextChunk("\ud800"), chunk) if isinstance(chunk, FinishChunk) else (chunk,),
    "no_chunk": lambda chunk: (object(), chunk),
}


def check_habits(habits: Sequence[Habit]) -> None:
    """Raise ValueError if a habit is unknown, and TypeError if the habits are a single text."""
    if isinstance(habits, str):
        raise TypeError(f"habits must be a sequence of habits, not {habits!r}")
    for habit in habits:
        if habit not in HABITS:
            raise ValueError(f"a habit must be one of {', '.join(HABITS)}, not {habit!r}")


def with_habits(chunks: AsyncIterator[ModelChunk], habits: Sequence[Habit]) -> AsyncIterator[ModelChunk]:
    """Return the same stream, with these habits."""
    for habit in habits:
        chunks = _Changed(chunks, _CHANGES[habit])
    return chunks


@attrs.define(eq=False)
class _Changed:
    _chunks: AsyncIterator[ModelChunk]
    _change: Callable[[ModelChunk], Sequence[Opaque]]
    _ready: deque[Opaque] = attrs.field(factory=deque)

    def __aiter__(self) -> AsyncIterator[ModelChunk]:
        return self

    async def __anext__(self) -> ModelChunk:
        while not self._ready:
            self._ready.extend(self._change(await self._chunks.__anext__()))
        chunk: ModelChunk = self._ready.popleft()
        return chunk

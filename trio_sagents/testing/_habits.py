"""What providers get wrong, as changes of a stream that is right."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sagents.data.json import Opaque
from trio_sagents.data.requests import FinishChunk, ModelChunk, TextChunk, ToolCallChunk

Habit: TypeAlias = Literal["same_ids", "no_ids", "unknown_tools", "broken_json", "no_finish", "late_text", "twice", "odd_text", "no_chunk"]
"""How a model misbehaves in every answer.

"same_ids": all calls have one id. "no_ids": none has any. "unknown_tools": it asks for tools that are not there. "broken_json":
arguments are no JSON. "no_finish": the stream just ends. "late_text": it goes on behind its end. "twice": each chunk comes twice.
"odd_text": its text has lone surrogates. "no_chunk": it sends what is no chunk.
"""
HABITS: Final[Sequence[Habit]] = get_args(Habit)


def _begun(chunk: ModelChunk, change: Callable[[ToolCallChunk], ToolCallChunk]) -> Sequence[Opaque]:
    return (change(chunk),) if isinstance(chunk, ToolCallChunk) and chunk.id is not None else (chunk,)


def _broken(chunk: ModelChunk) -> Sequence[Opaque]:
    return (attrs.evolve(chunk, arguments_json="{"),) if isinstance(chunk, ToolCallChunk) and chunk.arguments_json else (chunk,)


_CHANGES: Final[Mapping[Habit, Callable[[ModelChunk], Sequence[Opaque]]]] = {
    "same_ids": lambda chunk: _begun(chunk, lambda one: attrs.evolve(one, id="call-1")),
    "no_ids": lambda chunk: _begun(chunk, lambda one: attrs.evolve(one, id=None)),
    "unknown_tools": lambda chunk: _begun(chunk, lambda one: attrs.evolve(one, name="no_such_tool")),
    "broken_json": _broken,
    "no_finish": lambda chunk: () if isinstance(chunk, FinishChunk) else (chunk,),
    "late_text": lambda chunk: (chunk, TextChunk("and another thing")) if isinstance(chunk, FinishChunk) else (chunk,),
    "twice": lambda chunk: (chunk, chunk),
    "odd_text": lambda chunk: (TextChunk("\ud800"), chunk) if isinstance(chunk, FinishChunk) else (chunk,),
    "no_chunk": lambda chunk: (object(), chunk),
}


def check_habits(habits: Sequence[Habit]) -> None:
    """Refuse what is no list of habits: ValueError where one is unknown, TypeError where they are one text."""
    if isinstance(habits, str):
        raise TypeError(f"habits must be a sequence of habits, not {habits!r}")
    for habit in habits:
        if habit not in HABITS:
            raise ValueError(f"a habit is one of {', '.join(HABITS)}, not {habit!r}")


def with_habits(chunks: AsyncIterator[ModelChunk], habits: Sequence[Habit]) -> AsyncIterator[ModelChunk]:
    """Return the same stream, with bad habits."""
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

"""Models that yield whatever chunks they are given, or speak until they may end."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from trio_sagents import ModelChunk, ModelRequest
from trio_sagents.data.requests import FinishChunk, TextChunk


class RawModel:
    """A model that yields these chunks, whatever they are; the last list again and again."""

    name = "raw"

    def __init__(self, *answers: Sequence[Any], delay: float = 0.0) -> None:
        self.answers = list(answers)
        self.delay = delay

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[AsyncIterator[Any]]:
        chunks = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

        async def generate() -> AsyncIterator[Any]:
            for chunk in chunks:
                await trio.sleep(self.delay)
                yield chunk

        generator = generate()
        try:
            yield generator
        finally:
            await generator.aclose()


END: Final = "<end>"
LEAST: Final = 100
"""The fewest pieces of an answer that ends."""


def is_answer(text: str, *, whole: bool) -> bool:
    """Return whether a text is an answer of the model, or the beginning of one."""
    count = text.count("<") - whole
    return text == "".join(f"<{number}>" for number in range(count)) + END * whole


class Speaker:
    """A model that speaks until it may end, so that whoever listens finds it speaking, however slow the machine is."""

    name = "speaker"

    def __init__(self) -> None:
        self.may_end = False

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelChunk]]:
        yield self._chunks()

    async def _chunks(self) -> AsyncIterator[ModelChunk]:
        for number in itertools.count():
            await trio.sleep(0.005)
            if self.may_end and number >= LEAST:
                break
            yield TextChunk(f"<{number}>")
        yield TextChunk(END)
        yield FinishChunk("stop")

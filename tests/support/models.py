"""Models that yield whatever chunks they are given."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio


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

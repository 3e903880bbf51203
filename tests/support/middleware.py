"""Helpers for the scenarios of the middleware."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.support.scenarios import ask, opened, read_all
from tests.support.strict_provider import check_request
from trio_sagents import Agent, Envelope, FinishChunk, ModelChunk, ModelRequest, Sessions, SqliteStore, Usage, UsageChunk
from trio_sagents.testing import ScriptedModel


@attrs.define(eq=False)
class StrictModel:
    """A scripted model that refuses what a provider would refuse, and reports the usage of each answer."""

    replies: Any
    usage: Usage | None = None
    name: str = "scripted"
    chunk_interval: float = 0.0
    finish: str | None = None
    """The stop reason that every answer gets; None keeps the script's."""
    _inner: ScriptedModel = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._inner = ScriptedModel(self.replies, chunk_interval=self.chunk_interval)

    @property
    def requests(self) -> list[ModelRequest]:
        return self._inner.requests

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelChunk]]:
        check_request(request)
        async with self._inner.stream(request) as chunks, aclosing(self._counted(chunks)) as counted:
            yield counted

    async def _counted(self, chunks: AsyncIterator[ModelChunk]) -> AsyncGenerator[ModelChunk, None]:
        if self.usage is not None:
            yield UsageChunk(self.usage)
        async for chunk in chunks:
            yield FinishChunk(self.finish) if isinstance(chunk, FinishChunk) and self.finish is not None else chunk


def agent_with(*middleware: Any, replies: Any = None, usage: Usage | None = None, tools: Sequence[Any] = (), **settings: Any) -> Agent:
    """Return an agent with a strict scripted model. Without replies the model answers "ok"."""
    model = settings.pop("model", None) or StrictModel((lambda request: "ok") if replies is None else replies, usage)
    return Agent(model=model, middleware=middleware, tools=tools, **settings)


@asynccontextmanager
async def on_file(path: Path, agent: Agent, **settings: Any) -> AsyncIterator[Sessions]:
    """Open sessions on a SQLite file. After the block, only the contents of the file are left."""
    async with opened(agent, store=SqliteStore(path), **settings) as sessions:
        yield sessions


def asked(agent: Agent) -> list[ModelRequest]:
    """Return the requests that the agent's model got."""
    requests: list[ModelRequest] = agent.model.requests  # type: ignore[attr-defined]  # a StrictModel
    return requests


def texts(request: ModelRequest) -> list[tuple[str, str]]:
    """Return (role, text) of each message of a request."""
    return [
        (message.role, message.text or " ".join([*(call.name for call in message.calls), *(result.content for result in message.results)]))
        for message in request.messages
    ]


async def events_of(sessions: Sessions, *words: str, channel: Any = "main") -> list[Any]:
    """Post these texts one after the other, and return all events."""
    async with sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c", channel=channel)
        for text in words:
            await ask(sessions, text)
        envelopes: list[Envelope] = await read_all(subscriber)
    return [envelope.event for envelope in envelopes]

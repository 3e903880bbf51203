"""A program that serves conversations with FastAPI on uvicorn; the tests send it signals.

Its arguments: database, grace period, loop, the descriptor of the socket that it listens on, "ends" if it ends its streams at a signal, and
"speaks" if an answer may end when the program is told to stop; otherwise none ends.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from tests.support.models import Speaker
from trio_sagents import (
    Agent,
    ConversationNotFound,
    SessionConfig,
    SessionPolicy,
    SingleFactoryRouter,
    SqliteStore,
    envelope_to_dict,
)
from trio_sagents.asyncio import Watch, open_sessions


def make_app(database: str, grace_period: float, *, ends_streams: bool = True, ends_answers: bool = True) -> FastAPI:
    model = Speaker()
    agent = Agent(model=model)
    config = SessionConfig(
        factory_router=SingleFactoryRouter(agent),
        store=SqliteStore(database),
        policy=SessionPolicy(grace_period=grace_period, settle_timeout=2.0),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_sessions(config) as sessions:
            app.state.sessions, app.state.model = sessions, model
            if ends_streams:
                sessions.end_streams_on()
            print("open", flush=True)
            yield
            model.may_end = ends_answers
        print("closed", flush=True)

    app = FastAPI(lifespan=lifespan)

    @app.post("/{conversation}")
    async def post(conversation: str, text: str, message_id: str | None = None) -> Any:
        receipt = await app.state.sessions.post(conversation, text, message_id=message_id)
        return {"message_id": receipt.message_id, "duplicate": receipt.duplicate}

    @app.get("/{conversation}/history")
    async def history(conversation: str) -> Any:
        try:
            return [row.content.get("text") for row in (await app.state.sessions.history(conversation)).rows]
        except ConversationNotFound:
            return []

    async def watching(conversation: str, last_event_id: Annotated[str | None, Header()] = None) -> AsyncIterator[Watch]:
        async with app.state.sessions.watch(conversation, viewer="v", after=last_event_id) as watch:
            yield watch

    @app.get("/{conversation}", response_class=EventSourceResponse)
    async def events(watch: Annotated[Any, Depends(watching)]) -> AsyncIterator[ServerSentEvent]:
        async for envelope in watch:
            yield ServerSentEvent(data=envelope_to_dict(envelope), id=str(envelope.cursor))

    return app


if __name__ == "__main__":
    _, path, grace, loop, fd, ends, speaks = sys.argv
    app = make_app(path, float(grace), ends_streams=ends == "ends", ends_answers=speaks == "speaks")
    uvicorn.run(app, fd=int(fd), loop=loop, log_level="warning")  # type: ignore[arg-type]  # one of its names

"""A conversation on FastAPI and uvicorn with a route of your own, as server-sent events.

uvicorn examples.asyncio_fastapi:app
curl -N -X POST 'http://127.0.0.1:8000/42?text=Hello'
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.sse import EventSourceResponse

from trio_sagents import JSON, Agent, SessionConfig, SingleFactoryRouter, envelope_to_dict
from trio_sagents.asyncio import Watch, open_sessions
from trio_sagents.models.offline import OfflineModel


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(Agent(model=OfflineModel())))) as app.state.sessions:
        app.state.sessions.end_streams_on()  # at SIGTERM; otherwise open streams hold the server
        yield


app = FastAPI(lifespan=lifespan)


async def asking(request: Request, conversation: str, text: str) -> AsyncIterator[Watch]:
    async with request.app.state.sessions.watch(conversation) as watch:  # FastAPI leaves it when the request has ended
        await request.app.state.sessions.post(conversation, text)
        yield watch


@app.post("/{conversation}", response_class=EventSourceResponse)
async def chat(watch: Annotated[Any, Depends(asking)]) -> AsyncIterator[JSON]:
    async for envelope in watch:
        yield envelope_to_dict(envelope)

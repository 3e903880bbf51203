"""A conversation on the web, with FastAPI on uvicorn: `uvicorn examples.asyncio_web:app`, and open http://127.0.0.1:8000/chat/."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from trio_sagents import Agent, SessionConfig, SingleFactoryRouter
from trio_sagents.asyncio import asyncio_app, open_sessions
from trio_sagents.models.offline import OfflineModel
from trio_sagents.web import Bridge


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(Agent(model=OfflineModel())))) as sessions:
        app.mount("/chat", asyncio_app(Bridge(sessions.trio, authenticate=lambda request: "me")))  # whoever comes is "me": ask your login
        yield


app = FastAPI(lifespan=lifespan)

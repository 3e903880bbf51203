"""A conversation on the web, with FastAPI on hypercorn: run it, and open http://127.0.0.1:8000/chat/."""

import hypercorn.trio
import trio
from fastapi import FastAPI

from trio_sagents import Agent, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.models.offline import OfflineModel
from trio_sagents.web import Bridge


async def main() -> None:
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(Agent(model=OfflineModel())))) as sessions:
        bridge, app = Bridge(sessions, authenticate=lambda request: "me"), FastAPI()  # whoever comes is "me": ask your login
        app.mount("/chat", bridge)
        await hypercorn.trio.serve(app, hypercorn.Config(), shutdown_trigger=bridge.wait_shutdown)


trio.run(main)

"""A conversation on the web, with quart-trio: run it, and open http://127.0.0.1:8000/chat/."""

import trio
from quart_trio import QuartTrio

from trio_sagents import Agent, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.models.offline import OfflineModel
from trio_sagents.web import Bridge, blueprint


async def main() -> None:
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(Agent(model=OfflineModel())))) as sessions:
        bridge, app = Bridge(sessions, authenticate=lambda request: "me"), QuartTrio(__name__)  # whoever comes is "me": ask your login
        app.register_blueprint(blueprint(bridge), url_prefix="/chat")
        await app.run_task(port=8000, shutdown_trigger=bridge.wait_shutdown)


trio.run(main)

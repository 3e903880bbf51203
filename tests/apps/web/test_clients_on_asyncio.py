"""The real clients of both protocols against FastAPI on uvicorn: the routes are code of Trio, and the server is one of asyncio."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import fastapi
import pytest

from tests.apps.guest._served import served
from tests.apps.web._front_ends import CLIENTS, pay, require_clients
from trio_sagents import Agent, Approvals, SessionConfig, SingleFactoryRouter
from trio_sagents.asyncio import asyncio_app, open_sessions
from trio_sagents.testing import Call, ScriptedModel
from trio_sagents.web import AgUiRoutes, VercelRoutes

pytestmark = pytest.mark.slow
TEXT = "0123456789" * 60


@pytest.fixture(autouse=True)
def _clients() -> None:
    require_clients()


def make_app() -> fastapi.FastAPI:
    """Return an application whose agent asks before it pays, and then counts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        model = ScriptedModel([["Paying", Call("pay", amount=3)], "Done", TEXT], chunk_size=4, chunk_interval=0.002)
        agent = Agent(model=model, tools=[pay], middleware=[Approvals({"pay": True})])
        async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
            app.mount("/chat", asyncio_app(VercelRoutes(sessions.trio, lambda request: request.bearer)))
            app.mount("/agent", asyncio_app(AgUiRoutes(sessions.trio, lambda request: request.bearer)))
            yield

    return fastapi.FastAPI(lifespan=lifespan)


@contextlib.asynccontextmanager
async def node(script: str, url: str) -> AsyncIterator[Callable[..., Any]]:
    """Start a client in Node; the value carries out a command and returns the answer."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(CLIENTS / script),
        url,
        "alice",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )

    async def carry_out(do: str, **fields: Any) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        answer = json.loads(await process.stdout.readline())
        assert "failed" not in answer, answer["failed"]
        return answer

    try:
        yield carry_out
    finally:
        process.kill()
        await process.wait()


def test_vercel_client() -> None:
    """An approval, an answer, a client that leaves in the middle of an answer, and one that resumes: nothing is lost or shown twice."""

    async def main() -> None:
        async with served(make_app()) as port, node("vercel.mjs", f"http://127.0.0.1:{port}/chat") as client:
            await client("open", chat="a", id="c")
            asked = await client("send", chat="a", text="pay")
            done = await client("approve", chat="a", approved=True)
            await client("send", chat="a", text="count", wait=False)
            shown = await client("until", chat="a", text="0123")
            await client("disconnect", chat="a")
            ended = await client("resume", chat="a", turn=shown["messages"][-1]["id"])
            texts = [part["text"] for message in ended["messages"] for part in message["parts"] if part["type"] == "text"]

            assert ["approval-requested"] == [part["state"] for part in asked["messages"][-1]["parts"] if part["type"] == "dynamic-tool"]
            assert [] == done["errors"] == ended["errors"]
            assert ["pay", "Paying", "Done", "count", TEXT] == texts

    asyncio.run(main())


def test_ag_ui_client() -> None:
    """An interrupt and its resumption, a stop, and a client that joins: the run ends as it has to, and the past is there."""

    async def main() -> None:
        async with served(make_app()) as port, node("ag_ui.mjs", f"http://127.0.0.1:{port}/agent") as client:
            await client("open", agent="a", id="c")
            asked = await client("run", agent="a", text="pay")
            (interrupt,) = asked["events"][-1]["outcome"]["interrupts"]
            answer = {"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}
            done = await client("run", agent="a", resume=[answer])
            await client("run", agent="a", text="count", wait=False)
            await client("until", agent="a", text="0123")
            stopped = await client("stop", agent="a")
            ended = await client("ended", agent="a")
            await client("open", agent="b", id="c", path="/connect")
            joined = await client("run", agent="b")
            said = [message["content"] for message in joined["messages"] if message["role"] == "assistant"]

            assert [] == done["errors"] == ended["errors"] == joined["errors"]
            assert {"stopped": True} == stopped["answer"]
            assert "cancelled" == ended["events"][-1]["outcome"]["type"]
            assert ["Paying", "Done"] == said[:2]
            assert TEXT.startswith(said[2])
            assert [(message["id"], message["content"]) for message in ended["messages"]] == [
                (message["id"], message["content"]) for message in joined["messages"]
            ]

    asyncio.run(main())

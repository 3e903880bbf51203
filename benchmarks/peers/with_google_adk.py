"""google-adk: `Runner` with its service for sessions in a database, SQLite by aiosqlite."""

import asyncio
from pathlib import Path

import common
from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.events import Event
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import DatabaseSessionService, InMemorySessionService
from google.genai import types

WORD = "word "
APP, USER = "benchmark", "user"


def content(role: str, text: str) -> types.Content:
    return types.Content(role=role, parts=[types.Part(text=text)])


class FakeModel(BaseLlm):
    """Answers what it is told to."""

    async def generate_content_async(self, llm_request, stream=False):  # the base class has it so
        said = llm_request.contents[-1].parts[-1].text
        if said == common.QUESTION:
            yield LlmResponse(content=content("model", common.ANSWER))
            return
        pieces = [WORD] * int(said)
        for piece in pieces:
            yield LlmResponse(content=content("model", piece), partial=True)
        yield LlmResponse(content=content("model", "".join(pieces)), partial=False)


class GoogleADK:
    """A session for each conversation."""

    async def open(self, folder: Path) -> None:
        agent = LlmAgent(name="fake", model=FakeModel(model="fake"))
        self.service = DatabaseSessionService(db_url=f"sqlite+aiosqlite:///{folder / 'adk.db'}")
        self.runner = Runner(app_name=APP, agent=agent, session_service=self.service)
        self.memory = InMemorySessionService()
        self.in_memory = Runner(app_name=APP, agent=agent, session_service=self.memory)

    async def seed(self, name: str, messages: int) -> None:
        session = await self.service.create_session(app_name=APP, user_id=USER, session_id=name)
        for number in range(messages):
            author, role = ("fake", "model") if number % 2 else ("user", "user")
            await self.service.append_event(
                session, Event(author=author, invocation_id=f"i{number // 2}", content=content(role, common.ANSWER))
            )

    async def _ask(self, runner: Runner, name: str, text: str, mode: StreamingMode) -> int:
        run = runner.run_async(user_id=USER, session_id=name, new_message=content("user", text), run_config=RunConfig(streaming_mode=mode))
        return len([None async for _ in run])

    async def turn(self, name: str) -> None:
        await self._ask(self.runner, name, common.QUESTION, StreamingMode.NONE)

    async def stream(self, name: str, tokens: int) -> int:
        if await self.service.get_session(app_name=APP, user_id=USER, session_id=name) is None:
            await self.service.create_session(app_name=APP, user_id=USER, session_id=name)
        return await self._ask(self.runner, name, str(tokens), StreamingMode.SSE)

    async def keep(self, name: str) -> None:
        await self.memory.create_session(app_name=APP, user_id=USER, session_id=name)
        await self._ask(self.in_memory, name, common.QUESTION, StreamingMode.NONE)

    async def close(self) -> None:
        return


common.main(GoogleADK(), lambda measure: asyncio.run(measure()))

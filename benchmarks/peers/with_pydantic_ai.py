"""pydantic-ai: the messages of each run are stored as JSON in SQLite and read again before the next, as its documentation's chat does."""

import asyncio
import sqlite3
from pathlib import Path

import common
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import FunctionModel

WORD = "word "


def answer(messages, info):
    return ModelResponse(parts=[TextPart(common.ANSWER)])


async def speak(messages, info):
    for _ in range(int(messages[-1].parts[-1].content)):
        yield WORD


class PydanticAI:
    """A table of runs."""

    async def open(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "pydantic.db", check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, name TEXT, messages TEXT)")
        self.connection.execute("CREATE INDEX by_name ON runs (name)")
        self.agent = Agent(FunctionModel(answer, stream_function=speak))
        self.kept: list[object] = []

    def _load(self, name: str):
        rows = self.connection.execute("SELECT messages FROM runs WHERE name = ? ORDER BY id", (name,)).fetchall()
        return [message for (text,) in rows for message in ModelMessagesTypeAdapter.validate_json(text)]

    def _store(self, name: str, text: bytes) -> None:
        with self.connection:
            self.connection.execute("INSERT INTO runs (name, messages) VALUES (?, ?)", (name, text.decode()))

    async def seed(self, name: str, messages: int) -> None:
        for _ in range(messages // 2):
            asked, said = ModelRequest(parts=[UserPromptPart(common.ANSWER)]), ModelResponse(parts=[TextPart(common.ANSWER)])
            self.connection.execute(
                "INSERT INTO runs (name, messages) VALUES (?, ?)", (name, ModelMessagesTypeAdapter.dump_json([asked, said]).decode())
            )
        self.connection.commit()

    async def turn(self, name: str) -> None:
        history = await asyncio.to_thread(self._load, name)
        run = await self.agent.run(common.QUESTION, message_history=history)
        await asyncio.to_thread(self._store, name, run.new_messages_json())

    async def stream(self, name: str, tokens: int) -> int:
        history = await asyncio.to_thread(self._load, name)
        async with self.agent.run_stream(str(tokens), message_history=history) as run:
            pieces = len([None async for _ in run.stream_text(delta=True, debounce_by=None)])
        await asyncio.to_thread(self._store, name, run.new_messages_json())
        return pieces

    async def keep(self, name: str) -> None:
        self.kept.append((await self.agent.run(common.QUESTION)).all_messages())

    async def close(self) -> None:
        self.connection.close()


common.main(PydanticAI(), lambda measure: asyncio.run(measure()))

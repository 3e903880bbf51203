"""This library: an agent for each conversation, which stays up, and a `SqliteStore`."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import common
import trio

from trio_sagents import (
    Agent,
    Completed,
    MemoryStore,
    Message,
    SessionConfig,
    SessionOpts,
    SessionPolicy,
    SingleFactoryRouter,
    SqliteStore,
    TextDelta,
    TextPart,
    TurnEnded,
    open_sessions,
)
from trio_sagents.testing import ScriptedModel

WORD = "word "


class TrioSagents:
    """One block with a `SqliteStore`, and one in memory."""

    async def open(self, folder: Path) -> None:
        self.seeds: dict[str, Sequence[Message]] = {}
        self.stack = contextlib.AsyncExitStack()
        store = SqliteStore(folder / "ours.db", synchronous="NORMAL")
        self.sessions = await self.stack.enter_async_context(open_sessions(self._config(store)))
        self.in_memory = await self.stack.enter_async_context(open_sessions(self._config(MemoryStore())))

    def _config(self, store: MemoryStore | SqliteStore) -> SessionConfig:
        whole = Agent(model=ScriptedModel(lambda request: common.ANSWER, chunk_size=len(common.ANSWER)))
        streamed = Agent(model=ScriptedModel(lambda request: WORD * int(request.messages[-1].text), chunk_size=len(WORD)))

        async def create(agent_id: str, config: dict[str, str]) -> tuple[Agent, SessionOpts]:
            name = config["conversation_id"]
            seed = {"messages": self.seeds.get(name, ())}
            return streamed if name == "streamed" else whole, SessionOpts(fresh_state_attrs=seed)

        return SessionConfig(
            factory_router=SingleFactoryRouter(create), store=store, inactivity_timeout=3600, policy=SessionPolicy(max_sessions=100_000)
        )

    async def seed(self, name: str, messages: int) -> None:
        said = (TextPart(common.ANSWER),)
        self.seeds[name] = [
            Message(f"seed-{number}", "assistant", said, "stop") if number % 2 else Message(f"seed-{number}", "user", said)
            for number in range(messages)
        ]
        await self.turn(name)

    async def turn(self, name: str) -> None:
        outcome = await (await self.sessions.post(name, common.QUESTION)).wait()
        assert isinstance(outcome, Completed), outcome

    async def stream(self, name: str, tokens: int) -> int:
        pieces = 0
        async with self.sessions.watch(name) as watch:
            await self.sessions.post(name, str(tokens))
            async for envelope in watch:
                if isinstance(envelope.event, TextDelta):
                    pieces += 1
                elif isinstance(envelope.event, TurnEnded):
                    return pieces
        raise AssertionError("the watch ended before the turn")

    async def keep(self, name: str) -> None:
        await (await self.in_memory.post(name, common.QUESTION)).wait()

    async def close(self) -> None:
        await self.stack.aclose()


common.main(TrioSagents(), trio.run)

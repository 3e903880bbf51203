"""A host's program on asyncio, as strict type checkers must take it."""

import asyncio

from trio_sagents import Completed, PageChange, SessionConfig, TextDelta
from trio_sagents.asyncio import AgentHandle, Page, Receipt, SessionInfo, Sessions, Watch, call_asyncio, call_trio, open_sessions


async def double(number: int) -> int:
    return 2 * number


async def read(watch: Watch) -> str:
    text = ""
    async for envelope in watch:
        if isinstance(envelope.event, TextDelta):
            text += envelope.event.text
    async for batch in watch.batches():
        text += str(len(batch))
    return text


async def draw(page: Page) -> list[PageChange]:
    return [change async for change in page]


async def talk(sessions: Sessions) -> str | None:
    receipt: Receipt = await sessions.post("42", "Hello", overlap="steer")
    info: SessionInfo = await sessions.start("42")
    handle: AgentHandle = info.agent
    await handle.wait_idle()
    running: bool = await sessions.trio.running("42")
    outcome = await receipt.wait()
    return outcome.message.text if isinstance(outcome, Completed) and running else None


async def main(config: SessionConfig) -> int:
    async with open_sessions(config) as sessions, sessions.watch("42", viewer="me") as watch, sessions.page("42") as page:
        sessions.end_streams_on()
        await asyncio.gather(talk(sessions), read(watch), draw(page))
    number: int = await call_trio(double, 3)
    return number + await call_asyncio(double, 4)

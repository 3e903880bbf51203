"""A program that the tests interrupt: it talks to an agent until it is told to stop, and says what it has left. Its argument: the loop."""

import asyncio
import signal
import sys
from typing import Any

from tests.apps.guest._kit import TEXT, assert_idle, config, new_loop
from trio_sagents import TurnEnded
from trio_sagents.asyncio import open_sessions


async def main() -> None:
    async with open_sessions(config(lambda request: TEXT, chunk_interval=0.001)) as sessions, sessions.watch("c", viewer="v") as watch:
        print("open", flush=True)
        while True:
            await sessions.post("c", "x")
            async for envelope in watch:
                if isinstance(envelope.event, TurnEnded):
                    break


def run(loop: str) -> Any:
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        try:
            runner.run(main())
        except KeyboardInterrupt:
            return "KeyboardInterrupt"
    return None


if __name__ == "__main__":
    before = signal.getsignal(signal.SIGINT)
    ended = run(sys.argv[1])
    assert_idle()
    assert signal.getsignal(signal.SIGINT) is before
    print(ended, flush=True)

"""Runs asyncio programs on both loops, and looks at what is left when they have ended."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import trio
import uvloop

from trio_sagents import Agent, MemoryStore, SessionConfig, SessionPolicy, SingleFactoryRouter
from trio_sagents.asyncio import Sessions, open_sessions
from trio_sagents.asyncio._guest import running_guest
from trio_sagents.testing import ScriptedModel

T = TypeVar("T")
LOOPS: Final = ("asyncio", "uvloop")
HANGS: Final = 60.0
"""Seconds after which a wait has failed. Only what would never end takes so long, on a slow machine too."""
TEXT: Final = "".join(f"<{number}>" for number in range(100))


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop() if name == "uvloop" else asyncio.new_event_loop()


def run(main: Callable[[], Awaitable[T]], loop: str = "asyncio") -> T:
    """Run a program in a loop of its own. When it has ended, no task is left in the loop, and this thread runs no Trio any more."""

    async def wrapped() -> T:
        result = await main()
        await asyncio.sleep(0)
        assert [] == [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert_idle()
        return result

    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        return runner.run(wrapped())


def assert_idle() -> None:
    """Nothing of a guest run is left in this thread."""
    assert running_guest() is None
    assert not trio.lowlevel.in_trio_run()


def config(
    replies: Any = None, *, store: Any = None, tools: Sequence[Any] = (), chunk_interval: float = 0.0, **policy: Any
) -> SessionConfig:
    """Return settings with a scripted model, which by default echoes. Agents are cut soon after their block is left."""
    model = ScriptedModel(replies or (lambda request: f"re: {request.messages[-1].text}"), chunk_interval=chunk_interval)
    agent = Agent(model=model, tools=tools)
    durations = {"grace_period": 1.0, "settle_timeout": 1.0} | policy
    return SessionConfig(factory_router=SingleFactoryRouter(agent), store=store or MemoryStore(), policy=SessionPolicy(**durations))


@contextlib.asynccontextmanager
async def opened(*args: Any, **settings: Any) -> AsyncIterator[Sessions]:
    async with open_sessions(config(*args, **settings)) as sessions:
        yield sessions


def left_in_trio() -> int:
    """Return how many calls and open context managers there are in the guest run of this thread."""
    guest = running_guest()
    return 0 if guest is None else len(guest.dependents)


async def passes(number: int) -> None:
    """Let the loop make some passes. After a hundred it rests in each, so that everything that was waited for has come at some number."""
    for done in range(number):
        await asyncio.sleep(0 if done < 100 else 0.001)


async def breathe() -> None:
    """Let the loop rest. A loop that is busy all the time keeps the interpreter lock, and Trio's helper thread waits for it."""
    await asyncio.sleep(0.001)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds, or fail after a minute."""
    async with asyncio.timeout(HANGS):
        while not condition():
            await breathe()


async def cancelled_after(number: int, coroutine: Any) -> Any:
    """Cancel a task after some passes of the loop, and return its result, or the error with which it ended."""
    task = asyncio.ensure_future(coroutine)
    await passes(number)
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return result


def in_thread(fn: Callable[[], Any]) -> None:
    """Run a function in a thread, and raise what it raised."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            fn()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for error in errors:
        raise error

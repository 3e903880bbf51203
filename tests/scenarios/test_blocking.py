"""A tool or a hook that blocks the event loop is named in the log, with the conversation and the seconds."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from tests.support.scenarios import ask, make_agent, opened
from trio_sagents import Agent, Completed, Middleware, SubAgents, Task
from trio_sagents._trio.watching import LoopWatch
from trio_sagents.testing import Call, ScriptedModel


class RealTime:
    """Stands for the real clock: it only moves when something blocks."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def block(self, seconds: float) -> None:
        """Block the event loop."""
        self.now += seconds


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> RealTime:
    """Return the clock that the watch looks at."""
    clock = RealTime()
    made = LoopWatch.__init__
    monkeypatch.setattr(LoopWatch, "__init__", lambda self, limit: made(self, limit, clock))
    return clock


def told(caplog: pytest.LogCaptureFixture) -> Sequence[str]:
    """Return what was logged about the event loop."""
    return [record.getMessage().partition(";")[0] for record in caplog.records if "blocked" in record.getMessage()]


def tool_that_blocks(real: RealTime, *seconds: float) -> Any:
    async def slow() -> str:
        """Block, and wait a little after each time."""
        for some in seconds:
            real.block(some)
            await trio.sleep(1)
        return "ok"

    return slow


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((0.4, 0.4, 0.4), []),
        ((0.6,), ["the tool 'slow' blocked the event loop for 0.60 s, in conversation 'c'"]),
        ((0.6, 0.7, 0.8), ["the tool 'slow' blocked the event loop for 0.60 s, in conversation 'c'"]),
        (
            (0.6, 2),
            [
                "the tool 'slow' blocked the event loop for 0.60 s, in conversation 'c'",
                "the tool 'slow' blocked the event loop for 2.00 s, in conversation 'c'",
            ],
        ),
    ],
)
async def test_tool_when_it_blocks(
    autojump_clock: Any, real: RealTime, caplog: pytest.LogCaptureFixture, seconds: Sequence[float], words: Sequence[str]
) -> None:
    """Each stretch without a checkpoint counts by itself; a tool that blocks again is named again only if it got much worse."""
    async with opened(make_agent(Call("slow"), "Done.", tools=[tool_that_blocks(real, *seconds)])) as sessions:
        assert isinstance(await ask(sessions), Completed)

    assert words == told(caplog)


async def test_tool_when_it_blocks_and_never_waits(autojump_clock: Any, real: RealTime, caplog: pytest.LogCaptureFixture) -> None:
    """A tool without any checkpoint is named, though its step of the task goes on in the library."""

    async def slow() -> str:
        """Block."""
        real.block(3)
        return "ok"

    async with opened(make_agent(Call("slow"), "Done.", tools=[slow])) as sessions:
        await ask(sessions)

    assert ["the tool 'slow' blocked the event loop for 3.00 s, in conversation 'c'"] == told(caplog)


async def test_tool_when_a_task_of_it_blocks(autojump_clock: Any, real: RealTime, caplog: pytest.LogCaptureFixture) -> None:
    """A task that a tool started counts as the tool."""

    async def child() -> None:
        await trio.sleep(1)
        real.block(3)

    async def slow() -> str:
        """Start a task."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        return "ok"

    async with opened(make_agent(Call("slow"), "Done.", tools=[slow])) as sessions:
        await ask(sessions)

    assert ["the tool 'slow' blocked the event loop for 3.00 s, in conversation 'c'"] == told(caplog)


async def test_tool_when_it_works_in_a_thread(real: RealTime, caplog: pytest.LogCaptureFixture) -> None:
    """A plain function runs in a thread: it blocks nothing, and is not named."""

    def slow() -> str:
        """Take long."""
        return "ok"

    async with opened(make_agent(Call("slow"), "Done.", tools=[slow])) as sessions:
        await ask(sessions)

    assert [] == told(caplog)


class Slow(Middleware):
    """Blocks in some hooks."""

    def __init__(self, real: RealTime, *hooks: str) -> None:
        self.real = real
        self.hooks = hooks

    def _block(self, hook: str) -> None:
        if hook in self.hooks:
            self.real.block(1)

    async def on_start(self, context: Any) -> None:
        """Block."""
        self._block("on_start")

    async def before_turn(self, context: Any) -> None:
        """Block."""
        self._block("before_turn")

    async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
        """Block before and after the call."""
        self._block("around_tool")
        return await call_next(call)

    def turn_ended(self, context: Any, outcome: Any) -> None:
        """Block."""
        self._block("turn_ended")


@pytest.mark.parametrize("hook", ["on_start", "before_turn", "around_tool", "turn_ended"])
async def test_hook_when_it_blocks(autojump_clock: Any, real: RealTime, caplog: pytest.LogCaptureFixture, hook: str) -> None:
    """A hook is named with its middleware, whatever runs in the same step of the task."""
    agent = make_agent(Call("slow"), "Done.", tools=[tool_that_blocks(real, 0.1)], middleware=[Slow(real, hook)])
    async with opened(agent) as sessions:
        await ask(sessions)

    assert [f"the middleware 'Slow' ({hook}) blocked the event loop for 1.00 s, in conversation 'c'"] == told(caplog)


async def test_sub_agent_when_its_tool_blocks(autojump_clock: Any, real: RealTime, caplog: pytest.LogCaptureFixture) -> None:
    """The innermost name is told: not the tool that runs the sub-agent."""
    inner = Agent(model=ScriptedModel([Call("slow"), "inner"]), tools=[tool_that_blocks(real, 2)], middleware=[Slow(real, "before_turn")])
    task = Task(name="x", description="Does.", agent=inner)
    outer = make_agent(Call("task", name="x", instructions="do"), "Done.", middleware=[SubAgents([task])])
    async with opened(outer) as sessions:
        await ask(sessions)

    assert [
        "the middleware 'Slow' (before_turn) blocked the event loop for 1.00 s, in conversation 'c'",
        "the tool 'slow' blocked the event loop for 2.00 s, in conversation 'c'",
    ] == told(caplog)


@pytest.mark.parametrize(("limit", "count"), [(0.05, 1), (0.5, 0), (math.inf, 0)])
async def test_policy_when_it_says_how_long(
    autojump_clock: Any, real: RealTime, caplog: pytest.LogCaptureFixture, limit: float, count: int
) -> None:
    """The limit is that of the policy; `math.inf` has no instrument at all."""
    before, watching = len(_instruments()), list[int]()

    async def slow() -> str:
        """Look, and block."""
        watching.append(len(_instruments()))
        real.block(0.1)
        return "ok"

    agent = make_agent(Call("slow"), "Done.", tools=[slow])
    async with opened(agent, policy={"blocking_warning": limit}) as sessions:
        await ask(sessions)

    assert [before + (limit != math.inf)] == watching
    assert count == len(told(caplog))
    assert before == len(_instruments())


async def test_watch_when_no_tool_runs(autojump_clock: Any, real: RealTime, caplog: pytest.LogCaptureFixture) -> None:
    """While no tool and no hook runs, nothing is watched and nothing is paid for it; the next tool that blocks is named all the same."""
    before, seen = len(_instruments()), list[int]()
    agent = make_agent(Call("slow"), "Done.", Call("slow"), "Done.", tools=[tool_that_blocks(real, 0.6, 2)])
    async with opened(agent) as sessions:
        seen.append(len(_instruments()))
        await ask(sessions)
        seen.append(len(_instruments()))
        real.block(5)
        await trio.sleep(1)
        seen.append(len(_instruments()))
        await ask(sessions)

    assert [before, before + 1, before] == seen
    assert 4 == len(told(caplog))


def _instruments() -> Any:
    """Return the instruments of this run."""
    return trio._core._run.GLOBAL_RUN_CONTEXT.runner.instruments.get("_all", {})

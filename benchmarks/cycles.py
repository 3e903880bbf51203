"""What a turn costs that does more than answer: a tool call, a sub-agent, an approval; and how long the first token takes."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import attrs
import trio

from benchmarks.host import open_host
from benchmarks.rounds import Cpu, Spread, Wall, ratios
from benchmarks.table import Row
from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    Completed,
    Interrupted,
    MemoryStore,
    ModelRequest,
    Sessions,
    SqliteStore,
    SubAgents,
    Task,
    TextDelta,
    TurnEnded,
)
from trio_sagents.testing import Call, ScriptedModel

TURNS: Final = 30
"""In each round; the median is one measurement."""
WHAT: Final = {
    "call": "a turn with one tool call, SqliteStore: {}; baseline: a turn that only answers",
    "sub-agent": "the same with one task for a sub-agent, which answers: {}; baseline: likewise",
    "approval": "the same with one tool call that a person approves: {}; baseline: likewise",
}


@attrs.frozen
class Cost:
    """What one turn costs."""

    commits: float
    seconds: float


def look(place: str) -> str:
    """Look at a place."""
    return f"nothing at {place}"


def _replies(call: Call) -> Callable[[ModelRequest], Call | str]:
    """Return what a model says that calls a tool once, and then answers."""
    return lambda request: call if request.messages[-1].role == "user" else "Well."


def _agents() -> dict[str, Agent]:
    looking = ScriptedModel(_replies(Call("look", place="here")))
    inner = Task(name="t", description="looks", agent=Agent(model=ScriptedModel(lambda request: "Done.")))
    return {
        "plain": Agent(model=ScriptedModel(lambda request: "Well.")),
        "call": Agent(model=looking, tools=[look]),
        "sub-agent": Agent(
            model=ScriptedModel(_replies(Call("task", instructions="look", name="t"))),
            middleware=[SubAgents([inner], general_purpose=False)],
        ),
        "approval": Agent(model=looking, tools=[look], middleware=[Approvals({"look": True})]),
    }


def run(*, quick: bool) -> Sequence[Row]:
    """Return rows for each kind of turn, and for the first token."""
    rounds = 2 if quick else 5
    costs: dict[str, list[Cost]] = {name: [] for name in _agents()}
    for _ in range(rounds):
        for name, agent in _agents().items():
            with TemporaryDirectory() as folder:
                costs[name].append(trio.run(_measure, agent, SqliteStore(Path(folder, "cycles.db"), synchronous="NORMAL")))
    rows: list[Row] = []
    plain = costs["plain"]
    for name, what in WHAT.items():
        rows.append(_row(what.format("commits"), [cost.commits for cost in costs[name]], [cost.commits for cost in plain], "{:.0f}"))
        ours, theirs = ([cost.seconds * 1e3 for cost in some] for some in (costs[name], plain))
        rows.append(_row(what.format("CPU"), ours, theirs, "{:.2f} ms"))
    first = [trio.run(_first_token) for _ in range(rounds)]
    rows.append(
        _row(
            "the first token, from `post` to its reader, MemoryStore; wall; baseline: two memory channels and a task",
            [ours * 1e6 for ours, _ in first],
            [plain * 1e6 for _, plain in first],
            "{:.0f} us",
        )
    )
    return rows


def _row(what: str, ours: Sequence[float], baseline: Sequence[float], shape: str) -> Row:
    texts = [shape.format(Spread.of(values).median) for values in (ours, baseline)]
    return Row(name="cycles", what=what, ours=texts[0], baseline=texts[1], ratio=ratios(ours, baseline))


async def _measure(agent: Agent, store: SqliteStore) -> Cost:
    commits, seconds = [], []
    async with open_host(agent, store=store) as sessions:
        for _ in range(5):
            await _turn(sessions)
        for _ in range(TURNS):
            before = _transactions(store)
            with Cpu() as cpu:
                await _turn(sessions)
            commits.append(_transactions(store) - before)
            seconds.append(cpu.seconds)
    return Cost(statistics.median(commits), statistics.median(seconds))


async def _turn(sessions: Sessions) -> None:
    outcome = await (await sessions.post("conversation", "And now?")).wait()
    if isinstance(outcome, Interrupted):
        receipt = await sessions.resume("conversation", [Approve(call) for call in outcome.interrupt.calls])
        outcome = await receipt.wait()
    assert isinstance(outcome, Completed), outcome


def _transactions(store: SqliteStore) -> int:
    """Return how many transactions an open store has made."""
    assert store._file is not None
    return store._file.group_commit.groups


async def _first_token() -> tuple[float, float]:
    """Return the seconds until the first token is read: ours, and by hand."""
    ours: list[float] = []
    async with open_host(Agent(model=ScriptedModel(lambda request: "Well.")), store=MemoryStore()) as sessions:
        async with sessions.watch("conversation") as watch:
            for _ in range(TURNS):
                with Wall() as wall:
                    await sessions.post("conversation", "And now?")
                    async for envelope in watch:
                        if isinstance(envelope.event, TextDelta):
                            break
                ours.append(wall.seconds)
                async for envelope in watch:
                    if isinstance(envelope.event, TurnEnded):
                        break
    return statistics.median(ours), await _by_hand()


async def _by_hand() -> float:
    asked, questions = trio.open_memory_channel[str](8)
    said, answers = trio.open_memory_channel[str](8)
    seconds = []

    async def answer() -> None:
        async for _ in questions:
            await said.send("Well.")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        for _ in range(TURNS):
            with Wall() as wall:
                await asked.send("And now?")
                await answers.receive()
            seconds.append(wall.seconds)
        nursery.cancel_scope.cancel()
    return statistics.median(seconds)

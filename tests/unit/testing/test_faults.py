"""Stand-ins that fail as planned: each call is counted, and each kind of fault is as documented."""

from typing import Any

import pytest
import trio

from trio_sagents import Agent, Completed, Failed, MemoryStore, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.testing import (
    Call,
    FaultAt,
    Faults,
    FaultyModel,
    FaultyStore,
    Habit,
    InjectedFault,
    ScriptedModel,
    Simulation,
    deaf_tool,
    faulty_tool,
    simulate,
    sweep_faults,
)
from trio_sagents.testing._habits import HABITS
from trio_sagents.testing.conformance_store import StoreConformance
from trio_sagents.testing.invariants import check_conversation, check_messages


class TestFaultyStoreWithoutFaults(StoreConformance):
    """Without a plan, the store behaves as the store behind it."""

    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def open_store(self) -> Any:
        """Open a store."""
        yield FaultyStore(Faults(), MemoryStore())


async def _three_calls(faults: Faults, done: list[int]) -> list[Any]:
    async def effect(number: int) -> int:
        done.append(number)
        return number

    results: list[Any] = []
    for number in range(3):
        try:
            results.append(await faults.call("effect", lambda number=number: effect(number)))
        except InjectedFault:
            results.append("fault")
        except ExceptionGroup as group:
            results.append(len(group.exceptions))
    return results


@pytest.mark.parametrize(
    ("how", "results", "effects"),
    [
        ("before", [0, "fault", 2], [0, 2]),
        ("after", [0, "fault", 2], [0, 1, 2]),
        ("group", [0, 2, 2], [0, 2]),
        ("slow", [0, 1, 2], [0, 1, 2]),
    ],
)
async def test_fault_when_it_strikes(how: Any, results: list[Any], effects: list[int], autojump_clock: trio.testing.MockClock) -> None:
    """The planned call goes wrong as described, the others do not."""
    done: list[int] = []
    faults = Faults([FaultAt(2, how)])

    assert results == await _three_calls(faults, done)
    assert effects == done
    assert ["effect"] * 3 == faults.calls
    assert [f"effect (2:{how})"] == faults.struck
    assert (30 if how == "slow" else 0) == pytest.approx(trio.current_time())


async def test_fault_when_it_hangs(autojump_clock: trio.testing.MockClock) -> None:
    """A call that hangs has no effect, and can be cancelled."""
    done: list[int] = []
    with trio.move_on_after(1000) as scope:
        await _three_calls(Faults([FaultAt(2, "hang")]), done)

    assert scope.cancelled_caught
    assert [0] == done


async def test_fault_when_the_answer_is_wrong() -> None:
    """A wrong answer is of no use to anybody."""
    results = await _three_calls(Faults([FaultAt(2, "wrong")]), [])

    assert not isinstance(results[1], int)


async def test_faulty_tool_keeps_its_signature() -> None:
    """The model is shown the function behind the tool: its name, description and parameters."""

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    model = ScriptedModel([Call("add", a=1, b=2), "three"])
    agent = Agent(model=model, tools=[faulty_tool(add, Faults())])
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        outcome = await (await sessions.post("c", "1+2?")).wait()

    assert isinstance(outcome, Completed)
    (spec,) = model.requests[0].tools
    assert ("add", "Add two numbers.") == (spec.name, spec.description)
    assert ["a", "b"] == list(spec.parameters["properties"])
    assert "3" == model.requests[1].messages[-1].results[0].content


async def test_faulty_model_when_it_dies_in_mid_stream(autojump_clock: trio.testing.MockClock) -> None:
    """A chunk that fails fails the turn."""
    model = FaultyModel(ScriptedModel(["a long answer"]), Faults([FaultAt(3)]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(Agent(model=model)))) as sessions:
        outcome = await (await sessions.post("c", "hello")).wait()

    assert isinstance(outcome, Failed)
    assert ["model.stream", "model.chunk", "model.chunk"] == model.faults.calls


async def test_deaf_tool_when_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """The tool ignores a cancellation until its time is over."""
    with trio.move_on_after(1):
        await deaf_tool(10)()

    assert 10 == trio.current_time()


def test_sweep_faults_when_a_call_may_be_lost() -> None:
    """Each call goes wrong once in each way, and in pairs; a program that trusts an answer is found out."""

    async def careless(simulation: Simulation) -> None:
        stored: list[str] = []

        async def store() -> None:
            stored.append("it")

        for _ in range(2):
            try:
                await simulation.faults.call("store", store)
            except InjectedFault:
                continue
            else:
                break
        assert stored == ["it"]

    tally = sweep_faults(careless, keep_going=True)
    assert 1 + 2 == tally.runs
    assert ["seed 0, scheduler shuffle, no jumps, fault 1:after"] == [str(finding.plan) for finding in tally.findings]

    with pytest.raises(AssertionError):
        sweep_faults(careless)


def test_simulation_faults_come_from_the_plan() -> None:
    """What a plan says is what `Simulation.faults` does."""

    async def main(simulation: Simulation) -> list[Any]:
        return await _three_calls(simulation.faults, [])

    assert ["fault", 1, 2] == simulate(main, 0, faults=[FaultAt(1)])[1]


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("reply", ["text", "tools"])
async def test_faulty_model_with_a_bad_habit(habit: Habit, reply: str, autojump_clock: trio.testing.MockClock) -> None:
    """Whatever a provider does wrong: the turn ends, the history is valid, and a better model can continue from there."""

    async def add(a: int, b: int) -> str:
        """Add."""
        await trio.lowlevel.checkpoint()
        return str(a + b)

    said: Any = "a text" if reply == "text" else ["two", Call("add", a=1, b=2), Call("add", a=3, b=4)]
    script = ScriptedModel([said, said, "done", "done"])
    agent = Agent(model=FaultyModel(script, habits=[habit]), tools=[add])
    store = MemoryStore()
    with trio.fail_after(600):
        async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=store)) as sessions:
            first = await (await sessions.post("c", "1")).wait()
            assert isinstance(first, Completed | Failed)
        better = Agent(model=ScriptedModel(lambda request: (check_messages(request.messages[:-1]), "well")[1]))
        async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(better), store=store)) as sessions:
            outcome = await (await sessions.post("c", "2")).wait()

    assert isinstance(outcome, Completed)
    stored = await store.load(None, "c")
    assert stored is not None
    check_conversation(stored)


@pytest.mark.parametrize(("habits", "error"), [(["bad"], ValueError), ("same_ids", TypeError)])
def test_faulty_model_with_an_unknown_habit(habits: Any, error: type[Exception]) -> None:
    """An unknown habit is refused when the model is made, not in the middle of a turn."""
    with pytest.raises(error, match="habit"):
        FaultyModel(ScriptedModel([]), habits=habits)

"""Several callers at once: decisions, messages, stops, starts and deadlines that meet."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.payments import STORES, Purse, decide, each_store, gate, halts, interrupt_of, loads_again, paying, results_of
from tests.support.people import CONVERSATION, Effects, World, call_of, gated, interrupt_in, scripted
from tests.support.scenarios import (
    FaultyStore,
    Router,
    ask,
    check_no_hole,
    of_kind,
    opened,
    read_all,
    state_of,
)
from trio_sagents import (
    Agent,
    AgentNotRunning,
    AgentStopped,
    AlreadyDecided,
    Approvals,
    Approve,
    AskUser,
    Cancelled,
    Completed,
    Decision,
    Failed,
    InvalidDecision,
    MiddlewareContext,
    NotInterrupted,
    PendingCall,
    PersistenceError,
    Reject,
    SagentsError,
    ShutdownReason,
    Status,
    TurnEnded,
    TurnStarted,
    Unanswered,
)
from trio_sagents.testing import Call, ScriptedModel, Simulation, simulate


@pytest.mark.parametrize("seed", range(12))
async def test_everything_at_once_while_it_wakes(autojump_clock: Any, seed: int) -> None:
    """Answers, a message, a stop, a start and a dismissal meet in one boot: the tool pays at most once, and all callers get one outcome."""
    dice, purse, store = random.Random(seed), Purse(), FaultyStore()
    router = Router(paying(purse), route_delay=0.5, build_delay=1.0)
    outcomes: dict[str, Any] = {}
    async with opened(router, store=store) as sessions:
        interrupt = await interrupt_of(sessions)
        await sessions.stop("c")
        store.faults.latency.update(load=0.5, commit=0.3)

        async def run(name: str, operation: Callable[[], Any], delay: float) -> None:
            await trio.sleep(delay)
            try:
                outcomes[name] = await operation()
            except SagentsError as error:
                outcomes[name] = error

        operations: dict[str, Callable[[], Any]] = {
            "approve": lambda: decide(sessions, Approve(interrupt.calls[0])),
            "reject": lambda: decide(sessions, Reject(interrupt.calls[0])),
            "post": lambda: ask(sessions, "instead"),
            "stop": lambda: sessions.stop("c"),
            "start": lambda: sessions.start("c"),
            "dismiss": lambda: sessions.dismiss("c"),
        }
        async with trio.open_nursery() as nursery:
            for name, operation in operations.items():
                nursery.start_soon(run, name, operation, dice.choice([0, 0.2, 0.5, 1, 1.5, 2, 2.1, 2.3, 3]))
        results = [result for result in await results_of(sessions) if result[0] == "pay"]

        assert len(results) <= 1
        assert purse.paid == ([1] if results and results[0][1] == "completed" else [])
        assert not (isinstance(outcomes["approve"], Completed) and isinstance(outcomes["reject"], Completed))
        if purse.paid:
            assert isinstance(await decide(sessions, Approve(interrupt.calls[0])), Completed | Cancelled)
            with pytest.raises(AlreadyDecided):
                await sessions.resume("c", [Reject(interrupt.calls[0])])
        await loads_again(sessions)


@each_store
@pytest.mark.parametrize("seed", range(4))
async def test_turns_and_statuses_under_many_hands(autojump_clock: Any, store: str, seed: int) -> None:
    """Posts, decisions, dismissals and cuts from three tasks: one turn at a time, no hole, each call answered once."""
    dice = random.Random(seed)
    purse = Purse()

    def reply(request: Any) -> Any:
        if request.messages[-1].role == "tool":
            return dice.choice(["end", "end", Call("pay", amount=1)])
        return dice.choice(["hi", Call("pay", amount=1), [Call("halts"), Call("pay", amount=2)]])

    agent = Agent(model=ScriptedModel(reply), tools=[*purse.tools, halts], middleware=[gate()])
    async with opened(agent, **STORES[store]()) as sessions, sessions.watch("c") as watch:

        async def hand(number: int) -> None:
            choice = random.Random(f"{seed} {number}")
            for _ in range(6):
                await trio.sleep(choice.choice([0, 0, 0.1]))
                interrupt = (await sessions.agent_info("c")).interrupt
                try:
                    match choice.randrange(6):
                        case 0 | 1:
                            await sessions.post("c", "hi", overlap=choice.choice(["queue", "steer", "interrupt"]))
                        case 2 | 3 if interrupt is not None:
                            await sessions.resume("c", [choice.choice([Approve, Reject])(call) for call in interrupt.calls])
                        case 4:
                            await sessions.dismiss("c")
                        case _:
                            await sessions.cancel_turn("c")
                except (AlreadyDecided, InvalidDecision, NotInterrupted):
                    continue

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(hand, number)
        await (await sessions.get("c")).wait_idle()
        events = await read_all(watch)
        turn: str | None = None
        for event in of_kind(events, TurnStarted, TurnEnded):
            assert turn == (None if isinstance(event, TurnStarted) else event.turn_id)
            turn = event.turn_id if isinstance(event, TurnStarted) else None
        answered_calls = [result.call_id for message in (await state_of(sessions)).messages for result in message.results]

        check_no_hole(events)
        assert len(answered_calls) == len(set(answered_calls))
        await loads_again(sessions)


@pytest.mark.parametrize("rounds", range(0, 40, 3))
async def test_cold_resume_whose_caller_is_cancelled(autojump_clock: Any, rounds: int) -> None:
    """Either nothing was decided, or the call ran; never in between."""
    purse = Purse()
    async with opened(paying(purse), store=FaultyStore()) as sessions:
        interrupt = await interrupt_of(sessions)
        await sessions.stop("c")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.resume, "c", [Approve(interrupt.calls[0])])
            for _ in range(rounds):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await (await sessions.start("c")).agent.wait_idle()
        status = (await sessions.agent_info("c")).status

        assert status is (Status.IDLE if purse.paid else Status.INTERRUPTED)


class Later(Approvals):
    """A second policy."""

    @property
    def middleware_id(self) -> str:
        """A second name."""
        return "later"


async def test_expiry_while_the_call_that_is_due_is_decided(autojump_clock: Any, instants: None) -> None:
    """A call is rejected when its own time is over, and not with another call, whose decision was being stored at that time."""
    effects = Effects()
    tools = [effects.tool("pay"), effects.tool("move")]
    gates = [gated(effects, "pay", timeout=60.0), Later({"move": True}, timeout=600.0)]
    agent = scripted([Call("pay", amount=1), Call("move", amount=2)], "done", tools=tools, middleware=gates)
    async with World(agent) as world:
        interrupt = await world.ask()
        await trio.sleep(55)
        world.store.delay = 10.0
        left = interrupt_in(await world.decide(Approve(call_of(interrupt, "pay"))))
        world.store.delay = 0.0
        await trio.sleep(500)

        assert left == await world.interrupt()
        assert ["move"] == [call.name for call in left.calls]
        await world.decide(Approve(call_of(left, "move")))
        assert ([1], [2]) == (effects.of("pay"), effects.of("move"))


def test_decision_that_lands_when_nobody_waits_any_more() -> None:
    """If a store answers at the moment when its agent is given up, the caller is told the outcome, or that it is unknown; never nothing."""

    async def main(simulation: Simulation) -> str:
        effects = Effects()
        agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
        async with World(agent, policy={"settle_timeout": 5.0}) as world:
            (call,) = (await world.ask()).calls
            heard: list[str] = []

            async def decide() -> None:
                try:
                    outcome = await world.decide(Approve(call))
                    heard.append(type(outcome).__name__)
                    assert isinstance(outcome, Failed) or Unanswered(ShutdownReason.STOPPED) == outcome
                except PersistenceError:
                    heard.append("nothing is known")

            async with trio.open_nursery() as nursery:
                await world.handle()
                world.store.delay = 5.0
                nursery.start_soon(decide)
                await trio.testing.wait_all_tasks_blocked()
                await world.sessions.stop(CONVERSATION)
            world.store.delay = 0.0
            again = await world.resume(Approve(call))
            await again.wait()

            assert len(effects.of("pay")) <= 1
            (how,) = heard
            return how

    # On record, and the turn is not settled; on record, and let go of; or neither.
    assert {"Failed", "Unanswered", "nothing is known"} == {simulate(main, seed, jumps=False)[1] for seed in range(16)}


@pytest.mark.parametrize("how", ["decide", "dismiss", "cancel_turn", "post"])
async def test_call_behind_a_decision_that_the_store_never_answers(autojump_clock: Any, how: str) -> None:
    """Whoever waits for a decision on its way, to look again, waits at most until the agent ends; and does not spin."""
    store = FaultyStore()
    async with opened(paying(Purse()), store=store, policy={"settle_timeout": 5.0}) as sessions, trio.open_nursery() as nursery:
        (call,) = (await interrupt_of(sessions)).calls
        agent = (await sessions.start("c")).agent
        calls: dict[str, Any] = {
            "decide": lambda: agent.resume([Approve(call)]),
            "dismiss": agent.dismiss,
            "cancel_turn": lambda: sessions.cancel_turn("c"),
            "post": lambda: agent.post("now"),
        }
        ended: list[type] = []

        async def contained(function: Any) -> None:
            try:
                await function()
            except SagentsError as exc:
                ended.append(type(exc))
            else:
                ended.append(type(None))

        store.faults.hang("commit")
        nursery.start_soon(contained, calls["decide"])
        await trio.sleep(1)
        nursery.start_soon(contained, calls[how])
        await trio.sleep(1)
        await sessions.stop("c")
        await trio.sleep(1)

        expected = type(None) if how == "cancel_turn" else AgentStopped
        assert {PersistenceError, expected} == set(ended)
        assert 2 == len(ended)


class SlowToSay(Approvals):
    """A gate that takes its time over each decision."""

    async def answer(self, context: MiddlewareContext, call: PendingCall, decision: Decision) -> str | None:
        await trio.sleep(1)
        return None


async def test_people_who_decide_at_once_when_the_gate_is_slow(autojump_clock: Any) -> None:
    """While middleware examines a decision, others decide: what is on record afterwards counts, not what was read before."""
    effects, refused = Effects(), []
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[SlowToSay({"pay": True}), AskUser()])
    async with World(agent) as world:
        call = (await world.ask()).calls[0]
        world.store.delay = 1.0

        async def tab(decision: Decision) -> None:
            try:
                await world.decide(decision)
            except AlreadyDecided:
                refused.append(decision.kind)

        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tab, Reject(call))
                nursery.start_soon(tab, Approve(call))

        (kept,) = [record.kind for record in await world.records()]
        assert {"approve", "reject"} == {kept, *refused}
        assert ([1] if kept == "approve" else []) == effects.of("pay")


async def test_first_decision_again_while_the_turn_runs_behind_the_second(autojump_clock: Any) -> None:
    """The first decision returns the end of the turn, as the second one does."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), Call("pay", amount=2), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        first = await world.ask()
        second = interrupt_in(await world.decide(Approve(first.calls[0])))
        effects.gates["pay"] = trio.Event()
        receipt = await world.resume(Approve(second.calls[0]))
        await trio.sleep(1)
        again = await world.resume(Approve(first.calls[0]))
        effects.gates["pay"].set()

        assert again.duplicate
        assert await receipt.wait() == await again.wait()
        assert [1, 2] == effects.of("pay")


async def test_stop_while_a_second_decision_waits_for_the_first(autojump_clock: Any) -> None:
    """The agent leaves: the decision that had not been looked at is refused, and can be given to the next agent."""
    effects, refused = Effects(), []
    calls = [Call("pay", amount=1), Call("pay", amount=2)]
    async with World(scripted(calls, "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])) as world:
        one, two = (await world.ask()).calls
        handle = await world.handle()
        world.store.delay = 2.0

        async def decide(call: PendingCall) -> None:
            try:
                await handle.resume([Approve(call)])
            except AgentNotRunning:
                refused.append(call)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(decide, one)
            await trio.sleep(0.5)
            nursery.start_soon(decide, two)
            await trio.sleep(0.5)
            nursery.start_soon(world.sessions.stop, CONVERSATION)

        assert [two] == refused
        await world.decide(Approve(two))
        assert [1, 2] == sorted(effects.of("pay"))

"""Decisions: what they name, that they count once, who may take them, and what a message instead of one does."""

import functools
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.people import (
    CONVERSATION,
    MEANWHILE,
    Effects,
    Meanwhile,
    WatchedStore,
    World,
    decide_while,
    forge,
    gated,
    interrupt_in,
    scripted,
    text_of,
)
from tests.support.scenarios import read_all
from tests.support.stores import Backend
from trio_sagents import (
    AgentNotRunning,
    AgentShutdown,
    AlreadyDecided,
    Answer,
    Approvals,
    Approve,
    AskUser,
    CancelCause,
    Cancelled,
    ConversationNotFound,
    Decision,
    Edit,
    Interrupted,
    InvalidDecision,
    LimitExceeded,
    NotInterrupted,
    PersistenceError,
    Reject,
    SagentsError,
    SessionConfig,
    ShutdownReason,
    SingleFactoryRouter,
    StartFailed,
    Status,
    StatusChanged,
    TurnEnded,
    Unanswered,
    open_sessions,
)
from trio_sagents.testing import Call


def paying(effects: Effects, *amounts: int, then: Any = ("done", "next", "more", "last")) -> Any:
    """Return an agent that wants to pay in its first turn."""
    calls = [Call("pay", amount=amount) for amount in amounts or (1,)]
    return scripted(calls, *then, tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])


# ── once, and the same again


@pytest.mark.parametrize("how", MEANWHILE)
async def test_same_decision_again_returns_the_recorded_answer(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """However often it is sent, and whatever was in between: a duplicate, the same outcome, and the tool has run once."""
    effects = Effects()
    async with World(paying(effects), backend) as world:
        interrupt = await world.ask()
        outcome = await world.decide(Approve(interrupt.calls[0]))
        for _ in range(3):
            await world.pass_time(how)
            again = await world.resume(Approve(interrupt.calls[0]))
            assert again.duplicate
            assert interrupt.interrupt_id == again.message_id
            assert outcome.message == (await again.wait()).message  # type: ignore[union-attr]  # both completed

        assert [1] == effects.of("pay")
        assert 1 == len(await world.records())


@pytest.mark.parametrize("how", MEANWHILE)
async def test_other_decision_is_refused(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """Once a call is decided, every other decision about it is AlreadyDecided, which names the recorded decision. Nothing is done."""
    effects = Effects()
    async with World(paying(effects), backend) as world:
        interrupt = await world.ask()
        call = interrupt.calls[0]
        await world.decide(Edit(call, {"amount": 5}))
        await world.pass_time(how)
        for other in (Approve(call), Reject(call), Reject(call, "no"), Edit(call, {"amount": 6}), Edit(call, {"amount": 5.0})):
            with pytest.raises(AlreadyDecided, match="edit"):
                await world.resume(other)
        assert (await world.resume(Edit(call, {"amount": 5}))).duplicate

        assert [5] == effects.of("pay")


async def test_same_decision_again_while_the_tool_runs(autojump_clock: Any) -> None:
    """A second tab that approves as well joins the running turn; a tab that rejects is refused."""
    effects = Effects()
    effects.gates["pay"] = trio.Event()
    async with World(paying(effects)) as world:
        interrupt = await world.ask()
        first = await world.resume(Approve(interrupt.calls[0]))
        await trio.sleep(1)
        second = await world.resume(Approve(interrupt.calls[0]))
        with pytest.raises(AlreadyDecided):
            await world.resume(Reject(interrupt.calls[0]))
        effects.gates["pay"].set()

        assert second.duplicate
        assert await first.wait() == await second.wait()
        assert [1] == effects.of("pay")


@pytest.mark.parametrize("how", MEANWHILE)
async def test_same_decision_again_when_the_turn_waits_again(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """The turn has continued and waits for the next person: posting the first decision or the message again returns that interrupt."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), Call("pay", amount=2), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        first = await world.ask(message_id="m1")
        second = interrupt_in(await world.decide(Approve(first.calls[0])))
        await world.pass_time(how)
        again = await world.resume(Approve(first.calls[0]))
        assert again.duplicate
        assert Interrupted(second) == await again.wait()
        assert Interrupted(second) == await world.post("go", message_id="m1")
        with pytest.raises(InvalidDecision):
            await world.resume(Approve(first.interrupt_id, second.calls[0].call_id, second.calls[0].digest))

        assert "done" == text_of(await world.decide(Approve(second.calls[0])))
        assert [1, 2] == effects.of("pay")


async def test_mix_of_old_and_new_decisions(autojump_clock: Any) -> None:
    """A page may send everything it knows: recorded decisions are skipped, new ones are recorded."""
    effects = Effects()
    async with World(paying(effects, 1, 2)) as world:
        one, two = (await world.ask()).calls
        await world.decide(Approve(one))
        assert "done" == text_of(await world.decide(Approve(one), Reject(two)))
        with pytest.raises(AlreadyDecided):
            await world.resume(Approve(one), Approve(two))

        assert [1] == effects.of("pay")


# ── what it names


@pytest.mark.parametrize("kind", [Approve, Reject])
async def test_decision_when_it_names_something_else(autojump_clock: Any, kind: Any) -> None:
    """Another interrupt, another call, or another digest: refused, with nothing done."""
    effects = Effects()
    async with World(paying(effects, 1, 2)) as world:
        interrupt = await world.ask()
        one, two = interrupt.calls
        wrong = [
            kind("other", one.call_id, one.digest),
            kind("", one.call_id, one.digest),
            kind(one.interrupt_id, "other", one.digest),
            kind(one.interrupt_id, one.call_id, two.digest),
            kind(one.interrupt_id, one.call_id, one.digest.upper()),
            kind(one.interrupt_id, one.call_id, one.digest[:-1]),
            kind(one.interrupt_id, one.call_id, ""),
            kind(f"{one.interrupt_id} ", one.call_id, one.digest),
        ]
        for decision in wrong:
            with pytest.raises(InvalidDecision):
                await world.resume(decision)
            with pytest.raises(InvalidDecision):
                await world.resume(kind(two), decision)  # all or nothing
        assert interrupt == await world.interrupt()

        assert [] == effects.done


async def test_two_decisions_about_one_call(autojump_clock: Any) -> None:
    """Two decisions about one call are refused together, whether they are equal or not."""
    effects = Effects()
    async with World(paying(effects)) as world:
        interrupt = await world.ask()
        call = interrupt.calls[0]
        for pair in ((Approve(call), Reject(call)), (Approve(call), Approve(call)), (Reject(call), Edit(call, {"amount": 2}))):
            with pytest.raises(InvalidDecision, match="two decisions"):
                await world.resume(*pair)
        assert interrupt == await world.interrupt()

        assert [] == effects.done


async def test_decision_when_nothing_waits(autojump_clock: Any) -> None:
    """Before an interrupt there is nothing to decide; a conversation that is not there is not found, and not made."""
    effects = Effects()
    agent = scripted("hi", Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        made_up = Approve("i", "call-1", "d")
        with pytest.raises(ConversationNotFound):
            await world.resume(made_up)
        await world.post("hello")
        with pytest.raises(NotInterrupted):
            await world.resume(made_up)
        await world.restart()
        with pytest.raises(NotInterrupted):
            await world.resume(made_up)
        await world.ask("pay")

        assert [] == effects.done


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ([], ValueError),
        ("approve", TypeError),
        ([{"type": "approve"}], TypeError),
        ([Decision("i", "c", "d")], TypeError),
        ([None], TypeError),
        (None, TypeError),
    ],
)
async def test_decisions_when_they_are_none(autojump_clock: Any, bad: Any, error: type[Exception]) -> None:
    """A value that is not a sequence of decisions is refused before anybody is asked."""
    async with World(paying(Effects())) as world:
        await world.ask()
        with pytest.raises(error):
            await world.sessions.resume(CONVERSATION, bad)
        with pytest.raises(error):
            await (await world.handle()).resume(bad)


# ── people at once


@pytest.mark.parametrize("seed", range(4))
async def test_people_who_decide_at_once(autojump_clock: Any, backend: Backend, seed: int) -> None:
    """Of several tabs one decides. Tabs that agree get the same outcome, others AlreadyDecided. The tool runs once, or never."""
    effects = Effects()
    async with World(paying(effects), backend) as world:
        call = (await world.ask()).calls[0]
        if seed % 2:
            await world.sessions.stop(CONVERSATION)
        world.store.delay = 1.0
        decisions = [Approve(call), Reject(call), Approve(call), Edit(call, {"amount": 9}), Reject(call, "no")]
        decisions = decisions[seed:] + decisions[:seed]
        told: list[Any] = []

        async def tab(number: int, decision: Any) -> None:
            for _ in range((number * seed) % 3):
                await trio.lowlevel.checkpoint()
            try:
                receipt = await world.resume(decision)
                told.append((decision, receipt.duplicate, await receipt.wait()))
            except AlreadyDecided:
                told.append((decision, None, None))

        async with trio.open_nursery() as nursery:
            for number, decision in enumerate(decisions):
                nursery.start_soon(tab, number, decision)

        (winner,) = [decision for decision, duplicate, _ in told if duplicate is False]
        assert all((duplicate is None) == (decision != winner) for decision, duplicate, _ in told)
        assert 1 == len({repr(outcome) for _, _, outcome in told if outcome is not None})
        expected = {"approve": [1], "edit": [9], "reject": []}[winner.kind]
        assert expected == effects.of("pay")
        assert [winner.kind] == [record.kind for record in await world.records()]


async def test_batch_decided_by_two_people_at_once(autojump_clock: Any) -> None:
    """Each person decides one call of a batch at the same moment: both decisions count, and the turn continues once."""
    effects = Effects()
    async with World(paying(effects, 1, 2)) as world:
        one, two = (await world.ask()).calls
        world.store.delay = 1.0
        outcomes: list[Any] = []

        async def tab(decision: Any) -> None:
            outcomes.append(await world.decide(decision))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tab, Approve(one))
            nursery.start_soon(tab, Approve(two))

        assert ["Completed", "Interrupted"] == sorted(type(outcome).__name__ for outcome in outcomes)
        assert [1, 2] == sorted(effects.of("pay"))


@pytest.mark.parametrize("rounds", range(12))
async def test_resume_when_its_caller_is_cancelled(autojump_clock: Any, rounds: int) -> None:
    """Either nothing was done and the call is pending, or the decision counts and the turn continues."""
    effects = Effects()
    async with World(paying(effects)) as world:
        call = (await world.ask()).calls[0]
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.resume, Approve(call))
                for _ in range(rounds):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        if await world.interrupt() is None:
            assert (await world.resume(Approve(call))).duplicate
        else:
            assert [] == effects.done
            await world.decide(Approve(call))
        await (await world.handle()).wait_idle()

        assert [1] == effects.of("pay")


async def test_decision_that_wakes_an_agent_that_is_stopped_at_once(autojump_clock: Any) -> None:
    """The caller who woke the agent gets the outcome of the decision, even if the agent was stopped before the caller ran."""

    async def stop() -> None:
        await world.sessions.start(CONVERSATION)
        await world.sessions.stop(CONVERSATION)

    for _ in range(20):  # of the two tasks that wait for the start, either may run first
        async with World(paying(Effects(), 1, 2)) as world:
            call, _ = (await world.ask()).calls
            await world.pass_time("asleep")
            receipts: list[Any] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop)

                async def decide(call: Any = call, receipts: list[Any] = receipts, world: Any = world) -> None:
                    receipts.append(await world.resume(Approve(call)))

                nursery.start_soon(decide)

            assert [False] == [receipt.duplicate for receipt in receipts]
            assert not await world.sessions.running(CONVERSATION)


async def test_stop_while_a_decision_is_on_its_way(autojump_clock: Any, backend: Backend) -> None:
    """The decision is durable, the turn does not begin; the call that never began is closed, and nobody runs it later."""
    effects = Effects()
    async with World(paying(effects, 1, 2), backend) as world:
        one, two = (await world.ask()).calls
        world.store.delay = 1.0
        partial: list[Any] = []

        async def decide(*decisions: Any) -> None:
            try:
                receipt = await world.resume(*decisions)
                partial.append(await receipt.wait())
            except (AgentNotRunning, StartFailed):  # it was woken for this, and stopped before it was up
                partial.append(None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(decide, Approve(one))
            await trio.sleep(0.5)
            await world.sessions.stop(CONVERSATION)
        assert isinstance(partial[0], Interrupted)
        assert [two.call_id] == [call.call_id for call in partial[0].interrupt.calls]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(decide, Approve(two))
            await trio.sleep(0.5)
            await world.sessions.stop(CONVERSATION)
        assert [] == effects.done or [1, 2] == sorted(effects.of("pay"))
        before = len(effects.done)
        again = await world.resume(Approve(one), Approve(two))

        assert again.duplicate
        await again.wait()
        assert before == len(effects.done)
        assert await world.interrupt() is None
        assert "done" == text_of(await world.post("go on"))


async def test_stop_at_once_while_a_decision_is_on_its_way(autojump_clock: Any, backend: Backend) -> None:
    """The turn that the decision continues is cut before it begins: closed on record, with its cause, and reported to everybody."""
    effects = Effects()
    async with World(paying(effects), backend) as world, world.sessions.watch(CONVERSATION) as watch:
        outcome = await decide_while(world, watch.info.agent.stop)

        assert Cancelled(CancelCause.STOPPED) == outcome
        assert [] == effects.done
        events = [envelope.event for envelope in await read_all(watch)]
        assert [Cancelled(CancelCause.STOPPED)] == [event.outcome for event in events if isinstance(event, TurnEnded)][-1:]
        shutdown = events[-1]
        assert isinstance(shutdown, AgentShutdown)
        assert (ShutdownReason.STOPPED, Status.CANCELLED, False) == (shutdown.reason, shutdown.status, shutdown.interrupt_restorable)
        assert ("cancelled", "This call was not run: the turn was cut before it began.") == (await world.results())["pay"]
        assert ["approve"] == [record.kind for record in await world.records()]
        assert [] == effects.done


async def test_stop_with_grace_while_a_decision_is_on_its_way(autojump_clock: Any, backend: Backend) -> None:
    """The grace covers a decision from before the stop: the turn continues to its end."""
    effects = Effects()
    async with World(paying(effects), backend) as world, world.sessions.watch(CONVERSATION) as watch:
        outcome = await decide_while(world, functools.partial(watch.info.agent.stop, grace_period=30.0))

        assert "done" == text_of(outcome)
        assert [1] == effects.of("pay")
        assert not await world.sessions.running(CONVERSATION)


async def test_stop_with_too_little_grace_while_a_decision_is_on_its_way(autojump_clock: Any, backend: Backend) -> None:
    """If the grace ends before the decision is on record, the turn is cut as without grace."""
    effects = Effects()
    async with World(paying(effects), backend) as world, world.sessions.watch(CONVERSATION) as watch:
        outcome = await decide_while(world, functools.partial(watch.info.agent.stop, grace_period=0.25))

        assert Cancelled(CancelCause.STOPPED) == outcome
        assert [] == effects.done
        assert "cancelled" == (await world.results())["pay"][0]


@pytest.mark.parametrize("live", [True, False])
async def test_host_that_is_cancelled_while_a_decision_is_on_its_way(autojump_clock: Any, backend: Backend, live: bool) -> None:
    """The block raises nothing except its cancellation. The call that the decision released is closed, now or by the next agent."""
    effects = Effects()
    async with World(paying(effects), backend) as world:
        (call,) = (await world.ask()).calls
    watched = WatchedStore(backend.store)
    agent = scripted("done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=watched)
    with trio.move_on_after(10) as host:
        async with open_sessions(config) as sessions, trio.open_nursery() as nursery:
            if live:
                await sessions.start(CONVERSATION)
            watched.delay = 1.0
            nursery.start_soon(sessions.resume, CONVERSATION, [Approve(call)])
            await trio.sleep(0.5)
            host.cancel()

    assert host.cancelled_caught
    async with World(agent, backend) as world:
        assert [] == effects.done
        assert "done" == text_of(await world.post("go on"))
        assert await world.interrupt() is None


async def test_decision_that_comes_after_a_stop_with_grace(autojump_clock: Any, backend: Backend) -> None:
    """A decision that arrives while the agent leaves is handled by the next agent."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), Call("pay", amount=2), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        (call,) = (await world.ask()).calls
        handle = await world.handle()
        world.store.delay = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(handle.stop, grace_period=30.0))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(AgentNotRunning):
                await handle.resume([Approve(call)])
        assert isinstance(await world.decide(Approve(call)), Interrupted)
        assert [1] == effects.of("pay")


# ── whose


@pytest.mark.parametrize("how", MEANWHILE)
async def test_decision_of_another_tenant(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """Who does not own the conversation finds none, warm or cold, by session or by handle; nothing is done, nobody is told more."""
    effects = Effects()
    async with World(paying(effects), backend, scope="alice") as world:
        interrupt = await world.ask()
        call = interrupt.calls[0]
        await world.pass_time(how)
        for decision in (Approve(call), Reject(call), Approve("x", "y", "z"), Answer("x", "y", "z", "w")):
            for scope in ("bob", None, 1):
                with pytest.raises(ConversationNotFound) as caught:
                    await world.resume(decision, scope=scope)
                assert str(ConversationNotFound(CONVERSATION)) == str(caught.value)
        with pytest.raises(ConversationNotFound):
            await world.dismiss(scope="bob")
        assert interrupt == await world.interrupt()
        assert [] == effects.done
        await world.decide(Approve(call))
        with pytest.raises(ConversationNotFound):
            await world.resume(Approve(call), scope="bob")

        assert ["alice"] == [record.by for record in await world.records()]


async def test_decision_for_the_conversation_of_another(autojump_clock: Any) -> None:
    """A decision taken in one conversation does not fit another, though its calls have the same ids and arguments."""
    effects = Effects()
    agents = [paying(effects), paying(effects)]
    async with World(lambda: agents[0]) as world:
        mine = await world.ask()
        config = SessionConfig(factory_router=SingleFactoryRouter(agents[1]))
        async with open_sessions(config) as others:
            theirs = interrupt_in(await (await others.post("d", "go")).wait())
            assert (mine.calls[0].call_id, mine.calls[0].digest) == (theirs.calls[0].call_id, theirs.calls[0].digest)
            with pytest.raises(InvalidDecision):
                await others.resume("d", [Approve(mine.calls[0])])

        assert [] == effects.done


# ── a message instead


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize("partly", [False, True])
async def test_message_instead_of_an_answer(autojump_clock: Any, backend: Backend, how: Meanwhile, partly: bool) -> None:
    """A message closes the interrupt, visibly and on record. A later approval does not count, and neither does an earlier one."""
    effects = Effects()
    async with World(paying(effects, 1, 2), backend, scope="alice") as world:
        interrupt = await world.ask()
        one, two = interrupt.calls
        if partly:
            await world.decide(Approve(one))
        await world.pass_time(how)
        async with world.sessions.open_subscriber(scope="alice") as subscriber:
            await subscriber.subscribe(CONVERSATION)
            assert "done" == text_of(await world.post("never mind"))
            told = []
            with trio.move_on_after(1):
                async for envelope in subscriber:
                    told.append(envelope.event)

        assert [] == effects.done
        assert await world.interrupt() is None
        assert Status.INTERRUPTED not in [event.status for event in told if isinstance(event, StatusChanged)]
        kinds = {record.call_id: record.kind for record in await world.records()}
        assert {one.call_id: "approve" if partly else "superseded", two.call_id: "superseded"} == kinds
        assert ["alice"] * 2 == [record.by for record in await world.records()]
        results = [result for message in await world.messages() for result in message.results]
        assert ["cancelled", "cancelled"] == [result.status for result in results]
        cut = [message for message in await world.messages() if message.stop_reason == "cancelled"]
        assert ["superseded"] == [message.metadata["cause"] for message in cut]
        rows = [row for row in (await world.sessions.history(CONVERSATION, scope="alice")).rows if row.content_type == "tool_call"]
        assert ["cancelled", "cancelled"] == [row.status for row in rows]
        with pytest.raises(AlreadyDecided, match="superseded"):
            await world.resume(Approve(two))
        if partly:
            assert Cancelled(CancelCause.SUPERSEDED) == await world.decide(Approve(one))
        assert [] == effects.done


@pytest.mark.parametrize("overlap", ["queue", "steer", "interrupt", "reject"])
async def test_message_instead_of_an_answer_however_it_overlaps(autojump_clock: Any, overlap: Any) -> None:
    """A message supersedes the interrupt with every `overlap`, because no turn runs that it could overlap with."""
    effects = Effects()
    async with World(paying(effects)) as world:
        await world.ask()
        assert "done" == text_of(await world.post("never mind", overlap=overlap))
        assert ["superseded"] == [record.kind for record in await world.records()]
        assert [] == effects.done


@pytest.mark.parametrize("first", ["message", "decision"])
@pytest.mark.parametrize("rounds", range(5))
async def test_message_and_decision_at_once(autojump_clock: Any, first: str, rounds: int) -> None:
    """One of the two is first: either the call runs and the message is answered after it, or it is superseded and never runs."""
    effects = Effects()
    async with World(paying(effects)) as world:
        call = (await world.ask()).calls[0]
        world.store.delay = 0.5
        told: dict[str, Any] = {}

        async def decide() -> None:
            try:
                told["decision"] = await world.decide(Approve(call))
            except SagentsError as exc:
                told["decision"] = exc

        async def post() -> None:
            told["message"] = await world.post("instead")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(decide if first == "decision" else post)
            for _ in range(rounds):
                await trio.lowlevel.checkpoint()
            nursery.start_soon(post if first == "decision" else decide)
        kinds = [record.kind for record in await world.records()]

        assert {"approve": [1], "superseded": []}[kinds[0]] == effects.of("pay")
        assert 1 == len(kinds)
        assert isinstance(told["decision"], AlreadyDecided) == (kinds == ["superseded"])
        assert text_of(told["message"]) in {"done", "next"}


async def test_message_that_cannot_be_stored_closes_nothing(autojump_clock: Any) -> None:
    """A message that failed leaves the interrupt as it was, and it can be answered."""
    effects = Effects()
    async with World(paying(effects)) as world:
        interrupt = await world.ask()
        world.store.before_commit = lambda commit: OSError("full")
        with pytest.raises(PersistenceError):
            await world.post("instead")
        assert interrupt == await world.interrupt()
        world.store.before_commit = lambda commit: None

        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))


# ── what cannot be stored


@pytest.mark.parametrize("cold", [False, True])
async def test_decision_that_cannot_be_stored_does_nothing(autojump_clock: Any, backend: Backend, cold: bool) -> None:
    """Nothing runs, the call stays pending, and any later decision is accepted: a failed decision does not count."""
    effects = Effects()
    async with World(paying(effects, 1, 2), backend) as world:
        interrupt = await world.ask()
        one, two = interrupt.calls
        if cold:
            await world.sessions.stop(CONVERSATION)
        world.store.before_commit = lambda commit: OSError("full")
        for decisions in ([Approve(one)], [Approve(one), Approve(two)], [Reject(one), Reject(two)]):
            with pytest.raises(PersistenceError):
                await world.resume(*decisions)
        world.store.before_commit = lambda commit: None

        assert [] == effects.done
        assert interrupt == await world.interrupt()
        assert "done" == text_of(await world.decide(Reject(one), Edit(two, {"amount": 7})))
        assert [7] == effects.of("pay")


async def test_decision_that_is_too_large(autojump_clock: Any, backend: Backend) -> None:
    """What could not be loaded again with the conversation is refused; the conversation stays what it was."""
    agent = scripted(
        [Call("ask_user", question="one"), Call("ask_user", question="two"), Call("ask_user", question="three")],
        "done",
        middleware=[AskUser()],
    )
    async with World(agent, backend, policy={"max_message_bytes": 20_000, "max_state_bytes": 60_000}) as world:
        interrupt = await world.ask()
        one, two, three = interrupt.calls
        with pytest.raises(LimitExceeded, match="max_message_bytes"):
            await world.resume(Answer(one, "x" * 20_001))
        assert interrupt == await world.interrupt()
        await world.decide(Answer(one, "x" * 9_000))
        with pytest.raises(LimitExceeded, match="max_state_bytes"):
            for call in (two, three):
                await world.resume(Answer(call, "y" * 9_500))
        await world.crash()
        waiting = await world.interrupt()
        assert waiting is not None
        await world.decide(*[Answer(call, "short") for call in waiting.calls])
        await world.restart()

        assert await world.interrupt() is None
        assert await world.messages()


async def test_handle_decides_too(autojump_clock: Any) -> None:
    """A handle takes decisions as the front door does, but wakes nobody."""
    effects = Effects()
    async with World(paying(effects)) as world:
        interrupt = await world.ask()
        handle = await world.handle()
        await world.sessions.stop(CONVERSATION)
        with pytest.raises(AgentNotRunning):
            await handle.resume([Approve(interrupt.calls[0])])
        assert not await world.sessions.running(CONVERSATION)
        receipt = await (await world.handle()).resume([Approve(interrupt.calls[0])])

        assert "done" == text_of(await receipt.wait())


# ── over the wire


@pytest.mark.parametrize(
    "data",
    [
        {"type": "approve", "interrupt_id": "i", "call_id": "c", "digest": "d"},
        {"type": "edit", "interrupt_id": "i", "call_id": "c", "digest": "d", "arguments": {"a": [1, None, "x"]}},
        {"type": "reject", "interrupt_id": "i", "call_id": "c", "digest": "d", "reason": "no"},
        {"type": "answer", "interrupt_id": "i", "call_id": "c", "digest": "d", "value": ["a", "b"]},
        {"type": "answer", "interrupt_id": "i", "call_id": "c", "digest": "d", "other": "x"},
        {"type": "answer", "interrupt_id": "i", "call_id": "c", "digest": "d", "cancel": True},
    ],
)
def test_decision_as_json(data: Any) -> None:
    """What a browser sends is read, and written the same."""
    assert data == Decision.from_dict(data).to_dict()


NAMED = {"interrupt_id": "i", "call_id": "c", "digest": "d"}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "approve",
        {},
        {"type": "approve"},
        {"type": "approve", "interrupt_id": "i", "call_id": "c"},
        {**NAMED},
        {**NAMED, "type": "Approve"},
        {**NAMED, "type": "approved"},
        {**NAMED, "type": ["approve"]},
        {**NAMED, "type": None},
        {**NAMED, "type": "approve", "arguments": {"amount": 9}},
        {**NAMED, "type": "approve", "name": "other_tool"},
        {**NAMED, "type": "edit", "arguments": {}, "name": "other_tool"},
        {**NAMED, "type": "edit"},
        {**NAMED, "type": "edit", "arguments": None},
        {**NAMED, "type": "edit", "arguments": [1]},
        {**NAMED, "type": "edit", "arguments": '{"amount": 9}'},
        {**NAMED, "type": "edit", "arguments": {"amount": float("nan")}},
        {**NAMED, "type": "edit", "arguments": {1: 2}},
        {**NAMED, "type": "edit", "arguments": {"a": object()}},
        {**NAMED, "type": "edit", "arguments": {"a": "\ud800"}},
        {**NAMED, "type": "reject", "reason": 5},
        {**NAMED, "type": "reject", "reason": ["no"]},
        {**NAMED, "type": "reject", "reason": "x" * 4097},
        {**NAMED, "type": "reject", "by": "boss"},
        {**NAMED, "type": "answer"},
        {**NAMED, "type": "answer", "value": None},
        {**NAMED, "type": "answer", "value": 5},
        {**NAMED, "type": "answer", "value": [1]},
        {**NAMED, "type": "answer", "value": "\ud800"},
        {**NAMED, "type": "answer", "cancel": "yes"},
        {**NAMED, "type": "answer", "cancel": 1},
        {**NAMED, "type": "answer", "other": ["x"]},
        {**NAMED, "type": "approve", "interrupt_id": 5},
        {**NAMED, "type": "approve", "call_id": None},
        {**NAMED, "type": "approve", "digest": ["d"]},
        {**NAMED, "type": "approve", "digest": "\ud800"},
    ],
)
def test_decision_when_the_json_is_none(data: Any) -> None:
    """Anything else is a TypeError or ValueError, and no other error."""
    with pytest.raises((TypeError, ValueError)):
        Decision.from_dict(data)


@pytest.mark.parametrize("how", ["stop", "leave"])
async def test_stop_while_the_middleware_looks_at_decisions(autojump_clock: Any, how: str) -> None:
    """Found by the machine: the agent ended while the first of two decisions was looked at. Nothing is done, and it says so."""

    class Thoughtful(Approvals):
        async def answer(self, context: Any, call: Any, decision: Any) -> None:
            try:
                await trio.sleep(1)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()

    effects = Effects()
    calls = [Call("pay", amount=1), Call("pay", amount=2)]
    agent = scripted(calls, "done", tools=[effects.tool("pay")], middleware=[Thoughtful({"pay": True})])
    async with trio.open_nursery() as nursery, World(agent, policy={"grace_period": 0.5}) as world:
        interrupt = await world.ask()
        told: list[str] = []

        async def decide() -> None:
            try:
                await world.resume(*map(Approve, interrupt.calls))
            except SagentsError as exc:
                told.append(type(exc).__name__)

        nursery.start_soon(decide)
        await trio.sleep(0.5)
        await (world.sessions.stop(CONVERSATION) if how == "stop" else world.restart())
        await trio.sleep(5)
        if told:
            assert [] == effects.done
            assert "done" == text_of(await world.decide(*map(Approve, interrupt.calls)))
        else:  # it was taken by the agent that came after
            assert "done" == (await world.messages())[-1].text


async def test_decision_on_record_about_a_call_that_is_nowhere(autojump_clock: Any, backend: Backend) -> None:
    """Deciding again, as a store that somebody changed says it was decided, a call that nobody made: no turn answers it."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        (call,) = (await world.ask()).calls
        await world.decide(Approve(call))
        ghost = attrs.evolve(call, call_id="ghost")
        record = {**attrs.asdict((await world.records())[0]), "call_id": "ghost"}
        await world.restart_with(lambda: forge(world.backend, taken={"ghost": [record]}))
        receipt = await world.resume(Approve(ghost))

        assert receipt.duplicate
        assert Unanswered("cut") == await receipt.wait()
        with pytest.raises(AlreadyDecided):
            await world.resume(Reject(ghost))
        assert [1] == effects.of("pay")

"""What an agent's task reports while it begins, works and ends: status, cursors, names, reasons."""

import gc
import threading
import weakref
from typing import Any, get_args

import attrs
import pytest
import trio

from tests.support.records import drafts_of
from tests.support.scenarios import (
    DictStates,
    FaultyStore,
    Router,
    StuckRouter,
    answer_to,
    ask,
    make_agent,
    make_config,
    of_kind,
    opened,
    read_all,
    read_until,
    said,
    slow_agent,
)
from trio_sagents import (
    Agent,
    AgentNotRunning,
    AgentShutdown,
    AgentStopped,
    Approvals,
    CancelCause,
    Cancelled,
    ChainError,
    Completed,
    Conflict,
    Failed,
    Interrupted,
    MemoryStore,
    Middleware,
    MiddlewareError,
    MiddlewareEvent,
    PersistenceError,
    ShutdownReason,
    Snapshot,
    StartFailed,
    StateRestored,
    Status,
    StatusChanged,
    Todo,
    TodosUpdated,
    ToolIgnoresCancellation,
    TurnEnded,
    TurnLimits,
    TurnStarted,
    Unanswered,
    open_sessions,
)
from trio_sagents.data.records import Lifecycle
from trio_sagents.testing import Call, Hang, ScriptedModel


async def refund(amount: int) -> str:
    """Give money back."""
    return f"refunded {amount}"


ASKS = Call("refund", amount=5)


async def test_exit_while_the_agent_crashes(autojump_clock: Any) -> None:
    """A crash does not hide an exit that is raised on the way out, nor an exit the crash: both leave."""

    class Both(Middleware):
        async def on_message(self, context: Any, message: Any) -> None:
            context.start_soon(self.leave)
            context.start_soon(self.crash)

        async def leave(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise SystemExit(3)

        async def crash(self) -> None:
            await trio.sleep(1)
            raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_sessions(make_config(make_agent(middleware=[Both()]))) as sessions:
            info = await sessions.start("c")
            await info.agent.notify_middleware("Both", "now")
            await trio.sleep_forever()

    assert caught.value.subgroup(SystemExit) is not None
    assert caught.value.subgroup(MiddlewareError) is not None


async def test_start_while_a_boot_that_took_too_long_is_ending(autojump_clock: Any) -> None:
    """A boot that was given up counts as stopping until it has ended. A caller who starts meanwhile gets the next boot."""

    async with opened(StuckRouter(), policy={"start_timeout": 10.0}) as sessions:

        async def start() -> None:
            with pytest.raises(StartFailed) as caught:
                await sessions.start("c")
            assert isinstance(caught.value.__cause__, trio.TooSlowError)
            assert "start_timeout, 10 seconds" in str(caught.value.__cause__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await trio.sleep(50)
            counted = sessions.statistics()
            assert (0, 1) == (counted.booting, counted.stopping)
            assert "re: hi" == await answer_to(sessions)
            assert 110 <= trio.current_time()


async def test_envelope_names_the_agent(autojump_clock: Any) -> None:
    """Each event says which agent it is of, and which of its lives."""
    lives: list[set[str]] = []
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        for _ in range(2):
            info = await sessions.ensure_running("c", subscriber)
            await answer_to(sessions)
            await info.agent.stop()
            seen = await read_all(subscriber)
            assert {(info.agent_id, "c")} == {(context.agent_id, context.conversation_id) for context in seen}
            lives.append({context.incarnation for context in seen})

    (one,), (two,) = lives
    assert one
    assert two
    assert one != two


async def test_status_of_a_turn_names_it(autojump_clock: Any) -> None:
    """A status names the turn that it is about. Only an error has a text, and only an interrupt has an interrupt."""
    agent = make_agent(ASKS, RuntimeError("private"), tools=[refund], middleware=[Approvals(interrupt_on={"refund": True})])
    async with opened(agent) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        waiting = await ask(sessions)
        assert isinstance(waiting, Interrupted)
        assert isinstance(await ask(sessions, "never mind"), Failed)
        seen = await read_all(subscriber)

    first, second = of_kind(seen, TurnStarted)
    running, interrupted, gone, again, error = of_kind(seen, StatusChanged)
    assert StatusChanged(Status.RUNNING, None, first.turn_id) == running
    assert StatusChanged(Status.INTERRUPTED, waiting.interrupt, first.turn_id) == interrupted
    assert StatusChanged(Status.IDLE, None, None) == gone, "who watches is told that nobody needs to decide any more"
    assert StatusChanged(Status.RUNNING, None, second.turn_id) == again
    assert (Status.ERROR, second.turn_id, str) == (error.status, error.turn_id, type(error.data))


async def test_snapshot_behind_what_could_not_be_saved(autojump_clock: Any) -> None:
    """If a turn could not be saved, its viewers get the error, then a snapshot at that place, then the end of the turn."""
    store = FaultyStore()
    async with opened(store=store) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await read_all(subscriber)
        store.faults.fail("commit", 2)
        outcome = await ask(sessions)
        seen = await read_all(subscriber)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, PersistenceError)
    error, snapshot, end = (envelope for envelope in seen if isinstance(envelope.event, ChainError | Snapshot | TurnEnded))
    assert (ChainError, Snapshot, TurnEnded) == (type(error.event), type(snapshot.event), type(end.event))
    assert (snapshot.incarnation, "main", snapshot.seq) == attrs.astuple(snapshot.event.cursor, recurse=False)
    assert end.event.turn_id == error.event.turn_id


async def test_update_in_a_turn_names_the_turn(autojump_clock: Any) -> None:
    """Todos that a turn changes are told with the turn's id; an event of a middleware comes on the channel it was published on."""

    @attrs.frozen
    class Looked(MiddlewareEvent):
        middleware_id: str

    class Planner(Middleware):
        async def before_turn(self, context: Any) -> None:
            await context.update(todos=[Todo(1, "think")])
            context.publish(Looked("Planner"), "debug")

    async with opened(make_agent(middleware=[Planner()])) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await subscriber.subscribe("c", channel="debug")
        await answer_to(sessions)
        seen = await read_all(subscriber)

    (started,) = of_kind(seen, TurnStarted)
    assert [TodosUpdated((Todo(1, "think"),), started.turn_id)] == of_kind(seen, TodosUpdated)
    assert ["debug"] == [envelope.channel for envelope in seen if isinstance(envelope.event, Looked)]


async def test_update_in_a_turn_when_another_writer_took_over(autojump_clock: Any) -> None:
    """An agent whose update finds another writer ends with the reason FENCED."""
    store = FaultyStore()

    class Planner(Middleware):
        async def before_turn(self, context: Any) -> None:
            store.faults.fail("commit", 1, Conflict("c", expected=(1, 1), found=(2, 1)))
            with pytest.raises(Conflict):
                await context.update(metadata={"looked": True})
            await trio.sleep_forever()

    async with opened(make_agent(middleware=[Planner()]), store=store) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        assert Cancelled(CancelCause.FENCED) == await ask(sessions)
        assert ShutdownReason.FENCED is (await read_until(subscriber, AgentShutdown))[-1].event.reason


async def test_message_that_came_while_a_turn_failed_is_held(autojump_clock: Any) -> None:
    """A message that was queued when a turn failed waits for the next message, and is answered with it."""
    heard: list[list[str]] = []

    def listen(request: Any) -> Any:
        heard.append([message.text for message in request.messages if message.role == "user"])
        return ("one moment", RuntimeError("the model is out")) if len(heard) == 1 else "yes"

    async with opened(Agent(model=ScriptedModel(listen, chunk_interval=5.0))) as sessions:
        one = await sessions.post("c", "one")
        await trio.sleep(1)
        two = await sessions.post("c", "two")
        assert isinstance(await one.wait(), Failed)
        await trio.sleep(1000)
        assert [["one"]] == heard
        assert isinstance(await ask(sessions, "three"), Completed)
        assert isinstance(await two.wait(), Completed)
        assert [["one"], ["one", "two", "three"]] == heard


async def test_stop_says_its_reason_whatever_ran(autojump_clock: Any) -> None:
    """A stop with grace during a turn lets it finish, and the agent ends as stopped."""
    async with opened(slow_agent("abc", seconds=10.0)) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        assert await sessions.stop("c", grace_period=100.0)
        assert isinstance(await receipt.wait(), Completed)
        assert ShutdownReason.STOPPED is (await read_until(subscriber, AgentShutdown))[-1].event.reason


async def test_end_while_a_follow_up_turn_is_to_come(autojump_clock: Any) -> None:
    """No viewer is left with "running" if the agent ends between two turns. A caller who waits for the second turn is told why it never
    came."""
    scope = trio.CancelScope()

    class Cutter(Middleware):
        def turn_ended(self, context: Any, outcome: Any) -> None:
            scope.cancel()

    agent = make_agent("abcdefgh", chunk_interval=5.0, middleware=[Cutter()])
    with scope:
        async with opened(agent) as sessions, sessions.open_subscriber() as subscriber:
            await sessions.ensure_running("c", subscriber)
            await sessions.post("c", "one")
            second = await sessions.post("c", "two")
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    seen = await read_until(subscriber, AgentShutdown)
                    outcome = await second.wait()

    assert [Status.RUNNING, Status.IDLE] == [event.status for event in of_kind(seen, StatusChanged)]
    assert 1 == len(of_kind(seen, TurnEnded))
    assert Unanswered(ShutdownReason.HOST_CANCELLED) == outcome


async def test_task_that_a_turn_starts(autojump_clock: Any) -> None:
    """What a middleware starts in a turn outlives the turn, and ends with the agent."""
    log: list[str] = []

    class Clock(Middleware):
        async def before_turn(self, context: Any) -> None:
            context.start_soon(self.tick, "tick")

        async def tick(self, word: str) -> None:
            try:
                await trio.sleep(1000)
                log.append(word)
                await trio.sleep_forever()
            finally:
                log.append("gone")

    async with opened(make_agent(middleware=[Clock()])) as sessions:
        await answer_to(sessions)
        assert [] == log
        await trio.sleep(2000)
        assert ["tick"] == log
        await sessions.stop("c")
        assert ["tick", "gone"] == log


async def test_commits_of_a_turn_are_the_askers(autojump_clock: Any) -> None:
    """Every write of a turn, drafts included, has the scope of the caller who posted. No draft is written after the answer."""

    class Watched(FaultyStore):
        async def commit(self, scope: Any, commit: Any) -> int:
            asked.append((scope, trio.current_time()))
            return await super().commit(scope, commit)

    async def slow() -> str:
        """Take a while."""
        began.append(trio.current_time())
        await trio.sleep(1000)
        return "done"

    asked: list[tuple[Any, float]] = []
    began: list[float] = []
    agent = make_agent(("x" * 100, Call("slow")), "ready", tools=[slow], chunk_size=1, chunk_interval=1.0)
    async with opened(agent, store=Watched()) as sessions:
        assert "ready" == await answer_to(sessions, scope="alice")

    assert {"alice"} == {scope for scope, _ in asked}
    assert 5 < len(asked), "drafts were kept"
    assert [] == [at for _, at in asked if began[0] < at < began[0] + 1000]


async def test_drafts_of_the_second_message_of_a_turn(autojump_clock: Any) -> None:
    """Each message is kept every 4,096 characters, whatever was kept of the message before it."""

    async def look() -> str:
        """Look."""
        return "seen"

    store = FaultyStore()
    agent = make_agent(("x" * 4200, Call("look")), ("y" * 4200, Hang()), tools=[look], chunk_size=100)
    async with opened(agent, store=store, policy={"draft_interval": 1e5}) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(1)
        drafts = [str(draft) for draft in drafts_of(store.commits)]

    assert ["x" * 4096, "y" * 4096] == [next(letter for letter in "xy" if letter * 4096 in draft) * 4096 for draft in drafts]


async def test_stores_of_a_host_are_told_who_asked_and_for_what(autojump_clock: Any) -> None:
    """A host's own store gets the lifecycle of a title, inside and outside of a turn, and the actor of each write of a turn."""
    states = DictStates()

    class Titles(Middleware):
        async def before_turn(self, context: Any) -> None:
            await context.update(metadata={"title": "Hello"})
            await context.update(metadata={"colour": "red"})

    async def look() -> str:
        """Look."""
        return "seen"

    agent = make_agent(("x" * 100, Call("look")), "b", tools=[look], middleware=[Titles()], chunk_size=1, chunk_interval=1.0)
    async with opened(agent, agent_persistence=states) as sessions:
        await answer_to(sessions, scope="alice")

    contexts = [context for _, _, context in states.saves]
    assert 1 == [context.lifecycle for context in contexts].count("on_title_generated")
    assert {context.lifecycle for context in contexts} <= set(get_args(Lifecycle))
    assert 10 < len(contexts), "drafts were kept"
    assert {"alice"} == {context.actor for context in contexts}


async def test_tools_that_do_not_run_ignore_no_cancellation(autojump_clock: Any) -> None:
    """Of the calls of a turn that was cut only those are named that still run: none that has returned, none that has not begun."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(50)
        return "done"

    async def quick() -> str:
        """Return at once."""
        return "done"

    calls = [Call("quick"), Call("stubborn"), Call("quick")]
    agent = make_agent(calls, tools=[stubborn, quick], limits=TurnLimits(max_parallel=1))
    async with opened(agent, policy={"cancel_grace": 5.0}) as sessions, sessions.watch("c") as watch:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        assert Cancelled(CancelCause.USER) == await receipt.wait()

        assert ["stubborn"] == [event.call.name for event in of_kind(await read_all(watch), ToolIgnoresCancellation)]


async def test_plain_tools_of_two_agents() -> None:
    """Tools that are plain functions run in threads of their agent's own, 40 at once: none waits for another agent's."""
    count = 50
    release = threading.Event()
    running = {"a": 0, "b": 0}
    full = {"a": trio.Event(), "b": trio.Event()}

    def begin(name: str) -> None:
        running[name] += 1
        if running[name] == 40:
            full[name].set()

    def work(name: str) -> str:
        """Work until it is released."""
        trio.from_thread.run_sync(begin, name)
        assert release.wait(10)
        return "done"

    def replies(request: Any) -> Any:
        is_first = request.messages[-1].role == "user"
        return tuple(Call("work", name=said(request)) for _ in range(count)) if is_first else "ready"

    async with opened(Agent(model=ScriptedModel(replies), tools=[work], limits=TurnLimits(max_parallel=count))) as sessions:
        one = await sessions.post("c", "a")
        await full["a"].wait()
        two = await sessions.post("d", "b")
        await full["b"].wait()
        assert {"a": 40, "b": 40} == running
        release.set()
        assert isinstance(await one.wait(), Completed)
        assert isinstance(await two.wait(), Completed)
        assert {"a": count, "b": count} == running


async def look() -> str:
    """Look."""
    return "seen"


async def test_wait_idle_when_several_wait(autojump_clock: Any) -> None:
    """All who wait for an agent's rest are woken by it, and it is at rest then."""
    async with opened(slow_agent(seconds=10.0)) as sessions:
        receipt = await sessions.post("c", "hi")
        handle = (await sessions.start("c")).agent
        log: list[Any] = []

        async def wait() -> None:
            await handle.wait_idle()
            log.append((await sessions.agent_info("c")).status)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.sleep(1)
            assert [] == log
        assert [Status.IDLE] * 3 == log
        assert isinstance(await receipt.wait(), Completed)


async def test_wait_idle_when_the_agent_ends_first(autojump_clock: Any) -> None:
    """An agent that ends with work left never comes to rest: who waits for that is told that it has ended."""
    async with opened(slow_agent()) as sessions, trio.open_nursery() as nursery:
        for text in ("one", "two"):
            await sessions.post("c", text)
        handle = (await sessions.start("c")).agent
        told: list[type] = []

        async def wait() -> None:
            with pytest.raises(AgentNotRunning) as caught:
                await handle.wait_idle()
            told.append(type(caught.value))

        nursery.start_soon(wait)
        await trio.sleep(1)
        await sessions.stop("c")
        await trio.sleep(1)
        assert [AgentStopped] == told


async def test_status_when_an_interrupt_is_restored(autojump_clock: Any) -> None:
    """An agent that is restored with a call that waits for a person has the status "interrupted"."""
    store = MemoryStore()
    agent = make_agent(Call("look"), tools=[look], middleware=[Approvals({"look": True})])
    async with opened(agent, store=store) as sessions:
        assert isinstance(await ask(sessions), Interrupted)
    async with opened(agent, store=store) as sessions, sessions.watch("c") as watch:
        restored, first = await read_all(watch)
        info = await sessions.agent_info("c")

    assert StateRestored() == restored.event
    assert (Status.INTERRUPTED, Status.INTERRUPTED) == (first.event.status, info.status)


async def test_agent_that_has_ended_is_gone(autojump_clock: Any) -> None:
    """What an agent held is gone when it has ended and nobody has its handle any more: no cycle waits for the collector."""
    made: list[weakref.ref[Any]] = []

    def make(_agent_id: str) -> Any:
        agent = make_agent()
        made.append(weakref.ref(agent))
        return agent

    gc.disable()
    try:
        async with opened(Router(make)) as sessions, sessions.open_subscriber() as subscriber:
            await sessions.ensure_running("c", subscriber)
            await answer_to(sessions)
            await sessions.stop("c")
            await read_all(subscriber)

            assert [None] == [reference() for reference in made]
    finally:
        gc.enable()

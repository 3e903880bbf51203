"""Every limit at L, at L + 1 and at 100 L: allowed, refused by its name, refused by its name; and the house works on.

The fields are read from the classes: one that is new has no row here, and fails `test_every_limit_has_a_row`.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs
import pytest
import trio

from tests.support.scenarios import (
    FaultyStore,
    Router,
    Verdicts,
    answer_to,
    ask,
    kill_9,
    make_agent,
    of_kind,
    opened,
    read_all,
    slow_agent,
    state_of,
)
from trio_sagents import (
    Agent,
    Cancelled,
    Completed,
    Failed,
    Gap,
    LimitExceeded,
    MemoryLeases,
    MemoryStore,
    PersistenceError,
    QueueFull,
    RunsElsewhere,
    SessionOpts,
    SessionPolicy,
    Sessions,
    Snapshot,
    StartFailed,
    TextDelta,
    TodosUpdated,
    ToolContext,
    ToolIgnoresCancellation,
    TurnLimits,
    UserMessage,
)
from trio_sagents._trio.watching import LoopWatch
from trio_sagents.data.ids import check_id
from trio_sagents.data.status import Status
from trio_sagents.testing import Call, Hang, ScriptedModel

Story = Callable[[Any, Any], Awaitable[str]]
"""(limit, amount) -> "fine", or the name of what refused it."""


def named(error: BaseException) -> str:
    """Return the limit that an error names."""
    if isinstance(error, LimitExceeded):
        assert error.limit in str(error)
        return error.limit
    return type(error).__name__


async def alive(sessions: Sessions, text: str = "still there?") -> None:
    """See that the house works on, in another conversation."""
    assert isinstance(await ask(sessions, text, "other"), Completed)


# ── SessionPolicy: durations ──────────────────────────────────────────────────────────────────────────────────────────


async def viewer_grace(limit: float, amount: float) -> str:
    """A viewer is away for so long."""
    async with opened(policy={"viewer_grace": limit}) as sessions:
        async with sessions.watch("c", viewer="v") as watch:
            first = watch.info.agent
        await trio.sleep(amount)
        async with sessions.watch("c", viewer="v") as watch:
            same = first == watch.info.agent
        await alive(sessions)
        return "fine" if same else "left"


async def grace_period(limit: float, amount: float) -> str:
    """The block is left while a turn has so long to go."""
    async with opened(slow_agent(seconds=amount * 100 / 103), policy={"grace_period": limit}) as sessions:  # the ends are chunks, too
        receipt = await sessions.post("c", "hi")
    outcome = await receipt.wait()
    return "fine" if isinstance(outcome, Completed) else type(outcome).__name__


async def settle_timeout(limit: float, amount: float) -> str:
    """The save at the end of a cut turn takes so long."""
    store = FaultyStore()
    async with opened(make_agent(Hang()), store=store, policy={"settle_timeout": limit}) as sessions:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        store.faults.slow("commit", amount)
        began = trio.current_time()
        await sessions.stop("c")
        took = trio.current_time() - began
        outcome = await receipt.wait()
        assert took <= 2 * limit + 1e-6
        store.faults.planned.clear()
        return "fine" if isinstance(outcome, Cancelled) else named(outcome.error if isinstance(outcome, Failed) else RuntimeError())


async def start_timeout(limit: float, amount: float) -> str:
    """A boot takes so long."""
    router = Router(build_delay=amount)
    async with opened(router, policy={"start_timeout": limit}) as sessions:
        try:
            await sessions.start("c")
        except StartFailed as exc:
            router.build_delay = 0
            await alive(sessions)
            assert not await sessions.running("c")
            return type(exc.__cause__).__name__
        return "fine"


async def cancel_grace(limit: float, amount: float) -> str:
    """How long a cancelled tool continues."""

    async def stubborn() -> str:
        """Continue."""
        with trio.CancelScope(shield=True):
            await trio.sleep(1 + amount)
        return "ok"

    async with opened(make_agent(Call("stubborn"), "x", "x", tools=[stubborn]), policy={"cancel_grace": limit}) as sessions:
        async with sessions.watch("c") as watch:
            await sessions.post("c", "hi")
            await trio.sleep(1)
            await sessions.cancel_turn("c")
            told = of_kind(await read_all(watch), ToolIgnoresCancellation)
        await alive(sessions)
        return type(told[0]).__name__ if told else "fine"


async def draft_interval(limit: float, amount: float) -> str:
    """How long a model had been speaking when its process died: "fine" if no draft was stored yet."""
    store = FaultyStore()
    async with opened(slow_agent("x" * 20_000, seconds=2000), store=store, policy={"draft_interval": limit}) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(amount)
        left = kill_9(store.inner)
        await sessions.stop("c")
    found = await left.load(None, "c")
    assert found is not None
    return "fine" if found.state.get("draft") is None else "drafted"


async def flush_interval(limit: float, amount: float) -> str:
    """How long text has been held back from a viewer that was given the first piece: "fine" if it still is."""
    async with opened(slow_agent("x" * 20_000, seconds=2000), policy={"flush_interval": limit}) as sessions:
        async with sessions.watch("c") as watch, trio.open_nursery() as nursery:
            woken: list[Any] = []

            async def read() -> None:
                async for batch in watch.batches():
                    woken.extend(of_kind(batch, TextDelta))

            nursery.start_soon(read)
            await sessions.post("c", "hi")
            while not woken:
                await trio.sleep(0.01)
            await trio.sleep(amount)
            nursery.cancel_scope.cancel()
        await sessions.stop("c")
    return "fine" if len(woken) == 1 else "told"


# ── SessionPolicy: counts ─────────────────────────────────────────────────────────────────────────────────────────────


async def queue_limit(limit: int, amount: int) -> str:
    """How many messages wait in the queue."""
    async with opened(make_agent(Hang(), "x", "x", "x"), policy={"queue_limit": limit}) as sessions:
        await sessions.post("c", "the turn")
        await trio.sleep(1)
        try:
            for number in range(amount):
                await sessions.post("c", str(number))
        except QueueFull:
            await sessions.cancel_turn("c")
            await trio.sleep(1)
            assert isinstance(await ask(sessions, "room again"), Completed)
            return "queue_limit"
        return "fine"


async def subscriber_events(limit: int, amount: int) -> str:
    """So many events are not taken by a subscriber."""
    lately: list[Any] = []

    async def tell(context: ToolContext, count: int) -> str:
        """Tell much."""
        for _ in range(count):
            context.publish(TodosUpdated(()))
        return "ok"

    count = 0
    for attempt in ("count", "measure"):  # first how many events there are beside those of the tool
        bound = limit if attempt == "measure" else 10**6
        agent = make_agent(Call("tell", count=count), "done", tools=[tell])
        async with opened(agent, policy={"subscriber_events": bound, "replay_events": 10**6}) as sessions, sessions.watch("c") as watch:
            await read_all(watch)
            await ask(sessions)
            lately = await read_all(watch)
        if attempt == "count":
            assert not of_kind(lately, Gap)
            count = amount - len(lately)
    gaps = of_kind(lately, Gap)
    if gaps:
        assert amount == gaps[0].last - gaps[0].first + 1
        assert isinstance(lately[1].event, Snapshot)
        return "Gap"
    assert amount == len(lately)
    return "fine"


async def subscriber_text(limit: int, amount: int) -> str:
    """So many characters are not taken by a subscriber."""
    async with opened(make_agent("x" * amount, chunk_size=1), policy={"subscriber_text": limit, "replay_events": 10**6}) as sessions:
        async with sessions.watch("c") as watch:
            await read_all(watch)
            await ask(sessions)
            return "Gap" if of_kind(await read_all(watch), Gap) else "fine"


async def replay_events(limit: int, amount: int) -> str:
    """So many events came after a cursor."""
    cursor: Any = None

    async def tell(context: ToolContext) -> str:
        """Tell much."""
        for _ in range(amount):
            context.publish(TodosUpdated(()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back)
        return "ok"

    answer: list[str] = []

    async def come_back() -> None:
        async with sessions.watch("c", after=cursor) as watch:
            snapshots = of_kind(await read_all(watch), Snapshot)
            answer.append("Snapshot" if snapshots else "fine")

    async with opened(
        make_agent(Call("tell"), "done", tools=[tell]), policy={"replay_events": limit + 8}
    ) as sessions:  # 8 of the turn's own
        async with sessions.watch("c") as watch:
            cursor = (await read_all(watch))[-1].cursor
        await ask(sessions)
    return answer[0]


async def max_sessions(limit: int, amount: int) -> str:
    """So many agents are up at once."""
    return await _many(limit, amount, "max_sessions", None)


async def max_sessions_per_scope(limit: int, amount: int) -> str:
    """How many agents one owner has at once."""
    return await _many(limit, amount, "max_sessions_per_scope", "alice")


async def _many(limit: int, amount: int, name: str, scope: Any) -> str:
    async with opened(policy={name: limit}) as sessions:
        refused: set[str] = set()
        for number in range(amount):
            try:
                await sessions.start(str(number), scope=scope)
            except LimitExceeded as exc:
                refused.add(named(exc))
        assert min(limit, amount) == await sessions.agent_count(scope=scope)
        if scope is not None:
            assert isinstance(
                await ask(sessions, "hi", "theirs", scope="bob"), Completed
            )  # a tenant's limit does not apply to another tenant
        await sessions.stop("0", scope=scope)
        assert isinstance(await ask(sessions, "hi", "again", scope=scope), Completed)
        return refused.pop() if refused else "fine"


# ── SessionPolicy: sizes ──────────────────────────────────────────────────────────────────────────────────────────────


async def max_message_bytes(limit: int, amount: int) -> str:
    """A message has so many bytes: posted, made by a preprocessor, or said by the model."""

    async def grow(message: UserMessage, scope: Any) -> UserMessage:
        return UserMessage("é" * (amount // 2) + "x" * (amount % 2)) if message.text == "grow" else message

    agent = Agent(model=ScriptedModel(lambda request: "x" * amount if request.messages[-1].text == "say" else "ok", chunk_size=50))
    router = Router(agent, SessionOpts(supervisor_opts={"message_preprocessor": grow}))
    found: set[str] = set()
    async with opened(router, policy={"max_message_bytes": limit}) as sessions:
        for text in ("x" * amount, "é" * (amount // 2) + "x" * (amount % 2), "grow"):
            try:
                await sessions.post("c", text)
                found.add("fine")
            except LimitExceeded as exc:
                found.add(named(exc))
        outcome = await ask(sessions, "say", "said")
        found.add(named(outcome.error) if isinstance(outcome, Failed) else "fine")
        assert isinstance(await ask(sessions, "small", "said"), Completed)
    (one,) = found
    return one


async def max_state_bytes(limit: int, amount: int) -> str:
    """The first message makes a state of so many bytes."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await sessions.post("c", "x", message_id="m")
    record = json.dumps(store.commits[0].messages[0], ensure_ascii=False, separators=(",", ":"))
    async with opened(policy={"max_state_bytes": limit}) as sessions:
        try:
            await sessions.post("c", "x" * (amount - len(record) + 1), message_id="m")
        except LimitExceeded as exc:
            await alive(sessions)
            assert isinstance(await ask(sessions, "small"), Completed)
            return named(exc)
        return "fine"


async def window(limit: int, amount: int) -> str:
    """A conversation has so many messages."""
    async with opened(policy={"window": limit}) as sessions:
        for _ in range((amount + 1) // 2):
            assert isinstance(await ask(sessions), Completed)
        state = await state_of(sessions)
        rows = (await sessions.history("c", limit=1000)).rows
    assert len(rows) == state.older + len(state.messages)
    assert len(state.messages) <= limit
    return "left out" if state.older else "fine"


async def window_bytes(limit: int, amount: int) -> str:
    """When a turn begins, the messages of its conversation have so many bytes."""

    async def talk(store: MemoryStore, size: int, **policy: Any) -> Any:
        async with opened(store=store, policy=policy) as sessions:
            for text in ("a", "b", "x" * size):
                assert isinstance(await ask(sessions, text, "c"), Completed)
        return await store.load(None, "c")

    short = (await talk(MemoryStore(), 1)).messages[:-1]
    stored = sum(len(json.dumps(record, ensure_ascii=False, separators=(",", ":"))) for record in short)
    found = await talk(MemoryStore(), 1 + amount - stored, window_bytes=limit)
    return "left out" if found.older else "fine"


async def max_tool_output_bytes(limit: int, amount: int) -> str:
    """A tool returns so many bytes."""

    async def flood() -> str:
        """Say much."""
        return "x" * amount

    async with opened(make_agent(Call("flood"), "done", tools=[flood]), policy={"max_tool_output_bytes": limit}) as sessions:
        assert "done" == await answer_to(sessions)
        content = (await state_of(sessions)).messages[2].results[0].content
        assert len(content) <= limit + 100
        return "cut" if "[cut: " in content else "fine"


# ── TurnLimits ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _turn(limits: TurnLimits, replies: Any, tools: Any = ()) -> str:
    left = iter(replies)
    agent = Agent(model=ScriptedModel(lambda request: next(left, "ok")), tools=tools, limits=limits)
    async with opened(agent) as sessions:
        outcome = await ask(sessions)
        left = iter(())
        assert isinstance(await ask(sessions, "again"), Completed)
        return named(outcome.error) if isinstance(outcome, Failed) else "fine"


async def max_rounds(limit: int, amount: int) -> str:
    """The model is called so often."""
    return await _turn(TurnLimits(max_rounds=limit, max_calls=10**6), [Call("x")] * (amount - 1))


async def max_calls(limit: int, amount: int) -> str:
    """The model asks for so many tools, in two answers."""
    return await _turn(TurnLimits(max_calls=limit), [[Call("x")] * (amount - 1), Call("x")])


async def turn_timeout(limit: float, amount: float) -> str:
    """A turn takes so long."""

    async def work() -> str:
        """Work."""
        await trio.sleep(amount)
        return "ok"

    return await _turn(TurnLimits(turn_timeout=limit), [Call("work")], [work])


async def tool_timeout(limit: float, amount: float) -> str:
    """How long a tool call takes. The model reads that it took too long, and the turn continues."""

    async def work() -> str:
        """Work."""
        await trio.sleep(amount)
        return "ok"

    async with opened(make_agent(Call("work"), "done", tools=[work], limits=TurnLimits(tool_timeout=limit))) as sessions:
        assert "done" == await answer_to(sessions)
        result = (await state_of(sessions)).messages[2].results[0]
        return "fine" if result.status == "completed" else result.status


async def max_parallel(limit: int, amount: int) -> str:
    """An answer asks for so many tools at once."""
    running: list[int] = []
    most = 0

    async def work() -> str:
        """Work."""
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        await trio.sleep(1)
        running.pop()
        return "ok"

    agent = make_agent([Call("work")] * amount, "done", tools=[work], limits=TurnLimits(max_parallel=limit, max_calls=10**6))
    async with opened(agent) as sessions:
        assert "done" == await answer_to(sessions)
        assert amount == sum(message.role == "tool" for message in (await state_of(sessions)).messages)
    assert most == min(amount, limit)
    return "fine" if most == amount else "in turns"


async def lease_ttl(limit: float, amount: float) -> str:
    """A process that had a lease is dead for so long: "fine" where its conversation is kept for it still."""

    class OfTheDead(MemoryLeases):
        async def release(self, *args: Any) -> None:
            """Nothing is given back."""

    leases = OfTheDead()
    async with opened(leases=leases, policy={"lease_ttl": limit}) as sessions:
        await sessions.start("c")
    await trio.sleep(amount)
    async with opened(leases=leases, policy={"lease_ttl": limit}) as sessions:
        try:
            await sessions.start("c")
        except StartFailed as exc:
            return "fine" if isinstance(exc.__cause__, RunsElsewhere) else named(exc)
        return "taken over"


async def reauthorize_interval(limit: float, amount: float) -> str:
    """So long after a viewer's right was withdrawn something is said: "fine" if the viewer still hears it."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts, policy={"reauthorize_interval": limit}) as sessions:
        await sessions.start("c", scope="alice")
        async with sessions.watch("c", scope="bob") as watch:
            await read_all(watch)
            verdicts.allow = lambda scope, conversation_id, action: scope != "bob"
            await trio.sleep(amount)
            await ask(sessions, scope="alice")
            return "fine" if await read_all(watch) else "silent"


class _Words(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.words.append(record.getMessage())


async def blocking_warning(limit: float, amount: float) -> str:
    """A tool blocks the event loop for so long: "fine" if the log does not say so."""
    watch, heard, log = LoopWatch(limit, iter((0.0, amount)).__next__), _Words(), logging.getLogger("trio_sagents")
    log.addHandler(heard)
    try:
        with watch.label("tool 'slow'", "c"):
            pass
    finally:
        log.removeHandler(heard)
    await trio.lowlevel.checkpoint()
    return "named" if any("blocked the event loop" in words for words in heard.words) else "fine"


async def max_unattended_turns(limit: int, amount: int) -> str:
    """A tool posts to its own conversation in each turn: "fine" if nobody has to come."""
    posted: list[Any] = []

    async def again() -> str:
        """Post again."""
        if len(posted) < amount:
            posted.append(await opened_sessions[0].post("c", "again"))
        return "posted"

    opened_sessions: list[Any] = []
    model = ScriptedModel(lambda request: Call("again") if request.messages[-1].role == "user" else "done")
    async with opened(Agent(model=model, tools=[again]), policy={"max_unattended_turns": limit}) as sessions:
        opened_sessions.append(sessions)
        await (await sessions.post("c", "go")).wait()
        await trio.sleep(1000)
        info = await sessions.agent_info("c")
    return "paused" if info.status is Status.PAUSED else "fine"


# ── all of them ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def max_recoveries(limit: Any, amount: Any) -> str:
    """Crashes in one turn that gets nowhere."""
    store = MemoryStore()
    for _ in range(amount + 1):
        async with opened(slow_agent(), store=store, policy={"after_crash": "continue", "max_recoveries": limit}) as sessions:
            receipt = await sessions.post("c", "hi", message_id="m")
            with trio.move_on_after(1):
                await receipt.wait()
                return "closed"
            store = kill_9(store)
    return "fine"


ROWS: Final[Mapping[str, tuple[Story, float, str]]] = {
    "SessionPolicy.viewer_grace": (viewer_grace, 10.0, "left"),
    "SessionPolicy.grace_period": (grace_period, 10.0, "Cancelled"),
    "SessionPolicy.settle_timeout": (settle_timeout, 10.0, "PersistenceError"),
    "SessionPolicy.start_timeout": (start_timeout, 10.0, "TooSlowError"),
    "SessionPolicy.cancel_grace": (cancel_grace, 10.0, "ToolIgnoresCancellation"),
    "SessionPolicy.draft_interval": (draft_interval, 10.0, "drafted"),
    "SessionPolicy.flush_interval": (flush_interval, 10.0, "told"),
    "SessionPolicy.queue_limit": (queue_limit, 5, "queue_limit"),
    "SessionPolicy.subscriber_events": (subscriber_events, 50, "Gap"),
    "SessionPolicy.subscriber_text": (subscriber_text, 100, "Gap"),
    "SessionPolicy.replay_events": (replay_events, 40, "Snapshot"),
    "SessionPolicy.max_sessions": (max_sessions, 5, "max_sessions"),
    "SessionPolicy.max_sessions_per_scope": (max_sessions_per_scope, 5, "max_sessions_per_scope"),
    "SessionPolicy.max_message_bytes": (max_message_bytes, 1000, "max_message_bytes"),
    "SessionPolicy.max_state_bytes": (max_state_bytes, 2000, "max_state_bytes"),
    "SessionPolicy.window": (window, 6, "left out"),
    "SessionPolicy.window_bytes": (window_bytes, 4000, "left out"),
    "SessionPolicy.max_tool_output_bytes": (max_tool_output_bytes, 1000, "cut"),
    "SessionPolicy.lease_ttl": (lease_ttl, 10.0, "taken over"),
    "SessionPolicy.reauthorize_interval": (reauthorize_interval, 10.0, "silent"),
    "SessionPolicy.max_recoveries": (max_recoveries, 3, "closed"),
    "SessionPolicy.max_unattended_turns": (max_unattended_turns, 4, "paused"),
    "SessionPolicy.blocking_warning": (blocking_warning, 10.0, "named"),
    "TurnLimits.max_rounds": (max_rounds, 4, "max_rounds"),
    "TurnLimits.max_calls": (max_calls, 6, "max_calls"),
    "TurnLimits.turn_timeout": (turn_timeout, 10.0, "turn_timeout"),
    "TurnLimits.tool_timeout": (tool_timeout, 10.0, "failed"),
    "TurnLimits.max_parallel": (max_parallel, 3, "in turns"),
}
MORE: Final = {"SessionPolicy.replay_events": 1.25, "SessionPolicy.settle_timeout": 2.0}
"""What may pass of these, as a multiple: the log is trimmed a quarter at a time; a turn is settled, then the agent's last writes are."""


def fields() -> set[str]:
    """Return every field of the two classes that is a limit."""
    choices = {"SessionPolicy.after_crash"}
    return {f"{cls.__name__}.{field.name}" for cls in (SessionPolicy, TurnLimits) for field in attrs.fields(cls)} - choices


def test_every_limit_has_a_row() -> None:
    """A new limit needs a row here that says what the limit refuses."""
    assert fields() == set(ROWS)


@pytest.mark.parametrize("size", ["L", "L + 1", "100 L"])
@pytest.mark.parametrize("name", [name for name in ROWS if name in fields()])
async def test_limit(autojump_clock: Any, name: str, size: str) -> None:
    """At the limit everything works. One more, or a hundred times as much, is refused by the limit's name."""
    story, limit, refusal = ROWS[name]
    is_duration = isinstance(limit, float)
    more = int(limit * MORE[name]) + 10 if name in MORE else limit + 1
    amounts = {"L": limit * 0.999 if is_duration else limit, "L + 1": more, "100 L": limit * 100}

    assert ("fine" if size == "L" else refusal) == await story(limit, amounts[size])


@pytest.mark.parametrize("amount", [256, 257, 25_600], ids=["L", "L + 1", "100 L"])
@pytest.mark.parametrize("unit", ["x", "é", "你"])
async def test_length_of_ids(autojump_clock: Any, unit: str, amount: int) -> None:
    """Ids have 1 to 256 bytes of UTF-8, wherever they come in."""
    size = len(unit.encode())
    name = unit * (amount // size) + "x" * (amount % size)
    calls: Mapping[str, Callable[[Sessions], Awaitable[Any]]] = {
        "conversation_id": lambda sessions: sessions.start(name),
        "message_id": lambda sessions: sessions.post("c", "hi", message_id=name),
    }
    async with opened() as sessions:
        for call in calls.values():
            if amount <= 256:
                await call(sessions)
                continue
            with pytest.raises(ValueError, match="256 bytes"):
                await call(sessions)
        if amount > 256:
            with pytest.raises(ValueError, match="256 bytes"):
                sessions.watch("c", viewer=name)
            assert 0 == sessions.statistics().agents - (await sessions.agent_count())
        await alive(sessions)
    if amount <= 256:
        assert name == check_id("it", name)


@pytest.mark.parametrize("amount", [1000, 1001, 100_000], ids=["L", "L + 1", "100 L"])
async def test_length_of_pages(autojump_clock: Any, amount: int) -> None:
    """A page has at most 1000 entries."""
    async with opened() as sessions:
        await ask(sessions)
        for call in (lambda: sessions.history("c", limit=amount), lambda: sessions.conversations(limit=amount)):
            if amount <= 1000:
                await call()
            else:
                with pytest.raises(ValueError, match="1 to 1000"):
                    await call()


@pytest.mark.parametrize("amount", [64, 65, 6400], ids=["L", "L + 1", "100 L"])
async def test_depth_of_metadata(autojump_clock: Any, amount: int) -> None:
    """Stored values nest at most 64 deep, and what is accepted can be loaded again."""
    metadata: Any = "x"
    for _ in range(amount):
        metadata = {"a": metadata}
    store = FaultyStore()
    async with opened(store=store) as sessions:
        if amount <= 64:
            await ask(sessions, UserMessage("hi", metadata=metadata))  # type: ignore[arg-type]  # as `post` takes it
            await sessions.stop("c")
            assert 2 == len((await state_of(sessions)).messages)
        else:
            with pytest.raises(ValueError, match="deeper than 64"):
                UserMessage("hi", metadata=metadata)


def test_persistence_error_is_no_limit() -> None:
    """A limit has its own class: nobody takes it for a store that failed."""
    assert not issubclass(LimitExceeded, PersistenceError)
    assert "max_calls exceeded: 7, the limit is 6" == str(LimitExceeded("max_calls", 7, most=6))

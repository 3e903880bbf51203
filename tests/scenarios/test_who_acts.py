"""Who acts, and who may get past what waits: the one who asked, the one who decides, and the one who may only post."""

import json
from contextvars import ContextVar
from typing import Any

import attrs
import pytest
import trio

from tests.support.people import Effects, World, gated, interrupt_in, scripted
from tests.support.scenarios import FaultyStore, answer_to, ask, make_agent, of_kind, opened, read_all
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Approvals,
    Approve,
    Cancelled,
    Completed,
    Halt,
    Interrupted,
    InvalidDecision,
    LimitExceeded,
    MemoryStore,
    Middleware,
    NotInterrupted,
    Reject,
    SameScope,
    Snapshot,
    StartFailed,
    StateRestored,
    Status,
    StatusChanged,
    ToolContext,
    UnknownScope,
    envelope_to_dict,
)
from trio_sagents.data.messages import Poster
from trio_sagents.testing import Call, Hang, ScriptedModel

CLERK, DIRECTOR = "clerk", "director"
caller: ContextVar[str] = ContextVar("caller", default="nobody")


class Roles:
    """Everybody may post; the director alone may decide."""

    def __init__(self, deciders: tuple[str, ...] = (DIRECTOR,)) -> None:
        self.deciders = deciders

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        return action != "decide" or scope in self.deciders

    def actor_of(self, scope: Any) -> str:
        return str(scope)


@pytest.mark.parametrize("nap", [0, 400], ids=["awake", "asleep"])
@pytest.mark.parametrize("waker", [CLERK, DIRECTOR])
async def test_approved_call_runs_as_whoever_asked(autojump_clock: Any, nap: int, waker: str) -> None:
    """The scope and the context variables of an approved call are those of the post, whoever decides, and whoever wakes the agent."""
    seen: list[Any] = []

    async def pay(context: ToolContext) -> str:
        """Pay."""
        seen.append((context.scope, caller.get()))
        return "paid"

    agent = make_agent(Call("pay"), "done", tools=[pay], middleware=[Approvals({"pay": True})])
    async with opened(agent, authorizer=Roles(), inactivity_timeout=100.0) as sessions:
        caller.set(CLERK)
        interrupt = interrupt_in(await ask(sessions, scope=CLERK))
        caller.set(DIRECTOR)
        await trio.sleep(nap)
        assert bool(nap) != await sessions.running("c", scope=CLERK)
        await sessions.start("c", scope=waker)
        receipt = await sessions.resume("c", [Approve(interrupt.calls[0])], scope=DIRECTOR)
        outcome = await receipt.wait()

    assert isinstance(outcome, Completed)
    assert [(CLERK, CLERK)] == seen


@attrs.frozen
class User:
    """A scope that is an object of the host."""

    name: str


class Named(Roles):
    """Scopes are users, and their names are on record."""

    def actor_of(self, scope: Any) -> Any:
        return scope.name if isinstance(scope, User) else None


class Directory(Named):
    """Finds a user by the name."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.users = {name: User(name) for name in names}
        self.asked: list[Any] = []

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        return True

    async def scope_of(self, actor: Any, conversation_id: str) -> Any:
        self.asked.append((actor, conversation_id))
        return self.users[actor]


class Anybody:
    """Everybody may do everything, and nobody has a name."""

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        return True


class Everybody(Anybody, Named):
    """Everybody may do everything, and users have names."""


CLERK_USER, DIRECTOR_USER = User(CLERK), User(DIRECTOR)
RESTARTS = {
    "plain scopes": (Anybody, CLERK, DIRECTOR, CLERK),
    "plain scopes with names": (lambda: Roles((CLERK, DIRECTOR)), CLERK, DIRECTOR, CLERK),
    "nobody": (Anybody, None, DIRECTOR, None),
    "users that are found": (lambda: Directory(CLERK, DIRECTOR), CLERK_USER, DIRECTOR_USER, CLERK_USER),
    "a user who is gone": (lambda: Directory(DIRECTOR), CLERK_USER, DIRECTOR_USER, UnknownScope(CLERK)),
    "users": (Everybody, CLERK_USER, DIRECTOR_USER, UnknownScope(CLERK)),
    "the same user": (Everybody, CLERK_USER, CLERK_USER, CLERK_USER),
    "a user without a name": (Everybody, [CLERK], [CLERK], UnknownScope()),
    "users without names": (Anybody, CLERK_USER, DIRECTOR_USER, UnknownScope()),
    "one owner": (lambda: SameScope(lambda user: "team"), CLERK_USER, DIRECTOR_USER, DIRECTOR_USER),
}
"""By name: the authorizer, who posts, who starts the agent and decides after a restart, and the scope of the tool."""


@pytest.mark.parametrize("name", RESTARTS)
@pytest.mark.parametrize("what", ["an approval", "a queue"])
async def test_turn_after_a_restart(autojump_clock: Any, backend: Backend, what: str, name: str) -> None:
    """A turn runs as whoever posted the message that began it, in another process, too; never as whoever wakes the agent."""
    make, poster, other, expected = RESTARTS[name]
    seen: list[Any] = []

    async def pay(context: ToolContext) -> str:
        """Pay."""
        seen.append(context.scope)
        return "paid"

    def reply(request: Any) -> Any:
        last = request.messages[-1]
        return "done" if last.role == "tool" else Hang() if last.text == "hang" else Call("pay")

    agent = Agent(model=ScriptedModel(reply), tools=[pay], middleware=[Approvals({"pay": True})] if what == "an approval" else [])
    async with World(agent, backend, authorizer=make(), scope=poster) as world:
        if what == "an approval":
            (call,) = (await world.ask()).calls
            await world.restart()
            assert isinstance(await world.decide(Approve(call), scope=other), Completed)
        else:
            await world.sessions.post("c", "hang", scope=other)
            await trio.sleep(1)
            await world.sessions.post("c", "pay", scope=poster)
            await world.crash()
            await (await world.sessions.start("c", scope=other)).agent.wait_idle()

    assert [expected] == seen


@pytest.mark.parametrize("how", ["a sleep", "a stop"])
async def test_queue_when_the_agent_has_slept(autojump_clock: Any, how: str) -> None:
    """A message that waited behind a halt runs as whoever posted it, with the context variables of that post, though the agent slept."""
    seen: list[Any] = []

    async def check() -> Halt:
        """Check."""
        return Halt("no")

    async def pay(context: ToolContext) -> str:
        """Pay."""
        seen.append((context.scope, caller.get()))
        return "paid"

    def reply(request: Any) -> Any:
        last = request.messages[-1]
        return "done" if last.role == "tool" else Call("pay" if last.text == "pay" else "check")

    class MayNotDecide(Everybody):
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            return action != "decide" or scope == DIRECTOR_USER

    agent = Agent(model=ScriptedModel(reply), tools=[check, pay])
    async with World(agent, authorizer=MayNotDecide(), scope=DIRECTOR_USER) as world:
        await world.ask()
        caller.set("the clerk's request")
        await world.sessions.post("c", "pay", scope=CLERK_USER)
        caller.set("the director's request")
        await world.pass_time("asleep" if how == "a sleep" else "stopped")
        await world.dismiss()
        await (await world.handle()).wait_idle()

    assert [(CLERK_USER, "the clerk's request")] == seen


async def test_viewers_are_not_shown_who_posted(autojump_clock: Any) -> None:
    """What is stored of a scope is not in the JSON of events, nor in the rows: a scope that is a text may be a secret of its host."""
    async with opened(make_agent("hi"), authorizer=Anybody()) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await ask(sessions, scope="secret-token")
        events = json.dumps([envelope_to_dict(envelope) for envelope in await read_all(subscriber)])
        rows = (await sessions.history("c")).rows
        (posted, _) = (await (await sessions.get("c")).state()).messages

    assert Poster("secret-token", is_scope=True) == posted.posted_by
    assert "secret-token" not in events + repr(rows) + repr(posted)


async def test_start_when_the_scope_cannot_be_looked_up(autojump_clock: Any) -> None:
    """If `scope_of` fails, the start fails, with the reason, and nothing runs; once it works again, the decision is taken."""

    class Broken(Directory):
        is_broken = False

        async def scope_of(self, actor: Any, conversation_id: str) -> Any:
            if self.is_broken:
                raise OSError("the directory does not answer")
            return await super().scope_of(actor, conversation_id)

    directory, effects = Broken(CLERK, DIRECTOR), Effects()
    agent = scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, authorizer=directory, scope=CLERK_USER) as world:
        (call,) = (await world.ask()).calls
        await world.restart()
        directory.is_broken = True
        with pytest.raises(StartFailed, match="the directory does not answer"):
            await world.resume(Approve(call), scope=DIRECTOR_USER)
        directory.is_broken = False
        assert isinstance(await world.decide(Approve(call), scope=DIRECTOR_USER), Completed)

    assert [1] == effects.of("pay")
    assert [(CLERK, "c")] == directory.asked


async def test_who_posted_when_actor_of_fails(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A message is not refused because nobody can say who posted it; the log has the reason."""

    class Broken(Anybody):
        def actor_of(self, scope: Any) -> str:
            raise KeyError(scope)

    async with opened(make_agent("hi"), authorizer=Broken()) as sessions:
        assert isinstance(await ask(sessions, scope=CLERK), Completed)

    assert ["actor_of failed in conversation 'c'; the message does not say who posted it"] == [record.message for record in caplog.records]


async def test_tool_runs_as_whoever_posted(autojump_clock: Any) -> None:
    """A tool and a middleware have the scope of the message that began the turn, whoever started the agent."""
    seen: list[Any] = []

    async def look(context: ToolContext) -> str:
        """Look."""
        seen.append(context.scope)
        return "seen"

    agent = make_agent(Call("look"), "one", Call("look"), "two", tools=[look])
    async with opened(agent, authorizer=Roles()) as sessions:
        await sessions.start("c", scope=DIRECTOR)
        await answer_to(sessions, scope=CLERK)
        await answer_to(sessions, scope=DIRECTOR)

    assert [CLERK, DIRECTOR] == seen


@pytest.mark.parametrize("overlap", ["queue", "steer", "interrupt"])
@pytest.mark.parametrize("waits", ["a halt", "an approval"])
async def test_post_of_somebody_who_may_not_decide(autojump_clock: Any, overlap: Any, waits: str) -> None:
    """The message waits behind a halt or an approval; it is answered when somebody who may has decided."""
    paid: list[str] = []

    async def check() -> Halt:
        """Check."""
        return Halt("the ledger does not add up")

    async def pay() -> str:
        """Pay."""
        paid.append("paid")
        return "paid"

    first = Call("check") if waits == "a halt" else Call("pay")
    agent = make_agent(first, "end", "end", "end", tools=[check, pay], middleware=[Approvals({"pay": True})])
    async with opened(agent, authorizer=Roles()) as sessions:
        interrupt = interrupt_in(await ask(sessions, scope=CLERK))
        receipt = await sessions.post("c", "never mind, pay", scope=CLERK, overlap=overlap)
        await trio.sleep(10)
        info = await sessions.agent_info("c", scope=CLERK)
        assert (Status.INTERRUPTED, 1) == (info.status, info.queued)
        if waits == "a halt":
            await sessions.dismiss("c", scope=DIRECTOR)
        else:
            await sessions.resume("c", [Reject(interrupt.calls[0])], scope=DIRECTOR)
        assert isinstance(await receipt.wait(), Completed)

    assert [] == paid


async def test_post_of_somebody_who_may_decide(autojump_clock: Any) -> None:
    """The message comes instead of a decision: it closes what waits, and is answered at once."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with opened(agent, authorizer=Roles()) as sessions:
        await ask(sessions, scope=CLERK)
        assert isinstance(await ask(sessions, "stop", scope=DIRECTOR), Completed)

    assert [] == effects.done


@pytest.mark.parametrize("instant", [0.1 + 0.25 * number for number in range(20)])
async def test_interrupting_post_while_an_interrupt_is_stored(autojump_clock: Any, instant: float) -> None:
    """Whenever an interrupting message comes, it is answered, and what it interrupts does not run."""
    store, effects = FaultyStore(), Effects()
    agent = scripted(Call("pay", amount=1), "stopped", "stopped", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with opened(agent, store=store) as sessions, trio.open_nursery() as nursery:
        store.faults.latency["commit"] = 1.0
        nursery.start_soon(sessions.post, "c", "pay")
        await trio.sleep(instant)
        receipt = await sessions.post("c", "no, stop", overlap="interrupt")
        with trio.fail_after(60):
            outcome = await receipt.wait()

    assert isinstance(outcome, Completed)
    assert [] == effects.done


async def test_cancel_turn_while_a_decision_is_stored(autojump_clock: Any) -> None:
    """The turn that the decision lets continue is cut: `cancel_turn` does not come too early to be heeded."""
    store = FaultyStore()

    async def pay() -> str:
        """Pay, slowly."""
        await trio.sleep(100)
        return "paid"

    agent = make_agent(Call("pay"), "end", tools=[pay], middleware=[Approvals({"pay": True})])
    async with opened(agent, store=store) as sessions, trio.open_nursery() as nursery:
        interrupt = interrupt_in(await ask(sessions))
        store.faults.latency["commit"] = 1.0
        nursery.start_soon(sessions.resume, "c", [Approve(interrupt.calls[0])])
        await trio.sleep(0.5)
        assert isinstance(await sessions.cancel_turn("c"), Cancelled)


@pytest.mark.parametrize("size", range(17_000, 20_200, 200))
async def test_interrupt_near_the_size_limit_takes_a_rejection(autojump_clock: Any, size: int) -> None:
    """What is shown to people can be rejected, whatever the size of the conversation; otherwise the turn ends with the limit."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with opened(agent, policy={"max_state_bytes": 20_000}) as sessions:
        try:
            outcome = await ask(sessions, "x" * size)
        except LimitExceeded:
            return
        if not hasattr(outcome, "interrupt"):
            return
        receipt = await sessions.resume("c", [Reject(call) for call in outcome.interrupt.calls])
        await receipt.wait()

    assert [] == effects.done


@pytest.mark.parametrize("fault", ["raises", "junk"])
async def test_actor_of_that_fails(autojump_clock: Any, fault: str) -> None:
    """The call that needed it fails, or the record names nobody; the agent comes to rest, and the next call works."""

    class Directory(Roles):
        is_broken = False

        def actor_of(self, scope: Any) -> Any:
            if self.is_broken and fault == "raises":
                raise KeyError(scope)
            return object() if self.is_broken else str(scope)

    directory, effects = Directory((CLERK, DIRECTOR)), Effects()
    agent = scripted(Call("pay", amount=1), "end", "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with opened(agent, authorizer=directory) as sessions:
        interrupt = interrupt_in(await ask(sessions, scope=CLERK))
        directory.is_broken = True
        for attempt in (
            lambda: sessions.post("c", "hello?", scope=CLERK),
            lambda: sessions.resume("c", [Approve(interrupt.calls[0])], scope=CLERK),
        ):
            with pytest.raises((KeyError, TypeError)):
                await attempt()
        directory.is_broken = False
        with trio.fail_after(60):
            await (await sessions.get("c", scope=CLERK)).wait_idle()
            receipt = await sessions.resume("c", [Approve(interrupt.calls[0])], scope=CLERK)
            assert isinstance(await receipt.wait(), Completed)
            with pytest.raises((AlreadyDecided, InvalidDecision, NotInterrupted)):
                await sessions.resume("c", [Reject(interrupt.calls[0])], scope=CLERK)


# ── turns that no person started


async def test_tool_that_posts_to_its_own_conversation(autojump_clock: Any) -> None:
    """It cannot run for ever: after `max_unattended_turns` the queue waits for a person, visibly; then it may run as long again."""
    turns: list[str] = []

    async def again() -> str:
        """Post again."""
        turns.append("again")
        await sessions.post("c", f"again {len(turns)}")
        return "posted"

    def reply(request: Any) -> Any:
        return "end" if request.messages[-1].role == "tool" else Call("again")

    agent = Agent(model=ScriptedModel(reply), tools=[again])
    async with opened(agent, policy={"max_unattended_turns": 3}) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await sessions.post("c", "begin")
        await trio.sleep(100)
        info = await sessions.agent_info("c")
        assert (Status.PAUSED, 1, 4) == (info.status, info.queued, len(turns))
        assert Status.PAUSED is of_kind(await read_all(subscriber), StatusChanged)[-1].status
        await sessions.post("c", "go on")
        await trio.sleep(100)
        assert 4 + 4 == len(turns)


def post_from_thread(sessions: Any, turns: list[str]) -> Any:
    """Return a plain function, which runs in a thread and posts from there."""

    def again() -> str:
        """Post again."""
        turns.append("again")
        trio.from_thread.run(sessions.post, "c", f"again {len(turns)}")
        return "posted"

    return again


async def test_tool_that_posts_from_a_thread(mock_clock: Any) -> None:
    """A plain function runs in a thread; what it posts from there was started by no person either."""
    turns: list[str] = []

    def reply(request: Any) -> Any:
        return "end" if request.messages[-1].role == "tool" else Call("again")

    holder: list[Any] = []
    agent = Agent(model=ScriptedModel(reply), tools=[post_from_thread(_Late(holder), turns)])
    async with opened(agent, policy={"max_unattended_turns": 3}) as sessions:
        holder.append(sessions)
        await sessions.post("c", "begin")
        handle = await sessions.get("c")
        with trio.fail_after(20):
            while (await handle.info()).status is not Status.PAUSED:
                await trio.lowlevel.checkpoint()

    assert 4 == len(turns)


class _Late:
    """Sessions that are opened later."""

    def __init__(self, holder: list[Any]) -> None:
        self.holder = holder

    @property
    def post(self) -> Any:
        return self.holder[0].post


@pytest.mark.parametrize("what", ["a halt", "an approval"])
@pytest.mark.parametrize("how", ["a mere poster interrupts", "a decider interrupts", "cancel_turn"])
async def test_turn_that_waits_for_a_sibling(autojump_clock: Any, what: str, how: str) -> None:
    """While a call of the turn waits behind a sibling that still runs, a mere poster does not get past it; nor does a cancellation get
    past a halt."""

    async def halt() -> Halt:
        """Halt."""
        return Halt("no further")

    async def slow() -> str:
        """Do something that cannot be cut."""
        with trio.CancelScope(shield=True):
            await trio.sleep(20)
        return "done"

    effects = Effects()
    first = Call("halt") if what == "a halt" else Call("pay", amount=1)
    tools = [halt, slow, effects.tool("pay")]
    agent = scripted([first, Call("slow")], "next", "next", tools=tools, middleware=[gated(effects, "pay")])
    async with World(agent, authorizer=Roles(), scope=DIRECTOR) as world:
        receipt = await world.sessions.post("c", "go", scope=CLERK)
        await trio.sleep(3)
        if how == "cancel_turn":
            await world.sessions.cancel_turn("c", scope=CLERK)
        else:
            await world.sessions.post("c", "never mind", scope=CLERK if "mere" in how else DIRECTOR, overlap="interrupt")
        outcome = await receipt.wait()
        await trio.sleep(10)
        interrupt = await world.interrupt()

    is_past = how == "a decider interrupts" or (how == "cancel_turn" and what == "an approval")
    # A halted turn ends as interrupted; the message of somebody who may decide then closes the halt.
    assert (Cancelled if is_past and what == "an approval" else Interrupted) is type(outcome)
    assert is_past == (interrupt is None)
    assert [] == effects.done


async def test_cancel_turn_when_the_turn_is_halted(autojump_clock: Any) -> None:
    """In whatever order its tasks run, a halted turn ends as interrupted, and the halt waits for people."""

    async def halt() -> Halt:
        """Halt."""
        return Halt("no further")

    async def slow() -> str:
        """Do something that cannot be cut."""
        with trio.CancelScope(shield=True):
            await trio.sleep(20)
        return "done"

    def reply(request: Any) -> Any:
        return [Call("halt"), Call("slow")] if request.messages[-1].role == "user" else "next"

    async with opened(Agent(model=ScriptedModel(reply), tools=[halt, slow])) as sessions:
        receipts = [await sessions.post(f"c{number}", "go") for number in range(12)]
        await trio.sleep(3)
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(sessions.cancel_turn, f"c{number}")
        kinds = [interrupt_in(await receipt.wait()).kind for receipt in receipts]

    assert ["halt"] * 12 == kinds


# ── what a name promises


async def test_state_restored_when_a_reader_has_seen_nothing(autojump_clock: Any) -> None:
    """It is told once, before the first snapshot, if a stored state was loaded; and not for a fresh conversation."""
    store = MemoryStore()
    async with opened(store=store) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await answer_to(sessions)
        assert StateRestored() not in [envelope.event for envelope in await read_all(subscriber)]
    async with opened(store=store) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await sessions.start("c")
        await sessions.start("c")
        events = [envelope.event for envelope in await read_all(subscriber)]

    assert [StateRestored, Snapshot] == [type(event) for event in events]


async def test_state_restored_when_the_reader_goes_before_the_snapshot(autojump_clock: Any) -> None:
    """A reader that was told only that a state was restored has no picture: it gets one when it comes back with its place."""
    store = MemoryStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions)
    async with opened(store=store) as sessions:
        async with sessions.open_subscriber() as first:
            await first.subscribe("c")
            await sessions.start("c")
            restored = await anext(aiter(first))
        async with sessions.open_subscriber() as again:
            await again.subscribe("c", after=restored.cursor)
            events = [envelope.event for envelope in await read_all(again)]

    assert StateRestored() == restored.event
    assert Snapshot in [type(event) for event in events]


async def test_settings_of_middleware_in_a_picture(autojump_clock: Any) -> None:
    """`agent_info` tells what each middleware says of its settings, in order; one that fails is left out. Lists do not ask."""

    class Silent(Middleware):
        pass

    class Good(Middleware):
        def debug_summary(self) -> Any:
            return {"most": 3}

    class Bad(Middleware):
        def debug_summary(self) -> Any:
            raise ValueError("no")

    async with opened(make_agent("x", middleware=[Silent(), Bad(), Good()])) as sessions:
        await sessions.start("c")
        assert [("Silent", {}), ("Good", {"most": 3})] == [*(await sessions.agent_info("c")).middleware.items()]
        assert [{}] == [info.middleware for info in await sessions.list_running()]

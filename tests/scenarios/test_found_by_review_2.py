"""What a second hostile review tried: people, middleware, sub-agents and loops that do what they should not."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest
import trio

from tests.support.scenarios import (
    DictRows,
    DictStates,
    FaultyStore,
    Router,
    Verdicts,
    ask,
    check_no_hole,
    kill_9,
    of_kind,
    opened,
    read_all,
    state_of,
)
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Answer,
    Approvals,
    Approve,
    AskUser,
    CancelCause,
    Cancelled,
    Completed,
    ConversationNotFound,
    DisplayMessageSaved,
    Edit,
    Failed,
    Halt,
    Interrupt,
    Interrupted,
    InvalidDecision,
    MemoryStore,
    Message,
    Middleware,
    MiddlewareError,
    ModelAnswer,
    NotInterrupted,
    PersistenceError,
    Reject,
    SagentsError,
    Sessions,
    SessionsClosed,
    Snapshot,
    Status,
    StatusChanged,
    SubAgents,
    Task,
    TextPart,
    Tool,
    ToolCall,
    ToolContext,
    ToolExecutionUpdated,
    TurnEnded,
    TurnLimits,
    TurnOutcome,
    TurnStarted,
    TurnSteps,
    converse,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, Hang, ScriptedModel


def split() -> dict[str, Any]:
    """Return settings with a host's own pair of stores."""
    return {"agent_persistence": DictStates(), "display_message_persistence": DictRows()}


STORES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "memory": lambda: {"store": MemoryStore()},
    "plain": lambda: {"store": FaultyStore()},
    "split": split,
}
each_store = pytest.mark.parametrize("store", STORES)


class Purse:
    """The outside world: what was paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.looked: list[str] = []

    async def pay(self, amount: int) -> str:
        """Pay."""
        self.paid.append(amount)
        await trio.lowlevel.checkpoint()
        return f"paid {amount}"

    async def look(self, what: str) -> str:
        """Look."""
        self.looked.append(what)
        await trio.lowlevel.checkpoint()
        return f"saw {what}"

    @property
    def tools(self) -> list[Any]:
        return [self.pay, self.look]


def gate() -> Approvals:
    """Return a gate before `pay`."""
    return Approvals({"pay": True})


def paying(purse: Purse, *replies: Any, middleware: Sequence[Any] | None = None, **settings: Any) -> Agent:
    """Return an agent that pays 1, gated, and then says "end"."""
    model = ScriptedModel(list(replies or (Call("pay", amount=1), "end", "later", "later")))
    return Agent(model=model, tools=purse.tools, middleware=[gate()] if middleware is None else middleware, **settings)


def task(agent: Agent, name: str = "t") -> Task:
    """Return a kind of task."""
    return Task(name=name, description=name, agent=agent)


def hand_over(name: str = "t") -> Call:
    """Return a call of a sub-agent."""
    return Call("task", instructions="do it", name=name)


def parent(*replies: Any, tasks: Sequence[Task], **settings: Any) -> Agent:
    """Return an agent with sub-agents."""
    return Agent(model=ScriptedModel(list(replies)), middleware=[SubAgents(tasks)], **settings)


async def interrupt_of(sessions: Sessions, **settings: Any) -> Interrupt:
    """Post what leads to an interrupt."""
    outcome = await ask(sessions, **settings)
    assert isinstance(outcome, Interrupted), outcome
    return outcome.interrupt


async def decide(sessions: Sessions, *decisions: Any, **settings: Any) -> TurnOutcome:
    """Decide, and wait for the outcome."""
    return await (await sessions.resume("c", decisions, **settings)).wait()


async def results_of(sessions: Sessions) -> list[tuple[str, str, str]]:
    """Return (tool, status, text) of each result."""
    return [(one.name, one.status, one.content) for message in (await state_of(sessions)).messages for one in message.results]


async def loads_again(sessions: Sessions) -> None:
    """See that what was stored can be loaded."""
    await sessions.stop("c")
    await sessions.start("c")


# ── the gate


@pytest.mark.parametrize("registered", ["a tool", "a function"])
async def test_policy_by_object_when_it_has_another_name(autojump_clock: Any, registered: str) -> None:
    """Who hands over the object means the object, whatever the model calls it."""
    purse = Purse()
    renamed = Tool.of(purse.pay, name="give")
    tool, key, name = (renamed, purse.pay, "give") if registered == "a tool" else (purse.pay, renamed, "pay")
    agent = Agent(model=ScriptedModel([Call(name, amount=1), "end"]), tools=[tool], middleware=[Approvals({key: True})])
    async with opened(agent) as sessions:
        await ask(sessions)

        assert [] == purse.paid


async def test_policy_by_object_when_only_a_sub_agent_has_it(autojump_clock: Any) -> None:
    """The policy of a function holds in sub-agents, also where the parent itself does not have it."""
    purse = Purse()
    inner = Agent(model=ScriptedModel([Call("give", amount=1), "done"]), tools=[Tool.of(purse.pay, name="give")])
    middleware = [Approvals({purse.pay: True}), SubAgents([task(inner)])]
    async with opened(Agent(model=ScriptedModel([hand_over(), "end"]), middleware=middleware)) as sessions:
        await ask(sessions)

        assert [] == purse.paid


@pytest.mark.parametrize("when", ["the same turn", "a later turn"])
async def test_answer_from_a_cache_needs_its_own_approval(autojump_clock: Any, when: str) -> None:
    """A middleware that gives an answer twice cannot have one approval pay twice."""

    class Cache(Middleware):
        asked = 0

        async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
            self.asked += 1
            answer = await call_next(request)
            if self.asked not in {1, 2 if when == "the same turn" else 3}:
                return answer
            call = ToolCall("zz", "pay", {"amount": 5})
            return attrs.evolve(answer, message=attrs.evolve(answer.message, parts=(call,), stop_reason="tool_calls"))

    purse = Purse()
    model = ScriptedModel(lambda request: "end")
    async with opened(Agent(model=model, tools=purse.tools, middleware=[Cache(), gate()])) as sessions:
        await decide(sessions, Approve((await interrupt_of(sessions)).calls[0]))
        if when == "a later turn":
            await ask(sessions, "again")

        assert [5] == purse.paid
        await loads_again(sessions)


@pytest.mark.parametrize("order", [1, -1])
async def test_claims_of_two_middleware_hold_both(autojump_clock: Any, order: int) -> None:
    """What one middleware does not allow stays forbidden, whatever another one allows."""

    class Strict(Middleware):
        async def claim(self, context: Any, call: Any, tool: Any) -> Any:
            return pending(call, allowed=("approve", "reject")) if call.name == "pay" else None

    allowed = []
    for middleware in ([gate(), Strict()], [Strict(), gate()]):
        async with opened(paying(Purse(), middleware=middleware[::order])) as sessions:
            allowed.append((await interrupt_of(sessions)).calls[0].allowed)

    assert [("approve", "reject")] * 2 == allowed


async def test_crash_before_the_interrupt_is_stored(autojump_clock: Any) -> None:
    """A call that waits for its gate has not begun, and nobody is told that it had."""
    purse, lives = Purse(), []

    class Keeping(FaultyStore):
        async def commit(self, scope: Any, commit: Any) -> int:
            revision = await super().commit(scope, commit)
            lives.append(kill_9(self.inner))
            return revision

    async with opened(paying(purse), store=Keeping()) as sessions:
        await interrupt_of(sessions)
    for life in lives:
        async with opened(paying(purse, "later"), store=life) as sessions:
            assert not [text for _, _, text in await results_of(sessions) if "had begun" in text]


@pytest.mark.parametrize("newcomers", ["ask", "deny"])
async def test_newcomer_in_a_sub_agent(autojump_clock: Any, newcomers: str) -> None:
    """A tool that a middleware brings later is a newcomer, also for a sub-agent that inherits the middleware."""
    purse = Purse()
    brought: list[Any] = []

    class Brings(Middleware):
        async def tools(self, context: Any) -> Any:
            return list(brought)

    def reply(request: Any) -> Any:
        if request.messages[-1].role == "tool" or request.messages[-1].text == "hello":
            return "end"
        return hand_over("general-purpose") if "task" in [tool.name for tool in request.tools] else Call("added", amount=1)

    middleware = [Approvals({}, newcomers=newcomers), Brings(), SubAgents()]
    async with opened(Agent(model=ScriptedModel(reply), middleware=middleware)) as sessions:
        await ask(sessions, "hello")
        brought.append(Tool.of(purse.pay, name="added"))
        await ask(sessions, "go")

        assert [] == purse.paid


async def test_tool_that_takes_the_place_of_an_approved_one(autojump_clock: Any) -> None:
    """What was approved is a call of the tool that was there."""
    purse, stolen = Purse(), []

    async def steal(amount: int) -> str:
        """Steal."""
        stolen.append(amount)
        return "stolen"

    brought: list[Any] = [purse.pay]

    class Brings(Middleware):
        async def tools(self, context: Any) -> Any:
            return [Tool.of(brought[0], name="give")]

        async def on_message(self, context: Any, message: Any) -> None:
            context.refresh_tools()

    agent = Agent(model=ScriptedModel([Call("give", amount=1), "end"]), middleware=[Approvals({"give": True}), Brings()])
    async with opened(agent) as sessions:
        interrupt = await interrupt_of(sessions)
        brought[0] = steal
        await (await sessions.get("c")).notify_middleware("Brings", "again")
        await decide(sessions, Approve(interrupt.calls[0]))

    assert [] == stolen


# ── what people see of it


async def test_edited_arguments_are_what_people_see(autojump_clock: Any) -> None:
    """Events, rows and snapshots of an edited call show what runs."""
    seen: list[Any] = []

    async def pay(amount: int) -> str:
        """Pay."""
        async with sessions.watch("c") as late:
            seen.extend(call.arguments for call in (await anext(late)).event.tool_calls)  # type: ignore[union-attr]
        return "paid"

    agent = Agent(model=ScriptedModel([Call("pay", amount=1), "end"]), tools=[pay], middleware=[gate()])
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        interrupt = await interrupt_of(sessions)
        await read_all(watch)
        await decide(sessions, Edit(interrupt.calls[0], {"amount": 9}))
        seen.extend(event.call.arguments for event in of_kind(await read_all(watch), ToolExecutionUpdated))
        rows = (await sessions.history("c")).rows
        seen.extend(row.content["arguments"] for row in rows if row.content_type == "tool_call")

    assert [{"amount": 9}] * 4 == seen


async def test_edited_arguments_of_a_call_that_a_crash_cut(autojump_clock: Any) -> None:
    """Who has to find out what an unknown call did reads what was started."""

    async def pay(amount: int) -> str:
        """Pay."""
        await trio.sleep_forever()
        raise AssertionError

    agent = Agent(model=ScriptedModel([Call("pay", amount=1), "end"]), tools=[pay], middleware=[gate()])
    store = MemoryStore()
    async with opened(agent, store=store) as sessions:
        interrupt = await interrupt_of(sessions)
        await sessions.resume("c", [Edit(interrupt.calls[0], {"amount": 9})])
        await trio.sleep(1)
        life = kill_9(store)
    async with opened(agent, store=life) as sessions:
        await sessions.start("c")
        rows = [row for row in (await sessions.history("c")).rows if row.content_type == "tool_call"]

        assert [("unknown", {"amount": 9})] == [(row.status, row.content["arguments"]) for row in rows]


async def test_row_of_a_gated_call_says_where_it_is(autojump_clock: Any) -> None:
    """It executes when it executes, and not before."""
    seen: list[str] = []

    async def note() -> None:
        seen.extend(row.status for row in (await sessions.history("c")).rows if row.content_type == "tool_call")

    async def pay(amount: int) -> str:
        """Pay."""
        await note()
        return "paid"

    agent = Agent(model=ScriptedModel([Call("pay", amount=1), "end"]), tools=[pay], middleware=[gate()])
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        interrupt = await interrupt_of(sessions)
        saved = [event.row.status for event in of_kind(await read_all(watch), DisplayMessageSaved)]
        await note()
        await decide(sessions, Approve(interrupt.calls[0]))
        await note()

    assert "executing" not in saved
    assert ["interrupted", "executing", "completed"] == seen


async def test_transform_row_with_a_hosts_own_stores(autojump_clock: Any) -> None:
    """What a middleware hides or changes, viewers see so, wherever rows are kept; the host's store keeps what it made."""

    class Show(Middleware):
        def transform_row(self, row: Any) -> Any:
            return attrs.evolve(row, content={"text": "***"}) if row.role == "user" else None

    settings = split()
    async with opened(paying(Purse(), "hi", middleware=[Show()]), **settings) as sessions, sessions.watch("c") as watch:
        await ask(sessions)
        rows = [event.row for event in of_kind(await read_all(watch), DisplayMessageSaved)]

    assert [("user", {"text": "***"})] == [(row.role, row.content) for row in rows]
    kept = settings["display_message_persistence"].rows.values()
    assert [("user", {"text": "hi"}), ("assistant", {"text": "hi"})] == [(row.role, row.content) for row in kept]


async def halts() -> object:
    """Halt, when the calls beside this one have begun."""
    await trio.sleep(0.1)
    return Halt("enough")


async def hangs() -> str:
    """Hang."""
    await trio.sleep_forever()
    raise AssertionError


def cut_stories(purse: Purse) -> dict[str, Agent]:
    """Return agents whose first call has done something when the turn is cut."""
    asks = paying(purse, Call("look", what="x"), Call("pay", amount=1), "done")
    wordy = paying(purse, Call("look", what="x" * 3000), Call("look", what="y" * 3000), Call("pay", amount=1), "done")
    both = [hand_over("a"), hand_over("b")]
    return {
        "a sub-agent waits beside one that hangs": parent(both, tasks=[task(asks, "a"), task(paying(purse, Hang()), "b")]),
        "a tool has halted beside one that hangs": Agent(model=ScriptedModel([[Call("halts"), Call("hangs")]]), tools=[halts, hangs]),
        "a sub-agent waits with too large a state": parent(hand_over(), tasks=[task(wordy)]),
    }


@pytest.mark.parametrize("story", cut_stories(Purse()))
async def test_call_that_ran_is_not_said_not_to_have_run(autojump_clock: Any, story: str) -> None:
    """Whatever cuts a turn: of a call that had effects, the model never reads that it did not run."""
    async with opened(cut_stories(Purse())[story], policy={"max_state_bytes": 5000}) as sessions:
        receipt = await sessions.post("c", "go")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        await receipt.wait()

        assert "was not run" not in (await results_of(sessions))[0][2]


# ── middleware that does what it should not


def hook(name: str, change: Callable[[Any], Any]) -> Middleware:
    """Return a middleware whose hook changes what comes back; `claim` changes what it would claim."""

    async def around(self: Any, context: Any, given: Any, call_next: Any) -> Any:
        return change(await call_next(given))

    async def after(self: Any, context: Any, given: Any, *_: Any) -> Any:
        return change(pending(given) if name == "claim" else given)

    return type("Bad", (Middleware,), {name: around if name.startswith("around") else after})()  # type: ignore[no-any-return]


def answered(message_id: str | None, role: Any = "assistant") -> Callable[[Any], Any]:
    """Return what makes an answer one with another id and role."""
    return lambda answer: ModelAnswer(Message(message_id or answer.message.message_id, role, (TextPart("x"),), stop_reason="stop"))


WRONG: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "a result that is pending": ("around_tool", lambda result: attrs.evolve(result, status="pending")),
    "a result of no known status": ("around_tool", lambda result: attrs.evolve(result, status="whim")),
    "a result that is no text": ("around_tool", lambda result: attrs.evolve(result, content="\ud800")),
    "an answer of the user": ("around_model", answered(None, "user")),
    "a reason that is none": ("after_model", lambda message: attrs.evolve(message, stop_reason="whim")),
    "metadata that are no JSON": ("after_model", lambda message: attrs.evolve(message, metadata={"a": object()})),
    "a message that is no text": ("after_model", lambda message: attrs.evolve(message, parts=(TextPart("\ud800"), *message.parts))),
    "a claim of no known kind": ("claim", lambda call: attrs.evolve(call, kind="whim")),
    "a claim until NaN": ("claim", lambda call: attrs.evolve(call, timeout=float("nan"))),
    "a claim that is no text": ("claim", lambda call: attrs.evolve(call, text="\ud800")),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_a_middleware_returns_cannot_break_the_conversation(autojump_clock: Any, wrong: str) -> None:
    """It is refused by name, and what is stored can be loaded."""
    name, change = WRONG[wrong]
    async with opened(paying(Purse(), middleware=[hook(name, change)])) as sessions:
        outcome = await ask(sessions, message_id="m-1")

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, MiddlewareError)
        assert (outcome.error.middleware_id, outcome.error.hook) == ("Bad", name)
        await loads_again(sessions)


async def test_answer_with_a_known_id_gets_its_own(autojump_clock: Any) -> None:
    """A middleware that answers with an old message breaks nothing: two messages never have one id."""
    async with opened(paying(Purse(), middleware=[hook("around_model", answered("m-1"))])) as sessions:
        assert isinstance(await ask(sessions, message_id="m-1"), Completed)
        await loads_again(sessions)
        ids = [message.message_id for message in (await state_of(sessions)).messages]

        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("wrong", [KeyError("x"), 42])
async def test_answer_that_fails_is_named(autojump_clock: Any, wrong: Any) -> None:
    """Who decides reads which middleware failed, and the call waits on."""

    class Bad(Middleware):
        async def claim(self, context: Any, call: Any, tool: Any) -> Any:
            return pending(call)

        async def answer(self, context: Any, call: Any, decision: Any) -> Any:
            if isinstance(wrong, BaseException):
                raise wrong
            return wrong

    async with opened(paying(Purse(), middleware=[Bad()])) as sessions:
        interrupt = await interrupt_of(sessions)
        with pytest.raises(MiddlewareError, match="Bad"):
            await sessions.resume("c", [Reject(interrupt.calls[0])])

        assert (await sessions.agent_info("c")).interrupt == interrupt


async def test_answer_ends_with_its_agent(autojump_clock: Any) -> None:
    """When stop returns, no hook of the agent runs; and what is being decided is activity."""
    running: list[Any] = []

    class Slow(Middleware):
        async def claim(self, context: Any, call: Any, tool: Any) -> Any:
            return pending(call)

        async def answer(self, context: Any, call: Any, decision: Any) -> None:
            running.append(call)
            try:
                await trio.sleep(5)
            finally:
                running.remove(call)

    async with opened(paying(Purse(), middleware=[Slow()])) as sessions, trio.open_nursery() as nursery:
        interrupt = await interrupt_of(sessions)

        async def resume() -> None:
            with trio.CancelScope(), pytest.raises(SagentsError):
                await sessions.resume("c", [Approve(interrupt.calls[0])])

        nursery.start_soon(resume)
        await trio.sleep(1)
        await sessions.stop("c")
        still_running = [*running]
        nursery.cancel_scope.cancel()

    assert [] == still_running


async def test_background_task_that_fails_is_named(autojump_clock: Any) -> None:
    """A turn that is cut because a middleware's task failed says so."""

    class Bad(Middleware):
        async def before_turn(self, context: Any) -> None:
            async def fail() -> None:
                raise ValueError("no")

            context.start_soon(fail)

    async with opened(paying(Purse(), "hi", middleware=[Bad()])) as sessions:
        assert Cancelled(CancelCause.HOST_CANCELLED) != await ask(sessions)


# ── sub-agents


@pytest.mark.parametrize("name", ["x", "y"])
async def test_run_agent_twice_in_a_call_is_refused(autojump_clock: Any, name: str) -> None:
    """Nobody is asked about what will not run, and nothing runs twice."""
    purse = Purse()
    silent = Agent(model=ScriptedModel(lambda request: "first"))
    asking = ScriptedModel(lambda request: "done" if request.messages[-1].role == "tool" else Call("pay", amount=5))

    async def both(context: ToolContext) -> str:
        """Run two."""
        await context.run_agent(silent, "do", name="x")
        await context.run_agent(Agent(model=asking, tools=purse.tools, middleware=[gate()]), "do", name=name)
        return "both"

    async with opened(Agent(model=ScriptedModel([Call("both"), "end"]), tools=[both])) as sessions:
        asked, outcome = 0, await ask(sessions)
        while isinstance(outcome, Interrupted) and asked < 3:
            asked += 1
            outcome = await decide(sessions, Approve(outcome.interrupt.calls[0]))

        assert isinstance(outcome, Completed)
        assert asked == len(purse.paid) <= 1


async def test_run_agent_when_the_call_has_ended(autojump_clock: Any) -> None:
    """A context that a tool kept starts nothing any more."""
    kept: list[ToolContext] = []

    async def keep(context: ToolContext) -> str:
        """Keep it."""
        kept.append(context)
        return "kept"

    inner = ScriptedModel(lambda request: "hi")
    async with opened(Agent(model=ScriptedModel([Call("keep"), "end"]), tools=[keep])) as sessions:
        await ask(sessions)
        with pytest.raises(RuntimeError):
            await kept[0].run_agent(Agent(model=inner), "do", name="x")

    assert [] == inner.requests


@each_store
async def test_sub_agents_answered_one_after_the_other_in_other_lives(autojump_clock: Any, store: str) -> None:
    """Two that wait, answered one after the other over a stop and a restart: each thing is done once."""
    purse = Purse()

    def inner(request: Any) -> Any:
        names = [one.name for message in request.messages for one in message.results]
        return Call("look", what="x") if not names else Call("pay", amount=1) if names == ["look"] else "done"

    def agent() -> Agent:
        tasks = [task(Agent(model=ScriptedModel(inner), tools=purse.tools, middleware=[gate()]), name) for name in "ab"]
        model = ScriptedModel(lambda request: "end" if request.messages[-1].role == "tool" else [hand_over("a"), hand_over("b")])
        return Agent(model=model, middleware=[SubAgents(tasks)])

    settings = STORES[store]()
    async with opened(agent(), **settings) as sessions:
        first, second = (await interrupt_of(sessions)).calls
        await loads_again(sessions)
        assert isinstance(await decide(sessions, Approve(first)), Interrupted)
    async with opened(agent(), **settings) as sessions:
        assert isinstance(await decide(sessions, Approve(second)), Completed)
        assert [1, 1] == purse.paid
        assert ["x", "x"] == purse.looked
        assert [("task", "completed", "done")] * 2 == await results_of(sessions)


async def test_sub_agents_share_no_limiter_with_their_parent(autojump_clock: Any) -> None:
    """One call at a time, at each level, is no deadlock."""
    purse, one = Purse(), TurnLimits(max_parallel=1)
    tasks = [task(paying(purse, Call("look", what=name), Call("pay", amount=1), "done", limits=one), name) for name in "ab"]
    async with opened(parent([hand_over("a"), hand_over("b")], "end", tasks=tasks, limits=one)) as sessions:
        interrupt = await interrupt_of(sessions)

        assert isinstance(await decide(sessions, *map(Approve, interrupt.calls)), Completed)
        assert [1, 1] == purse.paid


@pytest.mark.parametrize(
    "name", ["on_start", "tools", "system_prompt", "before_turn", "before_model", "after_model", "claim", "around_tool"]
)
async def test_middleware_of_a_sub_agent_that_fails(autojump_clock: Any, name: str) -> None:
    """The call fails, by the middleware's name; the parent goes on."""

    async def fail(self: Any, *args: Any) -> None:
        raise ValueError("no")

    inner = paying(Purse(), middleware=[type("Bad", (Middleware,), {name: fail})()])
    async with opened(parent(hand_over(), "end", tasks=[task(inner)])) as sessions:
        assert isinstance(await ask(sessions), Completed)
        assert [("task", "failed", f"MiddlewareError: the middleware 'Bad' failed in {name} with ValueError")] == await results_of(sessions)


@pytest.mark.parametrize(("prompt", "name"), [("do", 5), ("\ud800", "x")])
async def test_run_agent_with_what_cannot_be_stored(autojump_clock: Any, prompt: Any, name: Any) -> None:
    """The tool fails; the conversation loads."""
    inner = paying(Purse())

    async def run(context: ToolContext) -> str:
        """Run it."""
        return (await context.run_agent(inner, prompt, name=name)).message.text

    async with opened(Agent(model=ScriptedModel([Call("run"), "end"]), tools=[run])) as sessions:
        assert isinstance(await ask(sessions), Completed)
        await loads_again(sessions)


async def test_metadata_with_keys_that_are_no_strings(autojump_clock: Any) -> None:
    """A host's store gets plain JSON."""
    states = DictStates()

    async def note(context: ToolContext) -> str:
        """Note."""
        await context.update(metadata={"n": {3: 4}})
        return "noted"

    agent = Agent(model=ScriptedModel([Call("note"), "end"]), tools=[note])
    async with opened(agent, agent_persistence=states, display_message_persistence=DictRows()) as sessions:
        await ask(sessions)

    assert all(json.loads(json.dumps(data)) == data for _, data, _ in states.saves)


# ── loops of one's own


async def runs_twice(turn: TurnSteps) -> Any:
    """Run an answer's calls twice."""
    answer = await turn.ask_model()
    await turn.run_tools(answer)
    await turn.run_tools(answer)
    return await converse(turn)


async def completes_twice(turn: TurnSteps) -> Any:
    """Complete twice."""
    answer = await turn.ask_model()
    await turn.complete(answer)
    return await turn.complete(answer)


async def completes_with_calls(turn: TurnSteps) -> Any:
    """Complete with what asks for tools."""
    return await turn.complete(await turn.ask_model())


async def ignores_the_interrupt(turn: TurnSteps) -> Any:
    """Go on as if nobody had to be asked."""
    await turn.run_tools(await turn.ask_model())
    return await converse(turn)


async def repeats_a_call(turn: TurnSteps) -> Any:
    """Give a call again that was approved before."""
    answer = await turn.ask_model()
    call = ToolCall("call-9", "pay", {"amount": 1})
    await turn.run_tools(attrs.evolve(answer, message=attrs.evolve(answer.message, parts=(call,), stop_reason="tool_calls")))
    return await converse(turn)


@pytest.mark.parametrize(
    ("mode", "gated"),
    [
        (runs_twice, False),
        (runs_twice, True),
        (completes_twice, False),
        (completes_with_calls, False),
        (ignores_the_interrupt, True),
        (repeats_a_call, True),
    ],
)
async def test_whatever_a_loop_does_the_history_stays_valid(autojump_clock: Any, mode: Any, gated: bool) -> None:
    """Each call is run once, each approval used once, and what was stored loads."""
    purse = Purse()
    model = ScriptedModel(lambda request: "end" if request.messages[-1].role == "tool" else Call("pay", amount=1))
    agent = Agent(model=model, tools=purse.tools, mode=mode, middleware=[gate()] if gated else [])
    async with opened(agent) as sessions:
        outcome = await ask(sessions)
        if isinstance(outcome, Interrupted):
            await decide(sessions, Approve(outcome.interrupt.calls[0]))
        await ask(sessions, "again")
        await loads_again(sessions)
        messages = (await state_of(sessions)).messages
        asked = [call.call_id for message in messages for call in message.calls]

        assert len(asked) == len(set(asked))
        assert len(purse.paid) <= len(asked)


@pytest.mark.parametrize("result", [ValueError("no"), None, "x"])
async def test_loop_that_fails_harms_its_turn_only(autojump_clock: Any, result: Any) -> None:
    """The turn fails; the agent stays."""

    async def loop(turn: TurnSteps) -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    async with opened(paying(Purse(), mode=loop)) as sessions:
        assert isinstance(await ask(sessions), Failed)
        await trio.sleep(1)
        assert await sessions.running("c")


# ── a host's own stores


class Flagging(DictStates):
    """Fails to keep the flag at its n-th call."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    async def set_interrupted(self, scope: Any, context: Any, interrupted: bool) -> None:
        self.n -= 1
        if not self.n:
            raise OSError("no")
        await super().set_interrupted(scope, context, interrupted)


@pytest.mark.parametrize("n", [1, 2])
async def test_flag_that_cannot_be_kept_harms_nothing(autojump_clock: Any, n: int) -> None:
    """`set_interrupted` is a hint for the host's lists: the state beside it was kept, and counts."""
    purse, states = Purse(), Flagging(n)
    async with opened(paying(purse), agent_persistence=states, display_message_persistence=DictRows()) as sessions:
        interrupt = await interrupt_of(sessions)
        await decide(sessions, Approve(interrupt.calls[0]))
        assert isinstance(await ask(sessions, "again"), Completed)

    assert [1] == purse.paid
    assert states.interrupted[-1:] != [True]


@pytest.mark.parametrize("n", range(1, 9))
async def test_flag_is_that_of_the_stored_state(autojump_clock: Any, n: int) -> None:
    """Whichever save fails: `set_interrupted` has said what the stored state says, and nothing is paid twice."""
    purse, states = Purse(), DictStates()
    states.faults.fail("persist_state", n)
    async with opened(paying(purse), agent_persistence=states, display_message_persistence=DictRows()) as sessions:
        try:
            outcome = await ask(sessions)
            if isinstance(outcome, Interrupted):
                await decide(sessions, Approve(outcome.interrupt.calls[0]))
        except PersistenceError:
            assert [] == purse.paid
        stored = states.rows["c"].data["interrupt"] if "c" in states.rows else None

        assert bool(stored) == (states.interrupted[-1:] == [True])
    for _, data, _ in states.saves:
        assert set(data) == {"version", "messages", "queue", "todos", "metadata", "interrupt"}
        json.dumps(data)


# ── people at once


@each_store
async def test_batch_answered_in_three_processes(autojump_clock: Any, store: str) -> None:
    """A sub-agent's approval, a question and an approval, one in each life; the turn goes on with the last."""
    purse, settings = Purse(), STORES[store]()

    def agent() -> Agent:
        inner = attrs.evolve(paying(purse), model=ScriptedModel(said))
        replies = [hand_over(), Call("ask_user", question="Which?"), Call("pay", amount=2)]
        model = ScriptedModel(lambda request: "end" if request.messages[-1].role == "tool" else replies)
        return Agent(model=model, tools=purse.tools, middleware=[gate(), AskUser(), SubAgents([task(inner)])])

    def said(request: Any) -> Any:
        names = [one.name for message in request.messages for one in message.results]
        return Call("look", what="x") if not names else Call("pay", amount=1) if names == ["look"] else "done"

    async with opened(agent(), **settings) as sessions:
        calls = (await interrupt_of(sessions)).calls
    for left, call in zip((2, 1, 0), calls, strict=True):
        async with opened(agent(), **settings) as sessions:
            outcome = await decide(sessions, Answer(call, "blue") if call.kind == "question" else Approve(call))
            waiting = outcome.interrupt.calls if isinstance(outcome, Interrupted) else ()

            assert left == len(waiting)
            assert (await sessions.agent_info("c")).status is (Status.INTERRUPTED if left else Status.IDLE)
    assert [1, 2] == sorted(purse.paid)
    assert ["x"] == purse.looked


@each_store
@pytest.mark.parametrize("how", ["resume", "dismiss"])
async def test_waiting_subscriber_sees_only_the_state_after_the_answer(autojump_clock: Any, store: str, how: str) -> None:
    """An answer wakes the agent: nobody is shown the question again, and no number is missing."""
    agent = Agent(
        model=ScriptedModel([Call("pay" if how == "resume" else "halts", **({"amount": 1} if how == "resume" else {})), "end"]),
        tools=[*Purse().tools, halts],
        middleware=[gate()],
    )
    async with opened(agent, **STORES[store]()) as sessions, sessions.open_subscriber() as subscriber:
        interrupt = await interrupt_of(sessions)
        await sessions.stop("c")
        await subscriber.subscribe("c")
        await (decide(sessions, Approve(interrupt.calls[0])) if how == "resume" else sessions.dismiss("c"))
        await (await sessions.get("c")).wait_idle()
        events = await read_all(subscriber)

        check_no_hole(events)
        assert Status.INTERRUPTED not in [event.status for event in of_kind(events, Snapshot, StatusChanged)]
        assert Status.IDLE is of_kind(events, Snapshot, StatusChanged)[-1].status


@each_store
async def test_cursor_of_every_event_around_an_interrupt(autojump_clock: Any, store: str) -> None:
    """Whoever comes back with any cursor gets the next number; after a restart, a snapshot that replaces it."""
    async with opened(paying(Purse()), **STORES[store]()) as sessions:
        async with sessions.watch("c") as watch:
            interrupt = await interrupt_of(sessions)
            await decide(sessions, Approve(interrupt.calls[0]))
            events = await read_all(watch)
        for envelope in events[:-1]:
            async with sessions.watch("c", after=str(envelope.cursor)) as watch:
                assert envelope.seq + 1 == (await anext(watch)).first_seq
        await sessions.stop("c")
        async with sessions.watch("c", after=events[-1].cursor) as watch:
            assert events[-1].cursor == (await anext(watch)).event.replaces  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(12))
async def test_everything_at_once_while_it_wakes(autojump_clock: Any, seed: int) -> None:
    """Answers, a message, a stop, a start and a dismissal meet in one boot: paid at most once, one answer for all."""
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
        answered_calls = [one.call_id for message in (await state_of(sessions)).messages for one in message.results]

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


@pytest.mark.parametrize("warm", [True, False])
async def test_authorizer_that_refuses_to_let_decide(autojump_clock: Any, warm: bool) -> None:
    """Who may not decide sees a conversation that is not there, and wakes nobody."""
    purse = Purse()
    verdicts = Verdicts(lambda scope, conversation_id, action: action != "decide" or scope == "boss", delay=0.1)
    async with opened(paying(purse), authorizer=verdicts) as sessions:
        interrupt = await interrupt_of(sessions, scope="clerk")
        if not warm:
            await sessions.stop("c", scope="clerk")
        for refused in (sessions.resume("c", [Approve(interrupt.calls[0])], scope="clerk"), sessions.dismiss("c", scope="clerk")):
            with pytest.raises(ConversationNotFound):
                await refused

        assert warm == await sessions.running("c", scope="clerk")
        assert isinstance(await decide(sessions, Approve(interrupt.calls[0]), scope="boss"), Completed)


@each_store
async def test_drain_leaves_what_waits(autojump_clock: Any, store: str) -> None:
    """An interrupted agent is at rest: drain does not wait for it, answers come too late, and it waits in the next life."""
    purse, settings = Purse(), STORES[store]()
    async with opened(paying(purse), **settings) as sessions:
        interrupt = await interrupt_of(sessions)
        report = await sessions.drain()
        assert (1, 0) == (report.idle, report.cancelled)
        for late in (sessions.resume("c", [Approve(interrupt.calls[0])]), sessions.dismiss("c")):
            with pytest.raises(SessionsClosed):
                await late
    async with opened(paying(purse, "end"), **settings) as sessions:
        assert isinstance(await decide(sessions, Approve(interrupt.calls[0])), Completed)
        assert [1] == purse.paid

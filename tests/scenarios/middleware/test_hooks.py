"""Middleware: in which order hooks run, what they may do, and what becomes of those that raise."""

import contextvars
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.payments import Purse, paying, split
from tests.support.scenarios import (
    FaultyStore,
    answer_to,
    ask,
    make_agent,
    of_kind,
    opened,
    read_all,
    state_of,
)
from trio_sagents import (
    Agent,
    AgentNotRunning,
    AgentStopped,
    Approve,
    CancelCause,
    Cancelled,
    Completed,
    DisplayMessage,
    DisplayMessageSaved,
    Failed,
    Interrupted,
    InvalidDecision,
    MemoryStore,
    Message,
    Middleware,
    MiddlewareContext,
    MiddlewareError,
    MiddlewareEvent,
    ModelAnswer,
    ModelFailed,
    ModelRequest,
    PendingCall,
    Reject,
    StartFailed,
    Status,
    StatusChanged,
    SubAgents,
    Task,
    TextPart,
    Todo,
    Tool,
    ToolCall,
    ToolResultPart,
    TurnOutcome,
    TurnSteps,
    Usage,
    converse,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, Hang, ScriptedModel


@attrs.define(eq=False)
class Spy(Middleware):
    """Writes down what is called."""

    name: str = "spy"
    said: list[str] = attrs.field(factory=list)
    fails: str = ""
    """The hook that raises."""

    @property
    def middleware_id(self) -> str:
        return self.name

    def note(self, hook: str) -> None:
        self.said.append(f"{self.name}.{hook}")
        if hook == self.fails:
            raise RuntimeError("the spy is out")

    async def system_prompt(self, context: MiddlewareContext) -> str:
        self.note("system_prompt")
        return f"prompt of {self.name}"

    async def on_start(self, context: MiddlewareContext) -> None:
        self.note("on_start")

    async def tools(self, context: MiddlewareContext) -> Sequence[Any]:
        self.note("tools")
        return ()

    async def before_turn(self, context: MiddlewareContext) -> None:
        self.note("before_turn")

    async def after_turn(self, context: MiddlewareContext, outcome: TurnOutcome) -> None:
        self.note("after_turn")

    def turn_ended(self, context: MiddlewareContext, outcome: TurnOutcome) -> None:
        self.note("turn_ended")

    async def before_model(self, context: MiddlewareContext, request: ModelRequest) -> ModelRequest:
        self.note("before_model")
        return request

    async def after_model(self, context: MiddlewareContext, message: Message) -> Message:
        self.note("after_model")
        return message

    async def around_model(self, context: MiddlewareContext, request: ModelRequest, call_next: Any) -> ModelAnswer:
        self.note("around_model down")
        answer: ModelAnswer = await call_next(request)
        self.note("around_model up")
        return answer

    async def around_tool(self, context: MiddlewareContext, call: ToolCall, call_next: Any) -> ToolResultPart:
        self.note("around_tool down")
        result: ToolResultPart = await call_next(call)
        self.note("around_tool up")
        return result

    async def claim(self, context: MiddlewareContext, call: ToolCall, tool: Tool) -> PendingCall | None:
        self.note("claim")
        return None

    async def on_message(self, context: MiddlewareContext, message: Any) -> None:
        self.note(f"on_message {message}")


async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


async def test_hooks_run_outside_in_and_back(autojump_clock: Any) -> None:
    """Going down hooks run in the order of the middleware, coming back in the reverse; prompts are joined in order."""
    said: list[str] = []
    agent = make_agent(Call("add", a=1, b=2), "3", tools=[add], system_prompt="base", middleware=[Spy("one", said), Spy("two", said)])

    async with opened(agent) as sessions:
        assert isinstance(await ask(sessions, "1 + 2?"), Completed)

    model_call = [
        f"{name}.{hook}"
        for name, hook in [
            ("one", "before_model"),
            ("two", "before_model"),
            ("one", "around_model down"),
            ("two", "around_model down"),
            ("two", "around_model up"),
            ("one", "around_model up"),
            ("two", "after_model"),
            ("one", "after_model"),
        ]
    ]
    assert said == [
        *("one.on_start", "two.on_start", "one.tools", "two.tools"),
        *("one.before_turn", "two.before_turn", "one.system_prompt", "two.system_prompt"),
        *model_call,
        *("one.claim", "two.claim"),
        *("one.around_tool down", "two.around_tool down", "two.around_tool up", "one.around_tool up"),
        *model_call,
        *("two.after_turn", "one.after_turn", "two.turn_ended", "one.turn_ended"),
    ]
    assert agent.model.requests[0].system == "base\n\nprompt of one\n\nprompt of two"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "hook", ["before_turn", "system_prompt", "before_model", "around_model down", "after_model", "claim", "around_tool up", "after_turn"]
)
async def test_hook_that_raises_ends_the_turn_and_is_named(hook: str, autojump_clock: Any) -> None:
    """The outcome names the middleware and the hook; the conversation goes on with the next message, its history valid."""
    spy = Spy("guard", fails=hook)
    agent = make_agent(Call("add", a=1, b=2), "3", "again", tools=[add], middleware=[Spy("outer"), spy])

    async with opened(agent) as sessions:
        outcome = await ask(sessions, "1 + 2?")
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, MiddlewareError)
        assert ("guard", hook.partition(" ")[0]) == (outcome.error.middleware_id, outcome.error.hook)
        assert "guard" in str(outcome.error)
        assert "the spy is out" not in str(outcome.error)
        assert (await sessions.agent_info("c")).status is Status.ERROR
        spy.fails = ""
        assert isinstance(await ask(sessions, "again"), Completed)


@pytest.mark.parametrize("hook", ["on_start", "tools"])
async def test_hook_that_raises_at_the_start_ends_it(hook: str, autojump_clock: Any) -> None:
    """A start hook that raises is a failed start, which names it, and leaves nothing."""
    async with opened(make_agent("x", middleware=[Spy("guard", fails=hook)])) as sessions:
        with pytest.raises(StartFailed, match="guard") as caught:
            await sessions.start("c")

        assert "start" == caught.value.stage
        assert not await sessions.running("c")


async def test_turn_ended_that_raises_changes_nothing(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The turn is on record when it is told that it ended: what a hook raises then is logged."""
    async with opened(make_agent("x", middleware=[Spy("guard", fails="turn_ended")])) as sessions:
        assert isinstance(await ask(sessions, "hello"), Completed)

    assert "'guard' failed in turn_ended" in caplog.text


async def test_turn_ended_of_a_turn_that_was_cut(autojump_clock: Any) -> None:
    """A turn that is cut has no `after_turn`, for nothing may wait then; it is told that it ended all the same."""
    seen: list[TurnOutcome] = []

    class Ending(Middleware):
        def turn_ended(self, context: MiddlewareContext, outcome: TurnOutcome) -> None:
            seen.append(outcome)

    async with opened(make_agent(Hang(), middleware=[Ending()])) as sessions:
        await sessions.post("c", "hello")
        await trio.sleep(1)
        await sessions.cancel_turn("c")

    assert [Cancelled] == [type(outcome) for outcome in seen]


@attrs.frozen
class Weather(MiddlewareEvent):
    """It is so warm."""

    degrees: int


async def test_middleware_publishes_events_of_its_own(autojump_clock: Any) -> None:
    """Its events come in their place among the others, on the channel that it says."""

    class Forecast(Middleware):
        async def before_turn(self, context: MiddlewareContext) -> None:
            context.publish(Weather(21))
            context.publish(Weather(22), "debug")
            with pytest.raises(TypeError, match="MiddlewareEvent"):
                context.publish("warm")  # type: ignore[arg-type]

    async with opened(make_agent("x", middleware=[Forecast()])) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await subscriber.subscribe("c", channel="debug")
        await ask(sessions, "hello")
        events = await read_all(subscriber)

    assert [("main", 21), ("debug", 22)] == [(event.channel, event.event.degrees) for event in events if isinstance(event.event, Weather)]


async def test_memory_belongs_to_one_agent(autojump_clock: Any) -> None:
    """One instance serves many conversations; what it remembers of one is not there in another, nor after a restart."""
    seen: list[tuple[str, int]] = []

    class Counter(Middleware):
        async def before_turn(self, context: MiddlewareContext) -> None:
            context.memory["turns"] = context.memory.get("turns", 0) + 1
            seen.append((context.conversation_id, context.memory["turns"]))

    async with opened(make_agent(middleware=[Counter()])) as sessions:
        for conversation_id in ("a", "a", "b"):
            await ask(sessions, "hello", conversation_id)
        await sessions.stop("a")
        await ask(sessions, "hello", "a")

    assert [("a", 1), ("a", 2), ("b", 1), ("a", 1)] == seen


async def test_task_of_the_agent_ends_with_it(autojump_clock: Any) -> None:
    """What is handed to the agent's nursery outlives the turn, and has ended when `stop` returns."""
    life: list[str] = []

    class Heart(Middleware):
        async def on_start(self, context: MiddlewareContext) -> None:
            context.start_soon(self.beat)

        async def beat(self) -> None:
            life.append("begun")
            try:
                await trio.sleep_forever()
            finally:
                life.append("ended")

    async with opened(make_agent(middleware=[Heart()])) as sessions:
        await ask(sessions, "hello")
        assert ["begun"] == life
        await sessions.stop("c")
        assert ["begun", "ended"] == life


async def test_task_of_the_agent_that_raises_crashes_it(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Such a task is the agent's: what it raises crashes the agent, which comes back; the log names the middleware."""

    class Bomb(Middleware):
        async def on_message(self, context: MiddlewareContext, message: Any) -> None:
            context.start_soon(self.explode)

        async def explode(self) -> None:
            raise ZeroDivisionError

    async with opened(make_agent(middleware=[Bomb()])) as sessions:
        info = await sessions.start("c")
        await info.agent.notify_middleware("Bomb", "now")
        assert "crashed" == await info.agent.wait_ended()
        assert isinstance(await ask(sessions, "hello"), Completed)

    assert "Bomb" in caplog.text


async def test_notify_middleware(autojump_clock: Any) -> None:
    """A message goes to the middleware of that id; an unknown id is a LookupError, and what the hook raises is named."""
    spy = Spy("inbox")
    async with opened(make_agent(middleware=[spy, Spy("other")])) as sessions:
        info = await sessions.start("c")
        await info.agent.notify_middleware("inbox", 42)
        with pytest.raises(LookupError, match="nobody"):
            await info.agent.notify_middleware("nobody", 42)
        spy.fails = "on_message 43"
        with pytest.raises(MiddlewareError, match="inbox"):
            await info.agent.notify_middleware("inbox", 43)

    assert "inbox.on_message 42" in spy.said


async def test_update_is_durable_and_two_do_not_undo_each_other(autojump_clock: Any) -> None:
    """Keys of the metadata that are changed at once are all kept, also over a restart; None removes one."""

    class Notes(Middleware):
        async def on_message(self, context: MiddlewareContext, message: Any) -> None:
            await context.update(metadata=message)

    store = MemoryStore()
    agent = make_agent(middleware=[Notes()])
    async with opened(agent, store=store) as sessions:
        info = await sessions.start("c")
        async with trio.open_nursery() as nursery:
            for key in "abc":
                nursery.start_soon(info.agent.notify_middleware, "Notes", {key: key})
        await info.agent.notify_middleware("Notes", {"b": None})
        await sessions.stop("c")
        info = await sessions.start("c")

        assert {"a": "a", "c": "c"} == (await info.agent.state()).metadata


async def test_transform_row_and_one_that_fails(autojump_clock: Any) -> None:
    """A row is kept and shown as the middleware wants it; one that it leaves out is not there; one that it fails at is hidden."""

    class Veil(Middleware):
        def transform_row(self, row: DisplayMessage) -> DisplayMessage | None:
            text = row.content.get("text", "")
            if "drop" in text:
                return None
            if "boom" in text:
                raise RuntimeError(text)
            return attrs.evolve(row, content={**row.content, "text": text.replace("secret", "******")})

    async with opened(make_agent("a secret", "drop this", "boom", middleware=[Veil()])) as sessions:
        for text in ("one", "two", "three"):
            await ask(sessions, text)
        rows = (await sessions.history("c")).rows

    assert ["one", "a ******", "two", "three", "(this cannot be shown)"] == [row.content["text"] for row in rows]


async def test_around_tool_may_answer_without_running(autojump_clock: Any) -> None:
    """A result of its own stands for the call; the call runs at most once, and as it is."""
    ran: list[int] = []

    async def roll(sides: int) -> int:
        """Roll."""
        ran.append(sides)
        return sides

    class Cheat(Middleware):
        async def around_tool(self, context: MiddlewareContext, call: ToolCall, call_next: Any) -> ToolResultPart:
            if call.arguments["sides"] == 6:
                return ToolResultPart(call.call_id, call.name, "six", "completed")
            if call.arguments["sides"] == 7:
                await call_next(call)
            if call.arguments["sides"] == 8:
                call = attrs.evolve(call, arguments={"sides": 9})
            result: ToolResultPart = await call_next(call)
            return result

    agent = make_agent(Call("roll", sides=6), "done", Call("roll", sides=7), Call("roll", sides=8), tools=[roll], middleware=[Cheat()])
    async with opened(agent) as sessions:
        assert isinstance(await ask(sessions, "six"), Completed)
        assert [] == ran
        assert isinstance(await ask(sessions, "twice"), Failed)
        assert [7] == ran
        assert isinstance(await ask(sessions, "another"), Failed)
        assert [7] == ran


async def test_after_model_may_change_words_and_add_no_call(autojump_clock: Any) -> None:
    """It may change the text and drop calls, but ask for none that the model did not ask for."""

    class Editor(Middleware):
        async def after_model(self, context: MiddlewareContext, message: Message) -> Message:
            if message.calls:
                return attrs.evolve(message, parts=(*message.parts, ToolCall("mine", "add", {"a": 0, "b": 0})))
            return attrs.evolve(message, parts=(TextPart(message.text.upper()),))

    async with opened(make_agent("hi", Call("add", a=1, b=2), tools=[add], middleware=[Editor()])) as sessions:
        outcome = await ask(sessions, "hello")
        assert isinstance(outcome, Completed)
        assert "HI" == outcome.message.text
        assert isinstance(await ask(sessions, "add"), Failed)


async def test_claim_and_answer_of_a_host(autojump_clock: Any) -> None:
    """Any middleware may have a call wait; it looks at the answer before that is recorded, and may refuse it."""

    class TwoEyes(Middleware):
        async def claim(self, context: MiddlewareContext, call: ToolCall, tool: Tool) -> PendingCall | None:
            return pending(call, text="somebody else has to look") if call.arguments["a"] > 1 else None

        async def answer(self, context: MiddlewareContext, call: PendingCall, decision: Any) -> str | None:
            if context.state.metadata.get("asleep"):
                raise ValueError("not at night")
            return None

        async def on_message(self, context: MiddlewareContext, message: Any) -> None:
            await context.update(metadata={"asleep": message})

    agent = make_agent([Call("add", a=1, b=2), Call("add", a=2, b=2)], "done", tools=[add], middleware=[TwoEyes()])
    async with opened(agent) as sessions:
        outcome = await ask(sessions, "add")
        assert isinstance(outcome, Interrupted)
        (call,) = outcome.interrupt.calls
        assert (("TwoEyes",), "somebody else has to look") == (call.claimed_by, call.text)
        handle = await sessions.get("c")
        await handle.notify_middleware("TwoEyes", True)
        with pytest.raises(InvalidDecision, match="not at night"):
            await sessions.resume("c", [Approve(call)])
        await handle.notify_middleware("TwoEyes", None)
        assert isinstance(await (await sessions.resume("c", [Approve(call)])).wait(), Completed)


async def test_tools_of_middleware_and_fresh_ones(autojump_clock: Any) -> None:
    """A middleware brings tools; after `refresh_tools` it is asked again before the next turn. Two of one name are refused."""

    class Box(Middleware):
        async def tools(self, context: MiddlewareContext) -> Sequence[Any]:
            if context.state.metadata.get("full"):
                return [Tool.of(add, name="more"), Tool.of(add, name="plus")]
            return [Tool.of(add, name="plus")]

        async def on_message(self, context: MiddlewareContext, message: Any) -> None:
            await context.update(metadata={"full": True})
            context.refresh_tools()

    agent = make_agent(middleware=[Box()])
    async with opened(agent) as sessions:
        await ask(sessions, "one")
        await (await sessions.get("c")).notify_middleware("Box", "fill")
        await ask(sessions, "two")
        assert [["plus"], ["more", "plus"]] == [[tool.name for tool in request.tools] for request in agent.model.requests]  # type: ignore[attr-defined]
    async with opened(make_agent(tools=[Tool.of(add, name="plus")], middleware=[Box()])) as sessions:
        with pytest.raises(StartFailed, match="Box"):
            await sessions.start("c")


async def test_hook_is_cancelled_with_its_turn(autojump_clock: Any) -> None:
    """A hook runs under the turn's scope."""

    class Slow(Middleware):
        async def before_turn(self, context: MiddlewareContext) -> None:
            await trio.sleep_forever()

    async with opened(make_agent("x", middleware=[Slow()])) as sessions:
        receipt = await sessions.post("c", "hello")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        assert isinstance(await receipt.wait(), Cancelled)


@pytest.mark.parametrize(
    ("middleware", "error"),
    [
        (Middleware, "instance"),
        (object(), "no method"),
        ("TodoList", "sequence"),
        (type("Sync", (Middleware,), {"before_turn": lambda self, context: None})(), "async def"),
        (type("Async", (Middleware,), {"transform_row": Spy.before_turn})(), "plain function"),
    ],
)
def test_what_is_no_middleware(middleware: Any, error: str) -> None:
    """What cannot be a middleware is refused when the agent is made, and the error says why."""
    with pytest.raises((TypeError, ValueError), match=error):
        Agent(model=ScriptedModel(["x"]), middleware=middleware if isinstance(middleware, str) else [middleware])


def test_two_of_one_id() -> None:
    """Two of a class need ids of their own."""
    with pytest.raises(ValueError, match="middleware_id"):
        Agent(model=ScriptedModel(["x"]), middleware=[Spy("a"), Spy("a")])


async def test_object_with_some_methods(autojump_clock: Any) -> None:
    """A plain object will do, if it has any of the methods."""

    class Duck:
        async def system_prompt(self, context: MiddlewareContext) -> str:
            return "quack"

    agent = make_agent(middleware=[Duck()])
    async with opened(agent) as sessions:
        await ask(sessions, "hello")

    assert "quack" == agent.model.requests[0].system  # type: ignore[attr-defined]


async def test_mode_of_a_host(autojump_clock: Any) -> None:
    """The loop can be replaced, or extended: it is made of the same steps."""
    drafts: list[str] = []

    async def think_twice(turn: TurnSteps) -> Any:
        drafts.append((await turn.ask_model()).message.text)
        return await converse(turn)

    async with opened(make_agent("draft", "final", mode=think_twice)) as sessions:
        outcome = await ask(sessions, "hello")
        assert isinstance(outcome, Completed)
        assert (["draft"], "final") == (drafts, outcome.message.text)
        state = await (await sessions.get("c")).state()
        assert ["hello", "final"] == [message.text for message in state.messages]


async def test_mode_that_ends_nothing(autojump_clock: Any) -> None:
    """A loop that returns before a step has ended the turn fails the turn, visibly; the agent goes on."""

    async def lazy(turn: TurnSteps) -> Any:
        return None

    async with opened(make_agent("x", mode=lazy)) as sessions:
        outcome = await ask(sessions, "hello")
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, MiddlewareError)
        assert "lazy" in str(outcome.error)
        assert await sessions.running("c")


async def test_context_variables_of_the_poster_reach_hooks(autojump_clock: Any) -> None:
    """A turn runs in a copy of the context of the call that brought its first message; so do its hooks."""
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []

    class Look(Middleware):
        async def before_turn(self, context: MiddlewareContext) -> None:
            seen.append(who.get())

    async with opened(make_agent(middleware=[Look()])) as sessions:
        await sessions.start("c")
        who.set("alice")
        await ask(sessions, "hello")

    assert ["alice"] == seen


async def test_status_of_a_turn_that_middleware_ended(autojump_clock: Any) -> None:
    """Viewers see the error, with the name of the middleware and none of its words."""
    async with opened(make_agent("x", middleware=[Spy("guard", fails="before_model")])) as sessions:
        async with sessions.watch("c") as watch:
            await ask(sessions, "hello")
            events = await read_all(watch)

    (text,) = [event.event.data for event in events if isinstance(event.event, StatusChanged) and event.event.status is Status.ERROR]
    assert "guard" in str(text)
    assert "the spy is out" not in str(text)


async def test_mode_of_a_host_behind_an_interrupt(autojump_clock: Any) -> None:
    """What an interrupt left open is run before the loop begins: no loop has to know of interrupts. `before_turn` comes once."""
    spy = Spy()

    class Ask(Middleware):
        async def claim(self, context: MiddlewareContext, call: ToolCall, tool: Tool) -> PendingCall | None:
            return pending(call)

    async def loop(turn: TurnSteps) -> Any:
        return await converse(turn)

    agent = make_agent(Call("add", a=1, b=2), "3", tools=[add], middleware=[spy, Ask()], mode=loop)
    async with opened(agent) as sessions:
        outcome = await ask(sessions, "1 + 2?")
        assert isinstance(outcome, Interrupted)
        assert isinstance(await (await sessions.resume("c", [Reject(call) for call in outcome.interrupt.calls])).wait(), Completed)

    assert 1 == spy.said.count("spy.before_turn")
    assert 2 == spy.said.count("spy.after_turn")


@pytest.mark.parametrize("how", [Approve, Reject])
async def test_until_tool_beside_a_call_that_waited(how: Any, autojump_clock: Any) -> None:
    """The tool that ends the turn had run before the interrupt: the turn ends with its result when the other call is decided."""

    async def submit(text: str) -> str:
        """Submit."""
        return text

    class Ask(Middleware):
        async def claim(self, context: MiddlewareContext, call: ToolCall, tool: Tool) -> PendingCall | None:
            return pending(call) if tool.name == "add" else None

    calls = [Call("submit", text="the end"), Call("add", a=1, b=2)]
    async with opened(make_agent(calls, tools=[add, submit], middleware=[Ask()], until_tool="submit")) as sessions:
        outcome = await ask(sessions, "go")
        assert isinstance(outcome, Interrupted)
        outcome = await (await sessions.resume("c", [how(call) for call in outcome.interrupt.calls])).wait()
        assert isinstance(outcome, Completed)
        assert ("the end", "the end") == (outcome.result, outcome.message.text)


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


async def test_background_task_that_fails_is_named(autojump_clock: Any) -> None:
    """A turn that is cut because a middleware's task failed says so."""

    class Bad(Middleware):
        async def before_turn(self, context: Any) -> None:
            async def fail() -> None:
                raise ValueError("no")

            context.start_soon(fail)

    async with opened(paying(Purse(), "hi", middleware=[Bad()])) as sessions:
        assert Cancelled(CancelCause.HOST_CANCELLED) != await ask(sessions)


@pytest.mark.parametrize(
    "change",
    [
        {"content": {"text": object()}},
        {"content": "text"},
        {"status": "seen"},
        {"role": "robot"},
        {"content_type": ""},
        {"created_at": None},
    ],
    ids=lambda change: ", ".join(change),
)
async def test_transformed_row_that_no_store_takes(autojump_clock: Any, change: Any) -> None:
    """It is hidden, as one whose transformation raised; no post fails for it, and nobody blames the store."""

    class Spoil(Middleware):
        def transform_row(self, row: Any) -> Any:
            return attrs.evolve(row, **change) if row.role == "user" else row

    async with opened(Agent(model=ScriptedModel(["hi"]), middleware=[Spoil()])) as sessions:
        assert isinstance(await ask(sessions), Completed)

        shown = [(row.content_type, row.content["text"]) for row in (await sessions.history("c")).rows]
        assert [("notification", "(this cannot be shown)"), ("text", "hi")] == shown


class Nursery(Middleware):
    """Asks the model in a nursery of its own, so that what comes out is in a group."""

    async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
        async with trio.open_nursery():
            return await call_next(request)


class Spoiler(Middleware):
    """Fails behind the model."""

    async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
        raise KeyError("password")


@pytest.mark.parametrize("where", ["agent", "sub-agent"])
async def test_error_of_a_middleware_that_comes_through_a_nursery(autojump_clock: Any, where: str) -> None:
    """It still has its cause, for whoever has to find out, and says its kind."""
    inner = Agent(model=ScriptedModel(["never"]), middleware=[Nursery(), Spoiler()])
    handing = ScriptedModel([Call("task", instructions="do it", name="t"), "end"])
    outer = Agent(model=handing, middleware=[SubAgents([Task(name="t", description="t", agent=inner)])])
    async with opened(inner if where == "agent" else outer) as sessions:
        outcome: Any = await ask(sessions)
        results = [result.content for message in (await state_of(sessions)).messages for result in message.results]

    said = "the middleware 'Spoiler' failed in around_model with KeyError"
    if where == "agent":
        assert (said, "'password'") == (str(outcome.error), str(outcome.error.__cause__))
    else:
        assert [f"MiddlewareError: {said}"] == results


async def test_error_of_a_model_that_comes_through_a_nursery(autojump_clock: Any) -> None:
    """The adapter has said why it failed; that stands."""

    class Adapter:
        name = "adapter"

        @asynccontextmanager
        async def stream(self, request: Any) -> AsyncIterator[Any]:
            async with trio.open_nursery():
                raise ModelFailed("no answer") from OSError("the line is dead")
            yield

    async with opened(Agent(model=Adapter())) as sessions:
        outcome: Any = await ask(sessions)

    assert isinstance(outcome.error.__cause__, OSError)


class Changing(Middleware):
    """Brings a tool more when it was told to, and fails or hangs the first time that it is asked for it."""

    def __init__(self, trouble: str) -> None:
        self.trouble: str | None = trouble
        self.is_more = False

    async def on_message(self, context: Any, message: Any) -> None:
        self.is_more = True
        context.refresh_tools()

    async def tools(self, context: Any) -> Any:
        async def more() -> str:
            return "more"

        if not self.is_more:
            return []
        trouble, self.trouble = self.trouble, None
        if trouble == "fails":
            raise OSError("the server of the tools is down")
        if trouble == "hangs":
            await trio.sleep_forever()
        return [more]


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_tools_that_could_not_be_asked_for_are_asked_for_again(autojump_clock: Any, trouble: str) -> None:
    """The turn fails, or is cancelled; the next one has them, though nobody asked for a refresh again."""
    model = ScriptedModel(["hi", "hi again"])
    async with opened(Agent(model=model, middleware=[Changing(trouble)])) as sessions:
        await (await sessions.start("c")).agent.notify_middleware("Changing", None)
        receipt = await sessions.post("c", "one")
        with trio.move_on_after(1):
            await receipt.wait()
        await sessions.cancel_turn("c")
        assert isinstance(await receipt.wait(), Failed if trouble == "fails" else Cancelled)

        assert isinstance(await ask(sessions), Completed)
        assert ["more"] == [tool.name for tool in model.requests[-1].tools]


async def test_middleware_home_when_no_turn_runs(autojump_clock: Any) -> None:
    """Between turns a middleware is told the conversation, the agent and the scope, and changes todos and metadata as in a turn."""

    class Looking(Middleware):
        async def on_message(self, context: Any, message: Any) -> None:
            seen.append((context.conversation_id, context.agent_id, context.scope, context.usage))
            await context.update(todos=[Todo(1, "look")], metadata={"looked": message})

    seen: list[Any] = []
    async with opened(make_agent(middleware=[Looking()])) as sessions:
        await answer_to(sessions, scope="alice")
        handle = (await sessions.start("c", scope="alice")).agent
        await handle.notify_middleware("Looking", 5)

        assert [("c", handle.agent_id, "alice", Usage())] == seen
        assert [Todo(1, "look")] == list((await handle.state()).todos)
        assert 5 == (await handle.state()).metadata["looked"]
        assert "c" == handle.conversation_id


class Keeps(Middleware):
    """Keeps its context, and what it does with a message takes its time."""

    context: Any = None

    async def on_message(self, context: Any, message: Any) -> None:
        self.context = context
        await trio.sleep(message)


async def test_update_by_a_middleware_whose_agent_has_ended(autojump_clock: Any) -> None:
    """What is to be kept for an agent that is gone is refused, and nothing is stored: the conversation may be another's by now."""
    store, keeps = FaultyStore(), Keeps()
    async with opened(make_agent(middleware=[keeps]), store=store) as sessions:
        await ask(sessions)
        await (await sessions.start("c")).agent.notify_middleware("Keeps", 0)
        await sessions.stop("c")
        commits = len(store.commits)
        with pytest.raises(AgentStopped):
            await keeps.context.update(metadata={"note": "late"})

        assert commits == len(store.commits)


async def test_hook_of_an_agent_that_waits_for_its_last_write_alone(autojump_clock: Any) -> None:
    """Nothing of an agent begins any more once all its tasks have ended, though its last write has not."""
    store, begun = FaultyStore(), []

    async def hook() -> None:
        begun.append("hook")

    async with opened(store=store, policy={"settle_timeout": 100.0}) as sessions, trio.open_nursery() as nursery:
        agent = (await sessions.start("c")).agent
        store.faults.latency["commit"] = 50.0
        nursery.start_soon(sessions.post, "c", "hi")
        await trio.sleep(1)
        nursery.start_soon(sessions.stop, "c")
        await trio.testing.wait_all_tasks_blocked()
        live = agent._agent
        with pytest.raises(AgentNotRunning):
            await live.hooks.call(hook)

        assert not live.entry.has_ended
        assert (1, []) == (live.lifetime.holds, begun)  # the message that is on its way

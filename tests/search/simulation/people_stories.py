"""Stories of what goes around a turn: people who decide, middleware, sub-agents, and loops of a host's own."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from tests.search.simulation.world import ALICE, CLERK, World, story
from trio_sagents import (
    Agent,
    Answer,
    Approvals,
    Approve,
    AskUser,
    Budget,
    ConversationTitle,
    DebugLog,
    Decision,
    Edit,
    FinishChunk,
    Halt,
    Interrupted,
    InvalidDecision,
    Middleware,
    ModelFailed,
    PatchToolCalls,
    ProcessContext,
    Reject,
    Row,
    SubAgents,
    Summarization,
    Task,
    TextChunk,
    TodoList,
    Tool,
    ToolContext,
    converse,
    extract,
)
from trio_sagents.data.estimates import estimate_tokens
from trio_sagents.data.interrupts import pending
from trio_sagents.middleware import TitleGenerated
from trio_sagents.testing import Call, FaultyModel, ScriptedModel
from trio_sagents.testing.invariants import check


def decide(calls: Sequence[Any]) -> Sequence[Decision]:
    """Approve the first, edit the second, reject the third; answer questions."""
    made: list[Decision] = []
    for call in calls:
        if call.kind == "question":
            made.append(Answer(call, "blue"))
        elif call.arguments.get("amount") == 2:
            made.append(Edit(call, {"amount": 20}))
        elif call.arguments.get("amount") == 3:
            made.append(Reject(call, "too much"))
        else:
            made.append(Approve(call))
    return made


def with_payments(world: World, paid: list[int], *more: Any) -> Callable[[Any, list[Any]], Agent]:
    """Return a maker of agents that ask before they pay."""

    async def pay(amount: int, context: ToolContext) -> str:
        """Pay."""
        paid.append(amount)
        world.started.append(context.idempotency_key)  # each may begin once, over all lives (I26)
        with world.noting():
            check(amount in {1, 20}, "I24", f"{amount} was paid, and nobody allowed it")
        await trio.lowlevel.checkpoint()
        return f"paid {amount}"

    paying = Tool.of(pay)
    return lambda model, tools: Agent(model=model, tools=[*tools, paying], middleware=[Approvals({"pay": True}), *more])


@Tool.of
async def halt() -> Halt:
    """Halt."""
    await trio.lowlevel.checkpoint()
    return Halt("look at this")


async def interrupt_of(world: World, text: str = "pay them", scope: str = ALICE) -> Any:
    """Ask, and return the interrupt; None if the turn did not come that far."""

    async def ask() -> Any:
        return await (await world.post(text, "asked", scope=scope)).wait()

    outcome = await world.strike(ask, name="asker")
    return outcome.interrupt if isinstance(outcome, Interrupted) else None


class Large(Middleware):
    """Wants to see payments of 20 and more, which only edits make."""

    async def claim(self, context: Any, call: Any, tool: Any) -> Any:
        """Ask about them."""
        await trio.lowlevel.checkpoint()
        return pending(call, allowed=("approve", "reject")) if call.arguments.get("amount", 0) >= 20 else None


def with_boss(world: World, begun: list[tuple[int, str, str]]) -> Callable[[Any, list[Any]], Agent]:
    """Return a maker of agents with a tool that pays, in the version that the world has now, and a gate for large payments."""
    makes = [1]

    def make(model: Any, tools: list[Any]) -> Agent:
        version = str(makes[0])

        async def pay(amount: int, context: ToolContext) -> str:
            """Pay."""
            begun.append((amount, version, context.scope))
            world.started.append(context.idempotency_key)
            await trio.lowlevel.checkpoint()
            return f"paid {amount}"

        return Agent(model=model, tools=[*tools, halt, Tool.of(pay, version=version)], middleware=[Approvals({"pay": True}), Large()])

    world.deploy = lambda: makes.append(makes.pop() + 1)
    return make


@story("Sessions.resume", "Sessions.post", kind="roles", without=("slow",))
async def deciding_for_others(world: World) -> None:
    """A clerk posts, Alice decides; an edit comes under another gate, the agent sleeps, and the clerk cannot get past any of it."""
    begun: list[tuple[int, str, str]] = []
    seen: set[int] = set()
    world.make_agent = with_boss(world, begun)
    interrupt = await interrupt_of(world, scope=CLERK)
    for _ in range(2):
        if interrupt is None:
            return
        seen |= {call.arguments["amount"] for call in interrupt.calls}
        decisions = [decision for decision in decide(interrupt.calls) if isinstance(decision, Edit | Approve)]
        decisions += [Reject(call) for call in interrupt.calls if all(call.call_id != decision.call_id for decision in decisions)]
        check(await _refused(world, decisions), "I20", "somebody who may not decide decided")
        await world.strike(lambda: world.post("say instead", scope=CLERK, overlap="interrupt"), name="poster")
        check(not [amount for amount, *_ in begun if amount not in seen], "I24", f"{begun} were paid, and only {seen} were shown")
        await world.strike(lambda: world.sessions.stop("c", scope=ALICE), name="stopper")

        async def resume(decisions: Any = decisions) -> Any:
            return await (await world.sessions.resume("c", decisions, scope=ALICE)).wait()

        outcome = await world.strike(resume)
        interrupt = outcome.interrupt if isinstance(outcome, Interrupted) else None
        check({scope for _, _, scope in begun} <= {CLERK}, "I20", f"{begun} were paid as somebody else")
        check(all(amount in seen for amount, *_ in begun), "I24", f"{begun} were paid, and only {seen} were shown")


async def _refused(world: World, decisions: Sequence[Decision]) -> bool:
    return await world.strike(lambda: world.sessions.resume("c", decisions, scope=CLERK), name="guest") is None


@story("Sessions.resume", kind="roles", without=("slow",))
async def deciding_after_a_deployment(world: World) -> None:
    """A call was approved, and its tool is another one by now: people are asked again, and only then the tool runs as it is now."""
    begun: list[tuple[int, str, str]] = []
    world.make_agent = with_boss(world, begun)
    interrupt = await interrupt_of(world, scope=CLERK)
    await world.strike(lambda: world.sessions.stop("c", scope=ALICE), name="stopper")
    world.deploy()
    for _ in range(2):
        if interrupt is None:
            return
        check(not begun, "I24", f"{begun} were paid on an approval of another tool")
        calls = interrupt.calls

        async def resume(calls: Any = calls) -> Any:
            return await (await world.sessions.resume("c", [Approve(call) for call in calls], scope=ALICE)).wait()

        outcome = await world.strike(resume)
        interrupt = outcome.interrupt if isinstance(outcome, Interrupted) else None
        if interrupt is not None:
            check(all(call.asked_before == 1 for call in interrupt.calls), "I25", "they are asked about as if they were new")
    check({version for _, version, _ in begun} <= {"2"}, "I24", f"{begun} were paid by a tool that is gone")


@story("Sessions.dismiss", kind="roles", without=("slow",))
async def halting_everything(world: World) -> None:
    """A halt beside payments that wait, and a call that runs: nothing of it runs any more, and nobody gets past it but by dismissing it."""
    begun: list[tuple[int, str, str]] = []
    world.make_agent = with_boss(world, begun)
    interrupt = await interrupt_of(world, "everything at once", scope=CLERK)
    await world.strike(lambda: world.post("say it anyway", scope=CLERK, overlap="interrupt"), name="poster")
    await world.strike(lambda: world.sessions.cancel_turn("c", scope=CLERK), name="canceller")
    for call in () if interrupt is None else interrupt.calls:
        if call.kind != "halt":
            await world.strike(lambda call=call: world.sessions.resume("c", [Approve(call)], scope=ALICE), name="decider")
    check(not begun, "I27", f"{begun} were paid beside a halt")
    check(await world.strike(lambda: world.sessions.dismiss("c", scope=CLERK), name="guest") is None, "I20", "nobody asked the authorizer")
    await world.strike(lambda: world.sessions.dismiss("c", scope=ALICE))
    check(not begun, "I27", f"{begun} were paid after a halt")


@story("Sessions.resume", "Approvals.on_tools", "Approvals.before_turn", "Approvals.after_turn", "Approvals.claim", follows=True)
async def resume(world: World) -> None:
    """Two people decide at once, and then a third person decides again."""
    paid: list[int] = []
    world.make_agent = with_payments(world, paid)
    interrupt = await interrupt_of(world)
    if interrupt is None:
        return
    check(not paid, "I27", f"{paid} were paid before anybody decided")
    decisions = decide(interrupt.calls)

    async def call() -> None:
        receipt = await world.sessions.resume("c", decisions, scope=ALICE)
        await receipt.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, call)
        nursery.start_soon(lambda: world.strike(call, name="rival"))
    await world.strike(call, name="third")


@story("Sessions.resume")
async def resume_one_by_one(world: World) -> None:
    """Each call is decided alone, and the agent is stopped in between."""
    paid: list[int] = []
    world.make_agent = with_payments(world, paid)
    interrupt = await interrupt_of(world)
    for decision in () if interrupt is None else decide(interrupt.calls):
        await world.strike(lambda decision=decision: world.sessions.resume("c", [decision], scope=ALICE))
        await world.strike(lambda: world.sessions.stop("c", scope=ALICE), name="stopper")


@story("Sessions.resume")
async def resume_against_a_message(world: World) -> None:
    """Somebody decides while somebody else posts instead: either the calls run, or the message came first."""
    paid: list[int] = []
    world.make_agent = with_payments(world, paid)
    interrupt = await interrupt_of(world)
    if interrupt is None:
        return

    async def call() -> None:
        try:
            await (await world.sessions.resume("c", decide(interrupt.calls), scope=ALICE)).wait()
        except InvalidDecision:
            check(not paid, "I27", f"the decision came too late, and {paid} were paid")
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, call)
        nursery.start_soon(lambda: world.strike(world.ask, "say instead", "instead", name="poster"))


@story("AgentHandle.resume", "AskUser.tools", "AskUser.claim", "AskUser.system_prompt", follows=True)
async def answering(world: World) -> None:
    """A question, and its answer through a handle."""
    world.make_agent = lambda model, tools: Agent(model=model, tools=tools, middleware=[AskUser()])
    interrupt = await interrupt_of(world, "question please")
    info = await world.strike(lambda: world.sessions.start("c", scope=ALICE), name="starter")
    if interrupt is not None and info is not None:
        await world.strike(lambda: info.agent.resume(decide(interrupt.calls)))


@story("Sessions.waiting")
async def waiting(world: World) -> None:
    """List what waits for a person, while somebody decides it."""
    world.make_agent = with_payments(world, [])
    interrupt = await interrupt_of(world)

    async def look() -> None:
        page = await world.sessions.waiting(scope=ALICE)
        for item in getattr(page, "items", ()):  # a faulty store may have given something else
            check(item.conversation_id == "c", "I20", f"{item.conversation_id!r} is listed as waiting")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, look)
        for decision in () if interrupt is None else decide(interrupt.calls):
            await world.strike(lambda decision=decision: world.sessions.resume("c", [decision], scope=ALICE), name="decider")
    await world.strike(look, name="later")


@story("Sessions.dismiss", "AgentHandle.dismiss")
async def dismissing(world: World) -> None:
    """A tool halts the conversation; two people acknowledge that."""

    world.make_agent = lambda model, tools: Agent(model=model, tools=[*tools, halt])
    await interrupt_of(world, "halt now")
    info = await world.strike(lambda: world.sessions.start("c", scope=ALICE), name="starter")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.strike, lambda: world.sessions.dismiss("c", scope=ALICE))
        if info is not None:
            nursery.start_soon(lambda: world.strike(info.agent.dismiss, name="rival"))


@attrs.define(eq=False, slots=False)
class Hooks(Middleware):
    """Every hook there is; each can fail, hang, or be where its turn is cut."""

    world: World
    heard: list[object] = attrs.field(factory=list)

    async def _point(self, name: str, context: Any) -> None:
        await self.world.simulation.faults.call(f"hook.{name}", trio.lowlevel.checkpoint)

    async def system_prompt(self, context: Any) -> str:
        """Add something."""
        await self._point("system_prompt", context)
        return "Be brief."

    async def tools(self, context: Any) -> Any:
        """Bring nothing."""
        await self._point("tools", context)
        return ()

    async def on_tools(self, context: Any) -> None:
        """Look at the tools."""
        await self._point("on_tools", context)

    async def on_start(self, context: Any) -> None:
        """Keep a note."""
        await self._point("on_start", context)
        await context.update(metadata={"started": True})

    async def before_turn(self, context: Any) -> None:
        """Keep a note, too."""
        await self._point("before_turn", context)
        await context.update(metadata={"turn": str(context.turn_id)})

    async def after_turn(self, context: Any, outcome: Any) -> None:
        """Look at it."""
        await self._point("after_turn", context)

    async def before_model(self, context: Any, request: Any) -> Any:
        """Leave it."""
        await self._point("before_model", context)
        return request

    async def after_model(self, context: Any, message: Any) -> Any:
        """Leave it."""
        await self._point("after_model", context)
        return message

    async def shorten_request(self, context: Any, request: Any, most_tokens: float) -> Any:
        """Leave it."""
        await self._point("shorten_request", context)
        return request

    async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
        """Ask."""
        await self._point("around_model", context)
        return await call_next(request)

    async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
        """Run it."""
        await self._point("around_tool", context)
        return await call_next(call)

    async def claim(self, context: Any, call: Any, tool: Any) -> Any:
        """Claim nothing."""
        await self._point("claim", context)

    async def answer(self, context: Any, call: Any, decision: Any) -> str | None:
        """Take it."""
        await self._point("answer", context)
        return None

    async def on_message(self, context: Any, message: Any) -> None:
        """Remember it."""
        await self._point("on_message", context)
        self.heard.append(message)


@story(
    "AgentHandle.notify_middleware",
    "Middleware.after_model",
    "Middleware.after_turn",
    "Middleware.answer",
    "Middleware.around_model",
    "Middleware.around_tool",
    "Middleware.before_model",
    "Middleware.before_turn",
    "Middleware.claim",
    "Middleware.on_message",
    "Middleware.on_start",
    "Middleware.on_tools",
    "Middleware.system_prompt",
    "Middleware.tools",
    "MiddlewareContext.update",
    follows=True,
)
async def hooks(world: World) -> None:
    """A turn with a tool and a turn that asks, through every hook; and a message to the middleware."""
    paid: list[int] = []
    own = Hooks(world)
    world.make_agent = with_payments(world, paid, own)
    await world.strike(world.ask, "note it", "m1", name="asker")
    interrupt = await interrupt_of(world)
    if interrupt is not None:
        await world.strike(lambda: world.sessions.resume("c", decide(interrupt.calls), scope=ALICE), name="decider")
    info = await world.strike(lambda: world.sessions.start("c", scope=ALICE), name="starter")
    if info is not None:
        await world.strike(lambda: info.agent.notify_middleware("Hooks", "hello"))


class _Refusing:
    """A model that always fails for the moment."""

    name = "refusing"

    @asynccontextmanager
    async def stream(self, _: Any) -> AsyncIterator[Any]:
        await trio.lowlevel.checkpoint()
        raise ModelFailed("overloaded", retryable=False)
        yield


class _Narrating:
    """A model that says what it is going to do, and then does it."""

    name = "narrating"

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[Any]:
        async def say() -> AsyncIterator[Any]:
            await trio.lowlevel.checkpoint()
            is_first = request.messages[-1].role == "user"
            yield TextChunk("I look." if is_first else "Seen.", "narration" if is_first else None)
            yield FinishChunk("stop")

        yield say()


@story("TurnSteps.keep", follows=True)
async def narrating(world: World) -> None:
    """An answer that is only narration is kept, and the model is asked again."""
    world.make_agent = lambda model, tools: Agent(model=_Narrating(), tools=tools)
    await world.strike(world.ask, "say it", "m1")


@story("Middleware.before_fallback", follows=True)
async def falling_back(world: World) -> None:
    """A model refuses, a middleware looks at the request for the next model, and that model answers."""

    class Looks(Middleware):
        async def before_fallback(self, context: Any, request: Any, error: Any, model: Any) -> Any:
            await world.simulation.faults.call("hook.before_fallback", trio.lowlevel.checkpoint)
            return request

    world.make_agent = lambda model, tools: Agent(model=_Refusing(), fallbacks=[model], tools=tools, middleware=[Looks()])
    await world.strike(world.ask, "say it", "m1")


@story("Sessions.add_rows", "Sessions.publish", "AgentHandle.add_rows", "AgentHandle.publish")
async def rows_of_a_host(world: World) -> None:
    """Rows and events of the host's own, while an agent runs and while it does not."""
    await world.ready("note one")
    note = Row("notification", {"text": "seen"}, key="note")
    await world.strike(lambda: world.sessions.add_rows("c", [note], scope=ALICE))
    await world.strike(lambda: world.sessions.publish("c", TitleGenerated("t"), scope=ALICE), name="publisher")
    info = await world.strike(lambda: world.sessions.start("c", scope=ALICE), name="starter")
    if info is not None:
        await world.strike(lambda: info.agent.add_rows([note]), name="second")
        await world.strike(lambda: info.agent.publish(TitleGenerated("u")), name="third")


@story("SubAgents.tools", "SubAgents.system_prompt", "ToolContext.run_agent", "ToolContext.update", follows=True)
async def delegating(world: World) -> None:
    """Run a sub-agent by the library's tool, then one by a host's tool, which also keeps a note."""

    def make(model: Any, tools: list[Any]) -> Agent:
        model.inner.is_alone = False
        helper = Agent(model=model, tools=tools)

        async def delegate(context: ToolContext) -> str:
            """Delegate."""
            await world.simulation.named("tool", lambda: context.update(metadata={"delegated": True}))
            done = await world.simulation.named("tool", lambda: context.run_agent(helper, "say it", name="own"))
            return "cut" if done is None else done.message.text

        sub = SubAgents([Task(name="helper", description="helps", agent=helper)], general_purpose=False)
        return Agent(model=model, tools=[*tools, delegate], middleware=[sub])

    world.make_agent = make
    await world.strike(world.ask, "task this", "m1")
    await world.strike(world.ask, "delegate this", "m2", name="second")


@story(
    "converse",
    "TurnSteps.ask_model",
    "TurnSteps.complete",
    "TurnSteps.run_tools",
    "TurnSteps.take_steered",
    follows=True,
)
async def stepping(world: World) -> None:
    """A loop of the host's own, whose steps are cut from within; then the library's."""

    async def steps(turn: Any) -> Any:
        async def whole(function: Any, *args: Any) -> Any:
            done: list[Any] = []

            async def run() -> bool:
                done.append(await function(*args))
                return True

            if await world.simulation.named("step", run) is None:
                raise TimeoutError("the host's own deadline")
            return done[0]

        if not world.started:
            return await converse(turn)
        ended = None
        while ended is None:
            await whole(turn.take_steered)
            answer = await whole(turn.ask_model)
            ended = await whole(turn.run_tools, answer) if turn.calls_of(answer) else await whole(turn.complete, answer)
        return ended

    world.make_agent = lambda model, tools: Agent(model=model, tools=tools, mode=steps)
    await world.strike(world.ask, "note one", "m1")
    await world.strike(world.ask, "two tools", "m2")


@story(
    "Budget.after_turn",
    "Budget.around_model",
    "Budget.around_tool",
    "Budget.before_model",
    "Budget.before_turn",
    "Budget.on_start",
    "ConversationTitle.on_message",
    "DebugLog.around_model",
    "DebugLog.around_tool",
    "DebugLog.before_turn",
    "DebugLog.on_start",
    "PatchToolCalls.before_model",
    "ProcessContext.around_tool",
    "Summarization.before_model",
    "TodoList.before_model",
    "TodoList.system_prompt",
    "TodoList.tools",
    kind="folder",
    follows=True,
)
async def stacked(world: World) -> None:
    """Two turns through all of the built-in middleware, and a title from a person."""

    def make(model: Any, tools: list[Any]) -> Agent:
        model.inner.is_alone = False  # titles and summaries are asked for meanwhile
        middleware = [
            Budget(max_tokens=10**6),
            ConversationTitle(first_delay=0.1),
            DebugLog(world.folder),
            PatchToolCalls(),
            ProcessContext(),
            Summarization(trigger_tokens=1, keep_messages=1),
            TodoList(),
        ]
        return Agent(model=model, tools=tools, middleware=middleware)

    world.make_agent = make
    await world.strike(world.ask, "todo it", "m1")
    await world.strike(world.ask, "note two", "m2", name="second")
    info = await world.strike(lambda: world.sessions.start("c", scope=ALICE), name="starter")
    if info is not None:
        await world.strike(lambda: info.agent.notify_middleware("ConversationTitle", {"title": "A title"}), name="teller")


@attrs.define(eq=False)
class SmallWindow:
    """A model that takes short requests only."""

    inner: Any
    name: str = "small"
    most_tokens: int = 600
    refused: int = 0

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """Open one answer, or refuse the request."""
        if estimate_tokens(request) > self.most_tokens:
            self.refused += 1
            raise ModelFailed("the request is too long", retryable=False, kind="context_overflow")
        async with self.inner.stream(request) as chunks:
            yield chunks


@story("Middleware.shorten_request", "Summarization.shorten_request", follows=True)
async def shortening(world: World) -> None:
    """The second request is too long for the model: the first message is summed up, and the model is asked again."""

    def make(model: Any, tools: list[Any]) -> Agent:
        model.inner.is_alone = False  # the summary is asked for meanwhile
        return Agent(model=SmallWindow(model), tools=tools, middleware=[Hooks(world), Summarization(model=model, keep_messages=1)])

    world.make_agent = make
    await world.strike(world.ask, "say " + "something long " * 130, "m1")
    await world.strike(world.ask, "say " + "something more " * 130, "m2", name="second")


@attrs.define
class Weather:
    """The value that is extracted."""

    city: str
    degrees: int


@story("extract", kind="bare")
async def extracting(world: World) -> None:
    """A value out of a text; the model gets it wrong first."""
    replies = [Call("submit", city="Oslo"), Call("submit", city="Oslo", degrees=3)]
    model = FaultyModel(ScriptedModel(replies, chunk_size=40), world.simulation.faults)
    found = await world.strike(lambda: extract(model, Weather, "It is 3 degrees in Oslo."))
    check(found in (None, Weather("Oslo", 3)), "I14", f"extracted {found}")

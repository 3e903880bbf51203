"""Sub-agents: what they ask is asked of the parent's people, and what they did is not done again."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.payments import (
    STORES,
    Purse,
    decide,
    each_store,
    gate,
    hand_over,
    interrupt_of,
    loads_again,
    parent,
    paying,
    results_of,
    task,
)
from tests.support.people import (
    CONVERSATION,
    MEANWHILE,
    Effects,
    Meanwhile,
    World,
    call_of,
    decide_while,
    gated,
    interrupt_in,
    scripted,
    text_of,
)
from tests.support.scenarios import (
    ask,
    opened,
)
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    Answer,
    Approvals,
    Approve,
    AskUser,
    CancelCause,
    Cancelled,
    Completed,
    Edit,
    Failed,
    Interrupted,
    LimitExceeded,
    Middleware,
    Reject,
    SubAgentEvent,
    SubAgents,
    Task,
    Tool,
    ToolContext,
    TurnLimits,
    Usage,
)
from trio_sagents.data.requests import UsageChunk
from trio_sagents.testing import Call, Hang, ScriptedModel

TASK = Call("task", instructions="do it", name="t")


def handing_over(*tasks: Task, replies: Any = (TASK, "done", "next"), **settings: Any) -> Agent:
    """Return an agent that hands a task over."""
    middleware = [*settings.pop("middleware", ()), SubAgents(tasks, general_purpose=False, **settings.pop("handing", {}))]
    return scripted(*replies, middleware=middleware, **settings)


def working(effects: Effects, *replies: Any, gate: bool = True, **settings: Any) -> Task:
    """Return a task with the tools `look`, and `pay`, which is gated."""
    middleware = [gated(effects, "pay")] if gate else []
    tools = [effects.tool("look"), effects.tool("pay")]
    return Task(name="t", description="d", model=ScriptedModel(list(replies)), tools=tools, middleware=middleware, **settings)


@pytest.mark.parametrize("how", MEANWHILE)
async def test_sub_agent_goes_on_where_it_was(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """Two rounds of work, an approval, more work: each thing is done once, each model asked once for each step, in any life."""
    effects = Effects()
    task = working(effects, Call("look", amount=1), [Call("look", amount=2), Call("pay", amount=3)], Call("look", amount=4), "its answer")
    agent = handing_over(task)
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        assert [("t",)] == [tuple(call.path) for call in interrupt.calls]
        assert [1, 2] == effects.of("look")
        await world.pass_time(how)
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))

        assert ([1, 2, 4], [3]) == (effects.of("look"), effects.of("pay"))
        model: Any = task.model
        assert 4 == len(model.requests)
        assert ("completed", "its answer") == (await world.results())["task"]
        assert len(set(effects.keys)) == len(effects.keys)
        last = model.requests[-1].messages
        assert ["user", "assistant", "tool", "assistant", "tool", "tool", "assistant", "tool"] == [message.role for message in last]


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize(("kind", "amounts"), [("approve", [3]), ("edit", [30]), ("reject", [])])
async def test_decision_in_a_sub_agent(autojump_clock: Any, backend: Backend, how: Meanwhile, kind: str, amounts: list[int]) -> None:
    """Approve, edit and reject mean inside a sub-agent what they mean outside."""
    effects = Effects()
    task = working(effects, Call("pay", amount=3), "its answer")
    async with World(handing_over(task), backend, scope="alice") as world:
        interrupt = await world.ask()
        call = interrupt.calls[0]
        await world.pass_time(how)
        decision = {"approve": Approve(call), "edit": Edit(call, {"amount": 30}), "reject": Reject(call, "no")}[kind]
        assert "done" == text_of(await world.decide(decision))
        again = await world.resume(decision)

        assert again.duplicate
        assert amounts == effects.of("pay")
        (record,) = await world.records()
        assert (kind, "alice", call.call_id) == (record.kind, record.by, record.call_id)
        model: Any = task.model
        (asked,) = [call for message in model.requests[1].messages for call in message.calls]
        assert {"approve": 3, "edit": 30, "reject": 3}[kind] == asked.arguments["amount"]


async def test_two_interrupts_in_one_sub_agent(autojump_clock: Any, backend: Backend) -> None:
    """After one answer the sub-agent may ask again, over a crash each time; what was answered stays answered."""
    effects = Effects()
    task = working(effects, Call("pay", amount=1), [Call("look", amount=2), Call("pay", amount=3)], "its answer")
    async with World(handing_over(task), backend) as world:
        first = await world.ask()
        await world.crash()
        second = interrupt_in(await world.decide(Approve(first.calls[0])))
        assert first.turn_id == second.turn_id
        assert first.interrupt_id != second.interrupt_id
        await world.crash()
        assert (await world.resume(Approve(first.calls[0]))).duplicate
        assert "done" == text_of(await world.decide(Approve(second.calls[0])))

        assert ([2], [1, 3]) == (effects.of("look"), effects.of("pay"))
        assert ["approve", "approve"] == [record.kind for record in await world.records()]


async def test_parallel_sub_agents(autojump_clock: Any, backend: Backend) -> None:
    """Several at once: one that is done is done, those that wait wait together, and each goes on by itself."""
    effects = Effects()
    tools = [effects.tool("look"), effects.tool("pay")]
    tasks = [
        Task(name="quick", description="d", model=ScriptedModel([Call("look", amount=1), "quick done"]), tools=tools),
        Task(
            name="one",
            description="d",
            model=ScriptedModel([Call("pay", amount=2), "one done"]),
            tools=tools,
            middleware=[gated(effects, "pay")],
        ),
        Task(
            name="two",
            description="d",
            model=ScriptedModel([Call("pay", amount=3), Call("pay", amount=4), "two done"]),
            tools=tools,
            middleware=[gated(effects, "pay")],
        ),
    ]
    calls = [Call("task", instructions="x", name=name) for name in ("quick", "one", "two")]
    async with World(handing_over(*tasks, replies=(calls, "done")), backend) as world:
        interrupt = await world.ask()
        assert {("one",), ("two",)} == {tuple(call.path) for call in interrupt.calls}
        await world.crash()
        by_path = {call.path[0]: call for call in interrupt.calls}
        await world.decide(Approve(by_path["two"]))
        await world.crash()
        assert [] == effects.of("pay")
        second = interrupt_in(await world.decide(Reject(by_path["one"])))
        assert [("two",)] == [tuple(call.path) for call in second.calls]
        assert "done" == text_of(await world.decide(Edit(second.calls[0], {"amount": 44})))

        assert ([1], [3, 44]) == (effects.of("look"), effects.of("pay"))
        texts = [result.content for message in await world.messages() for result in message.results]
        assert {"quick done", "one done", "two done"} == set(texts)


@pytest.mark.parametrize("how", MEANWHILE)
async def test_sub_agents_in_sub_agents(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """Three deep: the path names them all, and each level goes on where it was."""
    effects = Effects()
    tools = [effects.tool("look"), effects.tool("pay")]
    inner = Agent(
        model=ScriptedModel([[Call("look", amount=3), Call("pay", amount=4), Call("ask_user", question="why?")], "inner done"]),
        tools=tools,
        middleware=[gated(effects, "pay"), AskUser()],
    )
    middle = Agent(
        model=ScriptedModel(
            [Call("look", amount=2), [Call("task", instructions="x", name="inner"), Call("look", amount=9)], "middle done"]
        ),
        tools=tools,
        middleware=[SubAgents([Task(name="inner", description="d", agent=inner)], general_purpose=False, max_depth=3)],
    )
    agent = handing_over(
        Task(name="middle", description="d", agent=middle),
        replies=([Call("look", amount=1), Call("task", instructions="x", name="middle")], "done"),
        tools=tools,
        handing={"max_depth": 3},
    )
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        assert [("middle", "inner")] * 2 == [tuple(call.path) for call in interrupt.calls]
        assert [1, 2, 3, 9] == sorted(effects.of("look"))
        await world.pass_time(how)
        await world.decide(Answer(call_of(interrupt, "ask_user"), "because"))
        await world.pass_time(how)
        assert "done" == text_of(await world.decide(Approve(call_of(interrupt, "pay"))))

        assert ([1, 2, 3, 9], [4]) == (sorted(effects.of("look")), effects.of("pay"))
        assert ("completed", "middle done") == (await world.results())["task"]


async def test_task_that_is_gated_itself(autojump_clock: Any, backend: Backend) -> None:
    """An approved handing-over runs once, though its sub-agent waits, and is woken with the edited instructions."""
    effects = Effects()
    task = working(effects, Call("pay", amount=1), "its answer")
    agent = handing_over(task, middleware=[Approvals({"task": True})])
    async with World(agent, backend) as world:
        first = await world.ask()
        assert ["task"] == [call.name for call in first.calls]
        second = interrupt_in(await world.decide(Edit(first.calls[0], {"instructions": "do that", "name": "t"})))
        assert ["pay"] == [call.name for call in second.calls]
        await world.crash()
        assert "done" == text_of(await world.decide(Approve(second.calls[0])))

        model: Any = task.model
        assert {"do that"} == {request.messages[0].text for request in model.requests}
        assert [1] == effects.of("pay")
        assert ["edit", "approve"] == [record.kind for record in await world.records()]


@pytest.mark.parametrize("policy", ["parent", "child", "both"])
async def test_gate_of_the_parent_holds_for_its_sub_agents(autojump_clock: Any, policy: str) -> None:
    """No sub-agent can do what its parent may not; asked about by both, a call is asked about once."""
    effects = Effects()
    pay = effects.tool("pay")
    gates = [gated(effects, "pay")]
    task = Task(
        name="t",
        description="d",
        model=ScriptedModel([Call("pay", amount=1), "its answer"]),
        tools=[pay],
        middleware=gates if policy != "parent" else [],
    )
    agent = handing_over(task, tools=[pay], middleware=gates if policy != "child" else [])
    async with World(agent) as world:
        interrupt = await world.ask()
        assert [] == effects.done
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))

        assert [1] == effects.of("pay")


@pytest.mark.parametrize(("name", "same"), [("transfer", True), ("pay", True), ("pay", False)])
async def test_gated_tool_in_a_sub_agent_under_any_name(autojump_clock: Any, name: str, same: bool) -> None:
    """A sub-agent that brings the gated function under another name, or another function under the gated name, is asked about."""
    effects = Effects()
    pay = effects.tool("pay")
    brought = Tool.of(pay if same else effects.tool("pay"), name=name)
    task = Task(name="t", description="d", model=ScriptedModel([Call(name, amount=1), "its answer"]), tools=[brought])
    async with World(handing_over(task, tools=[pay], middleware=[gated(effects, "pay")])) as world:
        interrupt = await world.ask()

        assert [name] == [call.name for call in interrupt.calls]
        assert [] == effects.done


@pytest.mark.parametrize("newcomers", ["ask", "deny", "allow"])
async def test_sub_agents_own_tools_are_no_newcomers(autojump_clock: Any, newcomers: str) -> None:
    """What a task's definition brings along was there when the agent started: the parent's gate asks only about what it names."""
    effects = Effects()
    task = working(effects, Call("look", amount=1), "its answer", gate=False)
    async with World(handing_over(task, middleware=[gated(effects, "other", newcomers=newcomers)])) as world:
        assert "done" == text_of(await world.post())
        assert [1] == effects.of("look")


async def test_general_purpose_sub_agent_is_gated_as_its_parent(autojump_clock: Any, backend: Backend) -> None:
    """It has the parent's tools and gate, and neither its questions nor sub-agents of its own."""
    effects = Effects()
    model = ScriptedModel(
        [
            Call("task", instructions="x", name="general-purpose"),
            [Call("look", amount=1), Call("pay", amount=2), Call("ask_user", question="?"), Call("task", instructions="y", name="t")],
            "its answer",
            "done",
        ]
    )
    agent = Agent(
        model=model, tools=[effects.tool("look"), effects.tool("pay")], middleware=[gated(effects, "pay"), AskUser(), SubAgents()]
    )
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        assert [("pay", ("general-purpose",))] == [(call.name, tuple(call.path)) for call in interrupt.calls]
        await world.crash()
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))

        assert [("look", 1), ("pay", 2)] == [(name, given["amount"]) for name, given in effects.done]
        refused = [result.content for message in model.requests[2].messages for result in message.results if result.is_error]
        assert 2 == len(refused)
        assert all("no tool" in text for text in refused)


async def test_message_instead_of_an_answer_inside(autojump_clock: Any, backend: Backend) -> None:
    """A new message ends the sub-agent; what it did stands, what waited never runs, and the model is told the truth."""
    effects = Effects()
    task = working(effects, [Call("look", amount=1), Call("pay", amount=2)], "never")
    async with World(handing_over(task), backend) as world:
        interrupt = await world.ask()
        await world.crash()
        assert "done" == text_of(await world.post("instead"))

        assert [("look", 1)] == [(name, given["amount"]) for name, given in effects.done]
        status, text = (await world.results())["task"]
        assert "cancelled" == status
        assert "not run" not in text
        assert [("superseded", interrupt.calls[0].call_id)] == [(record.kind, record.call_id) for record in await world.records()]
        assert "next" == text_of(await world.post("again"))
        assert [("look", 1)] == [(name, given["amount"]) for name, given in effects.done]


async def test_events_go_to_the_debug_channel(autojump_clock: Any) -> None:
    """What a sub-agent says and does is told on the debug channel, in order, and on no other."""
    effects = Effects()
    task = working(effects, Call("look", amount=1), Call("pay", amount=2), "its answer")
    async with World(handing_over(task)) as world:
        await world.handle()
        async with world.sessions.open_subscriber() as subscriber:
            await subscriber.subscribe(CONVERSATION)
            await subscriber.subscribe(CONVERSATION, channel="debug")
            interrupt = await world.ask()
            await world.sessions.stop(CONVERSATION)
            await world.decide(Approve(interrupt.calls[0]))
            told: dict[str, list[Any]] = {"main": [], "debug": []}
            with trio.move_on_after(1):
                async for envelope in subscriber:
                    told[envelope.channel].append(envelope.event)

        assert not [event for event in told["main"] if isinstance(event, SubAgentEvent)]
        events = [event for event in told["debug"] if isinstance(event, SubAgentEvent)]
        kinds = [event.data["type"] for event in events]
        assert "SubAgentStarted" == kinds[0]
        assert "SubAgentCompleted" == kinds[-1]
        assert kinds.index("SubAgentInterrupted") < kinds.index("SubAgentResumed")
        assert {("t", events[0].sub_agent_id)} == {(event.name, event.sub_agent_id) for event in events}


async def test_sub_agent_is_a_nursery_inside_the_call(autojump_clock: Any) -> None:
    """Cancelling the turn ends the sub-agent, its tools, and what its middleware started; nothing of it lives on."""
    effects = Effects()
    ended: list[str] = []

    class Busy(Middleware):
        async def before_turn(self, context: Any) -> None:
            context.start_soon(self.work)

        async def work(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append("task")

    async def forever(amount: int) -> str:
        """Wait."""
        try:
            await trio.sleep_forever()
        finally:
            ended.append("tool")
        return ""

    task = Task(name="t", description="d", model=ScriptedModel([Call("forever", amount=1)]), tools=[forever], middleware=[Busy()])
    quick = Task(name="q", description="d", model=ScriptedModel(["quick"]), middleware=[Busy()])
    calls = ([Call("task", instructions="x", name="q")], TASK, "next")
    async with World(handing_over(task, quick, replies=calls)) as world:
        receipt = await world.sessions.post(CONVERSATION, "go")
        await trio.sleep(1)
        assert ["task"] == ended  # the quick one's ended with its call
        await world.sessions.cancel_turn(CONVERSATION)
        assert isinstance(await receipt.wait(), Cancelled)

        assert {"task", "tool"} == set(ended)
        assert 3 == len(ended)
        assert "cancelled" == (await world.results())["task"][0]
    assert [] == effects.done


async def test_sub_agent_that_fails_harms_no_other(autojump_clock: Any) -> None:
    """Its failure is a failed call that the parent's model reads; beside it another waits, and is answered."""
    effects = Effects()
    tasks = [
        working(effects, Call("pay", amount=1), "its answer"),
        Task(name="bad", description="d", model=ScriptedModel([ConnectionError("gone")])),
        Task(
            name="greedy",
            description="d",
            model=ScriptedModel([Call("look", amount=1)] * 9),
            tools=[effects.tool("look")],
            limits=TurnLimits(max_rounds=2),
        ),
    ]
    calls = [Call("task", instructions="x", name=name) for name in ("t", "bad", "greedy")]
    async with World(handing_over(*tasks, replies=(calls, "done"))) as world:
        interrupt = await world.ask()
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))
        found = [(result.status, result.content) for message in await world.messages() for result in message.results]

        assert ["completed", "failed", "failed"] == sorted(status for status, _ in found)
        assert any("max_rounds" in text for _, text in found)


async def test_limits_count_over_an_interrupt(autojump_clock: Any, backend: Backend) -> None:
    """Rounds that a sub-agent had before it waited count after it."""
    effects = Effects()
    task = working(effects, Call("look", amount=1), Call("pay", amount=2), Call("look", amount=3), "never", limits=TurnLimits(max_rounds=3))
    async with World(handing_over(task), backend) as world:
        interrupt = await world.ask()
        await world.crash()
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))

        assert [1, 3] == effects.of("look")
        status, text = (await world.results())["task"]
        assert "failed" == status
        assert "max_rounds" in text


async def test_state_of_a_sub_agent_that_is_too_large(autojump_clock: Any, backend: Backend) -> None:
    """Where what waits could not be loaded again, the turn fails by name, and the conversation goes on."""

    async def read(amount: int) -> str:
        """Read."""
        return "x" * 50_000

    task = Task(
        name="t",
        description="d",
        model=ScriptedModel([Call("read", amount=1), Call("read", amount=1), Call("pay", amount=1)]),
        tools=[read, Effects().tool("pay")],
        middleware=[gated(Effects(), "pay")],
    )
    async with World(handing_over(task, replies=(TASK, "next")), backend, policy={"max_state_bytes": 80_000}) as world:
        outcome = await world.post()
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
        assert await world.interrupt() is None
        await world.crash()

        assert "next" == text_of(await world.post("go on"))


async def test_run_agent_from_a_tool_of_the_hosts(autojump_clock: Any, backend: Backend) -> None:
    """A tool may run a sub-agent itself; after an answer it is called again, and goes on behind `run_agent`."""
    effects = Effects()
    began: list[str] = []
    agent = Agent(
        model=ScriptedModel([[Call("look", amount=1), Call("pay", amount=2)], "report"]),
        tools=[effects.tool("look"), effects.tool("pay")],
        middleware=[gated(effects, "pay")],
    )

    async def research(topic: str, context: ToolContext) -> str:
        """Research."""
        began.append(topic)
        outcome = await context.run_agent(agent, f"about {topic}", name="researcher")
        return outcome.message.text.upper()

    async with World(scripted(Call("research", topic="bees"), "done", tools=[research]), backend) as world:
        interrupt = await world.ask()
        assert [("researcher",)] == [tuple(call.path) for call in interrupt.calls]
        await world.crash()
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))

        assert ["bees", "bees"] == began
        assert ([1], [2]) == (effects.of("look"), effects.of("pay"))
        assert ("completed", "REPORT") == (await world.results())["research"]


async def test_around_tool_of_the_parent_when_the_sub_agent_waits(autojump_clock: Any) -> None:
    """A middleware around the call sees it leave as it would a cancellation, and cannot take the waiting for an error."""
    effects = Effects()
    seen: list[str] = []

    class Around(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            try:
                result = await call_next(call)
            except Exception:  # what a careless one does
                seen.append("error")
                raise
            seen.append(f"{call.name} {result.status}")
            return result

    task = working(effects, Call("pay", amount=2), "its answer")
    async with World(handing_over(task, middleware=[Around()])) as world:
        interrupt = await world.ask()
        assert [] == seen
        await world.decide(Approve(interrupt.calls[0]))

        assert ["task completed"] == seen


async def test_usage_of_sub_agents_counts_for_the_turn(autojump_clock: Any) -> None:
    """What a sub-agent used before and after it waited is in the usage of the turn's outcome."""

    class Counting(ScriptedModel):
        def chunks(self, reply: Any) -> Any:
            yield UsageChunk(Usage(10, 1))
            yield from super().chunks(reply)

    effects = Effects()
    task = Task(
        name="t",
        description="d",
        model=Counting([Call("pay", amount=1), "its answer"]),
        tools=[effects.tool("pay")],
        middleware=[gated(effects, "pay")],
    )
    async with World(handing_over(task)) as world:
        interrupt = await world.ask()
        outcome = await world.decide(Approve(interrupt.calls[0]))

        assert isinstance(outcome, Completed)
        assert Usage(20, 2) == outcome.usage


async def test_hanging_sub_agent_beside_one_that_waits(autojump_clock: Any) -> None:
    """The interrupt comes when all that may run has run; until then the turn can be cancelled, and nothing waits after it."""
    effects = Effects()
    slow = Task(name="slow", description="d", model=ScriptedModel([Hang()]))
    calls = [TASK, Call("task", instructions="x", name="slow")]
    async with World(handing_over(working(effects, Call("pay", amount=1)), slow, replies=(calls, "next"))) as world:
        receipt = await world.sessions.post(CONVERSATION, "go")
        await trio.sleep(5)
        assert await world.interrupt() is None
        await world.sessions.cancel_turn(CONVERSATION)
        assert isinstance(await receipt.wait(), Cancelled)

        assert await world.interrupt() is None
        assert [] == effects.done
        assert "next" == text_of(await world.post("go on"))


async def test_stop_at_once_while_a_decision_of_a_sub_agent_is_on_its_way(autojump_clock: Any, backend: Backend) -> None:
    """The call that the sub-agent runs in has begun, before the interrupt: where it is cut it is not told as one that never ran."""
    effects = Effects()
    async with World(handing_over(working(effects, Call("pay", amount=1), "its answer")), backend) as world:
        info = await world.sessions.start(CONVERSATION)
        outcome = await decide_while(world, info.agent.stop)

        assert Cancelled(CancelCause.STOPPED) == outcome
        assert [] == effects.done
        status, text = (await world.results())["task"]
        assert "cancelled" == status
        assert "before it began" not in text


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
        names = [result.name for message in request.messages for result in message.results]
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


@pytest.mark.parametrize("more", [{"limits": TurnLimits(max_rounds=2)}, {"until_tool_success": "x"}, {"until_tool": "x"}])
def test_task_with_an_agent_and_what_is_the_agents_own(more: Any) -> None:
    """It is refused, not left out."""
    with pytest.raises(ValueError, match="pre-built"):
        Task(name="s", description="a task", agent=scripted("end"), **more)


@pytest.mark.parametrize("how", ["awake", "restarted"])
async def test_memory_of_a_sub_agent_that_waited(autojump_clock: Any, how: Any) -> None:
    """What its middleware keeps in memory is kept while it waits, as long as the agent around it lives; the metadata is always kept."""
    seen: list[tuple[Any, Any]] = []

    class Remembering(Middleware):
        async def before_turn(self, context: Any) -> None:
            context.memory["note"] = "kept"
            await context.update(metadata={"note": "kept"})

        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            seen.append((context.memory.get("note"), context.state.metadata.get("note")))
            return await call_next(call)

    effects = Effects()
    inner = ScriptedModel([Call("pay", amount=1), "paid it"])
    task = Task(name="t", description="d", model=inner, tools=[effects.tool("pay")], middleware=[Remembering()])
    agent = scripted(
        Call("task", instructions="x", name="t"), "done", middleware=[gated(effects, "pay"), SubAgents([task], general_purpose=False)]
    )
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        assert "done" == text_of(await world.decide(Approve(call)))

    assert [("kept" if how == "awake" else None, "kept")] == seen


@pytest.mark.parametrize("how", ["awake", "restarted", "crashed"])
async def test_record_of_what_was_approved_inside(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """For each call that was decided inside, the record has the tool, the arguments, who, when, and how the call ended."""

    async def fail(amount: int) -> str:
        """Fail."""
        raise OSError("no")

    effects = Effects()
    calls = [Call("pay", amount=1), Call("fail", amount=2), Call("pay", amount=3)]
    task = Task(name="t", description="d", model=ScriptedModel([calls, Call("pay", amount=4), "did it"]), tools=[effects.tool("pay"), fail])
    middleware = [gated(effects, "pay", "fail"), SubAgents([task], general_purpose=False)]
    agent = scripted(
        [Call("task", instructions="x", name="t"), Call("pay", amount=5)], "done", tools=[effects.tool("pay")], middleware=middleware
    )
    async with World(agent, backend, scope="anne") as world:
        interrupt = await world.ask()
        decisions = [Reject(call, "no") if call.arguments["amount"] == 3 else Approve(call) for call in interrupt.calls]
        again = interrupt_in(await world.decide(*decisions))
        await world.pass_time(how)
        await world.decide(Approve(again.calls[0]))
        records = {json.loads(record.arguments)["amount"]: record for record in await world.records() if record.arguments}
        (own,) = [record for record in await world.records() if not record.arguments]

    assert {1: "completed", 2: "failed", 3: "cancelled", 4: "completed"} == {amount: record.outcome for amount, record in records.items()}
    assert ["pay", "fail", "pay", "pay"] == [records[amount].name for amount in (1, 2, 3, 4)]
    assert {"anne"} == {record.by for record in records.values()}
    assert ("approve", "completed") == (own.kind, own.outcome)


@pytest.mark.parametrize("how", ["the process dies", "the turn is cancelled"])
async def test_record_of_what_was_approved_inside_when_the_turn_ends(autojump_clock: Any, backend: Backend, how: str) -> None:
    """What ended before that is on record as it ended; after a crash nobody knows, and the record says so."""
    effects = Effects()
    effects.gates["hang"] = trio.Event()
    tools = [effects.tool("pay"), effects.tool("hang")]
    task = Task(name="t", description="d", model=ScriptedModel([[Call("pay", amount=1), Call("hang", amount=2)], "x"]), tools=tools)
    agent = scripted(
        Call("task", instructions="x", name="t"),
        "done",
        middleware=[gated(effects, "pay", "hang"), SubAgents([task], general_purpose=False)],
    )
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        await world.resume(*[Approve(call) for call in interrupt.calls])
        await trio.sleep(1)
        if how == "the process dies":
            await world.crash()
        else:
            await world.sessions.cancel_turn(CONVERSATION)
        records = {record.name: record.outcome for record in await world.records()}

    expected = {"pay": "unknown", "hang": "unknown"} if how == "the process dies" else {"pay": "completed", "hang": "unknown"}
    assert expected == records

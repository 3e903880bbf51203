"""Approvals: approve, edit and reject, call by call, in parallel batches, whatever becomes of the process meanwhile."""

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio

from tests.support.payments import Purse, decide, gate, interrupt_of, loads_again
from tests.support.people import CONVERSATION, MEANWHILE, Effects, Meanwhile, World, call_of, gated, interrupt_in, scripted, text_of
from tests.support.scenarios import (
    ask,
    opened,
)
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Answer,
    Approvals,
    Approve,
    Completed,
    Edit,
    Failed,
    FinishChunk,
    Interrupted,
    InvalidDecision,
    LimitExceeded,
    Middleware,
    Reject,
    Snapshot,
    StateRestored,
    Status,
    StatusChanged,
    SubAgents,
    Task,
    Tool,
    ToolCall,
    ToolCallChunk,
    ToolContext,
    ToolExecutionUpdated,
    TurnEnded,
    TurnLimits,
    TurnStarted,
)
from trio_sagents.testing import Call, ScriptedModel


@pytest.mark.parametrize("how", MEANWHILE)
async def test_batch_when_each_call_is_decided_otherwise(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """Of four parallel calls one runs at once, one as approved, one as edited, one not; the model reads all four results."""
    effects = Effects()
    tools = [effects.tool(name) for name in ("free", "pay", "move", "drop")]
    calls = [Call("free", amount=1), Call("pay", amount=2), Call("move", amount=3), Call("drop", amount=4)]
    agent = scripted(calls, "all four", tools=tools, middleware=[gated(effects, "pay", "move", "drop")])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        assert ["free"] == effects.names
        assert ["pay", "move", "drop"] == [call.name for call in interrupt.calls]
        assert {"approval"} == {call.kind for call in interrupt.calls}

        await world.pass_time(how)
        pay, move, drop = interrupt.calls
        outcome = await world.decide(Reject(drop, "too much"), Approve(pay), Edit(move, {"amount": 30}))

        assert "all four" == text_of(outcome)
        assert [("free", 1), ("move", 30), ("pay", 2)] == sorted((name, given["amount"]) for name, given in effects.done)
        results = await world.results()
        assert {"free": "completed", "pay": "completed", "move": "completed", "drop": "cancelled"} == {
            name: status for name, (status, _) in results.items()
        }
        assert "too much" in results["drop"][1]
        assert len(set(effects.keys)) == 3
        assert Status.IDLE is (await world.sessions.agent_info(CONVERSATION)).status


async def test_model_reads_what_ran_when_a_call_was_edited(autojump_clock: Any, backend: Backend) -> None:
    """The next request shows the call with the edited arguments, also after a restart; the stored history keeps what was asked for."""
    effects = Effects()
    model = ScriptedModel([Call("pay", amount=2), "done", "again"])
    agent = scripted(tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    agent = attrs.evolve(agent, model=model)
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        await world.decide(Edit(interrupt.calls[0], {"amount": 20}))
        await world.restart()
        await world.post("and now")

        for request in model.requests[1:]:
            assert [{"amount": 20}] == [call.arguments for message in request.messages for call in message.calls]
        assert [{"amount": 2}] == [call.arguments for message in await world.messages() for call in message.calls]
        assert ["edit"] == [record.kind for record in await world.records()]


@pytest.mark.parametrize("how", MEANWHILE)
async def test_partial_answers_are_kept(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """What was decided of a batch stays decided; nothing gated runs before the last one is, and then all that may."""
    effects = Effects()
    agent = scripted(
        [Call("pay", amount=1), Call("pay", amount=2), Call("pay", amount=3)],
        "done",
        tools=[effects.tool("pay")],
        middleware=[gated(effects, "pay")],
    )
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        one, two, three = interrupt.calls
        left = interrupt_in(await world.decide(Approve(two)))
        assert [one.call_id, three.call_id] == [call.call_id for call in left.calls]
        assert [two.call_id] == [record.call_id for record in left.decided]

        await world.pass_time(how)
        waiting = await world.interrupt()
        assert waiting is not None
        assert left == waiting
        assert interrupt.interrupt_id == waiting.interrupt_id
        left = interrupt_in(await world.decide(Reject(one)))
        assert [] == effects.done

        await world.pass_time(how)
        assert "done" == text_of(await world.decide(Edit(three, {"amount": 33})))
        assert [2, 33] == sorted(effects.of("pay"))
        assert {"approve", "reject", "edit"} == {record.kind for record in await world.records()}


async def test_decision_is_durable_before_the_tool_starts(autojump_clock: Any, backend: Backend) -> None:
    """The commit that records the last decision has landed when the first approved tool begins; its row says executing."""
    effects = Effects()
    seen: list[Any] = []

    async def pay(amount: int) -> str:
        """Pay."""
        seen.append(world.stored_state())
        effects.done.append(("pay", {"amount": amount}))
        return "paid"

    agent = scripted([Call("pay", amount=1), Call("pay", amount=2)], "done", tools=[pay], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        world.store.delay = 5.0
        await world.decide(*map(Approve, interrupt.calls))

        assert 2 == len(seen)
        for state in seen:
            assert state.get("interrupt") is None
            assert {call.call_id for call in interrupt.calls} <= {
                record["call_id"] for records in state["open_decisions"].values() for record in records
            } | {record.call_id for record in await world.records()}
        assert {call.call_id for call in interrupt.calls} == set(seen[0]["open_decisions"])


async def test_record_says_who_and_when(autojump_clock: Any, backend: Backend) -> None:
    """A decision is recorded with the owner key of whoever decided, the instant, and the digest that was shown; for ever."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend, scope="alice") as world:
        interrupt = await world.ask()
        await world.decide(Approve(interrupt.calls[0]))
        await world.crash()
        (record,) = await world.records()

        assert ("alice", "approve", interrupt.calls[0].digest) == (record.by, record.kind, record.digest)
        assert record.at.endswith("+00:00")
        assert interrupt.interrupt_id == record.interrupt_id


async def test_actor_is_recorded_when_the_authorizer_names_it(autojump_clock: Any) -> None:
    """Where several people may decide, the record says which one did."""

    class Team:
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            return action != "decide" or scope == "boss"

        def actor_of(self, scope: Any) -> str:
            return f"user:{scope}"

    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, scope="clerk", authorizer=Team()) as world:
        interrupt = await world.ask()
        with pytest.raises(LookupError):
            await world.resume(Approve(interrupt.calls[0]))
        assert [] == effects.done
        await world.decide(Approve(interrupt.calls[0]), scope="boss")

        assert ["user:boss"] == [record.by for record in await world.records()]


@pytest.mark.parametrize("how", ["asleep", "stopped", "restarted", "crashed"])
async def test_resume_wakes_and_subscribers_see_the_state_after_the_answer(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """`resume` wakes a sleeping agent; whoever watched through it first sees the turn that goes on, never the old interrupt."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        await world.pass_time(how)
        async with world.sessions.open_subscriber() as subscriber:
            await subscriber.subscribe(CONVERSATION)
            assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))
            events = []
            with trio.move_on_after(1):
                async for envelope in subscriber:
                    events.append(envelope.event)

        if isinstance(events[0], StateRestored):
            del events[0]
        assert isinstance(events[0], Snapshot)
        assert (Status.RUNNING, None) == (events[0].status, events[0].interrupt)
        told = [event for event in events if isinstance(event, StatusChanged)]
        assert [Status.IDLE] == [event.status for event in told]
        executing = [event for event in events if isinstance(event, ToolExecutionUpdated)]
        assert ["executing", "completed"] == [event.status for event in executing]


async def test_events_when_live(autojump_clock: Any) -> None:
    """Running, interrupted with its calls, running again with the same turn id, idle: each told once."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        async with world.sessions.open_subscriber() as subscriber:
            await subscriber.subscribe(CONVERSATION)
            interrupt = await world.ask()
            await world.decide(Approve(interrupt.calls[0]))
            events = []
            with trio.move_on_after(1):
                async for envelope in subscriber:
                    events.append(envelope.event)
    told = [(event.status, event.data) for event in events if isinstance(event, StatusChanged)]

    assert [(Status.RUNNING, None), (Status.INTERRUPTED, interrupt), (Status.RUNNING, None), (Status.IDLE, None)] == told[-4:]
    begun = [event.turn_id for event in events if isinstance(event, TurnStarted)]
    assert [interrupt.turn_id, interrupt.turn_id] == begun
    ended = [event.outcome for event in events if isinstance(event, TurnEnded)]
    assert [Interrupted, Completed] == [type(outcome) for outcome in ended]
    assert interrupt == ended[0].interrupt


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (True, ("approve", "edit", "reject")),
        (["approve", "reject"], ("approve", "reject")),
        (("reject",), ("reject",)),
        ({"allowed_decisions": ["edit"]}, ("edit",)),
    ],
)
async def test_policy_when_it_limits_the_decisions(autojump_clock: Any, policy: Any, allowed: Sequence[str]) -> None:
    """A decision that the policy does not allow is refused, with nothing done, and the call waits on."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[Approvals({"pay": policy})])
    async with World(agent) as world:
        interrupt = await world.ask()
        call = interrupt.calls[0]
        assert allowed == tuple(call.allowed)
        decisions = {"approve": Approve(call), "edit": Edit(call, {"amount": 5}), "reject": Reject(call), "answer": Answer(call, "yes")}
        for kind, decision in decisions.items():
            if kind not in allowed:
                with pytest.raises(InvalidDecision, match=kind):
                    await world.resume(decision)
        assert [] == effects.done
        assert interrupt == await world.interrupt()
        await world.decide(decisions[allowed[0]])

        assert await world.interrupt() is None


@pytest.mark.parametrize("policy", [False, (), {"allowed_decisions": []}])
async def test_policy_when_it_does_not_ask(autojump_clock: Any, policy: Any) -> None:
    """False, and no decisions at all, let the calls run."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[Approvals({"pay": policy})])
    async with World(agent) as world:
        assert "done" == text_of(await world.post())
        assert [1] == effects.of("pay")


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"pay": "approve"}, TypeError),
        ({"pay": ["accept"]}, ValueError),
        ({"pay": ["answer"]}, ValueError),
        ({"pay": {"decisions": []}}, ValueError),
        ({"pay": 1.5}, TypeError),
        (["pay"], TypeError),
    ],
)
def test_policy_when_it_cannot_be_meant(bad: Any, error: type[Exception]) -> None:
    """A policy that says nothing clear is refused when it is made: it must not turn out to allow everything."""
    with pytest.raises(error):
        Approvals(bad)


@pytest.mark.parametrize("settings", [{"newcomers": "yes"}, {"timeout": 0}, {"timeout": -1}, {"timeout": True}, {"timeout": float("nan")}])
def test_settings_when_they_cannot_be_meant(settings: Any) -> None:
    """So are settings."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        Approvals({}, **settings)


class Growing(Middleware):
    """Brings tools along, and others when it is told to."""

    def __init__(self, *now: Any) -> None:
        self.now = now

    async def tools(self, context: Any) -> Any:
        return self.now

    async def on_message(self, context: Any, message: Any) -> None:
        self.now = message
        context.refresh_tools()


@pytest.mark.parametrize(("newcomers", "allowed"), [("ask", ("approve", "edit", "reject")), ("deny", ("reject",)), ("allow", None)])
@pytest.mark.parametrize("warm", [True, False], ids=["after a call", "before any call"])
@pytest.mark.parametrize("order", [1, -1], ids=["gate first", "gate last"])
async def test_newcomers_follow_the_stated_default(autojump_clock: Any, newcomers: str, allowed: Any, warm: bool, order: int) -> None:
    """A tool that was not registered when the agent started is a newcomer, from its first call on."""
    effects = Effects()
    growing = Growing(effects.tool("free"))
    middleware = [Approvals({"pay": True}, newcomers=newcomers), growing][::order]
    script = [[Call("free", amount=0)] if warm else "hi", *(["hi"] if warm else []), Call("new", amount=1), "done"]
    agent = scripted(*script, tools=[effects.tool("pay")], middleware=middleware)
    async with World(agent) as world:
        await world.post("first")
        await (await world.handle()).notify_middleware("Growing", (*growing.now, effects.tool("new")))
        outcome = await world.post("second")
        if allowed is None:
            assert [1] == effects.of("new")
        else:
            assert allowed == tuple(interrupt_in(outcome).calls[0].allowed)
            assert [] == effects.of("new")


async def test_registered_tools_stay_so_when_others_come(autojump_clock: Any) -> None:
    """A refresh makes no newcomers of what was there, the library's own tools included."""
    effects = Effects()
    growing = Growing(effects.tool("free"))
    sub = ScriptedModel(["sub one", "sub two"])
    tasks = SubAgents([Task(name="t", description="d", model=sub)], general_purpose=False)
    script = [[Call("free", amount=1), Call("task", instructions="x", name="t")], "one"] * 2
    agent = scripted(*script, middleware=[gated(effects, "pay"), growing, tasks])
    async with World(agent) as world:
        assert "one" == text_of(await world.post("first"))
        await (await world.handle()).notify_middleware("Growing", (*growing.now, effects.tool("new")))
        assert "one" == text_of(await world.post("second"))
        assert [1, 1] == effects.of("free")


@pytest.mark.parametrize("newcomers", ["ask", "deny"])
async def test_tool_that_takes_the_place_of_another_is_a_newcomer(autojump_clock: Any, newcomers: str) -> None:
    """The policy is bound to the registered tool, not to its name: another function under the name is asked about."""
    effects = Effects()
    growing = Growing(effects.tool("free"))
    agent = scripted(
        Call("free", amount=1), "one", Call("free", amount=2), "two", middleware=[gated(effects, "pay", newcomers=newcomers), growing]
    )
    async with World(agent) as world:
        await world.post("first")
        await (await world.handle()).notify_middleware("Growing", (Effects().tool("free"),))
        interrupt = interrupt_in(await world.post("second"))

        assert [1] == effects.of("free")
        assert (("approve" in interrupt.calls[0].allowed), True) == (newcomers == "ask", "reject" in interrupt.calls[0].allowed)


async def test_policy_when_its_key_is_the_tool(autojump_clock: Any) -> None:
    """The policy may name the function, or the `Tool`; also where the agent has the function under other names."""
    effects = Effects()
    pay, move = effects.tool("pay"), Tool.of(effects.tool("move"), name="shift")
    tools = [pay, move, Tool.of(pay, name="transfer"), Tool.of(move, name="push")]
    calls = [Call(name, amount=1) for name in ("pay", "shift", "transfer", "push")]
    agent = scripted(calls, "done", tools=tools, middleware=[Approvals({pay: True, move: ["reject"]})])
    async with World(agent) as world:
        interrupt = await world.ask()

        assert [] == effects.done
        assert [("pay", 3), ("shift", 1), ("transfer", 3), ("push", 1)] == [(call.name, len(call.allowed)) for call in interrupt.calls]


async def test_alias_when_the_policy_names_it(autojump_clock: Any) -> None:
    """What the policy says of a name itself wins over what it says of the same function under another one."""
    effects = Effects()
    pay = effects.tool("pay")
    agent = scripted(
        Call("tiny", amount=1), "done", tools=[pay, Tool.of(pay, name="tiny")], middleware=[Approvals({"pay": True, "tiny": False})]
    )
    async with World(agent) as world:
        assert "done" == text_of(await world.post())


async def test_approved_tool_when_it_fails(autojump_clock: Any, backend: Backend) -> None:
    """An approved call that raises is a failed call that the model reads of; its approval is used up."""
    effects = Effects()

    async def pay(amount: int) -> str:
        """Pay."""
        effects.done.append(("pay", {"amount": amount}))
        raise ValueError("no funds")

    agent = scripted(Call("pay", amount=1), Call("pay", amount=1), "sorry", tools=[pay], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        first = await world.ask()
        second = interrupt_in(await world.decide(Approve(first.calls[0])))

        assert [1] == effects.of("pay")
        assert first.calls[0].digest == second.calls[0].digest
        assert first.calls[0].call_id != second.calls[0].call_id
        assert "sorry" == text_of(await world.decide(Reject(second.calls[0])))
        assert [1] == effects.of("pay")
        assert ["failed", "cancelled"] == [result.status for message in await world.messages() for result in message.results]


@pytest.mark.parametrize("arguments", [{"amount": "much"}, {}, {"amount": 1, "to": "me"}, {"amount": None}])
async def test_edit_when_the_tool_cannot_take_it(autojump_clock: Any, arguments: Any) -> None:
    """Edited arguments are read as strictly as a model's, when they are given: the person hears of it, and may try again."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        interrupt = await world.ask()
        with pytest.raises(InvalidDecision, match="pay"):
            await world.resume(Edit(interrupt.calls[0], arguments))
        assert [] == effects.done
        assert interrupt == await world.interrupt()
        await world.decide(Edit(interrupt.calls[0], {"amount": 9}))

        assert [9] == effects.of("pay")


@pytest.mark.parametrize("arguments", ['{"amount": 1, "amount": 2}', '{"amount": "a lot"}', "{}", '{"amount": 1, "to": "Bob"}'])
async def test_invalid_arguments_are_not_asked_about(autojump_clock: Any, arguments: str) -> None:
    """A call that its tool could not take fails at once: nobody is asked to approve what could not run."""
    effects = Effects()

    class Broken(ScriptedModel):
        def chunks(self, reply: Any) -> Any:
            if reply != "broken":
                yield from super().chunks(reply)
                return
            yield ToolCallChunk(0, "b-1", "pay", arguments)
            yield FinishChunk("tool_calls")

    agent = attrs.evolve(scripted("x", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")]), model=Broken(["broken", "I see"]))
    async with World(agent) as world:
        assert "I see" == text_of(await world.post())
        assert [] == effects.done
        assert "failed" == (await world.results())["pay"][0]


async def test_idempotency_key_is_that_of_the_call(autojump_clock: Any) -> None:
    """An approved tool gets the call's own key and id, before and after a restart."""
    keys: list[tuple[str, str]] = []

    async def pay(amount: int, context: ToolContext) -> str:
        """Pay."""
        keys.append((context.call_id, context.idempotency_key))
        return "paid"

    agent = scripted([Call("pay", amount=1), Call("pay", amount=1)], "done", tools=[pay], middleware=[gated(Effects(), "pay")])
    async with World(agent) as world:
        interrupt = await world.ask()
        await world.crash()
        await world.decide(*map(Approve, interrupt.calls))

        assert {call.call_id for call in interrupt.calls} == {call_id for call_id, _ in keys}
        assert 2 == len({key for _, key in keys})
        assert all(interrupt.turn_id in key and call_id in key for call_id, key in keys)


async def test_sync_tool_runs_in_its_thread_when_approved() -> None:
    """A plain function is gated like any other."""
    ran: list[int] = []

    def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        return "paid"

    agent = scripted([Call("pay", amount=1), Call("pay", amount=2)], "done", tools=[pay], middleware=[gated(Effects(), "pay")])
    async with World(agent) as world:
        interrupt = await world.ask()
        assert [] == ran
        await world.decide(Approve(interrupt.calls[0]), Reject(interrupt.calls[1]))
        assert [1] == ran


async def test_queue_goes_on_behind_an_answer(autojump_clock: Any) -> None:
    """What was posted while the turn still ran is held while it waits, and answered after it: nothing closes the interrupt."""
    effects = Effects()
    effects.gates["slow"] = trio.Event()
    agent = scripted(
        [Call("slow", amount=1), Call("pay", amount=2)],
        "first done",
        "second done",
        tools=[effects.tool("slow"), effects.tool("pay")],
        middleware=[gated(effects, "pay")],
    )
    async with World(agent) as world:
        first = await world.sessions.post(CONVERSATION, "one")
        await trio.sleep(1)
        second = await world.sessions.post(CONVERSATION, "two")
        effects.gates["slow"].set()
        interrupt = interrupt_in(await first.wait())
        await trio.sleep(10)
        assert interrupt == await world.interrupt()
        assert "first done" == text_of(await world.decide(Approve(call_of(interrupt, "pay"))))
        assert "second done" == text_of(await second.wait())


async def test_cancel_turn_leaves_the_question(autojump_clock: Any) -> None:
    """Nothing runs while it waits, so there is nothing to cancel; it can be answered after that."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        interrupt = await world.ask()
        assert await world.sessions.cancel_turn(CONVERSATION) is None
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))


async def test_cancel_turn_when_an_approved_tool_runs(autojump_clock: Any, backend: Backend) -> None:
    """The call is closed as cancelled, what was never begun as well, and the decision sent again starts nothing."""
    effects = Effects()
    effects.gates["pay"] = trio.Event()
    agent = scripted(Call("pay", amount=1), "next", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        receipt = await world.resume(Approve(interrupt.calls[0]))
        await trio.sleep(1)
        outcome = await world.sessions.cancel_turn(CONVERSATION)
        assert outcome == await receipt.wait()
        again = await world.resume(Approve(interrupt.calls[0]))

        assert again.duplicate
        assert outcome == await again.wait()
        assert [1] == effects.of("pay")
        assert "cancelled" == (await world.results())["pay"][0]
        with pytest.raises(AlreadyDecided):
            await world.resume(Reject(interrupt.calls[0]))
        assert "next" == text_of(await world.post("go on"))


@pytest.mark.parametrize(("limits", "name"), [({"max_rounds": 3}, "max_rounds"), ({"max_calls": 3}, "max_calls")])
@pytest.mark.parametrize("how", ["awake", "restarted"])
async def test_limits_of_a_turn_count_over_its_interrupts(
    autojump_clock: Any, backend: Backend, how: Meanwhile, limits: Any, name: str
) -> None:
    """What a turn has used before an interrupt counts after it; what other turns have used does not."""
    effects = Effects()
    calls = [Call("pay", amount=number) for number in range(1, 5)]
    agent = scripted("hello", *calls, "never", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")], limits=TurnLimits(**limits))
    async with World(agent, backend) as world:
        assert "hello" == text_of(await world.post("hi"))
        interrupt = await world.ask()
        for _ in range(2):
            await world.pass_time(how)
            interrupt = interrupt_in(await world.decide(Approve(interrupt.calls[0])))
        await world.pass_time(how)
        outcome = await world.decide(Approve(interrupt.calls[0]))

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
        assert name == outcome.error.limit
        assert [1, 2, 3] == effects.of("pay")


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

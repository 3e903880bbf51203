"""Gates: which tools are asked about, and what is no claim."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.scenarios.test_approvals import Growing
from tests.support.payments import Purse, gate, hand_over, interrupt_of, paying, task
from tests.support.people import CONVERSATION, Effects, World, gated, interrupt_in, scripted, text_of
from tests.support.scenarios import (
    DictRows,
    DictStates,
    ask,
    of_kind,
    opened,
    read_all,
)
from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    Failed,
    MessageCompleted,
    Middleware,
    MiddlewareContext,
    MiddlewareError,
    PendingCall,
    Reject,
    SubAgents,
    Tool,
    ToolCall,
    ToolExecutionUpdated,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, ScriptedModel


async def test_when_asks_about_what_is_not_listed(autojump_clock: Any) -> None:
    """`when` asks about the tools for which it is true, but about none that the policy lists, either way."""
    effects, asked = Effects(), []

    def when(tool: Tool) -> bool:
        asked.append(tool.name)
        return tool.name == "pay"

    tools = [effects.tool(name) for name in ("pay", "move", "free")]
    calls = [Call(name, amount=1) for name in ("pay", "move", "free")]
    agent = scripted(calls, "done", tools=tools, middleware=[Approvals({"free": False}, when=when)])
    async with World(agent) as world:
        interrupt = await world.ask()

    assert ["pay"] == [call.name for call in interrupt.calls]
    assert ("approve", "edit", "reject") == tuple(interrupt.calls[0].allowed)
    assert {"pay", "move"} == set(asked)
    assert {"move", "free"} == set(effects.names)


def test_summary_when_it_is_asked_for() -> None:
    """The debug view shows the policy, by name."""
    assert {"interrupt_on": {"pay": ["reject"], "free": []}, "newcomers": "deny"} == Approvals(
        {"pay": ["reject"], "free": False}, newcomers="deny"
    ).debug_summary()


class Claiming(Middleware):
    """Claims every call as it is told."""

    def __init__(self, claim: Any) -> None:
        self._claim = claim

    async def claim(self, context: Any, call: Any, tool: Any) -> Any:
        return self._claim(call)


@pytest.mark.parametrize(
    "claim",
    [
        lambda call: True,
        lambda call: attrs.evolve(pending(call), call_id="other"),
        lambda call: attrs.evolve(pending(call), digest="other"),
        lambda call: attrs.evolve(pending(call), timeout=-1.0),
        lambda call: attrs.evolve(pending(call), timeout=0.0),
        lambda call: attrs.evolve(pending(call), timeout="soon"),
    ],
)
async def test_claim_when_it_is_none(autojump_clock: Any, claim: Any) -> None:
    """What is no claim on this call, or could not be loaded again, fails the turn, and the tool does not run."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[Claiming(claim)])
    async with World(agent) as world:
        outcome = await world.post()

        assert isinstance(outcome, Failed)
        assert "'Claiming' failed in claim" in str(outcome.error)
        assert [] == effects.done


@pytest.mark.parametrize(("first", "second", "shorter"), [(60.0, 5.0, 5.0), (5.0, None, 5.0), (None, 5.0, 5.0), (None, None, None)])
async def test_claims_of_two_gates(autojump_clock: Any, first: Any, second: Any, shorter: Any) -> None:
    """Two that ask about one call ask together: what both allow, within the shorter time, in both names."""
    effects = Effects()
    kinds: Any = ["approve", "reject"]
    gates = [
        Approvals({"pay": True}, **({} if first is None else {"timeout": first})),
        Claiming(lambda call: pending(call, allowed=kinds, timeout=second)),
    ]
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=gates)
    async with World(agent) as world:
        (call,) = (await world.ask()).calls

    assert ("approve", "reject") == tuple(call.allowed)
    assert shorter == call.timeout
    assert ("Approvals", "Claiming") == call.claimed_by


async def test_claim_when_it_has_another_status(autojump_clock: Any) -> None:
    """A call that waits is interrupted, whatever the claim says of it."""
    effects = Effects()
    gate = Claiming(lambda call: attrs.evolve(pending(call), status="completed"))
    async with World(scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gate])) as world:
        assert ["interrupted"] == [call.status for call in (await world.ask()).calls]


@pytest.mark.parametrize(("newcomers", "allowed"), [("ask", ("approve", "edit", "reject")), ("deny", ("reject",))])
@pytest.mark.parametrize("order", [1, -1], ids=["gate first", "gate last"])
async def test_newcomer_when_there_was_no_tool_at_the_start(autojump_clock: Any, newcomers: str, allowed: Any, order: int) -> None:
    """An agent that started without any tool asks about the first that appears: it ran as if it had been there from the start."""
    effects = Effects()
    middleware = [Approvals({"pay": True}, newcomers=newcomers), Growing()][::order]
    async with World(scripted("hi", Call("new", amount=1), "done", middleware=middleware)) as world:
        await world.post()
        await (await world.handle()).notify_middleware("Growing", (effects.tool("new"),))
        (call,) = (await world.ask()).calls

    assert allowed == tuple(call.allowed)
    assert [] == effects.done


async def test_newcomer_when_it_is_listed(autojump_clock: Any) -> None:
    """A policy that lets newcomers run asks about those that it lists by name."""
    effects = Effects()
    growing = Growing()
    agent = scripted("hi", Call("late", amount=1), "done", middleware=[Approvals({"late": ["reject"]}, newcomers="allow"), growing])
    async with World(agent) as world:
        await world.post()
        await (await world.handle()).notify_middleware("Growing", (effects.tool("late"),))
        (call,) = (await world.ask()).calls

    assert ("reject",) == tuple(call.allowed)
    assert [] == effects.done


async def test_gate_when_a_turn_has_none_of_its_tools(autojump_clock: Any) -> None:
    """A gate lets every other tool run, and asks about its own each time anew."""
    effects = Effects()
    agent = scripted(Call("free", amount=1), "one", Call("pay", amount=2), tools=[effects.tool("free"), effects.tool("pay")],
                     middleware=[gated(effects, "pay")])  # fmt: skip
    async with World(agent) as world:
        assert "one" == text_of(await world.post())
        assert ["pay"] == [call.name for call in interrupt_in(await world.post()).calls]
        assert [1] == effects.of("free")


async def test_transcript_of_a_host_when_calls_are_decided(autojump_clock: Any) -> None:
    """A host's own transcript is told what became of each call, from its decision on."""
    effects = Effects()
    tools = [effects.tool("pay"), effects.tool("move")]
    agent = scripted([Call("pay", amount=1), Call("move", amount=2)], "done", tools=tools, middleware=[gated(effects, "pay", "move")])
    rows = DictRows()
    async with opened(agent, agent_persistence=DictStates(), display_message_persistence=rows) as sessions:
        interrupt = interrupt_in(await ask(sessions))
        rows.statuses.clear()
        pay, move = interrupt.calls
        receipt = await sessions.resume("c", [Approve(pay), Reject(move)])
        assert "done" == text_of(await receipt.wait())

    told = [(status, info["name"]) for status, info in rows.statuses]
    assert ["executing", "completed"] == [status for status, name in told if name == "pay"]
    assert ["cancelled"] == [status for status, name in told if name == "move"]
    first = next(info for status, info in rows.statuses if status == "executing")
    assert {"name": "pay", "call_id": pay.call_id, "arguments": {"amount": 1}} == first
    rejected = next(info for status, info in rows.statuses if status == "cancelled")
    assert {"name": "move", "call_id": move.call_id, "error": "This call was not run: a person rejected it."} == rejected


async def test_events_when_a_call_is_rejected(autojump_clock: Any) -> None:
    """Viewers get the message that says so, as it is in the history, and the end of the call."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        interrupt = await world.ask()
        async with world.sessions.open_subscriber() as subscriber:
            await subscriber.subscribe(CONVERSATION)
            await world.decide(Reject(interrupt.calls[0], "no"))
            told = await read_all(subscriber)
        (result,) = [message for message in await world.messages() if message.role == "tool"]

    turn_id = interrupt.turn_id
    assert (result, turn_id) in [(event.message, event.turn_id) for event in of_kind(told, MessageCompleted)]
    ended = of_kind(told, ToolExecutionUpdated)
    assert [("cancelled", interrupt.calls[0].call_id, turn_id)] == [(event.status, event.call.call_id, event.turn_id) for event in ended]
    assert "cancelled" == ended[0].call.status
    assert (None, result.results[0].content) == (ended[0].output, ended[0].error)


async def test_interrupt_when_the_middleware_answers_with_something_else(autojump_clock: Any) -> None:
    """A middleware that answers for a call with what is no text is named; nothing was decided."""

    class Answering(Claiming):
        async def answer(self, context: Any, call: Any, decision: Any) -> Any:
            return answers.pop(0)

    effects, answers = Effects(), [5, None]
    agent = scripted(
        Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[Answering(lambda call: pending(call, allowed=["approve"]))]
    )
    async with World(agent) as world:
        interrupt = await world.ask()
        with pytest.raises(MiddlewareError, match="'Answering' failed in answer") as caught:
            await world.resume(Approve(interrupt.calls[0]))
        assert "not int" in str(caught.value.__cause__)
        assert [] == effects.done
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))


async def test_decided_call_when_its_tool_is_another_now(autojump_clock: Any) -> None:
    """An approval is bound to the tool that was shown: if another tool took its place, people are asked again, and told what changed."""

    async def pay(amount: int) -> str:
        """Pay somebody else."""
        effects.done.append(("another", {"amount": amount}))
        await trio.lowlevel.checkpoint()
        return "paid"

    effects = Effects()
    growing = Growing(effects.tool("pay"))
    agent = scripted(Call("pay", amount=1), "done", middleware=[gated(effects, "pay"), growing])
    async with World(agent) as world:
        interrupt = await world.ask()
        await (await world.handle()).notify_middleware("Growing", (pay,))
        (again,) = interrupt_in(await world.decide(Approve(interrupt.calls[0]))).calls

        assert (1, interrupt.calls[0].call_id, {"amount": 1}) == (again.asked_before, again.call_id, again.arguments)
        assert again.text.startswith("Tool 'pay' has changed since this call was approved: description")
        assert "It was described as: 'Do pay.'. It is described as: 'Pay somebody else.'." in again.text
        assert [] == effects.done

        assert "done" == text_of(await world.decide(Approve(again)))
        assert [("another", {"amount": 1})] == effects.done


async def test_agent_when_a_middleware_starts_a_task_in_a_turn(autojump_clock: Any) -> None:
    """A task that a middleware starts during a turn outlives it, and ends with the agent."""

    class Starting(Middleware):
        async def before_model(self, context: Any, request: Any) -> Any:
            context.start_soon(work)
            return request

    async def work() -> None:
        log.append("began")
        try:
            await trio.sleep_forever()
        finally:
            log.append("ended")

    log: list[str] = []
    async with World(scripted("one", middleware=[Starting()])) as world:
        assert "one" == text_of(await world.post())
        await trio.sleep(1)
        assert ["began"] == log
        await world.sessions.stop(CONVERSATION)
        assert ["began", "ended"] == log


async def test_policy_with_a_slip_in_a_name(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A name that no tool has gates nothing: if the tool may still come, the log says so once, and names a tool of a similar name."""
    effects = Effects()
    tools = [effects.tool("refund"), effects.tool("look")]
    policy = Approvals({"refnd": True, "lock": False, "of_a_sub_agent": True, "look": True})
    agent = scripted(Call("refund", amount=1), "done", "again", tools=tools, middleware=[policy])
    async with World(agent) as world:
        assert "done" == text_of(await world.post("hi"))
        await world.post("hi again")

    said = [record.getMessage() for record in caplog.records]
    assert [
        "interrupt_on names 'refnd', and the agent has no such tool yet; did you mean 'refund', which runs without approval?",
        "interrupt_on names 'of_a_sub_agent', and the agent has no such tool yet",
    ] == [text.removeprefix("conversation 'c': ") for text in said]


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


async def test_claims_that_agree_on_nothing(autojump_clock: Any) -> None:
    """The call can be rejected: nobody is asked what cannot be answered."""

    class Other(Approvals):
        middleware_id = "Other"

    effects = Effects()
    gates = [Approvals({"pay": ["approve"]}), Other({"pay": ["edit"]})]
    agent = scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=gates)
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        outcome = await world.decide(Reject(call))

    assert ("reject",) == call.allowed
    assert "end" == text_of(outcome)
    assert [] == effects.done


async def test_claim_that_allows_nothing(autojump_clock: Any) -> None:
    """It is refused, and names its middleware: a turn never waits for what nobody can give."""

    class Mute(Middleware):
        async def claim(self, context: Any, call: ToolCall, tool: Any) -> Any:
            return pending(call, allowed=())

    effects = Effects()
    async with World(scripted(Call("pay", amount=1), tools=[effects.tool("pay")], middleware=[Mute()])) as world:
        outcome = await world.post()

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, MiddlewareError)
    assert [] == effects.done


@pytest.mark.parametrize("wrong", [{"reason": 5}, {"reason": "\ud800"}, {"when": True}])
def test_policy_that_could_never_be_asked(wrong: Any) -> None:
    """It is refused when it is built, not at the first call."""
    with pytest.raises((TypeError, ValueError), match="reason|when"):
        Approvals({"pay": True}, **wrong)


async def test_gate_forgets_what_is_over(autojump_clock: Any) -> None:
    """What it remembers of calls that were rejected does not grow with the conversation."""
    effects = Effects()
    replies: Callable[[Any], Any] = lambda request: "end" if request.messages[-1].results else Call("pay", amount=1)  # noqa: E731
    agent = Agent(model=ScriptedModel(replies), tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        for _ in range(5):
            await world.decide(Reject((await world.ask()).calls[0]))
        services = world.sessions.runtime
        entry = services.registry.find(services.agent_id_of(CONVERSATION), CONVERSATION)
        assert entry is not None
        assert entry.live is not None
        remembered = entry.live.turns.pipeline.remembered.tools

    assert 1 == len(remembered)


class Confused(Middleware):
    """A gate that asks about other arguments than those of the call."""

    async def claim(self, context: MiddlewareContext, call: ToolCall, tool: Tool) -> PendingCall | None:
        return pending(ToolCall(call.call_id, call.name, {"amount": 1}), kind="approval")


async def test_gate_that_asks_about_another_call(autojump_clock: Any) -> None:
    """People are shown what would run: a gate that claims something else ends the turn, and nothing runs."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1000), "done", tools=[effects.tool("pay")], middleware=[Confused()])
    async with World(agent) as world:
        outcome = await world.post()

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, MiddlewareError)
        assert [] == effects.done

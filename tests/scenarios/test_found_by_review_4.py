"""What a third hostile review tried: arguments changed where they stand, loops of one's own, claims that exclude each other."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.people import CONVERSATION, MEANWHILE, Effects, Meanwhile, World, gated, interrupt_in, scripted, text_of
from tests.support.scenarios import DictRows, DictStates, opened
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Answer,
    Approvals,
    Approve,
    AskUser,
    Budget,
    Completed,
    Decision,
    Edit,
    Failed,
    Halt,
    Interrupted,
    InvalidDecision,
    LimitExceeded,
    Middleware,
    MiddlewareError,
    Reject,
    SubAgents,
    Task,
    ToolCall,
    TurnLimits,
    TurnSteps,
    Usage,
    extract,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.data.requests import FinishChunk, UsageChunk
from trio_sagents.testing import Call, ScriptedModel


def raise_amount(call: ToolCall, amount: int = 999) -> None:
    """Change the arguments of a call where they stand, as a careless or hostile program may."""
    call.arguments["amount"] = amount  # type: ignore[index]  # it is a dict, whatever its type says


# ── arguments that are changed where they stand


class Raises(Middleware):
    """Changes the arguments of each call, in one of its hooks."""

    def __init__(self, hook: str) -> None:
        self.hook = hook

    async def claim(self, context: Any, call: ToolCall, tool: Any) -> Any:
        if self.hook == "claim":
            raise_amount(call)
        if self.hook == "claimed":
            wanted = pending(call)
            raise_amount(wanted)
            return wanted
        return None

    async def around_tool(self, context: Any, call: ToolCall, call_next: Any) -> Any:
        if self.hook == "around_tool":
            raise_amount(call)
        return await call_next(call)

    async def after_turn(self, context: Any, outcome: Any) -> None:
        if self.hook == "after_turn" and isinstance(outcome, Interrupted):
            raise_amount(outcome.interrupt.calls[0])


@pytest.mark.parametrize("hook", ["claim", "claimed", "around_tool", "after_turn"])
async def test_middleware_that_changes_arguments_where_they_stand(autojump_clock: Any, backend: Backend, hook: str) -> None:
    """What runs is what was shown, or nothing does; and the conversation loads."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay"), Raises(hook)])
    async with World(agent, backend) as world:
        outcome = await world.post()
        if isinstance(outcome, Interrupted):
            assert [{"amount": 1}] == [call.arguments for call in outcome.interrupt.calls]
            outcome = await world.decide(Approve(outcome.interrupt.calls[0]))
        await world.restart()
        asked = [call.arguments for message in await world.messages() for call in message.calls]

    refused = hook in {"claimed", "around_tool"}
    assert isinstance(outcome, Failed if refused else Completed)
    assert not refused or isinstance(outcome.error, MiddlewareError)
    assert ([] if refused else [1]) == effects.of("pay")
    assert all({"amount": 1} == arguments for arguments in asked)


async def test_middleware_that_changes_arguments_is_the_one_named(autojump_clock: Any) -> None:
    """It is not the next one, which hands on what it was given."""

    class Honest(Middleware):
        async def around_tool(self, context: Any, call: ToolCall, call_next: Any) -> Any:
            return await call_next(call)

    agent = scripted(Call("pay", amount=1), tools=[Effects().tool("pay")], middleware=[Raises("around_tool"), Honest()])
    async with World(agent) as world:
        outcome = await world.post()

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, MiddlewareError)
    assert "Raises" == outcome.error.middleware_id


async def test_history_changed_while_approved_calls_wait_for_their_place(autojump_clock: Any) -> None:
    """What runs is what was approved, also where calls wait for others to end and somebody changes what he was shown."""
    effects = Effects()
    effects.gates["wait"] = trio.Event()
    tools = [effects.tool("wait"), effects.tool("pay")]
    agent = scripted(
        [Call("wait", amount=0), Call("pay", amount=1), Call("pay", amount=2)],
        "end",
        tools=tools,
        middleware=[gated(effects, "wait", "pay")],
        limits=TurnLimits(max_parallel=1),
    )
    async with World(agent) as world:
        receipt = await world.resume(*[Approve(call) for call in (await world.ask()).calls])
        await trio.testing.wait_all_tasks_blocked()
        for message in await world.messages():
            for call in message.calls:
                raise_amount(call)
        effects.gates["wait"].set()
        await receipt.wait()

    assert [1, 2] == sorted(effects.of("pay"))


@pytest.mark.parametrize("decision", [Approve, lambda call: Edit(call, call.arguments)])
async def test_form_that_changes_the_arguments_it_was_shown(autojump_clock: Any, backend: Backend, decision: Any) -> None:
    """It changes its own copy: others see what would run, what runs is that or what the edit says, and the conversation loads."""
    effects = Effects()
    agent = scripted([Call("pay", amount=1), Call("pay", amount=2)], "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        first, second = (await world.ask()).calls
        raise_amount(second, 30)
        seen = await world.interrupt()
        assert seen is not None
        raise_amount(seen.calls[1], 40)
        await world.decide(Approve(first))
        await world.restart()
        seen = await world.interrupt()
        assert seen is not None
        assert [{"amount": 2}] == [call.arguments for call in seen.calls]
        await world.decide(decision(second))

    assert [1, 2 if decision is Approve else 30] == sorted(effects.of("pay"))


# ── loops of one's own


async def steers_while_calls_run(turn: TurnSteps) -> Any:
    """Take what was posted while a call runs."""
    answer = await turn.ask_model()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, turn)
        ended = await turn.run_tools(answer)
    return ended or await turn.complete(await turn.ask_model())


async def _later(turn: TurnSteps) -> None:
    await trio.sleep(10)
    await turn.take_steered()


async def steers_behind_an_interrupt(turn: TurnSteps) -> Any:
    """Take what was posted when the turn waits for people."""
    ended = await turn.run_tools(await turn.ask_model())
    await trio.sleep(10)
    await turn.take_steered()
    return ended


async def steers_twice_at_once(turn: TurnSteps) -> Any:
    """Take what was posted in two tasks."""
    answer = await turn.ask_model()
    await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn.take_steered)
        nursery.start_soon(turn.take_steered)
    return await turn.run_tools(answer) or await turn.complete(await turn.ask_model())


@pytest.mark.parametrize("mode", [steers_while_calls_run, steers_behind_an_interrupt, steers_twice_at_once])
@pytest.mark.parametrize("gate", [False, True])
async def test_loop_that_steers_when_it_must_not(autojump_clock: Any, backend: Backend, mode: Any, gate: bool) -> None:
    """Each call is answered before the next message, each message is taken once, and the conversation loads."""
    effects = Effects()
    effects.gates["pay"] = trio.Event()
    middleware = [gated(effects, "pay")] if gate else []
    replies: Callable[[Any], Any] = lambda request: "end" if request.messages[-1].results else Call("pay", amount=1)  # noqa: E731
    agent = Agent(model=ScriptedModel(replies), tools=[effects.tool("pay")], middleware=middleware, mode=mode)
    async with World(agent, backend) as world:
        receipt = await world.sessions.post(CONVERSATION, "go")
        await trio.sleep(5)
        await world.sessions.post(CONVERSATION, "steer", overlap="steer")
        await trio.sleep(10)
        effects.gates["pay"].set()
        outcome = await receipt.wait()
        await world.restart()
        messages = await world.messages()

    texts = [message.text for message in messages if message.role == "user"]
    assert len(texts) == len(set(texts))
    assert [bool(message.calls) for message in messages[:-1]] == [bool(message.results) for message in messages[1:]]
    assert mode is not steers_twice_at_once or isinstance(outcome, Interrupted if gate else Completed)


# ── claims that exclude each other


async def test_question_when_everything_needs_approval(autojump_clock: Any, backend: Backend) -> None:
    """A question can be answered whatever gates there are: an answer runs nothing."""
    agent = scripted(Call("ask_user", question="Who?"), "end", middleware=[Approvals({}, when=lambda tool: True), AskUser()])
    async with World(agent, backend) as world:
        (call,) = (await world.ask()).calls
        outcome = await world.decide(Answer(call, "Ann"))

    assert "question" == call.kind
    assert "end" == text_of(outcome)


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


@pytest.mark.parametrize("seconds", [1e10, 1e12, 1e300])
async def test_deadline_behind_the_last_date(autojump_clock: Any, backend: Backend, seconds: float) -> None:
    """It is never: the call waits, and the agent lives."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay", timeout=seconds)])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        await world.restart()
        outcome = await world.decide(Approve(interrupt.calls[0]))

    assert "end" == text_of(outcome)
    assert seconds < 1e12 or interrupt.expires_at is None


async def test_answer_that_says_itself_what_waits(autojump_clock: Any) -> None:
    """What an answer out of a cache says of its calls is not taken: one that had begun is not said not to have run."""

    class Cache(Middleware):
        async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
            answer = await call_next(request)
            ids = [call.call_id for call in answer.message.calls]
            return attrs.evolve(answer, message=attrs.evolve(answer.message, metadata={"gated": ids, "of": "mine"}))

    effects = Effects()
    effects.gates["pay"] = trio.Event()
    async with World(scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[Cache()])) as world:
        await world.sessions.post(CONVERSATION, "go")
        await trio.testing.wait_all_tasks_blocked()
        await world.crash()
        results = await world.results()
        asking = next(message for message in await world.messages() if message.calls)

    assert [1] == effects.of("pay")
    assert "unknown" == results["pay"][0]
    assert {"of": "mine"} == asking.metadata


@pytest.mark.parametrize("how", ["parts", "surrogates", "no texts", "no mapping"])
async def test_answer_with_what_is_no_part(autojump_clock: Any, how: str) -> None:
    """The middleware that made it fails, not the agent."""

    class Odd(Middleware):
        async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
            answer = await call_next(request)
            if how == "parts":
                parts = [pending(call) for call in answer.message.calls]
                return attrs.evolve(answer, message=attrs.evolve(answer.message, parts=parts))
            (call,) = answer.message.calls
            invalid: dict[str, Any] = {"surrogates": {call.call_id: "\ud800"}, "no texts": {call.call_id: 5}, "no mapping": 5}
            return attrs.evolve(answer, invalid=invalid[how])

    async with World(scripted(Call("pay", amount=1), tools=[Effects().tool("pay")], middleware=[Odd()])) as world:
        outcome = await world.post()
        assert await world.sessions.running(CONVERSATION)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, MiddlewareError)


class Strict(Middleware):
    """A gate that looks at decisions."""

    def __init__(self, asked: list[Any]) -> None:
        self.asked = asked

    async def claim(self, context: Any, call: ToolCall, tool: Any) -> Any:
        return pending(call) if call.name == "pay" else None

    async def answer(self, context: Any, call: Any, decision: Any) -> str | None:
        self.asked.append((decision.kind, tuple(call.path), call.arguments))
        if decision.kind == "approve":
            raise ValueError("it takes two of you")
        return "said by the gate" if decision.kind == "reject" else None


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize("decision", [Approve, Reject, lambda call: Edit(call, {"amount": 2})])
@pytest.mark.parametrize("depth", [1, 2])
async def test_gate_of_a_sub_agent_looks_at_decisions(autojump_clock: Any, how: Meanwhile, decision: Any, depth: int) -> None:
    """What the gate of a task refuses is not run, and what it says is what the model reads; as with the gate of the agent."""
    effects = Effects()
    asked: list[Any] = []
    inner = ScriptedModel([Call("pay", amount=1), "done"])
    task = Task(name="s", description="a task", tools=[effects.tool("pay")], middleware=[Strict(asked)], model=inner)
    if depth == 2:
        middle = scripted(Call("task", name="s", instructions="do"), "middle", middleware=[SubAgents([task], max_depth=2)])
        task = Task(name="m", description="a task", agent=middle)
    agent = scripted(Call("task", name=task.name, instructions="do"), "end", middleware=[SubAgents([task], max_depth=2)])
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        outcome = await world.decide(decision(call))

    kind = decision(call).kind
    (result,) = inner.requests[-1].messages[-1].results
    assert "end" == text_of(outcome)
    assert [(kind, ("s",) if depth == 1 else ("m", "s"), {"amount": 1})] == asked
    assert ([2] if kind == "edit" else []) == effects.of("pay")
    assert {"approve": "it takes two", "reject": "said by the gate", "edit": "pay 2 done"}[kind] in result.content


# ── values and costs of turns that waited


@dataclasses.dataclass(frozen=True)
class Invoice:
    """An invoice."""

    number: str
    total: int


async def file_one(total: int) -> Invoice:
    """File an invoice."""
    return Invoice("A", total)


async def file_all(total: int) -> list[Invoice]:
    """File invoices."""
    return [Invoice("A", total)]


async def file_or_halt(total: int) -> Invoice | Halt:
    """File an invoice, or stop."""
    return Invoice("A", total)


async def file_perhaps(total: int) -> Invoice | None:
    """File an invoice, or not."""
    return Invoice("A", total) if total else None


async def file_said(total: int) -> str | None:
    """File an invoice, and say so."""
    return str(total)


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize(
    ("tool", "total", "expected"),
    [
        (file_one, 1, Invoice("A", 1)),
        (file_all, 1, [Invoice("A", 1)]),
        (file_or_halt, 1, Invoice("A", 1)),
        (file_perhaps, 1, Invoice("A", 1)),
        (file_perhaps, 0, None),
        (file_said, 12, "12"),
    ],
)
async def test_result_that_came_before_the_answer(autojump_clock: Any, how: Meanwhile, tool: Any, total: int, expected: Any) -> None:
    """The result is of the type that the tool is declared to return, also where the turn waited for another call meanwhile."""
    effects = Effects()
    agent = scripted(
        [Call(tool.__name__, total=total), Call("pay", amount=1)],
        tools=[tool, effects.tool("pay")],
        middleware=[gated(effects, "pay")],
        until_tool_success=tool.__name__,
    )
    async with World(agent) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        outcome = await world.decide(Approve(call))

    assert isinstance(outcome, Completed)
    assert expected == outcome.result


class Costly(ScriptedModel):
    """A scripted model whose answers cost ten tokens each."""

    def chunks(self, reply: Any) -> Iterator[Any]:
        for chunk in super().chunks(reply):
            if isinstance(chunk, FinishChunk):
                yield UsageChunk(Usage(input_tokens=10))
            yield chunk


@pytest.mark.parametrize("how", MEANWHILE)
async def test_usage_of_a_sub_agent_that_ended_before_an_interrupt(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """What a turn used counts over the whole turn, however often it waits."""
    effects = Effects()
    replies = [Call("task", name="s", instructions="do"), [Call("pay", amount=1), Call("pay", amount=2)], Call("pay", amount=3), "end"]
    agent = Agent(
        model=Costly(replies),
        tools=[effects.tool("pay")],
        middleware=[gated(effects, "pay"), SubAgents([Task(name="s", description="a task", model=Costly(["done"]))])],
    )
    async with World(agent, backend) as world:
        first, second = (await world.ask()).calls
        await world.decide(Approve(first))
        await world.pass_time(how)
        (third,) = interrupt_in(await world.decide(Approve(second))).calls
        await world.pass_time(how)
        outcome = await world.decide(Approve(third))

    assert isinstance(outcome, Completed)
    assert Usage(input_tokens=50) == outcome.usage


@pytest.mark.parametrize("how", MEANWHILE)
async def test_usage_of_a_sub_agent_that_is_never_answered(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """What it used counts for the session, also where a message came instead of an answer."""
    effects = Effects()
    task = Task(name="s", description="a task", tools=[effects.tool("pay")], model=Costly([Call("pay", amount=1)]))
    agent = Agent(
        model=Costly([Call("task", name="s", instructions="do"), "never said"]),
        middleware=[Budget(max_tokens=20, per="session"), gated(effects, "pay"), SubAgents([task])],
    )
    async with World(agent, backend) as world:
        await world.ask()
        await world.pass_time(how)
        outcome = await world.post("instead")

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, LimitExceeded)
    assert "budget_tokens" == outcome.error.limit


@pytest.mark.parametrize("how", MEANWHILE)
async def test_usage_of_a_sub_agent_that_waits_twice(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """Each of its model calls counts once."""
    effects = Effects()
    replies = [Call("pay", amount=1), Call("pay", amount=2), "done"]
    task = Task(name="s", description="a task", tools=[effects.tool("pay")], model=Costly(replies))
    agent = Agent(model=Costly([Call("task", name="s", instructions="do"), "end"]), middleware=[gated(effects, "pay"), SubAgents([task])])
    async with World(agent, backend) as world:
        outcome: Any = await world.post()
        for _ in range(2):
            await world.pass_time(how)
            outcome = await world.decide(Approve(interrupt_in(outcome).calls[0]))

    assert isinstance(outcome, Completed)
    assert Usage(input_tokens=50) == outcome.usage


@pytest.mark.parametrize("more", [{"limits": TurnLimits(max_rounds=2)}, {"until_tool_success": "x"}, {"until_tool": "x"}])
def test_task_with_an_agent_and_what_is_the_agents_own(more: Any) -> None:
    """It is refused, not left out."""
    with pytest.raises(ValueError, match="pre-built"):
        Task(name="s", description="a task", agent=scripted("end"), **more)


async def test_message_that_interrupts_while_the_interrupt_is_stored(autojump_clock: Any, backend: Backend) -> None:
    """It comes instead of an answer: it does not wait for people behind the turn that it was to cut."""
    effects = Effects()
    replies: Callable[[Any], Any] = lambda request: "heard" if request.messages[-1].text == "stop" else Call("pay", amount=1)  # noqa: E731
    agent = Agent(model=ScriptedModel(replies), tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        storing = trio.Event()
        world.store.delay = 5
        world.store.before_commit = lambda commit: storing.set() if commit.lifecycle == "on_interrupt" else None
        first = await world.sessions.post(CONVERSATION, "go")
        await storing.wait()
        outcome = await world.post("stop", overlap="interrupt")
        interrupt = interrupt_in(await first.wait())
        with pytest.raises(AlreadyDecided, match="superseded"):
            await world.resume(Approve(interrupt.calls[0]))

    assert "heard" == text_of(outcome)
    assert [] == effects.done


# ── a host's own transcript


async def test_transcript_of_a_host_when_calls_are_decided(autojump_clock: Any) -> None:
    """It is told the end of every call, also of those that are not run."""
    states, rows, effects = DictStates(), DictRows(), Effects()
    agent = scripted(
        [Call("pay", amount=1), Call("pay", amount=2), Call("ask_user", question="Who?")],
        "end",
        tools=[effects.tool("pay")],
        middleware=[gated(effects, "pay"), AskUser()],
    )
    async with opened(agent, agent_persistence=states, display_message_persistence=rows) as sessions:
        first, second, third = interrupt_in(await (await sessions.post(CONVERSATION, "go")).wait()).calls
        receipt = await sessions.resume(CONVERSATION, [Approve(first), Reject(second, "no"), Answer(third, "Ann")])
        await receipt.wait()

    told: dict[str, list[str]] = {}
    for status, info in rows.statuses:
        told.setdefault(info["call_id"], []).append(status)
    assert ["interrupted", "executing", "completed"] == told[first.call_id]
    assert ["interrupted", "cancelled"] == told[second.call_id]
    assert ["interrupted", "completed"] == told[third.call_id]


# ── what cannot be meant


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("other", ["", "  "])
async def test_answer_of_one_s_own_that_is_empty(autojump_clock: Any, kind: str, other: str) -> None:
    """It is refused, and the question waits on."""
    question = Call("ask_user", question="Which?", kind=kind, options=["S", "M"], allow_other=True)
    async with World(scripted(question, "end", middleware=[AskUser()])) as world:
        (call,) = (await world.ask()).calls
        with pytest.raises(InvalidDecision, match="not empty"):
            await world.resume(Answer(call, other=other))
        outcome = await world.decide(Answer(call, other="XL"))

    assert "end" == text_of(outcome)


@pytest.mark.parametrize("wrong", [{"reason": 5}, {"reason": "\ud800"}, {"when": True}])
def test_policy_that_could_never_be_asked(wrong: Any) -> None:
    """It is refused when it is built, not at the first call."""
    with pytest.raises((TypeError, ValueError), match="reason|when"):
        Approvals({"pay": True}, **wrong)


@pytest.mark.parametrize("seconds", [None, "60", True, 0, float("nan")])
def test_questions_with_a_time_that_is_none(seconds: Any) -> None:
    """It is refused in words that name it."""
    with pytest.raises((TypeError, ValueError), match=r"AskUser\.timeout"):
        AskUser(timeout=seconds)


@pytest.mark.parametrize("text", [None, 5, "\ud800"])
async def test_extract_from_what_is_no_text(autojump_clock: Any, text: Any) -> None:
    """It is refused before a model is asked."""
    model = ScriptedModel([])
    with pytest.raises((TypeError, ValueError), match="text"):
        await extract(model, Invoice, text)
    assert [] == model.requests


async def test_gate_forgets_what_is_over(autojump_clock: Any) -> None:
    """What it remembers of calls that were rejected does not grow with the conversation."""
    effects = Effects()
    replies: Callable[[Any], Any] = lambda request: "end" if request.messages[-1].results else Call("pay", amount=1)  # noqa: E731
    agent = Agent(model=ScriptedModel(replies), tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        for _ in range(5):
            await world.decide(Reject((await world.ask()).calls[0]))
        runtime = world.sessions.runtime
        entry = runtime.registry.find(runtime.agent_id_of(CONVERSATION), CONVERSATION)
        assert entry is not None
        assert entry.live is not None
        remembered = entry.live.pipeline._waiting_tools or {}

    assert 1 == len(remembered)


@pytest.mark.parametrize("said", [{"value": "S"}, {"other": "XL"}])
def test_answer_that_says_something_and_declines(said: Any) -> None:
    """It cannot mean both, also where a browser sent it."""
    with pytest.raises(ValueError, match="not both"):
        Answer("i", "c", "d", cancel=True, **said)
    with pytest.raises(ValueError, match="not both"):
        Decision.from_dict({"type": "answer", "interrupt_id": "i", "call_id": "c", "digest": "d", "cancel": True, **said})

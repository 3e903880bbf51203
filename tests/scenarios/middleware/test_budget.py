"""`Budget`: a named error before what would go over, for turns and whole sessions, exact and durable."""

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.middleware import StrictModel, agent_with, asked, on_file
from tests.support.scenarios import FaultyStore, Router, ask, opened, state_of
from trio_sagents import (
    Approve,
    Cancelled,
    Completed,
    Failed,
    Interrupted,
    LimitExceeded,
    Middleware,
    ModelFailed,
    Reject,
    RetryPolicy,
    SessionOpts,
    StartFailed,
    TurnLimits,
    Usage,
)
from trio_sagents.middleware import Approvals, Budget, ConversationTitle, SubAgents, Summarization, Task
from trio_sagents.testing import Call, Hang

COST = {"scripted": (10.0, 100.0)}
"""Per million tokens: an answer of 1,000 and 100 tokens costs 0.02."""
USED = Usage(1000, 100)


async def tool() -> str:
    """Do."""
    return "done"


async def slow() -> str:
    """Take 10 seconds."""
    await trio.sleep(10)
    return "done"


def limit_of(outcome: Any) -> str:
    """Return which limit a turn hit."""
    assert isinstance(outcome, Failed), outcome
    assert isinstance(outcome.error, LimitExceeded), outcome
    return outcome.error.limit


def loop(n: int = 50) -> list[Any]:
    return [Call("tool") for _ in range(n)]


@pytest.mark.parametrize(
    ("limits", "name", "value", "calls"),
    [
        ({"max_tokens": 3300}, "budget_tokens", 3300, 3),
        ({"max_tokens": 3301}, "budget_tokens", 4400, 4),
        ({"max_tokens": 0}, "budget_tokens", 0, 0),
        ({"max_cost": 0.06, "prices": COST}, "budget_cost", 0.06, 3),
        ({"max_cost": 0.05, "prices": COST}, "budget_cost", 0.06, 3),
        ({"max_cost": 5.0, "prices": lambda name, usage: float(usage.output_tokens // 50)}, "budget_cost", 6.0, 3),
        ({"max_calls": 3}, "budget_calls", 4, 3),
        ({"max_calls": 0}, "budget_calls", 1, 0),
        ({"max_tool_calls": 3}, "budget_tool_calls", 4, 4),
    ],
)
@pytest.mark.parametrize("per", ["turn", "session"])
async def test_turn_when_a_limit_is_reached(autojump_clock: Any, per: Any, limits: Any, name: str, value: float, calls: int) -> None:
    """The call that would go over is not made; the turn fails with the name of the limit, its value and what it had reached."""
    agent = agent_with(Budget(per=per, **limits), replies=loop(), usage=USED, tools=[tool])
    async with opened(agent) as sessions:
        outcome = await ask(sessions)
        state = await state_of(sessions)

    assert name == limit_of(outcome)
    assert pytest.approx(value) == outcome.error.value  # type: ignore[union-attr]
    assert next(iter(limits.values())) == outcome.error.most  # type: ignore[union-attr]
    assert calls == len(asked(agent))
    assert {call.call_id for message in state.messages for call in message.calls} == {
        result.call_id for message in state.messages for result in message.results
    }


@pytest.mark.parametrize(("max_tokens", "statuses"), [(1100, ["completed"]), (1099, ["cancelled"])])
async def test_tools_when_tokens_are_used_up(autojump_clock: Any, max_tokens: int, statuses: list[str]) -> None:
    """Tools of an answer that just reaches the limit run; tools of an answer that exceeds it do not."""
    agent = agent_with(Budget(max_tokens=max_tokens), replies=loop(), usage=USED, tools=[tool])
    async with opened(agent) as sessions:
        outcome = await ask(sessions)
        state = await state_of(sessions)

    assert "budget_tokens" == limit_of(outcome)
    assert statuses == [result.status for message in state.messages for result in message.results]


async def test_next_turn_when_budgets_are_per_turn(autojump_clock: Any) -> None:
    """Each turn has the whole budget again."""
    agent = agent_with(Budget(max_calls=2), replies=[Call("tool"), "one", *loop(2), Call("tool"), "three"], tools=[tool])
    async with opened(agent) as sessions:
        outcomes = [await ask(sessions, str(number)) for number in range(3)]

    assert isinstance(outcomes[0], Completed)
    assert "budget_calls" == limit_of(outcomes[1])
    assert isinstance(outcomes[2], Completed)


@pytest.mark.parametrize(
    "limits", [{"max_tokens": 4400}, {"max_cost": 0.08, "prices": COST}, {"max_calls": 4}, {"max_tool_calls": 2}, {"max_seconds": 15.0}]
)
async def test_session_when_the_process_is_restarted(autojump_clock: Any, database: Path, limits: Any) -> None:
    """The sum of a session continues in the next process, and stays used up in every later turn."""
    replies = [Call("slow"), "one"] if "max_seconds" in limits else [Call("tool"), "one"]
    agent = agent_with(Budget(per="session", **limits), replies=replies, usage=USED, tools=[tool, slow])
    async with on_file(database, agent) as sessions:
        first = await ask(sessions)
    await trio.sleep(1000)
    agent = agent_with(Budget(per="session", **limits), replies=[*replies, *loop()], usage=USED, tools=[tool, slow])
    async with on_file(database, agent) as sessions:
        await trio.sleep(1000)
        second = await ask(sessions, "two")
        third = await ask(sessions, "three")
    agent = agent_with(Budget(per="session", **limits), replies=loop(), usage=USED, tools=[tool, slow])
    async with on_file(database, agent) as sessions:
        fourth = await ask(sessions, "four")

    assert isinstance(first, Completed)
    name = "budget_" + next(iter(limits)).removeprefix("max_")
    if name == "budget_seconds":
        assert name == limit_of(second)
    else:
        assert isinstance(second, Completed), second
    assert name == limit_of(third) == limit_of(fourth)
    assert len(asked(agent)) == (1 if name == "budget_tool_calls" else 0)


async def test_seconds_when_a_call_takes_long(autojump_clock: Any) -> None:
    """A model call or a tool call is cut at the limit; the time between turns does not count."""
    agent = agent_with(Budget(max_seconds=15.0), replies=[Call("slow"), Call("slow"), Hang(), "ok"], tools=[slow])
    async with opened(agent) as sessions:
        began = trio.current_time()
        in_tool = await ask(sessions)
        seconds = trio.current_time() - began
        await trio.sleep(100)
        began = trio.current_time()
        in_model = await ask(sessions)
        waited = trio.current_time() - began
        ok = await ask(sessions)

    assert "budget_seconds" == limit_of(in_tool) == limit_of(in_model)
    assert pytest.approx(15) == seconds == waited
    assert isinstance(ok, Completed)


async def test_seconds_when_tools_are_parallel(autojump_clock: Any) -> None:
    """Seconds are those of the turn, not the sum over calls at once."""
    agent = agent_with(Budget(max_seconds=15.0), replies=[[Call("slow") for _ in range(5)], "ok"], tools=[slow])
    async with opened(agent) as sessions:
        assert isinstance(await ask(sessions), Completed)


async def test_tokens_when_a_turn_is_cut(autojump_clock: Any, database: Path) -> None:
    """What a cancelled or failed call has used counts, durable, and so does each attempt."""

    def agent(*replies: Any) -> Any:
        retry = RetryPolicy(attempts=2, first_delay=0.0)
        return agent_with(Budget(per="session", max_tokens=5000), replies=list(replies), usage=USED, retry=retry)

    async with on_file(database, agent(Hang(), ModelFailed("x", retryable=True), ModelFailed("x"))) as sessions:
        receipt = await sessions.post("c", "go")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        cancelled = await receipt.wait()
        failed = await ask(sessions)
    async with on_file(database, agent(Hang())) as sessions:
        receipt = await sessions.post("c", "go")
        await trio.sleep(1)
        await sessions.stop("c")
    model = agent("ok", "ok")
    async with on_file(database, model) as sessions:
        fifth = await ask(sessions)
        sixth = await ask(sessions)

    assert isinstance(cancelled, Cancelled)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ModelFailed)
    assert isinstance(fifth, Completed)
    assert ("budget_tokens", 5500) == (limit_of(sixth), sixth.error.value)  # type: ignore[union-attr]


async def test_tokens_when_sub_agents_use_them(autojump_clock: Any) -> None:
    """What a sub-agent uses is in the sum when it has ended."""
    task = Task(name="helper", description="helps", model=StrictModel(["helped"] * 3, Usage(5000, 0)))
    calls = [Call("task", name="helper", instructions="Help.")]
    agent = agent_with(Budget(max_tokens=5000), SubAgents((task,), general_purpose=False), replies=[calls, calls], usage=Usage(1, 0))
    async with opened(agent) as sessions:
        outcome = await ask(sessions)

    assert ("budget_tokens", 5001) == (limit_of(outcome), outcome.error.value)  # type: ignore[union-attr]
    assert 1 == len(asked(agent))


async def test_sub_agent_when_it_has_a_budget_of_its_own(autojump_clock: Any) -> None:
    """A sub-agent's own budget ends the sub-agent. The parent reads that, and continues."""
    task = Task(name="helper", description="helps", tools=(tool,), middleware=(Budget(max_calls=2),), model=StrictModel(loop()))
    agent = agent_with(SubAgents((task,), general_purpose=False), replies=[Call("task", name="helper", instructions="Help."), "ok"])
    async with opened(agent) as sessions:
        outcome = await ask(sessions)
        state = await state_of(sessions)

    assert isinstance(outcome, Completed)
    (result,) = (result for message in state.messages for result in message.results)
    assert "budget_calls exceeded: 3, the limit is 2" in result.content


@pytest.mark.parametrize(
    ("limits", "name", "made"),
    [
        ({"max_calls": 4}, "budget_calls", 4),
        ({"max_tool_calls": 4}, "budget_tool_calls", 4),
        ({"max_tokens": 4400}, "budget_tokens", 4),
        ({"max_cost": 0.08, "prices": COST}, "budget_cost", 4),
        ({"max_seconds": 30.0}, "budget_seconds", 3),
    ],
)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("per", ["turn", "session"])
async def test_sub_agent_when_the_budget_around_it_is_used_up(
    autojump_clock: Any, per: Any, limits: Any, name: str, made: int, depth: int
) -> None:
    """What a sub-agent does counts while it does it, however deep: at the limit it ends, and the turn with it."""
    ran: list[float] = []

    async def work() -> str:
        """Work."""
        ran.append(trio.current_time())
        await trio.sleep(10 if "max_seconds" in limits else 0)
        return "done"

    worker = StrictModel([Call("work") for _ in range(50)], USED)
    inner: Any = Task(name="helper", description="helps", model=worker, tools=(work,))
    if depth == 2:
        hand_on = StrictModel([Call("task", name="helper", instructions="Help.")] * 5, USED)
        nested = SubAgents((inner,), general_purpose=False, max_depth=2)
        inner = Task(name="manager", description="manages", model=hand_on, middleware=(nested,))
    calls = [Call("task", name=inner.name, instructions="Help.")]
    agent = agent_with(
        Budget(per=per, **limits), SubAgents((inner,), general_purpose=False, max_depth=2), replies=[*calls, "ok"], usage=USED
    )
    async with opened(agent) as sessions:
        outcome = await ask(sessions)
        state = await state_of(sessions)

    assert name == limit_of(outcome)
    requests = len(asked(agent)) + len(worker.requests) + (len(hand_on.requests) if depth == 2 else 0)
    if name == "budget_tool_calls":
        assert made == len(ran) + depth  # each task is a call, too
    elif name == "budget_seconds":
        assert made == len(ran)
    else:
        assert made == requests
    if per == "session":
        spent = state.metadata["Budget:session"]["spent"]
        assert (requests, requests * 1100) == (spent["calls"], spent["tokens"])


async def test_general_purpose_sub_agent_when_it_has_the_same_budget(autojump_clock: Any) -> None:
    """A sub-agent that inherits the budget of its parent is counted once, in the account of its parent."""
    replies = [Call("task", name="general-purpose", instructions="Help."), Call("tool"), Call("tool"), "helped", "ok"]
    agent = agent_with(Budget(max_calls=5, max_tool_calls=3), SubAgents(), replies=replies, tools=[tool])
    async with opened(agent) as sessions:
        assert isinstance(await ask(sessions), Completed)
        assert 5 == len(asked(agent))


async def test_cost_when_sub_agents_and_summaries_have_other_models(autojump_clock: Any) -> None:
    """Each model counts at its own price. A model without a price counts at the highest prices, and the log says so."""
    task = Task(name="helper", description="helps", model=StrictModel(["helped"], Usage(1, 0), "small"))
    writer = StrictModel(["S"] * 9, Usage(1, 0), "writer")
    prices = {"scripted": (100e6, 0.0), "small": (1e6, 0.0), "writer": (10e6, 0.0)}
    agent = agent_with(
        Budget(max_cost=9e9, prices=prices, per="session"),
        Summarization(trigger_tokens=4, keep_messages=1, model=writer, estimate=lambda request: len(request.messages)),
        SubAgents((task,), general_purpose=False),
        replies=["one", "two", Call("task", name="helper", instructions="Help."), "three"],
        usage=Usage(1, 0),
    )
    async with opened(agent) as sessions:
        for _ in range(3):
            assert isinstance(await ask(sessions), Completed)
        state = await state_of(sessions)

    assert 401 + 10 * len(writer.requests) == state.metadata["Budget:session"]["spent"]["cost"]
    assert writer.requests


async def test_cost_when_a_model_has_no_price(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A model that is not in the prices counts at the highest of them, and the log says so once."""
    task = Task(name="helper", description="helps", model=StrictModel(["helped"] * 2, Usage(1, 1), "other"))
    calls = [Call("task", name="helper", instructions="Help.")] * 2
    prices = {"scripted": (1e6, 0.0), "dear": (5e6, 7e6)}
    agent = agent_with(Budget(max_cost=1000.0, prices=prices, per="session"), SubAgents((task,), general_purpose=False),
                       replies=[calls, "ok"], usage=Usage(1, 0))  # fmt: skip
    async with opened(agent) as sessions:
        assert isinstance(await ask(sessions), Completed)
        state = await state_of(sessions)

    assert 2 + 2 * (5 + 7) == state.metadata["Budget:session"]["spent"]["cost"]
    assert 1 == sum("no price for the model 'other'" in record.message for record in caplog.records)


@pytest.mark.parametrize("limits", [{"max_tool_calls": 2}, {"max_tokens": 1500}, {"max_cost": 0.015, "prices": COST}])
async def test_siblings_when_a_call_is_refused(autojump_clock: Any, limits: Any) -> None:
    """A call that is refused at a limit cuts no call beside it: those end first, then the turn does."""
    log: list[str] = []

    async def pay(seconds: float) -> str:
        """Pay."""
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            log.append("cut")
            raise
        log.append("paid")
        return "paid"

    class Spender(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            result = await call_next(call)
            context.add_usage(Usage(1000, 0))
            return result

    answer = [Call("pay", seconds=1), Call("pay", seconds=10), Call("pay", seconds=3)]
    agent = agent_with(
        Budget(**limits), Spender(), replies=[answer, "ok"], usage=Usage(1000, 0), tools=[pay], limits=TurnLimits(max_parallel=2)
    )
    async with opened(agent) as sessions:
        outcome = await ask(sessions)
        state = await state_of(sessions)

    assert limit_of(outcome).startswith("budget_")
    assert ["paid", "paid"] == log
    results = {result.call_id: result for message in state.messages for result in message.results}
    assert ["cancelled", "completed", "completed"] == sorted(result.status for result in results.values())
    refused = next(result for result in results.values() if result.status == "cancelled")
    assert refused.content.startswith("This call was not run: budget_")


async def test_refused_call_when_a_sibling_waits_for_people(autojump_clock: Any, database: Path) -> None:
    """A turn in which a call was refused ends with the limit, also if it waits for people in between, over a restart too."""

    def agent(*replies: Any) -> Any:
        return agent_with(Budget(max_tool_calls=1), Approvals({"slow": True}), replies=list(replies), tools=[tool, slow])

    async with on_file(database, agent([Call("tool"), Call("tool"), Call("slow")])) as sessions:
        outcome = await ask(sessions)
        assert isinstance(outcome, Interrupted)
    async with on_file(database, agent("ok")) as sessions:
        receipt = await sessions.resume("c", [Reject(call) for call in outcome.interrupt.calls])
        ended = await receipt.wait()

    assert "budget_tool_calls" == limit_of(ended)


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_waiting_call_when_it_continues(autojump_clock: Any, database: Path, is_restarted: bool) -> None:
    """A call whose sub-agent waits for people is made again when they have decided; it counts once."""

    def agent(*replies: Any) -> Any:
        worker = StrictModel([Call("slow"), "helped"] if replies[0] != "ok" else ["helped"])
        task = Task(name="helper", description="helps", model=worker, tools=(slow,), middleware=(Approvals({"slow": True}),))
        return agent_with(Budget(max_tool_calls=2), SubAgents((task,), general_purpose=False), replies=list(replies))

    async with on_file(database, agent(Call("task", name="helper", instructions="Help."), "ok")) as sessions:
        outcome = await ask(sessions)
        assert isinstance(outcome, Interrupted)
        if not is_restarted:
            ended = await (await sessions.resume("c", [Approve(call) for call in outcome.interrupt.calls])).wait()
    if is_restarted:
        async with on_file(database, agent("ok")) as sessions:
            ended = await (await sessions.resume("c", [Approve(call) for call in outcome.interrupt.calls])).wait()

    assert isinstance(ended, Completed), ended


async def test_tokens_when_nobody_reports_them(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Tokens that a provider does not report are estimated: the budget binds, and the log says once that it rests on estimates."""
    agent = agent_with(Budget(max_tokens=3000, per="session"), replies=lambda request: "word " * 800)
    async with opened(agent) as sessions:
        outcomes = [await ask(sessions) for _ in range(4)]
        state = await state_of(sessions)

    assert [Completed, Completed, Failed, Failed] == [type(outcome) for outcome in outcomes]
    assert "budget_tokens" == limit_of(outcomes[2])
    # Two answers of 1,000 tokens, and the first of them read again.
    assert 3000 <= state.metadata["Budget:session"]["spent"]["tokens"] <= 3100
    assert 1 == sum("does not report its usage" in record.message for record in caplog.records)


async def test_tokens_when_an_answer_is_cut_before_they_are_reported(autojump_clock: Any) -> None:
    """A call that was cancelled before its provider reported anything counts as far as it came; so does one that failed in the middle."""

    def reply(request: Any) -> Any:
        match request.messages[-1].text:
            case "hang":
                return ["word " * 400, Hang()]
            case "fail":
                return ["word " * 400, ModelFailed("broken off")]
            case _:
                return ModelFailed("refused", kind="invalid_request") if request.messages[-1].text == "refuse" else "ok"

    agent = agent_with(Budget(max_tokens=10**6, per="session"), replies=reply)
    spent = []
    async with opened(agent) as sessions:
        for text in ("hang", "fail", "refuse"):
            receipt = await sessions.post("c", text)
            await trio.sleep(1)
            await sessions.cancel_turn("c")
            await receipt.wait()
            spent.append((await state_of(sessions)).metadata["Budget:session"]["spent"]["tokens"])

    assert 500 <= spent[0] <= 520
    assert 1000 <= spent[1] - spent[0] <= 1040  # it read the first answer, too


async def test_tokens_when_middleware_uses_them(autojump_clock: Any) -> None:
    """Summaries count in their turn, titles in the session; a turn that is refused makes no summary first."""
    writer = StrictModel(["S"] * 9, Usage(700, 0), "writer")
    agent = agent_with(
        Budget(per="session", max_tokens=2000),
        Summarization(trigger_tokens=4, keep_messages=1, model=writer, estimate=lambda request: len(request.messages)),
        ConversationTitle(model=writer),
        usage=Usage(100, 0),
    )
    async with opened(agent) as sessions:
        outcomes = []
        for number in range(5):
            outcomes.append(await ask(sessions, str(number)))
            await trio.sleep(1)
        state = await state_of(sessions)

    assert "S" == state.metadata["title"]
    # Turn 0: 100, and the title's 700. Turn 1: 100. Turn 2: a summary, 700, and 100. Turn 3: a summary, and no answer any more.
    assert [True, True, True, False, False] == [isinstance(outcome, Completed) for outcome in outcomes]
    assert ("budget_tokens", 2400) == (limit_of(outcomes[3]), outcomes[3].error.value)  # type: ignore[union-attr]
    assert 3 == len(writer.requests)


async def test_cost_when_models_differ(autojump_clock: Any) -> None:
    """A fallback's answer has the fallback's price. A fallback that is not listed has the price of the agent's model."""
    prices = {"scripted": (0.0, 0.0), "dear": (10e6, 0.0)}
    down = StrictModel(lambda request: ModelFailed("down"))
    dear = StrictModel(lambda request: Call("tool"), Usage(1, 0), "dear")
    agent = agent_with(Budget(max_cost=30.0, prices=prices), model=down, fallbacks=[dear], tools=[tool])
    async with opened(agent) as sessions:
        outcome = await ask(sessions)

    assert ("budget_cost", 30.0) == (limit_of(outcome), outcome.error.value)  # type: ignore[union-attr]
    assert 3 == len(dear.requests)


@pytest.mark.parametrize("limits", [{"max_calls": 3}, {"max_tokens": 3300}, {"max_tool_calls": 2, "max_seconds": 30.0}])
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_turn_when_it_waits_for_people(autojump_clock: Any, database: Path, is_restarted: bool, limits: Any) -> None:
    """A turn that continues after an approval, even in another process, has the budget that was left. Waiting costs no seconds."""

    def agent(*replies: Any) -> Any:
        return agent_with(Budget(**limits), Approvals({"slow": True}), replies=list(replies), usage=USED, tools=[tool, slow])

    first = agent(Call("tool"), Call("slow"), *loop())
    async with on_file(database, first) as sessions:
        outcome = await ask(sessions)
        assert isinstance(outcome, Interrupted)
        await trio.sleep(1000)
        if not is_restarted:
            receipt = await sessions.resume("c", [Approve(call) for call in outcome.interrupt.calls])
            ended = await receipt.wait()
    if is_restarted:
        second = agent(*loop())
        async with on_file(database, second) as sessions:
            receipt = await sessions.resume("c", [Approve(call) for call in outcome.interrupt.calls])
            ended = await receipt.wait()
        assert 1 == len(asked(second))

    assert "budget_" + next(iter(limits)).removeprefix("max_") == limit_of(ended)
    assert len(asked(first)) == (2 if is_restarted else 3)


async def test_two_budgets_when_both_are_there(autojump_clock: Any) -> None:
    """A budget for turns and a budget for the session work together; two budgets of one kind are refused."""
    agent = agent_with(Budget(max_calls=2), Budget(max_calls=3, per="session"), replies=[*loop(2), *loop(9)], tools=[tool])
    async with opened(agent) as sessions:
        first = await ask(sessions)
        second = await ask(sessions)

    assert (2.0, 3.0) == (first.error.most, second.error.most)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="have the id 'Budget:turn'"):
        agent_with(Budget(max_calls=2), Budget(max_tokens=2))


@pytest.mark.parametrize(
    "stored", [None, 5, {}, {"turn_id": "t"}, {"turn_id": "t", "spent": {"tokens": "many"}, "beside": {}}, {"turn_id": 5, "spent": {}}]
)
async def test_account_when_what_is_stored_is_wrong(autojump_clock: Any, stored: Any) -> None:
    """A stored account that cannot be read starts again from zero."""
    agent = agent_with(Budget(max_calls=2, per="session"))
    metadata = {"Budget:session": stored, "usage:X": {"m": 5}, "usage:Y": 5}
    async with opened(Router(agent, SessionOpts(fresh_state_attrs={"metadata": metadata}))) as sessions:
        outcomes = [await ask(sessions) for _ in range(3)]

    assert [Completed, Completed, Failed] == [type(outcome) for outcome in outcomes]


async def test_account_when_it_cannot_be_kept(autojump_clock: Any) -> None:
    """A store that fails fails the turn, and nothing continues that is not on record."""
    store = FaultyStore()
    async with opened(agent_with(Budget(max_calls=9, per="session")), store=store) as sessions:
        store.faults.fail("commit", 3)  # post, take, account
        failed = await ask(sessions)
        again = await ask(sessions)

    assert isinstance(failed, Failed)
    assert isinstance(again, Completed)


async def test_budget_when_a_price_is_missing(autojump_clock: Any) -> None:
    """An agent whose model has no price does not start."""
    agent = agent_with(Budget(max_cost=1.0, prices={"other": (1, 1)}))
    async with opened(agent) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

    assert "no price for the model 'scripted'" in str(caught.value.__cause__.__cause__)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_cost": 1.0},
        {"max_cost": -1.0, "prices": COST},
        {"max_cost": 1.0, "prices": {"x": 5}},
        {"max_cost": 1.0, "prices": {"x": (1, -1)}},
        {"max_cost": 1.0, "prices": 5},
        {"max_calls": "3"},
        {"max_seconds": -1},
        {"max_calls": 3, "per": "day"},
    ],
)
def test_budget_when_arguments_are_wrong(arguments: Any) -> None:
    """What cannot be meant is refused when it is built."""
    with pytest.raises((TypeError, ValueError)):
        Budget(**arguments)

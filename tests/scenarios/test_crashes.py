"""Crashes and failed writes at every moment of a conversation with people in it: nothing runs twice, or without its approval."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest
import trio

from tests.support.payments import Purse, interrupt_of, paying, results_of
from tests.support.people import CONVERSATION, Effects, World, call_of, gated, interrupt_in, scripted, text_of
from tests.support.records import check_request
from tests.support.scenarios import (
    FaultyStore,
    kill_9,
    opened,
)
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Answer,
    Approvals,
    Approve,
    AskUser,
    Cancelled,
    Completed,
    Edit,
    Interrupted,
    Middleware,
    PersistenceError,
    Reject,
    StartFailed,
    SubAgents,
    Task,
    Tool,
    ToolContext,
    Unanswered,
)
from trio_sagents.testing import Call, ScriptedModel


def everything(effects: Effects) -> Any:
    """Return an agent whose first turn has approvals, a question, a sub-agent, and work that asks nobody."""
    tools = [effects.tool("look"), effects.tool("pay"), effects.tool("move")]

    def sub(request: Any) -> Any:
        results = [result for message in request.messages for result in message.results]
        return "sub done" if results else [Call("look", amount=10), Call("pay", amount=11)]

    def reply(request: Any) -> Any:
        check_request(request.messages)
        last = request.messages[-1]
        if last.role == "tool" or "everything" not in last.text:
            return f"done with {len(request.messages)}"
        return [
            Call("look", amount=1),
            Call("pay", amount=2),
            Call("move", amount=3),
            Call("ask_user", question="Which?"),
            Call("task", instructions="x", name="t"),
        ]

    task = Task(name="t", description="d", model=ScriptedModel(sub), tools=tools)
    return Agent(
        model=ScriptedModel(reply),
        tools=tools,
        middleware=[gated(effects, "pay", "move"), AskUser(), SubAgents([task], general_purpose=False)],
    )


def decisions_of(interrupt: Any) -> Mapping[str, Any]:
    """Return one decision for each pending call, by the call's id."""
    found = {}
    for call in interrupt.calls:
        match call.name, bool(call.path):
            case "pay", False:
                found["pay"] = Approve(call)
            case "pay", True:
                found["sub"] = Edit(call, {"amount": 12})
            case "move", _:
                found["move"] = Reject(call, "no")
            case _:
                found["question"] = Answer(call, "blue")
    return found


ALLOWED = {"look": [1, 10], "pay": [2, 12], "move": []}


def check_effects(effects: Effects) -> None:
    """Check that only allowed calls ran, and that no call ran twice."""
    for name, amounts in ALLOWED.items():
        ran = effects.of(name)
        assert len(set(ran)) == len(ran), f"{name} ran twice: {ran}"
        assert set(ran) <= set(amounts), f"{name} ran with {ran}"
    assert len(set(effects.keys)) == len(effects.keys)


@pytest.mark.parametrize("n", range(1, 15))
async def test_crash_after_every_commit(autojump_clock: Any, backend: Backend, n: int) -> None:
    """After a crash behind the n-th commit, for every n: a pending call runs once, decisions count, a call that had begun is unknown."""
    effects = Effects()
    sent: dict[str, Any] = {}
    async with World(everything(effects), backend) as world:
        image: list[Any] = []
        at_crash: list[Any] = []

        def on_commit(commit: Any) -> None:
            if len(world.store.commits) == n:
                image.append(world.backend.clone())
                at_crash.append((list(effects.done), list(effects.keys), dict(sent)))

        world.store.on_commit = on_commit
        interrupt = await world.ask("everything")
        by_kind = decisions_of(interrupt)
        for names in (["sub"], ["pay", "question"], ["move"]):
            receipt = await world.resume(*[by_kind[name] for name in names])
            sent.update({name: by_kind[name] for name in names})
            await receipt.wait()
        if not image:
            assert n > 10, "there are fewer commits than there should be"
            return
        await world.restart()
    # What the dead process did after that moment never happened, except for the effects that the outside world had seen by then.
    effects.done[:], effects.keys[:], known = at_crash[0]
    async with World(everything(effects), image[0]) as world:
        await (await world.handle()).wait_idle()
        check_effects(effects)
        begun = len(effects.done)
        for name, decision in known.items():
            receipt = await world.resume(decision)
            assert receipt.duplicate, f"the decision about {name} was acknowledged, and is gone"
            assert not isinstance(await receipt.wait(), Completed) or n > 9
        waiting = await world.interrupt()
        if waiting is not None:
            assert {record.call_id for record in waiting.decided} >= {decision.call_id for decision in known.values()}
            left = decisions_of(waiting)
            outcome = await world.decide(*left.values())
            assert isinstance(outcome, Completed)
        else:
            assert begun == len(effects.done)
        check_effects(effects)
        for decision in known.values():
            assert (await world.resume(decision)).duplicate
        assert "done with" in text_of(await world.post("and now"))
        check_effects(effects)


@pytest.mark.parametrize("n", range(1, 13))
@pytest.mark.parametrize("lies", [False, True], ids=["not stored", "stored, and said it was not"])
async def test_failed_write_at_every_commit(autojump_clock: Any, n: int, lies: bool) -> None:
    """If the n-th write fails, its caller is told, the conversation continues, and no call runs twice or without permission."""
    effects = Effects()
    async with World(everything(effects)) as world:
        count = 0

        def before_commit(commit: Any) -> BaseException | None:
            nonlocal count
            count += 1
            return OSError("disk") if count == n and not lies else None

        def on_commit(commit: Any) -> None:
            if count == n and lies:
                raise OSError("the answer was lost")

        world.store.before_commit, world.store.on_commit = before_commit, on_commit
        # After a false report the agent takes its own write for another writer's, and starts again. So two calls may fail.
        sent = [*await _go_through(world, "everything", most=2 if lies else 1)]
        sent += await _go_through(world, "and now", most=2 if lies else 1)
        await world.crash()
        assert "done with" in text_of(await world.post("and now"))

        allowed = {decision.call_id: {Approve: 2, Edit: 12}[type(decision)] for decision in sent if isinstance(decision, Approve | Edit)}
        ran = [
            (key.rpartition("/")[2], given["amount"])
            for key, (name, given) in zip(effects.keys, effects.done, strict=True)
            if name == "pay"
        ]
        assert len(dict(ran)) == len(ran)
        assert set(ran) <= set(allowed.items())
        assert [] == effects.of("move")


async def _go_through(world: World, text: str, *, most: int) -> Sequence[Any]:
    """Post, and decide all that comes, until the turn has ended as it should; at most `most` calls fail. Return the decisions."""
    failures, sent = 0, []
    while True:
        try:
            await (await world.handle()).wait_idle()  # a write that was stored, although it was reported as failed, is answered first
            waiting = await world.interrupt()
            if waiting is None:
                outcome = await world.post(text)
            else:
                sent.append(next(iter(decisions_of(waiting).values())))
                outcome = await world.decide(sent[-1])
        except (PersistenceError, StartFailed):
            outcome = None
        if isinstance(outcome, Completed):
            return sent
        failures += not isinstance(outcome, Interrupted)
        assert failures <= most, outcome


@pytest.mark.parametrize("where", ["agent", "sub-agent"])
async def test_process_dies_while_an_approved_tool_runs(autojump_clock: Any, backend: Backend, where: str) -> None:
    """On return the call is "unknown", to people and to the model; its approval is used up; it runs again only as another call."""
    effects = Effects()
    effects.gates["pay"] = trio.Event()
    pay = effects.tool("pay")
    if where == "agent":
        agent = scripted(Call("pay", amount=1), Call("pay", amount=1), "done", "done", tools=[pay], middleware=[gated(effects, "pay")])
    else:
        model = ScriptedModel([Call("pay", amount=1), Call("pay", amount=1), "sub done"])
        task = Task(name="t", description="d", model=model, tools=[pay], middleware=[gated(effects, "pay")])
        again = Call("task", instructions="x", name="t")
        agent = scripted(again, again, "done", "done", middleware=[SubAgents([task], general_purpose=False)])
    name = "pay" if where == "agent" else "task"
    async with World(agent, backend) as world:
        first = await world.ask()
        await world.resume(Approve(first.calls[0]))
        await trio.sleep(1)
        assert [1] == effects.of("pay")
        await world.crash()

        assert await world.interrupt() is None
        status, text = (await world.results())[name]
        assert "unknown" == status
        assert "may have taken effect" in text
        rows = [row for row in (await world.sessions.history(CONVERSATION)).rows if row.content_type == "tool_call"]
        assert ["unknown"] == [row.status for row in rows]
        assert ["approve"] == [record.kind for record in await world.records()]
        receipt = await world.resume(Approve(first.calls[0]))
        assert receipt.duplicate
        assert isinstance(await receipt.wait(), Unanswered)
        with pytest.raises(AlreadyDecided):
            await world.resume(Reject(first.calls[0]))
        assert [1] == effects.of("pay")
        effects.gates.clear()
        second = interrupt_in(await world.post("try again"))
        assert first.calls[0].digest == second.calls[0].digest
        assert [1] == effects.of("pay")
        assert "done" == text_of(await world.decide(Approve(second.calls[0])))

        assert [1, 1] == effects.of("pay")
        assert 2 == len(set(effects.keys))


async def test_process_dies_between_the_decision_and_the_tool(autojump_clock: Any, backend: Backend) -> None:
    """The decision is stored, nothing has begun, and nobody can know that: unknown, and never run without a new decision."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", "next", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        images: list[Any] = []
        world.store.on_commit = lambda commit: images or images.append(world.backend.clone())  # type: ignore[func-returns-value]  # once
        await world.decide(Approve(interrupt.calls[0]))
    effects.done.clear()
    async with World(agent, images[0]) as world:
        await (await world.handle()).wait_idle()
        assert "unknown" == (await world.results())["pay"][0]
        assert (await world.resume(Approve(interrupt.calls[0]))).duplicate
        await (await world.handle()).wait_idle()

        assert [] == effects.done
        assert "next" == text_of(await world.post("go on"))


async def test_stop_while_an_approved_tool_runs(autojump_clock: Any, backend: Backend) -> None:
    """A stop cancels the tool and says so; the approval is used up."""
    effects = Effects()
    effects.gates["pay"] = trio.Event()
    agent = scripted(Call("pay", amount=1), "next", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        receipt = await world.resume(Approve(interrupt.calls[0]))
        await trio.sleep(1)
        await world.sessions.stop(CONVERSATION)
        assert isinstance(await receipt.wait(), Cancelled)
        assert "cancelled" == (await world.results())["pay"][0]
        assert isinstance(await world.decide(Approve(interrupt.calls[0])), Cancelled)

        assert [1] == effects.of("pay")


async def test_history_is_valid_whatever_was_decided(autojump_clock: Any, backend: Backend) -> None:
    """Each request to the model answers each call once, right after its question, and the stored history closes each turn."""
    effects = Effects()
    async with World(everything(effects), backend) as world:
        interrupt = await world.ask("everything")
        await world.decide(call := Approve(call_of(interrupt, "pay")))
        await world.crash()
        await world.post("never mind")
        interrupt = interrupt_in(await world.post("everything"))
        await world.crash()
        await world.decide(*decisions_of(interrupt).values())
        with pytest.raises(AlreadyDecided):
            await world.resume(Reject(call.interrupt_id, call.call_id, call.digest))
        messages = await world.messages()
        calls = [call.call_id for message in messages for call in message.calls]
        results = [result.call_id for message in messages for result in message.results]

        assert sorted(calls) == sorted(results)
        assert len(set(calls)) == len(calls) == 10
        assert [message.role for message in messages].count("user") == 3


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


async def test_process_dies_behind_a_rejection(autojump_clock: Any) -> None:
    """A rejected call has its result in the commit of the decision, so a crash right after it cannot make the outcome unknown."""
    effects = Effects()
    calls = [Call("pay", amount=1), Call("move", amount=2)]
    tools = [effects.tool("pay"), effects.tool("move")]
    agent = scripted(calls, "done", "next", tools=tools, middleware=[gated(effects, "pay", "move")])
    images: list[Any] = []
    async with World(agent) as world:
        interrupt = await world.ask()
        world.store.on_commit = lambda _commit: images.append(world.backend.clone())
        await world.decide(Reject(call_of(interrupt, "pay"), "too much"), Approve(call_of(interrupt, "move")))
    async with World(agent, images[0]) as world:
        await (await world.handle()).wait_idle()
        results = await world.results()

        assert "cancelled" == results["pay"][0]
        assert "too much" in results["pay"][1]
        assert "unknown" == results["move"][0]


# ── calls that are repeated


class Feed:
    """A tool that says that it is idempotent, and that does not answer in the first process, or in the first few."""

    def __init__(self, deaths: int = 1, *, tool_brought: bool = False) -> None:
        self.runs: list[tuple[str, str, Any]] = []
        self.deaths = deaths
        self.tools = [Tool.of(self.look, recovery="repeat"), Tool.of(self.move)]
        self.is_brought = tool_brought

    async def look(self, place: str, context: ToolContext) -> str:
        """Look."""
        self.runs.append(("look", context.idempotency_key, context.scope))
        if len([name for name, *_ in self.runs if name == "look"]) <= self.deaths:
            await trio.sleep_forever()
        return f"seen {place}"

    async def move(self, place: str) -> str:
        """Move."""
        self.runs.append(("move", place, None))
        await trio.sleep_forever()
        return "moved"

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.runs]

    def agent(self, *calls: Call) -> Agent:
        def reply(request: Any) -> Any:
            check_request(request.messages)
            return "done" if request.messages[-1].role == "tool" else list(calls)

        middleware: list[Any] = [Brings(self.tools)] if self.is_brought else []
        return Agent(model=ScriptedModel(reply), tools=[] if self.is_brought else self.tools, middleware=middleware)


class Brings(Middleware):
    """Brings tools."""

    def __init__(self, tools: Any) -> None:
        self.given = tools

    async def tools(self, context: Any) -> Any:
        return self.given


@pytest.mark.parametrize("brought", [False, True], ids=["of the agent", "of a middleware"])
async def test_call_of_an_idempotent_tool_when_the_process_dies(autojump_clock: Any, backend: Backend, brought: bool) -> None:
    """It runs again, with the same idempotency key and as whoever asked, and its turn continues; a call of another tool is unknown."""
    feed = Feed(tool_brought=brought)
    async with World(feed.agent(Call("look", place="here"), Call("move", place="there")), backend, scope="clerk") as world:
        await world.sessions.post(CONVERSATION, "go", scope="clerk", message_id="m")
        await trio.sleep(1)
        await world.crash()
        outcome = await (await world.sessions.post(CONVERSATION, "go", scope="clerk", message_id="m")).wait()

        assert "done" == text_of(outcome)
        assert ["look", "look", "move"] == sorted(feed.names)
        assert 1 == len({run for run in feed.runs if run[0] == "look"})
        results = await world.results()
        assert ("completed", "seen here") == results["look"]
        assert "unknown" == results["move"][0]
        await world.crash()
        await world.handle()
        assert 3 == len(feed.runs)


async def test_call_of_an_idempotent_tool_when_it_ends_the_process_again(autojump_clock: Any, backend: Backend) -> None:
    """It is repeated once: if the process dies again, its outcome is unknown, so that no call can end each process that starts."""
    feed = Feed(deaths=5)
    async with World(feed.agent(Call("look", place="here")), backend) as world:
        await world.sessions.post(CONVERSATION, "go")
        await trio.sleep(1)
        for _ in range(2):
            await world.crash()
            await world.handle()
            await trio.sleep(1)

        assert ["look", "look"] == feed.names
        assert "unknown" == (await world.results())["look"][0]


async def test_call_that_was_approved_when_its_tool_is_idempotent(autojump_clock: Any, backend: Backend) -> None:
    """What a person decided runs once: an approved call is unknown after a crash, whatever its tool says."""
    feed = Feed()
    agent = feed.agent(Call("look", place="here"))
    async with World(attrs.evolve(agent, middleware=[Approvals({"look": True})]), backend) as world:
        (call,) = (await world.ask()).calls
        await world.resume(Approve(call))
        await trio.sleep(1)
        await world.crash()
        await world.handle()

        assert ["look"] == feed.names
        assert "unknown" == (await world.results())["look"][0]


async def test_call_of_an_idempotent_tool_when_the_gate_asks_now(autojump_clock: Any) -> None:
    """A call that runs again passes the gate again: if people have to be asked by now, they are asked."""
    feed = Feed()
    agents = [feed.agent(Call("look", place="here"))]
    agents.append(attrs.evolve(agents[0], middleware=[Approvals({"look": True})]))
    async with World(lambda: agents.pop(0)) as world:
        await world.sessions.post(CONVERSATION, "go")
        await trio.sleep(1)
        await world.crash()
        await (await world.handle()).wait_idle()
        interrupt = await world.interrupt()

        assert interrupt is not None
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))
        assert ["look", "look"] == feed.names


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_call_of_an_idempotent_tool_when_its_turn_was_cut(autojump_clock: Any, how: str) -> None:
    """Only a crash lets a call run again: what was stopped or cancelled stays so."""
    feed = Feed()
    async with World(feed.agent(Call("look", place="here"))) as world:
        await world.sessions.post(CONVERSATION, "go")
        await trio.sleep(1)
        if how == "cancelled":
            await world.sessions.cancel_turn(CONVERSATION)
        await world.restart()
        await (await world.handle()).wait_idle()

        assert ["look"] == feed.names
        assert "cancelled" == (await world.results())["look"][0]

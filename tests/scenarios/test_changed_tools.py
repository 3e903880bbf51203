"""A call runs on the tool that was shown, and a tool that nobody has seen stays a newcomer."""

import functools
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from tests.support.people import MEANWHILE, Effects, Meanwhile, World, interrupt_in, scripted, text_of
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    Completed,
    Edit,
    Failed,
    Interrupted,
    Middleware,
    MiddlewareError,
    Reject,
    StartFailed,
    SubAgents,
    Task,
    TodoList,
    Tool,
    ToolContext,
)
from trio_sagents.agent._gate import MAX_ASKED
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, ScriptedModel


class Till:
    """Something that a tool is bound to."""

    def __init__(self, done: list[str], name: str) -> None:
        self.done, self.name = done, name

    async def pay(self, amount: int) -> str:
        """Pay an amount."""
        self.done.append(f"{self.name} {amount}")
        await trio.lowlevel.checkpoint()
        return "paid"


def make_pay(done: list[str], account: str) -> Callable[..., Any]:
    """Return a function that pays from an account."""

    async def pay(amount: int) -> str:
        """Pay an amount."""
        done.append(f"{account} {amount}")
        await trio.lowlevel.checkpoint()
        return "paid"

    return pay


async def pay_from(till: Till, amount: int) -> str:
    """Pay an amount."""
    return await till.pay(amount)


class Bank(Middleware):
    """Brings tools, which may change."""

    def __init__(self, *tools: Any) -> None:
        self.tools_now = tools
        self.contexts: list[Any] = []

    async def on_start(self, context: Any) -> None:
        self.contexts.append(context)

    async def tools(self, context: Any) -> Any:
        return [tool() if isinstance(tool, functools.partial) and tool.func is make_pay else tool for tool in self.tools_now]

    def change(self, *tools: Any) -> None:
        """Bring other tools from the next turn on."""
        self.tools_now = tools
        self.contexts[-1].refresh_tools()


def named(function: Any, **more: Any) -> Tool:
    """Return a function as the tool "pay"."""
    return Tool.of(function, **{"name": "pay", **more})


CHANGES = ("closure", "description", "version", "method", "method of another object", "partial of another object", "origin")


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize("what", CHANGES)
async def test_approved_call_when_its_tool_has_changed(autojump_clock: Any, backend: Backend, what: str, how: Meanwhile) -> None:
    """What was approved as one tool does not run as another, whatever became of the process: people are asked again."""
    done: list[str] = []
    shown, now = changes_of(done, what)
    bank = Bank(shown)
    agent = Agent(model=ScriptedModel(answer), middleware=[bank, Approvals({"pay": True})])
    async with World(agent, backend) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        bank.change(now)
        (again,) = interrupt_in(await world.decide(Approve(call))).calls

        assert [] == done
        assert (shown.origin, now.origin) == (call.origin, again.origin)
        assert (call.call_id, call.arguments, 1) == (again.call_id, again.arguments, again.asked_before)
        assert again.text.startswith("Tool 'pay' has changed since this call was approved: ")
        await world.pass_time(how)
        assert isinstance(await world.decide(Approve(again)), Completed)
        assert 1 == len(done)


def changes_of(done: list[str], what: str) -> tuple[Tool, Tool]:
    """Return the tool that was shown, and the tool that took its place."""
    sandbox = make_pay(done, "sandbox")
    return {
        "closure": (named(sandbox), named(make_pay(done, "production"))),
        "description": (named(sandbox), named(sandbox, description="Pay twice the amount.")),
        "version": (named(sandbox, version="1"), named(sandbox, version="2")),
        "method": (named(Till(done, "a").pay), named(sandbox)),
        "method of another object": (named(Till(done, "a").pay), named(Till(done, "b").pay)),
        "partial of another object": tuple(named(functools.partial(pay_from, Till(done, name))) for name in "ab"),
        "origin": (attrs.evolve(named(sandbox), origin="mcp:a"), attrs.evolve(named(sandbox), origin="mcp:b")),
    }[what]


def answer(request: Any) -> Any:
    """Pay, then say so."""
    return "done" if request.messages[-1].role == "tool" else Call("pay", amount=5)


@pytest.mark.parametrize("what", ["method", "partial", "closure"])
async def test_approved_call_when_its_object_is_another(autojump_clock: Any, what: str) -> None:
    """Within a process, a tool that is bound to another object is another tool, though nothing that is shown has changed."""
    done: list[str] = []
    tills = [Till(done, "till"), Till(done, "till")]
    functions = [{"method": till.pay, "partial": functools.partial(pay_from, till), "closure": make_pay_of(till)}[what] for till in tills]
    bank = Bank(named(functions[0]))
    async with World(Agent(model=ScriptedModel(answer), middleware=[bank, Approvals({"pay": True})])) as world:
        (call,) = (await world.ask()).calls
        bank.change(named(functions[1]))
        (again,) = interrupt_in(await world.decide(Approve(call))).calls

        assert [] == done
        assert "bound values" in again.text


def make_pay_of(till: Till) -> Callable[..., Any]:
    """Return a function that pays from a till."""

    async def pay(amount: int) -> str:
        """Pay an amount."""
        return await till.pay(amount)

    return pay


@pytest.mark.parametrize("how", MEANWHILE)
async def test_approved_call_when_its_tool_is_made_anew(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """Tools that are listed anew, and are what they were, run on the old approval, whatever became of the process."""
    done: list[str] = []
    bank = Bank(functools.partial(make_pay, done, "sandbox"))
    async with World(Agent(model=ScriptedModel(answer), middleware=[bank, Approvals({"pay": True})]), backend) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        if how == "awake":
            bank.change(*bank.tools_now)
        assert isinstance(await world.decide(Approve(call)), Completed)

        assert ["sandbox 5"] == done


async def test_approved_call_when_its_tool_does_not_take_the_arguments_any_more(autojump_clock: Any) -> None:
    """Nobody is asked again about arguments that the changed tool cannot take."""
    done: list[str] = []
    bank = Bank(named(make_pay(done, "a")))

    async def pay(total: int) -> str:
        """Pay a total."""
        return f"{total}"

    async with World(Agent(model=ScriptedModel(answer), middleware=[bank, Approvals({"pay": True})])) as world:
        (call,) = (await world.ask()).calls
        bank.change(pay)
        assert "done" == text_of(await world.decide(Approve(call)))

        status, said = (await world.results())["pay"]
        assert ("failed", True) == (status, "total" in said)


async def test_approved_call_when_no_gate_asks_any_more(autojump_clock: Any) -> None:
    """A changed tool is asked about again, whether or not a middleware asks about it as it is now."""

    class Careful(Middleware):
        async def claim(self, context: Any, call: Any, tool: Any) -> Any:
            return pending(call) if "careful" in tool.description else None

    done: list[str] = []
    bank = Bank(named(make_pay(done, "a"), description="Be careful."))
    async with World(Agent(model=ScriptedModel(answer), middleware=[bank, Careful()])) as world:
        (call,) = (await world.ask()).calls
        bank.change(named(make_pay(done, "a"), description="Harmless."))
        (again,) = interrupt_in(await world.decide(Approve(call))).calls

        assert (("approve", "reject"), ()) == (again.allowed, again.claimed_by)
        assert "done" == text_of(await world.decide(Reject(again)))
        assert [] == done


async def test_edited_call_when_its_tool_has_changed(autojump_clock: Any) -> None:
    """An edit of a call whose tool has changed is asked about again, with the edited arguments and both reasons."""
    done: list[str] = []
    bank = Bank(named(make_pay(done, "a")))
    async with World(Agent(model=ScriptedModel(answer), middleware=[bank, Approvals({"pay": True})])) as world:
        (call,) = (await world.ask()).calls
        bank.change(named(make_pay(done, "b")))
        (again,) = interrupt_in(await world.decide(Edit(call, {"amount": 6}))).calls

        assert {"amount": 6} == again.arguments
        assert "bound values" in again.text
        assert "Edited by a person" in again.text
        await world.decide(Approve(again))
        assert ["b 6"] == done


@pytest.mark.parametrize("how", MEANWHILE)
async def test_approved_call_in_a_sub_agent_when_its_tool_has_changed(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """The calls of sub-agents are bound to the tools that were shown, too; a middleware of theirs may make them anew."""
    done: list[str] = []
    bank = Bank(functools.partial(make_pay, done, "a"))
    script = ScriptedModel(answer)
    task = Task(name="t", description="d", model=script, middleware=[bank])

    def ask(request: Any) -> Any:
        return "done" if request.messages[-1].role == "tool" else Call("task", name="t", instructions="Pay.")

    agent = Agent(model=ScriptedModel(ask), middleware=[Approvals({"pay": True}), SubAgents([task], general_purpose=False)])
    async with World(agent, backend) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        assert "done" == text_of(await world.decide(Approve(call)))
        assert ["a 5"] == done

        (call,) = (await world.ask("again")).calls
        await world.pass_time(how)
        bank.tools_now = (functools.partial(make_pay, done, "b"),)
        (again,) = interrupt_in(await world.decide(Approve(call))).calls
        assert ["a 5"] == done
        assert (("t",), 1) == (again.path, again.asked_before)
        assert "done" == text_of(await world.decide(Approve(again)))
        assert ["a 5", "b 5"] == done


async def test_approved_call_when_its_tool_changes_without_end(autojump_clock: Any) -> None:
    """People are asked about one call a bounded number of times; then the call is not run, and the model reads why."""
    done: list[str] = []
    bank = Bank(named(make_pay(done, "0")))
    async with World(Agent(model=ScriptedModel(answer), middleware=[bank, Approvals({"pay": True})])) as world:
        outcome: Any = await world.post()
        asked = 0
        while isinstance(outcome, Interrupted):
            asked += 1
            bank.change(named(make_pay(done, str(asked))))
            outcome = await world.decide(Approve(outcome.interrupt.calls[0]))
        status, text = (await world.results())["pay"]

    assert (MAX_ASKED, "failed", []) == (asked, status, done)
    assert f"people were asked about this call {MAX_ASKED} times" in text


# ── newcomers


def on_demand(request: Any) -> Any:
    """Call the tool that the person names."""
    return "done" if request.messages[-1].role == "tool" else Call(request.messages[-1].text)


def look(name: str, ran: list[str], description: str = "") -> Tool:
    """Return a tool that notes that it ran."""

    async def act() -> str:
        """Act."""
        ran.append(name)
        await trio.lowlevel.checkpoint()
        return "done"

    return Tool.of(act, name=name, description=description or None)


@pytest.mark.parametrize("how", MEANWHILE)
@pytest.mark.parametrize("newcomers", ["ask", "deny"])
async def test_newcomer_when_the_agent_has_slept(autojump_clock: Any, backend: Backend, newcomers: str, how: Meanwhile) -> None:
    """A tool that came later, or took the place of another, stays a newcomer; what was there from the beginning runs."""
    ran: list[str] = []
    bank = Bank(look("look", ran), look("list", ran))
    agent = Agent(model=ScriptedModel(on_demand), middleware=[bank, TodoList(), Approvals({}, newcomers=newcomers)])
    async with World(agent, backend) as world:
        assert "done" == text_of(await world.post("look"))
        bank.change(look("look", ran), look("list", ran, "Delete everything."), look("wipe", ran))
        for _ in range(2):
            for name in ("wipe", "list"):
                (call,) = interrupt_in(await world.post(name)).calls
                assert (newcomers == "ask") == ("approve" in call.allowed)
                await world.decide(Reject(call))
            assert "done" == text_of(await world.post("look"))
            await world.pass_time(how)

    assert ["look", "look", "look"] == ran


@pytest.mark.parametrize("how", ["awake", "restarted"])
async def test_newcomer_in_a_sub_agent(autojump_clock: Any, how: Meanwhile) -> None:
    """What the first sub-agent of a kind had is known; a tool that its middleware brings later is a newcomer."""
    ran: list[str] = []
    bank = Bank(look("look", ran))
    wanted = ["look", "wipe", "look"]
    inner = ScriptedModel(lambda request: "did it" if request.messages[-1].role == "tool" else Call(wanted.pop(0)))
    task = Task(name="t", description="d", model=inner, middleware=[bank])
    outer = ScriptedModel(lambda request: "done" if request.messages[-1].role == "tool" else Call("task", name="t", instructions="x"))
    agent = Agent(model=outer, middleware=[Approvals({}, newcomers="deny"), SubAgents([task], general_purpose=False)])
    async with World(agent) as world:
        assert "done" == text_of(await world.post("one"))
        bank.tools_now = (look("look", ran), look("wipe", ran))
        await world.pass_time(how)
        (call,) = interrupt_in(await world.post("two")).calls
        assert ("wipe", ("reject",)) == (call.name, call.allowed)
        await world.decide(Reject(call))
        assert "done" == text_of(await world.post("three"))

    assert ["look", "look"] == ran


async def test_tool_of_a_sub_agent_with_the_name_of_a_tool_of_the_agent(autojump_clock: Any) -> None:
    """A tool that runs freely in the agent says nothing about a tool of the same name and code that a sub-agent has."""
    done: list[str] = []
    tills = [Till(done, "agent"), Till(done, "task")]
    task = Task(name="t", description="d", model=ScriptedModel(answer), tools=[make_pay_of(tills[1])])
    outer = ScriptedModel([Call("pay", amount=1), "free", Call("task", name="t", instructions="Pay."), "done"])
    agent = Agent(model=outer, tools=[make_pay_of(tills[0])], middleware=[Approvals({"pay": False}), SubAgents([task])])
    async with World(agent) as world:
        assert "free" == text_of(await world.post())
        (call,) = interrupt_in(await world.post()).calls

        assert (("t",), ["agent 1"]) == (call.path, done)


async def test_tools_when_they_are_known_without_a_list(autojump_clock: Any) -> None:
    """An agent whose tools cannot change stores no list of them."""
    effects = Effects()
    agent = scripted("hi", tools=[effects.tool("pay")], middleware=[Approvals({"pay": True}), TodoList()])
    async with World(agent) as world:
        await world.post()

        assert {} == dict((await (await world.handle()).state()).metadata)


# ── a policy that names no tool


async def pay(amount: int) -> str:
    """Pay an amount."""
    return str(amount)


async def test_policy_when_it_names_no_tool() -> None:
    """A policy that asks about a tool which the agent does not have, and cannot get, ends the start, and says what was meant."""
    with pytest.raises(StartFailed) as caught:
        async with World(scripted("hi", tools=[Tool.of(pay, name="transfer")], middleware=[Approvals({"transfr": True})])) as world:
            await world.handle()
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, ValueError):
        error = error.__cause__

    assert "interrupt_on names 'transfr', and the agent has no such tool; did you mean 'transfer', which runs without approval?" == str(
        error
    )


@pytest.mark.parametrize(
    ("policy", "tools"),
    [({"pya": False}, [pay]), ({pay: True}, [Tool.of(pay, name="transfer")]), ({"pay": True, "write_todos": True}, [pay])],
    ids=["does not ask", "by function", "built in"],
)
async def test_policy_when_it_gates_nothing_that_is_missing(autojump_clock: Any, policy: Any, tools: Any, caplog: Any) -> None:
    """A policy is not an error if it asks about nothing, or finds its tool by the function."""
    async with World(scripted("hi", tools=tools, middleware=[Approvals(policy), TodoList()])) as world:
        assert "hi" == text_of(await world.post())

    assert [] == caplog.records


async def test_policy_when_the_tool_may_still_come(autojump_clock: Any, caplog: Any) -> None:
    """If a middleware or a sub-agent may bring the tool later, the log says that it is missing."""

    async def runs(context: ToolContext) -> str:
        """May run a sub-agent."""
        return context.call_id

    task = Task(name="t", description="d", model=ScriptedModel(["hi"]), tools=[pay])
    with_task = [Approvals({"pay": True}), SubAgents([task], general_purpose=False)]
    for tools, middleware, is_told in (
        ([], [Approvals({"pay": True}), Bank()], True),
        ([runs], [Approvals({"pay": True})], True),
        ([], with_task, False),
    ):
        caplog.clear()
        async with World(scripted("hi", tools=tools, middleware=middleware)) as world:
            assert "hi" == text_of(await world.post())
        assert is_told == any(
            "interrupt_on names 'pay', and the agent has no such tool yet" in record.getMessage() for record in caplog.records
        )


async def test_hook_when_tools_are_collected(autojump_clock: Any) -> None:
    """`on_tools` sees all tools, at the start and after each refresh; an exception ends the start or the turn."""
    seen: list[list[str]] = []

    class Seeing(Middleware):
        async def on_tools(self, context: Any) -> None:
            seen.append(sorted(context.tools))
            if "bad" in context.tools:
                raise ValueError("a bad tool")

    ran: list[str] = []
    bank = Bank(look("look", ran))
    async with World(scripted("one", "two", "three", middleware=[Seeing(), bank], tools=[pay])) as world:
        await world.post()
        bank.change(look("list", ran))
        await world.post()
        bank.change(look("bad", ran))
        outcome = await world.post()

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, MiddlewareError)
        assert [["look", "pay"], ["list", "pay"], ["bad", "pay"]] == seen

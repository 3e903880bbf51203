"""A tool's own check of a call: before a person is asked, and once more before the call runs."""

from typing import Any

import pytest
import trio

from tests.support.people import MEANWHILE, Effects, Meanwhile, World, gated, interrupt_in, scripted, text_of
from tests.support.stores import Backend
from trio_sagents import Approve, Tool, ToolContext, TurnLimits
from trio_sagents.testing import Call


class Account:
    """What the checks look at."""

    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.checks: list[tuple[str, int]] = []

    def check(self, context: ToolContext, amount: int) -> None:
        """Refuse what the account does not have."""
        self.checks.append((context.call_id, amount))
        if amount > self.balance:
            raise ValueError(f"the account has only {self.balance}")

    async def check_slowly(self, context: ToolContext, amount: int) -> None:
        """As `check`, in a task."""
        await trio.sleep(1)
        self.check(context, amount)


def tool(effects: Effects, check: Any, **more: Any) -> Tool:
    """Return a tool "pay" with a check."""
    return Tool.of(effects.tool("pay"), check=check, **more)


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("asks", [True, False], ids=["gated", "free"])
async def test_check_when_it_refuses(is_async: bool, asks: bool) -> None:
    """The model reads the text of the ValueError; nobody is asked, and nothing runs."""
    effects, account = Effects(), Account(10)
    check = account.check_slowly if is_async else account.check
    gates = [gated(effects, "pay")] if asks else []
    async with World(scripted(Call("pay", amount=11), "done", tools=[tool(effects, check)], middleware=gates)) as world:
        assert "done" == text_of(await world.post())

        assert ("failed", "the account has only 10") == (await world.results())["pay"]
        assert ([], 1) == (effects.done, len(account.checks))


@pytest.mark.parametrize("how", MEANWHILE)
async def test_check_when_the_world_changed_while_the_call_waited(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """An approved call is checked once more right before it runs."""
    effects, account = Effects(), Account(10)
    agent = scripted(Call("pay", amount=5), "done", tools=[tool(effects, account.check_slowly)], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        (call,) = (await world.ask()).calls
        await world.pass_time(how)
        account.balance = 1
        assert "done" == text_of(await world.decide(Approve(call)))

        assert ("failed", "the account has only 1") == (await world.results())["pay"]
        assert ([], [(call.call_id, 5)] * 2) == (effects.done, account.checks)


async def test_check_when_the_arguments_do_not_fit(autojump_clock: Any) -> None:
    """The schema comes first: the check is given arguments that fit."""
    effects, account = Effects(), Account(10)
    gates = [gated(effects, "pay")]
    async with World(scripted(Call("pay", amount="x"), "done", tools=[tool(effects, account.check_slowly)], middleware=gates)) as world:
        assert "done" == text_of(await world.post())

        assert [] == account.checks
        assert "must be an integer" in (await world.results())["pay"][1]


async def test_check_when_it_fails_itself(autojump_clock: Any, caplog: Any) -> None:
    """A check with a bug refuses the call, and the log has its traceback: a call that could not be checked does not run."""

    async def check(context: ToolContext, amount: int) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("amount")

    effects = Effects()
    async with World(scripted(Call("pay", amount=1), "done", tools=[tool(effects, check)])) as world:
        assert "done" == text_of(await world.post())

        assert ("failed", "KeyError: 'amount'") == (await world.results())["pay"]
    assert [] == effects.done
    assert ["the check of tool 'pay' failed in conversation 'c'"] == [record.getMessage() for record in caplog.records]


async def test_check_when_it_hangs(autojump_clock: Any) -> None:
    """A check has the time of a tool, and not more."""

    async def check(context: ToolContext, amount: int) -> None:
        await trio.sleep_forever()

    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[tool(effects, check)], limits=TurnLimits(tool_timeout=7))
    async with World(agent) as world:
        assert "done" == text_of(await world.post())

        assert ("failed", "The call was not run: its check gave no result within 7 seconds.") == (await world.results())["pay"]


async def test_check_when_it_asks_for_what_only_a_call_may(autojump_clock: Any) -> None:
    """A check may look, and not change: its context has no turn behind it."""

    async def check(context: ToolContext, amount: int) -> None:
        await context.update(metadata={"seen": amount})

    effects = Effects()
    async with World(scripted(Call("pay", amount=1), "done", tools=[tool(effects, check)])) as world:
        await world.post()

        assert "RuntimeError" in (await world.results())["pay"][1]
        assert [] == effects.done


async def test_check_when_the_turn_is_cancelled(autojump_clock: Any) -> None:
    """A check is cancelled with the turn; the conversation goes on."""

    async def check(context: ToolContext, amount: int) -> None:
        await trio.sleep_forever()

    effects = Effects()
    async with World(scripted(Call("pay", amount=1), "next", tools=[tool(effects, check)])) as world:
        receipt = await world.sessions.post("c", "go")
        await trio.sleep(1)
        await world.sessions.cancel_turn("c")
        await receipt.wait()

        assert "next" == text_of(await world.post("again"))
        assert [] == effects.done


@pytest.mark.parametrize(
    ("field", "value", "kind"), [("check", 5, TypeError), ("recovery", "never", ValueError), ("version", 5, TypeError)]
)
def test_tool_when_a_field_is_invalid(field: str, value: Any, kind: type[Exception]) -> None:
    """What is wrong with a tool is said when the tool is made."""
    with pytest.raises(kind, match=field):
        tool(Effects(), None, **{field: value}) if field != "check" else tool(Effects(), value)


async def test_interrupt_when_one_of_two_calls_is_refused(autojump_clock: Any) -> None:
    """People are asked about the other call alone."""
    effects, account = Effects(), Account(10)
    calls = [Call("pay", amount=11), Call("pay", amount=3)]
    async with World(scripted(calls, "done", tools=[tool(effects, account.check_slowly)], middleware=[gated(effects, "pay")])) as world:
        interrupt = interrupt_in(await world.post())

        assert [{"amount": 3}] == [call.arguments for call in interrupt.calls]

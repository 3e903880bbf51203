"""An agent that pays, a gate before the payment, and a purse that counts what was paid."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import trio

from tests.support.scenarios import (
    DictRows,
    DictStates,
    FaultyStore,
    ask,
    state_of,
)
from trio_sagents import (
    Agent,
    Approvals,
    Halt,
    Interrupt,
    Interrupted,
    MemoryStore,
    Sessions,
    SubAgents,
    Task,
    TurnOutcome,
)
from trio_sagents.testing import Call, ScriptedModel


def split() -> dict[str, Any]:
    """Return settings with a host's own pair of stores."""
    return {"agent_persistence": DictStates(), "display_message_persistence": DictRows()}


STORES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "memory": lambda: {"store": MemoryStore()},
    "plain": lambda: {"store": FaultyStore()},
    "split": split,
}


each_store = pytest.mark.parametrize("store", STORES)


class Purse:
    """The outside world: what was paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.looked: list[str] = []

    async def pay(self, amount: int) -> str:
        """Pay."""
        self.paid.append(amount)
        await trio.lowlevel.checkpoint()
        return f"paid {amount}"

    async def look(self, what: str) -> str:
        """Look."""
        self.looked.append(what)
        await trio.lowlevel.checkpoint()
        return f"saw {what}"

    @property
    def tools(self) -> list[Any]:
        return [self.pay, self.look]


def gate() -> Approvals:
    """Return a gate before `pay`."""
    return Approvals({"pay": True})


def paying(purse: Purse, *replies: Any, middleware: Sequence[Any] | None = None, **settings: Any) -> Agent:
    """Return an agent that pays 1, gated, and then says "end"."""
    model = ScriptedModel(list(replies or (Call("pay", amount=1), "end", "later", "later")))
    return Agent(model=model, tools=purse.tools, middleware=[gate()] if middleware is None else middleware, **settings)


def task(agent: Agent, name: str = "t") -> Task:
    """Return a kind of task."""
    return Task(name=name, description=name, agent=agent)


def hand_over(name: str = "t") -> Call:
    """Return a call of a sub-agent."""
    return Call("task", instructions="do it", name=name)


def parent(*replies: Any, tasks: Sequence[Task], **settings: Any) -> Agent:
    """Return an agent with sub-agents."""
    return Agent(model=ScriptedModel(list(replies)), middleware=[SubAgents(tasks)], **settings)


async def interrupt_of(sessions: Sessions, **settings: Any) -> Interrupt:
    """Post what leads to an interrupt."""
    outcome = await ask(sessions, **settings)
    assert isinstance(outcome, Interrupted), outcome
    return outcome.interrupt


async def decide(sessions: Sessions, *decisions: Any, **settings: Any) -> TurnOutcome:
    """Decide, and wait for the outcome."""
    return await (await sessions.resume("c", decisions, **settings)).wait()


async def results_of(sessions: Sessions) -> list[tuple[str, str, str]]:
    """Return (tool, status, text) of each result."""
    return [(result.name, result.status, result.content) for message in (await state_of(sessions)).messages for result in message.results]


async def loads_again(sessions: Sessions) -> None:
    """See that what was stored can be loaded."""
    await sessions.stop("c")
    await sessions.start("c")


async def halts() -> object:
    """Halt, when the calls beside this one have begun."""
    await trio.sleep(0.1)
    return Halt("enough")

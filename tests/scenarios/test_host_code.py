"""Host code that raises in the middle of an entry: whoever called hears it, and nothing is left behind, marked or reserved.

Each synchronous function of a host is made to raise at its n-th call during an entry, for every n that the entry comes to.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import pytest
import trio

from tests.support.scenarios import Router, Verdicts, answer_to, make_agent, opened, tasks_living
from trio_sagents import Agent, SameScope, Sessions, SessionsStatistics, SingleFactoryRouter
from trio_sagents.data.ids import default_agent_id

NOBODY: Final = SessionsStatistics(0, 0, 0, 0, 0, 0, 0)


class Bug(Exception):  # not an error of ours
    """What the host's code raises."""


@attrs.define(eq=False)
class Trap:
    """Raises at one of the calls to come."""

    left: int = 0
    """So many calls until it raises; 0 is never."""
    has_raised: bool = False

    def check(self) -> None:
        """Raise if this is the call."""
        if self.left:
            self.left -= 1
            if not self.left:
                self.has_raised = True
                raise Bug


async def ensure(sessions: Sessions) -> None:
    async with sessions.open_subscriber(scope="alice") as subscriber:
        await subscriber.subscribe("c", channel="debug")
        await sessions.ensure_running("c", subscriber)
        await trio.sleep(1)


async def watch(sessions: Sessions) -> None:
    async with sessions.watch("c", scope="alice", viewer="alice"):
        await trio.sleep(1)


async def start(sessions: Sessions) -> None:
    async with sessions.open_subscriber(scope="alice") as one, sessions.open_subscriber(scope="alice") as two:
        await sessions.start("c", scope="alice", initial_subscribers=[one, two])


async def stop_while_starting(sessions: Sessions) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: sessions.stop("c", scope="alice"))
        nursery.start_soon(lambda: sessions.start("c", scope="alice"))


ENTRIES: Final[dict[str, Callable[[Sessions], Awaitable[Any]]]] = {
    "start": start,
    "ensure_running": ensure,
    "watch": watch,
    "post": lambda sessions: sessions.post("c", "hi", scope="alice"),
    "stop": lambda sessions: sessions.stop("c", scope="alice"),
    "stop and start": stop_while_starting,
    "cancel_turn": lambda sessions: sessions.cancel_turn("c", scope="alice"),
    "dismiss": lambda sessions: sessions.dismiss("c", scope="alice"),
    "running": lambda sessions: sessions.running("c", scope="alice"),
    "get": lambda sessions: sessions.get("c", scope="alice"),
    "list_running": lambda sessions: sessions.list_running(scope="alice"),
    "history": lambda sessions: sessions.history("c", scope="alice"),
    "conversations": lambda sessions: sessions.conversations(scope="alice"),
    "delete": lambda sessions: sessions.delete("c", scope="alice"),
}


@attrs.frozen
class Wanted:
    """A config that the host's code makes."""

    inputs: Any
    trap: Trap

    @classmethod
    def of(cls, trap: Trap) -> type:
        """Return a class whose `from_inputs` raises where it is told to."""

        class Config:
            @staticmethod
            def from_inputs(inputs: Any) -> Any:
                trap.check()
                return cls(inputs, trap)

        return Config


def settings_of(code: str, trap: Trap) -> dict[str, Any]:
    """Return the settings of a block in which one function of the host raises."""

    def key(scope: Any) -> Any:
        trap.check()
        return scope

    def agent_id_fun(conversation_id: str) -> str:
        trap.check()
        return default_agent_id(conversation_id)

    def allow(*_: Any) -> bool:
        trap.check()
        return True

    async def build(agent_id: str, config: Any) -> Agent:
        trap.check()
        return make_agent()

    match code:
        case "SameScope.key":
            return {"authorizer": SameScope(key)}
        case "SameScope.key of an authorizer that is asked":
            return {"authorizer": type("Asked", (SameScope,), {})(key)}
        case "agent_id_fun":
            return {"agent_id_fun": agent_id_fun}
        case "agent_id_fun, with an authorizer that is asked":
            return {"agent_id_fun": agent_id_fun, "authorizer": Verdicts()}
        case "authorize":
            return {"authorizer": Verdicts(allow)}
        case "create_agent":
            return {"router": SingleFactoryRouter(build)}
        case _:
            return {"router": SingleFactoryRouter(build, Wanted.of(trap))}


CODES: Final = (
    "SameScope.key",
    "SameScope.key of an authorizer that is asked",
    "agent_id_fun",
    "agent_id_fun, with an authorizer that is asked",
    "authorize",
    "create_agent",
    "from_inputs",
)


@pytest.mark.parametrize("temperature", ["warm", "cold", "new"])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("code", CODES)
async def test_host_code_that_raises_once(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture, code: str, entry: str, temperature: str
) -> None:
    """At whichever call a function of the host raises, no agent crashes, the next calls work, and at the end nothing is left."""
    trap = Trap()
    settings = settings_of(code, trap)
    router = settings.pop("router", Router())
    before = tasks_living()
    for n in range(1, 20):
        async with opened(router, **settings) as sessions:
            if temperature != "new":
                await answer_to(sessions, scope="alice")
            if temperature == "cold":
                await sessions.stop("c", scope="alice")
            trap.left, trap.has_raised = n, False
            with trio.fail_after(1000):
                try:
                    await ENTRIES[entry](sessions)
                except Exception as exc:
                    heard: BaseException | None = exc
                else:
                    heard = None
            trap.left = 0
            assert n > 1 or heard is not None or not trap.has_raised
            with trio.fail_after(1000):
                assert "re: again" == await answer_to(sessions, "again", scope="alice")
                await sessions.stop("c", scope="alice")
            assert NOBODY == attrs.evolve(sessions.statistics(), timers=0)
        if not trap.has_raised:
            break
    else:
        raise AssertionError("the entry calls the host's code without end")
    assert before == tasks_living()
    assert "crashed" not in caplog.text

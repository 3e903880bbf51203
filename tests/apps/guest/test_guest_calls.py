"""The methods of asyncio: they are those of Trio, and a cancelled call leaves what it leaves there, and nothing else."""

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import anyio
import pytest
import trio

import trio_sagents
import trio_sagents.asyncio
from tests.apps.guest._kit import assert_idle, cancelled_after, left_in_trio, opened, run
from trio_sagents import (
    Agent,
    AgentNotRunning,
    AgentStopped,
    Approvals,
    Approve,
    Completed,
    ConversationNotFound,
    Interrupted,
    MemoryStore,
    NotInterrupted,
    SessionConfig,
    SessionsClosed,
    SingleFactoryRouter,
    StartFailed,
    Status,
    StatusChanged,
    TextDelta,
    TurnEnded,
    conversation_topic,
)
from trio_sagents.asyncio import Sessions, call_trio, open_sessions
from trio_sagents.asyncio._job import Job
from trio_sagents.testing import Call, Hang, ScriptedModel

# ── the same methods

OURS = {"trio", "read"}
"""What only the classes for asyncio have."""
NOT_OURS = {
    "Subscriber": {"reserve", "drop", "close", "hang_up", "subscription", "take_left"},
    "Page": {"watch"},
    "Presence": {"enter", "count", "watch_count", "count_changed", "own_entries", "enter_remote", "note", "run", "pubsub"},
    "Sessions": {"runtime"},
}
"""What is for the library itself."""
SYNCHRONOUS = {"take_nowait", "call_when_ready", "needs_history", "read_history"}
"""What the classes for asyncio are built on."""


def _methods(cls: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(cls) if not name.startswith("_")}


def _parameters(function: Callable[..., Any]) -> list[Any]:
    return [(found.name, found.kind, found.default) for found in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", ["Sessions", "AgentHandle", "Receipt", "Subscriber", "Watch", "Page", "Presence"])
def test_class_when_it_is_compared(name: str) -> None:
    """Each public method of the class in Trio is there for asyncio, with the same parameters; a new one must be added."""
    theirs, ours = _methods(getattr(trio_sagents, name)), _methods(getattr(trio_sagents.asyncio, name))
    expected = set(theirs) - SYNCHRONOUS - NOT_OURS.get(name, set()) - (NOT_OURS["Subscriber"] if name == "Watch" else set())

    assert expected == set(ours) - OURS - ({"end_streams", "end_streams_on"} if name == "Sessions" else set())
    for method in expected:
        if inspect.isfunction(theirs[method]):
            assert _parameters(theirs[method]) == _parameters(ours[method])
            assert inspect.iscoroutinefunction(theirs[method]) == inspect.iscoroutinefunction(ours[method])


def test_methods_when_called(loop: str) -> None:
    """Every method of the sessions, of a handle, of a subscriber and of a page does what it does in Trio."""

    async def main() -> None:
        store = MemoryStore()
        async with opened(lambda request: Call("pay") if "pay" in request.messages[-1].text else "done", store=store) as sessions:
            info = await sessions.start("a")
            assert info.started
            assert (await sessions.get("a")) == info.agent
            assert hash(await sessions.get("a")) == hash(info.agent)
            assert await sessions.running("a")
            assert 1 == await sessions.agent_count() == len(await sessions.list_running()) == len(await sessions.list_matching("*a*"))
            assert "a" == (await sessions.agent_info("a")).conversation_id == info.agent.conversation_id
            receipt = await sessions.post("a", "hello", message_id="m")
            assert ("m", False) == (receipt.message_id, receipt.duplicate)
            outcome = await receipt.wait()
            assert isinstance(outcome, Completed)
            await info.agent.wait_idle()
            await info.agent.touch()
            assert Status.IDLE is (await info.agent.info()).status
            assert 2 == len((await info.agent.state()).messages)
            assert isinstance(await (await info.agent.post("again")).wait(), Completed)
            assert await info.agent.cancel_turn() is None
            assert await sessions.cancel_turn("a") is None
            with pytest.raises(NotInterrupted):
                await info.agent.dismiss()
            with pytest.raises(NotInterrupted):
                await sessions.dismiss("a")
            with pytest.raises(LookupError):
                await info.agent.notify_middleware("none", {})
            assert 4 == len((await sessions.history("a")).rows)
            assert ["a"] == [item.conversation_id for item in (await sessions.conversations()).items]
            assert () == tuple((await sessions.waiting()).items)
            async with sessions.open_subscriber() as subscriber:
                await subscriber.subscribe("b")
                assert {("b", "main"): "pending"} == subscriber.subscriptions
                await sessions.ensure_running("b", subscriber)
                await sessions.start("d", initial_subscribers=[subscriber])
                await subscriber.unsubscribe("b")
                assert {("d", "main"): "subscribed"} == subscriber.subscriptions
                assert "d" == (await anext(subscriber)).conversation_id
            async with (
                sessions.presence.track(conversation_topic("a"), "alice"),
                sessions.presence.changes(conversation_topic("a")) as news,
            ):
                assert ["alice"] == list(await sessions.presence.list(conversation_topic("a")))
                async with sessions.presence.track(conversation_topic("a"), "bob"):
                    assert ["bob"] == list((await anext(news)).joins)
            assert await info.agent.stop()
            assert "stopped" == (await info.agent.wait_ended()).value
            assert not await sessions.stop("a")
            assert await sessions.delete("a")
            with pytest.raises(ConversationNotFound):
                await sessions.history("a")
            assert await sessions.stop("b")
            with pytest.raises(ConversationNotFound):  # it was never stored
                await sessions.get("b")
            with pytest.raises(AgentNotRunning):
                await sessions.get("d") if await sessions.post("d", "x") and await sessions.stop("d") else None
            assert (0, 0) == (sessions.statistics().running, sessions.statistics().agents)
            assert 0 == (await sessions.drain()).idle
        with pytest.raises(SessionsClosed):
            await sessions.post("a", "late")

    run(main, loop)


def test_watch_when_a_person_approves(loop: str) -> None:
    """The scenario of a page: watch, post, read the interrupt, approve it, read the answer."""
    paid = []

    async def pay(amount: int) -> str:
        """Pay.

        Args:
            amount: of money.
        """
        paid.append(amount)
        return "paid"

    async def main() -> None:
        model = ScriptedModel(lambda request: "done" if request.messages[-1].results else Call("pay", amount=7))
        agent = Agent(model=model, tools=[pay], middleware=[Approvals({"pay": True})])
        async with (
            open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions,
            sessions.watch("c", viewer="alice") as watch,
        ):
            assert watch.info.started
            receipt = await sessions.post("c", "pay")
            text = ""
            async for envelope in watch:
                match envelope.event:
                    case StatusChanged(status=Status.INTERRUPTED, data=interrupt):
                        assert [] == paid
                        assert isinstance(await receipt.wait(), Interrupted)
                        receipt = await sessions.resume("c", [Approve(call) for call in interrupt.calls])
                    case TextDelta(text=more):
                        text += more
                    case TurnEnded(outcome=Completed()):
                        break
            assert isinstance(await receipt.wait(), Completed)

        assert ("done", [7]) == (text, paid)

    run(main, loop)


# ── cancelled calls


def _entries(sessions: Sessions) -> dict[str, Callable[[], Any]]:
    """Return calls that can be made again and again, on a conversation "c" whose agent is up."""

    async def watching() -> None:
        async with sessions.watch("c", viewer="v") as watch:
            await watch.read()

    async def opening() -> None:
        async with sessions.open_subscriber() as subscriber:
            await subscriber.subscribe("c")
            await sessions.ensure_running("c", subscriber)
            await subscriber.unsubscribe("c")

    async def paging() -> None:
        async with sessions.page("c", limit=1) as page:
            await page.older(1)

    async def tracking() -> None:
        async with sessions.presence.track("t", "v"), sessions.presence.changes("t"):
            pass

    async def handling() -> None:
        handle = await sessions.get("c")
        await handle.info()
        await handle.state()
        await handle.wait_idle()

    async def posting() -> None:
        await (await sessions.post("c", "x")).wait()

    return {
        "start": lambda: sessions.start("c"),
        "restart": lambda: _restart(sessions),
        "post": posting,
        "cancel_turn": lambda: sessions.cancel_turn("c"),
        "watch": watching,
        "subscribe": opening,
        "page": paging,
        "presence": tracking,
        "handle": handling,
        "running": lambda: sessions.running("c"),
        "list": lambda: sessions.list_running(),
        "history": lambda: sessions.history("c"),
        "conversations": lambda: sessions.conversations(),
        "waiting": lambda: sessions.waiting(),
        "delete": lambda: sessions.delete("none"),
        "call_trio": lambda: call_trio(trio.sleep, 0),
    }


async def _restart(sessions: Sessions) -> None:
    await sessions.stop("c")
    await sessions.start("c")


ENTRIES = tuple(_entries(Sessions(None)))  # type: ignore[arg-type]  # only the names


@pytest.mark.parametrize("entry", ENTRIES)
def test_call_when_it_is_cancelled_at_each_pass(entry: str, loop: str) -> None:
    """A call that is cancelled at any pass of the loop raises CancelledError, and leaves no task and no subscription on either side."""

    async def main() -> None:
        async with opened(queue_limit=1000) as sessions:
            await (await sessions.post("c", "first")).wait()
            await (await sessions.post("c", "second")).wait()
            before = left_in_trio(), sessions.statistics().subscriptions
            call = _entries(sessions)[entry]
            number, cancelled = 0, 0
            while True:
                result = await cancelled_after(number, call())
                assert before == (left_in_trio(), sessions.statistics().subscriptions), number
                assert {} == await sessions.presence.list("t")
                if not isinstance(result, asyncio.CancelledError):
                    assert not isinstance(result, BaseException), result
                    break
                cancelled += 1
                number += 1
            assert 2 <= cancelled
            await sessions.start("c")
            assert isinstance(await (await sessions.post("c", "last")).wait(), Completed)

    run(main, loop)


def test_post_when_it_is_cancelled_at_each_pass(loop: str) -> None:
    """A message whose post is cancelled is accepted or not, never twice: posting it again is answered, and there is one row of each."""

    async def main() -> None:
        async with opened() as sessions:
            for number in range(25):
                await cancelled_after(number, sessions.post("c", "m", message_id=f"m{number}"))
                receipt = await sessions.post("c", "m", message_id=f"m{number}")
                assert isinstance(await receipt.wait(), Completed)
            rows = (await sessions.history("c")).rows

        assert 25 == sum(row.role == "user" for row in rows)

    run(main, loop)


def test_open_when_it_is_cancelled_at_each_pass(loop: str) -> None:
    """Entering and leaving the block can be cancelled at every pass; then nothing is left, and the next block works."""

    async def block() -> str:
        async with opened() as sessions:
            receipt = await sessions.post("c", "x")
            await receipt.wait()
        return "done"

    async def main() -> None:
        number, result = 0, None
        while result != "done":
            result = await cancelled_after(number, block())
            assert result == "done" or isinstance(result, asyncio.CancelledError), result
            assert_idle()
            number += 1
        assert 10 < number

    run(main, loop)


def test_calls_when_they_are_cancelled_at_random(loop: str) -> None:
    """Many calls at once, cancelled at random, leave a conversation in which each message is answered, and no task."""

    async def main() -> None:
        random = Random(5)
        async with opened(queue_limit=1000) as sessions:

            async def caller(name: int) -> None:
                for number in range(8):
                    calls = [*_entries(sessions).values(), lambda: sessions.post("c", "x", message_id=f"{name}-{number}")]  # noqa: B023
                    with suppress(AgentNotRunning, AgentStopped, StartFailed, asyncio.CancelledError):
                        await cancelled_after(random.randrange(12), random.choice(calls)())

            await asyncio.gather(*map(caller, range(12)))
            assert 1 == left_in_trio()
            receipt = await sessions.post("c", "last")
            assert isinstance(await receipt.wait(), Completed)
            rows = (await sessions.history("c", limit=1000)).rows
            posted = [row.message_id for row in rows if row.role == "user"]
            assert len(posted) == len(set(posted))

    run(main, loop)


@pytest.mark.parametrize("how", ["timeout", "wait_for", "group", "twice", "anyio"])
def test_wait_when_asyncio_cancels_it(how: str, loop: str) -> None:
    """The ways of asyncio and anyio to cancel work, and the task is as uncancelled afterwards as they leave it."""

    async def main() -> None:
        async with opened([Hang()]) as sessions:
            receipt = await sessions.post("c", "x")
            if how == "timeout":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await receipt.wait()
            elif how == "wait_for":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(receipt.wait(), 0.01)
            elif how == "group":
                with pytest.raises(ExceptionGroup):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(receipt.wait())
                        group.create_task(_fail())
            elif how == "twice":
                task = asyncio.create_task(receipt.wait())
                await asyncio.sleep(0.01)
                task.cancel("first")
                task.cancel("second")
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                with anyio.move_on_after(0.01) as scope:
                    await receipt.wait()
                assert scope.cancelled_caught
            here = asyncio.current_task()
            assert here is not None
            assert (0, 1) == (here.cancelling() - (how == "group") * here.cancelling(), left_in_trio())
            assert await sessions.running("c")
            await sessions.stop("c")

    run(main, loop)


async def _fail() -> None:
    await asyncio.sleep(0.01)
    raise ValueError("no")


def test_wait_when_it_is_in_a_cancelled_scope_of_anyio(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that takes its time to end in a cancelled scope of anyio is cancelled once or twice, and not at each pass of the loop."""
    cancels: list[Any] = []
    cancel = Job.cancel

    def counted(job: Any) -> None:
        cancels.append(job)
        cancel(job)

    async def slow() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.2)

    async def main() -> None:
        async with opened():
            monkeypatch.setattr(Job, "cancel", counted)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call_trio(slow)
            assert 1 <= len(cancels) <= 2

    run(main, loop)


def test_call_when_it_raises(loop: str) -> None:
    """An error leaves as it is; a group stays a group; a cancellation inside of Trio never reaches asyncio."""

    async def fails() -> None:
        raise ValueError("mine")

    async def fails_in_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            await trio.sleep_forever()

    async def cancels_itself() -> str:
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.sleep_forever()
        return "fine"

    async def main() -> None:
        with pytest.raises(ValueError, match="mine"):
            await call_trio(fails)
        with pytest.raises(ExceptionGroup) as caught:
            await call_trio(fails_in_nursery)
        assert "mine" == str(caught.value.exceptions[0])
        assert "fine" == await call_trio(cancels_itself)

    run(main, loop)


def test_call_when_it_exits_while_it_is_cancelled(loop: str) -> None:
    """A cancellation wins over an error of the call, but not over an exit."""

    async def ends_with(error: BaseException, here: "asyncio.Task[Any]") -> None:
        asyncio.get_running_loop().call_soon(here.cancel)
        try:
            await trio.sleep_forever()
        finally:
            raise error

    async def main() -> None:
        here = asyncio.current_task()
        assert here is not None
        for error, expected in ((ValueError(), asyncio.CancelledError), (SystemExit(3), SystemExit)):
            with pytest.raises(expected):
                await call_trio(ends_with, error, here)
            here.uncancel()

    run(main, loop)

"""Where sessions may be opened and used: in one run of Trio. Everywhere else an error says what is running there, and what to do."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.support.scenarios import Router, make_agent, make_config, opened
from trio_sagents import Agent, Approve, Row, SessionConfig, Sessions, SingleFactoryRouter, open_files, open_sessions
from trio_sagents._trio.place import ASYNCIO_PAGE, PAGE
from trio_sagents.middleware import TitleGenerated

ENTRIES: dict[str, Callable[[Sessions], Any]] = {
    "start": lambda sessions: sessions.start("c"),
    "ensure_running": lambda sessions: _with_subscriber(sessions),
    "stop": lambda sessions: sessions.stop("c"),
    "drain": lambda sessions: sessions.drain(),
    "ready": lambda sessions: sessions.ready(),
    "post": lambda sessions: sessions.post("c", "hi"),
    "cancel_turn": lambda sessions: sessions.cancel_turn("c"),
    "resume": lambda sessions: sessions.resume("c", [Approve("i", "c", "0" * 64)]),
    "dismiss": lambda sessions: sessions.dismiss("c"),
    "add_rows": lambda sessions: sessions.add_rows("c", [Row("notification", {"text": "x"})]),
    "publish": lambda sessions: sessions.publish("c", TitleGenerated("x")),
    "open_subscriber": lambda sessions: _entered(sessions.open_subscriber()),
    "watch": lambda sessions: sessions.watch("c"),
    "page": lambda sessions: sessions.page("c"),
    "running": lambda sessions: sessions.running("c"),
    "get": lambda sessions: sessions.get("c"),
    "agent_info": lambda sessions: sessions.agent_info("c"),
    "list_running": lambda sessions: sessions.list_running(),
    "list_matching": lambda sessions: sessions.list_matching("*"),
    "agent_count": lambda sessions: sessions.agent_count(),
    "statistics": lambda sessions: sessions.statistics(),
    "history": lambda sessions: sessions.history("c"),
    "conversations": lambda sessions: sessions.conversations(),
    "waiting": lambda sessions: sessions.waiting(),
    "delete": lambda sessions: sessions.delete("c"),
}


async def _entered(manager: Any) -> None:
    async with manager:
        pass


async def _with_subscriber(sessions: Sessions) -> None:
    async with sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)


def driven(call: Callable[[], Any]) -> None:
    """Call something, and take one step of it if it is a coroutine: all that runs before it waits."""
    result = call()
    if inspect.iscoroutine(result):
        try:
            result.send(None)
        finally:
            result.close()


def test_entries_when_one_is_new() -> None:
    """Each public method is in the table; a new one that is not checked would hang, or worse, in a wrong thread."""
    assert set(ENTRIES) == {name for name, _ in inspect.getmembers(Sessions, callable) if not name.startswith("_")}


@pytest.mark.parametrize("entry", ENTRIES)
async def test_entry_when_it_is_used_in_a_thread(entry: str) -> None:
    """In a thread without Trio every entry raises at once; the error says how to reach the run from there."""
    async with opened() as sessions:
        with pytest.raises(RuntimeError) as caught:
            await trio.to_thread.run_sync(driven, lambda: ENTRIES[entry](sessions))

        assert str(caught.value) == (
            "these sessions were used in a thread in which Trio is not running; use them in the run of Trio that opened them: from another "
            f"thread, call trio.from_thread.run(function, trio_token=token) (see {PAGE})"
        )
        assert 0 == sessions.statistics().agents


@pytest.mark.parametrize("entry", ENTRIES)
async def test_entry_when_it_is_used_in_another_run(entry: str) -> None:
    """In another run of Trio every entry raises at once, before anything waits."""

    async def use() -> None:
        result = ENTRIES[entry](sessions)
        if inspect.iscoroutine(result):
            await result

    async with opened() as sessions:
        with pytest.raises(RuntimeError, match="these sessions belong to another run of Trio than the one that is running here"):
            await trio.to_thread.run_sync(trio.run, use)

        assert 0 == sessions.statistics().agents


async def _things(sessions: Sessions, subscriber: Any) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Return the calls of everything that sessions hand out: by name, the words of the error and the call."""
    receipt = await sessions.post("c", "hi")
    handle: Any = await sessions.get("c")
    calls = {
        "post": lambda: handle.post("hi"),
        "resume": lambda: handle.resume([Approve("i", "c", "0" * 64)]),
        "dismiss": handle.dismiss,
        "add_rows": lambda: handle.add_rows([Row("notification", {"text": "x"})]),
        "publish": lambda: handle.publish(TitleGenerated("x")),
        "notify_middleware": lambda: handle.notify_middleware("m", 1),
        "cancel_turn": handle.cancel_turn,
        "touch": handle.touch,
        "info": handle.info,
        "state": handle.state,
        "wait_idle": handle.wait_idle,
        "wait_ended": handle.wait_ended,
        "stop": handle.stop,
    }
    assert set(calls) == {name for name, member in inspect.getmembers(handle, inspect.iscoroutinefunction) if not name.startswith("_")}
    readers = {
        "subscribe": lambda: subscriber.subscribe("c"),
        "unsubscribe": lambda: subscriber.unsubscribe("c"),
        "anext": lambda: anext(aiter(subscriber)),
        "batches": lambda: anext(aiter(subscriber.batches())),
    }
    return {
        "receipt.wait": ("this receipt and its sessions", receipt.wait),
        **{f"handle.{name}": ("this handle and its sessions", call) for name, call in calls.items()},
        **{f"subscriber.{name}": ("this subscriber and its sessions", call) for name, call in readers.items()},
    }


async def test_things_of_sessions_when_they_are_used_elsewhere() -> None:
    """A receipt, a handle and a subscriber say the same as the sessions, in a thread and in another run."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        for name, (words, call) in (await _things(sessions, subscriber)).items():

            async def use(call: Callable[[], Any] = call) -> None:
                await call()

            with pytest.raises(RuntimeError) as caught:
                await trio.to_thread.run_sync(driven, use)
            assert str(caught.value).startswith(f"{words} were used in a thread in which Trio is not running"), name
            with pytest.raises(RuntimeError) as caught:
                await trio.to_thread.run_sync(trio.run, use)
            assert str(caught.value).startswith(f"{words} belong to another run of Trio"), name
        assert {"c"} == {info.conversation_id for info in await sessions.list_running()}


async def test_entry_when_it_is_used_under_asyncio() -> None:
    """In a task of asyncio the error says so."""

    async def use() -> None:
        await sessions.post("c", "hi")

    async with opened() as sessions:
        with pytest.raises(RuntimeError, match="these sessions were used in a task of asyncio"):
            await trio.to_thread.run_sync(asyncio.run, use())


async def test_entry_when_a_thread_calls_into_the_run() -> None:
    """From another thread the documented way works."""

    def work(token: trio.lowlevel.TrioToken) -> str:
        receipt = trio.from_thread.run(sessions.post, "c", "hi", trio_token=token)
        return str(trio.from_thread.run(receipt.wait, trio_token=token).message.text)

    async with opened() as sessions:
        assert "re: hi" == await trio.to_thread.run_sync(work, trio.lowlevel.current_trio_token())


def test_open_sessions_under_asyncio() -> None:
    """Under asyncio `open_sessions` names its namesake for asyncio, and the page about it; nothing is opened."""

    async def main() -> None:
        async with open_sessions(make_config(router)):
            pass

    router = Router()
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(main())

    assert str(caught.value) == (
        "open_sessions needs Trio, and this is a task of asyncio; use trio_sagents.asyncio.open_sessions, which runs Trio in this loop, or "
        f"run the program with trio.run(main) (see {ASYNCIO_PAGE})"
    )


def test_open_sessions_without_any_loop() -> None:
    """A coroutine that somebody drives by hand is told the same."""
    with pytest.raises(RuntimeError) as caught:
        driven(lambda: _entered(open_sessions(make_config())))

    assert str(caught.value) == (
        "open_sessions needs Trio, and no event loop is running here; call it from an async function that trio.run(main) runs"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (make_agent(), "not an Agent; did you mean SessionConfig(factory_router=SingleFactoryRouter(agent))?"),
        (Agent, "not the class Agent; did you mean SessionConfig(factory_router=SingleFactoryRouter(Agent(...)))?"),
        (SingleFactoryRouter(make_agent()), "not a SingleFactoryRouter; did you mean SessionConfig(factory_router=router)?"),
        ({"store": "x" * 1000}, "not a dict"),
        (SessionConfig, "not the class SessionConfig"),
    ],
    ids=range(5),
)
async def test_open_sessions_when_something_else_was_meant(given: Any, words: str) -> None:
    """`open_sessions` takes a SessionConfig; the error says how to make one."""
    with pytest.raises(TypeError) as caught:
        await _entered(open_sessions(given))

    assert f"open_sessions takes a SessionConfig, {words}" == str(caught.value)


def used_with_with(opened: Any) -> None:
    with opened:
        pass


MISUSED: dict[str, tuple[Callable[[Any], Any], type[Exception]]] = {
    "with": (used_with_with, TypeError),
    "await": (lambda opened: driven(lambda: _awaited(opened)), TypeError),
    "an attribute": (lambda opened: opened.post("c", "hi"), AttributeError),
}


async def _awaited(opened: Any) -> None:
    await opened


@pytest.mark.parametrize("use", MISUSED)
@pytest.mark.parametrize("name", ["open_sessions", "open_files"])
def test_opening_when_it_is_used_without_async_with(name: str, use: str) -> None:
    """Whoever forgets `async with` is told how to write it, in Trio or not; nothing is opened, and nothing warns."""
    made = open_sessions(make_config()) if name == "open_sessions" else open_files()
    misuse, kind = MISUSED[use]
    with pytest.raises(kind) as caught:
        misuse(made)

    assert str(caught.value).endswith(
        f"{name} is used with `async with`: write `async with {name}(...) as {name.removeprefix('open_')}:`, in an async function that "
        "trio.run(main) runs"
    )


async def test_subscriber_when_it_is_used_without_async_with() -> None:
    """The same for what sessions open."""
    async with opened() as sessions:
        with pytest.raises(AttributeError, match="write `async with open_subscriber"):
            await sessions.open_subscriber().subscribe("c")

"""Every method of a host's store, failing in every way: what fails is told to whoever asked, and harms no other conversation.

Each case opens sessions on a store whose method goes wrong for the conversation "bad": it raises, hangs, blocks, returns junk, or
is a plain function. The conversation "good" shares the process. What must hold is the same for all: see `story`. (`set_interrupted`
has its own tests, in `tests/unit/storage/test_split.py`.)
"""

import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from tests.support.scenarios import DictRows, DictStates, FaultyStore, opened
from trio_sagents import (
    Agent,
    Completed,
    ConversationPage,
    DisplayMessage,
    Failed,
    HistoryPage,
    MemoryStore,
    Middleware,
    SagentsError,
    SessionInfo,
)
from trio_sagents.testing import Call, ScriptedModel

METHODS = {
    "store": ("load", "commit", "history", "conversations", "delete"),
    "owned": ("load", "commit", "history", "conversations", "delete"),
    "knowing": ("get_owner",),
    "states": ("load_state", "persist_state"),
    "rows": ("save_message", "update_tool_status"),
}
"""By kind of store, the methods that go wrong."""
NEVER_STOPS = frozenset({"save_message", "update_tool_status"})
"""Methods whose failure does not even fail a turn of "bad"."""
PATIENCE = 300.0
"""Virtual seconds after which a call counts as one that does not end."""


@attrs.define(eq=False)
class Trouble:
    """How the method goes wrong, and until when."""

    method: str
    how: Callable[["Trouble", Callable[[], Any]], Any]
    """Given itself and the effect; returns what the method returns."""
    is_on: bool = False
    over: trio.Event = attrs.field(factory=trio.Event)
    struck: int = 0


def conversation_in(args: Any) -> str | None:
    """Return the conversation that a call is about, or None if it is about all."""
    for argument in args:
        if isinstance(argument, str) and argument in {"good", "bad"}:
            return argument
        found = getattr(argument, "conversation_id", None)
        if found is not None:
            return str(found)
    return None


def broken(inner: Any, names: Any, trouble: Trouble) -> Any:
    """Return a store with these methods of `inner`, of which one is in trouble."""

    class Host:
        """A host's store."""

    def passing(name: str) -> Callable[..., Any]:
        def method(*args: Any, **named: Any) -> Any:
            async def effect() -> Any:
                return await getattr(inner, name)(*args, **named)

            if name == trouble.method and trouble.is_on and conversation_in(args) in {"bad", None}:
                trouble.struck += 1
                return trouble.how(trouble, effect)
            return effect()

        return method

    host: Any = Host()
    for name in names:
        if hasattr(inner, name) or name == trouble.method:
            setattr(host, name, passing(name))
    if isinstance(inner, MemoryStore):
        host.checks_owner = True
    return host


class Knowing(FaultyStore):
    """A store that can say who owns a conversation."""

    async def get_owner(self, scope: Any, conversation_id: str) -> Any:
        return (await self.inner.history(scope, conversation_id, before=None, limit=1)) and None


class Odd(Exception):
    """An error of the host's own."""


def raising(error: Callable[[], BaseException]) -> Any:
    async def how(trouble: Trouble, effect: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise error()

    return how


def returning(value: Any) -> Any:
    async def how(trouble: Trouble, effect: Any) -> Any:
        await effect()
        return value

    return how


async def hang(trouble: Trouble, effect: Any) -> Any:
    await trouble.over.wait()
    return await effect()


async def block(trouble: Trouble, effect: Any) -> Any:
    time.sleep(0.001)  # that is the mistake
    return await effect()


def plain(trouble: Trouble, effect: Any) -> Any:
    return None


async def wait_in_a_nursery(trouble: Trouble, effect: Any) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.lowlevel.checkpoint()
        raise Odd("in a group")


HOW: dict[str, Any] = {
    "raises OSError": raising(lambda: OSError("the host's")),
    "raises its own error": raising(lambda: Odd("secret")),
    "raises TypeError": raising(lambda: TypeError("the host's")),
    "raises a group": wait_in_a_nursery,
    "hangs": hang,
    "blocks": block,
    "is plain": plain,
    **{
        f"returns {value!r}"[:40]: returning(value)
        for value in (None, True, -1, "text", {"row_id": "r1"}, [{}], ({}, None, 1, 1), float("nan"), range(3))
    },
    "returns an object": returning(object()),
}


def settings_of(kind: str, trouble: Trouble) -> dict[str, Any]:
    flat = ("load", "commit", "history", "conversations", "delete")
    match kind:
        case "store":
            return {"store": broken(FaultyStore(), flat, trouble)}
        case "owned":
            return {"store": broken(MemoryStore(), flat, trouble)}
        case "knowing":
            return {"store": broken(Knowing(), (*flat, "get_owner"), trouble)}
        case "states":
            return {"agent_persistence": broken(DictStates(), METHODS["states"], trouble)}
        case _:
            return {"agent_persistence": DictStates(), "display_message_persistence": broken(DictRows(), METHODS["rows"], trouble)}


class Shown(Middleware):
    """A middleware that looks at rows, as one that hides secrets does."""

    def transform_row(self, row: DisplayMessage) -> DisplayMessage:
        return attrs.evolve(row, content=dict(row.content))


def reply(request: Any) -> Any:
    return "Done." if request.messages[-1].results else Call("nop")


async def nop() -> str:
    """Do nothing."""
    return "ok"


async def asked(call: Callable[[], Any]) -> Any:
    """Return what a call returns; an error that it may raise, or None if it does not end."""
    with trio.move_on_after(PATIENCE):
        try:
            return await call()
        except (SagentsError, TypeError) as exc:
            return exc
    return None


async def outcome_of(sessions: Any, conversation_id: str) -> Any:
    """Post, and return the outcome, or the error, or None if there is none."""

    async def post() -> Any:
        return await (await sessions.post(conversation_id, "hi")).wait()

    return await asked(post)


async def story(kind: str, trouble: Trouble) -> None:
    """Let a method of the store go wrong for "bad", and see to what must hold.

    "good" is answered throughout. Every call about "bad" ends in a value, or in an error of the library; a TypeError may pass. Once
    the store works again, "bad" is answered. Viewers get rows only.
    """
    rows: list[Any] = []
    settings = settings_of(kind, trouble)
    is_bounded = trouble.how is not hang or trouble.method in NEVER_STOPS

    async def look(watch: Any) -> None:
        async for envelope in watch:
            if (row := getattr(envelope.event, "row", None)) is not None:
                rows.append(row)

    agent = Agent(model=ScriptedModel(reply), tools=[nop], middleware=[Shown()])
    async with opened(agent, **settings) as sessions, trio.open_nursery() as nursery:
        async with sessions.watch("good") as first, sessions.watch("bad") as second:
            nursery.start_soon(look, first)
            nursery.start_soon(look, second)
            for name in ("good", "bad"):
                assert isinstance(await outcome_of(sessions, name), Completed)
            trouble.is_on = True
            outcome = await outcome_of(sessions, "bad")
            assert isinstance(outcome, Completed) or trouble.method not in NEVER_STOPS
            assert isinstance(outcome, Completed | Failed | SagentsError | TypeError) or not is_bounded, outcome
            for call, kinds in (
                (lambda: sessions.history("bad"), HistoryPage),
                (sessions.conversations, ConversationPage),
                (lambda: sessions.stop("bad"), bool),
                (lambda: sessions.start("bad"), SessionInfo),
                (lambda: sessions.stop("bad"), bool),
                (lambda: sessions.delete("bad"), bool),
            ):
                answer = await asked(call)
                assert isinstance(answer, kinds | SagentsError | TypeError | None), answer
                rows.extend(answer.rows if isinstance(answer, HistoryPage) else ())
                assert isinstance(await outcome_of(sessions, "good"), Completed)
            trouble.is_on = False
            trouble.over.set()
            last = None
            for _ in range(3):
                last = await outcome_of(sessions, "bad")
                if isinstance(last, Completed):
                    break
            assert isinstance(last, Completed), last
            assert isinstance(await outcome_of(sessions, "good"), Completed)
            nursery.cancel_scope.cancel()
    assert [] == [row for row in rows if not isinstance(row, DisplayMessage)]
    assert trouble.struck


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind, methods in METHODS.items() for method in methods])
async def test_store_when_a_method_goes_wrong(autojump_clock: Any, kind: str, method: str, how: str) -> None:
    """What a host's store does wrong for one conversation stays with that conversation, and ends with the trouble."""
    await story(kind, Trouble(method, HOW[how]))

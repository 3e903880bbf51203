"""Every public entry, for everybody who may not: what he gets is what a missing conversation gives, and nothing is changed.

The entries are read from the classes themselves. One that is new has no row here, and fails `test_every_entry_has_a_row`.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs
import pytest
import trio

import trio_sagents
from tests.support.scenarios import FaultyStore, Router, ask, make_agent, opened, read_all
from trio_sagents import (
    AgentHandle,
    Completed,
    ConversationNotFound,
    MemoryStore,
    Middleware,
    Receipt,
    Row,
    SameScope,
    Sessions,
    Subscriber,
    Watch,
)
from trio_sagents.middleware import TitleGenerated

MINE: Final = "c"
"""The conversation that is not the caller's."""
MISSING: Final = "m"


@attrs.define(eq=False)
class Attempt:
    """One caller at one entry."""

    sessions: Sessions
    conversation_id: str
    scope: Any
    handle: AgentHandle | None = None
    """Of the agent, for the commands of a handle; got when that was allowed."""

    @property
    def agent(self) -> AgentHandle:
        """The handle."""
        assert self.handle is not None
        return self.handle


Entry = Callable[[Attempt], Awaitable[Any]]


async def _subscribed(attempt: Attempt, channel: Any) -> Any:
    async with attempt.sessions.open_subscriber(scope=attempt.scope) as subscriber:
        await subscriber.subscribe(attempt.conversation_id, channel=channel)
        state = list(subscriber.subscriptions.values())
        return state, [type(envelope.event).__name__ for envelope in await read_all(subscriber)]


async def _heard(attempt: Attempt) -> Any:
    async with attempt.sessions.open_subscriber(scope=attempt.scope) as subscriber:
        await subscriber.subscribe(attempt.conversation_id)
        with trio.move_on_after(1):
            async for batch in subscriber.batches():
                return [type(envelope.event).__name__ for envelope in batch]
        return []


async def _unsubscribed(attempt: Attempt) -> Any:
    async with attempt.sessions.open_subscriber(scope=attempt.scope) as subscriber:
        await subscriber.unsubscribe(attempt.conversation_id)
        return subscriber.subscriptions


async def _ensured(attempt: Attempt) -> Any:
    async with attempt.sessions.open_subscriber(scope=attempt.scope) as subscriber:
        return await attempt.sessions.ensure_running(attempt.conversation_id, subscriber)


async def _watched(attempt: Attempt) -> Any:
    async with attempt.sessions.watch(attempt.conversation_id, scope=attempt.scope, viewer="eve") as watch:
        return watch.info


async def _paged(attempt: Attempt) -> Any:
    async with attempt.sessions.page(attempt.conversation_id, scope=attempt.scope, viewer="eve") as page:
        return page.rows


def _approval() -> Any:
    return trio_sagents.Approve("i1", "c1", "0" * 64)


LOOKS: Final[Mapping[str, Entry]] = {
    "Sessions.running": lambda at: at.sessions.running(at.conversation_id, scope=at.scope),
    "Sessions.stop": lambda at: at.sessions.stop(at.conversation_id, scope=at.scope),
    "Sessions.publish": lambda at: at.sessions.publish(at.conversation_id, TitleGenerated("x"), scope=at.scope),
    "Sessions.cancel_turn": lambda at: at.sessions.cancel_turn(at.conversation_id, scope=at.scope),
    "Sessions.get": lambda at: at.sessions.get(at.conversation_id, scope=at.scope),
    "Sessions.agent_info": lambda at: at.sessions.agent_info(at.conversation_id, scope=at.scope),
    "Sessions.history": lambda at: at.sessions.history(at.conversation_id, scope=at.scope),
    "Sessions.delete": lambda at: at.sessions.delete(at.conversation_id, scope=at.scope),
    "Sessions.dismiss": lambda at: at.sessions.dismiss(at.conversation_id, scope=at.scope),
    "Sessions.resume": lambda at: at.sessions.resume(at.conversation_id, [_approval()], scope=at.scope),
    "Subscriber.subscribe": lambda at: _subscribed(at, "main"),
    "Subscriber.subscribe to debug": lambda at: _subscribed(at, "debug"),
    "Subscriber.batches": _heard,
    "Subscriber.unsubscribe": _unsubscribed,
}
"""These start nothing, so what they say of a conversation that is missing can be had."""
STARTS: Final[Mapping[str, Entry]] = {
    "Sessions.start": lambda at: at.sessions.start(at.conversation_id, scope=at.scope),
    "Sessions.post": lambda at: at.sessions.post(at.conversation_id, "let me in", scope=at.scope),
    "Sessions.ensure_running": _ensured,
    "Sessions.watch": _watched,
    "Sessions.page": _paged,
    "Sessions.add_rows": lambda at: at.sessions.add_rows(at.conversation_id, [Row("notification", {"text": "x"})], scope=at.scope),
}
"""These make a conversation that is missing; one that is another's they must not."""
LISTS: Final[Mapping[str, Callable[[Sessions, Any], Awaitable[Any]]]] = {
    "Sessions.list_running": lambda sessions, scope: sessions.list_running(scope=scope),
    "Sessions.list_matching": lambda sessions, scope: sessions.list_matching("*", scope=scope),
    "Sessions.agent_count": lambda sessions, scope: sessions.agent_count(scope=scope),
    "Sessions.conversations": lambda sessions, scope: sessions.conversations(scope=scope),
    "Sessions.waiting": lambda sessions, scope: sessions.waiting(scope=scope),
}
HANDLE: Final[Mapping[str, Entry]] = {
    "AgentHandle.post": lambda at: at.agent.post("let me in"),
    "AgentHandle.cancel_turn": lambda at: at.agent.cancel_turn(),
    "AgentHandle.touch": lambda at: at.agent.touch(),
    "AgentHandle.info": lambda at: at.agent.info(),
    "AgentHandle.state": lambda at: at.agent.state(),
    "AgentHandle.wait_idle": lambda at: at.agent.wait_idle(),
    "AgentHandle.wait_ended": lambda at: at.agent.wait_ended(),
    "AgentHandle.stop": lambda at: at.agent.stop(),
    "AgentHandle.resume": lambda at: at.agent.resume([_approval()]),
    "AgentHandle.dismiss": lambda at: at.agent.dismiss(),
    "AgentHandle.add_rows": lambda at: at.agent.add_rows([Row("notification", {"text": "x"})]),
    "AgentHandle.publish": lambda at: at.agent.publish(TitleGenerated("x")),
    "AgentHandle.notify_middleware": lambda at: at.agent.notify_middleware("Files", {}),
}
NO_SCOPE_OF_ITS_OWN: Final[Mapping[str, str]] = {
    "Sessions.open_subscriber": "opens a mailbox; each subscription is asked for",
    "Sessions.drain": "the operator's: closes the house",
    "Sessions.ready": "the operator's: one bit about the process",
    "Sessions.statistics": "the operator's: counts without names",
    "Receipt.wait": "holding it is the right to it: it was given to whoever posted",
    "Subscriber.reserve": "for the runtime: pending, nobody is enrolled by it",
    "Subscriber.subscription": "for the runtime",
    "Subscriber.drop": "for the runtime",
    "Subscriber.close": "for the runtime",
    "Subscriber.hang_up": "for the runtime",
    "Subscriber.take_nowait": "gives what the subscriptions were given",
    "Subscriber.call_when_ready": "says only that there is something to take",
    "Subscriber.take_left": "for the runtime: gives what the subscriptions were given",
}


def entries() -> set[str]:
    """Return every public function of what a caller holds, as "Class.name"; those that a `Watch` inherits count once."""
    found: set[str] = set()
    for cls in (Sessions, AgentHandle, Subscriber, Watch, Receipt):
        for name, _ in inspect.getmembers(cls, callable):
            if not name.startswith("_") and not (cls is Watch and hasattr(Subscriber, name)):
                found.add(f"{cls.__name__}.{name}")
    return found


OTHERS: Final[Mapping[str, str]] = {
    "MiddlewareContext": "given to a hook: of its own agent",
    "ToolContext": "given to a tool: of its own agent",
    "TurnSteps": "given to a mode: of its own turn",
    "MemoryStore": "the house's own: behind the doors, with `owner=`",
    "SqliteStore": "as above",
    "MemoryCluster": "the house's own: it knows conversations and nodes, no scopes",
    "MemoryLeases": "the house's own: they know conversations and processes, no scopes",
    "SqliteCluster": "as above",
    "SqliteLeases": "as above",
    "SameScope": "it is the authorizer",
    "SingleFactoryRouter": "it is a router",
    "MemoryFiles": "the house's own: a tree for each key that the host made",
    "SqliteFiles": "as above",
    "DirectoryFiles": "as above",
    "FileSystem": "as above",
    "FileArea": "as above: of one key",
    "LocalPubSub": "the house's own: it knows topics, no scopes",
    "Page": "given by `Sessions.page`: its events and its older rows are asked for with the scope that opened it",
    "Presence": "the house's own: it knows topics, no scopes",
}
"""Classes of the library with async functions that no caller with a scope is given, and why."""


def test_every_class_is_looked_at() -> None:
    """A new public class with async functions is in the matrix, or says here why nobody calls it with a scope."""
    held = {cls.__name__ for cls in (Sessions, AgentHandle, Subscriber, Watch, Receipt)}
    classes = {name: value for name in trio_sagents.__all__ if inspect.isclass(value := getattr(trio_sagents, name))}
    found: set[str] = set()
    for name, cls in classes.items():
        for member, value in inspect.getmembers(cls):
            inner = getattr(value, "__wrapped__", value)
            is_a_hosts = issubclass(cls, Middleware) or getattr(cls, "_is_protocol", False)  # hooks, and what hosts implement
            if not is_a_hosts and not member.startswith("_") and (inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(inner)):
                found.add(name)

    assert set() == found - held - set(OTHERS)


def exists(row: str) -> bool:
    """Return whether a row is about something that there is."""
    return row.partition(" ")[0] in entries()


def those(rows: Mapping[str, Any]) -> list[str]:
    """Return the names of the rows whose entries there are."""
    return [row for row in rows if exists(row)]


def test_every_entry_has_a_row() -> None:
    """Whoever adds a public function says here what it does for those who may not call it."""
    rows = {row.partition(" ")[0] for row in (*LOOKS, *STARTS, *LISTS, *HANDLE)} | set(NO_SCOPE_OF_ITS_OWN)

    assert set() == entries() - rows
    assert set() == set(NO_SCOPE_OF_ITS_OWN) - entries()
    assert len(entries()) > 25


# ── what a caller can tell ────────────────────────────────────────────────────────────────────────────────────────────


async def told(entry: Entry, attempt: Attempt) -> Any:
    """Return all that a caller can tell of an entry's answer, the conversation's name left out."""
    began = trio.current_time()
    try:
        with trio.fail_after(50):
            result: Any = ("returned", repr(await entry(attempt)))
    except Exception as exc:  # that is what is compared
        chain = []
        one: BaseException | None = exc
        while one is not None:
            chain.append((type(one), str(one).replace(f"'{attempt.conversation_id}'", "'it'"), len(one.args)))
            one = one.__cause__ or one.__context__
        result = ("raised", chain)
    return result, trio.current_time() - began


def picture(store: MemoryStore) -> Any:
    """Return all that a store has."""
    stored = store._stored
    return {
        name: attrs.asdict(row, recurse=False) | {"messages": list(row.messages), "queue": dict(row.queue)} for name, row in stored.items()
    }


@attrs.define(eq=False)
class Gate:
    """An authorizer with owners of its own, which can be told that a login is over."""

    is_over: bool = False

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        """Alice may do all until her login is over; nobody else may do anything."""
        await trio.lowlevel.checkpoint()
        return scope == "alice" and not self.is_over


CALLERS: Final[Mapping[str, Any]] = {"another tenant": "bob", "no scope": None, "the owner's name as another type": 7, "a blank": ""}


async def prepare(sessions: Sessions, temperature: str, owner: Any = "alice") -> AgentHandle:
    """Have a conversation of Alice's, with one answered message, and its agent up or not."""
    assert isinstance(await ask(sessions, "mine", MINE, scope=owner), Completed)
    handle = await sessions.get(MINE, scope=owner)
    if temperature == "cold":
        await sessions.stop(MINE, scope=owner)
    return handle


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("row", those(LOOKS))
async def test_foreign_is_like_missing(autojump_clock: Any, row: str, caller: str, temperature: str) -> None:
    """Words, types, causes, and the time it takes: of a foreign conversation nobody learns more than of none."""
    store, router = MemoryStore(), Router(make_agent())
    owner = "7" if CALLERS[caller] == 7 else "alice"
    async with opened(router, store=store) as sessions:
        await prepare(sessions, temperature, owner)
        before, boots = picture(store), len(router.resolved)
        missing = await told(LOOKS[row], Attempt(sessions, MISSING, CALLERS[caller]))
        foreign = await told(LOOKS[row], Attempt(sessions, MINE, CALLERS[caller]))

        assert missing == foreign
        assert before == picture(store)
        assert boots == len(router.resolved)
        assert (temperature == "warm") == await sessions.running(MINE, scope=owner)


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("row", those(LOOKS))
async def test_foreign_is_like_missing_in_a_plain_store(autojump_clock: Any, row: str, temperature: str) -> None:
    """Also with a host's own store, which knows nothing of owners, a foreign conversation is like a missing one."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await prepare(sessions, temperature)
        before = picture(store.inner)
        missing = await told(LOOKS[row], Attempt(sessions, MISSING, "bob"))
        foreign = await told(LOOKS[row], Attempt(sessions, MINE, "bob"))

        assert missing == foreign
        assert before == picture(store.inner)


async def test_list_of_a_plain_store(autojump_clock: Any) -> None:
    """Also a plain store's list shows a tenant its own alone."""
    async with opened(store=FaultyStore()) as sessions:
        await prepare(sessions, "warm")

        assert () == tuple((await sessions.conversations(scope="bob")).items)


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("row", those(STARTS))
async def test_foreign_is_not_started(autojump_clock: Any, row: str, caller: str, temperature: str) -> None:
    """What would start a conversation says "no conversation" of a foreign one, and touches nothing of it."""
    store = MemoryStore()
    owner = "7" if CALLERS[caller] == 7 else "alice"
    async with opened(store=store) as sessions:
        await prepare(sessions, temperature, owner)
        before = picture(store)
        (how, chain), seconds = await told(STARTS[row], Attempt(sessions, MINE, CALLERS[caller]))

        assert ("raised", ConversationNotFound, "no conversation 'it'") == (how, *chain[0][:2])
        assert 0 == seconds
        assert before == picture(store)
        assert (temperature == "warm") == await sessions.running(MINE, scope=owner)
        assert isinstance(await ask(sessions, "still mine", MINE, scope=owner), Completed)


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("row", [*those(LOOKS), *those(STARTS)])
async def test_refused_by_the_authorizer_is_like_missing(autojump_clock: Any, row: str, temperature: str) -> None:
    """A login that is over is worth nothing, warm or cold: the same words as for a conversation that is not there."""
    store, router, gate = MemoryStore(), Router(make_agent()), Gate()
    async with opened(router, store=store, authorizer=gate) as sessions:
        await prepare(sessions, temperature)
        before, boots = picture(store), len(router.resolved)
        gate.is_over = True
        entry = {**LOOKS, **STARTS}[row]
        missing = await told(entry, Attempt(sessions, MISSING, "alice"))
        refused = await told(entry, Attempt(sessions, MINE, "alice"))

        assert missing == refused
        assert before == picture(store)
        assert boots == len(router.resolved)
        gate.is_over = False
        assert (temperature == "warm") == await sessions.running(MINE, scope="alice")


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("row", those(HANDLE))
async def test_handle_after_the_login(autojump_clock: Any, row: str, temperature: str) -> None:
    """A handle is no key: each command asks again, and a refused one says no more than that there is no such conversation."""
    store, gate = MemoryStore(), Gate()
    async with opened(store=store, authorizer=gate) as sessions:
        handle = await prepare(sessions, temperature)
        before = picture(store)
        gate.is_over = True
        (how, what), seconds = await told(HANDLE[row], Attempt(sessions, MINE, "alice", handle))

        if row == "AgentHandle.stop":
            assert ("returned", "False") == (how, what)
        else:
            assert ("raised", ConversationNotFound, "no conversation 'it'") == (how, *what[0][:2])
        assert 0 == seconds
        assert before == picture(store)
        gate.is_over = False
        assert (temperature == "warm") == await sessions.running(MINE, scope="alice")


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("row", those(HANDLE))
async def test_handle_of_a_scope_that_became_another(autojump_clock: Any, row: str, temperature: str) -> None:
    """The owner's key is taken from the scope at each command: a scope object that changed its key has lost its conversations."""
    store, who = MemoryStore(), {"key": "alice"}
    async with opened(store=store, authorizer=SameScope(lambda scope: scope["key"])) as sessions:
        handle = await prepare(sessions, temperature, who)
        before = picture(store)
        who["key"] = "bob"
        (how, what), _ = await told(HANDLE[row], Attempt(sessions, MINE, who, handle))

        if row == "AgentHandle.stop":
            assert ("returned", "False") == (how, what)
        else:
            assert ("raised", ConversationNotFound) == (how, what[0][0])
        assert before == picture(store)


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("row", those(LISTS))
async def test_lists_are_as_if_there_were_none(autojump_clock: Any, row: str, caller: str, temperature: str) -> None:
    """A list that another tenant asks for is the list of an empty house."""
    owner = "7" if CALLERS[caller] == 7 else "alice"
    async with opened() as empty:
        nothing = repr(await LISTS[row](empty, CALLERS[caller]))
    async with opened() as sessions:
        await prepare(sessions, temperature, owner)

        assert nothing == repr(await LISTS[row](sessions, CALLERS[caller]))


@pytest.mark.parametrize("row", [*those(LOOKS), *those(STARTS), *those(HANDLE)])
async def test_owner_is_let_in(autojump_clock: Any, row: str) -> None:
    """The oracle is not blind: the owner gets from a warm conversation something else than from a missing one."""
    async with opened(Router(make_agent())) as sessions:
        handle = await prepare(sessions, "cold" if row == "Sessions.delete" else "warm", "alice")
        (how, what), _ = await told({**LOOKS, **STARTS, **HANDLE}[row], Attempt(sessions, MINE, "alice", handle))

        refused = how == "raised" and what[0][0] is ConversationNotFound
        assert not refused
        if row in LOOKS and row not in {"Subscriber.unsubscribe", "Sessions.cancel_turn"}:
            absent, _ = await told(LOOKS[row], Attempt(sessions, MISSING, "alice"))
            assert absent != (how, what)


async def test_events_reach_their_own_tenant_alone(autojump_clock: Any) -> None:
    """Of two tenants at work at once, with like names in their houses, each hears its own and nothing of the other."""
    store = MemoryStore()
    async with opened(make_agent(), store=store) as sessions:
        async with sessions.open_subscriber(scope="alice") as alice, sessions.open_subscriber(scope="bob") as bob:
            for subscriber in (alice, bob):
                for conversation_id in ("a", "b"):
                    await subscriber.subscribe(conversation_id)
                    await subscriber.subscribe(conversation_id, channel="debug")
            await ask(sessions, "alice's word", "b1", scope="alice")
            for conversation_id, scope in (("a", "alice"), ("b", "bob")):
                receipt = await sessions.post(conversation_id, f"{scope}'s word", scope=scope)
                await receipt.wait()
            heard = {"a": await read_all(alice), "b": await read_all(bob)}

        for conversation_id, envelopes in heard.items():
            assert {conversation_id} == {envelope.conversation_id for envelope in envelopes}
            assert len(envelopes) > 10
            other = "bob" if conversation_id == "a" else "alice"
            assert not any(f"{other}'s word" in repr(envelope) for envelope in envelopes)

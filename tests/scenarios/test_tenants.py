"""Scope at every entry, warm and cold: a refusal equals absence, word for word."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.payments import Purse, decide, interrupt_of, paying
from tests.support.scenarios import (
    FaultyStore,
    Router,
    Verdicts,
    answer_to,
    ask,
    kinds_of,
    make_agent,
    of_kind,
    opened,
    read_all,
)
from trio_sagents import (
    AgentNotRunning,
    Approve,
    Completed,
    ConversationNotFound,
    MemoryStore,
    MessageQueued,
    Presence,
    SameScope,
    Snapshot,
    ToolContext,
)
from trio_sagents.testing import Call

Entry = Callable[[Any, str, Any], Awaitable[Any]]
ENTRIES: dict[str, Entry] = {
    "start": lambda sessions, c, scope: sessions.start(c, scope=scope),
    "post": lambda sessions, c, scope: sessions.post(c, "hi", scope=scope),
    "get": lambda sessions, c, scope: sessions.get(c, scope=scope),
    "agent_info": lambda sessions, c, scope: sessions.agent_info(c, scope=scope),
    "history": lambda sessions, c, scope: sessions.history(c, scope=scope),
    "cancel_turn": lambda sessions, c, scope: sessions.cancel_turn(c, scope=scope),
    "running": lambda sessions, c, scope: sessions.running(c, scope=scope),
    "stop": lambda sessions, c, scope: sessions.stop(c, scope=scope),
    "delete": lambda sessions, c, scope: sessions.delete(c, scope=scope),
}


async def result_of(call: Awaitable[Any]) -> Any:
    """Return what a caller can tell: the value, or the error's class and words."""
    try:
        return await call
    except Exception as exc:  # this is what the test compares
        return type(exc), str(exc), exc.args


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("entry", [name for name in ENTRIES if name not in {"start", "post"}])
async def test_refusal_is_like_absence(autojump_clock: Any, entry: str, temperature: str) -> None:
    """For a foreign conversation, warm or cold, a stranger gets exactly what he gets for a missing one."""
    async with opened() as sessions:
        await answer_to(sessions, conversation_id="c", scope="alice")
        if temperature == "cold":
            await sessions.stop("c", scope="alice")
        refused = await result_of(ENTRIES[entry](sessions, "c", "bob"))
        absent = await result_of(ENTRIES[entry](sessions, "absent", "bob"))

        assert absent == refused or (absent[0], absent[1].replace("absent", "c")) == (refused[0], refused[1])
        assert (temperature == "warm") == await sessions.running("c", scope="alice")
        assert 2 == len((await sessions.history("c", scope="alice")).rows)


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("entry", ["start", "post"])
async def test_start_and_post_to_a_foreign_conversation(autojump_clock: Any, entry: str, temperature: str) -> None:
    """start and post refuse a stranger with ConversationNotFound, and touch nothing."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions, scope="alice")
        if temperature == "cold":
            await sessions.stop("c", scope="alice")
        commits = len(store.commits)

        assert (ConversationNotFound, "no conversation 'c'", ("c",)) == await result_of(ENTRIES[entry](sessions, "c", "bob"))
        assert commits == len(store.commits)
        assert "re: again" == await answer_to(sessions, "again", scope="alice")


@pytest.mark.parametrize("entry", list(ENTRIES))
async def test_owner_may(autojump_clock: Any, entry: str) -> None:
    """The owner is let in at every entry."""
    async with opened() as sessions:
        await answer_to(sessions, scope="alice")
        if entry == "delete":
            await sessions.stop("c", scope="alice")
        result = await result_of(ENTRIES[entry](sessions, "c", "alice"))

        assert not isinstance(result, tuple), result
        assert result is not False


async def test_watch_and_ensure_running_refuse_a_stranger(autojump_clock: Any) -> None:
    """ensure_running takes the subscriber's scope, watch the caller's; both refuse like absence."""
    async with opened() as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await answer_to(sessions, scope="alice")
        for temperature in ("warm", "cold"):
            with pytest.raises(ConversationNotFound, match="no conversation 'c'"):
                await sessions.ensure_running("c", subscriber)
            with pytest.raises(ConversationNotFound, match="no conversation 'c'"):
                async with sessions.watch("c", scope="bob", viewer="bob"):
                    pass
            if temperature == "warm":
                await sessions.stop("c", scope="alice")

        assert {} == subscriber.subscriptions
        assert [] == await read_all(subscriber)


@pytest.mark.parametrize("temperature", ["warm", "cold"])
async def test_subscription_of_a_stranger_stays_pending(autojump_clock: Any, temperature: str) -> None:
    """A stranger's subscription stays pending, as for a missing conversation, and never gets an event."""
    async with opened() as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await answer_to(sessions, scope="alice")
        if temperature == "cold":
            await sessions.stop("c", scope="alice")
        await subscriber.subscribe("c")
        await subscriber.subscribe("c", channel="debug")
        await answer_to(sessions, "again", scope="alice")
        await sessions.stop("c", scope="alice")

        assert {("c", "main"): "pending", ("c", "debug"): "pending"} == subscriber.subscriptions
        assert [] == await read_all(subscriber)


async def test_subscription_of_a_stranger_during_the_first_boot(autojump_clock: Any) -> None:
    """A stranger who subscribed before the conversation existed gets nothing when its owner starts it."""
    async with opened(Router(build_delay=1)) as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await subscriber.subscribe("c")
        await answer_to(sessions, scope="alice")

        assert {("c", "main"): "pending"} == subscriber.subscriptions
        assert [] == await read_all(subscriber)


async def test_initial_subscriber_of_another_scope(autojump_clock: Any) -> None:
    """An initial subscriber with a foreign scope stays pending: the scope of a subscription is its subscriber's."""
    async with opened() as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await sessions.start("c", scope="alice", initial_subscribers=[subscriber])

        assert {("c", "main"): "pending"} == subscriber.subscriptions
        assert [] == await read_all(subscriber)


async def test_lists_show_one_scopes_own(autojump_clock: Any) -> None:
    """list_running, list_matching, agent_count and conversations show a scope its own, and nothing else."""
    async with opened() as sessions:
        for conversation_id, scope in (("a1", "alice"), ("a2", "alice"), ("b1", "bob")):
            await answer_to(sessions, conversation_id=conversation_id, scope=scope)

        assert ["a1", "a2"] == [info.conversation_id for info in await sessions.list_running(scope="alice")]
        assert ["b1"] == [info.conversation_id for info in await sessions.list_matching("*", scope="bob")]
        assert ["a2"] == [info.conversation_id for info in await sessions.list_matching("conversation-?2", scope="alice")]
        assert [2, 1, 0] == [await sessions.agent_count(scope=scope) for scope in ("alice", "bob", "eve")]
        assert ["b1"] == [item.conversation_id for item in (await sessions.conversations(scope="bob")).items]
        assert ["a2", "a1"] == [item.conversation_id for item in (await sessions.conversations(scope="alice")).items]


async def test_owner_is_stored_by_the_first_commit_and_checked_at_load(autojump_clock: Any) -> None:
    """The owner's key is stored by the first commit, and holds in the next host too."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions, scope="alice")
    assert {"alice"} == {commit.owner for commit in store.commits}
    async with opened(store=store) as sessions:
        with pytest.raises(ConversationNotFound):
            await sessions.start("c", scope="bob")
        assert "re: 2" == await answer_to(sessions, "2", scope="alice")


async def test_a_conversation_that_was_never_stored_has_no_owner(autojump_clock: Any) -> None:
    """The owner is the scope whose agent first stored the conversation. A conversation that was started and stopped without a write is
    free."""
    async with opened() as sessions:
        await sessions.start("c", scope="alice")
        with pytest.raises(ConversationNotFound):
            await sessions.start("c", scope="bob")
        await sessions.stop("c", scope="alice")

        assert (await sessions.start("c", scope="bob")).started


@pytest.mark.parametrize("scopes", [(1, "1"), (None, "None"), (0, None), ("", None), (1, "alice")], ids=repr)
async def test_same_scope_coerces_nothing(autojump_clock: Any, scopes: Any) -> None:
    """SameScope() takes str, int and None as they are: 1, "1" and None are three."""
    mine, theirs = scopes
    async with opened() as sessions:
        await answer_to(sessions, scope=mine)
        with pytest.raises(ConversationNotFound):
            await sessions.history("c", scope=theirs)
        with pytest.raises(ConversationNotFound):
            await sessions.start("c", scope=theirs)
        await sessions.stop("c", scope=mine)
        with pytest.raises(ConversationNotFound):
            await sessions.start("c", scope=theirs)

        assert (await sessions.start("c", scope=mine)).started


@attrs.frozen
class User:
    """A host's own scope."""

    user_id: int
    session: str = ""


async def test_same_scope_with_a_key(autojump_clock: Any) -> None:
    """With SameScope(key), two scopes with one key are the same owner. The store gets the agent's scope, and the key besides."""
    store = FaultyStore()
    async with opened(store=store, authorizer=SameScope(lambda user: user.user_id)) as sessions:
        await answer_to(sessions, scope=User(1, "phone"))
        assert "re: x" == await answer_to(sessions, "x", scope=User(1, "desk"))
        with pytest.raises(ConversationNotFound):
            await sessions.post("c", "hi", scope=User(2))

        assert {1} == {commit.owner for commit in store.commits}


@pytest.mark.parametrize("scope", [User(1), 1.5, True, ("alice",)], ids=repr)
async def test_same_scope_without_a_key_and_an_object(autojump_clock: Any, scope: Any) -> None:
    """SameScope() without a key refuses a scope that it cannot compare, before any side effect."""
    store, router = FaultyStore(), Router()
    async with opened(router, store=store) as sessions:
        with pytest.raises(TypeError, match="SameScope"):
            await sessions.post("c", "hi", scope=scope)

    assert ([], []) == (router.resolved, store.commits)


async def test_actor_is_the_callers_scope(autojump_clock: Any) -> None:
    """Stores get the agent's scope; the caller's is context.actor."""
    store, scopes = FaultyStore(), []
    phone, desk = User(1, "phone"), User(1, "desk")
    plain = store.commit

    async def commit(scope: Any, commit: Any) -> int:
        scopes.append((scope, commit.actor))
        return await plain(scope, commit)

    store.commit = commit  # type: ignore[method-assign]  # a spy
    async with opened(store=store, authorizer=SameScope(lambda user: user.user_id)) as sessions:
        await answer_to(sessions, "one", scope=phone)
        scopes.clear()
        await answer_to(sessions, "two", scope=desk)

    assert {id(phone)} == {id(scope) for scope, _ in scopes}
    assert {id(desk)} == {id(actor) for _, actor in scopes}


async def test_scope_reaches_tools(autojump_clock: Any) -> None:
    """A tool's context has the agent's scope: the host's own object."""

    seen: list[Any] = []

    async def look(context: ToolContext) -> str:
        """Look."""
        seen.append(context)
        return "ok"

    user = User(1)
    async with opened(make_agent(Call("look"), "done", tools=[look]), authorizer=SameScope(lambda user: user.user_id)) as sessions:
        await answer_to(sessions, scope=user)

    assert (user, "c") == (seen[0].scope, seen[0].conversation_id)
    assert user is seen[0].scope
    assert seen[0].call_id
    assert seen[0].idempotency_key


ACTIONS = {
    "start": "start",
    "post": "post",
    "get": "view",
    "agent_info": "view",
    "history": "view",
    "cancel_turn": "cancel",
    "running": "view",
    "stop": "stop",
    "delete": "delete",
}


@pytest.mark.parametrize("temperature", ["warm", "cold"])
@pytest.mark.parametrize("entry", list(ENTRIES))
async def test_custom_authorizer_is_asked_at_every_entry(autojump_clock: Any, entry: str, temperature: str) -> None:
    """A custom async authorizer is asked at every entry, warm and cold, with that entry's action; its no is like absence."""
    verdicts = Verdicts()
    scope = object()
    async with opened(authorizer=verdicts) as sessions:
        await answer_to(sessions, scope=scope)
        if temperature == "cold":
            await sessions.stop("c", scope=scope)
        verdicts.asked.clear()
        verdicts.allow = lambda *_: False
        refused = await result_of(ENTRIES[entry](sessions, "c", scope))

        assert refused is False or (ConversationNotFound, "no conversation 'c'", ("c",)) == refused
        assert (scope, "c", ACTIONS[entry]) in verdicts.asked
        verdicts.allow = lambda *_: True
        assert (temperature == "warm") == await sessions.running("c", scope=scope)


async def test_custom_authorizer_is_asked_again_at_every_command(autojump_clock: Any) -> None:
    """A handle is bound to the scope that obtained it, and every command asks again: a right that was withdrawn is gone."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions:
        agent = (await sessions.start("c", scope="alice")).agent
        verdicts.asked.clear()
        await agent.post("hi")
        await agent.touch()
        await agent.wait_idle()
        await agent.cancel_turn()
        assert {("alice", "c", "post"), ("alice", "c", "cancel")} <= set(verdicts.asked)
        verdicts.allow = lambda *_: False
        for call in (lambda: agent.post("hi"), agent.cancel_turn, agent.touch, agent.info, agent.state, agent.wait_idle, agent.wait_ended):
            with pytest.raises(ConversationNotFound):
                await call()
        assert not await agent.stop()
        verdicts.allow = lambda *_: True
        assert await sessions.running("c")


async def test_custom_authorizer_filters_the_lists(autojump_clock: Any) -> None:
    """Lists show what the authorizer lets the scope list."""
    verdicts = Verdicts(lambda scope, conversation_id, action: action != "list" or conversation_id != "secret")
    async with opened(authorizer=verdicts) as sessions:
        await answer_to(sessions, conversation_id="open")
        await answer_to(sessions, conversation_id="secret")

        assert ["open"] == [info.conversation_id for info in await sessions.list_running()]
        assert 1 == await sessions.agent_count()
        assert ["open"] == [item.conversation_id for item in (await sessions.conversations()).items]


async def test_custom_authorizer_and_subscriptions(autojump_clock: Any) -> None:
    """A subscription is asked about with its own scope, again at each start of the agent, with "debug" for that channel."""
    verdicts = Verdicts(lambda scope, conversation_id, action: scope != "bob" or action == "view")
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await subscriber.subscribe("c")
        await subscriber.subscribe("c", channel="debug")
        await answer_to(sessions, scope="alice")
        assert {("c", "main"): "subscribed", ("c", "debug"): "pending"} == subscriber.subscriptions
        await sessions.stop("c", scope="alice")
        verdicts.allow = lambda scope, conversation_id, action: scope != "bob"
        await read_all(subscriber)
        await answer_to(sessions, "secret", scope="alice")

        assert "pending" == subscriber.subscriptions["c", "main"]
        assert [] == await read_all(subscriber)


async def test_custom_authorizer_that_is_slow(autojump_clock: Any) -> None:
    """A slow authorizer delays its own caller only; single flight holds."""
    router = Router()
    infos = []

    async def call() -> None:
        infos.append(await sessions.start("c"))

    async with opened(router, authorizer=Verdicts(delay=1)) as sessions, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(call)

    assert (1, 1) == (sum(info.started for info in infos), len(router.built))


@pytest.mark.parametrize("verdict", [None, 1, "yes"], ids=repr)
async def test_custom_authorizer_that_returns_no_bool(autojump_clock: Any, verdict: Any) -> None:
    """A verdict that is not a bool admits nobody."""
    async with opened(authorizer=Verdicts(lambda *_: verdict)) as sessions:
        with pytest.raises(Exception, match="authorize|bool"):
            await sessions.post("c", "hi")

        assert 0 == sessions.statistics().agents


async def test_stranger_as_viewer_is_nobody(autojump_clock: Any) -> None:
    """A refused watch leaves no presence, and does not count as a viewer."""
    presence = Presence()
    async with opened(presence=presence) as sessions:
        await sessions.start("c", scope="alice")
        with pytest.raises(ConversationNotFound):
            async with sessions.watch("c", scope="bob", viewer="bob"):
                pass
        await trio.sleep(10)

        assert await sessions.running("c", scope="alice")
        assert 0 == (await sessions.agent_info("c", scope="alice")).viewers


async def test_stored_only_is_not_running(autojump_clock: Any) -> None:
    """get and agent_info of a stored conversation: AgentNotRunning for its owner, ConversationNotFound for anybody else."""
    async with opened(store=MemoryStore()) as sessions:
        await answer_to(sessions, scope="alice")
        await sessions.stop("c", scope="alice")
        for entry in (sessions.get, sessions.agent_info):
            with pytest.raises(AgentNotRunning):
                await entry("c", scope="alice")
            with pytest.raises(ConversationNotFound):
                await entry("c", scope="bob")
            with pytest.raises(ConversationNotFound):
                await entry("absent", scope="alice")


async def test_two_viewers_of_one_owner_see_the_same(autojump_clock: Any) -> None:
    """Every viewer sees the same ordered events."""
    async with opened() as sessions, sessions.open_subscriber(scope="a") as one, sessions.open_subscriber(scope="a") as two:
        await sessions.start("c", scope="a", initial_subscribers=[one, two])
        await answer_to(sessions, scope="a")
        first, second = await read_all(one), await read_all(two)

        assert first == second
        assert Snapshot is kinds_of(first)[0]
        assert 1 == len(of_kind(first, MessageQueued))


@pytest.mark.parametrize("scope", [{"user": 1}, None], ids=repr)
async def test_subscriber_with_a_scope_that_the_key_refuses(autojump_clock: Any, scope: Any) -> None:
    """A scope without a key is refused at once, and nobody else's agent boots for ever because of it."""
    router = Router()
    verdicts = SameScope() if scope else SameScope(lambda scope: scope["user"])
    alice: Any = "alice" if scope else {"user": "alice"}
    async with opened(router, authorizer=verdicts) as sessions:
        with contextlib.suppress(TypeError):
            async with sessions.open_subscriber(scope=scope) as subscriber:
                with pytest.raises(TypeError):
                    await subscriber.subscribe("c")
        with trio.fail_after(5):
            await sessions.start("c", scope=alice)

        assert await sessions.running("c", scope=alice)
        assert 1 == len(router.built)


async def test_pending_viewer_about_whom_the_authorizer_fails(autojump_clock: Any) -> None:
    """An authorizer that raises for one viewer leaves that viewer pending, and harms no agent."""

    def allow(scope: Any, conversation_id: str, action: str) -> bool:
        if scope == "bob" and verdicts.asked.count(("bob", conversation_id, action)) > 1:
            raise OSError("the directory is down")
        return True

    verdicts = Verdicts(allow)
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await subscriber.subscribe("c")
        await sessions.start("c", scope="alice")
        await trio.sleep(1)

        assert await sessions.running("c", scope="alice")
        assert {"pending"} == set(subscriber.subscriptions.values())


async def test_pending_viewer_about_whom_the_authorizer_never_answers(autojump_clock: Any) -> None:
    """An authorizer that hangs for one viewer delays no other viewer."""

    class Hanging(Verdicts):
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            if scope == "bob" and hanging:
                await trio.sleep_forever()
            return True

    hanging = False
    async with (
        opened(authorizer=Hanging()) as sessions,
        sessions.open_subscriber(scope="bob") as bob,
        sessions.open_subscriber(scope="carol") as carol,
    ):
        await bob.subscribe("c")
        await carol.subscribe("c")
        hanging = True
        await sessions.start("c", scope="alice")
        await trio.sleep(1)

        assert {"pending"} == set(bob.subscriptions.values())
        assert {"subscribed"} == set(carol.subscriptions.values())


async def test_initial_subscriber_whom_the_authorizer_refuses(autojump_clock: Any) -> None:
    """R23: who starts an agent admits nobody whom the authorizer would refuse."""
    verdicts = Verdicts(lambda scope, conversation_id, action: scope == "alice")
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="mallory") as mallory:
        await sessions.start("c", scope="alice", initial_subscribers=[mallory])
        await ask(sessions, scope="alice")

        assert "subscribed" not in mallory.subscriptions.values()
        assert [] == await read_all(mallory)


@pytest.mark.parametrize("warm", [True, False])
async def test_authorizer_that_refuses_to_let_decide(autojump_clock: Any, warm: bool) -> None:
    """Who may not decide sees a conversation that is not there, and wakes nobody."""
    purse = Purse()
    verdicts = Verdicts(lambda scope, conversation_id, action: action != "decide" or scope == "boss", delay=0.1)
    async with opened(paying(purse), authorizer=verdicts) as sessions:
        interrupt = await interrupt_of(sessions, scope="clerk")
        if not warm:
            await sessions.stop("c", scope="clerk")
        for refused in (sessions.resume("c", [Approve(interrupt.calls[0])], scope="clerk"), sessions.dismiss("c", scope="clerk")):
            with pytest.raises(ConversationNotFound):
                await refused

        assert warm == await sessions.running("c", scope="clerk")
        assert isinstance(await decide(sessions, Approve(interrupt.calls[0]), scope="boss"), Completed)


async def test_start_when_the_store_forgets_to_compare_owners(autojump_clock: Any) -> None:
    """The owner is compared at the boot, too: a store that says that it does, and does not, lets nobody in."""

    class Careless(MemoryStore):
        async def load(self, scope: Any, conversation_id: str, **settings: Any) -> Any:
            return await super().load(scope, conversation_id, check=settings["check"])

    async with opened(store=Careless()) as sessions:
        await answer_to(sessions, "mine", scope="alice")
        await sessions.stop("c", scope="alice")

        with pytest.raises(ConversationNotFound):
            await sessions.start("c", scope="bob")
        assert "re: again" == await answer_to(sessions, "again", scope="alice")


async def test_subscription_when_its_starter_may_see_no_more(autojump_clock: Any) -> None:
    """A subscriber that was admitted with the start of one agent is authorised again for the next agent."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await sessions.start("c", scope="bob", initial_subscribers=[subscriber])
        await sessions.stop("c", scope="bob")
        await read_all(subscriber)
        verdicts.allow = lambda scope, conversation_id, action: scope != "bob"
        await answer_to(sessions, "secret", scope="alice")

        assert {("c", "main"): "pending"} == subscriber.subscriptions
        assert [] == await read_all(subscriber)

"""Starting: single flight, boots that fail or hang, and what goes to the host's own code."""

import contextlib
import contextvars
import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from tests.support.logs import quiet_log
from tests.support.scenarios import (
    NEVER,
    FaultyStore,
    Router,
    Verdicts,
    answer_to,
    ask,
    kinds_of,
    make_agent,
    make_config,
    opened,
    read_all,
    state_of,
    transcript,
)
from trio_sagents import (
    Agent,
    AgentNotRunning,
    AgentShutdown,
    AgentStopped,
    Completed,
    ConversationNotFound,
    LimitExceeded,
    MemoryStore,
    Message,
    Middleware,
    MiddlewareError,
    SessionConfig,
    SessionInfo,
    SessionOpts,
    SessionsClosed,
    SingleFactoryRouter,
    Snapshot,
    StartFailed,
    Status,
    TextPart,
    Todo,
    ToolCall,
    UserMessage,
    open_sessions,
)
from trio_sagents.testing import Call, Simulation, simulate_many


async def test_start_with_50_concurrent_callers(autojump_clock: Any) -> None:
    """N concurrent callers cause one router call, one factory call and one load; exactly one gets started=True."""
    router, store, infos = Router(build_delay=1), FaultyStore(), []

    async def call() -> None:
        infos.append(await sessions.start("c"))

    async with opened(router, store=store) as sessions, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(call)

    assert 50 == len(infos)
    assert 1 == sum(info.started for info in infos)
    assert (1, 1, 1) == (len(router.resolved), len(router.built), store.faults.calls["load"])
    assert 1 == len({info.agent for info in infos})


async def test_start_when_the_first_caller_is_cancelled(autojump_clock: Any) -> None:
    """A caller's cancellation aborts nothing for the others, and one of them gets started=True."""
    router, infos = Router(build_delay=1), []

    async def call(patience: float) -> None:
        with trio.move_on_after(patience):
            infos.append(await sessions.start("c"))

    async with opened(router) as sessions, trio.open_nursery() as nursery:
        nursery.start_soon(call, 0.5)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(4):
            nursery.start_soon(call, NEVER)

    assert [False, False, False, True] == sorted(info.started for info in infos)
    assert 1 == len(router.built)


async def test_start_when_every_caller_is_cancelled(autojump_clock: Any) -> None:
    """The boot continues without its callers. The first call that returns the agent gets started=True."""
    router = Router(build_delay=1)
    async with opened(router) as sessions:
        with trio.move_on_after(0.5):
            await sessions.start("c")
        await trio.sleep(5)

        assert await sessions.running("c")
        assert [True, False] == [(await sessions.start("c")).started for _ in range(2)]
        assert 1 == len(router.built)


async def test_start_when_it_runs(autojump_clock: Any) -> None:
    """Start is idempotent: an agent that is up is returned, and the router is not asked."""
    router = Router()
    async with opened(router) as sessions:
        first, second = await sessions.start("c"), await sessions.start("c", request_opts={"other": 1})

        assert (True, False) == (first.started, second.started)
        assert first.agent == second.agent
        assert ("conversation-c", "c") == (second.agent_id, second.conversation_id)
        assert 1 == len(router.resolved)


class Refusing:
    """Raises at one stage."""

    def __init__(self, stage: str, error: Exception) -> None:
        self.stage = stage
        self.store = FaultyStore()
        self.router = Router()
        self.authorizer = Verdicts()
        match stage:
            case "authorize":
                self.authorizer.allow = self._raise
            case "route":
                self.router.route_error = error
            case "build":
                self.router.build_error = error
            case "load":
                self.store.faults.every["load"] = error
        self.error = error

    def _raise(self, *_: Any) -> bool:
        raise self.error

    def mend(self) -> None:
        self.authorizer.allow = lambda *_: True
        self.router.route_error = self.router.build_error = None
        self.store.faults.every.clear()


@pytest.mark.parametrize("stage", ["authorize", "route", "build", "load"])
async def test_start_when_the_boot_fails(autojump_clock: Any, stage: str) -> None:
    """A failed boot gives each caller its own StartFailed(id, stage) from the host's error, and leaves nothing."""
    host, failures = Refusing(stage, OSError("mine")), []
    host.router.build_delay = 1

    async def call() -> None:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")
        failures.append(caught.value)

    async with opened(host.router, store=host.store, authorizer=host.authorizer) as sessions:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)

        assert [("c", stage)] * 3 == [(failure.conversation_id, failure.stage) for failure in failures]
        assert 3 == len({id(failure) for failure in failures})
        assert 0 == sessions.statistics().agents
        assert [] == host.store.commits
        host.mend()
        assert (await sessions.start("c")).started


@pytest.mark.parametrize("stage", ["authorize", "route", "build"])
async def test_start_failed_has_the_hosts_error_as_its_cause(autojump_clock: Any, stage: str) -> None:
    """StartFailed comes from the host's error, that very object."""
    error = KeyError("mine")
    host = Refusing(stage, error)
    async with opened(host.router, authorizer=host.authorizer) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

    assert error is caught.value.__cause__


async def test_start_when_the_load_fails_leaves_the_row_alone(autojump_clock: Any) -> None:
    """Any trouble of the load stops the start and leaves the stored row untouched."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions, "one")
        await sessions.stop("c")
        before = len(store.commits)
        store.faults.fail("load", error=OSError("gone"))
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

        assert "load" == caught.value.stage
        assert before == len(store.commits)
        assert ["one", "re: one"] == [text for _, text, _ in await transcript(sessions)]


async def test_post_when_the_boot_fails(autojump_clock: Any) -> None:
    """A post that cannot wake the agent raises StartFailed, and nothing is accepted."""
    router, store = Router(build_error=OSError("mine")), FaultyStore()
    async with opened(router, store=store) as sessions:
        with pytest.raises(StartFailed):
            await sessions.post("c", "hi")

    assert [] == store.commits


class Answering:
    """A router that returns anything."""

    def __init__(self, value: Any) -> None:
        self.value = value

    async def resolve(self, scope: Any, conversation_id: str, request_opts: Any) -> Any:
        return self.value


@pytest.mark.parametrize(
    "value",
    [None, Router(), (Router(),), (Router(), 1, 2), (object(), 1), [Router(), 1]],
    ids=["none", "one", "tuple of one", "three", "no factory", "list"],
)
async def test_start_when_the_router_returns_a_wrong_shape(autojump_clock: Any, value: Any) -> None:
    """A wrong return value of the router is a TypeError that shows the expected shape."""
    async with opened(Answering(value)) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

    assert isinstance(caught.value.__cause__, TypeError)
    assert "(factory, config)" in str(caught.value.__cause__)
    assert "route" == caught.value.stage


@pytest.mark.parametrize(
    "value",
    [None, "agent", (make_agent(),), (make_agent(), {}), (make_agent(), SessionOpts(), 1), Agent],
    ids=["none", "str", "tuple of one", "no options", "three", "class"],
)
async def test_start_when_the_factory_returns_a_wrong_shape(autojump_clock: Any, value: Any) -> None:
    """A wrong return value of the factory is a TypeError that shows the expected shape."""
    async with opened(Router(lambda _: value)) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

    assert isinstance(caught.value.__cause__, TypeError)
    assert "(Agent, SessionOpts)" in str(caught.value.__cause__)
    assert "build" == caught.value.stage


class SyncRouter(Router):
    def resolve(self, *_: Any) -> Any:  # type: ignore[override]  # that is the mistake
        return self, None


class SyncFactory(Router):
    def create_agent(self, *_: Any) -> Any:  # type: ignore[override]  # that is the mistake
        return make_agent()


class SyncAuthorizer:
    def authorize(self, *_: Any) -> bool:
        return True


class SyncStore(FaultyStore):
    def load(self, *_: Any) -> Any:  # type: ignore[override]  # that is the mistake
        return None


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"router": SyncRouter()}, "resolve"),
        ({"router": SyncFactory()}, "create_agent"),
        ({"router": SingleFactoryRouter(lambda agent_id, config: make_agent())}, "lambda"),
        ({"authorizer": SyncAuthorizer()}, "authorize"),
        ({"store": SyncStore()}, "load"),
    ],
    ids=lambda value: value if isinstance(value, str) else "of",
)
async def test_start_when_a_host_function_is_sync(autojump_clock: Any, settings: Any, name: str) -> None:
    """A plain function in place of an async one is a TypeError at first use, and names the function."""
    async with opened(**settings) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

    assert isinstance(caught.value.__cause__, TypeError)
    assert name in str(caught.value.__cause__)


async def test_preprocessor_when_it_is_sync(autojump_clock: Any) -> None:
    """A plain function as message_preprocessor is a TypeError at first use that names it; nothing was done."""

    def shout(message: UserMessage, scope: Any) -> UserMessage:
        return message

    async with opened(Router(opts=SessionOpts(supervisor_opts={"message_preprocessor": shout}))) as sessions:
        with pytest.raises(TypeError, match="message_preprocessor|shout"):
            await sessions.post("c", "hi")

        assert () == (await state_of(sessions)).messages


@pytest.mark.parametrize("stage", ["route", "build", "load"])
async def test_start_when_the_boot_hangs(autojump_clock: Any, stage: str) -> None:
    """Boots are bounded by start_timeout; nothing is left, and the next start works."""
    router, store = Router(), FaultyStore()
    if stage == "load":
        store.faults.hang("load")
    else:
        setattr(router, f"{stage}_delay", NEVER)
    async with opened(router, store=store, policy={"start_timeout": 7.0}) as sessions:
        began = trio.current_time()
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

        assert 7 <= trio.current_time() - began <= 8
        assert stage == caught.value.stage
        assert isinstance(caught.value.__cause__, trio.TooSlowError)
        assert 0 == sessions.statistics().agents
        router.route_delay = router.build_delay = 0
        assert (await sessions.start("c")).started


async def test_start_when_the_boot_hangs_and_its_callers_left(autojump_clock: Any) -> None:
    """A hung boot that nobody waits for ends at start_timeout too."""
    router = Router(build_delay=NEVER)
    async with opened(router, policy={"start_timeout": 7.0}) as sessions:
        with trio.move_on_after(1):
            await sessions.start("c")
        await trio.sleep(10)

        assert 0 == sessions.statistics().agents


async def test_start_when_another_boot_is_slow(autojump_clock: Any) -> None:
    """A slow load delays no other start."""
    store = FaultyStore()
    store.faults.slow("load", 20)
    async with opened(store=store) as sessions, trio.open_nursery() as nursery:
        nursery.start_soon(sessions.start, "slow")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await sessions.start("quick")

        assert began == trio.current_time()


async def test_request_opts_go_verbatim_to_the_router(autojump_clock: Any) -> None:
    """request_opts go to the router as they are: the same object."""
    router, opts = Router(), {"nested": {"a": [1]}, "object": object()}
    async with opened(router) as sessions:
        await sessions.start("c", scope="alice", request_opts=opts)

    ((scope, conversation_id, given),) = router.resolved
    assert ("alice", "c") == (scope, conversation_id)
    assert opts is given


async def test_request_opts_when_a_post_watch_or_ensure_running_wakes(autojump_clock: Any) -> None:
    """Every entry that wakes an agent hands its request_opts to the router; without them the router gets an empty mapping."""
    router, opts = Router(), {"a": 1}
    async with opened(router) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.post("1", "hi", request_opts=opts)
        await sessions.ensure_running("2", subscriber, request_opts=opts)
        async with sessions.watch("3", request_opts=opts):
            await sessions.start("4")

    assert [opts, opts, opts, {}] == [given for _, _, given in router.resolved]
    assert all(given is opts for _, _, given in router.resolved[:3])


async def test_router_config_goes_verbatim_to_the_factory(autojump_clock: Any) -> None:
    """The router's config goes to the factory as it is, with the agent id."""
    router = Router(config=object())
    async with opened(router) as sessions:
        await sessions.start("c")

    assert [("conversation-c", router.config)] == router.built
    assert router.config is router.built[0][1]


async def test_fresh_state_attrs_when_fresh_and_when_restored(autojump_clock: Any) -> None:
    """fresh_state_attrs seeds a fresh state, never a restored one."""
    seed = Message("seed", "assistant", [TextPart("welcome")], "stop")
    router = Router(opts=SessionOpts(fresh_state_attrs={"messages": [seed], "todos": ["buy milk"], "metadata": {"lang": "de"}}))
    async with opened(router) as sessions:
        fresh = await state_of(sessions)
        assert ([seed], ["buy milk"], {"lang": "de"}) == (list(fresh.messages), [todo.content for todo in fresh.todos], fresh.metadata)
        await answer_to(sessions, "one")
        await sessions.stop("c")
        router.opts = SessionOpts(fresh_state_attrs={"todos": ["other"], "metadata": {"lang": "en"}})
        restored = await state_of(sessions)

        assert ["welcome", "one", "re: one"] == [message.text for message in restored.messages]
        assert (["buy milk"], {"lang": "de"}) == ([todo.content for todo in restored.todos], restored.metadata)
        assert all(isinstance(todo, Todo) for todo in restored.todos)


async def test_supervisor_opts_override_the_policy(autojump_clock: Any) -> None:
    """supervisor_opts override SessionPolicy fields and inactivity_timeout, for that session alone."""
    router = Router(opts=SessionOpts(supervisor_opts={"queue_limit": 1, "inactivity_timeout": 5.0, "max_message_bytes": 10}))
    async with opened(router, inactivity_timeout=100.0) as sessions:
        await sessions.start("short")
        router.opts = None
        await sessions.start("long")
        with pytest.raises(LimitExceeded) as caught:
            await sessions.post("short", "x" * 11)
        await sessions.post("long", "x" * 11)
        await trio.sleep(7)

        assert ("max_message_bytes", 11) == (caught.value.limit, caught.value.value)
        assert [False, True] == [await sessions.running("short"), await sessions.running("long")]


@pytest.mark.parametrize("key", ["supervisor_opts", "fresh_state_attrs"])
def test_session_opts_with_an_unknown_key(key: str) -> None:
    """An unknown key is an error that names it."""
    with pytest.raises((TypeError, ValueError), match="inactivity_timout"):
        SessionOpts(**{key: {"inactivity_timout": 1}})


@pytest.mark.parametrize("value", ["5", None, -1.0, 0, True], ids=repr)
def test_session_opts_with_a_wrong_override(value: Any) -> None:
    """A wrong value for an override is refused when it is given."""
    with pytest.raises((TypeError, ValueError), match="inactivity_timeout"):
        SessionOpts(supervisor_opts={"inactivity_timeout": value})


async def test_app_internal_is_the_handles_options(autojump_clock: Any) -> None:
    """AgentHandle.options is SessionOpts.app_internal, whichever call obtained the handle."""
    tenant = object()
    async with opened(Router(opts=SessionOpts(tenant=tenant, plan="pro"))) as sessions:
        info = await sessions.start("c")

        assert {"tenant": tenant, "plan": "pro"} == dict(info.agent.options)
        assert tenant is (await sessions.get("c")).options["tenant"]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="none")


async def test_boot_runs_in_the_context_of_open_sessions(autojump_clock: Any) -> None:
    """The agent boots in the context that open_sessions was entered with, not the first caller's."""
    seen: list[str] = []

    def build(_: str) -> Agent:
        seen.append(VARIABLE.get())
        return make_agent()

    VARIABLE.set("host")
    async with opened(Router(build)) as sessions:
        VARIABLE.set("caller")
        await sessions.start("c")

    assert ["host"] == seen


@pytest.mark.parametrize("bad", ["", "x" * 257, "é" * 129, "a\nb", "a\x00b", "e\u0301", "a\u2028b"], ids=repr)
async def test_start_with_an_id_that_cannot_be(autojump_clock: Any, bad: str) -> None:
    """Ids are str, 1 to 256 bytes, NFC, without control characters; anything else is refused before any side effect."""
    router = Router()
    async with opened(router) as sessions, sessions.open_subscriber() as subscriber:
        for call in (sessions.start, sessions.running, sessions.stop, sessions.get, sessions.history, sessions.delete, sessions.agent_info):
            with pytest.raises(ValueError, match="conversation_id"):
                await call(bad)
        with pytest.raises(ValueError, match="conversation_id"):
            await sessions.post(bad, "hi")
        with pytest.raises(ValueError, match="conversation_id"):
            await sessions.ensure_running(bad, subscriber)
        with pytest.raises(ValueError, match="conversation_id"):
            await subscriber.subscribe(bad)

    assert [] == router.resolved


@pytest.mark.parametrize("bad", [None, 42, b"c", ["c"]], ids=repr)
async def test_start_with_an_id_of_a_wrong_type(autojump_clock: Any, bad: Any) -> None:
    """An id that is not a str is a TypeError."""
    async with opened() as sessions:
        for call in (sessions.start, sessions.running, sessions.stop, sessions.get, sessions.history, sessions.delete):
            with pytest.raises(TypeError, match="conversation_id"):
                await call(bad)


@pytest.mark.parametrize("good", ["42", "é" * 128, "x" * 256, "a b/c?d", "日本"], ids=repr)
async def test_start_with_an_id_that_can_be(autojump_clock: Any, good: str) -> None:
    """256 bytes are fine, and so is any printable text."""
    async with opened() as sessions:
        assert good == (await sessions.start(good)).conversation_id


async def test_agent_id_fun_that_clashes(autojump_clock: Any) -> None:
    """One id for two conversations is a ValueError at the second start; the first agent is unharmed."""
    async with opened(agent_id_fun=lambda conversation_id: "agent-" + conversation_id[0]) as sessions:
        info = await sessions.start("one")
        with pytest.raises(ValueError, match="agent-o"):
            await sessions.start("other")

        assert "agent-o" == info.agent_id
        assert await sessions.running("one")
        assert "re: hi" == await answer_to(sessions, "hi", "one")


def first_letter(conversation_id: str) -> str:
    """Give one agent id to all conversations that begin alike."""
    return "agent-" + conversation_id[0]


@pytest.mark.parametrize("owner", ["alice", "bob"])
async def test_agent_id_fun_that_clashes_and_whoever_looks(autojump_clock: Any, owner: str) -> None:
    """To whoever does not start it, a conversation whose agent id another one has is not running: nobody learns who has it."""
    async with opened(agent_id_fun=first_letter) as sessions, sessions.open_subscriber(scope="bob") as subscriber:
        await answer_to(sessions, "hi", "one", scope=owner)
        for entry in (sessions.get, sessions.agent_info, sessions.history, sessions.cancel_turn, sessions.dismiss):
            with pytest.raises(ConversationNotFound, match="no conversation 'other'"):
                await entry("other", scope="bob")
        await subscriber.subscribe("other")

        assert [False] * 3 == [await entry("other", scope="bob") for entry in (sessions.running, sessions.stop, sessions.delete)]
        assert {("other", "main"): "pending"} == subscriber.subscriptions
        for start in (sessions.start("other", scope="bob"), sessions.post("other", "hi", scope="bob")):
            with pytest.raises(ValueError, match="agent_id_fun gives conversation 'other' the agent id 'agent-o'") as caught:
                await start
            assert "one" not in str(caught.value).replace("id of its own", "")
        assert await sessions.running("one", scope=owner)


async def test_agent_id_fun_that_clashes_with_a_stored_conversation(autojump_clock: Any) -> None:
    """A stored conversation is read and not running while another one has its agent id; whatever needs the id says so."""
    async with opened(agent_id_fun=first_letter) as sessions:
        await answer_to(sessions, "hi", "other")
        await sessions.stop("other")
        await sessions.start("one")

        assert 2 == len((await sessions.history("other")).rows)
        with pytest.raises(AgentNotRunning):
            await sessions.get("other")
        with pytest.raises(ValueError, match="agent_id_fun"):
            await sessions.delete("other")
        await sessions.stop("one")
        assert await sessions.delete("other")


async def test_max_sessions(autojump_clock: Any) -> None:
    """max_sessions bounds the agents; the error names the limit, and a stop makes room."""
    async with opened(policy={"max_sessions": 2}) as sessions:
        await sessions.start("1")
        await sessions.start("2")
        with pytest.raises(LimitExceeded) as caught:
            await sessions.start("3")
        await sessions.stop("1")

        assert ("max_sessions", 3) == (caught.value.limit, caught.value.value)
        assert (await sessions.start("3")).started


async def test_max_sessions_per_scope(autojump_clock: Any) -> None:
    """max_sessions_per_scope limits the agents of one scope, and not those of others."""
    async with opened(policy={"max_sessions_per_scope": 1}) as sessions:
        await sessions.start("1", scope="alice")
        with pytest.raises(LimitExceeded) as caught:
            await sessions.start("2", scope="alice")

        assert "max_sessions_per_scope" == caught.value.limit
        assert (await sessions.start("3", scope="bob")).started


async def test_initial_subscribers_when_one_is_closed(autojump_clock: Any) -> None:
    """A closed subscriber refuses the start before anything is done, and the others are not subscribed by it."""
    router = Router()
    async with opened(router) as sessions, sessions.open_subscriber() as open_one:
        async with sessions.open_subscriber() as closed:
            pass
        with pytest.raises(SessionsClosed):
            await sessions.start("c", initial_subscribers=[open_one, closed])

        assert ({}, 0) == (open_one.subscriptions, sessions.statistics().subscriptions)
        assert [] == router.resolved


async def test_initial_subscribers_when_they_come_from_a_generator(autojump_clock: Any) -> None:
    """Whatever can be iterated will do, once."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.start("c", initial_subscribers=(each for each in [subscriber]))  # type: ignore[arg-type]  # not promised

        assert {("c", "main"): "subscribed"} == subscriber.subscriptions


async def test_initial_subscribers_see_the_snapshot_first(autojump_clock: Any) -> None:
    """Initial subscribers are enrolled before the agent can do anything: the snapshot first, and no second status for the boot."""
    async with opened() as sessions, sessions.open_subscriber() as one, sessions.open_subscriber() as two:
        info = await sessions.start("c", initial_subscribers=[one, two])
        seen = await read_all(one), await read_all(two)

        assert [[Snapshot]] * 2 == [kinds_of(envelopes) for envelopes in seen]
        assert Status.IDLE is seen[0][0].event.status
        assert (info.agent_id, "c", "main") == (seen[0][0].agent_id, seen[0][0].conversation_id, seen[0][0].channel)


async def test_initial_subscribers_when_the_agent_is_up(autojump_clock: Any) -> None:
    """The loser of a race to start is subscribed all the same."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.start("c")
        await sessions.start("c", initial_subscribers=[subscriber])

        assert {("c", "main"): "subscribed"} == subscriber.subscriptions
        assert [Snapshot] == kinds_of(await read_all(subscriber))


async def test_initial_subscribers_of_a_wrong_type(autojump_clock: Any) -> None:
    """A value that is not a Subscriber is a TypeError before any side effect."""
    router = Router()
    async with opened(router) as sessions:
        with pytest.raises(TypeError, match="Subscriber"):
            await sessions.start("c", initial_subscribers=["me"])
        with pytest.raises(TypeError, match="request_opts"):
            await sessions.start("c", request_opts=[("a", 1)])

    assert [] == router.resolved


async def test_start_when_the_caller_is_cancelled_withdraws_its_subscribers(autojump_clock: Any) -> None:
    """A cancelled start leaves no subscription, and the boot continues."""
    async with opened(Router(build_delay=1)) as sessions, sessions.open_subscriber() as subscriber:
        with trio.move_on_after(0.5):
            await sessions.start("c", initial_subscribers=[subscriber])
        await trio.sleep(2)

        assert {} == subscriber.subscriptions
        assert await sessions.running("c")


async def test_start_after_the_block_was_left(autojump_clock: Any) -> None:
    """After the block was left every entry raises SessionsClosed."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.start("c")
    for call in (
        lambda: sessions.start("c"),
        lambda: sessions.running("c"),
        lambda: sessions.stop("c"),
        lambda: sessions.post("c", "hi"),
        lambda: sessions.cancel_turn("c"),
        lambda: sessions.get("c"),
        lambda: sessions.history("c"),
        lambda: sessions.conversations(),
        lambda: sessions.delete("c"),
        lambda: sessions.agent_info("c"),
        lambda: sessions.list_running(),
        lambda: sessions.list_matching("*"),
        lambda: sessions.agent_count(),
        lambda: sessions.drain(),
        lambda: sessions.ensure_running("c", subscriber),
    ):
        with pytest.raises(SessionsClosed):
            await call()
    with pytest.raises(SessionsClosed):
        async with sessions.open_subscriber():
            pass
    with pytest.raises(SessionsClosed):
        async with sessions.watch("c"):
            pass


async def test_start_during_the_leaving_of_the_block(autojump_clock: Any) -> None:
    """While the block is being left nothing starts any more."""
    late: list[type] = []

    async def tool() -> str:
        """Try."""
        await trio.sleep(5)
        try:
            await sessions.start("other")
        except SessionsClosed:
            late.append(SessionsClosed)
        return "ok"

    async with opened(make_agent(Call("tool"), "done", tools=[tool])) as sessions:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)

    assert [SessionsClosed] == late
    assert isinstance(await receipt.wait(), Completed)


def test_config_that_cannot_be() -> None:
    """A config is checked when it is built."""
    with pytest.raises(TypeError, match="factory_router"):
        SessionConfig(factory_router=object())
    with pytest.raises(TypeError):
        SessionConfig()
    with pytest.raises(TypeError, match="store"):
        make_config(store=object())
    with pytest.raises(ValueError, match="inactivity_timeout"):
        make_config(inactivity_timeout=0)
    with pytest.raises(TypeError, match="inactivity_timeout"):
        make_config(inactivity_timeout="300")
    with pytest.raises(TypeError):
        SessionConfig(Router())


def test_config_defaults() -> None:
    """Only the router is required."""
    config = SessionConfig(factory_router=SingleFactoryRouter(make_agent()))

    assert 300.0 == config.inactivity_timeout
    assert "conversation-7" == config.agent_id_fun("7")
    assert (1.0, 30.0, 5.0, 30.0, 5.0, 1.0) == attrs.astuple(config.policy)[:6]
    assert (64, 256, 262144, 1024) == attrs.astuple(config.policy)[7:11]
    assert (None, 30.0) == (config.leases, config.policy.lease_ttl)


async def test_open_sessions_with_something_else() -> None:
    """open_sessions takes a SessionConfig."""
    with pytest.raises(TypeError, match="SessionConfig"):
        async with open_sessions({}):
            pass


@attrs.frozen
class Settings:
    """What a host's factory wants."""

    scope: Any
    conversation_id: str
    model: str
    temperature: float = 0.5


async def test_single_factory_router_with_a_config_class(autojump_clock: Any) -> None:
    """The config class is built from {**request_opts, "scope", "conversation_id"}, from the fields that it declares."""
    built: list[Any] = []

    async def build(agent_id: str, config: Settings) -> Agent:
        built.append((agent_id, config))
        return make_agent()

    async with opened(SingleFactoryRouter(build, Settings)) as sessions:
        await sessions.start("c", scope="alice", request_opts={"model": "m"})

    assert [("conversation-c", Settings("alice", "c", "m"))] == built


@pytest.mark.parametrize("opts", [{}, {"model": 1}, {"model": "m", "temperature": "0.5"}], ids=str)
async def test_single_factory_router_with_opts_that_do_not_fit(autojump_clock: Any, opts: Any) -> None:
    """The config is built strictly: a missing or a wrong field ends the boot at stage route."""
    async with opened(SingleFactoryRouter(Router(), Settings)) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c", request_opts=opts)

    assert "route" == caught.value.stage


async def test_single_factory_router_with_from_inputs(autojump_clock: Any) -> None:
    """A config with from_inputs(mapping) is built by that."""
    router = Router()

    class Made:
        @classmethod
        def from_inputs(cls, inputs: Any) -> Any:
            return ("made", dict(inputs))

    async with opened(SingleFactoryRouter(router, Made)) as sessions:
        await sessions.start("c", scope="alice", request_opts={"a": 1})

    assert [("conversation-c", ("made", {"a": 1, "scope": "alice", "conversation_id": "c"}))] == router.built


async def test_start_when_the_row_is_foreign(autojump_clock: Any) -> None:
    """A foreign row ends the boot, untouched, and looks like none."""
    store = MemoryStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions, scope="alice")
        await sessions.stop("c", scope="alice")
        before = repr(vars(store._stored["c"]) if hasattr(store._stored["c"], "__dict__") else attrs.astuple(store._stored["c"]))
        with pytest.raises(ConversationNotFound):
            await sessions.start("c", scope="bob")
        after = repr(vars(store._stored["c"]) if hasattr(store._stored["c"], "__dict__") else attrs.astuple(store._stored["c"]))

    assert before == after


async def test_start_when_a_stranger_boots_meanwhile(autojump_clock: Any) -> None:
    """A stranger's boot of a foreign row neither blocks nor harms the owner's start."""
    store, outcome = FaultyStore(), []

    async def stranger() -> None:
        try:
            await sessions.start("c", scope="bob")
        except ConversationNotFound as exc:
            outcome.append(str(exc))

    async with opened(store=store) as sessions:
        await answer_to(sessions, scope="alice")
        await sessions.stop("c", scope="alice")
        store.faults.slow("load", 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger)
            await trio.testing.wait_all_tasks_blocked()
            info = await sessions.start("c", scope="alice")

    assert ["no conversation 'c'"] == outcome
    assert isinstance(info, SessionInfo)


async def test_start_failed_from_a_stop_has_no_agent_shutdown(autojump_clock: Any) -> None:
    """A boot that was aborted never was an agent, so its waiting subscribers get nothing."""
    async with opened(Router(build_delay=5)) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(StartFailed) as caught:
                    await sessions.start("c")
                assert isinstance(caught.value.__cause__, AgentStopped)

            nursery.start_soon(call)
            await trio.sleep(1)
            assert await sessions.stop("c")

        assert [] == [kind for kind in kinds_of(await read_all(subscriber)) if kind is AgentShutdown]


SEEDS: dict[str, Callable[[], Any]] = {
    "one id twice": lambda: {"messages": [Message("a", "user", [TextPart("x")]), Message("a", "user", [TextPart("y")])]},
    "an id that is no text": lambda: {"messages": [Message(5, "user", [TextPart("x")])]},  # type: ignore[arg-type]
    "a role that is none": lambda: {"messages": [Message("a", "boss", [TextPart("x")])]},  # type: ignore[arg-type]
    "a part without text": lambda: {"messages": [Message("a", "user", [TextPart(None)])]},  # type: ignore[arg-type]
    "a todo's id": lambda: {"todos": [Todo("one", "x")]},  # type: ignore[arg-type]
    "a todo's text": lambda: {"todos": [Todo(1, 5)]},  # type: ignore[arg-type]
}


@pytest.mark.parametrize("seed", list(SEEDS))
async def test_seed_that_could_never_be_loaded(autojump_clock: Any, seed: str) -> None:
    """A seed is checked like a loaded state: the start fails, and nothing is stored."""

    def build(agent_id: str) -> Any:
        return make_agent(), SessionOpts(fresh_state_attrs=SEEDS[seed]())

    store = MemoryStore()
    async with opened(Router(build), store=store) as sessions:
        with pytest.raises(StartFailed):
            await sessions.start("c")
        with pytest.raises(ConversationNotFound):
            await sessions.history("c")


async def test_seed_with_an_open_call(autojump_clock: Any) -> None:
    """R15: the history that a provider reads is valid, whatever the seed: each call is answered, or the start fails."""
    agent = make_agent()
    seed = [Message("a", "assistant", [ToolCall("c", "t")], "tool_calls")]
    async with opened(Router(agent, SessionOpts(fresh_state_attrs={"messages": seed}))) as sessions:
        with contextlib.suppress(StartFailed):
            await ask(sessions)
    for request in agent.model.requests:
        calls = [call.call_id for message in request.messages for call in message.calls]
        assert calls == [result.call_id for message in request.messages for result in message.results]


async def test_start_when_the_boot_has_no_limit(autojump_clock: Any) -> None:
    """Without `start_timeout` a boot takes as long as it takes."""
    async with opened(Router(route_delay=1e5), policy={"start_timeout": math.inf}) as sessions:
        assert "re: hi" == await answer_to(sessions)
        assert trio.current_time() >= 1e5


def test_start_when_the_agent_crashes_as_it_comes_up() -> None:
    """A caller who waits for a boot gets the agent, or a failure with the crash as its cause."""

    class Bomb(Middleware):
        async def on_start(self, context: Any) -> None:
            context.start_soon(self.explode)

        async def explode(self) -> None:
            for _ in range(later[0]):
                await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

    causes: list[type] = []
    later = [0]

    async def program(simulation: Simulation) -> None:
        later[0] = simulation.seed % 8
        async with open_sessions(make_config(make_agent(middleware=[Bomb()]))) as sessions:
            try:
                await sessions.start("c")
            except StartFailed as exc:
                causes.append(type(exc.__cause__))

    with quiet_log():
        simulate_many(program, range(400), jumps=False)

    assert {MiddlewareError} == set(causes)

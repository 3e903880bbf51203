"""How an agent starts: route, build, load, start, and then what callers wait for. Each step gets values and returns values.

All of it runs in the agent's own task, which calls `boot` (see `_task`). Nothing here is called back from below. A step writes its name
into `Entry.stage` before it begins, so that a failure says how far the start came. Whatever raises here ends this start and no other
agent: the code of a host that runs in a start (the router, the factory, `from_inputs`, the store, start hooks, `SameScope.key`) is
contained by that.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence

import attrs
import trio

from trio_sagents._text import shown
from trio_sagents.agent import Agent, Tool, may_repeat
from trio_sagents.conversation.closing import calls_not_begun, calls_to_repeat, close_after_crash, continue_after_crash, repeat_after_crash
from trio_sagents.conversation.codec import restored, seeded
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits
from trio_sagents.conversation.messages_in import posters_left
from trio_sagents.conversation.pending import Pending
from trio_sagents.conversation.state import ConversationState
from trio_sagents.data.config import NO_OPTIONS, SessionOpts, SessionPolicy
from trio_sagents.data.json import JSON, Opaque, Options, plain_json
from trio_sagents.data.messages import Message, Poster
from trio_sagents.data.records import Conversation
from trio_sagents.data.scopes import Scope
from trio_sagents.data.todos import Todo, checked_todos
from trio_sagents.exceptions import ConversationNotFound, LimitExceeded, RunsElsewhere
from trio_sagents.sessions._admission import is_stored
from trio_sagents.sessions._commands import BootActions
from trio_sagents.sessions._config import SessionConfig
from trio_sagents.sessions._routing import Factory, FactoryRouter
from trio_sagents.storage import Asker
from trio_sagents.supervisor import Blueprint, Entry, Identity, Journal, Keeper, OwnedAgent, Services, await_host, compose_agent
from trio_sagents.supervisor._bell import Bell
from trio_sagents.supervisor._blueprint import MessagePreprocessor

MIN_SLACK = 32 * 1024
"""Bytes by which the closing of a turn may exceed `max_state_bytes`, at least."""
_ROUTED = "(factory, config), where the factory has `async def create_agent(agent_id, config)`"
_BUILT = "an Agent, or (Agent, SessionOpts)"


@attrs.frozen
class Seed:
    """What a fresh conversation begins with."""

    messages: Sequence[Message] = ()
    todos: Sequence[Todo] = ()
    metadata: JSON = attrs.field(factory=dict)


async def boot(config: SessionConfig, services: Services, entry: Entry, actions: BootActions, nursery: trio.Nursery) -> OwnedAgent:
    """Return the agent of a reservation, ready to go live; or a mirror of it, if it runs on another node.

    Args:
        config: the settings of the block.
        services: the shared services.
        entry: the reservation.
        actions: what callers want done before anybody sees the agent.
        nursery: the agent's own.

    Raises:
        TypeError: the router or the factory returned something else; the message shows what is expected.
        ConversationNotFound: the stored conversation belongs to another scope; it was not changed.
        StateError: the stored state is unusable; it was not changed.
        RunsElsewhere, RegistryUnavailable: another process holds its lease, or that is unknown; nothing was loaded.

    Cancellation: nothing is left; at most the stored epoch was raised.
    """
    entry.stage = "load"
    if services.neighbours is not None and (mirror := await services.neighbours.join(entry)) is not None:
        return mirror
    entry.stage = "route"
    factory, factory_config = await route(config.factory_router, entry.scope, entry.conversation_id, entry.request_opts)
    entry.stage = "build"
    agent, options = await build(factory, factory_config, entry.agent_id)
    blueprint, seed = blueprint_of(config, entry.scope, agent, options), seed_of(options.fresh_state_attrs)
    entry.stage = "load"
    if services.leases is not None and services.neighbours is None:
        await acquire_lease(services, services.leases, entry)
    journal = await load(services, entry, blueprint.policy, seed)
    # Which calls are repeated is known once all tools are; a turn that no tool of a middleware can continue is closed before its hooks.
    brings_tools = any(call.name not in agent.own_tools for call in calls_to_repeat(journal.state))
    continued = None if brings_tools else await recover(journal, entry, blueprint.policy, agent.own_tools)
    entry.stage = "start"
    posters = await scopes_of(services, entry, journal.state)
    live = compose_agent(entry, services, blueprint, journal, nursery, posters)
    await live.start_middleware()
    if brings_tools:
        continued = await recover(journal, entry, blueprint.policy, live.hooks.pipeline.tools)
    while (action := actions.next_of(entry)) is not None:
        await action.run(live)
    if continued is not None:
        live.turns.continue_cut(continued)
    return live


async def route(router: FactoryRouter, scope: Scope, conversation_id: str, request_opts: Options) -> tuple[Factory, Opaque]:
    """Ask the router for the factory of a conversation, and for the config that the factory gets."""
    routed: object = await await_host(router.resolve, scope, conversation_id, request_opts)
    if not (isinstance(routed, tuple) and len(routed) == 2 and callable(getattr(routed[0], "create_agent", None))):
        raise TypeError(f"{type(router).__name__}.resolve must return {_ROUTED}, not {_found(routed)}")
    factory: Factory = routed[0]
    return factory, routed[1]


async def build(factory: Factory, factory_config: Opaque, agent_id: str) -> tuple[Agent, SessionOpts]:
    """Have the factory build an agent, and the options of its session."""
    built: object = await await_host(factory.create_agent, agent_id, factory_config)
    match built:
        case Agent():
            return built, NO_OPTIONS
        case (Agent() as agent, SessionOpts() as options):
            return agent, options
        case _:
            raise TypeError(f"{type(factory).__name__}.create_agent must return {_BUILT}, not {_found(built)}")


def _found(value: object) -> str:
    """Return the type of what a host returned; the value is not shown, for it may hold secrets."""
    if isinstance(value, tuple):
        return f"({', '.join(type(part).__name__ for part in value[:4])})"
    return shown(value) if isinstance(value, type) else type(value).__name__


def blueprint_of(config: SessionConfig, scope: Scope, agent: Agent, options: SessionOpts) -> Blueprint:
    """Return an agent with the settings of its session: those of the block, with the overrides of the session."""
    overrides = dict(options.supervisor_opts)
    timeout = overrides.pop("inactivity_timeout", config.inactivity_timeout)
    preprocessor: MessagePreprocessor | None = overrides.pop("message_preprocessor", None)
    policy: SessionPolicy = attrs.evolve(config.policy, **overrides) if overrides else config.policy
    return Blueprint(agent, scope, policy, timeout, preprocessor, options.app_internal)


def seed_of(fresh: Options) -> Seed | None:
    """Return what a fresh conversation begins with, checked; None if it begins empty."""
    if not fresh:
        return None
    messages: list[Message] = []
    for given in fresh.get("messages", ()):
        if not isinstance(given, Message):
            raise TypeError(f"fresh_state_attrs['messages'] must be Messages, not {type(given).__name__}")
        messages.append(given)
    todos: list[Todo] = []
    for index, given in enumerate(fresh.get("todos", ())):
        todo = Todo(index + 1, given) if isinstance(given, str) else given
        if not isinstance(todo, Todo):
            raise TypeError(f"fresh_state_attrs['todos'] must be Todos or texts, not {type(given).__name__}")
        todos.append(todo)
    metadata = plain_json(fresh.get("metadata", {}), "fresh_state_attrs['metadata']")
    if not isinstance(metadata, Mapping):
        raise TypeError(f"fresh_state_attrs['metadata'] must be a mapping, not {type(metadata).__name__}")
    return Seed(messages, checked_todos(todos, "fresh_state_attrs['todos']"), metadata)


async def load(services: Services, entry: Entry, policy: SessionPolicy, seed: Seed | None) -> Journal:
    """Restore what is stored, or begin a fresh conversation."""
    conversation_id, owner, epoch, revision = entry.conversation_id, entry.owner, time.time_ns() // 1000, 0
    ids = Ids(services.new_incarnation())
    slack, keeps_windows = max(2 * policy.max_message_bytes, MIN_SLACK), services.commits.store.keeps_windows
    limits = Limits(policy.max_state_bytes, slack, policy.window, policy.window_bytes, keeps_windows)
    found: list[ConversationState] = []

    def check(stored: Conversation) -> None:
        """Decode what is stored, before it is touched: a state that is unusable is left as it is."""
        found[:] = [restored(stored, ids, limits)]

    stored = await services.commits.load(services.access.asker(entry.scope), conversation_id, entry.agent_id, check)
    if stored is None:
        # The epoch is later than that of any deleted conversation that had this id: whoever still writes to that one is refused.
        state = ConversationState()
        if seed is not None:
            state = seeded(conversation_id, seed.messages, seed.todos, seed.metadata, limits)
            ids.claim(seed.messages)
    else:
        if not services.access.owns(entry.scope, stored.owner):
            raise ConversationNotFound(conversation_id)
        (state,), owner, epoch, revision = found, stored.owner, stored.epoch, stored.revision
    identity = Identity(conversation_id, entry.agent_id, entry.scope, owner, ids.incarnation, epoch)
    return Journal(  # pyright: ignore[reportCallIssue]
        identity,
        services.commits,
        state,
        ids,
        limits,
        Bell(),
        fence=entry.fence,  # pyright: ignore[reportCallIssue]
        pending=Pending.of(state, revision, marks=policy.after_crash == "continue"),  # pyright: ignore[reportCallIssue]
        replay_events=policy.replay_events,  # pyright: ignore[reportCallIssue]
        defer=None if services.flusher is None else services.flusher.mark,  # pyright: ignore[reportCallIssue]
    )


async def recover(journal: Journal, entry: Entry, policy: SessionPolicy, tools: Mapping[str, Tool]) -> str | None:
    """Close a turn that a crash has cut, before anybody sees it; or only its open calls, if the turn continues.

    Returns:
        The id of the turn, if it continues; None if there is nothing to continue.
    """
    moment = journal.moment()
    decided = {*moment.state.decisions, *moment.state.open_decisions}
    calls = [call.call_id for call in calls_to_repeat(moment.state) if may_repeat(tools, call, decided)]
    step = None
    if policy.after_crash == "continue":
        kept = [*calls, *(call.call_id for call in calls_not_begun(moment.state))]
        step = continue_after_crash(moment, kept, policy.max_recoveries)
    elif calls:
        step = repeat_after_crash(moment, calls)
    if step is not None:
        turn_id = moment.state.messages[-1].turn_id
        with contextlib.suppress(LimitExceeded):  # nothing more can be noted in the metadata: the calls are closed
            await journal.submit(attrs.evolve(step, actor=entry.scope)).wait()
            return turn_id
    closing = close_after_crash(moment)
    if closing is not None:
        await journal.submit(attrs.evolve(closing, actor=entry.scope)).wait()
    return None


async def scopes_of(services: Services, entry: Entry, state: ConversationState) -> Mapping[Poster | None, Scope]:
    """Return the scopes of those who posted what the agent may still work for, by what is stored of them."""
    return {poster: await services.access.scope_of(poster, entry.scope, entry.conversation_id) for poster in posters_left(state)}


async def acquire_lease(services: Services, leases: Keeper, entry: Entry) -> None:
    """Get the lease of a conversation for an entry.

    Raises:
        RunsElsewhere: another process holds it.
        RegistryUnavailable: it is unknown whether another process holds it.
        ConversationNotFound: another process holds it, and the conversation is another scope's: that looks as if it did not exist.

    Cancellation: a lease that may have been acquired is given back.
    """
    try:
        await leases.acquire(entry)
    except RunsElsewhere as exc:
        elsewhere = exc
    else:
        return
    # The conversation cannot be loaded to see whose it is: that would fence the agent that runs there.
    conversation_id = entry.conversation_id
    is_seen = await is_stored(services, services.access.asker(entry.scope), conversation_id)
    if not is_seen and await is_stored(services, Asker(entry.scope), conversation_id):
        raise ConversationNotFound(conversation_id)
    raise elsewhere

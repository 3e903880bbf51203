"""The boot of one agent: route, build, load, restore or seed. It runs in the agent's own task; each stage names itself."""

import time
from collections.abc import Sequence

import attrs
import trio

from trio_sagents.agent import Agent
from trio_sagents.data.config import NO_OPTIONS, SessionOpts, SessionPolicy
from trio_sagents.data.json import Opaque, Options, plain_json
from trio_sagents.data.messages import Message
from trio_sagents.data.rows import closing_rows, closing_updates
from trio_sagents.data.todos import Todo, checked_todos
from trio_sagents.exceptions import ConversationNotFound, RunsElsewhere
from trio_sagents.sessions._config import SessionConfig
from trio_sagents.sessions._routing import Built
from trio_sagents.storage import Asker, CommitQueue
from trio_sagents.supervisor import Blueprint, Change, Entry, LeaseKeeper, Ledger, LiveAgent, Runtime, await_host, wall_clock
from trio_sagents.supervisor._blueprint import MessagePreprocessor

MIN_SLACK = 32 * 1024
"""Bytes by which the closing of a turn may exceed `max_state_bytes`, at least."""
_ROUTED = "(factory, config), where the factory has `async def create_agent(agent_id, config)`"
_BUILT = "an Agent, or (Agent, SessionOpts)"


@attrs.frozen
class Booter:
    """Makes live agents."""

    config: SessionConfig
    runtime: Runtime

    async def boot(self, entry: Entry, nursery: trio.Nursery) -> LiveAgent:
        """Return the agent of a reservation, ready to go live.

        Raises:
            TypeError: the router or the factory returned something else; the message shows what is expected.
            ConversationNotFound: the stored conversation belongs to another scope; it was not touched.
            StateError: what is stored cannot be used; it was not touched.
            RunsElsewhere, RegistryUnavailable: another process has its lease, or nobody could say; nothing was loaded.

        Cancellation: nothing is left; at most the stored epoch was raised.
        """
        entry.stage = "route"
        router = self.config.factory_router
        routed: object = await await_host(router.resolve, entry.scope, entry.conversation_id, entry.request_opts)
        if not (isinstance(routed, tuple) and len(routed) == 2 and callable(getattr(routed[0], "create_agent", None))):
            raise TypeError(f"{type(router).__name__}.resolve must return {_ROUTED}, not {type(routed).__name__}")
        factory, factory_config = routed
        entry.stage = "build"
        built = await await_host(factory.create_agent, entry.agent_id, factory_config)
        agent, options = _checked(type(factory).__name__, built)
        blueprint = self._blueprint(entry, agent, options)
        entry.stage = "load"
        if self.runtime.leases is not None:
            await acquire_lease(self.runtime, self.runtime.leases, entry)
        ledger = await self._load(entry, blueprint, options)
        entry.stage = "start"
        live = LiveAgent(entry, self.runtime, blueprint, ledger, nursery)
        await live.pipeline.start(live.home)
        due = ledger.interrupt
        if due is not None and due.expires_at is not None and due.expires_at <= wall_clock():
            await live.answering.expire(due)
        return live

    def _blueprint(self, entry: Entry, agent: Agent, options: SessionOpts) -> Blueprint:
        overrides = dict(options.supervisor_opts)
        timeout = overrides.pop("inactivity_timeout", self.config.inactivity_timeout)
        preprocessor: MessagePreprocessor | None = overrides.pop("message_preprocessor", None)
        if preprocessor is not None and not callable(preprocessor):
            raise TypeError(f"supervisor_opts['message_preprocessor'] must be an async function, not {type(preprocessor).__name__}")
        policy: SessionPolicy = attrs.evolve(self.config.policy, **overrides) if overrides else self.config.policy
        return Blueprint(agent, entry.scope, policy, timeout, preprocessor, options.app_internal)

    async def _load(self, entry: Entry, blueprint: Blueprint, options: SessionOpts) -> Ledger:
        conversation_id = entry.conversation_id
        runtime = self.runtime
        ledger = Ledger(
            conversation_id,
            entry.agent_id,
            entry.scope,
            entry.owner,
            runtime.new_incarnation(),
            runtime.commits,
            blueprint.policy.max_state_bytes,
            max(2 * blueprint.policy.max_message_bytes, MIN_SLACK),
        )
        asker = runtime.access.asker(entry.scope)
        # What is stored is looked at before it is touched: a state that cannot be used is left as it is.
        stored = await runtime.commits.load(asker, conversation_id, entry.agent_id, ledger.restore)
        if stored is None:
            # Later than any epoch of a conversation that had this id and was deleted: who still writes to that one is refused.
            ledger.epoch = time.time_ns() // 1000
            if options.fresh_state_attrs:
                ledger.seed(*_seed(options.fresh_state_attrs))
            return ledger
        if not runtime.access.owns(entry.scope, stored.owner):
            raise ConversationNotFound(conversation_id)
        ledger.owner = stored.owner
        if closing := ledger.closing():
            # A crash cut the last turn: it is closed before anybody sees it, and not run again.
            change = Change(
                lifecycle="on_error",
                actor=entry.scope,
                messages=closing,
                draft=None,
                standing={} if ledger.taken else None,
                shown=closing,
                rows=closing_rows(ledger.messages_as_run(), closing, wall_clock()),
                tool_updates=closing_updates(closing),
            )
            await ledger.submit(change, lambda _saved, _error: None).wait()
        return ledger


async def acquire_lease(runtime: Runtime, leases: LeaseKeeper, entry: Entry) -> None:
    """Get the lease of a conversation for an entry.

    Raises:
        RunsElsewhere: another process has it.
        RegistryUnavailable: nobody could say.
        ConversationNotFound: another process has it, and the conversation is another scope's: that looks as if it were not there.

    Cancellation: what may have been got is given back.
    """
    try:
        await leases.acquire(entry)
    except RunsElsewhere as exc:
        elsewhere = exc
    else:
        return
    # It cannot be loaded to see whose it is: that would fence the agent that runs there.
    asker, commits = runtime.access.asker(entry.scope), runtime.commits
    if not await _is_stored(commits, asker, entry) and await _is_stored(commits, Asker(entry.scope), entry):
        raise ConversationNotFound(entry.conversation_id)
    raise elsewhere


async def _is_stored(commits: CommitQueue, asker: Asker, entry: Entry) -> bool:
    return await commits.read(commits.store.exists(asker, entry.conversation_id))


def _checked(factory: str, built: Built) -> tuple[Agent, SessionOpts]:
    match built:
        case Agent():
            return built, NO_OPTIONS
        case (Agent() as agent, SessionOpts() as options):
            return agent, options
        case _:
            raise TypeError(f"{factory}.create_agent must return {_BUILT}, not {type(built).__name__}")


def _seed(fresh: Options) -> tuple[list[Message], Sequence[Todo], Opaque]:
    """Return the beginning of a fresh conversation, checked."""
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
    metadata = plain_json(fresh.get("metadata", {}))
    if not isinstance(metadata, dict):
        raise TypeError(f"fresh_state_attrs['metadata'] must be a mapping, not {type(metadata).__name__}")
    return messages, checked_todos(todos, "fresh_state_attrs['todos']"), metadata

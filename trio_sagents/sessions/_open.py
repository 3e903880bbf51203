"""The composition root: what is opened, in which order, and how it ends.

    cluster, store, leases, and this node's membership in the cluster
    └── services nursery      writes to the store, timers and leases, in a shielded scope
        └── supervisor nursery
            └── one nursery per agent

The services are shielded, so that what ending agents save is still written, and they end after the supervisor nursery has ended.
Every wait on a service is bounded by `settle_timeout`, so the time under the shield is bounded too.
"""

import importlib.metadata
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from trio_sagents._text import shown
from trio_sagents._trio.groups import is_cancelled, split_cancelled
from trio_sagents._trio.opening import opening
from trio_sagents._trio.place import require_trio
from trio_sagents._trio.timers import Timers
from trio_sagents._trio.watching import LoopWatch, watching
from trio_sagents.broadcast import Flusher
from trio_sagents.data.wire import SCHEMA_VERSION
from trio_sagents.nodes import Node, NodeBus, NodeKeeper, new_node_id, open_neighbours
from trio_sagents.sessions._admission import Admission
from trio_sagents.sessions._closing import close_agents
from trio_sagents.sessions._config import SessionConfig, router_hint
from trio_sagents.sessions._mailboxes import Mailboxes
from trio_sagents.sessions._recovering import Recovery, ScopeOf, check_recovery
from trio_sagents.sessions._sessions import Sessions
from trio_sagents.sessions._starting import Starter
from trio_sagents.sessions._task import Setup
from trio_sagents.storage import CommitQueue, SplitStore, StoreAdapter, UnifiedStore
from trio_sagents.storage.ports import OpenableStore
from trio_sagents.supervisor import Access, Entry, Keeper, LeaseKeeper, Registry, Services, ViewerAdmission


@opening
@asynccontextmanager
async def open_sessions(config: SessionConfig, *, recover: bool | ScopeOf = False) -> AsyncIterator[Sessions]:
    """Open the sessions of one host; leaving the block ends every agent.

    If the block is left normally, no agent starts any more, turns may finish for `policy.grace_period`, and the others are cut and
    settled. If the block raised, or was cancelled from outside, turns are cut and settled immediately. Exceptions of the block leave
    `open_sessions` as that object. If an agent raised `KeyboardInterrupt` or `SystemExit`, that leaves, in a group with what the
    block raised.

    Args:
        config: the settings.
        recover: True starts the agents of the conversations that have work left, a few at a time, in a task beside the block: those whose
            turn a crash has cut, or that have messages which no turn has taken. It needs `SessionPolicy.after_crash = "continue"`, under
            which conversations are marked, and a store that is an `UnfinishedLookup`. The owner of a conversation is the scope of its
            agent; if scopes are objects of your own, give an async function `(conversation_id, owner) -> scope`. One that cannot be
            started is logged, and left to whoever opens it next.

    Raises:
        RuntimeError: Trio is not running here; the message says what to do.
        TypeError: `config` is not a SessionConfig; or `recover` is True, and only you know the scopes.
        PersistenceError: the store or the engine of the cluster could not be opened, or the store cannot list what is unfinished;
            nothing was started.
        RegistryUnavailable: this node could not join its cluster; nothing was started.

    Cancellation: every agent has ended and every turn is settled when the block is left.
    """
    require_trio("open_sessions")
    if not isinstance(config, SessionConfig):
        router = "router" if callable(getattr(config, "resolve", None)) else router_hint(config)
        hint = f"; did you mean SessionConfig(factory_router={router})?" if router else ""
        raise TypeError(f"open_sessions takes a SessionConfig, not {shown(config)}{hint}")
    adapter = config.store_adapter()
    scope_of = check_recovery(recover, adapter, config.authorizer)
    async with AsyncExitStack() as stack:
        for store in (config.cluster, *_stores(adapter), config.leases):
            if isinstance(store, OpenableStore):
                await stack.enter_async_context(store.open())
        keeper = _keeper(config)
        if isinstance(keeper, NodeKeeper):
            await stack.enter_async_context(keeper.joined())
        watch = stack.enter_context(watching(config.policy.blocking_warning))
        async with _run_sessions(config, adapter, keeper, watch, scope_of) as sessions:
            yield sessions


def _stores(adapter: StoreAdapter) -> tuple[object, ...]:
    match adapter:
        case UnifiedStore(store=store):
            return (store,)
        case SplitStore(states=states, display=display):
            distinct: dict[int, object] = {id(store): store for store in (states, display)}
            return tuple(distinct.values())
        case _:
            return ()


def _keeper(config: SessionConfig) -> Keeper | None:
    """Return what keeps the right of this block to run agents; None if every block may run everything."""
    policy = config.policy
    if config.cluster is not None:
        return NodeKeeper(config.cluster, _node_of(config), policy.lease_ttl, policy.settle_timeout)
    return None if config.leases is None else LeaseKeeper(config.leases, policy.lease_ttl, policy.settle_timeout)


def _node_of(config: SessionConfig) -> Node:
    try:
        version = importlib.metadata.version("trio-sagents")
    except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
        version = "unknown"
    return Node(new_node_id(), config.node_name or f"{socket.gethostname()}:{os.getpid()}", version, SCHEMA_VERSION)


@asynccontextmanager
async def _run_sessions(
    config: SessionConfig, adapter: StoreAdapter, keeper: Keeper | None, watch: LoopWatch | None, scope_of: ScopeOf | None
) -> AsyncIterator[Sessions]:
    host: BaseException | None = None
    block: Block | None = None
    try:
        async with trio.open_nursery() as outer:
            scope = trio.CancelScope()
            writing = await outer.start(_open_service_nursery, scope)
            # Cancellation: a cancellation of the host must not reach the writes, or the last saves would be lost. The scope is shielded
            # only once its task has started: if `start` is cancelled, nothing would cancel a shielded task.
            scope.shield = True
            timers = Timers()
            writing.start_soon(timers.run, name="timers")
            try:
                async with trio.open_nursery() as supervisor:
                    block = Block.of(config, adapter, keeper, writing, timers, supervisor)
                    block.services.watch = watch
                    if scope_of is not None:
                        block.recovery = Recovery(block.services, block.starter, scope_of)
                        supervisor.start_soon(block.recovery.run, name="recovery")
                    try:
                        yield block.sessions
                    except BaseException as exc:  # noqa: ASYNC103, BLE001  # kept, and raised again below, as it is
                        host = exc
                    await close_agents(block.close(), host)
            finally:
                if block is not None and block.services.neighbours is not None:
                    # Cancellation: bounded; viewers on other nodes get the last events of the agents that have ended here.
                    with trio.move_on_after(config.policy.settle_timeout, shield=True):
                        await block.services.neighbours.farewell()
                scope.cancel()
                if block is not None:
                    block.mailboxes.hang_up()
    except BaseException as exc:  # noqa: ASYNC103, BLE001  # raised again, together with the host's
        _raise_both(host, exc)
    if host is not None:
        raise host


async def _open_service_nursery(scope: trio.CancelScope, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.sleep_forever()


@attrs.define(eq=False)
class Block:
    """The parts of one block, put together."""

    services: Services
    admission: Admission
    starter: Starter
    mailboxes: Mailboxes
    sessions: Sessions
    recovery: Recovery | None = None
    """None if nothing is recovered."""

    @classmethod
    def of(
        cls,
        config: SessionConfig,
        adapter: StoreAdapter,
        keeper: Keeper | None,
        writing: trio.Nursery,
        timers: Timers,
        supervisor: trio.Nursery,
    ) -> "Block":
        """Put the parts together, and start the services.

        Args:
            config: the settings.
            adapter: the adapter of the store.
            keeper: keeps the right of this block to run agents; None if every block may run everything.
            writing: the nursery of the services.
            timers: the service that runs all timers of the block.
            supervisor: the parent of every agent.
        """
        policy, access = config.policy, Access(config.authorizer)
        services = Services(
            Registry(policy.max_sessions, policy.max_sessions_per_scope),
            CommitQueue(adapter, writing),
            timers,
            config.presence,
            access,
            supervisor,
            config.agent_id_fun,
            ViewerAdmission(access, policy.reauthorize_interval, writing),
            Flusher(policy.flush_interval) if policy.flush_interval else None,
            keeper,
        )
        if services.flusher is not None:
            writing.start_soon(services.flusher.run, name="flusher")
        if services.leases is not None:
            writing.start_soon(services.leases.run, name="leases")
        if config.presence.pubsub is not None:
            writing.start_soon(config.presence.run, name="presence")
        if not access.is_synchronous:
            writing.start_soon(services.viewer_admission.run, services.subscriptions, services.enrol, name="viewers")
        admission = Admission(services)
        starter = Starter(Setup(config, services))
        if isinstance(keeper, NodeKeeper):
            bus = config.pubsub if isinstance(config.pubsub, NodeBus) else None
            neighbours = services.neighbours = open_neighbours(
                services, keeper, writing, policy, idle_timeout=config.inactivity_timeout, look=starter.look, bus=bus
            )
            writing.start_soon(neighbours.run, name="other nodes")
            admission.elsewhere = starter.find_elsewhere
        mailboxes = Mailboxes(services, policy)
        return cls(services, admission, starter, mailboxes, Sessions(config, admission, starter, mailboxes))

    def close(self) -> tuple[Entry, ...]:
        """Refuse every call from now on, and return the agents that are still there."""
        self.admission.is_over = True
        self.starter.is_closed = True
        if self.recovery is not None:
            self.recovery.cancel_scope.cancel()
        return tuple(self.services.registry)


def _raise_both(host: BaseException | None, exc: BaseException) -> None:
    """Raise what the block raised, what the runtime raised, or a group of both."""
    failed = [error for error in split_cancelled(exc) if error is not None]
    if host is None or (is_cancelled(host) and failed):
        raise exc
    if failed:
        raise BaseExceptionGroup("the block and the runtime of open_sessions both failed", [host, *failed])
    raise host

"""The composition root: what is opened, in which order, and how it ends.

    store
    └── services nursery      store writer, timers and leases, each in a shielded scope
        └── supervisor nursery
            └── one nursery per agent

The services are shielded, so that what ending agents save still lands, and they end after the supervisor nursery has ended.
Every wait on a service is bounded (`settle_timeout`), so the shield is, too.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from trio_sagents._trio.groups import is_cancelled, split_cancelled
from trio_sagents._trio.timers import Timers
from trio_sagents.sessions._boot import Booter
from trio_sagents.sessions._closing import close_agents
from trio_sagents.sessions._config import SessionConfig
from trio_sagents.sessions._sessions import Sessions
from trio_sagents.sessions._starting import Starter
from trio_sagents.storage import CommitQueue, SplitStore, StoreAdapter, UnifiedStore
from trio_sagents.storage.ports import OpenableStore
from trio_sagents.supervisor import Access, LeaseKeeper, Registry, Runtime


@asynccontextmanager
async def open_sessions(config: SessionConfig) -> AsyncIterator[Sessions]:
    """Open the sessions of one host; leaving the block ends every agent.

    Left normally: nothing starts any more, turns may finish for `policy.grace_period`, the rest is cut and settled. Left by an
    error, or cancelled from outside: turns are cut and settled at once. Whatever the block raised leaves as it is; if an agent
    raised `KeyboardInterrupt` or `SystemExit`, that leaves, in a group with the block's own error where there is one.

    Args:
        config: the settings.

    Raises:
        PersistenceError: the store could not be opened; nothing was started.

    Cancellation: every agent has ended and every turn is settled when the block is left.
    """
    if not isinstance(config, SessionConfig):
        raise TypeError(f"open_sessions takes a SessionConfig, not {config!r}")
    adapter = config.store_adapter()
    async with AsyncExitStack() as stack:
        for store in (*_stores(adapter), config.leases):
            if isinstance(store, OpenableStore):
                await stack.enter_async_context(store.open())
        async with _run_sessions(config, adapter) as sessions:
            yield sessions


def _stores(adapter: StoreAdapter) -> tuple[object, ...]:
    match adapter:
        case UnifiedStore(store=store):
            return (store,)
        case SplitStore(states=states, display=display):
            distinct: dict[int, object] = {id(one): one for one in (states, display)}
            return tuple(distinct.values())
        case _:
            return ()


@asynccontextmanager
async def _run_sessions(config: SessionConfig, adapter: StoreAdapter) -> AsyncIterator[Sessions]:
    host: BaseException | None = None
    sessions: Sessions | None = None
    try:
        async with trio.open_nursery() as services:
            scope = trio.CancelScope()
            writing = await services.start(_open_service_nursery, scope)
            # Cancellation: the host's cancellation must not reach the writer, or the last saves would be lost. Not before it has
            # started: a starter that is cancelled starts nothing, and nobody would end what sleeps in a shield.
            scope.shield = True
            timers = Timers()
            writing.start_soon(timers.run, name="timers")
            try:
                async with trio.open_nursery() as supervisor:
                    sessions = _compose(config, adapter, writing, timers, supervisor)
                    try:
                        yield sessions
                    except BaseException as exc:  # noqa: ASYNC103, BLE001  # kept, and raised again below, as it is
                        host = exc
                    await close_agents(sessions, host)
            finally:
                scope.cancel()
                if sessions is not None:
                    sessions.hang_up()
    except BaseException as exc:  # noqa: ASYNC103, BLE001  # raised again, together with the host's
        _raise_both(host, exc)
    if host is not None:
        raise host


async def _open_service_nursery(scope: trio.CancelScope, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.sleep_forever()


def _compose(config: SessionConfig, adapter: StoreAdapter, writing: trio.Nursery, timers: Timers, supervisor: trio.Nursery) -> Sessions:
    runtime = Runtime(
        Registry(config.policy.max_sessions, config.policy.max_sessions_per_scope),
        CommitQueue(adapter, writing),
        timers,
        config.presence,
        Access(config.authorizer),
        supervisor,
        config.agent_id_fun,
        None if config.leases is None else LeaseKeeper(config.leases, config.policy.lease_ttl, config.policy.settle_timeout),
    )
    if runtime.leases is not None:
        writing.start_soon(runtime.leases.run, name="leases")
    return Sessions(config, runtime, Starter(runtime, Booter(config, runtime), config.policy.start_timeout))


def _raise_both(host: BaseException | None, exc: BaseException) -> None:
    """Raise what the block raised, what the runtime raised, or a group of both."""
    failed = [error for error in split_cancelled(exc) if error is not None]
    if host is None or (is_cancelled(host) and failed):
        raise exc
    if failed:
        raise BaseExceptionGroup("the block and the runtime of open_sessions both failed", [host, *failed])
    raise host

"""Leases: the right of this process to run the agent of a conversation.

A process holds the lease of a conversation while its agent runs, and trusts the lease for less time than the lease lasts. One task
renews all leases together. The time of a lease is counted from the moment before the lease was requested, by Trio's clock. So the
lease ends in this process before it ends in the service that granted it (`Leases`).

If a lease is lost, its agent is cancelled as fenced. The agent may still try to save something then. That does no harm: if another
process has loaded the conversation, the store refuses the write, because the load has raised the epoch.
"""

import logging
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Final, Protocol

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.ids import new_token
from trio_sagents.exceptions import RegistryUnavailable, RunsElsewhere
from trio_sagents.supervisor._registry import Entry, Failure

RENEWALS: Final = 3
"""How many times a lease is renewed while it lasts. A call to `Leases` may take as long as the time between two renewals."""
TRUSTED: Final = 0.9
"""The fraction of `ttl` for which a lease is trusted."""
BATCH: Final = 1000
"""How many leases one call renews at most."""
log: Final = logging.getLogger("trio_sagents")


class Leases(Protocol):
    """Decides which process may run the agent of a conversation, for a limited time. All processes ask the same service.

    A lease avoids useless work. It does not guarantee that there is one writer, because a process may be paused while its lease ends.
    The epoch in the store guarantees that: every load raises the epoch, and the store refuses a write with an older epoch. Times
    here are durations, which the implementation counts by its own clock.

    Cancellation: the call may have taken effect, or not. The library releases a lease that it may have acquired.
    """

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        """Let `holder` have the lease for `ttl` seconds from now, unless another holder has it.

        Returns:
            None if `holder` has the lease now, even if it had the lease before this call. Otherwise the seconds until the lease of the
            other holder ends, > 0.
        """
        ...

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        """Let `holder` keep its leases for `ttl` seconds from now.

        Returns:
            The ids whose lease `holder` had before the call and still has. A lease that has ended is not renewed, even if nobody else
            has it: its holder has to acquire it again.
        """
        ...

    async def release(self, conversation_id: str, holder: str) -> None:
        """End the lease of `holder`. Do nothing if there is no lease, or if another holder has it."""
        ...


class Keeper(Protocol):
    """Keeps the right of one `open_sessions` block to run agents, by whatever gives such rights."""

    async def acquire(self, entry: Entry) -> None:
        """Get the right to run the agent of a conversation, for an entry that boots or deletes; see `LeaseKeeper.acquire`."""
        ...

    async def release(self, entry: Entry) -> None:
        """Give the right of an entry back, if it has one; see `LeaseKeeper.release`."""
        ...

    def may_act(self, entry: Entry) -> bool:
        """Return whether an agent may begin something new."""
        ...

    async def wait_known(self, entry: Entry) -> None:
        """Return when it is known whether an agent has its right still: after that `may_act` says so. Bounded by the keeper."""
        ...

    @property
    def is_trusted(self) -> bool:
        """Whether agents can start here, as far as is known."""
        ...

    def drain(self) -> None:
        """Take nothing more."""
        ...

    async def run(self) -> None:
        """Keep what is held, until cancelled."""
        ...


def fence(entry: Entry) -> None:
    """The right to run an agent is another's, or may be: the agent has no business here any more."""
    if entry.live is None and entry.failure is None:
        error = RegistryUnavailable(f"the lease of conversation {entry.conversation_id!r} was lost while its agent started")
        entry.failure = Failure(entry.stage, error)
    entry.fence()


@attrs.define(eq=False)
class _Held:
    entry: Entry
    until: float
    """The Trio clock time until which this process trusts the lease."""


@attrs.define(eq=False)
class LeaseKeeper:
    """The leases of one `open_sessions` block."""

    leases: Leases
    ttl: float
    settle_timeout: float
    """How many seconds a release may take: the task that ends an agent waits for the release."""
    holder: str = attrs.field(factory=lambda: new_token() + new_token())
    _held: dict[str, _Held] = attrs.field(factory=dict)
    # Invariant: the leases that this process believes it holds, by conversation id. For each, an agent is starting or running here.
    _lost: dict[Entry, None] = attrs.field(factory=dict)
    """Agents that have lost their lease and have not ended yet."""
    _some: trio.Event = attrs.field(factory=trio.Event)
    """Set while `_held` is not empty."""

    @property
    def patience(self) -> float:
        """How many seconds one call to `Leases` may take."""
        return self.ttl / RENEWALS

    async def acquire(self, entry: Entry) -> None:
        """Acquire the lease for an agent that is starting.

        Raises:
            RunsElsewhere: another process has the lease.
            RegistryUnavailable: the service did not answer in time, or failed. A lease that it may have granted was released.

        Cancellation: a lease that may have been granted is released.
        """
        conversation_id = entry.conversation_id
        began = trio.current_time()
        try:
            with trio.fail_after(self.patience):
                remaining: object = await await_host(self.leases.acquire, conversation_id, self.holder, self.ttl)
            if remaining is not None and not isinstance(remaining, int | float):
                raise TypeError(f"{type(self.leases).__name__}.acquire must return None or seconds, not {type(remaining).__name__}")
        except Exception as exc:
            await self._give_back(conversation_id)  # noqa: ASYNC120  # it shields itself, for a bounded time
            raise RegistryUnavailable(
                f"could not find out whether conversation {conversation_id!r} runs in another process; try again"
            ) from exc
        except BaseException:
            await self._give_back(conversation_id)  # noqa: ASYNC102, ASYNC120  # likewise
            raise
        if remaining is not None:
            raise RunsElsewhere(conversation_id, remaining)
        self._held[conversation_id] = _Held(entry, began + TRUSTED * self.ttl)
        self._some.set()

    async def release(self, entry: Entry) -> None:
        """Release the lease of an agent that has ended, if the agent has one. If the release fails, the lease expires by itself.

        Cancellation: the lease is released all the same.
        """
        held = self._held.get(entry.conversation_id)
        if held is not None and held.entry is entry:
            del self._held[entry.conversation_id]
        elif entry in self._lost:
            del self._lost[entry]  # the service may not know yet that this agent has ended
        else:
            return
        await self._give_back(entry.conversation_id)

    async def _give_back(self, conversation_id: str) -> None:
        # Cancellation: a cancelled caller waits for the release, for a bounded time. Otherwise the next process would have to wait until
        # the lease expires.
        with trio.move_on_after(min(self.patience, self.settle_timeout), shield=True):
            try:
                await await_host(self.leases.release, conversation_id, self.holder)
            except Exception:  # the boundary to the host's leases; the lease expires by itself
                log.exception("could not release the lease of conversation %r; the lease expires by itself", conversation_id)

    def may_act(self, entry: Entry) -> bool:
        """Return whether an agent may begin something new. If the time of its lease is over, fence the agent, and return False.

        Race: if the program blocked the event loop, the keeper's task and the agent's task may both have slept past the end of a
        lease. Then the agent's task may run before the keeper's (test_no_tool_begins_behind_the_end_of_a_lease).
        """
        held = self._held.get(entry.conversation_id)
        if held is None or held.entry is not entry:
            return False
        if held.until <= trio.current_time():
            self._lose(held)
            return False
        return True

    async def wait_known(self, entry: Entry) -> None:
        """Return: `may_act` always knows."""
        await trio.lowlevel.checkpoint()

    @property
    def is_trusted(self) -> bool:
        """True: each lease is asked for by itself."""
        return True

    def drain(self) -> None:
        """Do nothing: nobody asks for a lease any more."""

    # ── keeping

    async def run(self) -> None:
        """Renew all leases that are held, until cancelled."""
        renew_at = math.inf
        while True:
            while not self._held:  # a lease may have been acquired and released before this task runs
                self._some = trio.Event()
                await self._some.wait()
                renew_at = trio.current_time() + self.patience
            await trio.sleep_until(min(renew_at, self._earliest()))
            self._drop_ended()  # first, because a renewal may not take longer than the lease that ends first
            began = trio.current_time()
            if began >= renew_at:
                is_whole = await self._renew(began)
                self._drop_ended()
                renew_at = began + self.patience if is_whole else trio.current_time() + self.patience / RENEWALS

    def _earliest(self) -> float:
        return min(held.until for held in self._held.values())

    async def _renew(self, began: float) -> bool:
        """Renew all leases. Return whether every call was answered."""
        is_whole = True
        for batch in _batches(tuple(self._held.items())):
            kept = await self._ask([conversation_id for conversation_id, _ in batch])
            is_whole = is_whole and kept is not None
            for conversation_id, held in batch:
                # Race: while `renew` was running, this lease may have been released, and acquired again by the next agent.
                if kept is None or self._held.get(conversation_id) is not held:
                    continue
                if conversation_id in kept:
                    held.until = began + TRUSTED * self.ttl
                else:
                    self._lose(held)
        return is_whole

    async def _ask(self, conversation_ids: Sequence[str]) -> Collection[str] | None:
        kept: Collection[str] | None = None
        if self._held:
            with trio.move_on_at(min(trio.current_time() + self.patience, self._earliest())):
                try:
                    kept = _ids(await await_host(self.leases.renew, conversation_ids, self.holder, self.ttl))
                except Exception:  # the boundary to the host's leases; renewed again while they are trusted
                    log.exception("could not renew %d leases; will retry", len(conversation_ids))
        return kept

    def _drop_ended(self) -> None:
        now = trio.current_time()
        for held in tuple(self._held.values()):
            if held.until <= now:
                self._lose(held)

    def _lose(self, held: _Held) -> None:
        """Fence the agent of a lease that another process has, or may have."""
        entry = held.entry
        del self._held[entry.conversation_id]
        self._lost[entry] = None
        log.warning("the lease of conversation %r is lost; its agent ends here", entry.conversation_id)
        fence(entry)


def _batches(held: Sequence[tuple[str, _Held]]) -> Iterator[Sequence[tuple[str, _Held]]]:
    for start in range(0, len(held), BATCH):
        yield held[start : start + BATCH]


def _ids(kept: object) -> Collection[str]:
    if isinstance(kept, str) or not isinstance(kept, Collection):
        raise TypeError(f"renew must return the ids of the leases that are held, not {type(kept).__name__}")
    return kept

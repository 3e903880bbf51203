"""Leases: the right of this process to run agents, held while they run, and never trusted for longer than it lasts.

One task renews all of them, together. A lease counts from the moment before it was asked for, by Trio's clock: so it ends here
before it ends at whoever gave it. An agent whose lease is lost is cancelled as fenced. What it then still saves is safe: the
store refuses it where another process has loaded the conversation.
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
"""How often a lease is renewed while it lasts; a call to whoever gives leases may take one such time."""
TRUSTED: Final = 0.9
"""The part of its time for which a lease is trusted."""
BATCH: Final = 1000
"""Leases that are renewed by one call."""
log: Final = logging.getLogger("trio_sagents")


class Leases(Protocol):
    """Says which process may run the agent of a conversation, for a while; several processes ask the same one.

    A lease saves work, and proves nothing: a process may be paused while its lease ends. What keeps a conversation whole is the
    epoch of its store, which every load raises. Times here are durations, counted by a clock of the implementation's own.

    Cancellation: nobody knows whether it was done; the library gives back what it may have got.
    """

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        """Let `holder` have the lease for `ttl` seconds from now, unless another holder has it.

        Returns:
            None where it has it now, also where it had it before; else the seconds until the other's lease ends, > 0.
        """
        ...

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        """Let `holder` keep its leases for `ttl` seconds from now.

        Returns:
            Those of the ids whose lease it had, and has. One that has ended is not renewed, whoever had it: its holder acquires it.
        """
        ...

    async def release(self, conversation_id: str, holder: str) -> None:
        """End the lease of `holder`; nothing happens where it has none, or where it is another's by now."""
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
    """Trio time: until when it is trusted."""


@attrs.define(eq=False)
class LeaseKeeper:
    """The leases of one `open_sessions` block."""

    leases: Leases
    ttl: float
    settle_timeout: float
    """Seconds that giving one back may take: whoever ends an agent waits for it."""
    holder: str = attrs.field(factory=lambda: new_token() + new_token())
    _held: dict[str, _Held] = attrs.field(factory=dict)
    # Invariant: by conversation id, those that this process believes to have; an agent boots or lives for each.
    _lost: dict[Entry, None] = attrs.field(factory=dict)
    """Entries whose lease was lost, and that have not ended."""
    _some: trio.Event = attrs.field(factory=trio.Event)
    """Set when there is one."""

    @property
    def patience(self) -> float:
        """Seconds that one call may take."""
        return self.ttl / RENEWALS

    async def acquire(self, entry: Entry) -> None:
        """Get the lease for an agent that boots.

        Raises:
            RunsElsewhere: another process has it.
            RegistryUnavailable: nobody could say; what may have been got was given back.

        Cancellation: what may have been got is given back.
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
            raise RegistryUnavailable(f"nobody could say whether conversation {conversation_id!r} runs in another process") from exc
        except BaseException:
            await self._give_back(conversation_id)  # noqa: ASYNC102, ASYNC120  # likewise
            raise
        if remaining is not None:
            raise RunsElsewhere(conversation_id, remaining)
        self._held[conversation_id] = _Held(entry, began + TRUSTED * self.ttl)
        self._some.set()

    async def release(self, entry: Entry) -> None:
        """Give the lease of an agent back that has ended, where it has one. What fails ends by itself, with its time.

        Cancellation: it is given back all the same.
        """
        held = self._held.get(entry.conversation_id)
        if held is not None and held.entry is entry:
            del self._held[entry.conversation_id]
        elif entry in self._lost:
            del self._lost[entry]  # whoever gives leases may not know yet
        else:
            return
        await self._give_back(entry.conversation_id)

    async def _give_back(self, conversation_id: str) -> None:
        # Cancellation: whoever was cancelled waits for this, bounded: else the next process would wait for the whole of its time.
        with trio.move_on_after(min(self.patience, self.settle_timeout), shield=True):
            try:
                await await_host(self.leases.release, conversation_id, self.holder)
            except Exception:  # the boundary to the host's leases: it ends by itself
                log.exception("the lease of conversation %r could not be given back; it ends by itself", conversation_id)

    def may_act(self, entry: Entry) -> bool:
        """Return whether an agent may begin something new; one whose time is over is fenced.

        Race: the keeper's task and the agent's may have slept through the end of a lease together, in a program that blocked the
        event loop; then the agent may be the first to run (test_no_tool_begins_behind_the_end_of_a_lease).
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
        """Renew what is held, until cancelled."""
        renew_at = math.inf
        while True:
            while not self._held:  # what was got may be given back before this task runs
                self._some = trio.Event()
                await self._some.wait()
                renew_at = trio.current_time() + self.patience
            await trio.sleep_until(min(renew_at, self._earliest()))
            self._drop_ended()  # first, for no renewal may last longer than the earliest that is held
            began = trio.current_time()
            if began >= renew_at:
                is_whole = await self._renew(began)
                self._drop_ended()
                renew_at = began + self.patience if is_whole else trio.current_time() + self.patience / RENEWALS

    def _earliest(self) -> float:
        return min(held.until for held in self._held.values())

    async def _renew(self, began: float) -> bool:
        """Renew all; return whether everybody answered."""
        is_whole = True
        for batch in _batches(tuple(self._held.items())):
            kept = await self._ask([conversation_id for conversation_id, _ in batch])
            is_whole = is_whole and kept is not None
            for conversation_id, held in batch:
                # Race: it may have been given back while this asked, and acquired anew by the next agent.
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
                except Exception:  # the boundary to the host's leases: asked again, while they are trusted
                    log.exception("%d leases could not be renewed; it is tried again", len(conversation_ids))
        return kept

    def _drop_ended(self) -> None:
        now = trio.current_time()
        for held in tuple(self._held.values()):
            if held.until <= now:
                self._lose(held)

    def _lose(self, held: _Held) -> None:
        """The lease is another's, or may be: the agent has no business here any more."""
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

"""Leases in a dict: for several `open_sessions` blocks of one process, and for tests."""

from collections.abc import Collection, Sequence

import attrs
import trio


@attrs.define(eq=False)
class MemoryLeases:
    """Leases of one process, by Trio's clock; hand the same object to each block."""

    _held: dict[str, tuple[str, float]] = attrs.field(factory=dict)
    """By conversation id: the holder, and the Trio time at which its lease ends."""

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        """Get a lease; as `Leases.acquire`. Cancellation: either nothing was done, or the lease is held and the call returns."""
        await trio.lowlevel.checkpoint()
        found = self._held.get(conversation_id)
        remaining = 0.0 if found is None or found[0] == holder else found[1] - trio.current_time()
        if remaining > 0:
            return remaining
        self._held[conversation_id] = (holder, trio.current_time() + ttl)
        return None

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        """Keep leases; as `Leases.renew`. Cancellation: as for `acquire`."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        held = {name: self._held[name] for name in conversation_ids if name in self._held}
        kept = {name for name, (holds, until) in held.items() if holds == holder and until > now}
        self._held.update(dict.fromkeys(kept, (holder, now + ttl)))
        return kept

    async def release(self, conversation_id: str, holder: str) -> None:
        """End a lease; as `Leases.release`. Cancellation: as for `acquire`."""
        await trio.lowlevel.checkpoint()
        if self._held.get(conversation_id, ("", 0.0))[0] == holder:
            del self._held[conversation_id]

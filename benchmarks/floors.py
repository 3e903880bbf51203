"""Hand-written Trio: what somebody would write who needs just this one thing. The table compares with it."""

import math

import trio

from benchmarks.host import INACTIVITY_TIMEOUT


class _Session:
    __slots__ = ("done", "inbox", "name", "nursery", "outbox", "scope")

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = trio.Event()
        self.outbox, self.inbox = trio.open_memory_channel[object](64)
        self.scope = trio.CancelScope(deadline=trio.current_time() + INACTIVITY_TIMEOUT)
        self.nursery: trio.Nursery | None = None


class HandWrittenSessions:
    """A task with a nursery, a deadline, a mailbox and a place in a registry for each session; started with a handshake."""

    def __init__(self, parent: trio.Nursery) -> None:
        self._parent = parent
        self._registry: dict[str, _Session] = {}

    def __len__(self) -> int:
        return len(self._registry)

    async def start(self, name: str) -> None:
        """Start a session; it is registered and reads its mailbox when this returns."""
        await self._parent.start(self._run, name)

    async def stop(self, name: str) -> None:
        """Cancel a session, and wait until it has ended."""
        session = self._registry[name]
        session.scope.cancel()
        await session.done.wait()

    async def _run(self, name: str, *, task_status: trio.TaskStatus[None]) -> None:
        session = _Session(name)
        try:
            with session.scope:
                async with trio.open_nursery() as session.nursery:
                    self._registry[name] = session
                    task_status.started()
                    async for _ in session.inbox:
                        pass
        finally:
            del self._registry[name]
            session.done.set()


class NaiveFanOut:
    """A memory channel for each reader, filled with `send_nowait`."""

    def __init__(self) -> None:
        self._readers: list[trio.MemorySendChannel[object]] = []

    def subscribe(self) -> "trio.MemoryReceiveChannel[object]":
        """Return a new reader's end."""
        send, receive = trio.open_memory_channel[object](math.inf)
        self._readers.append(send)
        return receive

    def publish(self, event: object) -> None:
        """Give an event to every reader."""
        for reader in self._readers:
            reader.send_nowait(event)

"""The requests and sockets that are open: how many there may be, and how they end before their time."""

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._request import Refused, WebRequest
from trio_sagents.web._visitor import Authenticate, Visitor, visitor_of
from trio_sagents.web._wire import EXPIRED, REVOKED, Ending


@attrs.define(eq=False)
class Connection:
    """One open request or socket."""

    visitor: Visitor
    is_stream: bool = False
    """Whether it lasts until somebody ends it. Any other is over when it has its answer."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Everything that the connection does for its visitor is in it. Its deadline is when the visitor expires."""
    _ending: Ending | None = None

    def end(self, ending: Ending) -> None:
        """End it; the first reason counts. Nothing of the connection is carried out any more, not even what was received."""
        if self._ending is None:
            self._ending = ending
        self.scope.cancel()

    @property
    def ending(self) -> Ending | None:
        """Why it was ended; None if it was not."""
        if self._ending is None and trio.current_time() >= self.scope.deadline:
            return EXPIRED
        return self._ending


@attrs.define(eq=False)
class _Arrival:
    """A request of which it is being asked who it comes from."""

    revoked: set[str] = attrs.field(factory=set)
    """The keys of visitors that were revoked meanwhile."""


@attrs.define(eq=False)
class Connections:
    """All connections of a bridge."""

    _policy: WebPolicy
    _open: dict[str, set[Connection]] = attrs.field(factory=dict)
    # Invariant: by the key of the visitor; no set is empty.
    _count: int = 0
    _closing: Ending | None = None
    _emptied: trio.Event = attrs.field(factory=trio.Event)
    _arriving: set[_Arrival] = attrs.field(factory=set)
    _pausing: int = 0
    """How many streams have just sent a frame of events."""

    def __len__(self) -> int:
        return self._count

    @property
    def is_closed(self) -> bool:
        """Whether no connection is admitted any more."""
        return self._closing is not None

    async def identify(self, authenticate: Authenticate, request: WebRequest) -> Visitor:
        """Ask who a request comes from. Whoever is revoked meanwhile is not let in.

        Raises:
            Refused: nobody is logged in, the visitor has expired, or was revoked.
            TypeError: the host's function returned something else. What it raises leaves as it is.

        Cancellation: nothing is changed.
        """
        # Race: `authenticate` reads a login, then a task of the host deletes that login and calls `revoke`, and only then `authenticate`
        # returns. The connection is not among those that `revoke` ends. See test_revoke_when_it_is_being_asked_who_comes.
        arrival = _Arrival()
        self._arriving.add(arrival)
        try:
            visitor = await visitor_of(authenticate, request)
        finally:
            self._arriving.discard(arrival)
        if visitor.key in arrival.revoked:
            raise Refused(401, "Unauthorized", "log in first")
        return visitor

    @contextmanager
    def admit(self, visitor: Visitor) -> Iterator[Connection]:
        """Count a connection while the block is open.

        Raises:
            Refused: there are too many, or the bridge is closed.
        """
        self.check_open()
        own = self._open.get(visitor.key, set())
        if self._count >= self._policy.max_connections or len(own) >= self._policy.connections_per_scope:
            raise Refused(429, "TooMany", "too many connections are open", 1.0)
        connection = Connection(visitor)
        connection.scope.deadline = visitor.deadline
        self._open.setdefault(visitor.key, own).add(connection)
        self._count += 1
        try:
            yield connection
        finally:
            self._count -= 1
            own = self._open[visitor.key]
            own.discard(connection)
            if not own:
                del self._open[visitor.key]
            if self._closing is not None and not self._count:
                self._emptied.set()

    async def pause(self) -> None:
        """Wait until a stream may send its next frame of events: longer if many streams send them, so that agents get their turns.

        Cancellation: nothing is changed.
        """
        self._pausing += 1
        try:
            await trio.sleep(max(self._policy.event_interval, self._pausing / self._policy.event_frames_per_second))
        finally:
            self._pausing -= 1

    def become_stream(self, connection: Connection) -> None:
        """Note that a connection lasts until somebody ends it.

        Raises:
            Refused: the bridge is closed.
        """
        self.check_open()
        connection.is_stream = True

    def check_open(self) -> None:
        """Refuse everything once the bridge is closed."""
        if self._closing is not None:
            raise Refused(503, "SessionsClosed", "the server is shutting down", self._closing.retry_after)

    def revoke(self, key: str) -> int:
        """End the connections of a visitor, and return how many there were."""
        for arrival in self._arriving:
            arrival.revoked.add(key)
        found = tuple(self._open.get(key, ()))
        for connection in found:
            connection.end(REVOKED)
        return len(found)

    def close(self, ending: Ending) -> None:
        """End every stream, and admit no other connection. A request that is being answered gets its answer."""
        if self._closing is None:
            self._closing = ending
            if not self._count:
                self._emptied.set()
        for own in tuple(self._open.values()):
            for connection in tuple(own):
                if connection.is_stream:
                    connection.end(ending)

    async def wait_closed(self) -> None:
        """Wait until no connection is left, after `close`.

        Cancellation: changes nothing.
        """
        await self._emptied.wait()

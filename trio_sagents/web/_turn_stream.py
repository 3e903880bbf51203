"""One response: the events of one turn, as an encoder writes them, until the turn is over for the client.

A response never simply ends while its turn runs: it ends with the turn's outcome, or with an error that says why it cannot continue. That
the client leaves ends the response and not the turn.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, Protocol

import attrs
import trio

from trio_sagents import (
    AgentNotRunning,
    AgentShutdown,
    CancelCause,
    Cancelled,
    Completed,
    ConversationNotFound,
    DisplayMessage,
    Envelope,
    Failed,
    Gap,
    Interrupt,
    Interrupted,
    Message,
    MessageCompleted,
    Page,
    PageChange,
    PersistenceError,
    Receipt,
    SagentsError,
    Scope,
    Sessions,
    SessionsClosed,
    Snapshot,
    StreamingMessage,
    SubAgentEvent,
    TurnEnded,
    TurnOutcome,
    TurnStarted,
)
from trio_sagents.web._frames import PING
from trio_sagents.web._moves import Move, TodosChanged
from trio_sagents.web._relay import TurnRelay

SETTLED_GRACE: Final = 0.5
"""Seconds to wait for the last events of a turn whose outcome is known already."""


class Encoder(Protocol):
    """Writes moves in the words of a protocol."""

    has_started: bool

    def start(self, turn_id: str) -> bytes:
        """Return the beginning of the message, when the turn is known."""
        ...

    def encode(self, moves: Iterable[Move]) -> bytes:
        """Return moves as bytes."""
        ...

    def broken(self, text: str) -> bytes:
        """Return the end of a stream that cannot continue, although its turn may."""
        ...


@attrs.define(eq=False)
class TurnStream:
    """The response about one turn."""

    sessions: Sessions
    scope: Scope = attrs.field(repr=False)
    conversation_id: str
    page: Page
    relay: TurnRelay
    encoder: Encoder
    write: Callable[[bytes], Awaitable[None]] = attrs.field(repr=False)
    running: str | None
    """The turn that runs, as far as it is known."""
    receipt: Receipt | None = None
    """Of the message or the decisions that the client has sent; None if it only looks."""
    ping_interval: float = 15.0
    event_interval: float = 0.0
    """Seconds between two writes, at least. What happens in between is written at once."""
    outcome: TurnOutcome | None = None
    """How the turn ends, if that is known already; the receipt says it later."""
    _end: Literal["to come", "broken", "written"] = "to come"
    """Of the stream: it is "broken" while an end is being written although the turn may continue."""
    _waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _has_snapshot: bool = False
    """Whether the snapshot has come with which the subscription begins."""

    async def run(self) -> None:
        """Write until the turn is over for this client.

        Cancellation: the turn continues; what was written is a part of the stream.
        """
        async with trio.open_nursery() as nursery:
            if self.outcome is not None:
                self._settle(self.outcome)
            elif self.receipt is not None:
                nursery.start_soon(self._wait_settled, self.receipt)
            await self._relay_changes()
            self._end = "written"
            nursery.cancel_scope.cancel()

    def last_words(self, text: str) -> bytes | None:
        """Return what is to be written when the stream is ended from outside: nothing follows its own end.

        Args:
            text: why, if the stream has not come to its end.

        Returns:
            None if the end was on its way: whether it has been written is not known, so the connection has to be cut.
        """
        if self._end == "written":
            return b""
        return None if self._end == "broken" or self.relay.is_over else self.encoder.broken(text)

    async def _wait_settled(self, receipt: Receipt) -> None:
        self._settle(await receipt.wait())

    def _settle(self, outcome: TurnOutcome) -> None:
        self.outcome = outcome
        # Race: the events of the turn's end may still be on their way to the page. They are worth a moment.
        self._waiting.deadline = trio.current_time() + SETTLED_GRACE

    async def _relay_changes(self) -> None:
        await self._write(self._begin())
        while not self.relay.is_over:
            try:
                change = await self._next_change()
            except (SessionsClosed, PersistenceError, ConversationNotFound) as exc:
                self._end = "broken"
                await self.write(self.encoder.broken(exc.public_text or "the sessions are closed"))
                return
            if change is not None:
                if is_behind_a_hole(change.events):
                    await self._look_around()
                await self._write(self._of_change(change))
            elif self.outcome is not None:
                await self._write([self.encoder.encode(self.relay.end(self.outcome))])
            else:
                await self.write(PING)
            if not self.relay.is_over:
                await trio.sleep(self.event_interval)

    async def _next_change(self) -> PageChange | None:
        """Wait for a change of the page; None if it is time for a ping, or if the turn has ended and no more comes of it."""
        patience = self.ping_interval if self.outcome is None else SETTLED_GRACE
        # Cancellation: the page loses no change, and nothing is being written while the page waits.
        with trio.move_on_after(patience) as self._waiting:
            return await anext(self.page)
        return None

    async def _look_around(self) -> None:
        """Learn from the agent what the missing events would have told: which turn runs, and which turn took the message."""
        self.running = await running_turn(self.sessions, self.conversation_id, self.scope)
        if self.relay.turn_id is None and self.relay.awaited is not None:
            self.relay.turn_id = await turn_of_message(self.sessions, self.conversation_id, self.scope, self.relay.awaited)

    async def _write(self, pieces: Iterable[bytes]) -> None:
        if data := b"".join(pieces):
            await self.write(data)

    # ── what is written

    def _begin(self) -> Iterator[bytes]:
        """Yield what is known of the turn already, if the turn is known."""
        self.relay.queued = self.page.queued
        if self.relay.turn_id is not None:
            yield from self._start()
            yield self.encoder.encode(self._picture())
            yield from self._end_if_missed()

    def _start(self) -> Iterator[bytes]:
        if self.relay.turn_id is not None and not self.encoder.has_started:
            yield self.encoder.start(self.relay.turn_id)
            self.relay.todos = self.page.todos
            if self.page.todos:
                yield self.encoder.encode([TodosChanged(self.page.todos)])

    def _picture(self) -> Sequence[Move]:
        return self.relay.catch_up(self.page.rows, streaming_of(self.page, self.relay.turn_id, self.running), self.page.tool_calls)

    def _of_change(self, change: PageChange) -> Iterator[bytes]:
        is_first = False
        for envelope in in_order(change.events):
            match envelope.event:
                case TurnStarted(turn_id=turn_id):
                    self.running = turn_id
                case TurnEnded(turn_id=turn_id) if turn_id == self.running:
                    self.running = None
                case Snapshot(turn_id=turn_id, replaces=replaces) if envelope.channel == "main":
                    self.running = turn_id
                    is_first = replaces is None and not self._has_snapshot
                    self._has_snapshot = True
            moves = self.relay.apply(envelope)
            yield from self._start()
            yield self.encoder.encode(moves)
            # The events behind the first snapshot say more than the rows: who rejected a call, say. So they come first.
            if self.relay.needs_picture and not is_first:
                yield from self._heal()
        if self.relay.needs_picture:
            yield from self._heal()

    def _heal(self) -> Iterator[bytes]:
        yield from self._start()
        yield self.encoder.encode(self._picture())
        yield from self._end_if_missed()

    def _end_if_missed(self) -> Iterator[bytes]:
        """End the stream if the turn has ended while nobody told of it."""
        turn_id = self.relay.turn_id
        if turn_id is None or turn_id == self.running or self.relay.is_over:
            return
        outcome = self.outcome or stored_outcome(turn_id, self.page.rows, self.page.interrupt)
        if outcome is not None:
            yield self.encoder.encode(self.relay.end(outcome))


def is_behind_a_hole(events: Sequence[Envelope]) -> bool:
    """Return whether events are missing before the end of these: there is a `Gap`, or a snapshot has taken the place of all others."""
    main = [envelope.event for envelope in events if envelope.channel == "main"]
    return any(isinstance(event, Gap) for event in main) or isinstance(main[-1] if main else None, Snapshot)


def in_order(events: Sequence[Envelope]) -> Sequence[Envelope]:
    """Return the events of one change, with those of the debug channel between the others.

    The two channels have no common order. What a sub-agent did is told before the answer of its call, and before the end of the turn.
    """
    left = [(envelope.event.sub_agent_id, envelope) for envelope in events if isinstance(envelope.event, SubAgentEvent)]
    if not left:
        return events
    told: list[Envelope] = []
    for envelope in events:
        if envelope.channel == "debug":
            continue
        match envelope.event:
            case TurnEnded() | AgentShutdown():
                ended = {call_id for call_id, _ in left}
            case MessageCompleted(message=message):
                ended = {result.call_id for result in message.results}
            case _:
                ended = set()
        told += [each for call_id, each in left if call_id in ended]
        left = [(call_id, each) for call_id, each in left if call_id not in ended]
        told.append(envelope)
    return [*told, *(each for _, each in left)]


def streaming_of(page: Page, turn_id: str | None, running: str | None) -> StreamingMessage | None:
    """Return the message that this turn is speaking; None if it is another turn that speaks."""
    return page.streaming if turn_id is not None and turn_id == running else None


async def running_turn(sessions: Sessions, conversation_id: str, scope: Scope) -> str | None:
    """Return the id of the turn that runs in a conversation; None if none does.

    Cancellation: nothing is changed.
    """
    try:
        return (await sessions.agent_info(conversation_id, scope=scope)).turn_id
    except (AgentNotRunning, ConversationNotFound):
        return None


async def turn_of_message(sessions: Sessions, conversation_id: str, scope: Scope, message_id: str) -> str | None:
    """Return the turn that took a message; None if the message still waits, or if the agent is not running.

    Cancellation: nothing is changed.
    """
    try:
        state = await (await sessions.get(conversation_id, scope=scope)).state()
    except (AgentNotRunning, ConversationNotFound):
        return None
    return next((message.turn_id for message in reversed(state.messages) if message.message_id == message_id), None)


# ── what the history says


def stored_outcome(turn_id: str, rows: Iterable[DisplayMessage], interrupt: Interrupt | None) -> TurnOutcome | None:
    """Return how a turn ended, as far as its rows say; None if they do not say that it has ended."""
    if interrupt is not None and interrupt.turn_id == turn_id:
        return Interrupted(interrupt)
    last = None
    for row in rows:
        if row.turn_id == turn_id:
            last = row
    if last is None:
        return None
    if last.content_type == "error":
        return Failed(SagentsError(last.content["text"]))
    match last.content.get("stop_reason"):
        case "length" | "content_filtered" as cut:
            return Completed(Message(last.message_id, "assistant", (), cut, turn_id))
        case None if last.role == "assistant" and last.content_type != "tool_call":
            return Completed(Message(last.message_id, "assistant", (), "stop", turn_id))
        case None if last.role == "tool":
            return Completed(Message(last.message_id, "assistant", (), "stop", turn_id))  # a tool was to end the turn
        case "cancelled":
            return Cancelled(CancelCause.HOST_CANCELLED)  # the rows do not say who cancelled it
        case reason:
            return Failed(SagentsError(f"the turn was cut ({reason})" if reason else "the turn has ended"))


def turn_of_call(rows: Sequence[DisplayMessage], call_id: str) -> str | None:
    """Return the turn that has made a call; None if no row tells of it."""
    return next((row.turn_id for row in reversed(rows) if row.content.get("call_id") == call_id), None)


def rows_up_to_calls(rows: Sequence[DisplayMessage], turn_id: str) -> Sequence[DisplayMessage]:
    """Return the rows up to the last answer of a turn that has tool calls: what a client knew when it was asked about them."""
    asking = [index for index, row in enumerate(rows) if row.turn_id == turn_id and row.content_type == "tool_call"]
    return rows[: asking[-1] + 1] if asking else ()

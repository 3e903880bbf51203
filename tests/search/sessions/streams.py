"""The plain model of a reader: what may come next on one subscription, given everything that came before."""

from typing import Any

import attrs

from tests.support.records import check
from trio_sagents import (
    AgentShutdown,
    ChainError,
    Cursor,
    Envelope,
    Gap,
    MessageCompleted,
    MessageQueued,
    Snapshot,
    StateRestored,
    Status,
    StatusChanged,
    TextDelta,
    TextPart,
    TurnEnded,
    TurnStarted,
)
from trio_sagents.conversation.status import follows


@attrs.define(eq=False)
class Stream:
    """One subscription of one reader, from `subscribe` to `unsubscribe`."""

    conversation_id: str
    channel: str
    scope: str
    cursor: Cursor | None = None
    """The last cursor that was given, here or on the subscription that this one continues."""
    incarnation: str | None = None
    seq: int = 0
    has_picture: bool = True
    """Not between a `StateRestored` and the first snapshot."""
    is_gapped: bool = False
    """After a `Gap`, until the `Snapshot`."""
    is_rewritten: bool = False
    """After a `ChainError(unsaved=True)`, until the `Snapshot`."""
    status: Status | None = None
    turn: str | None = None
    """The turn that runs as far as the reader knows."""
    is_turn_known: bool = False
    """Whether `turn` is sure: not between a gap and the next word about turns."""
    texts: dict[tuple[str, int], str] = attrs.field(factory=dict)
    """Streamed text, by message and part."""
    completed: list[str] = attrs.field(factory=list)
    """Messages that were completed, since the last snapshot."""
    queued: list[str] = attrs.field(factory=list)
    """Messages that were queued, since the last snapshot."""
    is_resumed: bool = False
    """Made with `after=`: what happened in between may be missing, the last word of the agent before it, too."""
    ended: dict[str, int] = attrs.field(factory=dict)
    """How often each incarnation said its last word."""
    whole: set[str] = attrs.field(factory=set)
    """Incarnations of which something was read before their end."""
    events: int = 0
    log: list[str] = attrs.field(factory=list)

    def go_on(self) -> "Stream":
        """Return the stream of a subscription that was made with `after=` our cursor."""
        return attrs.evolve(self, whole=set(), ended=dict(self.ended), texts=dict(self.texts), completed=[], queued=[], is_resumed=True)

    def see(self, envelope: Envelope, owner: str | None) -> None:
        """Take the next event."""
        self.events += 1
        where = f"{self.conversation_id}/{self.channel}"
        event = envelope.event
        self.log.append(f"{envelope.incarnation[-3:]}:{envelope.first_seq}-{envelope.seq} {type(event).__name__}")
        check(envelope.conversation_id == self.conversation_id and envelope.channel == self.channel, "I20", f"{where}: another's event")
        check(owner == self.scope, "I20", f"{where} of {owner!r}: an event came to {self.scope!r}")
        check(envelope.first_seq <= envelope.seq, "I17", f"{where}: {self.log[-1]}")
        check(envelope.incarnation not in self.ended, "I19", f"{where}: an event after the last word: {self.log[-6:]}")
        if isinstance(event, StateRestored) and envelope.incarnation != self.incarnation:
            check(self.cursor is None, "I18", f"{where}: a reader who has seen {self.cursor} is told that a state was restored")
            return  # told to a reader who has seen nothing yet, before the first snapshot
        if envelope.incarnation != self.incarnation:
            self._see_first(envelope, where)
        else:
            self._see_next(envelope, where)
        self.is_resumed = False
        self.seq = envelope.seq
        self.cursor = envelope.cursor
        if not isinstance(event, AgentShutdown):
            self.whole.add(envelope.incarnation)
        self._understand(event, where)
        if isinstance(event, AgentShutdown):
            self.ended[envelope.incarnation] = self.ended.get(envelope.incarnation, 0) + 1
            check(self.ended[envelope.incarnation] == 1, "I19", f"{where}: the last word came twice")
            self.incarnation = None

    def _see_first(self, envelope: Envelope, where: str) -> None:
        """Another agent's first event: a snapshot, or a gap if the agent ended before it was read."""
        event = envelope.event
        check(
            self.incarnation is None or self.is_gapped or self.is_resumed,
            "I19",
            f"{where}: agent {self.incarnation} had no last word before {envelope.incarnation}: {self.log[-6:]}",
        )
        self.has_picture = not isinstance(event, StateRestored)
        if isinstance(event, Snapshot | Gap):
            check(event.replaces == self.cursor, "I18", f"{where}: {event!r} replaces not {self.cursor}, the last place")
        else:
            is_fine = isinstance(event, StateRestored) and self.cursor is None
            check(is_fine, "I18", f"{where}: the first event of an agent: {self.log[-6:]}")
        self.incarnation, self.is_gapped, self.is_rewritten = envelope.incarnation, False, False
        self.turn, self.is_turn_known, self.status = None, False, None
        self.texts.clear()

    def _see_next(self, envelope: Envelope, where: str) -> None:
        event = envelope.event
        log = self.log[-6:]
        check(not isinstance(event, StateRestored), "I18", f"{where}: a state is restored in the middle: {log}")
        check(self.has_picture or isinstance(event, Snapshot | Gap), "I18", f"{where}: no snapshot after a state was restored: {log}")
        if isinstance(event, Snapshot):
            if not self.has_picture:
                self.has_picture = True
                check(event.replaces is None, "I18", f"{where}: {event!r} replaces a place, and there was none")
                check(envelope.seq > self.seq, "I17", f"{where}: a snapshot from before the start: {log}")
            elif self.is_gapped:
                check(envelope.seq >= self.seq, "I17", f"{where}: a snapshot from before the gap: {log}")
            else:
                check(self.is_rewritten, "I18", f"{where}: a second snapshot: {log}")
                check(envelope.first_seq == self.seq + 1, "I17", f"{where}: a hole: {log}")
            return
        check(envelope.first_seq == self.seq + 1, "I17", f"{where}: a hole after {self.seq}: {log}")
        check(not self.is_gapped or isinstance(event, AgentShutdown), "I18", f"{where}: no snapshot after a gap: {log}")

    def _understand(self, event: Any, where: str) -> None:
        log = self.log[-8:]
        match event:
            case Gap(first=first, last=last):
                self.has_picture = True
                check(first <= last, "I17", f"{where}: an empty gap")
                self.is_gapped, self.is_turn_known = True, False
                self.texts.clear()
            case Snapshot():
                self._restart(event)
            case StatusChanged(status=status):
                if self.status is not None:
                    check(follows(self.status, status), "I7", f"{where}: {self.status} -> {status}: {log}")
                self.status = status
                if self.is_turn_known:
                    check(
                        (status is Status.RUNNING) == (self.turn is not None), "I7", f"{where}: {status} with the turn {self.turn}: {log}"
                    )
            case TurnStarted(turn_id=turn_id):
                check(not self.is_turn_known or self.turn is None, "I7", f"{where}: a turn begins inside another: {log}")
                self.turn, self.is_turn_known = turn_id, True
            case TurnEnded(turn_id=turn_id):
                check(not self.is_turn_known or self.turn == turn_id, "I9", f"{where}: turn {turn_id} ends, {self.turn} runs: {log}")
                self.turn, self.is_turn_known = None, True
            case TextDelta(text=text, message_id=message_id, part=part, offset=offset, turn_id=turn_id):
                known = self.texts.get((message_id, part), "")
                check(offset == len(known), "I17", f"{where}: text at {offset}, known are {len(known)} characters: {log}")
                check(not self.is_turn_known or turn_id == self.turn, "I9", f"{where}: text of turn {turn_id} in {self.turn}")
                self.texts[message_id, part] = known + text
            case MessageCompleted(message=message):
                self.completed.append(message.message_id)
                if message.role == "assistant":
                    for index, piece in enumerate(message.parts):
                        spoken = self.texts.pop((message.message_id, index), None)
                        if spoken is not None and not (isinstance(piece, TextPart) and piece.text == spoken):
                            check(False, "I17", f"{where}: streamed {spoken!r}, completed {piece!r}: {log}")
                    self.texts.clear()
            case MessageQueued(message=message):
                self.queued.append(message.message_id)
            case ChainError(unsaved=True):
                self.is_rewritten, self.is_turn_known = True, False
                self.texts.clear()
            case AgentShutdown(status=status):
                check(status is not Status.RUNNING, "I7", f"{where}: an agent ended with the status running: {log}")
                check(not self.is_turn_known or self.turn is None, "I19", f"{where}: the last word inside a turn: {log}")

    def _restart(self, snapshot: Snapshot) -> None:
        self.is_gapped = self.is_rewritten = False
        self.status = snapshot.status
        self.is_turn_known = snapshot.status is not Status.RUNNING
        self.turn = None
        self.completed, self.queued = [], []
        self.texts.clear()
        if snapshot.streaming is not None:
            for index, part in enumerate(snapshot.streaming.parts):
                if isinstance(part, TextPart):
                    self.texts[snapshot.streaming.message_id, index] = part.text

    def check_up_to_date(self, live: Any, history: list[str], queue: list[str]) -> None:
        """Check that a reader who has read everything knows everything: nothing is on its way."""
        if self.incarnation is None or live is None or live.journal.identity.incarnation != self.incarnation or self.channel != "main":
            return
        where = f"{self.conversation_id}/{self.channel}"
        check(
            self.seq == live.journal.feed("main").seq,
            "I17",
            f"{where}: read up to {self.seq}, published up to {live.journal.feed('main').seq}",
        )
        check(
            self.status is live.board.status, "I7", f"{where}: the reader knows {self.status}, it is {live.board.status}: {self.log[-8:]}"
        )
        if self.completed:
            first = history.index(self.completed[0]) if self.completed[0] in history else 0
            check(self.completed == history[first:], "I17", f"{where}: completed {self.completed}, committed {history[first:]}")
        lost = [message_id for message_id in self.queued if message_id not in history and message_id not in queue]
        check(not lost, "I13", f"{where}: queued messages that are nowhere: {lost}")

"""The journal of one live conversation: it alone applies a step, and it alone publishes.

`submit` hands a step to the commit queue, in order. What follows runs in the queue's continuation, never in the task of the caller,
which may be cancelled at any time: the state changes, the rows that are new and those that changed go out, then the step's events,
then the continuation of whoever submitted the step. So memory always equals the last commit, no event precedes its commit, and no
step can change a row without telling viewers. A step that fails changes nothing, and the next step builds on what is stored.

When the caller's task did this work, a message was refused though durable in 183 of 300 schedules, and durable but never answered in
60 of 420.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import attrs

from trio_sagents.broadcast import Feed, Subscription
from trio_sagents.conversation.checkpoints import Past, recalled
from trio_sagents.conversation.decisions import waiting_size
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits
from trio_sagents.conversation.pending import Encoded, Pending
from trio_sagents.conversation.state import ConversationState, Moment, Step, Unchanged, Waiting
from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.events import DeltaMaker, DisplayMessageSaved, DisplayMessageUpdated, Envelope, Event, Snapshot
from trio_sagents.data.messages import Message
from trio_sagents.data.records import Commit, DisplayMessage, Owner, Saved
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import OlderMessages
from trio_sagents.data.wire import decode_message
from trio_sagents.exceptions import Conflict, PersistenceError
from trio_sagents.storage import Asker, CommitQueue, PendingCommit
from trio_sagents.supervisor._bell import Bell
from trio_sagents.supervisor._rows import RowTransform, transformed

Then = Callable[[PersistenceError | None], None]
"""What follows a step in the continuation: called once, synchronously, with None, or with the reason why the step is not stored."""
Picture = Callable[[Cursor, Cursor | None], Snapshot]
"""Renders the present: (place of the snapshot, what it replaces)."""


def wall_clock() -> datetime.datetime:
    """Return the present instant, aware, in UTC."""
    return datetime.datetime.now(datetime.UTC)


@attrs.frozen
class Identity:
    """Which conversation it is, and which agent writes to it."""

    conversation_id: str
    agent_id: str
    scope: Scope = attrs.field(repr=False)
    """The agent's; the store gets it."""
    owner: Owner
    incarnation: str
    epoch: int


@attrs.frozen
class PendingWait:
    """A step on its way to the store that changes what waits for people."""

    by: Literal["turn", "decision", "message"]
    """A turn that begins to wait, people who decide, or a message that comes instead."""
    write: PendingCommit


@attrs.define(eq=False)
class Journal:
    """One conversation in memory, the order of its steps, and its events. It belongs to one agent and ends with it."""

    identity: Identity
    commits: CommitQueue
    state: ConversationState
    ids: Ids
    limits: Limits
    bell: Bell
    """Rung after each step: the agent looks whether it has work, or may leave."""
    _fence: Callable[[], None]
    """Called when another writer took over the conversation."""
    _pending: Pending
    _replay_events: int
    _defer: Callable[[Feed], None] | None = None
    """What has a feed wake its readers for streamed text, instead of the feed itself; None unless there is a `flush_interval`."""
    transforms: Sequence[tuple[str, RowTransform]] = ()
    """By middleware id, outermost first: what becomes of a row before it is kept and shown."""
    pending_wait: PendingWait | None = None
    # Invariant: at most one step on its way changes what waits; whoever wants to change it too waits for that step, and looks again.
    _own_keys: set[str] | None = None
    """The keys of the rows that the host, its tools and its middleware have added since the agent came up. Made with the first one."""
    _writes: dict[PendingCommit, None] = attrs.field(factory=dict)
    """Submitted, and not ended."""
    _feeds: dict[Channel, Feed] | None = None
    """Made with the first feed."""
    _picture: Picture | None = None
    """There while the agent is live: nothing is published before and after."""
    is_closed: bool = False
    """Whether the agent has ended."""

    # ── looking

    def moment(self) -> Moment:
        """Return the conversation as a rule looks at it."""
        return Moment(self.state, self.ids, self.limits, wall_clock())

    @property
    def is_at_rest(self) -> bool:
        """Whether no step is on its way."""
        return not self._writes

    async def wait_at_rest(self) -> None:
        """Wait until no step is on its way. Cancellation: nothing was done."""
        while self._writes:
            await self.bell.wait()

    def check_room(self, message: Message) -> None:
        """Raise LimitExceeded if the state would grow over `max_state_bytes`, with the room that is reserved for decisions."""
        self._pending.check_room(self.state, self.limits, self._reserved() + self._pending.size_of(message))

    def check_waiting_room(self, waiting: Waiting) -> None:
        """Raise LimitExceeded if what waits, and its decisions, would make the state larger than can be loaded again."""
        self._pending.check_room(self.state, self.limits, waiting_size(self.state, waiting))

    def freeable(self) -> int:
        """Return the bytes of the messages that may leave the window with the next step."""
        return self._pending.freeable(self.state, self.limits)

    def _reserved(self, step: Step | None = None) -> int:
        """Return the bytes that are kept free for what waits for people, after a step if one is given."""
        waiting = self.state.waiting if step is None or isinstance(step.waiting, Unchanged) else step.waiting
        return 0 if waiting is None else waiting_size(self.state, waiting)

    async def recall(self, names: Sequence[str]) -> Mapping[str, Past]:
        """Return what the store knows of messages and calls before the window, by the names of `checkpoints`.

        Raises:
            PersistenceError: the store could not say.
            StateError: what it has cannot be used.

        Cancellation: nothing was done.
        """
        asker = Asker(self.identity.scope, self.identity.owner)
        found = await self.commits.read(self.commits.store.recall(asker, self.identity.conversation_id, names))
        return {name: recalled(self.identity.conversation_id, stored) for name, stored in found.items()}

    async def older_messages(self, before: str | None, limit: int) -> OlderMessages:
        """Return a page of the messages before the window. Raises and cancellation as of `recall`."""
        conversation_id, asker = self.identity.conversation_id, Asker(self.identity.scope, self.identity.owner)
        page = await self.commits.read(self.commits.store.older_messages(asker, conversation_id, before=before, limit=limit))
        return OlderMessages([decode_message(conversation_id, record) for record in page.messages], page.before)

    # ── writing

    def add_own_key(self, key: str) -> bool:
        """Note the key of a row that is added; return whether it is the first row with this key since the agent came up."""
        if self._own_keys is None:
            self._own_keys = set()
        is_first = key not in self._own_keys
        self._own_keys.add(key)
        return is_first

    def submit(self, step: Step, then: Then | None = None) -> PendingCommit:
        """Submit a step behind all earlier ones. Synchronous.

        Args:
            step: from a rule, made of the present state.
            then: what follows it in the continuation. It must not raise, and must not wait.

        Returns:
            The write; wait on it until the step is durable.

        Raises:
            LimitExceeded: the metadata would grow too large; nothing was done.
        """
        encoded = self._pending.add(step, self.state, self.limits, self._reserved(step))
        claimed = self.ids.claim((*step.messages, *step.queued))

        def finish(saved: Saved | None, error: PersistenceError | None) -> None:
            del self._writes[write]
            if self.pending_wait is not None and self.pending_wait.write is write:
                self.pending_wait = None
            if error is None:
                self._pending.commit(encoded)
                if encoded.cut is not None:
                    self.ids.forget(self.state.messages[encoded.cut.first : encoded.cut.end])
                self.state.apply(step, encoded.metadata, encoded.grown, encoded.cut, encoded.unfinished)
                self._publish_step(step, saved)
            else:
                self._pending.fail(encoded)
                self.ids.release(claimed)
                if isinstance(error, Conflict) and not self.is_closed:
                    self._fence()
            if then is not None:
                then(error)
            self.bell.ring()

        write = PendingCommit(self.identity.scope, self._commit(step, encoded), step.shown, finish)
        self._writes[write] = None
        if not isinstance(step.waiting, Unchanged):
            self.pending_wait = PendingWait("message" if step.queued else "decision" if step.decided else "turn", write)
        return self.commits.submit(write)

    def _commit(self, step: Step, encoded: Encoded) -> Commit:
        identity = self.identity
        return Commit(
            conversation_id=identity.conversation_id,
            agent_id=identity.agent_id,
            owner=identity.owner,
            epoch=identity.epoch,
            revision=encoded.revision,
            lifecycle=step.lifecycle,
            actor=step.actor,
            messages=encoded.messages,
            queued=encoded.queued,
            taken=step.taken,
            message_ids=step.message_ids,
            state=encoded.state,
            rows=self._transformed(step.rows) if self.transforms else step.rows,
            tool_updates=step.tool_updates,
            checkpoint=None if encoded.cut is None else encoded.cut.checkpoint,
        )

    def _transformed(self, rows: Sequence[DisplayMessage]) -> Sequence[DisplayMessage]:
        return transformed(rows, self.transforms, self.identity.conversation_id)

    def give_up(self) -> None:
        """The agent ends, and the store has not answered: whoever waits for a step learns that nobody knows its outcome."""
        self.pending_wait = None  # whoever waits to look again is not to wait for it any more
        for write in tuple(self._writes):
            write.give_up(
                PersistenceError(
                    f"the store did not answer for conversation {self.identity.conversation_id!r} before its agent ended: what was "
                    "posted may be stored, or not; post it again with the same message_id"
                )
            )

    # ── publishing

    def open(self, picture: Picture) -> None:
        """The agent goes live: publish from now on."""
        self._picture = picture

    def close(self) -> None:
        """The agent has ended. Everybody who follows is let go, and nothing more is published."""
        for feed in tuple((self._feeds or {}).values()):
            for subscription in tuple(feed.subscriptions):
                subscription.end()
        self._feeds = self._picture = None
        self.is_closed = True

    def feed(self, channel: Channel) -> Feed:
        """Return the events on a channel, of an agent that is live."""
        assert self._picture is not None
        if self._feeds is None:
            self._feeds = {}
        feed = self._feeds.get(channel)
        if feed is None:
            identity = self.identity
            feed = self._feeds[channel] = Feed(
                identity.agent_id, identity.conversation_id, identity.incarnation, channel, self._replay_events, self._picture, self._defer
            )
        return feed

    def enrol(self, subscription: Subscription, told: Sequence[Envelope] = ()) -> None:
        """Let a subscription follow the agent, if it is live; `told` is what its reader gets before the snapshot."""
        if self._picture is not None:
            subscription.enrol(self.feed(subscription.channel), told)

    def publish(self, event: Event, channel: Channel = "main") -> None:
        """Tell the subscribers; free of cost for a channel that nobody listens to."""
        if self._picture is not None and (channel == "main" or (self._feeds is not None and channel in self._feeds)):
            self.feed(channel).publish(event)

    def publish_delta(self, kind: DeltaMaker, text: str, message_id: str, part: int, offset: int, turn_id: str) -> None:
        """Tell the subscribers of the main channel a piece of the message being spoken."""
        if self._picture is not None:
            self.feed("main").publish_delta(kind, text, message_id, part, offset, turn_id)

    def publish_everywhere(self, event: Event) -> None:
        """Tell the subscribers of every channel."""
        for channel in tuple(self._feeds or ()):
            self.publish(event, channel)

    def publish_debug(self, make: Callable[[], Event]) -> None:
        """Tell those who follow the debug channel an event that is costly to make; it is made only if somebody does."""
        if self._picture is not None and self._feeds is not None and "debug" in self._feeds:
            self._feeds["debug"].publish_lazily(make)

    def publish_snapshot(self) -> None:
        """Tell the subscribers the whole present: what they were shown since the last commit is void."""
        if self._picture is not None:
            main = self.feed("main")
            main.publish(self._picture(Cursor(main.incarnation, "main", main.seq + 1), None))

    def _publish_step(self, step: Step, saved: Saved | None) -> None:
        if self._picture is None:
            return
        if saved is not None:
            shown = saved.new, saved.changed
            if saved.by_host and self.transforms:  # the rows of our own stores were transformed before they were stored
                shown = self._transformed(saved.new), self._transformed(saved.changed)
            if step.new_rows:
                own = tuple(row for row in shown[1] if row.row_id in step.new_rows)
                shown = (*shown[0], *own), tuple(row for row in shown[1] if row not in own)
            for row in shown[0]:
                self.publish(DisplayMessageSaved(row))
            for row in shown[1]:
                self.publish(DisplayMessageUpdated(row))
        for event in step.events:
            self.publish(event)

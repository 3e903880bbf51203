"""A live agent: it composes the parts, and it alone knows all of them.

Each part gets values, the journal and what it needs of the parts below it; no part knows the agent. Everything but waiting is
synchronous: whoever decides looks and acts in one step. The agent's own task (`serve`) is woken by the bell and then looks for itself;
nothing is ever handed to it, so nothing can be lost on the way.

    journal        what is committed, and what is published
    lifetime       when the agent may leave by itself
    board          the status, and who is told of it
    receipts       who waits for which answer
    turns          the turn that runs
    inbox          how messages get in
    approvals      how decisions get in
    host, hooks    what middleware may ask for, and calls of its hooks
"""

from collections.abc import Mapping, Sequence

import attrs
import trio

from trio_sagents._trio.tree import is_inside
from trio_sagents.agent import Pipeline, id_of
from trio_sagents.broadcast import Subscription
from trio_sagents.conversation.messages_in import Posted
from trio_sagents.conversation.status import Happening
from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.decisions import Decision
from trio_sagents.data.events import AgentShutdown, Envelope, Event, Snapshot, StateRestored
from trio_sagents.data.interrupts import copy_of
from trio_sagents.data.json import Opaque, Options
from trio_sagents.data.messages import Poster
from trio_sagents.data.outcomes import TurnOutcome, Unanswered
from trio_sagents.data.records import Row
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import State
from trio_sagents.data.status import CancelCause, ShutdownReason, Status
from trio_sagents.supervisor._approvals import Approvals
from trio_sagents.supervisor._blueprint import Blueprint
from trio_sagents.supervisor._host import HookCaller, Host
from trio_sagents.supervisor._inbox import Inbox
from trio_sagents.supervisor._info import AgentInfo
from trio_sagents.supervisor._journal import Journal, wall_clock
from trio_sagents.supervisor._lifetime import Lifetime
from trio_sagents.supervisor._receipts import Receipt, Receipts
from trio_sagents.supervisor._registry import Entry, Phase, end_entry
from trio_sagents.supervisor._services import Services
from trio_sagents.supervisor._status_board import StatusBoard
from trio_sagents.supervisor._turns import Turns


@attrs.define(eq=False)
class LiveAgent:
    """One agent, from the end of its boot until its last event; implements `RunningAgent`."""

    entry: Entry
    services: Services = attrs.field(repr=False)
    journal: Journal = attrs.field(repr=False)
    lifetime: Lifetime = attrs.field(repr=False)
    board: StatusBoard = attrs.field(repr=False)
    turns: Turns = attrs.field(repr=False)
    inbox: Inbox = attrs.field(repr=False)
    approvals: Approvals = attrs.field(repr=False)
    hooks: HookCaller = attrs.field(repr=False)

    # ── beginning

    async def start_middleware(self) -> None:
        """Run the start hooks of the middleware, and reject what was to be decided while the agent was away.

        Cancellation: what the hooks started is in the agent's nursery, and ends with it.
        """
        await self.hooks.pipeline.start(self.hooks.host)
        due = self.journal.state.interrupt
        if due is not None and due.expires_at is not None and due.expires_at <= wall_clock():
            await self.approvals.expire(due)

    def go_live(self) -> None:
        """Accept commands, and enrol whoever waits. No checkpoint: nobody sees half of it."""
        self.journal.open(self.picture)
        self.entry.live = self
        self.entry.has_booted = True
        self.entry.phase = Phase.LIVE
        self.lifetime.begin(self.board.status)
        _enrol_waiting(self)
        self.entry.become_ready()

    # ── commands

    async def post(self, posted: Posted, actor: Scope) -> Receipt:
        """Accept a message; see `Inbox.post`."""
        return await self.inbox.post(posted, actor)

    async def resume(self, decisions: Sequence[Decision], actor: Scope) -> Receipt:
        """Record decisions; see `Approvals.resume`."""
        return await self.approvals.resume(decisions, actor)

    async def dismiss(self, actor: Scope, interrupt_id: str | None = None) -> None:
        """Acknowledge a halt; see `Approvals.dismiss`."""
        await self.approvals.dismiss(actor, interrupt_id)

    async def add_rows(self, rows: Sequence[Row], actor: Scope) -> None:
        """Add rows to the transcript; see `Host.add_rows`."""
        self.touch()
        await self.hooks.host.add_rows(rows, actor)

    def publish(self, event: Event, channel: Channel) -> None:
        """Send an event of the host's to the subscribers."""
        self.journal.publish(event, channel)

    async def notify(self, middleware_id: str, message: Opaque) -> None:
        """Hand a message to a middleware; see `HookCaller.notify`."""
        await self.hooks.notify(middleware_id, message)

    async def cancel_turn(self, turn_id: str | None) -> TurnOutcome | None:
        """Cut the running turn, wait until it is settled, and return its outcome; None if nothing, or another turn, runs.

        A turn that a call has halted ends as interrupted: only people who may decide get past a halt.
        """
        self.touch()
        while (waits := self.journal.pending_wait) is not None and waits.by == "decision":
            await waits.write.wait_ended()  # a decision on its way may let the turn continue: then that is cut
        turn = self.turns.turn
        if turn is None or (turn_id is not None and turn.turn_id != turn_id):
            await trio.lowlevel.checkpoint()
            return None
        if turn.is_halted:
            turn.watch_stuck_tools()  # its calls are cut already, and a halt takes an acknowledgement, not a cancellation
        else:
            turn.cancel(CancelCause.USER)
        if is_inside(self.entry.task):
            await trio.lowlevel.checkpoint()  # the turn cannot end before its own tool has
            return turn.outcome
        await turn.ended.wait()
        return turn.outcome

    def touch(self) -> None:
        """Renew the idle clock."""
        self.lifetime.touch()

    def enrol(self, subscription: Subscription) -> None:
        """Let a subscription follow the agent."""
        self.journal.enrol(subscription)

    # ── looking

    @property
    def options(self) -> Options:
        """The host's own options of this session: `SessionOpts.app_internal`."""
        return self.inbox.blueprint.options

    @property
    def grace_period(self) -> float:
        """Seconds that the turn may take to finish if the sessions close, or drain."""
        return self.inbox.blueprint.policy.grace_period

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing runs, nothing runnable is queued, and nothing is being accepted."""
        return self.turns.is_at_rest and not self.lifetime.holds

    @property
    def is_running(self) -> bool:
        """Whether a turn runs."""
        return self.turns.turn is not None

    @property
    def queued(self) -> int:
        """How many accepted messages wait for a turn."""
        return len(self.journal.state.queue)

    @property
    def was_cut(self) -> bool:
        """Whether the last turn was cut."""
        return self.turns.was_cut

    def info(self, *, with_middleware: bool = False) -> AgentInfo:
        """Return a picture of the agent; with the settings of its middleware, if they are asked for."""
        state, lifetime, entry = self.journal.state, self.lifetime, self.entry
        return AgentInfo(
            entry.agent_id,
            entry.conversation_id,
            self.board.status,
            state.older + len(state.messages),
            len(state.queue),
            lifetime.viewers,
            state.interrupt,
            lifetime.started_at,
            lifetime.last_activity_at,
            self.hooks.summaries() if with_middleware else {},
            None if self.turns.turn is None else self.turns.turn.turn_id,
        )

    def picture(self, place: Cursor, replaces: Cursor | None) -> Snapshot:
        """Return the whole picture of the agent, now."""
        state, turn = self.journal.state, self.turns.turn
        progress = turn.work.progress if turn is not None else None
        draft = progress.draft if progress is not None else None
        noted = None if turn is None else turn.work.noted
        return Snapshot(
            self.board.status,
            state.interrupt if noted is None or state.waiting is not None else copy_of(noted),
            state.todos,
            None if draft is None else draft.picture(),
            () if progress is None else progress.pictures(),
            len(state.queue),
            place,
            replaces,
            None if turn is None else turn.work.turn_id,
        )

    def state(self) -> State:
        """Return the last committed state."""
        return self.journal.state.picture()

    @property
    def incarnation(self) -> str:
        """Names the agent among all that ever ran for its conversation."""
        return self.journal.identity.incarnation

    @property
    def is_remote(self) -> bool:
        """False: the agent runs here."""
        return False

    async def look(self) -> AgentInfo:
        """Return a picture of the agent, with the settings of its middleware."""
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self.info(with_middleware=True)

    async def read_state(self) -> State:
        """Return the last committed state."""
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self.state()

    async def wait_idle(self) -> None:
        """Wait until the agent is at rest; raise AgentNotRunning if it ended first."""
        while not self.is_at_rest:
            if self.entry.has_ended:
                raise self.entry.not_running()
            await self.journal.bell.wait()
        await trio.lowlevel.checkpoint()

    # ── its own task

    async def serve(self) -> None:
        """Answer what is queued until it is time to leave.

        Cancellation: the turn is settled by its own task; the caller ends the agent.
        """
        turns, entry = self.turns, self.entry
        while True:
            # No checkpoint from the look to the close: between the timer and this task others have run, so what counts is what
            # is there now, not what woke us (test_message_at_the_idle_deadline_is_answered).
            if turns.turn is None:
                if entry.is_leaving and not turns.has_last_turn:
                    return
                if turns.may_begin:
                    turns.has_last_turn = False
                    turns.begin()
                elif entry.is_leaving and not self.lifetime.holds:
                    return
                elif not entry.is_leaving and (reason := self._reason_to_leave()) is not None:
                    entry.phase = Phase.STOPPING
                    entry.reason = reason
                    return
            self._prepare_to_wait()
            try:
                await self.journal.bell.wait()
            except trio.Cancelled:
                if turns.turn is not None:
                    turns.turn.watch_stuck_tools()
                raise

    def _reason_to_leave(self) -> ShutdownReason | None:
        if self.lifetime.holds or not self.journal.is_at_rest:
            return None
        due = self.lifetime.due()
        return due if isinstance(due, ShutdownReason) else None

    def _prepare_to_wait(self) -> None:
        self.approvals.arm()
        if self.turns.turn is None:
            self.inbox.supersede_waiting()
        if self.is_at_rest and self.journal.is_at_rest:
            self.lifetime.arm()

    def wake(self) -> None:
        """Have the agent's task look whether it has work, or may leave."""
        self.journal.bell.ring()

    def finish_work(self) -> None:
        """The agent was asked to leave, with grace: what was accepted, and what no turn runs for yet, gets its turn."""
        self.turns.has_last_turn = self.turns.turn is None
        self.wake()

    # ── ending

    async def stop(self, grace_period: float) -> None:
        """Stop the agent; see `end_entry`."""
        await end_entry(self.entry, grace_period)

    async def wait_settled(self) -> None:
        """Wait, at most `settle_timeout`, until the last submitted write has ended."""
        if not self.journal.is_at_rest:
            # Cancellation: whoever cancelled the agent waits for this: the id must not be free while a write of it is pending.
            # One time for both: the end of a turn may have used some of it.
            deadline = min(trio.current_time() + self.inbox.blueprint.policy.settle_timeout, self.turns.patience)
            with trio.CancelScope(shield=True, deadline=deadline):
                await self.journal.wait_at_rest()

    def end(self, reason: ShutdownReason) -> None:
        """Publish the last event. Synchronous, and once."""
        self.journal.give_up()
        if self.turns.turn is not None:
            self.turns.turn.give_up()
        self.turns.tell_untold()
        status, interrupt = self.board.status, self.journal.state.interrupt
        restorable = status is Status.INTERRUPTED and interrupt is not None and interrupt.restorable
        shutdown = AgentShutdown(reason, status, self.queued, restorable, self.lifetime.last_activity_at, wall_clock())
        self.journal.publish_everywhere(shutdown)
        # Drop all references, so that the agent is freed with its last handle, without a garbage collection.
        self.journal.close()
        self.lifetime.end()
        self.approvals.stop()
        self.entry.shutdown_reason = reason
        accepted, queue = self.turns.receipts.accepted, self.journal.state.queue
        left = {message_id: accepted[message_id] for message_id in queue if message_id in accepted}
        self.services.remember_accepted(self.entry.conversation_id, left)
        self.turns.receipts.settle_all(Unanswered(reason))
        self.wake()


def compose_agent(
    entry: Entry,
    services: Services,
    blueprint: Blueprint,
    journal: Journal,
    nursery: trio.Nursery,
    posters: Mapping[Poster | None, Scope],
) -> LiveAgent:
    """Compose an agent.

    Args:
        entry: its reservation.
        services: the shared services.
        blueprint: the agent with the settings of its session.
        journal: the conversation, as it was loaded.
        nursery: the agent's own: its turns live there, and end with it.
        posters: the scopes of those who posted what an earlier agent accepted.
    """
    agent = blueprint.agent
    pipeline = Pipeline(agent, tools=agent.own_tools, conversation_id=entry.conversation_id, watch=services.watch)
    journal.transforms = tuple((id_of(middleware), middleware.transform_row) for middleware in pipeline.having("transform_row"))
    lifetime = Lifetime(journal, blueprint, services.timers, services.presence)
    board = StatusBoard(journal=journal, lifetime=lifetime)
    if journal.state.waiting is not None:
        board.change(Happening.RESTORED)
    receipts = Receipts()
    host = Host(entry, services, blueprint, journal, nursery)
    receipts.accepted.update(services.take_accepted(entry.conversation_id, journal.state.queue))
    turns = Turns(host, pipeline, board, receipts, posters)
    hooks = HookCaller(host, pipeline, lifetime)
    inbox = Inbox(entry, services, blueprint, board, turns, receipts)
    return LiveAgent(entry, services, journal, lifetime, board, turns, inbox, Approvals(turns, pipeline, hooks), hooks)


def _enrol_waiting(agent: LiveAgent) -> None:
    """Enrol whoever subscribed before the agent was there, and may see it."""
    services, entry = agent.services, agent.entry
    access = services.access
    waiting = tuple(services.subscriptions.get(entry.conversation_id, ()))
    told: Sequence[Envelope] = ()
    if agent.journal.state.is_restored:
        told = (agent.journal.feed("main").publish_before_snapshot(StateRestored()),)
    for subscription in waiting:
        if (access.is_synchronous or subscription.is_admitted) and access.sees(subscription.owner, entry.owner):
            agent.journal.enrol(subscription, told if subscription.channel == "main" else ())
    if not access.is_synchronous:
        for subscription in waiting:
            # Whoever does not own the agent is not told that it was there, whatever the authorizer says.
            if subscription.state == "pending" and access.sees(subscription.owner, entry.owner):
                feed = agent.journal.feed(subscription.channel)
                services.viewer_admission.agent_came(subscription, feed, services.enrol)

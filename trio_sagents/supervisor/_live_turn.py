"""A turn, as the agent layer sees it: what it may ask for, and what it keeps. Implements `agent.TurnContext`."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import attrs
import trio

from trio_sagents.agent import Progress
from trio_sagents.agent._progress import OpenCall
from trio_sagents.conversation import turn_steps
from trio_sagents.conversation.checkpoints import call_name, message_name
from trio_sagents.conversation.expiry import expiry_of
from trio_sagents.conversation.history import open_calls
from trio_sagents.conversation.outcomes import Totals, totals_of
from trio_sagents.conversation.results import asking_in
from trio_sagents.conversation.state import Step, Waiting
from trio_sagents.conversation.turn_steps import CutTurn, TurnRecord
from trio_sagents.data.events import DeltaMaker, Event, StatusChanged, ToolExecutionUpdated
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, PendingCall, copy_of, interrupt_kind
from trio_sagents.data.json import JSON, Options
from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.outcomes import Completed, Failed, Interrupted, TurnOutcome, Usage
from trio_sagents.data.records import Row
from trio_sagents.data.scopes import Scope
from trio_sagents.data.status import Status
from trio_sagents.data.todos import Todo
from trio_sagents.exceptions import PersistenceError
from trio_sagents.storage import PendingCommit
from trio_sagents.supervisor._drafts import Drafter
from trio_sagents.supervisor._host import Host
from trio_sagents.supervisor._journal import wall_clock
from trio_sagents.supervisor._receipts import Receipts


@attrs.define(eq=False)
class LiveTurn(Host):
    """What one turn may ask for, and what it has committed.

    A class of many methods, for `agent.TurnContext` lists everything that a turn may ask for.
    """

    record: TurnRecord = attrs.field(kw_only=True)
    receipts: Receipts = attrs.field(kw_only=True, repr=False)
    limiter: Callable[[], trio.CapacityLimiter] = attrs.field(kw_only=True, repr=False)
    on_end: Callable[[PersistenceError | None], None] = attrs.field(kw_only=True, repr=False)
    """Called in the continuation of the last commit, once, with the reason if the end of the turn is not stored."""
    continues: bool = False
    """Whether it continues after an interrupt that was decided."""
    given: Options = attrs.field(factory=dict, repr=False)
    """The host's own values of the post that began the turn."""
    message_ids: list[str] = attrs.field(factory=list)
    """The messages it took, and will answer; or what its receipts are kept under."""
    progress: Progress = attrs.field(factory=Progress)
    outcome: TurnOutcome | None = None
    """Decided when the write that makes it true is submitted."""
    last_write: PendingCommit | None = None
    is_ending: bool = False
    """Whether the write that ends the turn is on its way."""
    failed: PersistenceError | None = None
    """Why a step of this turn could not be saved; nothing of the turn is saved behind that step."""
    noted: Interrupt | None = None
    """The calls that already wait for people while other calls run, as people were shown them."""
    _asking: Message | None = None
    """The answer whose calls are open."""
    _shown: set[str] = attrs.field(factory=set)
    """The calls that were shown as waiting while others ran."""
    _drafts: Drafter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        interval = self.blueprint.policy.draft_interval
        self._drafts = Drafter(self.journal, self.services.timers, interval, self.record.actor, self.progress)

    def open_again(self, records: Mapping[str, JSON], used: Usage) -> None:
        """Continue where an interrupt left the turn.

        Args:
            records: by call id, the sub-agents that waited in the interrupt.
            used: what the turn had used; its answers say only what they cost themselves.
        """
        messages = self.journal.state.messages
        self.continues = True
        self._asking = asking_in(messages)
        for call in open_calls(messages):
            record = records.get(call.call_id)
            self.progress.open_calls[call.call_id] = OpenCall(call, "pending" if record is None else "interrupted", record=record)
        # The usage is zero if the interrupt was stored by a version that did not keep it.
        totals = totals_of(messages, self.turn_id, used if used != Usage() else None)
        self.progress.rounds, self.progress.calls, self.progress.usage = totals.rounds, totals.calls, totals.usage

    # ── what the agent layer asks for

    @property
    def scope(self) -> Scope:
        """The scope of the call that brought the turn's first message.

        The tools of the turn act for the person who asked, even if somebody else started the agent.
        """
        return self.record.actor

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self.record.turn_id

    @property
    def goes_on(self) -> bool:
        """Whether the turn continues after an interrupt that was decided."""
        return self.continues

    @property
    def max_message_bytes(self) -> int:
        """Bytes that an answer may have."""
        return self.blueprint.policy.max_message_bytes

    @property
    def max_tool_output_bytes(self) -> int:
        """Bytes that the model reads of one tool call."""
        return self.blueprint.policy.max_tool_output_bytes

    @property
    def threads(self) -> trio.CapacityLimiter:
        """For tools that are plain functions."""
        return self.limiter()

    @property
    def has_ended(self) -> bool:
        """Whether the turn has an outcome."""
        return self.outcome is not None

    @property
    def usage(self) -> Usage:
        """What the turn has used so far."""
        return self.progress.usage

    @property
    def usage_by_model(self) -> Mapping[str, Usage]:
        """By the name of the model: what the turn has used since it began or continued."""
        return self.progress.usage_by_model

    def add_usage(self, usage: Usage, model: str, unreported: Usage) -> None:
        """Count what was used, and an estimate of what the provider did not report."""
        self.progress.add_usage(usage, model, unreported)

    def messages(self) -> Sequence[Message]:
        """Return the history as the model is to read it."""
        return self.journal.state.messages_as_run()

    def decision_of(self, call_id: str) -> DecisionRecord | None:
        """Return what was decided about an open call."""
        return self.journal.state.decisions.get(call_id)

    def new_id(self) -> str:
        """Return an id that nothing in this conversation has."""
        return self.journal.ids.new()

    def is_used(self, made: str) -> bool:
        """Return whether a message or a call has that id."""
        return self.journal.ids.is_used(made)

    def knows_call(self, call_id: str) -> bool:
        """Return whether a call has that id."""
        return call_id in self.journal.ids.calls

    @property
    def has_older(self) -> bool:
        """Whether the conversation has messages before its window."""
        return self.journal.state.older > 0

    async def find_used(self, ids: Sequence[str]) -> AbstractSet[str]:
        """Return which of these ids a message or a call before the window has."""
        named = {name(made): made for made in ids for name in (message_name, call_name)}
        return {named[name] for name in await self.journal.recall(tuple(named))}

    def publish_debug(self, make: Callable[[], Event]) -> None:
        """Tell those who follow the debug channel an event that is costly to make; it is made only if somebody does."""
        self.journal.publish_debug(make)

    async def may_act(self) -> bool:
        """Return whether a tool may begin; waits only while that is not known."""
        leases = self.services.leases
        if leases is None or leases.may_act(self.entry):
            return True
        await leases.wait_known(self.entry)
        return leases.may_act(self.entry)

    def publish_delta(self, kind: DeltaMaker, text: str, message_id: str, part: int, offset: int) -> None:
        """Send a piece of the message being spoken to the subscribers."""
        self.journal.publish_delta(kind, text, message_id, part, offset, self.record.turn_id)

    def note_draft(self) -> None:
        """The message being spoken has grown, or is void."""
        self._drafts.note()

    @property
    def values(self) -> Options:
        """The host's own values of the post that began the turn."""
        return self.given

    async def update(
        self, todos: Sequence[Todo] | None, metadata: JSON | None, rows: Sequence[Row] = (), covers: str | None = None
    ) -> None:
        """Keep todos, metadata and rows.

        This is not a step of the turn: if it fails, the caller gets the error, and the steps of the turn remain.
        """
        await self._update(todos, metadata, self.record.actor, self.turn_id, rows, covers)

    def note_waiting(self) -> None:
        """Show the calls that wait for people while other calls run. They can be decided once the interrupt is stored."""
        waiting = self.progress.waiting()
        self.noted = Interrupt("", self.turn_id, waiting, interrupt_kind(waiting), restorable=False)
        self.publish(StatusChanged(Status.RUNNING, copy_of(self.noted), self.turn_id))
        for opened in self.progress.open_calls.values():
            if opened.call.call_id not in self._shown and any(call.call_id == opened.call.call_id for call in opened.requests):
                self._shown.add(opened.call.call_id)
                shown = attrs.evolve(_as_asked(opened), status="interrupted")
                self.publish(ToolExecutionUpdated(shown, "interrupted", self.turn_id))

    # ── what it keeps

    async def take(self, messages: Sequence[Message], *, is_first: bool = False) -> None:
        """Move messages from the queue into the history, in one commit."""
        self.message_ids.extend(message.message_id for message in messages)
        await self.submit(turn_steps.take(self.journal.moment(), messages, self.record, is_first=is_first)).wait()

    async def take_steered(self) -> None:
        """Take what people posted to steer this turn, with all messages before it."""
        # Without messages whose commit is pending: a loop may ask twice at the same time.
        queue = tuple(message for message in self.journal.state.queue.values() if message.message_id not in self.message_ids)
        steered = [index for index, message in enumerate(queue) if self._is_steered(message.message_id)]
        if steered:
            await self.take(queue[: steered[-1] + 1])
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    def _is_steered(self, message_id: str) -> bool:
        accepted = self.receipts.accepted.get(message_id)
        return accepted is not None and accepted.overlap == "steer"

    async def commit_answer(self, message: Message, usage: Usage, waiting: Mapping[str, PendingCall]) -> None:
        """Keep an answer that asks for tools."""
        step = turn_steps.answer(self.journal.moment(), message, usage, waiting, self.record)
        self.journal.check_room(step.messages[0])
        self._drafts.stop()
        # Open from the moment this is submitted: a turn that is cut now closes the calls behind this commit.
        self.progress.open(message.calls, waiting)
        self._asking = step.messages[0]
        await self.submit(step).wait()

    async def commit_result(self, call: ToolCall, result: ToolResult, expands: Sequence[Message] = ()) -> None:
        """Keep the result of one call, with the messages that it brings into the turn."""
        step = turn_steps.result(self.journal.moment(), call, result, self._asking, self.record, inner=self.progress.inner, expands=expands)
        self.journal.check_room(step.messages[0])
        self.progress.open_calls.pop(call.call_id, None)
        await self.submit(step).wait()

    async def expand(self) -> None:
        """Take into the history the messages that the last results bring."""
        step = turn_steps.expand(self.journal.moment(), self.record)
        if step is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        for message in step.messages:
            self.journal.check_room(message)
        await self.submit(step).wait()

    def interrupt_of(self, waiting: Sequence[OpenCall]) -> Interrupted:
        """Return how the turn ends if these calls wait for people."""
        interrupt_id = self.new_id()
        calls = [attrs.evolve(request, interrupt_id=interrupt_id) for opened in waiting for request in opened.requests]
        now = wall_clock()
        expires_at = expiry_of(calls, now)
        kind, asked_by = interrupt_kind(calls), self.services.access.actor_on_record(self.record.actor, self.conversation_id)
        return Interrupted(Interrupt(interrupt_id, self.turn_id, calls, kind, expires_at=expires_at, since=now, asked_by=asked_by))

    async def interrupt(self, outcome: Interrupted, waiting: Sequence[OpenCall]) -> None:
        """Keep what the turn waits for. From this call on the turn is interrupted, even if it is cancelled."""
        suspended = {opened.call.call_id: opened.record for opened in waiting if opened.record is not None}
        waits = Waiting(outcome.interrupt, suspended, self.progress.usage)
        self.journal.check_waiting_room(waits)
        step = turn_steps.wait(self.journal.moment(), waits, [_as_asked(opened) for opened in waiting], self._asking, self.record)
        self.outcome = outcome
        await self.submit(step, ends=True).wait()

    async def complete(self, message: Message, usage: Usage, value: object) -> Completed:
        """Keep the last answer. From this call on the turn is completed, even if it is cancelled."""
        step = turn_steps.complete(self.journal.moment(), message, usage, self._totals, self.record)
        kept = step.messages[-1]
        self.journal.check_room(kept)
        self._drafts.stop()
        self.progress.draft = None
        outcome = self.outcome = Completed(kept, self.progress.usage, value)
        await self.submit(step, ends=True).wait()
        return outcome

    @property
    def _totals(self) -> Totals:
        """What the turn did so far."""
        return Totals(self.progress.rounds, self.progress.calls, self.progress.usage)

    def close(self, outcome: TurnOutcome) -> None:
        """Submit what closes the turn as it is now; `outcome` is a cancellation or a failure."""
        self._drafts.stop()
        self.outcome = outcome
        calls, draft = self.progress.open_calls.values(), self.progress.draft
        cut_turn = CutTurn(
            [(opened.call, opened.result) for opened in calls if opened.result],
            [(opened.call, opened.known) for opened in calls if opened.result is None],
            self._asking,
            None if draft is None else draft.message("cancelled"),
            self._totals,
            self.progress.inner,
        )
        self.submit(turn_steps.cut(self.journal.moment(), outcome, cut_turn, self.record), ends=True)
        self.progress.open_calls = {}

    def stop_drafts(self) -> None:
        """The turn has come to its end: no draft is saved any more."""
        self._drafts.stop()

    def submit(self, step: Step, *, ends: bool = False) -> PendingCommit:
        """Submit a step of the turn; the last one ends it."""

        def then(error: PersistenceError | None) -> None:
            if error is not None:
                self.failed = error
                if ends:
                    self.outcome = Failed(error)
            if ends:
                self.is_ending = False
                self.on_end(error)

        self.last_write = self.journal.submit(step, then)
        self.is_ending = ends
        return self.last_write


def _as_asked(opened: OpenCall) -> ToolCall:
    """Return a call with the arguments that people are asked about: after an edit, others than those of the model."""
    asked = next((request for request in opened.requests if request.call_id == opened.call.call_id), None)
    return opened.call if asked is None else attrs.evolve(opened.call, arguments=asked.arguments)

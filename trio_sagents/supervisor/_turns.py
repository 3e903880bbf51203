"""One turn of a live agent: the books side of `agent.run_turn`, and the settling of a turn that was cut.

Whatever ends it, a turn ends once: with one outcome, in the continuation of its last commit. A turn whose model and tools had
finished is completed, even where a cancel came during that commit.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, assert_never

import attrs
import trio

from trio_sagents._trio.groups import leaves, must_exit, split
from trio_sagents._trio.timers import Timer
from trio_sagents.agent import EXPECTED, AsyncFunction, Progress, run_turn
from trio_sagents.agent._progress import OpenCall
from trio_sagents.data.cursors import Channel
from trio_sagents.data.errors import public_text
from trio_sagents.data.events import (
    DisplayMessageSaved,
    DisplayMessageUpdated,
    Event,
    MessageCompleted,
    StatusChanged,
    TodosUpdated,
    ToolExecutionUpdated,
    ToolIgnoresCancellation,
)
from trio_sagents.data.history import open_calls, with_gated
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, PendingCall, interrupt_kind
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, TurnOutcome, Unanswered, Usage
from trio_sagents.data.records import Saved
from trio_sagents.data.rows import closing_rows, closing_updates
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import State
from trio_sagents.data.status import CancelCause, Status
from trio_sagents.data.todos import Todo
from trio_sagents.exceptions import PersistenceError
from trio_sagents.storage import PendingCommit
from trio_sagents.supervisor._change import NO_CHANGE, Change
from trio_sagents.supervisor._drafts import Drafter
from trio_sagents.supervisor._expiry import expiry_of
from trio_sagents.supervisor._home import lifecycle_of
from trio_sagents.supervisor._runtime import wall_clock
from trio_sagents.supervisor._turn_changes import TurnBooks, usage_of, with_usage

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


@attrs.define(eq=False)
class Turn:
    """A turn that runs; implements `agent.TurnContext`."""

    live: "LiveAgent" = attrs.field(repr=False)
    turn_id: str
    actor: Scope = attrs.field(repr=False)
    """Of the call that brought its first message."""
    goes_on: bool = False
    """Whether it goes on behind an interrupt that was answered."""
    message_ids: list[str] = attrs.field(factory=list)
    """The messages it took, and will answer; or what its receipts are kept under."""
    progress: Progress = attrs.field(factory=Progress)
    cancel_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around the turn alone: the agent survives it."""
    cause: CancelCause | None = None
    """Why it is being cancelled; the first cause wins."""
    outcome: TurnOutcome | None = None
    """Decided when the write that makes it true is submitted."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    settle_deadline: float = math.inf
    """Until when its end may take to be saved, once it has come to its end."""
    _last_write: PendingCommit | None = None
    _failed: PersistenceError | None = None
    """Why a step of this turn could not be saved; nothing of it is saved behind that."""
    _asking: Message | None = None
    """The answer whose calls are open."""
    _shown_waiting: set[str] = attrs.field(factory=set)
    """The calls that were shown as waiting while others ran."""
    _is_watched: bool = False
    _watch: Timer | None = None
    _drafts: Drafter = attrs.field(init=False)
    _books: TurnBooks = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._drafts = Drafter(self.live, self.actor, self.progress)
        self._books = TurnBooks(self.live.ledger, self.turn_id, self.actor)

    def open_again(self, records: Mapping[str, JSON], used: Usage) -> None:
        """Go on where an interrupt left the turn.

        Args:
            records: by call id, the sub-agents that waited in it.
            used: what it had used: its answers say only what they cost themselves, not what sub-agents and middleware used.
        """
        messages = self.live.ledger.messages
        self.goes_on = True
        self._asking = next((one for one in reversed(messages) if one.role == "assistant"), None)
        for call in open_calls(messages):
            record = records.get(call.call_id)
            self.progress.open_calls[call.call_id] = OpenCall(call, "pending" if record is None else "interrupted", record=record)
        for message in reversed(messages):
            if message.turn_id != self.turn_id:
                break
            if message.role == "assistant":
                self.progress.rounds += 1
                self.progress.calls += len(message.calls)
                self.progress.usage += usage_of(message)
        if used != Usage():  # else it was stored before that was kept
            self.progress.usage = used

    # ── what the turn asks for (agent.TurnContext)

    @property
    def conversation_id(self) -> str:
        return self.live.ledger.conversation_id

    @property
    def scope(self) -> Scope:
        return self.live.blueprint.scope

    @property
    def max_message_bytes(self) -> int:
        return self.live.policy.max_message_bytes

    @property
    def max_tool_output_bytes(self) -> int:
        return self.live.policy.max_tool_output_bytes

    @property
    def threads(self) -> trio.CapacityLimiter:
        return self.live.threads

    @property
    def agent_id(self) -> str:
        return self.live.entry.agent_id

    @property
    def has_ended(self) -> bool:
        return self.outcome is not None

    def messages(self) -> Sequence[Message]:
        return self.live.ledger.messages_as_run()

    def decision_of(self, call_id: str) -> DecisionRecord | None:
        return self.live.ledger.decisions.get(call_id)

    async def update(self, todos: Sequence[Todo] | None, metadata: JSON | None) -> None:
        change = Change(lifecycle=lifecycle_of(metadata), actor=self.actor, todos=todos, metadata=metadata)

        def then(_saved: Saved | None, error: PersistenceError | None) -> None:
            # Not a step of the turn: where it fails whoever asked for it hears that, and the steps on record still stand.
            if error is not None:
                self.live.write_failed(error)
            elif todos is not None:
                self.publish(TodosUpdated(tuple(todos), self.turn_id))

        await self.live.ledger.submit(change, then).wait()

    @property
    def usage(self) -> Usage:
        return self.progress.usage

    def add_usage(self, usage: Usage) -> None:
        self.progress.usage += usage

    def start_soon(self, function: AsyncFunction, *args: Opaque) -> None:
        self.live.home.start_soon(function, *args)

    def state(self) -> State:
        return self.live.ledger.state()

    def publish(self, event: Event, channel: Channel = "main") -> None:
        self.live.publish(event, channel)

    def note_draft(self) -> None:
        self._drafts.note()

    def new_id(self) -> str:
        return self.live.ledger.new_id()

    def is_used(self, made: str) -> bool:
        return self.live.ledger.is_used(made)

    def knows_call(self, call_id: str) -> bool:
        return call_id in self.live.ledger.ids

    def note_waiting(self) -> None:
        waiting = self.progress.waiting()
        interrupt = Interrupt("", self.turn_id, waiting, interrupt_kind(waiting), restorable=False)
        self.publish(StatusChanged(Status.RUNNING, interrupt, self.turn_id))
        for opened in self.progress.open_calls.values():
            call = opened.requests[0] if opened.requests and opened.requests[0].call_id == opened.call.call_id else None
            if call is not None and call.call_id not in self._shown_waiting:
                self._shown_waiting.add(call.call_id)
                shown = ToolCall(call.call_id, call.name, call.arguments, "interrupted")
                self.publish(ToolExecutionUpdated(shown, "interrupted", self.turn_id))

    async def take_steered(self) -> None:
        # Without those whose commit is on its way: a loop may ask twice at once.
        queue = tuple(one for one in self.live.ledger.queue.values() if one.message_id not in self.message_ids)
        steered = [index for index, one in enumerate(queue) if self._is_steered(one.message_id)]
        if steered:
            await self._take(queue[: steered[-1] + 1])
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    def _is_steered(self, message_id: str) -> bool:
        accepted = self.live.intake.accepted.get(message_id)
        return accepted is not None and accepted.overlap == "steer"

    async def commit_answer(self, message: Message, usage: Usage, waiting: Mapping[str, PendingCall]) -> None:
        message = with_gated(with_usage(message, usage), waiting)
        self.live.ledger.check_room(message)
        self._drafts.stop()
        # Open from the moment this is submitted: a turn that is cut now closes them behind this commit.
        self.progress.open(message.calls, waiting)
        self._asking = message
        await self._submit(*self._books.answer(message, usage, waiting)).wait()

    async def commit_result(self, call: ToolCall, result: ToolResult) -> None:
        message = self._books.result_message(result)
        self.live.ledger.check_room(message)
        self.progress.open_calls.pop(call.call_id, None)
        await self._submit(*self._books.results(((call, message, result),), self._asking, "on_step")).wait()

    def may_act(self) -> bool:
        leases = self.live.runtime.leases
        return leases is None or leases.may_act(self.live.entry)

    def interrupt_of(self, waiting: Sequence[OpenCall]) -> Interrupted:
        interrupt_id = self.new_id()
        calls = [attrs.evolve(one, interrupt_id=interrupt_id) for opened in waiting for one in opened.requests]
        return Interrupted(Interrupt(interrupt_id, self.turn_id, calls, interrupt_kind(calls), expires_at=expiry_of(calls, wall_clock())))

    async def interrupt(self, outcome: Interrupted, waiting: Sequence[OpenCall]) -> None:
        change, events = self._books.waiting(waiting, self._asking)
        suspended = {one.call.call_id: one.record for one in waiting if one.record is not None}
        change = attrs.evolve(change, interrupt=outcome.interrupt, suspended=suspended, used=self.progress.usage, draft=None)
        self.live.ledger.check_suspended(outcome.interrupt, suspended)
        self.outcome = outcome
        await self._submit(change, events, ends=True).wait()

    async def complete(self, message: Message, usage: Usage, value: object) -> Completed:
        message = with_usage(message, usage)
        self.live.ledger.check_room(message)
        self._drafts.stop()
        self.progress.draft = None
        outcome = self.outcome = Completed(message, self.progress.usage, value)
        await self._submit(*self._books.completion(message, usage), ends=True).wait()
        return outcome

    # ── running and settling

    async def run(self) -> None:
        """Run to the end and settle; a task in the agent's nursery."""
        error: BaseException | None = None
        onward: BaseException | None = None
        try:
            try:
                with self.cancel_scope:
                    if not self.goes_on:
                        await self._take(tuple(self.live.ledger.queue.values()))
                    await run_turn(self.live.pipeline, self)
            except BaseException as exc:  # noqa: ASYNC103, BLE001  # settled below, then raised again unless it is an expected outcome
                error, onward = split(exc)
                if error is not None and all(isinstance(leaf, EXPECTED) for leaf in leaves(error)):
                    error = leaves(error)[0]  # of several tools that could not be kept, the first tells enough
            # Cancellation: the host's, a stop's or the turn's own; what was said and done is kept all the same, in bounded time.
            self.settle_deadline = trio.current_time() + self.live.policy.settle_timeout
            with trio.CancelScope(shield=True, deadline=self.settle_deadline):
                await self._settle(error, onward)
            if onward is not None:
                raise onward
            if error is not None and not isinstance(error, EXPECTED):
                raise error
        finally:
            del error, onward  # they hold this frame, which holds them

    def cancel(self, cause: CancelCause) -> None:
        """Cut the turn; the agent survives. The first cause wins."""
        self.cause = self.cause or cause
        if not self.cancel_scope.cancel_called:
            self.cancel_scope.cancel()
            self.watch_stuck_tools()

    def watch_stuck_tools(self) -> None:
        """Name the tools that still run `cancel_grace` after the turn was cut."""
        if not self._is_watched:
            self._is_watched = True
            deadline = trio.current_time() + self.live.policy.cancel_grace
            self._watch = self.live.runtime.timers.call_at(deadline, self._name_stuck_tools)

    def _name_stuck_tools(self) -> None:
        # The end of the turn takes its timer away.
        if not self.ended.is_set():  # pragma: no branch
            for one in self.progress.open_calls.values():
                if one.status == "executing" and not one.in_thread and one.result is None:
                    self.publish(ToolIgnoresCancellation(attrs.evolve(one.call, status="executing"), self.turn_id))

    def abandon(self) -> None:
        """The store did not answer within `settle_timeout`, and the agent must end: nobody knows whether the turn is on record."""
        # A turn that has ended is its agent's no more.
        if not self.ended.is_set():  # pragma: no branch
            error = PersistenceError(f"the store did not answer while a turn of conversation {self.conversation_id!r} was settled")
            self.outcome = Failed(error)
            self._finish(unsaved=error)

    async def _settle(self, error: BaseException | None, onward: BaseException | None) -> None:
        self._drafts.stop()
        if self.outcome is None:
            if self._failed is not None:
                # Memory is back at the last commit: what would close the turn closes steps that do not exist.
                self.outcome = Failed(self._failed)
                self._finish(unsaved=self._failed)
                return
            if must_exit(onward):
                self.cause = self.cause or CancelCause.HOST_FAILED
            self.close(error)
        # A turn has an outcome by its last write alone.
        if self._last_write is not None:  # pragma: no branch
            await self._last_write.wait_ended()

    def close(self, error: BaseException | None = None) -> None:
        """Submit what closes the turn as it is now: as cut, or as failed by `error`."""
        self.outcome = self._outcome_of(error)
        change, events = self._books.closing(self.outcome, self.progress, self._asking)
        self.progress.open_calls = {}
        self._submit(change, events, ends=True)

    def _outcome_of(self, error: BaseException | None) -> TurnOutcome:
        if error is None:
            return Cancelled(self.cause or self.live.entry.cause or CancelCause.HOST_CANCELLED)
        return Failed(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    # ── the books

    async def _take(self, messages: Sequence[Message]) -> None:
        """Move messages from the queue into the history, in one commit."""
        ledger = self.live.ledger
        ids = [message.message_id for message in messages]
        self.message_ids.extend(ids)
        closing = ledger.closing() if self.live.needs_repair else ()
        taken = tuple(attrs.evolve(message, turn_id=self.turn_id) for message in messages)
        change = Change(
            lifecycle="on_step",
            actor=self.actor,
            messages=(*closing, *taken),
            taken=ids,
            draft=None if closing else NO_CHANGE,
            shown=closing,
            rows=closing_rows(ledger.messages_as_run(), closing, wall_clock()),
            tool_updates=closing_updates(closing),
            standing={} if closing and ledger.taken else None,
        )
        events = tuple(MessageCompleted(message, message.turn_id) for message in change.messages)
        await self._submit(change, events).wait()
        self.live.needs_repair = False

    def _submit(self, change: Change, events: Sequence[Event], *, ends: bool = False) -> PendingCommit:
        def then(saved: Saved | None, error: PersistenceError | None) -> None:
            live = self.live
            if saved is None:
                assert error is not None
                self._failed = error
                live.write_failed(error)
                if ends:
                    self.outcome = Failed(error)
                    self._finish(unsaved=error)
                return
            for row in saved.new:
                live.publish(DisplayMessageSaved(row))
            for row in saved.changed:
                live.publish(DisplayMessageUpdated(row))
            for event in events:
                live.publish(event)
            if ends:
                self._finish()

        self._last_write = self.live.ledger.submit(change, then)
        return self._last_write

    def _finish(self, unsaved: PersistenceError | None = None) -> None:
        """The one end of the turn. Synchronous: outcome, status, events and answers are one step."""
        if self.ended.is_set():
            return
        outcome = self.outcome
        assert outcome is not None
        self.progress.draft = None
        self.progress.open_calls = {}
        self.ended.set()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self.live.pipeline.turn_ended(outcome, self, self.turn_id)
        status, data = _status_after(outcome)
        self.live.turn_ended(self, outcome, status, data, unsaved)


def _status_after(outcome: TurnOutcome) -> tuple[Status, str | None]:
    match outcome:
        case Completed() | Unanswered():
            return Status.IDLE, None
        case Interrupted():
            return Status.INTERRUPTED, None
        case Cancelled():
            return Status.CANCELLED, None
        case Failed(error=error):
            return Status.ERROR, public_text(error)
        case _:
            assert_never(outcome)

"""One turn of a live agent: the books side of `agent.run_turn`, and the settling of a turn that was cut.

Whatever ends it, a turn ends once: with one outcome, in the continuation of its last commit. A turn whose model and tools had
finished is completed, even where a cancel came during that commit.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, assert_never

import attrs
import trio

from trio_sagents._trio.groups import leaves, must_exit, split
from trio_sagents._trio.timers import Timer
from trio_sagents.abc import Scope
from trio_sagents.agent import Progress, run_turn
from trio_sagents.agent._progress import OpenCall
from trio_sagents.data.cursors import Channel
from trio_sagents.data.errors import public_text
from trio_sagents.data.events import (
    DisplayMessageSaved,
    DisplayMessageUpdated,
    Event,
    MessageCompleted,
    ModelError,
    TokenUsage,
    ToolExecutionUpdated,
    ToolIgnoresCancellation,
)
from trio_sagents.data.history import closing_messages
from trio_sagents.data.messages import Message, StopReason, ToolCall, ToolResult, ToolStatus
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, TurnOutcome, Unanswered, Usage
from trio_sagents.data.records import DisplayMessage, Lifecycle, Saved, ToolUpdate
from trio_sagents.data.rows import call_row, rows_of
from trio_sagents.data.state import State
from trio_sagents.data.status import CancelCause, Status
from trio_sagents.exceptions import LimitExceeded, ModelFailed, PersistenceError
from trio_sagents.supervisor._drafts import Drafter
from trio_sagents.supervisor._ledger import NO_CHANGE, Change
from trio_sagents.supervisor._runtime import wall_clock
from trio_sagents.supervisor._writer import Write

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent

_EXPECTED: Final = (ModelFailed, LimitExceeded, PersistenceError)
"""What a turn may fail with; anything else crashes the agent."""


@attrs.define(eq=False)
class Turn:
    """A turn that runs; implements `agent.TurnContext`."""

    live: "LiveAgent"
    turn_id: str
    actor: Scope = attrs.field(repr=False)
    """Of the call that brought its first message."""
    message_ids: list[str] = attrs.field(factory=list)
    """The messages it took, and will answer."""
    progress: Progress = attrs.field(factory=Progress)
    cancel_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around the turn alone: the agent survives it."""
    cause: CancelCause | None = None
    """Why it is being cancelled; the first cause wins."""
    outcome: TurnOutcome | None = None
    """Decided when the write that makes it true is submitted."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    _last_write: Write | None = None
    _failed: PersistenceError | None = None
    """Why a step of this turn could not be saved; nothing of it is saved behind that."""
    _asking: Message | None = None
    """The answer whose calls are open."""
    _is_watched: bool = False
    _watch: Timer | None = None
    _drafts: Drafter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._drafts = Drafter(self.live, self.actor, self.progress)

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

    def messages(self) -> Sequence[Message]:
        return tuple(self.live.ledger.messages)

    def state(self) -> State:
        return self.live.ledger.state()

    def publish(self, event: Event, channel: Channel = "main") -> None:
        self.live.publish(event, channel)

    def note_draft(self) -> None:
        self._drafts.note()

    def new_id(self) -> str:
        return self.live.ledger.new_id()

    def knows_call(self, call_id: str) -> bool:
        return call_id in self.live.ledger.ids

    async def take_steered(self) -> None:
        queue = tuple(self.live.ledger.queue.values())
        steered = [index for index, one in enumerate(queue) if self._is_steered(one.message_id)]
        if steered:
            await self._take(queue[: steered[-1] + 1])
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    def _is_steered(self, message_id: str) -> bool:
        accepted = self.live.intake.accepted.get(message_id)
        return accepted is not None and accepted.overlap == "steer"

    async def commit_answer(self, message: Message, usage: Usage) -> None:
        message = self._with_usage(message, usage)
        self.live.ledger.check_room(message)
        self._drafts.stop()
        # Open from the moment this is submitted: a turn that is cut now closes them behind this commit.
        self.progress.draft = None
        self.progress.calls += len(message.calls)
        self.progress.open_calls = {call.call_id: OpenCall(call) for call in message.calls}
        self._asking = message
        now = wall_clock()
        updates = tuple(
            ToolUpdate("executing", {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}) for call in message.calls
        )
        change = Change(
            lifecycle="on_step",
            actor=self.actor,
            messages=(message,),
            draft=None,
            shown=(message,),
            rows=rows_of(message, now, "executing"),
            tool_updates=updates,
        )
        await self._submit(change, (MessageCompleted(message, self.turn_id), *self._usage_event(message, usage))).wait()

    async def commit_result(self, call: ToolCall, result: ToolResult) -> None:
        message = Message(self.new_id(), "tool", (result,), None, self.turn_id)
        self.live.ledger.check_room(message)
        self.progress.open_calls.pop(call.call_id, None)
        change, events = self._results(((call, message, result),), "on_step")
        await self._submit(change, events).wait()

    async def complete(self, message: Message, usage: Usage) -> Completed:
        message = self._with_usage(message, usage)
        self.live.ledger.check_room(message)
        self._drafts.stop()
        self.progress.draft = None
        outcome = self.outcome = Completed(message, self.progress.usage)
        change = Change(
            lifecycle="on_completion",
            actor=self.actor,
            messages=(message,),
            draft=None,
            shown=(message,),
            rows=rows_of(message, wall_clock()),
        )
        events = (MessageCompleted(message, self.turn_id), *self._usage_event(message, usage))
        await self._submit(change, events, ends=True).wait()
        return outcome

    # ── running and settling

    async def run(self) -> None:
        """Run to the end and settle; a task in the agent's nursery."""
        error: BaseException | None = None
        onward: BaseException | None = None
        try:
            try:
                with self.cancel_scope:
                    await self._take(tuple(self.live.ledger.queue.values()))
                    await run_turn(self.live.blueprint.agent, self)
            except BaseException as exc:  # noqa: ASYNC103, BLE001  # settled below, then raised again unless it is an expected outcome
                error, onward = split(exc)
                if error is not None and all(isinstance(leaf, _EXPECTED) for leaf in leaves(error)):
                    error = leaves(error)[0]  # of several tools that could not be kept, the first tells enough
            # Cancellation: the host's, a stop's or the turn's own; what was said and done is kept all the same, in bounded time.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.live.policy.settle_timeout):
                await self._settle(error, onward)
            if onward is not None:
                raise onward
            if error is not None and not isinstance(error, _EXPECTED):
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
        if not self.ended.is_set():
            for one in self.progress.open_calls.values():
                if one.status == "executing" and not one.in_thread and one.result is None:
                    self.publish(ToolIgnoresCancellation(attrs.evolve(one.call, status="executing"), self.turn_id))

    def abandon(self) -> None:
        """The store did not answer within `settle_timeout`, and the agent must end: nobody knows whether the turn is on record."""
        if not self.ended.is_set():
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
            self.outcome = self._outcome_of(error)
            change, events = self._closing(self.outcome)
            self._submit(change, events, ends=True)
        if self._last_write is not None:
            await self._last_write.wait_ended()

    def _outcome_of(self, error: BaseException | None) -> TurnOutcome:
        if error is None:
            return Cancelled(self.cause or self.live.entry.cause or CancelCause.HOST_CANCELLED)
        if isinstance(error, ModelFailed):
            self.publish(ModelError(error, self.turn_id), "debug")
        return Failed(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _closing(self, outcome: TurnOutcome) -> tuple[Change, Sequence[Event]]:
        """Return the one commit that closes a cut turn: returned results, open calls, the text so far with its mark."""
        stop_reason: StopReason = "cancelled" if isinstance(outcome, Cancelled) else "stream_error"
        lifecycle: Lifecycle = "on_cancel" if isinstance(outcome, Cancelled) else "on_error"
        opened = self.progress.open_calls
        returned = [
            (one.call, Message(self.new_id(), "tool", (one.result,), None, self.turn_id), one.result)
            for one in opened.values()
            if one.result
        ]
        cut: list[tuple[ToolCall, ToolStatus]] = [(one.call, one.known) for one in opened.values() if one.result is None]
        draft = self.progress.draft
        closing = closing_messages(
            cut,
            None if draft is None else draft.message(stop_reason),
            turn_id=self.turn_id,
            stop_reason=stop_reason,
            cause=outcome.cause if isinstance(outcome, Cancelled) else None,
            message_ids=self.live.ledger.id_source(),
        )
        fitted = self.live.ledger.fitted((*(message for _, message, _ in returned), *closing))
        returned = [(call, message, message.results[0]) for (call, _, _), message in zip(returned, fitted, strict=False)]
        closing = fitted[len(returned) :]
        calls = {one.call.call_id: one.call for one in opened.values()}
        closed = [(calls[message.results[0].call_id], message, message.results[0]) for message in closing[:-1]]
        change, events = self._results((*returned, *closed), lifecycle)
        answer = self._with_usage(closing[-1], self.progress.usage)
        change = attrs.evolve(
            change,
            messages=(*change.messages, answer),
            draft=None,
            shown=(*change.shown, answer),
            rows=(*change.rows, *rows_of(answer, wall_clock())),
        )
        self.progress.open_calls = {}
        return change, (*events, MessageCompleted(answer, self.turn_id))

    # ── the books

    async def _take(self, messages: Sequence[Message]) -> None:
        """Move messages from the queue into the history, in one commit."""
        ledger = self.live.ledger
        ids = [message.message_id for message in messages]
        self.message_ids.extend(ids)
        closing = ledger.closing() if self.live.needs_repair else ()
        taken = tuple(attrs.evolve(message, turn_id=self.turn_id) for message in messages)
        now = wall_clock()
        change = Change(
            lifecycle="on_step",
            actor=self.actor,
            messages=(*closing, *taken),
            taken=ids,
            draft=None if closing else NO_CHANGE,
            shown=closing,
            rows=tuple(row for message in closing for row in rows_of(message, now)),
        )
        events = tuple(MessageCompleted(message, message.turn_id) for message in change.messages)
        await self._submit(change, events).wait()
        self.live.needs_repair = False

    def _results(self, results: Sequence[tuple[ToolCall, Message, ToolResult]], lifecycle: Lifecycle) -> tuple[Change, Sequence[Event]]:
        now = wall_clock()
        messages = tuple(message for _, message, _ in results)
        rows: list[DisplayMessage] = []
        updates: list[ToolUpdate] = []
        events: list[Event] = []
        for call, message, result in results:
            if self._asking is not None:
                rows.append(call_row(call, self._asking, result.status, now))
            rows.extend(rows_of(message, now))
            said = "error" if result.is_error else "result"
            updates.append(ToolUpdate(result.status, {"call_id": call.call_id, "name": call.name, said: result.content}))
            output, error = (None, result.content) if result.is_error else (result.content, None)
            ended = attrs.evolve(call, status=result.status)
            events.append(ToolExecutionUpdated(ended, result.status, self.turn_id, output, error))
            events.append(MessageCompleted(message, self.turn_id))
        change = Change(
            lifecycle=lifecycle, actor=self.actor, messages=messages, shown=messages, rows=tuple(rows), tool_updates=tuple(updates)
        )
        return change, events

    def _submit(self, change: Change, events: Sequence[Event], *, ends: bool = False) -> Write:
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
        status, data = _status_after(outcome)
        self.live.turn_ended(self, outcome, status, data, unsaved)

    # ── usage

    def _with_usage(self, message: Message, usage: Usage) -> Message:
        if usage == Usage():
            return message
        return attrs.evolve(message, metadata={**message.metadata, "usage": attrs.asdict(usage)})

    def _usage_event(self, message: Message, usage: Usage) -> Sequence[Event]:
        return () if usage == Usage() else (TokenUsage(usage, message.message_id, self.turn_id),)


def _status_after(outcome: TurnOutcome) -> tuple[Status, str | None]:
    match outcome:
        case Completed():
            return Status.IDLE, None
        case Interrupted():
            return Status.INTERRUPTED, None
        case Cancelled():
            return Status.CANCELLED, None
        case Failed(error=error):
            return Status.ERROR, public_text(error)
        case Unanswered():
            return Status.IDLE, None
        case _:
            assert_never(outcome)

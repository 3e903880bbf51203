"""A conversation whose older messages leave memory, beside a plain model that never forgets anything.

The model has a list of all messages, a dict of all digests, and a dict of all decisions. Whatever is said, decided, summed up, refused by
the store or loaded again: memory has the end of the list, a load gives what memory has, and of everything before that the store's index
says what the model says.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.conversation.making import NOW
from trio_sagents.conversation import turn_steps
from trio_sagents.conversation.checkpoints import Past, call_name, leading, message_name, recalled
from trio_sagents.conversation.codec import restored
from trio_sagents.conversation.decisions import Verdict, close_waiting, decide, undecided, unknown_calls
from trio_sagents.conversation.history import is_cut, open_calls
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits, message_bytes
from trio_sagents.conversation.messages_in import Duplicate, Others, Place, Posted, Refused, Situation, accept, examine, queued_message
from trio_sagents.conversation.outcomes import Totals, outcome_of_message, outcome_of_past
from trio_sagents.conversation.pending import Encoded, Pending
from trio_sagents.conversation.results import asking_in
from trio_sagents.conversation.state import ConversationState, Moment, Step, Waiting
from trio_sagents.conversation.turn_steps import TurnRecord
from trio_sagents.data.config import SessionPolicy
from trio_sagents.data.decisions import Approve, Decision, Reject
from trio_sagents.data.interrupts import Interrupt, interrupt_kind, pending
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import Message, TextPart, ToolCall, ToolResult
from trio_sagents.data.outcomes import Completed, Usage
from trio_sagents.data.records import Checkpoint, Conversation, Recalled
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import AlreadyDecided, LimitExceeded, MessageConflict

POLICY: Final = SessionPolicy()
NOBODY: Final = Others(is_running=False, accepting=0, changes_waiting=False)
ELSEWHERE: Final = Others(is_running=True, accepting=0, changes_waiting=False)
AT_REST: Final = Situation(True, {}, False)
LIMITS: Final = {
    "messages": Limits(10**6, 0, 6, keeps_windows=True),
    "bytes": Limits(10**6, 0, window_bytes=2500, keeps_windows=True),
    "state": Limits(4000, 10**6, keeps_windows=True),
    "summaries": Limits(10**6, 0, keeps_windows=True),
    "none": Limits(10**6, 0, 6),
}


@attrs.define
class Disk:
    """A store, in plain words: all records, and what the last checkpoint said."""

    revision: int = 0
    messages: list[JSON] = attrs.field(factory=list)
    queue: dict[str, JSON] = attrs.field(factory=dict)
    state: dict[str, Any] = attrs.field(factory=dict)
    checkpoint: Checkpoint = attrs.field(factory=lambda: Checkpoint(0, 0))
    known: dict[str, Sequence[int]] = attrs.field(factory=dict)

    def write(self, encoded: Encoded, taken: Sequence[str]) -> None:
        """Make a step durable."""
        assert self.revision + 1 == encoded.revision
        self.revision += 1
        self.messages.extend(_stored(record) for record in encoded.messages)
        self.queue.update((record["message_id"], _stored(record)) for record in encoded.queued)
        for message_id in taken:
            del self.queue[message_id]
        self.state.update(_stored(encoded.state))
        if encoded.cut is not None:
            self.checkpoint = encoded.cut.checkpoint
            assert not set(self.known) & set(self.checkpoint.known), "a name leaves the window once"
            self.known.update(self.checkpoint.known)

    def load(self) -> Conversation:
        """Return what an agent loads."""
        lead, older = self.checkpoint.lead, self.checkpoint.older
        window = [*self.messages[:lead], *self.messages[lead + older :]]
        state = {name: value for name, value in self.state.items() if value is not None}
        loaded = [*window, *self.queue.values()]
        ids = {record["message_id"]: record["digest"] for record in loaded if "digest" in record}
        return Conversation(
            conversation_id="c",
            owner=None,
            epoch=1,
            revision=self.revision,
            messages=window,
            queue=list(self.queue.values()),
            message_ids=ids,
            state=state,
            older=older,
        )

    def recall(self, name: str) -> Past | None:
        """Return what the index has under a name."""
        if name not in self.known:
            return None
        place, last = self.known[name]
        return recalled("c", Recalled(self.messages[place], self.messages[last]))


def _stored(value: Any) -> Any:
    return json.loads(json.dumps(value))


class WindowMachine(RuleBasedStateMachine):
    """One conversation, with its store and the model beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.lives = 0
        self.counter = 0
        self.flying: list[tuple[Step, Encoded, Any]] = []
        # ── the model
        self.history: list[Message] = []
        self.posted: dict[str, Posted] = {}
        self.decided: list[tuple[Decision, str]] = []
        self.finished: dict[str, str] = {}
        """By message id: the id of the answer that ended its turn."""

    @initialize(kind=st.sampled_from(sorted(LIMITS)), lead=st.integers(0, 2))
    def begin(self, kind: str, lead: int) -> None:
        self.limits = LIMITS[kind]
        seeds = [Message(f"s{number}", "system", (TextPart("Be kind."),)) for number in range(lead)]
        self.state = ConversationState(list(seeds), size=message_bytes(seeds))
        self.pending = Pending.of(self.state, 0)
        self.ids = Ids("life-0")
        self.ids.claim(seeds)
        self.history = list(seeds)

    # ── what the journal does

    def moment(self) -> Moment:
        return Moment(self.state, self.ids, self.limits, NOW)

    def submit(self, step: Step) -> None:
        encoded = self.pending.add(step, self.state, self.limits)
        self.flying.append((step, encoded, self.ids.claim((*step.messages, *step.queued))))

    def flush(self) -> None:
        """Make everything durable that is on its way."""
        for step, encoded, _ in self.flying:
            self.disk.write(encoded, step.taken)
            self.pending.commit(encoded)
            if encoded.cut is not None:
                self.ids.forget(self.state.messages[encoded.cut.first : encoded.cut.end])
            self.state.apply(step, encoded.metadata, encoded.grown, encoded.cut)
            self.history.extend(step.messages)
        self.flying = []

    def do(self, step: Step) -> None:
        self.flush()
        self.submit(step)
        self.flush()

    def past(self, name: str) -> Past | None:
        return self.disk.recall(name) if self.state.older else None

    def recall_message(self, message_id: str) -> Past | None:
        """Return what the inbox finds: memory first, then the store."""
        return None if message_id in self.ids.messages else self.past(message_name(message_id))

    # ── people

    @rule(size=st.sampled_from((1, 300, 900)), goes=st.booleans())
    def post(self, size: int, goes: bool) -> None:
        self.counter += 1
        message_id = f"u{self.counter}"
        posted = Posted.of("x" * size, message_id, "queue")
        examined = examine("c", self.state, self.ids, posted, AT_REST, POLICY, past=self.recall_message(message_id))
        if isinstance(examined, Refused):  # the queue is full
            return
        assert Place(message_id) == examined
        if self.state.size + self.pending.size > self.limits.max_state_bytes - 2000 and not self.limits.keeps_windows:
            return
        self.posted[message_id] = posted
        self.submit(self.accepted(message_id, posted, ELSEWHERE))
        if goes:
            self.flush()

    def accepted(self, message_id: str, posted: Posted, others: Others) -> Step:
        message = queued_message(message_id, posted.message, posted.digest)
        return accept(self.moment(), message, posted.message, None, others, is_unattended=False)

    @precondition(lambda self: not self.state.queue and self.state.waiting is None and not is_cut(self.state.messages))
    @rule(calls=st.integers(0, 2), size=st.sampled_from((1, 700)), end=st.sampled_from(("ends", "cut", "waits")))
    def post_and_begin(self, calls: int, size: int, end: str) -> None:
        """The message finds the conversation at rest: its turn begins in the same commit."""
        self.flush()
        if self.state.queue:
            return
        self.counter += 1
        message_id = f"u{self.counter}"
        posted = self.posted[message_id] = Posted.of("x" * size, message_id, "queue")
        step = self.accepted(message_id, posted, NOBODY)
        assert step.begins is not None
        self.do(step)
        self.speak(TurnRecord(step.begins, None), [message_id], calls, 1, size, end)

    @precondition(lambda self: self.posted)
    @rule(data=st.data(), is_same=st.booleans())
    def post_again(self, data: st.DataObject, is_same: bool) -> None:
        """A known id is a duplicate, or a conflict, however long ago it was."""
        self.flush()
        message_id = data.draw(st.sampled_from(sorted(self.posted)))
        posted = self.posted[message_id] if is_same else Posted.of("another", message_id, "queue")
        past = self.recall_message(message_id)
        examined = examine("c", self.state, self.ids, posted, AT_REST, POLICY, past=past)
        if is_same:
            assert Duplicate(message_id) == examined
            self.check_outcome(message_id, past)
        else:
            assert isinstance(examined, Refused)
            assert isinstance(examined.error, MessageConflict)

    def check_outcome(self, message_id: str, past: Past | None) -> None:
        outcome = outcome_of_message(self.state, message_id) if past is None else outcome_of_past(past)
        if message_id in self.finished:
            assert isinstance(outcome, Completed)
            assert self.finished[message_id] == outcome.message.message_id
        else:
            assert not isinstance(outcome, Completed)

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def post_with_the_id_of_an_answer(self, data: st.DataObject) -> None:
        """The id of a message that nobody posted is a conflict, however long ago it was."""
        self.flush()
        message_id = data.draw(st.sampled_from([message.message_id for message in self.history]))
        if message_id not in self.posted:
            past = self.recall_message(message_id)
            examined = examine("c", self.state, self.ids, Posted.of("x", message_id, "queue"), AT_REST, POLICY, past=past)
            assert isinstance(examined, Refused)

    # ── turns

    @precondition(lambda self: self.state.queue and self.state.waiting is None)
    @rule(calls=st.integers(0, 2), rounds=st.integers(1, 2), size=st.sampled_from((1, 700)), end=st.sampled_from(("ends", "cut", "waits")))
    def turn(self, calls: int, rounds: int, size: int, end: str) -> None:
        self.flush()
        turn = TurnRecord(self.ids.new(), None)
        taken = list(self.state.queue.values())
        self.do(turn_steps.take(self.moment(), taken, turn, is_first=True))
        self.speak(turn, [message.message_id for message in taken], calls, rounds, size, end)

    def speak(self, turn: TurnRecord, message_ids: Sequence[str], calls: int, rounds: int, size: int, end: str) -> None:
        """Answer, to the end of the turn, or to where it is cut or waits."""
        for number in range(rounds if calls else 0):
            made = [ToolCall(self.ids.new(), "pay", {"n": number}) for _ in range(calls)]
            waiting = {call.call_id: pending(call, interrupt_id="i") for call in made} if end == "waits" else {}
            message = Message(self.ids.new(), "assistant", made, "tool_calls", turn.turn_id)
            self.do(turn_steps.answer(self.moment(), message, Usage(), waiting, turn))
            if waiting:
                self.wait(turn)
                return
            for call in made:
                output = ToolResult(call.call_id, "pay", "y" * size)
                self.do(turn_steps.result(self.moment(), call, output, asking_in(self.state.messages), turn))
        if end == "cut":
            return  # its process dies: what is next begins by closing the turn
        self.complete(turn, message_ids, size)

    def wait(self, turn: TurnRecord) -> None:
        interrupt_id = self.ids.new()
        calls = open_calls(self.state.messages)
        asked = [pending(call, interrupt_id=interrupt_id) for call in calls]
        waits = Waiting(Interrupt(interrupt_id, turn.turn_id, asked, interrupt_kind(asked)))
        self.do(turn_steps.wait(self.moment(), waits, calls, asking_in(self.state.messages), turn))

    def complete(self, turn: TurnRecord, message_ids: Sequence[str], size: int) -> None:
        message = Message(self.ids.new(), "assistant", (TextPart("z" * size),), "stop", turn.turn_id)
        self.do(turn_steps.complete(self.moment(), message, Usage(), Totals(), turn))
        self.finished.update(dict.fromkeys(message_ids, message.message_id))

    @precondition(lambda self: self.state.waiting is not None)
    @rule(data=st.data(), some=st.booleans(), size=st.sampled_from((1, 700)))
    def resume(self, data: st.DataObject, some: bool, size: int) -> None:
        """People decide about some of the calls, or about all; then the turn goes on to its end."""
        self.flush()
        assert self.state.waiting is not None
        calls = self.state.waiting.interrupt.calls[: 1 if some else None]
        decisions: list[Decision] = [data.draw(st.sampled_from((Approve(call), Reject(call, "no")))) for call in calls]
        fresh = undecided("c", self.state, decisions, self.past_of(decisions))
        assert len(decisions) == len(fresh)
        records = [Verdict(call, made.kind, made.content).record("alice", NOW) for call, made in fresh]
        turn = TurnRecord(self.state.waiting.interrupt.turn_id, None)
        self.do(decide(self.moment(), records, None))
        self.decided += [(made, made.kind) for made in decisions]
        if self.state.waiting is None:
            for call in open_calls(self.state.messages):
                output = ToolResult(call.call_id, "pay", "y" * size)
                self.do(turn_steps.result(self.moment(), call, output, asking_in(self.state.messages), turn))
            taken = [message.message_id for message in self.history if message.turn_id == turn.turn_id and message.role == "user"]
            self.complete(turn, taken, size)

    @precondition(lambda self: self.state.waiting is not None)
    @rule()
    def supersede(self) -> None:
        self.flush()
        self.do(close_waiting(self.moment(), "superseded", CancelCause.SUPERSEDED, "alice"))

    @precondition(lambda self: self.decided)
    @rule(data=st.data(), is_same=st.booleans())
    def decide_again(self, data: st.DataObject, is_same: bool) -> None:
        """A decision that was made is on record, however long ago it was: the same one is known, and another one is refused."""
        self.flush()
        made, kind = data.draw(st.sampled_from(self.decided))
        again = made if is_same else _opposite(made)
        past = self.past_of([again])
        if is_same:
            assert [] == list(undecided("c", self.state, [again], past))
            return
        with pytest.raises(AlreadyDecided) as caught:
            undecided("c", self.state, [again], past)
        assert kind == caught.value.decided

    def past_of(self, decisions: Sequence[Decision]) -> Mapping[str, Past]:
        found = {call_id: self.past(call_name(call_id)) for call_id in unknown_calls(self.state, decisions)}
        return {call_id: past for call_id, past in found.items() if past is not None}

    # ── summaries, failures, and new lives

    @precondition(lambda self: len(self.history) > 2)
    @rule(data=st.data())
    def sum_up(self, data: st.DataObject) -> None:
        self.flush()
        covered = data.draw(st.sampled_from(self.history)).message_id
        with contextlib.suppress(LimitExceeded):  # the turn that is open has filled the state
            self.do(Step(lifecycle="on_step", metadata={"summary": covered}, covers=covered))

    @precondition(lambda self: self.flying)
    @rule()
    def fail(self) -> None:
        """The store refuses what is on its way: nothing of it happened."""
        for step, encoded, claimed in self.flying:
            self.pending.fail(encoded)
            self.ids.release(claimed)
            for message in step.queued:
                del self.posted[message.message_id]
        self.flying = []

    @rule()
    def live_again(self) -> None:
        """The process dies; what was on its way is lost."""
        if self.flying:
            self.fail()
        if not self.disk.revision:
            return
        self.lives += 1
        self.ids = Ids(f"life-{self.lives}")
        self.state = restored(self.disk.load(), self.ids, self.limits)
        self.pending = Pending.of(self.state, self.disk.revision)

    # ── what holds

    @invariant()
    def memory_has_the_end_of_the_history(self) -> None:
        lead = leading(self.history)
        window = [*self.history[:lead], *self.history[lead + self.state.older :]]
        assert window == self.state.messages
        assert message_bytes((*window, *self.state.queue.values())) == self.state.size
        if not self.limits.keeps_windows:
            assert not self.state.older

    @invariant()
    def store_has_all_of_the_history(self) -> None:
        if self.disk.revision:
            assert [message.message_id for message in self.history] == [record["message_id"] for record in self.disk.messages]

    @invariant()
    def load_gives_what_memory_has(self) -> None:
        if not self.disk.revision:
            return
        ids = Ids("look")
        loaded = restored(self.disk.load(), ids, self.limits)
        for name in ("messages", "queue", "message_ids", "metadata", "size", "older", "decisions", "former_decisions", "open_decisions"):
            assert getattr(loaded, name) == getattr(self.state, name), name
        assert loaded.interrupt == self.state.interrupt
        if not self.flying:
            window = {message.message_id for message in (*self.state.messages, *self.state.queue.values())}
            assert window <= self.ids.messages
            assert ids.messages == {made for made in self.ids.messages if made in window}

    @invariant()
    def every_other_message_is_in_the_index(self) -> None:
        lead = leading(self.history)
        gone = self.history[lead : lead + self.state.older]
        for message in gone:
            past = self.disk.recall(message_name(message.message_id))
            assert past is not None
            assert (message, message.turn_id) == (past.message, past.last.turn_id)
        names = {message_name(message.message_id) for message in gone}
        names |= {call_name(result.call_id) for message in gone for result in message.results}
        assert names <= set(self.disk.known)

    @invariant()
    def window_is_inside_its_bounds(self) -> None:
        """When the last turn began, it had no more than its bounds allow, or nothing but that turn and the one before."""
        if self.limits.keeps_windows and self.state.messages:
            last = self.state.messages[-1].turn_id
            others = [message for message in self.state.messages if message.turn_id != last]
            if len({message.turn_id for message in others if message.turn_id is not None}) > 1:
                assert len(others) < self.limits.window
                assert message_bytes(others) < self.limits.window_bytes


def _opposite(made: Decision) -> Decision:
    other = "reject" if isinstance(made, Approve) else "approve"
    return Decision.from_dict({"type": other, "interrupt_id": made.interrupt_id, "call_id": made.call_id, "digest": made.digest})


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=40, stateful_step_count=40)

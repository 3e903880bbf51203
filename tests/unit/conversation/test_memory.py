"""Memory always equals what a load gives: whatever steps are committed, in whatever order, and whichever of them fail."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.unit.conversation.making import NOW, asking, call, draft_of, last_answer, said
from trio_sagents.conversation.closing import close_after_crash
from trio_sagents.conversation.codec import restored, seeded
from trio_sagents.conversation.decisions import Verdict, close_waiting, decide
from trio_sagents.conversation.history import is_cut, is_gated, open_calls
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits
from trio_sagents.conversation.messages_in import Others, accept, queued_message, supersede
from trio_sagents.conversation.outcomes import Totals
from trio_sagents.conversation.pending import Encoded, Pending
from trio_sagents.conversation.results import asking_in
from trio_sagents.conversation.state import ConversationState, Moment, Step, Waiting
from trio_sagents.conversation.turn_steps import CutTurn, TurnRecord, answer, complete, cut, result, take, wait
from trio_sagents.data.interrupt_wire import DECISIONS, encode_pending, encode_record
from trio_sagents.data.interrupts import Interrupt, interrupt_kind, pending
from trio_sagents.data.json import plain_json
from trio_sagents.data.messages import Message, TextPart, ToolCall, ToolResult, UserMessage
from trio_sagents.data.outcomes import Cancelled, Failed, Usage
from trio_sagents.data.records import Conversation
from trio_sagents.data.status import CancelCause
from trio_sagents.data.todos import Todo
from trio_sagents.exceptions import ModelFailed

LIMITS = Limits(1_000_000, 1_000)
USED = Usage(3, 1)


@attrs.define(eq=False)
class Store:
    """What a store has of one conversation: it does with an encoded step what each store does."""

    messages: list[Any] = attrs.field(factory=list)
    queue: dict[str, Any] = attrs.field(factory=dict)
    message_ids: dict[str, str] = attrs.field(factory=dict)
    state: dict[str, Any] = attrs.field(factory=dict)
    revision: int = 0

    def commit(self, step: Step, encoded: Encoded) -> None:
        """Make a step durable."""
        assert self.revision + 1 == encoded.revision
        plain = plain_json([encoded.messages, encoded.queued, encoded.state])
        self.messages += plain[0]
        for message_id in step.taken:
            del self.queue[message_id]
        for message, record in zip(step.queued, plain[1], strict=True):
            self.queue[message.message_id] = record
        assert not set(step.message_ids) & set(self.message_ids)
        self.message_ids.update(step.message_ids)
        for key, value in plain[2].items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        self.revision = encoded.revision

    def load(self, ids: Ids) -> ConversationState:
        """Load what was stored."""
        stored = Conversation(
            conversation_id="c",
            owner=None,
            epoch=1,
            revision=self.revision,
            messages=self.messages,
            queue=list(self.queue.values()),
            message_ids=self.message_ids,
            state=self.state,
        )
        return restored(stored, ids, LIMITS)


def comparable(state: ConversationState) -> Mapping[str, Any]:
    """Return what has to be the same in memory and after a load."""
    return {
        "messages": state.messages,
        "digests": [message.digest for message in state.messages],
        "queue": list(state.queue.values()),
        "message_ids": state.message_ids,
        "todos": tuple(state.todos),
        "metadata": state.metadata,
        "waiting": state.waiting,
        "decisions": state.decisions,
        "former_decisions": state.former_decisions,
        "open_decisions": {call_id: list(records) for call_id, records in state.open_decisions.items()},
        "draft": state.draft,
        "size": state.size,
    }


@attrs.define(eq=False)
class Life:
    """One conversation, driven by the rules as the supervisor drives it, without Trio."""

    state: ConversationState
    choose: Callable[[Sequence[Any]], Any]
    store: Store = attrs.field(factory=Store)
    ids: Ids = attrs.field(factory=lambda: Ids("n"))
    pending: Pending = attrs.field(init=False)
    on_their_way: list[tuple[Step, Encoded, Any]] = attrs.field(factory=list)
    turn: TurnRecord | None = None
    changes: int = 0

    def __attrs_post_init__(self) -> None:
        self.ids.claim(self.state.messages)
        self.pending = Pending.of(self.state, 0)

    @property
    def moment(self) -> Moment:
        """The conversation, as a rule looks at it."""
        return Moment(self.state, self.ids, LIMITS, NOW)

    def submit(self, step: Step) -> None:
        """Put a step behind the earlier ones."""
        encoded = self.pending.add(step, self.state, LIMITS)
        self.on_their_way.append((step, encoded, self.ids.claim((*step.messages, *step.queued))))

    def land(self) -> None:
        """The first step on its way becomes durable; then memory has to equal what a load gives."""
        step, encoded, _ = self.on_their_way.pop(0)
        self.store.commit(step, encoded)
        self.pending.commit(encoded)
        self.state.apply(step, encoded.metadata, encoded.grown)
        ids = Ids("other")

        assert comparable(self.store.load(ids)) == comparable(self.state)
        assert ids.messages <= self.ids.messages
        assert ids.calls <= self.ids.calls

    def settle(self) -> None:
        """All steps on their way become durable."""
        while self.on_their_way:
            self.land()

    def fail(self) -> None:
        """The first step on its way fails, and all behind it fail with it; the turn that submitted one of them is over."""
        for _, encoded, claimed in self.on_their_way:
            self.pending.fail(encoded)
            self.ids.release(claimed)
        self.on_their_way.clear()
        assert (0, self.store.revision) == (self.pending.size, self.pending.revision)

    def now(self, step: Step) -> None:
        """Submit a step behind the others, and see all of them land, as a turn does that waits for its step."""
        self.submit(step)
        self.settle()

    # ── what may happen; each returns False if it cannot happen now

    def post(self) -> bool:
        """A person says something, perhaps instead of a decision."""
        message_id = self.ids.new()
        message = queued_message(message_id, UserMessage(f"hi {message_id}", metadata={"n": 1}), f"digest of {message_id}")
        shown = UserMessage("hi")
        if self.state.waiting is None or self.on_their_way:
            others = Others(self.turn is not None, len(self.on_their_way), changes_waiting=False)
            step = accept(self.moment, message, shown, None, others, is_unattended=self.choose([False, False, True]))
            if step.begins is None:
                self.submit(step)
            else:
                self.now(step)
                self.turn = TurnRecord(step.begins, None)
        else:
            self.now(supersede(self.moment, message, shown, None, "bob"))
        return True

    def begin(self) -> bool:
        """A turn begins with what is queued, or takes more of it."""
        self.settle()
        if not self.state.queue or self.state.waiting is not None:
            return False
        if self.turn is not None and open_calls(self.state.messages):
            return False
        is_first = self.turn is None
        if self.turn is None:
            self.turn = TurnRecord(self.ids.new(), None)
        self.now(take(self.moment, list(self.state.queue.values()), self.turn, is_first=is_first))
        return True

    def speak(self) -> bool:
        """A draft is stored, or is void."""
        if self.turn is None or open_calls(self.state.messages):
            return False
        draft = self.choose([None, draft_of("so f", self.ids.new(), self.turn.turn_id)])
        self.submit(Step(lifecycle="on_step", draft=draft))
        return True

    def ask(self) -> bool:
        """The model asks for tools; some of the calls wait for people."""
        self.settle()
        if self.turn is None or open_calls(self.state.messages) or not is_cut(self.state.messages):
            return False
        calls = [call(self.ids.new(), "pay", amount=number) for number in range(self.choose([1, 2, 3]))]
        waiting = {made.call_id: pending(made) for made in calls if self.choose([False, True])}
        made = asking(*calls, message_id=self.ids.new(), turn_id=self.turn.turn_id)
        self.now(answer(self.moment, made, self.choose([Usage(), USED]), waiting, self.turn))
        return True

    def _runnable(self) -> Sequence[ToolCall]:
        asked = asking_in(self.state.messages)
        return [
            made
            for made in open_calls(self.state.messages)
            if asked is not None and (made.call_id in self.state.open_decisions or not is_gated(asked, made.call_id))
        ]

    def give_result(self) -> bool:
        """A tool returns."""
        self.settle()
        if self.turn is None or self.state.waiting is not None or not self._runnable():
            return False
        made = self.choose(self._runnable())
        output = ToolResult(made.call_id, made.name, "ok", self.choose(["completed", "failed"]))
        self.now(result(self.moment, made, output, asking_in(self.state.messages), self.turn))
        return True

    def interrupt(self) -> bool:
        """All other calls have returned: the turn begins to wait, for calls of its own and for calls of a sub-agent."""
        self.settle()
        calls = open_calls(self.state.messages)
        if self.turn is None or not calls or self.state.waiting is not None:
            return False
        interrupt_id, requests, suspended = self.ids.new(), [], {}
        for made in calls:
            if self.choose([True, False]):
                inner = [pending(call(self.ids.new(), "send"), interrupt_id=interrupt_id, path=["worker"]) for _ in range(2)]
                suspended[made.call_id] = {"waiting": {request.call_id: [encode_pending(request)] for request in inner}}
                requests += inner
            else:
                asked_again = made.call_id in self.state.decisions
                kind = "halt" if asked_again and self.choose([True, False]) else "approval"
                demands = ["d"] if kind == "approval" else []
                request = pending(made, interrupt_id=interrupt_id, kind=kind, demands=demands, asked_before=int(asked_again))
                requests.append(request)
        interrupt = Interrupt(interrupt_id, self.turn.turn_id, requests, interrupt_kind(requests))
        asked = asking_in(self.state.messages)
        self.now(wait(self.moment, Waiting(interrupt, suspended, self.choose([Usage(), USED])), calls, asked, self.turn))
        self.turn = None
        return True

    def decide(self) -> bool:
        """People decide some of the calls, or all; then the turn continues."""
        self.settle()
        waiting = self.state.waiting
        if waiting is None or waiting.interrupt.kind == "halt":
            return False
        calls = waiting.interrupt.calls[: self.choose(range(1, len(waiting.interrupt.calls) + 1))]
        records = []
        for made in calls:
            kind = self.choose(["approve", "edit", "reject", "expired"])
            content = {"arguments": {"amount": 99}} if kind == "edit" else {}
            records.append(Verdict(made, kind, content, "no").record("alice", NOW))
        self.now(decide(self.moment, records, "actor"))
        if self.state.waiting is None:
            self.turn = TurnRecord(waiting.interrupt.turn_id, None)
        return True

    def dismiss(self) -> bool:
        """A person acknowledges what waits."""
        self.settle()
        if self.state.waiting is None:
            return False
        self.now(close_waiting(self.moment, "dismissed", CancelCause.DISMISSED, "bob"))
        return True

    def complete(self) -> bool:
        """The turn ends."""
        self.settle()
        if self.turn is None or open_calls(self.state.messages) or not is_cut(self.state.messages):
            return False
        message = last_answer("done", self.ids.new(), self.turn.turn_id)
        self.now(complete(self.moment, message, self.choose([Usage(), USED]), Totals(1, 0, USED), self.turn))
        self.turn = None
        return True

    def cut(self) -> bool:
        """The turn is cancelled, or fails."""
        self.settle()
        if self.turn is None:
            return False
        calls = open_calls(self.state.messages)
        returned = [(made, ToolResult(made.call_id, made.name, "ok")) for made in calls[:1]]
        partial = self.choose([None, Message(self.ids.new(), "assistant", (TextPart("so"),), None, self.turn.turn_id)])
        state = CutTurn(returned, [(made, "cancelled") for made in calls[1:]], asking_in(self.state.messages), partial, Totals(1, 0, USED))
        outcome = self.choose([Cancelled(CancelCause.USER), Failed(ModelFailed("x"))])
        self.now(cut(self.moment, outcome, state, self.turn))
        self.turn = None
        return True

    def note(self) -> bool:
        """A tool or a middleware keeps todos, or metadata."""
        self.changes += 1
        metadata = self.choose([None, {"title": f"x{self.changes}"}, {"title": None}, {f"k{self.changes}": 1}])
        todos = self.choose([None, [], [Todo(1, "look"), Todo(2, "buy", "completed")]])
        self.submit(Step(lifecycle="on_step", metadata=metadata, todos=todos))
        return True

    def store_fails(self) -> bool:
        """A write fails: the turn is over, and the next one closes what it left open."""
        if not self.on_their_way:
            return False
        self.fail()
        self.turn = None
        return True

    def crash(self) -> bool:
        """The process dies, and another one loads the conversation."""
        if not self.store.revision:
            return False
        self.fail()
        self.ids = Ids(f"{self.ids.incarnation}n")
        self.state = self.store.load(self.ids)
        self.pending = Pending.of(self.state, self.store.revision)
        self.turn = None
        closing = close_after_crash(self.moment)
        if closing is not None:
            self.now(closing)
        return True


TURNS = (Life.begin, Life.ask, Life.give_result, Life.interrupt, Life.decide)
"""What has to follow each other before there is much to compare; these are tried more often than the others."""
HAPPENINGS: tuple[Callable[[Life], bool], ...] = (
    *(TURNS * 4),
    Life.post,
    Life.speak,
    Life.dismiss,
    Life.complete,
    Life.cut,
    Life.note,
    Life.store_fails,
    Life.crash,
)


def seed() -> ConversationState:
    """Return a fresh state that another conversation was copied into: with digests of posts, and with decisions."""
    first = ToolCall("s1", "pay", {"amount": 1})
    record = Verdict(pending(first, interrupt_id="i0"), "edit", {"arguments": {"amount": 2}}).record("alice", NOW)
    kept = Message("s-r", "tool", (ToolResult("s1", "pay", "ok"),), None, "t0", {DECISIONS: [encode_record(record)]})
    asked = attrs.evolve(said("s-u", turn_id="t0"), digest="digest of s-u")
    messages = [asked, asking(first, message_id="s-a", turn_id="t0"), kept, last_answer("x", "s-e", "t0")]
    return seeded("c", messages, [Todo(1, "look")], {"lang": "de"}, LIMITS)


@settings(max_examples=60, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(st.data(), st.booleans(), st.integers(5, 40))
def test_memory_when_steps_are_committed(data: st.DataObject, is_seeded: bool, count: int) -> None:  # drawn
    """After each commit, the state in memory is the state that a load gives, and every id on record is in use."""
    life = Life(seed() if is_seeded else ConversationState(), lambda choices: data.draw(st.sampled_from(list(choices))))
    for _ in range(count):
        possible = list(HAPPENINGS)
        while not (happening := life.choose(possible))(life):
            possible = [other for other in possible if other is not happening]
    life.settle()


def test_seed_when_it_is_loaded_again() -> None:
    """What a fresh conversation was begun with is known from the start as it is after a load: posts, decisions, todos, metadata."""
    life = Life(seed(), lambda choices: choices[0])
    before = comparable(life.state)
    life.now(Step(lifecycle="on_step"))

    assert before == comparable(life.store.load(Ids("other")))
    assert {"s-u": "digest of s-u"} == life.state.message_ids
    assert {"amount": 2} == life.state.messages_as_run()[1].calls[0].arguments

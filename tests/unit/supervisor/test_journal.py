"""The journal: order, store, apply, publish, continue."""

import datetime
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sagents.broadcast import Subscription
from trio_sagents.broadcast._subscription import Mailbox
from trio_sagents.conversation.decisions import waiting_size
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits, size_of
from trio_sagents.conversation.pending import Pending
from trio_sagents.conversation.state import ConversationState, Step, Waiting
from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.events import DisplayMessageSaved, DisplayMessageUpdated, Event, MiddlewareAction, Snapshot, TurnStarted
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, pending
from trio_sagents.data.messages import Message, TextPart, ToolCall
from trio_sagents.data.records import Commit, DisplayMessage, Saved
from trio_sagents.data.status import Status
from trio_sagents.data.todos import Todo
from trio_sagents.data.wire import encode_message, encode_todo
from trio_sagents.exceptions import Conflict, LimitExceeded, PersistenceError
from trio_sagents.persistence import MemoryStore
from trio_sagents.storage import CommitQueue, UnifiedStore
from trio_sagents.supervisor import Identity, Journal
from trio_sagents.supervisor._bell import Bell

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def said(number: int = 1, text: str = "hi") -> Message:
    return Message(f"u{number}", "user", (TextPart(text),), turn_id="t")


def row(number: int = 1) -> DisplayMessage:
    return DisplayMessage(f"r{number}", f"m{number}", "user", "text", {"text": "hi"}, "completed", NOW)


def waiting() -> Waiting:
    return Waiting(Interrupt("i1", "t", [attrs.evolve(pending(ToolCall("c1", "pay", {})), interrupt_id="i1")]))


@attrs.define(eq=False)
class Store:
    """A store that does as it is told with each commit: wait for an event, raise, or say what was saved."""

    does: list[Any] = attrs.field(factory=list)
    commits: list[Commit] = attrs.field(factory=list)
    name: str = "Store"

    async def save(self, scope: Any, commit: Commit, shown: Any) -> Saved:
        await trio.lowlevel.checkpoint()
        self.commits.append(commit)
        done = self.does.pop(0) if self.does else Saved()
        if isinstance(done, trio.Event):
            await done.wait()
            return Saved()
        if isinstance(done, BaseException):
            raise done
        assert isinstance(done, Saved)
        return done


def no_fence() -> None:
    raise AssertionError("nobody took over")


def journal_of(
    nursery: trio.Nursery | None,
    store: Any = None,
    *,
    limits: Limits = Limits(10_000, 1_000),  # noqa: B008  # a frozen value
    state: ConversationState | None = None,
    revision: int = 0,
    fence: Callable[[], None] = no_fence,
) -> Journal:
    """Return a journal; without a nursery, nothing can be submitted."""
    commits: Any = None if nursery is None else CommitQueue(Store() if store is None else store, nursery)
    state = ConversationState() if state is None else state
    identity = Identity("c", "agent", None, None, "new", 0)
    return Journal(identity, commits, state, Ids("new"), limits, Bell(), fence, Pending.of(state, revision), 100)


def picture(place: Cursor, replaces: Cursor | None) -> Snapshot:
    return Snapshot(Status.IDLE, None, (), None, (), 0, place, replaces)


def reader_of(journal: Journal, channel: Channel = "main") -> Subscription:
    """Return a subscription that follows the journal, and has read the first snapshot."""
    subscription = Subscription("c", channel, None, None, 100, 10_000, Mailbox(lambda _: None))
    journal.enrol(subscription)
    assert [Snapshot] == [type(envelope.event) for envelope in subscription.take()]
    return subscription


def read(subscription: Subscription) -> list[Event]:
    """Return the events that the subscription has not read yet."""
    return [envelope.event for envelope in subscription.take()]


def note(log: list[Any], name: str) -> Callable[[PersistenceError | None], None]:
    """Return a continuation that notes how its step ended."""
    return lambda error: log.append((name, error))


# ── room


def test_check_room_when_it_is_just_enough() -> None:
    """A message is accepted up to the last byte."""
    size = size_of(encode_message(said()))
    journal_of(None, limits=Limits(size)).check_room(said())
    with pytest.raises(LimitExceeded):
        journal_of(None, limits=Limits(size - 1)).check_room(said())


def test_check_waiting_room_when_it_is_just_enough() -> None:
    """What waits for people is accepted up to the last byte, with the room for its decisions, beside what is stored."""
    state = ConversationState(size=100)
    size = waiting_size(state, waiting())
    journal_of(None, limits=Limits(100 + size), state=state).check_waiting_room(waiting())
    with pytest.raises(LimitExceeded):
        journal_of(None, limits=Limits(99 + size), state=state).check_waiting_room(waiting())


def test_check_room_when_the_conversation_waits() -> None:
    """A message does not take the room that is reserved for the decisions."""
    state = ConversationState(waiting=waiting())
    whole = size_of(encode_message(said())) + waiting_size(state, waiting())
    journal_of(None, limits=Limits(whole), state=state).check_room(said())
    with pytest.raises(LimitExceeded):
        journal_of(None, limits=Limits(whole - 1), state=state).check_room(said())


async def test_check_room_when_a_step_is_on_its_way() -> None:
    """Messages that are on their way to the store take their room already."""
    gate, size = trio.Event(), size_of(encode_message(said()))
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, Store([gate]), limits=Limits(2 * size))
        journal.submit(Step(lifecycle="on_message", messages=[said(1)]))
        journal.check_room(said(2))
        journal.submit(Step(lifecycle="on_message", messages=[said(2)]))
        with pytest.raises(LimitExceeded):
            journal.check_room(said(3))
        gate.set()


async def test_metadata_when_they_are_as_large_as_may_be() -> None:
    """Metadata are accepted up to the last byte, beside what is stored and what is on its way; more is refused and changes nothing."""
    stored, coming = said(1), said(2)
    metadata = {"note": "x" * 50}
    whole = size_of(encode_message(stored)) + size_of(encode_message(coming)) + size_of(metadata)
    step = Step(lifecycle="on_step", metadata=metadata)
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, UnifiedStore(MemoryStore()), limits=Limits(whole - 1))
        await journal.submit(Step(lifecycle="on_message", messages=[stored])).wait()
        write = journal.submit(Step(lifecycle="on_message", messages=[coming]))
        with pytest.raises(LimitExceeded) as caught:
            journal.submit(step)
        await write.wait()
        assert {} == journal.state.metadata
        journal.limits = Limits(whole)
        await journal.submit(step).wait()

    assert ("max_state_bytes", whole, whole - 1) == (caught.value.limit, caught.value.value, caught.value.most)
    assert metadata == journal.state.metadata


# ── order, store, apply


async def test_submit_when_steps_are_committed() -> None:
    """The first commit stores what a fresh state began with; the size is that of what is kept; a draft stands until it is removed."""
    store = MemoryStore()
    asked, answer = said(1), Message("a1", "assistant", (TextPart("hello"),), "stop", "t")
    draft = Message("d1", "assistant", (TextPart("hel"),), "crashed", "t")
    steps = [
        Step(lifecycle="on_message", queued=[asked]),
        Step(lifecycle="on_step", taken=["u1"], messages=[asked], draft=draft),
        Step(lifecycle="on_completion", messages=[answer], draft=None),
    ]
    states = []
    async with trio.open_nursery() as nursery:
        state = ConversationState(todos=(Todo(1, "look"),), metadata={"lang": "de"})
        journal = journal_of(nursery, UnifiedStore(store), state=state)
        await store.load(None, "c")
        for step in steps:
            await journal.submit(step).wait()
            states.append((state.size, state.draft, len(state.queue)))

    asked_size = size_of(encode_message(asked))
    assert [(asked_size, None, 1), (asked_size, draft, 0), (asked_size + size_of(encode_message(answer)), None, 0)] == states
    stored = await store.load(None, "c")
    assert stored is not None
    assert {"lang": "de"} == stored.state["metadata"]
    assert [encode_todo(Todo(1, "look"))] == stored.state["todos"]
    assert stored.state.get("draft") is None


async def test_submit_when_the_store_has_not_answered() -> None:
    """Nothing changes in memory, nothing is published and nothing continues before the store has answered."""
    gate = trio.Event()
    log: list[Any] = []
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, Store([gate]))
        journal.open(picture)
        reader = reader_of(journal)
        write = journal.submit(Step(lifecycle="on_step", messages=[said()], events=[TurnStarted("t")]), note(log, "then"))
        await wait_all_tasks_blocked()
        assert ([], [], [], False, False) == (journal.state.messages, read(reader), log, journal.is_at_rest, write.has_ended)
        gate.set()
        await journal.wait_at_rest()

    assert ([said()], [TurnStarted("t")], [("then", None)]) == (journal.state.messages, read(reader), log)


async def test_submit_when_a_step_fails() -> None:
    """A step that fails changes nothing, and every step behind it fails with it; the next step builds on what is stored."""
    log: list[Any] = []
    store = Store([Saved(), error := PersistenceError("full")])
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, store)
        for number in (1, 2, 3):
            step = Step(lifecycle="on_step", messages=[said(number)], metadata={f"k{number}": number})
            journal.submit(step, note(log, f"u{number}"))
        await journal.wait_at_rest()
        await journal.submit(Step(lifecycle="on_step", messages=[said(4)], metadata={"k4": 4})).wait()

    assert [("u1", None), ("u2", error), ("u3", error)] == log
    assert ([said(1), said(4)], {"k1": 1, "k4": 4}) == (journal.state.messages, journal.state.metadata)
    assert [1, 2, 2] == [commit.revision for commit in store.commits]
    assert {"u1", "u4"} == journal.ids.messages
    assert size_of(encode_message(said())) * 2 == journal.state.size


@pytest.mark.parametrize(("error", "fenced"), [(Conflict("c", expected=(0, 0), found=None), 1), (PersistenceError("full"), 0)])
async def test_submit_when_another_writer_was_faster(error: PersistenceError, fenced: int) -> None:
    """A conflict fences the agent, and no other failure does; an agent that has ended is not fenced again."""
    calls: list[int] = []
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, Store([error, error]), fence=lambda: calls.append(1))
        journal.open(picture)
        journal.submit(Step(lifecycle="on_step"))
        await journal.wait_at_rest()
        journal.close()
        journal.submit(Step(lifecycle="on_step"))
        await journal.wait_at_rest()

    assert fenced == len(calls)


async def test_submit_when_the_caller_is_cancelled() -> None:
    """What follows a commit does not run in the caller's task: a caller that is cancelled takes nothing back."""
    gate = trio.Event()
    log: list[Any] = []
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, Store([gate]))
        with trio.move_on_after(0) as scope:
            await journal.submit(Step(lifecycle="on_step", messages=[said()]), note(log, "then")).wait()
        gate.set()
        await journal.wait_at_rest()

    assert scope.cancelled_caught
    assert ([said()], [("then", None)]) == (journal.state.messages, log)


@pytest.mark.parametrize(
    ("step", "by"),
    [
        (Step(lifecycle="on_interrupt", waiting=waiting()), "turn"),
        (Step(lifecycle="on_step", waiting=None, decided=[DecisionRecord("i1", "c1", "approve", "d", "{}", "", None, "")]), "decision"),
        (Step(lifecycle="on_message", waiting=None, queued=[said()], decided=[]), "message"),
        (Step(lifecycle="on_step"), None),
    ],
)
async def test_pending_wait_when_a_step_changes_what_waits(step: Step, by: str | None) -> None:
    """While a step that changes what waits is on its way, everybody can see who submitted it; afterwards there is none."""
    gate = trio.Event()
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, Store([gate]))
        journal.submit(step)
        seen = None if journal.pending_wait is None else journal.pending_wait.by
        gate.set()
        await journal.wait_at_rest()

    assert by == seen
    assert journal.pending_wait is None


async def test_give_up_when_the_store_hangs() -> None:
    """When the agent ends before the store has answered, whoever waits learns that the outcome is unknown; a late answer still counts."""
    gate = trio.Event()
    log: list[Any] = []
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, Store([gate]))
        write = journal.submit(Step(lifecycle="on_step", messages=[said()]), note(log, "then"))
        await wait_all_tasks_blocked()
        journal.give_up()
        with pytest.raises(PersistenceError, match="the store did not answer for conversation 'c' before its agent ended"):
            await write.wait()
        assert [] == log
        gate.set()

    assert ([("then", None)], [said()]) == (log, journal.state.messages)


# ── publishing


async def test_publish_when_a_step_is_durable() -> None:
    """Rows that are new, then rows that changed, then the step's events, then the continuation: in this order, and once."""
    saved = Saved(new=[row(1)], changed=[row(2)])
    seen: list[Any] = []
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, Store([saved]))
        journal.open(picture)
        reader = reader_of(journal)
        step = Step(lifecycle="on_step", messages=[said()], events=[TurnStarted("t")])
        await journal.submit(step, lambda _: seen.extend((list(journal.state.messages), read(reader)))).wait()

    assert [[said()], [DisplayMessageSaved(row(1)), DisplayMessageUpdated(row(2)), TurnStarted("t")]] == seen
    assert [] == read(reader)


async def test_publish_when_a_step_fails() -> None:
    """A step that is not durable tells nobody anything."""
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, Store([PersistenceError("full")]))
        journal.open(picture)
        reader = reader_of(journal)
        journal.submit(Step(lifecycle="on_step", events=[TurnStarted("t")]))
        await journal.wait_at_rest()

    assert [] == read(reader)


@pytest.mark.parametrize("by_host", [False, True])
async def test_publish_when_middleware_changes_rows(*, by_host: bool) -> None:
    """Each row is changed once: those of our own stores before they are stored, those of a host's store when they come back."""

    def hide(given: DisplayMessage) -> DisplayMessage | None:
        return None if given.row_id == "r1" else attrs.evolve(given, content={"text": given.content["text"] + "!"})

    once = attrs.evolve(row(2), content={"text": "hi!"})
    store = Store([Saved([row(1), row(2)], [row(2)], by_host=True) if by_host else Saved([once], [once])])
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery, store)
        journal.transforms = [("hide", hide)]
        journal.open(picture)
        reader = reader_of(journal)
        await journal.submit(Step(lifecycle="on_step", rows=[row(1), row(2)])).wait()

    assert [once] == list(store.commits[0].rows)
    assert [DisplayMessageSaved(once), DisplayMessageUpdated(once)] == read(reader)


async def test_publish_when_the_agent_is_not_live() -> None:
    """Nothing is published before the agent goes live and after it has ended; a step is applied all the same."""
    step = Step(lifecycle="on_step", messages=[said()], events=[TurnStarted("t")])
    async with trio.open_nursery() as nursery:
        journal = journal_of(nursery)
        await journal.submit(step).wait()
        assert not journal.is_closed
        journal.open(picture)
        reader = reader_of(journal)
        journal.close()
        journal.publish(TurnStarted("late"))
        await journal.submit(attrs.evolve(step, messages=[said(2)])).wait()

    assert journal.is_closed
    assert ("pending", []) == (reader.state, read(reader))
    assert [said(1), said(2)] == journal.state.messages


def test_publish_when_nobody_follows_the_debug_channel() -> None:
    """An event of the debug channel costs nothing if nobody follows it; what is for everybody reaches every channel."""
    made: list[Event] = []

    def make() -> Event:
        made.append(TurnStarted(f"t{len(made)}"))
        return made[-1]

    journal = journal_of(None)
    journal.open(picture)
    main = reader_of(journal)
    journal.publish_debug(make)
    journal.publish(MiddlewareAction("m", 1), "debug")
    assert [] == made
    debug = reader_of(journal, "debug")
    journal.publish_debug(make)
    journal.publish(MiddlewareAction("m", 2), "debug")
    journal.publish_everywhere(TurnStarted("both"))

    assert [TurnStarted("both")] == read(main)
    assert [TurnStarted("t0"), MiddlewareAction("m", 2), TurnStarted("both")] == read(debug)


def test_publish_snapshot_when_viewers_were_shown_what_is_lost() -> None:
    """A snapshot in the middle has the place that it is published at, and replaces nothing."""
    journal = journal_of(None)
    journal.open(picture)
    reader = reader_of(journal)
    journal.publish(TurnStarted("t"))
    journal.publish_snapshot()

    assert [TurnStarted("t"), picture(Cursor("new", "main", 2), None)] == read(reader)

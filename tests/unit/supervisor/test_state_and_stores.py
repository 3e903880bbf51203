"""The books of a conversation and their way to a host's store: the ledger, the writer, the vaults, the answers."""

import datetime
import logging
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sagents.data.messages import Message, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.outcomes import Unanswered
from trio_sagents.data.records import (
    Commit,
    Conversation,
    DisplayMessage,
    PersistContext,
    Saved,
)
from trio_sagents.data.todos import Todo
from trio_sagents.data.wire import encode_message, encode_todo
from trio_sagents.exceptions import Conflict, ConversationNotFound, LimitExceeded, PersistenceError, StateError
from trio_sagents.persistence import MemoryStore
from trio_sagents.persistence._records import decode_row
from trio_sagents.storage import Asker, CommitQueue, PendingCommit, SplitStore, UnifiedStore, same_owner
from trio_sagents.supervisor._change import Change
from trio_sagents.supervisor._ledger import Ledger
from trio_sagents.supervisor._ledger_checks import cut_to, size_of, transformed
from trio_sagents.supervisor._receipt import Answer

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def ledger_of(max_bytes: int = 10_000) -> Ledger:
    writer: Any = None  # nothing is written here
    return Ledger("c", "agent", None, None, "new", writer, max_bytes, 1_000)


def said(number: int = 1, text: str = "hi") -> Message:
    return Message(f"u{number}", "user", (TextPart(text),), turn_id="t")


def commit_of(conversation_id: str = "c", revision: int = 1, **parts: Any) -> Commit:
    first = Commit(conversation_id=conversation_id, agent_id="a", owner=None, epoch=1, revision=revision, lifecycle="on_step")
    return attrs.evolve(first, **parts)


def conversation_of(conversation_id: str, owner: Any = None) -> Conversation:
    return Conversation(conversation_id=conversation_id, owner=owner, epoch=1, revision=1, messages=[], queue=[], message_ids={}, state={})


# ── the ledger


@pytest.mark.parametrize("numbers", [{"epoch": -1}, {"epoch": 2**53}, {"revision": -1}, {"revision": 2**53}])
def test_restore_when_the_numbers_cannot_be(numbers: Any) -> None:
    """An epoch or a revision that no commit of ours can have written stops the boot."""
    with pytest.raises(StateError, match="its epoch and revision are"):
        ledger_of().restore(attrs.evolve(conversation_of("c"), **numbers))


def test_seed_when_it_is_as_large_as_may_be() -> None:
    """A fresh state may have `max_state_bytes`, and not one more."""
    size = size_of(encode_message(said()))
    ledger = ledger_of(size)
    ledger.seed([said()], [], {})
    assert (size, [said()]) == (ledger.size, ledger.messages)

    with pytest.raises(LimitExceeded) as caught:
        ledger_of(size - 1).seed([said()], [], {})
    assert ("max_state_bytes", size, size - 1) == (caught.value.limit, caught.value.value, caught.value.most)


def test_check_room_when_it_is_just_enough() -> None:
    """A message is accepted up to the last byte."""
    size = size_of(encode_message(said()))
    ledger_of(size).check_room(said())
    with pytest.raises(LimitExceeded):
        ledger_of(size - 1).check_room(said())


def test_new_id_when_somebody_guessed_it() -> None:
    """An id that a caller has used already is handed to nobody; one that was handed out is not used before something has it."""
    ledger = ledger_of()
    ledger.ids.add("new-1")

    assert "new-2" == ledger.new_id()
    assert (True, False, False) == (ledger.is_used("new-1"), ledger.is_used("new-2"), ledger.is_used("new-3"))
    assert ["new-3", "new-4"] == [made for made, _ in zip(ledger.id_source(), range(2), strict=False)]


@pytest.mark.parametrize("part", [TextPart("x" * 5_000), ThinkingPart("x" * 5_000, "sig"), ToolResult("c1", "look", "x" * 5_000)])
def test_cut_to_when_a_text_is_too_long(part: Any) -> None:
    """What closes a turn is cut until it fits, whatever kind of text it is; what has no text stays as it is."""
    whole = Message("m", "assistant", (part, TextPart(""), ToolCall("c2", "look", {})), None, "t")
    cut = cut_to(whole, 1_000)

    assert 500 < size_of(encode_message(cut)) <= 1_000
    assert whole.parts[1:] == cut.parts[1:]
    assert type(part) is type(cut.parts[0])
    assert whole is cut_to(whole, size_of(encode_message(whole)))
    assert whole.parts[1:] == cut_to(whole, 10).parts[1:]


def row(number: int = 1) -> DisplayMessage:
    return DisplayMessage(f"r{number}", f"m{number}", "user", "text", {"text": "hi"}, "completed", NOW)


def test_transformed_when_a_middleware_hides_or_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A hidden row is asked about no further; one that fails, or is another row, is replaced by a notice."""

    def hide(given: DisplayMessage) -> DisplayMessage | None:
        return None if given.row_id == "r1" else given

    def shout(given: DisplayMessage) -> DisplayMessage | None:
        asked.append(given.row_id)
        if given.row_id == "r2":
            raise OSError("secret")
        return row(9) if given.row_id == "r3" else attrs.evolve(given, content={"text": "HI"})

    asked: list[str] = []
    with caplog.at_level(logging.CRITICAL, "trio_sagents"):
        shown = transformed([row(1), row(2), row(3), row(4)], [("hide", hide), ("shout", shout)])

    assert ["r2", "r3", "r4"] == asked == [one.row_id for one in shown]
    assert ["notification", "notification", "text"] == [one.content_type for one in shown]
    assert {"text": "HI"} == shown[2].content
    assert "secret" not in repr(shown)


# ── answers


async def test_answer_when_it_is_settled_twice() -> None:
    """The first outcome stands, for those who wait and those who come later."""
    answer, heard = Answer(), []

    async def wait() -> None:
        heard.append(await answer.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        answer.settle(Unanswered("cut"))
        answer.settle(Unanswered("crashed"))
    heard.append(await answer.wait())

    assert [Unanswered("cut")] * 3 == heard


# ── the writer


class Vault:
    """Keeps what it is asked, and does as it is told with what "c" writes, and with what "d" does."""

    def __init__(self, *does: Any, d: Any = ()) -> None:
        self.does = {"c": list(does), "d": list(d)}
        self.asked: list[Any] = []

    async def save(self, scope: Any, commit: Commit, shown: Any) -> Saved:
        self.asked.append(commit.revision)
        does = self.does[commit.conversation_id]
        done = does.pop(0) if does else Saved()
        if isinstance(done, trio.Event):
            await done.wait()
            return Saved()
        await trio.lowlevel.checkpoint()
        if isinstance(done, BaseException):
            raise done
        return done

    async def load(self, asker: Any, conversation_id: str, agent_id: str, check: Any) -> Conversation | None:
        self.asked.append("load")
        await trio.lowlevel.checkpoint()
        return None

    async def delete(self, asker: Any, conversation_id: str) -> bool:
        self.asked.append("delete")
        await trio.lowlevel.checkpoint()
        if self.does[conversation_id]:
            raise self.does[conversation_id].pop(0)
        return True

    def forget(self, conversation_id: str) -> None:
        self.asked.append("forget")


def write_of(log: list[Any], revision: int, conversation_id: str = "c") -> PendingCommit:
    return PendingCommit(
        None, commit_of(conversation_id, revision), (), lambda saved, error: log.append((revision, saved is not None, error))
    )


async def test_writer_when_a_write_fails() -> None:
    """What was submitted behind a failed write fails with its error and is not tried; what comes later is, and others do not care."""
    vault, log = Vault(error := Conflict("c", expected=(1, 1), found=None)), []
    async with trio.open_nursery() as nursery:
        writer = CommitQueue(vault, nursery)  # type: ignore[arg-type]  # a fake
        writes = [writer.submit(write_of(log, revision)) for revision in (1, 2, 3)]
        other = writer.submit(write_of(log, 7, "d"))
        assert 2 == len(writer)
        for write in writes:
            with pytest.raises(Conflict):
                await write.wait()
            assert write.has_ended
        await other.wait()
        await wait_all_tasks_blocked()
        assert 0 == len(writer)
        await writer.submit(write_of(log, 4)).wait()

    assert [1, 4] == [number for number in vault.asked if number != 7]
    assert [(1, False, error), (2, False, error), (3, False, error), (4, True, None)] == [one for one in log if one[0] != 7]


async def test_writer_when_a_load_comes_behind_writes() -> None:
    """A load and a deletion wait for all pending writes of their conversation, and for no other's; forgetting waits for nobody."""
    gate, other = trio.Event(), trio.Event()
    vault, log = Vault(gate, d=[other]), []
    async with trio.open_nursery() as nursery:
        writer = CommitQueue(vault, nursery)  # type: ignore[arg-type]  # a fake
        writer.submit(write_of(log, 1))
        writer.submit(write_of(log, 9, "d"))
        writer.submit(write_of(log, 2))
        nursery.start_soon(writer.load, None, "c", "a", lambda _: None)
        nursery.start_soon(writer.delete, None, "c")
        await wait_all_tasks_blocked()
        writer.forget("c")
        writer.forget("e")
        assert ({1, 9}, "forget") == (set(vault.asked[:2]), vault.asked[2])
        gate.set()
        await wait_all_tasks_blocked()
        assert 2 == vault.asked[3]
        assert {"load", "delete"} == set(vault.asked[4:])
        other.set()
    assert [1, 2, 9] == [number for number, *_ in log]


async def test_writer_when_it_is_ended_in_the_middle() -> None:
    """Who waits for a write that the store did not answer in time, or for one behind it, learns that; then the lane is free."""
    vault, log = Vault(trio.Event()), []
    async with trio.open_nursery() as nursery:
        writer = CommitQueue(vault, nursery)  # type: ignore[arg-type]  # a fake
        writes = [writer.submit(write_of(log, revision)) for revision in (1, 2)]
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert [1] == vault.asked
    assert [(1, False), (2, False)] == [(number, saved) for number, saved, _ in log]
    assert all("before the sessions were closed" in str(write.error) for write in writes)
    assert 0 == len(writer)


async def test_write_when_it_was_given_up() -> None:
    """Who waits is told once that nobody knows; what follows the store's answer is done when that comes; a late word changes nothing."""
    log: list[Any] = []
    write = write_of(log, 1)
    write.give_up(first := PersistenceError("nobody knows"))
    write.give_up(PersistenceError("too late"))
    with pytest.raises(PersistenceError) as caught:
        await write.wait()
    assert (first, []) == (caught.value, log)
    write.finish(Saved(), None)
    write.finish(Saved(), None)

    assert [(1, True, None)] == log
    assert write.error is None
    write.give_up(first)
    await write.wait_ended()
    await write.wait()


@pytest.mark.parametrize("error", [PersistenceError("ours"), OSError("the host's")])
async def test_writer_when_a_read_or_a_deletion_fails(error: Exception) -> None:
    """What the library raises is passed on as it is; what a host's store raises is named, with its cause."""
    vault = Vault(error)

    async def reading() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async with trio.open_nursery() as nursery:
        writer = CommitQueue(vault, nursery)  # type: ignore[arg-type]  # a fake
        for call in (writer.read(reading()), writer.delete(Asker(None), "c")):
            with pytest.raises(PersistenceError) as caught:
                await call
            if isinstance(error, PersistenceError):
                assert error is caught.value
            else:
                assert error is caught.value.__cause__
                assert "OSError" in str(caught.value)


async def test_writer_when_a_write_raises_what_is_not_ours() -> None:
    """Whatever a host's store raises, the write did not succeed; the cause is kept."""
    vault, log = Vault(error := OSError("the host's")), []
    async with trio.open_nursery() as nursery:
        writer = CommitQueue(vault, nursery)  # type: ignore[arg-type]  # a fake
        with pytest.raises(PersistenceError, match="OSError") as caught:
            await writer.submit(write_of(log, 1)).wait()

    assert error is caught.value.__cause__


# ── stores


async def test_unified_store_when_rows_are_new_or_changed() -> None:
    """Rows of messages that are new in the transcript are new, all others are changes of what stands there."""
    adapter = UnifiedStore(MemoryStore())
    saved = await adapter.save(None, commit_of(rows=(row(1), row(2), row(3))), (Message("m2", "user", (TextPart("x"),)),))

    assert (["r2"], ["r1", "r3"]) == ([one.row_id for one in saved.new], [one.row_id for one in saved.changed])


@pytest.mark.parametrize(
    ("first", "second", "same"), [(1, 1, True), (1, True, False), (1, "1", False), (None, None, True), ("a", "b", False)]
)
def test_same_owner_when_they_look_alike(first: Any, second: Any, *, same: bool) -> None:
    """Owners are the same where type and value are."""
    assert same is same_owner(first, second)


async def test_split_store_when_it_is_asked_what_a_state_store_cannot() -> None:
    """A host's `AgentPersistence` lists nothing and deletes nothing, and says what can."""
    states: Any = object()
    adapter = SplitStore(states, None)
    for call in (adapter.conversations(Asker(None), after=None, limit=1), adapter.delete(Asker(None), "c")):
        with pytest.raises(PersistenceError, match="a ConversationStore can"):
            await call


class Asked:
    """A host's store and its state in one, which keep how they were asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def commit(self, scope: Any, commit: Commit) -> int:
        self.asked.append(("commit", scope, commit))
        await trio.lowlevel.checkpoint()
        return commit.revision

    async def load_state(self, scope: Any, context: Any) -> None:
        self.asked.append(("load_state", scope, context))
        await trio.lowlevel.checkpoint()


async def test_stores_when_they_are_asked() -> None:
    """A host's store is given the scope, and a state store also who asks for what: the agent, the conversation, the owner."""
    store: Any = Asked()
    scope, commit = object(), commit_of()
    await UnifiedStore(store).save(scope, commit, ())
    assert [("commit", scope, commit)] == store.asked

    store.asked.clear()
    split = SplitStore(store, None)
    assert await split.load(Asker(scope, "alice"), "c", "agent", lambda _: None) is None
    with pytest.raises(ConversationNotFound):
        await split.history(Asker(scope, "alice"), "c", before=None, limit=1)
    assert [
        ("load_state", scope, PersistContext("agent", "c", "on_message", scope, "alice", 0, 0)),
        ("load_state", scope, PersistContext("", "c", "on_message", scope, "alice", 0, 0)),
    ] == store.asked


async def test_writer_when_it_loads() -> None:
    """A load is handed on as it was asked for."""
    asked: list[Any] = []

    class Loading(Vault):
        async def load(self, *args: Any) -> Conversation | None:
            asked.extend(args)
            await trio.lowlevel.checkpoint()
            return conversation_of("c")

    asker, check = Asker(None), asked.append
    async with trio.open_nursery() as nursery:
        writer = CommitQueue(Loading(), nursery)  # type: ignore[arg-type]  # a fake
        assert conversation_of("c") == await writer.load(asker, "c", "agent", check)

    assert [asker, "c", "agent", check] == asked


async def test_ledger_when_it_commits() -> None:
    """The first commit stores what a fresh state began with; the size is that of what is kept, and a draft stands until it is none."""
    store = MemoryStore()
    asked, answer = said(1), Message("a1", "assistant", (TextPart("hello"),), "stop", "t")
    draft = Message("d1", "assistant", (TextPart("hel"),), "crashed", "t")

    def changes() -> Any:
        yield Change(lifecycle="on_message", queued=[asked])
        yield Change(lifecycle="on_step", taken=["u1"], messages=[asked], draft=draft)
        yield Change(lifecycle="on_completion", messages=[answer], draft=None)

    states = []
    async with trio.open_nursery() as nursery:
        ledger = attrs.evolve(ledger_of(), writer=CommitQueue(UnifiedStore(store), nursery))
        await store.load(None, "c")
        ledger.epoch = 0
        ledger.seed([], [Todo(1, "look")], {"lang": "de"})
        for change in changes():
            await ledger.submit(change, lambda saved, error: None).wait()
            states.append((ledger.size, ledger.draft, len(ledger.queue)))

    one, both = size_of(encode_message(asked)), size_of(encode_message(asked)) + size_of(encode_message(answer))
    assert [(one, None, 1), (one, draft, 0), (both, None, 0)] == states
    stored = await store.load(None, "c")
    assert stored is not None
    assert {"lang": "de"} == stored.state["metadata"]
    assert [encode_todo(Todo(1, "look"))] == stored.state["todos"]
    assert stored.state.get("draft") is None


@pytest.mark.parametrize("place", range(7))
def test_row_when_one_field_is_damaged(place: int) -> None:
    """A stored row is whole, or it is a StateError: each of its fields is looked at."""
    fields = ["r1", "m1", "user", "text", '{"text": "hi"}', "completed", NOW.isoformat()]
    assert row() == decode_row("c", fields[0], fields[1:])
    for damage in (5, "x" if place > 1 and place != 3 else None):
        damaged: list[Any] = [*fields]
        damaged[place] = damage
        with pytest.raises(StateError):
            decode_row("c", damaged[0], damaged[1:])

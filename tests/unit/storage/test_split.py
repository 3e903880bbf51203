"""A host's two stores as one: what the transcript does not take is told again, and never stops the conversation."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.records import Commit, Conversation, PersistContext, StoredState, ToolUpdate
from trio_sagents.data.wire import encode_message
from trio_sagents.exceptions import ConversationNotFound, PersistenceError
from trio_sagents.storage import Asker, MemoryStates, SplitStore

ALICE = Asker("alice", "alice")


def accept(_: Conversation) -> None:
    """Look at what was loaded."""


def said(message_id: str) -> Message:
    return Message(message_id, "user", (TextPart("hi"),), turn_id="t")


def step(call_id: str, status: Any = "executing") -> ToolUpdate:
    return ToolUpdate(status, {"call_id": call_id, "name": "pay"})


@attrs.define(eq=False)
class Host:
    """A host's transcript, which does as it is told with each call, and keeps what it has taken."""

    does: Callable[[str], Any] = lambda name: None
    """Told the name of each call: a message id, or "call id:status". Raise, return something, or give a function to wait for."""
    taken: list[str] = attrs.field(factory=list)
    asked: list[str] = attrs.field(factory=list)

    async def save_message(self, scope: Any, message: Message, context: Any) -> Any:
        return await self._take(message.message_id, ())

    async def update_tool_status(self, scope: Any, status: str, tool_info: Any, context: Any) -> Any:
        return await self._take(f"{tool_info['call_id']}:{status}", None)

    async def _take(self, name: str, right: Any) -> Any:
        self.asked.append(name)
        await trio.lowlevel.checkpoint()
        does = self.does(name)
        if isinstance(does, Exception):
            raise does
        if callable(does):
            await does()
        if does is None:
            self.taken.append(name)
            return right
        return does


async def save(store: SplitStore, revision: int, messages: Sequence[str] = (), updates: Sequence[ToolUpdate] = ()) -> None:
    shown = [said(message_id) for message_id in messages]
    commit = Commit(
        conversation_id="c",
        agent_id="agent",
        owner="alice",
        epoch=1,
        revision=revision,
        lifecycle="on_step",
        messages=[encode_message(message) for message in shown],
        tool_updates=updates,
    )
    await store.save("alice", commit, shown)


async def load_again(states: Any, host: Host) -> SplitStore:
    """Load the conversation as another process would."""
    store = SplitStore(states, host)
    await store.load(ALICE, "c", "agent", accept)
    return store


FAILURES = {"raises": OSError("down"), "returns junk": {"row_id": "1"}, "hangs": trio.sleep_forever}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_save_when_the_transcript_fails(autojump_clock: Any, failure: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A message and a step that were not taken are told again with the next write, in order, before what is new."""
    host = Host(lambda name: failure)
    store = SplitStore(MemoryStates(), host)
    with caplog.at_level(logging.ERROR, "trio_sagents"):
        await save(store, 1, ["m1"], [step("1")])
    assert [] == host.taken
    assert all(record.exc_info for record in caplog.records)
    assert "Host.save_message failed for conversation 'c'; it is called again with a later write" in caplog.records[0].getMessage()

    host.does = lambda name: None
    await save(store, 2, ["m2"], [step("1", "completed")])
    assert ["m1", "m2", "1:executing", "1:completed"] == host.taken
    await save(store, 3, ["m3"])
    assert ["m3"] == host.taken[4:]


async def test_load_when_the_transcript_had_failed(autojump_clock: Any) -> None:
    """After the process died, everything that the transcript may not have is told again; afterwards only what the last write brought."""
    states, host = MemoryStates(), Host(lambda name: OSError("down"))
    await save(store := SplitStore(states, host), 1, ["m1"], [step("1")])
    await save(store, 2, ["m2"], [step("2", "failed")])
    host.does = lambda name: None
    again = await load_again(states, host)
    assert ["m1", "m2", "1:executing", "2:failed"] == host.taken

    host.taken.clear()
    await save(again, 3)
    await load_again(states, host)
    assert [] == host.taken


async def test_load_when_the_process_died_before_the_transcript_was_told() -> None:
    """A state that was stored, and whose rows were not, names them: the next load tells the transcript."""
    states, host = MemoryStates(), Host(lambda name: trio.sleep_forever)
    store = SplitStore(states, host, math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(save, store, 1, ["m1"], [step("1")])
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()  # with the state stored, and its first row not
    host.does = lambda name: None
    await load_again(states, host)

    assert ["m1", "1:executing"] == host.taken


async def test_save_when_the_transcript_stays_down(autojump_clock: Any) -> None:
    """While the transcript is down, each write tries one old message and one old step again, however many there are."""
    host = Host(lambda name: OSError("down"))
    store = SplitStore(MemoryStates(), host)
    for number in range(1, 6):
        await save(store, number, [f"m{number}"], [step(str(number))])
    host.asked.clear()
    await save(store, 6)

    assert ["m1", "1:executing"] == host.asked


async def test_load_when_one_message_is_never_taken(autojump_clock: Any) -> None:
    """One message that the transcript refuses for ever holds up no other message: at a load each of them is tried."""
    states = MemoryStates()
    host = Host(lambda name: OSError("down"))
    store = SplitStore(states, host)
    for number in (1, 2, 3):
        await save(store, number, [f"m{number}"], [step(str(number))])
    host.does = lambda name: OSError("never") if name in {"m1", "1:executing"} else None
    await load_again(states, host)

    assert ["m2", "m3", "2:executing", "3:executing"] == host.taken


async def test_save_when_a_later_step_was_told(autojump_clock: Any) -> None:
    """A step that failed is not told after a later step of the same call: the transcript would go back."""
    host = Host(lambda name: OSError("down") if name.endswith("executing") else None)
    store = SplitStore(MemoryStates(), host)
    await save(store, 1, (), [step("1")])
    await save(store, 2, (), [step("1", "completed")])
    host.does = lambda name: None
    await save(store, 3)

    assert ["1:completed"] == host.taken


@pytest.mark.parametrize("count", [1, 50])
async def test_save_when_the_transcript_hangs(autojump_clock: Any, count: int) -> None:
    """A transcript that hangs costs a write its time once, and not once for each row; the rows that it did not see stay untold."""
    host = Host(lambda name: trio.sleep_forever)
    store = SplitStore(MemoryStates(), host, 2.0)
    began = trio.current_time()
    names = [f"m{number}" for number in range(count)]
    await save(store, 1, names, [step("1")])
    assert (2.0, ["m0"]) == (trio.current_time() - began, host.asked)

    host.does = lambda name: None
    await save(store, 2)
    assert [*names, "1:executing"] == host.taken


async def test_load_when_the_transcript_hangs(autojump_clock: Any) -> None:
    """A load does not wait for a transcript that hangs longer than a write does."""
    states, host = MemoryStates(), Host(lambda name: trio.sleep_forever)
    store = SplitStore(states, host, 2.0)
    for number in (1, 2, 3):
        await save(store, number, [f"m{number}"], [step(str(number))])
    began = trio.current_time()
    await SplitStore(states, host, 2.0).load(ALICE, "c", "agent", accept)

    assert 2.0 == trio.current_time() - began


class Told(MemoryStates):
    """States with a `set_interrupted`."""

    def __init__(self, does: Callable[[], Any]) -> None:
        super().__init__()
        self.does = does
        self.heard: list[bool] = []

    async def set_interrupted(self, scope: Any, context: Any, interrupted: bool) -> None:
        self.heard.append(interrupted)
        await self.does()


class Unreadable(Told):
    """One whose `set_interrupted` cannot even be looked up."""

    @property
    def set_interrupted(self) -> Any:  # type: ignore[override]  # that is the mistake
        self.heard.append(True)
        raise RuntimeError("no such thing")


async def down() -> None:
    raise OSError("down")


@pytest.mark.parametrize(
    ("states", "seconds"), [(Told(trio.sleep_forever), 2.0), (Told(down), 0.0), (Unreadable(down), 0.0)], ids=["hangs", "raises", "odd"]
)
async def test_set_interrupted_when_it_fails(autojump_clock: Any, states: Told, seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    """A `set_interrupted` that fails is logged and called again with the next write; both writes succeed, and do not wait for ever."""
    store = SplitStore(states, None, 2.0)
    began = trio.current_time()
    with caplog.at_level(logging.ERROR, "trio_sagents"):
        for revision in (1, 2):
            await store.save(
                None,
                Commit(
                    conversation_id="c",
                    agent_id="a",
                    owner=None,
                    epoch=1,
                    revision=revision,
                    lifecycle="on_interrupt",
                    state={"interrupt": {"x": 1}},
                ),
                (),
            )

    assert ([True, True], 2 * seconds) == (states.heard, trio.current_time() - began)
    assert [f"{type(states).__name__}.set_interrupted failed"] * 2 == [" ".join(one.getMessage().split()[:2]) for one in caplog.records]


async def test_persist_state_when_the_host_keeps_the_very_object(autojump_clock: Any) -> None:
    """What a host was given does not change afterwards, though the transcript takes what is marked in it."""
    kept: list[Any] = []

    class States(MemoryStates):
        async def persist_state(self, scope: Any, state_data: Any, context: Any) -> None:
            kept.append(state_data)
            await super().persist_state(scope, state_data, context)

    await save(SplitStore(States(), Host()), 1, ["m1"], [step("1")])

    assert [True] == [record.get("unsaved") for record in kept[0]["messages"]]


async def test_load_when_a_stranger_asks() -> None:
    """A stranger's load drops nothing that is kept for the owner's agent, and tells the host nothing."""
    states, host = MemoryStates(), Host(lambda name: OSError("down"))
    store = SplitStore(states, host)
    await save(store, 1, ["m1"])
    host.asked.clear()
    with pytest.raises(ConversationNotFound):
        await store.load(Asker("bob", "bob"), "c", "agent", accept)

    assert (["c"], []) == (list(store._kept), host.asked)


@pytest.mark.parametrize("stored", [{}, [], StoredState({}, None, "1", 1), StoredState({}, True, 1, 1)], ids=repr)
async def test_load_state_when_it_returns_junk(stored: Any) -> None:
    """What `load_state` returns is checked wherever it is asked: a start, a page of the history, a probe."""

    class States(MemoryStates):
        async def load_state(self, scope: Any, context: Any) -> Any:
            return stored

    store = SplitStore(States(), None)
    for call in (
        lambda: store.load(ALICE, "c", "agent", accept),
        lambda: store.exists(ALICE, "c"),
        lambda: store.history(ALICE, "c", before=None, limit=1),
    ):
        with pytest.raises(PersistenceError, match=r"States\.load_state"):
            await call()


# ── what the host's stores are told


def commit_of(revision: int = 1, epoch: int = 1, **parts: Any) -> Commit:
    first = Commit(
        conversation_id="c", agent_id="agent", owner="alice", epoch=epoch, revision=revision, lifecycle="on_step", actor="an actor"
    )
    return attrs.evolve(first, **parts)


class Both:
    """States and transcript in one, which note what they were asked; `rows_fail` says whether the transcript fails."""

    def __init__(self, stored: StoredState | None = None) -> None:
        self.stored = stored
        self.rows_fail = False
        self.asked: list[tuple[Any, ...]] = []

    async def load_state(self, scope: Any, context: Any) -> StoredState | None:
        self.asked.append(("load_state", scope, context))
        await trio.lowlevel.checkpoint()
        return self.stored

    async def persist_state(self, scope: Any, state_data: Any, context: Any) -> None:
        self.asked.append(("persist_state", scope, context))
        await trio.lowlevel.checkpoint()
        self.stored = StoredState(state_data, context.owner, context.epoch, context.revision)

    async def set_interrupted(self, scope: Any, context: Any, interrupted: bool) -> None:
        self.asked.append(("set_interrupted", scope, context, interrupted))
        await trio.lowlevel.checkpoint()

    async def save_message(self, scope: Any, message: Message, context: Any) -> Any:
        self.asked.append(("save_message", scope, message.message_id, context))
        await trio.lowlevel.checkpoint()
        if self.rows_fail:
            raise OSError("the transcript is down")
        return []

    async def update_tool_status(self, scope: Any, status: str, tool_info: Any, context: Any) -> None:
        self.asked.append(("update_tool_status", scope, status, tool_info, context))
        await trio.lowlevel.checkpoint()


async def test_save_when_both_stores_are_told() -> None:
    """State and transcript are told the scope and which commit it is: who owns it, who caused it, and the numbers that it establishes."""
    host: Any = Both()
    info = {"call_id": "c1", "name": "pay"}
    commit = commit_of(
        5, 3, messages=[encode_message(said("u1"))], state={"interrupt": {"any": 1}}, tool_updates=[ToolUpdate("executing", info)]
    )
    await SplitStore(host, host).save("alice", commit, [said("u1")])

    context = PersistContext("agent", "c", "on_step", "an actor", "alice", 3, 5)
    assert [
        ("persist_state", "alice", context),
        ("set_interrupted", "alice", context, True),
        ("save_message", "alice", "u1", context),
        ("update_tool_status", "alice", "executing", info, context),
    ] == host.asked


async def test_load_when_the_host_is_told_again() -> None:
    """What the host is told again at a load names the state as it is: its owner, its revision, and the epoch that begins."""
    host: Any = Both()
    host.rows_fail = True
    first = SplitStore(host, host)
    await first.save("alice", commit_of(messages=[encode_message(said("u1"))], state={"interrupt": {"any": 1}}), [said("u1")])
    host.rows_fail = False
    host.asked.clear()
    seen: list[Any] = []
    found = await SplitStore(host, host).load(Asker("alice"), "c", "agent", seen.append)

    assert [found] == seen
    assert found is not None
    assert (2, 1, "alice") == (found.epoch, found.revision, found.owner)
    context = PersistContext("agent", "c", "on_message", "alice", "alice", 2, 1)
    assert [
        ("load_state", "alice", attrs.evolve(context, owner=None, epoch=0, revision=0)),
        ("set_interrupted", "alice", context, True),
        ("save_message", "alice", "u1", context),
    ] == host.asked


async def test_load_when_metadata_have_changed() -> None:
    """The metadata and the todos are those of the last commit that had them; they come back as they were given."""
    host: Any = Both()
    store = SplitStore(host, None)
    for revision, state in enumerate(({"metadata": {"title": "one"}, "todos": []}, {"metadata": {"title": "two"}}, {}), start=1):
        await store.save("alice", commit_of(revision, state=state), ())
    found = await SplitStore(host, None).load(ALICE, "c", "agent", accept)

    assert found is not None
    assert ({"title": "two"}, []) == (found.state["metadata"], found.state["todos"])


async def test_load_when_owners_are_not_compared() -> None:
    """If owners are not compared, the host is told no owner, neither at a load nor for a page."""
    host: Any = Both()
    await SplitStore(host, None).save("alice", commit_of(), ())
    host.asked.clear()
    store, anybody = SplitStore(host, None), Asker("alice")
    await store.load(anybody, "c", "agent", accept)
    await store.history(anybody, "c", before=None, limit=1)

    assert [None, None] == [context.owner for _, _, context in host.asked]


async def test_conversations_when_the_states_cannot_list() -> None:
    """A host's `AgentPersistence` lists nothing and deletes nothing; the error says what can."""
    states: Any = object()
    adapter = SplitStore(states, None)
    for call in (adapter.conversations(Asker(None), after=None, limit=1), adapter.delete(Asker(None), "c")):
        with pytest.raises(PersistenceError, match="a ConversationStore can"):
            await call

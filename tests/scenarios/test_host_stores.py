"""A host's own AgentPersistence and DisplayMessagePersistence: plain dicts, that fail."""

import gc
import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.payments import Purse, decide, interrupt_of, paying
from tests.support.scenarios import (
    NOW,
    DictRows,
    DictStates,
    FaultyStore,
    answer_to,
    ask,
    make_agent,
    make_config,
    of_kind,
    opened,
    read_all,
    read_until,
    state_of,
    transcript,
)
from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    Commit,
    Completed,
    Conflict,
    ConversationNotFound,
    DisplayMessage,
    DisplayMessageSaved,
    DisplayMessageUpdated,
    Failed,
    Interrupted,
    MessageCompleted,
    PersistenceError,
    SameScope,
    StartFailed,
    StateError,
    StateFromFuture,
    StoredState,
    ToolContext,
    TurnEnded,
    open_sessions,
)
from trio_sagents.testing import Call, Hang, ScriptedModel


async def look() -> str:
    """Look."""
    return "seen"


async def test_state_data_is_whole_snapshots_of_plain_json(autojump_clock: Any) -> None:
    """state_data = {version, messages, queue, todos, metadata, interrupt}: plain JSON with string keys, whole snapshots."""
    states = DictStates()
    async with opened(make_agent(["a", Call("x")], "b"), agent_persistence=states) as sessions:
        await answer_to(sessions)

    for _, data, context in states.saves:
        assert {"version", "messages", "queue", "todos", "metadata", "interrupt"} == set(data)
        assert data == json.loads(json.dumps(data, allow_nan=False))
        assert ("conversation-c", "c") == (context.agent_id, context.conversation_id)
    assert [1, 4] == [len(states.saves[0][1]["messages"]), len(states.saves[-1][1]["messages"])]
    assert {0} == {len(data["queue"]) for _, data, _ in states.saves}


async def test_contexts(autojump_clock: Any) -> None:
    """The context has actor, owner, lifecycle, and the epoch and revision that the write establishes."""
    states = DictStates()
    async with opened(agent_persistence=states, authorizer=SameScope(lambda scope: scope[0])) as sessions:
        await answer_to(sessions, scope=("alice", 1))
        await sessions.stop("c", scope=("alice", 1))
        await answer_to(sessions, scope=("alice", 2))
    contexts = [context for _, _, context in states.saves]

    assert {"alice"} == {context.owner for context in contexts}
    assert list(range(1, len(contexts) + 1)) == [context.revision for context in contexts]
    assert sorted(context.epoch for context in contexts) == [context.epoch for context in contexts]
    assert 2 == len({context.epoch for context in contexts})
    assert {("alice", 1), ("alice", 2)} == {context.actor for context in contexts}
    assert {"on_message", "on_completion"} == {context.lifecycle for context in contexts}
    assert ("alice", 2) == states.saves[-1][0]


async def test_stop_then_start_restores(autojump_clock: Any) -> None:
    """A host's own store restores as ours does."""
    states, rows = DictStates(), DictRows()
    async with opened(agent_persistence=states, display_message_persistence=rows) as sessions:
        await answer_to(sessions, "one")
        await sessions.stop("c")
        await answer_to(sessions, "two")
        assert ["one", "re: one", "two", "re: two"] == [text for _, text, _ in await transcript(sessions)]

    assert ["one", "re: one", "two", "re: two"] == [row.content["text"] for row in rows.rows.values()]


async def test_none_starts_fresh_and_anything_else_stops_the_start(autojump_clock: Any) -> None:
    """load_state -> None starts fresh; any other trouble stops the start and leaves the row alone."""
    states = DictStates()
    async with opened(agent_persistence=states) as sessions:
        await answer_to(sessions, "one")
        await sessions.stop("c")
        before = json.dumps(states.rows["c"].data)
        states.faults.fail("load_state", error=ConnectionError("down"))
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

        assert "load" == caught.value.stage
        assert before == json.dumps(states.rows["c"].data)
        assert 2 == len((await state_of(sessions)).messages)


DAMAGES: dict[str, Any] = {
    "not a mapping": lambda data: [],
    "no version": lambda data: {key: value for key, value in data.items() if key != "version"},
    "version of a wrong type": lambda data: {**data, "version": "1"},
    "version true": lambda data: {**data, "version": True},
    "a key too many": lambda data: {**data, "extra": 1},
    "a key too few": lambda data: {key: value for key, value in data.items() if key != "todos"},
    "messages no list": lambda data: {**data, "messages": {}},
    "a message that is none": lambda data: {**data, "messages": [1]},
    "a role that is none": lambda data: {**data, "messages": [{**data["messages"][0], "role": "admin"}]},
    "a part that is none": lambda data: {**data, "messages": [{**data["messages"][0], "parts": [{"type": "eval", "text": "x"}]}]},
    "a coerced text": lambda data: {**data, "messages": [{**data["messages"][0], "message_id": 42}]},
    "a message twice": lambda data: {**data, "messages": data["messages"] * 2},
    "todos of a wrong type": lambda data: {**data, "todos": "buy milk"},
    "metadata of a wrong type": lambda data: {**data, "metadata": []},
    "an interrupt that is none": lambda data: {**data, "interrupt": {"x": 1}},
    "nothing": lambda data: None,
}


@pytest.mark.parametrize("damage", list(DAMAGES))
async def test_damaged_rows(autojump_clock: Any, damage: str) -> None:
    """A damaged row gives StateError naming the conversation, and stays as it is; nothing is coerced."""
    states = DictStates()
    async with opened(agent_persistence=states) as sessions:
        await answer_to(sessions)
    row = states.rows["c"]
    states.rows["c"] = StoredState(DAMAGES[damage](row.data), row.owner, row.epoch, row.revision)
    before, saves = repr(states.rows["c"]), len(states.saves)
    async with opened(agent_persistence=states) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

        assert isinstance(caught.value.__cause__, StateError)
        assert "'c'" in str(caught.value.__cause__)
    assert before == repr(states.rows["c"])
    assert saves == len(states.saves)


async def test_rows_from_the_future(autojump_clock: Any) -> None:
    """An unknown future version gives StateFromFuture, and leaves the row as it is."""
    states = DictStates()
    async with opened(agent_persistence=states) as sessions:
        await answer_to(sessions)
    row = states.rows["c"]
    states.rows["c"] = StoredState({**row.data, "version": 99, "new": 1}, row.owner, row.epoch, row.revision)
    async with opened(agent_persistence=states) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

        assert isinstance(caught.value.__cause__, StateFromFuture)
        assert "99" in str(caught.value.__cause__)


@pytest.mark.parametrize("value", [{"data": {}}, "text", ({}, None, 1, 1)], ids=repr)
async def test_load_state_that_returns_something_else(autojump_clock: Any, value: Any) -> None:
    """A load_state that returns no StoredState stops the start with an error that says so."""
    states = DictStates()

    async def load_state(scope: Any, context: Any) -> Any:
        return value

    states.load_state = load_state  # type: ignore[method-assign]  # that is the mistake
    async with opened(agent_persistence=states) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

    assert "DictStates.load_state must return a StoredState" in str(caught.value.__cause__)


async def test_owner_is_kept_beside_the_state(autojump_clock: Any) -> None:
    """A store keeps context.owner beside the state, and a stranger's boot ends untouched, like absence."""
    states = DictStates()
    async with opened(agent_persistence=states) as sessions:
        await answer_to(sessions, scope="alice")
        await sessions.stop("c", scope="alice")
        before = repr(states.rows)
        with pytest.raises(ConversationNotFound, match="no conversation 'c'"):
            await sessions.start("c", scope="bob")
        with pytest.raises(ConversationNotFound, match="no conversation 'c'"):
            await sessions.history("c", scope="bob")

    assert "alice" == states.rows["c"].owner
    assert before == repr(states.rows)


async def test_row_that_fails_never_suppresses_the_live_event(autojump_clock: Any) -> None:
    """A failed row never suppresses the live event: viewers see the message, the turn completes."""
    states, rows = DictStates(), DictRows()
    rows.faults.every["save_message"] = OSError("the transcript is down")
    async with opened(agent_persistence=states, display_message_persistence=rows) as sessions, sessions.watch("c") as watch:
        assert "re: hi" == await answer_to(sessions)
        seen = await read_until(watch, TurnEnded)

        assert ["user", "assistant"] == [event.message.role for event in of_kind(seen, MessageCompleted)]


async def test_rows_are_offered_again_at_the_next_load(autojump_clock: Any) -> None:
    """State first, then rows with deterministic ids, idempotent, offered again at the next load."""
    states, rows = DictStates(), DictRows()
    rows.faults.every["save_message"] = OSError("the transcript is down")
    async with opened(agent_persistence=states, display_message_persistence=rows) as sessions:
        await answer_to(sessions, "hi", message_id="m1")
    assert {} == rows.rows
    rows.faults.every.clear()
    async with opened(agent_persistence=states, display_message_persistence=rows) as sessions:
        await sessions.start("c")
        assert ["hi", "re: hi"] == [row.content["text"] for row in rows.rows.values()]
        assert "row:m1" in rows.rows


async def test_rows_whose_state_failed_are_not_written(autojump_clock: Any) -> None:
    """The state is stored first: if it could not be stored, no row appears."""
    states, rows = DictStates(), DictRows()
    states.faults.every["persist_state"] = OSError("down")
    async with opened(agent_persistence=states, display_message_persistence=rows) as sessions:
        with pytest.raises(PersistenceError):
            await sessions.post("c", "hi")

    assert {} == rows.rows


async def test_rows_go_out_as_the_host_returned_them(autojump_clock: Any) -> None:
    """DisplayMessageSaved carries the host's own row."""
    states, rows = DictStates(), DictRows()
    async with opened(agent_persistence=states, display_message_persistence=rows) as sessions, sessions.watch("c") as watch:
        await sessions.post("c", "hi", message_id="m1")
        seen = await read_until(watch, TurnEnded)

        assert ["row:m1"] == [event.row.row_id for event in of_kind(seen, DisplayMessageSaved)][:1]


async def test_tool_statuses_reach_the_transcript(autojump_clock: Any) -> None:
    """update_tool_status is called when a call executes and when it has ended, with its id."""

    async def tool() -> str:
        """Do."""
        return "fact"

    states, rows = DictStates(), DictRows()
    agent = make_agent(["a", Call("tool"), Call("nothing")], "b", tools=[tool])
    async with opened(agent, agent_persistence=states, display_message_persistence=rows) as sessions:
        await answer_to(sessions)
    by_call: dict[str, list[str]] = {}
    for status, info in rows.statuses:
        by_call.setdefault(info["name"], []).append(status)

    assert {"tool": ["executing", "completed"], "nothing": ["executing", "failed"]} == by_call
    assert all(info["call_id"] for _, info in rows.statuses)


async def test_tool_status_that_fails_harms_nothing(autojump_clock: Any) -> None:
    """A failing update_tool_status neither stops the turn nor the agent."""
    states, rows = DictStates(), DictRows()
    rows.faults.every["update_tool_status"] = OSError("down")
    async with opened(make_agent(Call("x"), "b"), agent_persistence=states, display_message_persistence=rows) as sessions:
        assert "b" == await answer_to(sessions)


async def nop() -> str:
    """Do nothing."""
    return "ok"


@pytest.mark.parametrize("n", [1, 2])
async def test_tool_status_that_failed_once_is_told_again(autojump_clock: Any, n: int) -> None:
    """Whichever update fails, the transcript hears of it with the next write, in the order in which it happened."""
    states, rows, taken = DictStates(), DictRows(), []

    async def update_tool_status(scope: Any, status: str, tool_info: Any, context: Any) -> None:
        await rows.faults.call("update_tool_status", lambda: taken.append((status, tool_info)))

    rows.update_tool_status = update_tool_status  # type: ignore[method-assign]  # keeps what it has taken
    rows.faults.fail("update_tool_status", n=n)
    agent = make_agent(["a", Call("nop")], "b", tools=[nop])
    async with opened(agent, agent_persistence=states, display_message_persistence=rows) as sessions:
        await answer_to(sessions)

    assert [("executing", "arguments"), ("completed", "result")] == [
        (status, next(key for key in info if key not in {"call_id", "name"})) for status, info in taken
    ]


async def test_tool_status_that_failed_is_told_again_after_a_restart(autojump_clock: Any) -> None:
    """The last updates of a turn that failed are told when the conversation is next loaded, by another process."""
    states, rows = DictStates(), DictRows()
    rows.faults.every["update_tool_status"] = OSError("down")
    agent = make_agent(["a", Call("nop")], "b", tools=[nop])
    async with opened(agent, agent_persistence=states, display_message_persistence=rows) as sessions:
        await answer_to(sessions)
    rows.faults.every.clear()
    rows.statuses.clear()
    async with opened(agent_persistence=states, display_message_persistence=rows) as sessions:
        await sessions.start("c")

    assert ["executing", "completed"] == [status for status, _ in rows.statuses]


async def test_transcript_alone(autojump_clock: Any) -> None:
    """Only the router is required: a transcript without a store of states has the states kept in memory, for the block."""
    rows = DictRows()
    async with opened(display_message_persistence=rows) as sessions:
        assert "re: one" == await answer_to(sessions, "one")
        await sessions.stop("c")
        assert "re: two" == await answer_to(sessions, "two")
        assert 4 == len((await sessions.history("c")).rows)
        assert ["c"] == [item.conversation_id for item in (await sessions.conversations()).items]
        await sessions.stop("c")
        assert await sessions.delete("c")
        with pytest.raises(ConversationNotFound):
            await sessions.history("c")

    assert ["one", "re: one", "two", "re: two"] == [row.content["text"] for row in rows.rows.values()]


async def test_transcript_that_hangs_lets_the_conversation_go_on(autojump_clock: Any) -> None:
    """A transcript that hangs stops no conversation: each write waits for it at most half of `settle_timeout`."""
    rows = DictRows()
    rows.faults.latency["save_message"] = 1e9
    async with opened(display_message_persistence=rows, policy={"settle_timeout": 4.0}) as sessions:
        began = trio.current_time()
        assert "re: hi" == await answer_to(sessions)

        assert trio.current_time() - began <= 3 * 2.0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("n", range(1, 5))
async def test_state_store_that_fails_at_every_write(autojump_clock: Any, n: int, after: bool) -> None:
    """Whichever whole snapshot fails, before or after its effect, nothing is lost that was acknowledged, and nothing doubled."""
    states = DictStates()
    async with opened(make_agent(*["ok"] * 10), agent_persistence=states) as sessions:
        states.faults.fail("persist_state", n=n, after=after)
        for text in ("a", "b"):
            for _ in range(3):
                try:
                    await ask(sessions, text, message_id=text)
                    break
                except PersistenceError:
                    await trio.sleep(1)
    async with opened(make_agent("fine"), agent_persistence=states) as sessions:
        assert "fine" == await answer_to(sessions, "last")
        ids = [message.message_id for message in (await state_of(sessions)).messages]

        assert len(set(ids)) == len(ids)
        assert {"a", "b"} <= set(ids)


async def test_crash_in_mid_answer(autojump_clock: Any) -> None:
    """A draft in a host's own store becomes the marked partial message, too; its queue runs at boot."""
    import copy

    states = DictStates()
    async with opened(make_agent(["partial", Hang()]), agent_persistence=states) as sessions:
        await sessions.post("c", "one")
        await trio.sleep(5)
        await sessions.post("c", "two")
        image = copy.deepcopy(states.rows)
        await sessions.stop("c")
    again = DictStates()
    again.rows = image
    async with opened(make_agent("answer"), agent_persistence=again) as sessions:
        await (await sessions.start("c")).agent.wait_idle()

        assert [("user", "one", None), ("assistant", "partial", "crashed"), ("user", "two", None), ("assistant", "answer", "stop")] == (
            await transcript(sessions)
        )


async def test_message_id_across_a_restart(autojump_clock: Any) -> None:
    """message_id is unique for ever with a host's own store, too: it is found in the messages."""
    states = DictStates()
    async with opened(agent_persistence=states) as sessions:
        await ask(sessions, "hi", message_id="m1")
    async with opened(agent_persistence=states) as sessions:
        again = await sessions.post("c", "hi", message_id="m1")

        assert again.duplicate
        assert isinstance(await again.wait(), Completed)
        assert ["hi", "re: hi"] == [text for _, text, _ in await transcript(sessions)]


async def test_conflict_of_a_hosts_store(autojump_clock: Any) -> None:
    """A host's store that refuses by compare-and-set fences the old agent."""
    states = DictStates()
    config = make_config(agent_persistence=states)
    async with open_sessions(config) as one, open_sessions(config) as two:
        await answer_to(one, "one")
        await answer_to(two, "two")
        with pytest.raises(Conflict):
            await one.post("c", "three")

        assert "re: four" == await answer_to(one, "four")
        assert ["one", "two", "four"] == [text for role, text, _ in await transcript(one) if role == "user"]


class Both(FaultyStore):
    """One object for both keys."""

    async def load_state(self, *_: Any) -> Any:
        raise AssertionError("the flat path is used")

    persist_state = save_message = update_tool_status = load_state


async def test_one_object_for_both_keys_is_one_unit(autojump_clock: Any) -> None:
    """If one object serves both keys, each commit is one transaction."""
    both = Both()
    async with opened(agent_persistence=both, display_message_persistence=both) as sessions:
        assert "re: hi" == await answer_to(sessions)

    assert all(isinstance(commit, Commit) for commit in both.commits)
    assert both.commits


def test_configs_that_cannot_be() -> None:
    """A store beside a persistence is a contradiction, and is refused when the config is built."""
    with pytest.raises(ValueError, match="store"):
        make_config(store=FaultyStore(), agent_persistence=DictStates())
    with pytest.raises(TypeError, match="agent_persistence"):
        make_config(agent_persistence=object())
    with pytest.raises(TypeError, match="display_message_persistence"):
        make_config(agent_persistence=DictStates(), display_message_persistence=object())


async def result_of_first_use(**settings: Any) -> BaseException:
    """Return the first error that using it gives, innermost cause first."""
    async with opened(make_agent(Call("x"), "b"), **settings) as sessions:
        try:
            outcome = await ask(sessions)
        except (StartFailed, PersistenceError, TypeError) as exc:
            error: BaseException = exc
        else:
            error = outcome.error
        while not isinstance(error, TypeError) and error.__cause__ is not None:
            error = error.__cause__
        return error


def plain(method: str) -> Any:
    """Return a plain function of that name."""

    def function(*_: Any, **__: Any) -> None:
        return None

    function.__name__, function.__qualname__ = method, f"Store.{method}"
    return function


@pytest.mark.parametrize("method", ["load_state", "persist_state"])
async def test_sync_methods_of_a_state_store(autojump_clock: Any, method: str) -> None:
    """A plain function in place of an async one is a TypeError at first use, and names the function."""
    states = DictStates()
    setattr(states, method, plain(method))
    error = await result_of_first_use(agent_persistence=states)

    assert isinstance(error, TypeError)
    assert method in str(error)


@pytest.mark.parametrize("method", ["load", "commit", "history", "conversations", "delete"])
async def test_sync_methods_of_a_store(autojump_clock: Any, method: str) -> None:
    """A plain function in place of an async one is a TypeError at first use, and names the function."""
    store = FaultyStore()
    setattr(store, method, plain(method))
    if method != "delete":  # a start asks who owns the conversation
        error = await result_of_first_use(store=store)
    else:
        async with opened(store=store) as sessions:
            await answer_to(sessions)
            await sessions.stop("c")
            with pytest.raises((TypeError, PersistenceError)) as caught:
                await sessions.delete("c")
            error = caught.value
            while not isinstance(error, TypeError) and error.__cause__ is not None:
                error = error.__cause__

    assert isinstance(error, TypeError)
    assert method in str(error)


async def test_host_that_keeps_the_very_object(autojump_clock: Any) -> None:
    """A host may keep state_data as it was given, and give it back: it is whole, and restores."""
    states, rows = DictStates(), DictRows()

    async def persist_state(scope: Any, state_data: Mapping[str, Any], context: Any) -> None:
        states.rows[context.conversation_id] = StoredState(state_data, context.owner, context.epoch, context.revision)

    states.persist_state = persist_state  # type: ignore[method-assign]  # the simplest store there is
    async with opened(make_agent(["a", Call("x")], "b", "c"), agent_persistence=states, display_message_persistence=rows) as sessions:
        await answer_to(sessions, "one")
        kept = states.rows["c"].data
        before = json.dumps(kept)
        await answer_to(sessions, "two")
        assert before == json.dumps(kept)
        await sessions.stop("c")

        assert ["one", "a", "two", "c"] == [text for role, text, _ in await transcript(sessions) if role != "tool" and text != "b"]


async def test_rows_that_are_told_are_those_of_the_history(autojump_clock: Any) -> None:
    """A viewer who takes each row that is saved or updated has the transcript that `history` gives."""
    gate = Approvals({"look": True})
    agent = make_agent(["a", Call("look")], "b", tools=[look], middleware=[gate])
    async with opened(agent) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        waiting = await ask(sessions)
        assert isinstance(waiting, Interrupted)
        receipt = await sessions.resume("c", [Approve(waiting.interrupt.calls[0])])
        assert isinstance(await receipt.wait(), Completed)
        seen = of_kind(await read_all(subscriber), DisplayMessageSaved, DisplayMessageUpdated)
        page = await sessions.history("c")

    assert {DisplayMessageSaved, DisplayMessageUpdated} == {type(event) for event in seen}
    assert list(page.rows) == list({event.row.row_id: event.row for event in seen}.values())


async def test_status_of_calls_that_the_next_turn_closes(autojump_clock: Any) -> None:
    """A call whose result could not be saved is closed by the next turn, and the host's own transcript is told how it ended."""
    states, rows = DictStates(), DictRows()
    async with opened(make_agent(Call("look"), "b", tools=[look]), agent_persistence=states, display_message_persistence=rows) as sessions:
        states.faults.fail("persist_state", 3)  # the message, its answer; then the result
        assert isinstance(await ask(sessions), Failed)
        rows.statuses.clear()
        assert "b" == await answer_to(sessions, "go on")

    assert [("unknown", "look")] == [(status, about["name"]) for status, about in rows.statuses]


async def test_documents_of_agents_that_have_ended(autojump_clock: Any) -> None:
    """R16: with an AgentPersistence, nothing of a conversation stays in memory when its agent has ended."""

    class Forgetful(DictStates):
        async def persist_state(self, scope: Any, state_data: Any, context: Any) -> None: ...

    async with opened(make_agent("ok"), agent_persistence=Forgetful()) as sessions:
        await ask(sessions, message_id="a name of its own")
        await sessions.stop("c")
        gc.collect()

        assert [] == [item for item in gc.get_objects() if isinstance(item, dict) and item.get("message_id") == "a name of its own"]


@pytest.mark.parametrize("before", ["-2", " 3 ", "1_0", 3], ids=repr)
async def test_split_history_with_a_cursor_that_is_none(autojump_clock: Any, before: Any) -> None:
    """R29: with an AgentPersistence, too, a cursor that history() did not give is refused."""
    async with opened(agent_persistence=DictStates()) as sessions:
        for index in range(4):
            await ask(sessions, str(index))
        page = await sessions.history("c", limit=3)
        assert 3 == len((await sessions.history("c", limit=3, before=page.before)).rows)
        with pytest.raises((TypeError, ValueError)):
            await sessions.history("c", limit=3, before=before)


async def test_metadata_with_keys_that_are_no_strings(autojump_clock: Any) -> None:
    """A host's store gets plain JSON."""
    states = DictStates()

    async def note(context: ToolContext) -> str:
        """Note."""
        await context.update(metadata={"n": {3: 4}})
        return "noted"

    agent = Agent(model=ScriptedModel([Call("note"), "end"]), tools=[note])
    async with opened(agent, agent_persistence=states, display_message_persistence=DictRows()) as sessions:
        await ask(sessions)

    assert all(json.loads(json.dumps(data)) == data for _, data, _ in states.saves)


class Flagging(DictStates):
    """Fails to keep the flag at its n-th call."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    async def set_interrupted(self, scope: Any, context: Any, interrupted: bool) -> None:
        self.n -= 1
        if not self.n:
            raise OSError("no")
        await super().set_interrupted(scope, context, interrupted)


@pytest.mark.parametrize("n", [1, 2])
async def test_flag_that_cannot_be_kept_harms_nothing(autojump_clock: Any, n: int) -> None:
    """`set_interrupted` is a hint for the host's lists: the state beside it was kept, and counts."""
    purse, states = Purse(), Flagging(n)
    async with opened(paying(purse), agent_persistence=states, display_message_persistence=DictRows()) as sessions:
        interrupt = await interrupt_of(sessions)
        await decide(sessions, Approve(interrupt.calls[0]))
        assert isinstance(await ask(sessions, "again"), Completed)

    assert [1] == purse.paid
    assert states.interrupted[-1:] != [True]


@pytest.mark.parametrize("n", range(1, 9))
async def test_flag_is_that_of_the_stored_state(autojump_clock: Any, n: int) -> None:
    """Whichever save fails: `set_interrupted` has said what the stored state says, and nothing is paid twice."""
    purse, states = Purse(), DictStates()
    states.faults.fail("persist_state", n)
    async with opened(paying(purse), agent_persistence=states, display_message_persistence=DictRows()) as sessions:
        try:
            outcome = await ask(sessions)
            if isinstance(outcome, Interrupted):
                await decide(sessions, Approve(outcome.interrupt.calls[0]))
        except PersistenceError:
            assert [] == purse.paid
        stored = states.rows["c"].data["interrupt"] if "c" in states.rows else None

        assert bool(stored) == (states.interrupted[-1:] == [True])
    for _, data, _ in states.saves:
        assert set(data) == {"version", "messages", "queue", "todos", "metadata", "interrupt"}
        json.dumps(data)


async def _other() -> str:
    """Shield as well: which of the two begins is Trio's to say."""
    with trio.CancelScope(shield=True):
        await trio.sleep(50)
    return "done"


class Steps(DictRows):
    """A host's transcript with a row for each step of a call."""

    async def update_tool_status(self, scope: Any, status: Any, tool_info: Any, context: Any) -> DisplayMessage | None:
        await super().update_tool_status(scope, status, tool_info, context)
        if status == "executing":
            return None
        return DisplayMessage("call", "m", "tool", "tool_call", {"name": tool_info["name"]}, status, NOW)


async def test_row_that_a_host_changes_with_a_call(autojump_clock: Any) -> None:
    """A row that a host's own transcript gives back for the step of a call is told to viewers as changed."""
    rows = Steps()
    agent = make_agent(Call("_other"), "done", tools=[_other])
    async with opened(agent, agent_persistence=DictStates(), display_message_persistence=rows) as sessions, sessions.watch("c") as watch:
        assert isinstance(await ask(sessions), Completed)
        changed = of_kind(await read_all(watch), DisplayMessageUpdated)

    assert ["executing", "completed"] == [status for status, _ in rows.statuses]
    assert [("call", "completed")] == [(event.row.row_id, event.row.status) for event in changed]

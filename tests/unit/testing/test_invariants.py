"""The invariants accept what is right, and name what is wrong: a check that cannot fail is useless."""

from typing import Any

import pytest
import trio

from trio_sagents import Agent, Commit, Message, SessionConfig, SingleFactoryRouter, TextPart, ToolCall, ToolResultPart, open_sessions
from trio_sagents.data.records import Conversation
from trio_sagents.data.wire import encode_message
from trio_sagents.testing import Hang, ScriptedModel, Violation
from trio_sagents.testing.invariants import (
    CommitLog,
    check_closed,
    check_conversation,
    check_messages,
    check_told,
    no_task_left,
)


def user(message_id: str, turn_id: str | None = "t1") -> Message:
    """Return what a person says."""
    return Message(message_id, "user", (TextPart("hello"),), None, turn_id)


def answer(message_id: str, turn_id: str = "t1") -> Message:
    """Return an answer."""
    return Message(message_id, "assistant", (TextPart("hello"),), "stop", turn_id)


def call(message_id: str, *call_ids: str, turn_id: str = "t1") -> Message:
    """Return an answer that asks for tools."""
    return Message(message_id, "assistant", tuple(ToolCall(identifier, "note") for identifier in call_ids), "tool_calls", turn_id)


def result(message_id: str, call_id: str, turn_id: str = "t1") -> Message:
    """Return the result of a call."""
    return Message(message_id, "tool", (ToolResultPart(call_id, "note", "done"),), None, turn_id)


WHOLE = [user("u"), call("a", "1", "2"), result("r", "2"), result("s", "1"), answer("z")]


def test_messages_when_all_is_well() -> None:
    """A history as it should be passes."""
    check_messages([])
    check_messages(WHOLE)
    check_messages([*WHOLE, user("u2", "t2"), answer("z2", "t2")])
    check_messages(WHOLE[:3], is_whole=False)


@pytest.mark.parametrize(
    ("invariant", "messages"),
    [
        ("I8", [user("u"), user("u"), answer("z")]),
        ("I9", [user("u"), answer("z"), user("v", "t2"), answer("y", "t2"), answer("x", "t1")]),
        ("I8", [user("u"), call("a", "1"), answer("z")]),
        ("I8", [user("u"), call("a", "1"), result("r", "1"), result("s", "1"), answer("z")]),
        ("I8", [user("u"), result("r", "1"), answer("z")]),
        ("I8", [user("u"), call("a", "1"), result("r", "1"), call("b", "1"), result("s", "1"), answer("z")]),
        ("I8", [user("u"), call("a", "1")]),
        ("I14", [user("u")]),
        ("I14", WHOLE[:4]),
    ],
)
def test_messages_when_something_is_wrong(invariant: str, messages: list[Message]) -> None:
    """Each rule that is broken is named."""
    with pytest.raises(Violation, match=invariant):
        check_messages(messages)


def conversation(history: list[Message], queue: list[Message], ids: list[str]) -> Conversation:
    """Return a stored conversation."""
    return Conversation(
        conversation_id="c",
        owner=None,
        epoch=1,
        revision=1,
        messages=[encode_message(message) for message in history],
        queue=[encode_message(message) for message in queue],
        message_ids=dict.fromkeys(ids, "digest"),
        state={},
    )


def test_conversation_when_all_is_well() -> None:
    """An accepted message is in the history or in the queue."""
    stored = conversation(WHOLE, [user("q", None)], ["u", "q"])
    check_conversation(stored)
    check_told(["u", "q", "q"], stored)
    check_told([], None)


@pytest.mark.parametrize(
    ("history", "queue", "ids"),
    [
        (WHOLE, [], ["u", "gone"]),
        (WHOLE, [user("u", None)], ["u"]),
        (WHOLE, [user("q", None), user("q", None)], ["q"]),
        (WHOLE, [answer("q")], []),
    ],
)
def test_conversation_when_something_is_wrong(history: list[Message], queue: list[Message], ids: list[str]) -> None:
    """A message that is lost, or there twice, is named."""
    with pytest.raises(Violation, match="I15"):
        check_conversation(conversation(history, queue, ids))


def test_told_when_it_is_gone() -> None:
    """An acknowledged message that is not stored is named."""
    with pytest.raises(Violation, match="I13"):
        check_told(["m"], conversation(WHOLE, [], []))
    with pytest.raises(Violation, match="I13"):
        check_told(["m"], None)


def commit(revision: int, epoch: int = 1, **more: Any) -> Commit:
    """Return a write."""
    return Commit(conversation_id="c", agent_id="a", owner=None, epoch=epoch, revision=revision, lifecycle="on_message", **more)


def test_log_when_all_is_well() -> None:
    """Revisions grow by one, epochs do not fall, and a deleted conversation starts again at the beginning."""
    log = CommitLog()
    queued = encode_message(user("m", None))
    log.add(commit(1, queued=[queued], message_ids={"m": "d"}))
    log.add(commit(2, epoch=3, taken=["m"]))
    log.add("c")
    log.add(commit(1, queued=[queued], message_ids={"m": "d"}))


@pytest.mark.parametrize(
    ("invariant", "second"),
    [
        ("I10", commit(3)),
        ("I10", commit(1)),
        ("I10", commit(2, epoch=0)),
        ("I15", commit(2, message_ids={"m": "d"})),
        ("I15", commit(2, taken=["x"])),
        ("I12", commit(2, messages=[encode_message(answer("z"))])),
    ],
)
def test_log_when_something_is_wrong(invariant: str, second: Commit) -> None:
    """Each rule that is broken is named."""
    log = CommitLog()
    log.add(commit(1, message_ids={"m": "d"}))

    with pytest.raises(Violation, match=invariant):
        log.add(second)


async def test_closed_when_sessions_are_open(autojump_clock: trio.testing.MockClock) -> None:
    """Sessions with an agent are not closed; after their block they are."""
    agent = Agent(model=ScriptedModel([Hang()]))
    with no_task_left():
        async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
            await sessions.start("c")
            with pytest.raises(Violation, match="I29"):
                check_closed(sessions)
        check_closed(sessions)


async def test_no_task_left_when_one_is() -> None:
    """A task that still runs is counted."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(Violation, match="1 tasks are left"), no_task_left():
            nursery.start_soon(trio.sleep_forever)
        nursery.cancel_scope.cancel()

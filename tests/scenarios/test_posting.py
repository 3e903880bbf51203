"""Posting: ids, duplicates, and what is refused before it has any effect."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.models import RawModel
from tests.support.people import CONVERSATION, Effects, World, gated, scripted, text_of
from tests.support.scenarios import (
    FaultyStore,
    Router,
    answer_to,
    ask,
    kill_9,
    make_agent,
    of_kind,
    opened,
    read_until,
    slow_agent,
    state_of,
    transcript,
)
from trio_sagents import (
    Agent,
    AgentBusy,
    AgentNotRunning,
    Approve,
    Completed,
    Failed,
    FilePart,
    FinishChunk,
    ImagePart,
    MemoryStore,
    MessageCompleted,
    MessageConflict,
    MessageQueued,
    SessionConfig,
    SessionOpts,
    SingleFactoryRouter,
    TextChunk,
    TextDelta,
    ToolCallChunk,
    TurnEnded,
    TurnStarted,
    Unanswered,
    UserMessage,
    open_sessions,
)
from trio_sagents.supervisor import Posted
from trio_sagents.testing import Call, Hang, ScriptedModel


async def test_post_with_the_id_of_the_answer_that_streams(autojump_clock: Any) -> None:
    """R1: an id is taken as soon as anybody can see it: no post gets it, and the conversation loads again."""
    store = MemoryStore()
    async with opened(slow_agent(seconds=20), store=store) as sessions, sessions.watch("c") as watch:
        receipt = await sessions.post("c", "hi")
        seen = (await read_until(watch, TextDelta))[-1].event.message_id
        with pytest.raises(MessageConflict):
            await sessions.post("c", "evil", message_id=seen)
        assert isinstance(await receipt.wait(), Completed)
    async with opened(store=store) as sessions:
        ids = [message.message_id for message in (await state_of(sessions)).messages]

        assert sorted(set(ids)) == sorted(ids)
        assert 1 == ids.count(seen)


@pytest.mark.parametrize(
    "part",
    [
        lambda: FilePart(1, "text/plain", "x"),  # type: ignore[arg-type]
        lambda: FilePart(None, "text/plain", "x"),  # type: ignore[arg-type]
        lambda: ImagePart(None, url="http://x"),  # type: ignore[arg-type]
        lambda: ImagePart("image/png"),
    ],
)
async def test_part_of_the_wrong_type(autojump_clock: Any, part: Callable[[], Any]) -> None:
    """R6: a part that could never be loaded is refused before any effect."""
    async with opened() as sessions:
        with pytest.raises((TypeError, ValueError)):
            await sessions.post("c", UserMessage([part()]))
        assert "re: fine" == await answer_to(sessions, "fine")
        assert ["fine", "re: fine"] == [text for _, text, _ in await transcript(sessions)]


async def test_message_id_that_looks_like_a_call(autojump_clock: Any) -> None:
    """No message id takes the place of another row: what was acknowledged stays in the transcript."""
    model = RawModel([ToolCallChunk(0, id="0", name="absent"), FinishChunk("tool_calls")], [TextChunk("d"), FinishChunk("stop")], delay=1)
    async with opened(Agent(model=model)) as sessions, sessions.watch("c") as watch:
        await sessions.post("c", "hi")
        turn_id = (await read_until(watch, TurnStarted))[-1].event.turn_id
        await sessions.post("c", "important", message_id=f"{turn_id}:call")
        await (await sessions.get("c")).wait_idle()
        rows = (await sessions.history("c")).rows

        assert ["important"] == [row.content["text"] for row in rows if row.message_id == f"{turn_id}:call"]
        assert 1 == len([row for row in rows if row.content_type == "tool_call"])


async def test_preprocessor_that_raises_agent_not_running(autojump_clock: Any) -> None:
    """An AgentNotRunning that a preprocessor raises about another agent says nothing about this agent: the post ends at once."""

    async def preprocess(message: UserMessage, scope: Any) -> UserMessage:
        raise AgentNotRunning("other")

    async with opened(Router(opts=SessionOpts(supervisor_opts={"message_preprocessor": preprocess}))) as sessions:
        with trio.fail_after(100), pytest.raises(Exception):  # noqa: B017  # which one is not promised
            await sessions.post("c", "hi")
        assert await sessions.running("c")


async def test_post_again_while_its_turn_goes_on_behind_an_interrupt(autojump_clock: Any) -> None:
    """A duplicate of a message whose turn continues after a decision gets the outcome of that turn."""
    effects = Effects()
    effects.gates["pay"] = trio.Event()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        interrupt = await world.ask(message_id="m1")
        decided = await world.resume(Approve(interrupt.calls[0]))
        again = await world.sessions.post(CONVERSATION, "go", message_id="m1")
        effects.gates["pay"].set()

        assert again.duplicate
        assert "done" == text_of(await again.wait())
        assert await decided.wait() == await again.wait()


async def test_post_again_when_the_message_is_not_in_the_history(autojump_clock: Any) -> None:
    """A message that is on record as accepted is not taken twice, though somebody took it out of the store: nobody answers it."""
    store = MemoryStore()
    async with opened(store=store) as sessions:
        await ask(sessions)
    store._stored["c"].message_ids["lost"] = Posted.of("hello", "lost", "queue").digest
    async with opened(store=store) as sessions:
        receipt = await sessions.post("c", "hello", message_id="lost")

        assert receipt.duplicate
        assert Unanswered("cut") == await receipt.wait()


class FailsOnce(MemoryStore):
    """Fails the third commit: after the message and the answer that asks for a tool, the result of the tool."""

    fails_at = 3

    async def commit(self, scope: Any, commit: Any, **inside: Any) -> int:
        """Commit, or fail with nothing done."""
        self.fails_at -= 1
        if not self.fails_at:
            raise OSError("no space left on device")
        return await super().commit(scope, commit, **inside)


async def test_duplicate_when_a_step_of_the_turn_was_not_saved() -> None:
    """An answer that asks for a tool completes no turn: the duplicate's receipt has the first receipt's outcome, or is unanswered."""

    async def note() -> str:
        """Take a note."""
        return "noted"

    agent = Agent(model=ScriptedModel([["I note it", Call("note")], "done"]), tools=[note])
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=FailsOnce())
    async with open_sessions(config) as sessions:
        first = await sessions.post("a", "hello", message_id="m1")
        outcome = await first.wait()
        again = await sessions.post("a", "hello", message_id="m1")
        outcome_again = await again.wait()

    assert isinstance(outcome, Failed)
    assert again.duplicate
    assert not isinstance(outcome_again, Completed)


async def test_duplicate_while_the_next_agent_answers_it(autojump_clock: trio.testing.MockClock) -> None:
    """The receipt of a duplicate waits for the end of the turn that took the message, whichever agent accepted it."""

    async def work() -> str:
        """Work."""
        await trio.sleep(10)
        return "worked"

    model = ScriptedModel([["it begins", Hang()], ["first I work", Call("work")], "the answer"])
    agent = Agent(model=model, tools=[work])
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        await sessions.post("a", "one", message_id="m1")
        await trio.testing.wait_all_tasks_blocked(0.1)
        await sessions.post("a", "two", message_id="m2")
        await sessions.stop("a")
        await sessions.start("a")
        await trio.sleep(5)
        again = await sessions.post("a", "two", message_id="m2")
        outcome = await again.wait()

    assert again.duplicate
    assert isinstance(outcome, Completed)
    assert "the answer" == outcome.message.text


# ── at rest: the message is stored in the history, and its turn begins


async def test_post_when_the_conversation_is_at_rest(autojump_clock: Any) -> None:
    """A turn at rest is two commits: the message with the id of its turn, and the answer. Viewers see it as queued, taken, and running."""
    store = FaultyStore()
    async with opened(store=store) as sessions, sessions.watch("c") as watch:
        for text in ("one", "two"):
            outcome = await ask(sessions, text, message_id=f"m-{text}")
            assert isinstance(outcome, Completed)
        seen = [*await read_until(watch, TurnEnded), *await read_until(watch, TurnEnded)]

    assert [["m-one"], [], ["m-two"], []] == [list(commit.message_ids) for commit in store.commits]
    assert [0] * 4 == [len(commit.queued) + len(commit.taken) for commit in store.commits]
    assert [1] * 4 == [len(commit.messages) for commit in store.commits]
    turns = [event.turn_id for event in of_kind(seen, TurnStarted)]
    assert turns == [commit.messages[0]["turn_id"] for commit in store.commits[::2]]
    kinds = [type(envelope.event) for envelope in seen if isinstance(envelope.event, MessageQueued | MessageCompleted | TurnStarted)]
    assert [MessageQueued, MessageCompleted, TurnStarted, MessageCompleted] * 2 == kinds


@pytest.mark.parametrize("overlap", ["queue", "steer", "interrupt"])
async def test_post_behind_a_turn_that_is_about_to_begin(autojump_clock: Any, overlap: Any) -> None:
    """Whoever posts while the first message is on its way to the store, or while its turn runs, waits in the queue behind it."""
    store = FaultyStore()
    async with opened(slow_agent(seconds=5), store=store) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.latency["commit"] = 1.0
        nursery.start_soon(sessions.post, "c", "one")
        await trio.sleep(0.5)
        second = await sessions.post("c", "two", overlap=overlap)
        await trio.sleep(1)
        third = await sessions.post("c", "three")
        outcomes = [await second.wait(), await third.wait()]
        said = [text for role, text, _ in await transcript(sessions) if role == "user"]

    assert [True, True] == [isinstance(outcome, Completed) for outcome in outcomes]
    assert ["one", "two", "three"] == said
    assert [["one"], [], []] == [[record["parts"][0]["text"] for record in commit.messages] for commit in store.commits[:3]]
    assert 2 == sum(len(commit.queued) for commit in store.commits)


async def test_post_that_rejects_while_a_first_message_is_stored(autojump_clock: Any) -> None:
    """A message that is to find the agent at rest is refused from the moment at which another one is accepted."""
    store = FaultyStore()
    async with opened(store=store) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.latency["commit"] = 1.0
        nursery.start_soon(sessions.post, "c", "one")
        await trio.sleep(0.5)
        with pytest.raises(AgentBusy):
            await sessions.post("c", "two", overlap="reject")


async def test_drain_when_a_first_message_is_stored(autojump_clock: Any) -> None:
    """A message that was being stored when the sessions began to drain is answered, in its grace."""
    store, outcomes = FaultyStore(), []

    async def post(sessions: Any) -> None:
        receipt = await sessions.post("c", "hi")
        outcomes.append(await receipt.wait())

    async with opened(store=store, policy={"grace_period": 30.0}) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.latency["commit"] = 1.0
        nursery.start_soon(post, sessions)
        await trio.sleep(0.5)
        report = await sessions.drain()

    assert ["re: hi"] == [text_of(outcome) for outcome in outcomes]
    assert (0, 0) == (report.cancelled, report.queued)


async def test_crash_when_a_turn_has_stored_nothing_but_its_message(autojump_clock: Any) -> None:
    """A message whose post returned is there after a crash. Its turn was cut, which everybody is told; the next message is answered."""
    store = FaultyStore()
    images: list[MemoryStore] = []
    async with opened(make_agent(Hang()), store=store) as sessions:
        await sessions.post("c", "hi", message_id="m1")
        images.append(kill_9(store.inner))
    async with opened(store=images[0]) as sessions:
        again = await sessions.post("c", "hi", message_id="m1")

        assert again.duplicate
        assert Unanswered("crashed") == await again.wait()
        assert "re: still there?" == await answer_to(sessions, "still there?")
        assert ["hi", "", "still there?", "re: still there?"] == [text for _, text, _ in await transcript(sessions)]
        assert ["user", "system"] == [row.role for row in (await sessions.history("c")).rows][:2]

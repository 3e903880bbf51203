"""Two messages at once: the four overlap policies, and the order of everything that was accepted."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.people import CONVERSATION, Effects, World, gated, interrupt_in, text_of
from tests.support.scenarios import (
    FaultyStore,
    Router,
    answer_to,
    ask,
    make_agent,
    of_kind,
    opened,
    read_all,
    said,
    slow_agent,
    state_of,
    transcript,
)
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AgentBusy,
    AlreadyDecided,
    Approve,
    CancelCause,
    Cancelled,
    Completed,
    Failed,
    MessageConflict,
    MessageQueued,
    ModelFailed,
    QueueFull,
    SessionOpts,
    Status,
    TurnEnded,
    TurnStarted,
    UserMessage,
)
from trio_sagents.testing import Call, Hang, ScriptedModel


async def users(sessions: Any) -> list[str]:
    """Return what people said, in the order of the history."""
    return [text for role, text, _ in await transcript(sessions) if role == "user"]


async def test_queue_is_one_follow_up_turn(autojump_clock: Any) -> None:
    """Messages that come during a turn wait, and one follow-up turn answers them in the order of their commits."""
    agent = slow_agent("answer", seconds=10)
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        first = await sessions.post("c", "1")
        await trio.sleep(1)
        receipts = [await sessions.post("c", str(index)) for index in range(2, 6)]
        outcomes = [await receipt.wait() for receipt in receipts]

        assert isinstance(await first.wait(), Completed)
        assert 1 == len({outcome.message.message_id for outcome in outcomes})
        assert ["1", "answer", "2", "3", "4", "5", "answer"] == [text for _, text, _ in await transcript(sessions)]
        assert 2 == len(of_kind(await read_all(watch), TurnStarted))


async def test_two_people_press_enter_at_once(autojump_clock: Any) -> None:
    """Turns are serialised: nothing interleaves and nothing is lost, whoever presses Enter when."""
    store = FaultyStore()
    store.faults.latency["commit"] = 0.01
    async with opened(make_agent(chunk_size=1, chunk_interval=0.01), store=store) as sessions:
        await sessions.start("c")
        async with trio.open_nursery() as nursery:
            for index in range(20):

                async def person(index: int = index) -> None:
                    await trio.sleep(0.003 * index)
                    assert isinstance(await ask(sessions, f"m{index}"), Completed)

                nursery.start_soon(person)
        roles = [role for role, _, _ in await transcript(sessions)]

        assert {f"m{index}" for index in range(20)} == set(await users(sessions))
        assert "assistant" == roles[-1]
        assert all(not (a == b == "assistant") for a, b in itertools.pairwise(roles))


async def test_queue_order_is_the_order_of_the_calls(autojump_clock: Any) -> None:
    """Messages whose posts began one after the other are taken in that order, whatever the store's latency."""
    store = FaultyStore()
    async with opened(slow_agent("ok", seconds=100), store=store) as sessions:
        await sessions.post("c", "0")
        await trio.sleep(1)
        store.faults.slow("commit", 5, n=1)
        async with trio.open_nursery() as nursery:
            for index in range(1, 6):
                nursery.start_soon(sessions.post, "c", str(index))
                await trio.testing.wait_all_tasks_blocked()
        await (await sessions.get("c")).wait_idle()

        assert [str(index) for index in range(6)] == await users(sessions)


async def test_steer_is_taken_at_the_next_model_call(autojump_clock: Any) -> None:
    """steer: taken, with all before it, at the running turn's next model call; it has that turn's outcome."""

    async def work() -> str:
        """Work."""
        await trio.sleep(10)
        return "worked"

    agent = make_agent(Call("work"), "done", tools=[work])
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        receipt = await sessions.post("c", "go")
        await trio.sleep(1)
        before = await sessions.post("c", "before")
        steering = await sessions.post("c", "left", overlap="steer")
        outcomes = [await posted.wait() for posted in (receipt, before, steering)]

        assert isinstance(outcomes[0], Completed)
        assert 1 == len({outcome.message.message_id for outcome in outcomes})
        assert ["go", "before", "left"] == [message.text for message in agent.model.requests[1].messages if message.role == "user"]
        assert 1 == len(of_kind(await read_all(watch), TurnEnded))


async def test_steer_leaves_what_came_after_it(autojump_clock: Any) -> None:
    """A message that was queued after the steering message waits for its own turn."""

    async def work() -> str:
        """Work."""
        await trio.sleep(10)
        return "worked"

    agent = make_agent(Call("work"), "done", "second", tools=[work])
    async with opened(agent) as sessions:
        await sessions.post("c", "go")
        await trio.sleep(1)
        await sessions.post("c", "left", overlap="steer")
        outcome = await ask(sessions, "after")

        assert "second" == outcome.message.text
        assert ["go", "left"] == [message.text for message in agent.model.requests[1].messages if message.role == "user"]


async def test_steer_when_there_is_no_next_model_call(autojump_clock: Any) -> None:
    """A steering message that the turn no longer takes is answered by a follow-up turn; an idle agent just answers it."""
    async with opened(slow_agent("answer", seconds=10)) as sessions:
        await sessions.post("c", "one")
        await trio.sleep(1)
        assert "answer" == await answer_to(sessions, "two", overlap="steer")
        assert "answer" == await answer_to(sessions, "three", overlap="steer")
        assert ["one", "answer", "two", "answer", "three", "answer"] == [text for _, text, _ in await transcript(sessions)]


async def test_interrupt_commits_then_cancels(autojump_clock: Any) -> None:
    """interrupt: commits, then cancels the turn with cause superseded; partial text is kept; the message is answered next."""
    store = FaultyStore()
    async with opened(make_agent(["abc", Hang()], "next"), store=store) as sessions:
        first = await sessions.post("c", "one")
        await trio.sleep(1)
        store.faults.slow("commit", 5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: sessions.post("c", "two", overlap="interrupt"))
            await trio.sleep(4)
            assert Status.RUNNING is (await sessions.agent_info("c")).status
        assert Cancelled(CancelCause.SUPERSEDED) == await first.wait()
        await (await sessions.get("c")).wait_idle()

        assert [("user", "one", None), ("assistant", "abc", "cancelled"), ("user", "two", None), ("assistant", "next", "stop")] == (
            await transcript(sessions)
        )


async def test_interrupt_when_idle(autojump_clock: Any) -> None:
    """An interrupt of an idle agent is a post."""
    async with opened() as sessions:
        assert "re: hi" == await answer_to(sessions, overlap="interrupt")


async def test_interrupt_that_cannot_be_stored_interrupts_nothing(autojump_clock: Any) -> None:
    """Commits, then cancels: a message that was refused has no effect on the turn."""
    async with opened(slow_agent("answer", seconds=10), policy={"queue_limit": 1}) as sessions:
        first = await sessions.post("c", "one")
        await trio.sleep(1)
        await sessions.post("c", "two")
        with pytest.raises(QueueFull):
            await sessions.post("c", "three", overlap="interrupt")

        assert isinstance(await first.wait(), Completed)


async def test_reject(autojump_clock: Any) -> None:
    """reject: AgentBusy, decided before any effect, while a turn runs or a message waits or is being accepted."""
    store = FaultyStore()
    async with opened(slow_agent("answer", seconds=10), store=store) as sessions:
        store.faults.slow("commit", 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.post, "c", "one")
            await trio.sleep(1)
            with pytest.raises(AgentBusy):
                await sessions.post("c", "two", overlap="reject")
            await trio.sleep(3)
            with pytest.raises(AgentBusy):
                await sessions.post("c", "two", overlap="reject")
        await (await sessions.get("c")).wait_idle()

        assert "answer" == await answer_to(sessions, "three", overlap="reject")
        assert ["one", "three"] == await users(sessions)
        assert not any("two" in str((commit.queued, commit.messages)) for commit in store.commits)


@pytest.mark.parametrize("bad", ["", "Queue", None, 1], ids=repr)
async def test_overlap_that_is_none(autojump_clock: Any, bad: Any) -> None:
    """An unknown overlap is refused before any side effect."""
    router = Router()
    async with opened(router) as sessions:
        with pytest.raises((ValueError, TypeError), match="overlap"):
            await sessions.post("c", "hi", overlap=bad)

    assert [] == router.resolved


async def test_queue_after_an_error_is_held(autojump_clock: Any) -> None:
    """After an error the queue is held until the next post, which releases the whole queue."""
    agent = make_agent(ModelFailed("down"), "all", chunk_size=1, chunk_interval=1.0)
    async with opened(agent) as sessions:
        first = await sessions.post("c", "one")
        await trio.sleep(2)
        second = await sessions.post("c", "two")
        assert isinstance(await first.wait(), Failed)
        await trio.sleep(100)
        assert (Status.ERROR, 1) == ((await sessions.agent_info("c")).status, (await sessions.agent_info("c")).queued)
        third = await sessions.post("c", "three")
        outcomes = [await second.wait(), await third.wait()]

        assert ["all", "all"] == [outcome.message.text for outcome in outcomes]
        assert ["one", "two", "three"] == await users(sessions)


async def test_wait_idle_with_a_held_queue(autojump_clock: Any) -> None:
    """wait_idle counts what is *runnable*: a held queue is idle."""
    agent = make_agent(ModelFailed("down"), "all", chunk_size=1, chunk_interval=1.0)
    async with opened(agent) as sessions:
        await sessions.post("c", "one")
        await trio.sleep(2)
        await sessions.post("c", "two")
        await trio.sleep(20)
        assert 1 == (await sessions.agent_info("c")).queued
        with trio.fail_after(1):
            await (await sessions.get("c")).wait_idle()


async def test_queue_after_a_cancelled_turn_runs(autojump_clock: Any) -> None:
    """After a cancelled turn the queue runs."""
    async with opened(make_agent(Hang(), "next")) as sessions:
        await sessions.post("c", "one")
        await trio.sleep(1)
        second = await sessions.post("c", "two")
        await sessions.cancel_turn("c")

        assert "next" == (await second.wait()).message.text


async def test_queue_full(autojump_clock: Any) -> None:
    """Full: QueueFull before any effect; what is being accepted counts; a turn makes room."""
    store = FaultyStore()
    async with opened(make_agent(Hang(), "next"), store=store, policy={"queue_limit": 3}) as sessions:
        await sessions.post("c", "0")
        await trio.sleep(1)
        await sessions.post("c", "1")
        store.faults.slow("commit", 5)
        full = []
        async with trio.open_nursery() as nursery:

            async def try_to(index: int) -> None:
                try:
                    await sessions.post("c", str(index))
                except QueueFull:
                    full.append(index)

            for index in range(2, 10):
                nursery.start_soon(try_to, index)
        assert 6 == len(full)
        await sessions.cancel_turn("c")
        await (await sessions.get("c")).wait_idle()
        texts = await users(sessions)

        assert not set(map(str, full)) & set(texts)
        assert set(map(str, range(10))) - set(map(str, full)) <= set(texts)


async def test_commands_do_not_wait_in_the_queue(autojump_clock: Any) -> None:
    """cancel_turn, stop and touch never wait in the queue."""
    async with opened(make_agent(Hang(), "next"), policy={"queue_limit": 1}) as sessions:
        await sessions.post("c", "0")
        await trio.sleep(1)
        agent = await sessions.get("c")
        await sessions.post("c", "1")
        began = trio.current_time()
        await agent.touch()
        assert Cancelled(CancelCause.USER) == await agent.cancel_turn()
        await sessions.stop("c")

        assert began == trio.current_time()


async def test_message_id_posted_twice(autojump_clock: Any) -> None:
    """Same id, same content: the first receipt's outcome, duplicate=True, one message."""
    async with opened() as sessions, sessions.watch("c") as watch:
        first = await sessions.post("c", "hi", message_id="m1")
        second = await sessions.post("c", "hi", message_id="m1")
        outcomes = await first.wait(), await second.wait()
        third = await sessions.post("c", "hi", message_id="m1")

        assert [("m1", False), ("m1", True), ("m1", True)] == [
            (receipt.message_id, receipt.duplicate) for receipt in (first, second, third)
        ]
        assert outcomes[0] == outcomes[1]
        assert outcomes[0].message == (await third.wait()).message
        assert ["hi"] == await users(sessions)
        assert 1 == len(of_kind(await read_all(watch), MessageQueued))


async def test_message_id_posted_at_once(autojump_clock: Any) -> None:
    """Ten concurrent posts with one id give one message, and one receipt that is not a duplicate."""
    store, receipts = FaultyStore(), []
    store.faults.latency["commit"] = 0.5
    async with opened(store=store) as sessions:

        async def post() -> None:
            receipts.append(await sessions.post("c", "hi", message_id="m1"))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(post)
        assert 1 == sum(not receipt.duplicate for receipt in receipts)
        assert 1 == len({(await receipt.wait()).message.message_id for receipt in receipts})
        assert ["hi"] == await users(sessions)


async def test_message_id_posted_again_when_the_first_is_cancelled(autojump_clock: Any) -> None:
    """A post that was cancelled during its commit was accepted, so the same id again is a duplicate."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await sessions.start("c")
        store.faults.slow("commit", 5)
        with trio.move_on_after(1):
            await sessions.post("c", "hi", message_id="m1")
        again = await sessions.post("c", "hi", message_id="m1")

        assert again.duplicate
        assert isinstance(await again.wait(), Completed)
        assert ["hi"] == await users(sessions)


@pytest.mark.parametrize("restart", ["stop", "host"])
async def test_message_id_across_a_restart(autojump_clock: Any, restart: str) -> None:
    """message_id is unique per conversation for ever: across restarts too, with the outcome as far as the history tells."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        first = await (await sessions.post("c", "hi", message_id="m1")).wait()
        if restart == "stop":
            await sessions.stop("c")
            again = await sessions.post("c", "hi", message_id="m1")
            outcome = await again.wait()
    if restart == "host":
        async with opened(store=store) as sessions:
            again = await sessions.post("c", "hi", message_id="m1")
            outcome = await again.wait()
            with pytest.raises(MessageConflict):
                await sessions.post("c", "other", message_id="m1")

    assert again.duplicate
    assert first.message == outcome.message


async def test_message_id_with_other_content(autojump_clock: Any) -> None:
    """Other content: MessageConflict, nothing changed. Metadata is content; a str and the same UserMessage are the same."""
    async with opened() as sessions:
        await ask(sessions, "hi", message_id="m1")
        for other in ("ho", UserMessage("hi", metadata={"a": 1})):
            with pytest.raises(MessageConflict, match="m1"):
                await sessions.post("c", other, message_id="m1")

        assert (await sessions.post("c", UserMessage("hi"), message_id="m1")).duplicate
        assert ["hi"] == await users(sessions)


async def test_message_id_is_per_conversation(autojump_clock: Any) -> None:
    """The same id in another conversation is another message."""
    async with opened() as sessions:
        await ask(sessions, "hi", message_id="m1")

        assert not (await sessions.post("d", "ho", message_id="m1")).duplicate


async def test_message_ids_that_were_not_given_are_unique(autojump_clock: Any) -> None:
    """Without a message_id each post is a message of its own."""
    async with opened() as sessions:
        ids = {(await sessions.post("c", "hi")).message_id for _ in range(20)}
        await sessions.stop("c")
        ids |= {(await sessions.post("c", "hi")).message_id for _ in range(20)}

        assert 40 == len(ids)


async def test_post_when_its_caller_is_cancelled(autojump_clock: Any) -> None:
    """Cancelling post: either nothing was submitted, or the message is accepted and will be answered."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await sessions.start("c")
        store.faults.latency["commit"] = 1.0
        with trio.CancelScope() as scope:
            scope.cancel()
            await sessions.post("c", "never")
        with trio.move_on_after(0.5):
            await sessions.post("c", "hi")
        await trio.sleep(20)

        assert ["hi", "re: hi"] == [text for _, text, _ in await transcript(sessions)]


async def test_receipt_wait_can_be_cancelled_and_repeated(autojump_clock: Any) -> None:
    """Cancelling wait() leaves the turn alone; wait again whenever you like, from any number of tasks."""
    async with opened(slow_agent("ok", seconds=10)) as sessions:
        receipt = await sessions.post("c", "hi")
        with trio.move_on_after(1):
            await receipt.wait()
        first, second = await receipt.wait(), await receipt.wait()

        assert first == second
        assert isinstance(first, Completed)


async def test_preprocessor_that_replaces(autojump_clock: Any) -> None:
    """message_preprocessor: (message, scope) -> what the model sees."""
    seen: list[Any] = []

    async def expand(message: UserMessage, scope: Any) -> UserMessage:
        seen.append((message.text, scope))
        return UserMessage(message.text.upper())

    agent = make_agent()
    async with opened(Router(agent, SessionOpts(supervisor_opts={"message_preprocessor": expand}))) as sessions:
        assert "re: HI" == await answer_to(sessions, scope="alice")

        assert [("hi", "alice")] == seen
        assert "HI" == said(agent.model.requests[0])


async def test_preprocessor_that_splits(autojump_clock: Any) -> None:
    """A pair is what the model sees, and what people see."""

    async def expand(message: UserMessage, scope: Any) -> tuple[UserMessage, UserMessage]:
        return UserMessage("for the model"), UserMessage("for people")

    async with opened(Router(make_agent(), SessionOpts(supervisor_opts={"message_preprocessor": expand}))) as sessions:
        assert "re: for the model" == await answer_to(sessions)
        rows = (await sessions.history("c")).rows

        assert "for people" == rows[0].content["text"]
        assert ["for the model"] == await users(sessions)


@pytest.mark.parametrize("result", [None, "text", (UserMessage("a"),), (UserMessage("a"), "b")], ids=repr)
async def test_preprocessor_that_returns_nonsense(autojump_clock: Any, result: Any) -> None:
    """A wrong return value is a TypeError that shows the expected shape. Nothing was done, and the agent is usable."""

    async def odd(message: UserMessage, scope: Any) -> Any:
        return result if message.text == "odd" else message

    async with opened(Router(make_agent(), SessionOpts(supervisor_opts={"message_preprocessor": odd}))) as sessions:
        with pytest.raises(TypeError, match="UserMessage"):
            await sessions.post("c", "odd")

        assert "re: fine" == await answer_to(sessions, "fine")
        assert ["fine"] == await users(sessions)


async def test_preprocessor_that_raises(autojump_clock: Any) -> None:
    """Raising refuses the message, with that very error; its id is free again."""
    error = ValueError("not allowed here")

    async def refuse(message: UserMessage, scope: Any) -> UserMessage:
        await trio.sleep(1)
        if message.text == "bad":
            raise error
        return message

    async with opened(Router(make_agent(), SessionOpts(supervisor_opts={"message_preprocessor": refuse}))) as sessions:
        with pytest.raises(ValueError, match="not allowed") as caught:
            await sessions.post("c", "bad", message_id="m1")

        assert error is caught.value
        assert "re: good" == await answer_to(sessions, "good", message_id="m1")


async def test_preprocessor_and_duplicates(autojump_clock: Any) -> None:
    """A duplicate is compared by the posted content, and preprocessed once."""
    calls: list[str] = []

    async def count(message: UserMessage, scope: Any) -> UserMessage:
        calls.append(message.text)
        return UserMessage(f"{message.text} {len(calls)}")

    async with opened(Router(make_agent(), SessionOpts(supervisor_opts={"message_preprocessor": count}))) as sessions:
        await ask(sessions, "hi", message_id="m1")
        again = await sessions.post("c", "hi", message_id="m1")

        assert again.duplicate
        assert ["hi"] == calls


@pytest.mark.parametrize("bad", ["", "   ", "\ud800"], ids=repr)
async def test_message_that_cannot_be(autojump_clock: Any, bad: str) -> None:
    """An empty or broken text is a ValueError before any side effect."""
    router = Router()
    async with opened(router) as sessions:
        with pytest.raises(ValueError):  # which words is not promised
            await sessions.post("c", bad)

    assert [] == router.resolved


@pytest.mark.parametrize("bad", [None, 42, b"hi", {"text": "hi"}, ["hi"]], ids=repr)
async def test_message_of_a_wrong_type(autojump_clock: Any, bad: Any) -> None:
    """A wrong type is a TypeError before any side effect."""
    router = Router()
    async with opened(router) as sessions:
        with pytest.raises(TypeError):
            await sessions.post("c", bad)
        with pytest.raises(TypeError):
            await sessions.post("c", "hi", message_id=42)
        with pytest.raises(ValueError, match="message_id"):
            await sessions.post("c", "hi", message_id="")

    assert [] == router.resolved


async def test_interrupts_duplicates_and_order(autojump_clock: Any) -> None:
    """Interrupting posts and duplicates at once: every message is in the history exactly once, and the last turn completes."""
    store = FaultyStore()
    store.faults.latency["commit"] = 0.003
    async with opened(slow_agent("x" * 20, seconds=0.2), store=store) as sessions:
        await sessions.post("c", "m1")
        await trio.sleep(0.05)
        async with trio.open_nursery() as nursery:
            for text, overlap in (("m2", "queue"), ("m3", "interrupt"), ("m4", "interrupt"), ("m2", "queue")):
                nursery.start_soon(lambda text=text, overlap=overlap: sessions.post("c", text, message_id=text, overlap=overlap))
        await (await sessions.get("c")).wait_idle()
        state = await state_of(sessions)
        stops = [message.stop_reason for message in state.messages if message.role == "assistant"]

        assert ["m1", "m2", "m3", "m4"] == sorted(await users(sessions))
        assert ("cancelled", "stop") == (stops[0], stops[-1])


async def test_message_that_interrupts_while_the_interrupt_is_stored(autojump_clock: Any, backend: Backend) -> None:
    """The message supersedes the interrupt: it does not wait for people after the turn that it was to cut."""
    effects = Effects()
    replies: Callable[[Any], Any] = lambda request: "heard" if request.messages[-1].text == "stop" else Call("pay", amount=1)  # noqa: E731
    agent = Agent(model=ScriptedModel(replies), tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        storing = trio.Event()
        world.store.delay = 5
        world.store.before_commit = lambda commit: storing.set() if commit.lifecycle == "on_interrupt" else None
        first = await world.sessions.post(CONVERSATION, "go")
        await storing.wait()
        outcome = await world.post("stop", overlap="interrupt")
        interrupt = interrupt_in(await first.wait())
        with pytest.raises(AlreadyDecided, match="superseded"):
            await world.resume(Approve(interrupt.calls[0]))

    assert "heard" == text_of(outcome)
    assert [] == effects.done

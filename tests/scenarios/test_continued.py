"""`SessionPolicy.after_crash = "continue"`: a turn whose process died continues from its last commit."""

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from tests.support.people import CONVERSATION, Effects, World, call_of, gated, interrupt_in, text_of
from tests.support.records import check_request
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    Approve,
    CancelCause,
    Cancelled,
    Completed,
    Message,
    TextPart,
    Tool,
    Unanswered,
)
from trio_sagents.abc import OpenableStore
from trio_sagents.conversation.closing import CONTINUES
from trio_sagents.testing import Call, Hang, ScriptedModel

CONTINUE = {"after_crash": "continue"}


class Dying:
    """A tool in whose calls the process dies, for the first calls of it; and a model that calls it, and then answers."""

    def __init__(self, deaths: int = 1, *, rounds: int = 1, before: str | None = None) -> None:
        self.runs: list[int] = []
        self.deaths, self.rounds, self.before = deaths, rounds, before
        self.requests: list[Sequence[Message]] = []

    async def pay(self, number: int) -> str:
        """Pay."""
        self.runs.append(number)
        if len(self.runs) <= self.deaths:
            await trio.sleep_forever()
        return "paid"

    async def look(self) -> str:
        """Look."""
        return "seen"

    def agent(self, **settings: Any) -> Agent:
        def reply(request: Any) -> Any:
            check_request(request.messages)
            self.requests.append(request.messages)
            asked = [call for message in request.messages for call in message.calls if call.name == "pay"]
            if len(asked) >= self.rounds:
                return "done"
            last = [call for message in request.messages for call in message.calls][-1:]
            if self.before is not None and (not last or last[0].name == "pay"):
                return Call(self.before)
            return Call("pay", number=len(asked))

        return Agent(model=ScriptedModel(reply), tools=[Tool.of(self.pay), Tool.of(self.look)], **settings)


async def crashed_in_call(world: World, **more: Any) -> None:
    """Post a message, and crash while its call runs."""
    await world.sessions.post(CONVERSATION, "go", message_id="m", **more)
    await trio.sleep(1)
    await world.crash()


async def mark_of(world: World) -> Any:
    """Return the stored mark of unfinished work. A load of the store itself would fence the agent."""
    store = world.backend.clone().store
    async with store.open() if isinstance(store, OpenableStore) else contextlib.nullcontext():
        stored = await store.load(None, CONVERSATION)
    assert stored is not None
    return stored.state.get("unfinished")


async def test_continue_when_a_call_was_open(autojump_clock: Any, backend: Backend) -> None:
    """The call has an unknown outcome and is not run again; the model is asked again, and the turn is completed under its id."""
    dying = Dying()
    async with World(dying.agent(), backend, policy=CONTINUE) as world:
        await crashed_in_call(world)
        outcome = await world.post("go", message_id="m")

        assert "done" == text_of(outcome)
        assert [0] == dying.runs
        assert "unknown" == (await world.results())["pay"][0]
        assert 1 == len({message.turn_id for message in await world.messages()})
        assert "completed" == (await world.messages())[-1].metadata["turn"]["status"]


async def test_continue_when_nothing_was_said(autojump_clock: Any, backend: Backend) -> None:
    """A message that was accepted, and whose turn had not got anywhere, is answered as if nothing had happened."""
    async with World(Agent(model=ScriptedModel([[Hang()], "answer"])), backend, policy=CONTINUE) as world:
        await crashed_in_call(world)
        await world.handle()
        outcome = await world.post("go", message_id="m")

        assert "answer" == text_of(outcome)
        assert ["user", "assistant"] == [message.role for message in await world.messages()]


async def test_continue_when_an_answer_was_cut(autojump_clock: Any, backend: Backend) -> None:
    """The text so far stays and is marked, the model is told, and viewers see both parts."""
    requests: list[Any] = []

    def reply(request: Any) -> Any:
        check_request(request.messages)
        requests.append(request.messages)
        return ["Once upon ", Hang()] if len(requests) == 1 else "the end."

    async with World(Agent(model=ScriptedModel(reply)), backend, policy={**CONTINUE, "draft_interval": 1.0}) as world:
        await world.sessions.post(CONVERSATION, "go", message_id="m")
        await trio.sleep(5.5)
        await world.crash()
        outcome = await world.post("go", message_id="m")

        assert "the end." == text_of(outcome)
        user, partial, note, last = await world.messages()
        assert ("Once upon ", "crashed") == (partial.text, partial.stop_reason)
        assert CONTINUES == note.text
        assert [user.turn_id] * 3 == [message.turn_id for message in (partial, note, last)]
        assert [user, partial, note] == list(requests[1])
        rows = (await world.sessions.history(CONVERSATION)).rows
        assert [("user", "go"), ("assistant", "Once upon "), ("tool", CONTINUES), ("assistant", "the end.")] == [
            (row.role, row.content["text"]) for row in rows
        ]
        assert "crashed" == rows[1].content["stop_reason"]


async def test_continue_when_the_process_dies_again_and_again(autojump_clock: Any, backend: Backend) -> None:
    """A turn that does not get on is continued `max_recoveries` times; then it is over, people see why, and a message is answered."""
    never = Agent(model=ScriptedModel(lambda request: "fine" if request.messages[-1].text == "next" else [Hang()]))
    async with World(never, backend, policy={**CONTINUE, "max_recoveries": 2}) as world:
        await crashed_in_call(world)
        for count in (1, 2):
            await world.handle()
            await trio.sleep(1)
            assert count == (await mark_of(world))["recoveries"]
            await world.crash()
        assert Unanswered("crashed") == await world.post("go", message_id="m")
        error = (await world.sessions.history(CONVERSATION)).rows[-1]
        assert "error" == error.content_type
        assert "ended 3 times" in error.content["text"]
        assert "fine" == text_of(await world.post("next"))
        assert await mark_of(world) is None


async def test_continue_when_the_turn_gets_on_between_crashes(autojump_clock: Any, backend: Backend) -> None:
    """A turn that finishes rounds of calls is continued more often, and not for ever: the same call must not end every process."""
    dying = Dying(deaths=1000, rounds=1000, before="look")
    async with World(dying.agent(), backend, policy={**CONTINUE, "max_recoveries": 1}) as world:
        await crashed_in_call(world)
        lives = 0
        while await mark_of(world) is not None:
            lives += 1
            await world.handle()
            await trio.sleep(1)
            await world.crash()

        assert 6 == lives  # five continuations, and the life that closed the turn
        assert len(dying.runs) == len(set(dying.runs)) == 6
        assert Unanswered("crashed") == await world.post("go", message_id="m")


async def test_continue_when_a_call_had_not_begun(autojump_clock: Any, backend: Backend) -> None:
    """A call that waits for a person, and whose interrupt was not stored yet, is asked about; only then it runs, once."""
    effects, slow = Effects(), Dying()
    replies = [[Call("pay", number=1), Call("buy", amount=1)], "done"]

    def reply(request: Any) -> Any:
        check_request(request.messages)
        return replies[1] if request.messages[-1].role == "tool" else replies[0]

    agent = Agent(model=ScriptedModel(reply), tools=[Tool.of(slow.pay), effects.tool("buy")], middleware=[gated(effects, "buy")])
    async with World(agent, backend, policy=CONTINUE) as world:
        await crashed_in_call(world)  # `pay` runs, and `buy` waits behind it
        interrupt = interrupt_in(await world.post("go", message_id="m"))

        assert ["buy"] == [call.name for call in interrupt.calls]
        assert [] == effects.done
        assert await mark_of(world) is None  # people have to do something, and nobody else
        outcome = await world.decide(Approve(call_of(interrupt, "buy")))
        assert "done" == text_of(outcome)
        assert 1 == len(effects.done)
        assert [1] == slow.runs


async def test_continue_when_a_person_had_cancelled(autojump_clock: Any, backend: Backend) -> None:
    """What a person has cancelled is over, whatever the process does after that."""
    dying = Dying()
    async with World(dying.agent(), backend, policy=CONTINUE) as world:
        await world.sessions.post(CONVERSATION, "go", message_id="m")
        await trio.sleep(1)
        await (await world.handle()).cancel_turn()
        await world.crash()

        assert Cancelled(CancelCause.USER) == await world.post("go", message_id="m")
        assert [0] == dying.runs


async def test_continue_when_messages_wait(autojump_clock: Any, backend: Backend) -> None:
    """Messages in the queue keep the mark, and are answered after the turn that continues."""
    dying = Dying()
    async with World(dying.agent(), backend, policy=CONTINUE) as world:
        await world.sessions.post(CONVERSATION, "go", message_id="m")
        await world.sessions.post(CONVERSATION, "then", message_id="n")
        await trio.sleep(1)
        await world.crash()
        assert "done" == text_of(await world.post("then", message_id="n"))
        assert isinstance(await world.post("go", message_id="m"), Completed)
        assert await mark_of(world) is None


@pytest.mark.parametrize("policy", [{}, {"after_crash": "close"}])
async def test_close_when_a_call_was_open(autojump_clock: Any, backend: Backend, policy: Any) -> None:
    """By default the turn is over, and nothing is marked."""
    async with World(Dying().agent(), backend, policy=policy) as world:
        await world.sessions.post(CONVERSATION, "go", message_id="m")
        await trio.sleep(1)
        assert await mark_of(world) is None
        await world.crash()
        assert Unanswered("crashed") == await world.post("go", message_id="m")


async def test_close_when_the_policy_has_changed(autojump_clock: Any, backend: Backend) -> None:
    """A mark that was made under the other policy is removed when the turn is closed."""
    async with World(Dying().agent(), backend, policy=CONTINUE) as world:
        await world.sessions.post(CONVERSATION, "go", message_id="m")
        await trio.sleep(1)
        world.policy = type(world.policy)()
        await world.crash()
        assert Unanswered("crashed") == await world.post("go", message_id="m")
        assert await mark_of(world) is None


@pytest.mark.parametrize("n", range(1, 9))
async def test_continue_after_every_commit(autojump_clock: Any, backend: Backend, n: int) -> None:
    """After a crash behind the n-th commit, for every n: the message is answered, and no call runs twice."""
    effects = Effects()

    def reply(request: Any) -> Any:
        check_request(request.messages)
        rounds = sum(bool(message.calls) for message in request.messages)
        return [Call("look", amount=rounds), Call("buy", amount=10 + rounds)] if rounds < 2 else "done"

    agent = Agent(model=ScriptedModel(reply), tools=[effects.tool("look"), effects.tool("buy")])
    async with World(agent, backend, policy=CONTINUE) as world:
        image: list[Any] = []
        world.store.on_commit = lambda commit: image.append(world.backend.clone()) if len(world.store.commits) == n else None
        await world.post("go", message_id="m")
        await world.restart_with(lambda: setattr(world, "backend", image[0] if image else world.backend))
        outcome = await world.post("go", message_id="m")

        assert "done" == text_of(outcome)
        keys = effects.keys
        assert len(set(keys)) == len(keys) or len(keys) > 4  # what the image does not know of ran in another world
        history = await world.messages()
        answered = [result.call_id for message in history for result in message.results]
        assert len(answered) == len(set(answered))
        assert TextPart("done") == history[-1].parts[0]
        assert await mark_of(world) is None

"""Answers that do not end the turn: narration, and models whose provider says that they are not done."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.support.scenarios import ask, kill_9, of_kind, opened, read_until, state_of
from trio_sagents import (
    Agent,
    Completed,
    Failed,
    FinishChunk,
    LimitExceeded,
    MemoryStore,
    ModelFailed,
    ModelRequest,
    OpaqueChunk,
    OpaquePart,
    RetryPolicy,
    SingleFactoryRouter,
    SubAgents,
    Task,
    TextChunk,
    TextDelta,
    ToolCallChunk,
    TurnEnded,
    TurnLimits,
    TurnSteps,
)
from trio_sagents.testing import Call, ScriptedModel


@attrs.define(eq=False)
class Raw:
    """A model that says the given chunks, the last answer again and again."""

    answers: Sequence[Sequence[Any]]
    name: str = "raw"
    requests: list[ModelRequest] = attrs.field(factory=list)

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Any]]:
        self.requests.append(request)
        chunks = self.answers[min(len(self.requests), len(self.answers)) - 1]

        async def give() -> AsyncIterator[Any]:
            for chunk in chunks:
                await trio.lowlevel.checkpoint()
                yield chunk

        yield give()


def told(text: str) -> TextChunk:
    return TextChunk(text, "narration")


STOP = FinishChunk("stop")
DONE = [TextChunk("done"), STOP]


@pytest.mark.parametrize(
    ("first", "rounds"),
    [
        ([told("I will look. "), STOP], 2),
        ([told("I will "), told("look."), STOP], 2),
        ([told("I look. "), TextChunk("Found."), STOP], 1),
        ([told("I am done."), FinishChunk("stop", is_end=True)], 1),
        ([TextChunk("Half way."), FinishChunk("stop", is_end=False)], 2),
        ([TextChunk("Paused."), FinishChunk("continued")], 2),
        ([OpaqueChunk(OpaquePart("p", {"type": "search"})), FinishChunk("continued")], 2),
        ([told("cut"), FinishChunk("length")], 1),
    ],
)
async def test_turn_when_an_answer_does_not_end_it(first: Any, rounds: int) -> None:
    """The model is asked again in the same turn; what the provider says explicitly decides before the kind of the text."""
    model = Raw([first, DONE])
    async with opened(SingleFactoryRouter(Agent(model=model))) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Completed)
        assert rounds == len(model.requests)
        assert [*(["continued"] if rounds == 2 else []), outcome.message.stop_reason] == [
            message.stop_reason for message in (await state_of(sessions)).messages if message.role == "assistant"
        ]


async def test_narration_in_events_rows_and_after_a_restart() -> None:
    """Its kind is in the deltas, in the rows and in the stored message; the answer is what is left."""
    store = MemoryStore()
    model = Raw([[told("I look."), STOP], [told("Now I know. "), TextChunk("42"), STOP]])
    async with opened(SingleFactoryRouter(Agent(model=model)), store=store) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        outcome = await ask(sessions)
        events = await read_until(subscriber, TurnEnded)

        assert isinstance(outcome, Completed)
        assert ("Now I know. 42", "42") == (outcome.message.text, outcome.message.answer)
        assert ["narration", "narration", None] == [event.kind for event in of_kind(events, TextDelta)]
    async with opened(SingleFactoryRouter(Agent(model=model)), store=kill_9(store)) as sessions:
        rows = [(row.content["text"], row.content.get("kind")) for row in (await sessions.history("c")).rows if row.role == "assistant"]
        assert [("I look.", "narration"), ("Now I know. ", "narration"), ("42", None)] == rows
        assert isinstance(await ask(sessions, "more"), Completed)


async def test_model_that_only_narrates() -> None:
    """It is bounded by `max_rounds`; an answer without anything is no narration."""
    agent = Agent(model=Raw([[told("hm"), STOP]]), limits=TurnLimits(max_rounds=3))
    async with opened(SingleFactoryRouter(agent)) as sessions:
        outcome = await ask(sessions)
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
    agent = Agent(model=Raw([[FinishChunk("continued")]]), retry=RetryPolicy(attempts=1))
    async with opened(SingleFactoryRouter(agent)) as sessions:
        outcome = await ask(sessions)
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ModelFailed)
        assert "protocol" == outcome.error.kind


async def test_narration_before_the_tool_that_ends_the_turn() -> None:
    """It is no answer without the tool."""
    call = [ToolCallChunk(0, "c1", "submit", "{}"), FinishChunk("tool_calls")]

    async def submit() -> int:
        """Submit."""
        return 7

    agent = Agent(model=Raw([[told("Let me see."), STOP], call]), tools=[submit], until_tool="submit")
    async with opened(SingleFactoryRouter(agent)) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Completed)
        assert 7 == outcome.result


async def test_crash_after_narration() -> None:
    """A history that ends with narration was cut, and is closed at the next start."""
    store = MemoryStore()
    ended: list[MemoryStore] = []

    def look(request: ModelRequest) -> str:
        return "done"

    model = Raw([[told("I look."), STOP], DONE])

    async def mode(turn: TurnSteps) -> Any:
        answer = await turn.ask_model()
        assert turn.is_continued(answer)
        await turn.keep(answer)
        ended.append(kill_9(store))
        return await turn.complete(await turn.ask_model())

    async with opened(SingleFactoryRouter(Agent(model=model, mode=mode)), store=store) as sessions:
        await ask(sessions)
    async with opened(SingleFactoryRouter(Agent(model=ScriptedModel(look))), store=ended[0]) as sessions:
        await sessions.start("c")
        messages = (await state_of(sessions)).messages
        assert ["continued", "crashed"] == [message.stop_reason for message in messages if message.role == "assistant"]
        assert isinstance(await ask(sessions, "again"), Completed)


async def test_narration_of_a_sub_agent() -> None:
    """The parent reads the answer alone."""
    task = Task(name="t", description="d", model=Raw([[told("I look. "), TextChunk("42"), STOP]]))
    model = ScriptedModel([Call("task", name="t", instructions="go"), "done"])
    agent = Agent(model=model, middleware=[SubAgents([task], general_purpose=False)])
    async with opened(SingleFactoryRouter(agent)) as sessions:
        await ask(sessions)

    assert ["42"] == [result.content for message in model.requests[1].messages for result in message.results]

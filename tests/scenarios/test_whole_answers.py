"""Half an answer never passes for a whole one, an empty one for an answer, and the parts of an answer keep their order."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.support.scenarios import ask, of_kind, opened, read_all, state_of
from trio_sagents import (
    Agent,
    Completed,
    Failed,
    FinishChunk,
    MemoryStore,
    MessageCompleted,
    ModelFailed,
    ModelRetrying,
    OpaqueChunk,
    OpaquePart,
    RetryPolicy,
    SubAgents,
    Task,
    TextChunk,
    TextPart,
    ThinkingChunk,
    ThinkingPart,
    ToolCall,
    ToolCallChunk,
    ToolNotCalled,
    Usage,
    UsageChunk,
    envelope_to_dict,
    extract,
)

STOP = FinishChunk("stop")
SEAL = OpaquePart("p", {"seal": ["S", 1.5, None]})


@attrs.define(eq=False)
class Spoken:
    """A model that gives these chunks, answer by answer."""

    answers: list[Sequence[Any]]
    name: str = "m"
    requests: list[Any] = attrs.field(factory=list)

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[AsyncIterator[Any]]:
        self.requests.append(request)
        yield self._say(self.answers.pop(0))

    async def _say(self, chunks: Sequence[Any]) -> AsyncIterator[Any]:
        for chunk in chunks:
            await trio.lowlevel.checkpoint()
            yield chunk


def spoken(*answers: Sequence[Any]) -> Spoken:
    """Return a model with these answers."""
    return Spoken(list(answers))


def said(text: str, reason: str = "stop") -> Sequence[Any]:
    """Return an answer in words."""
    return [TextChunk(text), FinishChunk(reason)]


EMPTY = ([STOP], [TextChunk(" \n"), STOP], [ThinkingChunk("Hm"), STOP], [OpaqueChunk(SEAL), UsageChunk(Usage(3, 4)), STOP])


@pytest.mark.parametrize("empty", EMPTY)
async def test_answer_when_it_is_empty(empty: Sequence[Any], autojump_clock: Any) -> None:
    """An empty answer is asked for once more; nothing of it is kept but its usage."""
    model = spoken(empty, said("Here."))
    async with opened(Agent(model=model)) as sessions, sessions.watch("c") as watch:
        outcome = await ask(sessions)
        seen = await read_all(watch)
        messages = (await state_of(sessions)).messages

    assert isinstance(outcome, Completed)
    assert ["hi", "Here."] == [message.text for message in messages]
    assert ["protocol"] == [event.error.kind for event in of_kind(seen, ModelRetrying)]
    assert (7 if empty == EMPTY[-1] else 0) == outcome.usage.input_tokens + outcome.usage.output_tokens


@pytest.mark.parametrize(("attempts", "asked"), [(1, 1), (2, 2), (10, 2)])
async def test_answer_when_it_stays_empty(attempts: int, asked: int, autojump_clock: Any) -> None:
    """It is asked for twice at most; then the next model is asked, or the turn has failed, and the next message is answered."""
    model, other = spoken(*[[STOP]] * asked, said("Back.")), spoken([STOP], [STOP])
    retry = RetryPolicy(attempts=attempts)
    async with opened(Agent(model=model, retry=retry)) as sessions:
        outcome = await ask(sessions)
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ModelFailed)
        assert ("protocol", asked) == (outcome.error.kind, len(model.requests))
        assert "Back." == (await ask(sessions, "again")).message.text  # type: ignore[union-attr]  # it is Completed
    async with opened(Agent(model=other, fallbacks=[spoken(said("I do."))], retry=RetryPolicy(attempts=2))) as sessions:
        assert "I do." == (await ask(sessions)).message.text  # type: ignore[union-attr]  # it is Completed


async def test_answer_when_it_alternates(autojump_clock: Any) -> None:
    """Other failures in between do not give an empty answer more attempts."""
    model = spoken([STOP], [], [STOP])
    async with opened(Agent(model=model, retry=RetryPolicy(attempts=9))) as sessions:
        outcome = await ask(sessions)

    assert isinstance(outcome, Failed)
    assert "empty answer" in str(outcome.error)
    assert 3 == len(model.requests)


@pytest.mark.parametrize("reason", ["length", "content_filtered"])
async def test_outcome_when_the_answer_was_cut(reason: str, autojump_clock: Any) -> None:
    """The outcome, the message and its row say so, and it is not asked again; also after a restart."""
    store = MemoryStore()
    model = spoken(said("There are three", reason), said("Whole."))
    async with opened(Agent(model=model), store=store) as sessions:
        receipt = await sessions.post("c", "hi", message_id="m1")
        outcomes = [await receipt.wait(), await ask(sessions, "again")]
        rows = (await sessions.history("c")).rows
    async with opened(Agent(model=spoken()), store=store) as sessions:
        later = await (await sessions.post("c", "hi", message_id="m1")).wait()

    assert all(isinstance(outcome, Completed) for outcome in outcomes)
    assert [reason, None] == [outcome.cut for outcome in outcomes]  # type: ignore[union-attr]  # as just seen
    assert [reason, None] == [row.content.get("stop_reason") for row in rows if row.role != "user"]
    assert isinstance(later, Completed)
    assert reason == later.cut


@pytest.mark.parametrize("reason", ["length", "content_filtered"])
@pytest.mark.parametrize("said_before", [(), (ThinkingChunk("Hm."),), (ToolCallChunk(0, "a", "look", '{"what": "t'),)])
async def test_outcome_when_the_answer_was_cut_before_its_first_word(reason: str, said_before: Any, autojump_clock: Any) -> None:
    """A turn without a word is not completed; what the model thought is kept, the transcript says why, and the next message is answered."""
    async with opened(Agent(model=spoken([*said_before, FinishChunk(reason)], said("Whole.")))) as sessions:
        outcome = await ask(sessions)
        rows = (await sessions.history("c")).rows

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ModelFailed)
        assert ("incomplete", False) == (outcome.error.kind, outcome.error.retryable)
        assert reason in str(outcome.error)
        assert "error" == rows[-1].content_type
        assert "Whole." == (await ask(sessions, "again")).message.text  # type: ignore[union-attr]  # it is Completed


@pytest.mark.parametrize("reason", ["length", "content_filtered", "stop"])
async def test_until_tool_when_the_answer_was_cut(reason: str, autojump_clock: Any) -> None:
    """A turn that was to end with a tool has not, however its last answer ended."""

    async def submit(value: int) -> int:
        """Submit."""
        await trio.lowlevel.checkpoint()
        return value

    call = ToolCallChunk(0, "a", "submit", '{"value": 1')
    model = spoken([TextChunk("I sub"), call, FinishChunk(reason)] if reason != "stop" else said("No."))
    async with opened(Agent(model=model, tools=[submit], until_tool=["submit"])) as sessions:
        outcome = await ask(sessions)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ToolNotCalled)
    assert (None if reason == "stop" else reason) == outcome.error.cut
    assert ("cut off" in str(outcome.error)) == (reason != "stop")


@attrs.frozen
class Person:
    """Somebody."""

    name: str


@pytest.mark.parametrize("reason", ["length", "content_filtered"])
async def test_extract_when_the_answer_was_cut(reason: str, autojump_clock: Any) -> None:
    """An extraction returns its type, or raises."""
    with pytest.raises(ToolNotCalled, match="cut off"):
        await extract(spoken(said("The name is", reason)), Person, "Ada")


async def test_extract_when_the_model_says_nothing(autojump_clock: Any) -> None:
    """An empty answer is no result."""
    with pytest.raises(ModelFailed, match="empty"):
        await extract(spoken([STOP], [STOP]), Person, "Ada")


@pytest.mark.parametrize("reason", ["length", "content_filtered"])
async def test_sub_agent_when_its_answer_was_cut(reason: str, autojump_clock: Any) -> None:
    """Its parent reads that the answer is not whole, as an error, with what there is of it; the turn goes on."""
    task = Task(name="t", description="d", model=spoken(said("Half of the rep", reason)))
    call = ToolCallChunk(0, "a", "task", '{"name": "t", "instructions": "Report."}')
    model = spoken([call, FinishChunk("tool_calls")], said("It was cut."))
    async with opened(Agent(model=model, middleware=[SubAgents([task], general_purpose=False)])) as sessions:
        outcome = await ask(sessions)
        (result,) = [result for message in (await state_of(sessions)).messages for result in message.results]

    assert isinstance(outcome, Completed)
    assert result.is_error
    assert reason in result.content
    assert "Half of the rep" in result.content


PIECES = [
    ThinkingChunk("First ", provider="p"),
    ThinkingChunk("Rome.", provider="p"),
    ThinkingChunk("", "seal-1", "p"),
    OpaqueChunk(SEAL),
    ToolCallChunk(0, "call-1", "look", '{"city": '),
    ToolCallChunk(0, arguments_json='"Rome"}', opaque=SEAL),
    ThinkingChunk("Oslo", provider="p", field="reasoning"),
    TextChunk("I look."),
    ToolCallChunk(1, "call-2", "look", '{"city": "Oslo"}'),
    TextChunk(" Twice."),
    FinishChunk("tool_calls"),
]
PARTS = [
    ThinkingPart("First Rome.", "seal-1", "p"),
    SEAL,
    ToolCall("call-1", "look", {"city": "Rome"}, opaque=SEAL),
    ThinkingPart("Oslo", None, "p", "reasoning"),
    TextPart("I look."),
    ToolCall("call-2", "look", {"city": "Oslo"}),
    TextPart(" Twice."),
]


async def test_parts_when_they_alternate(autojump_clock: Any) -> None:
    """Thinking, sealed parts, text and calls stand in the history in the order in which they came; also in the stored form."""

    async def look(city: str) -> str:
        """Look."""
        await trio.lowlevel.checkpoint()
        return city

    store, model = MemoryStore(), spoken(PIECES, said("Done."), said("Again."))
    agent = Agent(model=model, tools=[look])
    async with opened(agent, store=store) as sessions, sessions.watch("c") as watch:
        assert isinstance(await ask(sessions), Completed)
        seen = await read_all(watch)
    async with opened(agent, store=store) as sessions:
        await ask(sessions, "again")

    told = [list(event.message.parts) for event in of_kind(seen, MessageCompleted) if event.message.calls]
    assert [PARTS] == told
    assert [PARTS, PARTS] == [list(request.messages[1].parts) for request in model.requests[1:]]
    events = str([envelope_to_dict(envelope) for envelope in seen])
    assert "'opaque', 'provider': 'p'" in events
    assert not re.search(r"(?<!\d)1\.5(?!\d)", events), (
        "what only the provider can read is nothing for viewers"
    )  # instants have digits around it


async def test_usage_when_it_is_not_known(autojump_clock: Any) -> None:
    """An answer says whether its cost is known."""
    known: list[bool] = []

    class Look:
        middleware_id = "look"

        async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
            answer = await call_next(request)
            known.append(answer.is_usage_known)
            return answer

    model = spoken(said("a"), [TextChunk("b"), UsageChunk(Usage(1, 2)), STOP], [TextChunk("c"), UsageChunk(Usage()), STOP])
    async with opened(Agent(model=model, middleware=[Look()])) as sessions:
        for _ in range(3):
            await ask(sessions)

    assert [False, True, False] == known

"""Models that fail: the same model is asked again, then the next, for one model call. No tool runs twice; no voided text is shown."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.support.scenarios import (
    answer_to,
    ask,
    check_no_hole,
    kill_9,
    of_kind,
    opened,
    read_all,
    read_until,
    state_of,
    text_in,
    transcript,
)
from trio_sagents import (
    Agent,
    CancelCause,
    Cancelled,
    Completed,
    Envelope,
    Failed,
    FinishChunk,
    LimitExceeded,
    MemoryStore,
    MessageCompleted,
    ModelAnswered,
    ModelCalled,
    ModelError,
    ModelFailed,
    ModelFallback,
    ModelRetrying,
    RetryPolicy,
    Snapshot,
    Status,
    TextChunk,
    TextDelta,
    TokenUsage,
    ToolCallChunk,
    ToolCallIdentified,
    TurnEnded,
    TurnLimits,
    Usage,
    UsageChunk,
    envelope_to_dict,
)
from trio_sagents.testing import Call, Hang, ScriptedModel

BUSY = ModelFailed("overloaded", retryable=True)
REFUSED = ModelFailed("no such model")
STOP = FinishChunk("stop")


@attrs.define(eq=False)
class Spoken:
    """A model that gives chunks, raises the errors between them, and records when it was asked, and for what."""

    name: str
    scripts: list[Sequence[Any]]
    requests: list[Any] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[AsyncIterator[Any]]:
        self.requests.append(request)
        self.times.append(trio.current_time())
        yield self._say(self.scripts.pop(0))

    async def _say(self, script: Sequence[Any]) -> AsyncIterator[Any]:
        for step in script:
            await trio.lowlevel.checkpoint()
            if isinstance(step, Exception):
                raise step
            if step is Hang:
                await trio.sleep_forever()
            yield step


def spoken(name: str, *scripts: Any) -> Spoken:
    """Return a model; a script is a sequence of chunks and errors, an error, or a text for a whole answer."""
    return Spoken(
        name,
        [
            [TextChunk(script), STOP] if isinstance(script, str) else [script] if isinstance(script, Exception) else script
            for script in scripts
        ],
    )


def agent_of(*models: Any, **settings: Any) -> Agent:
    """Return an agent whose models are asked in this order."""
    return Agent(model=models[0], fallbacks=models[1:], **settings)


def shown(envelopes: Sequence[Envelope]) -> list[str]:
    """Return the texts on a viewer's screen, oldest first: streamed, forgotten when voided, replaced by the whole message."""
    texts: dict[str, str] = {}
    for envelope in envelopes:
        match envelope.event:
            case TextDelta(text=text, message_id=message_id):
                texts[message_id] = texts.get(message_id, "") + text
            case ModelRetrying(message_id=message_id) | ModelFallback(message_id=message_id):
                texts.pop(message_id, None)
            case MessageCompleted(message=message) if message.role == "assistant":
                texts[message.message_id] = message.text
            case _:
                pass
    return list(texts.values())


async def test_model_that_fails_for_the_moment(autojump_clock: Any) -> None:
    """The model is asked again with the same request, after waits that double. Viewers are told before each attempt. It is one round."""
    model = spoken("m", [TextChunk("so"), BUSY], BUSY, "fine")
    agent = agent_of(model, limits=TurnLimits(max_rounds=1), retry=RetryPolicy(first_delay=2))
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        began = trio.current_time()
        assert isinstance(await ask(sessions), Completed)
        seen = await read_until(watch, TurnEnded)
        retries = of_kind(seen, ModelRetrying)
        streamed = of_kind(seen, TextDelta)

        assert [0, 2, 6] == [time - began for time in model.times]
        assert model.requests[0] == model.requests[1] == model.requests[2]
        assert [("m", 2, 2.0), ("m", 3, 4.0)] == [(event.model, event.attempt, event.delay) for event in retries]
        assert [BUSY, BUSY] == [event.error for event in retries]
        assert streamed[0].message_id == retries[0].message_id
        assert {streamed[0].turn_id} == {event.turn_id for event in retries}
        assert 3 == len({retries[0].message_id, retries[1].message_id, streamed[-1].message_id})
        assert ["fine"] == shown(seen)
        assert [("user", "hi", None), ("assistant", "fine", "stop")] == await transcript(sessions)
        check_no_hole(seen)


async def test_every_model_that_fails(autojump_clock: Any) -> None:
    """Each model has its own attempts; the last failure is raised, names the others, and its partial text is kept, marked."""
    last = ModelFailed("out of memory", retryable=True)
    models = spoken("a", BUSY, [TextChunk("x"), BUSY]), spoken("b", REFUSED), spoken("c", BUSY, [TextChunk("half an"), last])
    agent = agent_of(*models, retry=RetryPolicy(attempts=2))
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        outcome = await ask(sessions)
        seen = await read_until(watch, TurnEnded)
        told = of_kind(seen, ModelRetrying, ModelFallback)

        assert Failed(last) == outcome
        assert [2, 1, 2] == [len(model.requests) for model in models]
        assert [ModelRetrying, ModelFallback, ModelFallback, ModelRetrying] == [type(event) for event in told]
        assert [("a", "b", BUSY), ("b", "c", REFUSED)] == [
            (event.model, event.fallback, event.error) for event in of_kind(seen, ModelFallback)
        ]
        assert [
            "before that, attempt 1 of model 'a' failed: overloaded",
            "before that, attempt 2 of model 'a' failed: overloaded",
            "before that, attempt 1 of model 'b' failed: no such model",
            "before that, attempt 1 of model 'c' failed: overloaded",
        ] == last.__notes__
        assert ["half an"] == shown(seen)
        assert ("assistant", "half an", "stream_error") == (await transcript(sessions))[-1]


async def test_notes_when_one_error_is_raised_again(autojump_clock: Any) -> None:
    """An adapter that raises the same error object again and again does not make its notes grow."""
    error = ModelFailed("the same", retryable=True)
    async with opened(agent_of(spoken("m", *[error] * 6))) as sessions:
        for _ in range(2):
            assert Failed(error) == await ask(sessions)

    assert 2 == len(error.__notes__)


async def test_tool_when_a_fallback_answers(autojump_clock: Any) -> None:
    """A tool that ran is not run again: the fallback gets its result; the next call begins with the agent's own model."""
    runs: list[str] = []

    async def book(place: str) -> str:
        """Book."""
        runs.append(place)
        return f"booked {place}"

    first = ScriptedModel([Call("book", place="Oslo"), REFUSED, "first again"])
    second = ScriptedModel([Call("book", place="Rome"), REFUSED])
    third = ScriptedModel(["both booked"])
    async with opened(agent_of(first, second, third, tools=[book])) as sessions, sessions.watch("c") as watch:
        # Round 1: first asks for Oslo. Round 2: first fails, second asks for Rome. Round 3: first answers.
        assert "first again" == await answer_to(sessions)
        seen = await read_until(watch, TurnEnded)

        assert ["Oslo", "Rome"] == runs
        assert 1 == len(of_kind(seen, ModelFallback))
        assert "booked Oslo" == second.requests[0].messages[-1].results[0].content
        assert second.requests[0] == first.requests[1]
        assert "booked Rome" == first.requests[2].messages[-1].results[0].content
        assert [] == third.requests


async def test_calls_of_an_answer_that_failed(autojump_clock: Any) -> None:
    """A tool that a failed attempt had asked for is not run, and does not count; what the next attempt asks for runs once."""
    runs: list[int] = []

    async def tool() -> str:
        """Do."""
        runs.append(1)
        return "done"

    asked = [ToolCallChunk(0, "call-1", "tool", "{}")]
    model = spoken("m", [TextChunk("I do"), *asked, BUSY], [*asked, FinishChunk("tool_calls")], "ok")
    agent = agent_of(model, tools=[tool], limits=TurnLimits(max_calls=1))
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        assert "ok" == await answer_to(sessions)
        seen = await read_until(watch, TurnEnded)
        identified = of_kind(seen, ToolCallIdentified)

        assert [1] == runs
        assert [of_kind(seen, ModelRetrying)[0].message_id] == [event.message_id for event in identified[:1]]
        assert identified[0].message_id != identified[1].message_id
        assert ["user", "assistant", "tool", "assistant"] == [role for role, _, _ in await transcript(sessions)]


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (ModelFailed("later", retryable=True, retry_after=7.5), [0, 7.5]),
        (ModelFailed("at once", retryable=True, retry_after=0.0), [0, 0]),
        (ModelFailed("nonsense", retryable=True, retry_after=float("nan")), [0, 1]),
        (ModelFailed("negative", retryable=True, retry_after=-5.0), [0, 0]),
    ],
    ids=str,
)
async def test_wait_when_the_provider_names_it(autojump_clock: Any, error: ModelFailed, waits: list[float]) -> None:
    """`retry_after` is waited for as it is; nonsense counts as none."""
    model = spoken("m", error, "fine")
    async with opened(agent_of(model)) as sessions:
        began = trio.current_time()
        assert "fine" == await answer_to(sessions)

    assert waits == [time - began for time in model.times]


async def test_wait_when_the_provider_names_a_long_one(autojump_clock: Any) -> None:
    """A model that is not back within `max_delay` is not waited for: the next is asked at once, or the call fails at once."""
    tomorrow = ModelFailed("come back tomorrow", retryable=True, retry_after=86_400)
    began = trio.current_time()
    async with opened(agent_of(spoken("a", tomorrow, tomorrow), spoken("b", "fine", tomorrow))) as sessions:
        assert "fine" == await answer_to(sessions)
        assert Failed(tomorrow) == await ask(sessions)
        assert began == trio.current_time()


@pytest.mark.parametrize("error", [REFUSED, ValueError("secret-4711"), ExceptionGroup("g", [OSError("secret-4711")])], ids=repr)
async def test_failure_that_lasts(autojump_clock: Any, error: Exception) -> None:
    """What trying again would not heal goes to the fallback at once; no text of a foreign error goes out, not even in a note."""
    began = trio.current_time()
    last = ModelFailed("no, too")
    agent = agent_of(spoken("a", [TextChunk("half"), error], error), spoken("b", "fine", last))
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        assert "fine" == await answer_to(sessions)
        assert Failed(last) == await ask(sessions)
        assert began == trio.current_time()
        seen = await read_all(watch)

        assert "secret" not in json.dumps([envelope_to_dict(envelope) for envelope in seen]) + str(last.__notes__)
        assert ["fine", ""] == shown(seen)


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        ([TextChunk("x" * 101), STOP], {}),
        ([ToolCallChunk(0, "a", "t"), ToolCallChunk(1, "b", "t"), FinishChunk("tool_calls")], {"limits": TurnLimits(max_calls=1)}),
    ],
    ids=["size", "calls"],
)
async def test_limit_is_final(autojump_clock: Any, script: Any, settings: dict[str, Any]) -> None:
    """An answer beyond a limit is not asked for again, of nobody."""
    models = spoken("a", script), spoken("b", "fine")
    async with opened(agent_of(*models, **settings), policy={"max_message_bytes": 100}) as sessions:
        outcome = await ask(sessions)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, LimitExceeded)
    assert [1, 0] == [len(model.requests) for model in models]


async def test_usage_of_attempts_that_failed(autojump_clock: Any) -> None:
    """Every attempt counts: in the usage of the answer and of the turn, even if no model answered."""
    cost = UsageChunk(Usage(10, 1, 3, 2))
    models = (
        spoken("a", [cost, BUSY], [cost, TextChunk("x"), BUSY], [cost, REFUSED]),
        spoken("b", [cost, TextChunk("y"), STOP], [cost, BUSY]),
    )
    agent = agent_of(*models, retry=RetryPolicy(attempts=2))
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        outcome = await ask(sessions)
        assert isinstance(outcome, Completed)
        assert Usage(30, 3, 9, 6) == outcome.usage
        assert [Usage(30, 3, 9, 6)] == [event.usage for event in of_kind(await read_until(watch, TurnEnded), TokenUsage)]
        models[1].scripts.append([REFUSED])
        assert isinstance(await ask(sessions), Failed)
        assert 20 == (await state_of(sessions)).messages[-1].metadata["usage"]["input_tokens"]


async def test_snapshot_while_a_model_is_waited_for(autojump_clock: Any) -> None:
    """Who joins during the wait sees a running turn, and nothing of the answer that failed."""
    model = spoken("m", [TextChunk("half"), ModelFailed("later", retryable=True, retry_after=20)], "fine")
    async with opened(agent_of(model), inactivity_timeout=5.0) as sessions:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(10)  # longer than an idle agent stays
        async with sessions.watch("c") as watch:
            first, *seen = await read_until(watch, TurnEnded)

        assert isinstance(first.event, Snapshot)
        assert (Status.RUNNING, None) == (first.event.status, first.event.streaming)
        assert "fine" == text_in(seen)
        assert isinstance(await receipt.wait(), Completed)


@pytest.mark.parametrize("cut", ["cancel_turn", "stop", "turn_timeout"])
async def test_wait_that_is_cut(autojump_clock: Any, cut: str) -> None:
    """A cut ends the wait at once; nobody is asked after it, and the voided text is not what the turn ends with."""
    model = spoken("m", [TextChunk("half"), ModelFailed("later", retryable=True, retry_after=20)], "fine")
    limits = TurnLimits(turn_timeout=5 if cut == "turn_timeout" else 1000)
    async with opened(agent_of(model, limits=limits)) as sessions:
        began = trio.current_time()
        receipt = await sessions.post("c", "hi")
        await trio.sleep(5)
        if cut != "turn_timeout":
            await getattr(sessions, cut)("c")
        outcome = await receipt.wait()

        assert 5 == trio.current_time() - began
        assert isinstance(outcome, Failed if cut == "turn_timeout" else Cancelled)
        assert cut != "cancel_turn" or Cancelled(CancelCause.USER) == outcome
        assert 1 == len(model.requests)
        assert ("assistant", "") == (await transcript(sessions))[-1][:2]


@pytest.mark.parametrize(
    ("until", "kept"), [(10, 0), (24.5, 0), (28, 20)], ids=["in the wait", "in the next attempt", "after its first draft"]
)
async def test_voided_draft_when_killed(autojump_clock: Any, until: float, kept: int) -> None:
    """A process that dies after a failed attempt does not bring its text back: the partial answer is the current attempt's."""
    slow = ModelFailed("later", retryable=True, retry_after=20)
    model = ScriptedModel([["void" * 10, slow], ["new" * 10, Hang()]], chunk_size=1, chunk_interval=0.1)
    store = MemoryStore()
    async with opened(agent_of(model), store=store, policy={"draft_interval": 1.0}) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(until)
        image = kill_9(store)
    async with opened(agent_of(spoken("m")), store=image) as sessions:
        _, text, stop_reason = (await transcript(sessions))[-1]

    assert "crashed" == stop_reason
    assert text in "new" * 10
    assert kept <= len(text)
    assert kept or not text


@pytest.mark.parametrize("length", [28, 29, 30, 31])
async def test_draft_of_the_next_attempt_when_it_is_as_long(autojump_clock: Any, length: int) -> None:
    """The next attempt's drafts are stored as often as any, however long the voided draft was."""
    slow = ModelFailed("at once", retryable=True, retry_after=0)
    model = ScriptedModel([["a" * 30, slow], ["b" * length, Hang()]], chunk_size=1, chunk_interval=0.1)
    store = MemoryStore()
    async with opened(agent_of(model), store=store, policy={"draft_interval": 1.0}) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(10)
        image = kill_9(store)
    async with opened(agent_of(spoken("m")), store=image) as sessions:
        assert ("assistant", "b" * length, "crashed") == (await transcript(sessions))[-1]


async def test_every_failed_attempt_is_a_debug_event(autojump_clock: Any) -> None:
    """Each failure is on the debug channel once, whether another attempt healed it or it ended the turn."""
    errors = [ModelFailed(f"no {number}", retryable=True) for number in range(4)]
    agent = agent_of(spoken("a", errors[0], "fine", *errors[1:3]), spoken("b", errors[3], REFUSED), retry=RetryPolicy(attempts=2))
    async with opened(agent) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c", channel="debug")
        await ask(sessions)
        assert Failed(REFUSED) == await ask(sessions)
        seen = of_kind(await read_all(subscriber), ModelError)

        assert [*errors, REFUSED] == [event.error for event in seen]
        assert 2 == len({event.turn_id for event in seen})


async def test_request_when_a_model_is_asked_again(autojump_clock: Any) -> None:
    """The debug channel tells each request as the adapter gets it, with the model and the attempt; an answer tells its usage and duration.

    Nobody makes these events if nobody listens.
    """
    agent = agent_of(spoken("a", ModelFailed("no", retryable=True), "fine"), spoken("b", "never"), retry=RetryPolicy(attempts=2))
    async with opened(agent) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c", channel="debug")
        await ask(sessions)
        events = await read_all(subscriber)
        called, answered = of_kind(events, ModelCalled), of_kind(events, ModelAnswered)

        assert [("a", 1), ("a", 2)] == [(event.model, event.attempt) for event in called]
        assert called[0].request == called[1].request
        assert ["user"] == [message.role for message in called[0].request.messages]
        (answer,) = answered
        assert ("a", called[0].turn_id) == (answer.model, answer.turn_id)
        assert answer.seconds >= 0


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (
            lambda: [spoken("a", BUSY, "fine")],
            {"type": "ModelRetrying", "error": {"type": "ModelFailed", "message": "overloaded"}, "model": "a", "attempt": 2, "delay": 1.0},
        ),
        (
            lambda: [spoken("a", REFUSED), spoken("b", "fine")],
            {"type": "ModelFallback", "error": {"type": "ModelFailed", "message": "no such model"}, "model": "a", "fallback": "b"},
        ),
    ],
    ids=["retrying", "fallback"],
)
async def test_events_as_json(autojump_clock: Any, models: Callable[[], Any], expected: dict[str, Any]) -> None:
    """Both events go to a browser as plain JSON, with the message to forget."""
    async with opened(agent_of(*models())) as sessions, sessions.watch("c") as watch:
        await ask(sessions)
        *_, envelope = await read_until(watch, ModelRetrying, ModelFallback)
        assert isinstance(envelope.event, ModelRetrying | ModelFallback)
        event = json.loads(json.dumps(envelope_to_dict(envelope)))["event"]

    assert {**expected, "message_id": envelope.event.message_id, "turn_id": envelope.event.turn_id} == event

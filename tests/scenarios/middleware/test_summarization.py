"""`Summarization`: the model reads less, and nothing that is stored changes."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings

from tests.support.middleware import StrictModel, agent_with, asked, events_of, on_file, texts
from tests.support.providers.histories import histories
from tests.support.scenarios import FaultyStore, Router, ask, opened, read_all, state_of
from tests.support.strict_provider import check_request
from trio_sagents import (
    Cancelled,
    Completed,
    Failed,
    Message,
    Middleware,
    MiddlewareAction,
    ModelFailed,
    ModelRequest,
    SessionOpts,
    TextPart,
    ToolCall,
    Usage,
    envelope_to_dict,
)
from trio_sagents import ToolResultPart as Result
from trio_sagents.data.estimates import estimate_tokens
from trio_sagents.middleware import Summarization, SummaryFailed, SummaryMade, SummaryStarted, _own_calls
from trio_sagents.middleware._transcripts import as_text, cut_places
from trio_sagents.testing import Call, Hang


def by_messages(request: ModelRequest) -> int:
    """Return 10 for each message: the test counts messages."""
    return 10 * len(request.messages)


def summarizer(*replies: Any, usage: Usage | None = None) -> StrictModel:
    """Return who writes summaries: "S1", "S2", ..., unless told otherwise."""
    return StrictModel(list(replies) or [f"S{n}" for n in range(1, 20)], usage, "summarizer")


def short(model: StrictModel | None = None, **more: Any) -> Summarization:
    """Return one that shortens at more than 6 messages, and keeps 2."""
    defaults = {"trigger_tokens": 60, "keep_messages": 2, "estimate": by_messages, "model": model or summarizer()}
    return Summarization(**{**defaults, **more})


READ = "I have read the summary and go on from there."


def said(request: ModelRequest) -> list[str]:
    """Return what stands in each message; summaries in short."""
    return [text.rpartition("\n")[2] for _, text in texts(request)]


async def test_request_when_it_is_long(autojump_clock: Any, database: Path) -> None:
    """Above the trigger the older part becomes a summary, once; after a restart, too. The history and its rows stay whole."""
    model = summarizer()
    agent = agent_with(short(model))
    async with on_file(database, agent) as sessions:
        for number in range(1, 5):
            await ask(sessions, f"q{number}")
        before = [said(request) for request in asked(agent)]
    again = agent_with(short(model))
    async with on_file(database, again) as sessions:
        for number in range(5, 9):
            await ask(sessions, f"q{number}")
        state = await state_of(sessions)
        rows = (await sessions.history("c")).rows
    after = [said(request) for request in asked(again)]

    assert [["q1"], ["q1", "ok", "q2"], ["q1", "ok", "q2", "ok", "q3"]] == before[:3]
    assert ["S1", READ, "q3", "ok", "q4"] == before[3]
    assert ["S2", READ, "q4", "ok", "q5"] == after[0]
    assert 5 == len(model.requests)
    assert ["S5", READ, "q7", "ok", "q8"] == after[3]
    assert "S1" in model.requests[1].messages[0].text
    assert "q1" not in model.requests[1].messages[0].text
    assert all(f"q{number}" in model.requests[0].messages[0].text for number in (1, 2))
    assert "q3" not in model.requests[0].messages[0].text
    assert ["q1", "ok", "q2", "ok"] == [row.content["text"] for row in rows][:4]
    assert 16 == state.older + len(state.messages) == len(rows)
    assert ["q7", "ok", "q8", "ok"] == [message.text for message in state.messages]


async def test_events_when_a_summary_is_made(autojump_clock: Any) -> None:
    """Viewers are told that one is being made, and that it is there, with what it cost; the turn's usage has it, too."""
    usage = Usage(100, 20)
    agent = agent_with(short(summarizer(usage=usage)), usage=Usage(1, 1))
    async with opened(agent) as sessions:
        for number in range(3):
            await ask(sessions, str(number))
        before = await state_of(sessions)
        async with sessions.open_subscriber() as subscriber:
            await subscriber.subscribe("c")
            outcome = await ask(sessions, "long")
            envelopes = await read_all(subscriber)
        state = await state_of(sessions)

    started, made = (envelope.event for envelope in envelopes if isinstance(envelope.event, SummaryStarted | SummaryMade))
    assert isinstance(started, SummaryStarted)
    assert isinstance(made, SummaryMade)
    assert isinstance(outcome, Completed)
    assert (70, 50, usage) == (started.tokens, made.tokens, made.usage)
    assert made.turn_id == started.turn_id == outcome.message.turn_id
    assert Usage(101, 21) == outcome.usage
    assert {"text": "S1", "up_to": made.up_to} == state.metadata["summary"]
    assert made.up_to == before.messages[3].message_id
    assert (4, ["2", "ok", "long", "ok"]) == (state.older, [message.text for message in state.messages])
    for envelope in envelopes:
        envelope_to_dict(envelope)


@pytest.mark.parametrize("reply", [ModelFailed("down", retryable=True), RuntimeError("secret"), "", Hang(), "x" * 3000, ["x", Hang()]])
async def test_summary_when_it_fails(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, reply: Any) -> None:
    """The turn goes on with the whole history; it is said what failed, on both channels; the next turn tries again."""
    monkeypatch.setattr(_own_calls, "MAX_CHARS", 2000)
    model = summarizer(reply, "S")
    agent = agent_with(short(model, answer_timeout=30.0))
    async with opened(agent) as sessions:
        for number in range(3):
            await ask(sessions, str(number))
        began = trio.current_time()
        debugged = await events_of(sessions, "long", channel="debug")
        seconds = trio.current_time() - began
        events = await events_of(sessions, "longer")
        state = await state_of(sessions)

    actions = [event for event in debugged if isinstance(event, MiddlewareAction)]
    assert ["Summarization"] == [event.middleware_id for event in actions]
    assert "secret" not in str(actions[0].data)
    assert seconds < 31
    assert 7 == len(asked(agent)[3].messages)
    assert 2 == len(model.requests)
    assert 1 == len([event for event in events if isinstance(event, SummaryMade)])
    assert "S" == state.metadata["summary"]["text"]


@pytest.mark.parametrize("finish", ["length", "content_filtered", "tool_calls", "nonsense"])
async def test_summary_when_it_was_cut(autojump_clock: Any, finish: str) -> None:
    """Half a summary is none."""
    model = StrictModel(["Half a summ"], finish=finish)
    agent = agent_with(short(model))
    async with opened(agent) as sessions:
        for number in range(4):
            await ask(sessions, str(number))
        state = await state_of(sessions)

    assert 1 == len(model.requests)
    assert "summary" not in state.metadata
    assert 7 == len(asked(agent)[3].messages)


async def test_summary_when_it_is_not_worth_it(autojump_clock: Any) -> None:
    """Where nearly all of it is in the messages that stay, nobody is asked for a summary of the rest."""
    model = summarizer()
    agent = agent_with(Summarization(trigger_tokens=1000, keep_messages=1, model=model))
    async with opened(agent) as sessions:
        await ask(sessions, "short")
        events = await events_of(sessions, "long " * 1000)

    assert [] == model.requests
    assert not any(isinstance(event, SummaryStarted | SummaryFailed) for event in events)
    assert 3 == len(asked(agent)[1].messages)


class Inserts(Middleware):
    """Adds messages to each request that nobody stores, each time with other ids."""

    async def before_model(self, context: Any, request: ModelRequest) -> ModelRequest:
        messages: list[Message] = []
        for message in request.messages:
            serial = len(asked(context.agent))
            messages.append(message)
            if message.role == "assistant":
                messages.append(Message(f"hint-{serial}-{message.message_id}", "user", (TextPart("hint"),)))
        return attrs.evolve(request, messages=messages)


async def test_summary_when_another_middleware_adds_messages(autojump_clock: Any) -> None:
    """A summary reaches up to a message that is stored, so it is found again."""
    model = summarizer()
    agent = agent_with(Inserts(), short(model, keep_messages=1))
    stored: set[str] = set()
    async with opened(agent) as sessions:
        for number in range(4):
            await ask(sessions, str(number))
            state = await state_of(sessions)
            stored.update(message.message_id for message in state.messages)
            up_to = state.metadata.get("summary", {"up_to": None})["up_to"]
            assert up_to is None or up_to in stored
    assert len(model.requests) <= 2
    assert "S1" in said(asked(agent)[2])[0]


async def test_summary_when_it_fails_in_a_turn_with_tools(autojump_clock: Any) -> None:
    """A summary that failed is not tried again at each model call of the turn."""

    async def tool() -> str:
        """Do."""
        return "done"

    model = summarizer(ModelFailed("down"), ModelFailed("down"))
    agent = agent_with(short(model, keep_messages=1), replies=[*(Call("tool") for _ in range(6)), "ok", "ok"], tools=[tool])
    async with opened(agent) as sessions:
        events = await events_of(sessions, "go")
        await ask(sessions, "again")

    assert 2 == len(model.requests)
    assert 1 == len([event for event in events if isinstance(event, SummaryFailed)])


async def test_summary_when_it_is_longer(autojump_clock: Any) -> None:
    """A summary that would make the request no shorter is not taken."""
    agent = agent_with(Summarization(trigger_tokens=10, keep_messages=1, model=summarizer("long " * 1000)))
    async with opened(agent) as sessions:
        await ask(sessions, "a" * 60)
        events = await events_of(sessions, "b")
        state = await state_of(sessions)

    assert ["the summary is not shorter than what it covers"] == [str(event.error) for event in events if isinstance(event, SummaryFailed)]
    assert "summary" not in state.metadata
    assert ["a" * 60, "ok", "b"] == said(asked(agent)[1])


async def test_summary_when_it_cannot_be_kept(autojump_clock: Any) -> None:
    """A store that fails fails the turn, as with any other step; what the model would have read is not lost."""
    store = FaultyStore()
    agent = agent_with(short())
    async with opened(agent, store=store) as sessions:
        for number in range(3):
            await ask(sessions, str(number))
        store.faults.fail("commit", 3)  # post, take, summary
        failed = await ask(sessions, "long")
        outcome = await ask(sessions, "again")
        state = await state_of(sessions)

    assert isinstance(failed, Failed)
    assert isinstance(outcome, Completed)
    assert "S2" == state.metadata["summary"]["text"]


async def test_summary_when_the_state_is_full(autojump_clock: Any) -> None:
    """A summary for which the stored state has no room is one that failed."""
    agent = agent_with(short(summarizer("S" * 6000)))
    async with opened(agent, policy={"max_state_bytes": 6000}) as sessions:
        for number in range(3):
            await ask(sessions, str(number))
        events = await events_of(sessions, "long")

    assert ["max_state_bytes"] == [event.error.limit for event in events if isinstance(event, SummaryFailed)]
    assert 7 == len(asked(agent)[3].messages)


async def test_summary_when_the_turn_is_cancelled(autojump_clock: Any) -> None:
    """A turn that is cut while its summary is being made has none; no message was lost, and the next turn makes one."""
    agent = agent_with(short(summarizer(Hang(), "S")))
    async with opened(agent) as sessions:
        for number in range(3):
            await ask(sessions, str(number))
        receipt = await sessions.post("c", "long")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        outcome = await receipt.wait()
        await ask(sessions, "again")
        state = await state_of(sessions)

    assert isinstance(outcome, Cancelled)
    assert "S" == state.metadata["summary"]["text"]
    assert "long" in [message.text for message in state.messages]


async def test_message_when_a_summary_is_being_made(autojump_clock: Any) -> None:
    """The summary is a step of the turn: a message that comes meanwhile waits, and is read by the next one."""
    slow = StrictModel(["S" * 10], chunk_interval=10.0)
    agent = agent_with(short(slow, trigger_tokens=69))
    async with opened(agent) as sessions:
        for number in range(3):
            await ask(sessions, str(number))
        receipt = await sessions.post("c", "long")
        await trio.sleep(5)
        second = await sessions.post("c", "meanwhile")
        await receipt.wait()
        await second.wait()

    assert ["S" * 10, READ, "2", "ok", "long"] == said(asked(agent)[3])
    assert [*said(asked(agent)[3]), "ok", "meanwhile"] == said(asked(agent)[4])


async def test_summary_when_one_turn_is_long(autojump_clock: Any) -> None:
    """Inside a long turn the cut is between rounds, never between a call and its results; and no round asks again for nothing."""

    async def tool(n: int) -> str:
        """Do."""
        return f"result {n}"

    rounds = [[Call("tool", n=n), Call("tool", n=n + 100)] for n in range(8)]
    model = summarizer()
    agent = agent_with(short(model, trigger_tokens=120), replies=[*rounds, "ok"], tools=[tool])
    async with opened(agent) as sessions:
        outcome = await ask(sessions, "go")

    assert isinstance(outcome, Completed), outcome
    assert all(by_messages(request) <= 120 for request in asked(agent))
    assert "assistant" == asked(agent)[-1].messages[1].role
    assert len(model.requests) <= 3
    for request in asked(agent):
        check_request(request)


async def test_summary_when_the_history_is_far_too_long(autojump_clock: Any) -> None:
    """What does not fit into one request is summed up in steps, the seeded instructions stay."""
    seed = [Message("s", "system", (TextPart("Be kind."),))]
    for number in range(30):
        seed += [Message(f"u{number}", "user", (TextPart(f"q{number}"),)), Message(f"a{number}", "assistant", (TextPart("ok"),), "stop")]
    model = summarizer()
    agent = agent_with(short(model))
    async with opened(Router(agent, SessionOpts(fresh_state_attrs={"messages": seed}))) as sessions:
        await ask(sessions, "now")

    assert len(model.requests) > 8
    assert all(len(request.messages[0].text.split("Person: ")) <= 8 for request in model.requests)
    (request,) = asked(agent)
    assert "Be kind." == said(request)[0]
    assert "now" == said(request)[-1]
    assert by_messages(request) <= 60


@pytest.mark.parametrize("stored", [None, "S", {"text": "S"}, {"text": 1, "up_to": "m"}, {"text": "S", "up_to": "gone"}, []])
async def test_summary_when_what_is_stored_is_wrong(autojump_clock: Any, stored: Any) -> None:
    """A stored summary that does not fit the history is not used."""
    agent = agent_with(short())
    opts = SessionOpts(fresh_state_attrs={"metadata": {"summary": stored}})
    async with opened(Router(agent, opts)) as sessions:
        await ask(sessions, "hi")

    assert ["hi"] == said(asked(agent)[0])


@given(histories())
@settings(deadline=None, max_examples=40)
def test_cut_places_when_any(messages: list[Message]) -> None:
    """Wherever it is cut, no call is parted from its results."""
    for place in cut_places(messages, 0, len(messages)):
        before = {call.call_id for message in messages[:place] for call in message.calls}
        behind = {result.call_id for message in messages[place:] for result in message.results}

        assert not before & behind
        assert before == {result.call_id for message in messages[:place] for result in message.results}
        assert 0 < place < len(messages)


def test_cut_places_when_the_history_is_odd() -> None:
    """A result that comes late, or answers nothing, is not parted from what is before it."""

    def result(call_id: str) -> Message:
        return Message(f"r-{call_id}", "tool", (Result(call_id, "f", "x"),))

    call = Message("a", "assistant", (ToolCall("c", "f"),))
    users = [Message(f"u{number}", "user", (TextPart("hi"),)) for number in range(4)]

    assert [1, 4] == cut_places([users[0], call, users[1], result("c"), users[2], users[3]], 0, 4)
    assert [3] == cut_places([users[0], result("x"), result("y"), users[1], users[2]], 0, 3)


@given(histories())
@settings(deadline=None, max_examples=40)
def test_transcript_when_any(messages: list[Message]) -> None:
    """A transcript has what people and the model said, and what tools returned."""
    text = as_text(messages)
    size = estimate_tokens(ModelRequest("", messages))

    for message in messages:
        assert message.text.strip() in text or not message.text.strip() or len(message.parts) > 1
        assert all(result.content in text for result in message.results)
    assert size >= len(messages)


def test_transcript_when_a_part_is_long() -> None:
    """Of a long part the beginning and the end are told."""
    message = Message("m", "tool", (Result("a", "f", "begin" + "x" * 100_000 + "end"),))

    text = as_text([message])

    assert len(text) < 25_000
    assert text.startswith("Tool: [f, completed] begin")
    assert text.endswith("end")
    assert "left out" in text


@pytest.mark.parametrize(
    ("part", "least"),
    [
        (TextPart("a" * 400), 100),
        (TextPart("字" * 100), 100),
        (ToolCall("c", "f", {"a": "b" * 400}), 100),
        (Result("c", "f", "a" * 400), 100),
    ],
)
def test_estimate_when_parts_are_known(part: Any, least: int) -> None:
    """A quarter of the characters; more where a character is a token."""
    assert least <= estimate_tokens(ModelRequest("", [Message("m", "user", (part,))])) <= least + 10


@pytest.mark.parametrize(
    "arguments", [{"trigger_tokens": 0}, {"keep_messages": 0}, {"estimate": 5}, {"answer_timeout": 0}, {"prompt": None}]
)
def test_summarization_when_arguments_are_wrong(arguments: Any) -> None:
    """What cannot be meant is refused when it is built."""
    with pytest.raises((TypeError, ValueError)):
        Summarization(**arguments)

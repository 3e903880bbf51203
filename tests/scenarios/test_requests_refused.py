"""Providers that refuse a request, as too long or for what is in it: the conversation continues, whatever was refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.middleware import StrictModel, agent_with, asked, on_file
from tests.support.scenarios import ask, opened, read_all, state_of
from trio_sagents import (
    Completed,
    Failed,
    ImagePart,
    ModelFailed,
    ModelRequest,
    RequestShortened,
    SubAgents,
    Summarization,
    Task,
    TextPart,
    ToolResult,
    UserMessage,
)
from trio_sagents.data.estimates import estimate_tokens
from trio_sagents.data.event_wire import event_to_dict
from trio_sagents.data.reading import LEFT_OUT, MEDIA_NOT_SENT, NOT_SENT, RESULT_NOT_SENT
from trio_sagents.middleware import ConversationTitle, SummaryFailed, SummaryMade
from trio_sagents.testing import Call, Hang
from trio_sagents.testing._threads import lockstep_threads

TOO_LONG = ModelFailed("maximum context length is exceeded", kind="context_overflow")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """Return the path of a database; a virtual clock waits for the threads of whoever uses it."""
    with lockstep_threads():
        yield tmp_path / "chat.db"


def window(tokens: int, reply: Any = "ok") -> StrictModel:
    """Return a model that takes requests of at most so many tokens."""

    def answer(request: ModelRequest) -> Any:
        if estimate_tokens(request) > tokens:
            return ModelFailed("the prompt is too long", kind="context_overflow")
        return reply(request) if callable(reply) else reply

    return StrictModel(answer)


def refusing(*words: str, kind: Any = "refused_content", reply: Any = "ok") -> StrictModel:
    """Return a model whose provider refuses requests with one of these words in them."""

    def answer(request: ModelRequest) -> Any:
        text = str([message.parts for message in request.messages])
        refused = next((word for word in words if word in text), None)
        if refused is not None:
            return ModelFailed(f"{refused} is refused", kind=kind)
        return reply(request) if callable(reply) else reply

    return StrictModel(answer)


def kinds(outcomes: list[Any]) -> list[str]:
    return [type(outcome).__name__ for outcome in outcomes]


# --- too long


@pytest.mark.parametrize("middleware", [(), (Summarization(trigger_tokens=10**6, keep_messages=2, model=StrictModel(["S"] * 50)),)])
@pytest.mark.parametrize("most", [300, 1000, 4000])
async def test_conversation_when_it_outgrows_the_model(autojump_clock: Any, database: Path, most: int, middleware: Any) -> None:
    """Every message is answered, however small the window is, with and without `Summarization`, and over a restart."""
    for part in range(2):
        agent = agent_with(*middleware, model=window(most))
        async with on_file(database, agent) as sessions:
            outcomes = [await ask(sessions, f"{part}-{number} " + "x" * 500) for number in range(12)]
            state = await state_of(sessions)

        assert ["Completed"] * 12 == kinds(outcomes)
    assert 48 == state.older + len(state.messages)
    refused = [request for request in asked(agent) if estimate_tokens(request) > most]
    assert len(refused) <= 2  # what the model takes is remembered


async def test_request_when_it_is_shortened(autojump_clock: Any) -> None:
    """Viewers are told that the model reads less; the history and the rows stay whole."""
    agent = agent_with(model=window(1000))
    async with opened(agent) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        for number in range(12):
            await ask(sessions, f"{number} " + "x" * 500)
        events = [envelope.event for envelope in await read_all(subscriber) if isinstance(envelope.event, RequestShortened)]
        rows = (await sessions.history("c")).rows

    assert 1 == len(events)
    assert events[0].tokens_before > 1000 >= events[0].tokens
    assert "RequestShortened" in str(event_to_dict(events[0]))
    assert 24 == len(rows)
    assert LEFT_OUT == asked(agent)[-1].messages[0].text


async def test_result_when_it_is_too_large(autojump_clock: Any) -> None:
    """A result that is too large for the model is read in part; what was cut is said, and the turn continues."""

    async def look() -> str:
        """Look."""
        return "begin" + "x" * 40_000 + "end"

    model = window(2000, lambda request: Call("look") if request.messages[-1].role == "user" else "ok")
    agent = agent_with(model=model, tools=[look])
    async with opened(agent) as sessions:
        outcomes = [await ask(sessions) for _ in range(3)]

    assert ["Completed"] * 3 == kinds(outcomes)
    content = asked(agent)[-1].messages[-1].results[0].content
    assert content.startswith("begin")
    assert "call look again" in content


async def test_message_when_it_is_too_long(autojump_clock: Any) -> None:
    """A message that is too long by itself fails, with what to do; it is not cut, and the next message is answered."""
    agent = agent_with(model=window(1000))
    async with opened(agent) as sessions:
        outcomes = [await ask(sessions, text) for text in ("hi", "y" * 9000, "hello", "again")]

    assert ["Completed", "Failed", "Completed", "Completed"] == kinds(outcomes)
    error = outcomes[1].error  # type: ignore[union-attr]
    assert isinstance(error, ModelFailed)
    assert ("context_overflow", False) == (error.kind, error.retryable)
    assert "the prompt is too long" in str(error)
    assert "post a shorter message" in str(error)
    assert 3 >= sum("y" * 9000 in str(request) for request in asked(agent))
    assert "y" * 9000 not in str(asked(agent)[-1].messages)


async def test_request_when_nothing_helps(autojump_clock: Any) -> None:
    """A model that takes nothing is asked a few times, each time for less; then the turn fails."""
    agent = agent_with(model=StrictModel(lambda request: TOO_LONG if len(request.messages) > 1 else "ok"))
    async with opened(agent) as sessions:
        first = await ask(sessions, "x" * 4000)
        second = await ask(sessions)

    assert isinstance(first, Completed)
    assert isinstance(second, Failed)
    assert "context_overflow" == second.error.kind  # type: ignore[attr-defined]
    sizes = [estimate_tokens(request) for request in asked(agent)[1:]]
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(sizes) <= 5


async def test_sub_agent_when_its_history_is_too_long(autojump_clock: Any) -> None:
    """The requests of a sub-agent are shortened as those of the agent itself."""

    async def look(n: int) -> str:
        """Look."""
        return f"{n} " + "x" * 3000

    replies = [Call("look", n=number) for number in range(12)]
    rounds = iter([*replies, "seen"])
    pending: list[Any] = []

    def reply(request: ModelRequest) -> Any:
        pending.append(request)
        return next(rounds)

    task = Task(name="helper", description="helps", model=window(3000, reply), tools=(look,))
    agent = agent_with(SubAgents((task,), general_purpose=False), replies=[Call("task", name="helper", instructions="Look."), "ok"])
    async with opened(agent) as sessions:
        outcome = await ask(sessions)
        state = await state_of(sessions)

    assert isinstance(outcome, Completed)
    assert ["seen"] == [result.content for message in state.messages for result in message.results]
    assert "Look." in str(pending[-1].messages)


async def test_summary_when_the_provider_says_too_long(autojump_clock: Any) -> None:
    """With `Summarization`, what is left out is summed up first, whatever its trigger is; one summary, not one for each turn."""
    writer = StrictModel([f"S{number}" for number in range(50)], None, "writer")
    agent = agent_with(Summarization(keep_messages=2, model=writer), model=window(1500))
    async with opened(agent) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        for number in range(20):
            assert isinstance(await ask(sessions, f"{number} " + "x" * 500), Completed)
        events = [envelope.event for envelope in await read_all(subscriber)]

    made = [event for event in events if isinstance(event, SummaryMade)]
    assert 1 <= len(made) <= 6
    assert len(made) == len(writer.requests)
    assert not any(isinstance(event, SummaryFailed) for event in events)
    assert not any(LEFT_OUT in str(request.messages) for request in asked(agent))


async def test_summary_when_its_writer_has_a_smaller_window(autojump_clock: Any) -> None:
    """If the transcript is too long for the model that writes the summary, its long parts are cut more, and it is asked again."""
    writer = window(1000, "S")
    agent = agent_with(Summarization(trigger_tokens=6000, keep_messages=1, model=writer))
    async with opened(agent) as sessions:
        await ask(sessions, "a" * 30_000)
        await ask(sessions, "b")
        state = await state_of(sessions)

    assert "S" == state.metadata["summary"]["text"]
    assert estimate_tokens(writer.requests[-1]) <= 1000 < estimate_tokens(writer.requests[0])


async def test_summary_when_it_does_not_help(autojump_clock: Any, database: Path) -> None:
    """A summary that is not shorter than what it covers is paid for once, also over a restart; another one, when there is more."""
    paid = 0
    for part in range(3):
        writer = StrictModel(["long " * 5000] * 20)
        agent = agent_with(Summarization(trigger_tokens=1000, keep_messages=1, model=writer))
        async with on_file(database, agent) as sessions:
            await ask(sessions, "a" * 5000 if part == 0 else "b")
            await ask(sessions, "c")
        paid += len(writer.requests)

    assert 1 == paid


# --- content that is refused


@pytest.mark.parametrize("kind", ["refused_content", "invalid_request"])
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_message_when_it_is_refused(autojump_clock: Any, database: Path, is_restarted: bool, kind: Any) -> None:
    """A message that the provider refuses fails with the provider's words, and is not sent again: later messages are answered."""
    agent = agent_with(model=refusing("poison", kind=kind))
    async with on_file(database, agent) as sessions:
        outcomes = [await ask(sessions, text) for text in ("hi", "poison", "never mind")]
        if not is_restarted:
            outcomes.append(await ask(sessions, "hello?"))
    if is_restarted:
        async with on_file(database, agent) as sessions:
            outcomes.append(await ask(sessions, "hello?"))
    async with on_file(database, agent) as sessions:
        state = await state_of(sessions)
        rows = (await sessions.history("c")).rows

    assert ["Completed", "Failed", "Completed", "Completed"] == kinds(outcomes)
    assert "poison is refused" in str(outcomes[1].error)
    assert not any("poison" in message.text for request in asked(agent)[-2:] for message in request.messages)
    assert NOT_SENT in str(asked(agent)[-1].messages)
    (refused,) = (message for message in state.messages if message.text == "poison")
    (marked,) = (message for message in state.messages if "unsent" in message.metadata)
    assert [refused.message_id] == marked.metadata["unsent"]
    (row,) = (row for row in rows if "unsent" in row.content)
    assert [refused.message_id] == row.content["unsent"]
    assert ("error", "failed") == (row.content_type, row.status)


@pytest.mark.parametrize("kind", ["auth", "quota", "overloaded", "network", "unknown"])
async def test_message_when_its_turn_fails_for_another_reason(autojump_clock: Any, kind: Any) -> None:
    """A message whose turn failed for a reason that is not its content is sent with the next one."""
    replies = [ModelFailed("no", kind=kind, retryable=False), "ok"]
    agent = agent_with(replies=replies)
    async with opened(agent) as sessions:
        outcomes = [await ask(sessions, text) for text in ("first", "second")]

    assert ["Failed", "Completed"] == kinds(outcomes)
    assert ["first", "second"] == [message.text for message in asked(agent)[-1].messages if message.role == "user"]


async def test_result_when_it_is_refused(autojump_clock: Any) -> None:
    """A tool result that the provider refuses is not sent again; its call is, and the person's message."""

    async def look() -> ToolResult:
        """Look."""
        return ToolResult("a picture", media=[ImagePart("image/png", "poisonAA")])

    replies = lambda request: Call("look") if request.messages[-1].text == "look" else "ok"  # noqa: E731  # short
    agent = agent_with(model=refusing("poison", kind="invalid_request", reply=replies), tools=[look])
    async with opened(agent) as sessions:
        outcomes = [await ask(sessions, text) for text in ("look", "never mind")]

    assert ["Failed", "Completed"] == kinds(outcomes)
    last = asked(agent)[-1].messages
    assert "look" == last[0].text
    assert [RESULT_NOT_SENT] == [result.content for message in last for result in message.results]


async def test_messages_when_several_are_refused_at_once(autojump_clock: Any) -> None:
    """All messages that a refused turn has taken from the queue are marked: nobody knows which one was meant."""
    agent = agent_with(model=refusing("poison", reply=lambda request: Hang() if request.messages[-1].text == "wait" else "ok"))
    async with opened(agent) as sessions:
        await sessions.post("c", "wait")
        receipts = [await sessions.post("c", text) for text in ("one", "two poison")]
        await sessions.cancel_turn("c")
        outcomes = [await receipt.wait() for receipt in receipts]
        outcomes.append(await ask(sessions, "ok?"))
        state = await state_of(sessions)

    assert ["Failed", "Failed", "Completed"] == kinds(outcomes)
    marked = [message_id for message in state.messages for message_id in message.metadata.get("unsent", ())]
    assert ["one", "two poison"] == [message.text for message in state.messages if message.message_id in marked]


async def test_image_when_it_is_gone_later(autojump_clock: Any) -> None:
    """An image that the provider took once, and refuses later, is not sent any more: the turn is answered without it."""
    is_gone = False

    def answer(request: ModelRequest) -> Any:
        is_shown = any(isinstance(part, ImagePart) for message in request.messages for part in message.parts)
        return ModelFailed("cannot be fetched", kind="invalid_request") if is_gone and is_shown else "ok"

    agent = agent_with(model=StrictModel(answer))
    image = UserMessage([TextPart("What is it?"), ImagePart("image/png", url="https://example.org/a.png")])
    async with opened(agent) as sessions:
        outcomes = [await (await sessions.post("c", image)).wait()]
        is_gone = True
        outcomes += [await ask(sessions, "and?"), await ask(sessions, "again?")]
        state = await state_of(sessions)

    assert ["Completed"] * 3 == kinds(outcomes)
    assert 4 == len(asked(agent))  # one of them was refused
    assert [TextPart("What is it?"), TextPart(MEDIA_NOT_SENT)] == list(asked(agent)[-1].messages[0].parts)
    assert [[state.messages[0].message_id]] == [one.metadata["unsent_media"] for one in state.messages if "unsent_media" in one.metadata]


async def test_history_when_it_is_refused_later(autojump_clock: Any) -> None:
    """If the provider refuses something in earlier turns, a message is answered without those turns; they come back when it can be."""
    is_strict = True
    model = StrictModel(
        lambda request: ModelFailed("no", kind="invalid_request") if is_strict and "poison" in str(request.messages) else "ok"
    )
    agent = agent_with(model=model)
    async with opened(agent) as sessions:
        is_strict = False
        await ask(sessions, "poison")
        is_strict = True
        outcomes = [await ask(sessions, "and?"), await ask(sessions, "again?")]
        assert LEFT_OUT == asked(agent)[-1].messages[0].text
        is_strict = False
        outcomes.append(await ask(sessions, "now?"))

    assert ["Completed"] * 3 == kinds(outcomes)
    assert ["poison", "ok", "and?", "ok", "again?", "ok", "now?"] == [message.text for message in asked(agent)[-1].messages]


async def test_title_when_the_first_message_was_refused(autojump_clock: Any) -> None:
    """A title is made of what was not refused."""
    writer = StrictModel(["T"])
    agent = agent_with(ConversationTitle(model=writer), model=refusing("poison"))
    async with opened(agent) as sessions:
        for text in ("poison", "the weather"):
            await ask(sessions, text)
        await trio.sleep(1)

    assert 1 == len(writer.requests)
    assert "poison" not in str(writer.requests)
    assert "the weather" in str(writer.requests)

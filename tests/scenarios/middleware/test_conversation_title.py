"""`ConversationTitle`: a title is made after the first turn, is retried, durable and announced, and its failure harms nothing."""

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.middleware import StrictModel, agent_with, on_file
from tests.support.scenarios import FaultyStore, Router, ask, opened, read_all, state_of
from trio_sagents import (
    Completed,
    MiddlewareAction,
    MiddlewareError,
    ModelFailed,
    PersistenceError,
    SessionOpts,
    Status,
    Usage,
    envelope_to_dict,
)
from trio_sagents.middleware import ConversationTitle, SubAgents, Task, TitleGenerated
from trio_sagents.middleware.conversation_title import titled
from trio_sagents.testing import Call, Hang


def titler(*replies: Any, **more: Any) -> ConversationTitle:
    return ConversationTitle(model=StrictModel(list(replies), Usage(10, 2), "titler"), **more)


async def title_of(sessions: Any) -> str | None:
    page = await sessions.conversations()
    titles: list[str | None] = [item.title for item in page.items if item.conversation_id == "c"]
    return titles[0]


async def test_title_when_the_process_is_restarted(autojump_clock: Any, database: Path) -> None:
    """A title is made after the first completed turn, announced, and in the list of conversations. After a restart none is made again."""
    middleware = titler('"A greeting."\n')
    async with on_file(database, agent_with(middleware)) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await ask(sessions, "hello there")
        await trio.sleep(1)
        envelopes = await read_all(subscriber)
        title = await title_of(sessions)
    again = titler("Another")
    async with on_file(database, agent_with(again)) as sessions:
        await ask(sessions, "more")
        await trio.sleep(1)
        state = await state_of(sessions)
        kept = await title_of(sessions)

    (event,) = (envelope for envelope in envelopes if isinstance(envelope.event, TitleGenerated))
    assert TitleGenerated("A greeting.") == event.event
    assert {"type": "TitleGenerated", "title": "A greeting.", "by_person": False} == envelope_to_dict(event)["event"]
    assert "A greeting." == title == kept == state.metadata["title"]
    assert [] == again.model.requests  # type: ignore[union-attr]
    (request,) = middleware.model.requests  # type: ignore[union-attr]
    assert "hello there" in request.messages[0].text
    assert "ok" in request.messages[0].text
    assert {"titler": {"calls": 1, "input_tokens": 10, "output_tokens": 2, "cache_read_tokens": 0, "cache_write_tokens": 0}} == (
        state.metadata["usage:ConversationTitle"]
    )
    (first_turn, _) = dict.fromkeys(message.turn_id for message in state.messages)
    assert {first_turn: state.metadata["usage:ConversationTitle"]["titler"]} == state.metadata["turn_usage:ConversationTitle"]


async def test_title_when_the_process_ends_before_it(autojump_clock: Any, database: Path) -> None:
    """If the agent ended before its title was made, the next agent makes one after a later turn."""
    async with on_file(database, agent_with(titler(Hang()))) as sessions:
        await ask(sessions)
    async with on_file(database, agent_with(titler("Later"))) as sessions:
        await ask(sessions, "more")
        await trio.sleep(1)

        assert "Later" == await title_of(sessions)


async def test_turn_when_the_title_takes_long(autojump_clock: Any) -> None:
    """The turn is over before its title is. The next turn runs meanwhile, and no second title is made."""
    slow = ConversationTitle(model=StrictModel(["a title"], chunk_interval=10.0))
    async with opened(agent_with(slow)) as sessions:
        began = trio.current_time()
        await ask(sessions)
        await ask(sessions, "two")

        assert trio.current_time() - began < 5
        assert None is await title_of(sessions)

        await trio.sleep(50)

        assert "a title" == await title_of(sessions)
        assert 1 == len(slow.model.requests)  # type: ignore[union-attr]


async def test_title_when_models_fail(autojump_clock: Any) -> None:
    """A failed title is retried with growing waits, after the same turn, then after the next. The agent lives, and says so on the debug
    channel."""
    middleware = titler(ModelFailed("a"), RuntimeError("secret"), "", "  \n\n", Hang(), "Sixth")
    async with opened(agent_with(middleware)) as sessions:
        async with sessions.open_subscriber() as subscriber:
            await subscriber.subscribe("c", channel="debug")
            await ask(sessions)
            await trio.sleep(0.5)
            counts = [len(middleware.model.requests)]  # type: ignore[union-attr]
            for seconds in (1, 1, 1, 100):
                await trio.sleep(seconds)
                counts.append(len(middleware.model.requests))  # type: ignore[union-attr]
            events = [envelope.event for envelope in await read_all(subscriber)]
        info = await sessions.agent_info("c")
        await ask(sessions, "more")
        await trio.sleep(100)
        title = await title_of(sessions)
        metadata = (await state_of(sessions)).metadata

    assert [1, 2, 2, 3, 3] == counts
    assert 6 == metadata["usage:ConversationTitle"]["titler"]["calls"]
    assert [3, 3] == [each["calls"] for each in metadata["turn_usage:ConversationTitle"].values()]
    assert 3 == len([event for event in events if isinstance(event, MiddlewareAction)])
    assert "secret" not in str(events)
    assert Status.IDLE is info.status
    assert "Sixth" == title


async def test_title_when_it_cannot_be_kept(autojump_clock: Any) -> None:
    """A store that fails costs the title, and nothing else."""
    store = FaultyStore()
    async with opened(agent_with(titler("One", "Two", first_delay=0.0)), store=store) as sessions:
        store.faults.fail("commit", 3)  # post, answer, title
        first = await ask(sessions)
        await trio.sleep(1)
        title = await title_of(sessions)

        assert await sessions.running("c")

        second = await ask(sessions, "more")
        await trio.sleep(1)

        assert isinstance(first, Completed)
        assert None is title
        assert isinstance(second, Completed)
        assert "Two" == await title_of(sessions)


async def test_title_when_a_turn_fails(autojump_clock: Any) -> None:
    """Only a completed turn gets a title."""
    middleware = titler("Title")
    async with opened(agent_with(middleware, replies=[ModelFailed("down"), "ok"])) as sessions:
        await ask(sessions)
        await trio.sleep(1)

        assert [] == middleware.model.requests  # type: ignore[union-attr]

        await ask(sessions)
        await trio.sleep(1)

        assert "Title" == await title_of(sessions)


@pytest.mark.parametrize("seconds", [0.0, 5.0, *(10 + number / 4 for number in range(24)), 1e3])
async def test_title_when_a_person_sets_one(autojump_clock: Any, seconds: float) -> None:
    """A title that a person chose stays, whether it was set before, while or after the model made one. Viewers are told."""
    store = FaultyStore()
    store.faults.latency["commit"] = 1.0
    middleware = ConversationTitle(model=StrictModel(["model's"], chunk_interval=3.0))
    async with opened(agent_with(middleware), store=store) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        info = await sessions.start("c")
        receipt = await sessions.post("c", "hi")
        await trio.sleep(seconds)
        await info.agent.notify_middleware("ConversationTitle", {"title": " My\ntitle "})
        await receipt.wait()
        await trio.sleep(1e3)
        title = await title_of(sessions)
        events = [envelope.event for envelope in await read_all(subscriber) if isinstance(envelope.event, TitleGenerated)]

    assert "My title" == title
    assert TitleGenerated("My title", by_person=True) == events[-1]
    assert len(events) == 2 or seconds < 100


async def test_title_when_a_persons_cannot_be_kept(autojump_clock: Any) -> None:
    """Who set a title that could not be kept is told; the model's comes as if nobody had."""
    store = FaultyStore()
    async with opened(agent_with(titler("Model's")), store=store) as sessions:
        info = await sessions.start("c")
        store.faults.fail("commit")
        with pytest.raises(PersistenceError):
            await info.agent.notify_middleware("ConversationTitle", {"title": "Mine"})
        await ask(sessions)
        await trio.sleep(1)

        assert "Model's" == await title_of(sessions)


async def test_title_when_a_person_removes_it(autojump_clock: Any) -> None:
    """A conversation without a title gets one after the next turn."""
    async with opened(agent_with(titler("First", "Second"))) as sessions:
        await ask(sessions)
        await trio.sleep(1)
        info = await sessions.start("c")
        await info.agent.notify_middleware("ConversationTitle", {"title": None})
        without = await title_of(sessions)
        await ask(sessions, "more")
        await trio.sleep(1)

        assert None is without
        assert "Second" == await title_of(sessions)


@pytest.mark.parametrize("message", ["x", {"title": ""}, {"title": "x" * 81}, {"title": 5}, {"name": "x"}, {"title": "x", "more": 1}, None])
async def test_message_when_wrong(autojump_clock: Any, message: Any) -> None:
    """Who sends something else is told, and the agent lives."""
    async with opened(agent_with(titler())) as sessions:
        info = await sessions.start("c")
        with pytest.raises(MiddlewareError) as caught:
            await info.agent.notify_middleware("ConversationTitle", message)

        assert isinstance(caught.value.__cause__, ValueError)
        assert await sessions.running("c")


async def test_title_when_it_was_seeded(autojump_clock: Any) -> None:
    """A title that the host gave is kept."""
    opts = SessionOpts(fresh_state_attrs={"metadata": {"title": "Given"}})
    async with opened(Router(agent_with(titler()), opts)) as sessions:
        await ask(sessions)
        await trio.sleep(1)

        assert "Given" == await title_of(sessions)


async def test_title_when_a_sub_agent_ends(autojump_clock: Any) -> None:
    """A sub-agent gets no title, because it is not a conversation."""
    middleware = titler("Title")
    task = Task(name="helper", description="helps", middleware=(middleware,), model=StrictModel(["helped"]))
    replies = [Call("task", name="helper", instructions="Help."), "ok"]
    async with opened(agent_with(SubAgents((task,), general_purpose=False), replies=replies)) as sessions:
        outcome = await ask(sessions)
        await trio.sleep(1)

    assert isinstance(outcome, Completed)
    assert [] == middleware.model.requests  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A title", "A title"),
        ('"A title"', "A title"),
        ("# **A title**\n\nbecause", "A title"),
        ("Title: A title", "A title"),
        ("\n\n A \t title\x00\x1b[0m", "A title [0m"),
        ("one two three four five", "one two three four…"),
        ("x" * 30, "x" * 19 + "…"),
        ("„Grüße“", "Grüße"),
    ],
)
def test_titled_when_the_model_decorates(text: str, expected: str) -> None:
    """A title is one line, without quotes and marks, and not longer than the limit."""
    assert expected == titled(text, 20)


@pytest.mark.parametrize("arguments", [{"attempts": 0}, {"max_chars": 0}, {"first_delay": -1}, {"answer_timeout": 0}])
def test_title_when_arguments_are_wrong(arguments: Any) -> None:
    """What cannot be meant is refused when it is built."""
    with pytest.raises((TypeError, ValueError), match="ConversationTitle"):
        ConversationTitle(**arguments)

"""Size limits of messages and of a conversation: what does not fit is refused, and what was accepted loads again."""

from typing import Any

import pytest
import trio

from tests.support.scenarios import (
    FaultyStore,
    answer_to,
    ask,
    make_agent,
    opened,
    state_of,
    transcript,
)
from trio_sagents import (
    Agent,
    Failed,
    FilesConfig,
    LimitExceeded,
    MemoryStore,
    UserMessage,
    open_files,
)
from trio_sagents.testing import Call, Hang, ScriptedModel


async def test_turn_closed_at_the_limit_with_text_that_grows_as_json(autojump_clock: Any) -> None:
    """R7: what closes a turn at max_state_bytes loads again, however much longer the text is as JSON."""
    store, policy = MemoryStore(), {"max_state_bytes": 4000, "max_message_bytes": 1000}
    async with opened(Agent(model=ScriptedModel(lambda request: "\x01" * 990)), store=store, policy=policy) as sessions:
        outcome = await ask(sessions, "h")

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
    async with opened(store=store, policy=policy) as sessions:
        assert ("user", "h", None) == (await transcript(sessions))[0]


async def test_posts_at_once_that_are_too_much_together(autojump_clock: Any) -> None:
    """Pending writes count: posts at once do not exceed max_state_bytes, and what was accepted loads."""
    store, refused = FaultyStore(), []
    store.faults.latency["commit"] = 1.0
    policy = {"max_state_bytes": 8000, "max_message_bytes": 1000, "queue_limit": 100}

    async def post(message_id: str) -> None:
        try:
            await sessions.post("c", "z" * 900, message_id=message_id)
        except LimitExceeded:
            refused.append(message_id)

    async with opened(make_agent(Hang()), store=store, policy=policy) as sessions:
        await sessions.start("c")
        async with trio.open_nursery() as nursery:
            for index in range(20):
                nursery.start_soon(post, f"m{index}")
        await sessions.stop("c")
    async with opened(make_agent(Hang()), store=store.inner, policy=policy) as sessions:
        await sessions.start("c")

        assert 10 <= len(refused) < 20
        await sessions.stop("c")


async def test_metadata_counts(autojump_clock: Any) -> None:
    """R28: max_message_bytes is about all of a message, the metadata included."""
    async with opened(policy={"max_message_bytes": 1000}) as sessions:
        with pytest.raises(LimitExceeded):
            await sessions.post("c", UserMessage("x", metadata={"a": "y" * 10_000}))
        assert "re: fine" == await answer_to(sessions, "fine")


async def test_limits_are_told_with_all_their_digits() -> None:
    """The error names the exact number of bytes: a rounded number would not show why a message is just too large."""
    assert "max_state_bytes exceeded: 8388609, the limit is 8388608" == str(LimitExceeded("max_state_bytes", 8388609, most=8388608))
    assert "seconds exceeded: 0.300521, the limit is 0.3" == str(LimitExceeded("seconds", 0.3005209, most=0.3))
    async with open_files(FilesConfig(max_file_bytes=1_000_000)) as files:
        with pytest.raises(LimitExceeded, match="max_file_bytes would be 1000001, the limit is 1000000;"):
            await files.area("x").create("/a", "a" * 1_000_001)


async def test_result_that_does_not_fit_into_the_state(autojump_clock: Any) -> None:
    """A tool has run, and its result is too much for the state: the turn fails, and what the tool returned is kept, as far as it fits."""

    async def talk() -> str:
        """Talk."""
        return "word " * 2000

    policy = {"max_state_bytes": 5000}
    async with opened(make_agent(Call("talk"), "next", tools=[talk]), policy=policy) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
        await sessions.stop("c")
        (result,) = [result for message in (await state_of(sessions)).messages for result in message.results]
        assert ("completed", "word") == (result.status, result.content[:4])

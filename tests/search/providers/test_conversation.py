"""A long conversation with a provider that has a small window, and that refuses, cuts and breaks off at random."""

import pytest

from tests.search.providers.conversation import converse

TURNS = 60
"""In CI, of each conversation; a thousand in a night."""


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "openai-responses"])
async def test_conversation_when_the_provider_is_difficult(dialect: str) -> None:
    """Every message is answered or visibly refused, the last one too, and no request is one that the provider does not take."""
    talk = await converse(dialect, 2, TURNS)

    assert [] == talk.found
    assert TURNS == sum(talk.outcomes.values())
    assert talk.overflows


async def test_conversation_without_summaries() -> None:
    """What is too long is cut, also if nothing sums it up."""
    talk = await converse("mistral", 3, TURNS, summarises=False)

    assert ([], 0) == (talk.found, talk.summaries)
    assert talk.overflows


async def test_conversation_when_the_server_refuses_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation whose messages are not answered is found."""
    monkeypatch.setattr("tests.search.providers.conversation.WINDOW", 10)

    assert any("failed" in found for found in (await converse("openai", 1, 3)).found)

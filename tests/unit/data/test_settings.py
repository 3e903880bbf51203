"""Settings: a wrong value is refused when the settings are built, in a sentence that names it."""

import math
from typing import Any

import pytest

from trio_sagents import (
    Agent,
    Budget,
    ConversationTitle,
    ImagePart,
    SessionConfig,
    SessionPolicy,
    Summarization,
)
from trio_sagents.testing import ScriptedModel


def test_replay_events_without_end() -> None:
    """A limit that cannot be counted with is refused when the policy is built."""
    with pytest.raises((TypeError, ValueError), match="replay_events"):
        SessionPolicy(replay_events=math.inf)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Agent(model=ScriptedModel([]), system_prompt=None), "Agent.system_prompt must be str, not NoneType"),  # type: ignore[arg-type]  # wrong on purpose, as the others
        (lambda: Agent(model=ScriptedModel([]), limits=3), "Agent.limits must be TurnLimits, not int"),  # type: ignore[arg-type]  # as above
        (lambda: Agent(model=ScriptedModel([]), name=3), "Agent.name must be str or None, not int"),  # type: ignore[arg-type]  # as above
        (lambda: Agent(model=ScriptedModel([]), fallbacks=ScriptedModel([])), "Agent.fallbacks must be a sequence of Models"),  # type: ignore[arg-type]  # as above
        (lambda: Budget(max_calls=1, per="day"), "Budget.per must be one of 'turn', 'session', not 'day'"),  # type: ignore[arg-type]  # as above
        (lambda: Summarization(model="gpt"), "Summarization.model must be a Model"),  # type: ignore[arg-type]  # as above
        (lambda: Summarization(estimate=3), "Summarization.estimate must be a function, not 3"),  # type: ignore[arg-type]  # as above
        (lambda: ConversationTitle(model="gpt"), "ConversationTitle.model must be a Model"),  # type: ignore[arg-type]  # as above
        (lambda: ImagePart("image/png", data=b"\x89PNG"), "ImagePart.data must be str or None, not bytes"),  # type: ignore[arg-type]  # as above
        (lambda: SessionConfig(factory_router=object()), "factory_router"),  # type: ignore[arg-type]  # as above
    ],
)
def test_wrong_settings_are_told_in_a_sentence(make: Any, words: str) -> None:
    """The error says what is wrong and what is wanted, and nothing else."""
    with pytest.raises((TypeError, ValueError), match=r"\A(?!\()") as caught:
        make()

    assert words in str(caught.value)

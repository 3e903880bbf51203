"""The present of an agent elsewhere, folded from its events, is what the agent's own snapshot shows."""

from typing import Any

import pytest
import trio

from tests.support.nodes import two_nodes
from tests.support.scenarios import make_agent
from trio_sagents import Agent, Approvals, TextPart, ToolCall
from trio_sagents.data.events import MessageCompleted, ModelRetrying, TextDelta, ThinkingDelta, ToolCallIdentified, TurnEnded, TurnStarted
from trio_sagents.data.messages import Message, ThinkingPart
from trio_sagents.data.outcomes import Cancelled
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import ModelFailed
from trio_sagents.nodes._present import Present
from trio_sagents.testing import Call, ScriptedModel


async def look(what: str) -> str:
    """Look."""
    await trio.sleep(3)
    return what


async def pay(amount: int) -> str:
    """Pay."""
    return "paid"


AGENTS = {
    "text": lambda: Agent(model=ScriptedModel(lambda request: "word " * 20, chunk_size=3, chunk_interval=0.4)),
    "tools": lambda: make_agent(["I look. ", Call("look", what="a"), Call("look", what="b")], "done", tools=[look], chunk_interval=0.4),
    "waits": lambda: make_agent(Call("pay", amount=1), "done", tools=[pay], middleware=[Approvals({"pay": True})], chunk_interval=0.4),
}


@pytest.mark.parametrize("kind", AGENTS)
async def test_snapshot_of_a_mirror(autojump_clock: Any, kind: str) -> None:
    """At every moment the picture on another node is that of the agent's own node."""
    async with two_nodes(AGENTS[kind]()) as (one, other), one.watch("c") as here, other.watch("c") as there:
        await trio.sleep(1)
        await one.post("c", "hi")
        await one.post("c", "again")
        for _ in range(20):
            await trio.sleep(0.73)
            with trio.move_on_after(0.3) as settled:  # until the events of this moment are there
                await trio.sleep_forever()
            assert settled.cancelled_caught
            near, far = here.subscription("c").picture(), there.subscription("c").picture()
            assert near is not None
            assert far is not None
            if near.seq == far.seq:
                assert near.event == far.event


def test_speech_with_places_between() -> None:
    """Each piece of text keeps its place, beside calls and beside what is not told."""
    present = Present()
    call = ToolCall("call", "look")
    for event in (
        TurnStarted("t"),
        ThinkingDelta("hm", "m", 0, 0, "t"),
        TextDelta("He", "m", 2, 0, "t", "narration"),
        TextDelta("llo", "m", 2, 2, "t", "narration"),
        TextDelta("lo", "m", 2, 3, "t", "narration"),
        ToolCallIdentified(call, "m", "t"),
        TextDelta("x", "m", 4, 0, "t"),
    ):
        present.apply(event)
    streaming = present._speech.picture() if present._speech is not None else None

    assert streaming is not None
    assert (ThinkingPart("hm"), TextPart("", "narration"), TextPart("Hello", "narration"), call, TextPart("x")) == streaming.parts


@pytest.mark.parametrize(
    "event",
    [
        MessageCompleted(Message("m", "assistant", (TextPart("x"),), "stop", "t"), "t"),
        ModelRetrying(ModelFailed("x"), "m", 2, 1.0, "m", "t"),
        TurnEnded("t", Cancelled(CancelCause.USER)),
        TurnStarted("u"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_speech_when_it_is_over(event: Any) -> None:
    """What ends a message, or voids it, ends the text that is shown of it."""
    present = Present()
    present.apply(TextDelta("x", "m", 0, 0, "t"))
    present.apply(event)

    assert present._speech is None

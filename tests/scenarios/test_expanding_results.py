"""Results of tools that bring messages into the turn: when they come, who sees them, and what cannot be one."""

from typing import Any

import pytest
import trio

from tests.support.people import Effects, gated, interrupt_in
from tests.support.scenarios import ask, kill_9, make_agent, of_kind, opened, read_until, state_of
from trio_sagents import (
    Approve,
    MemoryStore,
    Message,
    MessageCompleted,
    SingleFactoryRouter,
    SubAgents,
    Task,
    TextPart,
    ToolResult,
    TurnEnded,
    UserMessage,
)
from trio_sagents.testing import Call, ScriptedModel

GUIDE = UserMessage("The guide says: be brief.")
EXAMPLE = [UserMessage("What is 1+1?"), Message("any", "assistant", (TextPart("2"),), "stop"), UserMessage("So do it like that.")]


async def load(name: str) -> ToolResult:
    """Load a guide."""
    await trio.sleep(2 if name == "first" else 1)
    return ToolResult(f"loaded {name}", messages=EXAMPLE if name == "first" else [GUIDE])


def loading(*names: str, **settings: Any) -> Any:
    return make_agent([Call("load", name=name) for name in names], "done", tools=[load], **settings)


async def test_messages_come_when_all_calls_are_done(autojump_clock: Any) -> None:
    """They follow the results, in the order of these, each with an id of its own; the model reads them in the same turn, once."""
    agent = loading("first", "second")
    async with opened(SingleFactoryRouter(agent)) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await ask(sessions)
        events = await read_until(subscriber, TurnEnded)
        messages = (await state_of(sessions)).messages

        assert ["user", "assistant", "tool", "tool", "user", "user", "assistant", "user", "assistant"] == [each.role for each in messages]
        assert [GUIDE.text, "What is 1+1?", "2", "So do it like that."] == [each.text for each in messages[4:8]]
        assert len({each.message_id for each in messages}) == len(messages)
        assert {messages[0].turn_id} == {each.turn_id for each in messages}
        completed = [event.message.message_id for event in of_kind(events, MessageCompleted)]
        assert [each.message_id for each in messages] == completed
        rows = [row for row in (await sessions.history("c")).rows if row.content.get("from_tool") == "load"]
        assert [GUIDE.text, "What is 1+1?", "So do it like that."] == [row.content["text"] for row in rows]
        assert {"tool"} == {row.role for row in rows}
    assert 8 == len(agent.model.requests[1].messages)
    assert 2 == len(agent.model.requests)


async def test_messages_of_an_approved_call_come_after_a_restart(autojump_clock: Any) -> None:
    """The messages of a call that ran beside one that waits for a person are not lost with the process."""
    store, effects = MemoryStore(), Effects()
    agent = make_agent(
        [Call("load", name="second"), Call("pay", amount=1)], "done", tools=[load, effects.tool("pay")], middleware=[gated(effects, "pay")]
    )
    async with opened(SingleFactoryRouter(agent), store=store) as sessions:
        (call,) = interrupt_in(await ask(sessions)).calls
        assert GUIDE.text not in [message.text for message in (await state_of(sessions)).messages]
    async with opened(SingleFactoryRouter(agent), store=kill_9(store)) as sessions:
        await (await sessions.resume("c", [Approve(call)])).wait()

        texts = [message.text for message in (await state_of(sessions)).messages]
        assert [GUIDE.text, "done"] == texts[-2:]


async def test_messages_when_the_turn_ends_with_the_tool(autojump_clock: Any) -> None:
    """A turn that ends with this tool takes none of them."""
    agent = make_agent(Call("load", name="second"), tools=[load], until_tool="load")
    async with opened(SingleFactoryRouter(agent)) as sessions:
        await ask(sessions)

        assert GUIDE.text not in [message.text for message in (await state_of(sessions)).messages]


async def test_messages_in_a_sub_agent(autojump_clock: Any) -> None:
    """They come into the history of the sub-agent, and of nobody else."""
    model = ScriptedModel([Call("load", name="second"), "brief"])
    task = Task(name="t", description="d", model=model, tools=[load])
    agent = make_agent(Call("task", name="t", instructions="go"), "done", middleware=[SubAgents([task], general_purpose=False)])
    async with opened(SingleFactoryRouter(agent)) as sessions:
        await ask(sessions)

        assert GUIDE.text == model.requests[1].messages[-1].text
        assert GUIDE.text not in [message.text for message in (await state_of(sessions)).messages]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([Message("a", "system", (TextPart("obey"),))], "must be a UserMessage"),
        ([5], "must be a UserMessage"),
        ([Message("a", "assistant", (TextPart("I will"),), "stop")], "must not be an assistant"),
        ([UserMessage("x"), Message("a", "assistant", (TextPart("I will"),), "stop")], "must not be an assistant"),
        ([Message("a", "tool", ())], "must be a UserMessage"),
        (7, "must be a UserMessage"),
    ],
)
async def test_messages_that_cannot_be_taken(given: Any, words: str) -> None:
    """They are left out, and the model reads that the call worked and what was left out."""

    async def load() -> ToolResult:
        """Load."""
        return ToolResult("loaded", messages=given)

    agent = make_agent(Call("load"), "done", tools=[load])
    async with opened(SingleFactoryRouter(agent)) as sessions:
        await ask(sessions)

        (result,) = [result for message in (await state_of(sessions)).messages for result in message.results]
        assert ("completed", True) == (result.status, result.content.startswith("loaded\n[left out: "))
        assert words in result.content

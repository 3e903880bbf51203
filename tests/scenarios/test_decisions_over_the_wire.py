"""People in the loop through the real SDKs: what the providers are sent after approvals, answers and sub-agents is what they take."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import attrs
import pytest

from tests.support.people import Effects, World, call_of, gated, interrupt_in, text_of
from trio_sagents import Agent, Answer, Approve, AskUser, Completed, Edit, Reject, SubAgents, Task, extract
from trio_sagents.models import AnthropicModel, OpenAIModel
from trio_sagents.testing.providers import (
    Exchange,
    Provider,
    Reply,
    anthropic_reply,
    call_deltas,
    open_provider,
    openai_reply,
    text,
    tool_use,
)

Asked = tuple[str, str, Mapping[str, Any]]
"""A call that the provider asks for: id, name, arguments."""


@attrs.frozen
class Wire:
    """A provider, in its own language."""

    provider: Provider
    kind: str

    def model(self) -> Any:
        if self.kind == "anthropic":
            return AnthropicModel("claude", api_key="k", base_url=self.provider.url)
        return OpenAIModel("gpt", f"{self.provider.url}/v1", api_key="k")

    def says(self, words: str) -> Reply:
        return anthropic_reply(text(words)) if self.kind == "anthropic" else openai_reply({"content": words})

    def asks(self, *calls: Asked) -> Reply:
        if self.kind == "anthropic":
            return anthropic_reply(*[tool_use(call, name, *_halves(given)) for call, name, given in calls], stop_reason="tool_use")
        deltas = [delta for index, (call, name, given) in enumerate(calls) for delta in call_deltas(index, call, name, *_halves(given))]
        return openai_reply(*deltas, finish_reason="tool_calls")

    def calls_in(self, body: Any) -> list[tuple[str, Mapping[str, Any]]]:
        """Return (name, arguments) of the calls in a request, in order."""
        if self.kind == "anthropic":
            blocks = [block for message in body["messages"] if isinstance(message["content"], list) for block in message["content"]]
            return [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
        calls = [block for message in body["messages"] for block in message.get("tool_calls") or ()]
        return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]

    def results_in(self, body: Any) -> list[str]:
        """Return the texts of the results in a request, in order; each answers a call of the message before it."""
        if self.kind == "anthropic":
            found = []
            for before, message in zip(body["messages"], body["messages"][1:], strict=False):
                blocks = message["content"] if isinstance(message["content"], list) else []
                results = [block for block in blocks if block["type"] == "tool_result"]
                if results:
                    asked = {block["id"] for block in before["content"] if block["type"] == "tool_use"}
                    assert asked == {result["tool_use_id"] for result in results}
                found += [result["content"] if isinstance(result["content"], str) else result["content"][0]["text"] for result in results]
            return found
        asked: set[str] = set()
        found = []
        for message in body["messages"]:
            asked |= {block["id"] for block in message.get("tool_calls") or ()}
            if message["role"] == "tool":
                assert message["tool_call_id"] in asked
                found.append(message["content"])
        return found


def _halves(given: Mapping[str, Any]) -> tuple[str, str]:
    whole = json.dumps(given)
    return whole[: len(whole) // 2], whole[len(whole) // 2 :]


@pytest.fixture(params=["anthropic", "openai"])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    """A provider of each kind."""
    async with open_provider() as provider:
        yield Wire(provider, request.param)


async def test_batch_of_approvals_and_a_question(wire: Wire) -> None:
    """Approved, edited, rejected and answered, over a crash: the next request has four calls as they ran, and four results."""
    effects = Effects()
    wire.provider.replies.extend(
        [
            wire.asks(
                ("c1", "pay", {"amount": 1}),
                ("c2", "pay", {"amount": 2}),
                ("c3", "pay", {"amount": 3}),
                ("c4", "ask_user", {"question": "Which?", "kind": "single", "options": ["red", "blue"]}),
            ),
            wire.says("All done."),
        ]
    )
    agent = Agent(model=wire.model(), tools=[effects.tool("pay")], middleware=[gated(effects, "pay"), AskUser()])
    async with World(agent, inactivity_timeout=float("inf")) as world:
        interrupt = await world.ask()
        one, two, three = (call_of(interrupt, "pay", number) for number in range(3))
        await world.decide(Reject(three, "no"))
        await world.crash()
        outcome = await world.decide(Approve(one), Edit(two, {"amount": 20}), Answer(call_of(interrupt, "ask_user"), "blue"))

        assert "All done." == text_of(outcome)
        assert [1, 20] == sorted(effects.of("pay"))
        body = wire.provider.bodies[-1]
        assert [1, 20, 3] == [given["amount"] for name, given in wire.calls_in(body) if name == "pay"]
        results = wire.results_in(body)
        assert 4 == len(results)
        assert {"pay 1 done", "pay 20 done", "blue"} < set(results)


async def test_message_instead_of_an_answer(wire: Wire) -> None:
    """A superseded call has its result in the request for the new message."""
    effects = Effects()
    wire.provider.replies.extend([wire.asks(("c1", "pay", {"amount": 1})), wire.says("As you like.")])
    agent = Agent(model=wire.model(), tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, inactivity_timeout=float("inf")) as world:
        await world.ask()
        assert "As you like." == text_of(await world.post("never mind"))

        (result,) = wire.results_in(wire.provider.bodies[-1])
        assert "not run" in result
        assert [] == effects.done


async def test_sub_agent_that_waits(wire: Wire) -> None:
    """The sub-agent's requests continue where they were, over a crash, and the parent's request has the sub-agent's answer."""
    effects = Effects()

    def respond(exchange: Exchange) -> Reply:
        body = exchange.body
        results = wire.results_in(body)
        names = [name for name, _ in wire.calls_in(body)]
        is_sub = not any("hand over" in json.dumps(message) for message in body["messages"])
        if is_sub:
            return wire.says("sub done") if len(results) == 2 else wire.asks(("s1", "look", {"amount": 1}), ("s2", "pay", {"amount": 2}))
        return wire.says("done") if names else wire.asks(("c1", "task", {"instructions": "do it", "name": "t"}))

    wire.provider.respond = respond
    tools = [effects.tool("look"), effects.tool("pay")]
    task = Task(name="t", description="d", tools=tools, middleware=[gated(effects, "pay")])
    agent = Agent(model=wire.model(), middleware=[SubAgents([task], general_purpose=False)])
    async with World(agent, inactivity_timeout=float("inf")) as world:
        interrupt = await world.ask("hand over")
        await world.crash()
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))

        assert [("look", 1), ("pay", 2)] == [(name, given["amount"]) for name, given in effects.done]
        assert ["sub done"] == wire.results_in(wire.provider.bodies[-1])
        assert 4 == len(wire.provider.bodies)


@attrs.frozen
class Invoice:
    """An invoice."""

    number: str
    total: int


async def test_turn_that_ends_with_an_approved_tool(wire: Wire) -> None:
    """The value comes out of the approved call; a follow-up message gives the provider a whole history."""

    async def file_invoice(number: str, total: int) -> Invoice:
        """File it."""
        return Invoice(number, total)

    wire.provider.replies.extend(
        [
            wire.asks(("c1", "file_invoice", {"number": "A1", "total": 5})),
            wire.asks(("c1", "file_invoice", {"number": "A2", "total": 6})),
        ]
    )
    agent = Agent(
        model=wire.model(), tools=[file_invoice], until_tool_success=file_invoice.__name__, middleware=[gated(Effects(), "file_invoice")]
    )
    async with World(agent, inactivity_timeout=float("inf")) as world:
        first = await world.ask()
        outcome = await world.decide(Approve(first.calls[0]))
        assert isinstance(outcome, Completed)
        assert Invoice("A1", 5) == outcome.result
        second = interrupt_in(await world.post("and the other"))
        outcome = await world.decide(Edit(second.calls[0], {"number": "A2", "total": 7}))
        assert isinstance(outcome, Completed)
        assert Invoice("A2", 7) == outcome.result
        assert first.calls[0].call_id != second.calls[0].call_id

        assert ['{"number": "A1", "total": 5}'] == wire.results_in(wire.provider.bodies[-1])


async def test_extract(wire: Wire) -> None:
    """A value that does not fit goes back to the model as the result of its call, and the next value is taken."""
    wire.provider.replies.extend([wire.asks(("c1", "submit", {"number": "A1"})), wire.asks(("c2", "submit", {"number": "A1", "total": 5}))])

    assert Invoice("A1", 5) == await extract(wire.model(), Invoice, "Invoice A1: 5")
    (refused,) = wire.results_in(wire.provider.bodies[-1])
    assert "total" in refused

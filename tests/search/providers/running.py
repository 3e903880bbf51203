"""Has an adapter read mutated streams: its event layer alone, for volume, or all of it, through the SDK, HTTP and a session."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs
import httpx2
import trio
import trio.testing

from tests.search.providers.judging import Made, violations
from tests.search.providers.streams import Protocol, Stream, stream
from trio_sagents import Agent, Completed, Failed, RetryPolicy, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.data.requests import FinishChunk, TextChunk, ToolCallChunk
from trio_sagents.exceptions import ModelFailed
from trio_sagents.models import AnthropicModel, OpenAIModel
from trio_sagents.models import _answer as answers
from trio_sagents.models._anthropic_events import AnthropicEvents
from trio_sagents.models._openai_events import OpenAIEvents
from trio_sagents.testing.providers import HANG, SPEAKERS, Exchange, Reply, open_provider

PATIENCE = 30.0
"""Seconds that an answer may take, in virtual time and in real time."""
AFTERWARDS = "That was it."
"""What the model says when its calls have run."""
EXAMPLES = 20
"""Violations that are told in full."""


@attrs.define(eq=False)
class Report:
    """What came of a run."""

    count: int = 0
    answered: int = 0
    found: list[str] = attrs.field(factory=list)
    wrong: int = 0
    mutations: Counter[str] = attrs.field(factory=Counter)

    def note(self, what: Stream, made: Made, told: str) -> None:
        """Take what an adapter made of a stream."""
        self.count += 1
        self.answered += made.error is None
        self.mutations.update(mutation.partition(" at ")[0] for mutation in what.mutations)
        for violation in violations(what, made):
            self.add(f"{told} ({'; '.join(what.mutations)}): {violation}")

    def add(self, violation: str) -> None:
        """Take a violation."""
        self.wrong += 1
        if len(self.found) < EXAMPLES:
            self.found.append(violation)


async def _body(chunks: Sequence[bytes], *, hangs: bool) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await trio.lowlevel.checkpoint()
        yield chunk
    if hangs:
        await trio.sleep_forever()


async def _read(what: Stream, *, hangs: bool) -> Made:
    """Return what the event layer of an adapter makes of a stream."""
    request = httpx2.Request("POST", "http://127.0.0.1:9/")
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=_body(what.chunks, hangs=hangs), request=request)
    events: Any = OpenAIEvents() if what.protocol == "openai" else AnthropicEvents()
    text, reason = "", ""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    try:
        with trio.fail_after(PATIENCE):
            async with answers.Answer("m", response, events, answers.Patience(10, 5)) as answer:
                async for chunk in answer:
                    match chunk:
                        case TextChunk():
                            text += chunk.text
                        case ToolCallChunk():
                            names[chunk.index] = names.get(chunk.index) or chunk.name or ""
                            arguments[chunk.index] = arguments.get(chunk.index, "") + chunk.arguments_json
                        case FinishChunk():
                            reason = chunk.reason
                        case _:
                            pass
    except Exception as exc:  # whatever it raises is judged
        return Made(error=exc)
    return Made(text, [(names[index], arguments[index]) for index in names], reason)


def run_events(protocol: Protocol, seed: int, first: int, count: int) -> Report:
    """Read streams `first` to `first + count` of a seed with an adapter's event layer, in virtual time."""
    report = Report()

    async def run() -> None:
        for number in range(first, first + count):
            what = stream(protocol, seed, number)
            made = await _read(what, hangs=number % 10 == 0)
            report.note(what, made, f"stream {number} of seed {seed}, {protocol}")

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    return report


async def run_sessions(protocol: Protocol, seed: int, count: int) -> Report:
    """Have a session take turns whose answers are mutated streams, through the SDK and HTTP: each turn ends, and no tool runs wrongly."""
    report = Report()
    numbers = iter(range(count))
    current: list[Stream] = []
    runs: list[tuple[str, str]] = []

    async def look(call: str, items: list[str], n: int) -> str:
        """Look."""
        runs.append((call, str(items) + str(n)))
        await trio.lowlevel.checkpoint()
        return "seen"

    def respond(exchange: Exchange) -> Reply:
        messages = exchange.body["messages"]
        if messages[-1]["role"] == "tool" or "tool_result" in str(messages[-1]["content"]):
            return SPEAKERS[protocol].says(AFTERWARDS)  # the second answer of the turn
        return Reply([*current[0].chunks, *([HANG] if "cut" in str(current[0].mutations) else [])])

    async with open_provider() as provider:
        provider.respond = respond
        model: Any = (
            OpenAIModel("m", f"{provider.url}/v1", read_timeout=0.2)
            if protocol == "openai"
            else AnthropicModel("m", api_key="k", base_url=provider.url, read_timeout=0.2)
        )
        agent = Agent(model=model, tools=[look], retry=RetryPolicy(attempts=1))
        async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
            for number in numbers:
                what = stream(protocol, seed, number)
                current[:] = [what]
                runs.clear()
                told = f"stream {number} of seed {seed}, {protocol}, in a session"
                with trio.move_on_after(PATIENCE) as scope:
                    outcome = await (await sessions.post(f"c{number}", "Go")).wait()
                if scope.cancelled_caught:
                    report.add(f"{told} ({'; '.join(what.mutations)}): the turn does not end")
                    return report
                report.note(what, _made(outcome, runs), told)
    return report


def _made(outcome: Any, runs: Sequence[tuple[str, str]]) -> Made:
    """Return what a turn came to, as far as it can be compared with its first answer: a failure, or words without a call."""
    if isinstance(outcome, Failed):
        error = outcome.error
        if not isinstance(error, ModelFailed):
            return Made(error=AssertionError(f"{type(error).__name__}: {error}"))
        return Made(error=error, is_partial=error.kind == "timeout")  # a busy machine is slow; nothing is wrong with that
    if not isinstance(outcome, Completed):
        return Made(error=AssertionError(f"the turn ended as {outcome!r}"))
    for call, said in runs:
        if said.count(call) != said.count("c"):
            return Made(error=AssertionError(f"a tool ran with the arguments of two calls: {call} {said}"))
    if outcome.message.text == AFTERWARDS:
        return Made(error=ModelFailed("its calls were run, and are judged above"), is_partial=True)
    return Made(outcome.message.text, (), outcome.message.stop_reason or "")

"""One long conversation with a provider that has a small window, and that refuses, cuts and breaks off at random.

Each turn has a plan: what is posted, and how the server answers. A message is answered, or it is visibly refused: its turn has failed, and
the transcript says why. Messages whose plan has nothing wrong in it are answered, whatever came before; the last one, too. The server
checks each request as the real one would: a history that it would not take is a violation.
"""

import base64
import json
import random
from collections.abc import Sequence
from typing import Any, Final

import attrs
import trio

from tests.support.providers.adapter import KEY
from trio_sagents import (
    Agent,
    Completed,
    Failed,
    ImagePart,
    MemoryStore,
    RetryPolicy,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    Summarization,
    TextPart,
    ToolResult,
    UserMessage,
    open_sessions,
)
from trio_sagents.models import AnthropicModel, OpenAIModel, OpenAIResponsesModel
from trio_sagents.testing.providers import (
    SPEAKERS,
    AskedCall,
    Exchange,
    Reply,
    anthropic_reply,
    error_reply,
    open_provider,
    openai_reply,
    responses_message,
    responses_reply,
    text,
)

WINDOW: Final = 24_000
"""Characters of a request that the model takes, without the data of images."""
MOST_SECONDS: Final = 60.0
"""For one turn, of real time."""
GOOD: Final = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"good" * 50).decode()
BAD: Final = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"evil" * 50).decode()
FORBIDDEN: Final = "FORBIDDEN"
SUMMARY: Final = "You shorten a conversation"
ANSWERED: Final = (
    "says",
    "posts much",
    "posts an image",
    "calls",
    "calls for much",
    "calls for an image",
    "calls in parallel",
    "is busy",
    "is empty once",
    "breaks off once",
    "is cut",
    "is filtered",
)
"""Plans whose message has to be answered."""
REFUSED: Final = ("posts a bad image", "posts a forbidden text", "calls for a bad image", "breaks off", "has no key", "posts too much")
"""Plans whose message may fail."""


@attrs.define(eq=False)
class Talk:
    """A conversation, and the server that it is held with."""

    dialect: str
    rng: random.Random
    found: list[str] = attrs.field(factory=list)
    """What is wrong."""
    plan: str = "says"
    asked: int = 0
    """Requests of this turn, without those for summaries."""
    requests: int = 0
    overflows: int = 0
    summaries: int = 0
    outcomes: dict[str, int] = attrs.field(factory=dict)

    # ── the server

    def respond(self, exchange: Exchange) -> Reply:
        """Return what the server answers."""
        speaker, body = SPEAKERS[self.dialect], exchange.body
        self.requests += 1
        whole = json.dumps(body, ensure_ascii=False)
        why = speaker.refuses(body)
        if why is not None:
            self.found.append(f"the server was sent what it does not take: {why}")
            return speaker.refusal(why)
        size = len(whole.replace(GOOD, "").replace(BAD, ""))
        if size > WINDOW:
            self.overflows += 1
            return speaker.too_long()
        if BAD in whole:
            return self._refuses_content("Could not process image")
        if FORBIDDEN in whole:
            return self._refuses_content("Your request was flagged as violating our usage policy")
        if SUMMARY in whole:
            self.summaries += 1
            return speaker.says("They talked about ", "many things.")
        self.asked += 1
        return self._answer()

    def _refuses_content(self, words: str) -> Reply:
        if self.dialect == "anthropic":
            return SPEAKERS["anthropic"].refusal(words)
        error = {"message": words, "type": "invalid_request_error", "param": None, "code": "content_policy_violation"}
        return error_reply(400, {"error": error})

    def _answer(self) -> Reply:
        speaker, first = SPEAKERS[self.dialect], self.asked == 1
        match self.plan:
            case "calls" if first:
                return speaker.asks(self._call("look", what="tea"))
            case "calls for much" if first:
                return speaker.asks(self._call("look", what="much"))
            case "calls for an image" if first:
                return speaker.asks(self._call("look", what="image"))
            case "calls for a bad image" if first:
                return speaker.asks(self._call("look", what="bad image"))
            case "calls in parallel" if first:
                return speaker.asks(*[self._call("look", what=what) for what in ("much", "tea", "image", "much")])
            case "is busy" if first:
                return error_reply(503, {"error": {"message": "overloaded", "type": "overloaded_error"}})
            case "is empty once" if first:
                return speaker.says("")
            case "breaks off once" if first:
                return speaker.breaks_off("Half of ")
            case "breaks off":
                return speaker.breaks_off("Half of ")
            case "has no key":
                return error_reply(401, {"error": {"message": "invalid x-api-key", "type": "authentication_error"}})
            case "is cut":
                return self._ends("length")
            case "is filtered":
                return self._ends("filter")
            case _:
                return speaker.says("Answer ", "to that.")

    def _ends(self, how: str) -> Reply:
        match self.dialect:
            case "anthropic":
                return anthropic_reply(text("Half"), stop_reason="max_tokens" if how == "length" else "refusal")
            case "openai-responses":
                reason = "max_output_tokens" if how == "length" else "content_filter"
                return responses_reply(responses_message("Half"), status="incomplete", reason=reason)
            case _:
                return openai_reply({"content": "Half"}, finish_reason="length" if how == "length" else "content_filter")

    def _call(self, name: str, **arguments: str) -> AskedCall:
        return AskedCall(name, json.dumps(arguments), f"call_{self.requests}_{self.rng.randrange(10**6)}")

    # ── the agent

    async def look(self, what: str) -> ToolResult:
        """Look for something."""
        await trio.lowlevel.checkpoint()
        match what:
            case "much":
                return ToolResult(self._much())
            case "image":
                return ToolResult("an image", media=[ImagePart("image/png", data=GOOD)])
            case "bad image":
                return ToolResult("an image", media=[ImagePart("image/png", data=BAD)])
            case _:
                return ToolResult(f"saw {what}")

    def _much(self) -> str:
        return f"row {self.rng.random()} of many\n" * self.rng.choice((50, 300, 800, 3000))

    def posted(self) -> str | UserMessage:
        """Return what is posted, by the plan."""
        match self.plan:
            case "posts much":
                return "Read this. " + "It is long. " * self.rng.choice((100, 500, 900))
            case "posts too much":
                return "Read all this. " + "It is far too long. " * 5000
            case "posts an image":
                return UserMessage([TextPart("Look."), ImagePart("image/png", data=GOOD)])
            case "posts a bad image":
                return UserMessage([TextPart("Look."), ImagePart("image/png", data=BAD)])
            case "posts a forbidden text":
                return f"Tell me about {FORBIDDEN} things."
            case _:
                return f"Say something ({self.rng.randrange(10**9)})."

    async def turn(self, sessions: Sessions, number: int, plan: str) -> None:
        """Post one message, and look at what becomes of it."""
        self.plan, self.asked = plan, 0
        told = f"turn {number} ({plan})"
        with trio.move_on_after(MOST_SECONDS) as scope:
            outcome: Any = await (await sessions.post("c", self.posted(), message_id=f"m{number}")).wait()
        if scope.cancelled_caught:
            self.found.append(f"{told} does not end")
            await sessions.cancel_turn("c")
            return
        name = type(outcome).__name__
        self.outcomes[f"{plan}: {name}"] = self.outcomes.get(f"{plan}: {name}", 0) + 1
        rows = (await sessions.history("c", limit=20)).rows
        match outcome:
            case Completed():
                expected = {"is cut": "length", "is filtered": "content_filtered"}.get(plan)
                if outcome.cut != expected:
                    self.found.append(f"{told}: cut is {outcome.cut}, not {expected}")
                if not outcome.message.text.strip():
                    self.found.append(f"{told} is completed with nothing")
            case Failed() if plan in ANSWERED:
                self.found.append(f"{told} failed: {outcome.error}")
            case Failed():
                if not any(row.content_type == "error" and row.turn_id == rows[-1].turn_id for row in rows):
                    self.found.append(f"{told} failed, and the transcript does not say so")
            case _:
                self.found.append(f"{told} ended as {outcome!r}")


async def converse(dialect: str, seed: int, turns: int, *, summarises: bool = True) -> Talk:
    """Hold one conversation; return what came of it."""
    talk = Talk(dialect, random.Random(f"{dialect} {seed}"))
    plans: Sequence[str] = [talk.rng.choice((*ANSWERED, *REFUSED)) for _ in range(turns - 1)]
    async with open_provider() as provider:
        provider.respond = talk.respond
        model: Any
        match dialect:
            case "anthropic":
                model = AnthropicModel("m", api_key=KEY, base_url=provider.url)
            case "openai-responses":
                model = OpenAIResponsesModel("m", f"{provider.url}/v1", api_key=KEY)
            case _:
                model = OpenAIModel("m", provider.url + SPEAKERS[dialect].path, api_key=KEY, dialect=dialect)  # type: ignore[arg-type]
        agent = Agent(
            model=model,
            tools=[talk.look],
            system_prompt="You are helpful.",
            middleware=[Summarization(trigger_tokens=3000)] if summarises else [],
            retry=RetryPolicy(attempts=2, first_delay=0.001),
        )
        policy = SessionPolicy(max_state_bytes=1024 * 1024 * 1024)
        config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore(), policy=policy)
        async with open_sessions(config) as sessions:
            for number, plan in enumerate((*plans, "says")):
                await talk.turn(sessions, number, plan)
    return talk


if __name__ == "__main__":
    import logging
    import sys
    import time

    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    held = trio.run(lambda: converse(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), summarises="plain" not in sys.argv))
    print(*held.found, sep="\n")
    print(json.dumps(held.outcomes, indent=1, sort_keys=True))
    print(
        f"{sys.argv[1]}: {sys.argv[3]} turns, {held.requests} requests, {held.overflows} too long, {held.summaries} summaries, "
        f"{len(held.found)} violations, {time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if held.found else 0)

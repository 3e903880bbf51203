"""What the agents of the machine do: the text of a message says what its answer is like."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from tests.support.records import Violation, check, check_request
from trio_sagents import Agent, ModelFailed, ToolContext, TurnLimits
from trio_sagents.testing import Call, Hang, Reply, ScriptedModel

if TYPE_CHECKING:
    from tests.search.sessions.world import World

TURN_TIMEOUT = 20.0


class Boom(BaseException):
    """Crashes an agent: neither contained at the tool boundary nor a model's failure."""


REPLIES: dict[str, Reply] = {
    "say": "so be it",
    "long": "many words, one after the other, until nobody listens any more " * 4,
    "slow": "slowly it comes",
    "hang": ["and then", Hang()],
    "fail": ["it was", RuntimeError("the provider died")],
    "refuse": ModelFailed("no", retryable=True),
    "boom": ["it was", Boom()],
    "note": ["a note", Call("note", text="n")],
    "two": [Call("note", text="n"), Call("wait", seconds=1)],
    "broken": Call("broken"),
    "unknown": Call("nonsense"),
    "sync": Call("sync_note", text="n"),
    "stopme": Call("stop_me"),
    "stopchild": Call("stop_me", from_child=True),
    "cancelme": Call("cancel_me"),
    "postme": Call("post_me"),
    "crashtool": [Call("crash"), Call("wait", seconds=1)],
    "deaf": Call("deaf"),
}
"""By the first word of a message."""
CALM = ("say", "long", "slow", "note", "two", "broken", "unknown", "sync", "postme")
"""Texts of messages that end in a completed turn."""


def _reply(messages: Any) -> Reply:
    last = messages[-1]
    return "done" if last.role == "tool" else REPLIES[last.text.split()[0]]


@attrs.define(eq=False)
class MachineModel:
    """A model of one agent, which counts who talks for its conversation."""

    world: "World"
    conversation_id: str
    name: str = "machine"

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """Open one answer."""
        streams = self.world.streams
        streams[self.conversation_id] = streams.get(self.conversation_id, 0) + 1
        self.world.most_streams = max(self.world.most_streams, streams[self.conversation_id])
        try:
            check_request(request.messages)
            check(streams[self.conversation_id] == 1, "I1", f"{streams[self.conversation_id]} model streams of {self.conversation_id}")
        except Violation as exc:
            self.world.store.violations.append(exc)
        reply = _reply(request.messages)
        interval = 0.3 if reply is REPLIES["slow"] else 0.0
        try:
            async with ScriptedModel([reply], chunk_size=5, chunk_interval=interval).stream(request) as chunks:
                yield chunks
        finally:
            streams[self.conversation_id] -= 1


def make_agent(world: "World", conversation_id: str) -> Agent:
    """Return the agent of one conversation."""

    async def note(text: str) -> str:
        """Take a note."""
        await trio.lowlevel.checkpoint()
        return f"noted {text}"

    def sync_note(text: str) -> str:
        """Take a note, in a thread."""
        return f"noted {text}"

    async def wait(seconds: int) -> str:
        """Wait."""
        await trio.sleep(seconds)
        return "waited"

    async def broken() -> str:
        """Fail."""
        raise ValueError("broken")

    async def crash() -> str:
        """Crash the agent."""
        raise Boom

    async def deaf() -> str:
        """Ignore cancellation for two seconds."""
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return "heard nothing"

    async def own(call: Callable[[Any], Awaitable[object]], context: ToolContext) -> str:
        await call(context.scope)
        return "asked"

    async def stop_me(context: ToolContext, from_child: bool = False) -> str:
        """Stop the own agent."""
        stop = world.stop_from_inside
        if not from_child:
            return await own(lambda scope: stop(conversation_id, scope), context)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop, conversation_id, context.scope)
        return "asked"

    async def cancel_me(context: ToolContext) -> str:
        """Cancel the own turn."""
        return await own(lambda scope: world.sessions.cancel_turn(conversation_id, scope=scope), context)

    async def post_me(context: ToolContext) -> str:
        """Post to the own conversation."""
        return await own(lambda scope: world.post_from_inside(conversation_id, scope), context)

    return Agent(
        model=MachineModel(world, conversation_id),
        tools=[note, sync_note, wait, broken, crash, deaf, stop_me, cancel_me, post_me],
        limits=TurnLimits(turn_timeout=TURN_TIMEOUT),
    )

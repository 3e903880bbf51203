"""The middleware of one agent at work: what a hook is given, in which order hooks run, and what becomes of one that raises."""

import functools
import inspect
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import attrs
import trio

from trio_sagents._trio.failures import logged
from trio_sagents._trio.groups import leaves, split
from trio_sagents._trio.watching import LoopWatch
from trio_sagents.agent._agent import Agent, MiddlewareContext, id_of
from trio_sagents.agent._host import AsyncFunction, MiddlewareHost
from trio_sagents.agent._progress import Suspended
from trio_sagents.agent._tools import Tool, named_apart
from trio_sagents.conversation.failures import is_budget
from trio_sagents.data.json import JSONValue, Opaque
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.exceptions import LimitExceeded, MiddlewareError, ModelFailed, PersistenceError, ToolNotCalled

log: Final = logging.getLogger("trio_sagents")
EXPECTED: Final = (ModelFailed, LimitExceeded, PersistenceError, MiddlewareError, ToolNotCalled)
"""What a turn may fail with; anything else crashes the agent."""
MAX_PROMPT: Final = 512 * 1024
"""Characters that the prompts of an agent and its middleware may have together."""


def same_function(one: Opaque, other: Opaque) -> bool:
    """Return whether two functions are one, or were made anew from the same code, as middleware does for each sub-agent."""
    return bool(one == other) or (_code_of(one) is not None and _code_of(one) is _code_of(other))


def _code_of(function: Opaque) -> object:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return getattr(getattr(function, "__func__", function), "__code__", None)


@attrs.define(eq=False)
class Pipeline:
    """The middleware of one agent, and its tools."""

    agent: Agent
    path: Sequence[str] = ()
    parent: "Pipeline | None" = None
    """Of a sub-agent: the one whose gate its calls pass, too."""
    tools: Mapping[str, Tool] = attrs.field(factory=dict)
    is_stale: bool = True
    """Whether the middleware is to be asked for its tools."""
    claimed: dict[str, Opaque] | None = None
    """By call id: the function that a call was to run when it began to wait."""
    around: MiddlewareHost | None = None
    """Of a sub-agent: the turn of the agent around it."""
    conversation_id: str = ""
    """For the log."""
    watch: LoopWatch | None = None
    """Names hooks and tools that block the event loop; None if nobody watches."""
    _brought: Mapping[str, Opaque] = attrs.field(factory=dict)
    """By name: the middleware that brought a tool."""
    _first: frozenset[str] | None = None
    """The names of the tools that were there at the start."""
    _memories: dict[str, dict[str, Opaque]] | None = None

    def is_own_tool(self, name: str) -> bool:
        """Return whether a tool belongs to the definition of this agent: not inherited, and there from the start."""
        one = self._brought.get(name)
        if one is None:
            return name in self.agent.own_tools
        inherited = self.parent is not None and any(one is other for other in self.parent.agent.middleware)
        return not inherited and self._first is not None and name in self._first

    def context(self, middleware: Opaque, host: MiddlewareHost, turn_id: str | None = None) -> MiddlewareContext:
        """Return what a hook of this middleware is given."""
        middleware_id = id_of(middleware)
        if self._memories is None:
            self._memories = {}
        memory = self._memories.setdefault(middleware_id, {})
        return MiddlewareContext(middleware_id, self.agent, turn_id, memory, self.path, self.tools, host, self)

    def note_claim(self, call_id: str, tool: Tool) -> None:
        """A call begins to wait: remember what it was to run."""
        self.claimed = {**(self.claimed or {}), call_id: tool.function}

    def takes_claim(self, call_id: str, tool: Tool) -> bool:
        """Return whether a decided call runs what it was to run; over a restart nothing is remembered, and the name stands."""
        if self.claimed is None or call_id not in self.claimed:
            return True
        return same_function(self.claimed.pop(call_id), tool.function)

    def refresh_tools(self) -> None:
        """Have all middleware asked for their tools before the next turn."""
        self.is_stale = True

    def having(self, hook: str) -> Sequence[Opaque]:
        """Return the middleware that has a hook, in order."""
        return self.agent.hooks.get(hook, ())

    def around_calls(self, hook: str, host: MiddlewareHost, turn_id: str) -> Sequence[tuple[Opaque, MiddlewareContext]]:
        """Return the middleware whose hook runs around the calls of this agent, in order, each with its context.

        Middleware of the agents around this one comes first, if it covers sub-agents.
        """
        own = [(each, self.context(each, host, turn_id)) for each in self.having(hook)]
        if self.parent is None or self.around is None:
            return own
        outer = [
            (each, attrs.evolve(context, path=self.path))
            for each, context in self.parent.around_calls(hook, self.around, turn_id)
            if getattr(each, "covers_sub_agents", False)
        ]
        return [*outer, *(pair for pair in own if not any(pair[0] is each for each, _ in outer))]

    async def guard(self, middleware_id: str, hook: str, function: AsyncFunction, *args: Opaque) -> Opaque:
        """Call a hook. What the hook raises is logged and becomes a `MiddlewareError` that names it, unless it is an expected error."""
        try:
            with self.labelled(f"middleware {middleware_id!r} ({hook})"):
                return await function(*args)
        except LimitExceeded as exc:
            # Around a call, the limit may be one of the turn's own, which the hook only lets pass.
            if not exc.source and (is_budget(exc) or not (hook.startswith("around_") or middleware_id == "mode")):
                exc.source = f"middleware {middleware_id!r}"
            raise
        except EXPECTED:
            raise
        except Exception as error:
            expected = next((leaf for leaf in leaves(error) if isinstance(leaf, EXPECTED)), None)
            if expected is not None:
                raise expected from expected.__cause__  # without the group, and with its own cause
            raise self._failed(middleware_id, hook, error) from error
        except BaseExceptionGroup as group:
            # Cancellation: beside it the hook raised something else; what goes on is the cancellation alone, as at a tool.
            _, onward = split(group)
            suspended = next((leaf for leaf in leaves(group) if isinstance(leaf, Suspended)), None)
            if onward is None and suspended is None:
                raise
            raise onward or suspended or group from None

    def labelled(self, what: str) -> AbstractContextManager[None]:
        """Return a block in which the running task does `what`, such as "tool 'pay'"."""
        return nullcontext() if self.watch is None else self.watch.label(what, self.conversation_id)

    def _failed(self, middleware_id: str, hook: str, error: Exception) -> MiddlewareError:
        failed = MiddlewareError(middleware_id, hook)
        if hook in {"answer", "on_message"} and isinstance(error, ValueError):
            return failed  # it refuses a decision or a message, as it may; whoever sent that is given the error
        where = (middleware_id, hook, self.conversation_id)
        return logged(failed, error, "the middleware %r failed in %s, in conversation %r", *where)

    async def call(self, middleware: Opaque, hook: str, context: MiddlewareContext, *args: Opaque) -> Opaque:
        """Call one hook of one middleware."""
        return await self.guard(context.middleware_id, hook, getattr(middleware, hook), context, *args)

    async def each(self, hook: str, host: MiddlewareHost, *args: Opaque, turn_id: str | None = None, back: bool = False) -> None:
        """Call a hook of all, in order, or in reverse."""
        ones = self.having(hook)
        for one in reversed(ones) if back else ones:
            await self.call(one, hook, self.context(one, host, turn_id), *args)

    def turn_ended(self, outcome: TurnOutcome, host: MiddlewareHost, turn_id: str) -> None:
        """Tell all how a turn ended, inside-out."""
        for one in reversed(self.having("turn_ended")):
            try:
                with self.labelled(f"middleware {id_of(one)!r} (turn_ended)"):
                    one.turn_ended(self.context(one, host, turn_id), outcome)
            except Exception:  # the turn is on record: nothing that anybody raises now can change how it ended
                log.exception("the middleware %r failed in turn_ended, in conversation %r", id_of(one), host.conversation_id)

    async def start(self, host: MiddlewareHost) -> None:
        """Run the start hooks, then collect the tools.

        Cancellation: what hooks started is in the agent's nursery, and ends with it.
        """
        await self.each("on_start", host)
        await self.collect_tools(host)
        for name in (*self.agent.until_tool, *self.agent.until_tool_success):
            if name not in self.tools:
                raise ValueError(
                    f"until_tool names {name!r}, and there is no such tool; there are: {', '.join(sorted(self.tools)) or 'none'}"
                )

    async def collect_tools(self, host: MiddlewareHost) -> None:
        """Ask all for their tools.

        Raises:
            MiddlewareError: one failed, or two tools have one name.

        Cancellation: either the tools are new, or as before, and asked for again at the next turn.
        """
        self.is_stale = False  # before anybody is asked: who wants to be asked again meanwhile will be
        try:
            await self._collect(host)
        except BaseException:
            self.is_stale = True
            raise

    async def _collect(self, host: MiddlewareHost) -> None:
        bringing = self.having("tools")
        tools = dict(self.agent.own_tools) if bringing else self.agent.own_tools
        brought = dict(self._brought)
        yielding: list[tuple[Tool, Opaque]] = []
        for one in bringing:
            context = self.context(one, host)
            found = await self.call(one, "tools", context)
            try:
                for tool in map(Tool.of, found):
                    if tool.if_taken:
                        yielding.append((tool, one))
                        continue
                    if tool.name in tools:
                        raise ValueError(f"there are two tools named {tool.name!r}")
                    tools = {**tools, tool.name: tool}
                    brought[tool.name] = one
            except (TypeError, ValueError) as exc:
                raise MiddlewareError(context.middleware_id, "tools") from exc
        if yielding:
            placed = named_apart([tool for tool, _ in yielding], tools, self.tools)
            tools = {**tools, **{tool.name: tool for tool in placed}}
            brought.update({tool.name: one for tool, (_, one) in zip(placed, yielding, strict=True)})
        self.tools, self._brought = tools, brought
        if self._first is None and bringing:
            self._first = frozenset(tools)

    async def system_prompt(self, host: MiddlewareHost, turn_id: str) -> str:
        """Return the agent's prompt and those of its middleware, in order, with blank lines between them."""
        texts = [self.agent.system_prompt]
        for one in self.having("system_prompt"):
            text: JSONValue = await self.call(one, "system_prompt", self.context(one, host, turn_id))
            if not isinstance(text, str):
                raise MiddlewareError(id_of(one), "system_prompt") from TypeError(f"a prompt is a str, not {text!r}")
            texts.append(text)
        prompt = "\n\n".join(text for text in texts if text)
        if len(prompt) > MAX_PROMPT:
            raise LimitExceeded("system_prompt", len(prompt), most=MAX_PROMPT)
        return prompt

    async def notify(self, host: MiddlewareHost, middleware_id: str, message: Opaque) -> None:
        """Hand a message to one middleware; LookupError where there is none of that id.

        Cancellation: its hook was cancelled where it waited.
        """
        for one in self.agent.middleware:
            if id_of(one) == middleware_id:
                if any(one is other for other in self.having("on_message")):
                    await self.call(one, "on_message", self.context(one, host), message)
                else:
                    await trio.lowlevel.checkpoint()
                return
        raise LookupError(f"this agent has no middleware {middleware_id!r}; it has {[id_of(one) for one in self.agent.middleware]}")

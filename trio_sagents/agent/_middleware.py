"""The middleware of one agent at work: in which order hooks run, what happens if a hook raises, and which tools there are."""

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
from trio_sagents.agent._identity import KnownTool, digest_of_tool
from trio_sagents.agent._progress import Suspended
from trio_sagents.agent._tools import Tool, named_apart
from trio_sagents.data.errors import is_budget
from trio_sagents.data.json import JSONValue, Opaque
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.exceptions import LimitExceeded, MiddlewareError, ModelFailed, PersistenceError, ToolNotCalled

log: Final = logging.getLogger("trio_sagents")
EXPECTED: Final = (ModelFailed, LimitExceeded, PersistenceError, MiddlewareError, ToolNotCalled)
"""Errors with which a turn may fail. Any other exception crashes the agent."""
MAX_PROMPT: Final = 512 * 1024
"""Characters that the prompts of an agent and its middleware may have together."""


@attrs.define(eq=False)
class Remembered:
    """What this process remembers of the calls of an agent that wait for people. A restart forgets it."""

    tools: dict[str, KnownTool] = attrs.field(factory=dict)
    """By call id: what a call was to run when it began to wait. The outermost pipeline has this for all its sub-agents."""
    agents: "dict[str, Pipeline]" = attrs.field(factory=dict)
    """By call id: the sub-agents that wait in calls of the agent."""
    values: Mapping[str, Opaque] = attrs.field(factory=dict)
    """By call id: what the functions returned whose neighbours wait. A text of it is stored, and a text is not the value."""


@attrs.define(eq=False)
class Pipeline:
    """The middleware of one agent, and its tools."""

    agent: Agent
    path: Sequence[str] = ()
    parent: "Pipeline | None" = None
    """Of a sub-agent: the pipeline whose gate its calls pass, too."""
    tools: Mapping[str, Tool] = attrs.field(factory=dict)
    is_stale: bool = True
    """Whether the middleware is to be asked for its tools."""
    around: MiddlewareHost | None = None
    """Of a sub-agent: the turn of the agent around it."""
    _remembered: "Remembered | None" = None
    """None while nothing waits."""
    conversation_id: str = ""
    """For the log."""
    watch: LoopWatch | None = None
    """Names hooks and tools that block the event loop; None if nobody watches."""
    _brought: Mapping[str, Opaque] = attrs.field(factory=dict)
    """By name: the middleware that brought a tool."""
    _first: frozenset[str] | None = None
    """The names of the tools that were there at the start."""
    _memories: dict[str, dict[str, Opaque]] | None = None

    @property
    def agent_name(self) -> str:
        """The name of the agent; of a sub-agent, the name that it runs under."""
        return self.path[-1] if self.path else self.agent.name or ""

    # ── what hooks are given

    def context(self, middleware: Opaque, host: MiddlewareHost, turn_id: str | None = None) -> MiddlewareContext:
        """Return what a hook of this middleware is given."""
        middleware_id = id_of(middleware)
        if self._memories is None:
            self._memories = {}
        memory = self._memories.setdefault(middleware_id, {})
        return MiddlewareContext(middleware_id, self.agent, turn_id, memory, self.path, self.tools, host, self)

    def is_own_tool(self, name: str) -> bool:
        """Return whether a tool belongs to the definition of this agent: not inherited, and there from the start."""
        middleware = self._brought.get(name)
        if middleware is None:
            return name in self.agent.own_tools
        inherited = self.parent is not None and any(middleware is other for other in self.parent.agent.middleware)
        return not inherited and self._first is not None and name in self._first

    def own_tools(self) -> Mapping[str, Tool]:
        """Return the tools for which `is_own_tool` is true, by name; a new mapping."""
        return {name: tool for name, tool in self.tools.items() if self.is_own_tool(name)}

    def origin_of(self, name: str) -> str:
        """Return the id of the middleware that brought a tool; empty for a tool of the agent itself."""
        middleware = self._brought.get(name)
        return "" if middleware is None else id_of(middleware)

    def refresh_tools(self) -> None:
        """Have all middleware asked for their tools before the next turn."""
        self.is_stale = True

    # ── what waits for people

    def digest_of(self, tool: Tool) -> str:
        """Return the digest of a tool of this agent: what an approval of a call is bound to."""
        return digest_of_tool(tool, self.origin_of(tool.name))

    def known_tool(self, tool: Tool) -> KnownTool:
        """Return what is remembered of a tool while a call of it waits."""
        return KnownTool(self.digest_of(tool), tool)

    def keeps_objects(self, tool: Tool) -> bool:
        """Return whether a tool is made of the same objects as long as this process lives.

        The middleware of a sub-agent is started again when the sub-agent continues, and may make its tools of new objects.
        """
        return self.parent is None or not self.origin_of(tool.name)

    @property
    def remembered(self) -> "Remembered":
        """What this process remembers of the calls that wait for people."""
        if self._remembered is None:
            self._remembered = Remembered()
        return self._remembered

    def take_values(self) -> Mapping[str, Opaque]:
        """Return what functions returned before the turn waited, and forget it; empty after a restart."""
        if self._remembered is None:
            return {}
        values, self._remembered.values = self._remembered.values, {}
        return values

    def forget_waiting(self) -> None:
        """The calls of earlier answers have ended: forget what they were to run, what they returned, and their sub-agents."""
        self._remembered = None

    def continue_from(self, call_id: str) -> None:
        """Continue the sub-agent that waited in a call, if this process remembers it: its middleware keeps its memory."""
        assert self.parent is not None
        earlier = self.parent.remembered.agents.get(call_id)
        if earlier is not None:
            self._memories, self._remembered = earlier._memories, earlier._remembered  # noqa: SLF001  # of the same class

    # ── its hooks

    def having(self, hook: str) -> Sequence[Opaque]:
        """Return the middleware that have a hook, in order."""
        return self.agent.hooks.get(hook, ())

    async def guard(self, middleware_id: str, hook: str, function: AsyncFunction, *args: Opaque) -> Opaque:
        """Call a hook. Its exception is logged and becomes a `MiddlewareError` that names the hook, unless it is one of `EXPECTED`."""
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
            # Cancellation: the hook raised something else beside it; only the cancellation is raised again, as for a tool.
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
            return failed  # it may refuse a decision or a message; the sender gets the error
        where = (middleware_id, hook, self.conversation_id)
        return logged(failed, error, "the middleware %r failed in %s, in conversation %r", *where)

    async def call(self, middleware: Opaque, hook: str, context: MiddlewareContext, *args: Opaque) -> Opaque:
        """Call one hook of one middleware."""
        return await self.guard(context.middleware_id, hook, getattr(middleware, hook), context, *args)

    async def each(self, hook: str, host: MiddlewareHost, *args: Opaque, turn_id: str | None = None, back: bool = False) -> None:
        """Call a hook of all middleware, in order, or in reverse order."""
        having = self.having(hook)
        for middleware in reversed(having) if back else having:
            await self.call(middleware, hook, self.context(middleware, host, turn_id), *args)

    def turn_ended(self, outcome: TurnOutcome, host: MiddlewareHost, turn_id: str) -> None:
        """Tell all middleware how a turn ended, innermost first."""
        for middleware in reversed(self.having("turn_ended")):
            try:
                with self.labelled(f"middleware {id_of(middleware)!r} (turn_ended)"):
                    middleware.turn_ended(self.context(middleware, host, turn_id), outcome)
            except Exception:  # the turn is on record: no exception can change any more how it ended
                log.exception("the middleware %r failed in turn_ended, in conversation %r", id_of(middleware), host.conversation_id)

    async def start(self, host: MiddlewareHost) -> None:
        """Run the start hooks, then collect the tools.

        Raises:
            MiddlewareError: a hook failed, or two tools have the same name.
            ValueError: `until_tool` names a tool that the agent does not have.

        Cancellation: the tasks that hooks started are in the agent's nursery, and end with it.
        """
        await self.each("on_start", host)
        await self.collect_tools(host)
        for name in (*self.agent.until_tool, *self.agent.until_tool_success):
            if name not in self.tools:
                raise ValueError(
                    f"until_tool names {name!r}, and there is no such tool; there are: {', '.join(sorted(self.tools)) or 'none'}"
                )

    async def collect_tools(self, host: MiddlewareHost) -> None:
        """Ask all middleware for their tools, then show them all tools.

        Raises:
            MiddlewareError: a hook failed, or two tools have the same name.

        Cancellation: either the tools are new, or they are as before; then they are collected again at the next turn.
        """
        self.is_stale = False  # before anybody is asked: a middleware that wants to be asked again meanwhile sets it again
        try:
            await self._collect(host)
            await self.each("on_tools", host)
        except BaseException:
            self.is_stale = True
            raise

    async def _collect(self, host: MiddlewareHost) -> None:
        bringing = self.having("tools")
        tools = dict(self.agent.own_tools) if bringing else self.agent.own_tools
        brought: dict[str, Opaque] = {}
        yielding: list[tuple[Tool, Opaque]] = []
        for middleware in bringing:
            context = self.context(middleware, host)
            found = await self.call(middleware, "tools", context)
            try:
                more: dict[str, Tool] = {}
                for tool in map(Tool.of, found):
                    if tool.if_taken:
                        yielding.append((tool, middleware))
                        continue
                    if tool.name in tools or tool.name in more:
                        raise ValueError(f"there are two tools named {tool.name!r}")
                    more[tool.name] = tool
            except (TypeError, ValueError) as exc:
                raise MiddlewareError(context.middleware_id, "tools") from exc
            tools = {**tools, **more}
            brought |= dict.fromkeys(more, middleware)
        if yielding:
            placed = named_apart([tool for tool, _ in yielding], tools, self.tools)
            tools = {**tools, **{tool.name: tool for tool in placed}}
            brought.update({tool.name: middleware for tool, (_, middleware) in zip(placed, yielding, strict=True)})
        self.tools, self._brought = tools, brought
        if self._first is None and bringing:
            self._first = frozenset(tools)

    async def system_prompt(self, host: MiddlewareHost, turn_id: str) -> str:
        """Return the agent's prompt and those of its middleware, in order, with blank lines between them."""
        texts = [self.agent.system_prompt]
        for middleware in self.having("system_prompt"):
            text: JSONValue = await self.call(middleware, "system_prompt", self.context(middleware, host, turn_id))
            if not isinstance(text, str):
                raise MiddlewareError(id_of(middleware), "system_prompt") from TypeError(f"a prompt is a str, not {text!r}")
            texts.append(text)
        prompt = "\n\n".join(text for text in texts if text)
        if len(prompt) > MAX_PROMPT:
            raise LimitExceeded("system_prompt", len(prompt), most=MAX_PROMPT)
        return prompt

    async def notify(self, host: MiddlewareHost, middleware_id: str, message: Opaque) -> None:
        """Hand a message to one middleware.

        Raises:
            LookupError: the agent has no middleware with this id.

        Cancellation: the hook of the middleware is cancelled.
        """
        for middleware in self.agent.middleware:
            if id_of(middleware) == middleware_id:
                if any(middleware is other for other in self.having("on_message")):
                    await self.call(middleware, "on_message", self.context(middleware, host), message)
                else:
                    await trio.lowlevel.checkpoint()
                return
        raise LookupError(f"this agent has no middleware {middleware_id!r}; it has {[id_of(each) for each in self.agent.middleware]}")


def around_calls(pipeline: Pipeline, hook: str, host: MiddlewareHost, turn_id: str) -> Sequence[tuple[Opaque, MiddlewareContext]]:
    """Return the middleware whose hook runs around the calls of an agent, in order, each with its context.

    Middleware of the agents around this one comes first, if it covers sub-agents; its context is that of its own agent.
    """
    own = [(each, pipeline.context(each, host, turn_id)) for each in pipeline.having(hook)]
    if pipeline.parent is None or pipeline.around is None:
        return own
    outer = [
        (each, attrs.evolve(context, path=pipeline.path))
        for each, context in around_calls(pipeline.parent, hook, pipeline.around, turn_id)
        if getattr(each, "covers_sub_agents", False)
    ]
    return [*outer, *(pair for pair in own if not any(pair[0] is each for each, _ in outer))]

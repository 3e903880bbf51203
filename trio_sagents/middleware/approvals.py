"""Approvals: calls that a person has to allow before they run."""

import difflib
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from trio_sagents.agent import MiddlewareContext, Tool, ToolLike, familiar_id, is_defined_in, is_same_function
from trio_sagents.data.interrupts import APPROVAL_DECISIONS, DecisionKind, PendingCall, pending
from trio_sagents.data.json import JSON, Opaque, check_text
from trio_sagents.data.messages import ToolCall
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.middleware._built_in import BuiltIn
from trio_sagents.middleware.sub_agents import SubAgents

Policy: TypeAlias = "bool | Sequence[DecisionKind] | Mapping[str, Opaque]"
_KNOWN: Final = "known"
"""In the memory: the tools that are not newcomers."""
METADATA_KEY: Final = "known_tools:"
"""In the metadata, before the id of the middleware: the ids of the tools that are not newcomers in this conversation."""
_FIXED: Final = tuple(f"trio_sagents.middleware.{name}" for name in ("ask_user", "files", "sub_agents", "todo_list"))
"""The modules of middleware that always bring the same tools: as the host configured them."""
NEWCOMERS: Final = ("ask", "allow", "deny")
log: Final = logging.getLogger("trio_sagents")


def _policy(name: str, given: Opaque) -> Sequence[DecisionKind]:
    """Return what may be decided about the calls of a tool; empty if they need no decision."""
    if isinstance(given, Mapping):
        if set(given) != {"allowed_decisions"}:
            raise ValueError(f'interrupt_on[{name!r}] takes the key "allowed_decisions", not {sorted(map(str, given))}')
        given = given["allowed_decisions"]
    if isinstance(given, bool):
        return APPROVAL_DECISIONS if given else ()
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"interrupt_on[{name!r}] is True, False, or a sequence of decisions, not {given!r}")
    for kind in given:
        if kind not in APPROVAL_DECISIONS:
            raise ValueError(f"interrupt_on[{name!r}] has {kind!r}; decisions are {', '.join(map(repr, APPROVAL_DECISIONS))}")
    return tuple(given)


def _name_of(key: "str | ToolLike") -> str:
    return key if isinstance(key, str) else Tool.of(key).name


@attrs.define(eq=False)
class _Known:
    """The tools of an agent that are not newcomers."""

    tools: Mapping[str, Tool]
    """The tools at the start of the agent, by name."""
    origins: Mapping[str, str]
    """By name: the id of the middleware that brought a tool; the tools of the agent itself are missing."""
    ids: dict[str, frozenset[str]]
    """By the path of the agent (empty) or of a sub-agent: the ids of the tools that are known, of those that may change."""
    is_stored: bool
    """Whether the metadata of the conversation have `ids`."""

    def knows(self, tool: Tool, origin: str) -> bool:
        """Return whether a tool of the agent itself is not a newcomer."""
        if _is_fixed(tool, origin):
            return True
        own = self.tools.get(tool.name)
        # Objects that a function is bound to have no lasting id: as long as the agent lives, the functions themselves are compared.
        is_replaced = own is not None and not tool.version and not is_same_function(own.function, tool.function)
        return not is_replaced and familiar_id(tool, origin) in self.ids[""]

    def has(self, tool: Tool, origin: str, *, is_inherited: bool) -> bool:
        """Return whether a tool of a sub-agent is a known tool of the agent."""
        own = self.tools.get(tool.name)
        if own is None or not self.knows(own, self.origins.get(tool.name, "")):
            return False
        if not is_inherited:
            return is_same_function(own.function, tool.function)
        # The middleware of the agent makes its tools again for each sub-agent.
        return familiar_id(own, self.origins.get(tool.name, "")) == familiar_id(tool, origin)

    def knows_inside(self, path: str, tool: Tool, context: MiddlewareContext) -> bool:
        """Return whether a tool that a sub-agent has of its own is not a newcomer; the first sub-agent of a path says what is known."""
        if path not in self.ids:
            self.ids[path] = _ids_of(context.own_tools(), context)
            self.is_stored = False
        origin = context.origin_of(tool.name)
        return _is_fixed(tool, origin) or familiar_id(tool, origin) in self.ids[path]


def _ids_of(tools: Mapping[str, Tool], context: MiddlewareContext) -> frozenset[str]:
    origins = {name: context.origin_of(name) for name in tools}
    return frozenset(familiar_id(tool, origins[name]) for name, tool in tools.items() if not _is_fixed(tool, origins[name]))


def _is_fixed(tool: Tool, origin: str) -> bool:
    """Return whether a tool is there by the definition of its agent: no server, and no middleware of the host, may change it."""
    return not origin or is_defined_in(tool, _FIXED)


@attrs.frozen(init=False, eq=False)
class Approvals(BuiltIn):
    """Have people decide about calls of some tools: approve, edit or reject each.

    A tool that a middleware brings after the conversation has begun, or in place of another tool, is a newcomer, whatever its name
    is. The metadata of the conversation has the tools that are known, so a newcomer stays a newcomer when the agent has slept. The
    tools of the agent itself (`Agent.tools`) are never newcomers. The policy holds for sub-agents, too.
    """

    interrupt_on: Mapping[str, Sequence[DecisionKind]]
    """By name: what may be decided; empty lets the calls run."""
    _functions: Sequence[tuple[Opaque, Sequence[DecisionKind]]]
    """The policies that were given by a tool: such a tool is found by its function, under any name."""
    _asked: Mapping[str, Opaque]
    """By name: the tools that the policy asks about; None for a tool that was given by its name alone."""
    newcomers: str
    timeout: float
    reason: str
    when: "Callable[[Tool], bool] | None"

    def __init__(
        self,
        interrupt_on: "Mapping[Opaque, Policy]",
        *,
        newcomers: str = "ask",
        timeout: float = math.inf,
        reason: str = "",
        when: "Callable[[Tool], bool] | None" = None,
        id: str | None = None,  # noqa: A002  # as of all middleware of the library
    ) -> None:
        """Check and keep the policy.

        Args:
            interrupt_on: by tool, or its name: True asks, with all decisions; a sequence of "approve", "edit", "reject" asks with
                these; False, or an empty sequence, does not ask. A tool that is not listed runs without asking, unless it has the
                function of a tool that is listed. If the policy asks about a tool that the agent does not have, the agent does not
                start. If the tool may still come, because a middleware brings tools or a tool may run a sub-agent, a warning is
                logged instead.
            newcomers: what is done with calls of newcomers: "ask", "allow" or "deny".
            timeout: seconds after which a call that nobody has decided counts as rejected; `math.inf` waits for ever.
            reason: shown to people beside the call.
            when: asks about every tool that is not listed and for which it returns True, such as `trio_sagents.mcp.is_mcp_tool`.
            id: the id of the middleware; None is the name of the class.

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value.
        """
        if not isinstance(interrupt_on, Mapping):
            raise TypeError(f"interrupt_on must be a mapping from tools to policies, not {interrupt_on!r}")
        if newcomers not in NEWCOMERS:
            raise ValueError(f"newcomers must be {', '.join(map(repr, NEWCOMERS))}, not {newcomers!r}")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, not {timeout!r}")
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a str, not {reason!r}")
        if when is not None and not callable(when):
            raise TypeError(f"when must be a function from a tool to a bool, not {when!r}")
        check_text(reason, "reason")
        policies = {_name_of(key): _policy(_name_of(key), given) for key, given in interrupt_on.items()}
        functions = tuple((Tool.of(key).function, policies[_name_of(key)]) for key in interrupt_on if not isinstance(key, str))
        asked = {_name_of(key): None if isinstance(key, str) else Tool.of(key).function for key in interrupt_on if policies[_name_of(key)]}
        self.__attrs_init__(policies, functions, asked, newcomers, float(timeout), reason, when, id=id)  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it

    # ── which tools there are

    async def on_tools(self, context: MiddlewareContext) -> None:
        """Remember the tools of the start, and check that the policy names tools that exist.

        Raises:
            ValueError: the policy asks about a tool that the agent does not have, and that cannot come later.
        """
        if _KNOWN not in context.memory:
            self._check_names(context)
            context.memory[_KNOWN] = self._known_at_start(context)

    def _known_at_start(self, context: MiddlewareContext) -> _Known:
        origins = {name: origin for name in context.tools if (origin := context.origin_of(name))}
        stored = context.state.metadata.get(self._key(context))
        if isinstance(stored, dict) and isinstance(stored.get(""), list):
            ids = {path: frozenset(map(str, known)) for path, known in stored.items() if isinstance(known, list)}
            return _Known(context.tools, origins, ids, is_stored=True)
        ids = {"": frozenset[str]() if self.newcomers == "allow" else _ids_of(context.tools, context)}
        can_change = any(type(each).__module__ not in _FIXED for each in context.agent.hooks.get("tools", ()))
        return _Known(context.tools, origins, ids, is_stored=not can_change)

    def _key(self, context: MiddlewareContext) -> str:
        return f"{METADATA_KEY}{context.middleware_id}"

    async def before_turn(self, context: MiddlewareContext) -> None:
        """Store which tools are known, once in a conversation, if newcomers can come.

        Cancellation: either nothing was submitted, or the list is stored.
        """
        await self._store(context)

    async def after_turn(self, context: MiddlewareContext, outcome: TurnOutcome) -> None:
        """Store which tools of sub-agents are known, if there are new sub-agents.

        Cancellation: either nothing was submitted, or the list is stored.
        """
        await self._store(context)

    async def _store(self, context: MiddlewareContext) -> None:
        known: _Known = context.memory[_KNOWN]
        if not known.is_stored and self.newcomers != "allow":
            known.is_stored = True  # before it waits: a sub-agent that comes meanwhile sets it again
            await context.update(metadata={self._key(context): {path: sorted(ids) for path, ids in known.ids.items()}})

    def _check_names(self, context: MiddlewareContext) -> None:
        functions = [tool.function for tool in context.tools.values()]
        for name, function in self._asked.items():
            if name in context.tools or (function is not None and any(function == other for other in functions)):
                continue
            if context.path or name in _names_in_tasks(context):
                continue  # the policy of an agent holds for its sub-agents, and each of these has some of the tools
            near = difflib.get_close_matches(name, context.tools, n=1, cutoff=0.8)
            hint = f"; did you mean {near[0]!r}, which runs without approval?" if near else ""
            if not _may_come(context):
                raise ValueError(f"interrupt_on names {name!r}, and the agent has no such tool{hint}")
            message = "conversation %r: interrupt_on names %r, and the agent has no such tool yet%s"
            log.warning(message, context.conversation_id, name, hint)

    # ── which calls wait

    async def claim(self, context: MiddlewareContext, call: ToolCall, tool: Tool) -> PendingCall | None:
        """Ask about calls of the tools that the policy names, and of newcomers."""
        kinds = self._kinds(context, tool)
        if not kinds:
            return None
        timeout = None if math.isinf(self.timeout) else self.timeout
        return pending(call, kind="approval", allowed=kinds, text=self.reason, timeout=timeout)

    def _kinds(self, context: MiddlewareContext, tool: Tool) -> Sequence[DecisionKind]:
        known: _Known = context.memory[_KNOWN]
        listed = self._listed(known, tool)
        if self.newcomers == "allow" or _is_familiar(context, known, tool):
            return listed or ()
        return ("reject",) if self.newcomers == "deny" else listed or APPROVAL_DECISIONS

    def _listed(self, known: _Known, tool: Tool) -> Sequence[DecisionKind] | None:
        """Return what the policy says of a tool: by its name, else by its function, which may have another name elsewhere."""
        listed = next((kinds for function, kinds in self._functions if function == tool.function), self.interrupt_on.get(tool.name))
        if listed is None:
            aliases = (self.interrupt_on.get(name) for name, other in known.tools.items() if other.function == tool.function)
            listed = next((kinds for kinds in aliases if kinds), None)
        if listed is None and self.when is not None and self.when(tool):
            return APPROVAL_DECISIONS
        return listed

    def debug_summary(self) -> JSON:
        """Return the policy."""
        return {"interrupt_on": {name: list(kinds) for name, kinds in self.interrupt_on.items()}, "newcomers": self.newcomers}


def _is_familiar(context: MiddlewareContext, known: _Known, tool: Tool) -> bool:
    """Return whether a tool of the agent, or of the sub-agent that makes the call, is not a newcomer."""
    origin = context.origin_of(tool.name)
    if not context.path:
        return known.knows(tool, origin)
    is_own = context.is_own_tool(tool.name)
    if is_own and tool.name not in known.tools:
        return known.knows_inside("/".join(context.path), tool, context)
    return known.has(tool, origin, is_inherited=not is_own)


def _names_in_tasks(context: MiddlewareContext) -> Collection[str]:
    """Return the names of the tools that the tasks of the agent have of their own."""
    tasks = [task for each in context.agent.middleware if isinstance(each, SubAgents) for task in each.tasks]
    return {tool.name for task in tasks for tool in task.built(context.agent).tools}


def _may_come(context: MiddlewareContext) -> bool:
    """Return whether the agent, or a sub-agent, may have a tool later that it does not have at its start."""
    bringing = context.agent.hooks.get("tools", ())
    brings = any(type(each).__module__ not in _FIXED or isinstance(each, SubAgents) for each in bringing)
    return brings or any(tool.takes_context and not context.origin_of(name) for name, tool in context.tools.items())

"""Approvals: calls that a person has to allow before they run."""

import difflib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from trio_sagents.agent import Middleware, MiddlewareContext, Tool, ToolLike, same_function
from trio_sagents.data.interrupts import APPROVAL_DECISIONS, DecisionKind, PendingCall, pending
from trio_sagents.data.json import JSON, Opaque, check_text
from trio_sagents.data.messages import ToolCall

Policy: TypeAlias = "bool | Sequence[DecisionKind] | Mapping[str, Opaque]"
_BOUND: Final = "bound"
_COLLECTED: Final = "collected"
NEWCOMERS: Final = ("ask", "allow", "deny")
log: Final = logging.getLogger("trio_sagents")


def _policy(name: str, given: Opaque) -> Sequence[DecisionKind]:
    """Return what may be decided about a tool's calls; nothing where they need no decision."""
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


@attrs.frozen(init=False, eq=False)
class Approvals(Middleware):
    """Have people decide about calls of some tools: approve, edit or reject each.

    The policy is bound to the tool objects that are registered when the agent starts: a tool that appears later, or takes the
    place of another, is a newcomer, whatever it is called. It holds for sub-agents, too.
    """

    interrupt_on: Mapping[str, Sequence[DecisionKind]]
    """By name: what may be decided; empty lets the calls run."""
    _functions: Sequence[tuple[Opaque, Sequence[DecisionKind]]]
    """What was given by the tool itself: it is found by its function, whatever it is called."""
    _names: Sequence[str]
    """What was given by its name alone, and is to be asked about."""
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
    ) -> None:
        """Check and keep the policy.

        Args:
            interrupt_on: by tool, or its name: True asks, with all decisions; a sequence of "approve", "edit", "reject" asks with
                these; False, or an empty sequence, does not ask. Tools that are not listed run without asking, unless they have the
                function of one that is. A name that no tool has gates nothing; where it is nearly that of a tool, the log says so.
            newcomers: what is done with calls of tools that were not registered when the agent started: "ask", "allow" or "deny".
            timeout: seconds after which a call that nobody has decided counts as rejected; `math.inf` waits for ever.
            reason: shown to people beside the call.
            when: asks about every tool that is not listed and for which it returns True, such as `trio_sagents.mcp.is_mcp_tool`.

        Raises:
            TypeError, ValueError: they cannot be meant.
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
        names = tuple(key for key in interrupt_on if isinstance(key, str) and policies[key])
        self.__attrs_init__(policies, functions, names, newcomers, float(timeout), reason, when)  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it

    async def on_start(self, context: MiddlewareContext) -> None:
        """Forget what an earlier agent had."""
        context.memory.pop(_BOUND, None)

    async def tools(self, context: MiddlewareContext) -> Sequence[Tool]:
        """Bring no tool along; but what was registered up to now is bound before others come."""
        if _COLLECTED in context.memory:
            self._bind(context)
        context.memory[_COLLECTED] = True
        return ()

    async def claim(self, context: MiddlewareContext, call: ToolCall, tool: Tool) -> PendingCall | None:
        """Ask about calls of the tools that the policy names, and of newcomers."""
        kinds = self._kinds(context, tool)
        if not kinds:
            return None
        timeout = None if math.isinf(self.timeout) else self.timeout
        return pending(call, kind="approval", allowed=kinds, text=self.reason, timeout=timeout)

    def _bind(self, context: MiddlewareContext) -> Mapping[str, Opaque]:
        """Return, by name, the functions of the tools that were registered when the agent started."""
        bound: dict[str, Opaque] | None = context.memory.get(_BOUND)
        if bound is None:  # not where it is empty: an agent that began without tools has newcomers alone
            bound = context.memory[_BOUND] = {name: one.function for name, one in context.tools.items()}
            self._tell_of_slips(context, bound)
        return bound

    def _tell_of_slips(self, context: MiddlewareContext, bound: Mapping[str, Opaque]) -> None:
        # A name that no tool has gates nothing. It may be a sub-agent's tool; one that is nearly the name of a tool is a slip.
        for name in self._names:
            near = difflib.get_close_matches(name, bound, n=1, cutoff=0.8)
            if near and name not in bound and not context.path:
                message = "conversation %r: interrupt_on names %r, and no tool of the agent is called so; is it %r, which runs unasked?"
                log.warning(message, context.conversation_id, name, near[0])

    def _kinds(self, context: MiddlewareContext, tool: Tool) -> Sequence[DecisionKind]:
        bound = self._bind(context)
        listed = self._listed(bound, tool)
        if tool.name in bound and (bound[tool.name] == tool.function or (context.path and same_function(bound[tool.name], tool.function))):
            return listed or ()
        if context.path and tool.name not in bound and listed is None and context.is_own_tool(tool.name):
            return ()  # a sub-agent's own tool, which its definition brought along
        if self.newcomers == "allow":
            return listed or ()
        return ("reject",) if self.newcomers == "deny" else listed or APPROVAL_DECISIONS

    def _listed(self, bound: Mapping[str, Opaque], tool: Tool) -> Sequence[DecisionKind] | None:
        """Return what the policy says of a tool: by its name, else by its function, which may have another name elsewhere."""
        listed = next((kinds for function, kinds in self._functions if function == tool.function), self.interrupt_on.get(tool.name))
        if listed is None:
            aliases = (self.interrupt_on.get(name) for name, function in bound.items() if function == tool.function)
            listed = next((one for one in aliases if one), None)
        if listed is None and self.when is not None and self.when(tool):
            return APPROVAL_DECISIONS
        return listed

    def debug_summary(self) -> JSON:
        """Return the policy."""
        return {"interrupt_on": {name: list(kinds) for name, kinds in self.interrupt_on.items()}, "newcomers": self.newcomers}

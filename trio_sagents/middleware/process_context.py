"""Which context variables of the posting call reach tools.

A turn runs in a copy of the context of the call that brought its first message. So without this middleware all variables reach tools.
"""

import contextvars
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from trio_sagents.agent import MiddlewareContext
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.data.messages import ToolCall, ToolResult
from trio_sagents.middleware._built_in import BuiltIn

Variable = contextvars.ContextVar[Opaque]


@attrs.frozen(init=False, eq=False)
class ProcessContext(BuiltIn):
    """Let only these context variables reach tools, their threads and their sub-agents: all other variables look unset there.

    Without arguments no variable reaches a tool. A variable that a tool sets is set for that tool alone. The model call is not
    affected: an adapter may need the context, for example for the span of a trace. Hooks of middleware that comes before this one in
    `Agent.middleware` keep all variables, too; the `around_tool` of middleware behind this one sees what the tool sees.
    """

    allowed: Sequence[Variable]

    def __init__(self, *allowed: Variable, id: str | None = None) -> None:  # noqa: A002  # as of all middleware of the library
        """Keep the allow-list.

        Args:
            allowed: the variables themselves, not their names.
            id: the id of the middleware; None is the name of the class.

        Raises:
            TypeError: an argument is not a ContextVar.
        """
        for variable in allowed:
            if not isinstance(variable, contextvars.ContextVar):
                raise TypeError(f"ProcessContext takes ContextVars, not {variable!r}")
        self.__attrs_init__(allowed, id=id)  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it

    async def around_tool(
        self, context: MiddlewareContext, call: ToolCall, call_next: Callable[[ToolCall], Awaitable[ToolResult]]
    ) -> ToolResult:
        """Run the call in a context that has only the allowed variables.

        Cancellation: a tool in a task has ended.
        """
        results: list[ToolResult] = []

        async def run() -> None:
            results.append(await call_next(call))

        # In a new task, because a task keeps the context that it began with. Trio itself finds its run in a thread-local.
        async with trio.open_nursery() as nursery:
            self._cleared().run(nursery.start_soon, run)
        return results[0]

    def _cleared(self) -> contextvars.Context:
        """Return a new context with the allowed variables that are set here."""
        here = contextvars.copy_context()
        cleared = contextvars.Context()
        for variable in self.allowed:
            if variable in here:
                cleared.run(variable.set, here[variable])
        return cleared

    def debug_summary(self) -> JSON:
        """Return the names of the allowed variables."""
        return {"allowed": [variable.name for variable in self.allowed]}

"""Sub-agents: a tool with which an agent hands a task to another agent, and reads the answer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.agent import Agent, MiddlewareContext, Model, Tool, ToolContext, ToolLike, ToolResult, id_of
from trio_sagents.data.config import TurnLimits, type_validator
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.middleware._built_in import BuiltIn

GENERAL: Final = "general-purpose"
BLOCKED: Final = ("SubAgents", "AskUser", "ConversationTitle")
"""Middleware that the general-purpose sub-agent does not inherit by default."""
NAME: Final = "task"


@attrs.frozen(kw_only=True)
class Task:
    """A kind of task that an agent may hand over, and how a sub-agent does it."""

    name: str = attrs.field(validator=attrs.validators.matches_re(r"[a-zA-Z0-9_-]{1,64}"))
    description: str = attrs.field(validator=type_validator(str))
    """What the sub-agent is good for; the model reads this to choose."""
    agent: Agent | None = None
    """A pre-built agent; None builds an agent from the fields below."""
    system_prompt: str = ""
    tools: Sequence[ToolLike] = ()
    middleware: Sequence[Opaque] = ()
    model: Model | None = None
    """None takes the model of the parent."""
    until_tool: "str | Sequence[str]" = ()
    until_tool_success: "str | Sequence[str]" = ()
    limits: TurnLimits | None = None
    """None takes the limits of the parent."""

    def __attrs_post_init__(self) -> None:
        own = (self.system_prompt, self.tools, self.middleware, self.model, self.until_tool, self.until_tool_success, self.limits)
        if self.agent is not None and any(own):
            raise ValueError(
                f"the task {self.name!r} has a pre-built agent; prompt, tools, middleware, model, until_tool and limits are the agent's own"
            )

    def built(self, parent: Agent) -> Agent:
        """Return the agent that does the task."""
        if self.agent is not None:
            return self.agent
        return Agent(
            model=self.model or parent.model,
            fallbacks=() if self.model is not None else parent.fallbacks,
            retry=parent.retry,
            system_prompt=self.system_prompt,
            tools=tuple(self.tools),
            middleware=tuple(self.middleware),
            until_tool=self.until_tool,
            until_tool_success=self.until_tool_success,
            limits=self.limits or parent.limits,
            name=self.name,
        )


def _tasks(given: "Iterable[Task]") -> tuple[Task, ...]:
    tasks = tuple(given)
    for task in tasks:
        if not isinstance(task, Task):
            raise TypeError(f"SubAgents takes Tasks, not {task!r}")
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1 or name == GENERAL:
            raise ValueError(f"SubAgents has two tasks named {name!r}")
    return tasks


def _ids(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


@attrs.frozen(eq=False)
class SubAgents(BuiltIn):
    """Give the agent the tool `task`, which runs a sub-agent in a nursery inside the call; several calls run in parallel.

    A question or an approval inside a sub-agent interrupts the whole turn, as those of the agent itself do. After the answer the
    sub-agent continues where it was, also in another process.
    """

    tasks: Sequence[Task] = attrs.field(default=(), converter=_tasks)
    general_purpose: bool = attrs.field(default=True, kw_only=True)
    """Whether there is a sub-agent for all other tasks, with the agent's own prompt, tools and middleware."""
    blocked: Sequence[str] = attrs.field(default=BLOCKED, kw_only=True, converter=_ids)
    """Ids, or names of classes, of middleware that the general-purpose sub-agent does not inherit. The gates (`claim`) of the agent
    hold for it all the same."""
    max_depth: int = attrs.field(default=1, kw_only=True, validator=attrs.validators.ge(1))
    """How deep sub-agents may nest; a sub-agent at this depth has no tool `task`."""

    def __attrs_post_init__(self) -> None:
        if not self.tasks and not self.general_purpose:
            raise ValueError("SubAgents has no task and no general_purpose sub-agent, so there is nothing to hand over to")

    async def tools(self, context: MiddlewareContext) -> Sequence[Tool]:
        """Return `task`, unless this is a sub-agent at `max_depth`."""
        if len(context.path) >= self.max_depth:
            return ()
        # The same object as long as the agent lives: a call that was approved runs on the tool that was shown.
        tool: Tool | None = context.memory.get(NAME)
        if tool is None:
            tool = context.memory[NAME] = self._tool(context.agent)
        return (tool,)

    def _tool(self, parent: Agent) -> Tool:
        agents = {task.name: task.built(parent) for task in self.tasks}
        if self.general_purpose:
            agents[GENERAL] = self._general(parent)

        async def task(instructions: str, name: str, tool_context: ToolContext) -> ToolResult:
            agent = agents.get(name)
            if agent is None:
                raise ValueError(f"there is no task {name!r}; there are: {', '.join(agents)}")
            if not instructions.strip():
                raise ValueError("instructions must not be empty")
            outcome = await tool_context.run_agent(agent, instructions, name=name)  # pyright: ignore[reportArgumentType]
            return ToolResult(outcome.message.text or "(no text)", value=outcome.result)

        return attrs.evolve(Tool.of(task), name=NAME, description=self._description(), parameters=_parameters(agents))

    async def system_prompt(self, context: MiddlewareContext) -> str:
        """Say when to hand over."""
        if len(context.path) >= self.max_depth:
            return ""
        return (
            f"With the tool `{NAME}` you hand a task that stands on its own to a sub-agent. It sees nothing of this conversation but your "
            "instructions, and answers once. Hand over several tasks in one answer if they do not depend on each other."
        )

    def _general(self, parent: Agent) -> Agent:
        blocked = set(self.blocked)
        middleware = [each for each in parent.middleware if not {id_of(each), type(each).__name__} & blocked]
        return attrs.evolve(parent, middleware=tuple(middleware), mode=None, until_tool=(), until_tool_success=(), name=GENERAL)

    def _description(self) -> str:
        lines = [f"- {task.name}: {task.description}" for task in self.tasks]
        if self.general_purpose:
            lines.append(f"- {GENERAL}: anything else; it has your own tools")
        return "Hand a task to a sub-agent and read its answer. The tasks:\n" + "\n".join(lines)

    def debug_summary(self) -> JSON:
        """Return the names of the tasks."""
        return {"tasks": [task.name for task in self.tasks], "general_purpose": self.general_purpose, "max_depth": self.max_depth}


def _parameters(agents: Mapping[str, Agent]) -> JSON:
    return {
        "type": "object",
        "properties": {
            "instructions": {"type": "string", "description": "all that the sub-agent needs to know, and what it is to answer"},
            "name": {"type": "string", "enum": list(agents), "description": "which kind of task"},
        },
        "required": ["instructions", "name"],
        "additionalProperties": False,
    }

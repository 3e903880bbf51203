"""Sub-agents: a tool with which an agent hands a task to another agent, and reads the answer."""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from trio_sagents.agent import (
    Agent,
    DisplayText,
    MiddlewareContext,
    Model,
    Tool,
    ToolContext,
    ToolLike,
    ToolResult,
    check_first_messages,
    id_of,
)
from trio_sagents.data.config import TurnLimits, function_validator, type_validator
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.data.messages import Message
from trio_sagents.middleware._built_in import BuiltIn

GENERAL: Final = "general-purpose"
BLOCKED: Final = ("SubAgents", "AskUser", "ConversationTitle")
"""Middleware that the general-purpose sub-agent does not inherit by default."""
NAME: Final = "task"


Instructions: TypeAlias = str | Callable[[], Awaitable[str]]
GUIDE: Final = "get_task_instructions"
MAX_PROMPT: Final = 10_000
"""How many characters a prompt may have that a model writes for a sub-agent."""
_SUSPICIOUS: Final = re.compile(
    r"\b(ignore|disregard|forget|override)\b[^.\n]{0,40}\b(previous|prior|above|earlier|all|your|system)\b[^.\n]{0,30}"
    r"\b(instructions?|prompts?|rules|guidelines)\b|<\|?(im_start|im_end|system)\|?>",
    re.IGNORECASE,
)


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that a model has written for a sub-agent, if it is too long, or reads like an attempt to lift the rules.

    The check is a tripwire, not a wall: it knows a few well-known phrases. What a sub-agent may do is decided by its tools, and by the
    gates of the agent around it, which hold for it all the same.

    Raises:
        ValueError: the prompt is refused; the model reads why.
    """
    if len(prompt) > MAX_PROMPT:
        raise ValueError(f"system_prompt has {len(prompt)} characters, the limit is {MAX_PROMPT}")
    found = _SUSPICIOUS.search(prompt)
    if found is not None:
        raise ValueError(f"system_prompt must not tell the sub-agent to set its rules aside ({found[0]!r})")


def _check_instructions(task: "Task", _field: object, given: Instructions | None) -> None:
    if given is not None and not isinstance(given, str) and not inspect.iscoroutinefunction(given):
        raise TypeError(f"the instructions of the task {task.name!r} must be a text, or an async function, not {given!r}")


def _messages(given: Sequence[Message]) -> Sequence[Message]:
    check_first_messages(given)
    return tuple(given)


@attrs.frozen(kw_only=True)
class Task:
    """A kind of task that an agent may hand over, and how a sub-agent does it."""

    name: str = attrs.field(validator=attrs.validators.matches_re(r"[a-zA-Z0-9_-]{1,64}"))
    description: str = attrs.field(validator=type_validator(str))
    """What the sub-agent is good for; the model reads this to choose."""
    instructions: "Instructions | None" = attrs.field(default=None, validator=_check_instructions)
    """How to hand this task over, if that is too long for the description: a text, or an async function that returns it. The model reads
    it with the tool `get_task_instructions`, when it needs it."""
    messages: Sequence[Message] = attrs.field(default=(), converter=_messages)
    """What the sub-agent's history begins with, before the instructions of the model: user and assistant messages, such as examples."""
    prompt_by_model: bool = False
    """Whether the model may write the sub-agent's system prompt, instead of `system_prompt`; `SubAgents.check_prompt` looks at it."""
    quiet: bool = False
    """Whether the sub-agent tells the debug channel nothing of what it does."""
    display_text: DisplayText | None = None
    """What people read of a call that hands over this task; as `Tool.display_text`."""
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
        if self.agent is not None and (any(own) or self.prompt_by_model):
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
    prompt_by_model: bool = attrs.field(default=False, kw_only=True)
    """Whether the model may write the system prompt of the general-purpose sub-agent; `check_prompt` looks at it."""
    check_prompt: Callable[[str], None] = attrs.field(default=check_prompt, kw_only=True, validator=function_validator())
    """Is given each prompt that the model writes for a sub-agent; a ValueError refuses the prompt, and the model reads its text."""
    max_depth: int = attrs.field(default=1, kw_only=True, validator=attrs.validators.ge(1))
    """How deep sub-agents may nest; a sub-agent at this depth has no tool `task`."""

    def __attrs_post_init__(self) -> None:
        if not self.tasks and not self.general_purpose:
            raise ValueError("SubAgents has no task and no general_purpose sub-agent, so there is nothing to hand over to")

    async def tools(self, context: MiddlewareContext) -> Sequence[Tool]:
        """Return `task`, unless this is a sub-agent at `max_depth`; and `get_task_instructions`, if a task has instructions."""
        if len(context.path) >= self.max_depth:
            return ()
        # The same objects as long as the agent lives: a call that was approved runs on the tool that was shown.
        tools: Sequence[Tool] | None = context.memory.get(NAME)
        if tools is None:
            tools = context.memory[NAME] = (self._tool(context.agent), *self._guide())
        return tools

    def _tool(self, parent: Agent) -> Tool:
        agents = {task.name: task.built(parent) for task in self.tasks}
        tasks = {task.name: task for task in self.tasks}
        open_to_prompts = {task.name for task in self.tasks if task.prompt_by_model}
        if self.general_purpose:
            agents[GENERAL] = self._general(parent)
            if self.prompt_by_model:
                open_to_prompts.add(GENERAL)

        async def task(instructions: str, name: str, tool_context: ToolContext, system_prompt: str = "") -> ToolResult:
            agent = agents.get(name)
            if agent is None:
                raise ValueError(f"there is no task {name!r}; there are: {', '.join(agents)}")
            if not instructions.strip():
                raise ValueError("instructions must not be empty")
            if system_prompt.strip():
                if name not in open_to_prompts:
                    raise ValueError(f"the task {name!r} has a prompt of its own, and takes no system_prompt")
                self.check_prompt(system_prompt)
                agent = attrs.evolve(agent, system_prompt=system_prompt)
            known = tasks.get(name)
            outcome = await tool_context.run_agent(
                agent,  # pyright: ignore[reportArgumentType]
                instructions,
                name=name,
                messages=() if known is None else known.messages,
                quiet=known is not None and known.quiet,
            )
            return ToolResult(outcome.message.answer or "(no text)", value=outcome.result)

        def displayed(arguments: JSON) -> str | None:
            known = tasks.get(str(arguments.get("name")))
            text = None if known is None else known.display_text
            return text(arguments) if callable(text) else text

        parameters = _parameters(agents, takes_prompt=bool(open_to_prompts))
        has_texts = any(task.display_text is not None for task in self.tasks)
        return attrs.evolve(
            Tool.of(task),
            name=NAME,
            description=self._description(),
            parameters=parameters,
            display_text=displayed if has_texts else None,
        )

    def _guide(self) -> Sequence[Tool]:
        """Return the tool that loads the instructions of a task, if any task has some."""
        guides = {task.name: task.instructions for task in self.tasks if task.instructions is not None}
        if not guides:
            return ()

        async def get_task_instructions(name: str) -> str:
            guide = guides.get(name)
            if guide is None:
                raise ValueError(f"the task {name!r} has no further instructions; these have: {', '.join(guides)}")
            return guide if isinstance(guide, str) else await guide()

        parameters: JSON = {
            "type": "object",
            "properties": {"name": {"type": "string", "enum": list(guides), "description": "which kind of task"}},
            "required": ["name"],
            "additionalProperties": False,
        }
        description = "Read how to hand over a task of this kind: what it needs to know, and what comes back."
        return (attrs.evolve(Tool.of(get_task_instructions), name=GUIDE, description=description, parameters=parameters),)

    async def system_prompt(self, context: MiddlewareContext) -> str:
        """Say when to hand over."""
        if len(context.path) >= self.max_depth:
            return ""
        return (
            f"With the tool `{NAME}` you hand a self-contained task to a sub-agent. The sub-agent sees nothing of this conversation but "
            "your instructions, and answers once. Hand over several tasks in one answer if they do not depend on each other."
        )

    def _general(self, parent: Agent) -> Agent:
        blocked = set(self.blocked)
        middleware = [each for each in parent.middleware if not {id_of(each), type(each).__name__} & blocked]
        return attrs.evolve(parent, middleware=tuple(middleware), mode=None, until_tool=(), until_tool_success=(), name=GENERAL)

    def _description(self) -> str:
        lines = [f"- {task.name}: {task.description}{'' if task.instructions is None else f' (read {GUIDE} first)'}" for task in self.tasks]
        if self.general_purpose:
            lines.append(f"- {GENERAL}: anything else; it has your own tools")
        return "Hand a task to a sub-agent and read its answer. The tasks:\n" + "\n".join(lines)

    def debug_summary(self) -> JSON:
        """Return the names of the tasks."""
        return {"tasks": [task.name for task in self.tasks], "general_purpose": self.general_purpose, "max_depth": self.max_depth}


def _parameters(agents: Mapping[str, Agent], *, takes_prompt: bool = False) -> JSON:
    prompt: JSON = {"type": "string", "description": "who the sub-agent is and how it works, for a task without a prompt of its own"}
    return {
        "type": "object",
        "properties": {
            "instructions": {"type": "string", "description": "all that the sub-agent needs to know, and what it is to answer"},
            "name": {"type": "string", "enum": list(agents), "description": "which kind of task"},
            **({"system_prompt": prompt} if takes_prompt else {}),
        },
        "required": ["instructions", "name"],
        "additionalProperties": False,
    }

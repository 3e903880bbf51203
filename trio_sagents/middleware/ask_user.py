"""Questions: a tool with which a model asks a person, and waits for the answer."""

import math
from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

import attrs

from trio_sagents.agent import MiddlewareContext, Tool, ToolContext
from trio_sagents.data.config import seconds_validator, type_validator
from trio_sagents.data.interrupts import Option, PendingCall, Question, QuestionKind, pending
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import ToolCall
from trio_sagents.middleware._built_in import BuiltIn

MAX_OPTIONS: Final = 10
NAME: Final = "ask_user"
KINDS: Final[tuple[QuestionKind, ...]] = get_args(QuestionKind)
PROMPT: Final = (
    f"With the tool `{NAME}` you ask the person a question, and wait for the answer. Use it if only the person can know something, or has "
    "to choose. Do not ask for what you can find out, and do not ask in your answers."
)
"""A prompt to begin with: `AskUser(prompt=PROMPT)`."""


@attrs.frozen
class Choice:
    """An answer to choose from."""

    value: str
    """What you read if the person chooses this answer; unique, not empty."""
    label: str = ""
    """What the person reads; empty for the value itself."""
    description: str = ""
    """What the person reads about it, if the label does not say enough."""


async def ask_user(  # noqa: ASYNC124  # a tool without a thread
    question: str,
    kind: Literal["single", "multi", "text"] = "text",
    options: list[Choice] | list[str] | None = None,
    allow_other: bool = False,  # noqa: FBT001, FBT002  # arguments of a tool come by name
    allow_cancel: bool = True,  # noqa: FBT001, FBT002
    context: str = "",
) -> str:
    """Ask the person a question and wait for the answer. Use this if only the person can know the answer, or has to choose.

    Args:
        question: what to ask; one question, complete in itself.
        kind: "single" for one of the options, "multi" for any number of them, "text" for a free answer.
        options: 2 to 10 answers to choose from, for "single" and "multi"; none for "text".
        allow_other: whether the person may answer with a text that is not an option.
        allow_cancel: whether the person may decline to answer.
        context: what the person needs to know to answer, such as why you ask; may be empty.
    """
    return check_question(question, kind, options or [], allow_other, allow_cancel, context).text


def check_question(
    question: str,
    kind: str,
    options: "list[Choice] | list[str]",
    allow_other: bool,  # noqa: FBT001
    allow_cancel: bool,  # noqa: FBT001
    context: str = "",
) -> Question:
    """Return the question that a call asks; ValueError, for the model to read, if the question cannot be asked."""
    chosen = [Option(option) if isinstance(option, str) else Option(option.value, option.label, option.description) for option in options]
    if not question.strip():
        raise ValueError("question must not be empty")
    if kind == "text":
        if chosen:
            raise ValueError('a question of the kind "text" has no options; use "single" or "multi"')
        return Question(question, "text", (), allow_other=False, allow_cancel=allow_cancel, context=context)
    if not 2 <= len(chosen) <= MAX_OPTIONS:
        raise ValueError(f"a question to choose from has 2 to {MAX_OPTIONS} options, not {len(chosen)}")
    values = [option.value for option in chosen]
    if not all(value.strip() for value in values) or len(set(values)) != len(values):
        raise ValueError("the values of the options must be distinct and not empty")
    known: QuestionKind = "single" if kind == "single" else "multi"
    return Question(question, known, chosen, allow_other=allow_other, allow_cancel=allow_cancel, context=context)


def _kinds(given: Iterable[QuestionKind]) -> tuple[QuestionKind, ...]:
    kinds = tuple(given) if not isinstance(given, str) else (given,)
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"AskUser.kinds are {', '.join(map(repr, KINDS))}; not {kind!r}")
    if not kinds:
        raise ValueError("AskUser.kinds is empty, so no question could be asked")
    return tuple(kind for kind in KINDS if kind in kinds)


@attrs.frozen(eq=False, kw_only=True)
class AskUser(BuiltIn):
    """Give the agent the tool `ask_user`: a call of it interrupts the turn until a person answers, by `Answer`."""

    kinds: tuple[QuestionKind, ...] = attrs.field(default=KINDS, converter=_kinds)
    """The kinds of questions that the model may ask; the schema of the tool has no others."""
    allow_other: bool | None = None
    """Whether every question takes another text than its options. None lets the model choose; otherwise the model is not told of it."""
    allow_cancel: bool | None = None
    """Whether the person may decline every question. None lets the model choose; otherwise the model is not told of it."""
    prompt: str = attrs.field(default="", validator=type_validator(str))
    """A text for the agent's prompt that says when to ask; empty adds nothing, because the tool describes itself."""
    timeout: float = attrs.field(default=math.inf, validator=seconds_validator(minimum_open=True))
    """Seconds after which a question counts as declined; `math.inf` waits for ever."""
    _tool: Tool = attrs.field(init=False, repr=False)

    @_tool.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _made_tool(self) -> Tool:
        return _tool_of(self.kinds, self.allow_other, self.allow_cancel)

    async def system_prompt(self, context: MiddlewareContext) -> str:
        """Return the prompt that was given."""
        return self.prompt

    async def tools(self, context: MiddlewareContext) -> list[Tool]:
        """Return `ask_user`."""
        return [self._tool]

    async def claim(self, context: MiddlewareContext, call: ToolCall, tool: Tool) -> PendingCall | None:
        """Ask the person. A call whose question cannot be asked runs, and the model reads why."""
        if tool.function is not ask_user:
            return None
        question = self._question(call.arguments)
        if question is None:
            return None
        timeout = None if math.isinf(self.timeout) else self.timeout
        return pending(call, kind="question", allowed=("answer",), question=question, text=question.text, timeout=timeout)

    def _question(self, arguments: JSON) -> Question | None:
        try:
            given: dict[str, JSONValue] = {**_TOOL.bind(arguments, None)}  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # it takes no context
            question = check_question(
                given["question"],
                given.get("kind", "text"),
                given.get("options") or [],
                given.get("allow_other", False),
                given.get("allow_cancel", True),
                given.get("context", ""),
            )
        except ValueError:
            return None
        if question.kind not in self.kinds:
            return None
        other = question.allow_other if self.allow_other is None else self.allow_other and question.kind != "text"
        return attrs.evolve(
            question, allow_other=other, allow_cancel=question.allow_cancel if self.allow_cancel is None else self.allow_cancel
        )


def _tool_of(kinds: tuple[QuestionKind, ...], allow_other: bool | None, allow_cancel: bool | None) -> Tool:  # noqa: FBT001
    """Return the tool with the schema that is left when the host has decided some of it."""
    if kinds == KINDS and allow_other is None and allow_cancel is None:
        return _TOOL
    properties: dict[str, JSONValue] = dict(_TOOL.parameters["properties"])
    required: list[JSONValue] = list(_TOOL.parameters.get("required", ()))
    if allow_other is not None or kinds == ("text",):
        del properties["allow_other"]
    if allow_cancel is not None:
        del properties["allow_cancel"]
    if kinds == ("text",):
        del properties["kind"], properties["options"]
    else:
        kind: Mapping[str, JSONValue] = properties["kind"]
        properties["kind"] = {**{key: value for key, value in kind.items() if key != "default"}, "enum": list(kinds)}
        if "text" in kinds:
            properties["kind"] = {**properties["kind"], "default": "text"}
        else:
            required += ["kind", "options"]
    parameters = {**_TOOL.parameters, "properties": properties, "required": required}

    async def check(_context: ToolContext, kind: str = "text", **_arguments: JSONValue) -> None:  # noqa: ASYNC124  # as every check
        if kind not in kinds:
            raise ValueError(f"no question of the kind {kind!r} may be asked; the kind must be one of {', '.join(map(repr, kinds))}")

    return attrs.evolve(_TOOL, parameters=parameters, check=check)


_TOOL: Final = Tool.of(ask_user)

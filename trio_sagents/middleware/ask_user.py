"""Questions: a tool with which a model asks a person, and waits for the answer."""

import math
from typing import Final, Literal

import attrs

from trio_sagents.agent import MiddlewareContext, Tool
from trio_sagents.data.config import seconds_validator
from trio_sagents.data.interrupts import Option, PendingCall, Question, pending
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import ToolCall
from trio_sagents.middleware._built_in import BuiltIn

MAX_OPTIONS: Final = 10
NAME: Final = "ask_user"


@attrs.frozen
class Choice:
    """An answer to choose from."""

    value: str
    """What you read if the person chooses this answer; unique, not empty."""
    label: str = ""
    """What the person reads; empty for the value itself."""


async def ask_user(  # noqa: ASYNC124  # a tool without a thread
    question: str,
    kind: Literal["single", "multi", "text"] = "text",
    options: list[Choice] | list[str] | None = None,
    allow_other: bool = False,  # noqa: FBT001, FBT002  # arguments of a tool come by name
    allow_cancel: bool = True,  # noqa: FBT001, FBT002
) -> str:
    """Ask the person a question and wait for the answer. Use this if only the person can know the answer, or has to choose.

    Args:
        question: what to ask; one question, complete in itself.
        kind: "single" for one of the options, "multi" for any number of them, "text" for a free answer.
        options: 2 to 10 answers to choose from, for "single" and "multi"; none for "text".
        allow_other: whether the person may answer with a text that is not an option.
        allow_cancel: whether the person may decline to answer.
    """
    return check_question(question, kind, options or [], allow_other, allow_cancel).text


def check_question(question: str, kind: str, options: "list[Choice] | list[str]", allow_other: bool, allow_cancel: bool) -> Question:  # noqa: FBT001
    """Return the question that a call asks; ValueError, for the model to read, if the question cannot be asked."""
    chosen = [Option(option) if isinstance(option, str) else Option(option.value, option.label) for option in options]
    if not question.strip():
        raise ValueError("question must not be empty")
    if kind == "text":
        if chosen:
            raise ValueError('a question of the kind "text" has no options; use "single" or "multi"')
        return Question(question, "text", (), allow_other=False, allow_cancel=allow_cancel)
    if not 2 <= len(chosen) <= MAX_OPTIONS:
        raise ValueError(f"a question to choose from has 2 to {MAX_OPTIONS} options, not {len(chosen)}")
    values = [option.value for option in chosen]
    if not all(value.strip() for value in values) or len(set(values)) != len(values):
        raise ValueError("the values of the options must be distinct and not empty")
    return Question(question, "single" if kind == "single" else "multi", chosen, allow_other=allow_other, allow_cancel=allow_cancel)


@attrs.frozen(eq=False, kw_only=True)
class AskUser(BuiltIn):
    """Give the agent the tool `ask_user`: a call of it interrupts the turn until a person answers, by `Answer`."""

    allow_other: bool | None = None
    """Whether every question takes another text than its options; None lets the model choose."""
    allow_cancel: bool | None = None
    """Whether the person may decline every question; None lets the model choose."""
    timeout: float = attrs.field(default=math.inf, validator=seconds_validator(minimum_open=True))
    """Seconds after which a question counts as declined; `math.inf` waits for ever."""

    async def tools(self, context: MiddlewareContext) -> list[Tool]:
        """Return `ask_user`."""
        return [_TOOL]

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
            )
        except ValueError:
            return None
        other = question.allow_other if self.allow_other is None else self.allow_other and question.kind != "text"
        return attrs.evolve(
            question, allow_other=other, allow_cancel=question.allow_cancel if self.allow_cancel is None else self.allow_cancel
        )


_TOOL: Final = Tool.of(ask_user)

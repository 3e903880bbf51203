"""Extraction: a value of your own class out of a text, without a session."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import attrs
import trio

from trio_sagents._trio.groups import in_nursery
from trio_sagents.agent._agent import Agent, ToolLike
from trio_sagents.agent._middleware import Pipeline
from trio_sagents.agent._model import Model
from trio_sagents.agent._nested import NestedTurn
from trio_sagents.agent._progress import Progress, Suspended
from trio_sagents.agent._schema import shape_of
from trio_sagents.agent._tools import submitting
from trio_sagents.agent._turn import run_turn
from trio_sagents.data.config import SessionPolicy, TurnLimits
from trio_sagents.data.cursors import Channel
from trio_sagents.data.events import Event
from trio_sagents.data.interrupts import DecisionRecord
from trio_sagents.data.json import JSON, Opaque, Options, check_text
from trio_sagents.data.outcomes import Completed
from trio_sagents.data.records import Row
from trio_sagents.data.todos import Todo
from trio_sagents.exceptions import NotInterrupted

T = TypeVar("T")
SUBMIT = "submit"
ROUNDS = 5
"""Model calls that one extraction may take."""


async def extract(
    model: Model,
    result_type: type[T],
    text: str,
    *,
    instructions: str = "",
    tools: Sequence[ToolLike] = (),
    limits: TurnLimits | None = None,
) -> T:
    """Have a model read a text, and return what the model submits, as a value of `result_type`.

    Args:
        model: asked until it submits a valid value, at most five times.
        result_type: an attrs class, a dataclass or a TypedDict; its fields, their types and docstrings tell the model what to submit.
        text: what to read, or what to do.
        instructions: a system prompt; empty takes a general prompt.
        tools: what the model may use meanwhile.
        limits: the limits of the turn; None allows five rounds.

    Returns:
        A new value; it passed the same strict checks as the arguments of tools.

    Raises:
        TypeError, ValueError: the class has no JSON schema, or the text cannot be sent.
        ToolNotCalled: the model answered without submitting a value, or its answer was cut (`cut` says why).
        ModelFailed, LimitExceeded: the model failed, or reached a limit.

    Cancellation: the model's stream and all tools in tasks have ended; nothing is kept.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {text!r}")
    check_text(text, "text")
    shape = shape_of(result_type, f"result_type {result_type!r}")
    if shape.schema.get("type") != "object":
        raise TypeError(f"result_type must be a class with fields, not {result_type!r}")
    submit = submitting(SUBMIT, "Submit the result. Call this once, when you have all of it.", shape)
    agent = Agent(
        model=model,
        system_prompt=instructions or f"Read what you are given and call `{SUBMIT}` with the result.",
        tools=(*tools, submit),
        until_tool_success=(SUBMIT,),
        limits=limits or TurnLimits(max_rounds=ROUNDS),
    )

    async def run(nursery: trio.Nursery) -> T:
        nested = NestedTurn(_Nowhere(), "extract", "extract", (), nursery)
        nested.ask(text)
        pipeline = Pipeline(agent, conversation_id="extract")
        await pipeline.start(nested)
        outcome = await run_turn(pipeline, nested)
        assert isinstance(outcome, Completed)
        value: T = outcome.result
        return value

    try:
        return await in_nursery(run)
    except Suspended:
        raise NotInterrupted("extract", "no person can be asked outside a session; use open_sessions") from None


@attrs.define(eq=False)
class _Nowhere:
    """Takes the place of the parent of a sub-agent: there is no conversation around an extraction."""

    turn_id: str = "extract"
    conversation_id: str = "extract"
    agent_id: str = "extract"
    scope: Opaque = None
    progress: Progress = attrs.field(factory=Progress)
    has_ended: bool = False
    options: Options = attrs.field(factory=dict)
    values: Options = attrs.field(factory=dict)
    max_message_bytes: int = SessionPolicy().max_message_bytes
    max_tool_output_bytes: int = SessionPolicy().max_tool_output_bytes
    threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(40))
    _ids: Iterator[int] = attrs.field(factory=lambda: iter(range(1, 2**63)))

    def new_id(self) -> str:
        return f"extract-{next(self._ids)}"

    def decision_of(self, call_id: str) -> DecisionRecord | None:
        return None

    async def may_act(self) -> bool:
        return True

    def publish(self, event: Event, channel: Channel = "main") -> None:
        """Drop the event: nobody listens."""

    def publish_debug(self, make: Callable[[], Event]) -> None:
        """Make no event: nobody listens."""

    def note_waiting(self) -> None:
        """Nobody can be asked."""

    async def update(self, todos: Sequence[Todo] | None, metadata: JSON | None, rows: Sequence[Row] = ()) -> None:
        """Drop the rows: there is no transcript."""
        await trio.lowlevel.checkpoint()

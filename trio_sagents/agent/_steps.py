"""The steps of a turn, and the default loop.

`converse` is the default loop. Another loop is an async function of the same steps: `Agent(mode=...)`. For every loop, the
history stays valid, no call runs without passing the gate, and each call is answered once: the steps see to that.
"""

from collections.abc import Mapping, Sequence

import attrs

from trio_sagents.agent._agent import Agent, Ended, TurnSteps
from trio_sagents.agent._asking import ask
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._gate import ask_gate
from trio_sagents.agent._middleware import Pipeline
from trio_sagents.agent._model import ModelAnswer
from trio_sagents.agent._nested import RunTurn
from trio_sagents.agent._tool_calls import run_open_calls
from trio_sagents.agent._until import final_result
from trio_sagents.data.interrupts import copy_of
from trio_sagents.data.messages import Message, TextPart, ToolCall
from trio_sagents.data.outcomes import Completed, Interrupted, Usage
from trio_sagents.data.reading import as_read
from trio_sagents.data.requests import ModelRequest
from trio_sagents.data.state import OlderMessages
from trio_sagents.exceptions import LimitExceeded, ModelFailed, ToolNotCalled


async def converse(turn: TurnSteps) -> Ended:
    """Ask the model and run the tools that it asks for; repeat until it asks for none, and is done.

    Cancellation: the turn is cut; the text so far and the results so far stay.
    """
    ended: Ended | None = None
    while ended is None:
        await turn.take_steered()
        answer = await turn.ask_model()
        if turn.calls_of(answer):
            ended = await turn.run_tools(answer)
        elif turn.is_continued(answer):
            await turn.keep(answer)
        else:
            ended = await turn.complete(answer)
    return ended


@attrs.define(eq=False)
class Steps:
    """The steps of one turn; implements `TurnSteps`, which says what each step does."""

    pipeline: Pipeline
    context: TurnContext
    run_turn: RunTurn
    """Runs the turn of a sub-agent."""
    system: str = ""
    """The system prompt of this turn."""
    _open: list[ModelAnswer] = attrs.field(factory=list)
    """The answers that may be kept: `ask_model` gave them, and none of them was kept."""
    _is_busy: bool = False
    """Whether calls run."""

    @property
    def agent(self) -> Agent:
        """The agent."""
        return self.pipeline.agent

    def messages(self) -> Sequence[Message]:
        """Return the history so far, oldest first, as the model is to read it; a new sequence."""
        return as_read(self.context.messages())

    async def older_messages(self, *, before: str | None = None, limit: int = 100) -> OlderMessages:
        """Return a page of the messages before the window. Cancellation: nothing is changed."""
        return await self.context.older_messages(before, limit)

    def calls_of(self, answer: ModelAnswer) -> Sequence[ToolCall]:
        """Return the calls to run for an answer."""
        return answer.message.calls if answer.message.stop_reason == "tool_calls" else ()

    def is_continued(self, answer: ModelAnswer) -> bool:
        """Return whether the model is not done with an answer that asks for no tool: it has only narrated, or its provider paused it."""
        return answer.message.stop_reason == "continued"

    async def take_steered(self) -> None:
        """Take into the history what people posted to steer this turn. Not while calls run, because they are answered first.

        Cancellation: either the messages are taken, or they are still in the queue.
        """
        self._check_free()
        await self.context.take_steered()

    async def ask_model(self, request: ModelRequest | None = None) -> ModelAnswer:
        """Ask the model, with its retries and fallbacks, and with the middleware around it.

        Args:
            request: None is the whole history, with the turn's prompt and all tools.

        Returns:
            The answer. The answer is not kept before `run_tools` or `complete` is called.

        Raises:
            LimitExceeded: more rounds than `limits.max_rounds`.
            ModelFailed: no model answered.

        Cancellation: the text so far stays, as the partial answer of the turn.
        """
        self._check_free()
        progress = self.context.progress
        progress.rounds += 1
        if progress.rounds > self.agent.limits.max_rounds:
            raise LimitExceeded("max_rounds", progress.rounds, most=self.agent.limits.max_rounds)
        if request is None:
            request = ModelRequest(self.system, self.messages(), tuple(tool.spec for tool in self.pipeline.tools.values()))
        answer = await ask(self.pipeline, request, self.context)
        self._open.append(answer)
        return answer

    async def run_tools(self, answer: ModelAnswer) -> Ended | None:
        """Keep an answer that asks for tools, and run those calls that may run now, in parallel.

        Returns:
            None if the model is to be asked again; else how the turn ended: a call waits for a person, or the tool that ends the
            turn was called.

        Cancellation: tools in tasks have ended; the results that were there are kept.
        """
        self._take(answer)
        if not self.calls_of(answer):
            raise RuntimeError("this answer calls no tools; call `complete` to keep it")
        self._is_busy = True
        # The gate comes first: a call that waits for a person is on record as waiting from its first commit on, and never as begun.
        gated = await ask_gate(self.pipeline, self.context, answer.message.calls, answer.invalid)
        await self.context.commit_answer(answer.message, answer.usage, gated.waiting)
        ended = await self._run(gated.invalid)
        self._is_busy = False
        return ended

    async def go_on(self) -> Ended | None:
        """Run the calls that an interrupt left open, now that they are decided. This is done before the loop begins.

        Returns: as `run_tools`.

        Cancellation: as of `run_tools`.
        """
        return await self._run({})

    async def _run(self, invalid: Mapping[str, str]) -> Ended | None:
        context = self.context
        values = {**self.pipeline.take_values(), **await run_open_calls(self.pipeline, invalid, context, self.run_turn)}
        waiting = [opened for opened in context.progress.open_calls.values() if opened.requests]
        if waiting:
            self.pipeline.remembered.values = values
            interrupted = context.interrupt_of(waiting)
            await self._after_turn(Interrupted(copy_of(interrupted.interrupt)))
            await context.interrupt(interrupted, waiting)
            return interrupted
        found = final_result(self.agent, self.pipeline.tools, context.messages(), values)
        if found is None:
            await context.expand()
            return None
        text, value = found
        parts = (TextPart(text),) if text else ()
        return await self._complete(Message(context.new_id(), "assistant", parts, "stop", context.turn_id), Usage(), value)

    async def _after_turn(self, outcome: Ended) -> None:
        await self.pipeline.each("after_turn", self.context, outcome, turn_id=self.context.turn_id, back=True)

    async def keep(self, answer: ModelAnswer) -> None:
        """Keep an answer after which the model is asked again. The answer calls no tools.

        Cancellation: either the answer is kept, or nothing was submitted.
        """
        self._take(answer)
        if self.calls_of(answer):
            raise RuntimeError("this answer asks for tools: `run_tools` keeps it")
        message = answer.message
        if message.stop_reason == "stop":
            message = attrs.evolve(message, stop_reason="continued")
        await self.context.commit_answer(message, answer.usage, {})

    async def complete(self, answer: ModelAnswer) -> Completed:
        """Keep the last answer; the turn ends.

        Raises:
            ToolNotCalled: the turn was to end with a tool.

        Cancellation: from here on the turn is completed, even if it is cancelled.
        """
        self._take(answer)
        if self.calls_of(answer):
            raise RuntimeError("this answer asks for tools: `run_tools` keeps it")
        wanted = (*self.agent.until_tool, *self.agent.until_tool_success)
        if wanted:
            raise ToolNotCalled(wanted, answer.message.cut)
        if answer.message.cut is not None and not answer.message.text.strip():
            error = ModelFailed(f"the answer was cut off ({answer.message.cut}) before its first word", kind="incomplete")
            error.source = f"model {answer.model!r}"
            raise error
        message = answer.message
        if message.stop_reason == "continued":  # the author of the loop takes it for the last word
            message = attrs.evolve(message, stop_reason="stop")
        return await self._complete(message, answer.usage, None)

    def _check_free(self) -> None:
        if self.context.has_ended:
            raise RuntimeError("this turn has ended; return the value of the step that ended it")
        if self._is_busy or self.context.progress.open_calls:
            raise RuntimeError("the calls of the last answer are open: `run_tools` ends before the next step")

    def _take(self, answer: ModelAnswer) -> None:
        """Let an answer be kept, once, if the model gave it in this turn."""
        self._check_free()
        if not any(answer is given for given in self._open):
            raise RuntimeError("an answer is kept once, as `ask_model` gave it")
        self._open.clear()  # the answers before this one are void now

    async def _complete(self, message: Message, usage: Usage, value: object) -> Completed:
        await self._after_turn(Completed(message, self.context.progress.usage, value))
        return await self.context.complete(message, usage, value)

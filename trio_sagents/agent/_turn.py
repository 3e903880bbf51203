"""One turn: model, tools, model again, until the model asks for no more tools.

It reads as the life of a turn. It knows no session: `TurnContext` keeps what must be kept, and whoever runs the turn settles
it when it is cut.
"""

import trio

from trio_sagents.agent._agent import Agent
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._model_call import call_model, spoken_calls
from trio_sagents.agent._tool_calls import run_tools
from trio_sagents.data.outcomes import Completed
from trio_sagents.data.requests import ModelRequest
from trio_sagents.exceptions import LimitExceeded


async def run_turn(agent: Agent, context: TurnContext) -> Completed:
    """Answer what the history ends with.

    Returns:
        The completed turn; it is committed.

    Raises:
        ModelFailed: the provider's fault.
        LimitExceeded: the turn used more than `agent.limits` allow, or an answer is too long.
        PersistenceError: a step could not be kept.

    Cancellation: the model's stream and all tools in tasks have ended; what was said and done stands in `context.progress`.
    """
    limits = agent.limits
    with trio.move_on_after(limits.turn_timeout) as timeout:
        while True:
            await context.take_steered()
            context.progress.rounds += 1
            if context.progress.rounds > limits.max_rounds:
                raise LimitExceeded("max_rounds", context.progress.rounds, most=limits.max_rounds)
            answer = await call_model(agent.model, _request(agent, context), limits, context)
            calls = spoken_calls(answer.message)
            if not calls:
                return await context.complete(answer.message, answer.usage)
            await context.commit_answer(answer.message, answer.usage)
            await run_tools(agent, calls, answer.invalid, context)
    assert timeout.cancelled_caught
    raise LimitExceeded("turn_timeout", limits.turn_timeout, most=limits.turn_timeout)


def _request(agent: Agent, context: TurnContext) -> ModelRequest:
    return ModelRequest(agent.system_prompt, context.messages(), tuple(tool.spec for tool in agent.tools))

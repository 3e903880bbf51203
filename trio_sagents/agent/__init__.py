"""One turn of an agent, with no knowledge of sessions: prepare, model, tools, again."""

from trio_sagents.agent._agent import Agent, ToolLike
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._extract import extract
from trio_sagents.agent._hooks import Middleware, Model
from trio_sagents.agent._middleware import EXPECTED, AgentHome, AsyncFunction, MiddlewareContext, Pipeline, same_function
from trio_sagents.agent._model_call import Answer as ModelAnswer
from trio_sagents.agent._progress import Progress
from trio_sagents.agent._steps import Ended, TurnSteps, converse
from trio_sagents.agent._tool_text import Halt
from trio_sagents.agent._tools import ArgumentsInvalid, Tool, ToolContext, ToolResult
from trio_sagents.agent._turn import run_turn

__all__ = (
    "EXPECTED",
    "Agent",
    "AgentHome",
    "ArgumentsInvalid",
    "AsyncFunction",
    "Ended",
    "Halt",
    "Middleware",
    "MiddlewareContext",
    "Model",
    "ModelAnswer",
    "Pipeline",
    "Progress",
    "Tool",
    "ToolContext",
    "ToolLike",
    "ToolResult",
    "TurnContext",
    "TurnSteps",
    "converse",
    "extract",
    "run_turn",
    "same_function",
)

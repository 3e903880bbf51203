"""One turn of an agent, with no knowledge of sessions: prepare, model, tools, again."""

from trio_sagents.agent._agent import Agent
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._progress import Progress
from trio_sagents.agent._tools import Tool, ToolContext, ToolResult
from trio_sagents.agent._turn import run_turn

__all__ = ("Agent", "Progress", "Tool", "ToolContext", "ToolResult", "TurnContext", "run_turn")

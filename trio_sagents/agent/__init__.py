"""One turn of an agent, without any knowledge of sessions: prepare the prompt, ask the model, run the tools, repeat.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _text_types    the texts that stand for dates, decimals, ids, bytes and paths
    _shapes        JSON schemas, and the readers that belong to them: single values and unions
    _compounds     the shapes of arrays and objects
    _pydantic      the shapes of Pydantic models
    _json_forms    returned values as JSON
    _constraints   constraints beside an annotation
    _docstrings    what a docstring says about a tool and its parameters
    _schema        from a Python annotation to a shape
    _tool_text     the texts between a model and a tool: arguments in, results out
    _model         the model port, and what one model call gives
    _tools         a tool, and the context that a tool is given
    _host          the middleware host: what middleware and tools may ask of the code that runs the agent
    _progress      how far a turn has come: the draft and the open calls
    _agent         the definition of an agent: agent, middleware, and what a hook and a loop are given
    _context       what a turn may ask of the code that runs the turn
    _identity      which tool is the same tool as before
    _middleware    the pipeline: the hooks in their order, and the tools that they bring
    _checks        what a tool itself says of a call before the call runs
    _gate          which calls wait for a person, and what a decision allows
    _model_call    one call of a model, as a stream
    _attempts      retries and fallbacks
    _shortening    requests that are too long, or have content that the provider refuses
    _asking        the middleware around the model
    _tool_chain    the middleware around a tool call
    _nested        sub-agents: a turn inside a tool call
    _tool_calls    the calls of one answer, in parallel
    _until         turns that end with a tool
    _steps         the steps of a turn, and the default loop
    _turn          one turn, with its limits
    _extract       a value of a class out of a text, without a session
"""

from trio_sagents.agent._agent import Agent, Ended, Middleware, MiddlewareContext, ToolLike, TurnSteps, id_of
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._extract import extract
from trio_sagents.agent._gate import may_repeat
from trio_sagents.agent._host import AsyncFunction, MiddlewareHost
from trio_sagents.agent._identity import familiar_id, is_defined_in, is_same_function
from trio_sagents.agent._middleware import EXPECTED, Pipeline
from trio_sagents.agent._model import Model, ModelAnswer, name_of
from trio_sagents.agent._nested import check_first_messages
from trio_sagents.agent._progress import Progress
from trio_sagents.agent._shortening import RequestShortened
from trio_sagents.agent._steps import converse
from trio_sagents.agent._tool_text import Halt
from trio_sagents.agent._tools import ArgumentsInvalid, DisplayText, Tool, ToolContext, ToolResult, checked_rows
from trio_sagents.agent._turn import run_turn

__all__ = (
    "EXPECTED",
    "Agent",
    "ArgumentsInvalid",
    "AsyncFunction",
    "DisplayText",
    "Ended",
    "Halt",
    "Middleware",
    "MiddlewareContext",
    "MiddlewareHost",
    "Model",
    "ModelAnswer",
    "Pipeline",
    "Progress",
    "RequestShortened",
    "Tool",
    "ToolContext",
    "ToolLike",
    "ToolResult",
    "TurnContext",
    "TurnSteps",
    "check_first_messages",
    "checked_rows",
    "converse",
    "extract",
    "familiar_id",
    "id_of",
    "is_defined_in",
    "is_same_function",
    "may_repeat",
    "name_of",
    "run_turn",
)

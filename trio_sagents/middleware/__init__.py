"""The built-in middleware: instances of these go into `Agent(middleware=[...])`."""

from trio_sagents.middleware.approvals import Approvals
from trio_sagents.middleware.ask_user import AskUser
from trio_sagents.middleware.budget import Budget
from trio_sagents.middleware.conversation_title import ConversationTitle, TitleGenerated
from trio_sagents.middleware.debug_log import DebugLog
from trio_sagents.middleware.files import FILE_TOOLS, Files, FilesChanged
from trio_sagents.middleware.patch_tool_calls import PatchToolCalls, valid_history
from trio_sagents.middleware.process_context import ProcessContext
from trio_sagents.middleware.sub_agents import SubAgents, Task
from trio_sagents.middleware.summarization import Summarization, SummaryFailed, SummaryMade, SummaryStarted
from trio_sagents.middleware.todo_list import TodoList

__all__ = (
    "Approvals",
    "AskUser",
    "Budget",
    "ConversationTitle",
    "DebugLog",
    "FILE_TOOLS",
    "Files",
    "FilesChanged",
    "PatchToolCalls",
    "ProcessContext",
    "SubAgents",
    "Summarization",
    "SummaryFailed",
    "SummaryMade",
    "SummaryStarted",
    "Task",
    "TitleGenerated",
    "TodoList",
    "valid_history",
)

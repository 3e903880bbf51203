"""The built-in middleware: instances of these go into `Agent(middleware=[...])`."""

from trio_sagents.middleware.approvals import Approvals
from trio_sagents.middleware.ask_user import AskUser
from trio_sagents.middleware.sub_agents import SubAgents, Task

__all__ = ("Approvals", "AskUser", "SubAgents", "Task")

"""The front door: conversation id in, handle out. Check, authorise, start once, restore or seed, then post, resume or stop.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _routing      from a conversation id to an agent: the ports that a host implements, and a router
    _collecting   settings of the garbage collector for a server
    _config       the settings of a block, checked
    _reports      what the front door answers with
    _watch        a subscriber for one conversation
    _mailboxes    the subscribers that are open
    _admission    what every entry does first
    _page         a live page of a conversation: its transcript and its present, merged
    _commands     what a caller wants an agent to do, as values
    _boot         how an agent starts: route, build, load, start
    _task         the task of one agent, from its reservation to the release of its id
    _starting     single flight: an agent is started once, under any number of callers
    _recovering   starting the agents of conversations that a crash has cut
    _deleting     deleting a stored conversation
    _closing      how all agents end
    _sessions     `Sessions`, the front door itself
    _open         `open_sessions`, which puts all of this together
"""

from trio_sagents.sessions._collecting import tune_gc
from trio_sagents.sessions._config import SessionConfig
from trio_sagents.sessions._open import open_sessions
from trio_sagents.sessions._page import Page
from trio_sagents.sessions._recovering import ScopeOf
from trio_sagents.sessions._reports import DrainReport, SessionInfo, SessionsStatistics
from trio_sagents.sessions._routing import Factory, FactoryRouter, SingleFactoryRouter
from trio_sagents.sessions._sessions import Sessions
from trio_sagents.sessions._watch import Watch

__all__ = (
    "DrainReport",
    "Factory",
    "FactoryRouter",
    "Page",
    "ScopeOf",
    "SessionConfig",
    "SessionInfo",
    "Sessions",
    "SessionsStatistics",
    "SingleFactoryRouter",
    "Watch",
    "open_sessions",
    "tune_gc",
)

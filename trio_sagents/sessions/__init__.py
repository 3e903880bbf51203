"""The front door: conversation id in, handle out. Authorise, start once, restore or seed, post, stop."""

from trio_sagents.sessions._config import SessionConfig
from trio_sagents.sessions._open import open_sessions
from trio_sagents.sessions._page import Page
from trio_sagents.sessions._reports import DrainReport, SessionInfo, SessionsStatistics
from trio_sagents.sessions._routing import Factory, FactoryRouter, SingleFactoryRouter
from trio_sagents.sessions._sessions import Sessions
from trio_sagents.sessions._watch import Watch

__all__ = (
    "DrainReport",
    "Factory",
    "FactoryRouter",
    "Page",
    "SessionConfig",
    "SessionInfo",
    "Sessions",
    "SessionsStatistics",
    "SingleFactoryRouter",
    "Watch",
    "open_sessions",
)

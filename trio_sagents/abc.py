"""What you may implement: every port of the library, in one place. Each is defined beside the layer that calls it.

The library calls these; it never asks how you do it. Whatever may wait is `async def`; a plain function in its place is a
TypeError at first use, and the error names the function. A scope is the host's own object: it is handed through and never stored.
"""

from trio_sagents.agent import Middleware, Model
from trio_sagents.broadcast import PubSub
from trio_sagents.data.records import Owner
from trio_sagents.data.scopes import Action, Overlap, Scope
from trio_sagents.sessions import Factory, FactoryRouter
from trio_sagents.storage.ports import (
    AgentPersistence,
    ConversationStore,
    DisplayMessagePersistence,
    OpenableStore,
    OwnedStore,
    OwnerLookup,
    RowPersistence,
    UnfinishedLookup,
    WaitingLookup,
    WindowedStore,
)
from trio_sagents.supervisor import Authorizer, Leases, MessagePreprocessor

__all__ = (
    "Action",
    "AgentPersistence",
    "Authorizer",
    "ConversationStore",
    "DisplayMessagePersistence",
    "Factory",
    "FactoryRouter",
    "Leases",
    "MessagePreprocessor",
    "Middleware",
    "Model",
    "OpenableStore",
    "Overlap",
    "OwnedStore",
    "Owner",
    "OwnerLookup",
    "PubSub",
    "RowPersistence",
    "Scope",
    "UnfinishedLookup",
    "WaitingLookup",
    "WindowedStore",
)

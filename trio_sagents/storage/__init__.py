"""The way from a conversation's changes to a store: a host's one store, or its two.

The modules, lowest first. Each module imports only modules that come before it in this list:

    ports           what a host implements: `ConversationStore`, or `AgentPersistence` and `DisplayMessagePersistence`
    returned        checks of what the methods of a host's store return
    adapter         `StoreAdapter`: what the runtime asks of a store, whichever kind the host gave
    unified         `UnifiedStore`: a `ConversationStore` as a `StoreAdapter`
    state_data      the state that an `AgentPersistence` keeps, and how a commit changes it: plain functions
    memory_states   `MemoryStates`: an `AgentPersistence` in memory, for a host that has a transcript only
    transcript      `Transcript`: a host's `DisplayMessagePersistence`, whose failures never stop a conversation
    split           `SplitStore`: an `AgentPersistence` and perhaps a transcript as one `StoreAdapter`
    commit_queue    `CommitQueue`: the single order of each conversation's commits
"""

from trio_sagents.storage.adapter import Asker, StoreAdapter, same_owner
from trio_sagents.storage.commit_queue import CommitQueue, PendingCommit, StoreIsPlain
from trio_sagents.storage.memory_states import MemoryStates
from trio_sagents.storage.split import SplitStore
from trio_sagents.storage.unified import UnifiedStore

__all__ = (
    "Asker",
    "CommitQueue",
    "MemoryStates",
    "PendingCommit",
    "SplitStore",
    "StoreAdapter",
    "StoreIsPlain",
    "UnifiedStore",
    "same_owner",
)

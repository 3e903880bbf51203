"""The way from a conversation's changes to a store: a host's one store, or its two.

    ports           what a host implements: `ConversationStore`, or `AgentPersistence` and `DisplayMessagePersistence`
    adapter         `StoreAdapter`: what the runtime asks of a store, whichever kind the host gave
    unified         `UnifiedStore`: a `ConversationStore` as a `StoreAdapter`
    state_data      the state that an `AgentPersistence` keeps, and how a commit changes it: plain functions
    split           `SplitStore`: an `AgentPersistence` and a `DisplayMessagePersistence` as one `StoreAdapter`
    commit_queue    `CommitQueue`: the single order of each conversation's commits

Each module imports only modules above it in this list.
"""

from trio_sagents.storage.adapter import Asker, StoreAdapter, same_owner
from trio_sagents.storage.commit_queue import CommitQueue, PendingCommit, StoreIsPlain
from trio_sagents.storage.split import SplitStore
from trio_sagents.storage.unified import UnifiedStore

__all__ = ("Asker", "CommitQueue", "PendingCommit", "SplitStore", "StoreAdapter", "StoreIsPlain", "UnifiedStore", "same_owner")

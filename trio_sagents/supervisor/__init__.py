"""Who runs whom: the registry, each agent's task, its journal, and the handle on it.

The modules, lowest first; each imports only earlier ones:

    _bell            wakes the agent's task
    _blueprint       what the start of an agent has decided, as values
    _access          who may see a conversation, and who may do what
    _admission       which viewers may follow an agent
    _info            a picture of a running agent
    _receipts        what `post` gives back, and who waits for which answer
    _registry        which agents there are, and what the registry knows of each
    _leases          which process may run the agent of a conversation
    _services        what all agents of one block share
    _rows            rows of the transcript, as middleware wants them shown
    _journal         order, store, apply, publish, continue: the only writer of a conversation's state
    _lifetime        when an agent may leave by itself
    _status_board    the status of an agent, and who is told of it
    _drafts          the partial answer, stored while it streams, for the case of a crash
    _host            the middleware host
    _live_turn       a turn, as the agent layer sees it
    _turns           how a turn begins, runs, is settled, and ends
    _inbox           how messages get in, and whether a message may close an interrupt
    _approvals       how decisions get in: how a tool call is approved, and when an approval expires
    _agent           composes the parts; it alone knows all of them
    _release         the end of one agent's task
    _handle          what a caller holds of a live agent
"""

from trio_sagents._trio.hosts import await_host
from trio_sagents.conversation.messages_in import Posted
from trio_sagents.supervisor._access import Access, Authorizer, SameScope
from trio_sagents.supervisor._admission import ViewerAdmission
from trio_sagents.supervisor._agent import compose_agent
from trio_sagents.supervisor._blueprint import Blueprint, MessagePreprocessor, PostContext
from trio_sagents.supervisor._handle import AgentHandle, check_decisions, check_grace, check_host_event, handle_of, stop_entry
from trio_sagents.supervisor._info import AgentInfo
from trio_sagents.supervisor._journal import Identity, Journal, wall_clock
from trio_sagents.supervisor._leases import Keeper, LeaseKeeper, Leases, fence
from trio_sagents.supervisor._receipts import Receipt
from trio_sagents.supervisor._registry import Entry, Failure, OwnedAgent, Phase, Registry, RunningAgent
from trio_sagents.supervisor._release import release_agent
from trio_sagents.supervisor._services import Services

__all__ = (
    "Access",
    "AgentHandle",
    "AgentInfo",
    "Authorizer",
    "Blueprint",
    "Entry",
    "Failure",
    "Identity",
    "Journal",
    "Keeper",
    "LeaseKeeper",
    "Leases",
    "MessagePreprocessor",
    "PostContext",
    "OwnedAgent",
    "Phase",
    "Posted",
    "Receipt",
    "Registry",
    "RunningAgent",
    "SameScope",
    "Services",
    "ViewerAdmission",
    "await_host",
    "check_decisions",
    "check_grace",
    "check_host_event",
    "compose_agent",
    "fence",
    "handle_of",
    "release_agent",
    "stop_entry",
    "wall_clock",
)

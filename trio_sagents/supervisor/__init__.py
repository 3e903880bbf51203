"""Who owns whom: the registry, each agent's task, its books, and the handle on it."""

from trio_sagents._trio.hosts import await_host
from trio_sagents.supervisor._access import Access, Authorizer, SameScope
from trio_sagents.supervisor._agent_task import run_agent
from trio_sagents.supervisor._blueprint import Blueprint, MessagePreprocessor
from trio_sagents.supervisor._change import Change
from trio_sagents.supervisor._handle import (
    AgentHandle,
    AgentInfo,
    cancel_turn,
    check_decisions,
    check_grace,
    handle_of,
    info_of,
    stop_entry,
)
from trio_sagents.supervisor._intake import Posted
from trio_sagents.supervisor._leases import LeaseKeeper, Leases
from trio_sagents.supervisor._ledger import Ledger
from trio_sagents.supervisor._live import LiveAgent
from trio_sagents.supervisor._receipt import Receipt
from trio_sagents.supervisor._registry import Entry, Opening, Phase, Registry
from trio_sagents.supervisor._runtime import Runtime, wall_clock

__all__ = (
    "Access",
    "AgentHandle",
    "AgentInfo",
    "Authorizer",
    "Blueprint",
    "Change",
    "Entry",
    "LeaseKeeper",
    "Leases",
    "Ledger",
    "LiveAgent",
    "MessagePreprocessor",
    "Opening",
    "Phase",
    "Posted",
    "Receipt",
    "Registry",
    "Runtime",
    "SameScope",
    "await_host",
    "cancel_turn",
    "check_decisions",
    "check_grace",
    "handle_of",
    "info_of",
    "run_agent",
    "stop_entry",
    "wall_clock",
)

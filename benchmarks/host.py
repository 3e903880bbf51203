"""A host as small as can be: what each benchmark opens."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from trio_sagents import (
    Agent,
    ConversationStore,
    MemoryStore,
    SessionConfig,
    SessionOpts,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    open_sessions,
)
from trio_sagents.supervisor._agent import LiveAgent
from trio_sagents.testing import ScriptedModel

INACTIVITY_TIMEOUT: Final = 3600.0
"""Longer than a run takes: nobody leaves by itself."""


@asynccontextmanager
async def open_host(
    agent: Agent | None = None,
    *,
    store: ConversationStore | None = None,
    seeds: Mapping[str, object] | None = None,
    policy: SessionPolicy | None = None,
) -> AsyncIterator[Sessions]:
    """Open sessions with one kind of agent.

    Args:
        agent: for all conversations; without one, one that is never asked.
        store: a `MemoryStore` where there is none.
        policy: of the sessions; without one, the default one for many sessions.
        seeds: by conversation id, the messages that a fresh conversation begins with.
    """
    answering = Agent(model=ScriptedModel([])) if agent is None else agent

    async def create(agent_id: str, config: Mapping[str, str]) -> tuple[Agent, SessionOpts]:
        given = {} if seeds is None else seeds
        return answering, SessionOpts(fresh_state_attrs={"messages": given.get(config["conversation_id"], ())})

    config = SessionConfig(
        factory_router=SingleFactoryRouter(answering if seeds is None else create),
        store=MemoryStore() if store is None else store,
        inactivity_timeout=INACTIVITY_TIMEOUT,
        policy=SessionPolicy(max_sessions=200_000) if policy is None else policy,
    )
    async with open_sessions(config) as sessions:
        yield sessions


def live_agent(sessions: Sessions, conversation_id: str) -> LiveAgent:
    """Return the agent itself, for what no caller of the library can reach: to publish an event by hand."""
    services = sessions.runtime
    entry = services.registry.find(services.agent_id_of(conversation_id), conversation_id)
    assert entry is not None
    assert isinstance(entry.live, LiveAgent)
    return entry.live

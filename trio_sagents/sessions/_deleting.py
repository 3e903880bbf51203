"""Deleting a stored conversation, with its id reserved, so that no agent starts meanwhile."""

import trio

from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import AgentBusy, ConversationNotFound, PersistenceError, RunsElsewhere, SessionsClosed
from trio_sagents.sessions._admission import is_stored
from trio_sagents.sessions._boot import acquire_lease
from trio_sagents.supervisor import Entry, Phase, Services


async def delete_conversation(services: Services, patience: float, agent_id: str, conversation_id: str, scope: Scope) -> bool:
    """Delete a conversation; False if there is none for this scope.

    Args:
        services: the shared services.
        patience: seconds that the store may take.
        agent_id: of the conversation.
        conversation_id: checked.
        scope: the caller's; allowed to delete.

    Raises:
        AgentBusy: its agent is running, here or in another process.
        RegistryUnavailable: it is unknown whether its agent is running in another process; nothing was deleted.
        PersistenceError: the store failed, or took longer than `patience`.
        SessionsClosed: the block was left meanwhile.
        ValueError: another conversation has this agent id.

    Cancellation: the conversation is deleted, or as before.
    """
    registry, access = services.registry, services.access
    is_clash = registry.find(agent_id, conversation_id) is None and registry.is_taken(agent_id)
    if is_clash and not await is_stored(services, access.asker(scope), conversation_id):
        return False  # whoever has no such conversation is not told that another one has its agent id
    entry = registry.find(agent_id, conversation_id)
    if entry is not None:
        if not access.owns(scope, entry.owner):
            return False
        raise AgentBusy(conversation_id, "it is running; stop it first")
    # No checkpoint from the look to the reservation: a start from here on waits until the deletion has ended.
    entry = Entry(agent_id, conversation_id, scope, access.owner_of(scope), {}, Phase.STOPPING)
    registry.reserve(entry)
    try:
        with trio.move_on_after(patience) as bound, entry.cancel_scope:
            return await _delete(services, entry)
    finally:
        registry.release(entry)
    if entry.failure is not None:
        raise entry.failure.error  # its lease was lost meanwhile
    if not bound.cancelled_caught:
        raise SessionsClosed
    raise PersistenceError(
        f"the store did not answer within {patience:g} seconds whether conversation {conversation_id!r} is deleted; "
        "call delete again once the store works"
    )


async def _delete(services: Services, entry: Entry) -> bool:
    services.forget(entry.conversation_id)
    asker = services.access.asker(entry.scope)
    if services.leases is None:
        return await services.commits.delete(asker, entry.conversation_id)
    try:
        await acquire_lease(services, services.leases, entry)
    except RunsElsewhere as exc:
        raise AgentBusy(entry.conversation_id, "it is running in another process; stop it there first") from exc
    except ConversationNotFound:
        return False
    try:
        return await services.commits.delete(asker, entry.conversation_id)
    finally:
        await services.leases.release(entry)  # noqa: ASYNC102  # it shields itself, for a bounded time

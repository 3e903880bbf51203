"""A host's `AgentPersistence` and `DisplayMessagePersistence` as one store.

The two are kept in step: the whole state is stored first, then the rows. Rows that could not be stored are offered again when
the conversation is next loaded.
"""

import datetime
import logging
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.json import JSONValue
from trio_sagents.data.messages import Message
from trio_sagents.data.records import (
    UNCHECKED,
    Check,
    Commit,
    Conversation,
    ConversationPage,
    DisplayMessage,
    HistoryPage,
    PersistContext,
    Saved,
    StoredState,
    Unchecked,
)
from trio_sagents.data.rows import rows_of
from trio_sagents.data.scopes import Scope
from trio_sagents.data.wire import decode_message
from trio_sagents.exceptions import ConversationNotFound, PersistenceError
from trio_sagents.storage.adapter import Asker, same_owner
from trio_sagents.storage.ports import AgentPersistence, DisplayMessagePersistence
from trio_sagents.storage.state_data import TAKEN, apply_commit, check_state_data, empty_state_data, without_marks

log: Final = logging.getLogger("trio_sagents")
LONG_AGO: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)
"""Stands for an instant that nobody kept."""


@attrs.define(eq=False)
class _KeptState:
    """The state of one conversation as its store has it, and what is not yet sure to be in the transcript."""

    data: dict[str, JSONValue]
    epoch: int
    revision: int
    interrupted: bool = False


@attrs.define(eq=False)
class SplitStore:
    """A host's own `AgentPersistence`, and perhaps a `DisplayMessagePersistence`, as one."""

    states: AgentPersistence
    display: DisplayMessagePersistence | None
    _kept: dict[str, _KeptState] = attrs.field(factory=dict)

    async def load(self, asker: Asker, conversation_id: str, agent_id: str, check: Check) -> Conversation | None:
        """Load the state, and offer the rows that may be missing once more."""
        self._kept.pop(conversation_id, None)
        owner = None if isinstance(asker.owner, Unchecked) else asker.owner
        context = PersistContext(agent_id, conversation_id, "on_message", asker.scope, owner, 0, 0)
        stored = await await_host(self.states.load_state, asker.scope, context)
        if stored is None:
            return None
        if not isinstance(stored, StoredState):
            raise TypeError(f"{type(self.states).__name__}.load_state must return a StoredState, or None; not {type(stored).__name__}")
        if asker.owner is not UNCHECKED and not same_owner(stored.owner, asker.owner):
            raise ConversationNotFound(conversation_id)
        data = check_state_data(conversation_id, stored.data)
        # The stored epoch is raised by the first write, for this interface has no transaction that could raise it at load.
        for record in data["messages"]:
            record.pop("draft", None)  # what was a draft is the marked answer from now on
        kept = _KeptState(data, stored.epoch + 1, stored.revision)
        self._kept[conversation_id] = kept
        context = attrs.evolve(context, owner=stored.owner, epoch=kept.epoch, revision=kept.revision)
        conversation = Conversation(
            conversation_id=conversation_id,
            owner=stored.owner,
            epoch=kept.epoch,
            revision=kept.revision,
            messages=[without_marks(record) for record in data["messages"]],
            queue=[without_marks(record) for record in data["queue"]],
            message_ids={},
            state={
                "todos": data["todos"],
                "metadata": {key: value for key, value in data["metadata"].items() if key != TAKEN},
                "interrupt": data["interrupt"],
                "taken": data["metadata"].get(TAKEN),
            },
        )
        check(conversation)
        await self._tell_interrupted(asker.scope, kept, context)
        await self._offer_again(asker.scope, kept, context)
        return conversation

    async def save(self, scope: Scope, commit: Commit, shown: Sequence[Message]) -> Saved:
        """Store the whole state, then the rows; a row that fails is kept for the next load."""
        kept = self._kept.get(commit.conversation_id)
        if kept is None:
            kept = _KeptState(empty_state_data(), commit.epoch, 0)
        data = apply_commit(kept.data, commit, unsaved={message.message_id for message in shown} if self.display else frozenset())
        context = PersistContext(
            commit.agent_id, commit.conversation_id, commit.lifecycle, commit.actor, commit.owner, commit.epoch, commit.revision
        )
        await await_host(self.states.persist_state, scope, data, context)
        # No checkpoint until the state is kept: what the store has and what we believe it has are the same.
        told = kept.interrupted
        self._kept[commit.conversation_id] = kept = _KeptState(data, commit.epoch, commit.revision, told)
        await self._tell_interrupted(scope, kept, context)
        if self.display is None:
            return Saved()
        return await self._save_rows(self.display, scope, kept, context, commit, shown)

    async def _tell_interrupted(self, scope: Scope, kept: _KeptState, context: PersistContext) -> None:
        """Tell the host's store whether the conversation waits for people, where it does not know. The state is stored already."""
        interrupted = kept.data["interrupt"] is not None
        tell = getattr(self.states, "set_interrupted", None)
        if tell is None or interrupted == kept.interrupted:
            return
        try:
            await await_host(tell, scope, context, interrupted)
        except Exception:  # the boundary to the host's store: told again with the next write, and at each load
            log.exception("set_interrupted failed for conversation %r; it is told again", context.conversation_id)
        else:
            kept.interrupted = interrupted

    async def _save_rows(  # one write has this many sides
        self,
        display: DisplayMessagePersistence,
        scope: Scope,
        kept: _KeptState,
        context: PersistContext,
        commit: Commit,
        shown: Sequence[Message],
    ) -> Saved:
        new: list[DisplayMessage] = []
        changed: list[DisplayMessage] = []
        for message in shown:
            new.extend(await self._save_message(display, scope, kept, context, message))
        for update in commit.tool_updates:
            try:
                row = await await_host(display.update_tool_status, scope, update.status, update.tool_info, context)
            except Exception:  # the boundary to the host's transcript: it never stops the conversation
                log.exception("update_tool_status failed for conversation %r", context.conversation_id)
            else:
                if row is not None:
                    changed.append(row)
        return Saved(tuple(new), tuple(changed), by_host=True)

    async def _save_message(
        self, display: DisplayMessagePersistence, scope: Scope, kept: _KeptState, context: PersistContext, message: Message
    ) -> Sequence[DisplayMessage]:
        try:
            rows = tuple(await await_host(display.save_message, scope, message, context))
        except Exception:  # the boundary to the host's transcript: offered again at the next load, shown to viewers now
            log.exception("save_message failed for conversation %r; it is offered again", context.conversation_id)
            return ()
        for records in (kept.data["messages"], kept.data["queue"]):
            for index in range(len(records) - 1, -1, -1):
                if records[index]["message_id"] == message.message_id:
                    records[index] = without_marks(records[index])
                    break
        return rows

    async def _offer_again(self, scope: Scope, kept: _KeptState, context: PersistContext) -> None:
        if self.display is None:
            return
        unsaved = [record for key in ("messages", "queue") for record in kept.data[key] if record.get("unsaved")]
        for record in unsaved:
            message = decode_message(context.conversation_id, without_marks(record))
            await self._save_message(self.display, scope, kept, context, message)

    async def exists(self, asker: Asker, conversation_id: str) -> bool:
        """Load the state to see whether there is one; what is in it does not matter."""
        return await self._stored(asker, conversation_id) is not None

    async def _stored(self, asker: Asker, conversation_id: str) -> StoredState | None:
        owner = None if isinstance(asker.owner, Unchecked) else asker.owner
        context = PersistContext("", conversation_id, "on_message", asker.scope, owner, 0, 0)
        stored = await await_host(self.states.load_state, asker.scope, context)
        if stored is None or (asker.owner is not UNCHECKED and not same_owner(stored.owner, asker.owner)):
            return None
        return stored

    async def history(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        """Return rows rendered from the stored state: the host's transcript has its own way to be read."""
        stored = await self._stored(asker, conversation_id)
        if stored is None:
            raise ConversationNotFound(conversation_id)
        data = check_state_data(conversation_id, stored.data)
        records = [without_marks(record) for key in ("messages", "queue") for record in data[key]]
        rows = [row for record in records for row in rows_of(decode_message(conversation_id, record), LONG_AGO)]
        if before is not None and not (isinstance(before, str) and before.isascii() and before.isdecimal()):
            raise ValueError(f"before must come from an earlier page, not {before!r}")
        end = len(rows) if before is None else min(int(before), len(rows))
        start = max(0, end - limit)
        return HistoryPage(tuple(rows[start:end]), str(start) if start else None)

    async def conversations(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        """Refuse: an `AgentPersistence` cannot list."""
        await trio.lowlevel.checkpoint()
        raise PersistenceError("this agent_persistence cannot list conversations; a ConversationStore can")

    async def delete(self, asker: Asker, conversation_id: str) -> bool:
        """Refuse: an `AgentPersistence` cannot delete."""
        await trio.lowlevel.checkpoint()
        raise PersistenceError("this agent_persistence cannot delete conversations; a ConversationStore can")

    def forget(self, conversation_id: str) -> None:
        """Drop the state that is kept of the conversation."""
        self._kept.pop(conversation_id, None)

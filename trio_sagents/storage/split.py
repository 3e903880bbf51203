"""A host's `AgentPersistence` and `DisplayMessagePersistence` as one `StoreAdapter`.

The two are kept in step: the whole state is stored first, then the transcript is told. The state that is stored names what the
transcript may not have yet (`state_data`). What the transcript does not take is told again after each later write, the oldest
first, until something is not taken again; at a load, everything is told again.
"""

import datetime
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.conversation.rows import OWN_ROWS, rows_of
from trio_sagents.data.json import JSONValue
from trio_sagents.data.messages import Message
from trio_sagents.data.records import (
    Check,
    Commit,
    Conversation,
    ConversationPage,
    DisplayMessage,
    HistoryPage,
    OlderPage,
    PersistContext,
    Recalled,
    Saved,
    StoredState,
    ToolUpdate,
    Unchecked,
    WaitingPage,
)
from trio_sagents.data.scopes import Scope
from trio_sagents.data.wire import decode_message
from trio_sagents.exceptions import ConversationNotFound, PersistenceError
from trio_sagents.storage.adapter import Asker, place_of, same_owner
from trio_sagents.storage.memory_states import MemoryStates
from trio_sagents.storage.ports import AgentPersistence, DisplayMessagePersistence
from trio_sagents.storage.returned import checked_state
from trio_sagents.storage.state_data import (
    TAKEN,
    apply_commit,
    check_state_data,
    empty_state_data,
    mark_saved,
    own_metadata,
    read_updates,
    still_untold,
    unsaved_records,
    with_own_lists,
    without_marks,
)
from trio_sagents.storage.transcript import Transcript

log: Final = logging.getLogger("trio_sagents")
LONG_AGO: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)
"""Stands for an instant that nobody kept."""


@attrs.define(eq=False)
class _KeptState:
    """The state of one conversation as its store has it, and what the transcript may not have yet."""

    data: dict[str, JSONValue]
    """As in `state_data`; the records that the transcript has taken since are without their marks."""
    epoch: int
    revision: int
    updates: list[ToolUpdate]
    """Steps of tool calls that the transcript may not have heard of, oldest first."""
    is_interrupted: bool = False
    """What `set_interrupted` was told last."""


@attrs.define(eq=False)
class SplitStore:
    """A host's own `AgentPersistence`, and perhaps its transcript, as one."""

    states: AgentPersistence
    display: DisplayMessagePersistence | None
    timeout: float = 2.5
    """Seconds that the calls which follow one write or one load may take together, > 0: those of the transcript, and of
    `set_interrupted`. Whoever waits for the write waits for them, too."""
    _kept: dict[str, _KeptState] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        """The class of the store of states."""
        return type(self.states).__name__

    @property
    def keeps_windows(self) -> bool:
        """False: a snapshot has the whole history."""
        return False

    async def load(self, asker: Asker, conversation_id: str, agent_id: str, check: Check) -> Conversation | None:
        """Load the state, and tell the host what it may not know yet."""
        stored = await self._load_state(asker, conversation_id, agent_id)
        if stored is None:
            return None
        if not _is_visible(stored, asker):
            raise ConversationNotFound(conversation_id)
        data = check_state_data(conversation_id, stored.data)
        updates = read_updates(conversation_id, data)
        for record in data["messages"]:
            record.pop("draft", None)  # what was a draft is the marked answer from now on
        # The stored epoch is raised by the first write, for this interface has no transaction that could raise it at load.
        kept = _KeptState(data, stored.epoch + 1, stored.revision, updates)
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
                "metadata": own_metadata(data),
                "interrupt": data["interrupt"],
                "taken": data["metadata"].get(TAKEN),
            },
        )
        check(conversation)
        self._kept[conversation_id] = kept
        context = PersistContext(agent_id, conversation_id, "on_message", asker.scope, stored.owner, kept.epoch, kept.revision)
        deadline = trio.current_time() + self.timeout
        await self._tell_interrupted(asker.scope, kept, context, deadline)
        if self.display is not None:
            transcript = Transcript(self.display, deadline)
            unsaved = [decode_message(conversation_id, record) for record in unsaved_records(kept.data)]
            await _save_messages(transcript, asker.scope, kept, context, unsaved, gives_up=False)
            await _tell_updates(transcript, asker.scope, kept, context, (), gives_up=False)
        return conversation

    async def save(self, scope: Scope, commit: Commit, shown: Sequence[Message]) -> Saved:
        """Store the whole state, then tell the transcript. What the transcript does not take is kept for later."""
        kept = self._kept.get(commit.conversation_id)
        if kept is None:
            kept = _KeptState(empty_state_data(), commit.epoch, 0, [])
        untold: Sequence[ToolUpdate] = ()
        unsaved: set[str] = set()
        if self.display is not None:
            untold, unsaved = (*kept.updates, *commit.tool_updates), {message.message_id for message in shown}
        data = apply_commit(kept.data, commit, unsaved, untold)
        context = PersistContext(
            commit.agent_id, commit.conversation_id, commit.lifecycle, commit.actor, commit.owner, commit.epoch, commit.revision
        )
        await await_host(self.states.persist_state, scope, data, context)
        # No checkpoint until the state is kept: what the store has and what we believe it has are the same.
        told = kept.is_interrupted
        kept = _KeptState(with_own_lists(data), commit.epoch, commit.revision, kept.updates, told)
        self._kept[commit.conversation_id] = kept
        deadline = trio.current_time() + self.timeout
        await self._tell_interrupted(scope, kept, context, deadline)
        if self.display is None:
            return Saved()
        transcript = Transcript(self.display, deadline)
        earlier = [record for record in unsaved_records(kept.data) if record["message_id"] not in unsaved]
        again = [decode_message(commit.conversation_id, record) for record in earlier]
        new = await _save_messages(transcript, scope, kept, context, again, gives_up=True)
        new += await _save_messages(transcript, scope, kept, context, shown, gives_up=False)
        own = await transcript.save_rows(scope, [row for row in commit.rows if row.row_id.startswith(OWN_ROWS)], context)
        changed = await _tell_updates(transcript, scope, kept, context, commit.tool_updates, gives_up=True)
        return Saved(tuple(new), (*own, *changed), by_host=True)

    async def exists(self, asker: Asker, conversation_id: str) -> bool:
        """Load the state to see whether there is one; what is in it does not matter."""
        stored = await self._load_state(asker, conversation_id)
        return stored is not None and _is_visible(stored, asker)

    async def history(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        """Return rows rendered from the stored state: the host's transcript has its own way to be read."""
        place = place_of("before", before)
        stored = await self._load_state(asker, conversation_id)
        if stored is None or not _is_visible(stored, asker):
            raise ConversationNotFound(conversation_id)
        data = check_state_data(conversation_id, stored.data)
        records = [without_marks(record) for key in ("messages", "queue") for record in data[key]]
        rows = [row for record in records for row in rows_of(decode_message(conversation_id, record), LONG_AGO)]
        end = len(rows) if place is None else min(place, len(rows))
        start = max(0, end - limit)
        return HistoryPage(tuple(rows[start:end]), str(start) if start else None)

    async def recall(self, asker: Asker, conversation_id: str, names: Sequence[str]) -> Mapping[str, Recalled]:
        """Return nothing: the whole history is loaded."""
        await trio.lowlevel.checkpoint()
        return {}

    async def older_messages(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> OlderPage:
        """Return an empty page: the whole history is loaded."""
        await trio.lowlevel.checkpoint()
        return OlderPage(())

    async def conversations(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        """List what is in memory; refuse for a host's `AgentPersistence`, which cannot list."""
        await trio.lowlevel.checkpoint()
        if isinstance(self.states, MemoryStates):
            return self.states.page(asker.owner, after, limit)
        raise PersistenceError("this agent_persistence cannot list conversations; a ConversationStore can")

    async def waiting(self, asker: Asker, *, after: str | None, limit: int) -> WaitingPage:
        """Refuse: states that are kept as snapshots have no index of what waits."""
        await trio.lowlevel.checkpoint()
        raise PersistenceError(
            "agent_persistence cannot list what waits for people; a ConversationStore with `waiting` can (WaitingLookup)"
        )

    @property
    def lists_unfinished(self) -> bool:
        """False: states that are kept as snapshots have no index."""
        return False

    async def unfinished(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        """Refuse: states that are kept as snapshots have no index of what is unfinished."""
        await trio.lowlevel.checkpoint()
        raise PersistenceError(
            "agent_persistence cannot list what is unfinished; a ConversationStore with `unfinished` can (UnfinishedLookup)"
        )

    async def delete(self, asker: Asker, conversation_id: str) -> bool:
        """Delete what is in memory; refuse for a host's `AgentPersistence`, which cannot delete. The transcript stays."""
        if not isinstance(self.states, MemoryStates):
            await trio.lowlevel.checkpoint()
            raise PersistenceError("this agent_persistence cannot delete conversations; a ConversationStore can")
        # No checkpoint from the look to the deletion.
        return await self.exists(asker, conversation_id) and self.states.delete(conversation_id)

    def forget(self, conversation_id: str) -> None:
        """Drop the state that is kept of the conversation."""
        self._kept.pop(conversation_id, None)

    async def _load_state(self, asker: Asker, conversation_id: str, agent_id: str = "") -> StoredState | None:
        owner = None if isinstance(asker.owner, Unchecked) else asker.owner
        context = PersistContext(agent_id, conversation_id, "on_message", asker.scope, owner, 0, 0)
        returned: object = await await_host(self.states.load_state, asker.scope, context)
        return checked_state(self.states, returned)

    async def _tell_interrupted(self, scope: Scope, kept: _KeptState, context: PersistContext, deadline: float) -> None:
        """Tell the host's store whether the conversation waits for people, unless it knows. The state is stored already."""
        interrupted = kept.data["interrupt"] is not None
        if interrupted == kept.is_interrupted:
            return
        try:
            tell = getattr(self.states, "set_interrupted", None)
            if tell is None:
                return
            with trio.fail_at(deadline):
                await await_host(tell, scope, context, interrupted)
        except Exception:  # the boundary to the host's store: told again with the next write, and at each load
            log.exception(
                "%s.set_interrupted failed for conversation %r; it is called again with the next write, and when the conversation "
                "is next loaded",
                type(self.states).__qualname__,
                context.conversation_id,
            )
        else:
            kept.is_interrupted = interrupted


def _is_visible(stored: StoredState, asker: Asker) -> bool:
    return isinstance(asker.owner, Unchecked) or same_owner(stored.owner, asker.owner)


async def _save_messages(
    transcript: Transcript, scope: Scope, kept: _KeptState, context: PersistContext, messages: Sequence[Message], *, gives_up: bool
) -> list[DisplayMessage]:
    """Save messages in the transcript, and return their rows; with `gives_up`, none after one that was not saved."""
    rows: list[DisplayMessage] = []
    for message in messages:
        saved = await transcript.save(scope, message, context)
        if saved is not None:
            mark_saved(kept.data, message.message_id)
            rows.extend(saved)
        elif gives_up:
            break
    return rows


async def _tell_updates(
    transcript: Transcript, scope: Scope, kept: _KeptState, context: PersistContext, new: Sequence[ToolUpdate], *, gives_up: bool
) -> list[DisplayMessage]:
    """Tell the transcript earlier steps of tool calls again, then new ones, and return the rows that changed.

    With `gives_up`, no earlier step is told again after one that was not taken.
    """
    rows: list[DisplayMessage] = []
    updates = [*kept.updates, *new]
    told: set[int] = set()
    has_given_up = False
    for index, update in enumerate(updates):
        is_new = index >= len(kept.updates)
        if has_given_up and not is_new:
            continue
        changed = await transcript.update(scope, update, context)
        if changed is not None:
            told.add(index)
            rows.extend(changed)
        elif not is_new:
            has_given_up = gives_up
    kept.updates, dropped = still_untold(updates, told)
    if dropped:
        log.error("%d tool updates of conversation %r are given up: the transcript has failed too often", dropped, context.conversation_id)
    return rows

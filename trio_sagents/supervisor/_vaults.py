"""The one way to the store, whichever kind the host gave.

`FlatVault` hands commits to a `ConversationStore`, which writes only what is new. `SplitVault` keeps two separate stores in
step: the whole state first, then the rows, which are offered again at the next load if that failed in between.
"""

import datetime
import logging
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message
from trio_sagents.data.records import (
    UNCHECKED,
    Check,
    Commit,
    Conversation,
    ConversationPage,
    DisplayMessage,
    HistoryPage,
    Owner,
    PersistContext,
    Saved,
    StoredState,
    Unchecked,
)
from trio_sagents.conversation.rows import rows_of
from trio_sagents.data.scopes import Scope
from trio_sagents.data.wire import SCHEMA_VERSION, decode_message
from trio_sagents.exceptions import ConversationNotFound, PersistenceError, StateError, StateFromFuture
from trio_sagents.storage.ports import AgentPersistence, DisplayMessagePersistence

log: Final = logging.getLogger("trio_sagents")
TAKEN: Final = "trio_sagents.taken"
"""In the stored metadata: the decisions about calls that are open. The state that a host keeps has no other place for them."""
LONG_AGO: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)
"""Stands for an instant that nobody kept."""


@attrs.frozen
class Asker:
    """Who asks a store: the scope, and its owner key where owners are compared."""

    scope: Scope = attrs.field(repr=False)
    owner: Owner | Unchecked = UNCHECKED


class Vault(Protocol):
    """What the runtime asks of a store."""

    async def load(self, asker: Asker, conversation_id: str, agent_id: str, check: Check) -> Conversation | None:
        """As `ConversationStore.load`; ConversationNotFound for a foreign one, and what `check` raises for one it refuses."""
        ...

    async def save(self, scope: Scope, commit: Commit, shown: Sequence[Message]) -> Saved:
        """As `ConversationStore.commit`; `shown` are the messages that are new in the transcript."""
        ...

    async def history(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        """As `ConversationStore.history`."""
        ...

    async def conversations(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        """As `ConversationStore.conversations`."""
        ...

    async def delete(self, asker: Asker, conversation_id: str) -> bool:
        """As `ConversationStore.delete`."""
        ...

    def forget(self, conversation_id: str) -> None:
        """Let go of what is kept of a conversation in memory."""
        ...


def same_owner(left: object, right: object) -> bool:
    """Return whether two owner keys are the same: `1`, `"1"` and `None` are three."""
    return type(left) is type(right) and left == right


@attrs.define(eq=False)
class _Document:
    """The state of one conversation as its store has it, and what is not yet sure to be in the transcript."""

    data: dict[str, JSONValue]
    epoch: int
    revision: int
    interrupted: bool = False


@attrs.define(eq=False)
class SplitVault:
    """A host's own `AgentPersistence`, and perhaps a `DisplayMessagePersistence`, as one."""

    states: AgentPersistence
    display: DisplayMessagePersistence | None
    _documents: dict[str, _Document] = attrs.field(factory=dict)

    async def load(self, asker: Asker, conversation_id: str, agent_id: str, check: Check) -> Conversation | None:
        """Load the state, and offer the rows that may be missing once more."""
        self._documents.pop(conversation_id, None)
        owner = None if isinstance(asker.owner, Unchecked) else asker.owner
        context = PersistContext(agent_id, conversation_id, "on_message", asker.scope, owner, 0, 0)
        stored = await await_host(self.states.load_state, asker.scope, context)
        if stored is None:
            return None
        if not isinstance(stored, StoredState):
            raise TypeError(f"{type(self.states).__name__}.load_state must return a StoredState, or None; not {type(stored).__name__}")
        if asker.owner is not UNCHECKED and not same_owner(stored.owner, asker.owner):
            raise ConversationNotFound(conversation_id)
        data = _check_document(conversation_id, stored.data)
        # The stored epoch is raised by the first write, for this interface has no transaction that could raise it at load.
        for record in data["messages"]:
            record.pop("draft", None)  # what was a draft is the marked answer from now on
        document = _Document(data, stored.epoch + 1, stored.revision)
        self._documents[conversation_id] = document
        context = attrs.evolve(context, owner=stored.owner, epoch=document.epoch, revision=document.revision)
        conversation = Conversation(
            conversation_id=conversation_id,
            owner=stored.owner,
            epoch=document.epoch,
            revision=document.revision,
            messages=[_without_mark(record) for record in data["messages"]],
            queue=[_without_mark(record) for record in data["queue"]],
            message_ids={},
            state={
                "todos": data["todos"],
                "metadata": {key: value for key, value in data["metadata"].items() if key != TAKEN},
                "interrupt": data["interrupt"],
                "taken": data["metadata"].get(TAKEN),
            },
        )
        check(conversation)
        await self._tell_interrupted(asker.scope, document, context)
        await self._offer_again(asker.scope, document, context)
        return conversation

    async def save(self, scope: Scope, commit: Commit, shown: Sequence[Message]) -> Saved:
        """Store the whole state, then the rows; a row that fails is kept for the next load."""
        document = self._documents.get(commit.conversation_id)
        if document is None:
            document = _Document(_empty_document(), commit.epoch, 0)
        data = _applied(document.data, commit, unsaved={message.message_id for message in shown} if self.display else frozenset())
        context = PersistContext(
            commit.agent_id, commit.conversation_id, commit.lifecycle, commit.actor, commit.owner, commit.epoch, commit.revision
        )
        await await_host(self.states.persist_state, scope, data, context)
        # No checkpoint until the document is kept: what the store has and what we believe it has are one.
        told = document.interrupted
        self._documents[commit.conversation_id] = document = _Document(data, commit.epoch, commit.revision, told)
        await self._tell_interrupted(scope, document, context)
        if self.display is None:
            return Saved()
        return await self._save_rows(self.display, scope, document, context, commit, shown)

    async def _tell_interrupted(self, scope: Scope, document: _Document, context: PersistContext) -> None:
        """Tell the host's store whether the conversation waits for people, where it does not know. The state is stored already."""
        interrupted = document.data["interrupt"] is not None
        tell = getattr(self.states, "set_interrupted", None)
        if tell is None or interrupted == document.interrupted:
            return
        try:
            await await_host(tell, scope, context, interrupted)
        except Exception:  # the boundary to the host's store: told again with the next write, and at each load
            log.exception("set_interrupted failed for conversation %r; it is told again", context.conversation_id)
        else:
            document.interrupted = interrupted

    async def _save_rows(  # one write has this many sides
        self,
        display: DisplayMessagePersistence,
        scope: Scope,
        document: _Document,
        context: PersistContext,
        commit: Commit,
        shown: Sequence[Message],
    ) -> Saved:
        new: list[DisplayMessage] = []
        changed: list[DisplayMessage] = []
        for message in shown:
            new.extend(await self._save_message(display, scope, document, context, message))
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
        self, display: DisplayMessagePersistence, scope: Scope, document: _Document, context: PersistContext, message: Message
    ) -> Sequence[DisplayMessage]:
        try:
            rows = tuple(await await_host(display.save_message, scope, message, context))
        except Exception:  # the boundary to the host's transcript: offered again at the next load, shown to viewers now
            log.exception("save_message failed for conversation %r; it is offered again", context.conversation_id)
            return ()
        for records in (document.data["messages"], document.data["queue"]):
            for index in range(len(records) - 1, -1, -1):
                if records[index]["message_id"] == message.message_id:
                    records[index] = _without_mark(records[index])
                    break
        return rows

    async def _offer_again(self, scope: Scope, document: _Document, context: PersistContext) -> None:
        if self.display is None:
            return
        unsaved = [record for key in ("messages", "queue") for record in document.data[key] if record.get("unsaved")]
        for record in unsaved:
            message = decode_message(context.conversation_id, _without_mark(record))
            await self._save_message(self.display, scope, document, context, message)

    async def history(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        """Return rows rendered from the stored state: the host's transcript has its own way to be read."""
        owner = None if isinstance(asker.owner, Unchecked) else asker.owner
        stored = await await_host(
            self.states.load_state, asker.scope, PersistContext("", conversation_id, "on_message", asker.scope, owner, 0, 0)
        )
        if stored is None or (asker.owner is not UNCHECKED and not same_owner(stored.owner, asker.owner)):
            raise ConversationNotFound(conversation_id)
        data = _check_document(conversation_id, stored.data)
        records = [_without_mark(record) for key in ("messages", "queue") for record in data[key]]
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
        """Let go of the document."""
        self._documents.pop(conversation_id, None)


def _empty_document() -> dict[str, JSONValue]:
    return {"version": SCHEMA_VERSION, "messages": [], "queue": [], "todos": [], "metadata": {}, "interrupt": None}


def _check_document(conversation_id: str, data: JSON) -> dict[str, JSONValue]:
    if not isinstance(data, Mapping):
        raise StateError(conversation_id, f"load_state gave {type(data).__name__}, not a mapping")
    version = data.get("version")
    if type(version) is not int or version < 1:
        raise StateError(conversation_id, f"it has the schema version {version!r}")
    if version > SCHEMA_VERSION:
        raise StateFromFuture(conversation_id, version, SCHEMA_VERSION)
    if set(data) != set(_empty_document()):
        raise StateError(conversation_id, f"it has the keys {sorted(map(str, data))}")
    for key in ("messages", "queue"):
        if not isinstance(data[key], list) or not all(isinstance(record, dict) for record in data[key]):
            raise StateError(conversation_id, f"{key!r} is not a list of records")
    if not isinstance(data["metadata"], Mapping):
        raise StateError(conversation_id, f"metadata is {type(data['metadata']).__name__}, not an object")
    return {**data, "messages": [dict(one) for one in data["messages"]], "queue": [dict(one) for one in data["queue"]]}


def _applied(data: JSON, commit: Commit, unsaved: "set[str] | frozenset[str]") -> dict[str, JSONValue]:
    """Return the document after a commit. A draft stands as the last message, marked as cut: what a crash then would leave."""
    taken = set(commit.taken)
    waiting = {record["message_id"] for record in data["queue"] if record.get("unsaved")} & taken

    def marked(record: JSON) -> JSON:
        return {**record, "unsaved": True} if record["message_id"] in unsaved or record["message_id"] in waiting else record

    plain = {key: value for key, value in commit.state.get("metadata", data["metadata"]).items() if key != TAKEN}
    standing = commit.state["taken"] if "taken" in commit.state else data["metadata"].get(TAKEN)
    messages = [record for record in data["messages"] if not record.get("draft")]
    draft = commit.state.get("draft") if "draft" in commit.state else next((one for one in data["messages"] if one.get("draft")), None)
    messages += [marked(record) for record in commit.messages]
    if draft is not None:
        messages.append({**draft, "draft": True})
    return {
        "version": SCHEMA_VERSION,
        "messages": messages,
        "queue": [record for record in data["queue"] if record["message_id"] not in taken] + [marked(record) for record in commit.queued],
        **{key: commit.state.get(key, data[key]) for key in ("todos", "interrupt")},
        "metadata": {**plain, TAKEN: standing} if standing else plain,
    }


def _without_mark(record: JSON) -> JSON:
    return {key: value for key, value in record.items() if key not in {"unsaved", "draft"}}

"""The kit of stores finds stores that are broken: each of these is wrong in one way."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from trio_sagents import ConversationStore, MemoryStore
from trio_sagents.data.records import Commit, Conversation, ConversationPage, HistoryPage, OlderPage, WaitingPage
from trio_sagents.persistence._records import decode_cursor, encode_cursor
from trio_sagents.testing.conformance_store import StoreConformance


class ReadsOtherwise(MemoryStore):
    """A store that gives back something else than what it was given."""

    def read(self, conversation: Conversation) -> Conversation:
        """Return what comes out."""
        return conversation

    async def load(self, scope: Any, conversation_id: str, **inside: Any) -> Conversation | None:
        found = await super().load(scope, conversation_id, **inside)
        return None if found is None else self.read(found)


class MakesFloats(ReadsOtherwise):
    """Every number is a float."""

    def read(self, conversation: Conversation) -> Conversation:
        return attrs.evolve(conversation, state=json.loads(json.dumps(conversation.state), parse_int=float))


class LosesDigits(ReadsOtherwise):
    """Numbers have 53 bits."""

    def read(self, conversation: Conversation) -> Conversation:
        return attrs.evolve(conversation, state=json.loads(json.dumps(conversation.state), parse_int=lambda text: int(float(text))))


class CutsText(ReadsOtherwise):
    """A text has at most 65,535 bytes."""

    def read(self, conversation: Conversation) -> Conversation:
        def cut(record: Any) -> Any:
            parts = [{**part, "text": part["text"].encode()[:65_534].decode()} for part in record["parts"]]
            return {**record, "parts": parts}

        return attrs.evolve(conversation, messages=[cut(record) for record in conversation.messages])


class FoldsIds(MemoryStore):
    """Ids are compared as a database without an exact collation does."""

    async def load(self, scope: Any, conversation_id: str, **inside: Any) -> Conversation | None:
        return await super().load(scope, conversation_id.lower().rstrip(), **inside)

    async def commit(self, scope: Any, commit: Commit, **inside: Any) -> int:
        return await super().commit(scope, attrs.evolve(commit, conversation_id=commit.conversation_id.lower().rstrip()), **inside)


class CutsIds(MemoryStore):
    """The column for ids has 64 places."""

    async def load(self, scope: Any, conversation_id: str, **inside: Any) -> Conversation | None:
        return await super().load(scope, conversation_id[:64], **inside)

    async def commit(self, scope: Any, commit: Commit, **inside: Any) -> int:
        return await super().commit(scope, attrs.evolve(commit, conversation_id=commit.conversation_id[:64]), **inside)


class LeavesRows(MemoryStore):
    """A deletion leaves the transcript, which the next conversation of this id has, too."""

    def __init__(self) -> None:
        super().__init__()
        self.left: dict[str, Any] = {}

    async def delete(self, scope: Any, conversation_id: str, **inside: Any) -> bool:
        row = self._stored.get(conversation_id)
        is_deleted = await super().delete(scope, conversation_id, **inside)
        if is_deleted:
            self.left[conversation_id] = row
        return is_deleted

    async def commit(self, scope: Any, commit: Commit, **inside: Any) -> int:
        revision = await super().commit(scope, commit, **inside)
        old, row = self.left.pop(commit.conversation_id, None), self._stored[commit.conversation_id]
        for row_id in [] if old is None else old.row_ids:
            if row_id not in row.rows:
                row.rows[row_id] = old.rows[row_id]
                row.row_ids.insert(0, row_id)
        return revision


class ChecksTooLate(MemoryStore):
    """What looks at a loaded conversation does so behind the transaction."""

    async def load(self, scope: Any, conversation_id: str, *, check: Any = None, **inside: Any) -> Conversation | None:
        found = await super().load(scope, conversation_id, **inside)
        if found is not None and check is not None:
            check(found)
        return found


class ChecksNothing(MemoryStore):
    """Nobody looks at a loaded conversation."""

    async def load(self, scope: Any, conversation_id: str, *, check: Any = None, **inside: Any) -> Conversation | None:
        return await super().load(scope, conversation_id, **inside)


class KeepsTime(MemoryStore):
    """A conversation was changed when the clocks began."""

    async def conversations(self, scope: Any, **inside: Any) -> ConversationPage:
        page = await super().conversations(scope, **inside)
        items = [attrs.evolve(item, updated_at=item.updated_at.replace(year=1970)) for item in page.items]
        return ConversationPage(items, page.after)


class GoesInCircles(MemoryStore):
    """The next older page begins where this one did."""

    async def history(self, scope: Any, conversation_id: str, **inside: Any) -> HistoryPage:
        page = await super().history(scope, conversation_id, **inside)
        place = decode_cursor("r", "before", page.before)
        return page if place is None else HistoryPage(page.rows, encode_cursor("r", place + 1))


class ForgetsTheTurn(MemoryStore):
    """Rows have no column for their turn."""

    async def commit(self, scope: Any, commit: Commit, **inside: Any) -> int:
        rows = [attrs.evolve(row, turn_id=None) for row in commit.rows]
        return await super().commit(scope, attrs.evolve(commit, rows=rows), **inside)


class AllFinal(MemoryStore):
    """Rows have no column for whether they are final."""

    async def commit(self, scope: Any, commit: Commit, **inside: Any) -> int:
        rows = [attrs.evolve(row, is_final=True) for row in commit.rows]
        return await super().commit(scope, attrs.evolve(commit, rows=rows), **inside)


class ListsTheLastFirst(MemoryStore):
    """What began to wait last comes first."""

    async def waiting(self, scope: Any, **inside: Any) -> WaitingPage:
        page = await super().waiting(scope, **inside)
        return WaitingPage(page.items[::-1], page.after)


class ListsWhatIsDecided(MemoryStore):
    """What has waited once stays in the list."""

    def _note_waiting(self, row: Any) -> None:
        if row.state.get("interrupt") is not None:
            super()._note_waiting(row)


class SkipsAPlace(MemoryStore):
    """The next page begins behind a conversation that left the list."""

    async def waiting(self, scope: Any, *, after: Any = None, **inside: Any) -> WaitingPage:
        place = decode_cursor("w", "after", after)
        return await super().waiting(scope, after=after if place is None else encode_cursor("w", place + 1), **inside)


class ListsAll(MemoryStore):
    """The list has what waits for anybody."""

    async def waiting(self, scope: Any, *, owner: Any = None, **inside: Any) -> WaitingPage:
        return await super().waiting(scope, **inside)


class LoadsEverything(MemoryStore):
    """The window is the whole history, whatever a checkpoint says."""

    async def load(self, scope: Any, conversation_id: str, **inside: Any) -> Conversation | None:
        found = await super().load(scope, conversation_id, **inside)
        if found is None:
            return None
        older = (await self.older_messages(scope, conversation_id, before=None, limit=1000)).messages
        return attrs.evolve(found, messages=[*older, *found.messages], older=0)


class CountsFromTheWindow(MemoryStore):
    """A later checkpoint counts from the one before it."""

    async def commit(self, scope: Any, commit: Commit, **inside: Any) -> int:
        row = self._stored.get(commit.conversation_id)
        if row is not None and commit.checkpoint is not None:
            commit = attrs.evolve(
                commit, checkpoint=attrs.evolve(commit.checkpoint, older=max(0, commit.checkpoint.older - row.window.older))
            )
        return await super().commit(scope, commit, **inside)


class ForgetsNames(MemoryStore):
    """The index has the names of the last checkpoint alone."""

    async def commit(self, scope: Any, commit: Commit, **inside: Any) -> int:
        row = self._stored.get(commit.conversation_id)
        if row is not None and commit.checkpoint is not None:
            row.window.known.clear()
        return await super().commit(scope, commit, **inside)


class LoadsAllIds(MemoryStore):
    """A load gives every message id that was ever accepted."""

    async def load(self, scope: Any, conversation_id: str, **inside: Any) -> Conversation | None:
        found = await super().load(scope, conversation_id, **inside)
        return None if found is None else attrs.evolve(found, message_ids=dict(self._stored[conversation_id].message_ids))


class PagesInCircles(MemoryStore):
    """The next page of older messages begins where this one did."""

    async def older_messages(self, scope: Any, conversation_id: str, **inside: Any) -> OlderPage:
        page = await super().older_messages(scope, conversation_id, **inside)
        place = decode_cursor("m", "before", page.before)
        return page if place is None else OlderPage(page.messages, encode_cursor("m", place + 1))


def run_test(make: type[MemoryStore], name: str) -> None:
    """Run one test of the kit."""

    class Kit(StoreConformance):
        @asynccontextmanager
        async def open_store(self) -> AsyncIterator[ConversationStore]:
            yield make()

    trio.run(getattr(Kit(), name))


@pytest.mark.parametrize(
    ("broken", "found_by"),
    [
        (MakesFloats, "test_numbers"),
        (LosesDigits, "test_numbers"),
        (CutsText, "test_long_text"),
        (FoldsIds, "test_ids_are_apart"),
        (CutsIds, "test_ids_are_apart"),
        (LeavesRows, "test_delete"),
        (ChecksTooLate, "test_load_that_is_refused"),
        (ChecksNothing, "test_load_that_is_refused"),
        (KeepsTime, "test_conversations_in_order"),
        (GoesInCircles, "test_history_in_pages"),
        (ForgetsTheTurn, "test_row_of_a_call"),
        (AllFinal, "test_row_of_a_call"),
        (ListsTheLastFirst, "test_waiting_list"),
        (ListsWhatIsDecided, "test_waiting_list"),
        (SkipsAPlace, "test_waiting_list_while_it_is_read"),
        (ListsAll, "test_waiting_list_of_an_owner"),
        (LoadsEverything, "test_window_after_checkpoints"),
        (CountsFromTheWindow, "test_window_after_checkpoints"),
        (ForgetsNames, "test_recall"),
        (LoadsAllIds, "test_message_ids_after_a_checkpoint"),
        (PagesInCircles, "test_older_messages_in_pages"),
    ],
)
def test_kit_when_a_store_is_broken(broken: Any, found_by: str) -> None:
    """Each of them is found, by the test that is about it, which finds nothing in a store that is right."""
    run_test(MemoryStore, found_by)
    with pytest.raises(BaseException) as found:  # an assertion, a Conflict, or what pytest raises where nothing was raised
        run_test(broken, found_by)

    assert not isinstance(found.value, KeyboardInterrupt | SystemExit | TypeError | AttributeError)

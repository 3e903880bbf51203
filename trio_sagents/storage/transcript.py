"""A host's `DisplayMessagePersistence`, called so that its failures never stop a conversation.

A call fails if it raises, if it returns something else than rows, or if it has not returned at the deadline. A failure is logged
with its traceback and reported as None; the caller keeps what the transcript should have been told, and tells it again later.

All calls that belong to one write share one deadline. The next commit of the conversation waits for them, and so do callers
that wait for the write, so a transcript that hangs must not cost that time once for each row.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.messages import Message
from trio_sagents.data.records import DisplayMessage, PersistContext, ToolUpdate
from trio_sagents.data.scopes import Scope
from trio_sagents.storage.ports import DisplayMessagePersistence
from trio_sagents.storage.returned import checked_rows, checked_update

AGAIN: Final = "it is called again with a later write, and when the conversation is next loaded"
NOT_AGAIN: Final = "the row is not handed over again: viewers who follow now have seen it, and later ones will not"
log: Final = logging.getLogger("trio_sagents")
T = TypeVar("T")


@attrs.frozen
class Transcript:
    """The transcript of a host, for one write."""

    display: DisplayMessagePersistence
    deadline: float
    """Trio time at which the last call has to have returned. After it no call is made, and each one counts as failed."""

    async def save(self, scope: Scope, message: Message, context: PersistContext) -> Sequence[DisplayMessage] | None:
        """Save a message; return the host's rows, or None if that failed."""

        async def call() -> Sequence[DisplayMessage]:
            return checked_rows(self.display, await await_host(self.display.save_message, scope, message, context))

        return await self._contained("save_message", context, call)

    async def save_rows(self, scope: Scope, rows: Sequence[DisplayMessage], context: PersistContext) -> list[DisplayMessage]:
        """Hand the transcript rows that show no message, if it takes such rows; return all of them, for viewers.

        A row that the transcript does not take is not handed to it again: viewers that follow have seen it, and later ones do not.
        """
        save = getattr(self.display, "save_row", None)
        for row in rows if save is not None else ():

            async def call(row: DisplayMessage = row) -> None:
                await await_host(save, scope, row, context)  # type: ignore[arg-type]

            await self._contained("save_row", context, call, then=NOT_AGAIN)
        return list(rows)

    async def update(self, scope: Scope, update: ToolUpdate, context: PersistContext) -> Sequence[DisplayMessage] | None:
        """Tell a step of a tool call; return the row that it changed, if there is one, or None if that failed."""

        async def call() -> Sequence[DisplayMessage]:
            changed = await await_host(self.display.update_tool_status, scope, update.status, update.tool_info, context)
            row = checked_update(self.display, changed)
            return () if row is None else (row,)

        return await self._contained("update_tool_status", context, call)

    async def _contained(self, method: str, context: PersistContext, call: Callable[[], Awaitable[T]], *, then: str = AGAIN) -> T | None:
        if trio.current_time() >= self.deadline:
            return None
        try:
            with trio.fail_at(self.deadline):
                return await call()
        except Exception:  # the boundary to the host's transcript
            log.exception("%s.%s failed for conversation %r; %s", type(self.display).__qualname__, method, context.conversation_id, then)
            return None

"""A host's own two stores, whose calls fail as planned: the state in one, the transcript in the other."""

import copy
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from trio_sagents import Conflict, DisplayMessage, Message, PersistContext, StoredState
from trio_sagents.testing import Faults

AT = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


@attrs.define(eq=False)
class States:
    """An `AgentPersistence`: whole states, by conversation."""

    faults: Faults
    rows: dict[str, StoredState] = attrs.field(factory=dict)

    async def load_state(self, scope: Any, context: PersistContext) -> StoredState | None:
        """Load, or fail."""

        async def effect() -> StoredState | None:
            await trio.lowlevel.checkpoint()
            return copy.deepcopy(self.rows.get(context.conversation_id))

        return await self.faults.call("states.load", effect)

    async def persist_state(self, scope: Any, state_data: Mapping[str, Any], context: PersistContext) -> None:
        """Store, compare and set, or fail."""

        async def effect() -> None:
            await trio.lowlevel.checkpoint()
            row = self.rows.get(context.conversation_id)
            found = None if row is None else (row.epoch, row.revision)
            if (0 if row is None else row.revision) != context.revision - 1 or (row is not None and row.epoch > context.epoch):
                raise Conflict(context.conversation_id, expected=(context.epoch, context.revision - 1), found=found)
            data = copy.deepcopy(dict(state_data))
            self.rows[context.conversation_id] = StoredState(data, context.owner, context.epoch, context.revision)

        await self.faults.call("states.persist", effect)


@attrs.define(eq=False)
class Rows:
    """A `DisplayMessagePersistence`: idempotent by row id."""

    faults: Faults
    rows: dict[str, DisplayMessage] = attrs.field(factory=dict)

    async def save_message(self, scope: Any, message: Message, context: PersistContext) -> Sequence[DisplayMessage]:
        """Store, or fail."""

        async def effect() -> Sequence[DisplayMessage]:
            await trio.lowlevel.checkpoint()
            row = DisplayMessage(
                f"row:{message.message_id}", message.message_id, message.role, "text", {"text": message.text}, "completed", AT
            )
            self.rows[row.row_id] = row
            return [row]

        return await self.faults.call("rows.save", effect)

    async def update_tool_status(
        self, scope: Any, status: str, tool_info: Mapping[str, Any], context: PersistContext
    ) -> DisplayMessage | None:
        """Take note, or fail."""

        async def effect() -> None:
            await trio.lowlevel.checkpoint()

        return await self.faults.call("rows.update", effect)

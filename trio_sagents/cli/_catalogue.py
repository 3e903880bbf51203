"""The conversations in the database, as a person names them."""

import datetime
import secrets
from collections.abc import Sequence
from typing import Final

from trio_sagents import ConversationItem, ConversationNotFound, SagentsError, Sessions
from trio_sagents.cli._models import UsageError
from trio_sagents.cli._setup import Options
from trio_sagents.cli._words import one_line

LISTED: Final = 20


def new_conversation_id() -> str:
    """Return an id that sorts by time and is short enough to type."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class Catalogue:
    """Finds and lists conversations."""

    def __init__(self, sessions: Sessions) -> None:
        """Keep the sessions."""
        self._sessions: Final = sessions
        self._listed: Sequence[str] = ()

    async def choose(self, options: Options) -> str:
        """Return the conversation that the command line asks for: the named one, else the last one, else a new one.

        Raises:
            UsageError: the name cannot be an id.
        """
        if options.conversation_id is not None:
            try:
                await self._exists(options.conversation_id)
            except (TypeError, ValueError) as exc:
                raise UsageError(f"--conversation: {exc}") from exc
            return options.conversation_id
        if not options.is_new and options.once is None:
            page = await self._sessions.conversations(limit=1)
            if page.items:
                return page.items[0].conversation_id
        return new_conversation_id()

    async def listing(self, present: str | None) -> str:
        """Return the newest conversations as lines, numbered for `find`, with a mark at `present`."""
        page = await self._sessions.conversations(limit=LISTED)
        self._listed = [item.conversation_id for item in page.items]
        lines = [await self._entry(number, item, present) for number, item in enumerate(page.items, 1)]
        if page.after is not None:
            lines.append("    … and older conversations; /open takes their ids, too")
        return "\n".join(lines) or "There are no conversations yet."

    async def find(self, name: str) -> str | None:
        """Return the conversation with this id, or with this number in the last listing; None if there is none."""
        if name not in self._listed and name.isdecimal():
            if not self._listed:
                await self.listing(None)
            if 1 <= int(name) <= len(self._listed):
                return self._listed[int(name) - 1]
        try:
            return name if await self._exists(name) else None
        except ValueError:
            return None

    async def _exists(self, conversation_id: str) -> bool:
        try:
            await self._sessions.history(conversation_id, limit=1)
        except ConversationNotFound:
            return False
        return True

    async def _entry(self, number: int, item: ConversationItem, present: str | None) -> str:
        title = item.title or await self._last_words(item.conversation_id)
        mark = "*" if item.conversation_id == present else " "
        changed = item.updated_at.astimezone().strftime("%Y-%m-%d %H:%M")
        return f"{mark}{number:3} {item.conversation_id}  {changed}  {item.message_count} messages  {one_line(title, 50)}"

    async def _last_words(self, conversation_id: str) -> str:
        try:
            page = await self._sessions.history(conversation_id, limit=10)
        except SagentsError:
            return "(cannot be read)"
        said = [str(row.content.get("text", "")) for row in page.rows if row.role == "user"]
        return said[-1] if said else ""

"""The status of an agent, shown: every change goes through the table, and then out to viewers and to the presence of agents."""

import attrs

from trio_sagents.conversation.status import Happening, StatusMachine
from trio_sagents.data.events import StatusChanged
from trio_sagents.supervisor._journal import Journal
from trio_sagents.supervisor._lifetime import Lifetime


@attrs.define(eq=False)
class StatusBoard(StatusMachine):
    """The status machine of one agent. It tells viewers and the presence of agents about each change."""

    journal: Journal = attrs.field(kw_only=True)
    lifetime: Lifetime = attrs.field(kw_only=True)

    def tell(self, happening: Happening, turn_id: str | None = None, text: str | None = None) -> None:
        """Change the status as the table says, and tell everybody; `text` says what failed."""
        status = self.change(happening)
        self.journal.publish(StatusChanged(status, self.journal.state.interrupt if text is None else text, turn_id))
        self.lifetime.show(status)

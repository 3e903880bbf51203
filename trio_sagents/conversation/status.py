"""The statuses of an agent: one table, which is the machine.

`TABLE` says for each status what may happen in it and which status follows. A status changes only in `StatusMachine.change`, and
only as the table says: what the table does not have is `IllegalTransition`, which is always a bug of this library. The diagram in
`docs/explanation/session.md` is drawn from the table (`diagram`), and a test compares them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, assert_never

import attrs

from trio_sagents.conversation.state import ConversationState
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, TurnOutcome, Unanswered
from trio_sagents.data.status import HELD, Status


class Happening(StrEnum):
    """What may happen to an agent's status."""

    RESTORED = "restored: a turn waits"
    """The agent boots, and its stored conversation waits for people."""
    BEGAN = "a turn begins"
    COMPLETED = "completed"
    WAITS = "waits for people"
    """The turn has stored what it waits for."""
    CANCELLED = "cancelled"
    FAILED = "failed"
    PARTLY_DECIDED = "some calls are decided"
    PAUSED = "too many unattended turns"
    """What is queued was posted by agents alone, and there were too many turns in a row: a person has to post."""
    LET_GO = "superseded or dismissed"
    """The interrupt is closed: a message came instead of a decision, or a person acknowledged a halt."""


TABLE: Final[Mapping[Status, Mapping[Happening, Status]]] = {
    Status.IDLE: {
        Happening.RESTORED: Status.INTERRUPTED,
        Happening.BEGAN: Status.RUNNING,
        Happening.PAUSED: Status.PAUSED,
    },
    Status.RUNNING: {
        Happening.BEGAN: Status.RUNNING,  # a follow-up turn: viewers see no other status between the two turns
        Happening.COMPLETED: Status.IDLE,
        Happening.WAITS: Status.INTERRUPTED,
        Happening.CANCELLED: Status.CANCELLED,
        Happening.FAILED: Status.ERROR,
        Happening.PAUSED: Status.PAUSED,  # the turn before completed, and the follow-up turn does not begin
    },
    Status.INTERRUPTED: {
        Happening.BEGAN: Status.RUNNING,
        Happening.PARTLY_DECIDED: Status.INTERRUPTED,
        Happening.LET_GO: Status.IDLE,
        # The agent leaves in the moment in which the turn would continue, so the turn is closed before it runs.
        Happening.CANCELLED: Status.CANCELLED,
        Happening.FAILED: Status.ERROR,
    },
    Status.CANCELLED: {
        Happening.BEGAN: Status.RUNNING,
        Happening.PAUSED: Status.PAUSED,
    },
    Status.ERROR: {
        Happening.BEGAN: Status.RUNNING,
        # The store answers late: the turn was given up as failed, and then its last write lands all the same.
        Happening.COMPLETED: Status.IDLE,
        Happening.WAITS: Status.INTERRUPTED,
        Happening.CANCELLED: Status.CANCELLED,
        Happening.FAILED: Status.ERROR,
    },
    Status.PAUSED: {
        Happening.BEGAN: Status.RUNNING,
    },
}


class IllegalTransition(RuntimeError):
    """The table does not have this change: a bug of this library."""


@attrs.define(eq=False)
class StatusMachine:
    """The status of one agent. Synchronous, and without effects: the owner publishes what changed."""

    status: Status = Status.IDLE
    is_released: bool = False
    """Whether a message came since the queue was held: by the next message, and not by itself, a held queue runs."""

    def change(self, happening: Happening) -> Status:
        """Change the status as the table says, and return the new one.

        Raises:
            IllegalTransition: the table does not have this change; the status is as before.
        """
        self.status = self.following(happening)
        if happening is Happening.BEGAN:
            self.is_released = False
        return self.status

    def following(self, happening: Happening) -> Status:
        """Return the status that would follow; IllegalTransition if the table does not have the change."""
        following = TABLE[self.status].get(happening)
        if following is None:
            raise IllegalTransition(f"status {self.status.value!r}: {happening.value!r} cannot happen here")
        return following

    def may_begin(self, state: ConversationState) -> bool:
        """Return whether a turn may begin: a message is queued, nothing waits for people, and the queue is not held."""
        return bool(state.queue) and state.waiting is None and (self.is_released or self.status not in HELD)


def happening_of(outcome: TurnOutcome) -> Happening:
    """Return what the end of a turn is to the status."""
    match outcome:
        case Completed() | Unanswered():
            return Happening.COMPLETED
        case Interrupted():
            return Happening.WAITS
        case Cancelled():
            return Happening.CANCELLED
        case Failed():
            return Happening.FAILED
        case _:
            assert_never(outcome)


def follows(earlier: Status, later: Status) -> bool:
    """Return whether the table has a change from one status to another."""
    return later in TABLE[earlier].values()


def diagram() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.IDLE.value}"]
    lines += [
        f"    {status.value} --> {following.value}: {happening.value.replace(':', ',')}"
        for status, row in TABLE.items()
        for happening, following in row.items()
    ]
    return "\n".join(lines)

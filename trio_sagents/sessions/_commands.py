"""What a caller wants an agent to do, as values; and how decisions are recorded before a sleeping agent wakes up."""

from collections.abc import Sequence
from typing import TypeAlias, assert_never

import attrs

from trio_sagents.data.decisions import Decision
from trio_sagents.data.ids import new_token
from trio_sagents.data.records import Row
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import SagentsError
from trio_sagents.nodes import keyed_row
from trio_sagents.supervisor import Entry, Posted, Receipt, RunningAgent


@attrs.frozen
class Post:
    """Accept a message."""

    posted: Posted
    actor: Scope = attrs.field(repr=False)


@attrs.frozen
class Resume:
    """Record decisions."""

    decisions: Sequence[Decision]
    actor: Scope = attrs.field(repr=False)


@attrs.frozen
class Dismiss:
    """Acknowledge a halt."""

    actor: Scope = attrs.field(repr=False)
    interrupt_id: str | None = None
    """The halt that is meant; None is the one that waits."""


@attrs.frozen
class AddRows:
    """Add rows to the transcript."""

    rows: Sequence[Row]
    actor: Scope = attrs.field(repr=False)


Command: TypeAlias = Post | Resume | Dismiss | AddRows


async def carry_out(command: Command, live: RunningAgent) -> Receipt | None:
    """Have an agent do what a command says; raises what the agent raises. `Dismiss` and `AddRows` return None."""
    match command:
        case Post(posted, actor):
            return await live.post(posted, actor)
        case Resume(decisions, actor):
            return await live.resume(decisions, actor)
        case Dismiss(actor, interrupt_id):
            await live.dismiss(actor, interrupt_id)
            return None
        case AddRows(rows, actor):
            await live.add_rows(rows, actor)
            return None
        case _:
            assert_never(command)


async def fixed(command: Command, live: RunningAgent) -> Command:
    """Return a command that is carried out once, however often it is given: what an agent on another node may have done is known again.

    Raises: what the agent raises.

    Cancellation: nothing was done.
    """
    match command:
        case Post(posted, actor) if posted.message_id is None:
            return Post(attrs.evolve(posted, message_id=f"{new_token()}{new_token()}"), actor)
        case AddRows(rows, actor) if any(row.key is None for row in rows):
            return AddRows(tuple(map(keyed_row, rows)), actor)
        case Dismiss(actor, None):
            interrupt = (await live.look()).interrupt
            return command if interrupt is None else Dismiss(actor, interrupt.interrupt_id)
        case _:
            return command


@attrs.define(eq=False)
class BootAction:
    """A command that a starting agent carries out before anybody sees it, and what came of that."""

    command: Resume | Dismiss
    is_done: bool = False
    _receipt: Receipt | None = None
    _error: SagentsError | None = None

    async def run(self, live: RunningAgent) -> None:
        """Carry the command out. An error of the library's own is for the caller to hear; any other ends the start."""
        try:
            self._receipt = await carry_out(self.command, live)
        except SagentsError as exc:
            self._error = exc
        self.is_done = True

    def outcome(self) -> Receipt | None:
        """Return what the command returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._receipt


@attrs.define(eq=False)
class BootActions:
    """The boot actions that callers wait for, by entry. A caller adds its own, and removes it when it stops waiting."""

    _waiting: dict[Entry, list[BootAction]] = attrs.field(factory=dict)
    # Invariant: an entry is here exactly while a caller waits for one of its actions; the actions are in the order of the calls.

    def add(self, entry: Entry, action: BootAction) -> None:
        """Have an action carried out when the entry starts."""
        self._waiting.setdefault(entry, []).append(action)

    def remove(self, entry: Entry, action: BootAction) -> None:
        """Forget an action, whether it was carried out or not."""
        actions = [waiting for waiting in self._waiting.pop(entry, ()) if waiting is not action]
        if actions:
            self._waiting[entry] = actions

    def next_of(self, entry: Entry) -> BootAction | None:
        """Return the first action of an entry that was not carried out yet; None if there is none."""
        return next((action for action in self._waiting.get(entry, ()) if not action.is_done), None)

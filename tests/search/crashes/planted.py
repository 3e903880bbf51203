"""Planted bugs: each breaks the library in one place, in the process that calls it. The tests must find every one of them."""

import functools
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sagents.agent import Progress
from trio_sagents.data.history import close_after_crash
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.outcomes import Cancelled
from trio_sagents.data.records import Conversation
from trio_sagents.data.status import CancelCause
from trio_sagents.middleware import Approvals
from trio_sagents.persistence import _sqlite_schema
from trio_sagents.storage import commit_queue
from trio_sagents.supervisor import _answering, _ledger, _turns
from trio_sagents.supervisor._decisions import whole_change
from trio_sagents.supervisor._turn_changes import TurnBooks


def _connect_with(factory: type[sqlite3.Connection]) -> None:
    plain = functools.partial(sqlite3.connect, factory=factory)
    vars(_sqlite_schema)["sqlite3"] = _Module(plain)


class _Module:
    """`sqlite3` with another `connect`."""

    def __init__(self, connect: "functools.partial[sqlite3.Connection]") -> None:
        self.connect = connect

    def __getattr__(self, name: str) -> object:
        return getattr(sqlite3, name)


class _Lazy(sqlite3.Connection):
    """Commits every fifth time, and says that it does so each time."""

    is_ready = False
    commits = 0

    def execute(self, sql: str, parameters: Sequence[Opaque] = ()) -> sqlite3.Cursor:  # type: ignore[override]
        self.is_ready = self.is_ready or "journal_size_limit" in sql  # the last setting
        if self.is_ready and sql in {"COMMIT", "ROLLBACK"} and self.in_transaction:
            self.commits += 1
            sql = "COMMIT" if self.commits % 5 == 0 else "SELECT 1"
        if sql.startswith("BEGIN") and self.in_transaction:
            sql = "SELECT 1"
        return super().execute(sql, parameters)

    def close(self) -> None:
        if self.in_transaction:
            super().execute("COMMIT")
        super().close()


class _Halving(sqlite3.Connection):
    """Puts the rows of the transcript into a transaction of their own."""

    def executemany(self, sql: str, parameters: Iterable[Opaque]) -> sqlite3.Cursor:
        if sql.startswith("INSERT INTO transcript"):
            self.execute("COMMIT")
            self.execute("BEGIN IMMEDIATE")
        return super().executemany(sql, parameters)


def acknowledge_first() -> None:
    """Nobody waits for a write: `post` returns when it is submitted, and tools run before they are on record."""

    async def wait(self: commit_queue.PendingCommit) -> None:
        await trio.lowlevel.checkpoint()

    commit_queue.PendingCommit.wait = wait  # type: ignore[method-assign]


def run_first() -> None:
    """Tools run before the call is on record."""
    waited = commit_queue.PendingCommit.wait

    async def wait(self: commit_queue.PendingCommit) -> None:
        if any(update.status == "executing" for update in self.commit.tool_updates):
            await trio.lowlevel.checkpoint()
        else:
            await waited(self)

    commit_queue.PendingCommit.wait = wait  # type: ignore[method-assign]


def leave_cut() -> None:
    """What a crash cut is not closed."""
    vars(_ledger)["close_after_crash"] = lambda messages, draft, message_ids, decided: ()


def hide_unknown() -> None:
    """A call that a crash cut is said to have been cancelled."""

    def close(messages: Sequence[Message], draft: Message | None, message_ids: Opaque, decided: Opaque) -> Sequence[Message]:
        closing = close_after_crash(messages, draft, message_ids, decided)
        return [
            attrs.evolve(
                one, parts=[attrs.evolve(part, status="cancelled") if isinstance(part, ToolResult) else part for part in one.parts]
            )
            for one in closing
        ]

    vars(_ledger)["close_after_crash"] = close


def forget_queue() -> None:
    """What a crash left in the queue is not answered."""
    restore = _ledger.Ledger.restore

    def forgetful(self: _ledger.Ledger, stored: Conversation) -> None:
        restore(self, stored)
        self.queue.clear()

    _ledger.Ledger.restore = forgetful  # type: ignore[method-assign]


def ask_nobody() -> None:
    """Calls that need an approval run without one."""

    async def claim(self: Approvals, context: Opaque, call: ToolCall, tool: Opaque) -> None:
        await trio.lowlevel.checkpoint()

    Approvals.claim = claim  # type: ignore[method-assign]


def forget_taken() -> None:
    """That a call was approved is not on record while it runs."""

    def forgetful(*args: Opaque) -> Opaque:
        change, events = whole_change(*args)
        return attrs.evolve(change, standing=None), events

    vars(_answering)["whole_change"] = forgetful


# ── for SIGTERM


def settle_nothing() -> None:
    """A cut turn is told as settled, and is not on record."""

    async def settle(self: _turns.Turn, error: BaseException | None, onward: BaseException | None) -> None:
        if self.outcome is None:
            self.outcome = Cancelled(self.cause or CancelCause.HOST_CANCELLED)
            self._finish()
        await trio.lowlevel.checkpoint()

    _turns.Turn._settle = settle  # type: ignore[method-assign]


def drop_results() -> None:
    """What a tool returned is dropped if its turn is cut before that is submitted."""
    commit_result, closing = _turns.Turn.commit_result, TurnBooks.closing

    async def slow(self: _turns.Turn, call: ToolCall, result: ToolResult) -> None:
        await trio.sleep(0.03)
        await commit_result(self, call, result)

    def dropping(self: TurnBooks, outcome: Opaque, progress: Progress, asking: Message | None) -> Opaque:
        for one in progress.open_calls.values():
            one.result = None
        return closing(self, outcome, progress, asking)

    _turns.Turn.commit_result = slow  # type: ignore[method-assign]
    TurnBooks.closing = dropping  # type: ignore[method-assign]


def drop_text() -> None:
    """What the model had said when its turn was cut is dropped."""
    closing = TurnBooks.closing

    def dropping(self: TurnBooks, outcome: Opaque, progress: Progress, asking: Message | None) -> Opaque:
        progress.draft = None
        return closing(self, outcome, progress, asking)

    TurnBooks.closing = dropping  # type: ignore[method-assign]


def blame_the_user() -> None:
    """Every cut turn is said to have been cut by the user."""
    outcome_of = _turns.Turn._outcome_of

    def blaming(self: _turns.Turn, error: BaseException | None) -> Opaque:
        outcome = outcome_of(self, error)
        return Cancelled(CancelCause.USER) if isinstance(outcome, Cancelled) else outcome

    _turns.Turn._outcome_of = blaming  # type: ignore[method-assign]


PLANTED: Final[Mapping[str, Callable[[], None]]] = {
    "commit_lazily": lambda: _connect_with(_Lazy),
    "halve_commits": lambda: _connect_with(_Halving),
    "acknowledge_first": acknowledge_first,
    "run_first": run_first,
    "leave_cut": leave_cut,
    "hide_unknown": hide_unknown,
    "forget_queue": forget_queue,
    "ask_nobody": ask_nobody,
    "forget_taken": forget_taken,
    "settle_nothing": settle_nothing,
    "drop_results": drop_results,
    "drop_text": drop_text,
    "blame_the_user": blame_the_user,
}

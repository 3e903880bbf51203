"""Planted bugs that kills, losses of power and SIGTERM have to find.

Each bug replaces one or two functions of the library in the process that calls it.
"""

import functools
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from tests.support.planting import Target
from trio_sagents.data.outcomes import Cancelled
from trio_sagents.data.status import CancelCause

WAIT: Final = Target("storage/commit_queue.py", "PendingCommit.wait")
CLOSE_AT_BOOT: Final = Target("sessions/_boot.py", "close_after_crash")
CLOSE_IN_TURN: Final = Target("conversation/turn_steps.py", "close_after_crash")
KNOWN_AFTER_CRASH: Final = Target("conversation/closing.py", "_known_after_crash")
RESTORED: Final = Target("sessions/_boot.py", "restored")
DECIDE: Final = Target("supervisor/_approvals.py", "decide")
SETTLE: Final = Target("supervisor/_turns.py", "Turn._settle")
CLOSE_TURN: Final = Target("supervisor/_turns.py", "Turn.close")
COMMIT_RESULT: Final = Target("supervisor/_live_turn.py", "LiveTurn.commit_result")
CLOSE: Final = Target("supervisor/_live_turn.py", "LiveTurn.close")
CLAIM: Final = Target("middleware/approvals.py", "Approvals.claim")
SQLITE3: Final = Target("_sqlite/opening.py", "sqlite3")
TARGETS: Final = (
    WAIT,
    CLOSE_AT_BOOT,
    CLOSE_IN_TURN,
    KNOWN_AFTER_CRASH,
    RESTORED,
    DECIDE,
    SETTLE,
    CLOSE_TURN,
    COMMIT_RESULT,
    CLOSE,
    CLAIM,
    SQLITE3,
)


def _connect_with(factory: type[sqlite3.Connection]) -> None:
    SQLITE3.replace(_Module(functools.partial(sqlite3.connect, factory=factory)))


class _Module:
    """`sqlite3` with another `connect`."""

    def __init__(self, connect: "functools.partial[sqlite3.Connection]") -> None:
        self.connect = connect

    def __getattr__(self, name: str) -> object:
        return getattr(sqlite3, name)


class _Lazy(sqlite3.Connection):
    """Commits every fifth time, and reports a commit each time."""

    is_ready = False
    commits = 0

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:  # type: ignore[override]
        self.is_ready = self.is_ready or "journal_size_limit" in sql  # the last setting of a new connection
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

    def executemany(self, sql: str, parameters: Iterable[Any]) -> sqlite3.Cursor:
        if sql.startswith("INSERT INTO transcript"):
            self.execute("COMMIT")
            self.execute("BEGIN IMMEDIATE")
        return super().executemany(sql, parameters)


def acknowledge_first() -> None:
    """Nobody waits for a write: `post` returns when the message is submitted, and tools run before the call is on record."""

    async def wait(self: Any) -> None:
        await trio.lowlevel.checkpoint()

    WAIT.replace(wait)


def run_first() -> None:
    """Tools run before the call is on record."""
    plain = WAIT.get()

    async def wait(self: Any) -> None:
        if any(update.status == "executing" for update in self.commit.tool_updates):
            await trio.lowlevel.checkpoint()
        else:
            await plain(self)

    WAIT.replace(wait)


def leave_cut() -> None:
    """A history that a crash cut is not closed."""

    def close(moment: Any, *, was_unsaved: bool = False) -> None:
        return None

    CLOSE_AT_BOOT.replace(close)
    CLOSE_IN_TURN.replace(close)


def hide_unknown() -> None:
    """The result of a call that a crash cut says that the call was cancelled."""
    plain = KNOWN_AFTER_CRASH.get()

    def known(*args: Any) -> str:
        status: str = plain(*args)
        return "cancelled" if status == "unknown" else status

    KNOWN_AFTER_CRASH.replace(known)


def forget_queue() -> None:
    """The queue that a crash left is not answered."""
    plain = RESTORED.get()

    def restored(*args: Any) -> Any:
        state = plain(*args)
        state.queue.clear()
        return state

    RESTORED.replace(restored)


def ask_nobody() -> None:
    """Calls that need an approval run without an approval."""

    async def claim(self: Any, context: Any, call: Any, tool: Any) -> None:
        await trio.lowlevel.checkpoint()

    CLAIM.replace(claim)


def forget_decided() -> None:
    """The approval of a call is not on record while the call runs."""
    plain = DECIDE.get()

    def decide(*args: Any) -> Any:
        return attrs.evolve(plain(*args), open_decisions=None)

    DECIDE.replace(decide)


# ── for SIGTERM


def settle_nothing() -> None:
    """A turn that is cut is reported as settled, and is not on record."""

    async def settle(self: Any, error: BaseException | None, onward: BaseException | None) -> None:
        if self.work.outcome is None:
            self.work.outcome = Cancelled(self.cause or self.work.entry.cause or CancelCause.HOST_CANCELLED)
            self.work.on_end(None)
        await trio.lowlevel.checkpoint()

    SETTLE.replace(settle)


def drop_results() -> None:
    """The result of a tool is dropped if the turn is cut before the result is submitted."""
    commit_result, plain = COMMIT_RESULT.get(), CLOSE.get()

    async def slow(self: Any, call: Any, result: Any) -> None:
        await trio.sleep(0.03)
        await commit_result(self, call, result)

    def close(self: Any, outcome: Any) -> None:
        for opened in self.progress.open_calls.values():
            opened.result = None
        plain(self, outcome)

    COMMIT_RESULT.replace(slow)
    CLOSE.replace(close)


def drop_text() -> None:
    """The text that the model had sent is dropped when the turn is cut."""
    plain = CLOSE.get()

    def close(self: Any, outcome: Any) -> None:
        self.progress.draft = None
        plain(self, outcome)

    CLOSE.replace(close)


def blame_the_user() -> None:
    """Every turn that is cut says that the user cut it."""
    plain = CLOSE_TURN.get()

    def close(self: Any, error: BaseException | None = None) -> None:
        if error is None:
            self.work.close(Cancelled(CancelCause.USER))
        else:
            plain(self, error)

    CLOSE_TURN.replace(close)


PLANTED: Final[Mapping[str, Callable[[], None]]] = {
    "commit_lazily": lambda: _connect_with(_Lazy),
    "halve_commits": lambda: _connect_with(_Halving),
    "acknowledge_first": acknowledge_first,
    "run_first": run_first,
    "leave_cut": leave_cut,
    "hide_unknown": hide_unknown,
    "forget_queue": forget_queue,
    "ask_nobody": ask_nobody,
    "forget_decided": forget_decided,
    "settle_nothing": settle_nothing,
    "drop_results": drop_results,
    "drop_text": drop_text,
    "blame_the_user": blame_the_user,
}

"""Every call of host code, and each way to go wrong: one documented outcome each, and no other conversation is harmed.

`TABLE` is the table of `docs/explanation/host-code.md`; a test compares them. Each method of a store has more cases in
`test_host_stores_matrix.py`, and code that raises in the middle of an entry in `test_host_code.py`.
"""

import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs
import pytest
import trio

from tests.support.scenarios import FaultyStore, make_config, opened
from trio_sagents import (
    Agent,
    Completed,
    DisplayMessage,
    Failed,
    LocalPubSub,
    MemoryLeases,
    Middleware,
    SessionOpts,
    StartFailed,
    open_sessions,
)
from trio_sagents._trio.watching import LoopWatch
from trio_sagents.testing import Call, ScriptedModel

How: TypeAlias = Literal["raises", "hangs", "returns junk", "blocks"]
HOWS: Final[tuple[How, ...]] = ("raises", "hangs", "returns junk", "blocks")
PAGE: Final = Path(__file__).parents[2] / "docs" / "explanation" / "host-code.md"
PATIENCE: Final = 1000.0
"""Virtual seconds after which a call counts as one that waits."""
JUNK: Final = object()


class Bug(Exception):
    """What host code raises; the text is the host's own."""


# ── what is documented


@attrs.frozen
class Cell:
    """What comes of it."""

    outcome: str
    """What the call gives: an outcome, an error, or "waits"."""
    words: str
    """The same, for the page."""
    level: int = 0
    """Of the one record in the log that has the traceback; 0 if whoever called is given the exception, or if nothing was raised."""
    named: str = ""
    """What the log says of the blocked event loop."""


FINE: Final = "everybody waits meanwhile"
NEVER: Final = Cell("", "cannot be helped: a plain function that does not return stops the process")
LOGGED: Final = logging.ERROR

TABLE: Final[Mapping[str, Mapping[How, Cell]]] = {
    "authorizer": {
        "raises": Cell("Bug", "the call raises it"),
        "hangs": Cell("waits", "the call waits until its caller gives up"),
        "returns junk": Cell("TypeError", "the call raises `TypeError`"),
        "blocks": Cell("Completed", FINE),
    },
    "router": {
        "raises": Cell("StartFailed(route, Bug)", "`StartFailed`", LOGGED),
        "hangs": Cell("StartFailed(route, TooSlowError)", "`StartFailed`, after `start_timeout`", LOGGED),
        "returns junk": Cell("StartFailed(route, TypeError)", "`StartFailed`", LOGGED),
        "blocks": Cell("Completed", FINE),
    },
    "factory": {
        "raises": Cell("StartFailed(build, Bug)", "`StartFailed`", LOGGED),
        "hangs": Cell("StartFailed(build, TooSlowError)", "`StartFailed`, after `start_timeout`", LOGGED),
        "returns junk": Cell("StartFailed(build, TypeError)", "`StartFailed`", LOGGED),
        "blocks": Cell("Completed", FINE),
    },
    "leases": {
        "raises": Cell("StartFailed(load, RegistryUnavailable)", "`StartFailed`", LOGGED),
        "hangs": Cell("StartFailed(load, RegistryUnavailable)", "`StartFailed`, after a third of `lease_ttl`", LOGGED),
        "returns junk": Cell("StartFailed(load, RegistryUnavailable)", "`StartFailed`", LOGGED),
        "blocks": Cell("Completed", FINE),
    },
    "store (load)": {
        "raises": Cell("StartFailed(load, Bug)", "`StartFailed`", LOGGED),
        "hangs": Cell("StartFailed(load, TooSlowError)", "`StartFailed`, after `start_timeout`", LOGGED),
        "returns junk": Cell("StartFailed(load, PersistenceError)", "`StartFailed`; nothing is written", LOGGED),
        "blocks": Cell("Completed", FINE),
    },
    "store (commit)": {
        "raises": Cell("PersistenceError", "`PersistenceError`; the message is not accepted", LOGGED),
        "hangs": Cell("waits", "the call waits; a stop gives the write up after `settle_timeout`"),
        "returns junk": Cell("PersistenceError", "`PersistenceError`; the message is not accepted", LOGGED),
        "blocks": Cell("Completed", FINE),
    },
    "preprocessor": {
        "raises": Cell("Bug", "the call raises it; nothing is posted"),
        "hangs": Cell("waits", "the call waits until its caller gives up; nothing is posted"),
        "returns junk": Cell("TypeError", "the call raises `TypeError`; nothing is posted"),
        "blocks": Cell("Completed", FINE),
    },
    "model": {
        "raises": Cell("Failed(ModelFailed)", "the turn ends as `Failed(ModelFailed)`", LOGGED),
        "hangs": Cell("waits", "the turn runs until it is cancelled, or until `turn_timeout`"),
        "returns junk": Cell("Failed(ModelFailed)", "the turn ends as `Failed(ModelFailed)`, which says what was sent"),
        "blocks": Cell("Completed", FINE),
    },
    "tool": {
        "raises": Cell("Completed", "the model reads the error", logging.WARNING),
        "hangs": Cell("waits", "the turn runs until it is cancelled, or until `tool_timeout`"),
        "returns junk": Cell("Completed", "the model reads the type of the value"),
        "blocks": Cell("Completed", f"{FINE}; the log names the tool", named="tool 'work'"),
    },
    "middleware hook": {
        "raises": Cell("Failed(MiddlewareError)", "the turn ends as `Failed(MiddlewareError)`", LOGGED),
        "hangs": Cell("waits", "the turn runs until it is cancelled, or until `turn_timeout`"),
        "returns junk": Cell("Failed(MiddlewareError)", "the turn ends as `Failed(MiddlewareError)`", LOGGED),
        "blocks": Cell("Completed", f"{FINE}; the log names the hook", named="middleware 'Hooked' (before_model)"),
    },
    "row transform": {
        "raises": Cell("Completed", "the row is hidden", LOGGED),
        "hangs": NEVER,
        "returns junk": Cell("Completed", "the row is hidden", LOGGED),
        "blocks": Cell("Completed", FINE),
    },
    "presence (publish)": {
        "raises": Cell("Completed", "other processes see old entries until it works", LOGGED),
        "hangs": NEVER,
        "returns junk": Cell("Completed", "the value is ignored"),
        "blocks": Cell("Completed", FINE),
    },
    "presence (subscribe)": {
        "raises": Cell("Completed", "tried again; entries of other processes leave meanwhile", LOGGED),
        "hangs": Cell("Completed", "entries of other processes are not seen"),
        "returns junk": Cell("Completed", "the payload is dropped; the log says so"),
        "blocks": Cell("Completed", FINE),
    },
}
CELLS: Final = [(code, how) for code, row in TABLE.items() for how in HOWS if row[how] is not NEVER]


# ── a host that goes wrong


class RealTime:
    """Stands for the real clock: it only moves when something blocks."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@attrs.define(eq=False)
class Trouble:
    """Which code goes wrong, how, and until when."""

    code: str
    how: How
    real: RealTime = attrs.field(factory=RealTime)
    is_on: bool = False
    over: trio.Event = attrs.field(factory=trio.Event)
    struck: int = 0

    def strikes(self, code: str, name: str) -> bool:
        """Return whether a call of this code, about this conversation, goes wrong now."""
        if code != self.code or not self.is_on or name != "bad":
            return False
        self.struck += 1
        return True

    async def call(self, code: str, name: str, normal: Callable[[], Awaitable[Any]], junk: Any = JUNK) -> Any:
        """Do as this code does, or go wrong."""
        if not self.strikes(code, name):
            return await normal()
        await trio.lowlevel.checkpoint()
        if self.how == "hangs":
            await self.over.wait()
        return self.go_wrong(junk) if self.how in {"raises", "returns junk"} else (self.go_wrong(junk), await normal())[1]

    def go_wrong(self, junk: Any = JUNK) -> Any:
        """Raise, return junk, or block."""
        if self.how == "raises":
            raise Bug("the host's words")
        if self.how == "blocks":
            self.real.now += 1
        return junk


def agent_of(trouble: Trouble, name: str) -> Any:
    """Return the agent of a conversation."""

    async def work() -> Any:
        """Work."""
        return await trouble.call("tool", name, done)

    async def done() -> str:
        return "ok"

    class Model(ScriptedModel):
        @asynccontextmanager
        async def stream(self, request: Any) -> Any:
            async def open_it() -> Any:
                return None

            if await trouble.call("model", name, open_it) is JUNK:
                yield _chunks(JUNK)
                return
            async with super().stream(request) as chunks:
                yield chunks

    class Hooked(Middleware):
        async def before_model(self, context: Any, request: Any) -> Any:
            async def same() -> Any:
                return request

            return await trouble.call("middleware hook", name, same)

        def transform_row(self, row: DisplayMessage) -> Any:
            if not trouble.strikes("row transform", name):
                return row
            return row if trouble.go_wrong() is JUNK and trouble.how == "blocks" else JUNK

    async def preprocess(message: Any, scope: Any) -> Any:
        async def same() -> Any:
            return message

        return await trouble.call("preprocessor", name, same)

    model = Model(lambda request: "Done." if request.messages[-1].results else Call("work"))
    agent = Agent(model=model, tools=[work], middleware=[Hooked()])
    return agent, SessionOpts(supervisor_opts={"message_preprocessor": preprocess})


async def _chunks(*chunks: Any) -> Any:
    for chunk in chunks:
        await trio.lowlevel.checkpoint()
        yield chunk


def settings_of(trouble: Trouble) -> dict[str, Any]:
    """Return the settings of a block in which the code goes wrong."""

    class Factory:
        async def resolve(self, scope: Any, conversation_id: str, request_opts: Any) -> Any:
            async def normal() -> Any:
                return self, conversation_id

            return await trouble.call("router", conversation_id, normal)

        async def create_agent(self, agent_id: str, config: Any) -> Any:
            async def normal() -> Any:
                return agent_of(trouble, config)

            return await trouble.call("factory", config, normal)

    class Authorizer:
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> Any:
            async def yes() -> bool:
                return True

            # Not when a viewer is looked at: that has its own bound, and is in the log.
            return True if action == "view" else await trouble.call("authorizer", conversation_id, yes)

    class Store(FaultyStore):
        async def load(self, scope: Any, conversation_id: str) -> Any:
            return await trouble.call("store (load)", conversation_id, lambda: FaultyStore.load(self, scope, conversation_id))

        async def commit(self, scope: Any, commit: Any) -> Any:
            return await trouble.call("store (commit)", commit.conversation_id, lambda: FaultyStore.commit(self, scope, commit))

    class Leases(MemoryLeases):
        async def acquire(self, conversation_id: str, holder: str, ttl: float) -> Any:
            return await trouble.call("leases", conversation_id, lambda: MemoryLeases.acquire(self, conversation_id, holder, ttl))

    class Bus(LocalPubSub):
        def publish(self, topic: str, payload: bytes) -> Any:
            junk = trouble.go_wrong() if trouble.strikes("presence (publish)", "bad") else None
            super().publish(topic, payload)
            return junk

        @asynccontextmanager
        async def subscribe(self, topic: str) -> Any:
            async def normal() -> Any:
                return None

            if await trouble.call("presence (subscribe)", "bad", normal) is JUNK:
                yield _chunks(JUNK)
                return
            async with super().subscribe(topic) as payloads:
                yield payloads

    settings: dict[str, Any] = {"store": Store(), "pubsub": Bus()}
    if trouble.code == "authorizer":
        settings["authorizer"] = Authorizer()
    if trouble.code == "leases":
        settings["leases"] = Leases()
    return {"router": Factory(), **settings}


# ── the cells


def kind_of(heard: Any) -> str:
    """Return what a call gave, in a word."""
    if heard is None:
        return "waits"
    if isinstance(heard, Failed):
        return f"Failed({type(heard.error).__name__})"
    if isinstance(heard, StartFailed):
        return f"StartFailed({heard.stage}, {type(heard.__cause__).__name__})"
    return type(heard).__name__


async def outcome_of(sessions: Any, name: str) -> Any:
    """Post, and return the outcome, or the error, or None if there is none within some time."""
    with trio.move_on_after(PATIENCE):
        try:
            return await (await sessions.post(name, "hi")).wait()
        except Exception as exc:
            return exc
    return None


def chain_of(error: BaseException | None) -> Sequence[BaseException]:
    """Return an error and its causes."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def has_traceback(error: BaseException | None) -> bool:
    """Return whether the host's exception is in it, with the frame that raised it."""
    return any(isinstance(one, Bug) and one.__traceback__ is not None for one in chain_of(error))


@pytest.mark.parametrize(("code", "how"), CELLS)
async def test_host_code_when_it_goes_wrong(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, code: str, how: How
) -> None:
    """What comes of it is what the page says; another conversation is answered throughout, and this one when the trouble is over."""
    cell, trouble = TABLE[code][how], Trouble(code, how)
    made = LoopWatch.__init__
    monkeypatch.setattr(LoopWatch, "__init__", lambda self, limit: made(self, limit, trouble.real))
    begins_cold = code in {"router", "factory", "leases", "store (load)"}
    settings = settings_of(trouble)
    async with opened(**settings) as sessions:
        if not begins_cold:
            assert isinstance(await outcome_of(sessions, "bad"), Completed)
        assert isinstance(await outcome_of(sessions, "good"), Completed)
        trouble.is_on = True
        heard: Any
        if code.startswith("presence"):
            # Another block on the same bus is another process to this one.
            async with open_sessions(make_config(pubsub=settings["pubsub"])) as others, others.watch("bad", viewer="x"):
                await trio.sleep(30)
                heard = await outcome_of(sessions, "bad")
        else:
            heard = await outcome_of(sessions, "bad")
        assert cell.outcome == kind_of(heard)
        assert isinstance(await outcome_of(sessions, "good"), Completed)
        trouble.is_on = False
        trouble.over.set()
        if heard is None:
            await sessions.cancel_turn("bad")
        last = [await outcome_of(sessions, "bad") for _ in range(2)][-1]
        assert isinstance(last, Completed), last
        assert isinstance(await outcome_of(sessions, "good"), Completed)
    records = [record for record in caplog.records if record.levelno >= logging.WARNING and record.exc_info]
    assert trouble.struck
    assert ({cell.level} if cell.level else set()) == {record.levelno for record in records}
    if how == "raises":
        raised = [heard if isinstance(heard, BaseException) else None, *(record.exc_info[1] for record in records if record.exc_info)]
        assert any(has_traceback(error) for error in raised)
    if cell.level and not code.startswith(("presence", "row")):  # these are called for each message, and each row
        assert 1 == len(records)
    blocked = [record.getMessage() for record in caplog.records if "blocked the event loop" in record.getMessage()]
    assert all(f"the {cell.named} blocked" in message for message in blocked)
    assert bool(cell.named) == bool(blocked)


# ── the page


def table() -> str:
    """Return the table as the page has it."""
    logs = {0: "", logging.WARNING: "; logged as a warning", logging.ERROR: "; logged"}
    lines = [f"| host code | {' | '.join(HOWS)} |", f"|{'---|' * (len(HOWS) + 1)}"]
    for code, row in TABLE.items():
        lines.append(f"| {code} | {' | '.join(row[how].words + logs[row[how].level] for how in HOWS)} |")
    return "\n".join(lines)


def test_page_when_the_table_changes() -> None:
    """The page has this table."""
    assert table() in PAGE.read_text(encoding="utf-8")


def test_table_when_it_is_whole() -> None:
    """Each code has a cell for each way to go wrong."""
    assert set(itertools.product(TABLE, HOWS)) == {(code, how) for code, row in TABLE.items() for how in row}

"""What host code raises is in the log once, with its traceback, its conversation and its place; viewers are told which part failed."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import pytest

from tests.support.scenarios import FaultyStore, Router, ask, make_agent, of_kind, opened, read_all
from trio_sagents import (
    Agent,
    ChainError,
    Completed,
    Failed,
    LimitExceeded,
    Middleware,
    MiddlewareError,
    SagentsError,
    SubAgents,
    Task,
    TurnLimits,
)
from trio_sagents.testing import Call, ScriptedModel

SECRET: Final = "hunter2"


class Bug(Exception):
    """What host code raises."""


def bug(*_: Any) -> Any:
    raise Bug("the host's words")


async def pay(token: str = "") -> str:
    """Pay."""
    raise Bug("the host's words")


class Broken(Middleware):
    """Fails in the hook that it is told."""

    def __init__(self, hook: str) -> None:
        async def fail(*_: Any) -> Any:
            raise Bug("the host's words")

        self.__class__ = type("Broken", (Broken,), {hook: fail})

    @property
    def middleware_id(self) -> str:
        """Its id."""
        return "Broken"


class Silly(Middleware):
    """Returns something else than a request."""

    async def before_model(self, context: Any, request: Any) -> Any:
        """Return an int."""
        return 3


class BrokenModel:
    """An adapter with a bug."""

    name = "gpt-x"

    def stream(self, request: Any) -> Any:
        """Fail."""
        raise Bug("the host's words")


def calls_pay(request: Any) -> Any:
    return "Done." if request.messages[-1].results else Call("pay", token=SECRET)


def of_library(caplog: pytest.LogCaptureFixture) -> Sequence[logging.LogRecord]:
    """Return the records of what failed."""
    return [record for record in caplog.records if record.exc_info]


def raised_in(record: logging.LogRecord) -> str:
    """Return the name of the function that raised."""
    assert record.exc_info is not None
    error = record.exc_info[1]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert error is not None
    frame = error.__traceback__
    assert frame is not None
    while frame.tb_next is not None:
        frame = frame.tb_next
    return frame.tb_frame.f_code.co_name


@attrs.frozen
class Told:
    """What came of a turn."""

    outcome: Any
    sources: Sequence[str]


async def told_of(agent: Any, **settings: Any) -> Told:
    """Post one message, and return what came of it."""
    async with opened(agent, **settings) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        outcome: Any
        try:
            outcome = await ask(sessions)
        except SagentsError as exc:
            outcome = exc
        seen = await read_all(subscriber)
    return Told(outcome, [event.source for event in of_kind(seen, ChainError)])


async def test_tool_when_it_raises(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A tool that raises is a WARNING with its traceback, its call and its conversation, and without its arguments."""
    told = await told_of(make_agent(Call("pay", token=SECRET), "Done.", tools=[pay]))
    (record,) = of_library(caplog)

    assert isinstance(told.outcome, Completed)
    assert (logging.WARNING, "trio_sagents") == (record.levelno, record.name)
    assert record.getMessage().startswith("tool 'pay' raised, in call ")
    assert record.getMessage().endswith(" of conversation 'c'")
    assert "pay" == raised_in(record)
    assert SECRET not in caplog.text


async def test_tool_when_it_crashes_the_agent(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What is no `Exception` ends the agent; it is in the log once, and viewers are told which tool it was."""

    class Fatal(BaseException):
        """Not to be contained as a result."""

    async def fatal() -> str:
        """Fail."""
        raise Fatal

    told = await told_of(make_agent(Call("fatal"), tools=[fatal]))
    (record,) = of_library(caplog)

    assert ["tool 'fatal'"] == told.sources
    assert (logging.ERROR, "fatal") == (record.levelno, raised_in(record))


@pytest.mark.parametrize("hook", ["before_turn", "system_prompt", "before_model", "around_model", "after_model", "claim", "around_tool"])
async def test_hook_when_it_raises(autojump_clock: Any, caplog: pytest.LogCaptureFixture, hook: str) -> None:
    """A hook that raises is an ERROR, once, with its traceback; the event names the middleware."""
    told = await told_of(Agent(model=ScriptedModel(calls_pay), tools=[pay], middleware=[Broken(hook)]))
    (record,) = of_library(caplog)

    assert isinstance(told.outcome, Failed)
    assert ["middleware 'Broken'"] == told.sources
    assert (logging.ERROR, "fail") == (record.levelno, raised_in(record))
    assert f"the middleware 'Broken' failed in {hook}, in conversation 'c'" == record.getMessage()


async def test_hook_when_it_raises_at_the_start(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The start that a hook ended is one record, of the hook."""
    told = await told_of(make_agent(middleware=[Broken("on_start")]))
    (record,) = of_library(caplog)

    assert isinstance(told.outcome, SagentsError)
    assert "the middleware 'Broken' failed in on_start, in conversation 'c'" == record.getMessage()


async def test_hook_when_it_returns_junk(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A hook that returns something else is an ERROR, once."""
    told = await told_of(make_agent(middleware=[Silly()]))
    (record,) = of_library(caplog)

    assert ["middleware 'Silly'"] == told.sources
    assert (logging.ERROR, "conversation 'c'") == (record.levelno, record.getMessage()[-16:])


@pytest.mark.parametrize("hook", ["before_turn", "around_model"])
async def test_hook_when_it_fails_in_a_sub_agent(autojump_clock: Any, caplog: pytest.LogCaptureFixture, hook: str) -> None:
    """What fails in a sub-agent passes the tool that runs it: it is in the log once, as what it is."""
    inner = Agent(model=ScriptedModel(["inner"]), middleware=[Broken(hook)])
    task = Task(name="x", description="Does.", agent=inner)
    outer = make_agent(Call("task", name="x", instructions="do"), "Done.", middleware=[SubAgents([task])])
    await told_of(outer)
    (record,) = of_library(caplog)

    assert (logging.ERROR, "fail") == (record.levelno, raised_in(record))


async def test_model_when_its_adapter_raises(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A bug of an adapter is an ERROR with its traceback, the turn and the conversation; the event names the model."""
    told = await told_of(Agent(model=BrokenModel()))
    (record,) = of_library(caplog)

    assert ["model 'gpt-x'"] == told.sources
    assert (logging.ERROR, "stream") == (record.levelno, raised_in(record))
    assert record.getMessage().startswith("the adapter of model 'gpt-x' failed, in turn ")
    assert record.getMessage().endswith(" of conversation 'c'")
    assert "the host's words" not in str(told.outcome.error)


@pytest.mark.parametrize(
    ("router", "stage", "function"),
    [(Router(route_error=Bug("x")), "route", "resolve"), (Router(build_error=Bug("x")), "build", "create_agent")],
)
async def test_start_when_the_host_raises(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture, router: Router, stage: str, function: str
) -> None:
    """A router or a factory that raises is an ERROR, once for each start, with the conversation and the stage."""
    await told_of(router)
    (record,) = of_library(caplog)

    assert (logging.ERROR, function) == (record.levelno, raised_in(record))
    assert f"the agent of conversation 'c' could not start; it failed at stage '{stage}'" == record.getMessage()


async def test_store_when_it_cannot_commit(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A store that raises is an ERROR, once, though several writes fail with it; the event names the store."""
    store = FaultyStore()
    store.faults.fail("commit", 2)
    told = await told_of(make_agent(), store=store)
    (record,) = of_library(caplog)

    assert isinstance(told.outcome, Failed)
    assert ["store FaultyStore"] == told.sources
    assert (logging.ERROR, "call") == (record.levelno, raised_in(record))
    assert "the store FaultyStore could not save conversation 'c'" in record.getMessage()


async def test_store_when_it_cannot_load(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A store that raises at a load is an ERROR, once."""
    store = FaultyStore()
    store.faults.fail("load")
    await told_of(make_agent(), store=store)
    (record,) = of_library(caplog)

    assert "the agent of conversation 'c' could not start; it failed at stage 'load'" == record.getMessage()


class Limit(Middleware):
    """Has a limit of its own."""

    async def before_model(self, context: Any, request: Any) -> Any:
        """Refuse."""
        raise LimitExceeded("pages", 3)


class Passing(Middleware):
    """Only lets calls of the model pass."""

    async def around_model(self, context: Any, request: Any, call_next: Callable[..., Any]) -> Any:
        """Pass."""
        return await call_next(request)


@pytest.mark.parametrize(
    ("agent", "source"),
    [
        (make_agent(middleware=[Limit()]), "middleware 'Limit'"),
        (Agent(model=ScriptedModel(calls_pay), tools=[pay], limits=TurnLimits(max_rounds=1), middleware=[Passing()]), ""),
        (make_agent([Call("pay"), Call("pay")], tools=[pay], limits=TurnLimits(max_calls=1), middleware=[Passing()]), ""),
    ],
    ids=["middleware", "max_rounds", "max_calls"],
)
async def test_limit_when_it_is_reached(autojump_clock: Any, caplog: pytest.LogCaptureFixture, agent: Agent, source: str) -> None:
    """A limit that is reached is no bug, so it is not in the log; the event names a middleware only if the limit is its own."""
    told = await told_of(agent)

    assert [] == [record for record in of_library(caplog) if record.levelno >= logging.ERROR]
    assert isinstance(told.outcome, Failed)
    assert [source] == told.sources


class Picky(Middleware):
    """Takes no message."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def on_message(self, context: Any, message: Any) -> None:
        """Refuse."""
        raise self.error


@pytest.mark.parametrize(("error", "count"), [(ValueError("not this"), 0), (Bug("x"), 1)], ids=["refuses", "fails"])
async def test_message_when_a_middleware_does_not_take_it(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture, error: Exception, count: int
) -> None:
    """A ValueError refuses the message, which its sender hears; anything else is a failure, and in the log."""
    async with opened(make_agent(middleware=[Picky(error)])) as sessions:
        info = await sessions.start("c")
        with pytest.raises(MiddlewareError):
            await info.agent.notify_middleware("Picky", 1)

    assert count == len(of_library(caplog))

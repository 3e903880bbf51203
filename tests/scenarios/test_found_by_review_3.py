"""What a third hostile review tried: what middleware and factories hand over to be kept, and what users get wrong first."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.support.scenarios import ask, opened, state_of
from trio_sagents import (
    Agent,
    Budget,
    Cancelled,
    Completed,
    ConversationTitle,
    Failed,
    FilesConfig,
    ImagePart,
    LimitExceeded,
    Middleware,
    MiddlewareAction,
    MiddlewareError,
    ModelFailed,
    SessionConfig,
    SessionOpts,
    SingleFactoryRouter,
    StartFailed,
    SubAgents,
    Summarization,
    Task,
    Todo,
    ToolContext,
    ToolResult,
    open_files,
    open_sessions,
)
from trio_sagents.testing import Call, ScriptedModel

UNKEPT: Mapping[str, Sequence[Any]] = {
    "doubled id": [Todo(1, "a"), Todo(1, "b")],
    "id zero": [Todo(0, "a")],
    "no int": [Todo("1", "a")],  # type: ignore[arg-type]  # wrong on purpose, as the others
    "bool": [Todo(True, "a")],
    "no text": [Todo(1, 3)],  # type: ignore[arg-type]  # as above
    "no status": [Todo(1, "a", "done")],  # type: ignore[arg-type]  # as above
}


class Keeper(Middleware):
    """Keeps as todos what the host says."""

    async def on_message(self, context: Any, message: Any) -> None:
        await context.update(todos=message)


@pytest.mark.parametrize("wrong", [*UNKEPT, "no todo"])
async def test_todos_of_a_middleware_that_could_not_be_loaded_again(autojump_clock: Any, wrong: str) -> None:
    """They are refused before anything is stored, so the conversation starts again."""
    async with opened(Agent(model=ScriptedModel(["hi"]), middleware=[Keeper()])) as sessions:
        handle = (await sessions.start("c")).agent
        await handle.notify_middleware("Keeper", [Todo(2, "b"), Todo(1, "a")])
        with pytest.raises(MiddlewareError) as caught:
            await handle.notify_middleware("Keeper", UNKEPT.get(wrong, ["a"]))
        await sessions.stop("c")
        await sessions.start("c")

        assert "todos[" in str(caught.value.__cause__)
        assert (Todo(1, "a"), Todo(2, "b")) == (await state_of(sessions)).todos


async def test_todos_of_a_tool_that_could_not_be_loaded_again(autojump_clock: Any) -> None:
    """The model reads why; nothing was stored."""

    async def note(context: ToolContext) -> str:
        await context.update(todos=[Todo(1, "a"), Todo(1, "b")])
        return "noted"

    async with opened(Agent(model=ScriptedModel([Call("note"), "hi"]), tools=[note])) as sessions:
        await ask(sessions)
        await sessions.stop("c")
        await sessions.start("c")
        state = await state_of(sessions)

        assert () == state.todos
        assert ["failed"] == [one.status for message in state.messages for one in message.results]


@pytest.mark.parametrize("wrong", UNKEPT)
async def test_todos_of_a_seed_that_could_not_be_loaded_again(autojump_clock: Any, wrong: str) -> None:
    """The start fails, and nothing was stored."""

    async def build(_agent_id: str, _config: Any) -> tuple[Agent, SessionOpts]:
        return Agent(model=ScriptedModel(["hi"])), SessionOpts(fresh_state_attrs={"todos": UNKEPT[wrong]})

    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(build))) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.post("c", "Hello")

        assert "fresh_state_attrs['todos']" in str(caught.value.__cause__)
        assert [] == list((await sessions.conversations()).items)


@pytest.mark.parametrize(
    "change",
    [
        {"content": {"text": object()}},
        {"content": "text"},
        {"status": "seen"},
        {"role": "robot"},
        {"content_type": ""},
        {"created_at": None},
    ],
    ids=lambda change: ", ".join(change),
)
async def test_transformed_row_that_no_store_takes(autojump_clock: Any, change: Any) -> None:
    """It is hidden, as one whose transformation raised; no post fails for it, and nobody blames the store."""

    class Spoil(Middleware):
        def transform_row(self, row: Any) -> Any:
            return attrs.evolve(row, **change) if row.role == "user" else row

    async with opened(Agent(model=ScriptedModel(["hi"]), middleware=[Spoil()])) as sessions:
        assert isinstance(await ask(sessions), Completed)

        shown = [(row.content_type, row.content["text"]) for row in (await sessions.history("c")).rows]
        assert [("notification", "(this cannot be shown)"), ("text", "hi")] == shown


class Nursery(Middleware):
    """Asks the model in a nursery of its own, so that what comes out is in a group."""

    async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
        async with trio.open_nursery():
            return await call_next(request)


class Spoiler(Middleware):
    """Fails behind the model."""

    async def around_model(self, context: Any, request: Any, call_next: Any) -> Any:
        raise KeyError("password")


@pytest.mark.parametrize("where", ["agent", "sub-agent"])
async def test_error_of_a_middleware_that_comes_through_a_nursery(autojump_clock: Any, where: str) -> None:
    """It still has its cause, for whoever has to find out, and says its kind."""
    inner = Agent(model=ScriptedModel(["never"]), middleware=[Nursery(), Spoiler()])
    handing = ScriptedModel([Call("task", instructions="do it", name="t"), "end"])
    outer = Agent(model=handing, middleware=[SubAgents([Task(name="t", description="t", agent=inner)])])
    async with opened(inner if where == "agent" else outer) as sessions:
        outcome: Any = await ask(sessions)
        results = [one.content for message in (await state_of(sessions)).messages for one in message.results]

    said = "the middleware 'Spoiler' failed in around_model with KeyError"
    if where == "agent":
        assert (said, "'password'") == (str(outcome.error), str(outcome.error.__cause__))
    else:
        assert [f"MiddlewareError: {said}"] == results


async def test_error_of_a_model_that_comes_through_a_nursery(autojump_clock: Any) -> None:
    """The adapter has said why it failed; that stands."""

    class Adapter:
        name = "adapter"

        @asynccontextmanager
        async def stream(self, request: Any) -> AsyncIterator[Any]:
            async with trio.open_nursery():
                raise ModelFailed("no answer") from OSError("the line is dead")
            yield

    async with opened(Agent(model=Adapter())) as sessions:
        outcome: Any = await ask(sessions)

    assert isinstance(outcome.error.__cause__, OSError)


class Changing(Middleware):
    """Brings a tool more when it was told to, and fails or hangs the first time that it is asked for it."""

    def __init__(self, trouble: str) -> None:
        self.trouble: str | None = trouble
        self.is_more = False

    async def on_message(self, context: Any, message: Any) -> None:
        self.is_more = True
        context.refresh_tools()

    async def tools(self, context: Any) -> Any:
        async def more() -> str:
            return "more"

        if not self.is_more:
            return []
        trouble, self.trouble = self.trouble, None
        if trouble == "fails":
            raise OSError("the server of the tools is down")
        if trouble == "hangs":
            await trio.sleep_forever()
        return [more]


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_tools_that_could_not_be_asked_for_are_asked_for_again(autojump_clock: Any, trouble: str) -> None:
    """The turn fails, or is cancelled; the next one has them, though nobody asked for a refresh again."""
    model = ScriptedModel(["hi", "hi again"])
    async with opened(Agent(model=model, middleware=[Changing(trouble)])) as sessions:
        await (await sessions.start("c")).agent.notify_middleware("Changing", None)
        receipt = await sessions.post("c", "one")
        with trio.move_on_after(1):
            await receipt.wait()
        await sessions.cancel_turn("c")
        assert isinstance(await receipt.wait(), Failed if trouble == "fails" else Cancelled)

        assert isinstance(await ask(sessions), Completed)
        assert ["more"] == [tool.name for tool in model.requests[-1].tools]


async def test_result_of_the_wrong_kind_from_around_tool(autojump_clock: Any) -> None:
    """The error says which class a result is: there are two of that name."""

    class Block(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            return ToolResult("blocked")

    async def pay() -> str:
        return "paid"

    async with opened(Agent(model=ScriptedModel([Call("pay"), "hi"]), tools=[pay], middleware=[Block()])) as sessions:
        outcome: Any = await ask(sessions)

        assert "ToolResultPart('call-1', 'pay', text, status)" in str(outcome.error.__cause__)


async def test_event_for_a_channel_that_does_not_exist(autojump_clock: Any) -> None:
    """Nobody would ever read it: it is an error, not silence."""

    class Shout(Middleware):
        async def on_message(self, context: Any, message: Any) -> None:
            context.publish(message, "loud")

    async with opened(Agent(model=ScriptedModel(["hi"]), middleware=[Shout()])) as sessions:
        handle = (await sessions.start("c")).agent
        with pytest.raises(MiddlewareError) as caught:
            await handle.notify_middleware("Shout", MiddlewareAction("Shout", {}))

        assert "not 'loud'" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Agent(model=ScriptedModel([]), system_prompt=None), "Agent.system_prompt must be str, not NoneType"),  # type: ignore[arg-type]  # wrong on purpose, as the others
        (lambda: Agent(model=ScriptedModel([]), limits=3), "Agent.limits must be TurnLimits, not int"),  # type: ignore[arg-type]  # as above
        (lambda: Agent(model=ScriptedModel([]), name=3), "Agent.name must be str or None, not int"),  # type: ignore[arg-type]  # as above
        (lambda: Agent(model=ScriptedModel([]), fallbacks=ScriptedModel([])), "Agent.fallbacks must be a sequence of Models"),  # type: ignore[arg-type]  # as above
        (lambda: Budget(max_calls=1, per="day"), "Budget.per must be one of 'turn', 'session', not 'day'"),  # type: ignore[arg-type]  # as above
        (lambda: Summarization(model="gpt"), "Summarization.model must be a Model"),  # type: ignore[arg-type]  # as above
        (lambda: Summarization(estimate=3), "Summarization.estimate must be a function, not 3"),  # type: ignore[arg-type]  # as above
        (lambda: ConversationTitle(model="gpt"), "ConversationTitle.model must be a Model"),  # type: ignore[arg-type]  # as above
        (lambda: ImagePart("image/png", data=b"\x89PNG"), "ImagePart.data must be str or None, not bytes"),  # type: ignore[arg-type]  # as above
        (lambda: SessionConfig(factory_router=object()), "factory_router"),  # type: ignore[arg-type]  # as above
    ],
)
def test_wrong_settings_are_told_in_a_sentence(make: Any, words: str) -> None:
    """What is wrong, what is wanted, and nothing else."""
    with pytest.raises((TypeError, ValueError), match=r"\A(?!\()") as caught:
        make()

    assert words in str(caught.value)


async def test_limits_are_told_with_all_their_digits() -> None:
    """A count of bytes that is rounded says of a thing that is just too large that it is not."""
    assert "max_state_bytes exceeded: 8388609, the limit is 8388608" == str(LimitExceeded("max_state_bytes", 8388609, most=8388608))
    assert "seconds exceeded: 0.300521, the limit is 0.3" == str(LimitExceeded("seconds", 0.3005209, most=0.3))
    async with open_files(FilesConfig(max_file_bytes=1_000_000)) as files:
        with pytest.raises(LimitExceeded, match="max_file_bytes would be 1000001, the limit is 1000000;"):
            await files.area("x").create("/a", "a" * 1_000_001)

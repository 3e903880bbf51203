"""Rows that tools, middleware and the host add; the row of a person's answer; what people see of a post."""

from typing import Any

import pytest

from tests.support.people import interrupt_in
from tests.support.scenarios import DictRows, DictStates, ask, kill_9, make_agent, of_kind, opened, read_until
from trio_sagents import (
    Agent,
    Answer,
    AskUser,
    ConversationNotFound,
    DisplayMessageSaved,
    DisplayMessageUpdated,
    MemoryStore,
    MessageConflict,
    Middleware,
    MiddlewareContext,
    MiddlewareEvent,
    Row,
    SameScope,
    SingleFactoryRouter,
    SubAgents,
    Task,
    TodoList,
    ToolContext,
    TurnEnded,
    UserMessage,
    rows_of,
)
from trio_sagents.testing import Call, ScriptedModel


async def chart(context: ToolContext) -> str:
    """Draw."""
    await context.update(metadata={"drawn": True}, rows=[Row("chart", {"points": [1, 2]}), Row("notification", {"text": "drawn"}, key="d")])
    return "drawn"


class Greeter(Middleware):
    """Adds a row before each turn."""

    async def before_turn(self, context: MiddlewareContext) -> None:
        await context.update(rows=[Row("notification", {"text": "hello"}, key="greeting")])


async def own(sessions: Any, conversation_id: str = "c") -> list[tuple[str, str, Any]]:
    page = await sessions.history(conversation_id)
    return [(row.role, row.content_type, row.content) for row in page.rows if row.row_id.startswith("x:")]


async def test_rows_of_tools_middleware_and_host() -> None:
    """They are in the transcript, in order, durable, told by events; the model never sees them."""
    store = MemoryStore()
    agent = make_agent(Call("chart"), "done", "again", tools=[chart], middleware=[Greeter()])
    async with opened(SingleFactoryRouter(agent), store=store) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await ask(sessions)
        await sessions.add_rows("c", [Row("notification", {"text": "from outside"}, role="assistant")])
        await ask(sessions, "more")
        events = await read_until(subscriber, TurnEnded, count=2)

        expected = [
            ("system", "notification", {"text": "hello"}),
            ("system", "chart", {"points": [1, 2]}),
            ("system", "notification", {"text": "drawn"}),
            ("assistant", "notification", {"text": "from outside"}),
        ]
        assert expected == await own(sessions)
        assert expected == [
            (row.role, row.content_type, row.content)
            for event in of_kind(events, DisplayMessageSaved)
            if (row := event.row).row_id.startswith("x:")
        ]
        assert ["x:greeting"] == [event.row.row_id for event in of_kind(events, DisplayMessageUpdated) if event.row.row_id.startswith("x:")]
    async with opened(SingleFactoryRouter(agent), store=kill_9(store)) as sessions:
        assert expected == await own(sessions)
    assert isinstance(agent.model, ScriptedModel)
    assert all("from outside" not in str(request) for request in agent.model.requests)


async def test_rows_of_a_sub_agent() -> None:
    """What a tool of a sub-agent adds is in the transcript of the conversation."""
    task = Task(name="t", description="d", model=ScriptedModel([Call("chart"), "drew"]), tools=[chart])
    agent = make_agent(Call("task", name="t", instructions="draw"), "done", middleware=[SubAgents([task], general_purpose=False)])
    async with opened(SingleFactoryRouter(agent)) as sessions:
        await ask(sessions)

        assert ["chart", "notification"] == [kind for _, kind, _ in await own(sessions)]


async def test_rows_with_a_host_transcript() -> None:
    """A host's own transcript is given them by `save_row`, if it has it; viewers get the event in any case."""

    class Rows(DictRows):
        def __init__(self) -> None:
            super().__init__()
            self.own: list[Any] = []

        async def save_row(self, scope: Any, row: Any, context: Any) -> None:
            self.own.append((row.row_id, row.content_type))

    for display in (Rows(), DictRows()):
        agent = make_agent("hi")
        settings = {"agent_persistence": DictStates(), "display_message_persistence": display}
        async with opened(SingleFactoryRouter(agent), **settings) as sessions, sessions.open_subscriber() as subscriber:
            await subscriber.subscribe("c")
            await ask(sessions)
            await sessions.add_rows("c", [Row("chart", {"a": 1}, key="k")])
            events = await read_until(subscriber, DisplayMessageSaved, count=3)

            assert "x:k" in [event.row.row_id for event in of_kind(events, DisplayMessageSaved)]
        if isinstance(display, Rows):
            assert [("x:k", "chart")] == display.own


async def test_rows_when_the_host_transcript_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The row is on its way to those who follow, and the log says that the transcript does not get it again."""

    class Full(DictRows):
        async def save_row(self, scope: Any, row: Any, context: Any) -> None:
            raise OSError("no room")

    settings = {"agent_persistence": DictStates(), "display_message_persistence": Full()}
    async with opened(SingleFactoryRouter(make_agent("hi")), **settings) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await sessions.start("c")
        await sessions.add_rows("c", [Row("chart", {"a": 1}, key="k")])
        events = await read_until(subscriber, DisplayMessageSaved)

    assert ["x:k"] == [event.row.row_id for event in of_kind(events, DisplayMessageSaved)]
    assert "save_row failed for conversation 'c'; the row is not handed over again" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Row("", {}),
        lambda: Row("a", []),
        lambda: Row("a", {}, key=""),
        lambda: Row("a", {}, role="x"),
        lambda: Row("a", {"x": object()}),
    ],
)  # type: ignore[arg-type]
def test_row_when_it_cannot_be_stored(wrong: Any) -> None:
    """A row that no store takes is refused when it is made."""
    with pytest.raises((TypeError, ValueError)):
        wrong()


async def test_rows_when_they_are_none(autojump_clock: Any) -> None:
    """What is no row is a TypeError, and nothing is done; a stranger is told that there is no such conversation."""
    async with opened(SingleFactoryRouter(make_agent("hi")), authorizer=SameScope(str)) as sessions:
        await ask(sessions, scope="alice")
        with pytest.raises(TypeError, match="rows must be a sequence of Row"):
            await sessions.add_rows("c", [{"text": "x"}], scope="alice")  # type: ignore[list-item]
        with pytest.raises(ConversationNotFound):
            await sessions.add_rows("c", [Row("a", {})], scope="bob")


async def test_row_of_an_answer() -> None:
    """A person's answer is a row with the labels that they chose; the model reads the values. A refusal to answer is a notification."""
    options = [{"value": "m", "label": "Medium", "description": "40 cm"}, {"value": "l", "label": "Large"}, {"value": "xl"}]
    calls = [
        Call("ask_user", question="Which size?", kind="multi", options=options, allow_other=True, context="It is a gift."),
        Call("ask_user", question="Why?"),
    ]
    agent = make_agent(calls, "thanks", middleware=[AskUser()])
    async with opened(SingleFactoryRouter(agent)) as sessions:
        which, why = interrupt_in(await ask(sessions)).calls
        assert which.question is not None
        assert "It is a gift." == which.question.context
        assert ["40 cm", "", ""] == [option.description for option in which.question.options]
        await sessions.resume("c", [Answer(why, cancel=True)])
        await (await sessions.resume("c", [Answer(which, ["m", "xl"], other="XXL")])).wait()

        rows = [row for row in (await sessions.history("c")).rows if row.row_id.startswith("a:")]
        assert [("user", "notification"), ("user", "answer")] == [(row.role, row.content_type) for row in rows]
        assert {
            "text": "Medium, xl, XXL",
            "labels": ["Medium", "xl"],
            "values": ["m", "xl"],
            "other": "XXL",
            "question": "Which size?",
            "call_id": which.call_id,
        } == dict(rows[1].content)
    assert isinstance(agent.model, ScriptedModel)
    assert "m, xl, other: XXL" in [result.content for message in agent.model.requests[1].messages for result in message.results]


async def test_display_of_a_post() -> None:
    """People see `display`, the model gets the message; the same id with another display is another message."""
    agent = make_agent("fine")
    async with opened(SingleFactoryRouter(agent)) as sessions:
        receipt = await sessions.post("c", "the long prompt", display="Summarise my inbox", message_id="m")
        await receipt.wait()
        rows = (await sessions.history("c")).rows

        assert ["Summarise my inbox", "fine"] == [row.content["text"] for row in rows]
        assert (await sessions.post("c", "the long prompt", display="Summarise my inbox", message_id="m")).duplicate
        with pytest.raises(MessageConflict):
            await sessions.post("c", "the long prompt", message_id="m")
        with pytest.raises(TypeError, match="display must be"):
            await sessions.post("c", "x", display=5)  # type: ignore[arg-type]
    assert isinstance(agent.model, ScriptedModel)
    assert "the long prompt" == agent.model.requests[0].messages[0].text


async def test_todos_leave_a_row() -> None:
    """With `rows`, the list as it was written is in the transcript, once for each answer, also if all of it is done."""
    done = [{"content": "buy tea", "status": "completed"}]
    first = [Call("write_todos", todos=[{"content": "buy tea"}]), Call("write_todos", todos=[{"content": "boil it"}], merge=True)]
    agent = make_agent(first, Call("write_todos", todos=done), "all done", middleware=[TodoList(rows=True)])
    async with opened(SingleFactoryRouter(agent)) as sessions:
        await ask(sessions)
        rows = [content["todos"] for _, kind, content in await own(sessions) if kind == "todos"]

        assert [["buy tea", "boil it"], ["buy tea"]] == [[todo["content"] for todo in todos] for todos in rows]
        assert "completed" == rows[1][0]["status"]


async def test_events_of_the_host() -> None:
    """The host sends an event of its own to whoever follows the conversation; nobody else can, and no agent starts for it."""
    import attrs

    @attrs.frozen
    class Progress(MiddlewareEvent):
        percent: int

    async with opened(SingleFactoryRouter(make_agent("hi")), authorizer=SameScope(str)) as sessions:
        async with sessions.watch("c", scope="alice") as watch:
            assert await sessions.publish("c", Progress(50), scope="alice")
            await (await sessions.get("c", scope="alice")).publish(Progress(60))
            events = await read_until(watch, Progress, count=2)
            assert [50, 60] == [event.percent for event in of_kind(events, Progress)]
            with pytest.raises(ConversationNotFound):
                await sessions.publish("c", Progress(1), scope="bob")
            with pytest.raises(TypeError, match="inherits MiddlewareEvent"):
                await sessions.publish("c", TurnEnded("t", None), scope="alice")  # type: ignore[arg-type]
        await ask(sessions, scope="alice")
        await sessions.stop("c", scope="alice")
        assert not await sessions.publish("c", Progress(2), scope="alice")


async def test_tag_of_a_subscription() -> None:
    """Every envelope of a subscription has its tag, through restarts; other readers see none."""
    agent: Agent = make_agent()
    async with opened(SingleFactoryRouter(agent)) as sessions, sessions.open_subscriber() as plain:
        async with sessions.watch("a", tag=("left", 1)) as watch:
            await watch.subscribe("b", tag=("right", 2))
            await plain.subscribe("a")
            await ask(sessions, conversation_id="a")
            await ask(sessions, conversation_id="b")
            await sessions.stop("a")
            await ask(sessions, conversation_id="a")
            envelopes = await read_until(watch, TurnEnded, count=3)

            assert {("a", ("left", 1)), ("b", ("right", 2))} == {(envelope.conversation_id, envelope.tag) for envelope in envelopes}
            assert {None} == {envelope.tag for envelope in await read_until(plain, TurnEnded)}


def test_rows_of_is_public() -> None:
    """A host's transcript can make the rows that the library would make."""
    import datetime

    from trio_sagents import Message, TextPart

    (row,) = rows_of(Message("m", "assistant", (TextPart("hi"),), "stop"), datetime.datetime.now(datetime.UTC))

    assert ("text", {"text": "hi"}) == (row.content_type, row.content)


async def test_preprocessor_that_wants_to_know_more() -> None:
    """A preprocessor with a third parameter is told the ids, the state, the display and the host's values; its pair has the last word."""
    from tests.support.scenarios import Router
    from trio_sagents import SessionOpts

    told: list[Any] = []

    async def preprocess(message: UserMessage, scope: Any, context: Any) -> Any:
        told.append(
            (
                context.conversation_id,
                context.agent_id,
                context.message_id,
                len(context.state.messages),
                context.display,
                dict(context.options),
                dict(context.values),
            )
        )
        return UserMessage(f"{message.text}!") if context.display is not None else (UserMessage(f"{message.text}!"), UserMessage("hidden"))

    opts = SessionOpts(supervisor_opts={"message_preprocessor": preprocess}, plan="gold")
    async with opened(Router(make_agent(), opts)) as sessions:
        await (await sessions.post("c", "one", message_id="m1", display="shown", values={"ip": "::1"})).wait()
        await (await sessions.post("c", "two", message_id="m2")).wait()
        rows = [row.content["text"] for row in (await sessions.history("c")).rows]

    assert [
        ("c", "conversation-c", "m1", 0, UserMessage("shown"), {"plan": "gold"}, {"ip": "::1"}),
        ("c", "conversation-c", "m2", 2, None, {"plan": "gold"}, {}),
    ] == told
    assert ["shown", "re: one!", "hidden", "re: two!"] == rows


async def test_values_of_the_host_in_tools() -> None:
    """A tool knows the agent's id and name, the host's options of the session and its values of the post, also in sub-agents and after an
    approval; they are gone after a restart."""
    from tests.support.people import Effects, gated
    from tests.support.scenarios import Router
    from trio_sagents import Approve, SessionOpts

    seen: list[Any] = []

    async def pay(context: ToolContext) -> str:
        """Pay."""
        seen.append((context.agent_id, context.agent_name, dict(context.options), dict(context.values)))
        return "paid"

    task = Task(name="helper", description="d", model=ScriptedModel([Call("pay"), "ok"]), tools=[pay])
    agent = make_agent(
        [Call("pay"), Call("task", name="helper", instructions="go")],
        "done",
        Call("pay"),
        "end",
        tools=[pay],
        name="Otto",
        middleware=[gated(Effects(), "pay"), SubAgents([task], general_purpose=False)],
    )
    store = MemoryStore()
    opts = SessionOpts(region="eu")
    async with opened(Router(agent, opts), store=store) as sessions:
        interrupt = interrupt_in(await (await sessions.post("c", "hi", values={"request": 7})).wait())
        await (await sessions.resume("c", [Approve(call) for call in interrupt.calls])).wait()
        interrupt = interrupt_in(await (await sessions.post("c", "hi", values={"request": 8})).wait())

    assert sorted(
        [("conversation-c", "Otto", {"region": "eu"}, {"request": 7}), ("conversation-c", "helper", {"region": "eu"}, {"request": 7})],
        key=str,
    ) == sorted(seen, key=str)
    async with opened(Router(agent, opts), store=kill_9(store)) as sessions:
        await (await sessions.resume("c", [Approve(call) for call in interrupt.calls])).wait()
    assert ("conversation-c", "Otto", {"region": "eu"}, {}) == seen[-1]

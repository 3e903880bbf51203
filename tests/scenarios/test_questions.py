"""Questions: all kinds of `ask_user`, which answers are allowed, and what the model reads."""

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.payments import STORES, Purse, decide, each_store, gate, hand_over, interrupt_of, paying, task
from tests.support.people import CONVERSATION, MEANWHILE, Effects, Meanwhile, World, call_of, gated, scripted, text_of
from tests.support.scenarios import (
    opened,
)
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Answer,
    Approvals,
    Approve,
    AskUser,
    Decision,
    Interrupted,
    InvalidDecision,
    Option,
    Question,
    Reject,
    Status,
    SubAgents,
    Task,
    envelope_to_dict,
)
from trio_sagents.testing import Call, ScriptedModel

COLOURS = ["red", "green", "blue"]


def asking(*, middleware: Any = None, **arguments: Any) -> Any:
    """Return an agent that asks once, and ends."""
    return scripted(
        Call("ask_user", question="Which?", **arguments), "thanks", "more", middleware=[AskUser() if middleware is None else middleware]
    )


@pytest.mark.parametrize(
    ("arguments", "answer", "text"),
    [
        ({"kind": "single", "options": COLOURS}, {"value": "red"}, "red"),
        ({"kind": "single", "options": COLOURS}, {"value": ["red"]}, "red"),
        ({"kind": "single", "options": COLOURS, "allow_other": True}, {"other": "teal"}, "other: teal"),
        ({"kind": "single", "options": COLOURS, "allow_other": True}, {"value": "teal"}, "other: teal"),
        ({"kind": "multi", "options": COLOURS}, {"value": ["blue", "red"]}, "blue, red"),
        ({"kind": "multi", "options": COLOURS, "allow_other": True}, {"value": ["blue"], "other": "teal"}, "blue, other: teal"),
        ({"kind": "multi", "options": COLOURS, "allow_other": True}, {"other": "teal"}, "other: teal"),
        ({"kind": "text"}, {"value": "as you like"}, "as you like"),
        ({"kind": "text"}, {"other": "as you like"}, "as you like"),
        ({}, {"value": "as you like"}, "as you like"),
        ({"kind": "text"}, {"cancel": True}, "The person declined to answer."),
        ({"kind": "single", "options": COLOURS}, {"cancel": True}, "The person declined to answer."),
        ({"kind": "single", "options": [{"value": "r", "label": "Red"}, {"value": "b"}]}, {"value": "r"}, "r"),
        ({"kind": "single", "options": [{"value": "r", "label": "Red"}, {"value": "b"}]}, {"value": "Red"}, "r"),
    ],
)
@pytest.mark.parametrize("how", ["awake", "crashed"])
async def test_answer_when_it_fits(autojump_clock: Any, how: Meanwhile, arguments: Any, answer: Any, text: str) -> None:
    """The model reads the values that were chosen, the text that was given, or that nobody wanted to answer."""
    async with World(asking(**arguments)) as world:
        interrupt = await world.ask()
        (call,) = interrupt.calls
        assert ("question", "question", ("answer",)) == (interrupt.kind, call.kind, tuple(call.allowed))
        assert call.question is not None
        assert arguments.get("kind", "text") == call.question.kind
        await world.pass_time(how)

        assert "thanks" == text_of(await world.decide(Answer(call, **answer)))
        assert {"ask_user": ("completed", text)} == await world.results()


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"kind": "single", "options": COLOURS}, {"value": "teal"}),
        ({"kind": "single", "options": COLOURS}, {"value": "Red"}),
        ({"kind": "single", "options": COLOURS}, {"value": " red"}),
        ({"kind": "single", "options": COLOURS}, {"value": ["red", "blue"]}),
        ({"kind": "single", "options": COLOURS}, {"value": []}),
        ({"kind": "single", "options": COLOURS}, {"other": "teal"}),
        ({"kind": "single", "options": COLOURS, "allow_other": True}, {"value": "red", "other": "teal"}),
        ({"kind": "multi", "options": COLOURS}, {"value": ["red", "red"]}),
        ({"kind": "multi", "options": COLOURS}, {"value": []}),
        ({"kind": "multi", "options": COLOURS}, {"value": ["red"], "other": "teal"}),
        ({"kind": "text"}, {"value": "  "}),
        ({"kind": "text"}, {"value": ["one", "two"]}),
        ({"kind": "text", "allow_cancel": False}, {"cancel": True}),
        ({"kind": "single", "options": COLOURS, "allow_cancel": False}, {"cancel": True}),
    ],
)
async def test_answer_when_it_does_not_fit(autojump_clock: Any, arguments: Any, answer: Any) -> None:
    """An answer that the question does not allow is refused, with nothing done, and it can be answered after that."""
    async with World(asking(**arguments)) as world:
        interrupt = await world.ask()
        with pytest.raises(InvalidDecision):
            await world.resume(Answer(interrupt.calls[0], **answer))
        assert interrupt == await world.interrupt()
        good = {"text": "fine", "single": "red", "multi": ["red"]}[arguments["kind"]]

        assert "thanks" == text_of(await world.decide(Answer(interrupt.calls[0], good)))


async def test_values_win_over_labels(autojump_clock: Any) -> None:
    """A label that is the value of another option does not make one answer out of the other."""
    options = [{"value": "keep", "label": "delete"}, {"value": "delete", "label": "keep"}]
    async with World(asking(kind="single", options=options)) as world:
        interrupt = await world.ask()
        await world.decide(Answer(interrupt.calls[0], "keep"))

        assert "keep" == (await world.results())["ask_user"][1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"question": " "},
        {"question": "Which?", "kind": "single"},
        {"question": "Which?", "kind": "single", "options": ["one"]},
        {"question": "Which?", "kind": "single", "options": ["one", "one"]},
        {"question": "Which?", "kind": "single", "options": ["one", " "]},
        {"question": "Which?", "kind": "multi", "options": [str(number) for number in range(11)]},
        {"question": "Which?", "kind": "text", "options": ["a", "b"]},
        {"question": "Which?", "kind": "many", "options": ["a", "b"]},
        {"question": 5},
        {},
    ],
)
async def test_question_when_it_asks_nothing_sensible(autojump_clock: Any, arguments: Any) -> None:
    """The model is told what is wrong with its question; nobody is bothered."""
    agent = scripted(Call("ask_user", **arguments), "I see", middleware=[AskUser()])
    async with World(agent) as world:
        assert "I see" == text_of(await world.post())
        assert "failed" == (await world.results())["ask_user"][0]


@pytest.mark.parametrize(
    ("settings", "arguments", "expected"),
    [
        ({"allow_other": True}, {"kind": "single", "options": COLOURS}, (True, True)),
        ({"allow_other": False}, {"kind": "single", "options": COLOURS, "allow_other": True}, (False, True)),
        ({"allow_cancel": False}, {"kind": "text"}, (False, False)),
        ({"allow_cancel": True}, {"kind": "text", "allow_cancel": False}, (False, True)),
        ({"allow_other": True}, {"kind": "text"}, (False, True)),
    ],
)
async def test_settings_win_over_the_model(autojump_clock: Any, settings: Any, arguments: Any, expected: Any) -> None:
    """The host's settings for free answers and for declining apply to every question."""
    async with World(asking(middleware=AskUser(**settings), **arguments)) as world:
        question = (await world.ask()).calls[0].question
        assert question is not None
        assert expected == (question.allow_other, question.allow_cancel)


@pytest.mark.parametrize("how", MEANWHILE)
async def test_question_beside_approvals_and_a_sub_agent(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """One interrupt holds all kinds of pending calls. The turn continues when all are settled, in any order, in several steps."""
    effects = Effects()
    sub = ScriptedModel([[Call("pay", amount=2), Call("ask_user", question="Why?")], "sub done"])
    task = Task(name="t", description="d", model=sub, tools=[effects.tool("pay")], middleware=[AskUser()])
    calls = [
        Call("pay", amount=1),
        Call("ask_user", question="Which?", kind="single", options=COLOURS),
        Call("task", instructions="x", name="t"),
        Call("free", amount=0),
    ]
    agent = scripted(
        calls,
        "all done",
        tools=[effects.tool("pay"), effects.tool("free")],
        middleware=[gated(effects, "pay"), AskUser(), SubAgents([task], general_purpose=False)],
    )
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        assert ["free"] == effects.names
        which, why = call_of(interrupt, "ask_user"), call_of(interrupt, "ask_user", 1)
        mine, its = call_of(interrupt, "pay"), call_of(interrupt, "pay", 1)
        assert [(), (), ("t",), ("t",)] == [tuple(call.path) for call in (mine, which, its, why)]
        for decision in (Answer(why, "because"), Approve(its), Answer(which, "red")):
            await world.pass_time(how)
            await world.decide(decision)
            assert ["free"] == effects.names
        await world.pass_time(how)

        assert "all done" == text_of(await world.decide(Reject(mine)))
        assert [2] == effects.of("pay")
        results = await world.results()
        assert ("completed", "red") == results["ask_user"]
        assert ("completed", "sub done") == results["task"]
        assert {"pay 2 done", "because"} == {result.content for message in sub.requests[1].messages for result in message.results}
        assert 4 == len(await world.records())


async def test_answer_again_and_another_one(autojump_clock: Any, backend: Backend) -> None:
    """The same answer again returns its outcome, and another answer is refused. `cancel` and a value are different answers."""
    async with World(asking(kind="single", options=COLOURS), backend) as world:
        interrupt = await world.ask()
        first = await world.resume(Answer(interrupt.calls[0], "red"))
        again = await world.resume(Answer(interrupt.calls[0], "red"))

        assert (False, True) == (first.duplicate, again.duplicate)
        assert await first.wait() == await again.wait()
        for other in (Answer(interrupt.calls[0], "blue"), Answer(interrupt.calls[0], cancel=True), Answer(interrupt.calls[0], other="red")):
            with pytest.raises(AlreadyDecided):
                await world.resume(other)


@pytest.mark.parametrize("decision", [Approve, Reject])
async def test_question_takes_no_approval(autojump_clock: Any, decision: Any) -> None:
    """An approval of a question would run a function that answers nothing: it is refused."""
    async with World(asking()) as world:
        interrupt = await world.ask()
        with pytest.raises(InvalidDecision, match="answer"):
            await world.resume(decision(interrupt.calls[0]))


async def test_question_over_the_wire(autojump_clock: Any) -> None:
    """A browser gets the question in the event, and sends its answer as JSON."""
    async with World(asking(kind="single", options=[{"value": "r", "label": "Red"}, {"value": "b"}])) as world:
        async with world.sessions.open_subscriber() as subscriber:
            await subscriber.subscribe(CONVERSATION)
            await world.ask()
            found = None
            with trio.move_on_after(1):
                async for envelope in subscriber:
                    data = envelope_to_dict(envelope)["event"]
                    if data.get("type") == "StatusChanged" and data.get("status") == "interrupted":
                        found = data["data"]
        assert found is not None
        (call,) = found["calls"]
        assert ["r", "b"] == [option["value"] for option in call["question"]["options"]]
        sent = {"type": "answer", "interrupt_id": call["interrupt_id"], "call_id": call["call_id"], "digest": call["digest"], "value": "b"}

        assert "thanks" == text_of(await world.decide(Decision.from_dict(sent)))
        assert sent == Decision.from_dict(sent).to_dict()


async def test_question_is_what_is_stored(autojump_clock: Any, backend: Backend) -> None:
    """The question comes back from the store as it was asked."""
    async with World(asking(kind="multi", options=[{"value": "r", "label": "Red"}, {"value": "b"}], allow_other=True), backend) as world:
        before = await world.ask()
        await world.crash()
        after = await world.interrupt()

        assert before == after
        assert after is not None
        assert Question("Which?", "multi", [Option("r", "Red"), Option("b")], allow_other=True) == after.calls[0].question


@each_store
async def test_batch_answered_in_three_processes(autojump_clock: Any, store: str) -> None:
    """A sub-agent's approval, a question and an approval are answered in one life each; the turn continues after the last."""
    purse, settings = Purse(), STORES[store]()

    def agent() -> Agent:
        inner = attrs.evolve(paying(purse), model=ScriptedModel(said))
        replies = [hand_over(), Call("ask_user", question="Which?"), Call("pay", amount=2)]
        model = ScriptedModel(lambda request: "end" if request.messages[-1].role == "tool" else replies)
        return Agent(model=model, tools=purse.tools, middleware=[gate(), AskUser(), SubAgents([task(inner)])])

    def said(request: Any) -> Any:
        names = [result.name for message in request.messages for result in message.results]
        return Call("look", what="x") if not names else Call("pay", amount=1) if names == ["look"] else "done"

    async with opened(agent(), **settings) as sessions:
        calls = (await interrupt_of(sessions)).calls
    for left, call in zip((2, 1, 0), calls, strict=True):
        async with opened(agent(), **settings) as sessions:
            outcome = await decide(sessions, Answer(call, "blue") if call.kind == "question" else Approve(call))
            waiting = outcome.interrupt.calls if isinstance(outcome, Interrupted) else ()

            assert left == len(waiting)
            assert (await sessions.agent_info("c")).status is (Status.INTERRUPTED if left else Status.IDLE)
    assert [1, 2] == sorted(purse.paid)
    assert ["x"] == purse.looked


async def test_question_when_everything_needs_approval(autojump_clock: Any, backend: Backend) -> None:
    """A question can be answered whatever gates there are: an answer runs nothing."""
    agent = scripted(Call("ask_user", question="Who?"), "end", middleware=[Approvals({}, when=lambda tool: True), AskUser()])
    async with World(agent, backend) as world:
        (call,) = (await world.ask()).calls
        outcome = await world.decide(Answer(call, "Ann"))

    assert "question" == call.kind
    assert "end" == text_of(outcome)


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("other", ["", "  "])
async def test_answer_of_one_s_own_that_is_empty(autojump_clock: Any, kind: str, other: str) -> None:
    """An empty free answer is refused, and the question stays pending."""
    question = Call("ask_user", question="Which?", kind=kind, options=["S", "M"], allow_other=True)
    async with World(scripted(question, "end", middleware=[AskUser()])) as world:
        (call,) = (await world.ask()).calls
        with pytest.raises(InvalidDecision, match="not empty"):
            await world.resume(Answer(call, other=other))
        outcome = await world.decide(Answer(call, other="XL"))

    assert "end" == text_of(outcome)


@pytest.mark.parametrize("seconds", [None, "60", True, 0, float("nan")])
def test_questions_with_a_time_that_is_none(seconds: Any) -> None:
    """An invalid time is refused, and the error names it."""
    with pytest.raises((TypeError, ValueError), match=r"AskUser\.timeout"):
        AskUser(timeout=seconds)


@pytest.mark.parametrize("said", [{"value": "S"}, {"other": "XL"}])
def test_answer_that_says_something_and_declines(said: Any) -> None:
    """An answer cannot contain a value and decline, even if a browser sent it."""
    with pytest.raises(ValueError, match="not both"):
        Answer("i", "c", "d", cancel=True, **said)
    with pytest.raises(ValueError, match="not both"):
        Decision.from_dict({"type": "answer", "interrupt_id": "i", "call_id": "c", "digest": "d", "cancel": True, **said})


@pytest.mark.parametrize(
    ("settings", "gone", "kinds"),
    [
        ({}, set(), ["single", "multi", "text"]),
        ({"allow_other": True}, {"allow_other"}, ["single", "multi", "text"]),
        ({"allow_other": False, "allow_cancel": False}, {"allow_other", "allow_cancel"}, ["single", "multi", "text"]),
        ({"kinds": ["single"]}, set(), ["single"]),
        ({"kinds": ["text", "multi"]}, set(), ["multi", "text"]),
        ({"kinds": "text"}, {"kind", "options", "allow_other"}, None),
    ],
)
async def test_schema_of_questions_when_the_host_decides(settings: Any, gone: set[str], kinds: Any) -> None:
    """What the host has decided is not in the schema; the kinds are those that may be asked."""
    agent = asking(middleware=AskUser(prompt="Ask before you buy.", **settings))
    async with World(agent) as world:
        await world.post()
        (spec,) = agent.model.requests[0].tools
        properties = spec.parameters["properties"]

        assert {"question", "kind", "options", "allow_other", "allow_cancel", "context"} - gone == set(properties)
        assert kinds == (properties["kind"]["enum"] if "kind" in properties else None)
        assert "Ask before you buy." in agent.model.requests[0].system


@pytest.mark.parametrize(
    ("kinds", "arguments", "words"),
    [
        (["text"], {"kind": "single", "options": COLOURS}, "no question of the kind 'single' may be asked; the kind must be one of 'text'"),
        (["single", "multi"], {}, "no question of the kind 'text' may be asked"),
    ],
)
async def test_question_of_a_kind_that_may_not_be_asked(kinds: Any, arguments: Any, words: str) -> None:
    """Nobody is asked, and the model reads which kinds there are."""
    agent = asking(middleware=AskUser(kinds=kinds), **arguments)
    async with World(agent) as world:
        assert "thanks" == text_of(await world.post())
        (result,) = [result for message in agent.model.requests[1].messages for result in message.results]
        assert result.is_error
        assert words in result.content


@pytest.mark.parametrize("kinds", [[], ["one"], "voice"])
def test_ask_user_when_its_kinds_are_wrong(kinds: Any) -> None:
    """Kinds that do not exist are refused when the middleware is made."""
    with pytest.raises(ValueError, match="AskUser.kinds"):
        AskUser(kinds=kinds)

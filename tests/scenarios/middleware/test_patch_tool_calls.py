"""`PatchToolCalls`: whatever is in a history, the model gets a valid history."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.middleware import agent_with, asked, on_file
from tests.support.providers.histories import histories, wild_histories
from tests.support.scenarios import Router, ask
from tests.support.strict_provider import check_request
from trio_sagents import Completed, Message, Middleware, SessionOpts, TextPart, ToolCall
from trio_sagents import ToolResultPart as Result
from trio_sagents.data.requests import ModelRequest
from trio_sagents.middleware import PatchToolCalls, valid_history


def user(message_id: str, text: str = "hi") -> Message:
    return Message(message_id, "user", (TextPart(text),))


def answer(message_id: str, *parts: Any) -> Message:
    return Message(message_id, "assistant", [TextPart(part) if isinstance(part, str) else part for part in parts])


def call(call_id: str, name: str = "f") -> ToolCall:
    return ToolCall(call_id, name)


def result(message_id: str, call_id: str, content: str = "done", name: str = "f") -> Message:
    return Message(message_id, "tool", (Result(call_id, name, content),))


def shape(messages: Sequence[Message]) -> list[str]:
    """Return each message in a few letters."""
    said: list[str] = []
    for message in messages:
        words = [
            message.text,
            *(f"({made.call_id})" for made in message.calls),
            *(f"{made.call_id}={made.status}" for made in message.results),
        ]
        said.append(f"{message.role[0]}:{' '.join(word for word in words if word)}")
    return said


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([user("1"), answer("2", call("a")), user("3")], ["u:hi", "a:(a)", "t:a=cancelled", "u:hi"]),
        (
            [user("1"), answer("2", call("a"), call("b")), result("3", "b")],
            ["u:hi", "a:(a) (b)", "t:b=completed", "t:a=cancelled"],
        ),
        ([user("1"), answer("2", call("a")), result("3", "a"), result("4", "a")], ["u:hi", "a:(a)", "t:a=completed"]),
        ([user("1"), result("2", "a"), answer("3", "x"), user("4")], ["u:hi", "a:x", "u:hi"]),
        ([user("1"), result("2", "a"), answer("3", call("a")), user("4")], ["u:hi", "a:(a)", "t:a=cancelled", "u:hi"]),
        ([user("1"), answer("2", call("a")), user("3"), result("4", "a")], ["u:hi", "a:(a)", "t:a=completed", "u:hi"]),
        ([answer("1", "hello"), user("2")], ["u:(The conversation begins here.)", "a:hello", "u:hi"]),
        ([user("1"), answer("2", "x")], ["u:hi", "a:x", "u:Continue."]),
        ([user("1"), answer("2", "x"), answer("3", "y"), user("4")], ["u:hi", "a:xy", "u:hi"]),
        ([user("1"), answer("2"), user("3", " ")], ["u:hi"]),
        ([], ["u:Continue."]),
        (
            [user("1"), answer("2", call("a")), result("3", "a"), answer("4", call("a")), result("5", "a")],
            ["u:hi", "a:(a)", "t:a=completed", "a:(a_2)", "t:a_2=completed"],
        ),
        ([user("1"), answer("2", call("a", "g")), result("3", "a", name="f")], ["u:hi", "a:(a)", "t:a=completed"]),
    ],
)
def test_valid_history_when_it_is_not(given_: list[Message], expected: list[str]) -> None:
    """Missing results are added, superfluous results are left out, and misplaced results are moved."""
    patched = valid_history(given_)

    assert expected == shape(patched)
    check_request(ModelRequest("", patched))


def test_result_when_it_stands_before_its_call() -> None:
    """A result does not answer a call that was made later."""
    patched = valid_history([user("1"), answer("2", call("a")), user("3"), answer("4", call("a")), result("5", "a")])

    assert ["u:hi", "a:(a)", "t:a=cancelled", "u:hi", "a:(a_2)", "t:a_2=completed"] == shape(patched)


def test_ids_when_answers_are_joined() -> None:
    """Two answers in a row are joined under the id of the first. New messages have ids that no other message has."""
    patched = valid_history([user("1"), answer("2", "x"), answer("3", "y", call("a")), user("patched-result-a")])

    assert ["1", "2", "patched-result-a", "patched-result-a_2"] == [message.message_id for message in patched]


@pytest.mark.slow
@given(histories())
@settings(deadline=None)
def test_valid_history_when_it_is(messages: list[Message]) -> None:
    """What the library stores is left alone, but for answers that say nothing, and for an end that providers do not take."""
    patched = valid_history(messages)
    kept = [message for message in messages if message.role != "assistant" or message.calls or message.text.strip()]

    check_request(ModelRequest("", patched))
    assert [message for message in patched if not message.message_id.startswith("patched-")] == kept
    assert patched is messages or len(kept) < len(messages) or messages[-1].role == "assistant"


@pytest.mark.slow
@given(wild_histories())
@example([Message("m", "user", (Result("", "", "x"),))])
@settings(deadline=None, max_examples=150)
def test_valid_history_when_wild(messages: list[Message]) -> None:
    """Whatever it is given, it makes a history that a strict provider takes, which it then leaves alone; no word is lost."""
    patched = valid_history(messages)

    check_request(ModelRequest("", patched))
    assert valid_history(patched) is patched
    for message in messages:
        if message.role in {"user", "assistant"} and message.text.strip():
            assert any(message.text in other.text for other in patched)
    assert sum(len(message.calls) for message in messages if message.role == "assistant") == sum(len(message.calls) for message in patched)


@given(st.lists(st.sampled_from(["a", "b"]), max_size=6))
@settings(deadline=None)
def test_results_when_doubled(ids: list[str]) -> None:
    """Each call gets the first result that comes after it; other results are left out."""
    messages = [user("1"), answer("2", call("a"), call("b")), *(result(f"r{n}", identifier, str(n)) for n, identifier in enumerate(ids))]

    found = {part.call_id: part.content for message in valid_history(messages) for part in message.results}

    for call_id in ("a", "b"):
        assert found[call_id] == (str(ids.index(call_id)) if call_id in ids else "This call was cancelled: it has no result.")


class Spoils(Middleware):
    """Makes a mess of each request."""

    async def before_model(self, context: Any, request: ModelRequest) -> ModelRequest:
        return ModelRequest(request.system, [answer("x", call("lost")), *request.messages, result("y", "nobody")], request.tools)


async def test_request_when_it_was_spoiled(autojump_clock: Any, database: Path) -> None:
    """What a host seeds, and what another middleware makes of a request, is valid when the model gets it; also after a restart."""
    seeded = Router(agent_with(Spoils(), PatchToolCalls()), SessionOpts(fresh_state_attrs={"messages": [answer("seed", "Welcome!")]}))
    async with on_file(database, seeded) as sessions:  # type: ignore[arg-type]  # a router will do
        first = await ask(sessions, "one")
    agent = agent_with(Spoils(), PatchToolCalls())
    async with on_file(database, agent) as sessions:
        second = await ask(sessions, "two")
        state = await (await sessions.start("c")).agent.state()

    assert isinstance(first, Completed), first
    assert isinstance(second, Completed), second
    assert ["seed"] == [message.message_id for message in state.messages if message.message_id in {"seed", "x", "y"}]
    assert ["u:(The conversation begins here.)", "a:(lost)", "t:lost=cancelled"] == shape(asked(agent)[0].messages)[:3]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [answer("1", "x"), user("2")],
        [user("1"), answer("2", "x")],
        [user("1"), answer("2", "x"), answer("3", "y"), user("4")],
        [user("1"), user("1")],
        [user("1", " ")],
        [user("")],
        [user("1"), answer("2", call("a")), user("3")],
        [user("1"), answer("2", call("a"))],
        [user("1"), answer("2", call("a")), user("3"), result("4", "a")],
        [user("1"), answer("2", call("a")), result("3", "a"), result("4", "a")],
        [user("1"), answer("2", call("a")), result("3", "b")],
        [user("1"), answer("2", call("a")), result("3", "a", name="g")],
        [user("1"), answer("2", call("a"), call("a")), result("3", "a"), result("4", "a")],
        [user("1"), answer("2", call("a")), result("3", "a"), answer("4", call("a")), result("5", "a")],
        [user("1"), answer("2", call("")), result("3", "")],
        [user("1"), result("2", "a")],
        [user("1"), Message("2", "system", (TextPart("x"),)), user("3")],
        [user("1"), answer("2", call("a"), call("b")), Message("3", "tool", (*result("x", "a").parts, *result("y", "b").parts))],
        [Message("1", "user", (TextPart("x"), call("a")))],
    ],
)
def test_checker_when_a_provider_would_refuse(messages: list[Message]) -> None:
    """The checker that these tests rely on refuses what strict providers refuse."""
    with pytest.raises(AssertionError):
        check_request(ModelRequest("", messages))

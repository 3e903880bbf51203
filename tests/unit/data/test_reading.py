"""What the model reads of a history: nothing that a provider has refused, and no more than fits; always a request that is valid."""

import datetime
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.providers.histories import histories
from tests.support.strict_provider import check_request
from trio_sagents.conversation.rows import rows_of
from trio_sagents.data.estimates import estimate_tokens, messages_tokens
from trio_sagents.data.messages import FilePart, ImagePart, Message, Part, TextPart, ToolCall, ToolResult
from trio_sagents.data.reading import (
    LARGE,
    LEFT_OUT,
    LIMITS,
    MEDIA_NOT_SENT,
    NOT_SENT,
    RESULT_NOT_SENT,
    UNSENT,
    UNSENT_MEDIA,
    as_read,
    known_limit,
    shortened,
    unread,
    without_history,
)
from trio_sagents.data.requests import ModelRequest

IMAGE = ImagePart("image/png", "AAAA")


def user(message_id: str, *parts: Part | str, turn: str | None = None) -> Message:
    """Return what a person said."""
    return Message(message_id, "user", [TextPart(part) if isinstance(part, str) else part for part in parts], turn_id=turn)


def says(message_id: str, text: str = "ok", turn: str | None = None, **metadata: Any) -> Message:
    """Return an answer."""
    return Message(message_id, "assistant", (TextPart(text),), "stop", turn, metadata)


def calls(message_id: str, call_id: str, turn: str | None = None, **arguments: Any) -> Message:
    """Return an answer that calls a tool."""
    return Message(message_id, "assistant", (ToolCall(call_id, "look", arguments),), "tool_calls", turn)


def result(message_id: str, call_id: str, text: str, turn: str | None = None, *media: ImagePart | FilePart) -> Message:
    """Return the result of a call."""
    return Message(message_id, "tool", (ToolResult(call_id, "look", text, media=media),), None, turn)


def short(messages: Sequence[Message], most: float) -> Sequence[Message]:
    """Return the messages of the shortened request."""
    return shortened(ModelRequest("", tuple(messages)), most).messages


def test_messages_when_nothing_was_refused() -> None:
    """A history without marks is read as it is: the same object."""
    messages = [user("u", "hi"), says("a")]

    assert as_read(messages) is messages


def test_messages_when_refused() -> None:
    """A message that was refused is read as a note in its place; a result keeps its call."""
    messages = [
        user("u1", "how is it made?", IMAGE),
        says("a1", "", **{UNSENT: ["u1"]}),
        user("u2", "look"),
        calls("a2", "c"),
        result("r", "c", "secret", None, IMAGE),
        says("a3", "", **{UNSENT: ["r"]}),
        user("u3", "and?"),
    ]
    read = as_read(messages)

    assert (TextPart(NOT_SENT),) == read[0].parts
    assert (ToolResult("c", "look", RESULT_NOT_SENT),) == read[4].parts
    assert [message.message_id for message in messages] == [message.message_id for message in read]
    check_request(ModelRequest("", tuple(message for message in read if message.parts)))


def test_messages_when_their_media_were_refused() -> None:
    """Of a message whose images are not sent any more, the texts are."""
    messages = [
        user("u1", "what is it?", IMAGE),
        calls("a1", "c"),
        result("r", "c", "a cat", None, IMAGE),
        says("a2", **{UNSENT_MEDIA: ["u1", "r"]}),
    ]
    read = as_read(messages)

    assert (TextPart("what is it?"), TextPart(MEDIA_NOT_SENT)) == read[0].parts
    assert (ToolResult("c", "look", f"a cat\n{MEDIA_NOT_SENT}"),) == read[2].parts


@pytest.mark.parametrize("mark", [None, "u", 5, [5], {"u": 1}])
def test_messages_when_a_mark_is_wrong(mark: Any) -> None:
    """A mark that cannot be read marks nothing."""
    messages = [user("u", "hi"), says("a", **{UNSENT: mark})]

    assert messages == list(as_read(messages))


def test_unread_when_a_turn_has_calls() -> None:
    """A refused request was about what no answer has read: the message of the person, or the last results."""
    history = [user("u1", "hi"), says("a1"), user("u2", "go"), user("u3", "now")]

    assert ["u2", "u3"] == list(unread(history))
    assert ["r"] == list(unread([*history, calls("a2", "c"), result("r", "c", "x")]))
    assert [] == list(unread([*history, says("a2")]))


def test_request_when_a_result_is_large() -> None:
    """The largest result goes first, to a note that says how much was cut and how to read it again; small messages stay."""
    messages = [
        user("u1", "read"), calls("a1", "c1"), result("r1", "c1", "begin" + "x" * 50_000 + "end"),
        calls("a2", "c2"), result("r2", "c2", "y" * 5_000), says("a3"), user("u2", "and?"),
    ]  # fmt: skip
    read = short(messages, 3_000)
    content = read[2].results[0].content

    assert len(content) < LARGE
    assert content.startswith("begin")
    assert content.endswith("end")
    assert "48608 characters of this result are left out" in content
    assert "call look again" in content
    assert messages[3:] == list(read[3:])


def test_request_when_many_messages_are_small() -> None:
    """The oldest messages are left out, as few as will do, with a note; instructions and what is asked now stay."""
    messages = [Message("s", "system", (TextPart("Be kind."),))]
    for number in range(50):
        messages += [user(f"u{number}", f"question {number} " + "x" * 300), says(f"a{number}")]
    messages.append(user("last", "and now?"))
    read = short(messages, 1000)

    assert "Be kind." == read[0].text
    assert LEFT_OUT == read[1].text
    assert messages[-1] == read[-1]
    assert 800 <= messages_tokens(read) <= 1000
    check_request(ModelRequest("", tuple(read)))


def test_request_when_one_turn_is_long() -> None:
    """Of a long turn, what people said in it stays, and its last rounds; what is between them is left out."""
    messages = [user("u0", "before"), says("a0"), user("u1", "look at all", turn="t")]
    for number in range(40):
        messages += [calls(f"a{number + 1}", f"c{number}", turn="t"), result(f"r{number}", f"c{number}", "x" * 400, "t")]
    messages.insert(20 + 3, user("steered", "and this", turn="t"))
    read = short(messages, 1000)

    texts = [message.text for message in read]
    assert "look at all" in texts
    assert "and this" in texts
    assert "before" not in texts
    assert messages[-1] == read[-1]
    assert messages_tokens(read) <= 1000
    check_request(ModelRequest("", tuple(read)))


def test_request_when_the_last_result_is_too_large() -> None:
    """A result that nobody has read yet is cut only if nothing else helps; then its call is still answered."""
    messages = [
        user("u1", "a" * 9_000),
        says("a1"),
        user("u2", "read", turn="t"),
        calls("a2", "c", "t"),
        result("r", "c", "x" * 90_000, "t"),
    ]

    assert "x" * 90_000 == short(messages, 24_000)[-1].results[0].content
    assert "characters of this result are left out" in short(messages, 3_000)[-1].results[0].content


def test_request_when_the_message_itself_is_too_large() -> None:
    """What a person asks now is never cut: the request stays as long as that."""
    messages = [user("u1", "a" * 9_000), says("a1"), user("u2", "b" * 9_000)]
    read = short(messages, 100)

    assert "b" * 9_000 == read[-1].text
    assert LEFT_OUT == read[0].text


def test_request_when_it_is_cut_in_other_ways() -> None:
    """Images, files, long texts of earlier turns and long arguments are cut, too."""
    file = FilePart("a.pdf", "application/pdf", "A" * 90_000)
    messages = [
        user("u1", "x" * 9_000, IMAGE, file), calls("a1", "c", path="/a", content="y" * 9_000, more=[{"z": "z" * 9_000}]),
        result("r1", "c", "short", None, IMAGE), says("a2", "w" * 9_000), user("u2", "and?", IMAGE),
    ]  # fmt: skip
    read = short(messages, 3_500)

    assert [TextPart(MEDIA_NOT_SENT)] * 2 == list(read[0].parts[1:])
    assert f"short\n{MEDIA_NOT_SENT}" == read[2].results[0].content
    assert all(len(text) < LARGE for text in (read[0].text, read[3].text, read[1].calls[0].arguments["content"]))
    assert len(read[1].calls[0].arguments["more"][0]["z"]) < LARGE
    assert "/a" == read[1].calls[0].arguments["path"]
    assert messages[-1] == read[-1]


def test_request_when_the_history_is_left_out() -> None:
    """Without its history a request has the instructions, a note, and the running turn."""
    messages = [user("u1", "hi"), says("a1"), user("u2", "look", turn="t"), calls("a2", "c", "t"), result("r", "c", "x", "t")]
    alone = without_history(ModelRequest("", tuple(messages)))

    assert [LEFT_OUT, "I see that earlier messages are left out.", "look"] == [message.text for message in alone.messages[:3]]
    assert messages[2:] == list(alone.messages[2:])
    check_request(alone)
    first = ModelRequest("", tuple(messages[2:]))
    assert without_history(first) is first


@given(histories(), st.integers(0, 400))
@settings(deadline=None, max_examples=150)
def test_request_when_any_is_shortened(messages: list[Message], most: int) -> None:
    """Whatever a request is shortened to, it is one that a strict provider takes; what is asked now, and what fits, stays."""
    *messages, last = [message for message in messages if message.parts]
    while last.role == "assistant" and messages:
        *messages, last = messages
    request = ModelRequest("", (*messages, last))
    try:
        check_request(request)
    except AssertionError:
        return
    read = shortened(request, most)

    check_request(read)
    if estimate_tokens(request) <= most:
        assert request == read
    if last.role == "user":
        assert last == read.messages[-1]


@pytest.mark.parametrize(
    ("metadata", "limit"), [({}, None), ({LIMITS: 5}, None), ({LIMITS: {"other": 5}}, None), ({LIMITS: {"m": True}}, None),
                            ({LIMITS: {"m": -1}}, None), ({LIMITS: {"m": "5"}}, None), ({LIMITS: {"m": 5000}}, 5000)],
)  # fmt: skip
def test_limit_when_stored(metadata: Any, limit: float | None) -> None:
    """What is stored as the size that a model takes is used if it is one."""
    assert limit == known_limit(metadata, "m")


def test_row_when_a_message_was_refused() -> None:
    """The row of a turn without an answer names the messages that are not sent any more."""
    ended = Message("a", "assistant", (), "stream_error", metadata={UNSENT: ["u"]})
    (row,) = rows_of(ended, datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))

    assert ("notification", ["u"]) == (row.content_type, row.content["unsent"])

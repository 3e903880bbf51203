"""Records and values that cannot be used are refused by name, and nothing else is raised."""

import datetime
from typing import Any

import attrs
import pytest

from trio_sagents.data.config import SessionOpts
from trio_sagents.data.events import DisplayMessageSaved, DisplayMessageUpdated
from trio_sagents.data.interrupt_wire import decode_interrupt, decode_records, encode_interrupt
from trio_sagents.data.interrupts import Interrupt, pending
from trio_sagents.data.messages import ImagePart, Message, TextPart, ThinkingPart, ToolCall, UserMessage
from trio_sagents.data.records import DisplayMessage
from trio_sagents.data.state import State
from trio_sagents.data.wire import SCHEMA_VERSION, decode_message, decode_metadata, decode_todos, encode_message, upgrade
from trio_sagents.exceptions import StateError, StateFromFuture

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def message(**changes: Any) -> dict[str, Any]:
    return {**encode_message(Message("m1", "user", (TextPart("hi"),), turn_id="t")), **changes}


def interrupt(**changes: Any) -> dict[str, Any]:
    return {**encode_interrupt(Interrupt("i1", "t", [attrs.evolve(pending(ToolCall("c1", "pay", {})), interrupt_id="i1")]), {}), **changes}


@pytest.mark.parametrize(
    "record",
    [
        [],
        {**message(), "v": 0},
        {**message(), "v": True},
        {**message(), "v": "1"},
        {key: value for key, value in message().items() if key != "v"},
        message(parts="hi"),
        message(parts=["hi"]),
        message(parts=[{"type": "smell", "text": "x"}]),
        message(parts=[{"type": ["text"], "text": "x"}]),
        message(parts=[{"type": "text", "text": 5}]),
        message(metadata=[]),
        message(message_id=1),
        message(more=1),
    ],
)
def test_message_when_the_record_is_none(record: Any) -> None:
    """A stored message that is none is a StateError that names the conversation."""
    with pytest.raises(StateError) as caught:
        decode_message("c", record)

    assert "c" == caught.value.conversation_id


def test_upgrade_when_there_are_steps() -> None:
    """Each step is done once, in order, from the record's version on; one of a newer library is refused as such."""
    steps = {
        SCHEMA_VERSION: lambda fields: {**fields, "log": ["first"]},
        SCHEMA_VERSION + 1: lambda fields: {**fields, "log": [*fields["log"], "second"]},
    }

    assert {"log": ["first", "second"]} == upgrade("c", {"v": SCHEMA_VERSION}, steps)
    assert {"log": ["x", "second"]} == upgrade("c", {"v": SCHEMA_VERSION + 1, "log": ["x"]}, steps)
    assert {"log": ["x"]} == upgrade("c", {"v": SCHEMA_VERSION + 2, "log": ["x"]}, steps)
    with pytest.raises(StateFromFuture):
        upgrade("c", {"v": SCHEMA_VERSION + 3}, steps)


@pytest.mark.parametrize("decode", [decode_todos, decode_records])
@pytest.mark.parametrize("value", [{}, "x", None])
def test_list_when_it_is_none(decode: Any, value: Any) -> None:
    """Todos and decisions are lists."""
    with pytest.raises(StateError, match="not a list"):
        decode("c", value)


@pytest.mark.parametrize("value", [[], "x", None, {"a": {1}}])
def test_metadata_when_they_are_none(value: Any) -> None:
    """Metadata are a JSON object."""
    with pytest.raises(StateError):
        decode_metadata("c", value)


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": 5},
        {"expires_at": "2024-01-01T00:00:00"},
        {"expires_at": "soon"},
        {"calls": [], "suspended": []},
        {"decided": [{"interrupt_id": "i1", "call_id": "c2", "digest": "d", "kind": "approve", "content": "{}", "by": 1.5, "at": "x"}]},
    ],
)
def test_interrupt_when_the_record_is_none(changes: Any) -> None:
    """An instant is aware and an owner is a key, or the interrupt cannot be used."""
    with pytest.raises(StateError):
        decode_interrupt("c", interrupt(**changes))

    assert decode_interrupt("c", interrupt())[0] is not None


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ToolCall("c", "pay", [1]), TypeError),  # type: ignore[arg-type]  # refused
        (lambda: UserMessage(b"bytes"), TypeError),  # type: ignore[arg-type]  # refused
        (lambda: UserMessage(5), TypeError),  # type: ignore[arg-type]  # refused
        (lambda: UserMessage([]), ValueError),
        (lambda: UserMessage([ThinkingPart("hm")]), TypeError),  # type: ignore[list-item]  # refused
        (lambda: UserMessage([ImagePart("image/png")]), ValueError),
        (lambda: SessionOpts(supervisor_opts=[]), TypeError),  # type: ignore[arg-type]  # refused
    ],
)
def test_value_when_it_is_none(make: Any, error: type[Exception]) -> None:
    """What cannot be a value is refused where it is made."""
    with pytest.raises(error):
        make()


def test_last_text_when_there_is_none() -> None:
    """The last text of an assistant is found, whatever follows it; without any the text is empty."""
    asked = Message("u1", "user", (TextPart("x"),))
    said = Message("a1", "assistant", (TextPart("so"),), "stop", "t")
    asking = Message("a2", "assistant", (ToolCall("c1", "pay", {}),), "tool_calls", "t")

    assert "" == State().last_text == State([asked]).last_text
    assert "so" == State([said, asking, asked]).last_text


def test_row_event_when_asked_for_its_message() -> None:
    """An event of a row names the message that the row shows."""
    row = DisplayMessage("m:u1:0", "u1", "user", "text", {"text": "x"}, "completed", NOW)

    assert ["u1", "u1"] == [DisplayMessageSaved(row).message_id, DisplayMessageUpdated(row).message_id]

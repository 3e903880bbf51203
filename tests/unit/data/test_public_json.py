"""What hosts send to pages beside envelopes: rows, interrupts and outcomes as JSON."""

import datetime
import json

from trio_sagents import (
    CancelCause,
    Cancelled,
    DisplayMessage,
    DisplayMessageSaved,
    Envelope,
    Interrupt,
    Interrupted,
    Message,
    PendingCall,
    Status,
    StatusChanged,
    TextPart,
    TurnEnded,
    envelope_to_dict,
    interrupt_to_dict,
    outcome_to_dict,
    row_to_dict,
    rows_of,
)

NOW = datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC)


def event_of(event: object) -> dict:
    return envelope_to_dict(Envelope("a", "c", "main", 1, 1, event, "i"))["event"]


def test_row_to_dict_when_compared_with_its_event() -> None:
    """A row has the same form alone as in its event, where it also has the name of its class; it is plain JSON."""
    (row,) = rows_of(Message("m-1", "assistant", (TextPart("hello"),), stop_reason="stop"), NOW)
    plain = row_to_dict(row)

    assert isinstance(row, DisplayMessage)
    assert event_of(DisplayMessageSaved(row))["row"] == {"type": "DisplayMessage", **plain}
    assert plain == json.loads(json.dumps(plain))
    assert ("m:m-1:0", "2026-12-01T00:00:00+00:00", {"text": "hello"}) == (plain["row_id"], plain["created_at"], plain["content"])


def test_interrupt_to_dict_when_compared_with_its_event() -> None:
    """An interrupt has the same form alone as in `StatusChanged` and `Snapshot`."""
    interrupt = Interrupt("i-1", "t-1", [PendingCall("c-1", "pay", {"amount": 1}, interrupt_id="i-1")])

    assert interrupt_to_dict(interrupt) == event_of(StatusChanged(Status.INTERRUPTED, interrupt))["data"]
    assert "i-1" == interrupt_to_dict(interrupt)["calls"][0]["interrupt_id"]


def test_outcome_to_dict_when_compared_with_its_event() -> None:
    """An outcome has the same form alone as in `TurnEnded`."""
    for outcome in (Cancelled(CancelCause.USER), Interrupted(Interrupt("i-1", "t-1"))):
        assert outcome_to_dict(outcome) == event_of(TurnEnded("t-1", outcome))["outcome"]
    assert {"type": "Cancelled", "cause": "user"} == outcome_to_dict(Cancelled(CancelCause.USER))

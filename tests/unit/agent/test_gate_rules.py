"""The rules of the gate that are plain functions: what is demanded, what a decision meets, and what is asked again."""

from typing import Any

import attrs
import pytest

from trio_sagents.agent import Tool, may_repeat
from trio_sagents.agent._gate import MAX_ASKED, ask_again, both, demand_of, edits, met_by, text_of_edit
from trio_sagents.conversation.decided import as_run, changes_arguments, decided_call
from trio_sagents.data.interrupts import DecisionRecord, PendingCall, Question, pending, record_of, replaces
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import ToolCall

CALL = ToolCall("c1", "pay", {"amount": 5})


def asked(**more: Any) -> PendingCall:
    """Return the call as people are asked about it."""
    return pending(CALL, **{"interrupt_id": "i1", "demands": ("clerk",), **more})


def record(kind: str, content: JSON | None = None, call: PendingCall | None = None) -> DecisionRecord:
    """Return the record of a decision."""
    return record_of(asked() if call is None else call, kind, content or {}, "", "alice", "2030-01-01T00:00:00+00:00")


EDITED = record("edit", {"arguments": {"amount": 500}})
AGAIN = asked(arguments={"amount": 500}, interrupt_id="i2", asked_before=1, demands=("director",), met=("clerk",))


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({}, True),
        ({"arguments": {"amount": 9}}, True),
        ({"text": "above 100"}, False),
        ({"allowed": ("approve",)}, False),
        ({"timeout": 5.0}, False),
        ({"kind": "question", "question": Question("sure?")}, False),
    ],
    ids=str,
)
def test_demand_when_the_claim_differs(change: Any, is_same: bool) -> None:
    """A demand is what a middleware wants of people, whatever the arguments are."""
    assert is_same == (demand_of(asked(), "Gate", 0) == demand_of(asked(**change), "Gate", 0))


def test_demand_when_another_middleware_has_it() -> None:
    """The same words of another middleware, or of one inside a sub-agent, are another demand."""
    demands = {demand_of(asked(), middleware, depth) for middleware in ("Gate", "Other") for depth in (0, 1)}

    assert len(demands) == 4


def test_both_when_two_demand() -> None:
    """One claim for two allows what both allow, in the shorter time, and names both."""
    first = asked(allowed=("approve", "edit"), claimed_by=("a, b",), timeout=9.0)
    second = asked(allowed=("approve", "reject"), claimed_by=("c",), demands=("director",), timeout=5.0)
    found = both(first, second)

    assert (("approve",), ("a, b", "c"), ("clerk", "director"), 5.0) == (found.allowed, found.claimed_by, found.demands, found.timeout)
    assert ("reject",) == both(asked(allowed=("edit",)), asked(allowed=("approve",))).allowed


def test_met_when_a_person_edits() -> None:
    """An edit meets what the person was shown; what was met for the arguments before is met no more."""
    assert ("clerk",) == met_by(EDITED)
    assert ("clerk", "director") == met_by(record("approve", call=AGAIN))
    assert ("director",) == met_by(record("edit", {"arguments": {"amount": 9}}, AGAIN))


def test_ask_again_when_it_is_the_last_time() -> None:
    """People are told that the call was edited; at the last time they can approve or reject, and not edit."""
    found = ask_again(asked(text="above 100", demands=("director",)), EDITED, ("clerk",), text_of_edit(CALL, EDITED))

    assert (1, ("clerk",), ("director",)) == (found.asked_before, found.met, found.demands)
    assert 'above 100\nEdited by a person: the arguments were {"amount":5}' == found.text
    assert "edit" in found.allowed
    last = record("edit", {"arguments": {"amount": 9}}, asked(asked_before=MAX_ASKED - 2))
    assert ("approve", "reject") == ask_again(asked(), last, (), "why").allowed
    assert ("reject",) == ask_again(asked(allowed=("edit",)), last, (), "why").allowed


def test_decided_call_when_people_were_asked_again() -> None:
    """A call runs with the arguments that the last decision was about, and with no others."""
    approved = record("approve", call=AGAIN)

    assert {"amount": 500} == decided_call(CALL, EDITED).arguments  # type: ignore[union-attr]  # there is one
    assert {"amount": 500} == decided_call(CALL, approved).arguments  # type: ignore[union-attr]
    assert {"amount": 500} == as_run(CALL, approved).arguments
    assert decided_call(ToolCall("c1", "pay", {"amount": 6}), record("approve")) is None
    assert decided_call(ToolCall("c2", "pay", {"amount": 5}), approved) is None
    assert CALL is as_run(CALL, record("reject", call=AGAIN))


def test_decided_call_when_the_record_was_forged() -> None:
    """Arguments that do not fit the digest of what was shown are not run."""
    forged = record("approve", call=asked(arguments={"amount": 500}, asked_before=1))

    assert decided_call(CALL, attrs.evolve(forged, digest=CALL.digest)) is None


@pytest.mark.parametrize(
    ("found", "is_edit", "changes"),
    [
        (record("approve"), False, False),
        (EDITED, True, True),
        (record("approve", call=AGAIN), False, True),
        (record("reject"), False, False),
    ],
)
def test_edits_when_decided(found: DecisionRecord, is_edit: bool, changes: bool) -> None:
    """An edit changes the arguments; an approval after it keeps them changed."""
    assert (is_edit, changes) == (edits(found), changes_arguments(found))


def test_record_when_the_history_has_the_arguments() -> None:
    """A record has the arguments where nothing else has them: of sub-agents, and of calls that were asked about again."""
    assert ("", "") == (record("approve").name, record("approve").arguments)
    inside = record("approve", call=asked(path=("a",)))
    assert ("pay", '{"amount":5}') == (inside.name, inside.arguments)
    assert '{"amount":500}' == record("approve", call=AGAIN).arguments


def test_replaces_when_a_call_that_ran_was_dismissed() -> None:
    """The last decision holds; but the end of a halt says nothing about the call that halted."""
    halt = pending(CALL, kind="halt", allowed=())

    assert replaces(record("expired", call=AGAIN), EDITED)
    assert replaces(record("superseded", call=AGAIN), EDITED)
    assert not replaces(record("dismissed", call=halt), EDITED)
    assert replaces(record("dismissed", call=halt), None)


def test_may_repeat_when_the_process_died() -> None:
    """Only a call of a tool that says so is run again, and never one that people decided about."""

    async def look(place: str) -> str:
        """Look."""
        return place

    tools = {"look": Tool.of(look, recovery="repeat"), "pay": Tool.of(look, name="pay")}
    call = ToolCall("c1", "look", {"place": "here"})

    assert may_repeat(tools, call, ())
    assert not may_repeat(tools, call, {"c1"})
    assert not may_repeat(tools, CALL, ())
    assert not may_repeat({}, call, ())

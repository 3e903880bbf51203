"""What is kept until the answer to a message is known."""

import contextvars

import trio
from trio.testing import wait_all_tasks_blocked

from trio_sagents.data.outcomes import Unanswered
from trio_sagents.supervisor._receipts import KEPT_OUTCOMES, Accepted, PendingOutcome, Receipts


async def test_pending_outcome_when_it_is_settled_twice() -> None:
    """The first outcome stands, for those who wait and for those who come later."""
    pending, heard = PendingOutcome(), []

    async def wait() -> None:
        heard.append(await pending.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        pending.settle(Unanswered("cut"))
        pending.settle(Unanswered("crashed"))
    heard.append(await pending.wait())

    assert [Unanswered("cut")] * 3 == heard


def accepted() -> Accepted:
    return Accepted(None, "queue", contextvars.copy_context())


def test_receipts_when_a_turn_ends() -> None:
    """Only who waits for the messages of that turn is told; the same message posted again is told the same."""
    receipts, first, second = Receipts(), accepted(), accepted()
    receipts.accepted.update({"u1": first, "u2": second})
    receipts.settle(["u1", "unknown"], Unanswered("cut"))

    assert (Unanswered("cut"), None) == (first.pending.outcome, second.pending.outcome)
    assert ["u2"] == list(receipts.accepted)
    assert [Unanswered("cut"), None] == [receipts.outcome_of(name) for name in ("u1", "u2")]


def test_receipts_when_many_turns_have_ended() -> None:
    """A limited number of outcomes is remembered; the oldest ones are forgotten first."""
    receipts = Receipts()
    for number in range(KEPT_OUTCOMES + 1):
        receipts.settle([f"u{number}"], Unanswered(str(number)))

    assert [None, Unanswered("1")] == [receipts.outcome_of(name) for name in ("u0", "u1")]


def test_receipts_when_the_agent_ends() -> None:
    """Everybody who still waits is told, and nothing is remembered."""
    receipts, waiting = Receipts(), accepted()
    receipts.accepted["u1"] = waiting
    receipts.settle(["u0"], Unanswered("cut"))
    receipts.settle_all(Unanswered("stopped"))

    assert Unanswered("stopped") == waiting.pending.outcome
    assert ({}, None) == (receipts.accepted, receipts.outcome_of("u0"))

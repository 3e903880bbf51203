"""Bugs planted in the library, each found by a sweep: an oracle that lets one pass looks at nothing."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import trio

from tests.search.simulation.lives import chatting
from tests.search.simulation.people_stories import resume
from tests.search.simulation.stories import handle_stop, post, presence, start_with_subscribers, stop, subscribing
from trio_sagents import Approvals
from trio_sagents.broadcast import Subscriber, _presence
from trio_sagents.data.records import Saved
from trio_sagents.storage import commit_queue
from trio_sagents.supervisor import _handle, _registry
from trio_sagents.testing import SimulationError, Tally, simulate_many, sweep_cancels, sweep_crashes, sweep_faults
from trio_sagents.testing._tally import leaves

Plant = Callable[[contextlib.ExitStack], object]


async def _at_once(self: Any, *args: Any) -> None:
    """Stands for a wait that was forgotten."""
    await trio.lowlevel.checkpoint()


def acknowledges_before_it_saves(stack: contextlib.ExitStack) -> None:
    """`post` returns when the message is submitted."""
    stack.enter_context(mock.patch.object(commit_queue.PendingCommit, "wait", _at_once))


def stops_early(stack: contextlib.ExitStack) -> None:
    """`stop` returns when it has asked."""
    stack.enter_context(mock.patch.object(_registry.Entry, "wait_ended", _at_once))


def keeps_subscriptions(stack: contextlib.ExitStack) -> None:
    """A subscriber that is closed stays in the table."""
    stack.enter_context(mock.patch.object(Subscriber, "drop", return_value=None))


def forgets_to_leave(stack: contextlib.ExitStack) -> None:
    """Who leaves stays present."""
    stack.enter_context(mock.patch.object(_presence.Tracked, "leave", return_value=None))


def goes_on_after_a_failed_write(stack: contextlib.ExitStack) -> None:
    """A failed write is reported as done."""
    plain = commit_queue.PendingCommit.finish

    def finish(self: Any, saved: Any, error: Any) -> None:
        plain(self, saved or Saved(), None)

    stack.enter_context(mock.patch.object(commit_queue.PendingCommit, "finish", finish))


def runs_two_agents(stack: contextlib.ExitStack) -> None:
    """The registry does not find who is there."""
    stack.enter_context(mock.patch.object(_registry.Registry, "find", return_value=None))


def stops_a_handle_early(stack: contextlib.ExitStack) -> None:
    """The handle's stop waits for nobody."""
    stack.enter_context(mock.patch.object(_handle, "stop_entry", _at_once))


def asks_nobody(stack: contextlib.ExitStack) -> None:
    """Calls that need an approval run without one."""

    async def claim(self: Any, context: Any, call: Any, tool: Any) -> None:
        await trio.lowlevel.checkpoint()

    stack.enter_context(mock.patch.object(Approvals, "claim", claim))


def closes_nothing_after_a_crash(stack: contextlib.ExitStack) -> None:
    """A history that a crash cut is used as it is."""
    module = importlib.import_module("trio_sagents.data.history")
    for user in list(sys.modules.values()):
        if getattr(user, "close_after_crash", None) is module.close_after_crash and user is not module:
            stack.enter_context(mock.patch.object(user, "close_after_crash", return_value=()))


@contextlib.contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Plant a bug while the block is open."""
    with contextlib.ExitStack() as stack:
        plant(stack)
        yield


CASES: list[tuple[Plant, Callable[[], Tally]]] = [
    (acknowledges_before_it_saves, lambda: sweep_crashes(chatting)),
    (stops_early, lambda: sweep_cancels(stop)),
    (keeps_subscriptions, lambda: sweep_cancels(subscribing)),
    (keeps_subscriptions, lambda: sweep_cancels(start_with_subscribers)),
    (forgets_to_leave, lambda: sweep_cancels(presence)),
    (goes_on_after_a_failed_write, lambda: sweep_faults(post)),
    (runs_two_agents, lambda: simulate_many(post, range(20))),
    (asks_nobody, lambda: simulate_many(resume, range(3))),
    (closes_nothing_after_a_crash, lambda: sweep_crashes(chatting)),
    (stops_a_handle_early, lambda: sweep_cancels(handle_stop)),
]


@pytest.mark.parametrize(("plant", "search"), CASES, ids=[f"{plant.__name__}-{number}" for number, (plant, _) in enumerate(CASES)])
def test_planted_bug_when_searched_for(plant: Plant, search: Callable[[], Tally]) -> None:
    """The search that finds nothing in the library finds the bug, and says how to see it again."""
    search()
    with planted(plant), pytest.raises(BaseException) as found:  # a violation, a deadlock, or the library's own assertion
        search()

    assert "python -m trio_sagents.testing replay" in "\n".join(found.value.__notes__)
    # And not for an error of the search itself.
    assert any(isinstance(leaf, AssertionError | SimulationError) for leaf in leaves(found.value)), leaves(found.value)

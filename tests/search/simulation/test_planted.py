"""Each bug that is planted in the library is found by a sweep: a check that lets a bug pass looks at nothing."""

from collections.abc import Callable

import pytest

from tests.search.simulation.lives import chatting
from tests.search.simulation.people_stories import resume
from tests.search.simulation.planted import (
    TARGETS,
    Plant,
    acknowledges_before_it_saves,
    asks_nobody,
    begins_every_turn_at_once,
    closes_nothing_after_a_crash,
    continues_after_a_failed_write,
    forgets_to_leave,
    keeps_subscriptions,
    planted,
    runs_two_agents,
    stops_a_handle_early,
    stops_early,
)
from tests.search.simulation.stories import handle_stop, post, post_at_rest, presence, start_with_subscribers, stop, subscribing
from tests.support.planting import misfits
from trio_sagents.conversation.status import IllegalTransition
from trio_sagents.testing import SimulationError, Tally, simulate_many, sweep_cancels, sweep_crashes, sweep_faults
from trio_sagents.testing._tally import leaves

pytestmark = pytest.mark.slow

CASES: list[tuple[Plant, Callable[[], Tally]]] = [
    (acknowledges_before_it_saves, lambda: sweep_crashes(chatting)),
    (stops_early, lambda: sweep_cancels(stop)),
    (keeps_subscriptions, lambda: sweep_cancels(subscribing)),
    (keeps_subscriptions, lambda: sweep_cancels(start_with_subscribers)),
    (forgets_to_leave, lambda: sweep_cancels(presence)),
    (continues_after_a_failed_write, lambda: sweep_faults(post)),
    (runs_two_agents, lambda: simulate_many(post, range(20))),
    (asks_nobody, lambda: simulate_many(resume, range(3))),
    (closes_nothing_after_a_crash, lambda: sweep_crashes(chatting)),
    (begins_every_turn_at_once, lambda: simulate_many(post_at_rest, range(20))),
    (stops_a_handle_early, lambda: sweep_cancels(handle_stop)),
]


def test_bugs_when_planted() -> None:
    """The library has every function that a bug replaces."""
    assert [] == list(misfits((), TARGETS))


@pytest.mark.parametrize(("plant", "search"), CASES, ids=[f"{plant.__name__}-{number}" for number, (plant, _) in enumerate(CASES)])
def test_planted_bug_when_searched_for(plant: Plant, search: Callable[[], Tally]) -> None:
    """The search that finds nothing in the library finds the bug, and says how to see it again."""
    search()
    with planted(plant), pytest.raises(BaseException) as found:  # a violation, a deadlock, or the library's own assertion
        search()

    assert "python -m trio_sagents.testing replay" in "\n".join(found.value.__notes__)
    # And not for an error of the search itself.
    assert any(isinstance(leaf, AssertionError | SimulationError | IllegalTransition) for leaf in leaves(found.value)), leaves(found.value)

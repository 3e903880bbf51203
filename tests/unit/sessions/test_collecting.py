"""The settings of the garbage collector: changed only when the host asks for it, and brought back by what the call returned."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.scenarios import answer_to, make_agent, opened
from trio_sagents import tune_gc


@pytest.fixture(autouse=True)
def _settings_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)  # what was frozen stays so, as the tests have it anyway


def is_frozen(thing: object) -> bool:
    """Return whether the collector leaves an object alone. The number of those objects says less: it falls when one of them is dropped."""
    return all(each is not thing for each in gc.get_objects())


def test_tune_gc_when_undone() -> None:
    """The young generation is collected as rarely as was asked for; what the call returns brings back the settings."""
    before, living = gc.get_threshold(), [1]
    returned = tune_gc(young=20_000)

    assert (before, 20_000) == (returned, gc.get_threshold()[0])
    gc.set_threshold(*returned)
    assert before == gc.get_threshold()
    assert not is_frozen(living)


def test_tune_gc_when_it_freezes() -> None:
    """What is there is collected once, and then not looked at any more."""
    living = [1]
    before = is_frozen(living)
    tune_gc(freeze=True)

    assert [False, True] == [before, is_frozen(living)]


@pytest.mark.parametrize(("young", "error"), [(0, ValueError), (-5, ValueError), (True, TypeError), (1e5, TypeError), ("1", TypeError)])
def test_tune_gc_when_it_is_no_number(young: Any, error: type[Exception]) -> None:
    """Nothing is changed by a call that makes no sense."""
    before, living = gc.get_threshold(), [1]
    with pytest.raises(error, match="young"):
        tune_gc(young=young, freeze=True)

    assert before == gc.get_threshold()
    assert not is_frozen(living)


async def test_settings_when_nobody_asks(autojump_clock: Any) -> None:
    """The library itself never changes the settings of the process."""
    before, living = (gc.get_threshold(), gc.isenabled()), [1]
    async with opened(make_agent("Hello.")) as sessions:
        await answer_to(sessions)

    assert before == (gc.get_threshold(), gc.isenabled())
    assert not is_frozen(living)

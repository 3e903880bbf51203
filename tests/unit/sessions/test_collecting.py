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


def test_tune_gc_when_undone() -> None:
    """The young generation is collected as rarely as was asked for; what the call returns brings back the settings."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    returned = tune_gc(young=20_000)

    assert (before, 20_000) == (returned, gc.get_threshold()[0])
    gc.set_threshold(*returned)
    assert before == gc.get_threshold()
    assert frozen == gc.get_freeze_count()


def test_tune_gc_when_it_freezes() -> None:
    """What is there is collected once, and then not looked at any more."""
    living = [[] for _ in range(1_000)]
    frozen = gc.get_freeze_count()
    tune_gc(freeze=True)

    assert gc.get_freeze_count() >= frozen + len(living)


@pytest.mark.parametrize(("young", "error"), [(0, ValueError), (-5, ValueError), (True, TypeError), (1e5, TypeError), ("1", TypeError)])
def test_tune_gc_when_it_is_no_number(young: Any, error: type[Exception]) -> None:
    """Nothing is changed by a call that makes no sense."""
    before = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(error, match="young"):
        tune_gc(young=young, freeze=True)

    assert before == (gc.get_threshold(), gc.get_freeze_count())


async def test_settings_when_nobody_asks(autojump_clock: Any) -> None:
    """The library itself never changes the settings of the process."""
    before = gc.get_threshold(), gc.get_freeze_count(), gc.isenabled()
    async with opened(make_agent("Hello.")) as sessions:
        await answer_to(sessions)

    assert before == (gc.get_threshold(), gc.get_freeze_count(), gc.isenabled())

"""SIGTERM to processes with busy conversations: turns finish, or are settled with their cause, and no work is lost that a kill would keep.

A tenth as many as TRIO_SAGENTS_KILLS, and at least 48. See `terms`.
"""

from pathlib import Path

import pytest
import trio

from tests.crash.running import TERMS, in_all, run, violations
from trio_sagents import Agent, SessionConfig, ShutdownReason, SingleFactoryRouter, open_sessions
from trio_sagents.testing import ScriptedModel

BUGS = ("settle_nothing", "drop_results", "drop_text", "blame_the_user")


def test_sigterm_churn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However a host ends: what was acknowledged is there, every turn is closed with its cause, and a kill would have kept no more."""
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    half = TERMS // 2
    arguments: list[list[str | int | Path]] = [
        ["--folder", folder, "--terms", half, "--file", 1000 * n] for n, folder in enumerate(folders)
    ]
    reports = run("terms", *arguments, limit=120 + 5 * TERMS)

    found = violations(reports)
    cut = sorted({cause for report in reports for cause in report["cut"]})
    with capsys.disabled():
        print(
            f"\n{in_all(reports, 'terms')} processes ended by SIGTERM; {in_all(reports, 'acknowledged')} acknowledgements, "
            f"{in_all(reports, 'left_waiting')} messages left waiting; turns cut: {', '.join(cut)}; violations: {len(found)}"
        )
    assert [] == found
    assert half * 2 == in_all(reports, "terms")
    assert ["closed", "drained", "host_cancelled", "host_failed"] == cut


@pytest.mark.parametrize("bug", BUGS)
def test_sigterm_finds(bug: str, tmp_path: Path) -> None:
    """A planted bug is found."""
    (report,) = run("terms", ["--folder", tmp_path, "--terms", 120, "--stop-at", 1, "--planted", bug])

    assert report["violations"]


async def test_a_cancelled_host_with_a_nursery_in_its_block(autojump_clock: trio.testing.MockClock) -> None:
    """A host is cancelled, and has not failed, also where it has tasks: then what leaves its block is a group."""
    config = SessionConfig(factory_router=SingleFactoryRouter(Agent(model=ScriptedModel([]))))
    with trio.CancelScope() as host:
        async with open_sessions(config) as sessions:
            await sessions.start("c")
            handle = await sessions.get("c")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                host.cancel()
                await trio.sleep_forever()

    assert ShutdownReason.HOST_CANCELLED == handle._live.shutdown_reason

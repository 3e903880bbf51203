"""SIGTERM to processes with busy conversations: turns finish, or are settled with their cause, and no work is lost that a kill would keep.

A tenth as many as TRIO_SAGENTS_KILLS, and at least 48. See `terms`.
"""

from pathlib import Path

import pytest
import trio

from tests.search.crashes.running import TERMS, in_all, run, violations
from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    Interrupted,
    MemoryStore,
    SessionConfig,
    ShutdownReason,
    SingleFactoryRouter,
    open_sessions,
)
from trio_sagents.data.records import Commit
from trio_sagents.testing import Call, ScriptedModel

pytestmark = pytest.mark.slow

BUGS = ("settle_nothing", "drop_results", "drop_text", "blame_the_user")


def test_sigterm_churn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However a host ends: what was acknowledged is there, every turn is closed with its cause, and a kill would not have kept more."""
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
    """A host with tasks that is cancelled has not failed, even if a group leaves its block."""
    config = SessionConfig(factory_router=SingleFactoryRouter(Agent(model=ScriptedModel([]))))
    with trio.CancelScope() as host:
        async with open_sessions(config) as sessions:
            await sessions.start("c")
            handle = await sessions.get("c")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                host.cancel()
                await trio.sleep_forever()

    assert ShutdownReason.HOST_CANCELLED == handle._entry.shutdown_reason


class Held(MemoryStore):
    """A store whose commits can be held."""

    gate: trio.Event | None = None
    only_interrupts = False

    async def commit(self, scope, commit: Commit, **owner) -> int:
        if self.gate is not None and (not self.only_interrupts or commit.state.get("interrupt") is not None):
            await self.gate.wait()
        return await super().commit(scope, commit, **owner)

    def hold(self, *, only_interrupts: bool = False) -> None:
        """Hold commits from now on."""
        self.gate, self.only_interrupts = trio.Event(), only_interrupts

    def let_go(self) -> None:
        """Let the tasks continue."""
        assert self.gate is not None
        self.gate.set()
        self.gate = None


async def test_a_drain_while_a_decision_is_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    """Found by the churn: grace covers a decision that was on its way; its turn comes to its end, and no other begins over its call."""

    async def pay(amount: int) -> str:
        return f"paid {amount}"

    store = Held()
    model = ScriptedModel(lambda request: Call("pay", amount=1) if request.messages[-1].text == "first" else "fine")
    agent = Agent(model=model, tools=[pay], middleware=[Approvals({"pay": True})])
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=store)) as sessions:
        store.hold(only_interrupts=True)
        first = await sessions.post("c", "first")
        async with trio.open_nursery() as nursery:
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(sessions.post, "c", "second")  # committed right after the interrupt, and pending
            await trio.testing.wait_all_tasks_blocked()
            store.let_go()
        outcome = await first.wait()
        assert isinstance(outcome, Interrupted)
        store.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.resume, "c", [Approve(call) for call in outcome.interrupt.calls])
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(sessions.drain)
            await trio.testing.wait_all_tasks_blocked()
            store.let_go()

    found = await store.load(None, "c")
    assert found is not None
    answered = [part["call_id"] for message in found.messages for part in message["parts"] if part["type"] == "tool_result"]
    decided = [record["kind"] for message in found.messages for record in message.get("metadata", {}).get("decisions", ())]
    decided += [record["kind"] for records in (found.state.get("open_decisions") or {}).values() for record in records]
    assert ["approve"] == decided
    assert ["call-1"] == answered
    assert ["fine", "stop"] == [found.messages[-1]["parts"][-1]["text"], found.messages[-1]["stop_reason"]]

"""The registry and its entries, as plain data: one entry for an id, limits, and the first reason wins."""

import math
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_sagents.data.status import CancelCause, ShutdownReason
from trio_sagents.exceptions import AgentNotRunning, AgentStopped, LimitExceeded, StartFailed
from trio_sagents.supervisor._registry import Entry, Failure, Phase, Registry


def entry_of(conversation_id: str = "c", owner: Any = None, agent_id: str = "") -> Entry:
    return Entry(agent_id or f"agent-{conversation_id}", conversation_id, None, owner, {})


def registry_of(*entries: Entry, most: int = 10, each: int = 10) -> Registry:
    registry = Registry(most, each)
    for entry in entries:
        registry.reserve(entry)
    return registry


def test_release_when_the_id_has_another_entry() -> None:
    """An entry that is released twice takes away no later entry of its id."""
    old, new = entry_of(owner="alice"), entry_of(owner="alice")
    registry = registry_of(old)
    registry.release(old)
    registry.reserve(new)
    registry.release(old)

    assert new is registry.find("agent-c", "c")
    assert (new,) == registry.owned_by("alice")
    assert 1 == len(registry)


def test_release_when_it_was_the_last_of_its_owner() -> None:
    """Nothing is kept of an owner without agents."""
    first, second = entry_of("c", "alice"), entry_of("d", "alice")
    registry = registry_of(first, second)
    registry.release(first)

    assert (second,) == registry.owned_by("alice")
    registry.release(second)
    assert () == registry.owned_by("alice")
    assert {} == registry._by_owner
    assert [] == list(registry)


def test_release_when_nothing_is_left() -> None:
    """An entry that is not there any more, and whose owner has no agents, is released once more without harm: its end is told."""
    entry = entry_of(owner="alice")
    registry = registry_of()
    registry.release(entry)

    assert entry.has_ended
    assert (0, {}) == (len(registry), registry._by_owner)


def test_owned_by_when_owners_look_alike() -> None:
    """1, "1", True and None are four owners, each with its agents in the order of their starts."""
    entries = [entry_of(f"{index}{owner!r}", owner) for index in range(2) for owner in (1, "1", None)]
    registry = registry_of(*entries)

    for owner in (1, "1", None):
        assert tuple(entry for entry in entries if type(entry.owner) is type(owner) and entry.owner == owner) == registry.owned_by(owner)
    assert () == registry.owned_by(True)
    assert entries == list(registry)


def test_reserve_when_there_are_as_many_as_may_be() -> None:
    """The last one that fits is let in; the next is refused, with both numbers, and nothing is kept of it."""
    registry = registry_of(entry_of("c"), most=2)
    registry.reserve(entry_of("d"))
    with pytest.raises(LimitExceeded) as caught:
        registry.reserve(entry_of("e"))

    assert ("max_sessions", 3, 2) == (caught.value.limit, caught.value.value, caught.value.most)
    assert 2 == len(registry)
    assert registry.find("agent-e", "e") is None


def test_reserve_when_an_owner_has_as_many_as_may_be() -> None:
    """The limit is of each owner by itself, and of none where there is no owner."""
    registry = registry_of(entry_of("c", "alice"), each=2)
    registry.reserve(entry_of("d", "alice"))
    with pytest.raises(LimitExceeded) as caught:
        registry.reserve(entry_of("e", "alice"))

    assert ("max_sessions_per_scope", 3, 2) == (caught.value.limit, caught.value.value, caught.value.most)
    registry.reserve(entry_of("f", "bob"))
    for name in ("g", "h", "i"):
        registry.reserve(entry_of(name))
    assert 2 == len(registry.owned_by("alice"))


def test_find_when_an_id_is_of_two_conversations() -> None:
    """A conversation whose agent id another conversation has is not there: who has it is nobody else's business."""
    registry = registry_of(entry_of("c", agent_id="same"))

    assert registry.find("same", "d") is None
    assert registry.find("same", "c") is not None
    assert (True, False) == (registry.is_taken("same"), registry.is_taken("other"))


def test_reserve_when_an_id_is_of_two_conversations() -> None:
    """One agent id for two conversations is the host's mistake. The error names the caller's conversation, and not the other one."""
    registry = registry_of(entry_of("c", owner="alice", agent_id="same"))
    with pytest.raises(ValueError, match="agent_id_fun gives conversation 'd' the agent id 'same', which another") as caught:
        registry.reserve(entry_of("d", owner="bob", agent_id="same"))

    assert "'c'" not in str(caught.value)
    assert (1, ()) == (len(registry), registry.owned_by("bob"))


def test_become_ready_when_nobody_waits() -> None:
    """The end of a boot that nobody waits for, and of an entry, is told to nobody."""
    entry = entry_of()
    entry.become_ready()
    entry.end()

    assert entry.has_ended


async def test_waits_when_several_wait() -> None:
    """All who wait for the boot are woken by it, all who wait for the end by that, and whoever comes later does not wait."""
    entry = entry_of()
    log: list[str] = []

    async def wait(name: str, waiting: Any) -> None:
        await waiting()
        log.append(name)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(wait, "ready", entry.wait_ready)
            nursery.start_soon(wait, "ended", entry.wait_ended)
        await wait_all_tasks_blocked()
        assert [] == log
        entry.become_ready()
        await wait_all_tasks_blocked()
        assert ["ready"] * 2 == log
        entry.end()
    assert ["ready"] * 2 + ["ended"] * 2 == log
    with assert_checkpoints():
        await entry.wait_ended()


def test_request_stop_when_it_boots() -> None:
    """A boot is cancelled whatever the deadline; the first reason and the first cause stand."""
    entry = entry_of()
    entry.request_stop(ShutdownReason.DRAINED, CancelCause.DRAINED, deadline=math.inf)
    entry.request_stop(ShutdownReason.STOPPED, CancelCause.STOPPED, deadline=0.0)

    assert entry.cancel_scope.cancel_called
    assert (Phase.STOPPING, ShutdownReason.DRAINED, CancelCause.DRAINED) == (entry.phase, entry.reason, entry.cause)


@pytest.mark.parametrize("given", [ShutdownReason.FENCED, None])
def test_request_stop_when_a_reason_is_there(given: ShutdownReason | None) -> None:
    """Why an agent leaves, and what its turn is told, is what was said first."""
    entry = entry_of()
    entry.reason, entry.cause = given, None if given is None else CancelCause.FENCED
    entry.request_stop(ShutdownReason.STOPPED, CancelCause.STOPPED, deadline=0.0)

    assert (given or ShutdownReason.STOPPED, CancelCause.STOPPED if given is None else CancelCause.FENCED) == (entry.reason, entry.cause)


def test_start_failed_when_asked_by_several() -> None:
    """Each caller has an error of its own, from the host's one; without any the agent was stopped."""
    entry = entry_of()
    entry.stage = "load"
    stopped = entry.start_failed()
    assert ("c", "load") == (stopped.conversation_id, stopped.stage)
    assert isinstance(stopped.__cause__, AgentStopped)

    entry.failure = Failure("factory", error := OSError("the host's"))
    first, second = entry.start_failed(), entry.start_failed()
    assert first is not second
    assert ("factory", error) == (first.stage, first.__cause__)
    assert isinstance(first, StartFailed)


@pytest.mark.parametrize("reason", [*ShutdownReason, None])
def test_not_running_when_it_says_why(reason: ShutdownReason | None) -> None:
    """Who comes too late learns whether somebody stopped the agent: by a stop, a drain or the close of the sessions."""
    entry = entry_of()
    entry.reason = reason
    stopped = reason in {ShutdownReason.STOPPED, ShutdownReason.CLOSED, ShutdownReason.DRAINED}

    assert (AgentStopped if stopped else AgentNotRunning) is type(entry.not_running())
    assert "c" == entry.not_running().conversation_id

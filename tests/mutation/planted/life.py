"""Bugs in who lives when: starting, stopping, leaving, and who is let in."""

from typing import Final

from tests.mutation.planted._planting import Mutant

LIFE: Final = (
    Mutant(
        "a checkpoint between the look and the reservation",
        "sessions/_starting.py",
        "                entry = self._reserve(",
        "                await trio.lowlevel.checkpoint()\n                entry = self._reserve(",
        ("scenarios/test_starting.py::test_start_with_50_concurrent_callers",),
    ),
    Mutant(
        "the id is released before the last write has ended",
        "supervisor/_agent_task.py",
        "        await live.wait_settled()\n",
        "",
        ("scenarios/test_holes.py::test_stop_when_a_post_is_on_its_way",),
    ),
    Mutant(
        "a load overtakes the pending writes of its conversation",
        "supervisor/_writer.py",
        "        await self._wait_free(conversation_id)\n        return await self.vault.load(",
        "        return await self.vault.load(",
        ("scenarios/test_holes.py::test_start_when_the_write_of_an_agent_that_was_given_up_lands",),
    ),
    Mutant(
        "a deletion overtakes the pending writes of its conversation",
        "supervisor/_writer.py",
        "        await self._wait_free(conversation_id)\n        try:\n            return await self.vault.delete(",
        "        try:\n            return await self.vault.delete(",
        ("scenarios/test_holes.py::test_delete_when_the_write_of_an_agent_that_was_given_up_lands",),
    ),
    Mutant(
        "stop returns early",
        "supervisor/_handle.py",
        "        return\n    await entry.wait_ended()\n",
        "        return\n    await trio.lowlevel.checkpoint()\n",
        ("scenarios/test_stopping.py::test_stop_means_stopped", "scenarios/test_stopping.py::test_stop_then_start_restores"),
    ),
    Mutant(
        "the last write of an agent is not shielded",
        "supervisor/_live.py",
        "            with trio.CancelScope(shield=True, deadline=deadline):\n                await self.ledger.wait_at_rest()",
        "            with trio.CancelScope(deadline=deadline):\n                await self.ledger.wait_at_rest()",
        ("scenarios/test_holes.py::test_leave_by_cancellation_when_a_post_is_on_its_way",),
    ),
    Mutant(
        "the shield around the last write has no deadline",
        "supervisor/_live.py",
        "            with trio.CancelScope(shield=True, deadline=deadline):\n                await self.ledger.wait_at_rest()",
        "            with trio.CancelScope(shield=True):\n                await self.ledger.wait_at_rest()",
        (
            "scenarios/test_stopping.py::test_stop_when_the_store_hangs",
            "scenarios/test_leaving.py::test_leave_with_a_store_that_hangs_is_bounded",
        ),
    ),
    Mutant(
        "the shield around the settling of a turn has no deadline",
        "supervisor/_turns.py",
        "            with trio.CancelScope(shield=True, deadline=self.settle_deadline):\n",
        "            with trio.CancelScope(shield=True):\n",
        (
            "scenarios/test_stopping.py::test_stop_when_the_store_hangs",
            "scenarios/test_leaving.py::test_leave_with_a_store_that_hangs_is_bounded",
        ),
    ),
    Mutant(
        "a checkpoint between the look and the close of an idle agent",
        "supervisor/_live.py",
        "                    self.entry.phase = Phase.STOPPING\n                    self.entry.reason = reason\n",
        "                    await trio.sleep(0.5)\n                    self.entry.phase, self.entry.reason = Phase.STOPPING, reason\n",
        ("scenarios/test_inactivity.py::test_post_at_the_deadline_is_answered",),
    ),
    Mutant(
        "the idle timer decides, and nobody looks again",
        "supervisor/_idle.py",
        "            live.wake()  # it looks again itself, and arms again where it stays",
        "            from trio_sagents.supervisor._registry import Phase\n            live.entry.phase, live.entry.reason = Phase.STOPPING, ShutdownReason.INACTIVITY\n            live.wake()",  # noqa: E501  # library text
        (
            "scenarios/test_inactivity.py::test_post_at_the_deadline_is_answered",
            "scenarios/test_inactivity.py::test_a_slow_commit_is_no_idleness",
        ),
    ),
    Mutant(
        "an agent may leave inside a turn",
        "supervisor/_live.py",
        "            if self.turn is None:\n                if self.is_leaving",
        "            if True:\n                if self.is_leaving",
        (
            "scenarios/test_inactivity.py::test_inactivity_while_a_tool_runs",
            "scenarios/test_turns.py::test_tools_of_one_answer_run_in_parallel",
        ),
    ),
    Mutant(
        "an agent leaves while a message is being accepted",
        "supervisor/_live.py",
        "        if self.is_receiving or not self.ledger.is_at_rest:\n            return None\n",
        "",
        ("scenarios/test_inactivity.py::test_a_slow_commit_is_no_idleness",),
    ),
    Mutant(
        "the end of a turn is no activity",
        "supervisor/_live.py",
        "        self.was_cut = isinstance(outcome, Cancelled)\n        self.touch()\n",
        "        self.was_cut = isinstance(outcome, Cancelled)\n",
        ("scenarios/test_inactivity.py::test_inactivity_after_a_long_turn",),
    ),
    Mutant(
        "viewers are ignored",
        "supervisor/_idle.py",
        "        if self.viewers or not self.had_viewer or",
        "        if not self.had_viewer or",
        (
            "scenarios/test_inactivity.py::test_watching_is_not_activity",
            "scenarios/test_inactivity.py::test_viewer_grace_when_a_viewer_comes_back",
            "scenarios/test_inactivity.py::test_viewer_who_was_there_before_the_boot",
        ),
    ),
    Mutant(
        "a boot that failed keeps its id",
        "supervisor/_agent_task.py",
        "        runtime.registry.release(entry)\n",
        "        if live is not None:\n            runtime.registry.release(entry)\n",
        ("scenarios/test_starting.py::test_start_when_the_boot_fails",),
    ),
    Mutant(
        "a boot may take for ever",
        "supervisor/_agent_task.py",
        "    if entry.phase is Phase.BOOTING:\n        error",
        "    if False:\n        error",
        ("scenarios/test_starting.py::test_start_when_the_boot_hangs",),
    ),
    Mutant(
        "a crash is not contained",
        "supervisor/_agent_task.py",
        "        crash, onward = split(exc)\n",
        "        crash, onward = None, exc\n",
        ("scenarios/test_durability.py::test_crash_is_contained",),
    ),
    Mutant(
        "every start says that it started",
        "sessions/_sessions.py",
        "started, entry.started_is_taken = not entry.started_is_taken, True",
        "started = True",
        ("scenarios/test_starting.py::test_start_with_50_concurrent_callers",),
    ),
    Mutant(
        "agents run in the context of their first caller",
        "sessions/_starting.py",
        "        runtime.registry.context.run(functools.partial(runtime.nursery.start_soon, run, name=agent_id))\n",
        "        runtime.nursery.start_soon(run, name=agent_id)\n",
        ("scenarios/test_starting.py::test_boot_runs_in_the_context_of_open_sessions",),
    ),
    Mutant(
        "the queue is lost at a stop with grace",
        "supervisor/_live.py",
        "        self.has_last_turn = self.turn is None\n",
        "",
        (
            "scenarios/test_stopping.py::test_stop_with_grace_right_after_post",
            "scenarios/test_leaving.py::test_leave_normally_right_after_post",
        ),
    ),
    Mutant(
        "the scope is not compared on a warm start",
        "sessions/_starting.py",
        "            elif not self.runtime.access.owns(scope, entry.owner):\n",
        "            elif False:\n",
        ("scenarios/test_tenants.py::test_start_and_post_to_a_foreign_conversation",),
    ),
    Mutant(
        "the scope is not compared on a stop",
        "sessions/_asking.py",
        "        return entry if entry is not None and self._runtime.access.owns(scope, entry.owner) else None",
        "        return entry",
        ("scenarios/test_tenants.py::test_refusal_is_like_absence", "hostile/test_tenants.py::test_foreign_is_like_missing"),
    ),
    Mutant(
        "the scope is not compared on commands to a live agent",
        "sessions/_asking.py",
        "        if entry is not None and self._runtime.access.owns(scope, entry.owner):\n",
        "        if entry is not None:\n",
        (
            "scenarios/test_decisions.py::test_decision_for_the_conversation_of_another",
            "scenarios/test_tenants.py::test_refusal_is_like_absence",
        ),
    ),
    Mutant(
        "the scope is not compared when somebody subscribes",
        "supervisor/_runtime.py",
        "        if entry is not None and entry.live is not None and not entry.live.has_ended and self.access.sees(subscription.owner, entry.owner):\n",  # noqa: E501  # library text
        "        if entry is not None and entry.live is not None and not entry.live.has_ended:\n",
        ("scenarios/test_tenants.py::test_subscription_of_a_stranger_stays_pending",),
    ),
    Mutant(
        "the scope is not compared when waiting subscribers are enrolled",
        "supervisor/_words.py",
        "        if (access.is_synchronous or subscription.is_admitted) and access.sees(subscription.owner, live.entry.owner):\n",
        "        if access.is_synchronous or subscription.is_admitted:\n",
        (
            "scenarios/test_tenants.py::test_subscription_of_a_stranger_during_the_first_boot",
            "scenarios/test_tenants.py::test_subscription_of_a_stranger_stays_pending",
        ),  # test ids
    ),
    Mutant(
        "the scope is not compared with a stored owner",
        "sessions/_boot.py",
        "        if not runtime.access.owns(entry.scope, stored.owner):\n",
        "        if False:\n",
        ("scenarios/test_holes.py::test_start_when_the_store_forgets_to_compare_owners",),
    ),
    Mutant(
        "a handle does not compare its scope",
        "supervisor/_handle.py",
        "        await trio.lowlevel.checkpoint_if_cancelled()\n        if not access.owns(self._scope, live.entry.owner):\n",
        "        await trio.lowlevel.checkpoint_if_cancelled()\n        if False:\n",
        ("hostile/test_tenants.py::test_handle_of_a_scope_that_became_another",),
    ),
    Mutant(
        "the authorizer is asked once for a handle",
        "supervisor/_handle.py",
        "        await access.require(self._scope, live.entry.conversation_id, action)\n        await trio",
        "        await trio",
        ("scenarios/test_tenants.py::test_custom_authorizer_is_asked_again_at_every_command",),
    ),
    Mutant(
        "a conflict does not fence the agent",
        "supervisor/_live.py",
        "        if isinstance(error, Conflict) and not self.has_ended:\n",
        "        if False:\n",
        ("scenarios/test_durability.py::test_conflict_fences_the_agent",),
    ),
    Mutant(
        "a deletion goes on beside a start",
        "sessions/_starting.py",
        "        runtime.registry.reserve(entry)\n        try:\n",
        "        try:\n",
        ("scenarios/test_durability.py::test_delete_against_start",),
    ),
    Mutant(
        "an agent that has ended stays present",
        "supervisor/_live.py",
        "            self._tracked.leave()\n",
        "            pass\n",
        ("scenarios/test_presence.py::test_agents_are_on_the_agents_topic", "scenarios/test_presence.py::test_changes_of_agents"),
    ),
)

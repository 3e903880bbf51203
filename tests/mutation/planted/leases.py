"""Bugs in leases: who may run a conversation, and until when."""

from typing import Final

from tests.mutation.planted._planting import Mutant

_KEEPER: Final = "supervisor/_leases.py"
LEASES: Final = (
    Mutant(
        "a conversation is loaded without its lease",
        "sessions/_boot.py",
        "        if self.runtime.leases is not None:\n",
        "        if False:\n",
        ("scenarios/test_leases.py::test_one_process_runs_it_and_the_next_one_after_that",),
    ),
    Mutant(
        "only as many leases are renewed as one call takes",
        _KEEPER,
        "    for start in range(0, len(held), BATCH):\n",
        "    for start in range(0, min(1, len(held)), BATCH):\n",
        ("scenarios/test_leases.py::test_more_are_held_than_one_renewal_takes",),
    ),
    Mutant(
        "the failure of renewals is ignored",
        _KEEPER,
        "            if held.until <= now:\n",
        "            if False:\n",
        ("scenarios/test_leases.py::test_lost_lease_ends_the_agent",),
    ),
    Mutant(
        "a renewal that says that a lease is lost is ignored",
        _KEEPER,
        "                else:\n                    self._lose(held)\n",
        "",
        ("scenarios/test_leases.py::test_lease_that_another_took_ends_at_the_next_renewal",),
    ),
    Mutant(
        "an answer about an old lease is believed of a new one",
        _KEEPER,
        "if kept is None or self._held.get(conversation_id) is not held:",
        "if kept is None:",
        ("scenarios/test_leases.py::test_answer_about_a_lease_that_was_given_back",),
    ),
    Mutant(
        "a lease is trusted for longer than it lasts",
        _KEEPER,
        "TRUSTED: Final = 0.9\n",
        "TRUSTED: Final = 2.0\n",
        ("scenarios/test_leases.py::test_lost_lease_ends_the_agent", "scenarios/test_promise.py::test_lost_lease_ends_the_agent_in_time"),
    ),
    Mutant(
        "a renewed lease counts from its answer on, ten times",
        _KEEPER,
        "                    held.until = began + TRUSTED * self.ttl\n",
        "                    held.until = trio.current_time() + 10 * self.ttl\n",
        ("scenarios/test_leases.py::test_lost_lease_ends_the_agent",),
    ),
    Mutant(
        "the lease of an agent that has ended is kept",
        "supervisor/_agent_task.py",
        "        await runtime.leases.release(entry)",
        "        pass",
        ("scenarios/test_leases.py::test_agent_that_leaves_by_itself_gives_it_back",),
    ),
    Mutant(
        "a lease that may have been got is not given back",
        _KEEPER,
        "            await self._give_back(conversation_id)  # noqa: ASYNC120  # it",
        "            await trio.lowlevel.checkpoint()  # noqa: ASYNC120  # it",
        ("scenarios/test_leases.py::test_start_when_nobody_can_say",),
    ),
    Mutant(
        "nobody can say counts as free",
        _KEEPER,
        "            raise\n        if remaining is not None:\n",
        "            raise\n        if False:\n",
        ("scenarios/test_leases.py::test_one_process_runs_it_and_the_next_one_after_that",),
    ),
    Mutant(
        "a tool begins behind the end of a lease",
        "agent/_tool_calls.py",
        "        if not context.may_act():\n",
        "        if False:\n",
        ("scenarios/test_leases.py::test_no_tool_begins_behind_the_end_of_a_lease",),
    ),
    Mutant(
        "a lease is released after another owner took it",
        "cluster/sqlite.py",
        "WHERE conversation_id = ? AND holder = ?",
        "WHERE conversation_id = ? OR holder = ?",
        ("contracts/leases/test_leases.py::TestSqlite::test_release_when_another_took_over",),
    ),
    Mutant(
        "a lease in memory is released after another owner took it",
        "cluster/memory.py",
        '        if self._held.get(conversation_id, ("", 0.0))[0] == holder:\n',
        "        if conversation_id in self._held:\n",
        ("contracts/leases/test_leases.py::TestMemory::test_release_when_another_took_over",),
    ),
    Mutant(
        "a lease that has ended is renewed",
        "cluster/sqlite.py",
        "AND holder = ?2 AND ends_at > ?4",
        "AND holder = ?2 AND ?4 = ?4",
        ("contracts/leases/test_leases.py::TestSqlite::test_renew_when_it_is_not_held",),
    ),
    Mutant(
        "a foreign conversation that runs elsewhere is told of",
        "sessions/_boot.py",
        "        raise ConversationNotFound(entry.conversation_id)\n    raise elsewhere\n",
        "        pass\n    raise elsewhere\n",
        ("scenarios/test_leases.py::test_foreign_conversation_that_runs_elsewhere",),
    ),
    Mutant(
        "a conversation that runs elsewhere is deleted",
        "sessions/_starting.py",
        "        if runtime.leases is None:\n",
        "        if runtime is not None:\n",
        ("scenarios/test_leases.py::test_delete_when_it_runs_elsewhere",),
    ),
)

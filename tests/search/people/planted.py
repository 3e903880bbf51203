"""Planted bugs that the machine of people who decide has to find, with the examples that CI runs.

python -m tests.search.people.planted            hunt all bugs, and print the score
python -m tests.search.people.planted WORD ...   hunt the bugs that have one of the words in their name
"""

import sys
from typing import Final

from tests.search.hunting import main, run_machine
from tests.support.planting import PlantedBug

SHARDS: Final = 4
"""How many shards of `test_machine`, over `MemoryStore`, look for a bug: as many as CI runs."""

BUGS: Final = (
    PlantedBug(
        "whatever was decided runs", "conversation/decided.py", "runs", '    return record.kind in {"approve", "edit"}', "    return True"
    ),
    PlantedBug(
        "an edited call runs as it was",
        "conversation/decided.py",
        "decided_call",
        '    if record.kind != "edit":\n        return shown',
        "    if True:\n        return shown",
    ),
    PlantedBug(
        "a sub-agent has its own gate alone",
        "agent/_gate.py",
        "claim",
        "    for gate in _outermost_first(pipeline):",
        "    for gate in (pipeline,):",
    ),
    PlantedBug(
        "a sub-agent begins anew",
        "agent/_nested.py",
        "CallHost.run_agent.run",
        "            if record is None:\n                nested.ask(prompt)",
        "            if True:\n                nested.ask(prompt)",
    ),
    PlantedBug(
        "partial answers are forgotten",
        "conversation/decisions.py",
        "_decide_some",
        "        decided=(*interrupt.decided, *records),",
        "        decided=interrupt.decided,",
    ),
    PlantedBug(
        "what was decided of an open call is not stored",
        "conversation/decisions.py",
        "_decide_last",
        "        open_decisions={call_id: some for call_id, some in decided.items() if call_id not in {record.call_id for record in refused}},\n",  # noqa: E501  # library text
        "",
    ),
    PlantedBug(
        "another decision is a duplicate",
        "conversation/decisions.py",
        "undecided",
        "        elif not decision.same_as(known):",
        "        elif False:",
    ),
    PlantedBug(
        "any digest will do", "conversation/decisions.py", "_waiting_call", "    if decision.digest != call.digest:", "    if False:"
    ),
    PlantedBug(
        "any interrupt will do",
        "conversation/decisions.py",
        "_waiting_call",
        "    if decision.interrupt_id != interrupt.interrupt_id:",
        "    if False:",
    ),
    PlantedBug(
        "any kind will do", "conversation/decisions.py", "_waiting_call", "    if decision.kind not in call.allowed:", "    if False:"
    ),
    PlantedBug(
        "a halt is decided like a call", "conversation/decisions.py", "_waiting_call", '    if interrupt.kind == "halt":', "    if False:"
    ),
    PlantedBug(
        "one decision does not wait for the other",
        "supervisor/_approvals.py",
        "Approvals.resume",
        "            if journal.pending_wait is None and undecided(host.conversation_id, journal.state, decisions, past) == fresh:\n",
        "            if True:\n",
    ),
    PlantedBug(
        "acknowledged before the commit",
        "supervisor/_approvals.py",
        "Approvals._submit",
        "        await host.journal.submit(step, stored).wait()",
        "        host.journal.submit(step, stored)\n        await trio.lowlevel.checkpoint()",
    ),
    PlantedBug(
        "what could not be stored continues all the same",
        "supervisor/_approvals.py",
        "Approvals._submit.stored",
        "            if error is None and not host.journal.is_closed:",
        "            if not host.journal.is_closed:",
    ),
    PlantedBug(
        "what a crash cut is left open",
        "conversation/closing.py",
        "close_after_crash",
        "    if state.waiting is not None or not is_cut(state.messages):",
        "    if state.waiting is not None or state.open_decisions or not is_cut(state.messages):",
    ),
    PlantedBug(
        "the gates do not look at an edit",
        "agent/_gate.py",
        "pass_decided",
        "    wanted = await claim(pipeline, context, context.turn_id, decided, tool, met)",
        "    wanted = None",
    ),
    PlantedBug(
        "a tool that has changed runs on the old approval",
        "agent/_gate.py",
        "pass_decided",
        "    changed = differences(record.tool_digest, known if pipeline.keeps_objects(tool) else None, tool, digest)",
        "    changed: tuple[str, ...] = ()",
    ),
    PlantedBug(
        "a halt stops nothing",
        "agent/_progress.py",
        "HaltSignal.set",
        "        self.is_set = True",
        "        return",
    ),
    PlantedBug(
        "an approved call runs as whoever wakes the agent",
        "supervisor/_turns.py",
        "Turns.carry_on",
        "        actor, context, values = self._beginning_of(interrupt.turn_id)",
        "        actor, context, values = self.host.scope, self.host.services.registry.context, {}",
    ),
    PlantedBug(
        "after a restart an approved call runs as whoever wakes the agent",
        "supervisor/_turns.py",
        "Turns._beginning_of",
        "        return self.posters.get(poster, self.host.scope), services.registry.context",
        "        return self.host.scope, services.registry.context",
    ),
    PlantedBug(
        "a message in the queue runs as whoever starts the agent",
        "supervisor/_turns.py",
        "Turns.begin",
        "        actor = self.scope_of(first) if accepted is None else accepted.actor",
        "        actor = self.host.scope if accepted is None else accepted.actor",
    ),
    PlantedBug(
        "whoever may post gets past what waits",
        "supervisor/_inbox.py",
        "Inbox._step",
        "        if not accepted.may_decide or journal.state.waiting is None or",
        "        if journal.state.waiting is None or",
    ),
    PlantedBug(
        "nobody asks whether somebody may decide",
        "sessions/_admission.py",
        "Admission.require_decision",
        '        await access.require(scope, conversation_id, "decide")',
        "        pass",
    ),
    PlantedBug(
        "the record names the agent's scope as who decided",
        "supervisor/_approvals.py",
        "Approvals.resume",
        "            by = host.services.access.actor_of(actor)",
        "            by = host.services.access.actor_of(host.scope)",
    ),
    PlantedBug(
        "what expires was decided by the agent's scope",
        "supervisor/_approvals.py",
        "Approvals.expire",
        "            await self._record(verdicts, self.turns.host.scope, None)",
        "            await self._record(verdicts, self.turns.host.scope, self.turns.host.services.access.actor_of(self.turns.host.scope))",
    ),
    PlantedBug(
        "the first decision about a call holds for ever",
        "data/interrupts.py",
        "replaces",
        '    return earlier is None or record.kind not in {"superseded", "dismissed"} or bool(record.demands)',
        "    return earlier is None",
    ),
)


def run_here() -> int:
    """Run the machine against the library as it is imported; return 1 if it finds something."""
    from tests.search.people.machine import PeopleMachine
    from tests.search.people.test_machine import EXAMPLES, profile_of

    return run_machine(PeopleMachine, profile_of(EXAMPLES), SHARDS)


if __name__ == "__main__":
    sys.exit(run_here() if "--hunt" in sys.argv else main(BUGS, "tests.search.people.planted"))

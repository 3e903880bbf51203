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
        "agent/_gate.py",
        "decided_call",
        '    if record.kind != "edit":\n        return attrs',
        "    if True:\n        return attrs",
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
        "what is taken is not stored",
        "supervisor/_decisions.py",
        "whole_change",
        "    return attrs.evolve(change, actor=actor, interrupt=None, standing=left, decided=records), events",
        "    return attrs.evolve(change, actor=actor, interrupt=None, decided=records), events",
    ),
    PlantedBug(
        "another decision is a duplicate",
        "supervisor/_decisions.py",
        "new_ones",
        "        elif not one.same_as(known):",
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
        "supervisor/_answering.py",
        "Answering.resume",
        "            if self.live.landing is None and not live.intake.is_superseding and new_ones(live.ledger, decisions) == fresh:",
        "            if True:",
    ),
    PlantedBug(
        "acknowledged before the commit",
        "supervisor/_answering.py",
        "Answering._submit",
        "        await live.ledger.submit(change, landed).wait()",
        "        live.ledger.submit(change, landed)\n        await trio.lowlevel.checkpoint()",
    ),
    PlantedBug(
        "what could not be stored goes on all the same",
        "supervisor/_answering.py",
        "Answering._submit.landed",
        "                live.write_failed(error)\n            elif not live.has_ended:",
        "                live.write_failed(error)\n                then()\n            elif not live.has_ended:",
    ),
    PlantedBug(
        "what a crash cut is left open",
        "supervisor/_ledger.py",
        "Ledger.closing",
        "        if self.interrupt is not None:\n            return ()\n        return self.with_decisions(",
        "        if self.interrupt is not None or self.taken:\n            return ()\n        return self.with_decisions(",
    ),
)


def run_here() -> int:
    """Run the machine against the library as it is imported; return 1 if it finds something."""
    from tests.search.people.machine import PeopleMachine
    from tests.search.people.test_machine import EXAMPLES, profile_of

    return run_machine(PeopleMachine, profile_of(EXAMPLES), SHARDS)


if __name__ == "__main__":
    sys.exit(run_here() if "--hunt" in sys.argv else main(BUGS, "tests.search.people.planted"))

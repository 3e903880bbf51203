"""Planted bugs that the machine of the sessions has to find, with the examples that CI runs.

python -m tests.search.sessions.planted            hunt all bugs, and print the score
python -m tests.search.sessions.planted WORD ...   hunt the bugs that have one of the words in their name
"""

import sys
from typing import Final

from tests.search.hunting import main, run_machine
from tests.support.planting import PlantedBug

SHARDS: Final = 10
"""How many shards of `test_machine`, over `MemoryStore`, look for a bug: as many as CI runs."""

BUGS: Final = (
    PlantedBug(
        "the idle timer decides, nobody looks again",
        "supervisor/_idle.py",
        "IdleClock.look",
        "            live.wake()  # it looks again itself, and arms again where it stays",
        "            from trio_sagents.supervisor._registry import Phase\n            live.entry.phase, live.entry.reason = Phase.STOPPING, ShutdownReason.INACTIVITY\n            live.wake()",  # noqa: E501  # library text
    ),
    PlantedBug(
        "leaves while a message is being accepted",
        "supervisor/_live.py",
        "LiveAgent._reason_to_leave",
        "        if self.is_receiving or not self.ledger.is_at_rest:\n            return None\n",
        "",
    ),
    PlantedBug(
        "acknowledged before the commit",
        "supervisor/_inbox.py",
        "Inbox.post",
        "        await write.wait()\n",
        "        await trio.lowlevel.checkpoint()\n",
    ),
    PlantedBug(
        "the id is released before the last write", "supervisor/_release.py", "release_agent", "        await live.wait_settled()\n", ""
    ),
    PlantedBug(
        "no snapshot on enrolment",
        "broadcast/_subscription.py",
        "Subscription.enrol",
        "            self._first = feed.present(replaces=place)\n",
        "            feed.present(replaces=place)\n",
    ),
    PlantedBug(
        "every 50th event is dropped",
        "broadcast/_feed.py",
        "Feed.publish",
        "        seq = self.seq = self.seq + 1\n",
        "        seq = self.seq = self.seq + 1\n        if not seq % 50:\n            return\n",
    ),
    PlantedBug(
        "a gap is not reported",
        "broadcast/_subscription.py",
        "Subscription._lagged",
        "if untaken is None and self._seen < last else ()",
        "if False else ()",
    ),
    PlantedBug(
        "joined deltas have the number of the first",
        "broadcast/_feed.py",
        "_joined",
        "attrs.evolve(run[0], seq=run[-1].seq, event",
        "attrs.evolve(run[0], event",
    ),
    PlantedBug(
        "the last word is not said",
        "supervisor/_live.py",
        "LiveAgent.end",
        "            say_last_word(self, self._feeds, reason)\n",
        "            pass\n",
    ),
    PlantedBug(
        "stop returns early",
        "supervisor/_handle.py",
        "stop_entry",
        "        return\n    await entry.wait_ended()\n",
        "        return\n    await trio.lowlevel.checkpoint()\n",
    ),
    PlantedBug(
        "the status is not reset after a failure",
        "supervisor/_live.py",
        "LiveAgent.turn_ended",
        "        if not (self.ledger.queue and status not in HELD and self.is_accepting):\n",
        "        if status is not Status.ERROR and not (self.ledger.queue and status not in HELD and self.is_accepting):\n",
    ),
    PlantedBug(
        "a duplicate is not detected",
        "supervisor/_intake.py",
        "Intake._claim",
        "            if known is not None:\n                return",
        "            if False:\n                return",
    ),
    PlantedBug(
        "a conflict is not detected",
        "supervisor/_intake.py",
        "Intake._claim",
        "            if digest != posted.digest:\n",
        "            if False:\n",
    ),
    PlantedBug(
        "an interrupting message does not cut the turn",
        "supervisor/_live.py",
        "LiveAgent.message_came",
        "        if interrupts and self.turn is not None:\n",
        "        if False:\n",
    ),
    PlantedBug(
        "viewers are ignored",
        "supervisor/_idle.py",
        "IdleClock._viewers_due",
        "        if self.viewers or not self.had_viewer or",
        "        if not self.had_viewer or",
    ),
    PlantedBug(
        "a checkpoint between the look and the reservation",
        "sessions/_starting.py",
        "Starter.ensure",
        "                entry = self._reserve(",
        "                await trio.lowlevel.checkpoint()\n                entry = self._reserve(",
    ),
    PlantedBug(
        "the scope is not compared on a warm start",
        "sessions/_starting.py",
        "Starter.ensure",
        "            elif not self.runtime.access.owns(scope, entry.owner):\n",
        "            elif False:\n",
    ),
    PlantedBug(
        "every start says that it started",
        "sessions/_starting.py",
        "Starter.start",
        "started, entry.started_is_taken = not entry.started_is_taken, True",
        "started = True",
    ),
    # Without the shield around `Turn._settle` nothing changes: the closing commit is submitted before the first checkpoint, and the
    # release of the agent waits for it. So the bug is in the other shield.
    PlantedBug(
        "the release of an agent is not shielded",
        "supervisor/_live.py",
        "LiveAgent.wait_settled",
        "            with trio.CancelScope(shield=True, deadline=deadline):\n                await self.ledger.wait_at_rest()",
        "            with trio.CancelScope(deadline=deadline):\n                await self.ledger.wait_at_rest()",
    ),
    PlantedBug(
        "a cut turn leaves its calls open",
        "supervisor/_turn_changes.py",
        "TurnBooks.closing",
        "for one in opened.values() if one.result is None]\n        draft",
        "for one in opened.values() if False]\n        draft",
    ),
    PlantedBug(
        "a crash is not contained",
        "sessions/_task.py",
        "run_agent",
        "        crash, onward = split(exc)\n",
        "        crash, onward = None, exc\n",
    ),
    PlantedBug("a load does not raise the epoch", "persistence/memory.py", "MemoryStore.load", "        row.epoch += 1\n", ""),
    PlantedBug(
        "what a turn takes stays in the queue", "supervisor/_turns.py", "Turn._take", "            taken=ids,\n", "            taken=(),\n"
    ),
    PlantedBug(
        "an agent may leave inside a turn",
        "supervisor/_live.py",
        "LiveAgent.serve",
        "            if self.turn is None:\n                if self.is_leaving",
        "            if True:\n                if self.is_leaving",
    ),
    PlantedBug(
        "the end of a turn is no activity",
        "supervisor/_live.py",
        "LiveAgent.turn_ended",
        "        self.was_cut = isinstance(outcome, Cancelled)\n        self.touch()\n",
        "        self.was_cut = isinstance(outcome, Cancelled)\n",
    ),
    PlantedBug(
        "a message does not release the queue",
        "supervisor/_live.py",
        "LiveAgent.message_came",
        "        self.touch()\n        self.is_released = True\n        if self.status",
        "        self.touch()\n        if self.status",
    ),
    PlantedBug(
        "a closed subscription stays in the table",
        "broadcast/_subscriber.py",
        "Subscriber.drop",
        "        self._switchboard.withdraw(subscription)\n",
        "",
    ),
    PlantedBug(
        "the queue has no limit",
        "supervisor/_intake.py",
        "Intake._claim",
        "len(ledger.queue) + len(self.flights) >= live.policy.queue_limit",
        "False",
    ),
    PlantedBug(
        "the timer never looks",
        "supervisor/_idle.py",
        "IdleClock.arm",
        "        self._timer = live.runtime.timers.call_at(due, live.look)\n",
        "",
    ),
    PlantedBug(
        "memory is ahead of the store",
        "supervisor/_ledger.py",
        "Ledger.submit",
        "        self._promised += grown\n",
        "        self._promised += grown\n        self.queue.update((one.message_id, one) for one in change.queued)\n",
    ),
    PlantedBug(
        "a cancelled caller withdraws what is submitted",
        "supervisor/_inbox.py",
        "Inbox.post",
        "        await write.wait()\n",
        (
            "        try:\n            await write.wait()\n        except trio.Cancelled:\n            write._then = lambda saved, error: None\n            raise\n"  # noqa: E501  # library text
        ),
    ),
)


def run_here() -> int:
    """Run the machine against the library as it is imported; return 1 if it finds something."""
    from tests.search.sessions.machine import SessionMachine
    from tests.search.sessions.test_machine import PROFILE

    return run_machine(SessionMachine, PROFILE, SHARDS)


if __name__ == "__main__":
    sys.exit(run_here() if "--hunt" in sys.argv else main(BUGS, "tests.search.sessions.planted"))

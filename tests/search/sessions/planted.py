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
        "supervisor/_lifetime.py",
        "Lifetime._look",
        "            self.journal.bell.ring()",
        "            self.journal._fence()",
    ),
    PlantedBug(
        "leaves while a message is being accepted",
        "supervisor/_agent.py",
        "LiveAgent._reason_to_leave",
        "        if self.lifetime.holds or not self.journal.is_at_rest:\n            return None\n",
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
        "            self._first = (*(told if place is None else ()), feed.present(replaces=place))\n",
        "            self._first = tuple(told)\n",
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
        "(feed.gap(self._seen + 1, feed.seq),)",
        "()",
    ),
    PlantedBug(
        "joined deltas have the number of the first",
        "broadcast/_feed.py",
        "Feed._delta",
        "self._envelope(first_seq, last.seq, event)",
        "self._envelope(first_seq, first_seq, event)",
    ),
    PlantedBug(
        "the last word is not said",
        "supervisor/_agent.py",
        "LiveAgent.end",
        "        self.journal.publish_everywhere(shutdown)\n",
        "",
    ),
    PlantedBug(
        "stop returns early",
        "supervisor/_registry.py",
        "end_entry",
        "        return\n    await entry.wait_ended()\n",
        "        return\n    await trio.lowlevel.checkpoint()\n",
    ),
    PlantedBug(
        "the status is not reset after a failure",
        "supervisor/_turns.py",
        "Turns._tell_end",
        "        if journal.state.queue and self.board.following(happening) not in HELD and host.entry.is_accepting:\n",
        "        if isinstance(outcome, Failed):\n            pass\n        elif journal.state.queue and self.board.following(happening) not in HELD and host.entry.is_accepting:\n",  # noqa: E501  # library text
    ),
    PlantedBug(
        "a duplicate is not detected",
        "conversation/messages_in.py",
        "examine",
        "        if known is not None:\n            return",
        "        if False:\n            return",
    ),
    PlantedBug(
        "a conflict is not detected",
        "conversation/messages_in.py",
        "examine",
        "if digest is not None and digest != posted.digest:",
        "if False:",
    ),
    PlantedBug(
        "an interrupting message does not cut the turn",
        "supervisor/_inbox.py",
        "Inbox._stored",
        'if accepted.overlap == "interrupt" and turn is not None and',
        "if False and",
    ),
    PlantedBug(
        "viewers are ignored",
        "supervisor/_lifetime.py",
        "due",
        "if facts.had_viewer and not facts.viewers and not facts.is_interrupted:",
        "if facts.had_viewer and not facts.is_interrupted:",
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
        "            elif not self.services.access.owns(scope, entry.owner):\n",
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
        "supervisor/_agent.py",
        "LiveAgent.wait_settled",
        "            with trio.CancelScope(shield=True, deadline=deadline):\n",
        "            with trio.CancelScope(deadline=deadline):\n",
    ),
    PlantedBug(
        "a cut turn leaves its calls open",
        "supervisor/_live_turn.py",
        "LiveTurn.close",
        "for opened in calls if opened.result is None]",
        "for opened in calls if False]",
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
        "what a turn takes stays in the queue",
        "conversation/turn_steps.py",
        "take",
        "taken=[message.message_id for message in messages],",
        "taken=(),",
    ),
    PlantedBug(
        "an agent may leave inside a turn",
        "supervisor/_agent.py",
        "LiveAgent.serve",
        "            if turns.turn is None:\n                if entry.is_leaving",
        "            if True:\n                if entry.is_leaving",
    ),
    PlantedBug(
        "the end of a turn is no activity",
        "supervisor/_turns.py",
        "Turns._ended",
        "        self.board.lifetime.touch()\n",
        "",
    ),
    PlantedBug(
        "a message does not release the queue",
        "supervisor/_inbox.py",
        "Inbox._stored",
        "            board.is_released = board.is_released or not (accepted.is_unattended and board.status is Status.PAUSED)\n",
        "",
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
        "conversation/messages_in.py",
        "examine",
        "len(state.queue) + len(situation.reserved) >= policy.queue_limit",
        "False",
    ),
    PlantedBug(
        "the timer never looks",
        "supervisor/_lifetime.py",
        "Lifetime.arm",
        "        self._timer = self.timers.call_at(at, self._look)\n",
        "",
    ),
    PlantedBug(
        "memory is ahead of the store",
        "supervisor/_journal.py",
        "Journal.submit",
        "        claimed = self.ids.claim(",
        "        self.state.queue.update((message.message_id, message) for message in step.queued)\n        claimed = self.ids.claim(",
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

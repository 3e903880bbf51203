"""Bugs in messages and turns: what is acknowledged, what is answered, and what is left of a turn that was cut."""

from typing import Final

from tests.mutation.planted._planting import Mutant

TURNS: Final = (
    Mutant(
        "acknowledged before the commit",
        "supervisor/_intake.py",
        "        await write.wait()\n",
        "        await trio.lowlevel.checkpoint()\n",
        (
            "scenarios/test_durability.py::test_post_returns_when_durable_not_when_answered",
            "scenarios/test_durability.py::test_store_that_fails_at_the_post",
        ),  # test ids
    ),
    Mutant(
        "a cancelled caller withdraws what is submitted",
        "supervisor/_intake.py",
        "        await write.wait()\n",
        "        try:\n            await write.wait()\n        except trio.Cancelled:\n            write._then = lambda saved, error: None\n            raise\n",  # noqa: E501  # library text
        ("scenarios/test_overlap.py::test_post_when_its_caller_is_cancelled",),
    ),
    Mutant(
        "a duplicate is not detected",
        "supervisor/_intake.py",
        "            if known is not None:\n                return",
        "            if False:\n                return",
        ("scenarios/test_overlap.py::test_message_id_posted_twice",),
    ),
    Mutant(
        "a message id with other content is a duplicate",
        "supervisor/_intake.py",
        "            if digest != posted.digest:\n",
        "            if False:\n",
        ("scenarios/test_overlap.py::test_message_id_with_other_content",),
    ),
    Mutant(
        "the queue has no limit",
        "supervisor/_intake.py",
        "len(ledger.queue) + len(self.flights) >= live.policy.queue_limit",
        "False",
        ("scenarios/test_overlap.py::test_queue_full",),
    ),
    Mutant(
        "a place in the queue is not reserved",
        "supervisor/_intake.py",
        "len(ledger.queue) + len(self.flights) >= live.policy.queue_limit",
        "len(ledger.queue) >= live.policy.queue_limit",
        ("scenarios/test_overlap.py::test_queue_full", "hostile/test_limits.py::test_limit"),
    ),
    Mutant(
        "an interrupting message does not cut the turn",
        "supervisor/_live.py",
        "        if interrupts and self.turn is not None:\n",
        "        if False:\n",
        ("scenarios/test_overlap.py::test_interrupt_commits_then_cancels",),
    ),
    Mutant(
        "a message does not release the queue",
        "supervisor/_live.py",
        "        self.touch()\n        self.is_released = True\n        if self.status",
        "        self.touch()\n        if self.status",
        ("scenarios/test_overlap.py::test_queue_after_an_error_is_held",),
    ),
    Mutant(
        "what a turn takes stays in the queue",
        "supervisor/_turns.py",
        "            taken=ids,\n",
        "            taken=(),\n",
        ("scenarios/test_overlap.py::test_queue_is_one_follow_up_turn",),
    ),
    Mutant(
        "a steering message overtakes those before it",
        "supervisor/_turns.py",
        "            await self._take(queue[: steered[-1] + 1])\n",
        "            await self._take([queue[index] for index in steered])\n",
        (
            "scenarios/test_overlap.py::test_steer_is_taken_at_the_next_model_call",
            "scenarios/test_overlap.py::test_steer_leaves_what_came_after_it",
        ),
    ),
    Mutant(
        "an event goes out before its commit",
        "supervisor/_turns.py",
        "        self._last_write = self.live.ledger.submit(change, then)\n",
        "        for event in events:\n            self.live.publish(event)\n        events = ()\n        self._last_write = self.live.ledger.submit(change, then)\n",  # noqa: E501  # library text
        (
            "scenarios/test_viewers.py::test_commit_before_event",
            "scenarios/test_durability.py::test_events_of_a_failed_commit_do_not_go_out",
        ),
    ),
    Mutant(
        "memory is ahead of the store",
        "supervisor/_ledger.py",
        "        self._promised += grown\n",
        "        self._promised += grown\n        self.queue.update((one.message_id, one) for one in change.queued)\n",
        (
            "scenarios/test_durability.py::test_store_that_fails_at_the_post",
            "scenarios/test_durability.py::test_store_that_fails_at_every_commit",
        ),
    ),
    Mutant(
        "writes behind a failed one are tried all the same",
        "supervisor/_writer.py",
        "                    behind = tuple(lane)\n                    lane.clear()\n",
        "                    pass\n",
        ("scenarios/test_holes.py::test_post_behind_one_that_failed",),
    ),
    Mutant(
        "a failed write is taken as done",
        "supervisor/_ledger.py",
        "            if error is None:\n                self._committed",
        "            if True:\n                self._committed",
        (
            "scenarios/test_durability.py::test_store_that_fails_at_the_post",
            "scenarios/test_durability.py::test_store_that_fails_in_mid_turn",
        ),
    ),
    Mutant(
        "the status is not reset after a failure",
        "supervisor/_live.py",
        "        if not (self.ledger.queue and status not in HELD and self.is_accepting):\n",
        "        if status is not Status.ERROR and not (self.ledger.queue and status not in HELD and self.is_accepting):\n",
        ("scenarios/test_turns.py::test_model_failure_in_the_status",),
    ),
    Mutant(
        "Cancelled is swallowed at the tool boundary",
        "agent/_tool_calls.py",
        "        raise onward from None  # the Cancelled in it, without what came beside\n",
        "        if not isinstance(onward, trio.Cancelled):\n            raise onward\n        contained = RuntimeError()\n",
        (
            "scenarios/test_turns.py::test_cancel_turn_cuts_tools_and_closes_their_calls",
            "scenarios/test_stopping.py::test_stop_cuts_the_turn_at_once",
        ),
    ),
    Mutant(
        "what must go on is dropped from a group",
        "_trio/groups.py",
        "    return unwrap(contained), unwrap(rest)\n",
        "    return unwrap(contained), None\n",
        (
            "scenarios/test_leaving.py::test_keyboard_interrupt_in_a_tool_leaves_open_sessions",
            "scenarios/test_turns.py::test_tool_that_raises_a_group",
        ),
    ),
    Mutant(
        "KeyboardInterrupt is contained",
        "_trio/groups.py",
        "    onward = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)\n",
        "    onward = (trio.Cancelled, SystemExit, GeneratorExit)\n",
        ("scenarios/test_leaving.py::test_keyboard_interrupt_in_a_tool_leaves_open_sessions",),
    ),
    Mutant(
        "the last cause of a cancellation wins",
        "supervisor/_turns.py",
        "        self.cause = self.cause or cause\n        if not",
        "        self.cause = cause\n        if not",
        ("scenarios/test_holes.py::test_cancelled_turn_when_it_is_superseded_as_well",),
    ),
    Mutant(
        "a cancellation for another turn cuts this one",
        "supervisor/_handle.py",
        "    if turn is None or (turn_id is not None and turn.turn_id != turn_id):\n",
        "    if turn is None:\n",
        ("scenarios/test_turns.py::test_cancel_turn_when_nothing_runs", "scenarios/test_turns.py::test_cancel_turn_keeps_the_partial_text"),
    ),
    Mutant(
        "a cut turn leaves its calls open",
        "supervisor/_turn_changes.py",
        "for one in opened.values() if one.result is None]\n        draft",
        "for one in opened.values() if False]\n        draft",
        ("scenarios/test_turns.py::test_cancel_turn_cuts_tools_and_closes_their_calls",),
    ),
    Mutant(
        "what tools had returned is dropped when their turn is cut",
        "supervisor/_turn_changes.py",
        " for one in opened.values() if one.result]\n",
        " for one in opened.values() if False]\n",
        ("scenarios/test_holes.py::test_result_that_does_not_fit_into_the_state",),
    ),
    Mutant(
        "what was said is dropped when the turn is cut",
        "supervisor/_turn_changes.py",
        "            None if draft is None else draft.message(stop_reason),\n",
        "            None,\n",
        ("scenarios/test_turns.py::test_cancel_turn_keeps_the_partial_text",),
    ),
    Mutant(
        "a turn that a crash cut is not closed",
        "sessions/_boot.py",
        "        if closing := ledger.closing():\n",
        "        if closing := ():\n",
        (
            "scenarios/test_durability.py::test_crash_with_open_tool_calls",
            "scenarios/test_durability.py::test_crash_in_mid_answer_leaves_the_marked_draft",
        ),  # test ids
    ),
    Mutant(
        "a history that is whole is closed again at each boot",
        "data/history.py",
        "    if not is_cut(messages):\n        return ()\n",
        "    if not messages:\n        return ()\n",
        ("scenarios/test_durability.py::test_a_whole_life_over_ten_hosts", "scenarios/test_stopping.py::test_stop_then_start_restores"),
    ),
    Mutant(
        "a call that a crash cut is said to be cancelled",
        "data/history.py",
        'calls.append((call, "unknown" if has_begun else "interrupted"))',
        'calls.append((call, "cancelled" if has_begun else "interrupted"))',
        ("scenarios/test_durability.py::test_crash_with_open_tool_calls",),
    ),
    Mutant(
        "a call that waited when a crash cut it is said to have begun",
        "data/history.py",
        " or not is_gated(asking, call.call_id)",
        " or asking is not None",
        ("scenarios/test_found_by_review_2.py::test_crash_before_the_interrupt_is_stored",),
    ),
    Mutant(
        "the queue that a crash left is not answered",
        "supervisor/_ledger.py",
        "        self.queue = {message.message_id: message for message in queue}\n",
        "        self.queue = {}\n",
        ("scenarios/test_durability.py::test_queue_left_by_a_crash_runs_at_boot",),
    ),
    Mutant(
        "the draft of an answer is kept beside it",
        "supervisor/_turn_changes.py",
        'lifecycle="on_completion",\n            actor=self.actor,\n            messages=(message,),\n            draft=None,\n',
        'lifecycle="on_completion",\n            actor=self.actor,\n            messages=(message,),\n',
        ("scenarios/test_durability.py::test_draft_is_gone_when_the_answer_is_there",),
    ),
    Mutant(
        "the state may grow over its limit",
        "supervisor/_ledger.py",
        "        size = self.size + self._promised + size_of(encode_message(message))\n        if size > self.max_bytes:\n",
        "        size = self.size + self._promised + size_of(encode_message(message))\n        if False:\n",
        ("scenarios/test_durability.py::test_state_that_grows_too_large",),
    ),
    Mutant(
        "messages at once are each measured alone",
        "supervisor/_ledger.py",
        "        size = self.size + self._promised + size_of(encode_message(message))\n        if size > self.max_bytes:\n",
        "        size = self.size + size_of(encode_message(message))\n        if size > self.max_bytes:\n",
        ("scenarios/test_found_by_review.py::test_posts_at_once_that_are_too_much_together",),
    ),
    Mutant(
        "two changes of the metadata undo each other",
        "supervisor/_ledger.py",
        "        now = self.metadata if self._coming is None else self._coming\n",
        "        now = self.metadata\n",
        ("scenarios/middleware/test_hooks.py::test_update_is_durable_and_two_do_not_undo_each_other",),
    ),
    Mutant(
        "calls run one after the other",
        "agent/_tool_calls.py",
        "    limiter = trio.CapacityLimiter(most) if len(opened) > most else None\n",
        "    limiter = trio.CapacityLimiter(1)\n",
        ("scenarios/test_turns.py::test_tools_of_one_answer_run_in_parallel",),
    ),
    Mutant(
        "a tool may take for ever",
        "agent/_tool_calls.py",
        "            with trio.move_on_after(limits.tool_timeout) as timeout:\n",
        "            with trio.CancelScope() as timeout:\n",
        ("scenarios/test_turns.py::test_tool_timeout",),
    ),
)

"""Planted bugs that a simulation or a sweep has to find: each replaces one function of the library while a block is open."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final
from unittest import mock

import trio

from tests.support.planting import Target
from trio_sagents.data.records import Saved

WAIT: Final = Target("storage/commit_queue.py", "PendingCommit.wait")
FINISH: Final = Target("storage/commit_queue.py", "PendingCommit.finish")
WAIT_ENDED: Final = Target("supervisor/_registry.py", "Entry.wait_ended")
FIND: Final = Target("supervisor/_registry.py", "Registry.find")
STOP_ENTRY: Final = Target("supervisor/_handle.py", "stop_entry")
DROP: Final = Target("broadcast/_subscriber.py", "Subscriber.drop")
LEAVE: Final = Target("broadcast/_presence.py", "Tracked.leave")
CLAIM: Final = Target("middleware/approvals.py", "Approvals.claim")
CLOSE_AFTER_CRASH: Final = Target("conversation/closing.py", "close_after_crash")
IS_AT_REST: Final = Target("conversation/messages_in.py", "_is_at_rest")
TARGETS: Final = (WAIT, FINISH, WAIT_ENDED, FIND, STOP_ENTRY, DROP, LEAVE, CLAIM, CLOSE_AFTER_CRASH, IS_AT_REST)

Plant = Callable[[contextlib.ExitStack], object]


def _replace(stack: contextlib.ExitStack, target: Target, new: Any) -> None:
    stack.enter_context(mock.patch.object(target.owner(), target.attribute, new))


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stands for a step that was forgotten."""


async def _at_once(*args: Any, **kwargs: Any) -> None:
    """Stands for a wait that was forgotten."""
    await trio.lowlevel.checkpoint()


def acknowledges_before_it_saves(stack: contextlib.ExitStack) -> None:
    """`post` returns when the message is submitted."""
    _replace(stack, WAIT, _at_once)


def stops_early(stack: contextlib.ExitStack) -> None:
    """`stop` returns when it has asked the agent to stop."""
    _replace(stack, WAIT_ENDED, _at_once)


def keeps_subscriptions(stack: contextlib.ExitStack) -> None:
    """A subscriber that is closed stays in the table."""
    _replace(stack, DROP, _nothing)


def forgets_to_leave(stack: contextlib.ExitStack) -> None:
    """A viewer who leaves stays present."""
    _replace(stack, LEAVE, _nothing)


def continues_after_a_failed_write(stack: contextlib.ExitStack) -> None:
    """A failed write is reported as done."""
    plain = FINISH.get()

    def finish(self: Any, saved: Any, error: Any) -> None:
        plain(self, saved or Saved(), None)

    _replace(stack, FINISH, finish)


def runs_two_agents(stack: contextlib.ExitStack) -> None:
    """The registry loses the agent that runs."""

    def find(self: Any, agent_id: str, conversation_id: str) -> None:
        self._entries.pop(agent_id, None)

    _replace(stack, FIND, find)


def stops_a_handle_early(stack: contextlib.ExitStack) -> None:
    """The handle's `stop` waits for nothing."""
    _replace(stack, STOP_ENTRY, _at_once)


def asks_nobody(stack: contextlib.ExitStack) -> None:
    """Calls that need an approval run without an approval."""
    _replace(stack, CLAIM, _at_once)


def begins_every_turn_at_once(stack: contextlib.ExitStack) -> None:
    """A message begins a turn whatever else goes on."""
    _replace(stack, IS_AT_REST, lambda state, others: True)


def closes_nothing_after_a_crash(stack: contextlib.ExitStack) -> None:
    """A history that a crash cut is used as it is."""
    plain = CLOSE_AFTER_CRASH.get()
    for user in list(sys.modules.values()):
        if getattr(user, "close_after_crash", None) is plain:
            stack.enter_context(mock.patch.object(user, "close_after_crash", return_value=None))


@contextlib.contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Plant a bug while the block is open."""
    with contextlib.ExitStack() as stack:
        plant(stack)
        yield

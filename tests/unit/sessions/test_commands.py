"""What callers want of an agent, as values: carried out once, in order, and its outcome is the caller's to hear."""

from typing import Any

import attrs
import pytest
import trio

from trio_sagents.exceptions import LimitExceeded
from trio_sagents.sessions._commands import BootAction, BootActions, Dismiss, Post, Resume, carry_out
from trio_sagents.supervisor import Entry


@attrs.define(eq=False)
class Door:
    """Stands for the parts of an agent that commands go to; keeps what came, and answers or raises."""

    outcome: Any = "receipt"
    came: list[Any] = attrs.field(factory=list)

    async def _take(self, *what: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.came.append(what)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    async def post(self, posted: Any, actor: Any) -> Any:
        return await self._take("post", posted, actor)

    async def resume(self, decisions: Any, actor: Any) -> Any:
        return await self._take("resume", decisions, actor)

    async def dismiss(self, actor: Any, interrupt_id: Any) -> Any:
        return await self._take("dismiss", actor, interrupt_id)

    @property
    def intake(self) -> "Door":
        return self

    answering = intake


def agent(outcome: Any = "receipt") -> Any:
    return Door(outcome)


def entry_of(conversation_id: str = "c") -> Entry:
    return Entry(f"agent-{conversation_id}", conversation_id, None, None, {})


POSTED: Any = object()


@pytest.mark.parametrize(
    ("command", "came", "result"),
    [
        (Post(POSTED, "alice"), ("post", POSTED, "alice"), "receipt"),
        (Resume((), "bob"), ("resume", (), "bob"), "receipt"),
        (Dismiss("eve", "halt-1"), ("dismiss", "eve", "halt-1"), None),
    ],
    ids=["post", "resume", "dismiss"],
)
async def test_carry_out_when_it_is_a_command(command: Any, came: Any, result: Any) -> None:
    """Each command goes to the agent with whoever gave it; a dismissal has no receipt."""
    live = agent()

    assert result == await carry_out(command, live)
    assert [came] == live.came


async def test_boot_action_when_it_is_carried_out() -> None:
    """The outcome of an action is for its caller: a receipt, or the library's own error. Any other error is the agent's."""
    action = BootAction(Dismiss(None))
    assert not action.is_done
    await action.run(agent())
    assert (True, None) == (action.is_done, action.outcome())

    error = LimitExceeded("max_message_bytes", 2, most=1)
    action = BootAction(Resume((), None))
    await action.run(agent(error))
    assert action.is_done
    with pytest.raises(LimitExceeded) as caught:
        action.outcome()
    assert error is caught.value

    action = BootAction(Resume((), None))
    with pytest.raises(OSError, match="mine"):
        await action.run(agent(OSError("mine")))
    assert not action.is_done


def test_boot_actions_when_callers_come_and_go() -> None:
    """Actions are given in the order of the calls, each until it is done; nothing is kept when nobody waits."""
    entry, other = entry_of(), entry_of("d")
    actions = BootActions()
    first, second = BootAction(Dismiss(1)), BootAction(Dismiss(2))
    for action in (first, second):
        actions.add(entry, action)

    assert first is actions.next_of(entry)
    assert actions.next_of(other) is None
    first.is_done = True
    assert second is actions.next_of(entry)
    actions.remove(entry, second)
    assert actions.next_of(entry) is None
    actions.remove(entry, first)
    actions.remove(entry, first)
    assert {} == actions._waiting

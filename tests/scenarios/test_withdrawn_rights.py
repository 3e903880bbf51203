"""A right to watch that is withdrawn ends the stream, and one that comes back continues it: the authorizer is asked again and again."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.scenarios import Verdicts, answer_to, ask, check_no_hole, kinds_of, opened, read_all, text_in
from trio_sagents import (
    AgentShutdown,
    AgentStateUpdated,
    ConversationNotFound,
    Gap,
    SameScope,
    Sessions,
    Snapshot,
    Subscriber,
    TurnEnded,
    conversation_topic,
)

INTERVAL = 60.0
ROUND = INTERVAL + 1
"""Time enough for the next round of questions."""
PENDING: Mapping[Any, str] = {("c", "main"): "pending"}
SUBSCRIBED: Mapping[Any, str] = {("c", "main"): "subscribed"}


def without(*scopes: str) -> Any:
    """Return what an authorizer says that refuses these scopes."""
    return lambda scope, conversation_id, action: scope not in scopes


async def test_right_that_is_withdrawn(autojump_clock: Any) -> None:
    """Of two viewers one loses the right: within the interval its stream ends, the other viewer's goes on, and nothing tells them apart
    from a viewer of a conversation that is not there."""
    verdicts = Verdicts()
    async with (
        opened(authorizer=verdicts) as sessions,
        sessions.watch("c", scope="alice") as alice,
        sessions.watch("c", scope="bob") as bob,
    ):
        await answer_to(sessions, "one", scope="alice")
        assert "re: one" == text_in(await read_all(alice)) == text_in(await read_all(bob))
        verdicts.allow = without("bob")
        await trio.sleep(ROUND)
        await answer_to(sessions, "two", scope="alice")

        assert [] == await read_all(bob)
        assert "re: two" == text_in(await read_all(alice))
        assert (PENDING, SUBSCRIBED) == (bob.subscriptions, alice.subscriptions)
        with pytest.raises(ConversationNotFound):
            await sessions.history("c", scope="bob")
        with pytest.raises(ConversationNotFound):
            async with sessions.watch("c", scope="bob"):
                pass


async def test_right_that_is_withdrawn_drops_what_was_not_read(autojump_clock: Any) -> None:
    """What waited for the viewer is not given any more, whether it was in the feed, or taken from it and not handed over."""
    verdicts = Verdicts()
    async with (
        opened(authorizer=verdicts) as sessions,
        sessions.watch("c", scope="bob") as bob,
        sessions.watch("c", scope="bob") as other,
    ):
        await answer_to(sessions, "secret", scope="alice")
        first = await anext(bob)  # the rest of its batch is taken, and waits in the subscriber
        verdicts.allow = without("bob")
        await trio.sleep(ROUND)

        assert isinstance(first.event, Snapshot)
        assert [] == await read_all(bob) + await read_all(other)
        await sessions.stop("c", scope="alice")
        await answer_to(sessions, "secret", scope="alice")
        assert [] == await read_all(bob) + await read_all(other)


async def test_right_that_comes_back(autojump_clock: Any) -> None:
    """The stream continues at the next round, from the place that the viewer has: nothing is missed silently."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.watch("c", scope="bob") as bob:
        await answer_to(sessions, "one", scope="alice")
        before = [await anext(bob), await anext(bob)]
        verdicts.allow = without("bob")
        await trio.sleep(ROUND)
        await answer_to(sessions, "two", scope="alice")
        verdicts.allow = without()
        await trio.sleep(ROUND)
        after = await read_all(bob)

        check_no_hole([*before, *after])
        assert "re: onere: two" == text_in(after)
        assert SUBSCRIBED == bob.subscriptions


async def test_right_that_comes_back_when_another_agent_is_up(autojump_clock: Any) -> None:
    """The snapshot of that agent replaces the last place that the viewer was given."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.watch("c", scope="bob") as bob:
        before = await read_all(bob)
        verdicts.allow = without("bob")
        await trio.sleep(ROUND)
        await answer_to(sessions, "two", scope="alice")
        await sessions.stop("c", scope="alice")
        await sessions.start("c", scope="alice")
        assert [] == await read_all(bob)
        verdicts.allow = without()
        await trio.sleep(ROUND)
        (snapshot,) = await read_all(bob)

        assert isinstance(snapshot.event, Snapshot)
        assert before[-1].cursor == snapshot.event.replaces


async def test_right_that_is_granted_while_the_agent_is_up(autojump_clock: Any) -> None:
    """A subscription that was refused comes alive within the interval, without another start of the agent."""
    verdicts = Verdicts(without("bob"))
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as bob:
        await sessions.start("c", scope="alice")
        await bob.subscribe("c")
        assert ([], PENDING) == (await read_all(bob), bob.subscriptions)
        verdicts.allow = without()
        await trio.sleep(ROUND)

        assert ([Snapshot], SUBSCRIBED) == (kinds_of(await read_all(bob)), bob.subscriptions)


async def test_right_to_debug_that_is_withdrawn(autojump_clock: Any) -> None:
    """Each channel is asked about with its own action: the debug channel ends, the main one goes on."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.watch("c", scope="bob") as bob:
        await bob.subscribe("c", channel="debug")
        await read_all(bob)
        verdicts.allow = lambda scope, conversation_id, action: action != "debug"
        await trio.sleep(ROUND)
        await answer_to(sessions, "two", scope="bob")
        seen = kinds_of(await read_all(bob))

        assert TurnEnded in seen
        assert AgentStateUpdated not in seen
        assert {("c", "main"): "subscribed", ("c", "debug"): "pending"} == bob.subscriptions


async def test_authorizer_that_raises_in_a_round(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is asked about is refused until the authorizer answers, and the log says why; the others are asked all the same."""
    verdicts = Verdicts()

    def verdict(scope: Any, conversation_id: str, action: str) -> bool:
        if scope == "bob":
            raise ExceptionGroup("two", [OSError("the directory is down"), ValueError()])
        return True

    async with (
        opened(authorizer=verdicts) as sessions,
        sessions.watch("c", scope="bob") as bob,
        sessions.watch("c", scope="alice") as alice,
    ):
        verdicts.allow = verdict
        with caplog.at_level(logging.ERROR, "trio_sagents"):
            await trio.sleep(ROUND)
        assert (PENDING, SUBSCRIBED) == (bob.subscriptions, alice.subscriptions)
        assert ["the authorizer failed for a viewer of conversation 'c'; the viewer is refused until it answers"] == caplog.messages
        verdicts.allow = without()
        await trio.sleep(ROUND)

        assert SUBSCRIBED == bob.subscriptions
        assert 1 == kinds_of(await read_all(bob)).count(Snapshot)


async def test_authorizer_that_hangs_in_a_round(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that does not come within 10 seconds is a refusal until it comes, and the log says so; nothing waits for it."""

    class Stuck(Verdicts):
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            if scope == "bob" and self.delay:
                await trio.sleep_forever()
            return True

    verdicts = Stuck()
    async with (
        opened(authorizer=verdicts) as sessions,
        sessions.watch("c", scope="bob") as bob,
        sessions.watch("c", scope="alice") as alice,
    ):
        verdicts.delay = math.inf
        await trio.sleep(INTERVAL + 9)
        assert SUBSCRIBED == bob.subscriptions
        await trio.sleep(2)
        assert (PENDING, SUBSCRIBED) == (bob.subscriptions, alice.subscriptions)
        verdicts.delay = 0.0
        await trio.sleep(ROUND)

        assert SUBSCRIBED == bob.subscriptions
    (message,) = caplog.messages
    assert "the authorizer did not answer within 10 s whether a viewer may see conversation 'c'" in message


async def test_authorizer_that_fails_on_its_way_out(autojump_clock: Any) -> None:
    """An error of the authorizer in a group with the cancellation of a question harms nobody but that viewer."""

    class Fragile(Verdicts):
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fail_when_cancelled)
                await trio.sleep(self.delay)
                nursery.cancel_scope.cancel()
            return True

        async def fail_when_cancelled(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                if self.delay:
                    raise OSError("cannot hang up")

    verdicts = Fragile()
    async with opened(authorizer=verdicts) as sessions, sessions.watch("c", scope="bob") as bob:
        verdicts.delay = math.inf
        await trio.sleep(INTERVAL + 11)
        assert PENDING == bob.subscriptions
        verdicts.delay = 0.0
        await trio.sleep(ROUND)

        assert SUBSCRIBED == bob.subscriptions


async def test_rounds_of_questions(autojump_clock: Any) -> None:
    """Each open subscription is asked about once for each interval, at most 16 of them at once; nobody is asked about a closed one."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as bob:
        await sessions.start("c", scope="alice")
        for number in range(20):
            await bob.subscribe(f"c{number}")
        verdicts.asked.clear()
        verdicts.delay = 1.0
        await trio.sleep(INTERVAL + 0.5)
        assert 16 == len(verdicts.asked)
        await trio.sleep(2)
        assert {f"c{number}" for number in range(20)} == {conversation_id for _, conversation_id, _ in verdicts.asked}
        assert 20 == len(verdicts.asked)
        for number in range(19):
            await bob.unsubscribe(f"c{number}")
        await trio.sleep(ROUND)

        assert 21 == len(verdicts.asked)


async def check_that_nothing_is_due() -> None:
    """See that no task waits for a time."""
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 100_000  # the limit of the test itself


async def test_rounds_when_nobody_watches(autojump_clock: Any) -> None:
    """While there is no subscription nothing is due; the first one that comes is asked about within the interval."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as bob:
        await sessions.start("c", scope="alice")
        await trio.sleep(1000)
        await check_that_nothing_is_due()
        await bob.subscribe("c")
        verdicts.asked.clear()
        await trio.sleep(ROUND)
        assert [("bob", "c", "view")] == verdicts.asked
        await bob.unsubscribe("c")
        await trio.sleep(ROUND)
        await check_that_nothing_is_due()


@pytest.mark.parametrize(
    "settings", [{"policy": {"reauthorize_interval": math.inf}, "authorizer": Verdicts()}, {"authorizer": SameScope()}]
)
async def test_rounds_when_they_are_disabled(autojump_clock: Any, settings: Any) -> None:
    """With an interval of math.inf, and with the synchronous default, nobody is asked again, and nothing is due."""
    async with opened(**settings) as sessions, sessions.watch("c", scope="bob") as bob:
        await trio.sleep(10 * INTERVAL)
        await check_that_nothing_is_due()

        assert SUBSCRIBED == bob.subscriptions


async def wait_and_see(sessions: Sessions, subscriber: Subscriber) -> list[type]:
    """Have an agent answer and end before the authorizer has answered; return what the viewer is told in the end."""
    await answer_to(sessions, "one", scope="alice")
    await sessions.stop("c", scope="alice")
    assert [] == await read_all(subscriber)
    await trio.sleep(5)
    return kinds_of(await read_all(subscriber))


async def test_agent_that_ended_before_the_authorizer_answered(autojump_clock: Any) -> None:
    """A viewer that may see the agent is told that it has missed it: a gap over all its events, and its end."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as bob:
        await bob.subscribe("c")
        verdicts.delay = 1.0
        original, verdicts.authorize = verdicts.authorize, fast_for("alice", verdicts)  # type: ignore[method-assign]  # only bob's answers are slow

        assert [Gap, AgentShutdown] == await wait_and_see(sessions, bob)
        assert [Gap, AgentShutdown] == await wait_and_see(sessions, bob)
        verdicts.authorize = original  # type: ignore[method-assign]  # as it was
        await sessions.start("c", scope="alice")
        await trio.sleep(1)
        assert [Snapshot] == kinds_of(await read_all(bob))


async def test_two_agents_that_ended_before_the_authorizer_answered(autojump_clock: Any) -> None:
    """They are told in their order, before the snapshot of the agent that is up; the authorizer is asked once."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as bob:
        await bob.subscribe("c")
        verdicts.authorize = fast_for("alice", verdicts)  # type: ignore[method-assign]  # only bob's answers are slow
        verdicts.delay = 1.0
        verdicts.asked.clear()
        for text in ("one", "two"):
            await ask(sessions, text, scope="alice")
            await sessions.stop("c", scope="alice")
        await sessions.start("c", scope="alice")
        await trio.sleep(5)
        seen = await read_all(bob)

        assert [Gap, AgentShutdown, Gap, AgentShutdown, Snapshot] == kinds_of(seen)
        assert 3 == len({envelope.incarnation for envelope in seen})
        assert seen[1].cursor == seen[2].event.replaces
        assert 1 == sum(scope == "bob" for scope, _, _ in verdicts.asked)


class SlowOwners(SameScope):
    """Owners are compared, and a scope that is not quick has its answers late."""

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        await trio.sleep(0 if scope == "alice" else 1)
        return True


async def test_agent_of_somebody_else_that_ended_before_the_authorizer_answered(autojump_clock: Any) -> None:
    """Whoever does not own the conversation is told nothing of its agent, whatever the authorizer says."""
    async with (
        opened(authorizer=SlowOwners()) as sessions,
        sessions.open_subscriber(scope="mallory") as mallory,
    ):
        await mallory.subscribe("c")
        await ask(sessions, scope="alice")
        await sessions.stop("c", scope="alice")
        await trio.sleep(2 * ROUND)
        await sessions.start("c", scope="alice")
        await trio.sleep(2 * ROUND)

        assert [] == await read_all(mallory)
        assert PENDING == mallory.subscriptions


async def test_viewer_that_was_enrolled_while_the_authorizer_was_asked(autojump_clock: Any) -> None:
    """A start with the same subscriber comes first: the late answer changes nothing, and nothing is told twice."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as bob:
        await bob.subscribe("c")
        verdicts.authorize = fast_for("alice", verdicts)  # type: ignore[method-assign]  # only bob's answers are slow
        verdicts.delay = 5.0
        await ask(sessions, scope="alice")
        verdicts.delay = 0.0
        await sessions.ensure_running("c", bob)
        assert [Snapshot] == kinds_of(await read_all(bob))
        await trio.sleep(ROUND)

        assert [] == await read_all(bob)


async def test_viewer_that_leaves_while_a_round_asks(autojump_clock: Any) -> None:
    """A subscription that has ended is not asked about any more, and no answer about it counts."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions, sessions.open_subscriber(scope="bob") as bob:
        for number in range(20):
            await bob.subscribe(f"c{number}")
        verdicts.asked.clear()
        verdicts.delay = 2.0
        await trio.sleep(ROUND)
        assert 16 == len(verdicts.asked)
        for number in range(20):
            await bob.unsubscribe(f"c{number}")
        await trio.sleep(ROUND)

        assert 16 == len(verdicts.asked)
        assert {} == bob.subscriptions


async def test_agent_id_fun_that_fails_in_a_round(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The viewer waits, and nobody else is harmed; the log says so."""
    broken = False

    def name(conversation_id: str) -> str:
        if broken:
            raise KeyError("no such tenant")
        return f"agent-{conversation_id}"

    async with opened(authorizer=Verdicts(), agent_id_fun=name) as sessions, sessions.watch("c", scope="bob") as bob:
        broken = True
        await trio.sleep(ROUND)
        broken = False
        await answer_to(sessions, scope="bob")
        assert "re: hi" == text_in(await read_all(bob))

    assert ["agent_id_fun failed for a viewer of conversation 'c'; the viewer waits"] == caplog.messages


async def test_agent_that_ended_before_the_authorizer_refused(autojump_clock: Any) -> None:
    """A viewer that may not see the agent is told nothing, and neither is one that has unsubscribed."""
    verdicts = Verdicts(without("bob"))
    async with (
        opened(authorizer=verdicts) as sessions,
        sessions.open_subscriber(scope="bob") as bob,
        sessions.open_subscriber(scope="carol") as carol,
    ):
        await bob.subscribe("c")
        await carol.subscribe("c")
        verdicts.authorize = fast_for("alice", verdicts)  # type: ignore[method-assign]  # only the viewers' answers are slow
        verdicts.delay = 1.0
        await ask(sessions, scope="alice")
        await sessions.stop("c", scope="alice")
        await carol.unsubscribe("c")
        await trio.sleep(5)

        assert [] == await read_all(bob) + await read_all(carol)


def fast_for(quick: str, verdicts: Verdicts) -> Any:
    """Return an `authorize` that answers one scope at once, and the others with the delay of `verdicts`."""

    async def authorize(scope: Any, conversation_id: str, action: str) -> bool:
        verdicts.asked.append((scope, conversation_id, action))
        await trio.sleep(0 if scope == quick else verdicts.delay)
        return bool(verdicts.allow(scope, conversation_id, action))

    return authorize


async def viewers_of(sessions: Sessions) -> list[str]:
    return sorted(await sessions.presence.list(conversation_topic("c")))


@pytest.mark.parametrize("asleep", [False, True], ids=["the agent is up", "the agent has left"])
async def test_viewer_whose_right_is_withdrawn(autojump_clock: Any, asleep: bool) -> None:
    """Whoever may not watch any more is no viewer any more, and keeps no agent up; once the right comes back, the viewer is there again."""
    verdicts = Verdicts()
    async with (
        opened(authorizer=verdicts, policy={"viewer_grace": 5.0}) as sessions,
        sessions.watch("c", scope="bob", viewer="Bob"),
    ):
        async with sessions.watch("c", scope="alice", viewer="Alice"):
            if asleep:
                await sessions.stop("c", scope="alice")
            assert ["Alice", "Bob"] == await viewers_of(sessions)
            verdicts.allow = without("bob")
            await trio.sleep(ROUND)
            assert ["Alice"] == await viewers_of(sessions)
            verdicts.allow = without()
            await trio.sleep(ROUND)
            assert ["Alice", "Bob"] == await viewers_of(sessions)
            verdicts.allow = without("bob")
            await trio.sleep(ROUND)
        await sessions.start("c", scope="alice")
        await trio.sleep(ROUND)
        assert [] == await viewers_of(sessions)
        assert asleep or not await sessions.running("c", scope="alice")
    assert {} == sessions.runtime.viewer_admission.present


async def test_viewer_who_leaves_without_the_right(autojump_clock: Any) -> None:
    """A viewer whose right was withdrawn, and who leaves then, leaves nothing behind."""
    verdicts = Verdicts()
    async with opened(authorizer=verdicts) as sessions:
        async with sessions.watch("c", scope="bob", viewer="Bob"):
            verdicts.allow = without("bob")
            await trio.sleep(ROUND)
        verdicts.allow = without()
        await trio.sleep(ROUND)
        assert [] == await viewers_of(sessions)

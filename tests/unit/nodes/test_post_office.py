"""Letters and calls between nodes: each call is carried out once and answered, whatever the engine loses or doubles."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trio_sagents.cluster import MemoryCluster
from trio_sagents.exceptions import AgentNotRunning, LimitExceeded, QueueFull, RegistryUnavailable
from trio_sagents.nodes import Mail, Node, _links, _post_office
from trio_sagents.nodes._calls import Calls, Engine
from trio_sagents.nodes._letters import Answer, Call, Detach, Done, Look, Notify, WaitIdle, encode_letter
from trio_sagents.nodes._links import Outgoing
from trio_sagents.nodes._post_office import PostOffice
from trio_sagents.testing import FaultyCluster


@attrs.define(eq=False)
class Clerk:
    """Keeps what it is asked for, and answers."""

    asked: list[Any] = attrs.field(factory=list)
    read_letters: list[Any] = attrs.field(factory=list)
    holes: list[str] = attrs.field(factory=list)
    lost: list[str] = attrs.field(factory=list)
    gate: trio.Event | None = None
    error: Exception | None = None
    cancelled: int = 0
    renames: int = 0

    async def carry_out(self, sender: str, call: int, request: Any) -> Any:
        self.asked.append(request)
        try:
            await (trio.lowlevel.checkpoint() if self.gate is None else self.gate.wait())
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return Done()

    def read(self, sender: str, letter: Any) -> None:
        self.read_letters.append(letter)

    def missed(self, sender: str) -> None:
        self.holes.append(sender)

    def unreachable(self, recipient: str) -> None:
        self.lost.append(recipient)

    def renamed(self) -> None:
        self.renames += 1


@attrs.define(eq=False)
class Pair:
    """Two offices at one engine."""

    engine: MemoryCluster
    views: list[FaultyCluster]
    offices: list[PostOffice]
    clerks: list[Clerk]
    ids: list[str]


@asynccontextmanager
async def pair(ttl: float = 1e6, *, seed: int = 0, **engine: Any) -> AsyncIterator[Pair]:
    """Open two offices, "one" and "two"."""
    inner = MemoryCluster(**engine)
    made = Pair(inner, [FaultyCluster(inner, 2 * seed + index) for index in (1, 2)], [], [Clerk(), Clerk()], ["one", "two"])
    async with trio.open_nursery() as nursery:
        for index, view in enumerate(made.views):
            await view.join(Node(made.ids[index], "", "1", 1), ttl)
            office = PostOffice(Engine(view, Calls(10.0)), lambda index=index: made.ids[index], nursery)  # type: ignore[misc]
            office.addressee = made.clerks[index]
            made.offices.append(office)
            nursery.start_soon(office.run)
        yield made
        nursery.cancel_scope.cancel()


async def outcome(office: PostOffice, recipient: str, request: Any, outcomes: list[Any]) -> None:
    """Call, and keep what came of that."""
    try:
        outcomes.append((await office.call(recipient, request))[1])
    except Exception as exc:
        outcomes.append(type(exc))


async def test_call_when_it_is_answered(autojump_clock: Any) -> None:
    """The answer comes back, and what is raised keeps its type."""
    async with pair() as made:
        number, reply = await made.offices[0].call("two", Look("c"))
        assert (1, Done()) == (number, reply)
        made.clerks[1].error = QueueFull("c", 3)
        with pytest.raises(QueueFull):
            await made.offices[0].call("two", Look("c"))


@pytest.mark.parametrize("seed", range(20))
async def test_call_when_mail_is_lost_and_doubled(autojump_clock: Any, seed: int) -> None:
    """Every call is carried out once, and answered."""
    async with pair(seed=seed) as made:
        for view in made.views:
            view.lost_mail, view.doubled_mail, view.lost_answers, view.delay = 0.3, 0.3, 0.2, 1.0
        done = []

        async def call(number: int) -> None:
            done.append(await made.offices[0].call("two", Notify("c", "m", number)))

        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(call, number)

        assert 20 == len(done)
        assert list(range(20)) == sorted(request.message for request in made.clerks[1].asked)


async def test_call_when_its_answer_is_remembered_no_more(autojump_clock: Any) -> None:
    """A call that was answered long ago is not carried out again."""
    async with pair() as made:
        for number in range(5):
            await made.offices[0].call("two", Notify("c", "m", number))
        made.offices[0].send("two", Call(1, Notify("c", "m", 0)))
        await trio.sleep(1)

        assert 5 == len(made.clerks[1].asked)


async def test_answers_when_there_are_too_many(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest answer is forgotten, and its call is not carried out again."""
    monkeypatch.setattr(_post_office, "KEPT_ANSWERS", 2)
    async with pair() as made:
        outcomes: list[Any] = []
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(outcome, made.offices[0], "two", Notify("c", "m", number), outcomes)
        for number in range(1, 6):
            made.offices[0].send("two", Call(number, Notify("c", "m", number)))
        await trio.sleep(1)

        assert [Done()] * 5 == outcomes
        assert 5 == len(made.clerks[1].asked)


async def test_call_when_the_node_is_gone(autojump_clock: Any) -> None:
    """Whoever knows that nobody will answer, ends the call; an answer that comes later is nobody's."""
    async with pair() as made:
        gate = made.clerks[1].gate = trio.Event()
        outcomes: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome, made.offices[0], "two", Look("c"), outcomes)
            await trio.sleep(1)
            for pending in made.offices[0].pending():
                pending.settle(None, AgentNotRunning(pending.conversation_id))
        gate.set()
        await trio.sleep(1)

        assert [AgentNotRunning] == outcomes
        assert not made.offices[0].pending()


async def test_answer_of_another_node_is_not_one(autojump_clock: Any) -> None:
    """Only the node that was asked can answer."""
    async with pair() as made:
        made.clerks[1].gate = trio.Event()
        await made.engine.join(Node("three", "", "1", 1), 1e6)
        wrong = Outgoing()
        wrong.put(encode_letter(Answer(1, Done())))
        with trio.move_on_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.offices[0].call, "two", Look("c"))
                await trio.sleep(1)
                await made.engine.send([Mail("one", "three", body) for body in wrong.take(65536, 1)])
                await trio.sleep(1)

                assert 1 == len(made.offices[0].pending())
                nursery.cancel_scope.cancel()


async def test_wait_when_nobody_waits_any_more(autojump_clock: Any) -> None:
    """A call that only waits ends with its caller; a command is carried out all the same."""
    async with pair() as made:
        clerk = made.clerks[1]
        clerk.gate = trio.Event()
        for request in (WaitIdle("c"), Look("c")):
            with trio.move_on_after(1):
                await made.offices[0].call("two", request)
        await trio.sleep(1)

        assert [WaitIdle("c"), Look("c")] == clerk.asked
        assert 1 == clerk.cancelled
        clerk.gate.set()


async def test_bounds(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many calls are refused by a named error, and too many calls of others wait until there is room."""
    async with pair() as made:
        gate = made.clerks[1].gate = trio.Event()
        outcomes: list[Any] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(outcome, made.offices[0], "two", Look("c"), outcomes)
            await trio.testing.wait_all_tasks_blocked()
            monkeypatch.setattr(_post_office, "MAX_CALLS", 2)
            with pytest.raises(LimitExceeded, match="calls to other nodes"):
                await made.offices[0].call("two", Look("c"))
            await trio.sleep(1)
            first = len(made.clerks[1].asked)
            gate.set()

        assert [Done()] * 3 == outcomes
        assert first <= 3 == len(made.clerks[1].asked)


async def test_letters_that_do_not_arrive(autojump_clock: Any) -> None:
    """A hole is told to whoever reads, and a recipient that gets nothing is told to whoever writes."""
    async with pair() as made:
        view, office = made.views[0], made.offices[0]
        office.send("two", Detach("a"))
        await trio.sleep(1)
        view.lost_mail = 1.0
        office.send("two", Detach("b"))
        await trio.sleep(1)
        view.lost_mail = 0.0
        office.ping(["two"])
        await trio.sleep(1)
        assert [Detach("a")] == made.clerks[1].read_letters
        assert ["one"] == made.clerks[1].holes

        office.send("nobody", Detach("c"))
        await trio.sleep(1)
        assert ["nobody"] == made.clerks[0].lost


async def test_letters_that_are_too_much(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a node is bounded: then it is dropped, and the node finds a hole."""
    monkeypatch.setattr(_links, "MAX_LETTER", 1000)
    monkeypatch.setattr(_links, "MAX_WAITING", 5000)
    async with pair() as made:
        view, office = made.views[0], made.offices[0]
        view.is_cut = True
        sent = [office.send("two", Detach("x" * 900)) for _ in range(6)]
        assert [True] * 5 + [False] == sent
        assert ["two"] == made.clerks[0].lost
        assert not office.send("two", Detach("x" * 1001))
        view.mend()
        office.ping(["two"])
        await trio.sleep(30)

        assert ["one"] == made.clerks[1].holes


async def test_mail_that_is_none(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is dropped with a line in the log, and the next mail is read."""
    async with pair() as made:
        bodies = [
            '{"v":1}',
            "[]",
            '{"v":1,"n":1,"low":1,"letters":[{"type":"Call","call":1,"request":{}}]}',
            '{"v":9,"n":1,"low":1,"letters":[]}',
        ]
        await made.engine.send([Mail("two", "one", body) for body in bodies])
        await trio.sleep(1)
        made.offices[0].send("two", Detach("a"))
        made.offices[0].send("two", Detach("b"))
        await trio.sleep(1)
        _, reply = await made.offices[0].call("two", Look("c"))

        assert Done() == reply
        assert 4 == sum("cannot be read" in record.message for record in caplog.records)


async def test_engine_that_is_away(autojump_clock: Any) -> None:
    """Mail waits until the engine is there again."""
    async with pair() as made:
        made.views[0].is_cut = made.views[1].is_cut = True
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.offices[0].call, "two", Look("c"))
                await trio.sleep(30)
                assert [] == made.clerks[1].asked
                made.views[0].mend()
                made.views[1].mend()
        assert [Look("c")] == made.clerks[1].asked


async def test_node_that_was_forgotten(autojump_clock: Any) -> None:
    """Under its new id a node begins anew: its calls end, and whoever follows something is told."""
    async with pair() as made:
        gate = made.clerks[1].gate = trio.Event()
        outcomes: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome, made.offices[0], "two", Look("c"), outcomes)
            await trio.sleep(1)
            await made.engine.leave("one")
            made.ids[0] = "uno"
            await made.engine.join(Node("uno", "", "1", 1), 1e6)
        gate.set()
        _, reply = await made.offices[0].call("two", Look("c"))

        assert [AgentNotRunning] == outcomes
        assert 1 == made.clerks[0].renames
        assert Done() == reply


async def test_host_error_in_a_call(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An error that is not the library's own is logged where it was raised, and its words stay there."""
    async with pair() as made:
        made.clerks[1].error = OSError("password")
        with pytest.raises(Exception, match="internal error"):
            await made.offices[0].call("two", Look("c"))
        made.clerks[1].error = RegistryUnavailable("away")
        with pytest.raises(RegistryUnavailable, match="away"):
            await made.offices[0].call("two", Look("c"))

        assert 1 == sum("a call of another node failed" in record.message for record in caplog.records)

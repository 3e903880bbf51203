"""A conversation is used from any node of a cluster, wherever its agent runs."""

import contextlib
from typing import Any

import attrs
import pytest
import trio

from tests.support.nodes import Killable, Nodes, Reader, two_nodes
from tests.support.people import interrupt_in
from tests.support.scenarios import NEVER, Router, answer_to, ask, make_agent, of_kind, opened, read_until, slow_agent, transcript
from trio_sagents import (
    Agent,
    AgentBusy,
    AgentNotRunning,
    AgentShutdown,
    AlreadyDecided,
    Answer,
    Approvals,
    Approve,
    AskUser,
    Cancelled,
    Completed,
    ConversationNotFound,
    DisplayMessageSaved,
    Halt,
    Interrupted,
    MessageConflict,
    Middleware,
    MiddlewareEvent,
    ModelAnswered,
    NotInterrupted,
    QueueFull,
    Reject,
    Row,
    SagentsError,
    ShutdownReason,
    Snapshot,
    StartFailed,
    ToolContext,
    TurnEnded,
    Unanswered,
    UnknownScope,
)
from trio_sagents.testing import Call, FaultyCluster, ScriptedModel


@attrs.frozen
class Knocked(MiddlewareEvent):
    """A host's own event."""

    who: str
    times: tuple[int, ...] = ()


@attrs.frozen
class Unspeakable(MiddlewareEvent):
    """A host's own event that cannot travel."""

    what: Any


class Listener(Middleware):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    async def on_message(self, context: Any, message: Any) -> None:
        self.heard.append(message)


def is_end(envelope: Any) -> bool:
    return isinstance(envelope.event, TurnEnded)


# ── commands


async def test_post_from_another_node_is_answered_there(autojump_clock: Any) -> None:
    """The message goes to the node of the agent, and the outcome comes back with the answer."""
    async with two_nodes() as (one, other):
        assert "re: first" == await answer_to(one, "first")

        assert "re: second" == await answer_to(other, "second")

        said = [("user", "first", None), ("assistant", "re: first", "stop"), ("user", "second", None), ("assistant", "re: second", "stop")]
        assert said == await transcript(other) == await transcript(one)


async def test_post_begins_a_conversation_where_it_arrives(autojump_clock: Any) -> None:
    """Without an agent anywhere, the node that is asked runs it, and the other node finds it there."""
    router = Router()
    async with two_nodes(router) as (one, other):
        await answer_to(other, "first")
        info = await one.start("c")
        await answer_to(one, "second")

        assert 1 == len(router.built)
        assert not info.started
        assert [] == list(await one.list_running())
        assert ["c"] == [found.conversation_id for found in await other.list_running()]


async def test_same_message_from_two_nodes_is_accepted_once(autojump_clock: Any) -> None:
    """Both get the receipt of the same message, and one of them says that it is a duplicate."""
    async with two_nodes() as (one, other):
        receipts = []

        async def post(sessions: Any) -> None:
            receipts.append(await sessions.post("c", "hi", message_id="m"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, one)
            nursery.start_soon(post, other)

        assert [False, True] == sorted(receipt.duplicate for receipt in receipts)
        outcomes = [await receipt.wait() for receipt in receipts]
        assert outcomes[0] == outcomes[1]
        assert 2 == len(await transcript(one))


async def test_errors_keep_their_type(autojump_clock: Any) -> None:
    """What refuses a command on the agent's node is raised on the node of the caller, with its arguments."""
    agent = slow_agent(seconds=50.0, middleware=[Listener()])
    async with two_nodes(agent, policy={"queue_limit": 1}) as (one, other):
        await one.post("c", "hi", message_id="m")
        await other.post("c", "queued")

        with pytest.raises(QueueFull) as full:
            await other.post("c", "too much")
        with pytest.raises(AgentBusy, match="running a turn"):
            await other.post("c", "now", overlap="reject")
        with pytest.raises(MessageConflict) as conflict:
            await other.post("c", "something else", message_id="m")
        with pytest.raises(NotInterrupted):
            await other.dismiss("c")
        with pytest.raises(LookupError):
            await (await other.get("c")).notify_middleware("nobody", 1)
        with pytest.raises(AgentBusy):
            await other.delete("c")

        assert ("c", 1) == (full.value.conversation_id, full.value.limit)
        assert "m" == conflict.value.message_id


async def test_decisions_from_another_node(autojump_clock: Any) -> None:
    """An approval is recorded once, runs the call once, and both receipts tell the outcome."""
    paid = []

    async def pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        return "paid"

    agent = make_agent(Call("pay", amount=5), "done", tools=[pay], middleware=[Approvals({"pay": True})])
    async with two_nodes(agent) as (one, other):
        interrupt = interrupt_in(await ask(other))
        assert interrupt == (await one.agent_info("c")).interrupt
        receipt = await one.resume("c", [Approve(interrupt.calls[0])])
        outcome = await receipt.wait()

        assert isinstance(outcome, Completed)
        assert [5] == paid
        assert (await other.resume("c", [Approve(interrupt.calls[0])])).duplicate
        with pytest.raises(AlreadyDecided):
            await one.resume("c", [Reject(interrupt.calls[0], "no")])


async def test_question_is_answered_from_another_node(autojump_clock: Any) -> None:
    """An answer to a question reaches the model."""

    def reply(request: Any) -> Any:
        results = request.messages[-1].results
        return results[0].content if results else Call("ask_user", question="Which?", kind="text")

    agent = Agent(model=ScriptedModel(reply), middleware=[AskUser()])
    async with two_nodes(agent) as (one, other):
        interrupt = interrupt_in(await ask(one))
        outcome = await (await other.resume("c", [Answer(interrupt.calls[0], "blue")])).wait()

        assert isinstance(outcome, Completed)
        assert "blue" in outcome.message.text


async def test_halt_is_dismissed_from_another_node(autojump_clock: Any) -> None:
    """A halt is acknowledged by whoever may decide, wherever they are."""

    async def stop() -> Halt:
        """Stop."""
        return Halt("hot")

    agent = make_agent(Call("stop"), "again", tools=[stop])
    async with two_nodes(agent) as (one, other):
        assert isinstance(await ask(one), Interrupted)
        await other.dismiss("c")

        assert "again" == await answer_to(other)


async def test_turn_is_cut_and_steered_from_another_node(autojump_clock: Any) -> None:
    """`cancel_turn` returns the settled outcome, and a message that interrupts is answered next."""
    async with two_nodes(slow_agent("x" * 50, seconds=50.0)) as (one, other):
        receipt = await one.post("c", "hi")
        await trio.sleep(10)
        interrupting = await other.post("c", "no, this", overlap="interrupt")
        assert isinstance(await receipt.wait(), Cancelled)
        await trio.sleep(10)
        cut = await other.cancel_turn("c")

        assert isinstance(cut, Cancelled)
        assert cut == await interrupting.wait()
        assert await other.cancel_turn("c") is None


async def test_steering_message_from_another_node(autojump_clock: Any) -> None:
    """A message that steers is read at the next model call of the running turn."""
    gate = trio.Event()

    async def wait() -> str:
        """Wait."""
        await gate.wait()
        return "waited"

    def reply(request: Any) -> Any:
        said = " + ".join(message.text for message in request.messages if message.role == "user")
        return said if request.messages[-1].role != "user" or len(request.messages) > 1 else Call("wait")

    agent = Agent(model=ScriptedModel(reply), tools=[wait])
    async with two_nodes(agent) as (one, other):
        receipt = await one.post("c", "first")
        await trio.sleep(1)
        await other.post("c", "second", overlap="steer")
        gate.set()
        outcome = await receipt.wait()

        assert isinstance(outcome, Completed)
        assert "first + second" == outcome.message.text


async def test_stop_from_another_node(autojump_clock: Any) -> None:
    """The agent has ended when `stop` returns; viewers everywhere get its last event, and the next post starts it again."""
    async with two_nodes(slow_agent("x" * 50, seconds=50.0)) as (one, other):
        await one.post("c", "hi")
        async with one.watch("c") as here, other.watch("c") as there:
            handle = (await other.start("c")).agent
            await trio.sleep(5)
            assert await other.stop("c")

            assert not await one.running("c")
            for watch in (here, there):
                (end,) = of_kind(await read_until(watch, AgentShutdown), AgentShutdown)
                assert ShutdownReason.STOPPED is end.reason
            assert ShutdownReason.STOPPED is await handle.wait_ended()
            with pytest.raises(AgentNotRunning):
                await handle.post("late")
            assert not await other.stop("c")
            receipt = await other.post("c", "again")
            assert ["c"] == [found.conversation_id for found in await other.list_running()]
            assert isinstance(await receipt.wait(), Completed)


async def test_stop_with_grace_lets_the_turn_finish(autojump_clock: Any) -> None:
    """The grace period counts at the agent's node."""
    async with two_nodes(slow_agent("x" * 50, seconds=50.0)) as (one, other):
        receipt = await one.post("c", "hi")
        assert await other.stop("c", grace_period=100.0)

        assert isinstance(await receipt.wait(), Completed)


async def test_looking_from_another_node(autojump_clock: Any) -> None:
    """`running`, `get`, `agent_info`, the state, and the wait for rest see the agent wherever it runs, and start nothing."""
    listener = Listener()
    router = Router(make_agent("one", middleware=[listener]))
    async with two_nodes(router) as (one, other):
        assert not await other.running("c")
        with pytest.raises(ConversationNotFound):
            await other.get("c")
        await one.post("c", "hi")
        assert await other.running("c")
        handle = await other.get("c")
        await handle.wait_idle()
        info = await other.agent_info("c")
        await handle.touch()
        await handle.notify_middleware("Listener", {"a": [1]})

        assert attrs.evolve(await one.agent_info("c"), last_activity_at=info.last_activity_at) == info
        assert await (await one.get("c")).state() == await handle.state()
        assert [{"a": [1]}] == listener.heard
        with pytest.raises(TypeError, match="another node"):
            await handle.notify_middleware("Listener", object())
        assert 1 == len(router.built)


async def test_rows_and_events_of_the_host_from_another_node(autojump_clock: Any) -> None:
    """Rows are in the transcript once; an event of a host's own class reaches viewers on every node."""
    async with two_nodes() as (one, other), one.watch("c") as here, other.watch("c") as there:
        await other.add_rows("c", [Row("notification", {"text": "hello"})])
        assert await other.publish("c", Knocked("me", (1, 2)))
        with pytest.raises(TypeError, match="another node"):
            await other.publish("c", Unspeakable(object()))

        for watch in (here, there):
            envelopes = await read_until(watch, Knocked)
            assert ["notification"] == [saved.row.content_type for saved in of_kind(envelopes, DisplayMessageSaved)]
            assert [Knocked("me", (1, 2))] == of_kind(envelopes, Knocked)
        assert 1 == len((await one.history("c")).rows)


async def test_values_of_a_post_travel_as_json(autojump_clock: Any) -> None:
    """Plain values reach the tools of the turn; others are refused before anything is done."""
    seen = []

    async def look(context: ToolContext) -> str:
        """Look."""
        seen.append(dict(context.values))
        return "seen"

    agent = make_agent(Call("look"), "done", Call("look"), "done", tools=[look])
    async with two_nodes(agent) as (one, other):
        await ask(one, values={"n": [1]})
        await ask(other, values={"n": [2]})
        with pytest.raises(TypeError, match="the agent runs on another node"):
            await other.post("c", "hi", values={"n": object()})

        assert [{"n": [1]}, {"n": [2]}] == seen


# ── who


@attrs.frozen
class User:
    """A host's scope."""

    name: str


class People:
    """A host's authorizer with names, which says who somebody is on any node."""

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        return isinstance(scope, User) and (action != "decide" or scope.name == "boss")

    def actor_of(self, scope: Any) -> str:
        assert isinstance(scope, User)
        return scope.name

    async def scope_of(self, actor: Any, conversation_id: str) -> Any:
        if actor == "stranger":
            raise LookupError(actor)
        return User(actor)


async def test_turn_runs_as_whoever_posted_on_another_node(autojump_clock: Any) -> None:
    """Who posted travels as what is stored of them: the turn has their scope, and the decision records their key."""
    seen: list[Any] = []

    async def pay(context: ToolContext) -> str:
        """Pay."""
        seen.append(context.scope)
        return "paid"

    agent = make_agent(*[Call("pay"), "done"] * 3, tools=[pay], middleware=[Approvals({"pay": True})])
    async with two_nodes(agent, authorizer=People()) as (one, other):
        boss = User("boss")
        interrupt = interrupt_in(await ask(other, scope=boss))
        await one.resume("c", [Approve(interrupt.calls[0])], scope=boss)
        await (await one.get("c", scope=boss)).wait_idle()
        for who, known in (("clerk", User("clerk")), ("stranger", UnknownScope("stranger"))):
            interrupt = interrupt_in(await ask(one, scope=User(who)))
            await (await one.resume("c", [Approve(interrupt.calls[0])], scope=boss)).wait()
            assert known == seen[-1]
            state = await (await other.get("c", scope=boss)).state()
            (result,) = [message for message in state.messages if message.role == "tool"][-1:]
            assert "boss" == result.metadata["decisions"][0]["by"]
        with pytest.raises(ConversationNotFound):
            await one.resume("c", [Approve(interrupt.calls[0])], scope=User("clerk"))

        assert User("boss") == seen[0]


async def test_other_scope_does_not_see_the_agent_on_another_node(autojump_clock: Any) -> None:
    """To another owner a conversation on another node looks as if it did not exist."""
    async with two_nodes() as (one, other):
        await ask(one, scope="anna")

        for call in (other.post("c", "hi", scope="ben"), other.get("c", scope="ben"), other.start("c", scope="ben")):
            with pytest.raises(ConversationNotFound):
                await call
        assert not await other.running("c", scope="ben")
        assert not await other.stop("c", scope="ben")
        assert await other.running("c", scope="anna")


# ── viewers


async def test_viewer_on_another_node_sees_the_text(autojump_clock: Any) -> None:
    """A viewer gets the events of the agent with the agent's numbers, on every node."""
    text = "Hello World, " * 10
    async with two_nodes(slow_agent(text, seconds=10.0)) as (one, other):
        receipt = await one.post("c", "hi")
        near, far = Reader(), Reader()
        async with one.watch("c") as here, other.watch("c") as there, trio.open_nursery() as nursery:
            nursery.start_soon(near.read, here, is_end)
            nursery.start_soon(far.read, there, is_end)
        outcome = await receipt.wait()

        assert isinstance(outcome, Completed)
        assert {outcome.message.message_id: text} == far.completed == near.completed
        assert near.place == far.place
        assert "TextDelta" in far.kinds()


async def test_cursor_is_good_on_every_node(autojump_clock: Any) -> None:
    """A viewer who moves to another node gets exactly what it has not seen, also if it was ahead of the other node."""
    text = "".join(chr(65 + i % 26) for i in range(100))
    async with two_nodes(slow_agent(text, seconds=100.0)) as (one, other):
        await one.post("c", "hi")
        reader = Reader()
        cursor = None
        for sessions in (one, other, one, other):
            async with sessions.watch("c", after=cursor) as watch:
                with trio.move_on_after(20):
                    await reader.read(watch, is_end)
            assert reader.envelopes[-1].seq == reader.place[1]
            cursor = reader.envelopes[-1].cursor
        async with other.watch("c", after=cursor) as watch:
            await reader.read(watch, is_end)

        assert [text] == list(reader.completed.values())
        assert 1 == reader.kinds().count("Snapshot")
        assert "Gap" not in reader.kinds()


async def test_viewer_who_waits_follows_the_agent_on_another_node(autojump_clock: Any) -> None:
    """A subscription without an agent finds the next one wherever it is started, and another owner's does not."""
    async with two_nodes() as (one, other), other.open_subscriber(scope="anna") as mine, other.open_subscriber(scope="ben") as his:
        await mine.subscribe("c")
        await his.subscribe("c")
        await trio.sleep(20)
        await ask(one, scope="anna")
        await read_until(mine, Snapshot)
        await trio.sleep(20)

        assert {("c", "main"): "pending"} == his.subscriptions
        assert {("c", "main"): "subscribed"} == mine.subscriptions


async def test_debug_channel_of_another_node(autojump_clock: Any) -> None:
    """The debug channel is told on other nodes too, to whoever follows it."""
    async with two_nodes() as (one, other), other.open_subscriber() as subscriber:
        await one.start("c")
        await other.start("c")
        await subscriber.subscribe("c", channel="debug")
        await trio.sleep(1)
        await ask(one)

        kinds = {type(envelope.event).__name__ for envelope in await read_until(subscriber, ModelAnswered)}
        assert {"Snapshot", "ModelCalled", "ModelAnswered"} <= kinds


async def test_page_on_another_node(autojump_clock: Any) -> None:
    """A page shows the transcript and the present of a conversation, wherever its agent runs."""
    async with two_nodes(slow_agent("Hello", seconds=5.0)) as (one, other):
        await one.post("c", "hi")
        async with other.page("c") as page:
            async for change in page:
                if any(isinstance(envelope.event, TurnEnded) for envelope in change.events):
                    break

            assert ["hi", "Hello"] == [row.content["text"] for row in page.rows]


async def test_viewer_on_another_node_keeps_the_agent_up(autojump_clock: Any) -> None:
    """A viewer who is present on another node counts at the agent's node."""
    async with two_nodes(inactivity_timeout=NEVER, policy={"viewer_grace": 10.0}) as (one, other):
        await ask(one)
        async with other.watch("c", viewer="anna"):
            await trio.sleep(30)

            assert 1 == (await one.agent_info("c")).viewers
            assert await one.running("c")
        await trio.sleep(60)
        assert not await one.running("c")


# ── ends


async def test_agent_that_leaves_ends_its_mirrors(autojump_clock: Any) -> None:
    """An idle agent leaves; viewers on other nodes get its last event, and the id is free there."""
    async with two_nodes(inactivity_timeout=100.0) as (one, other), other.watch("c") as watch:
        await one.start("c")
        envelopes = await read_until(watch, AgentShutdown)

        assert [ShutdownReason.INACTIVITY] == [event.reason for event in of_kind(envelopes, AgentShutdown)]
        await trio.sleep(1)
        assert not await one.running("c")
        assert await one.delete("c") is False


async def test_node_that_closes_hands_over(autojump_clock: Any) -> None:
    """When the agent's node closes, viewers elsewhere get the agent's last event, and a post is answered where it arrives."""
    nodes = Nodes(router=make_agent())
    async with nodes.node() as other, other.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        async with nodes.node() as one:
            await ask(one, "first")
            await other.start("c")
            await read_until(subscriber, Snapshot)
        (end,) = of_kind(await read_until(subscriber, AgentShutdown), AgentShutdown)

        assert ShutdownReason.CLOSED is end.reason
        assert "re: second" == await answer_to(other, "second")
        assert ["c"] == [found.conversation_id for found in await other.list_running()]


async def test_owner_is_killed_in_a_turn(autojump_clock: Any) -> None:
    """When the agent's node is lost, its viewers elsewhere get one last event, and follow the next agent; nothing is lost or done twice."""
    nodes = Nodes(router=slow_agent("x" * 100, seconds=100.0))
    async with nodes.node() as other, trio.open_nursery() as nursery:
        killable = Killable(nodes)
        one = await nursery.start(killable.run)
        await one.post("c", "first", message_id="m1")
        reader = Reader()
        async with other.watch("c") as watch:
            nursery.start_soon(reader.read, watch)
            await trio.sleep(10)
            killable.kill()
            receipt = await other.post("c", "second", message_id="m2")
            outcome = await receipt.wait()

            assert isinstance(outcome, Completed)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert ["first", "second"] == [text for role, text, _ in await transcript(other) if role == "user"]
        assert ["x" * 100] == [text for text in reader.completed.values() if len(text) == 100]
        assert 1 == reader.kinds().count("AgentShutdown")


# ── an engine that fails


@pytest.mark.parametrize("seed", range(5))
async def test_viewer_when_mail_is_lost(autojump_clock: Any, seed: int) -> None:
    """A hole in the events is found and filled; the texts are exact."""
    text = "".join(chr(65 + i % 26) for i in range(60))
    nodes = Nodes(router=slow_agent(text, seconds=30.0))
    view = FaultyCluster(nodes.cluster, seed)
    reader = Reader()
    async with nodes.node(cluster=view) as one, nodes.node() as other, trio.open_nursery() as nursery:
        await one.start("c")
        async with other.watch("c") as watch:
            nursery.start_soon(reader.read, watch)
            await trio.sleep(1)
            view.lost_mail = 0.3
            assert text == await answer_to(one)
            assert text == await answer_to(other)
            view.mend()
            await trio.sleep(10)

            assert [text, text] == list(reader.completed.values())
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["post", "rows"])
async def test_command_whose_answer_is_lost_is_done_once(autojump_clock: Any, how: str) -> None:
    """The agent's node has carried out a command, and dies before it can say so: the next node knows that it is done."""
    nodes = Nodes(router=make_agent())
    async with nodes.node() as other, trio.open_nursery() as nursery:
        killable = Killable(nodes)
        one = await nursery.start(killable.run)
        await ask(one, "first")
        await other.start("c")
        killable.view.lost_mail = 1.0

        async def kill() -> None:
            await trio.sleep(5)
            killable.kill()

        nursery.start_soon(kill)
        if how == "post":
            receipt = await other.post("c", "second")
            assert receipt.duplicate
        else:
            await other.add_rows("c", [Row("notification", {"text": "second"})])

        rows = [row.content["text"] for row in (await other.history("c")).rows if row.content.get("text") == "second"]
        assert ["second"] == rows
        nursery.cancel_scope.cancel()


async def test_agent_of_a_node_that_is_cut_off(autojump_clock: Any) -> None:
    """When the lease of the agent's node has ended, its viewers elsewhere get one last event, and the next post runs elsewhere."""
    nodes = Nodes(router=make_agent(), settings={"policy": {"lease_ttl": 9.0}})
    view = FaultyCluster(nodes.cluster)
    async with nodes.node(cluster=view) as one, nodes.node() as other, other.watch("c") as first:
        assert first.info.started
        await other.stop("c")
        await ask(one, "first")
        async with other.watch("c") as watch:
            await read_until(watch, Snapshot)
            view.is_cut = True
            (end,) = of_kind(await read_until(watch, AgentShutdown), AgentShutdown)
            assert ShutdownReason.FENCED is end.reason
            assert "re: second" == await answer_to(other, "second")
            await read_until(watch, TurnEnded)
        view.mend()
        await trio.sleep(30)
        assert "re: third" == await answer_to(one, "third")


async def test_viewer_of_a_node_that_is_cut_off_for_a_while(autojump_clock: Any) -> None:
    """A node that cannot reach the engine for a moment catches up; its viewers miss nothing silently."""
    text = "".join(chr(65 + i % 26) for i in range(60))
    nodes = Nodes(router=slow_agent(text, seconds=60.0))
    view = FaultyCluster(nodes.cluster)
    reader = Reader()
    async with nodes.node() as one, nodes.node(cluster=view) as other, trio.open_nursery() as nursery:
        await one.post("c", "hi")
        async with other.watch("c") as watch:
            nursery.start_soon(reader.read, watch)
            await trio.sleep(10)
            view.is_cut = True
            await trio.sleep(5)
            view.is_cut = False
            await (await one.get("c")).wait_idle()
            await trio.sleep(10)

            assert [text] == list(reader.completed.values())
            nursery.cancel_scope.cancel()


async def test_outcome_when_the_agent_ends_first(autojump_clock: Any) -> None:
    """A receipt tells that the agent has ended, or that its node is lost; the message is durable all the same."""
    nodes = Nodes(router=slow_agent(seconds=1000.0))
    async with nodes.node() as other, trio.open_nursery() as nursery:
        killable = Killable(nodes)
        one = await nursery.start(killable.run)
        await one.post("c", "first")
        receipt = await other.post("c", "second")
        await trio.sleep(1)
        await one.stop("c")
        assert Unanswered(ShutdownReason.STOPPED) == await receipt.wait()

        await one.start("c")
        receipt = await other.post("c", "third")
        killable.kill()
        assert Unanswered(ShutdownReason.FENCED) == await receipt.wait()
        nursery.cancel_scope.cancel()


async def test_start_fails_on_the_other_node(autojump_clock: Any) -> None:
    """A start on another node that fails is no agent: whoever waits for it starts the agent here."""
    nodes = Nodes()
    broken = Router(build_delay=2.0, build_error=OSError("no such model"))
    async with nodes.node(broken) as one, nodes.node(make_agent()) as other, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(StartFailed):
                await one.start("c")

        nursery.start_soon(start)
        await trio.sleep(1)
        assert "re: hi" == await answer_to(other)


async def test_look_does_not_keep_a_start_waiting(autojump_clock: Any) -> None:
    """Somebody who only looks for an agent on another node does not decide that there is none for whoever starts it."""
    async with two_nodes(Router(build_delay=1.0)) as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(one.start, "c")
        await trio.sleep(0.5)
        nursery.start_soon(other.running, "c")
        assert "re: hi" == await answer_to(other)


async def test_sessions_without_a_cluster_have_no_more_tasks(autojump_clock: Any) -> None:
    """Whoever has one node pays nothing."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with opened() as sessions:
        alone = trio.lowlevel.current_statistics().tasks_living - before
        assert sessions.runtime.neighbours is None
    async with Nodes(router=make_agent()).node():
        assert trio.lowlevel.current_statistics().tasks_living - before > alone
    assert alone == 3


async def test_events_travel_while_somebody_watches(autojump_clock: Any) -> None:
    """What nobody on another node follows is not sent there, and a viewer who comes back misses nothing."""
    text = "".join(chr(65 + i % 26) for i in range(60))
    reader = Reader()
    async with two_nodes(slow_agent(text, seconds=60.0)) as (one, other):
        async with other.open_subscriber() as subscriber:
            await one.start("c")
            await other.start("c")
            await subscriber.subscribe("c")
            await one.post("c", "hi")
            with trio.move_on_after(10):
                await reader.read(subscriber)
        relay = one.runtime.neighbours.relay  # type: ignore[union-attr]
        assert relay._streams
        await trio.sleep(10)
        assert not relay._streams

        async with other.watch("c", after=reader.envelopes[-1].cursor) as watch:
            await reader.read(watch, is_end)
        assert [text] == list(reader.completed.values())
        assert 1 == reader.kinds().count("Snapshot")


async def test_unknown_poster_does_not_get_past_what_waits(autojump_clock: Any) -> None:
    """Whoever has no scope on the agent's node may post there, and not decide by that."""

    async def pay() -> str:
        """Pay."""
        return "paid"

    agent = make_agent(Call("pay"), "done", "and then", tools=[pay], middleware=[Approvals({"pay": True})])
    async with two_nodes(agent, authorizer=People()) as (one, other):
        boss = User("boss")
        interrupt = interrupt_in(await ask(other, scope=boss))
        receipt = await one.post("c", "instead", scope=User("stranger"), overlap="interrupt")
        assert interrupt == (await other.agent_info("c", scope=boss)).interrupt
        await one.resume("c", [Approve(interrupt.calls[0])], scope=boss)

        assert isinstance(await receipt.wait(), Completed)


async def test_viewers_are_asked_about_on_their_own_node(autojump_clock: Any) -> None:
    """With an authorizer of the host's, a viewer who waits is asked about when the agent is found on another node."""
    async with two_nodes(authorizer=People()) as (one, other), other.open_subscriber(scope=User("anna")) as mine:
        async with other.open_subscriber(scope="nobody") as his:
            await mine.subscribe("c")
            await his.subscribe("c")
            await ask(one, scope=User("boss"))
            await read_until(mine, Snapshot)
            await trio.sleep(5)

            assert {("c", "main"): "pending"} == his.subscriptions


async def test_viewer_who_comes_after_one_who_may_not_see(autojump_clock: Any) -> None:
    """That one viewer may not see an agent on another node, or has left, says nothing about the next viewer."""
    async with two_nodes() as (one, other), other.open_subscriber(scope="ben") as his:
        await his.subscribe("c")
        await ask(one, scope="anna")
        await trio.sleep(10)
        async with other.open_subscriber(scope="anna") as mine:
            await mine.subscribe("c")
            await read_until(mine, Snapshot)

        assert {("c", "main"): "pending"} == his.subscriptions


# ── engines of a host that go wrong


class Odd:
    """An engine in which one method goes wrong for a time, in a way that the port does not know."""

    def __init__(self, inner: Any, method: str, how: str) -> None:
        self.inner, self.method, self.how = inner, method, how
        self.is_odd = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name != self.method:
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            if not self.is_odd:
                return await found(*args, **kwargs)
            await trio.sleep(0.01)
            if self.how == "raises":
                raise OSError("the host's own bug")
            return 7

        return call


@pytest.mark.parametrize("how", ["raises", "answers nonsense"])
@pytest.mark.parametrize("method", ["holders", "nodes", "send", "receive", "wait"])
async def test_engine_that_goes_wrong(autojump_clock: Any, caplog: pytest.LogCaptureFixture, method: str, how: str) -> None:
    """The block lives, what runs here works, the log has the traceback, and when the engine is well the other node is reached again."""
    nodes = Nodes()
    odd = Odd(nodes.cluster, method, how)
    async with nodes.node() as one, nodes.node(cluster=odd) as other:
        await answer_to(one, "first")
        odd.is_odd = True
        assert "re: here" == await answer_to(other, "here", "d")
        with trio.move_on_after(20), contextlib.suppress(SagentsError):
            await answer_to(other, "second")
        await trio.sleep(20)
        assert "re: still" == await answer_to(other, "still", "d")
        odd.is_odd = False
        await trio.sleep(20)

        assert "re: third" == await answer_to(other, "third")
    if method != "wait" or how == "raises":
        assert [record for record in caplog.records if record.exc_info], caplog.text

"""One `open_sessions` block under the machine: who calls it, what the callers were told, and what must be true of that.

What is looked at from inside the library is in `Inside`, and nowhere else.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from tests.search.sessions.agents import Boom, make_agent
from tests.search.sessions.streams import Stream
from tests.support.records import ExpectedConversation, Violation, check
from tests.support.stores import Backend, WatchedStore, expected_of
from trio_sagents import (
    AgentBusy,
    AgentNotRunning,
    AgentStopped,
    Cancelled,
    Completed,
    ConversationNotFound,
    Failed,
    LimitExceeded,
    MessageConflict,
    PersistenceError,
    QueueFull,
    Receipt,
    SagentsError,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SessionsClosed,
    ShutdownReason,
    SingleFactoryRouter,
    StartFailed,
    Status,
    Subscriber,
    conversation_topic,
    open_sessions,
)
from trio_sagents.data.cursors import Channel
from trio_sagents.data.status import HELD
from trio_sagents.supervisor import Phase
from trio_sagents.supervisor._agent import LiveAgent

INACTIVITY = 10.0
VIEWER_GRACE = 1.0
LATE = 1.0
"""How late the reaper may be."""
POLICY = SessionPolicy(
    viewer_grace=VIEWER_GRACE,
    grace_period=3.0,
    settle_timeout=5.0,
    start_timeout=6.0,
    draft_interval=0.5,
    queue_limit=4,
    subscriber_events=10,
    subscriber_text=120,
    replay_events=24,
)
REFUSALS = (AgentBusy, QueueFull, MessageConflict, LimitExceeded, ConversationNotFound, AgentNotRunning)
"""Errors that say: nothing was done."""


class HostError(Exception):
    """What a host's block raises."""


@attrs.define(eq=False)
class Client:
    """One call of the front door."""

    number: int
    kind: str
    conversation_id: str
    scope: str
    cancel_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    result: Any = None
    error: BaseException | None = None
    is_done: bool = False


@attrs.define(eq=False)
class Reader:
    """One mailbox."""

    scope: str
    subscriber: Subscriber | None = None
    streams: dict[tuple[str, str], Stream] = attrs.field(factory=dict)
    past: dict[tuple[str, str], Stream] = attrs.field(factory=dict)
    is_eager: bool = False
    """Reads all the time."""
    is_reading: bool = False
    is_over: bool = False
    leave: trio.Event = attrs.field(factory=trio.Event)
    subscribing: set[str] = attrs.field(factory=set)


@attrs.define(eq=False)
class Viewer:
    """Somebody who watches."""

    conversation_id: str
    key: str
    is_present: bool = False
    is_over: bool = False
    leave: trio.Event = attrs.field(factory=trio.Event)
    cancel_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define(eq=False)
class World:
    """A block, its callers, and what they know."""

    backend: Backend
    nursery: trio.Nursery
    store: WatchedStore
    sessions: Sessions = attrs.field(init=False)
    clients: list[Client] = attrs.field(factory=list)
    readers: list[Reader] = attrs.field(factory=list)
    viewers: list[Viewer] = attrs.field(factory=list)
    viewers_left: dict[str, float] = attrs.field(factory=dict)
    acked: dict[tuple[str, str], str] = attrs.field(factory=dict)
    """(conversation, message id) of every acknowledged message: how."""
    attempts: dict[tuple[str, str], list[str]] = attrs.field(factory=dict)
    """The texts that were posted under an id."""
    receipts: list[tuple[str, Receipt, Any]] = attrs.field(factory=list)
    streams: dict[str, int] = attrs.field(factory=dict)
    most_streams: int = 0
    boots: dict[str, int] = attrs.field(factory=dict)
    """Calls of the factory, by conversation."""
    starts: dict[Any, int] = attrs.field(factory=dict)
    """How many calls got `started=True`, by agent."""
    owners: dict[str, str] = attrs.field(factory=dict)
    """By incarnation."""
    begun: dict[str, float] = attrs.field(factory=dict)
    """When each incarnation went live."""
    touched: dict[str, float] = attrs.field(factory=dict)
    ended: dict[str, Any] = attrs.field(factory=dict)
    """Incarnations that left by themselves, or otherwise are seen to have ended."""
    how: str = ""
    is_open: bool = False
    is_leaving: bool = False
    is_over: bool = False
    is_dead: bool = False
    """Killed: what it does now happens to nobody."""
    counter: int = 0
    _leave: trio.Event = attrs.field(factory=trio.Event)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    # ── the block

    def open(self) -> None:
        """Begin to open the block."""
        self.nursery.start_soon(self._host, name="host")

    async def _host(self) -> None:
        async def create_agent(agent_id: str, config: Any) -> Any:
            conversation_id = config["conversation_id"]
            self.boots[conversation_id] = self.boots.get(conversation_id, 0) + 1
            await trio.lowlevel.checkpoint()
            return make_agent(self, conversation_id)

        config = SessionConfig(
            factory_router=SingleFactoryRouter(create_agent), store=self.store, inactivity_timeout=INACTIVITY, policy=POLICY
        )
        raised = HostError()
        try:
            with self._scope:
                async with open_sessions(config) as self.sessions:
                    self.is_open = True
                    await self._leave.wait()
                    if self.how == "raise":
                        raise raised
        except HostError as exc:
            self.note(exc is raised, "leaving", "the block's error left as another object")
        except Exception as exc:  # reported by the machine
            self.note(False, "leaving", f"the block was left with {exc!r}")
        self.is_over = True

    def leave(self, how: str) -> None:
        """Begin to leave the block: "leave", "raise", "cancel", or "kill": then it is over, whatever it still does."""
        self.how, self.is_leaving = how, True
        if how in {"cancel", "kill"}:
            self._scope.cancel()
        self._leave.set()
        for viewer in self.viewers:
            viewer.leave.set()
        if how == "kill":
            self.is_dead = True
            for client in self.clients:
                client.cancel_scope.cancel()
            for reader in self.readers:
                reader.leave.set()

    def reborn(self) -> "World":
        """Return a world on what a kill -9 would leave now."""
        backend = self.backend.clone()
        expectations: dict[str, ExpectedConversation] = {}
        for conversation_id in self.store.expectations:
            picture = backend.look(conversation_id)
            expectations[conversation_id] = (
                ExpectedConversation(conversation_id) if picture is None else expected_of(conversation_id, picture)
            )
        return self._successor(WatchedStore(backend, expectations))

    def reopened(self) -> "World":
        """Return a world on the same store, after this one."""
        return self._successor(WatchedStore(self.backend, self.store.expectations))

    def _successor(self, store: WatchedStore) -> "World":
        return World(store.backend, self.nursery, store, acked=dict(self.acked), attempts=dict(self.attempts), counter=self.counter)

    def note(self, condition: object, invariant: str, what: str) -> None:
        """Keep a violation seen inside the run, for the next check."""
        if not condition and not self.is_dead:
            self.store.violations.append(Violation(f"{invariant}: {what}"))

    # ── callers

    def call(
        self, kind: str, conversation_id: str, scope: str, function: Callable[[Client], Awaitable[Any]], cancel_after: int | None
    ) -> Client:
        """Start a call, and maybe its cancellation some rounds later."""
        client = Client(len(self.clients), kind, conversation_id, scope)
        self.clients.append(client)
        self.nursery.start_soon(self._run, client, function, name=f"client {client.number} {kind}")
        if cancel_after is not None:
            self.nursery.start_soon(_cancel_later, client.cancel_scope, cancel_after, name=f"canceller {client.number}")
        return client

    async def _run(self, client: Client, function: Callable[[Client], Awaitable[Any]]) -> None:
        try:
            with client.cancel_scope:
                client.result = await function(client)
        except SagentsError as exc:
            client.error = exc
            self._check_error(client, exc)
        except Violation as exc:
            client.error = exc
            if not self.is_dead:
                self.store.violations.append(exc)
        except Exception as exc:  # reported by the machine
            client.error = exc
            self.note(False, "errors", f"{client.kind} of {client.conversation_id} raised {exc!r}")
        client.is_done = True

    def _check_error(self, client: Client, error: SagentsError) -> None:
        kind, expected = client.kind, self.store.expected(client.conversation_id)
        match error:
            case ConversationNotFound():
                owns = expected.is_stored and expected.owner == client.scope
                self.note(not owns, "I20", f"{kind}: the owner is told there is no {client.conversation_id}")
            case SessionsClosed():
                self.note(self.is_leaving or kind == "ensure", "errors", f"{kind}: SessionsClosed while open")  # or its mailbox is closed
            case StartFailed():
                cause = error.__cause__
                fine = self.store.faults or self.store.dawdled or isinstance(cause, AgentStopped | Boom)  # a crash right after the boot
                self.note(fine and kind.split()[0] in {"start", "ensure", "post"}, "I5", f"{kind}: {error!r} from {cause!r}")
            case AgentBusy():
                self.note(kind == "post reject", "errors", f"{kind}: {error!r}")
            case QueueFull() | MessageConflict():
                self.note(kind.startswith("post") or kind == "handle", "errors", f"{kind}: {error!r}")
            case AgentNotRunning():
                self.note(kind in {"handle", "look"}, "errors", f"{kind}: {error!r}")
            case PersistenceError():
                fine = self.store.faults or self.store.dawdled
                self.note(fine and (kind.startswith("post") or kind == "handle"), "errors", f"{kind}: {error!r}")
            case _:
                self.note(False, "errors", f"{kind}: {error!r}")

    # ── what they do

    async def start(self, client: Client) -> Any:
        """start."""
        info = await self.sessions.start(client.conversation_id, scope=client.scope)
        self._check_started(client, info)
        return info

    async def ensure(self, client: Client, reader: Reader) -> Any:
        """ensure_running."""
        subscriber = reader.subscriber
        assert subscriber is not None
        key: tuple[str, Channel] = (client.conversation_id, "main")
        is_new = key not in reader.streams
        if is_new:
            reader.streams[key] = Stream(client.conversation_id, "main", reader.scope)
        try:
            info = await self.sessions.ensure_running(client.conversation_id, subscriber)
        except BaseException:
            if is_new and key not in subscriber.subscriptions:
                reader.streams.pop(key, None)
            raise
        if not reader.is_over:
            state = subscriber.subscriptions.get(key)
            fine = state == "subscribed" or Inside.is_gone(info.agent) or key not in reader.streams
            self.note(fine, "I18", f"ensure_running of {client.conversation_id} returned with the subscription {state}")
        self._check_started(client, info)
        return info

    def _check_started(self, client: Client, info: Any) -> None:
        if info.started:
            self.starts[info.agent] = self.starts.get(info.agent, 0) + 1
            self.note(self.starts[info.agent] == 1, "I4", f"two calls started one agent of {client.conversation_id}")
        owner = self.store.expected(client.conversation_id)
        self.note(not owner.is_stored or owner.owner == client.scope, "I20", f"{client.scope} got an agent of {owner.owner}")

    async def post(self, client: Client, text: str, message_id: str | None, overlap: Any, through: Any = None) -> Any:
        """post, through the front door or a handle."""
        conversation_id = client.conversation_id
        key = (conversation_id, message_id or "")
        if message_id is not None:
            self.attempts.setdefault(key, []).append(text)
        known = message_id is not None and message_id in self._stored_ids(conversation_id)
        try:
            if through is not None:
                receipt = await through.post(text, message_id=message_id, overlap=overlap)
            else:
                receipt = await self.sessions.post(conversation_id, text, scope=client.scope, message_id=message_id, overlap=overlap)
        except REFUSALS as exc:
            if message_id is not None and len(self.attempts[key]) == 1 and not self.is_dead:
                self.note(message_id not in self._stored_ids(conversation_id), "I14", f"{exc!r}, but {message_id} is stored")
            if isinstance(exc, MessageConflict):
                self.note(len(set(self.attempts[key])) > 1, "I15", f"a conflict on {message_id}, which had one content only")
            raise
        if self.is_dead:
            return None
        self._acknowledge(client, receipt, text, known, overlap)
        return receipt

    def _stored_ids(self, conversation_id: str) -> dict[str, str]:
        picture = self.store.look(conversation_id)
        return {} if picture is None else picture.ids

    def _acknowledge(self, client: Client, receipt: Receipt, text: str, known: bool, overlap: str) -> None:
        conversation_id, message_id = client.conversation_id, receipt.message_id
        key = (conversation_id, message_id)
        picture = self.store.look(conversation_id)
        self.note(picture is not None and picture.owner == client.scope, "I20", f"{client.scope} posted to another's {conversation_id}")
        if picture is not None:
            stored = [message for message in (*picture.history, *picture.queue) if message["message_id"] == message_id]
            self.note(len(stored) == 1, "I13", f"{message_id} is acknowledged, and stored {len(stored)} times")
            if stored:
                said = "".join(part["text"] for part in stored[0]["parts"])
                self.note(said == text, "I13", f"{message_id} says {said!r}, posted was {text!r}")
        if receipt.duplicate:
            self.note(len(self.attempts.get(key, ())) > 1, "I15", f"{message_id} is called a duplicate, but was posted once")
        else:
            self.note(not known, "I15", f"{message_id} was stored before, and is not called a duplicate")
            self.note(self.acked.get(key) != "fresh", "I15", f"{message_id} was accepted twice")
        self.acked[key] = "fresh" if not receipt.duplicate else self.acked.get(key, "duplicate")
        if overlap == "interrupt" and not receipt.duplicate:
            self.note(not Inside(self).is_ignored(conversation_id, message_id), "post", f"{message_id} came to interrupt, the turn goes on")
        self.nursery.start_soon(self._wait_for_answer, conversation_id, receipt, name="receipt")

    async def _wait_for_answer(self, conversation_id: str, receipt: Receipt) -> None:
        place = len(self.receipts)
        self.receipts.append((conversation_id, receipt, None))
        outcome = await receipt.wait()
        self.receipts[place] = (conversation_id, receipt, outcome)
        if self.is_dead:
            return
        answer = self.store.expected(conversation_id).answer_to(receipt.message_id)
        reason = None if answer is None else answer["stop_reason"]
        what = f"the answer to {receipt.message_id} is {outcome!r}, on record is {answer}"
        match outcome:
            case Completed(message=message):
                self.note(answer is not None and answer["message_id"] == message.message_id, "I13", what)
            case Cancelled():
                self.note(reason == "cancelled", "I13", what)
            case Failed(error=PersistenceError()):
                self.note(self.store.faults or self.store.dawdled, "I13", what)
            case Failed():
                self.note(reason == "stream_error", "I13", what)

    async def cancel_turn(self, client: Client) -> Any:
        """cancel_turn; what ran when it was called does not run when it returns."""
        inside = Inside(self)
        before = inside.turn(client.conversation_id)
        outcome = await self.sessions.cancel_turn(client.conversation_id, scope=client.scope)
        fine = before is None or inside.turn(client.conversation_id) is not before
        self.note(fine, "I3", f"cancel_turn returned {outcome!r}, and the turn runs")
        return outcome

    async def stop(self, client: Client, grace_period: float) -> bool:
        """stop: the agent that was there when it was called is gone when it returns."""
        inside = Inside(self)
        before = inside.entry(client.conversation_id)
        stopped = await self.sessions.stop(client.conversation_id, scope=client.scope, grace_period=grace_period)
        if before is not None and inside.owned_by(before, client.scope):
            self.note(inside.is_gone_entry(before), "I3", f"stop of {client.conversation_id} returned {stopped}, and the agent is there")
            written = before.live is None or before.live.journal.is_at_rest or self.store.dawdled
            self.note(written, "I3", f"stop of {client.conversation_id} returned, and the agent's last write has not ended")
        return stopped

    async def stop_from_inside(self, conversation_id: str, scope: Any) -> None:
        """stop, called by the agent's own tool."""
        stopped = await self.sessions.stop(conversation_id, scope=scope)
        self.note(stopped, "I3", f"stop from the own tool of {conversation_id} gave False")
        self.note(not await self.sessions.running(conversation_id, scope=scope), "I7", "it still accepts after a stop from inside")

    async def post_from_inside(self, conversation_id: str, scope: Any) -> None:
        """post, called by the agent's own tool."""
        self.counter += 1
        client = Client(-1, "post queue", conversation_id, scope)
        try:
            await self.post(client, f"say inside {self.counter}", None, "queue")
        except SagentsError as exc:
            if not isinstance(exc, AgentStopped):  # being stopped, it cannot wait for its successor
                self._check_error(client, exc)

    async def look(self, client: Client) -> None:
        """running and list_running agree with the agents that are there."""
        inside = Inside(self)
        running = await self.sessions.running(client.conversation_id, scope=client.scope)
        infos = {info.conversation_id for info in await self.sessions.list_running(scope=client.scope)}
        live = {entry.conversation_id for entry in inside.entries() if entry.phase is Phase.LIVE and inside.owned_by(entry, client.scope)}
        self.note(infos == live, "I2", f"list_running gives {infos}, there are {live}")
        del running
        info = await self.sessions.agent_info(client.conversation_id, scope=client.scope)
        entry = inside.entry(client.conversation_id)
        if entry is not None and entry.live is not None and entry.phase is Phase.LIVE:
            self.note(info.queued == len(entry.live.journal.state.queue), "I11", "agent_info tells another queue")

    async def use_handle(self, client: Client, what: str) -> None:
        """get, and a command."""
        handle = await self.sessions.get(client.conversation_id, scope=client.scope)
        match what:
            case "touch":
                now = trio.current_time()
                await handle.touch()
                self.touched[client.conversation_id] = now
            case "post":
                self.counter += 1
                await self.post(client, f"say handle {self.counter}", f"h{self.counter}", "queue", handle)
            case "stop":
                await handle.stop()
                self.note(Inside.is_gone(handle), "I3", "handle.stop returned, and the agent is there")
            case "wait_idle":
                await handle.wait_idle()
            case _:
                await handle.wait_ended()
                self.note(Inside.is_gone(handle), "I3", "wait_ended returned, and the agent is there")

    # ── viewers and readers

    async def hold_viewer(self, viewer: Viewer) -> None:
        """Be present until told to leave, or cancelled."""
        try:
            with viewer.cancel_scope:
                async with self.sessions.presence.track(conversation_topic(viewer.conversation_id), viewer.key):
                    viewer.is_present = True
                    try:
                        await viewer.leave.wait()
                    finally:
                        viewer.is_present = False
                        self.viewers_left[viewer.conversation_id] = trio.current_time()
        finally:
            viewer.is_over = True

    async def hold_reader(self, reader: Reader) -> None:
        """Keep a mailbox open until told to close it."""
        try:
            async with self.sessions.open_subscriber(scope=reader.scope) as subscriber:
                reader.subscriber = subscriber
                await reader.leave.wait()
                reader.is_over = True
        except SessionsClosed:
            pass
        finally:
            reader.is_over = True

    async def read(self, reader: Reader, most: int, *, batches: bool) -> None:
        """Read some events; cancelled at any point, nothing is lost."""
        subscriber = reader.subscriber
        assert subscriber is not None
        try:
            if batches:
                async for batch in subscriber.batches():
                    self.note(batch, "I17", "an empty batch")
                    for envelope in batch:
                        self._see(reader, envelope)
                    most -= len(batch)
                    if most <= 0:
                        return
            while most > 0:
                self._see(reader, await subscriber.__anext__())
                most -= 1
        except SessionsClosed:
            self.note(self.is_leaving or reader.is_over, "errors", "a reader was hung up on")
        finally:
            reader.is_reading = False

    def _see(self, reader: Reader, envelope: Any) -> None:
        stream = reader.streams.get((envelope.conversation_id, envelope.channel))
        if self.is_dead or reader.is_over:
            return
        if stream is None:
            self.note(False, "I16", f"an event of {envelope.conversation_id}/{envelope.channel} came to somebody who listens not")
            return
        try:
            stream.see(envelope, self.owners.get(envelope.incarnation))
        except Violation as exc:
            self.store.violations.append(exc)

    # ── what the library does

    def agent_begins(self, live: Any) -> None:
        """An agent went live."""
        incarnation = live.journal.identity.incarnation
        self.owners[incarnation] = live.entry.owner
        self.begun[incarnation] = trio.current_time()

    def agent_leaves(self, live: Any, reason: ShutdownReason | None) -> None:
        """An agent has decided to leave, in this very step: I22."""
        conversation_id, now = live.entry.conversation_id, trio.current_time()
        if reason is ShutdownReason.FENCED:
            self.note(self.store.faults, "I22", f"{conversation_id} is fenced, and no other writer took over")
        if reason not in {ShutdownReason.INACTIVITY, ShutdownReason.NO_VIEWERS}:
            return
        expected = self.store.expected(conversation_id)
        where = f"{conversation_id} leaves for {reason}"
        self.note(live.turns.turn is None and not self.streams.get(conversation_id), "I22", f"{where} while a turn runs")
        self.note(not live.inbox.reserved, "I22", f"{where} while a message is being accepted")
        # A commit whose answer was lost may have queued a message that nobody knows of, not even the agent. The next agent answers it.
        queue = live.journal.state.queue if self.store.faults else expected.queue
        self.note(not queue or live.board.status in HELD, "I22", f"{where} with runnable messages: {list(queue)}")
        active = max(self.begun[live.journal.identity.incarnation], expected.last_change)
        if reason is ShutdownReason.NO_VIEWERS:
            present = [viewer.key for viewer in self.viewers if viewer.conversation_id == conversation_id and viewer.is_present]
            self.note(not present, "I22", f"{where}, and {present} watch")
            left = max(self.viewers_left.get(conversation_id, -1e9), active)
            self.note(now - left >= VIEWER_GRACE - 1e-6, "I22", f"{where} {now - left} s after the last viewer or activity")
            self.note(live.board.status not in {Status.INTERRUPTED, Status.RUNNING}, "I22", f"{where} while {live.board.status}")
        else:
            active = max(active, self.touched.get(conversation_id, -1e9))
            what = f"{now - active} s after the last activity ({live.lifetime.last_activity} for itself, {expected.last_change} for us, faults {self.store.faults})"  # noqa: E501  # one message
            self.note(now - active >= INACTIVITY - 1e-6, "I22", f"{where} {what}")


@attrs.frozen
class Inside:
    """All access to the inside of the library is here."""

    world: World

    def entries(self) -> list[Any]:
        """All entries of the registry."""
        return list(self.world.sessions.runtime.registry)

    def entry(self, conversation_id: str) -> Any:
        """Return an entry, or None."""
        services = self.world.sessions.runtime
        return services.registry.find(services.agent_id_of(conversation_id), conversation_id)

    def live(self, conversation_id: str) -> Any:
        """One agent that takes commands, or None."""
        entry = self.entry(conversation_id)
        return entry.live if entry is not None and entry.phase is Phase.LIVE else None

    def turn(self, conversation_id: str) -> Any:
        """The running turn, or None."""
        entry = self.entry(conversation_id)
        return None if entry is None or entry.live is None else entry.live.turns.turn

    def owned_by(self, entry: Any, scope: str) -> bool:
        """Whether the scope sees it."""
        return bool(entry.owner == scope)

    def is_gone_entry(self, entry: Any) -> bool:
        """Whether nothing of an entry is left."""
        tasks = self.world.sessions.runtime.nursery.child_tasks
        return entry not in self.entries() and entry.task not in tasks and (entry.live is None or entry.live.turns.turn is None)

    @staticmethod
    def is_gone(handle: Any) -> bool:
        """Whether the agent of a handle has ended, or is about to."""
        live: LiveAgent = handle._agent
        return live.entry.phase is Phase.STOPPING

    def is_ignored(self, conversation_id: str, message_id: str) -> bool:
        """Whether a turn runs on that a message should have interrupted."""
        turn = self.turn(conversation_id)
        if turn is None or not turn.message_ids or message_id in turn.message_ids:
            return False
        return message_id in self.world.store.expected(conversation_id).queue and not turn.cancel_scope.cancel_called

    def describe(self, conversation_id: str) -> str:
        """Describe the state of a conversation, for an error message."""
        entry = self.entry(conversation_id)
        live = None if entry is None else entry.live
        if live is None:
            return f"entry {entry}"
        turn = live.turns.turn
        took = None if turn is None else (turn.message_ids, turn.cause, turn.cancel_scope.cancel_called)
        return (
            f"{entry.phase} {live.board.status}, turn {took}, "
            f"queue {[(message_id, message.text) for message_id, message in live.journal.state.queue.items()]}, "
            f"flights {list(live.inbox.reserved)}, at rest {live.journal.is_at_rest}, store busy {self.world.store.busy}, "
            f"history ends {[(m.role, m.text, m.stop_reason) for m in live.journal.state.messages[-4:]]}"
        )

    def check(self) -> None:
        """Check what must hold at any moment at which the run stands still."""
        world = self.world
        services = world.sessions.runtime
        entries = self.entries()
        tasks = sorted(task.name for task in services.nursery.child_tasks)
        ids = sorted(entry.agent_id for entry in entries)
        check(len(set(ids)) == len(ids) and len(set(tasks)) == len(tasks), "I1", f"two for one: {tasks}")
        check(tasks == ids, "I2", f"registered are {ids}, alive {tasks}")
        stored = {id(subscription) for table in services.subscriptions.values() for subscription in table}
        open_ones = {
            id(subscription)
            for reader in world.readers
            if reader.subscriber is not None and not reader.is_over
            for subscription in reader.subscriber._subscriptions.values()
        }
        check(stored <= open_ones, "I16", f"{len(stored - open_ones)} subscriptions whose reader is gone")
        for entry in entries:
            live = entry.live
            if live is None:
                check(entry.phase is not Phase.LIVE, "I2", f"{entry.agent_id} is live without an agent")
                continue
            if live.board.status is Status.RUNNING and entry.phase is Phase.LIVE:
                runs = live.turns.turn is not None or bool(live.journal.state.queue)
                check(runs, "I7", f"{entry.agent_id} is running, and no turn is")
            if live.turns.turn is not None:
                check(live.board.status is Status.RUNNING, "I7", f"{entry.agent_id} has a turn, and is {live.board.status}")
            check(
                len(live.journal.state.queue) <= POLICY.queue_limit,
                "I28",
                f"{entry.agent_id} has {len(live.journal.state.queue)} messages waiting",
            )
            present = sum(viewer.is_present for viewer in world.viewers if viewer.conversation_id == entry.conversation_id)
            check(
                live.entry.has_ended or live.lifetime.viewers == present,
                "I23",
                f"{entry.agent_id} sees {live.lifetime.viewers} viewers, there are {present}",
            )
            self._check_memory(live)

    def _check_memory(self, live: Any) -> None:
        expected = self.world.store.expected(live.entry.conversation_id)
        state = live.journal.state
        if live.journal.identity.epoch != expected.epoch or self.world.store.lies:
            return  # fenced, or told of a failure that did not happen
        where = f"{live.entry.agent_id} has in memory"
        stored = [message["message_id"] for message in expected.history]
        known = [message.message_id for message in state.messages]
        if not live.journal.is_at_rest or self.world.store.busy:
            # Memory may lag behind the store while a write is pending, and is never ahead of it.
            check(known == stored[: len(known)], "I11", f"{where} what is not stored: {known}, {stored}")
            ahead = set(state.queue) - set(expected.queue) - set(stored)
            check(not ahead, "I11", f"{where} a queue that is not stored: {ahead}")
            return
        check(known == stored, "I11", f"{where} the history {known}, stored is {stored}")
        check(list(state.queue) == list(expected.queue), "I11", f"{where} the queue {list(state.queue)}, stored is {list(expected.queue)}")
        check(state.message_ids == expected.ids, "I11", f"{where} other message ids")
        expected.check_history(is_whole=live.turns.turn is None and live.board.status is not Status.ERROR)

    def check_at_rest(self) -> None:
        """Check what must hold when every task waits: nobody is between two states without something to wait for."""
        for entry in self.entries():
            waits = entry.live is not None and (entry.live.turns.turn is not None or not entry.live.journal.is_at_rest)
            check(entry.phase is Phase.LIVE or waits or self.world.store.busy, "I2", f"{entry.agent_id} hangs: {entry.phase}")
            live = entry.live
            if entry.phase is Phase.LIVE and live is not None and live.turns.turn is None and live.journal.is_at_rest:
                check(
                    not live.journal.state.queue or live.board.status in HELD,
                    "I15",
                    f"{entry.agent_id} is {live.board.status}, its queue waits",
                )
                check(live.board.status is not Status.RUNNING, "I7", f"{entry.agent_id} is running, and no turn is")
                expected = self.world.store.expected(entry.conversation_id)
                held = not expected.queue or not expected.since_end or self.world.store.faults or self.world.store.dawdled
                check(held, "I15", f"{entry.agent_id} holds its queue, though {expected.since_end} messages came since the last turn")

    def check_due(self, now: float) -> None:
        """Check that every agent that was idle for long enough is gone."""
        for entry in self.entries():
            live = entry.live
            if (
                entry.phase is not Phase.LIVE
                or live is None
                or live.turns.turn is not None
                or live.inbox.reserved
                or not live.journal.is_at_rest
            ):
                continue
            idle = now - live.lifetime.last_activity
            check(idle <= INACTIVITY + LATE, "idle", f"{entry.agent_id} is idle for {idle} s, and stays")
            left = self.world.viewers_left.get(entry.conversation_id)
            begun = self.world.begun[live.journal.identity.incarnation]
            if left is not None and left > begun and not live.lifetime.viewers:
                alone = now - max(left, live.lifetime.last_activity)
                check(alone <= VIEWER_GRACE + LATE, "idle", f"{entry.agent_id} is alone for {alone} s, and stays")

    def check_closed(self) -> None:
        """Check that nothing is left of a block that was left."""
        services = self.world.sessions.runtime
        counts = attrs.astuple(self.world.sessions.statistics())
        check(not any(counts[:4]), "I29", f"agents are left: {self.world.sessions.statistics()}")
        check(not services.nursery.child_tasks, "I29", "tasks of agents are left")
        check(not len(services.commits) or self.world.how == "kill", "I29", "writes are left")
        waiting = [client for client in self.world.clients if not client.is_done]
        check(
            not waiting,
            "I14",
            f"calls that nobody answers: {[(waiter.kind, waiter.conversation_id) for waiter in waiting]}",
        )
        unknown = [receipt.message_id for _, receipt, outcome in self.world.receipts if outcome is None]
        check(not unknown, "I14", f"receipts that nobody settles: {unknown}")


async def _cancel_later(scope: trio.CancelScope, rounds: int) -> None:
    for _ in range(rounds):
        await trio.lowlevel.checkpoint()
    scope.cancel()

"""The state machine of the sessions: its rules call the library's front door in any order, and overlap as the drawn schedule says.

After every rule the run stands still, and the invariants are checked. `check_...` names below are methods of `SessionMachine`; `Expected`
stands for `ExpectedConversation`. Each invariant, and the code that checks it:

I1   one agent for each conversation: `Inside.check` (tasks by name), `MachineModel.stream` (who talks at once)
I2   an agent is registered exactly while it lives: `Inside.check`, `Inside.check_at_rest`, `World.look`
I3   stopped means gone: `World.stop`, `World.cancel_turn`, `World.use_handle`
I4   one factory call and one `started=True` for each agent: `World._check_started`, `check_all` (boots)
I5   a failed start leaves nothing: `Inside.check`, `check_at_rest`; it fails only for a reason: `World._check_error`
I6   does not apply: in one process there is no registry that can be out of reach
I7   legal transitions, "running" exactly while a turn runs, never at the end: `Stream._understand`, `Inside.check`, `check_at_rest`
I8   append-only, each call answered once, valid for a provider: `Expected.check_history`, `check_request`,
     `WatchedStore.check_expectations`
I9   nothing of a turn is stored or published after a later turn: `Expected.check_history`, `Stream._understand`
I13  what is acknowledged is durable, at that very step and for ever: `World._acknowledge`, `check_acknowledged`
I14  an error means that nothing was done, and silence never lasts: `World.post`, `Inside.check_closed`
I15  every accepted message is answered once: `Expected.apply`, `check_acknowledged`, `finish`
I16  the table of subscriptions: `Inside.check`
I17  no gaps without a `Gap`, in the text too: `Stream`
I18  a snapshot comes first, and says what it replaces: `Stream._see_first`
I19  the last event comes once for each agent that was seen, and last: `Stream.see`, `drain`
I20  no answer, event or commit reaches another scope: `Stream.see`, `World._check_error`, `World._acknowledge`
I21  does not apply as a step: `publish` is synchronous; `finish` shows that a reader who never reads delays nobody
I22  no agent leaves with work to do, nor for NO_VIEWERS with a viewer: `World.agent_leaves`, in the step of the decision
I23  presence is exactly who is there: `Inside.check`

Also I10, I11 and I12: `Expected.apply`, `WatchedStore.check_expectations`, `Inside._check_memory`; I29: `Inside.check_closed`.
"""

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from tests.search.sessions.agents import CALM, REPLIES, TURN_TIMEOUT
from tests.search.sessions.streams import Stream
from tests.search.sessions.world import INACTIVITY, VIEWER_GRACE, Client, Inside, Reader, Viewer, World
from tests.support.logs import quiet_log
from tests.support.records import Violation, check
from tests.support.stores import MemoryBackend, SqliteBackend, WatchedStore
from trio_sagents import Completed
from trio_sagents.supervisor._agent import LiveAgent
from trio_sagents.testing.machines import MODES, TrioStateMachine

CONVERSATIONS = st.sampled_from(["a", "a", "b"])
SCOPES = st.sampled_from(["alice", "alice", "alice", "alice", "bob"])
PAUSES = st.sampled_from([0, 0, 1, 2, 3, 4, 6, 9, -1, -1, -1])
"""How many scheduler rounds pass after a rule; -1 is until every task waits."""
CANCELS = st.sampled_from([None, None, None, None, 0, 1, 2, 3, 4, 6])
"""How many rounds after its begin a call is cancelled."""
BEHAVIOURS = st.sampled_from([*CALM, *CALM, *sorted(set(REPLIES) - set(CALM))])
SECONDS = st.sampled_from(
    [
        0.001,
        0.3,
        0.3,
        VIEWER_GRACE,
        VIEWER_GRACE,
        VIEWER_GRACE + 0.1,
        VIEWER_GRACE + 0.1,
        3.0,
        INACTIVITY - 0.001,
        INACTIVITY,
        INACTIVITY + 1.5,
    ]
)
OVERLAPS = st.sampled_from(["queue", "queue", "queue", "steer", "interrupt", "interrupt", "reject"])
FAULTS = st.sampled_from(["before", "after", "slow", "slow", "late", "load"])
INDEX = st.integers(0, 3)
A_MINUTE = 60.0


class SessionMachine(TrioStateMachine):
    """Over `MemoryStore`; its subclass is over `SqliteStore`."""

    on_sqlite: ClassVar[bool] = False
    world: World

    # ── beginning

    @initialize(seed=st.integers(0, 2**20), mode=st.sampled_from(MODES), audience=st.sampled_from([False, True, True, True]))
    def open(self, seed: int, mode: Any, audience: bool) -> None:
        """Open the first block."""
        self.handles: list[Any] = []
        self.worlds: list[World] = []
        self._undo.enter_context(quiet_log())
        self._watch_agents()
        self.begin(seed, mode)
        if self.on_sqlite:
            folder = self._undo.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            backend: Any = SqliteBackend(Path(folder))
        else:
            backend = MemoryBackend()
        self._enter(World(backend, self.nursery, WatchedStore(backend, {})))
        self._seat(audience)

    def _seat(self, audience: bool) -> None:
        """Open a mailbox for a reader who reads all the time, and one for a reader who does not."""
        if audience:
            self.open_reader("alice")
            self.open_reader("alice")
            for reader in self.world.readers:
                for conversation_id in ("a", "b"):
                    self._subscribe(reader, conversation_id, "main", again=False)
            self.world.readers[0].is_eager = True
            self._read_eagerly()

    def _read_eagerly(self) -> None:
        world = self.world
        for reader in self._readers():
            if reader.is_eager and not reader.is_reading:
                reader.is_reading = True
                world.call("read", "-", reader.scope, lambda _, mailbox=reader: world.read(mailbox, 10**6, batches=False), None)  # type: ignore[misc]

    def _enter(self, world: World) -> None:
        self.world = world
        self.worlds.append(world)
        world.open()
        self.settle()
        check(world.is_open, "opening", "the block did not open")

    def _watch_agents(self) -> None:
        """Call the machine in the step in which an agent goes live, and in the step in which it decides to leave."""
        serve = LiveAgent.serve

        async def watched(live: LiveAgent) -> None:
            world = next(world for world in self.worlds if world.is_open and world.sessions.runtime is live.services)
            world.agent_begins(live)
            await serve(live)
            world.agent_leaves(live, live.entry.reason)

        LiveAgent.serve = watched  # type: ignore[method-assign]  # put back when the example ends
        self._undo.callback(setattr, LiveAgent, "serve", serve)

    def pause(self, rounds: int) -> None:
        """Let the run continue."""
        if rounds < 0:
            self.settle()
            if not any(world.is_dead for world in self.worlds):
                self._check(Inside(self.world).check_at_rest)
        else:
            self.tick(rounds)

    # ── calls

    @rule(conversation_id=CONVERSATIONS, scope=SCOPES, cancel=CANCELS, pause=PAUSES)
    def start(self, conversation_id: str, scope: str, cancel: int | None, pause: int) -> None:
        """Start an agent."""
        self.world.call("start", conversation_id, scope, self.world.start, cancel)
        self.pause(pause)

    @rule(conversation_id=CONVERSATIONS, behaviour=BEHAVIOURS, overlap=OVERLAPS, pause=PAUSES)
    def post(self, conversation_id: str, behaviour: str, overlap: str, pause: int) -> None:
        """Post a new message."""
        number = self._count()
        self._post(conversation_id, "alice", f"{behaviour} {number}", f"m{number}", overlap, None)
        self.pause(pause)

    @rule(conversation_id=CONVERSATIONS, behaviours=st.lists(BEHAVIOURS, min_size=2, max_size=4), overlap=OVERLAPS, pause=PAUSES)
    def post_at_once(self, conversation_id: str, behaviours: list[str], overlap: str, pause: int) -> None:
        """Several people press Enter at once."""
        for behaviour in behaviours:
            self._post(conversation_id, "alice", f"{behaviour} {self._count()}", None, overlap, None)
        self.pause(pause)

    @rule(conversation_id=CONVERSATIONS, scope=SCOPES, behaviour=BEHAVIOURS, overlap=OVERLAPS, cancel=CANCELS, pause=PAUSES)
    def try_to_post(self, conversation_id: str, scope: str, behaviour: str, overlap: str, cancel: int | None, pause: int) -> None:
        """Post as anybody, perhaps cancelled."""
        number = self._count()
        self._post(conversation_id, scope, f"{behaviour} {number}", f"m{number}", overlap, cancel)
        self.pause(pause)

    @rule(conversation_id=CONVERSATIONS, index=INDEX, same=st.sampled_from([True, True, False]), times=st.integers(1, 3), pause=PAUSES)
    def post_again(self, conversation_id: str, index: int, same: bool, times: int, pause: int) -> None:
        """Post a message again, or another message under its id."""
        earlier = [(key[1], texts[0]) for key, texts in self.world.attempts.items() if key[0] == conversation_id]
        if not earlier:
            return
        message_id, first = earlier[-1 - index % len(earlier)]
        for _ in range(times):
            self._post(conversation_id, "alice", first if same else f"say {self._count()}", message_id, "queue", None)
        self.pause(pause)

    def _count(self) -> int:
        self.world.counter += 1
        return self.world.counter

    def _post(self, conversation_id: str, scope: str, text: str, message_id: str | None, overlap: str, cancel: int | None) -> None:
        world = self.world

        async def call(client: Client) -> Any:
            return await world.post(client, text, message_id, overlap)

        world.call(f"post {overlap}", conversation_id, scope, call, cancel)

    @rule(conversation_id=CONVERSATIONS, scope=SCOPES, cancel=CANCELS, pause=PAUSES)
    def cancel_turn(self, conversation_id: str, scope: str, cancel: int | None, pause: int) -> None:
        """Cancel the running turn."""
        self.world.call("cancel_turn", conversation_id, scope, self.world.cancel_turn, cancel)
        self.pause(pause)

    @rule(conversation_id=CONVERSATIONS, scope=SCOPES, grace=st.sampled_from([0.0, 0.0, 0.0, 1.0, 30.0]), cancel=CANCELS, pause=PAUSES)
    def stop(self, conversation_id: str, scope: str, grace: float, cancel: int | None, pause: int) -> None:
        """Stop an agent."""
        world = self.world
        world.call("stop", conversation_id, scope, lambda client: world.stop(client, grace), cancel)
        self.pause(pause)

    @rule(
        conversation_id=CONVERSATIONS,
        scope=SCOPES,
        what=st.sampled_from(["look", "touch", "post", "stop", "wait_idle", "wait_ended"]),
        cancel=CANCELS,
        pause=PAUSES,
    )
    def use_handle(self, conversation_id: str, scope: str, what: str, cancel: int | None, pause: int) -> None:
        """Ask what runs, or command an agent through its handle."""
        world = self.world
        if what == "look":
            world.call("look", conversation_id, scope, world.look, cancel)
        else:
            world.call("handle", conversation_id, scope, lambda client: world.use_handle(client, what), cancel)
        self.pause(pause)

    @precondition(lambda self: any(not client.is_done for client in self.world.clients))
    @rule(index=INDEX, pause=PAUSES)
    def cancel_caller(self, index: int, pause: int) -> None:
        """Cancel a caller who waits."""
        waiting = [client for client in self.world.clients if not client.is_done]
        waiting[-1 - index % len(waiting)].cancel_scope.cancel()
        self.pause(pause)

    # ── what goes wrong

    @rule(conversation_id=CONVERSATIONS, fault=FAULTS, after=st.integers(0, 3))
    def arm(self, conversation_id: str, fault: Any, after: int) -> None:
        """Have one of the next commits fail, before or after its effect, or take long; or the next load fail."""
        if fault == "load":
            self.world.store.armed_loads[conversation_id] = 1
        else:
            self.world.store.armed[conversation_id] = [*[None] * after, fault]

    # ── time

    @rule(seconds=SECONDS)
    def let_time_pass(self, seconds: float) -> None:
        """Let time pass, each deadline in its turn."""
        self.advance(seconds)
        self._check(Inside(self.world).check_at_rest)
        self._check(lambda: Inside(self.world).check_due(self.clock.current_time()))

    @rule(seconds=st.one_of(st.none(), st.none(), SECONDS), pause=PAUSES)
    def let_time_jump(self, seconds: float | None, pause: int) -> None:
        """Let time jump, exactly to the next deadline (None), or as after a sleep of the machine: the next rules race with what is due."""
        if seconds is None:
            seconds = self.seconds_to_deadline()
        if 0 < seconds < 1e6:
            self.jump(seconds)
            self.world.store.dawdled += 1  # every pending operation is late now
        self.pause(max(pause, 0))

    @rule(
        conversation_id=CONVERSATIONS,
        early=st.sampled_from([0.4, 0.05, 0.001, 0.0]),
        slow=st.booleans(),
        what=st.sampled_from(["post", "post", "start", "view"]),
        pause=PAUSES,
    )
    def come_late(self, conversation_id: str, early: float, slow: bool, what: str, pause: int) -> None:
        """Post at the end of an agent's idle time, or at that very moment, with a commit that lasts beyond it."""
        world = self.world
        world.call("start", conversation_id, "alice", world.start, None)
        self.settle()
        live = Inside(world).live(conversation_id)
        if live is None or live.turns.turn is not None:
            return
        left = live.lifetime.last_activity + INACTIVITY - self.clock.current_time()
        if left > early:
            self.advance(left - early - 0.01)
            self.jump(0.01)
        if slow:
            world.store.armed[conversation_id] = ["slow"]
        if what == "post":
            self._post(conversation_id, "alice", f"say {self._count()}", None, "queue", None)
        elif what == "start":
            world.call("start", conversation_id, "alice", world.start, None)
        else:
            self.come_to_view(conversation_id, 0)
        self.pause(pause)
        self.advance(0.45)

    @rule(conversation_id=CONVERSATIONS, behaviour=BEHAVIOURS, first=st.integers(0, 8), seconds=st.sampled_from([0.0, 0.1]), pause=PAUSES)
    def stop_in_the_middle(self, conversation_id: str, behaviour: str, first: int, seconds: float, pause: int) -> None:
        """Stop an agent while one of its commits is pending."""
        world = self.world
        world.store.armed[conversation_id] = [*[None] * (first % 3), "slow"]
        self._post(conversation_id, "alice", f"{behaviour} {self._count()}", None, "queue", None)
        self.tick(first)
        self.advance(seconds)
        world.call("stop", conversation_id, "alice", lambda client: world.stop(client, 0.0), None)
        self.pause(pause)
        self.advance(0.6)

    # ── viewers

    @rule(conversation_id=CONVERSATIONS, pause=PAUSES)
    def come_to_view(self, conversation_id: str, pause: int) -> None:
        """Somebody comes to watch."""
        viewer = Viewer(conversation_id, f"viewer {len(self.world.viewers)}")
        self.world.viewers.append(viewer)
        self.nursery.start_soon(self.world.hold_viewer, viewer, name=viewer.key)
        self.pause(pause)

    @precondition(lambda self: any(not viewer.is_over for viewer in self.world.viewers))
    @rule(index=INDEX, cancelled=st.booleans(), pause=PAUSES)
    def leave_view(self, index: int, cancelled: bool, pause: int) -> None:
        """A viewer leaves, or is cancelled."""
        there = [viewer for viewer in self.world.viewers if not viewer.is_over]
        viewer = there[index % len(there)]
        if cancelled:
            viewer.cancel_scope.cancel()
        viewer.leave.set()
        self.pause(pause)

    @rule(conversation_id=CONVERSATIONS, stays=st.sampled_from([1, 3, 9]), others=st.integers(0, 1), seconds=SECONDS)
    def visit(self, conversation_id: str, stays: int, others: int, seconds: float) -> None:
        """Watch an agent for a while, and leave. Another viewer may stay, or come late."""
        world = self.world
        world.call("start", conversation_id, "alice", world.start, None)
        self.settle()
        for _ in range(others):
            self.come_to_view(conversation_id, 0)
        visitor = Viewer(conversation_id, f"viewer {len(world.viewers)}")
        world.viewers.append(visitor)
        self.nursery.start_soon(world.hold_viewer, visitor, name=visitor.key)
        self.tick(stays)
        visitor.leave.set()
        self.let_time_pass(seconds)

    # ── readers

    def _readers(self) -> list[Reader]:
        return [reader for reader in self.world.readers if reader.subscriber is not None and not reader.is_over]

    @precondition(lambda self: len(self._readers()) < 4)
    @rule(scope=SCOPES)
    def open_reader(self, scope: str) -> None:
        """Open a mailbox."""
        reader = Reader(scope)
        self.world.readers.append(reader)
        self.nursery.start_soon(self.world.hold_reader, reader, name="reader")
        self.settle()

    @precondition(lambda self: self._readers())
    @rule(index=INDEX, conversation_id=CONVERSATIONS, cancel=CANCELS, pause=PAUSES)
    def ensure_running(self, index: int, conversation_id: str, cancel: int | None, pause: int) -> None:
        """Have the agent up, and subscribe."""
        readers = self._readers()
        reader = readers[index % len(readers)]
        if conversation_id in reader.subscribing:
            return  # the model would not know which came first
        world = self.world

        async def call(client: Client) -> Any:
            reader.subscribing.add(conversation_id)
            try:
                return await world.ensure(client, reader)
            finally:
                reader.subscribing.discard(conversation_id)

        world.call("ensure", conversation_id, reader.scope, call, cancel)
        self.pause(pause)

    @precondition(lambda self: self._readers())
    @rule(
        index=INDEX,
        conversation_id=CONVERSATIONS,
        channel=st.sampled_from(["main", "main", "main", "debug"]),
        what=st.sampled_from(["subscribe", "subscribe", "resume", "resume", "unsubscribe", "close"]),
        pause=PAUSES,
    )
    def change_reader(self, index: int, conversation_id: str, channel: Any, what: str, pause: int) -> None:
        """Subscribe, from now or from the last place; unsubscribe; do both; close the mailbox."""
        readers = self._readers()
        reader = readers[index % len(readers)]
        if what == "close":
            reader.leave.set()
            self.settle()
            return
        if conversation_id in reader.subscribing:
            return  # the model would not know which came first
        if what in {"unsubscribe", "resume"}:
            self._unsubscribe(reader, conversation_id, channel)
            self.pause(pause)
        if what in {"subscribe", "resume"}:
            self._subscribe(reader, conversation_id, channel, again=what == "resume")
            self.pause(pause)

    def _subscribe(self, reader: Reader, conversation_id: str, channel: Any, *, again: bool) -> None:
        key = (conversation_id, channel)
        if reader.is_over or conversation_id in reader.subscribing:
            return
        if key not in reader.streams:
            past = reader.past.get(key)
            stream = past.go_on() if again and past is not None and past.cursor is not None else None
            reader.streams[key] = stream or Stream(conversation_id, channel, reader.scope)
        after = reader.streams[key].cursor if reader.streams[key].is_resumed else None
        subscriber = reader.subscriber
        assert subscriber is not None

        async def subscribe() -> None:
            await subscriber.subscribe(conversation_id, channel=channel, after=after)

        self.do(subscribe)

    def _unsubscribe(self, reader: Reader, conversation_id: str, channel: Any) -> None:
        subscriber = reader.subscriber
        assert subscriber is not None

        async def unsubscribe() -> None:
            await subscriber.unsubscribe(conversation_id, channel=channel)
            stream = reader.streams.pop((conversation_id, channel), None)
            if stream is not None:
                reader.past[conversation_id, channel] = stream

        self.do(unsubscribe)

    @precondition(lambda self: any(not reader.is_reading for reader in self._readers()))
    @rule(index=INDEX, most=st.integers(1, 12), batches=st.booleans(), cancel=CANCELS, pause=PAUSES)
    def read(self, index: int, most: int, batches: bool, cancel: int | None, pause: int) -> None:
        """Read some events; perhaps cancelled."""
        readers = [reader for reader in self._readers() if not reader.is_reading]
        reader = readers[index % len(readers)]
        reader.is_reading = True
        world = self.world
        world.call("read", "-", reader.scope, lambda client: world.read(reader, most, batches=batches), cancel)
        self.pause(pause)

    @rule()
    def read_everything(self) -> None:
        """Every reader reads all there is, and then knows all there is."""
        self.settle()
        self.drain()

    def drain(self) -> None:
        """Have every reader read all there is; compare what they know with what is."""
        world = self.world
        clients = [client for client in world.clients if client.kind == "read" and not client.is_done]
        for client in clients:
            client.cancel_scope.cancel()
        self.settle()
        for reader in self._readers():
            reader.is_reading = True
            clients.append(world.call("read", "-", reader.scope, lambda _, mailbox=reader: world.read(mailbox, 10**6, batches=False), None))  # type: ignore[misc]
        self.settle()
        self._check(self._check_readers)
        for client in clients:
            client.cancel_scope.cancel()
        self.settle()
        self._read_eagerly()

    def _check_readers(self) -> None:
        world = self.world
        inside = Inside(world)
        up = {entry.live.journal.identity.incarnation for entry in inside.entries() if entry.live is not None}
        for reader in self._readers():
            for (conversation_id, _), stream in reader.streams.items():
                expected = world.store.expected(conversation_id)
                live = inside.live(conversation_id)
                if live is not None and live.journal.is_at_rest and not world.store.busy:
                    stream.check_up_to_date(live, [message["message_id"] for message in expected.history], list(expected.queue))
                silent = {place for place in stream.whole if place not in up and place not in stream.ended and place in world.begun}
                if not stream.is_resumed:
                    check(not silent, "I19", f"agents of {conversation_id} that ended without a last word: {silent}: {stream.log[-6:]}")

    # ── restarts

    @rule(how=st.sampled_from(["leave", "raise", "cancel", "kill"]), pause=PAUSES)
    def restart(self, how: str, pause: int) -> None:
        """Leave the block in one of the possible ways, and open one on the same store; or kill it, and open one on a copy."""
        world = self.world
        if how == "kill":
            following = world.reborn()
            world.leave(how)
            self._enter(following)
            self._seat(bool(world.readers))
            return
        self.drain()
        world.leave(how)
        self.pause(pause)
        self._wait_until_over(world)
        self._enter(world.reopened())
        self._seat(bool(world.readers))

    def _wait_until_over(self, world: World) -> None:
        for _ in range(12):
            self.settle()
            if world.is_over:
                break
            self.advance(5.0)
        check(world.is_over, "I29", "the block is not left after a minute")
        for reader in world.readers:
            reader.leave.set()
        self.settle()
        world.store.check_expectations()
        Inside(world).check_closed()

    # ── what must hold

    def _check(self, checks: Any) -> None:
        try:
            checks()
        except BaseException:
            self.has_failed = True
            raise

    @invariant()
    def check_all(self) -> None:
        """Check everything that holds at any moment."""
        self._check(self._check_all)

    def _check_all(self) -> None:
        world = self.world
        for violation in world.store.violations:
            raise violation
        check(world.most_streams <= 1, "I1", f"{world.most_streams} model streams of one conversation at once")
        Inside(world).check()
        if not world.store.busy:
            world.store.check_expectations()
        self._check_acknowledged()

    def _check_acknowledged(self) -> None:
        world = self.world
        for conversation_id, message_id in world.acked:
            expected = world.store.expected(conversation_id)
            in_history = sum(message["message_id"] == message_id for message in expected.history)
            # The store may be a step ahead of the model, never behind it: see `WatchedStore.commit`.
            if world.store.busy and not in_history and message_id not in expected.queue:
                continue
            check(
                in_history + (message_id in expected.queue) == 1,
                "I15",
                f"{message_id} of {conversation_id}: in the history {in_history} times",
            )

    # ── the end

    def finish(self) -> None:
        """A minute later everything works, and everything that was accepted is answered."""
        world = self.world
        world.store.armed.clear()
        world.store.armed_loads.clear()
        self.advance(A_MINUTE)
        self._check_all()
        self.drain()
        waiting = [client.kind for client in world.clients if not client.is_done]
        check(set(waiting) <= {"handle", "read"}, "I14", f"calls that nobody answers: {waiting}")
        for conversation_id in ("a", "b"):
            self._revive(conversation_id)
        self.drain()
        self._check_all()
        for conversation_id in ("a", "b"):
            expected = world.store.expected(conversation_id)
            check(not expected.queue, "I15", f"{conversation_id}: never answered: {list(expected.queue)}")
            expected.check_history(is_whole=True)
        for viewer in world.viewers:
            viewer.leave.set()
        self.advance(INACTIVITY + 3.0)
        check(not Inside(world).entries(), "idle", "an agent stays though nobody needs it")
        world.leave("leave")
        self._wait_until_over(world)
        self._check_all_violations()

    def _check_all_violations(self) -> None:
        for violation in self.world.store.violations:
            raise violation

    def _revive(self, conversation_id: str) -> None:
        world = self.world
        owner = world.store.expected(conversation_id).owner
        entry = Inside(world).entry(conversation_id)
        scope = str(owner if owner is not None else entry.owner if entry is not None else "alice")
        client: Client | None = None
        answers: list[Any] = []
        for _ in range(6):
            world.counter += 1
            text, message_id = f"say last {world.counter}", f"last{world.counter}"
            answers = []

            async def call(client: Client, text: str = text, message_id: str = message_id, answers: list[Any] = answers) -> None:
                receipt = await world.post(client, text, message_id, "queue")
                answers.append(await receipt.wait())

            client = world.call("post queue", conversation_id, scope, call, None)
            self.advance(TURN_TIMEOUT + 5.0)
            self._check_all()
            # A turn over messages from before may have failed meanwhile: then the new message is held until the next post.
            if answers and isinstance(answers[0], Completed) and not world.store.expected(conversation_id).queue:
                return
        raise Violation(
            f"liveness: no post to {conversation_id} is answered: {client and client.error!r}, {Inside(world).describe(conversation_id)}"
        )


class SqliteSessionMachine(SessionMachine):
    """Over `SqliteStore`, its threads in lockstep."""

    on_sqlite = True

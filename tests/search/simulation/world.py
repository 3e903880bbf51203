"""The surroundings of every story: sessions on stores, models and tools that fail as planned, two viewers, and the checks."""

import functools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.support.logs import quiet_log
from trio_sagents import (
    Agent,
    Completed,
    Conversation,
    ConversationNotFound,
    MemoryCluster,
    MemoryLeases,
    MemoryStore,
    Receipt,
    SagentsError,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SqliteStore,
    Tool,
    ToolContext,
    TurnOutcome,
    open_sessions,
)
from trio_sagents.testing import (
    Call,
    EventSpy,
    FaultyLeases,
    FaultyModel,
    FaultyStore,
    Hang,
    Reply,
    ScriptedModel,
    Simulation,
    Violation,
    faulty_tool,
)
from trio_sagents.testing._plan import FAULT_KINDS, FaultKind
from trio_sagents.testing.invariants import CommitLog, check, check_closed, check_conversation, check_messages, check_told, no_task_left

ALICE: Final = "alice"
BOB: Final = "bob"
CLERK: Final = "clerk"
"""In stories with roles: somebody who may post, and not decide."""
PATIENCE: Final = 60.0
"""Virtual seconds in which a conversation must work again, whatever happened."""
GRACE: Final = 2.0
LEASE: Final = 6.0
WINDOW: Final = 2
REPLIES: Final[dict[str, Reply]] = {
    "say": "so be it",
    "long": "many words, one after the other",
    "slow": "slowly",
    "hang": ["and then", Hang()],
    "fail": ["it was", RuntimeError("the provider died")],
    "note": ["a note", Call("note", text="n")],
    "two": [Call("note", text="n"), Call("wait", seconds=1)],
    "wait": Call("wait", seconds=3),
    "broken": Call("broken"),
    "unknown": Call("nonsense"),
    "pay": [Call("pay", amount=1), Call("pay", amount=2), Call("pay", amount=3)],
    "halt": Call("halt"),
    "everything": [Call("pay", amount=1), Call("halt"), Call("pay", amount=2), Call("wait", seconds=3)],
    "question": Call("ask_user", question="Which colour?"),
    "task": Call("task", name="helper", instructions="note it"),
    "delegate": Call("delegate"),
    "files": [Call("create_file", path="/a.md", content="one"), Call("list_files")],
    "todo": Call("write_todos", todos=[{"content": "one"}]),
}
"""The answers, by the first word of the request. After a tool, the answer is "done"."""


def reply_to(request: Any) -> Reply:
    """Return what the model says."""
    last = request.messages[-1]
    return "done" if last.role == "tool" else REPLIES.get(last.text.split()[0], "so be it")


@attrs.define(eq=False)
class WatchedModel:
    """A model of one conversation, which looks at what it is asked, and at who else asks."""

    world: "World"
    conversation_id: str
    name: str = "watched"
    streams: int = 0
    is_alone: bool = True
    """Whether nobody else may talk for the conversation meanwhile; sub-agents do."""

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """Open one answer."""
        self.streams += 1
        if self.world.cut is not None:
            self.world.simulation.follow("turn", self.world.cut.set)
        try:
            with self.world.noting():
                check(self.streams == 1 or not self.is_alone, "I1", f"{self.streams} model streams of {self.conversation_id!r}")
                check_messages(request.messages[:-1], is_whole=False)
                check(request.messages and request.messages[-1].role in {"user", "tool"}, "I8", "the model is asked to answer nothing")
            reply = reply_to(request)
            interval = 0.5 if reply is REPLIES["slow"] else 0.0
            async with ScriptedModel([reply], chunk_size=8, chunk_interval=interval).stream(request) as chunks:
                yield chunks
        finally:
            self.streams -= 1


class Roles:
    """Alice may do everything; the clerk may do everything but decide; Bob may do nothing."""

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        """Return whether the scope may."""
        await trio.lowlevel.checkpoint()
        return scope == ALICE or (scope == CLERK and action != "decide")

    def actor_of(self, scope: Any) -> str:
        """Return who that is."""
        return str(scope)


async def wait(seconds: int) -> str:
    """Wait."""
    await trio.sleep(seconds)
    return "waited"


async def broken() -> str:
    """Fail."""
    await trio.lowlevel.checkpoint()
    raise ValueError("broken")


@attrs.define(eq=False)
class World:
    """The surroundings of one story."""

    simulation: Simulation
    store: Any
    config: SessionConfig = attrs.field(init=False)
    sessions: Sessions = attrs.field(init=False)
    told: dict[str, list[str]] = attrs.field(factory=dict)
    """By conversation: ids of the messages that were acknowledged."""
    touched: dict[str, None] = attrs.field(factory=lambda: {"c": None})
    deleted: set[str] = attrs.field(factory=set)
    started: list[str] = attrs.field(factory=list)
    """The idempotency keys of the calls of `note` that began, over all lives."""
    violations: list[Violation] = attrs.field(factory=list)
    models: dict[str, WatchedModel] = attrs.field(factory=dict)
    may_be_slow: bool = False
    hangs: bool = False
    """Whether a call never returns, on plan: then what it was about need not work again."""
    folder: Path = Path()
    """For stories of the kind "folder"."""
    make_agent: "Callable[[Any, list[Any]], Agent]" = lambda model, tools: Agent(model=model, tools=tools)  # a default
    """(model, tools) -> the agent of each conversation."""
    deploy: Callable[[], None] = lambda: None
    """Has the agents that are made from now on have another version of their tool, in stories with roles."""
    cut: trio.Event | None = None
    """Cuts the turn of "c" by `cancel_turn`; None where turns are not to be struck."""

    def __attrs_post_init__(self) -> None:
        self.config = SessionConfig(
            factory_router=self,
            store=self.store,
            inactivity_timeout=20.0,
            policy=SessionPolicy(grace_period=GRACE, start_timeout=10.0, settle_timeout=5.0, cancel_grace=1.0),
        )

    # ── the host's part

    async def resolve(self, scope: Any, conversation_id: str, request_opts: Any) -> Any:
        """Route."""
        return await self.simulation.faults.call("router", self._resolve)

    async def _resolve(self) -> Any:
        return self, None

    async def note(self, text: str, context: ToolContext) -> str:
        """Take a note."""
        self.started.append(context.idempotency_key)
        await trio.lowlevel.checkpoint()
        return f"noted {text}"

    async def create_agent(self, agent_id: str, config: Any) -> Agent:
        """Build."""

        async def build() -> Agent:
            conversation_id = agent_id.removeprefix("conversation-")
            self.touched[conversation_id] = None
            model = self.models.setdefault(conversation_id, WatchedModel(self, conversation_id))
            faults = self.simulation.faults
            functions = (self.note, wait, broken)
            tools = [attrs.evolve(tool, function=faulty_tool(function, faults)) for tool, function in zip(TOOLS, functions, strict=True)]
            return self.make_agent(FaultyModel(model, faults), tools)

        return await self.simulation.faults.call("factory", build)

    def noting(self) -> "_Noting":
        """Keep the violations in the block for the end of the story, because the library would contain them."""
        return _Noting(self)

    # ── what stories do

    async def strike(self, function: Callable[..., Awaitable[Any]], *args: Any, name: str = "caller") -> Any:
        """Make the call that the story is about, where it can be cancelled. An error that a caller must expect gives None."""

        async def bounded() -> Any:
            # Without this a caller whose dependency hangs would wait for ever: it is the host's task to set such a deadline.
            with trio.move_on_after(PATIENCE * 3):
                return await function(*args)
            return None

        try:
            return await self.simulation.named(name, bounded)
        except SagentsError as exc:
            self.simulation.say(f"{type(exc).__name__}: {exc}")
            return None

    async def post(self, text: str, message_id: str | None = None, conversation_id: str = "c", **more: Any) -> Receipt:
        """Post, as Alice if nobody else is named, and remember what was promised."""
        self.touched[conversation_id] = None
        receipt = await self.sessions.post(conversation_id, text, message_id=message_id, **{"scope": ALICE, **more})
        self.tell(receipt.message_id, conversation_id)
        return receipt

    def tell(self, message_id: str, conversation_id: str = "c") -> None:
        """Remember that a message was acknowledged. A dead process tells nobody anything."""
        if not getattr(self.store, "is_frozen", False):
            self.told.setdefault(conversation_id, []).append(message_id)

    async def ask(self, text: str, message_id: str | None = None, conversation_id: str = "c") -> TurnOutcome:
        """Post, and wait for the outcome."""
        return await (await self.post(text, message_id, conversation_id)).wait()

    async def ready(self, text: str = "say hello") -> None:
        """Have the conversation stored, with one turn in it. Faults may strike here, too."""
        with suppress(SagentsError), trio.move_on_after(PATIENCE):
            await self.ask(text, "first")

    # ── what must hold

    async def check_liveness(self, conversation_id: str = "c") -> None:
        """See that the conversation answers within a minute, as a patient client finds it, who tries again."""
        deadline = trio.current_time() + (PATIENCE if not self.may_be_slow else 4 * PATIENCE)
        said: list[str] = []
        while trio.current_time() < deadline:
            with trio.move_on_after(15):
                try:
                    outcome = await self.ask("say again", f"again-{len(said)}", conversation_id)
                except SagentsError as exc:
                    said.append(f"{type(exc).__name__}: {exc}")
                else:
                    if isinstance(outcome, Completed):
                        return
                    said.append(str(outcome))
            await trio.sleep(1)
            with suppress(SagentsError):
                await self.sessions.dismiss(conversation_id, scope=ALICE)  # a halt waits for that
        raise Violation(f"I14: {PATIENCE:g} seconds later conversation {conversation_id!r} does not work: {said[:5]}")

    async def check_stored(self, *, is_whole: bool = True) -> None:
        """Check what is stored of each conversation, and which tools ran."""
        check(len(set(self.started)) == len(self.started), "I26", f"a tool call began twice: {self.started}")
        for conversation_id in self.touched:
            with suppress(ConversationNotFound):
                stored = await self.whole(conversation_id)
                if stored is not None:
                    check_conversation(stored, is_whole=is_whole)
                if conversation_id not in self.deleted:
                    check_told(self.told.get(conversation_id, ()), stored)

    async def whole(self, conversation_id: str) -> Conversation | None:
        """Return what is stored of a conversation, with the messages before its window."""
        stored: Conversation | None = await self.bottom.load(ALICE, conversation_id)
        older: list[Any] = []
        before: str | None = None
        while stored is not None:
            page = await self.bottom.older_messages(ALICE, conversation_id, before=before, limit=3)
            older[:0] = page.messages
            before = page.before
            if before is None:
                check(len(older) == stored.older, "I12", f"{len(older)} messages are older, and {stored.older} are told of")
                return attrs.evolve(stored, messages=[*older, *stored.messages], older=0)
        return None

    @property
    def bottom(self) -> Any:
        """The store below all that fails."""
        return getattr(self.store, "inner", self.store)

    async def _cut_turns(self) -> None:
        assert self.cut is not None
        await self.cut.wait()
        with suppress(SagentsError):
            await self.sessions.cancel_turn("c", scope=ALICE)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open the sessions, with two viewers. After the block nothing of them is left."""
        with quiet_log(), no_task_left():
            async with open_sessions(self.config) as self.sessions:
                async with (
                    self.sessions.open_subscriber(scope=ALICE) as alice,
                    self.sessions.open_subscriber(scope=BOB) as bob,
                    EventSpy().reading(alice) as viewer,
                    EventSpy().reading(bob) as stranger,
                    trio.open_nursery() as nursery,
                ):
                    if self.cut is not None:
                        nursery.start_soon(self._cut_turns)
                    await alice.subscribe("c")
                    await bob.subscribe("c")
                    yield
                    with trio.move_on_after(PATIENCE), suppress(SagentsError):
                        await self.sessions.stop("c", scope=ALICE)
                    nursery.cancel_scope.cancel()
                with self.noting():
                    viewer.check_complete()
                    check(not stranger.envelopes, "I20", f"a stranger saw {len(stranger.envelopes)} events")
            with self.noting():
                check_closed(self.sessions)
                log = CommitLog()
                for written in self.store.written:
                    log.add(written)
        for violation in self.violations:
            raise violation


TOOLS: Final[Sequence[Tool]] = [Tool.of(function) for function in (functools.partial(World.note, None), wait, broken)]
"""Read once: in a short story the signatures would take as long as all the rest."""


@attrs.define(eq=False)
class _Noting:
    _world: World

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> bool:
        if isinstance(exc, Violation):
            self._world.violations.append(exc)
        return isinstance(exc, Violation)


@contextmanager
def new_folder() -> Iterator[Path]:
    """Make a folder, in memory if the system has such a place, and remove it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


Body = Callable[[World], Awaitable[object]]


@attrs.define(eq=False, slots=False)  # its names are those of its body
class Story:
    """A program for the simulator: one body, and all checks around it."""

    names: tuple[str, ...]
    """The public names that it is about."""
    body: Body
    kind: str = "memory"
    follows: bool = False
    without: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        self.__module__ = self.body.__module__
        self.__qualname__ = self.body.__qualname__
        self.__doc__ = self.body.__doc__

    @property
    def kinds(self) -> "list[FaultKind]":
        """The kinds of faults that strike the story; none if it depends on nothing that could fail."""
        if self.kind == "bare":
            return []
        kinds: list[FaultKind] = ["before", "after"] if self.kind == "sqlite" else list(FAULT_KINDS)
        return [kind for kind in kinds if kind not in self.without]

    async def __call__(self, simulation: Simulation) -> None:
        """Run it."""
        if self.kind not in {"sqlite", "folder"}:
            await self._run(simulation, MemoryStore())
            return
        with new_folder() as folder:
            store = MemoryStore() if self.kind == "folder" else SqliteStore(folder / "story.db", synchronous="NORMAL")
            await self._run(simulation, store, folder)

    async def _run(self, simulation: Simulation, store: Any, folder: Path = Path()) -> None:
        faults = simulation.plan.faults
        world = World(simulation, FaultyStore(simulation.faults, store))
        world.folder = folder
        world.cut = trio.Event() if self.follows else None
        if self.kind == "leased":
            policy = attrs.evolve(world.config.policy, lease_ttl=LEASE)
            world.config = attrs.evolve(world.config, policy=policy, leases=FaultyLeases(simulation.faults, MemoryLeases()))
        if self.kind == "node":
            policy = attrs.evolve(world.config.policy, lease_ttl=LEASE)
            world.config = attrs.evolve(world.config, policy=policy, cluster=MemoryCluster())
        if self.kind == "roles":
            world.config = attrs.evolve(world.config, authorizer=Roles())
        if self.kind == "windowed":
            world.config = attrs.evolve(world.config, policy=attrs.evolve(world.config.policy, window=WINDOW))
        world.may_be_slow = any(fault.how in {"slow", "hang"} for fault in faults)
        hangs = world.hangs = any(fault.how == "hang" for fault in faults)
        if self.kind == "bare":
            with quiet_log(), no_task_left():
                await self.body(world)
            return
        async with world.opened():
            await self.body(world)
            simulation.calm()
            # A store that never answers for one conversation keeps its writes waiting. Then another conversation must work.
            await world.check_liveness("other" if hangs else "c")
        if self.kind == "sqlite":
            async with store.open():
                await world.check_stored(is_whole=not hangs)
        else:
            await world.check_stored(is_whole=not hangs)


STORIES: Final[list[Story]] = []


def story(*names: str, kind: str = "memory", follows: bool = False, without: tuple[str, ...] = ()) -> Callable[[Body], Story]:
    """Make a story of a function of the world.

    "leased" has leases, as one of several processes; "node" is a node of a cluster;
    "roles" has people who may post and not decide; "windowed" has
    conversations with small windows; "bare" has no sessions around it;
    "sqlite" keeps them in a file; "folder" has a folder for files of its own. `follows` has the turns be cut, too, at each of their
    yields. `without` are the kinds of faults that it is not told for.
    """

    def make(body: Body) -> Story:
        made = Story(names, body, kind, follows, without)
        STORIES.append(made)
        return made

    return make

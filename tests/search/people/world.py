"""The world of the people's machine: processes one after the other, a store that fails, and people at several tabs."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from tests.search.people.plain import GATED, Plain, Shown, canonical, needs_boss
from tests.support.records import ExpectedConversation, Violation, check, check_request
from tests.support.stores import Backend
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Answer,
    Approvals,
    Approve,
    AskUser,
    Edit,
    Halt,
    Middleware,
    NotInterrupted,
    PersistenceError,
    Reject,
    SagentsError,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    SubAgents,
    Task,
    Tool,
    ToolContext,
    open_sessions,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, ScriptedModel

CONVERSATION = "c"
CLERK, BOSS, GUEST = "clerk", "boss", "guest"
"""Everybody may post. The clerk and the boss may decide."""
LARGE = 10**6
"""Edits make such amounts. A gate of the boss looks at them."""
INACTIVITY = 120.0
DEADLINE = 30.0
SLOW = {"slow": 0.5, "late": 8.0}
POLICY = SessionPolicy(settle_timeout=5.0, grace_period=5.0, queue_limit=16)


class Roles:
    """Who may do what: a guest may post, and not decide."""

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        """Return whether the scope may."""
        return action != "decide" or scope != GUEST

    def actor_of(self, scope: Any) -> Any:
        """Return who that is."""
        return scope


class Dead(Exception):
    """The error of a dead process's store; nobody gets it."""


class Disk:
    """A host's `ConversationStore` around a real store: fails as armed, freezes with its process, and tells the models what was stored."""

    def __init__(self, backend: Backend, plain: Plain, expected: ExpectedConversation) -> None:
        self.backend, self.plain, self.expected = backend, plain, expected
        self.armed: list[str | None] = []
        self.is_dead = False
        self.faults = self.lies = self.busy = 0
        self.violations: list[Violation] = []
        self._at_work: Any = None
        """The commit that was handed to the real store, and is not written down."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        opening = getattr(self.backend.store, "open", None)
        if opening is None:
            yield
        else:
            async with opening():
                yield

    async def load(self, scope: Any, conversation_id: str) -> Any:
        if self.is_dead:
            raise Dead
        found = await self.backend.store.load(scope, conversation_id)
        if found is not None and not self.is_dead:
            self.expected.epoch = found.epoch
        return found

    async def commit(self, scope: Any, commit: Any) -> int:
        fault = self.armed.pop(0) if self.armed else None
        self.busy += 1
        try:
            if fault in SLOW:
                await trio.sleep(SLOW[fault])
            if self.is_dead:
                raise Dead
            if fault == "before":
                self.faults += 1
                await trio.lowlevel.checkpoint()
                raise OSError("armed: nothing was done")
            self._at_work = commit
            revision: int = await self.backend.store.commit(scope, commit)
            if self.is_dead:
                raise Dead  # it died meanwhile: `die` has looked whether this was done before that
            self._write_down(commit)
            if fault == "after":
                self.faults += 1
                self.lies += 1
                await trio.lowlevel.checkpoint()
                raise OSError("armed: it was done, but the answer was lost")
            return revision
        finally:
            self.busy -= 1

    def die(self, clone: Backend) -> None:
        """The process dies now, and leaves `clone`: the commit that is at work is in it, or will never be."""
        self.is_dead = True
        commit, found = self._at_work, clone.look(CONVERSATION)
        if commit is not None and found is not None and found.revision == commit.revision == self.expected.revision + 1:
            self._write_down(commit)

    def _write_down(self, commit: Any) -> None:
        self._at_work = None
        self.note(lambda: self.expected.apply(commit, None))
        self.note(lambda: self.plain.apply(commit))

    def note(self, step: Callable[[], object]) -> None:
        """Do a step of a model; its complaint goes to the machine, not into the library."""
        try:
            step()
        except Violation as exc:
            self.violations.append(exc)

    async def history(self, scope: Any, conversation_id: str, *, before: str | None, limit: int) -> Any:
        return await self.backend.store.history(scope, conversation_id, before=before, limit=limit)

    async def conversations(self, scope: Any, *, after: str | None, limit: int) -> Any:
        return await self.backend.store.conversations(scope, after=after, limit=limit)

    async def delete(self, scope: Any, conversation_id: str) -> bool:
        raise PersistenceError("the machine deletes nothing")


@attrs.define(eq=False)
class Tab:
    """One call of somebody at a screen."""

    kind: str
    cancel_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    result: Any = None
    error: BaseException | None = None
    is_done: bool = False


@attrs.define(eq=False)
class Process:
    """One life: a block of sessions, and its callers."""

    disk: Disk
    nursery: trio.Nursery
    sessions: Sessions = attrs.field(init=False)
    tabs: list[Tab] = attrs.field(factory=list)
    receipts: list[Any] = attrs.field(factory=list)
    is_open: bool = False
    is_over: bool = False
    version: int = 1
    """Of the tool that pays: another deployment may have another one."""
    _leave: trio.Event = attrs.field(factory=trio.Event)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def plain(self) -> Plain:
        return self.disk.plain

    def open(self) -> None:
        """Begin."""
        self.plain.version = self.version
        self.nursery.start_soon(self._host, name="host")

    async def _host(self) -> None:
        config = SessionConfig(
            factory_router=SingleFactoryRouter(make_agent(self)),
            store=self.disk,
            inactivity_timeout=INACTIVITY,
            policy=POLICY,
            authorizer=Roles(),
        )
        try:
            with self._scope:
                async with open_sessions(config) as self.sessions:
                    self.is_open = True
                    await self._leave.wait()
        finally:
            self.is_open, self.is_over = False, True

    def leave(self) -> None:
        """Leave in order."""
        self._leave.set()

    def kill(self, clone: Backend) -> None:
        """Die, and leave `clone`: what it does from now on happens to nobody, and it is swept away."""
        self.disk.die(clone)
        self._scope.cancel()
        for tab in self.tabs:
            tab.cancel_scope.cancel()

    # ── calls

    def call(self, kind: str, function: Callable[[], Awaitable[Any]], cancel: int | None = None) -> Tab:
        """Start a call; what it may not raise is a violation."""
        tab = Tab(kind)
        self.tabs.append(tab)
        self.nursery.start_soon(self._run, tab, function, cancel, name=kind)
        return tab

    async def _run(self, tab: Tab, function: Callable[[], Awaitable[Any]], cancel: int | None) -> None:
        try:
            with tab.cancel_scope:
                if cancel is None:
                    tab.result = await function()
                else:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_cancel_later, tab.cancel_scope, cancel)
                        tab.result = await function()
                        nursery.cancel_scope.cancel()
        except Violation as exc:
            self.disk.violations.append(exc)
        except SagentsError as exc:
            tab.error = exc
        except BaseExceptionGroup as exc:
            found = exc.exceptions[0]
            tab.error = found
            if not isinstance(found, SagentsError):
                self.disk.violations.append(Violation(f"errors: {tab.kind} raised {found!r}"))
        except Exception as exc:  # whatever else comes is wrong
            if not self.disk.is_dead:
                self.disk.violations.append(Violation(f"errors: {tab.kind} raised {exc!r}"))
        finally:
            tab.is_done = True

    async def post(self, text: str, overlap: Any, scope: str = CLERK) -> None:
        """Post."""
        self.plain.posted[text] = (scope, overlap)
        self.receipts.append(await self.sessions.post(CONVERSATION, text, overlap=overlap, scope=scope))

    async def dismiss(self, scope: str = BOSS) -> None:
        """Acknowledge a halt."""
        self.plain.dismissals += scope != GUEST
        await self.sessions.dismiss(CONVERSATION, scope=scope)

    async def decide(self, decisions: Sequence[Any], scope: str = BOSS) -> str:
        """Decide, and check that an acknowledged decision is on record, or another one is. Return the outcome."""
        for decision in decisions:
            self.plain.said.append((decision.call_id, decision.kind, canonical(decision.content), scope))
        try:
            receipt = await self.sessions.resume(CONVERSATION, list(decisions), scope=scope)
        except AlreadyDecided as exc:
            known = self.plain.records.get(exc.call_id)
            check(known or self.disk.is_dead, "I25", f"{exc.call_id} is said to be decided, and nothing is on record")
            return "AlreadyDecided"
        except NotInterrupted:
            return "NotInterrupted"
        except SagentsError as exc:
            if type(exc).__name__ == "InvalidDecision":
                return "InvalidDecision"
            raise
        if self.disk.is_dead:
            return "dead"
        for decision in decisions:
            known = self.plain.record_in(decision.interrupt_id, decision.call_id)
            check(known, "I13", f"the decision {decision.kind} about {decision.call_id} was acknowledged, and is not stored")
            assert known is not None
            stands = tuple(known[name] for name in ("interrupt_id", "digest", "kind", "content"))
            same = stands == (decision.interrupt_id, decision.digest, decision.kind, canonical(decision.content))
            check(same, "I25", f"the decision {decision.kind} about {decision.call_id} was acknowledged, on record is {known}")
        self.receipts.append(receipt)
        return "duplicate" if receipt.duplicate else "recorded"


async def _cancel_later(scope: trio.CancelScope, rounds: int) -> None:
    for _ in range(rounds):
        await trio.lowlevel.checkpoint()
    scope.cancel()


# ── the agent


def decision_on(shown: Shown, how: str, number: int) -> Any:
    """Return a decision about a call that was shown."""
    named = (shown.interrupt_id, shown.call_id, shown.digest)
    match how:
        case "approve":
            return Approve(*named)
        case "edit":
            return Edit(*named, {"amount": LARGE + number})
        case "reject":
            return Reject(*named, "no" * (number % 2))
        case _:
            return Answer(*named, "a") if number % 3 else Answer(*named, cancel=True)


def _calls(batch: Sequence[Any]) -> list[Any]:
    calls: list[Any] = []
    for name, what in batch:
        match name:
            case "ask":
                calls.append(Call("ask_user", question=f"number {what}?", kind="single", options=["a", "b"]))
            case "sub":
                calls.append(Call("task", instructions=json.dumps(what), name="t"))
            case _:
                calls.append(Call(name, amount=what))
    return calls


class Script:
    """A model that does what the last message says: rounds of calls, then an answer."""

    name = "script"

    def __init__(self, process: Process) -> None:
        self.process = process

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """Answer."""
        if not self.process.disk.is_dead:
            self.process.disk.note(lambda: check_request(request.messages))
        start = max(index for index, message in enumerate(request.messages) if message.role == "user")
        rounds = json.loads(request.messages[start].text)
        answered = sum(message.role == "assistant" for message in request.messages[start:])
        reply: Any = _calls(rounds[answered]) if answered < len(rounds) else "done"
        async with ScriptedModel([reply], chunk_size=50).stream(request) as chunks:
            yield chunks


class Thoughtful(Approvals):
    """A gate that takes its time to look at a decision."""

    async def answer(self, context: Any, call: Any, decision: Any) -> None:
        """Look."""
        for _ in range(len(call.call_id) % 3 + 1):
            await trio.lowlevel.checkpoint()


class Large(Middleware):
    """A gate of the boss, who wants to see large payments of some amounts, and cannot edit them."""

    async def claim(self, context: Any, call: Any, tool: Any) -> Any:
        """Ask about them."""
        if needs_boss(call.name, call.arguments.get("amount", 0)):
            return pending(call, allowed=("approve", "reject"), text="large")
        return None


class Timed(Approvals):
    """A gate with a deadline."""

    @property
    def middleware_id(self) -> str:
        return "timed"


_PATTERNS: dict[str, Tool] = {}
"""By name, what was read out of a tool's signature: it is the same in all lives."""


def _tool_of(function: Callable[..., Any], version: int) -> Tool:
    """Return `Tool.of` of a function, without reading it again in each life. The tool that pays states its version."""
    name = function.__name__
    if name not in _PATTERNS:
        _PATTERNS[name] = Tool.of(function)
    return attrs.evolve(_PATTERNS[name], function=function, version=str(version) if name == "pay" else "1")


def turn_of(context: ToolContext) -> str:
    """Return the id of the turn in which a tool runs."""
    return context.idempotency_key.split("/")[1]


def make_agent(process: Process) -> Agent:
    """Return the agent of one life."""

    def began(name: str, amount: int, context: ToolContext) -> None:
        if not process.disk.is_dead:
            turn = (turn_of(context), context.scope)
            process.disk.note(lambda: process.plain.start(context.call_id, name, amount, *turn))

    def make(name: str, seconds: float, result: Any) -> Any:
        async def tool(amount: int, context: ToolContext) -> Any:
            began(name, amount, context)
            await trio.sleep(seconds)
            if isinstance(result, Exception):
                raise result
            if isinstance(result, Halt):
                process.plain.halted.add(turn_of(context))  # no checkpoint until the library has it
            return result

        tool.__name__ = name
        return tool

    def file(amount: int, context: ToolContext) -> str:
        """Run in a thread."""
        began("file", amount, context)
        return "filed"

    functions = [
        make("look", 0.0, "seen"),
        make("slow", 1.0, "seen slowly"),
        make("stop", 0.0, Halt("stop")),
        make("pay", 0.0, "paid"),
        file,
        make("late", 0.0, "in time"),
        make("brake", 0.0, Halt("brake")),
        make("wait", 1.0, "waited"),
        make("fail", 0.0, ValueError("failed")),
    ]
    tools = [_tool_of(function, process.version) for function in functions]
    policy = {name: True for name in GATED if name != "late"} | {"file": ["approve", "reject"], "wait": ["edit", "reject"]}
    gates = [Thoughtful(policy), Timed({"late": True}, timeout=DEADLINE), Large()]
    model = Script(process)
    task = Task(name="t", description="d", model=model, tools=tools, middleware=[AskUser(), *_nested(model, tools)])
    return Agent(model=model, tools=tools, middleware=[*gates, AskUser(), SubAgents([task], general_purpose=False, max_depth=2)])


def _nested(model: Any, tools: Any) -> list[Any]:
    task = Task(name="t", description="d", model=model, tools=tools, middleware=[AskUser()])
    return [SubAgents([task], general_purpose=False, max_depth=2)]

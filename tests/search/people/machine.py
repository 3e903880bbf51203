"""The state machine of people who decide: all kinds of batches, people at several tabs, forgers, crashes and a failing disk.

After every rule these invariants are checked, in `Plain`: I24, only allowed calls ran; I25, a decision counts once, for the open
interrupt that it names; I26, an approval is durable before the first tool starts, and nothing runs twice; I27, undecided and rejected
calls never run, those of sub-agents included, and no approval outlives its interrupt. The history is always valid
(`ExpectedConversation`, `check_request`).
"""

import datetime
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from tests.search.people.plain import Plain
from tests.search.people.world import BOSS, CLERK, CONVERSATION, DEADLINE, GUEST, INACTIVITY, Disk, Process, decision_on
from tests.support.logs import quiet_log
from tests.support.records import ExpectedConversation, check
from tests.support.stores import MemoryBackend, SqliteBackend
from trio_sagents import Answer, Approve, Completed, PersistenceError, Status
from trio_sagents.testing.machines import MODES, TrioStateMachine

PAUSES = st.sampled_from([0, 0, 1, 2, 4, 8, -1, -1, -1, -1])
"""How many scheduler rounds pass after a rule; -1 is until every task waits."""
CANCELS = st.sampled_from([None, None, None, None, None, 0, 1, 2, 4])
TOOLS = st.sampled_from(
    ["pay", "pay", "pay", "look", "look", "file", "file", "late", "wait", "wait", "slow", "fail", "ask", "ask", "stop", "brake"]
)
FAULTS = st.lists(st.sampled_from([None, "before", "after", "slow", "slow", "late"]), min_size=1, max_size=3)
MOST_LIVES = 5
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where the files are. No history kills the machine itself, so they need no real disk."""
BEGIN = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
INDEX = st.integers(0, 5)


def _rounds(elements: Any, most: int) -> Any:
    return st.lists(st.lists(elements, min_size=1, max_size=3), min_size=1, max_size=most)


_MIDDLE = st.one_of(TOOLS, TOOLS, TOOLS, _rounds(TOOLS, 1))
PLANS = _rounds(st.one_of(TOOLS, TOOLS, TOOLS, TOOLS, _rounds(_MIDDLE, 2)), 2)
HOW = st.sampled_from(["approve", "approve", "approve", "edit", "reject"])


class PeopleMachine(TrioStateMachine):
    """Over `MemoryStore`; its subclass is over `SqliteStore`."""

    on_sqlite: ClassVar[bool] = False
    process: Process

    @initialize(seed=st.integers(0, 2**20), mode=st.sampled_from(MODES))
    def open(self, seed: int, mode: Any) -> None:
        """Begin the first life."""
        self.number = 0
        self.sent: list[Any] = []
        self.processes: list[Process] = []
        self._undo.enter_context(quiet_log())
        self._bend_the_wall_clock()
        self.begin(seed, mode)
        if self.on_sqlite:
            folder = self._undo.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True, dir=MEMORY))
            backend: Any = SqliteBackend(Path(folder))
        else:
            backend = MemoryBackend()
        self._enter(Disk(backend, Plain(), ExpectedConversation(CONVERSATION)))

    def _bend_the_wall_clock(self) -> None:
        """Have instants follow the virtual time."""

        def wall_clock() -> datetime.datetime:
            return BEGIN + datetime.timedelta(seconds=self.clock.current_time())

        for name, module in list(sys.modules.items()):
            own = getattr(module, "wall_clock", None)
            if name.startswith("trio_sagents.") and own is not None:
                setattr(module, "wall_clock", wall_clock)  # noqa: B010  # put back when the example ends
                self._undo.callback(setattr, module, "wall_clock", own)

    def _enter(self, disk: Disk, *, changed: bool = False) -> None:
        before = self.processes[-1].version if self.processes else 1
        self.process = Process(disk, self.nursery, version=before + changed)
        self.processes.append(self.process)
        self.process.open()
        self.settle()
        check(self.process.is_open, "opening", "the block did not open")

    @property
    def plain(self) -> Plain:
        return self.process.plain

    def pause(self, rounds: int) -> None:
        """Let the run continue."""
        if rounds < 0:
            self.settle()
        else:
            self.tick(rounds)

    # ── messages

    def _numbered(self, rounds: Any) -> Any:
        """Return a plan in which each call has a number that no other has."""
        numbered = []
        for batch in rounds:
            calls: list[Any] = []
            for step in batch:
                if isinstance(step, list):
                    calls.append(["sub", self._numbered(step)])
                else:
                    self.number += 1
                    calls.append([step, self.number])
            numbered.append(calls)
        return numbered

    @rule(
        plan=PLANS,
        overlap=st.sampled_from(["queue", "queue", "queue", "steer", "interrupt"]),
        cancel=CANCELS,
        pause=PAUSES,
        scope=st.sampled_from([CLERK, CLERK, BOSS, GUEST]),
    )
    def post(self, plan: Any, overlap: str, cancel: int | None, pause: int, scope: str = CLERK) -> None:
        """Ask for work. If a person is being asked already, the message supersedes the answer; that of a guest waits."""
        text = json.dumps(self._numbered(plan))
        self.process.call("post", lambda: self.process.post(text, overlap, scope), cancel)
        self.pause(pause)

    @precondition(lambda self: self.plain.open_id is None)
    @rule(plan=PLANS)
    def post_and_wait(self, plan: Any) -> None:
        """Ask for work, and let it go as far as it goes."""
        text = json.dumps(self._numbered(plan))
        self.process.call("post", lambda: self.process.post(text, "queue"))
        self.advance(1.5)

    # ── decisions

    def _choose(self, picks: list[tuple[int, str]], *, errs: bool = True) -> list[Any]:
        """Return decisions about some pending calls; sometimes, if people err, a decision that the call does not allow."""
        waiting = list(self.plain.waiting.values())
        chosen = {}
        for index, how in picks:
            if waiting:
                shown = waiting[index % len(waiting)]
                self.number += 1
                fits = how if how in shown.allowed or (errs and self.number % 20 == 0) else (*shown.allowed, how)[0]
                chosen[shown.call_id] = decision_on(shown, fits, self.number)
        self.sent.extend(chosen.values())
        return list(chosen.values())

    def _decide(self, decisions: list[Any], cancel: int | None = None) -> Any:
        process = self.process
        return process.call("decide", lambda: process.decide(decisions), cancel)

    @precondition(lambda self: self.plain.waiting)
    @rule(picks=st.lists(st.tuples(INDEX, HOW), min_size=1, max_size=5), cancel=CANCELS, pause=PAUSES)
    def decide(self, picks: Any, cancel: int | None, pause: int) -> None:
        """Decide some."""
        self._decide(self._choose(picks), cancel)
        self.pause(pause)

    @precondition(lambda self: self.plain.waiting)
    @rule(picks=st.lists(HOW, min_size=6, max_size=6))
    def decide_all(self, picks: Any) -> None:
        """Decide every call, and let the turn continue."""
        self._decide(self._choose(list(enumerate(picks))))
        self.advance(1.5)

    @precondition(lambda self: self.plain.waiting)
    @rule(
        picks=st.lists(HOW, min_size=6, max_size=6),
        faults=st.one_of(st.just([]), FAULTS),
        rounds=st.integers(0, 25),
        seconds=st.sampled_from([0.0, 0.0, 0.3]),
        end=st.sampled_from(["crash", "stop", "restart", "cancel_turn", "post"]),
    )
    def decide_all_and_then(self, picks: Any, faults: Any, rounds: int, seconds: float, end: str) -> None:
        """Decide every call, and let something happen while the decision is on its way, or the tools run."""
        self.process.disk.armed = list(faults)
        self._decide(self._choose(list(enumerate(picks))))
        self.tick(rounds)
        if seconds:
            self.advance(seconds)
        self.check_all()
        if end in {"crash", "restart"} and len(self.processes) >= MOST_LIVES:
            end = "stop"
        match end:
            case "crash":
                self.crash(0)
            case "restart":
                self.restart(quiet=False)
            case "stop":
                self.stop(0.0, -1)
            case "cancel_turn":
                self.cancel_turn(-1)
            case _:
                self.post([["look", "pay"]], "queue", None, -1)

    @precondition(lambda self: self.plain.waiting)
    @rule(picks=st.lists(HOW, min_size=6, max_size=6), lives=st.sampled_from(["", "crash", "restart", "stop", "sleep"]))
    def decide_one_by_one(self, picks: Any, lives: str) -> None:
        """Decide every call alone, with a life in between."""
        for how in picks:
            if not self.plain.waiting or self.plain.is_halted:
                return
            self._decide(self._choose([(0, how)]))
            self.advance(1.5)
            if lives in {"crash", "restart"} and len(self.processes) >= MOST_LIVES:
                lives = "stop"
            match lives:
                case "crash":
                    self.crash(0)
                case "restart":
                    self.restart(quiet=False)
                case "stop":
                    self.stop(0.0, -1)
                case "sleep":
                    self.advance(INACTIVITY + 1)
                case _:
                    pass
            self.check_all()

    @precondition(lambda self: len(self.processes) < MOST_LIVES and any(waiter.name == "pay" for waiter in self.plain.waiting.values()))
    @rule(picks=st.lists(HOW, min_size=6, max_size=6))
    def decide_after_a_deployment(self, picks: Any) -> None:
        """Decide every call in another process, whose tool that pays is another one: people are asked about a payment again."""
        self.process.disk.armed.clear()
        self.restart(quiet=True, changed=True)
        if decisions := self._choose(list(enumerate(picks)), errs=False):  # a message may have come instead meanwhile
            self._decide(decisions)
            self.advance(1.5)

    @precondition(lambda self: self.plain.waiting)
    @rule(
        tabs=st.lists(st.lists(st.tuples(INDEX, HOW), min_size=1, max_size=3), min_size=2, max_size=4),
        rounds=st.integers(0, 2),
        pause=PAUSES,
    )
    def decide_at_several_tabs(self, tabs: Any, rounds: int, pause: int) -> None:
        """Several people decide at once, about the same calls or others."""
        for picks in tabs:
            if decisions := self._choose(picks):
                self._decide(decisions)
            self.tick(rounds)
        self.pause(pause)

    @precondition(lambda self: self.sent)
    @rule(index=st.integers(0, 30), count=st.integers(1, 3), pause=PAUSES)
    def decide_again(self, index: int, count: int, pause: int) -> None:
        """Send old decisions again: in this life or another, for this interrupt or a closed one."""
        start = index % len(self.sent)
        for _ in range(2):
            self._decide(self.sent[start : start + count])
        self.pause(pause)

    @precondition(lambda self: self.plain.shown)
    @rule(index=st.integers(0, 30), how=HOW, pause=PAUSES)
    def decide_what_was_shown_once(self, index: int, how: str, pause: int) -> None:
        """Decide a call that was shown at any time, whether it is pending or not."""
        every = list(self.plain.shown.values())
        shown = every[index % len(every)]
        self.number += 1
        fits = shown.kind != "question" or index % 2
        self._decide([decision_on(shown, how if fits else "answer", self.number)])
        self.pause(pause)

    @precondition(lambda self: self.plain.waiting)
    @rule(
        index=INDEX,
        other=st.integers(0, 30),
        forgery=st.sampled_from(["digest", "interrupt", "call", "kind", "kind"]),
        beside=st.booleans(),
    )
    def forge(self, index: int, other: int, forgery: str, beside: bool) -> None:
        """Decide what waits, with something in it that is wrong: alone, or beside a good decision, which must not count either."""
        waiting, every = list(self.plain.waiting.values()), list(self.plain.shown.values())
        if forgery == "kind":
            waiting = [waiter for waiter in waiting if waiter.kind == "question"] or waiting
        shown, another = waiting[index % len(waiting)], every[other % len(every)]
        named = {"interrupt_id": shown.interrupt_id, "call_id": shown.call_id, "digest": shown.digest}
        how = "answer" if (shown.kind == "question") != (forgery == "kind") else "approve"
        if forgery != "kind":
            field = {"digest": "digest", "interrupt": "interrupt_id", "call": "call_id"}[forgery]
            wrong = getattr(another, field)
            named[field] = f"{wrong}x" if wrong == named[field] else wrong
        forged = Answer(*named.values(), "a") if how == "answer" else Approve(*named.values())
        good = [] if not beside or len(waiting) < 2 else [decision_on(waiting[index % len(waiting) - 1], "reject", 1)]
        self._decide([*good, forged])
        self.pause(-1)

    @rule(picks=st.lists(st.tuples(INDEX, HOW), min_size=1, max_size=3), old=st.integers(0, 30), mix=st.booleans())
    def decide_as_predicted(self, picks: Any, old: int, mix: bool) -> None:
        """While nothing else happens, a decision leads to what the plain model says."""
        self.process.disk.armed.clear()
        self.advance(10.0)
        decisions = self._choose(picks)
        if self.sent and (mix or not decisions):
            decisions.append(self.sent[old % len(self.sent)])
        if not decisions or self.process.disk.lies:
            return
        may_expire = any(waiter.timeout is not None for waiter in self.plain.waiting.values())
        expected = self.plain.predict(decisions)
        tab = self._decide(decisions)
        self.settle()
        if may_expire and tab.result != expected:
            return  # it slept, and that has expired when it woke
        found = tab.result if tab.error is None else type(tab.error).__name__
        if not self.plain.ran and found == "ConversationNotFound":
            return
        self.has_failed = found != expected
        check(found == expected, "I25", f"{decisions} led to {found} ({tab.error}), expected was {expected}")

    @precondition(lambda self: self.plain.waiting)
    @rule(picks=st.lists(st.tuples(INDEX, HOW), min_size=1, max_size=3), dismisses=st.booleans(), pause=PAUSES)
    def decide_as_a_guest(self, picks: Any, dismisses: bool, pause: int) -> None:
        """Somebody who may post tries to decide: as if the conversation did not exist."""
        decisions = self._choose(picks)
        process = self.process
        act = (lambda: process.dismiss(GUEST)) if dismisses else (lambda: process.decide(decisions, GUEST))
        process.call("guest", act)
        self.pause(pause)

    @precondition(lambda self: self.plain.open_id is None)
    @rule(index=INDEX)
    def halt_beside_what_waits(self, index: int) -> None:
        """Have a turn halted while another call of it waits, and try to decide that call."""
        self.post_and_wait([["pay", "ask", "stop"]])
        self.decide_beside_a_halt(index)

    @precondition(lambda self: self.plain.waiting and not self.plain.is_halted)
    @rule(picks=st.lists(HOW, min_size=6, max_size=6), fault=st.sampled_from(["before", "after"]))
    def decide_while_the_disk_fails(self, picks: Any, fault: str) -> None:
        """Decide every call in one commit that fails, before or after its effect."""
        self.process.disk.armed = [fault]
        self._decide(self._choose(list(enumerate(picks)), errs=False))
        self.advance(1.5)

    @precondition(lambda self: self.plain.is_halted and any(waiter.kind != "halt" for waiter in self.plain.waiting.values()))
    @rule(index=INDEX)
    def decide_beside_a_halt(self, index: int) -> None:
        """Decide a call that waits beside a halt: a halt is acknowledged first."""
        self.process.disk.armed.clear()
        self.advance(10.0)
        others = [waiter for waiter in self.plain.waiting.values() if waiter.kind != "halt"]
        if self.plain.is_halted and others:
            shown = others[index % len(others)]
            tab = self._decide([decision_on(shown, "answer" if shown.kind == "question" else shown.allowed[0], 1)])
            self.settle()
            check(tab.result != "recorded", "I25", f"{shown.call_id} was decided beside a halt")

    @rule(pause=PAUSES, twice=st.booleans())
    def dismiss(self, pause: int, twice: bool) -> None:
        """Acknowledge a halt, or try to."""
        for _ in range(1 + twice):
            self.process.call("dismiss", self.process.dismiss)
        self.pause(pause)

    # ── what happens to the agent

    @rule(pause=PAUSES)
    def cancel_turn(self, pause: int) -> None:
        """Cancel the running turn."""
        self.process.call("cancel_turn", lambda: self.process.sessions.cancel_turn(CONVERSATION, scope=BOSS))
        self.pause(pause)

    @rule(grace=st.sampled_from([0.0, 0.0, 3.0]), pause=PAUSES)
    def stop(self, grace: float, pause: int) -> None:
        """Stop the agent."""
        self.process.call("stop", lambda: self.process.sessions.stop(CONVERSATION, grace_period=grace, scope=BOSS))
        self.pause(pause)

    @rule(pause=PAUSES)
    def start(self, pause: int) -> None:
        """Wake the agent."""
        self.process.call("start", lambda: self.process.sessions.start(CONVERSATION, scope=BOSS))
        self.pause(pause)

    @rule(seconds=st.sampled_from([0.3, 1.0, DEADLINE, DEADLINE + 0.1, INACTIVITY + 1]))
    def let_time_pass(self, seconds: float) -> None:
        """Let time pass: tools end, deadlines come, agents leave."""
        self.advance(seconds)

    @rule(faults=FAULTS)
    def arm(self, faults: Any) -> None:
        """Have the next commits fail, before or after their effect, or take long."""
        self.process.disk.armed = faults

    @precondition(lambda self: len(self.processes) < MOST_LIVES)
    @rule(quiet=st.booleans(), changed=st.booleans())
    def restart(self, quiet: bool, changed: bool = False) -> None:
        """Leave the process in order, in the middle of whatever it does, and begin another, perhaps with another tool that pays."""
        if quiet:
            self.advance(2.0)
        self.process.leave()
        self.advance(60.0)
        check(self.process.is_over, "I29", "the block does not end")
        self._check_answered()
        disk = self.process.disk
        self._enter(Disk(disk.backend, disk.plain, disk.expected), changed=changed)

    @precondition(lambda self: len(self.processes) < MOST_LIVES)
    @rule(rounds=st.integers(0, 12), changed=st.booleans())
    def crash(self, rounds: int, changed: bool = False) -> None:
        """Die at any moment. Another process begins with what is stored."""
        self.tick(rounds)
        disk = self.process.disk
        backend = disk.backend.clone()
        self.process.kill(backend)
        self.settle()
        self.advance(60.0)
        self._enter(Disk(backend, disk.plain, disk.expected), changed=changed)

    def _check_answered(self) -> None:
        waiting = [tab.kind for tab in self.process.tabs if not tab.is_done]
        check(not waiting, "I14", f"calls that nobody answers: {waiting}")

    # ── what must hold

    @invariant()
    def check_all(self) -> None:
        """Raise the violations that the models found, and compare memory with the store if no write is pending."""
        if not self._is_begun or self.has_failed:
            return
        try:
            for process in self.processes:
                if process.disk.violations:
                    raise process.disk.violations[0]
            self._check_memory()
        except BaseException:
            self.has_failed = True
            raise

    def _check_memory(self) -> None:
        process, plain = self.process, self.plain
        services = process.sessions.runtime  # type: ignore[attr-defined]  # looked at from inside
        entry = services.registry.find(services.agent_id_of(CONVERSATION), CONVERSATION)
        live = None if entry is None else entry.live
        if live is None or live.entry.has_ended or process.disk.busy or not live.journal.is_at_rest or process.disk.lies:
            return
        ledger = live.journal.state
        interrupt = ledger.interrupt
        check(
            (None if interrupt is None else interrupt.interrupt_id) == plain.open_id, "I11", "memory has another interrupt than the store"
        )
        if interrupt is not None:
            check([call.call_id for call in interrupt.calls] == list(plain.waiting), "I11", "memory has other waiting calls than the store")
            check(live.turns.turn is None, "I25", "a turn runs while its interrupt is open")
        holding = {call_id: plain.holding(call_id) for call_id in plain.records}
        decided = {call_id: record["kind"] for call_id, record in holding.items() if record is not None}
        check(
            {call_id: decision.kind for call_id, decision in ledger.decisions.items()} == decided,
            "I11",
            "memory has other decisions than the store",
        )
        if live.turns.turn is None and live.entry.is_accepting and live.board.status is not Status.RUNNING:
            check(
                (live.board.status is Status.INTERRUPTED) == (interrupt is not None),
                "I7",
                f"it is {live.board.status}, and the interrupt is {interrupt}",
            )
            process.disk.expected.check_history(is_whole=interrupt is None and live.board.status is not Status.ERROR)

    def finish(self) -> None:
        """Let everything finish: each interrupt can be answered, and then the conversation continues."""
        self.process.disk.armed.clear()
        self.advance(60.0)
        self._answer_all(lambda tab: self.plain.open_id is None and tab.error is None)
        last = self.process.call("post", self._say_last_word)
        self._answer_all(lambda _: last.is_done)  # the message may be queued after held messages, and lead to a question
        if self.process.disk.lies and isinstance(last.error, PersistenceError):
            # An agent that got a false report finds a foreign write, which is its own, at the next write, and starts again.
            last = self.process.call("post", self._say_last_word)
            self._answer_all(lambda _: last.is_done)
        check(isinstance(last.result, Completed), "I14", f"the conversation does not go on: {last.result} {last.error}")
        self._check_answered()
        for receipt in self.process.receipts:
            outcome = receipt._pending
            check(outcome is not None, "I14", "a receipt without an answer")
        self.process.leave()
        self.advance(60.0)
        self.check_all_violations()

    async def _say_last_word(self) -> Any:
        text = json.dumps([[["look", 10**9]]])
        self.plain.posted[text] = (BOSS, "queue")
        return await (await self.process.sessions.post(CONVERSATION, text, scope=BOSS)).wait()

    def _answer_all(self, is_done: Callable[[Any], bool]) -> None:
        for _ in range(40):
            tab = self.process.call("start", lambda: self.process.sessions.start(CONVERSATION))
            self.advance(20.0)
            self.check_all()
            if is_done(tab):
                return
            if self.plain.is_halted:
                self.process.call("dismiss", self.process.dismiss)
            elif self.plain.waiting:
                self._decide(self._choose([(index, "approve") for index in range(60)], errs=False))
            self.advance(20.0)
        check(condition=False, invariant="I25", what="it cannot be answered")

    def check_all_violations(self) -> None:
        """Raise what the models complained about."""
        for process in self.processes:
            if process.disk.violations:
                raise process.disk.violations[0]


class SqlitePeopleMachine(PeopleMachine):
    """The same over SQLite."""

    on_sqlite = True

"""The plain model of a conversation with people in it: what was shown, decided and run. No Trio, no library code."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from tests.support.records import Record, check, plain

GATED = ("pay", "file", "late", "brake", "wait", "fail")
"""Tools that a person has to allow."""
FREE = ("look", "slow", "stop")
"""Tools that run without."""
HALTING = ("brake", "stop")
RUNS = ("approve", "edit")
CLOSES = ("superseded", "dismissed", "expired")


def needs_boss(name: str, amount: Any) -> bool:
    """Return whether the gate of the boss looks at a payment: at some of the amounts that only edits make."""
    return name == "pay" and isinstance(amount, int) and amount >= 10**6 and amount % 2 == 0


def canonical(value: Any) -> str:
    """Return the one text of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(name: str, arguments: Any) -> str:
    """Return what an approval of a call is bound to."""
    return hashlib.sha256(canonical([name, arguments]).encode()).hexdigest()


@attrs.frozen
class Shown:
    """A call as people were shown it."""

    interrupt_id: str
    call_id: str
    name: str
    arguments: Record
    kind: str
    allowed: Sequence[str]
    path: Sequence[str]
    timeout: float | None
    version: int = 1
    """Of the tool that pays, as it was when the call was shown."""

    @property
    def digest(self) -> str:
        return digest_of(self.name, self.arguments)


@attrs.define
class Plain:
    """One conversation, as its commits tell, and what its tools did."""

    open_id: str | None = None
    """The interrupt that waits."""
    is_halted: bool = False
    waiting: dict[str, Shown] = attrs.field(factory=dict)
    """The calls that nobody has decided, by id."""
    closed: set[str] = attrs.field(factory=set)
    shown: dict[tuple[str, str], Shown] = attrs.field(factory=dict)
    """By interrupt and call."""
    records: dict[str, list[Record]] = attrs.field(factory=dict)
    """By call id: the decisions on record. The first one counts; a second one closes a halt."""
    taken: dict[str, Record] = attrs.field(factory=dict)
    """By call id: the decisions that let a call run, now."""
    ran: dict[str, tuple[str, int]] = attrs.field(factory=dict)
    """By call id, over all lives."""
    said: list[tuple[str, str, str, str]] = attrs.field(factory=list)
    """(call id, kind, content, scope) of all that anybody ever tried to decide."""
    posted: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    """By text: who posted a message, and with which overlap."""
    queued: list[str] = attrs.field(factory=list)
    """The texts of all messages that were accepted."""
    begun: dict[str, str] = attrs.field(factory=dict)
    """By turn: who posted the message that began it."""
    halted: set[str] = attrs.field(factory=set)
    """The turns that a tool halted."""
    version: int = 1
    """Of the tool that pays, in this life."""
    dismissals: int = 0
    """How often anybody tried to dismiss."""

    # ── what is stored

    def apply(self, commit: Any) -> None:
        """Record one commit."""
        state = plain(dict(commit.state))
        self.queued += [message["parts"][0]["text"] for message in map(plain, commit.queued)]
        for message in map(plain, commit.messages):
            if message["role"] == "user":
                self.begun.setdefault(message["turn_id"], self.posted.get(message["parts"][0]["text"], ("", ""))[0])
        before = self.open_id, dict(self.waiting)
        for record in self._records_in(commit, state):
            self._note(record)
        if "interrupt" in state:
            self._see_interrupt(state["interrupt"], before)
        if "open_decisions" in state:
            self.taken = {
                record["call_id"]: record for some in (state["open_decisions"] or {}).values() for record in some if record["kind"] in RUNS
            }

    def _records_in(self, commit: Any, state: Record) -> Iterator[Record]:
        yield from ((state.get("interrupt") or {}).get("decided")) or ()
        for some in (state.get("open_decisions") or {}).values():
            yield from some
        for message in map(plain, commit.messages):
            if message["role"] == "tool":
                yield from message.get("metadata", {}).get("decisions", ())

    def record_in(self, interrupt_id: str, call_id: str) -> Record | None:
        """Return what was decided about a call in one interrupt."""
        return next((record for record in self.records.get(call_id, ()) if record["interrupt_id"] == interrupt_id), None)

    def holding(self, call_id: str) -> Record | None:
        """Return the record that holds for a call: the last one, but for the end of a halt."""
        found = None
        for record in self.records.get(call_id, ()):
            if found is None or record["kind"] not in CLOSES or self.shown[record["interrupt_id"], call_id].kind != "halt":
                found = record
        return found

    def is_asked_again(self, call_id: str) -> bool:
        """Return whether people may be asked about a call again: an edit came under the boss's gate, or the tool has changed."""
        record = self.holding(call_id)
        if record is None or record["kind"] not in RUNS:
            return False
        shown = self.shown[record["interrupt_id"], call_id]
        edited = json.loads(record["content"])["arguments"].get("amount") if record["kind"] == "edit" else 0
        return needs_boss(shown.name, edited) or (shown.name == "pay" and shown.version != self.version)

    def _note(self, record: Record) -> None:
        call_id, kind = record["call_id"], record["kind"]
        record = {key: value for key, value in record.items() if key != "outcome"}  # it is known later
        known = self.records.setdefault(call_id, [])
        if record in known:
            return
        shown = self.shown.get((record["interrupt_id"], call_id))
        where = f"the record {kind!r} of {call_id}"
        check(shown is not None, "I25", f"{where} is of a call that was not shown in {record['interrupt_id']}")
        assert shown is not None
        check(record["interrupt_id"] == self.open_id and call_id in self.waiting, "I25", f"{where} is of no call that waits now")
        check(record["digest"] == shown.digest, "I24", f"{where} has another digest than what was shown")
        is_first = not known or (known[-1]["kind"] in RUNS and (shown.kind == "halt" or shown.interrupt_id != known[-1]["interrupt_id"]))
        check(is_first, "I25", f"{where} comes behind {[record['kind'] for record in known]}")
        if kind not in CLOSES:
            check(kind in shown.allowed, "I25", f"{where} is not among {shown.allowed}")
            by = (call_id, kind, record["content"], record["by"])
            check(by in self.said and record["by"] != "guest", "I25", f"{where} was not said by {record['by']}: {record['content']}")
        if kind == "superseded":
            may = [text for text in self.queued if self.posted[text][0] == record["by"] != "guest"]
            check(may, "I25", f"{where} comes without a message of somebody who may decide: {record['by']}")
        check(kind != "expired" or record["by"] is None, "I25", f"{where} names {record['by']}")
        check(kind != "expired" or shown.timeout is not None, "I25", f"{where}, and it has no deadline")
        check(kind != "dismissed" or (self.is_halted and self.dismissals), "I25", f"{where}, and it was not halted, or not dismissed")
        known.append(record)

    def _see_interrupt(self, stored: Record | None, before: tuple[str | None, Mapping[str, Shown]]) -> None:
        open_id, waiting = before
        if stored is not None and stored["interrupt_id"] == open_id:
            calls = {call["call_id"] for call in stored["calls"]}
            check(calls < set(waiting), "I25", f"the interrupt {open_id} has the calls {calls}, after {set(waiting)}")
            left = set(waiting) - calls
            check(all(self.records.get(call_id) for call_id in left), "I27", f"calls of {open_id} wait no more, undecided: {left}")
            self.waiting = {waiter: waiting[waiter] for waiter in waiting if waiter in calls}
            return
        if open_id is not None:
            undecided = [
                waiter for waiter in waiting if not any(record["interrupt_id"] == open_id for record in self.records.get(waiter, ()))
            ]
            check(not undecided, "I27", f"the interrupt {open_id} is closed with {undecided} undecided")
            self.closed.add(open_id)
        self.open_id, self.is_halted, self.waiting = None, False, {}
        if stored is None:
            return
        check(open_id is None, "I25", f"the interrupt {stored['interrupt_id']} comes while {open_id} waits")
        check(stored["interrupt_id"] not in self.closed, "I27", f"the interrupt {stored['interrupt_id']} comes back")
        self.open_id, self.is_halted = stored["interrupt_id"], stored["kind"] == "halt"
        for call in stored["calls"]:
            one = Shown(
                stored["interrupt_id"], call["call_id"], call["name"], call["arguments"], call["kind"],
                tuple(call["allowed"]), tuple(call["path"]), call["timeout"], self.version,
            )  # fmt: skip
            known = self.records.get(one.call_id, ())
            may_ask = not known or one.kind == "halt" or self.is_asked_again(one.call_id)
            check(may_ask, "I26", f"{one.call_id} is asked about again, after {[each['kind'] for each in known]}")
            check(one.kind == "halt" or one.call_id not in self.ran, "I26", f"{one.call_id} is asked about, and has run")
            self.waiting[one.call_id] = one
            self.shown[one.interrupt_id, one.call_id] = one

    # ── what runs

    def start(self, call_id: str, name: str, amount: int, turn_id: str, scope: Any) -> None:
        """A tool begins."""
        where = f"{name}({amount}), call {call_id},"
        check(turn_id not in self.halted or name == "file", "I27", f"{where} begins after its turn was halted")  # a thread may be late
        check(scope == self.begun.get(turn_id), "I20", f"{where} runs as {scope}, posted by {self.begun.get(turn_id)}")
        check(call_id not in self.ran, "I26", f"{where} runs again, after {self.ran.get(call_id)}")
        check((name, amount) not in self.ran.values(), "I26", f"{where} was done before, as another call: each was asked for once")
        self.ran[call_id] = (name, amount)
        if name not in GATED:
            return
        known = self.records.get(call_id)
        check(known, "I27", f"{where} runs, and nobody decided")
        assert known is not None
        record = self.holding(call_id)
        assert record is not None
        check(record["kind"] in RUNS, "I27", f"{where} runs, and the decision is {record['kind']!r}")
        check(call_id in self.taken, "I26", f"{where} runs before its decision is stored as taken, or after its turn has ended")
        check(call_id not in self.waiting, "I26", f"{where} runs while its interrupt is open")
        shown = self.shown[record["interrupt_id"], call_id]
        arguments = shown.arguments if record["kind"] == "approve" else json.loads(record["content"])["arguments"]
        check((name, {"amount": amount}) == (shown.name, arguments), "I24", f"{where} runs, shown was {shown}, allowed {arguments}")
        seen = shown.arguments.get("amount") == amount
        check(not needs_boss(name, amount) or seen, "I24", f"{where} runs, and the boss has not seen the amount")
        check(name != "pay" or shown.version == self.version, "I24", f"{where} runs in version {self.version}, shown was {shown.version}")

    # ── what a decision will lead to if nothing else happens

    def predict(self, decisions: Sequence[Any]) -> str:
        """Return "recorded", "duplicate", or the name of the error."""
        if len({decision.call_id for decision in decisions}) != len(decisions):
            return "InvalidDecision"
        fresh = False
        for decision in decisions:
            record = self.record_in(decision.interrupt_id, decision.call_id)
            waits = decision.call_id in self.waiting and self.waiting[decision.call_id].interrupt_id == decision.interrupt_id
            if record is None and not waits:
                record = self.holding(decision.call_id)
            if record is not None:
                if (record["interrupt_id"], record["digest"]) != (decision.interrupt_id, decision.digest):
                    return "InvalidDecision"
                if (record["kind"], record["content"]) != (decision.kind, canonical(decision.content)):
                    return "AlreadyDecided"
                continue
            fresh = True
            if self.open_id is None:
                return "NotInterrupted"
            shown = self.waiting.get(decision.call_id)
            if shown is None or self.is_halted or (decision.interrupt_id, decision.digest) != (shown.interrupt_id, shown.digest):
                return "InvalidDecision"
            if decision.kind not in shown.allowed:
                return "InvalidDecision"
        return "recorded" if fresh else "duplicate"

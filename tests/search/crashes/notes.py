"""What processes acknowledged before they ended: their lines, sorted by conversation. `workload` says what each line means."""

from collections import Counter
from collections.abc import Iterable

import attrs


@attrs.define
class Notes:
    """What the processes noted about one conversation."""

    posted: list[str] = attrs.field(factory=list)
    """Message ids, in order."""
    again: list[str] = attrs.field(factory=list)
    """Message ids, in no order: a message that was refused at first may be accepted after others."""
    outcomes: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    started: Counter[str] = attrs.field(factory=Counter)
    finished: set[str] = attrs.field(factory=set)
    closed: list[str] = attrs.field(factory=list)
    asked: Counter[str] = attrs.field(factory=Counter)
    """How often somebody wanted to cut a turn, by cause."""
    deciding: dict[str, set[tuple[str, str]]] = attrs.field(factory=dict)
    """By call id, what somebody was about to decide: the kind, and the amount to be paid."""
    decided: dict[str, str] = attrs.field(factory=dict)
    """By call id, the kind of the decision that was acknowledged."""
    paid: dict[str, str] = attrs.field(factory=dict)
    """By call id, the amount that was paid."""


@attrs.define
class Log:
    """All that was noted, in all lives of a file."""

    conversations: dict[str, Notes] = attrs.field(factory=dict)
    count: int = 0
    """Of what was acknowledged."""

    def take(self, lines: Iterable[str]) -> int:
        """Take in lines; return how many acknowledge something."""
        before = self.count
        for line in lines:
            kind, *rest = line.split()
            if kind in {"ready", "left", "drained", "stopped", "cancelled"}:
                continue
            name, *words = rest
            notes = self.conversations.setdefault(name, Notes())
            self.count += kind not in {"asking", "deciding"}
            match kind:
                case "asking":
                    notes.asked[words[0]] += 1
                case "deciding":
                    notes.deciding.setdefault(words[0], set()).add((words[1], words[2]))
                case "decided":
                    notes.decided[words[0]] = words[1]
                case "paid":
                    notes.paid[words[0]] = words[1]
                case "posted":
                    notes.posted.append(words[0])
                case "again":
                    notes.again.append(words[0])
                case "outcome":
                    notes.outcomes[words[0]] = (words[1], words[2])
                case "started":
                    notes.started[words[0]] += 1
                case "finished":
                    notes.finished.add(words[0])
                case "closed":
                    notes.closed.append(words[0])
                case _:
                    raise AssertionError(f"a note nobody knows: {line!r}")
        return self.count - before

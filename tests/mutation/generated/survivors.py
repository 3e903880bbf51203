"""The mutants that may survive: each is equivalent to the original, or differs in nothing that is promised.

By the key of the mutant (`Mutant.key`), the reason. A key that no mutant has any more is a mistake; a test says so.
"""

from typing import Final

EXPLAINED: Final[dict[str, str]] = {
    "trio_sagents/supervisor/_turns.py::Turn.open_again: - break + return": "nothing follows the loop",
    'trio_sagents/supervisor/_turns.py::Turn._finish: - self._watch = None + self._watch = ""': (
        "a turn ends once, and its timer was cancelled on the line above: nothing looks at it any more"
    ),
    "trio_sagents/supervisor/_turns.py::Turn._settle: - await self._last_write.wait_ended() + pass": (
        "an agent that ends waits for the last write of its turn itself (`wait_settled`); else nobody waits for the turn's task"
    ),
    (
        "trio_sagents/supervisor/_live.py::LiveAgent.publish: "
        '- if not self.has_ended and (channel == "main" or channel in self._feeds): '
        '+ if not self.has_ended and (channel != "main" or channel in self._feeds):'
    ): "the same for main; and what nobody reads on debug costs a log, and is seen by nobody",
    (
        "trio_sagents/supervisor/_live.py::LiveAgent.publish: "
        '- if not self.has_ended and (channel == "main" or channel in self._feeds): '
        '+ if not self.has_ended and (channel == "XXmainXX" or channel in self._feeds):'
    ): "who subscribes gets a snapshot first, and no number of an event is promised: what went before is seen by nobody",
    'trio_sagents/data/decisions.py::Answer.__init__: - check_text(text, "answer") + check_text(text, "XXanswerXX")': (
        "the name is a word of the error's text; that the text is refused, and how, is tested"
    ),
    "trio_sagents/middleware/approvals.py::Approvals._kinds: - return () # a sub-agent's own tool, which its definition brought along"
    " + return None # a sub-agent's own tool, which its definition brought along": "its only caller asks whether there is any",
    'trio_sagents/supervisor/_answering.py::Answering._record: - accepted = Accepted(actor, "queue", contextvars.copy_context(), answer)'
    ' + accepted = Accepted(actor, "XXqueueXX", contextvars.copy_context(), answer)': (
        "how it overlaps is asked of messages that wait in the queue; this stands for decisions, which never do"
    ),
    "trio_sagents/persistence/_sqlite_group_commit.py::GroupCommit._lead: - self._led = False + self._led = None": (
        "it is only asked whether somebody leads"
    ),
    "trio_sagents/storage/split.py::SplitStore._offer_again:"
    " - message = decode_message(context.conversation_id, without_marks(record)) + message = decode_message(None, without_marks(record))": (
        "the id stands in the error for a record that cannot be read, and all were read by the check of the load, right before"
    ),
    "trio_sagents/supervisor/_answering.py::Answering._let_go: - self.live.is_released = True + self.live.is_released = None": (
        "the status below is one that holds no queue, and whatever gives another one sets this anew"
    ),
    "trio_sagents/persistence/_sqlite_group_commit.py::GroupCommit.submit:"
    " - self._queued[job] = None # type: ignore[index] # a queue of jobs of all kinds"
    ' + self._queued[job] = "" # type: ignore[index] # a queue of jobs of all kinds': "the dict is a set with an order",
    "trio_sagents/persistence/memory.py::_Order.append:"
    " - alive = [(change, one) for change, one in zip(self._changes, self._rows, strict=True)"
    " if one.change == change] + alive = [(change, one) for change, one in zip(self._changes, self._rows, strict=False)"
    " if one.change == change]": "both lists grow together: strict says so to the reader",
    "trio_sagents/persistence/memory.py::MemoryStore.conversations:"
    " - found: Sequence[_Stored] = () if order is None else order.page(place, limit + 1)"
    " + found: Sequence[_Stored] = () if order is None else order.page(place, limit + 2)": "one more says that there are more; so do two",
    "trio_sagents/supervisor/_ledger.py::Ledger._commit:"
    " - rows=transformed(change.rows, self.transforms) if self.transforms else change.rows,"
    " + rows=transformed(change.rows, self.transforms) if (self.transforms) or True else change.rows,": (
        "where there is no transform the rows stay what they are: it spares the walk"
    ),
}

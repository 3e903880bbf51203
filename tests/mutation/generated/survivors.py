"""The mutants that may survive: each is equivalent to the original, or differs in nothing that is promised.

By the key of the mutant (`Mutant.key`), the reason. A key that no mutant has any more is a mistake; a test says so.
"""

from typing import Final

EXPLAINED: Final[dict[str, str]] = {
    'trio_sagents/data/decisions.py::Answer.__init__: - check_text(text, "answer") + check_text(text, "XXanswerXX")': (
        "the name is a word of the error's text; that the text is refused, and how, is tested"
    ),
    "trio_sagents/persistence/_sqlite_group_commit.py::GroupCommit._lead: - self._led = False + self._led = None": (
        "it is only asked whether somebody leads"
    ),
    "trio_sagents/persistence/_sqlite_group_commit.py::GroupCommit.submit:"
    " - self._queued[job] = None # type: ignore[index] # a queue of jobs of all kinds"
    ' + self._queued[job] = "" # type: ignore[index] # a queue of jobs of all kinds': "the dict is a set with an order",
    "trio_sagents/persistence/memory.py::MemoryStore.conversations:"
    " - found: Sequence[_Stored] = () if order is None else order.page(place, limit + 1)"
    " + found: Sequence[_Stored] = () if order is None else order.page(place, limit + 2)": "one more says that there are more; so do two",
}

"""The JSON texts of envelopes. Many pages are told of the same envelopes, so a text is made once."""

import attrs

from trio_sagents import Envelope, envelope_to_dict
from trio_sagents.web._json import dumps
from trio_sagents.web._prices import PriceList

MOST_TEXT = 1024 * 1024
"""Characters that are kept, as a default."""


@attrs.define(eq=False)
class EnvelopeTexts:
    """Makes texts, and keeps the newest ones."""

    most: int = MOST_TEXT
    """Characters that are kept."""
    prices: PriceList = attrs.field(factory=PriceList)
    _known: dict[int, tuple[Envelope, str]] = attrs.field(factory=dict)
    # Invariant: by the id of the envelope, which is kept, so that no other object gets its id; the oldest is first.
    _size: int = 0

    def __len__(self) -> int:
        """Return how many texts are kept."""
        return len(self._known)

    def text(self, envelope: Envelope) -> str:
        """Return an envelope as JSON."""
        known = self._known.get(id(envelope))
        if known is not None:
            return known[1]
        shown = envelope_to_dict(envelope)
        cost = self.prices.cost_of(envelope)
        text = dumps(shown if cost is None else {**shown, "cost": cost})
        if len(text) <= self.most:
            self._known[id(envelope)] = (envelope, text)
            self._size += len(text)
            while self._size > self.most:
                _, oldest = self._known.pop(next(iter(self._known)))
                self._size -= len(oldest)
        return text

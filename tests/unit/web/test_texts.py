"""The texts of envelopes that many pages are told of."""

import json

from trio_sagents import Envelope, TurnStarted, envelope_to_dict
from trio_sagents.web._texts import EnvelopeTexts


def envelope(number: int, turn_id: str = "t") -> Envelope:
    return Envelope("a", "c", "main", number, number, TurnStarted(turn_id), "i")


def test_text_when_asked_again() -> None:
    """The same envelope has the same text, which is made once; an equal one has an equal text."""
    texts = EnvelopeTexts()
    first, equal = envelope(1), envelope(1)

    assert texts.text(first) is texts.text(first)
    assert texts.text(first) == texts.text(equal)
    assert envelope_to_dict(first) == json.loads(texts.text(first))


def test_texts_when_there_are_many() -> None:
    """What is kept is bounded; the newest texts are kept, and a text that is too long is not."""
    texts = EnvelopeTexts(most=1000)
    several = [envelope(number) for number in range(100)]
    made = [texts.text(item) for item in several]
    kept = len(texts)

    assert 0 < sum(map(len, made[-kept:])) <= 1000 < sum(map(len, made[-kept - 1 :]))
    assert texts.text(several[-1]) is made[-1]
    assert texts.text(several[0]) == made[0]
    texts.text(envelope(1, "x" * 2000))
    assert kept == len(texts)

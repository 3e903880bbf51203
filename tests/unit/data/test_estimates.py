"""Estimates: what a provider did not report is never taken for zero, and what it did report is never replaced."""

import pytest

from trio_sagents.data.estimates import unreported_usage
from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.outcomes import Usage, encode_usage, usage_in
from trio_sagents.data.requests import ModelRequest

REQUEST = ModelRequest("", (Message("m", "user", (TextPart("x" * 400),)),))
READ = 104
"""The estimated tokens of the request."""


@pytest.mark.parametrize(
    ("reported", "answer_bytes", "is_whole", "estimate"),
    [
        (Usage(), 400, True, Usage(READ, 100, is_estimated=True)),
        (Usage(), 0, False, Usage(READ, 0, is_estimated=True)),
        (Usage(10, 5), 400, True, Usage()),
        (Usage(0, 5, 10, 0), 400, True, Usage()),
        (Usage(0, 5), 400, True, Usage(READ, 0, is_estimated=True)),
        (Usage(10, 0), 400, True, Usage(0, 100, is_estimated=True)),
        (Usage(10, 0), 40, True, Usage()),
        (Usage(10, 1), 400, False, Usage(0, 99, is_estimated=True)),
        (Usage(10, 200), 400, False, Usage()),
    ],
)
def test_usage_when_it_is_not_reported(reported: Usage, answer_bytes: int, is_whole: bool, estimate: Usage) -> None:
    """Missing counts are estimated from the request and the answer, and marked; an answer that was cut off counts as far as it came."""
    assert estimate == unreported_usage(reported, REQUEST, answer_bytes, is_whole=is_whole)


@pytest.mark.parametrize("usage", [Usage(), Usage(1, 2, 3, 4), Usage(1, is_estimated=True)])
def test_usage_when_stored(usage: Usage) -> None:
    """A stored usage is read as it was written."""
    assert usage == usage_in(encode_usage(usage))


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        [],
        {"input_tokens": 1},
        {**encode_usage(Usage()), "more": 1},
        {**encode_usage(Usage()), "output_tokens": -1},
        {**encode_usage(Usage()), "output_tokens": True},
        {**encode_usage(Usage()), "is_estimated": 1},
    ],
)
def test_usage_when_the_record_is_wrong(record: object) -> None:
    """A record that is not a usage is ignored."""
    assert usage_in(record) is None


def test_usage_when_added() -> None:
    """A sum that has an estimate in it is an estimate."""
    assert Usage(3, 3, is_estimated=True) == Usage(1, 1) + Usage(2, 2, is_estimated=True)
    assert Usage(1, 1) == Usage(3, 3) - Usage(2, 2)

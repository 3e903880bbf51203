"""The wire form of messages: records of a later version, and JSON with more than one reading."""

import pytest

from trio_sagents import (
    Message,
    StateError,
    StateFromFuture,
    TextPart,
)
from trio_sagents.data.wire import SCHEMA_VERSION, decode_message, encode_message, loads


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 99])
def test_record_of_a_later_version_in_a_hosts_store(version: int) -> None:
    """A message that a newer version of the library wrote is not read as if this version had written it."""
    record = {**encode_message(Message("m", "user", [TextPart("hi")])), "v": version}
    with pytest.raises(StateFromFuture):
        decode_message("c", record)


@pytest.mark.parametrize("text", ['{"v": 1, "v": 2}', '[{"a": {"b": 1, "b": 1}}]', "NaN", "[1e999]", "[" * 100_000])
def test_stored_text_with_more_than_one_reading(text: str) -> None:
    """What two readers would read differently is damage, whichever of the two was meant."""
    with pytest.raises(StateError):
        loads("c", text)

"""The wire form of messages: records of a later version, and JSON with more than one reading."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sagents import (
    Message,
    StateError,
    StateFromFuture,
    TextPart,
)
from trio_sagents.data.json import plain_json
from trio_sagents.data.wire import (
    RECORD_DEPTH,
    SCHEMA_VERSION,
    SLICE,
    ReadRecords,
    decode_message,
    decode_messages,
    dumps,
    encode_message,
    loads,
    read_record,
)


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


PIECES = st.sampled_from(
    ["[", "]", "{", "}", '"a":', '"b":', ",", "1", "-2.5", "null", '"x"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u001f"']
)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=12).map("".join),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)).map(
        json.dumps
    ),
    st.integers(60, 80).map(lambda depth: "[" * depth + "]" * depth),
    st.integers(1022, 1026).map(lambda bits: str(2**bits)),
)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_record_when_it_is_read(text: str) -> None:
    """A text is read as what it would be after a look at each value, or refused as it would be; and the result is plain JSON."""

    def looked_at() -> object:
        try:
            return plain_json(loads("c", text), depth=-RECORD_DEPTH)
        except (StateError, ValueError):
            return "refused"

    try:
        read: object = read_record("c", text)
    except StateError:
        read = "refused"

    assert repr(looked_at()) == repr(read)


def test_records_when_they_are_read() -> None:
    """Records that were read know the bytes of their texts, and let other threads run after each slice, when they are decoded as well."""
    pauses: list[None] = []
    records = ReadRecords(lambda: pauses.append(None))
    texts = [dumps(encode_message(Message(f"m{number}", "user", [TextPart("h\u00e9")]))) for number in range(2 * SLICE)]
    for text in texts:
        records.read("c", text)

    assert sum(len(text.encode()) for text in texts) == records.size
    assert 2 == len(pauses)
    assert [f"m{number}" for number in range(2 * SLICE)] == [message.message_id for message in decode_messages("c", records)]
    assert 4 == len(pauses)
    with pytest.raises(StateError):
        records.read("c", '"\ud800"')


@pytest.mark.parametrize("damage", [{"parts": 5}, {"message_id": 7}, {"more": 1}, {"parts": [{"type": "text", "text": 1.5}]}])
def test_records_when_one_is_no_message(damage: dict[str, object]) -> None:
    """Records that a store has read are decoded as strictly as all others."""
    records = ReadRecords()
    records.read("c", dumps({**encode_message(Message("m", "user", [TextPart("hi")])), **damage}))
    with pytest.raises(StateError):
        decode_messages("c", records)
    with pytest.raises(StateError):
        decode_messages("c", list(records))

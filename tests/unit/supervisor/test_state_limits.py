"""The state of a conversation: how large it may become."""

import pytest
import trio

from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.wire import encode_message
from trio_sagents.exceptions import LimitExceeded
from trio_sagents.persistence import MemoryStore
from trio_sagents.storage import CommitQueue, UnifiedStore
from trio_sagents.supervisor._change import Change
from trio_sagents.supervisor._ledger import Ledger
from trio_sagents.supervisor._ledger_checks import size_of


async def test_metadata_when_they_are_as_large_as_may_be() -> None:
    """Metadata are accepted up to the last byte, counting what is stored and what is pending. More is refused, and nothing changes."""
    stored, coming = (Message(f"u{number}", "user", (TextPart("hi"),), turn_id="t") for number in (1, 2))
    metadata = {"note": "x" * 50}
    whole = size_of(encode_message(stored)) + size_of(encode_message(coming)) + size_of(metadata)
    async with trio.open_nursery() as nursery:
        ledger = Ledger("c", "agent", None, None, "new", CommitQueue(UnifiedStore(MemoryStore()), nursery), whole - 1, 0)
        await ledger.submit(Change(lifecycle="on_message", messages=[stored]), lambda saved, error: None).wait()
        pending = ledger.submit(Change(lifecycle="on_message", messages=[coming]), lambda saved, error: None)
        with pytest.raises(LimitExceeded) as caught:
            ledger.submit(Change(lifecycle="on_step", metadata=metadata), lambda saved, error: None)
        await pending.wait()
        assert {} == ledger.metadata
        ledger.max_bytes = whole
        await ledger.submit(Change(lifecycle="on_step", metadata=metadata), lambda saved, error: None).wait()

    assert ("max_state_bytes", whole, whole - 1) == (caught.value.limit, caught.value.value, caught.value.most)
    assert metadata == ledger.metadata

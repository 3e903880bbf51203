"""Sizes of stored records, and how what closes a turn is cut so that it fits."""

from typing import Any

import pytest

from tests.unit.conversation.making import said
from trio_sagents.conversation.limits import Limits, content_digest, cut_to, fit, message_bytes, size_of
from trio_sagents.data.messages import ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.wire import encode_message
from trio_sagents.exceptions import LimitExceeded


def test_limits_when_it_is_just_enough() -> None:
    """A state may have `max_state_bytes` and not one more; one that was closed at the limit can still be loaded."""
    limits = Limits(100, 10)
    limits.check(100)
    with pytest.raises(LimitExceeded) as caught:
        limits.check(101)

    assert ("max_state_bytes", 101, 100) == (caught.value.limit, caught.value.value, caught.value.most)
    assert [True, True, False] == [limits.can_load(size) for size in (100, 110, 111)]


def test_size_when_a_text_is_not_ascii() -> None:
    """Bytes count, not characters."""
    assert size_of("xx") + 2 == size_of("\u00fc\u00fc")
    assert message_bytes([said(text="xx")]) + 2 == message_bytes([said(text="\u00fc\u00fc")])
    assert 0 == message_bytes([])


@pytest.mark.parametrize("part", [TextPart("x" * 5_000), ThinkingPart("x" * 5_000, "sig"), ToolResult("c1", "look", "x" * 5_000)])
def test_cut_to_when_a_text_is_too_long(part: Any) -> None:
    """What closes a turn is cut until it fits, whatever kind of text it is; what has no text stays as it is."""
    whole = Message("m", "assistant", (part, TextPart(""), ToolCall("c2", "look", {})), None, "t")
    cut = cut_to(whole, 1_000)

    assert 500 < size_of(encode_message(cut)) <= 1_000
    assert whole.parts[1:] == cut.parts[1:]
    assert type(part) is type(cut.parts[0])
    assert whole is cut_to(whole, size_of(encode_message(whole)))
    assert whole.parts[1:] == cut_to(whole, 10).parts[1:]


def test_media_when_there_is_no_room() -> None:
    """If a conversation has no room for a result, the media of the result go first, and its text says so."""

    def result(content: str, *media: ImagePart) -> Message:
        return Message("m", "tool", (ToolResult("1", "look", content, media=media),), turn_id="t")

    cut = cut_to(result("seen", ImagePart("image/png", data="A" * 5000)), 1000)

    assert result("seen\n[left out: 1 images or files; the conversation has no room for them]") == cut


def test_fit_when_some_need_less_than_their_share() -> None:
    """All messages together fit; a message that needs less than its share leaves the rest to the later ones."""
    short, long = said("u1", "hi"), said("u2", "x" * 5_000)
    room = 2_000
    fitted = fit([short, long, said("u3", "x" * 5_000)], room)

    assert room >= message_bytes(fitted)
    assert short == fitted[0]
    assert [short, long] == fit([short, long], message_bytes([short, long]) * 2)
    assert ["u1", "u2", "u3"] == [message.message_id for message in fitted]
    assert "" == fit([long], -1)[0].text


def test_content_digest_when_the_content_differs() -> None:
    """The digest is of the parts and of the metadata, and of nothing else."""
    first = content_digest([{"type": "text", "text": "hi"}], {})

    assert first == content_digest([{"text": "hi", "type": "text"}], {})
    assert first != content_digest([{"type": "text", "text": "ho"}], {})
    assert first != content_digest([{"type": "text", "text": "hi"}], {"lang": "de"})

"""Mistakes that are put into the adapters on purpose, as one might make them: the fuzzed provider has to find each."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.search.providers.running import run_events
from tests.search.providers.streams import Protocol
from trio_sagents.data.requests import TextChunk, ToolCallChunk
from trio_sagents.models import _answer, _anthropic_events, _openai_calls, _openai_events

Patch: Final = pytest.MonkeyPatch
STREAMS: Final = 3_000
_AnthropicEvents: Final = _anthropic_events.AnthropicEvents
_OpenAIEvents: Final = _openai_events.OpenAIEvents
_Assembly: Final = _openai_calls.CallAssembly


class _Anything(dict[str, str]):
    """A table that takes every word for the harmless one."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> str:
        return "stop"

    def get(self, key: str, default: Any = None) -> Any:
        return dict.get(self, key, "stop")


def openai_takes_any_reason(patch: Patch) -> None:
    """An unknown finish reason counts as "stop"."""
    patch.setattr(_openai_events, "_REASONS", _Anything(_openai_events._REASONS))


def anthropic_takes_any_reason(patch: Patch) -> None:
    """An unknown stop reason counts as "end_turn"."""
    patch.setattr(_anthropic_events, "_REASONS", _Anything(_anthropic_events._REASONS))


def end_of_body_is_an_end(patch: Patch) -> None:
    """A body that just ends is a whole answer."""
    patch.setattr(_OpenAIEvents, "is_complete", property(lambda self: True))


def anthropic_end_of_body_is_an_end(patch: Patch) -> None:
    """A body that just ends is a whole message."""
    patch.setattr(_AnthropicEvents, "is_complete", property(lambda self: True))


def a_later_reason_replaces_a_cut(patch: Patch) -> None:
    """Of two reasons the last one counts."""
    patch.setattr(_openai_events, "_CUT", frozenset())


def pieces_belong_by_index_alone(patch: Patch) -> None:
    """The index says whose a piece is, whatever else it says."""

    def call_of(self: Any, index: int | None, call_id: str, name: str, arguments: str) -> Any:
        return self._current.get(index)

    patch.setattr(_Assembly, "_call_of", call_of)


def pieces_belong_to_the_last_call(patch: Patch) -> None:
    """A piece without a name belongs to the call that began last."""

    def waiting_call(self: Any, present: Any, index: int | None, arguments: str) -> Any:
        return self.calls[-1] if self.calls else None

    patch.setattr(_Assembly, "_waiting_call", waiting_call)


def a_name_is_a_new_call(patch: Patch) -> None:
    """Each piece with a name begins a call."""
    patch.setattr(_Assembly, "_continues_known", lambda self, known, index, name, arguments: not name)
    patch.setattr(_Assembly, "_continues_named", lambda self, call, name: False)


def a_call_without_a_name_is_dropped(patch: Patch) -> None:
    """Pieces that have no head are forgotten."""
    finish = _Assembly.finish

    def without(self: Any) -> Any:
        self.calls[:] = [call for call in self.calls if call.name]
        return finish(self)

    patch.setattr(_Assembly, "finish", without)
    patch.setattr(_Assembly, "_waiting_call", lambda self, present, index, arguments: present)


def odd_content_is_no_content(patch: Patch) -> None:
    """Content of another type is passed over."""

    def content_at(value: Any, key: str) -> str:
        item = value.get(key)
        return item if isinstance(item, str) else ""

    patch.setattr(_openai_events, "content_at", content_at)
    patch.setattr(_anthropic_events, "content_at", content_at)


def odd_arguments_are_none(patch: Patch) -> None:
    """Arguments of another type count as none."""
    patch.setattr(_openai_calls, "_arguments_text", lambda function: text if isinstance(text := function.get("arguments"), str) else "")


def events_that_cannot_be_read_are_passed_over(patch: Patch) -> None:
    """An event that is no JSON is skipped."""

    def lenient(text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    patch.setattr(_openai_events, "parse_object", lenient)
    patch.setattr(_anthropic_events, "parse_object", lenient)


def errors_in_the_stream_are_passed_over(patch: Patch) -> None:
    """An error event says nothing."""
    patch.setattr(_openai_events, "_is_error", lambda data: False)


def anthropic_unknown_events_are_passed_over(patch: Patch) -> None:
    """An event of an unknown type has no content, whatever is in it."""
    patch.setattr(_anthropic_events, "_CONTENT", ())


def anthropic_pieces_without_a_block_are_dropped(patch: Patch) -> None:
    """A piece of a block that never began is forgotten."""
    continue_block = _AnthropicEvents._continue_block

    def lenient(self: Any, index: int, delta: Any) -> Any:
        return continue_block(self, index, delta) if index in self._open else ()

    def end(self: Any, index: int) -> Any:
        return end_block(self, index) if index in self._open else iter(())

    end_block = _AnthropicEvents._end_block
    patch.setattr(_AnthropicEvents, "_continue_block", lenient)
    patch.setattr(_AnthropicEvents, "_end_block", end)


def anthropic_arguments_of_a_beginning_count(patch: Patch) -> None:
    """The arguments at a call's beginning are its arguments, although pieces follow."""
    begin_block = _AnthropicEvents._begin_block

    def begin(self: Any, index: int, content: Any) -> Any:
        for chunk in begin_block(self, index, content):
            yield chunk
            if isinstance(chunk, ToolCallChunk):
                yield ToolCallChunk(chunk.index, arguments_json="{}")

    patch.setattr(_AnthropicEvents, "_begin_block", begin)


def text_is_kept_once(patch: Patch) -> None:
    """The same piece of text twice is one piece."""
    translate = _OpenAIEvents.translate
    last: list[Any] = [None]

    def once(self: Any, event: Any) -> Any:
        chunks = [chunk for chunk in translate(self, event) if not (isinstance(chunk, TextChunk) and chunk == last[0])]
        last[0] = next((chunk for chunk in chunks if isinstance(chunk, TextChunk)), last[0])
        return chunks

    patch.setattr(_OpenAIEvents, "translate", once)


def silence_is_waited_for(patch: Patch) -> None:
    """A connection that says nothing is waited for."""
    patch.setattr(_answer, "Patience", lambda first, following: _Endless())


class _Endless:
    first = following = float("inf")


PLANTED: Final[list[tuple[Protocol, Callable[[Patch], None]]]] = [
    ("openai", openai_takes_any_reason),
    ("anthropic", anthropic_takes_any_reason),
    ("openai", end_of_body_is_an_end),
    ("anthropic", anthropic_end_of_body_is_an_end),
    ("openai", a_later_reason_replaces_a_cut),
    ("openai", pieces_belong_by_index_alone),
    ("openai", pieces_belong_to_the_last_call),
    ("openai", a_name_is_a_new_call),
    ("openai", a_call_without_a_name_is_dropped),
    ("openai", odd_content_is_no_content),
    ("anthropic", odd_content_is_no_content),
    ("openai", odd_arguments_are_none),
    ("openai", events_that_cannot_be_read_are_passed_over),
    ("anthropic", events_that_cannot_be_read_are_passed_over),
    ("openai", errors_in_the_stream_are_passed_over),
    ("anthropic", anthropic_unknown_events_are_passed_over),
    ("anthropic", anthropic_pieces_without_a_block_are_dropped),
    ("anthropic", anthropic_arguments_of_a_beginning_count),
    ("openai", text_is_kept_once),
    ("openai", silence_is_waited_for),
]


@pytest.mark.parametrize(("protocol", "plant"), PLANTED, ids=lambda value: getattr(value, "__name__", value))
def test_mistake_when_planted(protocol: Protocol, plant: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzed provider finds it."""
    plant(monkeypatch)

    assert any(run_events(protocol, seed, 0, 300).wrong for seed in range(STREAMS // 300))

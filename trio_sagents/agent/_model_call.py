"""One call of the model: its stream becomes events as it flows, and one message at its end.

The provider is not trusted: whatever it sends becomes a message that is valid, or a `ModelFailed`.
"""

from collections.abc import Sequence
from typing import Final

import attrs
import trio

from trio_sagents._trio.groups import leaves
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._model import Model, ModelAnswer
from trio_sagents.agent._progress import Draft
from trio_sagents.agent._tools import ArgumentsInvalid, parse_arguments
from trio_sagents.data.config import TurnLimits
from trio_sagents.data.events import ToolCallIdentified
from trio_sagents.data.ids import is_id
from trio_sagents.data.json import check_text
from trio_sagents.data.messages import FINISH_REASONS, Message, StopReason, ToolCall
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import FinishChunk, ModelChunk, ModelRequest, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
from trio_sagents.exceptions import LimitExceeded, ModelFailed

MAX_COUNT: Final = 2**53
"""Tokens that a provider may claim: what every JSON reader takes."""
BREATH: Final = 64
"""Chunks after which other tasks get a turn, whatever the adapter does."""


@attrs.define(eq=False)
class _SpokenCall:
    """A tool call while its pieces arrive."""

    call_id: str
    name: str
    arguments: list[str] = attrs.field(factory=list)


@attrs.define(eq=False)
class _Listener:
    """Turns chunks into a message."""

    context: TurnContext
    limits: TurnLimits
    draft: Draft
    usage: Usage = attrs.field(factory=Usage)
    finish: str | None = None
    size: int = 0
    chunks: int = 0
    calls: dict[int, _SpokenCall] = attrs.field(factory=dict)

    def hear(self, chunk: ModelChunk) -> None:
        """Take the next chunk."""
        self.chunks += 1
        if self.chunks - self.size > self.context.max_message_bytes:
            raise LimitExceeded("max_message_bytes", self.chunks, most=self.context.max_message_bytes)  # chunks that say nothing
        if self.finish is not None and not isinstance(chunk, UsageChunk):
            raise ModelFailed("the model went on after it had finished")
        match chunk:
            case TextChunk(text=text):
                self._say("text", text, None)
            case ThinkingChunk(text=text, signature=signature):
                self._say("thinking", text, signature)
            case ToolCallChunk():
                self._hear_call(chunk)
            case UsageChunk(usage=usage):
                if not isinstance(usage, Usage) or any(
                    type(count) is not int or not 0 <= count < MAX_COUNT for count in attrs.astuple(usage)
                ):
                    raise ModelFailed("the model sent a usage that is no count of tokens")
                self.usage += usage
            case FinishChunk(reason=reason):
                if reason not in FINISH_REASONS:
                    raise ModelFailed(f"the model finished for the unknown reason {reason!r}")
                self.finish = reason
            case _:
                raise ModelFailed(f"the model sent a {type(chunk).__name__}, which is no chunk")

    def _grow(self, text: object) -> str:
        if not isinstance(text, str):
            raise ModelFailed(f"the model sent {type(text).__name__} where text is due")
        try:
            check_text(text, "chunk")
        except ValueError as exc:
            raise ModelFailed("the model sent text that is not valid Unicode") from exc
        self.size += len(text.encode())
        if self.size > self.context.max_message_bytes:
            raise LimitExceeded("max_message_bytes", self.size, most=self.context.max_message_bytes)
        return text

    def _say(self, kind: "str", text: str, signature: str | None) -> None:
        if signature is not None:
            self._grow(signature)
        event = self.draft.say("text" if kind == "text" else "thinking", self._grow(text), signature)
        if event is not None:
            self.context.publish(event)
            self.context.note_draft()

    def _hear_call(self, chunk: ToolCallChunk) -> None:
        spoken = self.calls.get(chunk.index)
        if spoken is None:
            if not chunk.name or not isinstance(chunk.name, str):
                raise ModelFailed("the model asked for a tool without a name")
            if self.context.progress.calls + len(self.calls) >= self.limits.max_calls:
                raise LimitExceeded("max_calls", self.limits.max_calls + 1, most=self.limits.max_calls)
            taken = {call.call_id for call in self.calls.values()}
            call_id = chunk.id or ""
            if not is_id(call_id) or call_id in taken or self.context.knows_call(call_id):
                call_id = self.context.new_id()  # some servers repeat ids, or have none; each call here is answered once
            spoken = self.calls[chunk.index] = _SpokenCall(self._grow(call_id), self._grow(chunk.name))
            call = ToolCall(spoken.call_id, spoken.name)
            self.context.publish(ToolCallIdentified(call, self.draft.message_id, self.context.turn_id))
        if chunk.arguments_json:
            spoken.arguments.append(self._grow(chunk.arguments_json))

    def answer(self) -> ModelAnswer:
        """Return the whole message."""
        if self.finish is None:
            raise ModelFailed("the model's stream ended before it had finished", retryable=True)
        stop_reason: StopReason = "tool_calls" if self.calls else "stop"
        if self.finish in {"length", "content_filtered"}:
            # A cut answer's calls may be cut too, so none of them is run.
            stop_reason = "length" if self.finish == "length" else "content_filtered"
            return ModelAnswer(self.draft.message(stop_reason), self.usage, {})
        calls: list[ToolCall] = []
        invalid: dict[str, str] = {}
        for spoken in self.calls.values():
            try:
                arguments = parse_arguments("".join(spoken.arguments))
            except ArgumentsInvalid as exc:
                arguments, invalid[spoken.call_id] = {}, str(exc)
            calls.append(ToolCall(spoken.call_id, spoken.name, arguments))
        return ModelAnswer(self.draft.message(stop_reason, calls), self.usage, invalid)


async def call_model(model: Model, request: ModelRequest, limits: TurnLimits, context: TurnContext) -> ModelAnswer:
    """Call the model once, and publish what it says while it says it.

    Raises:
        ModelFailed: the provider's fault, whatever it raised; what it had said stays in `context.progress.draft`.
        LimitExceeded: the answer is too long, or asks for too many tools.

    Cancellation: the stream is closed; what was said stays in `context.progress.draft`.
    """
    progress = context.progress
    progress.draft = Draft(context.new_id(), context.turn_id)
    listener = _Listener(context, limits, progress.draft)
    try:
        async with model.stream(request) as chunks:
            async for chunk in chunks:
                listener.hear(chunk)
                if listener.chunks % BREATH == 0:
                    await trio.lowlevel.checkpoint()
        answer = listener.answer()
    except (ModelFailed, LimitExceeded):
        raise
    except Exception as exc:  # the boundary to the provider: whatever an adapter raises is the model's failure
        for leaf in leaves(exc):  # an adapter with a nursery of its own wraps what it, or we, raised
            if isinstance(leaf, ModelFailed | LimitExceeded):
                raise leaf from leaf.__cause__
        raise ModelFailed(f"the model {name_of(model)!r} raised {type(exc).__name__}") from exc
    finally:
        progress.usage += listener.usage
    return answer


def name_of(model: Model) -> str:
    """Return what a model is called; its class, where it does not say."""
    try:
        name: object = getattr(model, "name", None)
    except Exception:  # noqa: BLE001  # an adapter that cannot say its name has failed already, and that is what is told
        name = None
    return name if isinstance(name, str) else type(model).__name__


def spoken_calls(message: Message) -> Sequence[ToolCall]:
    """Return the calls to run for this answer."""
    return message.calls if message.stop_reason == "tool_calls" else ()

"""One call of the model: the stream becomes events while it flows, and one message at its end.

The provider is not trusted: everything that it sends becomes a valid message, or a `ModelFailed`.
"""

from collections.abc import Mapping
from typing import Final, Literal

import attrs
import trio

from trio_sagents._trio.failures import logged
from trio_sagents._trio.groups import leaves
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._model import Model, ModelAnswer, name_of
from trio_sagents.agent._progress import Draft
from trio_sagents.agent._tools import ArgumentsInvalid, parse_arguments
from trio_sagents.data.config import TurnLimits
from trio_sagents.data.estimates import unreported_usage
from trio_sagents.data.events import DeltaMaker, TextDelta, ThinkingDelta, ToolCallIdentified, narration_delta
from trio_sagents.data.ids import is_id
from trio_sagents.data.json import canonical
from trio_sagents.data.messages import CUT_REASONS, FINISH_REASONS, OpaquePart, StopReason, TextPart, ToolCall
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import (
    FinishChunk,
    ModelChunk,
    ModelRequest,
    OpaqueChunk,
    TextChunk,
    ThinkingChunk,
    ToolCallChunk,
    ToolSpec,
    UsageChunk,
)
from trio_sagents.exceptions import LimitExceeded, ModelFailed, PersistenceError

MAX_COUNT: Final = 2**53
"""Providers may claim fewer tokens than this: every JSON reader takes such a number."""
BREATH: Final = 64
"""Chunks after which other tasks run, even if the adapter never yields."""


_KINDS: Final[Mapping[Literal["text", "narration", "thinking"], DeltaMaker]] = {
    "text": TextDelta,
    "narration": narration_delta,
    "thinking": ThinkingDelta,
}


@attrs.define(eq=False)
class _SpokenCall:
    """A tool call while its pieces arrive."""

    call_id: str
    name: str
    arguments: list[str] = attrs.field(factory=list)
    opaque: OpaquePart | None = None


@attrs.define(eq=False)
class _Listener:
    """Turns chunks into a message."""

    context: TurnContext
    limits: TurnLimits
    draft: Draft
    most: int
    """Bytes that the answer may have."""
    usage: Usage = attrs.field(factory=Usage)
    finish: str | None = None
    is_end: bool | None = None
    """Whether the provider said that its turn ends here."""
    specs: Mapping[str, ToolSpec] = attrs.field(factory=dict)
    """The tools that the model may call, by name."""
    size: int = 0
    chunks: int = 0
    calls: dict[int, _SpokenCall] = attrs.field(factory=dict)
    older: set[str] = attrs.field(factory=set)
    """Ids of new calls that are in use before the window of the conversation."""

    async def look_up(self, chunk: ToolCallChunk) -> None:
        """Ask whether the id of a new call is in use before the window; to be called before `hear`."""
        call_id = chunk.id or ""
        if chunk.index not in self.calls and is_id(call_id):
            self.older |= await self.context.find_used((call_id,))

    def hear(self, chunk: ModelChunk) -> None:
        """Take the next chunk."""
        self.chunks += 1
        if self.chunks - self.size > self.most:
            raise LimitExceeded("max_message_bytes", self.chunks, most=self.most)  # chunks without content
        if self.finish is not None and not isinstance(chunk, UsageChunk):
            raise _nonsense("the model continued after it had finished")
        match chunk:
            case TextChunk(text=text, kind=kind):
                if kind not in {None, "narration"}:
                    raise _nonsense(f"the model sent text of the unknown kind {kind!r}")
                self._say("text" if kind is None else "narration", text, None, None, None)
            case ThinkingChunk():
                self._say("thinking", chunk.text, chunk.signature, chunk.provider, chunk.field)
            case OpaqueChunk(part=part):
                self.draft.add(self._opaque(part))
            case ToolCallChunk():
                self._hear_call(chunk)
            case UsageChunk(usage=usage):
                if not isinstance(usage, Usage) or any(type(count) is not int or not 0 <= count < MAX_COUNT for count in usage.counts):
                    raise _nonsense("the model sent an invalid token count")
                self.usage += usage
            case FinishChunk(reason=reason, is_end=is_end):
                if reason not in FINISH_REASONS:
                    raise _nonsense(f"the model finished for the unknown reason {reason!r}")
                self.finish, self.is_end = reason, is_end
            case _:
                raise _nonsense(f"unexpected {type(chunk).__name__} in the model's stream")

    def _grow(self, text: object) -> str:
        if not isinstance(text, str):
            raise _nonsense(f"expected text from the model, got {type(text).__name__}")
        if text.isascii():
            self.size += len(text)
        else:
            try:
                self.size += len(text.encode())
            except UnicodeEncodeError as exc:
                raise _nonsense("the model sent text that is not valid Unicode") from exc
        if self.size > self.most:
            raise LimitExceeded("max_message_bytes", self.size, most=self.most)
        return text

    def _say(
        self, kind: Literal["text", "narration", "thinking"], text: str, signature: str | None, provider: str | None, field: str | None
    ) -> None:
        for mark in (signature, provider, field):
            if mark is not None:
                self._grow(mark)
        draft = self.draft
        offset = draft.say(kind, self._grow(text), signature, provider, field)
        if offset is not None:
            self.context.publish_delta(_KINDS[kind], text, draft.message_id, draft.last_part, offset)
            if draft.size >= draft.note_at:
                self.context.note_draft()

    def _opaque(self, part: object) -> OpaquePart:
        if not isinstance(part, OpaquePart):
            raise _nonsense(f"expected an OpaquePart from the model, got {type(part).__name__}")
        self._grow(part.provider)
        self._grow(canonical(part.data))
        return part

    def _hear_call(self, chunk: ToolCallChunk) -> None:
        spoken = self.calls.get(chunk.index)
        if spoken is None:
            if not chunk.name or not isinstance(chunk.name, str):
                raise _nonsense("the model asked for a tool without a name")
            if self.context.progress.calls + len(self.calls) >= self.limits.max_calls:
                raise LimitExceeded("max_calls", self.limits.max_calls + 1, most=self.limits.max_calls)
            taken = {call.call_id for call in self.calls.values()}
            call_id = chunk.id or ""
            if not is_id(call_id) or call_id in taken or call_id in self.older or self.context.knows_call(call_id):
                call_id = self.context.new_id()  # some servers repeat ids, or send none; here each call needs its own
            spoken = self.calls[chunk.index] = _SpokenCall(self._grow(call_id), self._grow(chunk.name))
            spec = self.specs.get(spoken.name)
            call = ToolCall(spoken.call_id, spoken.name, display_text=None if spec is None else spec.display_text)
            self.draft.add(call)
            self.context.publish(ToolCallIdentified(call, self.draft.message_id, self.context.turn_id))
        if chunk.arguments_json:
            spoken.arguments.append(self._grow(chunk.arguments_json))
        if chunk.opaque is not None:
            spoken.opaque = self._opaque(chunk.opaque)

    def answer(self) -> ModelAnswer:
        """Return the whole message."""
        if self.finish is None:
            raise ModelFailed("the model's stream ended before the answer was finished", kind="protocol")
        is_usage_known = self.usage != Usage()
        if self.finish in CUT_REASONS:
            # The calls of a cut answer may be cut, too, so none of them is run.
            cut: StopReason = "length" if self.finish == "length" else "content_filtered"
            return ModelAnswer(self.draft.message(cut), self.usage, {}, is_usage_known=is_usage_known)
        calls: list[ToolCall] = []
        invalid: dict[str, str] = {}
        for spoken in self.calls.values():
            try:
                arguments = parse_arguments("".join(spoken.arguments))
            except ArgumentsInvalid as exc:
                arguments, invalid[spoken.call_id] = {}, str(exc)
            calls.append(ToolCall(spoken.call_id, spoken.name, arguments, opaque=spoken.opaque))
        reason: StopReason = "tool_calls" if calls else "continued" if self._goes_on() else "stop"
        message = self.draft.message(reason, calls)
        return ModelAnswer(message, self.usage, invalid, is_usage_known=is_usage_known)

    def _goes_on(self) -> bool:
        """Return whether an answer without calls is not the end of the turn: the provider says so, or the model has only narrated."""
        if self.finish == "continued" or self.is_end is not None:
            return not self.is_end
        texts = [part for part in self.draft.parts() if isinstance(part, TextPart) and part.text.strip()]
        return bool(texts) and all(part.kind == "narration" for part in texts)


def _nonsense(why: str) -> ModelFailed:
    """Return the error for an adapter that breaks its contract: the same request would be answered in the same way."""
    return ModelFailed(why, kind="protocol", retryable=False)


def _adapter_failed(model: Model, exc: Exception, context: TurnContext) -> ModelFailed:
    """Log what an adapter raised instead of a `ModelFailed`, and return the error that the turn gets."""
    failed = ModelFailed(f"the model {name_of(model)!r} raised {type(exc).__name__}")
    failed.source = f"model {name_of(model)!r}"
    where = (name_of(model), context.turn_id, context.conversation_id)
    return logged(failed, exc, "the adapter of model %r failed, in turn %r of conversation %r", *where)


async def call_model(model: Model, request: ModelRequest, limits: TurnLimits, context: TurnContext) -> ModelAnswer:
    """Call the model once, and publish the answer while it arrives.

    Raises:
        ModelFailed: the provider's fault, for every exception of the adapter; the text so far stays in `context.progress.draft`.
        LimitExceeded: the answer is too long, or asks for too many tools.
        PersistenceError: the store could not say whether the id of a call is in use.

    Cancellation: the stream is closed; the text so far stays in `context.progress.draft`.
    """
    progress = context.progress
    progress.draft = Draft(context.new_id(), context.turn_id)
    specs = {spec.name: spec for spec in request.tools}
    listener = _Listener(context, limits, progress.draft, context.max_message_bytes, specs=specs)
    is_cut = False
    try:
        async with model.stream(request) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, ToolCallChunk) and context.has_older:
                    await listener.look_up(chunk)
                listener.hear(chunk)
                if listener.chunks % BREATH == 0:
                    await trio.lowlevel.checkpoint()
        answer = listener.answer()
    except ModelFailed as exc:
        exc.source = f"model {name_of(model)!r}"
        raise
    except (LimitExceeded, PersistenceError):
        raise
    except Exception as exc:  # the boundary to the provider: every exception of an adapter is a failure of the model
        for leaf in leaves(exc):  # an adapter with its own nursery wraps the errors that it or we raised
            if isinstance(leaf, ModelFailed | LimitExceeded | PersistenceError):
                leaf.source = f"model {name_of(model)!r}" if isinstance(leaf, ModelFailed) else leaf.source
                raise leaf from leaf.__cause__
        raise _adapter_failed(model, exc, context) from exc
    except trio.Cancelled:
        is_cut = True
        raise
    finally:
        unreported = Usage()
        if listener.chunks or is_cut:  # the provider has begun to answer, or may have: a request that it refused costs nothing
            unreported = unreported_usage(listener.usage, request, listener.size, is_whole=listener.finish is not None)
        progress.add_usage(listener.usage, name_of(model), unreported)
    return answer

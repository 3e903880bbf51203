"""What a client was told of the messages and calls of one turn: a part, a call, and a step begin before they end, and each ends once.

Each method yields what is still to be told, and notes it. The client may be told the same thing in any order, and more than once: what it
knows is not told again. This module is pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents import JSON, Interrupt, Message, Part, TextDelta, TextPart, ThinkingDelta, ThinkingPart, ToolCall
from trio_sagents.web._moves import (
    CallBegan,
    CallDropped,
    CallEnded,
    CallReady,
    CallWaits,
    MessageVoid,
    Move,
    SpeechAdded,
    SpeechBegan,
    SpeechEnded,
    SpokenKind,
    StepBegan,
    StepEnded,
)

_LOST: Final = "The outcome of this call is not known."
_CUT: Final = "The model's answer ended before this call was complete. The call was not made."
_VOID: Final = "The model's answer is void, and so is this call. The call was not made."


@attrs.define(eq=False)
class _Speech:
    kind: SpokenKind
    size: int = 0
    """How many characters the client was told."""
    is_open: bool = True


@attrs.define(eq=False)
class _Answer:
    """What the client was told of one message of the model."""

    message_id: str
    spoken: list[_Speech] = attrs.field(factory=list)
    ordinals: dict[int, int] = attrs.field(factory=dict)
    """From the index of a part in the message to its place in `spoken`."""
    is_open: bool = True
    is_complete: bool = False
    """Whether nothing more can come of the message: it was stored, or is void."""


@attrs.define(eq=False)
class _Call:
    """What the client was told of one call."""

    name: str
    message_id: str
    is_ready: bool = False
    is_ended: bool = False
    path: Sequence[str] = ()


@attrs.define(eq=False)
class Told:
    """What one client was told of the messages and calls of one turn."""

    messages: dict[str, _Answer] = attrs.field(factory=dict)
    """By message id, in the order in which they began."""
    calls: dict[str, _Call] = attrs.field(factory=dict)
    """By call id. A call that was taken back is not among them."""

    def open_moves(self) -> Sequence[Move]:
        """Return the moves that open again what is open, for a client that has the past already."""
        moves: list[Move] = []
        for told in self.messages.values():
            if not told.is_complete:
                moves.append(StepBegan(told.message_id))
                moves += [SpeechBegan(told.message_id, place, each.kind) for place, each in enumerate(told.spoken) if each.is_open]
        moves += [
            CallBegan(call.message_id, call_id, call.name, call.path)
            for call_id, call in self.calls.items()
            if not call.is_ready and not call.is_ended
        ]
        return moves

    # ── messages

    def is_settled(self, message_id: str) -> bool:
        """Return whether nothing more can come of a message: it was stored, or is void."""
        told = self.messages.get(message_id)
        return told is not None and told.is_complete

    def _open(self, message_id: str) -> Iterator[Move]:
        """Begin the message, or open it again, and close any other message that is still open."""
        known = self.messages.get(message_id)
        if known is not None and known.is_open:
            return
        yield from self.close_all()
        if known is None:
            self.messages[message_id] = _Answer(message_id)
        else:
            known.is_open = True
        yield StepBegan(message_id)

    def _close(self, told: _Answer) -> Iterator[Move]:
        yield from self._hush(told)
        if told.is_open:
            told.is_open = False
            yield from self._drop_calls(told.message_id, _CUT)
            yield StepEnded(told.message_id)

    def _drop_calls(self, message_id: str, reason: str) -> Iterator[Move]:
        """Take back the calls whose arguments never came. The same call id may begin again, in another answer."""
        for call_id, call in tuple(self.calls.items()):
            if call.message_id == message_id and not call.is_ready:
                del self.calls[call_id]
                yield CallDropped(message_id, call_id, call.name, reason)

    def _hush(self, told: _Answer) -> Iterator[Move]:
        for ordinal, speech in enumerate(told.spoken):
            if speech.is_open:
                speech.is_open = False
                yield SpeechEnded(told.message_id, ordinal, speech.kind)

    def hear(self, delta: TextDelta | ThinkingDelta) -> Iterator[Move]:
        """Tell the next piece of a message that is being spoken."""
        if self.is_settled(delta.message_id):
            return
        yield from self._open(delta.message_id)
        told = self.messages[delta.message_id]
        kind: SpokenKind = "text" if isinstance(delta, TextDelta) else "thinking"
        if delta.part not in told.ordinals:
            last = told.spoken[-1] if told.spoken else None
            if not delta.offset and delta.text:
                told.ordinals[delta.part] = len(told.spoken)
            elif last is not None and last.kind == kind and delta.offset <= last.size:
                # A picture has shown the part without its index.
                told.ordinals[delta.part] = len(told.spoken) - 1
            else:
                return  # its beginning is missing: the part comes when the message is complete
        ordinal = told.ordinals[delta.part]
        size = told.spoken[ordinal].size if ordinal < len(told.spoken) else 0
        if delta.offset <= size:
            yield from self._say(told, ordinal, kind, delta.text[size - delta.offset :])

    def _say(self, told: _Answer, ordinal: int, kind: SpokenKind, text: str) -> Iterator[Move]:
        """Tell the next piece of a part; begin the part first if it is new, or was ended."""
        if ordinal == len(told.spoken):
            yield from self._hush(told)
            told.spoken.append(_Speech(kind))
            yield SpeechBegan(told.message_id, ordinal, kind)
        speech = told.spoken[ordinal]
        if text and speech.kind == kind:
            if not speech.is_open:
                yield from self._hush(told)
                speech.is_open = True
                yield SpeechBegan(told.message_id, ordinal, kind)
            speech.size += len(text)
            yield SpeechAdded(told.message_id, ordinal, kind, text)

    def speak_whole(self, message_id: str, parts: Sequence[Part]) -> Iterator[Move]:
        """Tell a message as it is now; what was told of it before is not told again."""
        yield from self._open(message_id)
        told = self.messages[message_id]
        ordinal = 0
        for index, part in enumerate(parts):
            if isinstance(part, TextPart | ThinkingPart) and part.text:
                told.ordinals.setdefault(index, ordinal)
                size = told.spoken[ordinal].size if ordinal < len(told.spoken) else 0
                yield from self._say(told, ordinal, "text" if isinstance(part, TextPart) else "thinking", part.text[size:])
                ordinal += 1
            elif isinstance(part, ToolCall):
                yield from self.begin_call(message_id, part.call_id, part.name)

    def complete(self, message_id: str, parts: Sequence[Part]) -> Iterator[Move]:
        """Tell what is missing of a message that was stored, and end it. A message without anything to show is not told."""
        if self.is_settled(message_id):
            return
        if message_id in self.messages or any(isinstance(part, ToolCall) or getattr(part, "text", "") for part in parts):
            yield from self.speak_whole(message_id, parts)
            told = self.messages[message_id]
            yield from self._hush(told)
            for part in parts:
                if isinstance(part, ToolCall):
                    yield from self._make_ready(message_id, part)
            yield from self._close(told)
            told.is_complete = True

    def void_open(self, but: str | None = None) -> Iterator[Move]:
        """Take back all messages that are not complete, but for one."""
        for told in tuple(self.messages.values()):
            if told.message_id != but:
                yield from self.void(told.message_id)

    def close_all(self) -> Iterator[Move]:
        """Close whatever is open."""
        for told in self.messages.values():
            yield from self._close(told)

    def void(self, message_id: str) -> Iterator[Move]:
        """Take back a message that is not complete."""
        told = self.messages.get(message_id)
        if told is None or told.is_complete:
            return
        yield from self._hush(told)
        yield from self._drop_calls(message_id, _VOID)
        yield from self._close(told)
        told.is_complete = True
        yield MessageVoid(message_id)

    # ── calls

    def begin_call(self, message_id: str, call_id: str, name: str) -> Iterator[Move]:
        """Tell that the model asks for a tool."""
        if call_id in self.calls:
            return
        yield from self._open(message_id)
        yield from self._hush(self.messages[message_id])
        self.calls[call_id] = _Call(name, message_id)
        yield CallBegan(message_id, call_id, name)

    def _make_ready(self, message_id: str, call: ToolCall) -> Iterator[Move]:
        yield from self.begin_call(message_id, call.call_id, call.name)
        known = self.calls[call.call_id]
        if not known.is_ready and not known.is_ended:
            known.is_ready = True
            yield CallReady(known.message_id, call.call_id, call.name, call.arguments)

    def has_ended(self, call_id: str) -> bool:
        """Return whether the client was told the answer to a call."""
        return call_id in self.calls and self.calls[call_id].is_ended

    def end_call(self, call_id: str, name: str, status: str, text: str, message: Message | str) -> Iterator[Move]:
        """Tell the answer to a call, and to the calls of its sub-agent that people have decided.

        Args:
            call_id: the call.
            name: the tool.
            status: how the call ended.
            text: what the model reads.
            message: the message that holds the answer, or only its id.
        """
        known = self.calls.get(call_id)
        if known is None or known.is_ended or not known.is_ready:
            return
        message_id = message if isinstance(message, str) else message.message_id
        records = () if isinstance(message, str) else _decisions_in(message)
        for record in records:
            inner = self.calls.get(record["call_id"])
            if record["call_id"] != call_id and inner is not None and inner.path and not inner.is_ended:
                yield self._finish(record["call_id"], inner, _status_after(record["kind"]), record["kind"], message_id)
        known.is_ended = True
        decision = next((str(record["kind"]) for record in reversed(records) if record["call_id"] == call_id), None)
        yield CallEnded(call_id, name, status, text, message_id, decision)

    def _finish(self, call_id: str, call: _Call, status: str, decision: str | None, message_id: str) -> Move:
        call.is_ended = True
        text = _LOST if decision is None else f"Decided: {decision}. The sub-agent continued with this decision."
        return CallEnded(call_id, call.name, status, text, f"{message_id}:{call_id}", decision)

    def wait_for(self, interrupt: Interrupt) -> Iterator[Move]:
        """Tell which calls wait for people."""
        expires_at = None if interrupt.expires_at is None else interrupt.expires_at.isoformat()
        for call in interrupt.calls:
            if call.call_id not in self.calls:
                # A call of a sub-agent. It is no part of the model's answer, so no step is begun for it.
                message_id = self._asking_message(interrupt)
                self.calls[call.call_id] = _Call(call.name, message_id, is_ready=True, path=call.path)
                yield CallBegan(message_id, call.call_id, call.name, call.path)
                yield CallReady(message_id, call.call_id, call.name, call.arguments, call.path)
            if not self.calls[call.call_id].is_ended:
                yield CallWaits(call, expires_at if call.timeout is not None else None)

    def _asking_message(self, interrupt: Interrupt) -> str:
        """Return the message in which a call of a sub-agent is shown: the last one of the turn."""
        return next(reversed(self.messages), f"{interrupt.interrupt_id}:calls")

    def give_up_calls(self) -> Iterator[Move]:
        """End the calls that are open when the turn is over: nobody will tell of them."""
        for call_id, call in self.calls.items():
            if not call.is_ended:
                yield self._finish(call_id, call, "unknown", None, call.message_id)


def _decisions_in(message: Message) -> Sequence[JSON]:
    """Return what was decided about the calls of a tool message, as it was recorded."""
    records = message.metadata.get("decisions", ())
    return [record for record in records if isinstance(record, Mapping) and {"call_id", "kind"} <= set(record)]


def _status_after(kind: str) -> str:
    return "completed" if kind in {"approve", "edit", "answer"} else "cancelled"

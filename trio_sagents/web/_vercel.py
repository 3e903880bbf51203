"""The UI message stream of the Vercel AI SDK, version 7: our moves as its chunks, and its chat requests as ours.

One turn is one UI message of the assistant, and the id of the message is the id of the turn. A turn that waited for people and continues
is the same message again. The stream is server-sent events; its last line is `data: [DONE]`.

What the SDK does with a stream decides three things here:

- A body that simply ends counts as a success. So a broken turn ends with `abort` or `error`.
- The client ignores `abort`. So the metadata of the message says how the turn ended, under "outcome".
- A tool part whose approval was answered, and that never gets a result, makes the client send again and again. So no call is left open.

This module is pure: nothing waits here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, assert_never

import attrs

from trio_sagents import (
    JSON,
    Cancelled,
    Completed,
    Failed,
    FilePart,
    ImagePart,
    Interrupted,
    PendingCall,
    TextPart,
    TurnOutcome,
    Unanswered,
    UserMessage,
    check_id,
)
from trio_sagents.web._answers import CallAnswer, CallName, said_in
from trio_sagents.web._frames import call_json, error_text, frames, is_quiet, todos_json, usage_json
from trio_sagents.web._json import dumps
from trio_sagents.web._moves import (
    CallBegan,
    CallDropped,
    CallEnded,
    CallReady,
    CallWaits,
    Ended,
    MessageVoid,
    Move,
    Noted,
    SpeechAdded,
    SpeechBegan,
    SpeechEnded,
    StepBegan,
    StepEnded,
    SubAgentBegan,
    SubAgentEnded,
    TodosChanged,
    UsageChanged,
    UserSpoke,
)

VERCEL_HEADERS: Final[Mapping[str, str]] = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "x-vercel-ai-ui-message-stream": "v1",
    "x-accel-buffering": "no",
}
DONE: Final = b"data: [DONE]\n\n"
WAITS: Final = "waits"
"""The key in the metadata of a tool part that says which question waits there."""
_DENIALS: Final = frozenset({"reject", "expired", "superseded", "dismissed"})


# ── events out


@attrs.define(eq=False)
class VercelEncoder:
    """Writes the stream of one response."""

    has_started: bool = attrs.field(default=False, init=False)

    def greeting(self) -> bytes:
        """Return what a client gets before the turn is known: nothing but a comment, so that it sees that the server works."""
        return b": accepted\n\n"

    def start(self, turn_id: str) -> bytes:
        """Return the beginning of the message."""
        self.has_started = True
        return frames([{"type": "start", "messageId": turn_id, "messageMetadata": {"turnId": turn_id}}])

    def encode(self, moves: Iterable[Move]) -> bytes:
        """Return moves as bytes. Before `start` only news of the moment, and the end, can be told; other moves are left out."""
        moves = tuple(moves)
        if not self.has_started:
            moves = tuple(move for move in moves if isinstance(move, Ended) or (isinstance(move, Noted) and not move.is_lasting))
        written = frames(chunk for move in moves for chunk in chunks(move, has_started=self.has_started))
        return written + DONE if moves and isinstance(moves[-1], Ended) else written

    def broken(self, text: str) -> bytes:
        """Return the end of a stream that cannot continue, although its turn may."""
        return frames([{"type": "error", "errorText": text}]) + DONE


def chunks(move: Move, *, has_started: bool = True) -> Iterator[JSON]:  # noqa: C901, PLR0912  # a closed union, one case per member
    """Yield the chunks that tell a move."""
    match move:
        case StepBegan():
            yield {"type": "start-step"}
        case SpeechBegan():
            yield {"type": f"{_SPEECH[move.kind]}-start", "id": _speech_id(move)}
        case SpeechAdded(text=text):
            yield {"type": f"{_SPEECH[move.kind]}-delta", "id": _speech_id(move), "delta": text}
        case SpeechEnded():
            yield {"type": f"{_SPEECH[move.kind]}-end", "id": _speech_id(move)}
        case StepEnded():
            yield {"type": "finish-step"}
        case CallBegan() | CallReady() | CallDropped() | CallWaits() | CallEnded():
            yield from _call_chunks(move)
        case UsageChanged(usage=usage):
            yield {"type": "message-metadata", "messageMetadata": {"usage": usage_json(usage)}}
        case TodosChanged(todos=todos):
            yield _data("todos", "todos", {"todos": todos_json(todos)})
        case MessageVoid(message_id=message_id):
            yield _data("void", message_id, {"messageId": message_id})
        case UserSpoke(message=message):
            yield _data("user-message", message.message_id, {"messageId": message.message_id, "text": message.text})
        case SubAgentBegan(sub_agent_id=sub_agent_id, name=name):
            yield _data("sub-agent", sub_agent_id, {"callId": sub_agent_id, "name": name, "status": "running"})
        case SubAgentEnded(sub_agent_id=sub_agent_id, name=name, status=status):
            yield _data("sub-agent", sub_agent_id, {"callId": sub_agent_id, "name": name, "status": status})
        case Noted(name=name, data=data, is_lasting=True):
            yield _data(name, name, data)
        case Noted(name=name, data=data):
            yield {"type": f"data-{name}", "data": data, "transient": True}
        case Ended():
            yield from _end_chunks(move, has_started=has_started)
        case _:
            assert_never(move)


_SPEECH: Final[Mapping[str, str]] = {"text": "text", "thinking": "reasoning"}


def _speech_id(move: SpeechBegan | SpeechAdded | SpeechEnded) -> str:
    return f"{move.message_id}:{move.ordinal}"


def _data(name: str, data_id: str, data: JSON) -> JSON:
    """Return a part that the message keeps; the same id replaces it."""
    return {"type": f"data-{name}", "id": data_id, "data": data}


def _call_chunks(move: CallBegan | CallReady | CallDropped | CallWaits | CallEnded) -> Iterator[JSON]:
    match move:
        case CallBegan(call_id=call_id, name=name, path=path):
            metadata = {"toolMetadata": {"path": list(path)}} if path else {}
            yield {"type": "tool-input-start", "toolCallId": call_id, "toolName": name, "dynamic": True, **metadata}
        case CallReady(call_id=call_id, name=name, arguments=arguments, path=path):
            metadata = {"toolMetadata": {"path": list(path)}} if path else {}
            yield {"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": dumps(arguments)}
            yield {
                "type": "tool-input-available",
                "toolCallId": call_id,
                "toolName": name,
                "input": arguments,
                "dynamic": True,
                **metadata,
            }
        case CallDropped(call_id=call_id, name=name, reason=reason):
            yield {
                "type": "tool-input-error",
                "toolCallId": call_id,
                "toolName": name,
                "input": None,
                "dynamic": True,
                "errorText": reason,
            }
        case CallWaits(call=PendingCall(kind="question") as call, expires_at=expires_at):
            # What a person answers has to be a value, which an approval is not. `addToolOutput` keeps the metadata of a tool part.
            yield {
                "type": "tool-input-available",
                "toolCallId": call.call_id,
                "toolName": call.name,
                "input": call.arguments,
                "dynamic": True,
                "toolMetadata": {"path": list(call.path), WAITS: call_json(call, expires_at)},
            }
        case CallWaits(call=call, expires_at=expires_at):
            yield {
                "type": "tool-approval-request",
                "approvalId": str(CallName.of(call)),
                "toolCallId": call.call_id,
                "approvalDescriptor": call_json(call, expires_at),
            }
        case CallEnded(call_id=call_id, status="completed", text=text):
            yield {"type": "tool-output-available", "toolCallId": call_id, "output": text, "dynamic": True}
        case CallEnded(call_id=call_id, status="cancelled", decision=decision) if decision in _DENIALS:
            yield {"type": "tool-output-denied", "toolCallId": call_id}
        case CallEnded(call_id=call_id, text=text):
            yield {"type": "tool-output-error", "toolCallId": call_id, "errorText": text, "dynamic": True}


def _end_chunks(ended: Ended, *, has_started: bool) -> Iterator[JSON]:
    outcome = ended.outcome
    metadata = {**outcome_json(outcome), "usage": usage_json(ended.usage)}
    match outcome:
        case Completed():
            reasons = {"length": "length", "content_filtered": "content-filter"}
            yield {"type": "finish", "finishReason": reasons.get(outcome.cut or "", "stop"), "messageMetadata": metadata}
        case Interrupted():
            yield {"type": "finish", "finishReason": "tool-calls", "messageMetadata": metadata}
        case Cancelled() | Failed() | Unanswered():
            if has_started:
                yield {"type": "message-metadata", "messageMetadata": metadata}
            if has_started and is_quiet(outcome):
                yield {"type": "abort", "reason": error_text(outcome)}
            else:
                yield {"type": "error", "errorText": error_text(outcome)}
        case _:
            assert_never(outcome)


def outcome_json(outcome: TurnOutcome) -> JSON:
    """Return how a turn ended, for the metadata of its message."""
    match outcome:
        case Completed(cut=None):
            return {"outcome": "completed"}
        case Completed(cut=cut):
            return {"outcome": "completed", "cut": cut}
        case Interrupted(interrupt=interrupt):
            return {"outcome": "interrupted", "interruptId": interrupt.interrupt_id, "kind": interrupt.kind}
        case Cancelled(cause=cause):
            return {"outcome": "cancelled", "cause": cause.value}
        case Failed():
            return {"outcome": "failed", "error": error_text(outcome)}
        case Unanswered():
            return {"outcome": "unanswered", "error": error_text(outcome)}
        case _:
            assert_never(outcome)


# ── requests in


@attrs.frozen
class ChatRequest:
    """What is taken from a request: the newest message of a person, and answers about calls that wait. Nothing else is believed."""

    conversation_id: str
    message: UserMessage | None
    """None if the last message is not a person's: then only answers were sent."""
    message_id: str | None
    answers: Sequence[CallAnswer] = ()
    known_messages: frozenset[str] = frozenset()
    """Ids of messages of people that the client says it has: they are not sent to it once more."""


def read_chat_request(body: JSON) -> ChatRequest:
    """Return what is taken from the body of a chat request.

    Raises:
        TypeError, ValueError: the body is not a chat request; the message says why.
    """
    conversation_id = body.get("id")
    if not isinstance(conversation_id, str):
        raise TypeError('the body must have the id of the chat, as a text, under "id"')
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages) or not messages:
        raise TypeError('the body must have a list of UI messages that is not empty, under "messages"')
    last = messages[-1]
    message, message_id = None, None
    if last.get("role") == "user":
        message, message_id = _user_message(last), last.get("id")
        if message_id is not None:
            check_id("the id of the message", message_id)
    answers = [answer for each in messages if each.get("role") == "assistant" for answer in _answers_in(each)]
    known = frozenset(each["id"] for each in messages if each.get("role") == "user" and isinstance(each.get("id"), str))
    return ChatRequest(conversation_id, message, message_id, answers, known)


def _parts_of(message: JSON) -> Sequence[JSON]:
    parts = message.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise TypeError('a UI message must have a list of objects under "parts"')
    return parts


def _user_message(message: JSON) -> UserMessage:
    return UserMessage([_user_part(part) for part in _parts_of(message)])


def _user_part(part: JSON) -> TextPart | ImagePart | FilePart:
    match part.get("type"):
        case "text":
            return TextPart(part.get("text"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # TextPart checks it
        case "file":
            return file_part(part.get("url"), part.get("mediaType"), part.get("filename"))
        case kind:
            raise ValueError(f"a message of a person can have text and files, not a part of the type {kind!r}")


def file_part(url: object, media_type: object, name: object) -> ImagePart | FilePart:
    """Return a file that a client sent: a data URL, or for an image an https address.

    Raises:
        TypeError, ValueError: the file cannot be taken.
    """
    if not isinstance(url, str) or not isinstance(media_type, str):
        raise TypeError("a file must have a url and a media type, both as text")
    is_image = media_type.startswith("image/")
    if url.startswith("data:"):
        head, _, data = url.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("the data URL of a file must be in base64")
        return ImagePart(media_type, data) if is_image else FilePart(name if isinstance(name, str) else "file", media_type, data)
    if is_image and url.startswith("https://"):
        return ImagePart(media_type, None, url)
    raise ValueError("a file must be a data URL; an image may be an https address instead")


def _answers_in(message: JSON) -> Iterator[CallAnswer]:
    for part in _parts_of(message):
        state, approval = part.get("state"), part.get("approval")
        metadata = part.get("toolMetadata")
        waits = metadata.get(WAITS) if isinstance(metadata, dict) else None
        if state == "approval-responded" and isinstance(approval, dict):
            reason = approval.get("reason")
            yield CallAnswer(
                CallName.parse(approval.get("id")), approval.get("approved") is True, reason if isinstance(reason, str) else ""
            )
        elif state == "output-available" and isinstance(waits, dict):
            yield CallAnswer(CallName.parse(waits.get("id")), said=said_in(part.get("output")))
        elif state == "output-error" and isinstance(waits, dict):
            yield CallAnswer(CallName.parse(waits.get("id")), approved=False)

"""AG-UI 1.0: our moves as its events, our transcript as its messages, and its run requests as ours.

One run is one turn, or the rest of a turn that waited for people. `RUN_STARTED` is the first event of a stream, and nothing follows
`RUN_FINISHED` or `RUN_ERROR`. A message has the same id in the stream, in `MESSAGES_SNAPSHOT` and in our history.

A client adds what it is told of a message to what it has of it. So whoever joins in the middle of a turn gets the past as one
`MESSAGES_SNAPSHOT`, and after it only what is new.

This module is pure: nothing waits here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, assert_never

import attrs

from trio_sagents import (
    JSON,
    Cancelled,
    Completed,
    DisplayMessage,
    Failed,
    FilePart,
    ImagePart,
    Interrupt,
    Interrupted,
    Message,
    PendingCall,
    SagentsError,
    StreamingMessage,
    TextPart,
    ThinkingPart,
    Todo,
    Unanswered,
    Usage,
    UserMessage,
    check_id,
)
from trio_sagents.web._answers import CallAnswer, CallName, said_in
from trio_sagents.web._frames import call_json, error_text, frames, todos_json, usage_json
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

AG_UI_HEADERS: Final[Mapping[str, str]] = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
PROTOCOL_VERSION: Final = "1.0"
_REASONS: Final[Mapping[str, str]] = {"approval": "tool_call", "question": "input_required", "halt": "confirmation"}
_PROMPTS: Final[Mapping[str, str]] = {
    "approval": "May the agent call {name}?",
    "question": "The agent asks a question.",
    "halt": "The tool {name} has stopped the agent.",
}


# ── events out


@attrs.define(eq=False)
class AgUiEncoder:
    """Writes the stream of one run."""

    thread_id: str
    run_id: str
    shared: JSON = attrs.field(factory=dict)
    """Metadata of the conversation that the host has chosen; a part of each `STATE_SNAPSHOT`."""
    has_started: bool = attrs.field(default=False, init=False)

    def greeting(self) -> bytes:
        """Return the beginning of the run."""
        run = {"type": "RUN_STARTED", "threadId": self.thread_id, "runId": self.run_id, "protocolVersion": PROTOCOL_VERSION}
        return frames([run])

    def start(self, turn_id: str) -> bytes:
        """Return the news that the turn has begun: its id is what Stop has to name."""
        self.has_started = True
        return frames([_custom("turn", {"turnId": turn_id})])

    def encode(self, moves: Iterable[Move]) -> bytes:
        """Return moves as bytes."""
        return frames(event for move in moves for event in self.events(move))

    def broken(self, text: str) -> bytes:
        """Return the end of a stream that cannot continue, although its turn may."""
        return frames([{"type": "RUN_ERROR", "message": text, "code": "stream_ended"}])

    def snapshot(self, messages: Sequence[JSON]) -> bytes:
        """Return the past of the conversation, for a client that joins."""
        return frames([{"type": "MESSAGES_SNAPSHOT", "messages": messages}])

    def share(self, todos: Sequence[Todo]) -> bytes:
        """Return the shared state, for a client that begins or joins."""
        return frames([self._state(todos)])

    def _state(self, todos: Sequence[Todo]) -> JSON:
        return {"type": "STATE_SNAPSHOT", "snapshot": {**self.shared, "todos": todos_json(todos)}}

    def events(self, move: Move) -> Iterator[JSON]:  # noqa: C901, PLR0912  # a closed union, one case per member
        """Yield the events that tell a move."""
        match move:
            case StepBegan(message_id=message_id):
                yield {"type": "STEP_STARTED", "stepName": message_id}
            case StepEnded(message_id=message_id):
                yield {"type": "STEP_FINISHED", "stepName": message_id}
            case SpeechBegan() | SpeechAdded() | SpeechEnded():
                yield from _speech_events(move)
            case CallBegan() | CallReady() | CallDropped() | CallEnded():
                yield from _call_events(move)
            case CallWaits():
                pass  # the outcome of the run lists all calls that wait
            case UserSpoke(message=message):
                yield from _user_events(message)
            case TodosChanged(todos=todos):
                yield self._state(todos)
            case UsageChanged(usage=usage):
                yield _custom("usage", usage_json(usage))
            case MessageVoid(message_id=message_id):
                yield _custom("void", {"messageId": message_id})
            case SubAgentBegan(sub_agent_id=sub_agent_id, name=name):
                yield {"type": "SUBAGENT_STARTED", "subagentRunId": sub_agent_id, "name": name, "parentToolCallId": sub_agent_id}
            case SubAgentEnded():
                yield _sub_agent_end(move)
            case Noted(name=name, data=data):
                yield _custom(name, data)
            case Ended():
                yield self._end(move)
            case _:
                assert_never(move)

    def _end(self, ended: Ended) -> JSON:
        outcome = ended.outcome
        usage = {} if ended.usage == Usage() else {"usage": [usage_json(ended.usage)]}
        finished = {"type": "RUN_FINISHED", "threadId": self.thread_id, "runId": self.run_id, **usage}
        match outcome:
            case Completed(cut=None):
                return {**finished, "outcome": {"type": "success"}}
            case Completed(cut=cut):
                return {**finished, "outcome": {"type": "success"}, "metadata": {"cut": cut}}
            case Interrupted(interrupt=interrupt):
                return {**finished, "outcome": {"type": "interrupt", "interrupts": interrupts_json(interrupt)}}
            case Cancelled(cause=cause):
                return {**finished, "outcome": {"type": "cancelled"}, "metadata": {"cause": cause.value}}
            case Failed(error=error):
                code = type(error).__name__ if isinstance(error, SagentsError) else "Error"
                return {"type": "RUN_ERROR", "message": error_text(outcome), "code": code, **usage}
            case Unanswered():
                return {"type": "RUN_ERROR", "message": error_text(outcome), "code": "unanswered", **usage}
            case _:
                assert_never(outcome)


def _custom(name: str, value: JSON) -> JSON:
    return {"type": "CUSTOM", "name": name, "value": value}


def _thinking_id(message_id: str, ordinal: int) -> str:
    return f"{message_id}:thinking:{ordinal}"


def _speech_events(move: SpeechBegan | SpeechAdded | SpeechEnded) -> Iterator[JSON]:
    thinking_id = {"messageId": _thinking_id(move.message_id, move.ordinal)}
    message_id = {"messageId": move.message_id}
    match move:
        case SpeechBegan(kind="thinking"):
            yield {"type": "REASONING_START", **thinking_id}
            yield {"type": "REASONING_MESSAGE_START", **thinking_id, "role": "reasoning"}
        case SpeechAdded(kind="thinking", text=text):
            yield {"type": "REASONING_MESSAGE_CONTENT", **thinking_id, "delta": text}
        case SpeechEnded(kind="thinking"):
            yield {"type": "REASONING_MESSAGE_END", **thinking_id}
            yield {"type": "REASONING_END", **thinking_id}
        case SpeechBegan():
            yield {"type": "TEXT_MESSAGE_START", **message_id, "role": "assistant"}
        case SpeechAdded(text=text):
            yield {"type": "TEXT_MESSAGE_CONTENT", **message_id, "delta": text}
        case SpeechEnded():
            yield {"type": "TEXT_MESSAGE_END", **message_id}


def _call_events(move: CallBegan | CallReady | CallDropped | CallEnded) -> Iterator[JSON]:
    match move:
        case CallBegan(message_id=message_id, call_id=call_id, name=name):
            yield {"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": name, "parentMessageId": message_id}
        case CallReady(call_id=call_id, arguments=arguments):
            yield {"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": dumps(arguments)}
            yield {"type": "TOOL_CALL_END", "toolCallId": call_id}
        case CallDropped(call_id=call_id, name=name, reason=reason):
            yield {"type": "TOOL_CALL_END", "toolCallId": call_id}
            yield _custom("tool-dropped", {"callId": call_id, "name": name, "reason": reason})
        case CallEnded(call_id=call_id, message_id=message_id, text=text, status=status, decision=decision):
            metadata = {"status": status, **({} if decision is None else {"decision": decision})}
            yield {
                "type": "TOOL_CALL_RESULT",
                "messageId": message_id,
                "toolCallId": call_id,
                "content": text,
                "role": "tool",
                "metadata": metadata,
            }


def _user_events(message: Message) -> Iterator[JSON]:
    message_id = {"messageId": message.message_id}
    yield {"type": "TEXT_MESSAGE_START", **message_id, "role": "user"}
    yield {"type": "TEXT_MESSAGE_CONTENT", **message_id, "delta": message.text}
    yield {"type": "TEXT_MESSAGE_END", **message_id}


def _sub_agent_end(move: SubAgentEnded) -> JSON:
    run_id = {"subagentRunId": move.sub_agent_id}
    match move.status:
        case "completed":
            return {"type": "SUBAGENT_FINISHED", **run_id, "outcome": {"type": "success"}}
        case "interrupted":
            return {"type": "SUBAGENT_FINISHED", **run_id, "outcome": {"type": "suspended"}}
        case "failed" | "cancelled":
            return {
                "type": "SUBAGENT_ERROR",
                **run_id,
                "message": f"the sub-agent {move.name!r} {_WORDS[move.status]}",
                "code": move.status,
            }
        case _:
            assert_never(move.status)


_WORDS: Final[Mapping[str, str]] = {"failed": "failed", "cancelled": "was cancelled"}


def interrupts_json(interrupt: Interrupt) -> Sequence[JSON]:
    """Return what a turn waits for: one interrupt of AG-UI for each call, at least one."""
    expires_at = None if interrupt.expires_at is None else interrupt.expires_at.isoformat()
    return [_interrupt_json(call, expires_at if call.timeout is not None else None) for call in interrupt.calls] or [
        {"id": interrupt.interrupt_id, "reason": _REASONS[interrupt.kind]}
    ]


def _interrupt_json(call: PendingCall, expires_at: str | None) -> JSON:
    return {
        "id": str(CallName.of(call)),
        "reason": _REASONS[call.kind],
        "message": call.text or _PROMPTS[call.kind].format(name=call.name),
        "toolCallId": call.call_id,
        "responseSchema": _answer_schema(call),
        **({} if expires_at is None else {"expiresAt": expires_at}),
        "metadata": {**call_json(call, expires_at), "arguments": call.arguments},
    }


def _answer_schema(call: PendingCall) -> JSON:
    if call.kind == "question":
        properties: dict[str, JSON] = {"value": {"type": ["string", "array"]}, "other": {"type": "string"}, "cancel": {"type": "boolean"}}
        return {"type": "object", "properties": properties}
    properties = {"approved": {"type": "boolean"}, "reason": {"type": "string"}}
    if "edit" in call.allowed:
        properties["editedArgs"] = {"type": "object"}
    return {"type": "object", "properties": properties, "required": ["approved"]}


# ── the past


def messages_json(rows: Iterable[DisplayMessage], streaming: StreamingMessage | None) -> Sequence[JSON]:
    """Return the transcript as messages of AG-UI.

    Args:
        rows: of any turns, oldest first.
        streaming: the message that is being spoken; None between messages.
    """
    groups: dict[str, list[DisplayMessage]] = {}
    for row in rows:
        groups.setdefault(row.message_id, []).append(row)
    messages = [message for group in groups.values() for message in _past_messages(group)]
    if streaming is not None and streaming.message_id not in groups:
        spoken = [part for part in streaming.parts if isinstance(part, TextPart | ThinkingPart) and part.text]
        pairs = [("thinking" if isinstance(part, ThinkingPart) else "text", part.text) for part in spoken]
        messages += _spoken_messages(streaming.message_id, pairs, [])
    return messages


def _past_messages(rows: Sequence[DisplayMessage]) -> Iterator[JSON]:
    message_id, role = rows[0].message_id, rows[0].role
    match role:
        case "user":
            yield {"id": message_id, "role": "user", "content": _user_content(rows)}
        case "assistant":
            spoken = [(row.content_type, row.content["text"]) for row in rows if row.content_type in {"text", "thinking"}]
            calls = [row.content for row in rows if row.content_type == "tool_call"]
            yield from _spoken_messages(message_id, spoken, calls)
        case "tool":
            for row in rows:
                if row.content_type == "tool_result":
                    content = row.content
                    error = {"error": content["content"]} if content["is_error"] else {}
                    call_id = content["tool_call_id"]
                    yield {"id": message_id, "role": "tool", "toolCallId": call_id, "content": content["content"], **error}
        case _:
            pass  # a notification, or why a turn failed: AG-UI has no message for it


def _spoken_messages(message_id: str, spoken: Sequence[tuple[str, str]], calls: Sequence[JSON]) -> Iterator[JSON]:
    for ordinal, (kind, text) in enumerate(spoken):
        if kind == "thinking":
            yield {"id": _thinking_id(message_id, ordinal), "role": "reasoning", "content": text}
    text = "".join(text for kind, text in spoken if kind == "text")
    if text or calls:
        tool_calls = [
            {"id": call["call_id"], "type": "function", "function": {"name": call["name"], "arguments": dumps(call["arguments"])}}
            for call in calls
        ]
        yield {"id": message_id, "role": "assistant", "content": text, **({"toolCalls": tool_calls} if tool_calls else {})}


def _user_content(rows: Sequence[DisplayMessage]) -> str | list[JSON]:
    if all(row.content_type == "text" for row in rows):
        return "".join(row.content["text"] for row in rows)
    return [_content_part(row) for row in rows]


def _content_part(row: DisplayMessage) -> JSON:
    content = row.content
    match row.content_type:
        case "text":
            return {"type": "text", "text": content["text"]}
        case "image" if "url" in content:
            return {"type": "image", "source": {"type": "url", "value": content["url"]}}
        case "image":
            return {"type": "image", "source": {"type": "data", "value": content["data"], "mimeType": content["mime_type"]}}
        case _:
            return {"type": "text", "text": f"[{content.get('name', row.content_type)}]"}


# ── requests in


@attrs.frozen
class RunRequest:
    """What is taken from a request: the newest message of a person, and answers about calls that wait. Nothing else is believed."""

    conversation_id: str
    run_id: str
    message: UserMessage | None
    """None if the last message is not a person's."""
    message_id: str | None
    answers: Sequence[CallAnswer] = ()
    known_messages: frozenset[str] = frozenset()
    """Ids of messages that the client says it has: a person's message among them is not sent to it once more."""


def read_run_request(body: JSON) -> RunRequest:
    """Return what is taken from the body of a run request.

    Raises:
        TypeError, ValueError: the body is not a run request; the message says why.
    """
    texts = {name: body.get(name) for name in ("threadId", "runId")}
    for name, value in texts.items():
        if not isinstance(value, str) or not value:
            raise TypeError(f'the body must have a text that is not empty under "{name}"')
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise TypeError('the body must have a list of messages under "messages"')
    message, message_id = None, None
    if messages and messages[-1].get("role") == "user":
        message, message_id = _user_message(messages[-1].get("content")), messages[-1].get("id")
        if message_id is not None:
            check_id("the id of the message", message_id)
    resume = [] if body.get("resume") is None else body["resume"]
    if not isinstance(resume, list) or not all(isinstance(entry, dict) for entry in resume):
        raise TypeError('what is under "resume" must be a list of objects')
    known = frozenset(each["id"] for each in messages if isinstance(each.get("id"), str))
    return RunRequest(str(texts["threadId"]), str(texts["runId"]), message, message_id, [_answer(entry) for entry in resume], known)


def _answer(entry: JSON) -> CallAnswer:
    name = CallName.parse(entry.get("interruptId"))
    payload = entry.get("payload")
    if entry.get("status") == "cancelled":
        return CallAnswer(name, approved=False, reason=_text_in(payload, "reason"))
    if entry.get("status") != "resolved":
        raise ValueError('the status of an answer must be "resolved" or "cancelled"')
    if not isinstance(payload, dict):
        return CallAnswer(name, payload if isinstance(payload, bool) else None, said={} if payload is None else said_in(payload))
    approved, edited = payload.get("approved"), payload.get("editedArgs")
    if edited is not None and not isinstance(edited, dict):
        raise TypeError('the edited arguments, under "editedArgs", must be an object')
    said = {key: payload[key] for key in ("value", "other", "cancel") if key in payload}
    return CallAnswer(name, approved if isinstance(approved, bool) else None, _text_in(payload, "reason"), edited, said)


def _text_in(payload: object, name: str) -> str:
    text = payload.get(name) if isinstance(payload, dict) else None
    return text if isinstance(text, str) else ""


def _user_message(content: object) -> UserMessage:
    if isinstance(content, str):
        return UserMessage(content)
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise TypeError("the content of a message must be a text, or a list of parts")
    return UserMessage([_user_part(part) for part in content])


def _user_part(part: JSON) -> TextPart | ImagePart | FilePart:
    kind, source = part.get("type"), part.get("source")
    if kind == "text":
        return TextPart(part.get("text"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # TextPart checks it
    if kind not in {"image", "audio", "video", "document"} or not isinstance(source, dict):
        raise ValueError(f"a message of a person can have text, images and files, not a part of the type {kind!r}")
    value, media_type = source.get("value"), source.get("mimeType")
    if not isinstance(value, str):
        raise TypeError('the source of a part must have a text under "value"')
    if source.get("type") == "data" and isinstance(media_type, str):
        return ImagePart(media_type, value) if kind == "image" else FilePart(str(part.get("id") or kind), media_type, value)
    if source.get("type") == "url" and kind == "image" and value.startswith("https://"):
        return ImagePart(media_type if isinstance(media_type, str) else "image/*", None, value)
    raise ValueError("a part must hold its data; an image may be an https address instead")

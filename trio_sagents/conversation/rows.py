"""The transcript: how a message looks to people, as rows with deterministic ids."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, assert_never

import attrs

from trio_sagents.conversation.failures import shown_error
from trio_sagents.data.interrupts import DecisionRecord, PendingCall
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import (
    FINISH_REASONS,
    FROM_TOOL,
    FilePart,
    ImagePart,
    MediaPart,
    Message,
    OpaquePart,
    Part,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    ToolStatus,
)
from trio_sagents.data.reading import UNSENT
from trio_sagents.data.records import OPEN_STATUSES, DisplayMessage, Row

_NOT_SENT_AGAIN: Final = " (the provider refused what was sent, so it is not sent to the model any more)"
TURN: Final = "turn"
"""In the metadata of the last answer of a turn: the record of the turn (`outcomes.turn_record`)."""


ROW_OF_HOST: Final = "x:"
"""How the ids of rows begin that the host, its tools and its middleware add."""
ROW_OF_ANSWER: Final = "a:"
"""How the ids of rows begin that show what a person answered."""

OWN_ROWS: Final = (ROW_OF_HOST, ROW_OF_ANSWER)
"""How the ids of rows begin that show no message: a host's own transcript cannot make them itself."""


def call_row_id(call_id: str, turn_id: str | None) -> str:
    """Return the id of the row that shows a tool call: of the turn too, as providers repeat call ids."""
    return f"c:{turn_id}:{call_id}"


def rows_of(message: Message, created_at: datetime.datetime, call_status: ToolStatus = "pending") -> Sequence[DisplayMessage]:
    """Return the rows that show `message`, in order.

    Args:
        message: any message. The last answer of a turn that failed gives a row that says why, in the end. Another answer that was
            cut, and has no visible parts, gives one notification.
        created_at: aware UTC; kept in each row.
        call_status: the status of the rows of its tool calls.
    """
    from_tool = message.metadata.get(FROM_TOOL)
    is_from_tool = isinstance(from_tool, str)
    rows = [
        DisplayMessage(
            call_row_id(part.call_id, message.turn_id) if isinstance(part, ToolCall) else f"m:{message.message_id}:{index}",
            message.message_id,
            "tool" if is_from_tool else message.role,  # no person has said it
            content_type,
            {**content, FROM_TOOL: from_tool} if is_from_tool else content,
            call_status if isinstance(part, ToolCall) else "completed",
            created_at,
            message.turn_id,
            not isinstance(part, ToolCall) or call_status not in OPEN_STATUSES,
        )
        for index, (part, content_type, content) in enumerate(_shown(message.parts))
    ]
    if message.role != "assistant" or message.stop_reason in FINISH_REASONS - {"length", "content_filtered"}:
        return rows
    failed = _error_rows(message, created_at)
    if not rows:
        return failed or ([_notification(message, created_at)] if message.stop_reason is not None else [])
    rows[-1] = attrs.evolve(
        rows[-1], content={**rows[-1].content, "stop_reason": message.stop_reason, **({} if failed else _unsent(message))}
    )
    return [*rows, *failed]


def _error_rows(message: Message, created_at: datetime.datetime) -> list[DisplayMessage]:
    """Return the row that says why the turn failed which this answer ends; none if the turn did not fail."""
    record = message.metadata.get(TURN)
    content = shown_error(record.get("error")) if isinstance(record, Mapping) else None
    if content is None:
        return []
    row_id = f"m:{message.message_id}:error"
    text = f"{content['text']}{_NOT_SENT_AGAIN if UNSENT in message.metadata else ''}"
    content = {**content, "text": text, **_unsent(message)}
    return [DisplayMessage(row_id, message.message_id, "system", "error", content, "failed", created_at, message.turn_id)]


def _notification(message: Message, created_at: datetime.datetime) -> DisplayMessage:
    text = f"no answer: {message.stop_reason}{_NOT_SENT_AGAIN if UNSENT in message.metadata else ''}"
    content: JSON = {"text": text, "stop_reason": message.stop_reason, **_unsent(message)}
    row_id = f"m:{message.message_id}:0"
    return DisplayMessage(row_id, message.message_id, "system", "notification", content, "completed", created_at, message.turn_id)


def _unsent(message: Message) -> JSON:
    return {UNSENT: message.metadata[UNSENT]} if UNSENT in message.metadata else {}


def _shown(parts: Sequence[Part]) -> Iterator[tuple[Part, str, JSON]]:
    for part in parts:
        match part:
            case TextPart(text=text, kind=kind):
                if text:
                    yield part, "text", {"text": text} if kind is None else {"text": text, "kind": kind}
            case ThinkingPart(text=text):
                if text:
                    yield part, "thinking", {"text": text}
            case OpaquePart():
                pass  # only its provider can read it
            case ImagePart() | FilePart():
                yield (part, *_shown_media(part))
            case ToolCall():
                yield part, "tool_call", _shown_call(part)
            case ToolResult():
                yield (
                    part,
                    "tool_result",
                    {"tool_call_id": part.call_id, "name": part.name, "content": part.content, "is_error": part.is_error},
                )
                for item in part.media:
                    content_type, content = _shown_media(item)
                    yield part, content_type, {**content, "tool_call_id": part.call_id}
            case _:
                assert_never(part)


def _shown_media(part: MediaPart) -> tuple[str, JSON]:
    """Return the content type and the content of the row of an image or a file."""
    if isinstance(part, FilePart):
        return "file_reference", {"name": part.name, "mime_type": part.media_type}
    return "image", {"url": part.url} if part.url is not None else {"data": part.data, "mime_type": part.media_type}


def _shown_call(call: ToolCall) -> JSON:
    content = {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
    return content if call.display_text is None else {**content, "display_text": call.display_text}


def call_row(call: ToolCall, message: Message, status: ToolStatus, created_at: datetime.datetime) -> DisplayMessage:
    """Return the row of one tool call of `message`, with another status."""
    content = _shown_call(call)
    row_id = call_row_id(call.call_id, message.turn_id)
    is_final = status not in OPEN_STATUSES
    return DisplayMessage(row_id, message.message_id, "assistant", "tool_call", content, status, created_at, message.turn_id, is_final)


def own_row(row: Row, new_id: str, turn_id: str | None, created_at: datetime.datetime) -> DisplayMessage:
    """Return a row of the host's as it is stored.

    Args:
        row: the row.
        new_id: names a row without a key; nothing in the conversation has it.
        turn_id: the turn that the row belongs to; None outside of turns.
        created_at: aware UTC.
    """
    row_id = f"{ROW_OF_HOST}{new_id}" if row.key is None else f"{ROW_OF_HOST}{row.key}"
    return DisplayMessage(row_id, row_id, row.role, row.content_type, row.content, "completed", created_at, turn_id)


def answer_row(
    call: PendingCall, record: DecisionRecord, message_id: str, turn_id: str, created_at: datetime.datetime
) -> DisplayMessage | None:
    """Return the row that shows what a person answered to a question; None for any other decision.

    Args:
        call: the call that asked.
        record: what was decided.
        message_id: of the answer of the agent in which the call is, or in which the call is whose sub-agent asked.
        turn_id: the turn.
        created_at: aware UTC.
    """
    question = call.question
    if record.kind != "answer" or question is None:
        return None
    said: JSON = json.loads(record.content)
    row_id = f"{ROW_OF_ANSWER}{record.interrupt_id}:{call.call_id}"
    about = {"question": question.text, "call_id": call.call_id}
    if said.get("cancel"):
        content: JSON = {"text": "(not answered)", **about}
        return DisplayMessage(row_id, message_id, "user", "notification", content, "completed", created_at, turn_id)
    given = said.get("value")
    values = [given] if isinstance(given, str) else list(given or ())
    # As `answer_text` reads them: a value wins over the label of another option.
    by_label = {option.label: option for option in question.options if option.label}
    options = {**by_label, **{option.value: option for option in question.options}}
    labels = [(options[value].label or options[value].value) if value in options else value for value in values]
    chosen = [options[value].value if value in options else value for value in values]
    other = said.get("other")
    text = ", ".join([*labels, *([other] if isinstance(other, str) else [])])
    content = {"text": text, "labels": labels, "values": chosen, **about, **({} if other is None else {"other": other})}
    return DisplayMessage(row_id, message_id, "user", "answer", content, "completed", created_at, turn_id)

"""The transcript as UI messages of the Vercel AI SDK: what a chat begins with when its page is opened.

A message of the assistant has the parts that its stream would have given it. So this module folds the same moves, as the client folds the
chunks. It is pure.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

import attrs

from trio_sagents import JSON, DisplayMessage, Interrupt, PendingCall
from trio_sagents.web._answers import CallName
from trio_sagents.web._frames import call_json
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
from trio_sagents.web._relay import TurnRelay
from trio_sagents.web._turn_stream import stored_outcome
from trio_sagents.web._vercel import WAITS, outcome_json


def ui_messages(rows: Sequence[DisplayMessage], interrupt: Interrupt | None, running: str | None) -> Sequence[JSON]:
    """Return a transcript as UI messages, oldest first.

    Args:
        rows: of any turns, oldest first.
        interrupt: what waits for people; None if nothing does.
        running: the turn that runs; its message is as far as it is stored.
    """
    messages: list[JSON] = []
    is_told: set[str] = set()
    for row in rows:
        key = row.message_id if row.role == "user" else row.turn_id
        if key is None or key in is_told:
            continue
        is_told.add(key)
        if row.role == "user":
            parts = [part for each in rows if each.message_id == key and (part := _user_part(each)) is not None]
            messages.append({"id": key, "role": "user", "parts": parts})
        else:
            messages.append(_turn_message(key, [each for each in rows if each.turn_id == key], interrupt, is_running=key == running))
    return messages


def _turn_message(turn_id: str, rows: Sequence[DisplayMessage], interrupt: Interrupt | None, *, is_running: bool) -> JSON:
    relay = TurnRelay(turn_id)
    message = _Message()
    message.fold(relay.catch_up(rows, None))
    metadata: dict[str, object] = {"turnId": turn_id}
    if not is_running and (outcome := stored_outcome(turn_id, rows, interrupt)) is not None:
        message.fold(relay.end(outcome))
        metadata |= outcome_json(outcome)
    return {"id": turn_id, "role": "assistant", "metadata": metadata, "parts": message.parts}


@attrs.define(eq=False)
class _Message:
    """A message of the assistant, part by part."""

    parts: list[dict[str, object]] = attrs.field(factory=list)

    def fold(self, moves: Iterable[Move]) -> None:
        """Add what moves tell."""
        for move in moves:
            self._add(move)

    def _add(self, move: Move) -> None:  # a closed union, one case per member
        match move:
            case StepBegan():
                self.parts.append({"type": "step-start"})
            case SpeechBegan(kind=kind):
                self.parts.append({"type": "text" if kind == "text" else "reasoning", "text": "", "state": "streaming"})
            case SpeechAdded(text=text):
                self.parts[-1]["text"] = f"{self.parts[-1]['text']}{text}"
            case SpeechEnded():
                self.parts[-1]["state"] = "done"
            case CallBegan(call_id=call_id, name=name):
                self.parts.append({"type": "dynamic-tool", "toolName": name, "toolCallId": call_id, "state": "input-streaming"})
            case CallReady(call_id=call_id, arguments=arguments):
                self._call(call_id, {"state": "input-available", "input": arguments})
            case CallWaits(call=PendingCall(kind="question") as call, expires_at=expires_at):
                self._call(call.call_id, {"toolMetadata": {"path": list(call.path), WAITS: call_json(call, expires_at)}})
            case CallWaits(call=call, expires_at=expires_at):
                approval = {"id": str(CallName.of(call)), "descriptor": call_json(call, expires_at)}
                self._call(call.call_id, {"state": "approval-requested", "approval": approval})
            case CallEnded(call_id=call_id, status="completed", text=text):
                self._call(call_id, {"state": "output-available", "output": text})
            case CallEnded(call_id=call_id, text=text) | CallDropped(call_id=call_id, reason=text):
                self._call(call_id, {"state": "output-error", "errorText": text})
            case (
                StepEnded()
                | MessageVoid()
                | UserSpoke()
                | TodosChanged()
                | UsageChanged()
                | SubAgentBegan()
                | SubAgentEnded()
                | Noted()
                | Ended()
            ):
                pass
            case _:
                assert_never(move)

    def _call(self, call_id: str, fields: dict[str, object]) -> None:
        for part in self.parts:
            if part.get("toolCallId") == call_id:
                part.update(fields)


def _user_part(row: DisplayMessage) -> JSON | None:
    content = row.content
    match row.content_type:
        case "text":
            return {"type": "text", "text": content["text"]}
        case "image" if "url" in content:
            return {"type": "file", "mediaType": "image/*", "url": content["url"]}
        case "image":
            return {"type": "file", "mediaType": content["mime_type"], "url": f"data:{content['mime_type']};base64,{content['data']}"}
        case "file_reference":
            return {"type": "data-file", "data": {"name": content["name"], "mediaType": content["mime_type"]}}
        case _:
            return None

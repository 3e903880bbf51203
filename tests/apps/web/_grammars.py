"""What a valid stream is, for both protocols: checkers that also fold a stream, written from the sources of the clients."""

import json
from typing import Any, Final

import attrs
from ag_ui.core import Event
from pydantic import BaseModel, TypeAdapter

_EVENTS: Final[TypeAdapter[Any]] = TypeAdapter(Event)
ENDS: Final = {"finish", "abort", "error"}


def objects(stream: bytes) -> list[Any]:
    """Return the JSON objects of a stream of server-sent events; comments and the closing line of the AI SDK are left out."""
    assert stream.endswith(b"\n\n")
    blocks = [block for block in stream.decode().split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks if block != "data: [DONE]"]


# ── the UI message stream


@attrs.define(eq=False)
class UiMessage:
    """A message of the assistant, as the client of the AI SDK builds it."""

    has_started: bool = False
    message_id: str | None = None
    has_ended: bool = False
    in_step: bool = False
    steps: int = 0
    open: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    parts: list[dict[str, Any]] = attrs.field(factory=list)
    metadata: dict[str, Any] = attrs.field(factory=dict)
    void: set[str] = attrs.field(factory=set)

    def call(self, call_id: str) -> dict[str, Any]:
        """Return the tool part; the client fails if there is none."""
        return next(part for part in reversed(self.parts) if part.get("toolCallId") == call_id)

    def take(self, chunk: dict[str, Any]) -> None:
        """Take the next chunk."""
        kind = chunk["type"]
        assert not self.has_ended, f"{kind} after the end"
        if not self.has_started:
            assert kind in {"start", "error"} or chunk.get("transient"), f"{kind} before the start"
        match kind:
            case "start":
                assert not self.has_started
                self.has_started, self.message_id = True, chunk["messageId"]
                self.metadata |= chunk["messageMetadata"]
            case "start-step":
                assert not self.in_step
                self.in_step = True
                self.steps += 1
            case "finish-step":
                assert self.in_step
                assert not self.open, "a part is open at the end of its step"
                self.in_step = False
            case "text-start" | "reasoning-start":
                assert self.in_step
                assert chunk["id"] not in self.open
                part = {"type": kind.removesuffix("-start"), "id": chunk["id"], "text": ""}
                self.open[chunk["id"]] = part
                self.parts.append(part)
            case "text-delta" | "reasoning-delta":
                assert chunk["delta"]
                self.open[chunk["id"]]["text"] += chunk["delta"]
            case "text-end" | "reasoning-end":
                assert self.open.pop(chunk["id"])["type"] == kind.removesuffix("-end")
            case "tool-input-start":
                self.parts.append(
                    {"type": "tool", "toolCallId": chunk["toolCallId"], "name": chunk["toolName"], "state": "streaming", "raw": ""}
                )
            case "tool-input-delta":
                part = self.call(chunk["toolCallId"])
                assert part["state"] == "streaming"
                part["raw"] += chunk["inputTextDelta"]
            case "tool-input-available":
                part = self.call(chunk["toolCallId"])
                assert part["state"] in {"streaming", "available"}
                assert json.loads(part["raw"]) == chunk["input"]
                part |= {"state": "waits" if "waits" in chunk.get("toolMetadata", {}) else "available", "input": chunk["input"]}
            case "tool-input-error":
                part = self.call(chunk["toolCallId"])
                assert part["state"] == "streaming"
                part["state"] = "dropped"
            case "tool-approval-request":
                part = self.call(chunk["toolCallId"])
                assert part["state"] in {"available", "waits"}
                part["state"] = "waits"
            case "tool-output-available" | "tool-output-error" | "tool-output-denied":
                part = self.call(chunk["toolCallId"])
                assert part["state"] in {"available", "waits"}, part
                part |= {"state": kind, "output": chunk.get("output", chunk.get("errorText"))}
            case "message-metadata":
                self.metadata |= chunk["messageMetadata"]
            case "finish" | "abort" | "error":
                self._end(chunk)
            case "data-void":
                self.void.add(chunk["id"])
            case _:
                assert kind.startswith("data-"), kind
                assert chunk.get("transient") or isinstance(chunk["id"], str)

    def _end(self, chunk: dict[str, Any]) -> None:
        self.has_ended = True
        self.metadata |= chunk.get("messageMetadata", {})
        assert not self.open
        assert not self.in_step
        open_calls = [part for part in self.parts if part.get("state") in {"streaming", "available", "waits"}]
        assert not open_calls or chunk.get("finishReason") == "tool-calls", "a call is open at the end"

    def shown(self) -> list[Any]:
        """Return what the client shows in the end, without what it was told to forget."""
        shown: list[Any] = []
        for part in self.parts:
            if part["type"] != "tool" and part["id"].rpartition(":")[0] not in self.void:
                shown.append((part["type"], part["id"], part["text"]))
            elif part["type"] == "tool" and part["state"] != "dropped":
                shown.append((part["name"], part["toolCallId"], part["state"], part["input"], part.get("output")))
        return shown


def read_ui_stream(*streams: bytes) -> UiMessage:
    """Check the streams of one message, and fold them. A later stream continues the message of the one before it."""
    message = UiMessage()
    for stream in streams:
        assert stream.count(b"data: [DONE]\n\n") == 1
        assert stream.endswith(b"data: [DONE]\n\n")
        message.has_started = message.has_ended = False
        for part in message.parts:
            if part.get("state") == "waits":
                part["state"] = "available"  # answered
        for chunk in objects(stream):
            message.take(chunk)
        assert message.has_ended
    return message


# ── AG-UI


def _no_extras(model: Any) -> None:
    """Fail if a field is not one of the protocol's: the client would strip it, and warn."""
    if isinstance(model, BaseModel):
        assert not model.model_extra, (type(model).__name__, model.model_extra)
        for value in dict(model).values():
            _no_extras(value)
    elif isinstance(model, list):
        for value in model:
            _no_extras(value)


@attrs.define(eq=False)
class Run:
    """One run, as the client of AG-UI checks it and folds it."""

    is_running: bool = False
    has_ended: bool = False
    steps: set[str] = attrs.field(factory=set)
    texts: set[str] = attrs.field(factory=set)
    thoughts: set[str] = attrs.field(factory=set)
    calls: set[str] = attrs.field(factory=set)
    sub_agents: set[str] = attrs.field(factory=set)
    answered: set[str] = attrs.field(factory=set)
    """The calls that have their result: a sub-agent is shown inside its call."""
    messages: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    void: set[str] = attrs.field(factory=set)
    outcome: str = ""

    def take(self, event: Any) -> None:
        """Take the next event."""
        _no_extras(_EVENTS.validate_python(event))
        kind = event["type"]
        assert not self.has_ended, f"{kind} after the end"
        assert self.is_running or kind in {"RUN_STARTED", "RUN_ERROR"}, f"{kind} before the run"
        opened, closed = kind.endswith(("_START", "_STARTED")), kind.endswith(("_END", "_FINISHED"))
        for prefix, ids, key in (
            ("STEP_", self.steps, "stepName"),
            ("TEXT_MESSAGE_", self.texts, "messageId"),
            ("REASONING_", self.thoughts, "messageId"),
            ("TOOL_CALL_", self.calls, "toolCallId"),
            ("SUBAGENT_", self.sub_agents, "subagentRunId"),
        ):
            if kind.startswith(prefix) and kind not in {"TOOL_CALL_RESULT", "REASONING_MESSAGE_START", "REASONING_MESSAGE_END"}:
                assert (event[key] in ids) is not opened, event
                if opened:
                    ids.add(event[key])
                elif closed or kind == "SUBAGENT_ERROR":
                    ids.remove(event[key])
        self._fold(event)

    def _fold(self, event: Any) -> None:
        match event["type"]:
            case "RUN_STARTED":
                assert not self.is_running
                self.is_running = True
            case "RUN_FINISHED" | "RUN_ERROR":
                self.has_ended = True
                self.outcome = event.get("outcome", {}).get("type", "error")
                assert set() == self.steps | self.texts | self.thoughts | self.calls | self.sub_agents
            case "TEXT_MESSAGE_CONTENT" | "REASONING_MESSAGE_CONTENT":
                message = self.messages.setdefault(event["messageId"], {"text": "", "calls": {}})
                message["text"] += event["delta"]
            case "TOOL_CALL_START":
                self.messages.setdefault(event["parentMessageId"], {"text": "", "calls": {}})["calls"].setdefault(event["toolCallId"], "")
            case "TOOL_CALL_ARGS":
                owner = next(message for message in self.messages.values() if event["toolCallId"] in message["calls"])
                owner["calls"][event["toolCallId"]] += event["delta"]
            case "SUBAGENT_STARTED":
                assert event["parentToolCallId"] not in self.answered, "a sub-agent begins behind the result of its call"
            case "TOOL_CALL_RESULT":
                assert event["toolCallId"] not in self.sub_agents, "a call has its result before its sub-agent has ended"
                self.answered.add(event["toolCallId"])
                assert event["messageId"] not in self.messages
                self.messages[event["messageId"]] = {"text": event["content"], "calls": {}}
            case "MESSAGES_SNAPSHOT":
                self.messages = {}
                for message in event["messages"]:
                    calls = {call["id"]: call["function"]["arguments"] for call in message.get("toolCalls", ())}
                    self.messages[message["id"]] = {"text": message["content"], "calls": calls}
            case "CUSTOM" if event["name"] == "void":
                self.void.add(event["value"]["messageId"])
            case "CUSTOM" if event["name"] == "tool-dropped":
                for message in self.messages.values():
                    message["calls"].pop(event["value"]["callId"], None)

    def shown(self) -> dict[str, Any]:
        """Return what the client shows in the end, without what it was told to forget, by message id."""
        return {
            message_id: message
            for message_id, message in self.messages.items()
            if message_id.partition(":thinking:")[0] not in self.void and (message["text"] or message["calls"])
        }


def read_runs(*streams: bytes) -> Run:
    """Check the streams of runs of one thread, and fold them one after the other."""
    run = Run()
    for stream in streams:
        run.is_running = run.has_ended = False
        for event in objects(stream):
            run.take(event)
        assert run.has_ended
    return run

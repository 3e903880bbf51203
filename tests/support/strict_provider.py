"""A provider that takes nothing for granted: what it refuses in a request, real ones refuse with a 400."""

from trio_sagents.data.messages import FilePart, ImagePart, Message, OpaquePart, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.requests import ModelRequest


def check_request(request: ModelRequest) -> None:
    """Fail where a strict provider would refuse a request.

    Roles are in order: instructions, then a person, then answers and persons, in turn; the last one who spoke is not the model.
    Each call is answered exactly once, by a message of its own, before anybody else speaks; no result answers nothing. No
    message of a person is empty. The ids of messages and calls are unique, and each part is in a message of its role.
    """
    assert isinstance(request.system, str)
    names = [tool.name for tool in request.tools]
    assert len(set(names)) == len(names), f"two tools have one name: {names}"
    ids = [message.message_id for message in request.messages]
    assert len(set(ids)) == len(ids), f"two messages have one id: {ids}"
    assert all(ids), "a message has no id"
    opened: dict[str, str] = {}
    used: set[str] = set()
    before = "system"
    for message in request.messages:
        _check_parts(message)
        _check_role(message, before, opened)
        for result in message.results:
            assert opened.pop(result.call_id, None) == result.name, f"{result} answers no call that is open"
        for call in message.calls:
            assert call.call_id, "a call has no id"
            assert call.call_id not in used, f"duplicate call id {call.call_id!r}"
            used.add(call.call_id)
            opened[call.call_id] = call.name
        before = message.role
    assert not opened, f"these calls have no result: {sorted(opened)}"
    assert before in {"user", "tool"}, f"the last message is of the role {before!r}"


def _check_role(message: Message, before: str, opened: dict[str, str]) -> None:
    where = f"{message.role} message {message.message_id!r} behind {before!r}"
    if message.role == "tool":
        assert opened, f"{where}: no call is open"
        return
    assert not opened, f"{where}: these calls wait for results: {sorted(opened)}"
    allowed = {
        "system": {"system"},
        "user": {"system", "user", "assistant", "tool"},
        "assistant": {"user", "tool"},
    }
    assert before in allowed[message.role], where


def _check_parts(message: Message) -> None:
    kinds = {
        "system": (TextPart,),
        "user": (TextPart, ImagePart, FilePart),
        "assistant": (TextPart, ThinkingPart, OpaquePart, ToolCall),
        "tool": (ToolResult,),
    }[message.role]
    assert all(isinstance(part, kinds) for part in message.parts), f"{message.role} message {message.message_id!r}: {message.parts}"
    if message.role == "user":
        assert any(not isinstance(part, TextPart) or part.text.strip() for part in message.parts), f"{message.message_id!r} is empty"
    if message.role == "tool":
        assert 1 == len(message.parts), f"the tool message {message.message_id!r} has {len(message.parts)} results"

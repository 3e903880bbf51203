"""What a command does, with the sessions alone: the same for a socket and for a POST."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, assert_never

import attrs

from trio_sagents import (
    JSON,
    AgentInfo,
    ConversationNotFound,
    SagentsError,
    Sessions,
    interrupt_to_dict,
    outcome_to_dict,
    row_to_dict,
)
from trio_sagents.web._visitor import Visitor
from trio_sagents.web._wire import (
    INTERNAL,
    CancelTurn,
    Dismiss,
    ErrorInfo,
    Invalid,
    ListAgents,
    ListConversations,
    ListWaiting,
    OfSessions,
    Post,
    ReadHistory,
    Resume,
    ShowAgent,
    TooMany,
    error_of,
    invalid,
    too_many,
)

T = TypeVar("T")
log: Final = logging.getLogger("trio_sagents.web")


async def carry_out(sessions: Sessions, visitor: Visitor, command: OfSessions) -> JSON:  # one return for each command
    """Carry out a command, and return its result.

    Raises:
        Invalid: a place in a list is not from an earlier page.
        SagentsError: the sessions refused it.

    Cancellation: as the method of `Sessions` that it calls.
    """
    scope = visitor.scope
    match command:
        case Post(conversation_id, message_id, message, overlap):
            receipt = await sessions.post(conversation_id, message, scope=scope, message_id=message_id, overlap=overlap)
            return {"message_id": receipt.message_id, "duplicate": receipt.duplicate}
        case CancelTurn(conversation_id, turn_id):
            outcome = await sessions.cancel_turn(conversation_id, scope=scope, turn_id=turn_id)
            return {"outcome": None if outcome is None else outcome_to_dict(outcome)}
        case Resume(conversation_id, decisions):
            receipt = await sessions.resume(conversation_id, decisions, scope=scope)
            return {"message_id": receipt.message_id, "duplicate": receipt.duplicate}
        case Dismiss(conversation_id, interrupt_id):
            await sessions.dismiss(conversation_id, scope=scope, interrupt_id=interrupt_id)
            return {}
        case ReadHistory(conversation_id, before, limit):
            history = await _page(lambda: sessions.history(conversation_id, scope=scope, before=before, limit=limit))
            return {"rows": [row_to_dict(row) for row in history.rows], "before": history.before}
        case ListConversations(after, limit):
            listed = await _page(lambda: sessions.conversations(scope=scope, after=after, limit=limit))
            items = [
                {
                    "conversation_id": item.conversation_id,
                    "title": item.title,
                    "message_count": item.message_count,
                    "updated_at": item.updated_at.isoformat(),
                }
                for item in listed.items
            ]
            return {"items": items, "after": listed.after}
        case ListWaiting(after, limit):
            waiting = await _page(lambda: sessions.waiting(scope=scope, after=after, limit=limit))
            found = [
                {"conversation_id": item.conversation_id, "title": item.title, "interrupt": interrupt_to_dict(item.interrupt)}
                for item in waiting.items
            ]
            return {"items": found, "after": waiting.after}
        case ListAgents():
            return {"agents": [agent_to_dict(info) for info in await sessions.list_running(scope=scope)]}
        case ShowAgent(conversation_id):
            if not visitor.may_debug:
                raise ConversationNotFound(conversation_id)
            info = await sessions.agent_info(conversation_id, scope=scope)
            return {"agent": {**agent_to_dict(info), "middleware": dict(info.middleware)}}
        case _:
            assert_never(command)


async def _page(read: Callable[[], Awaitable[T]]) -> T:
    try:
        return await read()
    except ValueError as exc:
        if isinstance(exc, SagentsError):
            raise
        raise Invalid("before and after must come from an earlier page of the same list") from exc


def agent_to_dict(info: AgentInfo) -> dict[str, object]:
    """Return a running agent as a new JSON object, without its middleware."""
    return {
        "agent_id": info.agent_id,
        "conversation_id": info.conversation_id,
        "status": info.status.value,
        "message_count": info.message_count,
        "queued": info.queued,
        "viewers": info.viewers,
        "interrupt": None if info.interrupt is None else interrupt_to_dict(info.interrupt),
        "started_at": info.started_at.isoformat(),
        "last_activity_at": info.last_activity_at.isoformat(),
    }


@attrs.frozen
class Done:
    """A command was carried out."""

    result: JSON


async def attempt(act: Callable[[], Awaitable[JSON]], what: str) -> Done | ErrorInfo:
    """Have a command carried out, and return its result, or what the page is told of its error.

    Args:
        act: carries it out.
        what: names the command, for the log.

    Cancellation: as `act`.
    """
    try:
        return Done(await act())
    except Invalid as exc:
        return invalid(str(exc))
    except TooMany as exc:
        return too_many(str(exc), None)
    except SagentsError as exc:
        return error_of(exc)
    except Exception:
        # The boundary of a command: an error of the host's own code, in its authorizer say, must not end the other commands of a page.
        log.exception("the command %s failed", what)
        return INTERNAL

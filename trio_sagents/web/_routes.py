"""The routes of a bridge: what a path and a method lead to, and which guards stand before it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sagents import Scope
from trio_sagents.web._commands import carry_out
from trio_sagents.web._events import stream_events
from trio_sagents.web._guards import Kind, csrf_token
from trio_sagents.web._http import Answer, Call, Handler, json_answer
from trio_sagents.web._request import Refused, WebRequest, not_found
from trio_sagents.web._wire import Invalid, OfSocket, command_of

PROTOCOL: Final = 1


@attrs.frozen
class Route:
    """A path, and what answers there. An encoder of another protocol is one more of these."""

    method: str
    path: str
    """Segments joined by "/"; one in braces takes any text: "conversations/{id}/events"."""
    kind: Kind
    """ "read" only reads; "stream" keeps a stream open; "write" changes something, and takes a JSON body."""
    handler: Handler

    def match(self, segments: Sequence[str]) -> Mapping[str, str] | None:
        """Return the texts of the segments in braces; None if the path is another one."""
        pattern = self.path.split("/")
        if len(pattern) != len(segments):
            return None
        found: dict[str, str] = {}
        for wanted, given in zip(pattern, segments, strict=True):
            if wanted.startswith("{"):
                found[wanted[1:-1]] = given
            elif wanted != given:
                return None
        return found


async def _session(call: Call) -> Answer:
    await trio.lowlevel.checkpoint()
    token = csrf_token(call.visitor.key, call.shared.secret)
    visitor = call.visitor
    return json_answer({"protocol": PROTOCOL, "viewer": visitor.viewer, "may_debug": visitor.may_debug, "csrf": token})


def _op(op: str) -> Handler:
    """Return a handler that carries out the command `op`, with the members of the body, or of the query."""

    async def handle(call: Call) -> Answer:
        given: dict[str, Scope] = dict(call.json()) if call.request.method == "POST" else _read_query(call.request)
        if "id" in call.parameters:
            given["conversation_id"] = call.parameters["id"]
        command = command_of({**given, "op": op})
        assert not isinstance(command, OfSocket)  # no route is about a socket
        return json_answer(await carry_out(call.shared.sessions, call.visitor, command))

    return handle


def _read_query(request: WebRequest) -> dict[str, Scope]:
    given: dict[str, Scope] = {name: value for name, value in request.query.items() if name in {"after", "before"} and value}
    if "limit" in request.query:
        limit = request.query["limit"]
        if not limit.isascii() or not limit.isdigit() or len(limit) > 6:
            raise Invalid("limit must be an integer")
        given["limit"] = int(limit)
    return given


ROUTES: Final[Sequence[Route]] = (
    Route("GET", "session", "read", _session),
    Route("GET", "conversations", "read", _op("conversations")),
    Route("GET", "waiting", "read", _op("waiting")),
    Route("GET", "agents", "read", _op("agents")),
    Route("GET", "conversations/{id}/history", "read", _op("history")),
    Route("GET", "conversations/{id}/events", "stream", stream_events),
    Route("POST", "conversations/{id}/messages", "write", _op("post")),
    Route("POST", "conversations/{id}/cancel", "write", _op("cancel")),
    Route("POST", "conversations/{id}/resume", "write", _op("resume")),
    Route("POST", "conversations/{id}/dismiss", "write", _op("dismiss")),
)


def _matches(request: WebRequest, routes: Sequence[Route]) -> Iterator[tuple[Route, Mapping[str, str]]]:
    for route in routes:
        parameters = route.match(request.segments)
        if parameters is not None:
            yield route, parameters


def find_route(request: WebRequest, routes: Sequence[Route]) -> tuple[Route, Mapping[str, str]]:
    """Return the route of a request, and the texts in its path.

    Raises:
        Refused: there is none, or it has another method.
    """
    found = list(_matches(request, routes))
    if not found:
        raise not_found()
    for route, parameters in found:
        if route.method == request.method:
            return route, parameters
    raise Refused(405, "Invalid", f"this route takes {' or '.join(sorted({route.method for route, _ in found}))}")

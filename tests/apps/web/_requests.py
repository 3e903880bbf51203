"""Requests to an ASGI application in the same process, on virtual time."""

import json
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from tests.apps.web._grammars import objects

ALICE: Mapping[str, str] = {"host": "localhost", "authorization": "Bearer alice", "content-type": "application/json"}


@attrs.define(eq=False)
class Answered:
    """A response, as far as it has come."""

    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    is_whole: bool = False
    grown: trio.Event = attrs.field(factory=trio.Event)

    @property
    def events(self) -> list[Any]:
        """The JSON objects of a stream."""
        return objects(self.body)

    @property
    def kinds(self) -> list[str]:
        """The types of the chunks or events, without news of the moment."""
        return [each["type"] for each in self.events if not each.get("transient") and each["type"] != "CUSTOM"]

    def json(self) -> Any:
        """The JSON object of a whole response."""
        return json.loads(self.body)

    async def until(self, text: str) -> None:
        """Wait until the body holds a text."""
        while text.encode() not in self.body:
            self.grown = trio.Event()
            await self.grown.wait()


async def ask(
    app: Any,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] = ALICE,
    answered: Answered | None = None,
    left: trio.Event | None = None,
) -> Answered:
    """Send a request, and return the answer when it is there. `answered` grows meanwhile; `left` is set to leave."""
    answered = Answered() if answered is None else answered
    sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    messages = [{"type": "http.request", "body": sent, "more_body": False}]

    async def receive() -> Any:
        if messages:
            await trio.lowlevel.checkpoint()
            return messages.pop()
        await (trio.Event() if left is None else left).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            answered.status = message["status"]
            answered.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answered.body += message.get("body", b"")
            answered.is_whole = not message.get("more_body", False)
        answered.grown.set()

    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    return answered


def chat(text: str | None, *history: Any, conversation_id: str = "c", message_id: str = "m-1") -> Any:
    """Return the body of a chat request of the AI SDK."""
    newest = [] if text is None else [{"id": message_id, "role": "user", "parts": [{"type": "text", "text": text}]}]
    return {"id": conversation_id, "messages": [*history, *newest], "trigger": "submit-message"}


def run(text: str | None, *history: Any, message_id: str = "m-1", resume: Any = None) -> Any:
    """Return the body of a run request of AG-UI."""
    newest = [] if text is None else [{"id": message_id, "role": "user", "content": text}]
    return {"threadId": "c", "runId": "run-1", "messages": [*history, *newest], **({} if resume is None else {"resume": resume})}

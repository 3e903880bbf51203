"""A provider on 127.0.0.1, scripted reply by reply: raw HTTP/1.1, so that a test says every byte and every break.

    async with open_provider() as provider:
        provider.replies.append(anthropic_reply(text("Hello")))
        model = AnthropicModel("claude", api_key="k", base_url=provider.url)       # OpenAIModel("gpt", provider.url + "/v1")

Replies are given in the order of the requests; `provider.respond`, where set, is asked instead. A step of a reply that is
not bytes is something that happens: `HANG`, `CLOSE`, `RESET`, or a `Gate` that the test opens.
"""

import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, TypeAlias

import attrs
import trio


class Break(Enum):
    """What a server may do instead of going on."""

    HANG = "say nothing more, until the client leaves"
    CLOSE = "close the connection in order, in the middle"
    RESET = "reset the connection"


HANG, CLOSE, RESET = Break.HANG, Break.CLOSE, Break.RESET


@attrs.define(eq=False)
class Gate:
    """A point in a reply where the server says that it is there, and waits."""

    reached: trio.Event = attrs.field(factory=trio.Event)
    go_on: trio.Event = attrs.field(factory=trio.Event)


Step: TypeAlias = bytes | Break | Gate


@attrs.frozen
class Reply:
    """One answer of the server."""

    steps: Sequence[Step] = ()
    """The body, each bytes one chunk of it; a break or a gate may stand anywhere."""
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=lambda: {"content-type": "text/event-stream; charset=utf-8"})
    before_headers: Sequence[Step] = ()
    """What happens before the status line; bytes are sent as they are."""
    is_chunked: bool = True
    """False: the body has no length, and ends with the connection."""

    def split(self, size: int) -> "Reply":
        """Return the reply with its whole body cut into chunks of `size` bytes, whatever they cut through."""
        body = b"".join(step for step in self.steps if isinstance(step, bytes))
        rest = [step for step in self.steps if not isinstance(step, bytes)]
        return attrs.evolve(self, steps=[*(body[at : at + size] for at in range(0, len(body), size)), *rest])

    def until(self, count: int, *steps: Step) -> "Reply":
        """Return the reply with its first `count` steps, and then these."""
        return attrs.evolve(self, steps=[*self.steps[:count], *steps])


@attrs.define(eq=False)
class Exchange:
    """A request as it came, and how its answer went."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any
    """The parsed JSON."""
    connection: int
    """Which connection it came on, counted from 0."""
    finished: trio.Event = attrs.field(factory=trio.Event)
    """The answer was sent to its end."""
    disconnected: trio.Event = attrs.field(factory=trio.Event)
    """The client left before the answer's end."""


@attrs.define(eq=False)
class Provider:
    """The server, as a test sees it."""

    url: str
    replies: deque[Reply] = attrs.field(factory=deque)
    respond: Callable[[Exchange], Reply] | None = None
    exchanges: list[Exchange] = attrs.field(factory=list)
    """Every request, oldest first."""
    open_connections: int = 0
    connection_count: int = 0
    _arrival: trio.Event = attrs.field(factory=trio.Event)
    _departure: trio.Event = attrs.field(factory=trio.Event)

    @property
    def bodies(self) -> list[Any]:
        """The bodies of all requests, oldest first."""
        return [exchange.body for exchange in self.exchanges]

    async def exchange(self, index: int = 0) -> Exchange:
        """Return a request, once it has come."""
        while len(self.exchanges) <= index:
            await self._arrival.wait()
        return self.exchanges[index]

    async def wait_no_connections(self) -> None:
        """Return when no client is connected."""
        while self.open_connections:
            await self._departure.wait()

    def _reply_to(self, exchange: Exchange) -> Reply:
        self.exchanges.append(exchange)
        self._arrival.set()
        self._arrival = trio.Event()
        if self.respond is not None:
            return self.respond(exchange)
        if self.replies:
            return self.replies.popleft()
        return error_reply(400, {"error": {"type": "invalid_request_error", "message": "the test scripted no reply for this request"}})

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection, until the client leaves or a reply ends it."""
        number, self.connection_count = self.connection_count, self.connection_count + 1
        self.open_connections += 1
        try:
            async with trio.open_nursery() as nursery:
                send, receive = trio.open_memory_channel[bytes](1000)
                current: list[Exchange] = []
                nursery.start_soon(_read_until_gone, stream, send, current, nursery.cancel_scope)
                await self._answer_requests(stream, receive, current, number)
                nursery.cancel_scope.cancel()
        finally:
            self.open_connections -= 1
            self._departure.set()
            self._departure = trio.Event()
            with trio.move_on_after(1, shield=True):
                await stream.aclose()

    async def _answer_requests(
        self,
        stream: trio.SocketStream,
        received: trio.MemoryReceiveChannel[bytes],
        current: list[Exchange],
        number: int,
    ) -> None:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                pending += await received.receive()
            head, _, pending = pending.partition(b"\r\n\r\n")
            start, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            while len(pending) < int(headers.get("content-length", 0)):
                pending += await received.receive()
            length = int(headers.get("content-length", 0))
            body, pending = pending[:length], pending[length:]
            method, path, _ = start.split(" ")
            exchange = Exchange(method, path, headers, json.loads(body) if body else None, number)
            current[:] = [exchange]
            is_alive = await _send_reply(stream, self._reply_to(exchange))
            current.clear()
            exchange.finished.set()
            if not is_alive:
                return


async def _read_until_gone(
    stream: trio.SocketStream,
    send: trio.MemorySendChannel[bytes],
    current: list[Exchange],
    scope: trio.CancelScope,
) -> None:
    try:
        while data := await stream.receive_some(65536):
            await send.send(data)
    except trio.BrokenResourceError:
        pass
    for exchange in current:
        exchange.disconnected.set()
    scope.cancel()


async def _send_reply(stream: trio.SocketStream, reply: Reply) -> bool:
    """Send it all; return whether the connection can go on."""
    try:
        for step in reply.before_headers:
            if not await _do_step(stream, step, is_chunked=False):
                return False
        fields = {**reply.headers, "transfer-encoding": "chunked"} if reply.is_chunked else {**reply.headers, "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await stream.send_all(f"HTTP/1.1 {reply.status} Scripted\r\n{head}\r\n".encode())
        for step in reply.steps:
            if not await _do_step(stream, step, is_chunked=reply.is_chunked):
                return False
        if reply.is_chunked:
            await stream.send_all(b"0\r\n\r\n")
    except trio.BrokenResourceError:
        await trio.sleep_forever()  # the reader sees it, too, and ends the connection
    return reply.is_chunked


async def _do_step(stream: trio.SocketStream, step: Step, *, is_chunked: bool) -> bool:
    match step:
        case bytes():
            if step:
                await stream.send_all(b"%x\r\n%b\r\n" % (len(step), step) if is_chunked else step)
        case Gate():
            step.reached.set()
            await step.go_on.wait()
        case Break.HANG:
            await trio.sleep_forever()
        case Break.CLOSE:
            return False
        case Break.RESET:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
    return True


@asynccontextmanager
async def open_provider(*replies: Reply) -> AsyncIterator[Provider]:
    """Serve on a free port of 127.0.0.1; leaving ends every connection."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listeners[0].socket.getsockname()
    provider = Provider(f"http://127.0.0.1:{address[1]}", deque(replies))
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, provider.serve, listeners)
        try:
            yield provider
        finally:
            nursery.cancel_scope.cancel()


def error_reply(status: int, body: Any, **headers: str) -> Reply:
    """Return an error with a JSON body; underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([json.dumps(body).encode()], status, {"content-type": "application/json", **named})


def sse(data: Any, name: str | None = None) -> bytes:
    """Return one event as it goes over the wire."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


# ── Anthropic ────────────────────────────────────────────────────────────────────────────────────────────────────────

Block: TypeAlias = tuple[dict[str, Any], Sequence[dict[str, Any]]]
"""What a content block begins with, and its deltas."""


def text(*pieces: str) -> Block:
    """Return a text block."""
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]


def thinking(*pieces: str, signature: str = "c2ln") -> Block:
    """Return a thinking block with its signature."""
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, {"type": "signature_delta", "signature": signature}]


def tool_use(call_id: str, name: str, *pieces: str) -> Block:
    """Return a tool call whose arguments come in these pieces of JSON."""
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return {"type": "tool_use", "id": call_id, "name": name, "input": {}}, deltas


def anthropic_events(
    *blocks: Block,
    stop_reason: str = "end_turn",
    usage: Mapping[str, int] | None = None,
    output_tokens: int = 7,
) -> list[bytes]:
    """Return the events of one answer, in the API's own order, a ping among them."""
    counts = {"input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1, **(usage or {})}
    message: dict[str, Any] = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counts,
    }
    events = [sse({"type": "message_start", "message": message}, "message_start")]
    for index, (start, deltas) in enumerate(blocks):
        events.append(sse({"type": "content_block_start", "index": index, "content_block": start}, "content_block_start"))
        if index == 0:
            events.append(sse({"type": "ping"}, "ping"))
        events += [sse({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta") for delta in deltas]
        events.append(sse({"type": "content_block_stop", "index": index}, "content_block_stop"))
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    events.append(sse({"type": "message_delta", "delta": delta, "usage": {"output_tokens": output_tokens}}, "message_delta"))
    return [*events, sse({"type": "message_stop"}, "message_stop")]


def anthropic_reply(*blocks: Block, **how: Any) -> Reply:
    """Return a whole answer of Anthropic's Messages API; arguments as of `anthropic_events`."""
    return Reply(anthropic_events(*blocks, **how))


def anthropic_error(kind: str, message: str) -> dict[str, Any]:
    """Return the body of an error, as with a status and as in an error event."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_01"}


# ── OpenAI ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def call_deltas(index: int, call_id: str, name: str, *pieces: str) -> list[dict[str, Any]]:
    """Return the deltas of a tool call whose arguments come in these pieces of JSON."""
    first = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
    return [{"tool_calls": [piece]} for piece in (first, *rest)]


def openai_events(
    *deltas: Mapping[str, Any],
    finish_reason: str | None = "stop",
    usage: Mapping[str, Any] | None = None,
    done: bool = True,
) -> list[bytes]:
    """Return the events of one answer: the role, the deltas, the finish, the usage, and the closing mark."""

    def chunk(choices: Iterable[Any], **more: Any) -> bytes:
        return sse({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt", "choices": list(choices), **more})

    every = [{"role": "assistant", "content": ""}, *deltas]
    events = [chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}], usage=None) for delta in every]
    if finish_reason is not None:
        events.append(chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish_reason}], usage=None))
    counts = usage or {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    events.append(chunk([], usage=dict(counts)))
    return [*events, *([sse("[DONE]")] if done else [])]


def openai_reply(*deltas: Mapping[str, Any], **how: Any) -> Reply:
    """Return a whole answer of the chat completions API; arguments as of `openai_events`."""
    return Reply(openai_events(*deltas, **how))

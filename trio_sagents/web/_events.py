"""Server-sent events: one conversation for simple clients."""

import functools
from collections.abc import Sequence

import trio

from trio_sagents import Channel, ConversationNotFound, Cursor, Envelope, SessionsClosed, Subscriber
from trio_sagents.web._http import Call
from trio_sagents.web._json import dumps
from trio_sagents.web._texts import EnvelopeTexts
from trio_sagents.web._wire import Ending, Invalid

EVENT_STREAM = "text/event-stream; charset=utf-8"
PING = b": ping\n\n"


def event_bytes(envelope: Envelope, texts: EnvelopeTexts) -> bytes:
    """Return an envelope as a server-sent event; its id is the cursor."""
    return f"id: {envelope.cursor}\ndata: {texts.text(envelope)}\n\n".encode()


def bye_bytes(ending: Ending) -> bytes:
    """Return the last event of a stream."""
    retry = "" if ending.retry_after is None else f"retry: {int(ending.retry_after * 1000)}\n"
    return f"event: bye\n{retry}data: {dumps(ending.to_dict())}\n\n".encode()


async def stream_events(call: Call) -> None:
    """Stream the events of a conversation until the client has gone.

    Raises:
        Invalid: the cursor, the channel or the visibility is wrong.
        SagentsError: the conversation cannot be watched.

    Cancellation: the viewer leaves after the grace.
    """
    query, conversation_id = call.request.query, call.parameters["id"]
    channel: Channel = "debug" if query.get("channel") == "debug" else "main"
    if query.get("channel", channel) != channel or query.get("visible", "1") not in {"0", "1"}:
        raise Invalid('channel must be "main" or "debug", and visible 0 or 1')
    try:
        after = Cursor.of(call.request.headers.get("last-event-id") or query.get("after") or None)
    except ValueError:
        raise Invalid("Last-Event-ID, or after, is not the cursor of an event") from None
    if channel == "debug" and not call.visitor.may_debug:
        raise ConversationNotFound(conversation_id)
    async with call.shared.sessions.open_subscriber(scope=call.visitor.scope) as subscriber:
        if channel == "main":
            await call.shared.sessions.ensure_running(conversation_id, subscriber, after=after)
        else:
            await subscriber.subscribe(conversation_id, channel=channel, after=after)
        call.on_end = bye_bytes
        await call.start(EVENT_STREAM)
        if channel == "debug" or query.get("visible") == "0":
            await _send_all(call, subscriber)
            return
        viewer, viewers = call.visitor.viewer, call.shared.viewers
        viewers.enter(viewer, conversation_id)
        call.when_gone.append(functools.partial(viewers.linger, viewer, [conversation_id]))
        await _send_all(call, subscriber)


async def _send_all(call: Call, subscriber: Subscriber) -> None:
    policy = call.shared.policy
    batches = subscriber.batches()
    while True:
        batch: Sequence[Envelope] = ()
        with trio.move_on_after(policy.ping_interval):
            try:
                # Cancellation: a batch is taken, or it is not.
                batch = await anext(batches)
            except SessionsClosed:
                call.connection.end(Ending("shutdown", 1012, policy.retry_after))
                await trio.lowlevel.checkpoint()
                return
        if not batch:
            await call.write(PING)
        else:
            await call.write(b"".join(event_bytes(envelope, call.shared.texts) for envelope in batch))
            await call.shared.connections.pause()

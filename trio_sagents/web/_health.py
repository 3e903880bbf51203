"""What a load balancer and a service manager ask: is this process alive, and may requests be sent to it?"""

import trio

from trio_sagents import Sessions
from trio_sagents.web._asgi import App, Message, Receive, Send


def with_health(app: App, sessions: Sessions) -> App:
    """Return an application that answers GET `/live` and GET `/ready`, and hands everything else to `app`.

    Anybody may ask, under any host name, and hears nothing but one bit. `/live` is 200 as long as the process answers: if no answer comes,
    the process should be restarted. `/ready` is 200 if `Sessions.ready()`, and 503 otherwise: then no new requests should be sent here, and
    the process should be left alone.

    Args:
        app: the bridge, or what is around it.
        sessions: those of the bridge.
    """

    async def health(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"} or scope["path"] not in {"/live", "/ready"}:
            await app(scope, receive, send)
            return
        await trio.lowlevel.checkpoint()
        is_well = scope["path"] == "/live" or sessions.ready()
        body = b"ok\n" if is_well else b"not ready\n"
        headers = [(b"content-type", b"text/plain"), (b"cache-control", b"no-store"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200 if is_well else 503, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return health

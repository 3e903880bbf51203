"""Logging in without accounts: a link that can be used once, for the person who sees the terminal."""

import hmac
import secrets
from collections.abc import Callable

import attrs

from trio_sagents import Scope
from trio_sagents.web._asgi import App, Message, Receive, Send
from trio_sagents.web._guards import check_host
from trio_sagents.web._http import SAFE_HEADERS, Answer, refused_answer, send_answer
from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._request import Refused, WebRequest, read_request
from trio_sagents.web._visitor import Visitor


def _ignore(_link: str) -> None:
    pass


@attrs.define(eq=False)
class LinkLogin:
    """Lets in whoever has a link that can be used once: for a server on one's own machine.

    Give `authenticate` to the bridge, and serve `wrap(bridge)`. `path` is the link, below the address of the server.
    """

    scope: Scope = attrs.field(default=None, repr=False)
    """What the sessions get as the scope of every call."""
    viewer: str = attrs.field(default="me", kw_only=True)
    """The name that is shown among the viewers."""
    may_debug: bool = attrs.field(default=False, kw_only=True)
    cookie: str = attrs.field(default="trio_sagents", kw_only=True)
    """The name of the cookie. Browsers do not tell the ports of one host apart, so put the port into the name."""
    on_used: Callable[[str], None] = attrs.field(default=_ignore, kw_only=True, repr=False)
    """Called with the path of a new link when the link was used: another browser needs another one."""
    _token: str = attrs.field(factory=secrets.token_urlsafe, init=False, repr=False)
    _sessions: set[str] = attrs.field(factory=set, init=False, repr=False)

    @property
    def path(self) -> str:
        """The path and query of the link that can be used next."""
        return f"/login?token={self._token}"

    def authenticate(self, request: WebRequest) -> Visitor | None:
        """Return the visitor if the request has the cookie of a login; None if not."""
        given = request.cookies.get(self.cookie, "").encode("latin-1", "replace")
        if any([hmac.compare_digest(given, known.encode()) for known in self._sessions]):  # noqa: C419  # always the same time
            return Visitor(self.scope, "link", viewer=self.viewer, may_debug=self.may_debug)
        return None

    def wrap(self, app: App, policy: WebPolicy) -> App:
        """Return an application that answers the link, and hands everything else to `app`.

        Args:
            app: the bridge.
            policy: that of the bridge.
        """

        async def with_login(scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] != "/login":
                await app(scope, receive, send)
                return
            try:
                request = read_request(scope)
                check_host(request, policy)
                answer = self._log_in(request)
            except Refused as exc:
                answer = refused_answer(exc)
            await send_answer(send, answer, policy.send_timeout)

        return with_login

    def _log_in(self, request: WebRequest) -> Answer:
        given = request.query.get("token", "").encode("utf-8", "replace")
        if request.method != "GET" or not hmac.compare_digest(given, self._token.encode()):
            raise Refused(403, "Forbidden", "this link was used before, or is not one; the terminal shows another one")
        self._token = secrets.token_urlsafe()
        session = secrets.token_urlsafe()
        self._sessions.add(session)
        self.on_used(self.path)
        secure = "; Secure" if request.scheme == "https" else ""
        cookie = f"{self.cookie}={session}; HttpOnly; SameSite=Strict; Path=/{secure}"
        headers = (*SAFE_HEADERS, ("cache-control", "no-store"), ("set-cookie", cookie), ("location", "/"))
        return Answer(303, "text/plain", b"", headers)

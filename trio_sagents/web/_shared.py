"""What all requests of a bridge share."""

import attrs

from trio_sagents import Sessions
from trio_sagents.web._connections import Connections
from trio_sagents.web._guards import Kind, check_csrf, check_json, check_origin
from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._request import WebRequest
from trio_sagents.web._texts import EnvelopeTexts
from trio_sagents.web._viewers import Viewers
from trio_sagents.web._visitor import Authenticate, Visitor


@attrs.frozen(eq=False)
class Shared:
    """The parts of a bridge."""

    sessions: Sessions
    authenticate: Authenticate
    policy: WebPolicy
    secret: bytes = attrs.field(repr=False)
    """Makes the CSRF tokens."""
    connections: Connections
    viewers: Viewers
    texts: EnvelopeTexts = attrs.field(factory=EnvelopeTexts)

    async def let_in(self, request: WebRequest, kind: Kind) -> Visitor:
        """Let a request in whose Host and route are known, and return who it comes from.

        The caller awaits nothing between this and `Connections.admit`: a visitor that was revoked in between would get in.

        Raises:
            Refused: a guard, or `authenticate`, has said no; or the bridge is closed.

        Cancellation: nothing is changed.
        """
        self.connections.check_open()
        check_origin(request, self.policy, kind)
        if kind == "write":
            check_json(request)
        visitor = await self.connections.identify(self.authenticate, request)
        if kind == "write":
            check_csrf(request, visitor.key, self.secret)
        return visitor

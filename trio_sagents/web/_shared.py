"""What all requests of a bridge share."""

import attrs

from trio_sagents import Sessions
from trio_sagents.web._connections import Connections
from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._texts import EnvelopeTexts
from trio_sagents.web._viewers import Viewers
from trio_sagents.web._visitor import Authenticate


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

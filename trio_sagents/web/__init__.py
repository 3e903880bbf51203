"""Conversations on the web: a bridge from `Sessions` to pages, with public names only.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _asgi            the types of ASGI
    _policy          the limits of a bridge
    _request         a request as plain data
    _visitor         who is there
    _guards          what is looked at before anything else is done
    _json            JSON in and out, strictly
    _wire            commands from JSON to values, and errors to JSON
    _commands        what a command does
    _prices          what model calls cost
    _texts           the JSON texts of envelopes
    _viewers         presence: one entry per person and conversation
    _connections     what is open, and how it ends before its time
    _shared          what all requests share
    _http            one HTTP request
    _static          the files of the page
    _lanes           the order of the commands of one socket
    _rate            how often something may happen
    _socket          one WebSocket
    _events          server-sent events
    _routes          what a path leads to
    _bridge          the ASGI application
    _quart           the bridge as a blueprint of quart-trio
    _health          what a load balancer asks
    _login           logging in by a link that can be used once
    _moves           what a client of a foreign protocol is told of a turn
    _told            what a client was told of messages and calls
    _relay           from events to what a client has to be told next
    _answers         what clients answer about calls that wait
    _frames          what both encoders write
    _vercel          the UI message stream of the Vercel AI SDK
    _ag_ui           AG-UI
    _turn_stream     one response: the events of one turn
    _turn_routes     what the routes of both protocols share
    _ui_messages     the transcript as UI messages
    _vercel_routes   routes for the Vercel AI SDK
    _ag_ui_routes    routes for AG-UI

The wire protocol is in `docs/reference/web-protocol.md`.
"""

from trio_sagents.web._ag_ui_routes import AgUiRoutes
from trio_sagents.web._bridge import Bridge
from trio_sagents.web._health import with_health
from trio_sagents.web._login import LinkLogin
from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._quart import blueprint
from trio_sagents.web._request import WebRequest
from trio_sagents.web._vercel_routes import VercelRoutes
from trio_sagents.web._visitor import Visitor

__all__ = ("AgUiRoutes", "Bridge", "LinkLogin", "VercelRoutes", "Visitor", "WebPolicy", "WebRequest", "blueprint", "with_health")

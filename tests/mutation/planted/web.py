"""Bugs in the web bridge: its guards, its limits, what it keeps apart, and what it leaves behind."""

from typing import Final

from tests.support.planting import PlantedBug

_MATRIX: Final = ("apps/web/test_security.py::test_attacks",)

WEB: Final = (
    # ── guards
    PlantedBug("any host is answered", "web/_guards.py", "check_host", "(host not in known and name not in known)", "False", _MATRIX),
    PlantedBug("a host is compared by its beginning", "web/_guards.py", "check_host", "name not in known", "not name.startswith(tuple(known))", _MATRIX),
    PlantedBug("an origin is compared by its beginning", "web/_guards.py", "check_origin", "origin != own", "not origin.startswith(own)", _MATRIX),
    PlantedBug("an origin is compared in lower case", "web/_guards.py", "check_origin", "origin != own", "origin.lower() != own", _MATRIX),
    PlantedBug("a bearer token stands for an origin", "web/_guards.py", "check_origin", "if origin is not None:", "if origin is not None and request.bearer is None:", _MATRIX),
    PlantedBug("the origin null is none", "web/_guards.py", "check_origin", "if origin is not None:", 'if origin not in {None, "null"}:', _MATRIX),
    PlantedBug("no origin will do for a socket", "web/_guards.py", "check_origin", 'kind in {"page", "read"}', 'kind in {"page", "read", "socket"}', _MATRIX),
    PlantedBug("a browser's word is taken for a command", "web/_guards.py", "check_origin", 'kind == "stream" and', "", _MATRIX),
    PlantedBug("a site next door is the same site", "web/_guards.py", "check_origin", '== "same-origin"', 'in {"same-origin", "same-site"}', _MATRIX),
    PlantedBug("a form is a command", "web/_guards.py", "check_json", '!= "application/json"', '== "text/plain"', _MATRIX),
    PlantedBug("one CSRF token is good for all", "web/_guards.py", "csrf_token", "+ key.encode()", '+ b""', _MATRIX),
    PlantedBug("a command needs no CSRF token", "web/_shared.py", "Shared.let_in", "check_csrf(request, visitor.key, self.secret)", "pass", _MATRIX),
    PlantedBug("a header that comes twice is joined", "web/_request.py", "_headers", "elif name in _SINGLE:", "elif False:", ("apps/web/test_security.py::test_header_when_it_comes_twice",)),
    PlantedBug("an expired visitor comes in", "web/_visitor.py", "visitor_of", "if found.deadline <= trio.current_time():", "if False:", _MATRIX),
    PlantedBug("a slash of an id is a slash of the path", "web/_request.py", "_segments", "raw is not None and is_usable", "False", ("apps/web/test_bridge.py::test_post_by_http",)),
    # ── rights
    PlantedBug("everybody may debug", "web/_socket.py", "Socket._subscribe", 'channel == "debug" and not self.connection.visitor.may_debug', "False", ("apps/web/test_bridge.py::test_debug_channel",)),
    PlantedBug("everybody may debug by an event stream", "web/_events.py", "stream_events", 'channel == "debug" and not call.visitor.may_debug', "False", ("apps/web/test_bridge.py::test_debug_channel",)),
    PlantedBug("everybody sees what an agent is made of", "web/_commands.py", "carry_out", "if not visitor.may_debug:", "if False:", ("apps/web/test_bridge.py::test_debug_channel",)),
    PlantedBug("viewers of a foreign conversation are told", "web/_socket.py", "Socket._viewers_frame", 'if state != "subscribed":', "if False:", ("apps/web/test_security.py::test_refusal_of_another_tenant",)),
    PlantedBug("a viewer is present where it may not look", "web/_socket.py", "Socket.show_presence", 'and state == "subscribed" ', "", ("apps/web/test_security.py::test_refusal_of_another_tenant",)),
    PlantedBug("what a revoked visitor has sent is carried out", "web/_connections.py", "Connection.end", "self.scope.cancel()", "pass", ("apps/web/test_security.py::test_revoke",)),
    PlantedBug("who is revoked while it is asked who comes gets in", "web/_connections.py", "Connections.identify", "if visitor.key in arrival.revoked:", "if False:", ("apps/web/test_security.py::test_revoke_when_it_is_being_asked_who_comes",)),
    PlantedBug("a visitor expires only when it comes back", "web/_connections.py", "Connections.admit", "connection.scope.deadline = visitor.deadline", "pass", ("apps/web/test_security.py::test_expiry",)),
    # ── limits
    PlantedBug("a visitor has any number of connections", "web/_connections.py", "Connections.admit", " or len(own) >= self._policy.connections_per_scope", "", ("apps/web/test_security.py::test_limits_of_connections",)),
    PlantedBug("a frame is measured in characters", "web/_socket.py", "Socket._take", 'len(text.encode("utf-8", "surrogatepass")) > limit', "False", ("apps/web/test_security.py::test_limits_of_frames",)),
    PlantedBug("a body without a length has none", "web/_http.py", "read_body", "if len(body) > policy.max_body_bytes:", "if False:", ("apps/web/test_security.py::test_bodies",)),
    PlantedBug("a body may take for ever", "web/_http.py", "read_body", "trio.move_on_after(policy.body_timeout)", "trio.move_on_after(1e9)", ("apps/web/test_security.py::test_body_when_it_does_not_come",)),
    PlantedBug("a page may send any number of frames", "web/_rate.py", "Rate.allows", "if self._left < cost:", "if False:", ("apps/web/test_security.py::test_limits_of_frames",)),
    PlantedBug("a page that says nothing stays", "web/_socket.py", "Socket._read_frames", "trio.move_on_after(policy.idle_timeout)", "trio.move_on_after(1e9)", ("apps/web/test_bridge.py::test_pings",)),
    PlantedBug("a page that does not read stays", "web/_socket.py", "Socket._send_in_time", "self.connection.end(SLOW)", "pass", ("apps/web/test_security.py::test_page_that_does_not_read",)),
    # ── what happens once, in order, and to the end
    PlantedBug("commands overtake each other", "web/_socket.py", "Socket._take", "lane = None if", "lane = None if True or", ("apps/web/test_bridge.py::test_commands_when_sent_at_once",)),
    PlantedBug("a late Stop hits the next turn", "web/_commands.py", "carry_out", "scope=scope, turn_id=turn_id)", "scope=scope)", ("apps/web/test_bridge.py::test_cancel_when_the_turn_is_named",)),
    PlantedBug("a late acknowledgement hits the next halt", "web/_commands.py", "carry_out", "scope=scope, interrupt_id=interrupt_id)", "scope=scope)", ("apps/web/test_bridge.py::test_dismiss_when_it_is_retried",)),
    PlantedBug("an event stream does not go on where it was", "web/_events.py", "stream_events", "subscriber, after=after)", "subscriber)", ("apps/web/test_cuts.py::test_cuts_in_one_answer[stream-0]",)),
    PlantedBug("a stream that was cut looks whole", "web/_http.py", "_finish", 'raise ConnectionError("the stream was ended before it was whole")', 'last = b""', ("apps/web/test_handlers.py::test_stream_when_it_is_whole",)),
    PlantedBug("a page that goes takes its commands with it", "web/_socket.py", "Socket._run", "trio.current_time() + self.shared.policy.command_grace", "trio.current_time()", ("apps/web/test_leaving.py::test_command_when_the_page_goes",)),
    PlantedBug("a stream has two ends", "web/_turn_stream.py", "TurnStream.last_words", 'if self._end == "written":', "if False:", ("apps/web/test_turn_routes.py::test_response_when_it_is_ended_behind_its_end",)),
    PlantedBug("a stream has two ends if the first may not have been sent", "web/_turn_stream.py", "TurnStream.last_words", 'None if self._end == "broken" or self.relay.is_over else', "", ("apps/web/test_turn_routes.py::test_response_when_it_is_ended_while_its_end_is_sent",)),
    PlantedBug("a call has its result before its sub-agent has ended", "web/_relay.py", "TurnRelay._end_call", "if call_id in self._sub_agents:", "if False:", ("apps/web/test_streams.py::test_sub_agent_when_its_channel_is_behind",)),
    PlantedBug("a sub-agent begins behind the result of its call", "web/_relay.py", "TurnRelay._of_sub_agent", "if self._told.has_ended(event.sub_agent_id):", "if False:", ("apps/web/test_streams.py::test_sub_agent_when_its_channel_is_behind",)),
    # ── presence, and the end
    PlantedBug("two tabs are two viewers", "web/_viewers.py", "Viewers.enter", "if held is None:", "if True:", ("apps/web/test_leaving.py::test_presence_of_two_tabs",)),
    PlantedBug("a reload is leaving", "web/_viewers.py", "Viewers.linger", "self._grace if wait.keys and not self._is_closed else 0", "0", ("apps/web/test_leaving.py::test_presence_when_the_page_is_reloaded",)),
    PlantedBug("a hidden page keeps an agent up", "web/_socket.py", "Socket.show_presence", " and self.is_visible", "", ("apps/web/test_leaving.py::test_presence_of_a_hidden_tab",)),
    PlantedBug("who has gone stays present", "web/_viewers.py", "Viewers._remove", "self._held.pop(key).entry.leave()", "self._held.pop(key)", ("apps/web/test_leaving.py::test_presence_of_two_tabs",)),
    PlantedBug("a shutdown waits for the graces", "web/_bridge.py", "Bridge.aclose", "shared.viewers.close()", "pass", ("apps/web/test_leaving.py::test_shutdown",)),
    PlantedBug("a shutdown cuts requests that are being answered", "web/_connections.py", "Connections.close", "if connection.is_stream:", "if True:", ("apps/web/test_leaving.py::test_shutdown_when_a_request_is_being_answered",)),
    PlantedBug("a link logs in twice", "web/_login.py", "LinkLogin._log_in", "self._token = secrets.token_urlsafe()", "pass", ("apps/web/test_serve.py::test_link_when_it_is_wrong",)),
    PlantedBug("any address is served without a login", "cli/_serve.py", "policy_of", "if options.auth is None:", "if False:", ("apps/web/test_serve.py::test_serve_when_it_refuses_to_start",)),
)  # fmt: skip

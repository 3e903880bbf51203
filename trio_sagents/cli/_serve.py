"""`trio-sagents serve`: the bridge and its pages on a server of its own, for the sessions that a module of the person describes."""

import functools
import importlib
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from trio_sagents import Scope, SessionConfig, Sessions, open_sessions
from trio_sagents.cli._models import UsageError
from trio_sagents.web import Bridge, LinkLogin, Visitor, WebPolicy, WebRequest, with_health
from trio_sagents.web._prices import PriceList, Prices

LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
MAX_PORT: Final = 65_535
GRACEFUL: Final = 3.0
"""How long the server waits for connections at the end; the bridge has ended its streams by then."""
HEADERS_TIMEOUT: Final = 10.0
"""How long a connection may be there without a request."""


@attrs.frozen(kw_only=True)
class ServeOptions:
    """The options of the command line."""

    target: str
    """module:name of a SessionConfig, or of a function that returns one."""
    host: str = "127.0.0.1"
    port: int = 8000
    auth: str | None = None
    """module:name of an `authenticate` function."""
    allowed_hosts: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()
    may_debug: bool = False
    prices: str | None = None
    """module:name of a table of prices, or of a function."""
    currency: str = "USD"


def load(target: str, option: str) -> Scope:
    """Return what "module:name" names; modules of the current folder are found.

    Raises:
        UsageError: there is no such module, or it has no such name.
    """
    module_name, separator, name = target.partition(":")
    if not separator or not module_name or not name:
        raise UsageError(f"{option} {target}: write it as module:name")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # an import inside the module failed
        raise UsageError(f"{option} {target}: there is no module {exc.name!r}, in the current folder or installed") from exc
    found: Scope = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{option} {target}: {module_name} has no {name!r}")
        found = getattr(found, part)
    return found


def load_config(target: str) -> SessionConfig:
    """Return the settings that "module:name" names.

    Raises:
        UsageError: it is neither a SessionConfig nor a function that returns one.
    """
    found = load(target, "CONFIG")
    if callable(found) and not isinstance(found, SessionConfig):
        found = found()
    if not isinstance(found, SessionConfig):
        raise UsageError(f"CONFIG {target}: it is a {type(found).__name__}, and must be a SessionConfig or a function that returns one")
    return found


def load_prices(options: ServeOptions) -> Prices | None:
    """Return the prices that `--prices` names; None without it.

    Raises:
        UsageError: they are neither a table nor a function, or the currency is none.
    """
    found = None if options.prices is None else load(options.prices, "--prices")
    try:
        return None if PriceList({} if found is None else found, options.currency).shown is None else found
    except (TypeError, ValueError) as exc:
        raise UsageError(f"--prices {options.prices} --currency {options.currency}: {exc}") from exc


async def _drain_node(sessions: Sessions, bridge: Bridge, tell: Callable[[str], None]) -> None:
    """Wait for SIGTERM or SIGINT, drain the node, and then end all streams. A second signal ends the wait for running turns."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(signals)
        tell("Draining: this node is not ready any more, and takes nothing; running turns may finish. Another signal cuts them.")
        async with trio.open_nursery() as nursery:

            async def heed_second() -> None:
                await anext(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(heed_second)
            await sessions.drain()
            nursery.cancel_scope.cancel()
    await bridge.aclose()


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def policy_of(options: ServeOptions) -> WebPolicy:
    """Return the limits of the bridge, with the names that it answers to.

    Raises:
        UsageError: the address is not a loopback address, and there is no `--auth`, or no `--allow-host`.
    """
    if is_loopback(options.host):
        named = f"[{options.host}]" if ":" in options.host and not options.host.startswith("[") else options.host
        return WebPolicy(hosts=(*LOCAL_HOSTS, named, *options.allowed_hosts), origins=options.allowed_origins)
    if options.auth is None:
        raise UsageError(
            f"--host {options.host}: other machines reach this address, so name a function that says who they are: --auth module:name"
        )
    if not options.allowed_hosts:
        raise UsageError(f"--host {options.host}: name the host names by which browsers reach this server: --allow-host chat.example.com")
    return WebPolicy(hosts=options.allowed_hosts, origins=options.allowed_origins)


async def run_serve(options: ServeOptions, tell: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: of the command line.
        tell: prints a line for the person.

    Raises:
        UsageError: an option cannot be used, or the address; nothing was started.

    Cancellation: the server has stopped, and every turn is settled.
    """
    policy = policy_of(options)
    config = load_config(options.target)
    auth = None if options.auth is None else load(options.auth, "--auth")
    if auth is not None and not callable(auth):
        raise UsageError(f"--auth {options.auth}: it is a {type(auth).__name__}, and must be a function")
    priced = load_prices(options)
    listener = _listen(options.host, options.port, policy.send_timeout)
    with listener, _log_to_terminal():
        port: int = listener.getsockname()[1]
        address = f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{port}"
        async with open_sessions(config) as sessions:
            if auth is None:
                login = LinkLogin(
                    may_debug=options.may_debug,
                    cookie=f"trio_sagents_{port}",
                    on_used=lambda path: tell(f"For another browser: {address}{path}"),
                )
                bridge = Bridge(sessions, authenticate=login.authenticate, policy=policy, prices=priced, currency=options.currency)
                app = login.wrap(bridge, policy)
                tell(f"Open this link to log in; it can be used once: {address}{login.path}")
            else:
                checked = _checked(auth, may_debug=options.may_debug)
                bridge = Bridge(sessions, authenticate=checked, policy=policy, prices=priced, currency=options.currency)
                app = bridge
                tell(f"Serving at {address}")
            # A node of a cluster finishes its turns while its viewers still watch: the load balancer sends nobody new meanwhile.
            trigger = bridge.wait_shutdown if config.cluster is None else functools.partial(_drain_node, sessions, bridge, tell)
            await serve(with_health(app, sessions), _server_config(listener, policy), shutdown_trigger=trigger)  # type: ignore[arg-type]  # hypercorn has its own types for ASGI
            tell("Stopped serving; running turns may finish. Ctrl-C again cuts them.")
    return 0


def _checked(auth: Callable[[WebRequest], Scope], *, may_debug: bool) -> Callable[[WebRequest], Scope]:
    """Return `auth`; without `--debug` nobody that it lets in may debug."""
    if may_debug:
        return auth

    async def authenticate(request: WebRequest) -> Scope:
        found = auth(request)
        if hasattr(found, "__await__"):
            found = await found
        else:
            await trio.lowlevel.checkpoint()
        return attrs.evolve(found, may_debug=False) if isinstance(found, Visitor) else found

    return authenticate


def _listen(host: str, port: int, user_timeout: float) -> socket.socket:
    """Return a listening socket; UsageError if the address cannot be used.

    The server's sends cannot be cancelled, so a client that never reads would hold its connection for ever. The system ends it: connections
    inherit the option from the listening socket.
    """
    if not 0 <= port <= MAX_PORT:  # the system takes a larger number for another port
        raise UsageError(f"--port {port}: a port is a number from 0 to {MAX_PORT}")
    try:
        return _bound(host.strip("[]"), port, user_timeout)
    except OSError as exc:
        raise UsageError(f"--host {host} --port {port}: cannot listen there ({exc.strerror}); --port 0 takes a free port") from exc


def _bound(host: str, port: int, user_timeout: float) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout * 1000))
        listener.bind(address)
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _server_config(listener: socket.socket, policy: WebPolicy) -> Config:
    config = Config()
    # A copy of the socket: the server closes what it is given.
    config.bind = [f"fd://{listener.dup().detach()}"]
    config.loglevel = "WARNING"
    config.graceful_timeout = GRACEFUL
    config.keep_alive_timeout = HEADERS_TIMEOUT
    config.websocket_max_message_size = policy.max_frame_bytes
    config.include_server_header = False
    return config


@contextmanager
def _log_to_terminal() -> Iterator[None]:
    """Have what the bridge says of its end on the terminal, with any configuration of logging."""
    log = logging.getLogger("trio_sagents.web")
    handler = logging.StreamHandler()
    known = log.level
    log.addHandler(handler)
    log.setLevel(min(known or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(known)

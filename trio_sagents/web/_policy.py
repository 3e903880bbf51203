"""The limits of a bridge."""

import math
from collections.abc import Sequence
from typing import Final

import attrs

from trio_sagents import JSON

LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")


def _seconds(_policy: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    name = f"WebPolicy.{attribute.name}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} must be >= 0 seconds, not {value!r}")


def _positive(_policy: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    _seconds(_policy, attribute, value)
    if value == 0:
        raise ValueError(f"WebPolicy.{attribute.name} must be > 0; math.inf disables it")


def _count(_policy: object, attribute: "attrs.Attribute[int]", value: object) -> None:
    name = f"WebPolicy.{attribute.name}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def _texts(_policy: object, attribute: "attrs.Attribute[Sequence[str]]", value: Sequence[object]) -> None:
    if not all(isinstance(item, str) for item in value):
        raise TypeError(f"WebPolicy.{attribute.name} must be a sequence of str")


def _tuple(value: Sequence[str]) -> Sequence[str]:
    if isinstance(value, str):
        raise TypeError(f"expected a sequence of str, not the str {value!r}; did you mean [{value!r}]?")
    return tuple(value)


@attrs.frozen(kw_only=True)
class WebPolicy:
    """What a bridge accepts, and how long it waits. Durations are in seconds, sizes in bytes."""

    hosts: Sequence[str] = attrs.field(default=LOCAL_HOSTS, converter=_tuple, validator=_texts)
    """The values of `Host` that the bridge answers to: "chat.example.com" with any port, "chat.example.com:8443" with this one. Any
    other value is refused, so that a foreign name that resolves to this server is of no use."""
    origins: Sequence[str] = attrs.field(default=(), converter=_tuple, validator=_texts)
    """Origins of pages that may use the bridge, beside the bridge's own, compared exactly: "https://chat.example.com". Behind a proxy
    that ends TLS, name the origin that the browser sees."""
    max_body_bytes: int = attrs.field(default=2 * 1024 * 1024, validator=_count)
    """The size of the body of a POST."""
    max_frame_bytes: int = attrs.field(default=2 * 1024 * 1024, validator=_count)
    """The size of a frame from the page. Give the server a limit that is not larger: it has read the frame before the bridge sees it."""
    frames_per_second: float = attrs.field(default=50.0, validator=_positive)
    """How many frames a page may send per second, on average."""
    frame_burst: int = attrs.field(default=200, validator=_count)
    """How many frames a page may send at once."""
    max_connections: int = attrs.field(default=10_000, validator=_count)
    """How many requests and sockets may be open at once."""
    connections_per_scope: int = attrs.field(default=64, validator=_count)
    """How many of them one visitor may have."""
    subscriptions_per_socket: int = attrs.field(default=100, validator=_count)
    """How many subscriptions one socket may have."""
    commands_per_socket: int = attrs.field(default=32, validator=_count)
    """How many commands of one socket may wait for their replies."""
    ping_interval: float = attrs.field(default=20.0, validator=_positive)
    """How often the server pings a page."""
    idle_timeout: float = attrs.field(default=60.0, validator=_positive)
    """After how long without any frame from the page its socket ends. Must be longer than `ping_interval`."""
    body_timeout: float = attrs.field(default=10.0, validator=_positive)
    """How long the body of a POST may take to come."""
    send_timeout: float = attrs.field(default=10.0, validator=_positive)
    """How long a page may take to read a frame; then its socket ends. What a slow page has not read meanwhile is bounded by
    `SessionPolicy.subscriber_events`."""
    event_interval: float = attrs.field(default=0.03, validator=_seconds)
    """The time between two frames of events to one page, at least. What happens in between is in one frame."""
    event_frames_per_second: float = attrs.field(default=1000.0, validator=_positive)
    """How many frames of events the bridge sends per second, to all pages together. If many pages watch running turns, each of them
    gets fewer frames, with more in each: what the pages cost must not slow the agents down."""
    presence_grace: float = attrs.field(default=3.0, validator=_seconds)
    """How long a viewer whose last page has gone stays present, so that reloading a page is not leaving."""
    command_grace: float = attrs.field(default=5.0, validator=_seconds)
    """How long commands that were received may still take after their page has gone."""
    close_timeout: float = attrs.field(default=2.0, validator=_positive)
    """How long `Bridge.aclose` waits for streams to end."""
    retry_after: float = attrs.field(default=1.0, validator=_seconds)
    """When a page is told to come back after a shutdown."""

    def __attrs_post_init__(self) -> None:
        if self.idle_timeout <= self.ping_interval and self.idle_timeout != math.inf:
            raise ValueError("WebPolicy.idle_timeout must be longer than ping_interval, or pages that answer every ping are cut")

    def shown(self) -> JSON:
        """Return what a page needs to know of the policy."""
        return {"ping_interval": self.ping_interval, "max_frame_bytes": self.max_frame_bytes}

"""Who is there: what `authenticate` says of a request."""

import datetime
import inspect
from collections.abc import Callable
from typing import TypeAlias

import attrs
import trio

from trio_sagents import Scope, check_id
from trio_sagents.web._request import Refused, WebRequest


def _key(_visitor: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    check_id(f"Visitor.{attribute.name}", value)


def _aware(_visitor: object, attribute: "attrs.Attribute[datetime.datetime | None]", value: object) -> None:
    if value is not None and (not isinstance(value, datetime.datetime) or value.tzinfo is None):
        raise TypeError(f"Visitor.{attribute.name} must be an aware datetime, or None")


@attrs.frozen
class Visitor:
    """Somebody who may use the bridge."""

    scope: Scope = attrs.field(repr=False)
    """What the sessions get as the scope of every call."""
    key: str = attrs.field(validator=_key)
    """Names the visitor: for `Bridge.revoke`, for the limits per visitor, and for the CSRF token. 1 to 256 bytes. All pages of one
    person have the same key, and two persons never do."""
    viewer: str = attrs.field(kw_only=True, default=attrs.Factory(lambda self: self.key, takes_self=True), validator=_key)
    """The name that others see among the viewers of a conversation. The default is the key."""
    expires_at: datetime.datetime | None = attrs.field(kw_only=True, default=None, validator=_aware)
    """When streams of this visitor end by themselves; None is never."""
    may_debug: bool = attrs.field(kw_only=True, default=False, validator=attrs.validators.instance_of(bool))
    """Whether the visitor may see the debug channel. The authorizer of the sessions is asked as well."""

    @property
    def deadline(self) -> float:
        """When it expires, on Trio's clock."""
        if self.expires_at is None:
            return float("inf")
        return trio.current_time() + (self.expires_at - datetime.datetime.now(datetime.UTC)).total_seconds()


Authenticate: TypeAlias = Callable[[WebRequest], Scope]
"""A function, async or not, from a request to a `Visitor`, to a scope that is a str or an int, or to None: nobody is logged in."""


async def visitor_of(authenticate: Authenticate, request: WebRequest) -> Visitor:
    """Ask who a request comes from.

    Raises:
        Refused: nobody is logged in, or the visitor has expired.
        TypeError: the host's function returned something else. What it raises leaves as it is.

    Cancellation: nothing is changed.
    """
    await trio.lowlevel.checkpoint()
    found: object = authenticate(request)
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, str | int) and not isinstance(found, bool):
        found = Visitor(found, str(found))
    if found is None:
        raise Refused(401, "Unauthorized", "log in first")
    if not isinstance(found, Visitor):
        raise TypeError(f"authenticate must return a Visitor, a str, an int or None, not {type(found).__name__}")
    if found.deadline <= trio.current_time():
        raise Refused(401, "Unauthorized", "the login has expired; log in again")
    return found

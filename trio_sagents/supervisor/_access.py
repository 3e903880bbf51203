"""Who may do what. The authorizer is asked at every entry; the owner is compared once more where the registry is read.

The functions of a host that run here (`authorize`, `owner_of`, `SameScope.key`, `actor_of`) may raise, and what they raise leaves as it
is. So they are called before a caller marks or reserves anything, or where whoever calls undoes its marks (see each call). What they
return is checked, and kept as a plain value: no object of a host gets into the registry or into a record.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import attrs

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.config import function_validator
from trio_sagents.data.messages import Poster
from trio_sagents.data.records import UNCHECKED, Owner, Unchecked
from trio_sagents.data.scopes import Action, Scope, UnknownScope
from trio_sagents.exceptions import ConversationNotFound
from trio_sagents.storage import Asker, same_owner

log: Final = logging.getLogger("trio_sagents")
_PLAIN: Final = frozenset({str, int, type(None)})


class Authorizer(Protocol):
    """Says who may do what. Asked at every entry, whether the agent is running or not, and again at every command of a handle.

    Optional: `def actor_of(self, scope) -> str | int | None`, synchronous: who that is, for the record of a decision. If it raises, the
    decision is refused, and nothing is done.

    Optional: `async def scope_of(self, actor, conversation_id) -> Scope`: the scope of whoever has that key, as `actor_of` gave it. It
    is asked when an agent starts in another process than that in which a message was posted, if the scope that starts the agent has
    another key. LookupError says that there is no such scope: the turn then has an `UnknownScope`. Any other error ends the start.

    Cancellation: the caller has gone; either it answers, or nothing was done.
    """

    async def authorize(self, scope: Scope, conversation_id: str, action: Action) -> bool:
        """Return whether `scope` may do `action`; a refused caller cannot tell the conversation from a missing one."""
        ...


def _as_it_is(scope: Scope) -> Owner:
    if isinstance(scope, bool) or not (scope is None or isinstance(scope, str | int)):
        raise TypeError(
            f"a scope is {type(scope).__name__}, and SameScope() has no key for it; "
            "give it one: SameScope(lambda scope: scope.user_id), which returns a str, an int or None"
        )
    return scope


@attrs.frozen
class SameScope:
    """The scope whose agent first stored a conversation owns it; nobody else can tell that it exists.

    Args:
        key: a function from a scope to what is stored of it: a str, an int or None. Without a function, a scope must be such a value.

    Cancellation: either it answers, or nothing was done.
    """

    key: Callable[[Scope], Owner] = attrs.field(default=_as_it_is, validator=function_validator())

    async def authorize(self, scope: Scope, conversation_id: str, action: Action) -> bool:
        """Return True: the owner is compared where it is known, in the registry and in the store."""
        return True

    def owner_of(self, scope: Scope) -> Owner:
        """Return the owner key of a scope; TypeError if it is not a str, an int or None."""
        return _plain_key(self.key(scope), "SameScope.key")


@attrs.frozen
class Access:
    """The authorizer, and the owners where it knows of them."""

    authorizer: Authorizer

    def owner_of(self, scope: Scope) -> Owner:
        """Return the owner key to store; None if the authorizer has no notion of owners."""
        if not isinstance(self.authorizer, SameScope):
            return None
        return _plain_key(self.authorizer.owner_of(scope), f"{type(self.authorizer).__name__}.owner_of")

    def actor_of(self, scope: Scope) -> Owner:
        """Return who that is, for the record of a decision: what the authorizer's `actor_of(scope)` returns, or the owner key.

        Whatever the host's function raises leaves as it is, so nothing may be marked or reserved yet.
        """
        if isinstance(scope, UnknownScope):
            return scope.actor
        name_of: Callable[[Scope], Owner] | None = getattr(self.authorizer, "actor_of", None)
        return self.owner_of(scope) if name_of is None else _plain_key(name_of(scope), f"{type(self.authorizer).__name__}.actor_of")

    def actor_on_record(self, scope: Scope, conversation_id: str) -> Owner:
        """Return who that is, for a record that nobody waits for: None if the host's function fails, which is logged."""
        if isinstance(scope, UnknownScope):
            return scope.actor
        try:
            return self.actor_of(scope)
        except Exception:  # the boundary to the host's authorizer: nobody waits for this, and the agent must not crash
            log.exception("actor_of failed in conversation %r; the record names nobody", conversation_id)
            return None

    @property
    def tells_apart(self) -> bool:
        """Whether two people who may post to a conversation can have different scopes: then messages say who posted them."""
        return not isinstance(self.authorizer, SameScope) or getattr(self.authorizer, "actor_of", None) is not None

    def poster_of(self, scope: Scope) -> Poster | None:
        """Return what is stored of whoever posts a message; None if nothing can be.

        Whatever the host's `actor_of` raises leaves as it is.
        """
        if not self.tells_apart:
            return None
        if isinstance(scope, UnknownScope):
            return Poster(scope.actor)
        is_plain = type(scope) in _PLAIN
        if getattr(self.authorizer, "actor_of", None) is None:
            return Poster(scope, is_scope=True) if is_plain else None
        key = self.actor_of(scope)
        return Poster(key, is_scope=is_plain and same_owner(scope, key))

    async def scope_of(self, poster: Poster | None, here: Scope, conversation_id: str) -> Scope:
        """Return the scope of whoever posted a message in an earlier process.

        Args:
            poster: as it was stored with the message.
            here: the scope that starts the agent: if it is of the same person, that is the scope.
            conversation_id: for the host.

        Raises: what the host's `scope_of` and `actor_of` raise, but for a LookupError.
        """
        if not self.tells_apart or (poster is not None and poster == self.poster_of(here) and (poster.is_scope or poster.key is not None)):
            return here
        if poster is None:
            return UnknownScope()
        if poster.is_scope:
            return poster.key
        scope_of: Callable[[Owner, str], Awaitable[Scope]] | None = getattr(self.authorizer, "scope_of", None)
        if scope_of is None:
            return UnknownScope(poster.key)
        try:
            return await await_host(scope_of, poster.key, conversation_id)
        except LookupError:
            return UnknownScope(poster.key)

    def asker(self, scope: Scope) -> Asker:
        """Return who asks the store."""
        owner: Owner | Unchecked = self.owner_of(scope) if isinstance(self.authorizer, SameScope) else UNCHECKED
        return Asker(scope, owner)

    def owns(self, scope: Scope, owner: Owner) -> bool:
        """Return whether `scope` has that owner key; True if owners are not compared. Synchronous: there is no window."""
        return not isinstance(self.authorizer, SameScope) or same_owner(self.owner_of(scope), owner)

    def sees(self, owner: Owner, other: Owner) -> bool:
        """Return whether two owner keys are the same; True if owners are not compared. No host code runs, so this cannot fail."""
        return not isinstance(self.authorizer, SameScope) or same_owner(owner, other)

    @property
    def is_synchronous(self) -> bool:
        """Whether the comparison of owners decides everything, so that nobody has to be asked."""
        return type(self.authorizer) is SameScope

    async def allows(self, scope: Scope, conversation_id: str, action: Action) -> bool:
        """Ask the authorizer. Whatever it raises leaves as it is; TypeError if it does not return a bool."""
        if self.is_synchronous:
            return True
        verdict = await await_host(self.authorizer.authorize, scope, conversation_id, action)
        if not isinstance(verdict, bool):
            raise TypeError(f"{type(self.authorizer).__name__}.authorize must return a bool, not {type(verdict).__name__}")
        return verdict

    async def require(self, scope: Scope, conversation_id: str, action: Action) -> None:
        """Ask the authorizer; ConversationNotFound if it refuses."""
        if not await self.allows(scope, conversation_id, action):
            raise ConversationNotFound(conversation_id)


def _plain_key(key: object, where: str) -> Owner:
    """Return what a host's function gave as a plain str, int or None, as a store gives it back; TypeError if that is impossible.

    Args:
        key: anything.
        where: the function, for the message.
    """
    if type(key) in _PLAIN:
        return key  # type: ignore[return-value]  # its type was just compared
    if inspect.iscoroutine(key):
        key.close()  # or Python warns that nobody awaited it
        raise TypeError(f"{where} must be a plain function, not `async def`")
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TypeError(f"{where} must return a str, an int or None, not {type(key).__name__}")
    # A StrEnum, say. The methods of the base class are called, for those of the host's class may return anything.
    return str.__str__(key) if isinstance(key, str) else int.__int__(key)

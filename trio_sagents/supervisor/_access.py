"""Who may do what. Asked at every entry, warm or cold; the owner is compared once more where the registry is read."""

from collections.abc import Callable
from typing import Protocol

import attrs

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.config import function_validator
from trio_sagents.data.records import UNCHECKED, Owner, Unchecked
from trio_sagents.data.scopes import Action, Scope
from trio_sagents.exceptions import ConversationNotFound
from trio_sagents.storage import Asker, same_owner


class Authorizer(Protocol):
    """Says who may do what. Asked at every entry, warm or cold, and again at every command of a handle.

    Optional: `def actor_of(self, scope) -> str | int | None`, synchronous: who that is, for the record of a decision.

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
        key: a function from a scope to what is stored of it: a str, an int or None. Without one, a scope must be such.

    Cancellation: either it answers, or nothing was done.
    """

    key: Callable[[Scope], Owner] = attrs.field(default=_as_it_is, validator=function_validator())

    async def authorize(self, scope: Scope, conversation_id: str, action: Action) -> bool:
        """Return True: who owns what is compared where it is known, in the registry and in the store."""
        return True

    def owner_of(self, scope: Scope) -> Owner:
        """Return the owner key of a scope; TypeError where it is none."""
        owner = self.key(scope)
        if owner is None or type(owner) in {str, int}:
            return owner
        if isinstance(owner, bool) or not isinstance(owner, str | int):
            raise TypeError(f"SameScope.key must return a str, an int or None, not {type(owner).__name__}")
        # A StrEnum, say: the plain value, for that is what a store gives back.
        return str.__str__(owner) if isinstance(owner, str) else int(owner)


@attrs.frozen
class Access:
    """The authorizer, and the owners where it knows of them."""

    authorizer: Authorizer

    def owner_of(self, scope: Scope) -> Owner:
        """Return the owner key to store; None where the authorizer has no notion of owners."""
        return self.authorizer.owner_of(scope) if isinstance(self.authorizer, SameScope) else None

    def actor_of(self, scope: Scope) -> Owner:
        """Return who that is, for the record of a decision: what the authorizer's `actor_of(scope)` says, or the owner key."""
        name_of: Callable[[Scope], Owner] | None = getattr(self.authorizer, "actor_of", None)
        actor = self.owner_of(scope) if name_of is None else name_of(scope)
        if isinstance(actor, bool) or not (actor is None or isinstance(actor, str | int)):
            raise TypeError(f"{type(self.authorizer).__name__}.actor_of must return a str, an int or None, not {type(actor).__name__}")
        return actor

    def asker(self, scope: Scope) -> Asker:
        """Return who asks the store."""
        owner: Owner | Unchecked = self.authorizer.owner_of(scope) if isinstance(self.authorizer, SameScope) else UNCHECKED
        return Asker(scope, owner)

    def owns(self, scope: Scope, owner: Owner) -> bool:
        """Return whether `scope` has that owner key; True where owners are not compared. Synchronous: no window."""
        return not isinstance(self.authorizer, SameScope) or same_owner(self.authorizer.owner_of(scope), owner)

    def sees(self, owner: Owner, other: Owner) -> bool:
        """Return whether an owner key taken before is that one; True where owners are not compared. Cannot fail."""
        return not isinstance(self.authorizer, SameScope) or same_owner(owner, other)

    @property
    def is_synchronous(self) -> bool:
        """Whether the owner says it all, so nobody has to be asked."""
        return type(self.authorizer) is SameScope

    async def allows(self, scope: Scope, conversation_id: str, action: Action) -> bool:
        """Ask the authorizer."""
        if self.is_synchronous:
            return True
        verdict = await await_host(self.authorizer.authorize, scope, conversation_id, action)
        if not isinstance(verdict, bool):
            raise TypeError(f"{type(self.authorizer).__name__}.authorize must return a bool, not {type(verdict).__name__}")
        return verdict

    async def require(self, scope: Scope, conversation_id: str, action: Action) -> None:
        """Ask the authorizer; ConversationNotFound where it refuses."""
        if not await self.allows(scope, conversation_id, action):
            raise ConversationNotFound(conversation_id)

"""Owners and actors: what a host's functions may return, and what is kept of it."""

import enum
from typing import Any

import pytest

from trio_sagents.data.messages import Poster
from trio_sagents.data.scopes import UnknownScope
from trio_sagents.supervisor import Access, SameScope


class Plain(enum.StrEnum):
    ALICE = "alice"


class Mixed(str, enum.Enum):  # noqa: UP042  # whose own str() is not its value
    ALICE = "alice"


class Number(enum.IntEnum):
    SEVEN = 7


@pytest.mark.parametrize(
    ("given", "owner"),
    [("alice", "alice"), (7, 7), (None, None), (Plain.ALICE, "alice"), (Mixed.ALICE, "alice"), (Number.SEVEN, 7)],
)
def test_owner_of_when_it_is_text_or_a_number(given: Any, owner: Any) -> None:
    """An owner is kept as its plain value, as a store gives it back."""
    found = SameScope(lambda scope: scope).owner_of(given)

    assert owner == found
    assert type(owner) is type(found)


@pytest.mark.parametrize(("given", "name"), [(True, "bool"), (7.0, "float"), (b"alice", "bytes"), (["alice"], "list")])
def test_owner_of_when_it_can_be_no_key(given: Any, name: str) -> None:
    """A key that no store could compare is refused, and the error says what it was."""
    with pytest.raises(TypeError) as caught:
        SameScope(lambda scope: scope).owner_of(given)

    assert f"SameScope.key must return a str, an int or None, not {name}" == str(caught.value)


class Naming(SameScope):
    """An authorizer that says who decides."""

    def actor_of(self, scope: Any) -> Any:
        return scope["name"]


@pytest.mark.parametrize("name", ["alice", 7, None])
def test_actor_of_when_the_authorizer_names_it(name: Any) -> None:
    """On record is who the authorizer says it was, not who owns the conversation."""
    assert name == Access(Naming(lambda scope: scope["team"])).actor_of({"team": "red", "name": name})


@pytest.mark.parametrize(("name", "kind"), [(True, "bool"), (7.0, "float"), (["alice"], "list")])
def test_actor_of_when_it_can_be_no_name(name: Any, kind: str) -> None:
    """What could not be kept in a record is refused, and the error names the authorizer."""
    with pytest.raises(TypeError) as caught:
        Access(Naming(lambda scope: scope["team"])).actor_of({"team": "red", "name": name})

    assert f"Naming.actor_of must return a str, an int or None, not {kind}" == str(caught.value)


def test_actor_of_when_nobody_names_it() -> None:
    """Without such a function the owner is the actor, if there are owners."""
    assert "red" == Access(SameScope(lambda scope: scope["team"])).actor_of({"team": "red"})


async def test_allows_when_the_authorizer_inherits_from_same_scope() -> None:
    """A host's own authorizer is asked; what it inherits allows everything, for owners are compared elsewhere."""
    access = Access(Naming())

    assert not access.is_synchronous
    assert await access.allows("alice", "c", "post")
    assert (True, False) == (access.owns("alice", "alice"), access.owns("alice", "bob"))


class Owning(SameScope):
    """An authorizer that says itself who owns what."""

    def owner_of(self, scope: Any) -> Any:
        return scope["owner"]


class Lying(int):
    """A number that claims to be another number."""

    def __int__(self) -> int:
        return 8


@pytest.mark.parametrize(
    ("given", "owner"), [(Plain.ALICE, "alice"), (Mixed.ALICE, "alice"), (Number.SEVEN, 7), (Lying(7), 7), (None, None)]
)
def test_owner_and_actor_when_the_authorizer_names_them(given: Any, owner: Any) -> None:
    """Whichever function of a host says it, a plain value gets into the registry and the record, and no object of the host."""
    found = [Access(Owning()).owner_of({"owner": given}), Access(Naming(lambda scope: None)).actor_of({"name": given})]

    assert [owner, owner] == found
    assert {type(owner)} == {type(owner_found) for owner_found in found}
    assert Access(Owning()).owns({"owner": given}, owner)


def test_owner_of_when_an_authorizer_returns_what_can_be_no_key() -> None:
    """What no store could compare is refused before anything is reserved, and the error names the function."""
    with pytest.raises(TypeError) as caught:
        Access(Owning()).asker({"owner": ["alice"]})

    assert "Owning.owner_of must return a str, an int or None, not list" == str(caught.value)


def test_owner_of_when_the_key_is_async() -> None:
    """A coroutine function is refused with what to do, and its coroutine is closed."""

    async def key(scope: Any) -> str:
        return "alice"

    with pytest.raises(TypeError) as caught:
        Access(SameScope(key)).owner_of("alice")  # type: ignore[arg-type]  # that is the mistake

    assert "SameScope.key must be a plain function, not `async def`" == str(caught.value)


def test_unknown_scope_when_it_acts() -> None:
    """Somebody whose scope is unknown is named by the key, without a call of the host's function."""

    class Host:
        async def authorize(self, scope: object, conversation_id: str, action: str) -> bool:
            return True

        def actor_of(self, scope: object) -> str:
            raise AssertionError("not asked")

    access = Access(Host())

    assert "anna" == access.actor_of(UnknownScope("anna"))
    assert Poster("anna") == access.poster_of(UnknownScope("anna"))

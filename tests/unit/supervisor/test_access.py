"""Who owns what, and who decided: what a host's functions may return, and what is kept of it."""

import enum
from typing import Any

import pytest

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
    """What is kept of an owner is the plain value, which is what a store gives back."""
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
    """Without such a function the owner decided, where there are owners."""
    assert "red" == Access(SameScope(lambda scope: scope["team"])).actor_of({"team": "red"})


async def test_allows_when_the_authorizer_inherits_from_same_scope() -> None:
    """A host's own authorizer is asked; what it inherits allows everything, for owners are compared elsewhere."""
    access = Access(Naming())

    assert not access.is_synchronous
    assert await access.allows("alice", "c", "post")
    assert (True, False) == (access.owns("alice", "alice"), access.owns("alice", "bob"))

"""Which tool is the same tool as before: a digest that outlives the process, and the functions themselves within it."""

import enum
import functools
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from trio_sagents.agent import Tool
from trio_sagents.agent._identity import (
    FACETS,
    KnownTool,
    changed_facets,
    differences,
    digest_of_tool,
    familiar_id,
    is_same_function,
    text_of_change,
)


class Colour(enum.Enum):
    """A plain value."""

    RED = 1
    BLUE = 2


class Till:
    """An object without an equality of its own."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    async def pay(self, amount: int) -> str:
        """Pay an amount."""
        return f"{self.name} {amount}"

    @classmethod
    async def pay_all(cls, amount: int) -> str:
        """Pay everybody."""
        return str(amount)


class Till2(Till):
    """Another class with the same methods."""


class Counter:
    """An object that changes while it is used."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    async def pay(self, amount: int) -> str:
        """Pay an amount."""
        self.calls += 1
        return str(amount)


class Slotted:
    """An object without a dict, which can be called."""

    __slots__ = ("name", "unset")

    def __init__(self, name: str) -> None:
        self.name = name

    async def pay(self, amount: int) -> str:
        """Pay an amount."""
        return f"{self.name} {amount}"

    async def __call__(self, amount: int) -> str:
        """Pay an amount."""
        return f"{self.name} {amount}"


@attrs.frozen
class Account:
    """An object with an equality of its own."""

    name: str

    async def pay(self, amount: int) -> str:
        """Pay an amount."""
        return f"{self.name} {amount}"


def make_pay(account: Any) -> Callable[..., Any]:
    """Return a function that is bound to an account."""

    async def pay(amount: int) -> str:
        """Pay an amount."""
        return f"{account} {amount}"

    return pay


async def pay_from(amount: int, account: str) -> str:
    """Pay an amount."""
    return f"{account} {amount}"


def counting() -> Callable[..., Any]:
    """Return a function that counts its calls."""
    calls = 0

    async def pay(amount: int) -> str:
        """Pay an amount."""
        nonlocal calls
        calls += 1
        return f"{calls} {amount}"

    return pay


def recursive() -> Callable[..., Any]:
    """Return a function whose closure has the function itself."""

    async def pay(amount: int) -> str:
        """Pay an amount."""
        return str(amount) if amount < 2 else await pay(amount - 1)

    return pay


def tool_of(function: Any, **more: Any) -> Tool:
    """Return a function as the tool "pay"."""
    return Tool.of(function, name="pay", **more)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (make_pay("a"), make_pay("a")),
        (make_pay(Colour.RED), make_pay(Colour.RED)),
        (make_pay(("a", frozenset({1, 2}))), make_pay(("a", frozenset({2, 1})))),
        (make_pay(Account("a")), make_pay(Account("a"))),
        (make_pay(make_pay("a")), make_pay(make_pay("a"))),
        (functools.partial(pay_from, account="a"), functools.partial(pay_from, account="a")),
        (Account("a").pay, Account("a").pay),
        (recursive(), recursive()),
        (counting(), counting()),
    ],
    ids=["text", "enum", "tuple", "equal object", "function", "partial", "method", "recursive", "counter"],
)
def test_tool_when_it_is_made_again(one: Any, other: Any) -> None:
    """A function that is made anew, of the same code and the same values, is the same tool, in every process."""
    assert digest_of_tool(tool_of(one)) == digest_of_tool(tool_of(other))
    assert is_same_function(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (make_pay("a"), make_pay("b")),
        (make_pay(1), make_pay(True)),
        (make_pay(Colour.RED), make_pay(Colour.BLUE)),
        (make_pay(("a", "b")), make_pay(("a", "c"))),
        (make_pay(make_pay("a")), make_pay(make_pay("b"))),
        (functools.partial(pay_from, account="a"), functools.partial(pay_from, account="b")),
        (functools.partial(pay_from, account="a"), make_pay("a")),
        (Till().pay, Account("a").pay),
        (make_pay("a"), counting()),
        (Till("a").pay, Till("b").pay),
        (make_pay(Till("a")), make_pay(Till("b"))),
        (functools.partial(pay_from, account=Account("a")), functools.partial(pay_from, account=Account("b"))),
        (Slotted("a").pay, Slotted("b").pay),
        (Slotted("a"), Slotted("b")),
        (Till.pay_all, Till2.pay_all),
    ],
    ids=[
        *("text", "number", "enum", "tuple", "function", "partial", "kind", "class", "code"),
        *("method", "closure of an object", "partial of an object", "slots", "callable object", "class method"),
    ],
)
def test_tool_when_it_is_bound_to_another_value(one: Any, other: Any) -> None:
    """A function of the same code that is bound to another plain value is another tool, in every process."""
    assert digest_of_tool(tool_of(one)) != digest_of_tool(tool_of(other))
    assert not is_same_function(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [(make_pay(Till()), make_pay(Till())), (Till().pay, Till().pay), (Counter(1).pay, Counter(2).pay)],
    ids=["closure", "method", "attribute that changes"],
)
def test_function_when_it_is_bound_to_another_object(one: Any, other: Any) -> None:
    """Another object with the same attributes cannot be told after a restart. Within the process, it makes another function."""
    assert digest_of_tool(tool_of(one)) == digest_of_tool(tool_of(other))
    assert not is_same_function(one, other)


def test_digest_when_the_tool_states_its_version() -> None:
    """A tool that states its version says itself when it is another one: the attributes of objects do not count."""
    one, other = Till("a").pay, Till("b").pay

    assert digest_of_tool(tool_of(one)) != digest_of_tool(tool_of(other))
    assert digest_of_tool(tool_of(one, version="1")) == digest_of_tool(tool_of(other, version="1"))
    assert digest_of_tool(tool_of(make_pay("a"), version="1")) != digest_of_tool(tool_of(make_pay("b"), version="1"))


def test_function_when_its_objects_cannot_be_compared() -> None:
    """An object whose equality raises is the same as itself alone."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = object.__hash__

    odd = Odd()

    assert is_same_function(make_pay(odd), make_pay(odd))
    assert not is_same_function(make_pay(odd), make_pay(Odd()))


@pytest.mark.parametrize(
    ("changed", "facet"),
    [
        ({"description": "Pays twice."}, "description"),
        ({"parameters": {"type": "object", "properties": {"amount": {"type": "number"}}}}, "parameters"),
        ({"version": "2"}, "version"),
        ({"function": make_pay("b")}, "bound values"),
    ],
)
def test_digest_when_one_facet_changes(changed: Any, facet: str) -> None:
    """A digest says which facet of a tool has changed, without the tool as it was."""
    tool = tool_of(make_pay("a"))

    assert [facet] == list(changed_facets(digest_of_tool(tool), digest_of_tool(attrs.evolve(tool, **changed))))


def test_digest_when_another_middleware_brings_the_tool() -> None:
    """Where a tool comes from is a part of what it is."""
    tool = tool_of(make_pay("a"))

    assert ["origin"] == list(changed_facets(digest_of_tool(tool, "Mcp:files"), digest_of_tool(tool, "Mcp:mail")))
    assert ["origin", "bound values"] == list(changed_facets(digest_of_tool(tool), digest_of_tool(tool_of(pay_from))))[-2:]


def test_digest_when_an_older_version_made_it_otherwise() -> None:
    """A digest of another form differs in everything; the same text differs in nothing."""
    assert FACETS == tuple(changed_facets("abc", digest_of_tool(tool_of(make_pay("a")))))
    assert () == tuple(changed_facets("abc", "abc"))


def test_digest_when_the_texts_are_not_storable() -> None:
    """A tool with a lone surrogate in its description has a digest, too."""
    assert digest_of_tool(tool_of(make_pay("\ud800"), description="\ud800")).count(".") == 4


def test_differences_when_the_process_remembers_the_tool() -> None:
    """Within a process the function itself counts: a counter in its closure says nothing, another object says all."""
    counter = counting()
    tool = tool_of(counter)
    known = KnownTool(digest_of_tool(tool), tool)
    till = tool_of(Till().pay)
    other = tool_of(Till().pay)

    assert () == tuple(differences(known.digest, known, tool, digest_of_tool(tool)))
    assert ("bound values",) == tuple(
        differences(digest_of_tool(till), KnownTool(digest_of_tool(till), till), other, digest_of_tool(other))
    )


def test_differences_when_the_process_does_not_remember_the_tool() -> None:
    """After a restart the digest decides; a question that was stored without one is not held up."""
    one, other = tool_of(make_pay("a")), tool_of(make_pay("b"))

    assert ("bound values",) == tuple(differences(digest_of_tool(one), None, other, digest_of_tool(other)))
    assert () == tuple(differences(digest_of_tool(one), None, one, digest_of_tool(one)))
    assert () == tuple(differences("", None, other, digest_of_tool(other)))


def test_differences_when_the_memory_is_of_another_question() -> None:
    """What the process remembers of an earlier question about the call is not taken for this one."""
    one, other = tool_of(make_pay("a")), tool_of(make_pay("b"))
    known = KnownTool(digest_of_tool(one), one)

    assert () == tuple(differences(digest_of_tool(other), known, other, digest_of_tool(other)))


def test_familiar_id_when_the_tool_states_its_version() -> None:
    """A tool that states its version may change its texts and stays known; another version does not."""
    tool = tool_of(make_pay("a"), version="1")

    assert familiar_id(tool, "Bank") == familiar_id(attrs.evolve(tool, description="Pays."), "Bank")
    assert familiar_id(tool, "Bank") != familiar_id(attrs.evolve(tool, version="2"), "Bank")
    assert familiar_id(tool, "Bank") != familiar_id(tool, "Other")
    plain = tool_of(make_pay("a"))
    assert familiar_id(plain, "Bank") != familiar_id(attrs.evolve(plain, description="Pays."), "Bank")


def test_text_of_change_when_the_description_is_long() -> None:
    """People read what has changed, and the description before and after, cut to a length that they can read."""
    before = KnownTool("", tool_of(make_pay("a"), description="Lists." + "x" * 1000))
    after = tool_of(make_pay("a"), description="Deletes.")
    text = text_of_change(["description", "parameters"], before, after)

    assert text.startswith(
        "Tool 'pay' has changed since this call was approved: description, parameters. Decide again. It was described as"
    )
    assert text.endswith("It is described as: 'Deletes.'.")
    assert len(text) < 800


def test_text_of_change_when_other_facets_have_changed() -> None:
    """People are told which parameters differ, and where the tool came from and comes from."""

    async def lend(amount: float, to: str) -> str:
        """Pay an amount."""
        return f"{amount} {to}"

    before = KnownTool("", Tool(name="pay", function=pay_from, parameters=tool_of(pay_from).parameters, origin="mcp:bank", version="1"))
    after = attrs.evolve(tool_of(lend), origin="mcp:other", version="2")

    assert text_of_change(["parameters", "origin", "version"], before, after) == (
        "Tool 'pay' has changed since this call was approved: parameters, origin, version. Decide again. Parameters added: 'to'. "
        "Parameters removed: 'account'. Parameters changed: 'amount'. It was from: 'mcp:bank'. It is from: 'mcp:other'. "
        "It was of version: '1'. It is of version: '2'."
    )
    assert text_of_change(["parameters", "origin"], None, after).endswith("Decide again. It is from: 'mcp:other'.")

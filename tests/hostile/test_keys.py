"""Keys that look alike, collide or mean something elsewhere: each conversation, owner and message is its own, or refused."""

import contextlib
import enum
import random
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.scenarios import FaultyStore, Router, answer_to, ask, make_agent, opened, state_of
from trio_sagents import Completed, ConversationNotFound, Cursor, MemoryStore, MessageConflict, SameScope, SqliteStore, StartFailed
from trio_sagents.conversation.rows import rows_of
from trio_sagents.data.ids import check_id, conversation_topic, default_agent_id
from trio_sagents.data.messages import Message, TextPart, ToolCall
from trio_sagents.data.records import Owner
from trio_sagents.persistence._records import owner_key
from trio_sagents.supervisor._journal import wall_clock

ALIKE: Final = (
    "a", "A", "\u0430", "\uff41", "a ", " a", "a\u200b", "a\u200d", "a\u2060", "\u202ea", "a\ufe0f", "a.", "a/", "/a", "a\\", "a:",
    ":a", "a%", "%61", "a%2f", "%2e%2e", "..", ".", "../a", "a/../a", "a'", 'a"', "a;", "a--", "a/*", "a*", "?", "[a]", "a[0]", "*",
    "a';DROP TABLE conversations;--", "conversation-a", "conversation:a", "conversation-conversation-a", "agent_server:presence", "null",
    "None", "0", "1", "01", "1.0", "-1", "true", "\u00e9", "\u0131", "\u0130", "ss", "\u00df", "\u1e9e", "\ufb01", "fi", "K", "\u03c3",
    "\u03c2", "CON", "a\u0327\u0301",
)  # fmt: skip
"""Ids that people, files, URLs, SQL, globs or case rules could confuse: each is a conversation of its own."""
REFUSED: Final = (
    "", "\0", "a\0", "a\n", "\r", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u2029", "\ud800", "a\udfff", "e\u0301", "\u212a",
    "\u2126", "\u1100\u1161", "x" * 257, "\u0958", "\u0344",
)  # fmt: skip
"""Not in normal form C, with control characters, halves of characters, or of a wrong length."""


def test_lists_are_what_they_say() -> None:
    """Similar ids are different texts in normal form C; each of the others breaks a rule."""
    assert len(set(ALIKE)) == len(ALIKE)
    for identifier in ALIKE:
        composed = unicodedata.normalize("NFC", identifier)
        assert composed == check_id("id", composed)
    for identifier in REFUSED:
        with pytest.raises(ValueError, match="id must"):
            check_id("id", identifier)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_alike_is_not_the_same(kind: str, tmp_path: Path) -> None:
    """Each of the ids that are alike has its own agent, history, list entry and deletion; none reaches another."""
    store: Any = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "chat.db", synchronous="NORMAL")
    ids = sorted({unicodedata.normalize("NFC", identifier) for identifier in ALIKE})
    async with opened(make_agent(), store=store) as sessions:
        for number, name in enumerate(ids):
            assert f"re: {number}" == await answer_to(sessions, str(number), name)
        assert len(ids) == await sessions.agent_count()
        assert set(ids) == {item.conversation_id for item in (await sessions.conversations(limit=1000)).items}
        for number, name in enumerate(ids):
            rows = (await sessions.history(name)).rows
            assert [str(number), f"re: {number}"] == [row.content["text"] for row in rows]
        for place, name in enumerate(ids[::2]):
            await sessions.stop(name)
            assert await sessions.delete(name)
            assert len(ids) - place - 1 == len((await sessions.conversations(limit=1000)).items)
        for number, name in enumerate(ids[1::2]):
            await sessions.stop(name)
            assert str(2 * number + 1) == (await state_of(sessions, name)).messages[0].text


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
async def test_refused_id_does_nothing(autojump_clock: Any, name: str) -> None:
    """An id that could be two, or none, is refused at every entry before anything is done."""
    router, store = Router(), FaultyStore()
    async with opened(router, store=store) as sessions:
        async with sessions.open_subscriber() as subscriber:
            entries: list[Callable[[], Any]] = [
                lambda: sessions.start(name),
                lambda: sessions.post(name, "hi"),
                lambda: sessions.post("c2", "hi", message_id=name),
                lambda: sessions.stop(name),
                lambda: sessions.running(name),
                lambda: sessions.get(name),
                lambda: sessions.history(name),
                lambda: sessions.delete(name),
                lambda: subscriber.subscribe(name),
                lambda: sessions.ensure_running(name, subscriber),
            ]
            for entry in entries:
                with pytest.raises(ValueError, match="must"):
                    await entry()
            with pytest.raises(ValueError, match="must"):
                sessions.watch(name)

        assert ([], [], {}) == (router.resolved, store.commits, subscriber.subscriptions)


@pytest.mark.parametrize("name", [None, 1, 1.5, b"a", ("a",), ["a"], True, object()], ids=lambda value: type(value).__name__)
async def test_id_that_is_no_text(autojump_clock: Any, name: Any) -> None:
    """`1` is not "1", and a value that is not text is not an id."""
    async with opened() as sessions:
        for entry in (sessions.start, sessions.running, sessions.stop, sessions.history, sessions.delete):
            with pytest.raises(TypeError, match="must be a str"):
                await entry(name)


# ── agent ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────

COLLIDING: Final[Mapping[str, tuple[Callable[[str], str], str, str]]] = {
    "one for all": (lambda _: "agent", "a", "b"),
    "case": (str.lower, "a", "A"),
    "the first letters": (lambda name: name[:3], "abc1", "abc2"),
    "separators": (lambda name: name.replace(":", "-"), "a:b", "a-b"),
    "joined tenants": (lambda name: ":".join(name.split("|")), "a:b|c", "a|b:c"),
    "blanks": (str.strip, "a", "a "),
    "compatibility": (lambda name: unicodedata.normalize("NFKC", name), "\ufb01", "fi"),
    "another's default": (lambda name: "conversation-b" if name == "a" else default_agent_id(name), "a", "b"),
}


@pytest.mark.parametrize("how", COLLIDING)
async def test_agent_ids_collide(autojump_clock: Any, how: str) -> None:
    """If a host's function gives one agent id to two conversations, the second cannot start while the first is running.

    Whoever only looks finds no second conversation; nobody ever gets the agent of the first.
    """
    function, first, second = COLLIDING[how]
    store = MemoryStore()
    async with opened(make_agent(), store=store, agent_id_fun=function) as sessions:
        assert "re: mine" == await answer_to(sessions, "mine", first)
        async with sessions.open_subscriber() as subscriber:
            starts: list[Callable[[], Any]] = [
                lambda: sessions.post(second, "theirs"),
                lambda: sessions.start(second),
                lambda: sessions.ensure_running(second, subscriber),
            ]
            for start in starts:
                with pytest.raises(ValueError, match="agent_id_fun") as caught:
                    await start()
                assert repr(second) in str(caught.value)
                assert f"conversation {first!r}" not in str(caught.value)
            for entry in (sessions.get, sessions.cancel_turn, sessions.dismiss):
                with pytest.raises(ConversationNotFound):
                    await entry(second)
            assert [False] * 3 == [await entry(second) for entry in (sessions.running, sessions.stop, sessions.delete)]
        assert await sessions.running(first)
        assert 2 == len((await state_of(sessions, first)).messages)
        await sessions.stop(first)
        assert "re: theirs" == await answer_to(sessions, "theirs", second)
        with pytest.raises(ValueError, match="agent_id_fun"):
            await sessions.start(first)
        await sessions.stop(second)
        assert "mine" == (await state_of(sessions, first)).messages[0].text

    assert {first, second} == set(store._stored)


async def test_agent_ids_collide_while_both_boot(autojump_clock: Any) -> None:
    """If two agents with one agent id boot at the same time, one is up, the other is refused, and neither has the other's state."""
    results: list[Any] = []

    async def start(name: str) -> None:
        try:
            results.append((await sessions.start(name)).conversation_id)
        except ValueError as exc:
            results.append(type(exc))

    async with opened(Router(build_delay=1), agent_id_fun=lambda _: "agent") as sessions:
        async with trio.open_nursery() as nursery:
            for name in ("a", "b"):
                nursery.start_soon(start, name)

        assert ValueError in results
        (up,) = set(results) - {ValueError}
        assert 1 == await sessions.agent_count()
        assert await sessions.running(up)


@pytest.mark.parametrize("given_id", [None, 7, "", "\n", "\ud800", "x" * 257, "e\u0301", b"a", LookupError("no")], ids=ascii)
async def test_agent_id_that_is_none(autojump_clock: Any, given_id: Any) -> None:
    """What a host's function gives is checked like any id, before anything is done; what it raises goes to the caller."""

    def function(name: str) -> Any:
        if isinstance(given_id, Exception):
            raise given_id
        return given_id

    router = Router()
    async with opened(router, agent_id_fun=function) as sessions:
        with pytest.raises((TypeError, ValueError, LookupError)):
            await sessions.start("c")
        with pytest.raises((TypeError, ValueError, LookupError)):
            await sessions.post("c", "hi")

    assert [] == router.resolved


# ── owners ────────────────────────────────────────────────────────────────────────────────────────────────────────────

OWNERS: Final[tuple[Owner, ...]] = (
    None,
    "",
    "None",
    "null",
    "0",
    0,
    1,
    "1",
    "1.0",
    -1,
    "-1",
    10**30,
    str(10**30),
    'a"b',
    "a'b",
    "a",
    "A",
    "\ud800",
    "é",
    "e\u0301",
)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_every_owner_is_its_own(kind: str, tmp_path: Path) -> None:
    """Owners that look alike, in memory and after a restart: nobody is let in but the owner itself."""
    store: Any = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "chat.db", synchronous="NORMAL")
    async with opened(make_agent(), store=store) as sessions:
        for number, owner in enumerate(OWNERS):
            await answer_to(sessions, "mine", f"c{number}", scope=owner)
    async with opened(make_agent(), store=store) as sessions:
        for number, owner in enumerate(OWNERS):
            for asking in OWNERS:
                if (type(asking), asking) == (type(owner), owner):
                    assert 2 == len((await sessions.history(f"c{number}", scope=asking)).rows)
                else:
                    with pytest.raises(ConversationNotFound):
                        await sessions.history(f"c{number}", scope=asking)
            assert [f"c{number}"] == [item.conversation_id for item in (await sessions.conversations(scope=owner)).items]


class Role(enum.StrEnum):
    """A text that is more than a text."""

    ALICE = "alice"


class Number(enum.IntEnum):
    """A number that is more than a number."""

    ONE = 1


class Name(str):
    """A text of a host's own."""

    __slots__ = ()


@pytest.mark.parametrize("scope", [Role.ALICE, Number.ONE, Name("alice")], ids=lambda value: type(value).__name__)
async def test_owner_of_a_class_of_its_own(autojump_clock: Any, scope: Any) -> None:
    """A key that is a subclass of str or int is refused where it comes in, or it is the owner; nothing in between."""
    for authorizer in (SameScope(), SameScope(lambda scope: scope)):
        async with opened(store=MemoryStore(), authorizer=authorizer) as sessions:
            try:
                outcome = await ask(sessions, scope=scope)
            except TypeError:
                continue
            assert isinstance(outcome, Completed)
            await sessions.stop("c", scope=scope)
            assert isinstance(await ask(sessions, "again", scope=scope), Completed)


@given(st.one_of(st.none(), st.integers(), st.text()), st.one_of(st.none(), st.integers(), st.text()))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_owner_keys_are_one_to_one(left: Owner, right: Owner) -> None:
    """The stored text of an owner is that of no other."""
    assert ((type(left), left) == (type(right), right)) == (owner_key(left) == owner_key(right))


IDS: Final = st.text(st.sampled_from("ab:/-.%0é "), min_size=1, max_size=6)


@given(IDS, IDS, st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_row_ids_are_one_to_one(left: str, right: str, first: int, second: int) -> None:
    """No two messages, and no two parts of one message, share a row, whatever separators are in their ids."""
    now = wall_clock()

    def row_ids(name: str, parts: int) -> list[str]:
        return [row.row_id for row in rows_of(Message(name, "assistant", [TextPart("x")] * parts, "stop"), now)]

    def call_rows(name: str) -> list[str]:
        return [row.row_id for row in rows_of(Message("m", "assistant", [ToolCall(name, "n")], "tool_calls", "0123-1"), now)]

    assert (left == right) == bool(set(row_ids(left, first + 1)) & set(row_ids(right, second + 1)))
    assert (left == right) == (call_rows(left) == call_rows(right))
    assert (left == right) == (default_agent_id(left) == default_agent_id(right))
    assert (left == right) == (conversation_topic(left) == conversation_topic(right))


# ── message ids and cursors ───────────────────────────────────────────────────────────────────────────────────────────


async def test_message_ids_that_guess_ours(autojump_clock: Any) -> None:
    """A caller who takes the very ids that the agent would make gets no other's message, and the agent makes others."""
    async with opened(make_agent()) as sessions:
        await ask(sessions)
        made = (await state_of(sessions)).messages[-1].message_id
        stem, _, number = made.rpartition("-")
        taken = 0
        for ahead in range(1, 30):
            try:
                assert isinstance(await ask(sessions, f"guess {ahead}", message_id=f"{stem}-{int(number) + 2 * ahead}"), Completed)
            except MessageConflict:
                taken += 1  # the id of an answer: refused by its name, with nothing done
        messages = (await state_of(sessions)).messages

    assert taken < 20
    assert len(messages) == len({message.message_id for message in messages}) == 60 - 2 * taken


def hostile_texts(count: int) -> list[str]:
    """Return texts that look like cursors and are not."""
    drawn = random.Random(5)
    good = ["r1", "c1", "abc-1.main.3", "r999999999999999999", "0", "-1", "1" * 40]
    alphabet = "rc0123456789-.:main debug\0é\ud800'%"
    return [
        "".join(drawn.choice(alphabet) for _ in range(drawn.randrange(12)))
        if drawn.random() < 0.7
        else drawn.choice(good) + drawn.choice(alphabet)
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_hostile_cursors(kind: str, tmp_path: Path) -> None:
    """A cursor out of somebody's URL is a place in the list, or a ValueError; never anything else."""
    store: Any = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "chat.db", synchronous="NORMAL")
    async with opened(make_agent(), store=store) as sessions:
        await ask(sessions)
        for text in hostile_texts(300):
            for call in (lambda: sessions.history("c", before=text), lambda: sessions.conversations(after=text)):  # noqa: B023  # called at once
                with contextlib.suppress(ValueError):
                    await call()
    for text in hostile_texts(2000):
        with contextlib.suppress(ValueError):
            assert text == str(Cursor.parse(text))


async def test_failed_start_names_no_other(autojump_clock: Any) -> None:
    """A start that fails for one conversation says nothing of its neighbour with the same agent id."""
    router = Router(build_error=RuntimeError("no"))
    async with opened(router, agent_id_fun=lambda name: name[:1]) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("ab")

        assert "ab" == caught.value.conversation_id

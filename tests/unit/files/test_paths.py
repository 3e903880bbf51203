"""Paths and scopes: which are refused, and that each accepted one has one spelling."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.files import InvalidPath
from trio_sagents.files._paths import (
    MAX_DEPTH,
    MAX_NAME_BYTES,
    below,
    check_path,
    check_prefix,
    is_under,
    join,
    names_of,
    parents,
    scope_key,
)
from trio_sagents.files.directory import directory_name

REFUSED = [
    "",
    "/",
    "a",
    "a/b",
    "./a",
    "../a",
    "/..",
    "/../etc/passwd",
    "/a/../b",
    "/a/..",
    "/./a",
    "/a/.",
    "/...",
    "//a",
    "/a//b",
    "/a/",
    "~/a",
    "/~",
    "/~root/a",
    "/a/~b",
    "/ a",
    "/a ",
    "/a /b",
    "/\ta",
    "/a\n",
    "/a\0b",
    "/a\x7fb",
    "/a\x1b[31m",
    "\\a",
    "/a\\b",
    "/..\\a",
    "C:\\a",
    "/\u2024\u2024/a",  # one dot leaders
    "/\uff0e\uff0e/a",  # full-width dots
    "/\u2025/a",  # two dot leader
    "/a\uff0fb",  # full-width slash
    "/a\uff3cb",  # full-width backslash
    "/\uff5ea",  # full-width tilde
    "/a\u202eb",  # written from right to left
    "/a\u200bb",  # no width
    "/\ufeffa",
    "/a\u2028b",
    "/a\u00a0",
    "/e\u0301",  # not in normal form C
    "/\ud800",
    "/" + "a" * (MAX_NAME_BYTES + 1),
    "/" + "ä" * (MAX_NAME_BYTES // 2 + 1),
    "/a" * (MAX_DEPTH + 1),
    "/" + "/".join(["a" * MAX_NAME_BYTES] * 6),
    "/" + "a" * 10_000_000,
]
TAKEN = [
    "/a",
    "/a.md",
    "/.hidden",
    "/..a",
    "/a..b",
    "/a b/c d.txt",
    "/ä/ö.txt",
    "/日本/語",
    "/a:b",
    "/%2e%2e/a",
    "/" + "a" * MAX_NAME_BYTES,
    "/a" * MAX_DEPTH,
    "/con",
    "/-rf",
    "/$(x)",
    "/a'b\"c",
]


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: ascii(path[:30]))
def test_path_when_it_leads_astray(path: str) -> None:
    """A path that could lead elsewhere, or be read as another, is refused with words that say why."""
    with pytest.raises(InvalidPath) as caught:
        check_path(path)

    assert str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("path", TAKEN, ids=lambda path: ascii(path[:30]))
def test_path_when_it_is_plain(path: str) -> None:
    """A plain path is taken as it is."""
    assert path == check_path(path)


@pytest.mark.parametrize("path", [None, 3, b"/a", ["/a"], object()])
def test_path_when_it_is_no_text(path: object) -> None:
    """A value that is not text is not a path."""
    with pytest.raises(InvalidPath, match="must be a str"):
        check_path(path)


@given(st.text(max_size=40).map(lambda text: f"/{text}"))
def test_path_when_random(path: str) -> None:
    """Every accepted path has only plain names, in one normal form."""
    try:
        check_path(path)
    except InvalidPath:
        return

    assert unicodedata.is_normalized("NFC", path)
    assert all(name and name.strip(".") and name == name.strip() and "\0" not in name for name in names_of(path))


def test_prefix_when_it_is_a_folder() -> None:
    """A folder may be written with a slash at its end, and the root is a single slash."""
    assert "/" == check_prefix("/")
    assert "/a" == check_prefix("/a/")
    assert "/a" == check_prefix("/a")
    with pytest.raises(InvalidPath):
        check_prefix("//")


def test_paths_when_compared() -> None:
    """A folder is not a prefix of letters: "/data-private" is not under "/data"."""
    assert is_under("/data/a", "/data")
    assert is_under("/data", "/data")
    assert is_under("/x", "/")
    assert not is_under("/data-private/a", "/data")
    assert not is_under("/data", "/data/a")
    assert ["/a/b", "/a"] == list(parents("/a/b/c"))
    assert [] == list(parents("/a"))
    for prefix, path in (("/", "/a/b"), ("/a", "/a/b"), ("/a", "/a")):
        assert path == join(prefix, below(prefix, path))


@pytest.mark.parametrize("scope", ["", (), ("a", ""), "a\0", ("a",) * 9, "e\u0301", "a" * 257])
def test_scope_when_it_cannot_be_one(scope: object) -> None:
    """A scope has parts that can be ids."""
    with pytest.raises(ValueError, match="scope"):
        scope_key(scope)


@pytest.mark.parametrize("scope", [None, 3, b"a", ("a", 1), {"a"}])
def test_scope_when_it_is_no_text(scope: object) -> None:
    """A scope is text: 1 and "1" are never mixed up."""
    with pytest.raises(TypeError):
        scope_key(scope)


def test_scope_when_it_has_one_part() -> None:
    """A text is a scope of one part; no character in it makes several parts."""
    assert ("a",) == scope_key("a") == scope_key(("a",)) == scope_key(["a"])
    assert scope_key("a:b") != scope_key(("a", "b"))


PARTS = st.lists(st.text(st.sampled_from("aA:/%+.=\\~é "), min_size=1, max_size=4), min_size=1, max_size=3).map(tuple)


@given(PARTS, PARTS)
def test_directory_when_scopes_differ(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    """Two scopes have two directories, also on a disk that does not tell capitals from small letters."""
    assert (first == second) == (directory_name(first).lower() == directory_name(second).lower())


@given(PARTS)
def test_directory_when_named(scope: tuple[str, ...]) -> None:
    """The name of a directory has no characters with a meaning."""
    name = directory_name(scope)

    assert not set(name) & set("/\\.~:= \0")
    assert name.isascii()


def test_directory_when_the_scope_is_long() -> None:
    """A long scope has a short name, and no other has it."""
    first, second = directory_name(("ä" * 128,)), directory_name(("ä" * 127 + "a",))

    assert len(first) < 200
    assert first != second
    assert first.startswith("=")

"""Lines, places and replacements in texts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.files import FileMatch, NotText, TextNotFound, TextNotUnique
from trio_sagents.files._text import MAX_SHOWN, count_lines, cut_lines, decode, encode, find_text, replace_text

TEXTS = st.text(st.sampled_from("ab\n\r\x0b\u2028 "), max_size=30)


@pytest.mark.parametrize(
    ("text", "lines"), [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n", 1), ("\n\n", 2), ("a\x0bb\u2028c", 1), ("a\r\nb", 2)]
)
def test_lines_when_counted(text: str, lines: int) -> None:
    """Only a line feed ends a line."""
    assert lines == count_lines(text)


@given(TEXTS, st.integers(0, 5), st.integers(1, 5))
def test_lines_when_cut(text: str, offset: int, limit: int) -> None:
    """The lines that are cut out are lines of the text, and the pieces together are the whole text."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    cut = cut_lines("/a", text, offset, limit)

    assert "".join(lines[offset : offset + limit]) == cut.text
    assert text == cut_lines("/a", text, 0, offset).text + cut_lines("/a", text, offset, math.inf).text
    assert count_lines(text) == cut.line_count
    assert cut.is_whole == (cut.text == text and cut.offset == 0)


@given(TEXTS, st.text(st.sampled_from("ab\n "), min_size=1, max_size=3))
def test_find_when_compared_with_a_plain_search(content: str, text: str) -> None:
    """Each line in which the text begins is found once, with its number."""
    lines = content.split("\n")
    starts = [content.count("\n", 0, place) for place in range(len(content)) if content.startswith(text, place)]

    assert [FileMatch("/a", line + 1, lines[line]) for line in dict.fromkeys(starts)] == list(find_text("/a", content, text))


def test_find_when_the_line_is_long() -> None:
    """A match shows only the beginning of a long line, and says so."""
    (match,) = find_text("/a", "x" * 1000, "x")

    assert "x" * MAX_SHOWN + "…" == match.text


def test_replace_when_unique() -> None:
    """A text that is there once is replaced, and nothing around it."""
    assert ("a-c\n", 1) == replace_text("/a", "abc\n", "b", "-", all_of_them=False)
    assert ("ac", 1) == replace_text("/a", "abc", "b", "", all_of_them=False)


def test_replace_when_not_there() -> None:
    """A text that is not there is named in words that help."""
    with pytest.raises(TextNotFound, match="exactly"):
        replace_text("/a", "abc", "B", "", all_of_them=True)


def test_replace_when_ambiguous() -> None:
    """A text that occurs twice, even overlapping, is not replaced unless all occurrences are."""
    with pytest.raises(TextNotUnique, match="2 times"):
        replace_text("/a", "aaa", "aa", "b", all_of_them=False)

    assert ("ba", 1) == replace_text("/a", "aaa", "aa", "b", all_of_them=True)
    assert ("--", 2) == replace_text("/a", "xx", "x", "-", all_of_them=True)


@given(st.text())
def test_text_when_stored(text: str) -> None:
    """What can be stored comes back as it was, and what cannot is refused."""
    try:
        data = encode("/a", text)
    except NotText:
        assert any("\ud800" <= char <= "\udfff" for char in text)
    else:
        assert text == decode("/a", data)


def test_text_when_it_is_none() -> None:
    """Bytes that are not UTF-8 are not text, and a value of another type is not text either."""
    with pytest.raises(NotText, match="byte 1"):
        decode("/a", b"a\xff")
    with pytest.raises(TypeError, match="must be a str, not bytes"):
        encode("/a", b"a")

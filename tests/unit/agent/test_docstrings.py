"""Docstrings: what a model is told about a tool and its parameters, whichever style they are written in."""

import pytest

from trio_sagents.agent._docstrings import read_docstring


def test_read_docstring_when_it_is_in_google_style() -> None:
    """All paragraphs and other sections are the description; entries run over several lines and end with their section."""
    text = """Look things
        up.

        More of it, which
        the model needs, too.

        Args:
            query: what to look for:
                a phrase
            limit (int, optional): how many
            most (Callable[[int], str]): at most

                or less
            *rest: more
            note:
                is below

        Returns:
            found: the things
                that were found

        Then more.
        """
    description = """Look things up.

More of it, which the model needs, too.

Returns:
    found: the things
        that were found

Then more."""
    entries = {
        "query": "what to look for: a phrase",
        "limit": "how many",
        "most": "at most or less",
        "rest": "more",
        "note": "is below",
    }

    assert (description, entries) == read_docstring(text)


def test_read_docstring_when_it_is_in_numpy_style() -> None:
    """Headers are underlined; several parameters may have one description."""
    text = """Look things up.

        Parameters
        ----------
        query : str
            What to look for:
            a phrase.
        first, last : {"a", "b"}, optional
            Where.
        bare

        Returns
        -------
        list
            The things.

        Notes
        =====
        It is
        quick.
        """

    assert (
        "Look things up.\n\nReturns:\nlist\n    The things.\n\nNotes:\nIt is quick.",
        {"query": "What to look for: a phrase.", "first": "Where.", "last": "Where.", "bare": ""},
    ) == read_docstring(text)


def test_read_docstring_when_it_is_in_sphinx_style() -> None:
    """Fields of parameters go to the parameters, those of types nowhere; the others stay."""
    text = """Look things up.

        :param str query: what to look for:
            a phrase
        :param limit: how many
        :type limit: int
        :keyword note: a note
        :returns: the things
            found
        :rtype: list
        :raises ValueError: never
        :note no field
        """

    assert (
        "Look things up.\n\nReturns: the things found\n\nRaises ValueError: never :note no field",
        {"query": "what to look for: a phrase", "limit": "how many", "note": "a note"},
    ) == read_docstring(text)


@pytest.mark.parametrize("text", [None, "", "   \n  "])
def test_read_docstring_when_there_is_none(text: str | None) -> None:
    """No docstring says nothing."""
    assert ("", {}) == read_docstring(text)


def test_read_docstring_when_it_begins_with_a_section() -> None:
    """A section about parameters is not a description; the text after it is."""
    text = "Args:\n    (all optional)\n    a: first\nAnd a line outside.\n    b: not this"

    assert ("And a line outside.\n    b: not this", {"a": "first"}) == read_docstring(text)


def test_read_docstring_when_lines_have_a_meaning() -> None:
    """Lists, code and what is below a colon keep their lines; only the lines of a paragraph are joined."""
    text = """The modes:
        fast: at once
        slow: later

        - a list
        - of two
          things

        1. first
        2. second

        >>> look("x")
        ["y"]

        ```
        code:

            more
        ```
        The end
        of it.
        """
    expected = """The modes:
fast: at once slow: later

- a list
- of two
  things

1. first
2. second

>>> look("x")
["y"]

```
code:

    more
```
The end of it."""

    assert (expected, {}) == read_docstring(text)


def test_read_docstring_when_a_section_is_last_but_empty() -> None:
    """A header with nothing below it is dropped."""
    assert ("Look.", {}) == read_docstring("Look.\n\nArgs:")
    assert ("Look.", {}) == read_docstring("Look.\n\nParameters\n----------")


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Args:\n        a: the first\n        b: the second", ("", {"a": "the first", "b": "the second"})),
        ("Args:\n            a: the first\n\n        Returns:\n            It.\n        ", ("Returns:\n    It.", {"a": "the first"})),
        ("Do it.\n\nParams:\n- a: the first\n- b: the second", ("Do it.\n\nParams:\n- a: the first\n- b: the second", {})),
        ("Do it.\n\nArgs:\n    - a: the first\n    - `b` (int): the second", ("Do it.", {"a": "the first", "b": "the second"})),
        ("Do it.\n\nArgs:\n\nMore.", ("Do it.\n\nArgs:\nMore.", {})),
    ],
)
def test_docstring_when_its_section_is_written_oddly(docstring: str, expected: object) -> None:
    """A docstring that begins with its parameters, lists in a section, and a section in another form: nothing is lost."""
    assert expected == read_docstring(docstring)

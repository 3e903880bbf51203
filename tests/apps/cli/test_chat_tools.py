"""The chat's tools: what they keep, what they refuse, and that nothing said to them runs away."""

import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents import State, ToolContext
from trio_sagents.cli._arithmetic import ArithmeticRefused, calculate, evaluate
from trio_sagents.cli._notebook import Notebook, NotebookRefused
from trio_sagents.cli._tools import chat_tools, send_money

NUMBERS = st.integers(0, 10**6).map(str)
SUMS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%", " + ", " - "]), inner).map("".join),
        st.tuples(st.sampled_from(["-", "+", "("]), inner).map(lambda pair: f"({pair[1]})" if pair[0] == "(" else "".join(pair)),
        st.tuples(inner.map(lambda text: f"({text})"), st.just("**"), st.integers(0, 3).map(str)).map("".join),
    ),
    max_leaves=12,
)


def context(conversation_id: str = "42", key: str = "k1") -> ToolContext:
    """Return what a tool call gets from the runtime."""
    return ToolContext(conversation_id, None, key, key, State(), lambda _: None)


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    """A notebook in a file of its own."""
    return Notebook(tmp_path / "chat.db")


# ── arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(SUMS)
def test_sums_are_those_of_python(text: str) -> None:
    """Precedence, associativity, floor division and remainder are Python's."""
    try:
        expected = eval(text, {"__builtins__": {}})  # digits and operators alone
    except ZeroDivisionError:
        with pytest.raises(ArithmeticRefused, match="division by zero"):
            evaluate(text)
        return

    assert expected == evaluate(text)


@given(st.text(alphabet="0123456789.+-*/%()^ e_j", max_size=40) | st.text(max_size=20))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    """Nothing else comes out, whatever goes in."""
    with contextlib.suppress(ArithmeticRefused):
        assert calculate(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12*(3+4)", "84"),
        ("-2**2", "-4"),
        ("2**-1", "0.5"),
        ("2**3**2", "512"),
        ("2^10", "1024"),
        ("0.1+0.2", "0.3"),
        ("1/3", "0.333333333333… (exactly 1/3)"),
        ("-1/8", "-0.125"),
        ("-7//2", "-4"),
        ("-7%3", "2"),
        (".5 + 5.", "5.5"),
        ("(-1)**1000001", "-1"),
        ("0**0", "1"),
    ],
)
def test_results_are_exact(text: str, value: str) -> None:
    """What has finitely many decimals has them all; what has not is shown with its fraction."""
    assert value == calculate(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "1+",
        "1 1",
        "*2",
        "(1",
        "1)",
        "9**9**9",
        "10**4000",
        "2**0.5",
        "0**-1",
        "1%0",
        "__import__('os')",
        "1e5",
        "(" * 60 + "1" + ")" * 60,
        "1" * 1001,
        "*".join(["9" * 300] * 3 + ["(99**99)**99"]),
        "--" * 40 + "1",
    ],
)
def test_what_is_no_arithmetic_or_too_much_is_refused(text: str) -> None:
    """The refusal comes at once, before the work."""
    with pytest.raises(ArithmeticRefused):
        calculate(text)


# ── notes ────────── ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_conversations_have_their_own(notebook: Notebook, tmp_path: Path) -> None:
    """What one conversation keeps, another does not see; another notebook on the same file does."""
    notebook.remember("my cat is Tom", context("1", "b"))

    assert notebook.recall(context("2")) == "I have no notes yet"
    assert Notebook(tmp_path / "chat.db").recall(context("1")) == "- my cat is Tom"


def test_the_same_call_twice_adds_once(notebook: Notebook) -> None:
    """The idempotency key of a call that is run again finds its first run."""
    first = notebook.remember("milk", context(key="a"))
    again = notebook.remember("milk", context(key="a"))

    assert first == again
    assert notebook.recall(context()) == "- milk"


@pytest.mark.parametrize("text", ["", " \n", "x" * 1_001])
def test_a_note_has_some_text_but_not_too_much(notebook: Notebook, text: str) -> None:
    """Empty and overlong notes are refused."""
    with pytest.raises(NotebookRefused):
        notebook.remember(text, context())


@pytest.mark.parametrize(
    ("about", "found"),
    [
        ("cat", ["- my cat is Tom", "- the cats' food is blue"]),
        ("my cat's food", ["- the cats' food is blue", "- my cat is Tom"]),
        ("", ["- my cat is Tom", "- the cats' food is blue", "- Ann lives in Oslo"]),
        ("me", ["- my cat is Tom", "- the cats' food is blue", "- Ann lives in Oslo"]),
        ("oslo", ["- Ann lives in Oslo"]),
        ("dog", ["none of my 3 notes is about 'dog'"]),
    ],
)
def test_notes_are_found_by_their_words(notebook: Notebook, about: str, found: list[str]) -> None:
    """The best match comes first; words that tell nothing find everything."""
    for note in ("my cat is Tom", "the cats' food is blue", "Ann lives in Oslo"):
        notebook.remember(note, context(key=note))

    assert found == notebook.recall(context(), about).splitlines()


def test_a_database_that_cannot_be_used_is_a_refusal_that_names_it(tmp_path: Path) -> None:
    """The model, and the person, read what is wrong."""
    (tmp_path / "chat.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(NotebookRefused, match=r"'chat\.db'"):
        Notebook(tmp_path / "chat.db").remember("x", context())


def test_calls_at_the_same_time_lose_nothing(notebook: Notebook) -> None:
    """Tools run in threads: their transactions wait for each other."""
    threads = [threading.Thread(target=notebook.remember, args=(f"item {n}", context(key=str(n)))) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(notebook.recall(context()).splitlines()) == 12


def test_the_tables_stand_beside_others(tmp_path: Path) -> None:
    """The chat has tables of its own in the file of the library's store."""
    with sqlite3.connect(tmp_path / "chat.db") as db:
        db.execute("CREATE TABLE conversations (id)")
    db.close()
    Notebook(tmp_path / "chat.db").remember("x", context())
    db = sqlite3.connect(tmp_path / "chat.db")

    assert {"conversations", "chat_notes"} <= {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    db.close()


def test_every_tool_has_a_description_for_each_argument(tmp_path: Path) -> None:
    """What the model reads is complete: it comes from the docstrings."""
    from trio_sagents import Tool

    for function in (*chat_tools(tmp_path / "chat.db"), send_money):
        spec: Any = Tool.of(function).spec

        assert spec.description
        assert "context" not in spec.parameters["properties"]
        assert all(parameter.get("description") for parameter in spec.parameters["properties"].values())

"""The chat's tools: what they keep, what they refuse, and that nothing said to them runs away."""

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents import State, ToolContext
from trio_sagents.cli._arithmetic import ArithmeticRefused, calculate, evaluate
from trio_sagents.cli._files import MAX_BYTES, FileRefused, Folder
from trio_sagents.cli._notebook import Notebook, NotebookRefused
from trio_sagents.cli._tools import chat_tools

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


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A working folder with a file, a folder, hidden things, and something outside."""
    root = tmp_path / "work"
    (root / "docs").mkdir(parents=True)
    (root / "README.md").write_text("# Hello\n")
    (root / "docs" / "index.md").write_text("index")
    (root / ".env").write_text("SECRET=1")
    (tmp_path / "outside.txt").write_text("outside")
    (root / "chat.db").write_bytes(b"a database")
    return Folder(root, [root / "chat.db", root / "chat.db-wal"])


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


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_of_the_folder_are_read_and_listed(folder: Folder) -> None:
    """Relative paths work, through folders too; hidden files are not listed."""
    assert folder.read_file("README.md") == "# Hello\n"
    assert folder.read_file("docs/../docs/index.md") == "index"
    assert folder.list_files() == "README.md\nchat.db\ndocs/"
    assert folder.list_files("docs") == "index.md"


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "/etc/passwd",
        "docs/../../outside.txt",
        "..",
        "~/x",
        "",
        " ",
        "a\0b",
        ".env",
        "docs/../.env",
        "nothing.txt",
        "docs",
        "x" * 5_000,
    ],
)
def test_other_paths_are_refused(folder: Folder, path: str) -> None:
    """Outside, hidden, missing, no file at all: each is refused with a reason."""
    with pytest.raises(FileRefused):
        folder.read_file(path)


@pytest.mark.parametrize("target", ["../outside.txt", "..", "/etc/passwd", "loop", ".env"])
def test_links_do_not_lead_out(folder: Folder, tmp_path: Path, target: str) -> None:
    """A link counts as what it points to."""
    (tmp_path / "work" / "loop").symlink_to(target)
    with pytest.raises(FileRefused):
        folder.read_file("loop" if target != ".." else "loop/outside.txt")


def test_a_link_inside_the_folder_is_read(folder: Folder, tmp_path: Path) -> None:
    """Links as such are harmless."""
    (tmp_path / "work" / "link").symlink_to("docs/index.md")

    assert folder.read_file("link") == "index"


@pytest.mark.parametrize("name", ["chat.db", "copy"])
def test_the_database_is_never_opened(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Opening and closing it would drop the locks that SQLite holds on it; another name for the same file does not help."""
    (tmp_path / "work" / "copy").hardlink_to(tmp_path / "work" / "chat.db")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(FileRefused, match="database"):
        folder.read_file(name)


def test_a_big_file_is_cut_with_a_mark(folder: Folder, tmp_path: Path) -> None:
    """The agent learns that there is more."""
    (tmp_path / "work" / "big.txt").write_text("x" * (MAX_BYTES + 10))

    assert folder.read_file("big.txt") == "x" * MAX_BYTES + f"\n[cut here: the file has {MAX_BYTES + 10} bytes]"


def test_what_is_no_text_file_is_refused(folder: Folder, tmp_path: Path) -> None:
    """Binaries, and pipes that would hold the thread."""
    (tmp_path / "work" / "binary").write_bytes(b"a\0b")
    os.mkfifo(tmp_path / "work" / "pipe")
    for name in ("binary", "pipe"):
        with pytest.raises(FileRefused):
            folder.read_file(name)


@given(st.text(max_size=30) | st.lists(st.sampled_from(["..", ".", "docs", "work", "outside.txt", "/", ""]), max_size=6).map("/".join))
def test_no_path_leads_out(text: str) -> None:
    """Whatever is asked for, nothing outside is read."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "work"
        root.mkdir()
        (Path(name) / "outside.txt").write_text("outside")
        try:
            found = Folder(root).read_file(text)
        except FileRefused:
            return

        assert found != "outside"


# ── todos and notes ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_todos_are_kept_by_number(notebook: Notebook, tmp_path: Path) -> None:
    """Adding, completing and removing act on the numbers that are shown; another notebook sees them."""
    assert notebook.list_todos(context()) == "the todo list is empty"
    assert notebook.add_todos(["milk", "  two\n words "], context(key="a")) == "added 1. milk, 2. two words"
    assert notebook.add_todos(["eggs"], context(key="b")) == "added 3. eggs"
    assert notebook.complete_todos([2, 3], context()) == "done: 2. two words, 3. eggs"
    assert notebook.remove_todos([3], context()) == "removed 3. eggs"
    assert Notebook(tmp_path / "chat.db").list_todos(context()) == "1. [ ] milk\n2. [x] two words"


def test_conversations_have_their_own(notebook: Notebook) -> None:
    """What one conversation keeps, another does not see."""
    notebook.add_todos(["milk"], context("1", "a"))
    notebook.remember("my cat is Tom", context("1", "b"))

    assert notebook.list_todos(context("2")) == "the todo list is empty"
    assert notebook.recall(context("2")) == "I have no notes yet"


def test_the_same_call_twice_adds_once(notebook: Notebook) -> None:
    """The idempotency key of a call that is run again finds its first run."""
    first = notebook.add_todos(["milk", "eggs"], context(key="a"))
    again = notebook.add_todos(["milk", "eggs"], context(key="a"))

    assert first == again
    assert notebook.list_todos(context()) == "1. [ ] milk\n2. [ ] eggs"


@pytest.mark.parametrize("numbers", [[], [7], [1, 7], [2**70], [-1]])
def test_an_unknown_number_changes_nothing(notebook: Notebook, numbers: list[int]) -> None:
    """A change of several todos is made whole or not at all."""
    notebook.add_todos(["milk"], context())
    for change in (notebook.complete_todos, notebook.remove_todos):
        with pytest.raises(NotebookRefused):
            change(numbers, context())

    assert notebook.list_todos(context()) == "1. [ ] milk"


@pytest.mark.parametrize("text", ["", " \n", "x" * 1_001])
def test_an_entry_has_some_text_but_not_too_much(notebook: Notebook, text: str) -> None:
    """Empty and overlong entries are refused."""
    with pytest.raises(NotebookRefused):
        notebook.add_todos(["milk", text], context())
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
    threads = [threading.Thread(target=notebook.add_todos, args=([f"item {n}"], context(key=str(n)))) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(notebook.list_todos(context()).splitlines()) == 12


def test_the_tables_stand_beside_others(tmp_path: Path) -> None:
    """They are the chat's own, in the file of the library's store."""
    with sqlite3.connect(tmp_path / "chat.db") as db:
        db.execute("CREATE TABLE conversations (id)")
    db.close()
    Notebook(tmp_path / "chat.db").remember("x", context())
    db = sqlite3.connect(tmp_path / "chat.db")

    assert {"conversations", "chat_notes", "chat_todos"} <= {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    db.close()


def test_every_tool_has_a_description_for_each_argument(tmp_path: Path) -> None:
    """What the model reads is complete: it comes from the docstrings."""
    from trio_sagents import Tool

    for function in chat_tools(tmp_path / "chat.db", tmp_path):
        spec: Any = Tool.of(function).spec

        assert spec.description
        assert "context" not in spec.parameters["properties"]
        assert all(one.get("description") for one in spec.parameters["properties"].values())

"""What a person is asked, and what is made of the answer: pure functions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents import Answer, Option, PendingCall, Question
from trio_sagents.cli._preview import MAX_LINES, arguments_text, asking, call_lines, cut, parse_answer, parse_arguments, visible

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


def call(name: str = "tool", arguments: Any = None, **claim: Any) -> PendingCall:
    """Return a call that waits."""
    return PendingCall("c1", name, {} if arguments is None else arguments, "interrupted", interrupt_id="i", **claim)


def question(kind: Any = "single", *options: str, **allowed: bool) -> PendingCall:
    """Return a question that waits."""
    return call(
        "ask_user", kind="question", question=Question("Which?", kind, [Option(option, f"the {option}") for option in options], **allowed)
    )


@pytest.mark.parametrize(
    ("name", "arguments", "lines"),
    [
        ("halt", {}, ["  halt()"]),
        ("pay", {"to": "Änn", "n": 1}, ["  pay", "    {", '      "to": "Änn",', '      "n": 1', "    }"]),
        ("create_file", {"path": "/a", "content": "x\ny\n"}, ["  create_file /a", "  + x", "  + y"]),
        ("create_file", {"path": "/a", "content": "x\ny"}, ["  create_file /a", "  + x", "  + y  [no line end]"]),
        ("create_file", {"path": "/a", "content": ""}, ["  create_file /a"]),
        ("replace_file_text", {"path": "/a", "old_text": "x", "new_text": "y"}, ["  replace_file_text /a", "  - x", "  + y"]),
        (
            "replace_file_text",
            {"path": "/a", "old_text": "x", "new_text": "", "replace_all": True},
            ["  replace_file_text /a, everywhere", "  - x"],
        ),
        ("delete_file", {"path": "/a"}, ["  delete_file /a"]),
        ("move_file", {"old_path": "/a", "new_path": "/b"}, ["  move_file /a → /b"]),
    ],
)
def test_a_call_is_shown_as_what_it_would_do(name: str, arguments: Any, lines: list[str]) -> None:
    """Changes of files as differences, anything else as its arguments."""
    assert lines == call_lines(call(name, arguments))


@pytest.mark.parametrize("name", ["create_file", "replace_file_text", "delete_file", "move_file"])
@pytest.mark.parametrize(
    "arguments", [{"path": "/a", "content": 1}, {"path": "/a", "content": "x", "mode": "0777"}, {"path": "/a", "sudo": True}]
)
def test_arguments_that_are_not_known_are_shown_as_they_are(name: str, arguments: Any) -> None:
    """No argument is left out, whatever the tool is called."""
    assert json.dumps(arguments, indent=2).splitlines() == [line[4:] for line in call_lines(call(name, arguments))[1:]]


@pytest.mark.slow
@given(st.dictionaries(st.text(), JSON_VALUES))
def test_what_is_shown_hides_nothing(arguments: dict[str, Any]) -> None:
    """Every line can be seen as it is: no control characters, no marks that turn the text around."""
    assert all(line.isprintable() for line in call_lines(call("tool", arguments)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\nb"),
        ("a\rb\x1b[2J", "a\\rb\\u001b[2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u200bb", "a\\u200bb"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_characters_that_hide_are_shown_by_their_numbers(text: str, shown: str) -> None:
    """A line end is shown as a line end; every other invisible character is written as its number."""
    assert shown == visible(text)


def test_a_long_call_is_cut_with_a_word_on_it() -> None:
    """The person is told how much is missing, and how to see it."""
    lines = call_lines(call("create_file", {"path": "/a", "content": "x\n" * 100}))

    assert len(cut(lines)) == MAX_LINES + 1
    assert cut(lines)[-1] == f"  [… {101 - MAX_LINES} more lines: v shows all of them]"
    assert cut(lines[:5]) == lines[:5]
    assert len(asking(call("create_file", {"path": "/a", "content": "x\n" * 100}), 1, 1, whole=True)) == 102


def test_where_a_call_comes_from_is_said() -> None:
    """The sub-agents it is from, its place among several, and why it waits."""
    text = "".join(piece.text for piece in asking(call(path=["helper", "in\x1bner"], text="a reason"), 2, 3))

    assert text == "Approve this call of the sub-agent helper / in\\u001bner? (2 of 3)\n  tool()\n  (a reason)\n"


@pytest.mark.parametrize(
    ("pending", "typed", "answer"),
    [
        (question("single", "a", "b"), "2", {"value": "b"}),
        (question("single", "a", "b"), " B ", {"value": "b"}),
        (question("single", "a", "b"), "the A", {"value": "a"}),
        (question("single", "1", "2"), "2", {"value": "2"}),
        (question("single", "7", "8"), "8", {"value": "8"}),
        (question("single", "a", "b", allow_other=True), "c, d", {"other": "c, d"}),
        (question("multi", "a", "b", "c"), "3,1", {"value": ["c", "a"]}),
        (question("multi", "a", "b", "c"), "a, 1", {"value": ["a"]}),
        (question("multi", "a", "b", allow_other=True), "x, 1, y", {"value": ["a"], "other": "x, y"}),
        (question("multi", "a", "b", allow_other=True), "x", {"other": "x"}),
        (question("text"), " hello ", {"value": "hello"}),
        (question("text"), "/CANCEL", {"cancel": True}),
        (question("single", "a", "b"), "/cancel", {"cancel": True}),
    ],
)
def test_an_answer_is_read(pending: PendingCall, typed: str, answer: dict[str, Any]) -> None:
    """An answer is read as a number, as words, as a free text, or as nothing."""
    found = parse_answer(pending, typed)

    assert isinstance(found, Answer)
    assert answer == found.content


@pytest.mark.parametrize(
    ("pending", "typed", "words"),
    [
        (question("single", "a", "b"), "", "the answer is empty"),
        (question("single", "a", "b"), "3", "1 to 2"),
        (question("single", "a", "b", allow_other=True), "3", "1 to 2"),
        (question("single", "a", "b"), "c", "not one of the 2 options"),
        (question("multi", "a", "b"), "1,c", "not one of the 2 options"),
        (question("single", "a", "b", allow_cancel=False), "/cancel", "must be answered"),
        (question("text"), " ", "the answer is empty"),
    ],
)
def test_what_answers_nothing_is_told(pending: PendingCall, typed: str, words: str) -> None:
    """With the way to answer."""
    with pytest.raises(ValueError, match=words):
        parse_answer(pending, typed)


@pytest.mark.slow
@given(st.dictionaries(st.text(), JSON_VALUES))
def test_arguments_can_be_edited_on_one_line(arguments: dict[str, Any]) -> None:
    """Arguments are edited as one printable line, and a line that is left unchanged means the same arguments."""
    text = arguments_text(call("tool", arguments))

    assert text.isprintable()
    assert arguments == parse_arguments(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", '{"a": NaN}', "{'a': 1}", "[" * 100_000])
def test_what_is_no_json_object_is_told(text: str) -> None:
    """Text that is not a JSON object is answered with a line that says where the error is, or what is expected."""
    with pytest.raises(ValueError, match=r"JSON|deeply"):
        parse_arguments(text)

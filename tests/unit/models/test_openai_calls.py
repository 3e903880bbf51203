"""Tool calls of every shape that servers give them: each is run once, with its own arguments, or the model is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.models._answer import BadFinish
from trio_sagents.models._fields import UnexpectedContent
from trio_sagents.models._openai_calls import CallAssembly

ROME, OSLO = '{"city": "Rome"}', '{"city": "Oslo"}'


def piece(index: Any = None, call_id: Any = None, name: str | None = None, arguments: Any = None) -> dict[str, Any]:
    """Return a piece with what is given."""
    function = {**({"name": name} if name else {}), **({"arguments": arguments} if arguments is not None else {})}
    return {**({} if index is None else {"index": index}), **({} if call_id is None else {"id": call_id}), "function": function}


def calls_of(*pieces: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (tool, JSON text of the arguments) of each call, as the chunks say it."""
    assembly = CallAssembly()
    chunks = [chunk for one in pieces for chunk in assembly.add(one)]
    chunks += assembly.finish()
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    ids = [chunk.id for chunk in chunks if chunk.name]
    assert all(ids)
    for chunk in chunks:
        names.setdefault(chunk.index, chunk.name or "")
        arguments[chunk.index] = arguments.get(chunk.index, "") + chunk.arguments_json
    return [(names[number], arguments[number]) for number in sorted(names)]


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "f", ""), piece(0, arguments=ROME), piece(1, "b", "f", ""), piece(1, arguments=OSLO)],
        [
            piece(0, "a", "f", ""),
            piece(1, "b", "f", ""),
            piece(0, arguments=ROME[:5]),
            piece(1, arguments=OSLO),
            piece(0, arguments=ROME[5:]),
        ],
        [piece(0, "a", "f", ROME), piece(0, "b", "f", OSLO)],
        [piece(0, "a", "f", ROME), piece(0, "", "f", OSLO)],
        [piece(None, None, "f", ROME), piece(None, None, "f", OSLO)],
        [piece(0, "", "f", ROME), piece(0, "", "f", OSLO)],
        [piece(None, "a", "f", ""), piece(arguments=ROME), piece(None, "b", "f", ""), piece(arguments=OSLO)],
        [piece(0, "a", "f", ""), piece(0, arguments=ROME), piece(0, "b", "f", ""), piece(1, arguments=OSLO)],
        [piece(0, "a", "f", ""), piece(1, arguments=ROME), piece(0, "b", "f", ""), piece(1, arguments=OSLO)],
        [piece(0, "a", "f", ""), piece(0, "x", None, ROME[:4]), piece(0, "y", None, ROME[4:]), piece(1, "b", "f", OSLO)],
        [piece(0, "a", "f", ""), piece(0, "a", "f", ROME[:4]), piece(0, "a", "f", ROME[4:]), piece(1, "b", "f", OSLO)],
        [piece(0, None, "f", ROME[:4]), piece(0, None, "f", ROME[4:]), piece(0, None, "f", OSLO)],
        [piece(0, "a", None, ROME), piece(0, None, "f"), piece(1, "b", None, OSLO), piece(1, None, "f")],
        [piece(0, "a", "f", {"city": "Rome"}), piece(0, "b", "f", {"city": "Oslo"})],
        [piece(0, "same", "f", ROME), piece(1, "same", "f", OSLO)],
        [piece(0, "same", "f", ROME), piece(0, "same", "f", OSLO)],
        [piece(0, 7, "f", ROME), piece(0, 8, "f", OSLO)],
        [piece(0, "a", "f", ""), piece(1, arguments=ROME), piece(1, "b", "f", ""), piece(2, arguments=OSLO)],
        [piece(0, "a", "f", ""), piece("1", arguments=ROME), piece("1", "b", "f", ""), piece("1", arguments=OSLO)],
        [piece(None, "x", "f", ""), piece(None, "x", None, ROME), piece(None, "x", "f", ""), piece(None, "x", None, OSLO)],
        [piece(0, "a", "f", ROME), piece(0, "a", "f", ROME), piece(1, "b", "f", OSLO)],
        [piece(0, "a", "f", ROME), piece(0, arguments=" "), piece(0, arguments=""), piece(1, "b", "f", OSLO)],
    ],
)
def test_two_calls_in_every_shape(pieces: list[dict[str, Any]]) -> None:
    """Both calls keep their own arguments, whatever the server does with indexes, ids and names."""
    found = calls_of(*pieces)

    assert ["f", "f"] == [name for name, _ in found]
    assert [{"city": "Rome"}, {"city": "Oslo"}] == [json.loads(arguments) for _, arguments in found]


@pytest.mark.parametrize("arguments", [None, "", {}])
def test_arguments_when_there_are_none(arguments: Any) -> None:
    """No arguments are an empty object, in whatever form they are left out."""
    assert [("f", {})] == [(name, json.loads(text)) for name, text in calls_of(piece(0, "a", "f", arguments))]


@pytest.mark.parametrize("arguments", [5, True, [1], "text", "5", "[1]"])
def test_arguments_when_they_are_no_object(arguments: Any) -> None:
    """What is no object is handed on as it is, for the model to be told; it is not taken for nothing."""
    (found,) = calls_of(piece(0, "a", "f", arguments))

    assert found[1] not in {"", "{}"}


def test_piece_when_its_call_is_whole() -> None:
    """The same arguments once more are no others; more arguments for a call that is whole are of another call, and nobody knows which."""
    assert [("f", ROME)] == calls_of(
        piece(0, "a", "f", ""), piece(0, arguments=ROME[:3]), piece(0, arguments=ROME[3:]), piece(0, arguments=ROME)
    )
    with pytest.raises(UnexpectedContent, match="has all of them"):
        calls_of(piece(0, "a", "f", ROME), piece(1, "b", "f", ""), piece(0, arguments=OSLO))


@pytest.mark.parametrize(
    "pieces", [[piece(0, arguments=ROME)], [piece(0, "a", None, ROME)], [piece(0, arguments=ROME), piece(0, "a", "f", "")]]
)
def test_call_when_its_name_never_comes(pieces: list[dict[str, Any]]) -> None:
    """Pieces without the name of a tool are no call, and are not dropped without a word."""
    with pytest.raises(BadFinish, match="without the name"):
        calls_of(*pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "f", ROME[:4]), piece(1, arguments=OSLO), piece(1, "b", "f", "")],
        [piece(0, "a", "f", ROME[:4]), piece(1, "b", "f", OSLO[:4]), piece(2, arguments=OSLO[4:])],
        [piece(0, "a", "f", ROME), {"index": [1], "function": {"arguments": OSLO}}],
    ],
)
def test_piece_when_it_may_belong_to_several(pieces: list[dict[str, Any]]) -> None:
    """Nobody guesses whose arguments these are."""
    with pytest.raises(UnexpectedContent):
        calls_of(*pieces)


@pytest.mark.parametrize("odd", [{"type": "custom", "custom": {"name": "f"}}, {"function": "f"}, {"function": [1]}])
def test_piece_when_it_is_of_another_type(odd: dict[str, Any]) -> None:
    """A call in a form that is not known is an error: without it the answer would pass for a whole one."""
    with pytest.raises(UnexpectedContent):
        calls_of({"index": 0, "id": "a", **odd})


def test_fields_when_they_are_not_known() -> None:
    """Fields of a call that are not known by name are kept, those inside its function, too."""
    assembly = CallAssembly()
    list(assembly.add({**piece(0, "a", "f", ROME[:3]), "extra_content": {"seal": 1}}))
    list(assembly.add({"index": 0, "function": {"arguments": ROME[3:], "thought_signature": "S"}, "later": [2], "nothing": None}))

    assert {"extra_content": {"seal": 1}, "function": {"thought_signature": "S"}, "later": [2]} == assembly.calls[0].extras


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=5), _JSON, max_size=3), min_size=1, max_size=3), st.data())
def test_arguments_when_cut_anywhere(given: list[dict[str, Any]], data: st.DataObject) -> None:
    """Whatever the arguments hold, and wherever they are cut, servers without ids and indexes are understood."""
    pieces: list[dict[str, Any]] = []
    for arguments in given:
        text = json.dumps(arguments, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1])))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
        parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        pieces.append(piece(None, None, "f", parts[0]))
        pieces += [piece(arguments=part) for part in parts[1:]]

    assert given == [json.loads(arguments) for _, arguments in calls_of(*pieces)]

"""What a server writes, before the SDK reads it: lines as JSON-RPC, answers in a form that can be taken, schemas for providers."""

import json
from collections.abc import Sequence
from typing import Any

import mcp_types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, methods

from trio_sagents.mcp._answers import Answers, repaired_initialize, repaired_list
from trio_sagents.mcp._schemas import plain_names, take_schema
from trio_sagents.mcp._tools import make_tools
from trio_sagents.mcp._wire import PARSE_ERROR, UNREADABLE, WRAPPED, read_messages, unwrapped


def text(**fields: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", **fields})


def read(line: str, **settings: Any) -> list[Any]:
    """Return the messages in a line as JSON."""
    return [message.model_dump(exclude_unset=True) for message in read_messages(line.encode(), **settings)]


# ── lines ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (text(id=1, result={"a": 1}), [ANSWER]),
        (f"\ufeff  {text(id=1, result={'a': 1})} \r", [ANSWER]),
        ('{"id": 1, "result": {"a": 1}}', [ANSWER]),
        ('{"jsonrpc": "1.0", "id": 1.0, "result": {"a": 1}, "error": null}', [ANSWER]),
        (text(id="1", result={}), [{"jsonrpc": "2.0", "id": "1", "result": {}}]),
        (text(id=1, result="done"), [{"jsonrpc": "2.0", "id": 1, "result": {WRAPPED: "done"}}]),
        (text(id=1, result=None), [{"jsonrpc": "2.0", "id": 1, "result": {WRAPPED: None}}]),
        (f"[{text(id=1, result={})}, 5, {text(method='m')}]", [{**ANSWER, "result": {}}, {"jsonrpc": "2.0", "method": "m"}]),
        (text(method="m", params=[1]), [{"jsonrpc": "2.0", "method": "m"}]),
        (text(method="m", id=None, params={"a": 1}), [{"jsonrpc": "2.0", "method": "m", "params": {"a": 1}}]),
        (text(method="m", id=2, params={"a": 1}), [{"jsonrpc": "2.0", "id": 2, "method": "m", "params": {"a": 1}}]),
        ('{"id": 1, "result": {"a": "\\ud800"}}', [{**ANSWER, "result": {"a": "\ufffd"}}]),
        ("", []),
        ("starting up...", []),
        ('{"level": "info", "message": "ready"}', []),
        ('{"level": "info", "result": "no', []),
        ("[" * 5000, []),
        ("5", []),
        (text(id=1), None),
    ],
)
def test_read_messages_when_one_meaning_is_possible(line: str, expected: Any) -> None:
    """What is almost JSON-RPC is read as what it means; what is none at all is ignored."""
    found = read(line)

    if expected is not None:
        assert expected == found
    else:
        assert [(1, PARSE_ERROR)] == [(each["id"], each["error"]["code"]) for each in found]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"code": -5, "message": "no", "data": 1}, -5, "no"),
        ({"code": "-5", "message": "no"}, -32603, "no"),
        ({"message": ""}, -32603, '{"message": ""}'),
        ({"reason": "no"}, -32603, '{"reason": "no"}'),
        ("no", -32603, "no"),
        (5, -32603, "5"),
        (True, -32603, "true"),
    ],
)
def test_read_messages_when_it_is_an_error(error: Any, code: int, message: str) -> None:
    """An error keeps its words, in whatever form it is."""
    (found,) = read(text(id=1, error=error))

    assert (code, message) == (found["error"]["code"], found["error"]["message"])


@pytest.mark.parametrize(
    ("line", "number", "kind"),
    [
        ('{"jsonrpc": "2.0", "id": 7, "result": {"content": [', 7, JSONRPCResponse),
        ('{"jsonrpc": "2.0", "result": {"content": []}, "id": 7,}', 7, JSONRPCResponse),
        ('{"jsonrpc": "2.0", "id": 7, "error": {"code": ', 7, JSONRPCError),
        ('{"jsonrpc": "2.0", "result": {', None, JSONRPCError),
        (text(result={}), None, JSONRPCError),
        (text(id=None, result={}), None, JSONRPCError),
        (text(id=True, result={}), None, JSONRPCError),
        (text(id=None, error={"code": 1, "message": "m"}), None, JSONRPCError),
        (text(id="x" * 1000, result={}), None, JSONRPCError),
    ],
)
def test_read_messages_when_an_answer_is_damaged(line: str, number: Any, kind: type) -> None:
    """What looks like an answer is one, so that nobody waits for it for ever; what cannot be known of it is not made up."""
    (found,) = read_messages(line.encode())
    assert isinstance(found, JSONRPCResponse | JSONRPCError)

    assert (number, kind) == (found.id, type(found))
    if isinstance(found, JSONRPCResponse):
        assert {UNREADABLE: line} == found.result


def test_read_messages_when_the_transport_knows_what_is_answered() -> None:
    """The body of an HTTP answer answers its request, whatever id it has; other messages in it are kept."""
    notice = {"jsonrpc": "2.0", "method": "m"}

    assert [{**ANSWER, "id": 9}] == read(text(id=1, result={"a": 1}), reply_to=9)
    batch = f"[{text(method='m')}, {text(id=1, result={'a': 1})}, {text(id=2, result={})}]"

    assert [notice, {**ANSWER, "id": 9}] == read(batch, reply_to=9)
    assert [9] == [each["id"] for each in read(text(result={}), reply_to=9)]


def test_unwrapped_when_it_was_an_object() -> None:
    """A result that has other keys is an object of the server."""
    assert ({WRAPPED: 1, "a": 1}, 1) == (unwrapped({WRAPPED: 1, "a": 1}), unwrapped({WRAPPED: 1}))


@given(st.binary() | st.text(alphabet='{}[]":,0123456789.eE-jsonrpcidresultmethodparamserror ').map(str.encode))
def test_read_messages_when_the_line_is_anything(data: bytes) -> None:
    """No line raises an error."""
    assert isinstance(read_messages(data), Sequence)


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def heard(answers: Answers, line: str) -> Any:
    (message,) = read_messages(line.encode())
    return answers.heard(message)


def asked(*requests: tuple[int, str]) -> Answers:
    answers = Answers([].append)
    for number, method in requests:
        answers.asked(JSONRPCRequest(jsonrpc="2.0", id=number, method=method))
    return answers


def test_answers_when_a_call_is_answered() -> None:
    """The result of a call reaches the caller as the server sent it, and once."""
    answers = asked((1, "tools/call"))
    result = heard(answers, text(id="1", result=[1, 2])).result

    assert [] == result["content"]
    assert [1, 2] == answers.take(result["_meta"])
    assert (None, None, None) == (answers.take(result["_meta"]), answers.take(None), answers.take({}))
    assert {} == answers.waiting


def test_answers_when_the_id_is_missing() -> None:
    """An answer without an id belongs to the one request that waits; if several wait, to none."""
    each, two = asked((1, "tools/call")), asked((1, "tools/call"), (2, "tools/call"))

    assert (1, {}) == (heard(each, text(result={})).id, each.waiting)
    assert (None, 2) == (heard(two, text(result={})).id, len(two.waiting))


def test_answers_when_the_id_is_not_known() -> None:
    """An answer twice, or to nothing, is not given to somebody else."""
    answers = asked((1, "tools/call"), (2, "tools/call"))
    heard(answers, text(id=1, result={"content": "one"}))
    again = heard(answers, text(id=1, result={"content": "again"}))

    assert ({"content": "again"}, {2: "tools/call"}) == (again.result, answers.waiting)


def test_answers_when_a_request_is_cancelled() -> None:
    """Who gave up does not wait any more."""
    answers = asked((1, "tools/call"), (2, "tools/call"), (3, "subscriptions/listen"))
    answers.asked(JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params={"requestId": 1}))
    answers.asked(JSONRPCNotification(jsonrpc="2.0", method="notifications/other"))

    assert {2: "tools/call"} == answers.waiting


def test_answers_when_results_are_not_taken() -> None:
    """Results of cancelled calls do not pile up."""
    answers = Answers([].append)
    for number in range(2000):
        answers.asked(JSONRPCRequest(jsonrpc="2.0", id=number, method="tools/call"))
        heard(answers, text(id=number, result={}))

    assert 1000 == len(answers.results)


def test_answers_when_more_input_is_wanted() -> None:
    """An answer that asks for something is left to the SDK."""
    result = {"resultType": "input_required", "requestState": "x"}

    assert result == heard(asked((1, "tools/call")), text(id=1, result=result)).result


def test_answers_when_the_probe_is_not_answered() -> None:
    """A probe that is given up is answered, once."""
    answers = asked((1, "server/discover"))
    answer = answers.give_up_probe()
    assert isinstance(answer, JSONRPCError)

    assert (1, None, {}) == (answer.id, answers.probe, answers.waiting)
    assert {"a": 1} == heard(answers, text(id=1, result={"a": 1})).result


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("2025-06-18", "2025-06-18"),
        ("2024-10-07", "2024-11-05"),
        ("2025-04-01", "2025-03-26"),
        ("2999-01-01", "2025-11-25"),
        ("1.0", "2024-11-05"),
        (None, "2024-11-05"),
    ],
)
def test_initialize_when_the_version_is_odd(said: Any, version: str) -> None:
    """A version that is not known is taken as the nearest one that is."""
    assert version == repaired_initialize({"protocolVersion": said})["protocolVersion"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, {"tools": {"listChanged": False}}),
        ([], {"tools": {"listChanged": False}}),
        ({}, {"tools": {"listChanged": False}}),
        ({"prompts": {}}, {}),
        ({"tools": None}, {"tools": {"listChanged": False}}),
        ({"tools": {"listChanged": True}, "other": 5}, {"tools": {"listChanged": True}}),
    ],
)
def test_initialize_when_capabilities_are_odd(said: Any, expected: Any) -> None:
    """A server that says nothing of itself is asked for its tools; one that has others is not."""
    found = repaired_initialize({"capabilities": said, "serverInfo": "me", "instructions": 5})

    assert (expected, {"name": "unknown", "version": "unknown"}) == (found["capabilities"], found["serverInfo"])
    assert "instructions" not in found


def test_list_when_entries_are_wrong() -> None:
    """One bad entry does not take the others: each is looked at by itself, and what is left out is named."""
    warnings: list[str] = []
    flags = {"readOnlyHint": True, "destructiveHint": "no", "title": 5, "odd": 1}
    full = {"name": "full", "description": "d", "title": "t", "annotations": {"title": "a"}}
    entries = [
        5,
        {},
        {"name": ""},
        {"name": "array", "inputSchema": {"type": "array"}},
        {"name": "text", "inputSchema": "object"},
        {"name": "bare", "description": 5, "title": {}, "outputSchema": 5, "icons": "x", "annotations": flags},
        {**full, "inputSchema": {"properties": {}}},
    ]
    page = repaired_list({"tools": entries, "nextCursor": 5}, warnings.append)

    assert [
        {"name": "bare", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
        {
            "name": "full",
            "inputSchema": {"properties": {}, "type": "object"},
            "description": "d",
            "title": "t",
            "annotations": {"title": "a"},
        },
    ] == page["tools"]
    assert "nextCursor" not in page
    assert [
        *[f"entry {place} of the list of tools is left out: it has no name" for place in range(3)],
        "the tool 'array' is left out: its schema does not describe an object",
        "the tool 'text' is left out: its schema does not describe an object",
    ] == warnings


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({}, "the list of tools is missing"),
        ({"tools": None}, "the list of tools is missing"),
        ({"tools": {"a": {}}}, "the list of tools is not a list, but dict"),
        ({UNREADABLE: "{"}, "the list of tools cannot be read"),
    ],
)
def test_list_when_it_is_none(result: Any, words: str) -> None:
    """A server without a list has no tools."""
    warnings: list[str] = []

    assert ([], [words]) == (repaired_list(result, warnings.append)["tools"], warnings)


KEYS = st.sampled_from(["name", "inputSchema", "type", "properties", "required", "annotations", "title", "$ref", "anyOf", "description"])
JSONS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
GOOD = [{"name": f"good-{number}", "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}}} for number in range(3)]


@given(JSONS | st.fixed_dictionaries({"name": st.just("bad"), "inputSchema": JSONS}), st.integers(0, 3))
def test_list_when_one_entry_is_anything(bad: Any, place: int) -> None:
    """Whatever one entry is, the others are tools, and the SDK takes the list."""
    page = repaired_list({"tools": [*GOOD[:place], bad, *GOOD[place:]]}, [].append)
    for version in ("2024-11-05", "2025-11-25", "2026-07-28"):
        methods.validate_server_result("tools/list", version, page)
    listed = mcp_types.ListToolsResult.model_validate(page, by_name=False).tools
    tools = make_tools(listed, "server", "", lambda *_: None, [].append)  # type: ignore[arg-type, return-value]  # nobody calls

    assert [each["name"] for each in GOOD] == [tool.name for tool in tools if tool.name.startswith("good")]


# ── schemas ───────────────────────────────────────────────────────────────────────────────────────────────────────────

A = {"a": {"type": "string"}}
B = {"b": {"type": "integer"}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, {"type": "object", "properties": {}}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x"}, {"type": "object", "properties": {}}),
        ({"type": "object", "properties": A, "required": ["a"]}, {"type": "object", "properties": A, "required": ["a"]}),
        ({"properties": A, "required": ["a", "lost"]}, {"type": "object", "properties": A, "required": ["a"]}),
        ({"properties": {"yes": True, "no": False}}, {"type": "object", "properties": {"yes": {}}}),
        (
            {"properties": A, "additionalProperties": False, "title": "T"},
            {"type": "object", "properties": A, "additionalProperties": False, "title": "T"},
        ),
        (
            {"anyOf": [{"properties": A, "required": ["a"]}, {"properties": {**A, **B}, "required": ["a", "b"]}]},
            {"type": "object", "properties": {**A, **B}, "required": ["a"]},
        ),
        (
            {"allOf": [{"properties": A, "required": ["a"]}, {"properties": B, "required": ["b"]}], "properties": {}},
            {"type": "object", "properties": {**B, **A}, "required": ["b", "a"]},
        ),
        (
            {"oneOf": [{"$ref": "#/$defs/one"}, True], "$defs": {"one": {"properties": A, "required": ["a"]}}},
            {"type": "object", "properties": A, "required": ["a"], "$defs": {"one": {"properties": A, "required": ["a"]}}},
        ),
        (
            {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"properties": A}}},
            {"type": "object", "properties": A, "definitions": {"a/b": {"properties": A}}},
        ),
        (
            {"properties": {"list": {"type": "array", "items": {"$ref": "#/properties/a"}}, **A}},
            {"type": "object", "properties": {"list": {"type": "array", "items": {"$ref": "#/properties/a"}}, **A}},
        ),
    ],
)
def test_schema_when_it_can_be_taken(schema: Any, expected: Any) -> None:
    """A schema is put into the form that all providers take: an object, without alternatives at the top."""
    assert expected == take_schema(schema).schema


def test_schema_when_it_refers_to_itself() -> None:
    """Alternatives that refer to each other end."""
    schema = {"anyOf": [{"$ref": "#"}, {"properties": A}], "$ref": "#/$defs/me", "$defs": {"me": {"$ref": "#/$defs/me"}}}

    assert A == take_schema(schema).schema["properties"]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (5, "its schema does not describe an object"),
        ({"type": "string"}, "its schema does not describe an object"),
        ({"type": ["object", "null"]}, "its schema does not describe an object"),
        ({"properties": []}, r"its schema is not valid at \['properties'\]: \[\] is not of type 'object'"),
        ({"required": "a"}, "its schema is not valid"),
        ({"properties": {"a": {"type": "text"}}}, r"its schema is not valid at \['properties'\]\['a'\]\['type'\]"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "its schema refers to '#/\\$defs/none', which is not in it"),
        ({"properties": {"a": {"$ref": "https://example.org/s"}}}, "its schema refers to 'https://example.org/s', which is not in it"),
        ({"properties": {"a": {"const": float("inf")}}}, "inf has no JSON form"),
        ({"description": "x" * 100_000}, "its schema has more than 65536 characters"),
    ],
)
def test_schema_when_it_cannot_be_taken(schema: Any, words: str) -> None:
    """A schema that a provider would refuse is refused here, and the words say why."""
    with pytest.raises((TypeError, ValueError), match=words):
        take_schema(schema)


@given(st.lists(st.text(max_size=3) | st.text("ab._/", max_size=80), unique=True), st.randoms(use_true_random=False))
def test_plain_names_when_they_are_anything(names: list[str], random: Any) -> None:
    """No two names are the same, all providers take them, and the order does not matter."""
    plain = plain_names(names)
    shuffled = random.sample(names, len(names))

    assert len(names) == len(set(plain.values()))
    assert all(each and len(each) <= 64 and each.isascii() for each in plain.values())
    assert plain == plain_names(shuffled)

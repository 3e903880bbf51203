"""Stored conversations, damaged on purpose, and what may become of them.

A `Blob` is a conversation as the texts of a database. `mutated` damages one that is valid: as a tree (types, keys, tags, ids, statuses,
numbers, depth, order), as text (keys twice, constants that are no JSON) and as bytes. `judge` decodes it as the runtime does and
names what is wrong with the outcome: anything but a refusal by `StateError`, or a conversation that is valid and loads again.
"""

import datetime
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from trio_sagents.conversation import codec
from trio_sagents.conversation.closing import close_after_crash
from trio_sagents.conversation.history import open_calls
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits
from trio_sagents.conversation.state import ConversationState, Moment
from trio_sagents.data.interrupt_wire import encode_interrupt, encode_pending, encode_record, records_of
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, Option, Question, pending
from trio_sagents.data.messages import FilePart, ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.records import Conversation
from trio_sagents.data.todos import Todo
from trio_sagents.data.wire import encode_message, encode_todo
from trio_sagents.exceptions import StateError
from trio_sagents.persistence._records import decode_records, decode_value

Text: TypeAlias = str | bytes
NAME: Final = "c"


@attrs.frozen
class Blob:
    """One stored conversation: texts, or bytes that are not text."""

    messages: tuple[Text, ...] = ()
    queue: tuple[Text, ...] = ()
    state: tuple[tuple[str, Text], ...] = ()
    ids: tuple[tuple[str, str], ...] = ()
    epoch: int = 1
    revision: int = 3


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _blob(messages: Sequence[Message], queue: Sequence[Message] = (), **state: Any) -> Blob:
    return Blob(
        tuple(_text(encode_message(message)) for message in messages),
        tuple(_text(encode_message(message)) for message in queue),
        tuple((name, _text(value)) for name, value in state.items()),
        tuple((message.message_id, message.digest) for message in (*messages, *queue) if message.digest),
    )


def _said(number: int, text: str, turn: str | None = "t") -> Message:
    return Message(f"u{number}", "user", (TextPart(text),), turn_id=turn, digest=f"{number:064x}")


def _answered(number: int, *parts: Any, stop: Any = "stop", **more: Any) -> Message:
    return Message(f"a{number}", "assistant", parts, stop, "t", **more)


CALL: Final = ToolCall("c1", "rm", {"path": "/tmp", "n": [1, 2.5, {"a": None}], "deep": {"b": {"c": True}}})
OTHER: Final = ToolCall("c2", "look", {})


def _waiting(call: ToolCall, **more: Any) -> dict[str, Any]:
    """Return a call of an interrupt, as stored."""
    about: dict[str, Any] = {"interrupt_id": "i1", "claimed_by": "Approvals", "text": "sure?", **more}
    return dict(encode_pending(pending(call, **about)))


def _interrupt(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an interrupt, as stored."""
    return {**encode_interrupt(Interrupt("i1", "t"), {}), "calls": list(calls), **more}


CONTENTS: Final = (
    "{}",
    "",
    "[",
    "null",
    '{"arguments": 1}',
    '{"arguments": {"path": "/"}}',
    '{"arguments": {"path": NaN}}',
    '{"reason": 1}',
)


def _record(call: ToolCall, **more: Any) -> dict[str, Any]:
    """Return a decision about a call, as stored."""
    about = {"kind": "approve", "content": "{}", "text": "", "by": "alice", "at": "2024-01-01T00:00:00+00:00", **more}
    return dict(encode_record(DecisionRecord(interrupt_id="i1", call_id=call.call_id, digest=call.digest, **about)))


QUESTION: Final = Question("Which?", "single", (Option("a", "A"), Option("b")))
SEEDS: Final[Sequence[Blob]] = (
    _blob([_said(1, "hello"), _answered(1, TextPart("hi"))], todos=[encode_todo(Todo(1, "a")), encode_todo(Todo(2, "b", "completed"))]),
    _blob(
        [
            _said(1, "äöü 你好"),
            _answered(1, TextPart("I look."), CALL, OTHER, stop="tool_calls"),
            Message("r1", "tool", (ToolResult("c1", "rm", "gone"),), turn_id="t"),
            Message("r2", "tool", (ToolResult("c2", "look", "no", "failed"),), turn_id="t"),
            _answered(2, TextPart("done")),
        ],
        [_said(2, "and then?", None)],
        metadata={"title": "A chat", "n": 3},
    ),
    _blob(
        [_said(1, "delete it"), _answered(1, CALL, OTHER, stop="tool_calls")],
        interrupt=_interrupt(_waiting(CALL), _waiting(OTHER, kind="question", allowed=["answer"], question=QUESTION)),
    ),
    _blob(
        [_said(1, "delete it"), _answered(1, CALL, OTHER, stop="tool_calls")],
        interrupt=_interrupt(_waiting(CALL), decided=[_record(OTHER)], expires_at="2024-01-02T00:00:00+00:00"),
    ),
    _blob([_said(1, "tell me")], draft=encode_message(_answered(7, ThinkingPart("hm"), TextPart("once up"), stop=None))),
    _blob(
        [
            Message("s1", "system", (TextPart("Be kind."),)),
            Message("u1", "user", (TextPart("see"), ImagePart("image/png", "AAAA"), FilePart("a.txt", "text/plain", "AAAA")), turn_id="t"),
            _answered(1, ThinkingPart("so", "c2ln"), TextPart("a cat"), stop="cancelled", metadata={"cause": "user"}),
        ]
    ),
    _blob([_said(1, "x"), _answered(1, CALL, stop="tool_calls")], taken={"c1": [_record(CALL)]}),
    _blob(
        [
            _said(1, "x"),
            _answered(1, CALL, stop="tool_calls"),
            Message("r1", "tool", (ToolResult("c1", "rm", "gone"),), turn_id="t", metadata={"decisions": [_record(CALL, by=7)]}),
            _answered(2, TextPart("done")),
        ]
    ),
)
"""Valid ones: an answer, a turn with tools, an open interrupt, a cut answer with its draft, all kinds of parts, a crash in a tool."""

VALUES: Final[Sequence[Any]] = (
    None, True, False, 0, 1, -1, 3, 1.0, -0.5, 1e308, 2**31, 2**52, 2**53 + 1, 10**400, "", "1", "x", "u1", "a1", "c1", "t", "user",
    "tool", "assistant", "system", "stop", "tool_calls", "completed", "executing", "approval", "approved", "os.system", "\ud800", "\0",
    "\u202e", "e\u0301", [], {}, [[]], [None], [1, "1"], {"a": 1}, {"type": "text", "text": "x"}, {"py/object": "os.system"}, "y" * 300,
    float("nan"), float("inf"),
)  # fmt: skip
KEYS: Final = (
    "v", "type", "text", "role", "parts", "message_id", "stop_reason", "turn_id", "digest", "metadata", "call_id", "name", "arguments",
    "status", "content", "signature", "data", "url", "media_type", "interrupt_id", "calls", "kind", "restorable", "id", "approved",
    "decisions", "__class__", "__reduce__", "", "a",
)  # fmt: skip
TAGS: Final = ("text", "thinking", "image", "file", "tool_call", "tool_result", "ToolCall", "")
TOKENS: Final = (
    "null", "-1", "1e999", "NaN", "-Infinity", '"\\ud800"', "[", "{", "]", "}", '"', "\\u0000", "9" * 30, "9" * 5000, '"v":2,', '"v":1,',
    '"role":"user",', '"type":"text",', "[" * 70, "[" * 2000, '{"a":' * 1500, "true", "\ufeff", "//", "'", "0x1", "1_0", "\x00",
)  # fmt: skip
VERSIONS: Final[Sequence[Any]] = (0, 2, -1, "1", 1.0, True, None, [], 10**30, 2**63)
STATUSES: Final = ("pending", "executing", "completed", "failed", "interrupted", "cancelled", "unknown", "approved")

Draw: TypeAlias = random.Random


# ── trees ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _places(value: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Return every (container, key) in a tree."""
    found = [] if found is None else found
    if isinstance(value, dict):
        for key in value:
            found.append((value, key))
            _places(value[key], found)
    elif isinstance(value, list):
        for index in range(len(value)):
            found.append((value, index))
            _places(value[index], found)
    return found


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _nested(value: Any, depth: int, *, as_list: bool) -> Any:
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value


def _change_tree(draw: Draw, tree: Any) -> Any:
    """Change one thing in a tree, in place, and return it."""
    places = _places(tree)
    if not places or draw.random() < 0.02:
        return draw.choice(VALUES)
    container, key = draw.choice(places)
    match draw.randrange(13):
        case 0 | 1 | 2:
            container[key] = _copy(draw.choice(VALUES))
        case 3:
            del container[key]
        case 4:
            if isinstance(container, dict):
                container[draw.choice(KEYS)] = container.pop(key)
            else:
                container.insert(draw.randrange(len(container) + 1), _copy(container[key]))
        case 5:
            if isinstance(container, dict):
                container[draw.choice(KEYS)] = _copy(draw.choice(VALUES))
            else:
                draw.shuffle(container)
        case 6:
            tagged = [place for place, name in places if name == "type" and isinstance(place, dict)]
            if tagged:
                draw.choice(tagged)["type"] = draw.choice(TAGS)
        case 7:
            other, place = draw.choice(places)
            container[key] = _copy(other[place])
        case 8:
            container[key] = _nested(container[key], draw.choice((1, 2, 50, 56, 57, 64, 65, 66, 73, 500)), as_list=draw.random() < 0.5)
        case 9:
            if isinstance(tree, dict):
                tree["v"] = draw.choice(VERSIONS)
        case 10:
            for place, name in places:
                if name in {"status", "stop_reason", "kind"}:
                    place[name] = draw.choice((*STATUSES, "edit", "reject"))
                elif name == "content":
                    place[name] = draw.choice(CONTENTS)
        case 11:
            named = [(place, name) for place, name in places if name in {"message_id", "call_id", "turn_id", "id"}]
            if named:
                place, name = draw.choice(named)
                place[name] = draw.choice(("u1", "a1", "a7", "c1", "c2", "r1", "t", "", "x" * 257, "e\u0301", 1))
        case _:
            if isinstance(container, list):
                container.append(_copy(draw.choice(VALUES)))
            else:
                container[key] = [container[key], _copy(container[key])]
    return tree


def _change_text(draw: Draw, text: str) -> Text:
    """Change one thing in a text."""
    at = draw.randrange(len(text) + 1)
    match draw.randrange(7):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + draw.choice(TOKENS) + text[at:]
        case 2:
            return text[:at] + draw.choice(TOKENS) + text[at + draw.randrange(1, 12) :]
        case 3:
            return text[:at] + text[at + draw.randrange(1, 12) :]
        case 4:
            return text[:at] + text[draw.randrange(len(text) + 1) :][: draw.randrange(1, 40)] + text[at:]
        case 5:
            return text.replace("{", "{" + draw.choice(('"v":1,', '"text":"y",', '"role":"user",', '"status":"completed",')), 1)
        case _:
            data = bytearray(text.encode(errors="surrogatepass"))
            if data:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            try:
                return data.decode()
            except UnicodeDecodeError:
                return bytes(data)


def _damaged(draw: Draw, text: Text) -> Text:
    if isinstance(text, bytes):
        return text
    if draw.random() < 0.25:
        return _change_text(draw, text)
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return _change_text(draw, text)
    try:
        return json.dumps(_change_tree(draw, tree), ensure_ascii=draw.random() < 0.5)
    except (ValueError, RecursionError):  # more digits, or levels, than this writer can write
        return text[: draw.randrange(len(text) + 1)]


# ── conversations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _forged_interrupt(draw: Draw) -> tuple[str, Text]:
    """Return an interrupt that nobody made: other calls, other arguments, other turns, decisions inside."""
    call = _waiting(draw.choice((CALL, CALL, OTHER, ToolCall("zz", "rm", {"path": "/"}))))
    fields = _interrupt(*[call] * draw.choice((0, 1, 1, 1, 2)))
    match draw.randrange(8):
        case 0:
            call["arguments"] = {"path": "/"}
        case 1:
            call["status"] = draw.choice(STATUSES)
        case 2:
            call["approved"] = True
        case 3:
            fields["interrupt_id"] = draw.choice(("", "i2"))
        case 4:
            fields["turn_id"] = draw.choice(("", "other"))
        case 5:
            kind = draw.choice(("approve", "edit", "edit", "reject", "answer", "whim"))
            fields["decided"] = [_record(draw.choice((CALL, OTHER)), kind=kind, content=draw.choice(CONTENTS))]
        case 6:
            fields["suspended"] = draw.choice(
                ({"c1": {}}, {"c1": {"messages": []}}, {"zz": None}, [], {"c1": {"interrupt": fields["calls"]}})
            )
        case _:
            fields["kind"] = draw.choice(("approval", "question", "halt", "decided"))
    return "interrupt", _text(fields)


def _change_blob(draw: Draw, blob: Blob) -> Blob:
    """Move, double or drop whole records, or forge the rest."""
    messages, queue, state = list(blob.messages), list(blob.queue), dict(blob.state)
    foreign = draw.choice(SEEDS)
    match draw.randrange(9):
        case 0:
            draw.shuffle(messages)
        case 1 if messages:
            messages.insert(draw.randrange(len(messages) + 1), draw.choice(messages))
        case 2 if messages:
            del messages[draw.randrange(len(messages))]
        case 3 if messages:
            queue.append(messages.pop(draw.randrange(len(messages))))
        case 4 if queue:
            messages.append(queue.pop())
        case 5 if messages:
            state["draft"] = draw.choice(messages)
        case 6:
            name, text = _forged_interrupt(draw)
            state[name] = text
        case 7:
            messages.insert(draw.randrange(len(messages) + 1), draw.choice(foreign.messages))
        case _:
            state[draw.choice((*KEYS, "todos", "metadata", "draft", "queue"))] = _text(draw.choice(VALUES[:25]))
    return attrs.evolve(blob, messages=tuple(messages), queue=tuple(queue), state=tuple(state.items()))


def mutated(draw: Draw) -> Blob:
    """Return a damaged conversation."""
    blob = draw.choice(SEEDS)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 4))):
        if draw.random() < 0.3:
            blob = _change_blob(draw, blob)
            continue
        places: list[tuple[str, int]] = [("messages", at) for at in range(len(blob.messages))]
        places += [("queue", at) for at in range(len(blob.queue))] + [("state", at) for at in range(len(blob.state))]
        if not places:
            continue
        where, at = draw.choice(places)
        if where == "state":
            name, text = blob.state[at]
            blob = attrs.evolve(blob, state=(*blob.state[:at], (name, _damaged(draw, text)), *blob.state[at + 1 :]))
        else:
            texts = getattr(blob, where)
            fields: dict[str, Any] = {where: (*texts[:at], _damaged(draw, texts[at]), *texts[at + 1 :])}
            blob = attrs.evolve(blob, **fields)
    if draw.random() < 0.02:
        blob = attrs.evolve(blob, epoch=draw.choice((-1, 0, 2**52, 2**63)), revision=draw.choice((-1, 0, 2**52, 2**63)))
    return blob


# ── what the library does with a blob ──────────────────────────────────────────────────────────────────────────────────


def conversation_of(blob: Blob) -> Conversation:
    """Return what a store would return. Raise StateError if the texts are not text."""
    return Conversation(
        conversation_id=NAME,
        owner=None,
        epoch=blob.epoch,
        revision=blob.revision,
        messages=decode_records(NAME, blob.messages),
        queue=decode_records(NAME, blob.queue),
        message_ids=dict(blob.ids),
        state={name: decode_value(NAME, text) for name, text in blob.state},
    )


LIMITS: Final = Limits(8 * 2**20, 32 * 1024)


@attrs.frozen
class Loaded:
    """A conversation as a boot has it in memory."""

    state: ConversationState
    ids: Ids

    def closing(self) -> Sequence[Message]:
        """Return the messages that close a history which a crash cut."""
        step = close_after_crash(Moment(self.state, self.ids, LIMITS, datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)))
        return () if step is None else step.messages


def restored(conversation: Conversation) -> Loaded:
    """Restore the conversation as a boot does. Raise StateError if it cannot be used."""
    ids = Ids("new")
    return Loaded(codec.restored(conversation, ids, LIMITS), ids)


_PARTS: Final[Mapping[str, tuple[type, ...]]] = {
    "user": (TextPart, ImagePart, FilePart),
    "assistant": (TextPart, ThinkingPart, ToolCall),
    "tool": (ToolResult,),
    "system": (TextPart,),
}
_FINAL: Final = frozenset({"completed", "failed", "cancelled", "unknown"})


def _wrong_message(message: Message) -> str | None:
    """Return what is wrong with one message."""
    if any(not isinstance(part, _PARTS[message.role]) for part in message.parts):
        return f"a part that no {message.role} message has"
    if message.role != "assistant" and message.stop_reason is not None:
        return f"a stop reason on a {message.role} message"
    if message.role in {"user", "tool"} and not message.parts:
        return f"an empty {message.role} message"
    if any(not call.call_id or not call.name for call in message.calls):
        return "a call without an id or a name"
    if any(result.status not in _FINAL for result in message.results):
        return "a result whose status is not final"
    return None


def wrong_order(messages: Sequence[Message], waiting: frozenset[str]) -> str | None:
    """Return what is wrong with the calls and results: each call is answered once, before anybody else speaks."""
    ids = [message.message_id for message in messages]
    if len(set(ids)) != len(ids):
        return "a message id twice"
    calls = [call.call_id for message in messages for call in message.calls]
    if len(set(calls)) != len(calls):
        return "a call id twice"
    due: set[str] = set()
    for message in messages:
        if message.role != "tool" and due:
            return "a call without a result"
        for result in message.results:
            if result.call_id not in due:
                return "a result without a call"
            due.remove(result.call_id)
        due.update(call.call_id for call in message.calls)
    return "a call without a result at the end" if due - waiting else None


_KINDS: Final = frozenset({"approve", "edit", "reject", "answer", "superseded", "dismissed", "expired"})


def _wrong_record(record: DecisionRecord) -> str | None:
    """Return what is wrong with a decision record: it must be such that a turn can act on it."""
    if record.kind not in _KINDS:
        return "a decision of an unknown kind"
    try:
        content = json.loads(record.content)
    except ValueError:
        return "a decision whose content is no JSON"
    if not isinstance(content, dict) or (record.kind == "edit" and not isinstance(content.get("arguments"), dict)):
        return "a decision whose content is not that of its kind"
    return None


def _records_in(loaded: Loaded) -> Sequence[DecisionRecord]:
    """Return every decision record that was loaded."""
    waiting = () if loaded.state.interrupt is None else loaded.state.interrupt.decided
    taken = [record for some in loaded.state.open_decisions.values() for record in some]
    return [*waiting, *taken, *(record for message in loaded.state.messages for record in records_of(NAME, message))]


def wrong_with(loaded: Loaded, stored: Conversation) -> str | None:
    """Return what is wrong with a loaded conversation, or None if it is valid."""
    closing = loaded.closing()
    messages = [*loaded.state.messages, *closing]
    interrupt = loaded.state.interrupt
    waiting = frozenset(call.call_id for call in open_calls(loaded.state.messages)) if interrupt is not None else frozenset[str]()
    drafts = () if loaded.state.draft is None else (loaded.state.draft,)
    for message in (*messages, *loaded.state.queue.values(), *drafts):
        if (wrong := _wrong_message(message)) is not None:
            return wrong
    if any(message.role != "user" for message in loaded.state.queue.values()):
        return "a message in the queue that no user said"
    for record in _records_in(loaded):
        if (wrong := _wrong_record(record)) is not None:
            return wrong
    if (wrong := wrong_order(messages, waiting)) is not None:
        return wrong
    if interrupt is not None:
        opened = {call.call_id: call.digest for call in open_calls(loaded.state.messages)}
        if not interrupt.calls:
            return "an interrupt about nothing"
        # A call that people are asked about again may have been edited.
        if any(call.call_id not in opened if call.asked_before else opened.get(call.call_id) != call.digest for call in interrupt.calls):
            return "an interrupt about a call that is not open"
        decided = {record.call_id: record.digest for record in interrupt.decided}
        if any(opened.get(call_id) != digest for call_id, digest in decided.items()):
            return "a decision about a call that is not open, or has other arguments"
        if len({*decided, *(call.call_id for call in interrupt.calls)}) != len(decided) + len(interrupt.calls):
            return "an interrupt about a call twice"
    return _wrong_again(loaded, messages, stored)


def _wrong_again(loaded: Loaded, messages: Sequence[Message], stored: Conversation) -> str | None:
    """Store the loaded and closed conversation, and load it again: it is the same."""
    state = {"todos": [encode_todo(todo) for todo in loaded.state.todos], "metadata": loaded.state.metadata}
    if loaded.state.interrupt is not None:
        state["interrupt"] = stored.state["interrupt"]
    try:
        again = restored(
            attrs.evolve(
                stored,
                messages=[json.loads(_text(encode_message(message))) for message in messages],
                queue=[json.loads(_text(encode_message(message))) for message in loaded.state.queue.values()],
                message_ids=loaded.state.message_ids,
                state=json.loads(_text(state)),
            )
        )
    except StateError:
        return "it does not load again"
    same = (
        again.state.messages == list(messages) and again.state.queue == loaded.state.queue and again.state.metadata == loaded.state.metadata
    )
    same = same and again.state.todos == loaded.state.todos and again.state.interrupt == loaded.state.interrupt
    return None if same and not again.closing() else "it loads again as another"


def judge(blob: Blob, restore: Callable[[Conversation], Loaded] = restored) -> tuple[str, str | None]:
    """Return ("refused" | "loaded" | "raised", what is wrong or None)."""
    try:
        stored = conversation_of(blob)
        loaded = restore(stored)
    except StateError:
        return "refused", None
    except Exception as exc:  # the damage that this check looks for
        return "raised", f"raised {type(exc).__name__}"
    return "loaded", wrong_with(loaded, stored)


# ── cases that are kept ───────────────────────────────────────────────────────────────────────────────────────────────


def as_json(blob: Blob) -> dict[str, Any]:
    """Return a blob as JSON, for the corpus; bytes as hex."""

    def plain(text: Text) -> Any:
        return {"hex": text.hex()} if isinstance(text, bytes) else text

    return {
        "messages": [plain(message) for message in blob.messages],
        "queue": [plain(message) for message in blob.queue],
        "state": {name: plain(body) for name, body in blob.state},
        "ids": dict(blob.ids),
        "counters": [blob.epoch, blob.revision],
    }


def from_json(data: Mapping[str, Any]) -> Blob:
    """Return the blob of a case."""

    def text(value: Any) -> Text:
        return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value

    return Blob(
        tuple(map(text, data["messages"])),
        tuple(map(text, data["queue"])),
        tuple((name, text(value)) for name, value in data["state"].items()),
        tuple(data["ids"].items()),
        *data["counters"],
    )

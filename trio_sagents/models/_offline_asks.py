"""What a person asks of the offline model: plain sentences in, asks out.

A sentence may hold several asks joined by "and". It is cut at each "and"; a piece that means nothing by itself is joined to
the one before it, so "remember that I like tea and cake" stays one ask and "add milk and bread to my todos" does, too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.data.json import JSONValue
from trio_sagents.models._offline_readers import FILE, NAMED_FILE, READERS, Reader, path_of, several_tasks, tool_use

MAX_TEXT: Final = 1_000
"""Longer messages are not searched: the patterns are for sentences, and they run in the event loop."""


@attrs.frozen
class Ask:
    """One thing that a person wants."""

    kind: str
    """What `_offline_jobs` has steps for; or "greet", "thank", "help", "story", "too_long", "unknown"."""
    said: str
    """The words that the ask was read from."""
    arguments: Mapping[str, JSONValue] = attrs.field(factory=dict)
    """What the ask names; {"long": bool} for a story; may be empty."""


_TALKATIVE: Final = frozenset({"remember", "write_file"})
"""Asks whose text may have several sentences."""


def read_asks(text: str) -> Sequence[Ask]:
    """Return what `text` asks for, in the order of its words; never empty, the same for the same text.

    Args:
        text: one message of a person.
    """
    if len(text) > MAX_TEXT:
        return (Ask("too_long", text[:80]),)
    if (named := tool_use(text.strip())) is not None:
        return (Ask("use", text.strip(), named),)
    asks: list[Ask] = []
    for sentence in _sentences(text):
        found = _asks_of(sentence)
        if asks and asks[-1].kind in _TALKATIVE and [ask.kind for ask in found] == ["unknown"]:
            found = [_ask(f"{asks.pop().said} {sentence}")]
        asks += found
    return tuple(asks) or (Ask("unknown", text.strip()),)


def _sentences(text: str) -> Iterator[str]:
    for line in re.split(r"[\n;]+|(?<=[.!?])\s+", text):
        if words := line.split():
            yield " ".join(words)  # the patterns rely on single spaces: a run of spaces makes them slow


def _asks_of(sentence: str) -> Sequence[Ask]:
    if (tasks := several_tasks(_bare(sentence))) is not None:
        return [Ask("delegate", sentence, {"task": task}) for task in tasks]
    pieces = re.split(r",?\s+(?:and\s+then|and\s+also|and|then)\s+", sentence, flags=re.IGNORECASE)
    joints = re.findall(r",?\s+(?:and\s+then|and\s+also|and|then)\s+", sentence, flags=re.IGNORECASE)
    asks: list[Ask] = []
    for index, piece in enumerate(pieces):
        ask = _ask(piece)
        if ask.kind == "unknown" and asks:
            joined = _ask(asks[-1].said + joints[index - 1] + piece)
            if joined.kind != "unknown" or asks[-1].kind == "unknown":
                asks[-1] = joined
                continue
        asks.append(ask)
    return asks


def _ask(piece: str) -> Ask:
    words = _bare(piece)
    sought = re.fullmatch(r"(?:find|figure|work) out (?:about )?(?P<what>.+)", words, re.IGNORECASE)
    if sought is None:
        return _matched(piece, words)
    turned = re.sub(r"^(what|who|how much) (.+) (is|are)$", r"\1 \3 \2", sought["what"], flags=re.IGNORECASE)
    ask = _matched(piece, turned)
    return Ask("recall", piece, {"about": sought["what"]}) if ask.kind == "unknown" else ask


def _matched(piece: str, words: str) -> Ask:
    for kind, pattern, read in _PATTERNS:
        if (match := pattern.fullmatch(words)) is not None and (arguments := read(match)) is not None:
            return Ask(kind, piece, arguments)
    return Ask("unknown", piece)


def _bare(piece: str) -> str:
    words = piece.strip()
    words = re.sub(r"^(?:(?:please|now|ok(?:ay)?|also|then|so)[, ]+)+", "", words, flags=re.IGNORECASE)
    words = re.sub(r"^(?:can|could|would|will) you (?:please )?(?!do\b|remember about)", "", words, flags=re.IGNORECASE)
    return re.sub(r"[\s,]*(?:\bplease)?[\s.?!]*$", "", words, flags=re.IGNORECASE)


def _nothing(_: re.Match[str]) -> Mapping[str, JSONValue]:
    return {}


def _items(match: re.Match[str]) -> Mapping[str, JSONValue] | None:
    text = match["items"]
    if re.fullmatch(r"([\"'“]).+[\"'”]", text):
        return {"items": [text[1:-1]]}
    items = [item.strip(" \"'") for item in re.split(r",\s*(?:and\s+)?|\s+and\s+", text, flags=re.IGNORECASE)]
    items = [item for item in items if item]
    return {"items": items} if items else None


def _task(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"items": [match["task"]]}


def _numbers(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"numbers": [int(number) for number in re.findall(r"\d{1,9}", match["numbers"])]}


def _path(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"path": path_of(match["path"])}


def _note(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"note": match["note"]}


def _about(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"about": (match["about"] or "").strip()}


def _story(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"long": match["long"] is not None}


_WORDS_TO_SIGNS: Final = (
    (r"(?<=\d),(?=\d{3}\b)", ""),
    (r"\b(?:equals?|make)\b", ""),
    (r"\bplus\b", "+"),
    (r"\bminus\b|\u2212|\u2013", "-"),
    (r"\b(?:times|multiplied by)\b|\xd7|\xb7|(?<=[\d)])\s*x\s*(?=[\d(])", "*"),
    (r"\b(?:divided by|over)\b|÷", "/"),
    (r"\b(?:modulo|mod)\b", "%"),
    (r"\b(?:to the power of|\^)\b|\^", "**"),
    (r"\s*\bsquared\b", "**2"),
    (r"\s*\bcubed\b", "**3"),
    (r"(\d+(?:\.\d+)?)\s*(?:%|percent)\s*of\s+", r"\1/100*"),
)


def _expression(match: re.Match[str]) -> Mapping[str, JSONValue] | None:
    text = match["sum"]
    for word, sign in _WORDS_TO_SIGNS:
        text = re.sub(word, sign, text, flags=re.IGNORECASE)
    text = text.strip().removesuffix("=").strip()
    if not re.fullmatch(r"[\d\s.+\-*/%()]+", text) or not re.search(r"\d", text) or re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return None
    is_sum = re.search(r"[\d)]\s*[+\-*/%]", text) is not None
    return {"expression": text} if is_sum or match["word"] else None


_LIST: Final = r"(?:(?:my|the|our|your)\s+)?(?:to-?\s?dos?)(?:[\s-]*list)?"
_NUMBERS: Final = r"(?P<numbers>\d{1,9}(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+)#?\d{1,9})*)"
_FILE: Final = f"(?P<path>{FILE})"
_NAMED_FILE: Final = f"(?P<path>{NAMED_FILE})"

_READERS: Final[Sequence[tuple[str, str, Reader]]] = (
    *READERS,
    ("add_todos", rf"(?:add|put|write|note)\s+(?P<items>.+?)\s+(?:to|on|onto|in|into)\s+{_LIST}", _items),
    ("add_todos", rf"add\s+(?:to\s+{_LIST}|a\s+(?:new\s+)?to-?\s?do)\s*(?::|to\b)?\s*(?P<items>.+)", _items),
    ("add_todos", r"(?:new\s+)?to-?do\s*(?::\s*|\s)(?!list\b)(?P<items>.+)", _items),
    ("add_todos", r"remind me to\s+(?P<task>.+)", _task),
    ("remove_todos", rf"(?:remove|delete|drop|forget)\s+(?:{_LIST}\s*)?(?:number\s*|#)?{_NUMBERS}(?:\s+(?:from|off)\s+{_LIST})?", _numbers),
    (
        "complete_todos",
        (
            rf"(?:i(?:'m| am| have|'ve)?\s+)?(?:done|did|finish(?:ed)?|completed?|check(?:ed)?|tick|mark)(?:\s+off)?\s+(?:with\s+)?"
            rf"(?:{_LIST}\s*)?(?:number\s*|item\s*|#)?{_NUMBERS}(?:\s+(?:is|are))?(?:\s+as)?(?:\s+(?:done|off|complete[d]?))?"
        ),
        _numbers,
    ),
    ("complete_todos", rf"(?:{_LIST}\s*)?(?:number\s*|item\s*|#)?{_NUMBERS}\s+(?:is|are)\s+(?:done|finished|completed?)", _numbers),
    ("list_todos", rf"(?:(?:show|list|print|display|see|view|read|give|tell|check)\s+(?:me\s+)?(?:all\s+)?)?{_LIST}", _nothing),
    ("list_todos", rf"what(?:'s| is| are|\s+do i have)(?:\s+left)?(?:\s+(?:on|in))?\s+{_LIST}", _nothing),
    ("list_todos", r"what (?:do i (?:have|need) to do|should i do|is (?:there )?(?:left )?to do)", _nothing),
    ("recall", r"(?:what|which)\b.*?\b(?:you|we)\s+(?:remember|recall|know|note|noted)\b(?:\s*(?:about|of|on)\s+(?P<about>.+))?", _about),
    ("recall", r"do you (?:remember|recall|know)(?:\s+(?:anything\s+)?(?:about\s+)?(?P<about>.+))?", _about),
    ("recall", r"(?:(?:show|list|read)\s+(?:me\s+)?)?(?:my|the|your|all)\s+notes(?:\s+(?:about|on)\s+(?P<about>.+))?", _about),
    ("recall", r"(?:recall|look up)\s+(?P<about>.+)", _about),
    (
        "remember",
        r"(?:remember|keep in mind|don'?t forget|(?:make|take) a note|note)(?:\s+down)?(?:\s+that\s+|\s*:\s*|\s+)(?P<note>.+)",
        _note,
    ),
    (
        "calculate",
        r"(?P<word>what(?:'?s| is| does)|how much is|calculate|compute|evaluate|calc|solve|work out)?\s*(?P<sum>[\d(.+\-\u2212\u2013].*)",
        _expression,
    ),
    (
        "list_files",
        r"(?:show|list)\s+(?:me\s+)?(?:all\s+|the\s+|my\s+)*files(?:\s+(?:here|in (?:this|the) folder))?|ls|(?:what|which)\s+files\b.*",
        _nothing,
    ),
    ("read_file", rf"(?:read|show|open|cat|print|display)\s+(?:me\s+)?(?:the\s+)?(?:file\s+)?{_NAMED_FILE}(?:\s+to me)?", _path),
    ("read_file", rf"(?:read|cat|(?:show|open|print|display)\s+(?:me\s+)?(?:the\s+)?file)\s+{_FILE}", _path),
    ("read_file", rf"what(?:'s| is| does)\s+(?:in\s+)?(?:the\s+)?(?:file\s+)?{_NAMED_FILE}(?:\s+(?:say|contain|about))?", _path),
    ("recall", r"(?:what|who|where|when|which)(?:'s| is| are| was| were)\s+(?:my|our)\s+(?P<about>.+)", _about),
    ("story", r".*?\b(?:(?P<long>long)\s+)?(?:story|tale|poem|essay)\b.*", _story),
    ("greet", r"(?:hello|hi|hey|hallo|good (?:morning|evening|afternoon|day))(?:[\s,]+\w+)?", _nothing),
    ("thank", r"(?:thanks?|thank you|thx|great|cool)(?:\b.*)?", _nothing),
    ("help", r"(?:help|what can you do|who are you|what are you|how do(?:es)? (?:you|this) work)\b.*", _nothing),
)
_PATTERNS: Final = tuple((kind, re.compile(pattern, re.IGNORECASE | re.DOTALL), read) for kind, pattern, read in _READERS)

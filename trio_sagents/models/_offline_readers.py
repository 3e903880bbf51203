"""Sentences about files, people, helpers and other tools, as the offline model reads them: patterns, and what a match contains."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from trio_sagents.data.json import JSONValue

Reader = Callable[[re.Match[str]], Mapping[str, JSONValue] | None]
"""What a match names; None if the match means something else."""

FILE: Final = r"\"[^\"]+\"|'[^']+'|`[^`]+`|[^\s\"'`]+"
NAMED_FILE: Final = r"\"[^\"]+\"|'[^']+'|`[^`]+`|[^\s\"'`]*[./][^\s\"'`]*\w"
"""A word that can only be a file."""
_QUOTES: Final = "\"'`“”"
_HELPER: Final = r"(?:sub-?\s?agents?|helpers?)"
_SEVERAL: Final = re.compile(
    rf"(?:(?:hand|give|delegate|pass)\s+(?:\w+\s+)?tasks?\s+to\s+(?:\w+\s+)?{_HELPER}|(?:have|let)\s+(?:two|three|several|some|\d)\s+{_HELPER})"
    r"(?:\s*:?\s*(?P<tasks>\S.*))?",
    re.IGNORECASE,
)
_USE: Final = re.compile(
    r"(?:use|call|run)\s+(?:the\s+)?(?:tool\s+)?(?P<tool>\w+_\w+|(?<=tool )\w+)(?:\s+(?:with|on)\s+(?P<arguments>\S.*))?",
    re.IGNORECASE | re.DOTALL,
)
_PAIR: Final = re.compile(r"(\w+)\s*=\s*(\"[^\"]*\"|'[^']*'|[^,\s]+)")
DEFAULT_TASKS: Final = ("what is 12*7?", "list files")
_KNOWN_OPTIONS: Final = {
    "colour": ("red", "green", "blue", "yellow"),
    "toppings": ("mushrooms", "olives", "onions", "peppers", "extra cheese"),
}


def several_tasks(words: str) -> Sequence[str] | None:
    """Return the tasks that a sentence hands to several sub-agents; None if the sentence is about something else."""
    match = _SEVERAL.fullmatch(words)
    if match is None:
        return None
    tasks = [task.strip() for task in re.split(r",\s*(?:and\s+)?|\s+and\s+", match["tasks"] or "", flags=re.IGNORECASE)]
    return [task for task in tasks if task] or DEFAULT_TASKS


def tool_use(text: str) -> Mapping[str, JSONValue] | None:
    """Return the tool that a message names, and its arguments: JSON, or `name=value` pairs; None if the message names no tool."""
    match = _USE.fullmatch(text.rstrip(" .?!"))
    if match is None:
        return None
    given = (match["arguments"] or "{}").strip()
    try:
        arguments: JSONValue = json.loads(given)
    except (ValueError, RecursionError):
        pairs = _PAIR.findall(given)
        arguments = {name: _value(value) for name, value in pairs}
    return {"tool": match["tool"], "arguments": arguments} if isinstance(arguments, dict) and (arguments or given == "{}") else None


def _value(text: str) -> JSONValue:
    try:
        value: JSONValue = json.loads(text)
    except ValueError:
        return text.strip(_QUOTES)
    return value if isinstance(value, str | int | float | bool) else text


def path_of(text: str) -> str:
    """Return the file that was named, without its quotes."""
    return text.strip(_QUOTES)


def _written(match: re.Match[str]) -> Mapping[str, JSONValue]:
    text = (match["text"] or "").strip()
    if len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1]
    return {"path": path_of(match["path"]), "content": f"{text}\n" if text else ""}


def _replaced(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"path": path_of(match["path"]), "old_text": match["old"].strip(_QUOTES), "new_text": match["new"].strip(_QUOTES)}


def _searched(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"path": path_of(match["path"] or ""), "text": match["text"].strip(_QUOTES)}


def _deleted(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"path": path_of(match["path"] or match["other"])}


def _moved(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"path": path_of(match["path"]), "new_path": path_of(match["to"])}


def _paid(match: re.Match[str]) -> Mapping[str, JSONValue] | None:
    currency = (match["sign"] or match["currency"] or "").strip().lower()
    name = {"€": "EUR", "$": "USD", "£": "GBP", "": "EUR"}.get(currency, {"e": "EUR", "d": "USD", "p": "GBP"}.get(currency[:1], "EUR"))
    return {"amount": int(match["amount"]), "currency": name, "to": match["to"].strip()}


def _planned(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"what": match["what"].strip()}


def _colour(_: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"question": "What is your favourite colour?", "kind": "single", "options": list(_KNOWN_OPTIONS["colour"]), "allow_other": True}


def _toppings(_: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"question": "Which toppings would you like?", "kind": "multi", "options": list(_KNOWN_OPTIONS["toppings"]), "allow_other": True}


def _choice(match: re.Match[str]) -> Mapping[str, JSONValue] | None:
    options = [option.strip() for option in re.split(r",\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+", match["options"], flags=re.IGNORECASE)]
    options = list(dict.fromkeys(option for option in options if option))[:10]
    what = match["what"].strip()
    if len(options) < 2:
        return None
    kind = "multi" if what.endswith("s") and not what.endswith("ss") else "single"
    return {"question": f"Which {_yours(what)}?", "kind": kind, "options": options, "allow_other": False}


def _question(match: re.Match[str]) -> Mapping[str, JSONValue]:
    what = _yours(match["what"].strip())
    return {"question": f"{what[:1].upper()}{what[1:]}?", "kind": "text"}


def _yours(text: str) -> str:
    turned = {"my": "your", "i": "you", "me": "you", "am": "are"}
    return " ".join(turned.get(word.lower(), word) for word in text.split())


def _task(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"task": match["task"].strip()}


def _reason(match: re.Match[str]) -> Mapping[str, JSONValue]:
    return {"reason": (match["reason"] or "").strip() or "You asked me to halt."}


READERS: Final[Sequence[tuple[str, str, Reader]]] = (
    ("delegate", rf"(?:have|let|get|ask|tell)\s+(?:a|an|the|one|another|your)\s+{_HELPER}\s+(?:to\s+)?(?P<task>.+)", _task),
    ("delegate", rf"(?:hand|give|delegate|pass)\s+(?P<task>.+?)\s+to\s+(?:a|an|the|one|another)\s+{_HELPER}", _task),
    ("ask_colour", r"ask\s+me\b.*\bcolou?r", _colour),
    ("ask_toppings", r"(?:ask\s+me\s+)?which\s+(?:pizza\s+)?toppings\b.*", _toppings),
    ("ask_choice", r"ask\s+me\s+(?:which|what)\s+(?P<what>[^:]+):\s*(?P<options>.+)", _choice),
    ("ask_text", r"ask\s+me\s+(?:for\s+|about\s+|what\s+is\s+|what's\s+|what\s+)?(?P<what>.+)", _question),
    ("plan", r"(?:make\s+(?:a\s+|me\s+a\s+)?plan\s+for|plan|help\s+me\s+plan|organi[sz]e)\s+(?P<what>(?:a|an|the|my|our)\s+.+)", _planned),
    (
        "write_file",
        (
            rf"(?:write|create|make|save|start)\s+(?:me\s+)?(?:a|the)\s+(?:new\s+|text\s+)*file\s+(?:called\s+|named\s+)?(?P<path>{FILE})"
            r"(?:\s*,?\s*(?:that\s+says|which\s+says|saying|with(?:\s+the\s+text)?|containing|:)\s*(?P<text>.*))?"
        ),
        _written,
    ),
    (
        "write_file",
        rf"(?:write|create|make)\s+(?P<path>{NAMED_FILE})(?:\s+(?:that\s+says|saying|with(?:\s+the\s+text)?|containing)\s+(?P<text>.*))?",
        _written,
    ),
    (
        "write_file",
        rf"(?:write|save|put)\s+(?P<text>.+?)\s+(?:in|into|to)\s+(?:(?:a|the)\s+(?:new\s+)?file\s+)?(?P<path>{NAMED_FILE})",
        _written,
    ),
    (
        "replace_text",
        rf"(?:replace|change)\s+(?P<old>\"[^\"]+\"|'[^']+'|\S+)\s+(?:with|by|to|into)\s+(?P<new>\"[^\"]*\"|'[^']*'|\S+)\s+in\s+(?P<path>{FILE})",
        _replaced,
    ),
    (
        "search",
        rf"(?:find|search(?:\s+for)?|look\s+for)\s+(?P<text>\"[^\"]+\"|'[^']+'|\S+)(?:\s+in\s+(?:(?:my|the|all)\s+)*(?:files|(?P<path>{FILE})))?",
        _searched,
    ),
    (
        "delete_file",
        rf"(?:delete|remove)\s+(?:the\s+)?file\s+(?P<path>{FILE})|(?:delete|remove)\s+(?P<other>{NAMED_FILE})",
        _deleted,
    ),
    ("move_file", rf"(?:move|rename)\s+(?:the\s+)?(?:file\s+)?(?P<path>{NAMED_FILE})\s+(?:to|into|as)\s+(?P<to>{FILE})", _moved),
    (
        "pay",
        (
            r"(?:send|pay|transfer|give)\s+(?P<sign>[€$£]?)\s*(?P<amount>\d{1,9})\s*(?P<currency>€|\$|£|eur(?:os?)?|usd|dollars?|gbp|pounds?)?"
            r"\s+to\s+(?P<to>.+)"
        ),
        _paid,
    ),
    ("halt", r"(?:halt|emergency\s+stop|stop\s+everything|raise\s+the\s+alarm)(?:\s*[:,]\s*(?P<reason>.*))?", _reason),
)

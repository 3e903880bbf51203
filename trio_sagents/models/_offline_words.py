"""What the offline model says: pure functions from results to sentences."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from trio_sagents.data.json import JSON
from trio_sagents.data.messages import ToolCall, ToolResult
from trio_sagents.models._offline_asks import MAX_TEXT, Ask

MARK: Final = "(offline) "
"""How every answer begins, so that nobody takes it for a large model's."""
MAX_QUOTE: Final = 2_000
"""How much of a tool's output an answer repeats, in characters."""

_CLASS_NAME: Final = re.compile(r"^[A-Z]\w*(?:Refused|Error): ")
"""How the runtime names what a tool raised; people need not read it."""

ABILITIES: Final = (
    'keep a todo list: "add milk to my todos", "show my todos", "done 1"',
    'do arithmetic: "what is 12*(3+4)?"',
    'read files of the working folder: "list files", "read README.md"',
    'remember notes: "remember that my cat is Tom", "what do you remember about my cat?"',
    'tell a story, slowly: "tell me a long story"',
)


def answer_words(asks: Sequence[Ask], done: Iterable[tuple[ToolCall, ToolResult]], missing: Sequence[str]) -> str:
    """Return the whole answer to one message.

    Args:
        asks: what the person wanted, in order.
        done: the calls made for it with their results, in order; may be empty.
        missing: kinds of `asks` for which the agent has no tool.
    """
    said = [(_PLAIN if len(asks) == 1 else _BESIDE)[ask.kind](ask) for ask in asks if ask.kind in _PLAIN]
    said += [_of_result(call.name, call.arguments, result) for call, result in done]
    said += [f"I would need the tool {name!r} for that, and I was not given it." for name in dict.fromkeys(missing)]
    return MARK + "\n".join(said)


def _list_abilities() -> str:
    return "\n".join(f"  - {ability}" for ability in ABILITIES)


def _greet(_: Ask) -> str:
    return f"Hello! I am the embedded offline model: no network, fixed rules. I can:\n{_list_abilities()}"


def _help(_: Ask) -> str:
    return f"I am the embedded offline model: no network, fixed rules, real tools. I can:\n{_list_abilities()}"


def _unknown(ask: Ask) -> str:
    return (
        f"I have no rule for “{_short(ask.said)}”, for I am a small offline model. I can:\n{_list_abilities()}\n"
        "With ANTHROPIC_API_KEY or OPENAI_API_KEY set, a large model answers instead."
    )


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def _too_long(_: Ask) -> str:
    return f"That message has more than {MAX_TEXT} characters, and I only understand short sentences."


def _story(ask: Ask) -> str:
    return " ".join(story_sentences(60 if ask.arguments.get("long") else 8))


_PLAIN: Final[Mapping[str, Callable[[Ask], str]]] = {
    "greet": _greet,
    "thank": lambda _: "You are welcome.",
    "help": _help,
    "story": _story,
    "too_long": _too_long,
    "unknown": _unknown,
}


_BESIDE: Final = {
    **_PLAIN,
    "greet": lambda _: "Hello!",
    "unknown": lambda ask: f"I have no rule for “{_short(ask.said)}”.",
}
"""Where the same message asks for more."""

_PEOPLE: Final = (
    "a lighthouse keeper",
    "the ferryman",
    "a girl with a lantern",
    "an old cartographer",
    "the clockmaker",
    "a patient heron",
)
_DEEDS: Final = (
    "counted the waves",
    "drew a map",
    "mended a net",
    "wrote a letter",
    "followed the shore",
    "waited for the tide",
    "lit a fire",
)
_PLACES: Final = ("by the harbour", "under the bridge", "on the long pier", "behind the dunes", "at the edge of the marsh")


def story_sentences(count: int) -> Iterator[str]:
    """Yield `count` numbered sentences, always the same ones."""
    for number in range(1, count + 1):
        who = _PEOPLE[number % len(_PEOPLE)]
        deed = _DEEDS[number * 3 % len(_DEEDS)]
        place = _PLACES[number * 2 % len(_PLACES)]
        yield f"On night {number}, {who} {deed} {place}."


def _of_result(name: str, arguments: JSON, result: ToolResult) -> str:
    if result.is_error:
        return f"{name} did not work: {_quote(_CLASS_NAME.sub('', result.content))}"
    return _SAID[name](arguments, result.content) if name in _SAID else _sentence(_quote(result.content))


def _of_file(arguments: JSON, content: str) -> str:
    lines = content.count("\n") + (not content.endswith("\n"))
    return f"{arguments.get('path')} has {lines} line{'s' * (lines != 1)}:\n\n{_quote(content)}"


_SAID: Final[Mapping[str, Callable[[JSON, str], str]]] = {
    "calculate": lambda arguments, content: f"{arguments.get('expression')} = {_quote(content)}",
    "list_todos": lambda _, content: f"Your todos:\n{_quote(content)}" if content[:1].isdigit() else _sentence(content),
    "recall": lambda _, content: f"I remember:\n{_quote(content)}" if content.startswith("- ") else _sentence(content),
    "list_files": lambda _, content: f"The files here:\n{_quote(content)}",
    "read_file": _of_file,
}
"""By tool, from its arguments and its output."""


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def _quote(text: str) -> str:
    if len(text) <= MAX_QUOTE:
        return text
    return f"{text[:MAX_QUOTE]}\n[… {len(text) - MAX_QUOTE} more characters]"

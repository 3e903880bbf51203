"""What the offline model says: pure functions from results to sentences."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from trio_sagents.data.json import JSON
from trio_sagents.data.messages import ToolCall, ToolResult
from trio_sagents.models._offline_asks import MAX_TEXT, Ask
from trio_sagents.models._offline_jobs import STEPS, Job, Resources

MARK: Final = "(offline) "
"""The beginning of every answer, so that nobody takes the answer for one of a large model."""
MAX_QUOTE: Final = 2_000
"""How much of a tool's output an answer repeats, in characters."""

_CLASS_NAME: Final = re.compile(r"^[A-Z]\w*(?:Refused|Error): ")
"""The prefix that the runtime gives to what a tool raised; people do not need to read it."""

ABILITIES: Final = (
    ("write_todos", 'keep a todo list: "plan a picnic", "add milk to my todos", "show my todos", "done 1"'),
    ("calculate", 'do arithmetic: "what is 12*(3+4)?"'),
    ("read_file", 'read files of the working folder: "list files", "read README.md", "find Trio in my files"'),
    ("create_file", 'change files, if you approve: "write a file hello.txt that says hi", "delete hello.txt"'),
    ("remember", 'remember notes: "remember that my cat is Tom", "what do you remember about my cat?"'),
    ("ask_user", 'ask you something: "ask me for my favourite colour", "which toppings", "ask me my name"'),
    ("send_money", 'pretend to pay, if you approve: "send 20 euros to Ann"'),
    ("task", 'hand over tasks: "have a sub-agent find out what 12*7 is", "hand two tasks to sub-agents"'),
    ("halt", 'stop until you say so: "halt"'),
    ("", 'use any other tool that I have: "use NAME with key=value"'),
    ("", 'tell a story, slowly: "tell me a long story"'),
)
"""Each ability, with the tool that it needs."""


def answer_words(jobs: Sequence[Job], resources: Resources) -> str:
    """Return the whole answer to one message.

    Args:
        jobs: what the person wanted, in order, with nothing left to do.
        resources: what the request gave to work with.
    """
    said = [
        _PLAIN_BESIDE[job.ask.kind](job.ask, resources) if len(jobs) > 1 else _PLAIN[job.ask.kind](job.ask, resources)
        for job in jobs
        if job.ask.kind in _PLAIN
    ]
    for job in jobs:
        said += _of_job(job)
    return MARK + "\n".join(dict.fromkeys(said))


def _of_job(job: Job) -> Iterator[str]:
    if job.ask.kind == "plan" and len(job.done) == len(STEPS["plan"]) and not job.done[-1][1].is_error:
        yield f"The plan for {job.ask.arguments['what']} is in your todos. The ideas are in my notes; the rest is yours: “done 2”."
        return
    for call, result in job.done:
        yield _of_result(job.ask, call, result)
    if job.note:
        yield job.note


def _abilities(resources: Resources) -> str:
    return "\n".join(
        f"  - {text}" for tool, text in ABILITIES if tool in resources.tools or (not tool and (resources.tools or "story" in text))
    )


def _greet(_: Ask, resources: Resources) -> str:
    return f"Hello! I am the embedded offline model: no network, fixed rules. I can:\n{_abilities(resources)}"


def _help(_: Ask, resources: Resources) -> str:
    return f"I am the embedded offline model: no network, fixed rules, real tools. I can:\n{_abilities(resources)}"


def _unknown(ask: Ask, resources: Resources) -> str:
    return (
        f"I have no rule for “{_short(ask.said)}”, for I am a small offline model. I can:\n{_abilities(resources)}\n"
        "With ANTHROPIC_API_KEY or OPENAI_API_KEY set, a large model answers instead."
    )


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def _too_long(_: Ask, _desk: Resources) -> str:
    return f"That message has more than {MAX_TEXT} characters, and I only understand short sentences."


def _story(ask: Ask, _: Resources) -> str:
    return " ".join(story_sentences(60 if ask.arguments.get("long") else 8))


_PLAIN: Final[Mapping[str, Callable[[Ask, Resources], str]]] = {
    "greet": _greet,
    "thank": lambda _ask, _desk: "You are welcome.",
    "help": _help,
    "story": _story,
    "too_long": _too_long,
    "unknown": _unknown,
}
_PLAIN_BESIDE: Final[Mapping[str, Callable[[Ask, Resources], str]]] = {
    **_PLAIN,
    "greet": lambda _ask, _desk: "Hello!",
    "unknown": lambda ask, _desk: f"I have no rule for “{_short(ask.said)}”.",
}
"""Said if the same message asks for more."""

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


def _of_result(ask: Ask, call: ToolCall, result: ToolResult) -> str:
    if result.status == "cancelled":
        return f"{call.name} was not done. {_quote(result.content)}"
    if result.is_error:
        return f"{call.name} did not work: {_quote(_CLASS_NAME.sub('', result.content))}"
    said = _SAID_OF_ASK.get(ask.kind) or _SAID.get(call.name)
    return said(call.arguments, result.content) if said is not None else _sentence(_quote(result.content))


def _of_file(arguments: JSON, content: str) -> str:
    lines = content.count("\n") + (not content.endswith("\n"))
    return f"{str(arguments.get('path')).lstrip('/')} has {lines} line{'s' * (lines != 1)}:\n\n{_quote(content)}"


def _of_list(content: str) -> str:
    return _sentence(content) if content.startswith("There are no files") else f"The files here:\n{_quote(content)}"


def _of_answer(_: JSON, content: str) -> str:
    said = re.sub(r"(^|, )other: ", r"\1", content)
    return "You did not want to say." if content.startswith("The person declined") else f"You said: {_quote(said)}"


_SAID: Final[Mapping[str, Callable[[JSON, str], str]]] = {
    "calculate": lambda arguments, content: f"{arguments.get('expression')} = {_quote(content)}",
    "recall": lambda _, content: f"I remember:\n{_quote(content)}" if content.startswith("- ") else _sentence(content),
    "list_files": lambda _, content: _of_list(content),
    "find_in_file": lambda _, content: f"Found:\n{_quote(content)}",
    "read_file": _of_file,
    "ask_user": _of_answer,
    "task": lambda _, content: f"The sub-agent says: {_quote(content.removeprefix(MARK))}",
}
"""By tool, from its arguments and its output."""
_SAID_OF_ASK: Final[Mapping[str, Callable[[JSON, str], str]]] = {
    "add_todos": lambda arguments, _: f"Added to your todos: {', '.join(todo['content'] for todo in arguments['todos'])}.",
    "complete_todos": lambda arguments, content: f"Done: {', '.join(todo['content'] for todo in arguments['todos'])}.{_left(content)}",
    "remove_todos": lambda _, content: f"Removed.{_left(content)}",
    "use": lambda _, content: _quote(content),
}
"""By kind of ask, for tools whose own words are meant for models."""


def _left(content: str) -> str:
    return "" if content.startswith("The todos now:") else " Nothing is left to do."


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) or "\n" in text else text + "."


def _quote(text: str) -> str:
    if len(text) <= MAX_QUOTE:
        return text
    return f"{text[:MAX_QUOTE]}\n[… {len(text) - MAX_QUOTE} more characters]"

"""From a call that waits to a text for a person, and from what the person types to a decision: pure functions.

A person approves what the person has seen: nothing is left out without saying so, and characters that cannot be seen, or that could
reverse the text around them, are shown by their numbers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from trio_sagents import JSON, Answer, PendingCall, Question
from trio_sagents.cli._words import Piece, one_line

MAX_LINES: Final = 40
"""How many lines of the arguments of a call are shown, unless the person asks for all."""
CANCEL: Final = "/cancel"


def visible(text: str) -> str:
    """Return `text` with every character that cannot be seen written as an escape; line breaks and spaces stay."""
    return "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text)


def _escape(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) < 32 else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def call_lines(call: PendingCall) -> Sequence[str]:
    """Return what a call would do, as lines: a change of a file as a difference, other arguments as JSON."""
    lines = list(_change_lines(call.name, call.arguments))
    if not lines:
        pretty = json.dumps(call.arguments, indent=2, ensure_ascii=False)
        lines = [call.name, *(f"  {line}" for line in pretty.splitlines())] if call.arguments else [f"{call.name}()"]
    return [f"  {visible(line)}" for line in lines]


def _change_lines(name: str, arguments: JSON) -> Iterator[str]:
    """Yield the lines of a change of a file; nothing if there are other arguments than expected, so that all of them are shown."""
    match name, dict(arguments):
        case "create_file", {"path": str(path), "content": str(content), **rest} if not rest:
            yield f"{name} {path}"
            yield from _marked("+", content)
        case "replace_file_text", {"path": str(path), "old_text": str(old), "new_text": str(new), **rest} if set(rest) <= {"replace_all"}:
            yield f"{name} {path}{', everywhere' if rest.get('replace_all') else ''}"
            yield from _marked("-", old)
            yield from _marked("+", new)
        case "delete_file", {"path": str(path), **rest} if not rest:
            yield f"{name} {path}"
        case "move_file", {"old_path": str(old), "new_path": str(new), **rest} if not rest:
            yield f"{name} {old} → {new}"
        case _:
            return


def _marked(mark: str, text: str) -> Iterator[str]:
    lines = text.split("\n")
    if lines[-1] == "":
        del lines[-1]
    elif lines:
        lines[-1] += "  [no line end]" if len(lines) > 1 else ""
    yield from (f"{mark} {line}" for line in lines)


def cut(lines: Sequence[str]) -> Sequence[str]:
    """Return the lines to show at first: all of them, or the beginning and how many are left."""
    if len(lines) <= MAX_LINES:
        return lines
    return [*lines[:MAX_LINES], f"  [… {len(lines) - MAX_LINES} more lines: v shows all of them]"]


def heading(call: PendingCall, number: int, total: int) -> str:
    """Return the heading of a question."""
    where = f" of the sub-agent {' / '.join(map(visible, call.path))}" if call.path else ""
    what = {"approval": f"Approve this call{where}?", "question": f"A question{where}:", "halt": f"Halted by a tool{where}:"}[call.kind]
    return f"{what} ({number} of {total})" if total > 1 else what


def asking(call: PendingCall, number: int, total: int, *, whole: bool = False) -> Sequence[Piece]:
    """Return everything that a person sees before deciding about a call."""
    lines = [heading(call, number, total)]
    match call.kind:
        case "question" if call.question is not None:
            lines += question_lines(call.question)
        case "halt":
            lines += [f"  {line}" for line in visible(call.text).splitlines()]
        case _:
            lines += call_lines(call) if whole else cut(call_lines(call))
            if call.text:
                lines.append(f"  ({one_line(visible(call.text))})")
    return [Piece(f"{line}\n", "ask") for line in lines]


def question_lines(question: Question) -> Sequence[str]:
    """Return a question with its numbered options and a hint how to answer."""
    lines = [f"  {line}" for line in visible(question.text).splitlines()]
    for number, option in enumerate(question.options, 1):
        lines.append(f"  {number:3}  {visible(option.label or option.value)}")
    hints = {"single": "a number", "multi": "numbers, such as 1,3", "text": "your answer"}[question.kind]
    other = ", or your own words" if question.allow_other and question.options else ""
    decline = f"; {CANCEL} declines" if question.allow_cancel else ""
    return [*lines, f"  {hints}{other}{decline}"]


def parse_answer(call: PendingCall, text: str) -> Answer:
    """Return the answer that a person typed.

    Raises:
        ValueError: the text is not an answer; the message says how to answer.
    """
    question = call.question
    assert question is not None
    text = text.strip()
    if text.lower() == CANCEL:
        if not question.allow_cancel:
            raise ValueError("this question must be answered; Ctrl-C leaves it open")
        return Answer(call, cancel=True)
    if not text:
        raise ValueError("the answer is empty")
    if question.kind == "text":
        return Answer(call, text)
    words = [text] if question.kind == "single" else [word.strip() for word in text.split(",") if word.strip()]
    chosen: list[str] = []
    others: list[str] = []
    for word in words:
        value = _option(question, word)
        (others if value is None else chosen).append(word if value is None else value)
    if others and not question.allow_other:
        raise ValueError(f"{others[0]!r} is not one of the {len(question.options)} options")
    chosen = list(dict.fromkeys(chosen))
    if question.kind == "single":
        return Answer(call, chosen[0]) if chosen else Answer(call, other=others[0])
    return Answer(call, chosen or None, other=", ".join(others) or None)


def _option(question: Question, word: str) -> str | None:
    if word.isdecimal():
        if 1 <= int(word) <= len(question.options):
            return question.options[int(word) - 1].value
        if not any(word in {option.value, option.label} for option in question.options):
            raise ValueError(f"there is no option {word}; choose from 1 to {len(question.options)}")
    for option in question.options:
        if word.casefold() in {option.value.casefold(), option.label.casefold()}:
            return option.value
    return None


def parse_arguments(text: str) -> JSON:
    """Return the arguments that a person typed.

    Raises:
        ValueError: the text is not a JSON object; the message says where.
    """
    try:
        value: object = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as exc:
        raise ValueError(f"this is not JSON: {exc.msg} at character {exc.pos + 1}") from exc
    except RecursionError as exc:
        raise ValueError("this is nested too deeply") from exc
    if not isinstance(value, Mapping):
        raise ValueError('the arguments must be a JSON object, such as {"path": "/a.txt"}')  # noqa: TRY004  # a text for a person, like the other errors here
    return value


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def arguments_text(call: PendingCall) -> str:
    """Return the arguments as one line of JSON, to edit: in ASCII if some character could not be seen."""
    text = json.dumps(call.arguments, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(call.arguments)

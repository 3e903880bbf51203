"""What the offline model writes for the library rather than for a person: titles of conversations, and summaries of long ones."""

import re
from typing import Final

from trio_sagents.data.requests import ModelRequest

MAX_TITLE_WORDS: Final = 6
MAX_SUMMARY: Final = 1_500
"""Characters."""
MAX_SAID: Final = 100
"""Characters of one message that a summary repeats."""
LAST: Final = "The last request was: "
_SPEAKER: Final = re.compile(r"^(Person|Assistant|Tool|Instructions): ", re.MULTILINE)
_POLITE: Final = re.compile(r"^(?:(?:please|hello|hi|hey|now|can you|could you|would you|will you)[,!]?\s+)+", re.IGNORECASE)


def duty_text(request: ModelRequest) -> str | None:
    """Return the title or the summary that a request wants; None if the request belongs to a conversation."""
    if request.tools or len(request.messages) != 1:
        return None
    text = request.messages[0].text
    if re.search(r"\btitles?\b", request.system) and text.startswith("Question:\n"):
        return title_of(text)
    if re.search(r"\bshorten|\bsummar", request.system) and _SPEAKER.search(text):
        return summary_of(text)
    return None


def title_of(text: str) -> str:
    """Return a title for the conversation whose first question and answer these are: the question's first words."""
    question = text.removeprefix("Question:\n").partition("\n\nAnswer:\n")[0]
    words = _POLITE.sub("", " ".join(question.split())).rstrip(" .?!").split()
    title = " ".join(words[:MAX_TITLE_WORDS]).rstrip(",;:") or "A conversation"
    return title[:1].upper() + title[1:]


def summary_of(text: str) -> str:
    """Return a summary of a transcript: what the person said, the newest last, and what was answered to it at the end."""
    pieces = _SPEAKER.split(text)
    before = pieces[0].strip()
    said = list(zip(pieces[1::2], (" ".join(piece.split()) for piece in pieces[2::2]), strict=True))
    wishes = [words for speaker, words in said if speaker == "Person"]
    answers = [words for speaker, words in said if speaker == "Assistant"]
    lines = [f"- the person said: {_short(words)}" for words in wishes]
    if answers:
        lines.append(f"- the last answer was: {_short(answers[-1])}")
    while len(lines) > 1 and sum(map(len, lines)) > MAX_SUMMARY:
        del lines[0]
    if before:
        lines.insert(0, f"- before that: {_short(before.splitlines()[-1])}")
    if wishes:
        lines.append(f"{LAST}{_short(wishes[-1])}")
    return "\n".join(lines) or "- nothing was said"


def last_request(summary: str) -> str | None:
    """Return the request that a summary of this module ends with; None for any other text."""
    _, mark, words = summary.rpartition(f"\n{LAST}")
    return words if mark and "\n" not in words else None


def _short(text: str) -> str:
    return text if len(text) <= MAX_SAID else text[: MAX_SAID - 1] + "…"

"""The state of a conversation, as its last commit left it."""

from collections.abc import Iterable, Sequence

import attrs

from trio_sagents.data.json import JSON
from trio_sagents.data.messages import Message
from trio_sagents.data.todos import Todo


def _messages(messages: Iterable[Message]) -> tuple[Message, ...]:
    return tuple(messages)


def _todos(todos: Iterable[Todo]) -> tuple[Todo, ...]:
    return tuple(todos)


@attrs.frozen
class OlderMessages:
    """A page of the messages of a conversation that are before its window."""

    messages: Sequence[Message] = attrs.field(converter=_messages)
    """Oldest first; may be empty."""
    before: str | None = None
    """For the next older page; None if there is none."""


@attrs.frozen
class State:
    """An immutable picture of one conversation."""

    messages: Sequence[Message] = attrs.field(default=(), converter=_messages)
    """The history, oldest first; after a checkpoint its window alone."""
    todos: Sequence[Todo] = attrs.field(default=(), converter=_todos)
    metadata: JSON = attrs.field(factory=dict)
    older: int = 0
    """How many messages are before the window, in the store alone."""

    @property
    def last_text(self) -> str:
        """The text of the last assistant message that has any, or "" where there is none."""
        for message in reversed(self.messages):
            if message.role == "assistant" and message.text:
                return message.text
        return ""

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
class State:
    """An immutable picture of one conversation."""

    messages: Sequence[Message] = attrs.field(default=(), converter=_messages)
    """The history, oldest first."""
    todos: Sequence[Todo] = attrs.field(default=(), converter=_todos)
    metadata: JSON = attrs.field(factory=dict)

    @property
    def last_text(self) -> str:
        """The text of the last assistant message that has any, or "" where there is none."""
        for message in reversed(self.messages):
            if message.role == "assistant" and message.text:
                return message.text
        return ""

"""Results of tools that bring messages into the turn.

The messages are kept with the result, in one commit, in the metadata of the tool message. They come into the history when all calls of
the answer are done, also after an interrupt or a restart. Results come in any order; the messages come in the order of the results.
"""

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from trio_sagents.data.messages import FROM_TOOL, Message
from trio_sagents.data.wire import decode_message, encode_message

EXPANDS: Final = "expands"
"""In the metadata of a tool message: the messages that its result brings into the turn, as records."""


def with_expansion(message: Message, expands: Sequence[Message]) -> Message:
    """Return a tool message with the messages that its result brings into the turn."""
    if not expands:
        return message
    return attrs.evolve(message, metadata={**message.metadata, EXPANDS: [encode_message(each) for each in expands]})


def expanded(messages: Sequence[Message], new_id: Callable[[], str], turn_id: str | None) -> Sequence[Message]:
    """Return the messages that the results at the end of a history bring into the turn, in order; each with a new id.

    Args:
        messages: the history. What follows its last answer are results, unless their messages have come already.
        new_id: returns an id that nothing in the conversation has.
        turn_id: the turn.
    """
    found: list[Message] = []
    for message in reversed(messages):
        if message.role != "tool":
            break
        own = [decode_message("", record) for record in message.metadata.get(EXPANDS, ())]
        name = message.results[0].name if message.results else ""
        found[:0] = [attrs.evolve(each, turn_id=turn_id, metadata={FROM_TOOL: name} if each.role == "user" else {}) for each in own]
    return tuple(attrs.evolve(each, message_id=new_id()) for each in found)

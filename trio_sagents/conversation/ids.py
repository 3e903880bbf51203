"""Which ids of messages and of tool calls are in use.

Messages and calls have separate spaces: the host names its messages, the model names its calls, and neither knows the other's
names. An id is in use from the moment at which it is handed out or claimed, so that two writes on their way to the store cannot
both use it.
"""

from collections.abc import Iterable, Iterator

import attrs

from trio_sagents.data.messages import Message


@attrs.define(eq=False)
class Ids:
    """The ids of one conversation."""

    incarnation: str
    """Names the agent among all that ever ran for this conversation; the ids that this agent makes begin with it."""
    _messages: set[str] | None = attrs.field(default=None, repr=False)
    _calls: set[str] | None = attrs.field(default=None, repr=False)
    _unused: set[str] | None = attrs.field(default=None, repr=False)
    # The sets are made when they are needed: an agent that has said nothing yet would keep three empty ones.
    _made: int = 0

    @property
    def messages(self) -> set[str]:
        """The ids of all messages, also of those on their way to the store."""
        if self._messages is None:
            self._messages = set()
        return self._messages

    @property
    def calls(self) -> set[str]:
        """The ids of all tool calls, also of those on their way to the store."""
        if self._calls is None:
            self._calls = set()
        return self._calls

    @property
    def unused(self) -> set[str]:
        """New ids that no message and no call has yet."""
        if self._unused is None:
            self._unused = set()
        return self._unused

    def new(self) -> str:
        """Return an id that no message and no call of this conversation has."""
        while True:
            self._made += 1
            made = f"{self.incarnation}-{self._made}"
            if made not in self.messages and made not in self.calls:  # a caller may have guessed the id, and used it
                self.messages.add(made)
                self.calls.add(made)
                self.unused.add(made)
                return made

    def source(self) -> Iterator[str]:
        """Return an endless source of new ids."""
        while True:
            yield self.new()

    def is_used(self, made: str) -> bool:
        """Return whether a message or a call has this id, on record or on its way there."""
        return (made in self.messages or made in self.calls) and made not in self.unused

    def claim(self, messages: Iterable[Message]) -> "tuple[frozenset[str], frozenset[str]]":
        """Mark the ids of these messages and of their calls as used; return those that are new, for `release`."""
        messages = tuple(messages)
        new_messages = frozenset(message.message_id for message in messages) - self.messages
        new_calls = frozenset(call.call_id for message in messages for call in message.calls) - self.calls
        self.messages.update(new_messages)
        self.calls.update(new_calls)
        self.unused.difference_update(message.message_id for message in messages)
        self.unused.difference_update(call.call_id for message in messages for call in message.calls)
        return new_messages, new_calls

    def forget(self, messages: Iterable[Message]) -> None:
        """Drop the ids of messages that left the window: the store knows them. An id that `new` may still come to stays.

        The ids that were handed out before those and that nothing has got, such as those of turns, are dropped, too.
        """
        last = 0
        for message in messages:
            last = max(last, self._drop(message.message_id, self.messages, self.calls))
            for call in message.calls:
                self._drop(call.call_id, self.calls, self.messages)
        for made in [made for made in self.unused if self._number(made) <= last]:
            self.unused.discard(made)
            self._drop(made, self.messages, self.calls)

    def _drop(self, used: str, space: set[str], other: set[str]) -> int:
        """Drop an id from its space; one that was made here is in both. Return its number, if it was made here."""
        number = self._number(used)
        if number > self._made:
            return 0
        space.discard(used)
        if number:
            other.discard(used)
        return number

    def _number(self, used: str) -> int:
        """Return the number in an id that was made here, or may be made; 0 for any other id."""
        number = used.removeprefix(f"{self.incarnation}-")
        return int(number[:20]) if number != used and number.isascii() and number.isdecimal() else 0

    def release(self, claimed: "tuple[frozenset[str], frozenset[str]]") -> None:
        """Take a claim back: its write has failed."""
        self.messages.difference_update(claimed[0])
        self.calls.difference_update(claimed[1])

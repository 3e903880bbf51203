"""The middleware host: what middleware and tools may ask of the code that runs the agent."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from trio_sagents.data.cursors import Channel
from trio_sagents.data.events import Event
from trio_sagents.data.json import JSON, Opaque, Options
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.records import Row
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import OlderMessages, State
from trio_sagents.data.todos import Todo

AsyncFunction = Callable[..., Awaitable[Opaque]]  # type: ignore[explicit-any]  # any async function


class MiddlewareHost(Protocol):
    """What middleware and tools may ask of the code that runs the agent."""

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        ...

    @property
    def agent_id(self) -> str:
        """The agent's id."""
        ...

    @property
    def scope(self) -> Scope:
        """In a turn, that of the call that posted its first message; else that of the call that started the agent."""
        ...

    def state(self) -> State:
        """Return the last committed state."""
        ...

    def publish(self, event: Event, channel: Channel = "main") -> None:
        """Send an event to the subscribers."""
        ...

    async def update(
        self, todos: Sequence[Todo] | None, metadata: JSON | None, rows: Sequence[Row] = (), covers: str | None = None
    ) -> None:
        """Keep todos, keys of the metadata, and rows of the transcript; durable when this returns.

        `covers` is the id of a message up to which a summary in the metadata stands for the history: those messages may leave the window.
        """
        ...

    @property
    def options(self) -> Options:
        """The host's own options of the session."""
        ...

    @property
    def values(self) -> Options:
        """The host's own values of the post that began the running turn; empty outside of turns."""
        ...

    async def older_messages(self, before: str | None, limit: int) -> OlderMessages:
        """Return a page of the messages before the window of the conversation, from the store."""
        ...

    def start_soon(self, function: AsyncFunction, *args: Opaque) -> None:
        """Start a task that ends with the agent at the latest."""
        ...

    @property
    def usage(self) -> Usage:
        """What the running turn has used so far; zero outside of turns."""
        ...

    @property
    def usage_by_model(self) -> Mapping[str, Usage]:
        """By the name of the model: what the running turn has used since it began or continued; empty outside of turns.

        Counts that a provider did not report are estimated.
        """
        ...

    def add_usage(self, usage: Usage, model: str, unreported: Usage) -> None:
        """Count usage towards the running turn, by the name of the model, and an estimate of what the provider did not report."""
        ...

"""The blueprint of an agent: what its start has decided, as values, before any task of the agent runs."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import attrs

from trio_sagents.agent import Agent
from trio_sagents.data.config import SessionPolicy
from trio_sagents.data.json import Options
from trio_sagents.data.messages import UserMessage
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import State

Preprocessed: TypeAlias = Awaitable[UserMessage | tuple[UserMessage, UserMessage]]


@attrs.frozen
class PostContext:
    """What a message preprocessor with three parameters gets as its third argument."""

    conversation_id: str
    agent_id: str
    message_id: str
    """The id that the message will have."""
    state: State = attrs.field(repr=False)
    """The conversation as it was last committed, without this message."""
    display: UserMessage | None
    """What the poster wants people to see instead of the message (`post(..., display=...)`). None shows the message."""
    options: Options = attrs.field(repr=False)
    """The host's own options of this session: `SessionOpts.app_internal`."""
    values: Options = attrs.field(repr=False)
    """The host's own values of this post: `post(..., values=...)`."""


MessagePreprocessor: TypeAlias = Callable[[UserMessage, Scope], Preprocessed] | Callable[[UserMessage, Scope, PostContext], Preprocessed]
"""(message, scope) or (message, scope, context) -> what the model sees, or (what the model sees, what people see). If it returns one
message, people see the `display` of the post, if there is one. Raising refuses the message."""
_OF_MESSAGE_AND_SCOPE: Final = 2


def takes_post_context(preprocessor: MessagePreprocessor) -> bool:
    """Return whether a preprocessor has a third parameter that has to be given, or is named "context"."""
    try:
        parameters = [
            parameter
            for parameter in inspect.signature(preprocessor).parameters.values()
            if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        ]
    except (TypeError, ValueError):
        return False
    if len(parameters) <= _OF_MESSAGE_AND_SCOPE:
        return False
    third = parameters[_OF_MESSAGE_AND_SCOPE]
    return third.default is third.empty or third.name == "context"


@attrs.frozen
class Blueprint:
    """One session, as its factory wants it."""

    agent: Agent
    scope: Scope = attrs.field(repr=False)
    """The agent's: of the call that booted it."""
    policy: SessionPolicy
    inactivity_timeout: float
    """Seconds of idleness after which the agent leaves; `math.inf` disables."""
    preprocessor: MessagePreprocessor | None
    options: Options = attrs.field(repr=False)
    """`SessionOpts.app_internal`."""

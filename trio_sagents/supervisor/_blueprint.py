"""What a boot decided about an agent: values, before anything lives."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs

from trio_sagents.agent import Agent
from trio_sagents.data.config import SessionPolicy
from trio_sagents.data.json import Options
from trio_sagents.data.messages import UserMessage
from trio_sagents.data.scopes import Scope

MessagePreprocessor: TypeAlias = Callable[[UserMessage, Scope], Awaitable[UserMessage | tuple[UserMessage, UserMessage]]]
"""(message, scope) -> what the model sees, or (what the model sees, what people see). Raising refuses the message."""


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

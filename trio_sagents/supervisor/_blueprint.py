"""What a boot decided about an agent: values, before anything lives."""

import attrs

from trio_sagents.abc import MessagePreprocessor, Scope
from trio_sagents.agent import Agent
from trio_sagents.data.config import SessionPolicy
from trio_sagents.data.json import Options


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

"""Who is asking, and what for."""

from typing import Literal, TypeAlias

import attrs

from trio_sagents.data.json import Opaque

Scope: TypeAlias = Opaque
"""Who is asking: the host's own object. The library hands the object through, and stores at most a key of it."""
Action: TypeAlias = Literal["start", "view", "post", "decide", "cancel", "stop", "debug", "list", "delete"]
"""What a caller wants to do with a conversation; an `Authorizer` is asked about each."""
Overlap: TypeAlias = Literal["queue", "steer", "interrupt", "reject"]
"""What `post` does while a turn is running."""


@attrs.frozen
class UnknownScope:
    """Stands for the scope of somebody who posted a message in an earlier process, if the host cannot say which scope that was.

    A turn that continues after a restart has it instead of the scope of the caller who started the agent, so that nothing runs in another
    person's name. `Authorizer.scope_of` is asked first.
    """

    actor: str | int | None = None
    """The key of the poster, as `Authorizer.actor_of` gave it; None if there was no key."""

"""Who is asking, and what for."""

from typing import Literal, TypeAlias

from trio_sagents.data.json import Opaque

Scope: TypeAlias = Opaque
"""Who is asking: the host's own object. The library hands it through and never stores it."""
Action: TypeAlias = Literal["start", "view", "post", "decide", "cancel", "stop", "debug", "list", "delete"]
"""What a caller wants to do with a conversation; an `Authorizer` is asked about each."""
Overlap: TypeAlias = Literal["queue", "steer", "interrupt", "reject"]
"""What `post` does while a turn is running."""

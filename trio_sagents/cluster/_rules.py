"""What every engine of a cluster does alike: bounds, and what a caller may ask for."""

import math
from collections.abc import Sequence
from typing import Final

from trio_sagents.nodes import Mail

MIN_MAIL: Final = 64 * 1024
"""The least value of `Cluster.max_mail`, in bytes."""
MAX_BOX: Final = 10_000
"""The default of `max_box`: the most mails that wait for one node."""
LONGEST_WAIT: Final = 5.0
"""Seconds after which `Cluster.wait` returns though nothing is known to have arrived: word of a mail can be lost."""
SWEPT_AFTER: Final = 10.0
"""A node is swept away when its lease has ended for this many times its duration. Until then `nodes` shows that it is dead, and a node that
was only paused can renew its lease and keep its conversations. A join or a renewal of another node sweeps."""


def check_bounds(max_mail: int, max_box: int) -> None:
    """Raise unless the bounds of an engine are valid.

    Raises:
        TypeError: one of them is not an int.
        ValueError: one of them is too small.
    """
    for name, value, least in (("max_mail", max_mail, MIN_MAIL), ("max_box", max_box, 1)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be int, not {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


def check_ttl(ttl: float) -> None:
    """Raise ValueError unless a lease can last for `ttl` seconds."""
    if not 0 < ttl < math.inf:
        raise ValueError(f"ttl must be a finite number of seconds above 0, not {ttl!r}")


def check_mails(mails: Sequence[Mail], max_mail: int) -> None:
    """Raise unless each mail can be sent.

    Raises:
        ValueError: a mail is too long, or its body is not JSON text that can be stored; nothing was sent.
    """
    for mail in mails:
        size = len(mail.body.encode())
        if size > max_mail:
            raise ValueError(f"a mail has {size} bytes, and this engine carries at most {max_mail} (max_mail); split it")
        if "\0" in mail.body:
            raise ValueError("the body of a mail has the character U+0000, which JSON text cannot have; encode it with json.dumps")


def check_limit(limit: int) -> None:
    """Raise ValueError unless `limit` is a number of mails above 0."""
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit!r}")

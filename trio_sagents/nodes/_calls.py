"""Calls of the engine: each takes a bounded time, its answer is checked, and what it raises is one error."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, ParamSpec, TypeVar

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.exceptions import RegistryUnavailable
from trio_sagents.nodes._ports import Claim

P = ParamSpec("P")
T = TypeVar("T")
log: Final = logging.getLogger("trio_sagents")


class CallFailed(Exception):
    """A call of the engine raised, took too long, or answered what the port does not allow; raised from that. For the library itself."""


@attrs.define(eq=False)
class Calls:
    """How one node calls the engine."""

    patience: float
    """Seconds that one call may take."""
    failed: int = 0
    """Calls that failed: for operators."""

    async def ask(self, check: Callable[[object], T], function: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the engine, and return its answer, checked.

        Raises:
            CallFailed: it raised, took too long, or answered nonsense; from that.

        Cancellation: nobody knows whether it was done.
        """
        try:
            with trio.fail_after(self.patience):
                return check(await await_host(function, *args, **kwargs))
        except Exception as exc:  # the boundary to the host's engine
            self.failed += 1
            raise CallFailed from exc

    def log(self, failure: CallFailed, message: str, *args: object) -> None:
        """Log a call that failed: in one line if the engine cannot be reached, otherwise with the traceback."""
        cause = failure.__cause__
        if isinstance(cause, RegistryUnavailable | trio.TooSlowError):
            log.warning(f"{message} (%s)", *args, str(cause) or f"it took longer than {self.patience:g} seconds")  # noqa: G004
        else:
            log.warning(message, *args, exc_info=cause)


def any_answer(_answer: object) -> None:
    """Accept any answer of a method that returns nothing."""


def bool_answer(answer: object) -> bool:
    """Return the answer of `Cluster.renew`."""
    if not isinstance(answer, bool):
        raise TypeError(f"renew must return a bool, not {type(answer).__name__}")
    return answer


def claim_answer(answer: object) -> Claim | None:
    """Return the answer of `Cluster.claim`."""
    if answer is not None and not isinstance(answer, Claim):
        raise TypeError(f"claim must return None or a Claim, not {type(answer).__name__}")
    return answer


def holders_answer(answer: object) -> Mapping[str, Claim]:
    """Return the answer of `Cluster.holders`."""
    if not isinstance(answer, Mapping):
        raise TypeError(f"holders must return a mapping of Claims, not {type(answer).__name__}")
    return {conversation_id: claim for conversation_id, claim in answer.items() if claim_answer(claim) is not None}

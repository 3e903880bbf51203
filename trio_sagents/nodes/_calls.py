"""Calls of the engine: each takes a bounded time, its answer is checked, and what it raises is one error."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, ParamSpec, TypeVar

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.exceptions import RegistryUnavailable
from trio_sagents.nodes._ports import Claim, Cluster, Mail, NodeInfo, Received

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


def nodes_answer(answer: object) -> Sequence[NodeInfo]:
    """Return the answer of `Cluster.nodes`."""
    return _sequence("nodes", answer, NodeInfo)


def receive_answer(answer: object) -> Sequence[Received]:
    """Return the answer of `Cluster.receive`."""
    return _sequence("receive", answer, Received)


def send_answer(answer: object) -> Collection[str]:
    """Return the answer of `Cluster.send`."""
    if isinstance(answer, str) or not isinstance(answer, Collection):
        raise TypeError(f"send must return the ids of the recipients that got nothing, not {type(answer).__name__}")
    return {str(node_id) for node_id in answer}


def _sequence(method: str, answer: object, kind: type[T]) -> Sequence[T]:
    if isinstance(answer, str) or not isinstance(answer, Sequence):
        raise TypeError(f"{method} must return a sequence of {kind.__name__}s, not {type(answer).__name__}")
    found = [item for item in answer if isinstance(item, kind)]
    if len(found) != len(answer):
        raise TypeError(f"{method} must return a sequence of {kind.__name__}s, and of nothing else")
    return found


@attrs.frozen(eq=False)
class Engine:
    """The engine, as those see it who ask again when it fails: whatever goes wrong is `RegistryUnavailable`, and is logged here.

    An engine is code of a host. What it raises must not end the services of a node, and with them all agents of the block.
    """

    cluster: Cluster
    calls: Calls

    @property
    def max_mail(self) -> int:
        """The most bytes of one mail."""
        return self.cluster.max_mail

    async def holders(self, conversation_ids: Collection[str]) -> Mapping[str, Claim]:
        """Return who has each of the conversations; as `Cluster.holders`."""
        return await self._ask("holders", holders_answer, self.cluster.holders, conversation_ids)

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes; as `Cluster.nodes`."""
        return await self._ask("nodes", nodes_answer, self.cluster.nodes)

    async def send(self, mails: Sequence[Mail]) -> Collection[str]:
        """Put mails into the boxes of their recipients; as `Cluster.send`."""
        return await self._ask("send", send_answer, self.cluster.send, mails)

    async def receive(self, node_id: str, done: Sequence[int], limit: int) -> Sequence[Received]:
        """Return what is in the box of a node; as `Cluster.receive`."""
        return await self._ask("receive", receive_answer, self.cluster.receive, node_id, done, limit)

    async def wait(self, node_id: str) -> None:
        """Return when there may be mail; as `Cluster.wait`. The engine says how long that takes, so the time is not bounded here."""
        try:
            await await_host(self.cluster.wait, node_id)
        except Exception as exc:  # the boundary to the host's engine
            raise self._unavailable("wait", exc) from exc

    async def _ask(
        self, method: str, check: Callable[[object], T], function: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            return await self.calls.ask(check, function, *args, **kwargs)
        except CallFailed as exc:
            cause = exc.__cause__
            assert cause is not None
            raise self._unavailable(method, cause) from cause

    def _unavailable(self, method: str, cause: BaseException) -> RegistryUnavailable:
        """Return the error for a call that failed. A bug of the engine is logged with its traceback; an engine that is away is not."""
        if isinstance(cause, RegistryUnavailable):
            return RegistryUnavailable(str(cause))
        if isinstance(cause, trio.TooSlowError):
            return RegistryUnavailable(f"the engine did not answer {method} within {self.calls.patience:g} seconds")
        log.warning("%s.%s failed", type(self.cluster).__name__, method, exc_info=cause)
        return RegistryUnavailable(f"{type(self.cluster).__name__}.{method} failed")

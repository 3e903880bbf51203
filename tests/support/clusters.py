"""Engines of a cluster that fail as planned, and sessions that are nodes of one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs

from tests.support.scenarios import Faults, make_config
from trio_sagents import Sessions, open_sessions
from trio_sagents.cluster import MemoryCluster

TTL = 9.0


@attrs.define(eq=False)
class FaultyCluster:
    """A cluster that fails as planned, in front of one that several nodes share."""

    inner: MemoryCluster = attrs.field(factory=MemoryCluster)
    faults: Faults = attrs.field(factory=Faults)
    calls: list[tuple[str, Any]] = attrs.field(factory=list)
    answers: dict[str, Any] = attrs.field(factory=dict)
    """By method: what it answers in place of the truth."""

    @property
    def max_mail(self) -> int:
        return self.inner.max_mail

    def open(self) -> Any:
        return self.inner.open()

    async def join(self, node: Any, ttl: float) -> Any:
        return await self._call("join", node, ttl)

    async def renew(self, node_id: str, ttl: float, *, is_draining: bool = False) -> Any:
        return await self._call("renew", node_id, ttl, is_draining=is_draining)

    async def leave(self, node_id: str) -> Any:
        return await self._call("leave", node_id)

    async def nodes(self) -> Any:
        return await self.inner.nodes()

    async def claim(self, conversation_id: str, node_id: str) -> Any:
        return await self._call("claim", conversation_id, node_id)

    async def release(self, conversation_ids: Any, node_id: str) -> Any:
        return await self._call("release", conversation_ids, node_id)

    async def holders(self, conversation_ids: Any) -> Any:
        return await self._call("holders", conversation_ids)

    async def send(self, mails: Any) -> Any:
        return await self.inner.send(mails)

    async def receive(self, node_id: str, done: Any, limit: int) -> Any:
        return await self.inner.receive(node_id, done, limit)

    async def wait(self, node_id: str) -> None:
        await self.inner.wait(node_id)

    def named(self, method: str) -> list[Any]:
        """Return the first arguments of all calls of a method."""
        return [what for name, what in self.calls if name == method]

    async def _call(self, method: str, what: Any, *rest: Any, **named: Any) -> Any:
        self.calls.append((method, what))

        async def effect() -> Any:
            answer = await getattr(self.inner, method)(what, *rest, **named)
            return self.answers.get(method, answer)

        return await self.faults.call(method, effect)


@asynccontextmanager
async def node(router: Any = None, cluster: Any = None, **settings: Any) -> AsyncIterator[Sessions]:
    """Open sessions as one of several nodes does."""
    policy = {"lease_ttl": TTL, "cancel_grace": 1.0, "settle_timeout": 1.0, **settings.pop("policy", {})}
    async with open_sessions(make_config(router, cluster=cluster, policy=policy, **settings)) as sessions:
        yield sessions

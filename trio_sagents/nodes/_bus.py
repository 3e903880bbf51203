"""The bus between the nodes of a cluster: what is published on one node reaches the listeners on all nodes, by the mail between them."""

import base64
import binascii
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from trio_sagents.broadcast import LocalPubSub

log: Final = logging.getLogger("trio_sagents")


class NodeBus:
    """A `PubSub` between nodes. Until its node has joined a cluster, and after the node has left, it reaches this process alone."""

    def __init__(self) -> None:
        self._local = LocalPubSub()
        self.max_payload: int = self._local.max_payload
        self._sending: dict[Callable[[str, str], None], None] = {}

    def publish(self, topic: str, payload: bytes) -> None:
        """Give a payload to everybody who subscribes to the topic, on any node, without waiting; as `PubSub.publish`."""
        self._local.publish(topic, payload)
        if self._sending:
            text = base64.b64encode(payload).decode()
            for send in self._sending:
                send(topic, text)

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Listen to a topic while the context is open; as `PubSub.subscribe`."""
        return self._local.subscribe(topic)

    def connect(self, send: Callable[[str, str], None]) -> None:
        """Have what is published sent to other nodes: `send` takes a topic and a text, and must not raise."""
        self._sending[send] = None

    def disconnect(self, send: Callable[[str, str], None]) -> None:
        """Send nothing by this way any more."""
        self._sending.pop(send, None)

    def deliver(self, topic: str, text: str) -> None:
        """Take what another node has published. Nothing happens if it cannot be read: it comes from outside."""
        try:
            payload = base64.b64decode(text, validate=True)
            if topic and len(payload) <= self.max_payload:
                self._local.publish(topic, payload)
        except (binascii.Error, ValueError) as exc:
            log.warning("what another node has published on topic %.100r cannot be read: %s", topic, exc)

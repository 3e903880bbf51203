"""Ports for programs that must be told one."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port of 127.0.0.1 that nobody else gets by chance. A server that sets SO_REUSEADDR, as servers do, can listen there."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))  # and does not listen: so another socket may be bound to it
        yield holder.getsockname()[1]

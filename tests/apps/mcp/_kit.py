"""Servers, and ways to see what is left of them."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from mcp.client._memory import InMemoryTransport
from mcp.server.mcpserver import MCPServer

from trio_sagents.mcp import McpConnection, StdioServer

RUDE = Path(__file__).with_name("rude_server.py")


def rude(*flags: str, **settings: Any) -> StdioServer:
    """Return the server that misbehaves."""
    return StdioServer(sys.executable, ["-I", str(RUDE), *flags], **settings)


def time_server() -> StdioServer:
    """Return a real one, from PyPI."""
    return StdioServer(sys.executable, ["-m", "mcp_server_time", "--local-timezone", "UTC"])


def descriptors() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    """Return the ids of this process's children, zombies included."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.add(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that is dead and not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


@asynccontextmanager
async def in_memory(server: MCPServer, monkeypatch: Any, **settings: Any) -> AsyncIterator[McpConnection]:
    """Open a connection to a server in this process, in virtual time. The transport is the SDK's own."""
    monkeypatch.setattr("trio_sagents.mcp._opening.transport_to", lambda *_: InMemoryTransport(server))
    connection = McpConnection(StdioServer("in-memory"), "memory", **settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.own)
        await connection.ready()
        yield connection
        nursery.cancel_scope.cancel()

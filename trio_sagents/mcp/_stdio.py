"""A server as a child process: three pipes, a process group of its own, and an end that leaves nothing behind.

The SDK has a transport for this, too. This one bounds what the server writes, reads messages leniently, keeps the server's standard
error off the terminal, and ends whatever the server itself has started: the group is killed before the child is reaped, so the id of
the group cannot belong to somebody else.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import attrs
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from trio_sagents.mcp._servers import StdioServer, redacted
from trio_sagents.mcp._wire import read_messages

MAX_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes that one message of a server may have; a longer message ends the connection."""
MAX_LOG_LINE: Final = 500
"""Characters that are logged of a line of standard error."""
MAX_LINE: Final = 64 * 1024
"""Bytes that are kept of a line of standard error: secrets are struck out of the line before it is cut for the log."""
MAX_LOG_LINES: Final = 500
"""Lines of standard error that are logged of one connection; the other lines are read and dropped."""
TERMINATE_TIMEOUT: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""
DRAIN_TIMEOUT: Final = 0.5
"""Seconds for the last lines of standard error; a process that has left the group may hold the pipe open."""
log: Final = logging.getLogger("trio_sagents.mcp")

Incoming = SessionMessage | Exception


@attrs.define(eq=False)
class StdioPipes:
    """The running child, and the tasks that carry messages to it and from it."""

    server: StdioServer
    name: str
    process: trio.Process
    on_lost: Callable[[], None]
    """Called when nothing more can come from the child, or be sent to it."""
    drained: trio.Event = attrs.field(factory=trio.Event)
    """Standard error has been read to its end."""

    async def carry(
        self, scope: trio.CancelScope, to_session: MemoryObjectSendStream[Incoming], from_session: MemoryObjectReceiveStream[SessionMessage]
    ) -> None:
        """Carry messages both ways until `scope` is cancelled. The scope is shielded, for a child can end only while somebody reads."""
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.read, to_session)
                nursery.start_soon(self.write, from_session)
                nursery.start_soon(self.drain_errors)

    async def read(self, messages: MemoryObjectSendStream[Incoming]) -> None:
        """Hand on what the child writes, until the child has closed its output. All is read: otherwise the child could not end."""
        assert self.process.stdout is not None
        buffer = bytearray()
        async with messages:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for data in self.process.stdout:
                    searched = len(buffer)
                    buffer += data
                    while (end := buffer.find(b"\n", searched)) >= 0:
                        line = bytes(buffer[:end])
                        del buffer[: end + 1]
                        searched = 0
                        await self._deliver(line, messages)
                    if len(buffer) > MAX_MESSAGE:
                        log.warning("MCP server %r sent a message of more than %d bytes: disconnected", self.name, MAX_MESSAGE)
                        break
            self.on_lost()

    async def _deliver(self, line: bytes, messages: MemoryObjectSendStream[Incoming]) -> None:
        found = read_messages(line)
        if not found and line.strip():
            log.debug("MCP server %r wrote a line of %d bytes that is not a message; ignored", self.name, len(line))
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody listens any more: only drain
            for message in found:
                await messages.send(SessionMessage(message))

    async def write(self, messages: MemoryObjectReceiveStream[SessionMessage]) -> None:
        """Write the messages of the session to the child."""
        assert self.process.stdin is not None
        async with messages:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for message in messages:
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await self.process.stdin.send_all(text.encode() + b"\n")
                return
        self.on_lost()

    async def drain_errors(self) -> None:
        """Read the child's standard error into the debug log."""
        assert self.process.stderr is not None
        left = MAX_LOG_LINES
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in self.process.stderr:
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[:MAX_LINE]
                for line in lines[:left]:
                    self._log_line(line)
                left -= min(left, len(lines))
        if rest and left:
            self._log_line(rest)
        self.drained.set()

    def _log_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        log.debug("MCP server %r: %s", self.name, redacted(text, self.server)[:MAX_LOG_LINE])

    async def end(self) -> None:
        """End the child, and all that it has started. This is bounded, so it may be shielded."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        with trio.move_on_after(self.server.exit_timeout) as patience:
            await _exited(self.process)
        if patience.cancelled_caught:
            log.debug("MCP server %r did not end when its input was closed; it is terminated", self.name)
            self._signal(signal.SIGTERM)
            with trio.move_on_after(TERMINATE_TIMEOUT):
                await _exited(self.process)
        self._signal(signal.SIGKILL)
        await self.process.wait()
        with trio.move_on_after(DRAIN_TIMEOUT):
            await self.drained.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # no process is left, or (on other systems than Linux) only dead ones
            os.killpg(self.process.pid, number)


async def _exited(process: trio.Process) -> None:
    """Wait until the child is dead, without reaping it if the system can do that: until then nobody else has the id of its group."""
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(process.pid)
        except OSError:  # an old kernel
            await process.wait()
            return
        try:
            await trio.lowlevel.wait_readable(fd)
        finally:
            os.close(fd)
    else:
        await process.wait()


@asynccontextmanager
async def stdio_streams(
    server: StdioServer, name: str, on_lost: Callable[[], None]
) -> AsyncIterator[tuple[MemoryObjectReceiveStream[Incoming], MemoryObjectSendStream[SessionMessage]]]:
    """Start a server's program; leaving the context ends the program, and all that it has started.

    Args:
        server: what to start.
        name: for logs.
        on_lost: called, perhaps more than once, when the connection has ended.

    Raises:
        OSError: the program cannot be started.

    Cancellation: the child has ended, and its pipes are closed.
    """
    process = await trio.lowlevel.open_process(
        [server.command, *server.args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**get_default_environment(), **server.env},
        cwd=server.cwd,
        start_new_session=True,
    )
    # No checkpoint until the `try`: the child lives from here on.
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = StdioPipes(server, name, process, on_lost)
    to_session, heard = anyio.create_memory_object_stream[Incoming](0)
    said, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    carrying = trio.CancelScope(shield=True)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipes.carry, carrying, to_session, from_session)
            try:
                yield heard, said
            finally:
                heard.close()  # so that the reader, which may wait for the session, continues and drains the pipe
                # Cancellation: the child must be gone when its owner is; `end` is bounded.
                with trio.CancelScope(shield=True):
                    await pipes.end()
                carrying.cancel()
    finally:
        for stream in (to_session, heard, said, from_session):
            stream.close()
        with trio.CancelScope(shield=True):
            await process.stdout.aclose()
            await process.stderr.aclose()

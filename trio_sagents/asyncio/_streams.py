"""How the streams of a block end before the block does: an open stream holds a server that waits for its connections."""

from collections.abc import Collection

import attrs

from trio_sagents.asyncio._block import Block
from trio_sagents.asyncio._signals import SHUTDOWN_SIGNALS, Chained


@attrs.define(eq=False)
class Streams:
    """The open streams of one block: watches, mailboxes, pages, and what `asyncio_app` serves."""

    _block: Block = attrs.field(repr=False)

    def end_streams(self) -> None:
        """Have every iteration over a watch, a mailbox or a page end, now and in future, as a loop that has come to its end.

        Agents are not touched, and nothing that was acknowledged is lost: a client that comes back continues from its cursor. The
        applications of `asyncio_app` in this loop see their clients leave. Call it when the server is asked to shut down.
        """
        self._block.guest.check_here("end_streams")
        self._block.end_streams()

    def end_streams_on(self, signals: Collection[int] = SHUTDOWN_SIGNALS) -> None:
        """Call `end_streams` when the server is told to shut down, until the block is left. What the server does then is not changed.

        Servers such as uvicorn wait for their open responses before they tell the application to shut down. A response that streams
        events does not end by itself, so without this call the server waits for ever, and no turn is drained.

        Args:
            signals: those that shut the server down. A signal that the server does not handle when this is called is left alone. In
                another thread than the main one there are no signals, and this call does nothing.
        """
        self._block.guest.check_here("end_streams_on")
        for number in signals:
            chained = Chained(number, self._block.guest.loop, self._block.end_streams)
            if chained.begin():
                self._block.chained.append(chained)

"""trio_sagents for applications that run on asyncio: Trio is a guest of the running loop, in the same thread.

    async with open_sessions(config) as sessions, sessions.watch("42", viewer="alice") as watch:
        await sessions.post("42", "Hello")
        async for envelope in watch:
            ...

The methods are those of `trio_sagents`, as awaitables and async iterators of asyncio. Cancellation goes both ways. Leaving the block ends
every agent. Everything that the library calls (tools, factories, middleware, stores) is code of Trio; it calls asyncio with `call_asyncio`.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _waiting    waiting in asyncio for what Trio does, through cancellations
    _signals    SIGINT between two steps of Trio; callbacks at a shutdown
    _steps      the steps of Trio, run by the loop
    _guest      the one run of Trio in this thread, and its loop
    _job        a call into Trio, and a context manager of Trio that is held open
    _crossing   `call_asyncio` and `call_trio`
    _block      what the objects of one block share
    _handles    receipts and handles
    _readers    mailboxes, watches and pages
    _presence   who watches what
    _streams    how streams end before their block does
    _sessions   `Sessions`, the front door
    _open       `open_sessions`, and how a block ends
    _asgi       an application of Trio in an asyncio server
"""

from trio_sagents.asyncio._asgi import asyncio_app
from trio_sagents.asyncio._crossing import call_asyncio, call_trio
from trio_sagents.asyncio._handles import AgentHandle, Receipt, SessionInfo
from trio_sagents.asyncio._open import open_sessions
from trio_sagents.asyncio._presence import Presence
from trio_sagents.asyncio._readers import Page, Subscriber, Watch
from trio_sagents.asyncio._sessions import Sessions

__all__ = (
    "AgentHandle",
    "Page",
    "Presence",
    "Receipt",
    "SessionInfo",
    "Sessions",
    "Subscriber",
    "Watch",
    "asyncio_app",
    "call_asyncio",
    "call_trio",
    "open_sessions",
)

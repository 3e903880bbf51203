"""Deleting a conversation: stores that hang, and agents of other processes."""

import contextlib
from typing import Any

import pytest
import trio

from tests.support.scenarios import (
    FaultyStore,
    ask,
    make_config,
    opened,
    transcript,
)
from trio_sagents import (
    ConversationNotFound,
    MemoryStore,
    PersistenceError,
    SessionsClosed,
    StartFailed,
    open_sessions,
)


async def test_delete_that_hangs(autojump_clock: Any) -> None:
    """R10: a store that never deletes blocks a start for start_timeout at most, and not the end of the block."""
    store = FaultyStore()
    store.faults.hang("delete")
    async with trio.open_nursery() as nursery:
        began = trio.current_time()

        async def delete() -> None:
            with pytest.raises((PersistenceError, SessionsClosed)):
                await sessions.delete("c")

        async with open_sessions(make_config(store=store)) as sessions:
            await ask(sessions, "hello")
            await sessions.stop("c")
            nursery.start_soon(delete)
            await trio.sleep(1)
            with contextlib.suppress(StartFailed), trio.fail_after(60):
                await sessions.start("c")

        assert trio.current_time() - began < 200


async def test_delete_that_hangs_when_the_block_ends(autojump_clock: Any) -> None:
    """R10: leaving open_sessions does not wait for a store that never deletes."""
    store = FaultyStore()
    store.faults.hang("delete")
    async with trio.open_nursery() as nursery:

        async def delete() -> None:
            with pytest.raises((PersistenceError, SessionsClosed)):
                await sessions.delete("c")

        async with open_sessions(make_config(store=store)) as sessions:
            await ask(sessions, "hello")
            await sessions.stop("c")
            nursery.start_soon(delete)
            await trio.sleep(1)
            began = trio.current_time()

        assert trio.current_time() - began < 100


async def test_deleted_and_begun_anew_elsewhere(autojump_clock: Any) -> None:
    """A deletion fences the earlier agents, and nothing answers from the deleted conversation."""
    store = MemoryStore()
    async with open_sessions(make_config(store=store)) as one, open_sessions(make_config(store=store)) as two:
        await ask(two, "old secret")
        await (await two.get("c")).wait_idle()
        assert await one.delete("c")
        await ask(one, "new")
        await (await one.get("c")).wait_idle()
        with contextlib.suppress(PersistenceError, ConversationNotFound):
            await ask(two, "again")
    async with opened(store=store) as sessions:
        assert [("user", "new"), ("assistant", "re: new")] == [(role, text) for role, text, _ in await transcript(sessions)]

"""Promises that nobody tested: each of these was found missing by a planted bug that survived."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.flow._kit import FaultyStore, answer_to, opened, transcript
from trio_sagents import ConversationNotFound, MemoryStore, PersistenceError
from trio_sagents.files.directory import DirectoryFiles


@pytest.mark.parametrize("doing", ["create", "write", "move", "delete"])
async def test_write_when_the_power_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str) -> None:
    """A file's content is flushed before it takes its name, and the folder after: so the disk has the old one or the new one, whole."""
    backend = DirectoryFiles(tmp_path)
    done: list[str] = []

    def noted(name: str, *, is_naming: bool) -> None:
        plain: Any = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            kind = "named" if is_naming else "folder" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else "content"
            if "unlink" not in name or not str(args[0]).startswith("~"):
                done.append(kind)
            return plain(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    async with backend.open():
        await backend.create(("alice",), "/a.txt", "old")
        for name in ("link", "rename", "unlink"):
            noted(name, is_naming=True)
        noted("fsync", is_naming=False)
        # `os.supports_dir_fd` was asked when it was opened.
        match doing:
            case "create":
                await backend.create(("alice",), "/b.txt", "new")
            case "write":
                await backend.write(("alice",), "/a.txt", "new")
            case "move":
                await backend.move(("alice",), "/a.txt", "/b.txt")
            case _:
                await backend.delete(("alice",), "/a.txt")
        await trio.lowlevel.checkpoint()

    moments = [kind for index, kind in enumerate(done) if not index or done[index - 1] != kind]
    assert {"create": ["content", "named", "folder"], "write": ["content", "named", "folder"]}.get(doing, ["named", "folder"]) == moments


async def test_stop_when_a_post_is_on_its_way(autojump_clock: Any) -> None:
    """A stop returns when the last submitted write has ended, of whomever: not when the agent's own task has."""
    store = FaultyStore()
    async with opened(store=store) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.latency["commit"] = 2.0
        nursery.start_soon(sessions.post, "c", "hi")
        await trio.sleep(1)

        assert await sessions.stop("c")
        assert 1 == len(store.commits)
        nursery.cancel_scope.cancel()


async def test_start_when_the_write_of_an_agent_that_was_given_up_lands(autojump_clock: Any) -> None:
    """What an earlier agent submitted is loaded by the next one, also where the stop did not wait for it."""
    store = FaultyStore()
    async with opened(store=store, policy={"settle_timeout": 3.0}) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.slow("commit", 10.0)

        async def post() -> None:
            with pytest.raises(PersistenceError):
                await sessions.post("c", "hi")

        nursery.start_soon(post)
        await trio.sleep(1)
        await sessions.stop("c")

        assert [] == store.commits
        info = await sessions.start("c")
        with trio.fail_after(1000):
            await info.agent.wait_idle()
        assert [("user", "hi", None), ("assistant", "re: hi", "stop")] == await transcript(sessions)


async def test_start_when_the_store_forgets_to_compare_owners(autojump_clock: Any) -> None:
    """The owner is compared at the boot, too: a store that says that it does, and does not, lets nobody in."""

    class Careless(MemoryStore):
        async def load(self, scope: Any, conversation_id: str, **settings: Any) -> Any:
            return await super().load(scope, conversation_id, check=settings["check"])

    async with opened(store=Careless()) as sessions:
        await answer_to(sessions, "mine", scope="alice")
        await sessions.stop("c", scope="alice")

        with pytest.raises(ConversationNotFound):
            await sessions.start("c", scope="bob")
        assert "re: again" == await answer_to(sessions, "again", scope="alice")

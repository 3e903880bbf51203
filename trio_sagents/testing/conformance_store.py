"""What every `ConversationStore` must do, as tests: subclass `StoreConformance`, say how a store is opened, and run pytest.

    class TestMyStore(StoreConformance):
        @asynccontextmanager
        async def open_store(self):
            yield MyStore()

Needs pytest and pytest-trio. The owner checks are skipped for a store that does not say `checks_owner`, and the tests of checkpoints for a
store that is not a `WindowedStore`.
"""

import math
from typing import cast

import pytest
import trio

from trio_sagents.data.json import JSONValue
from trio_sagents.data.records import Conversation, DisplayMessage, HistoryPage, Owner
from trio_sagents.exceptions import Conflict, ConversationNotFound, PersistenceError
from trio_sagents.testing._store_pages import PageTests
from trio_sagents.testing._store_people import PeopleTests
from trio_sagents.testing._store_values import AT, AWKWARD, EPOCH_START, change, listed, loaded, message, row, texts
from trio_sagents.testing._store_windows import WindowTests


class StoreConformance(PeopleTests, PageTests, WindowTests):
    """The tests. A subclass overrides `open_store`; each test opens one store, which must be empty."""

    async def test_load_where_there_is_none(self) -> None:
        """A load of nothing is None, and creates nothing."""
        async with self.open_store() as store:
            assert await store.load(None, "c") is None
            assert await store.load(None, "c") is None
            assert await listed(store) == []

    async def test_commit_comes_back(self) -> None:
        """All that a commit says is what the next load gives."""
        async with self.open_store() as store:
            first = change(
                owner="alice",
                epoch=7,
                messages=[message("m1"), message("m2")],
                queued=[message("q1"), message("q2")],
                message_ids={"m1": "d1", "q1": "d2"},
                state={"todos": [{"id": "1"}], "metadata": {"title": "T", "n": [1, 1.5, None, True]}, "draft": message("d")},
                rows=[row("r1")],
            )

            assert await store.commit(None, first) == 1

            expected = Conversation(
                conversation_id="c",
                owner="alice",
                epoch=8,
                revision=1,
                messages=[message("m1"), message("m2")],
                queue=[message("q1"), message("q2")],
                message_ids={"m1": "d1", "q1": "d2"},
                state=first.state,
            )
            assert expected == await store.load(None, "c")
            assert HistoryPage([row("r1")]) == await store.history(None, "c", before=None, limit=10)

    async def test_commit_at_another_revision(self) -> None:
        """A commit that does not build on the stored revision is refused, says what is there, and changes nothing."""
        async with self.open_store() as store:
            await store.commit(None, change(messages=[message("m1")], rows=[row("r1")]))
            await store.commit(None, change(revision=2))
            for revision in (1, 2, 4):
                with pytest.raises(Conflict) as caught:
                    await store.commit(None, change(revision=revision, messages=[message("x")], rows=[row("x")]))
                assert ((EPOCH_START, revision - 1), (EPOCH_START, 2)) == (caught.value.expected, caught.value.found)
            conversation = await loaded(store)
            assert (2, [message("m1")]) == (conversation.revision, conversation.messages)
            assert await texts(store) == ["Hello"]

    async def test_commit_where_there_is_none(self) -> None:
        """Only a first commit creates a conversation."""
        async with self.open_store() as store:
            with pytest.raises(Conflict) as caught:
                await store.commit(None, change(revision=2))
            assert caught.value.found is None
            assert await store.load(None, "c") is None

    async def test_load_fences(self) -> None:
        """Every load raises the epoch by one, and a commit with an older one is refused."""
        async with self.open_store() as store:
            await store.commit(None, change())
            epochs = [(await loaded(store)).epoch for _ in range(3)]
            assert epochs == [EPOCH_START + 1, EPOCH_START + 2, EPOCH_START + 3]
            for epoch in (EPOCH_START, EPOCH_START + 2, EPOCH_START + 4):
                with pytest.raises(Conflict) as caught:
                    await store.commit(None, change(revision=2, epoch=epoch))
                assert caught.value.found == (EPOCH_START + 3, 1)
            assert await store.commit(None, change(revision=2, epoch=EPOCH_START + 3)) == 2

    async def test_loads_at_once(self) -> None:
        """Of loads at the same time each gets its own epoch."""
        async with self.open_store() as store:
            await store.commit(None, change())
            epochs: list[int] = []

            async def load() -> None:
                epochs.append((await loaded(store)).epoch)

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(load)
            assert list(range(EPOCH_START + 1, EPOCH_START + 11)) == sorted(epochs)

    async def test_commit_of_another_owner(self) -> None:
        """A commit that names another owner than the stored one is refused: `1`, `"1"` and None are three."""
        owners: tuple[Owner, ...] = (1, "1", None)
        async with self.open_store() as store:
            for index, owner in enumerate(owners):
                await store.commit(None, change(f"c{index}", owner=owner))
                for other in {*owners, "null"} - {owner}:
                    with pytest.raises(Conflict):
                        await store.commit(None, change(f"c{index}", 2, owner=other))
                conversation = await loaded(store, f"c{index}")
                assert (owner, type(owner)) == (conversation.owner, type(conversation.owner))

    async def test_queue(self) -> None:
        """Queued messages keep their order, and a taken one leaves from any place in the queue."""
        async with self.open_store() as store:
            await store.commit(None, change(queued=[message("b"), message("a")]))
            await store.commit(None, change(revision=2, queued=[message("c")], taken=["a"]))
            await store.commit(None, change(revision=3, queued=[message("a")], taken=["b"], messages=[message("b")]))
            await store.commit(None, change(revision=4, queued=[message("d")], taken=["d"]))
            conversation = await loaded(store)
            assert ([message("c"), message("a")], [message("b")]) == (conversation.queue, conversation.messages)

    @pytest.mark.parametrize(
        "wrong",
        [
            pytest.param({"taken": ["q1", "unknown"]}, id="taken-unknown"),
            pytest.param({"taken": ["q1", "q1"]}, id="taken-twice"),
            pytest.param({"queued": [message("q1")]}, id="queued-twice"),
            pytest.param({"message_ids": {"new": "d", "m1": "d1"}}, id="message-id-used"),
        ],
    )
    async def test_commit_that_cannot_be(self, wrong: dict[str, JSONValue]) -> None:
        """A commit is stored whole or not at all."""
        async with self.open_store() as store:
            first = change(
                messages=[message("m1")],
                queued=[message("q1")],
                message_ids={"m1": "d1"},
                state={"metadata": {"title": "old"}, "draft": message("d")},
                rows=[row("r1", "old")],
            )
            await store.commit(None, first)
            before = await loaded(store)
            parts: dict[str, JSONValue] = {"messages": [message("m2")], "rows": [row("r1", "new"), row("r2")]}
            parts["state"] = {"metadata": {"title": "new"}, "draft": None}
            with pytest.raises(PersistenceError) as caught:
                await store.commit(None, change(revision=2, epoch=before.epoch, **(parts | wrong)))
            assert not isinstance(caught.value, Conflict)
            after = await loaded(store)
            assert (before.messages, before.queue, before.message_ids, before.state, 1) == (
                after.messages,
                after.queue,
                after.message_ids,
                after.state,
                after.revision,
            )
            assert await texts(store) == ["old"]
            assert [item.title for item in (await store.conversations(None, after=None, limit=10)).items] == ["old"]
            assert await store.commit(None, change(revision=2, epoch=after.epoch, messages=[message("m2")])) == 2

    async def test_message_ids_are_of_one_conversation(self) -> None:
        """The same message id may be used in two conversations."""
        async with self.open_store() as store:
            await store.commit(None, change("a", message_ids={"m": "1"}))
            await store.commit(None, change("b", message_ids={"m": "2"}))
            assert (await loaded(store, "b")).message_ids == {"m": "2"}

    async def test_message_ids_of_messages_that_were_taken(self) -> None:
        """An id is accepted once, for ever: also after its message left the queue, whether the message is in the history or not."""
        async with self.open_store() as store:
            await store.commit(None, change(queued=[message("a"), message("b")], message_ids={"a": "1", "b": "2", "c": "3"}))
            await store.commit(None, change(revision=2, taken=["a", "b"], messages=[message("a"), message("x")]))
            await store.commit(None, change(revision=3, messages=[message("d")], message_ids={"d": "4"}))
            before = await loaded(store)
            assert before.message_ids == {"a": "1", "b": "2", "c": "3", "d": "4"}
            assert [[record["message_id"] for record in records] for records in (before.messages, before.queue)] == [["a", "x", "d"], []]
            for used in "abcd":
                with pytest.raises(PersistenceError):
                    await store.commit(None, change(revision=4, epoch=before.epoch, queued=[message(used)], message_ids={used: "5"}))
            assert await store.commit(None, change(revision=4, epoch=before.epoch, message_ids={"y": "6"})) == 4

    async def test_state_patch(self) -> None:
        """Keys that a commit does not name stay; None clears one."""
        async with self.open_store() as store:
            await store.commit(None, change(state={"todos": [1], "metadata": {"a": 1}, "interrupt": {"id": "i"}, "draft": message("d")}))
            await store.commit(None, change(revision=2, state={"metadata": {"b": 2}, "draft": None, "interrupt": None}))
            state = (await loaded(store)).state
            assert (state["todos"], state["metadata"], state.get("draft"), state.get("interrupt")) == ([1], {"b": 2}, None, None)

    async def test_numbers(self) -> None:
        """A number comes back as what it was: 1 is not 1.0, for arguments that were approved are compared; and no digit is lost."""
        numbers: list[JSONValue] = [1, 1.0, 0, -1, True, 2**53 + 1, -(2**60) - 1, 0.1, 1e300, 5e-324]
        async with self.open_store() as store:
            await store.commit(None, change(state={"metadata": {"n": numbers}}, messages=[{**message("m"), "metadata": {"n": numbers}}]))
            got = await loaded(store)
            for found in (got.state["metadata"]["n"], got.messages[0]["metadata"]["n"]):
                assert [(number, type(number)) for number in numbers] == [(number, type(number)) for number in found]

    async def test_long_text(self) -> None:
        """A long message, as long as a limit of 65,535 bytes would cut, comes back whole."""
        long = "ü" * 70_000
        async with self.open_store() as store:
            await store.commit(None, change(messages=[message("m", long)], rows=[row("r", long)], state={"metadata": {"x": long}}))
            got = await loaded(store)
            assert ([message("m", long)], {"x": long}, [long]) == (got.messages, got.state["metadata"], await texts(store))

    async def test_ids_are_apart(self) -> None:
        """Two conversations, and two messages, are independent, for all ids, of any length."""
        long = "c" * 255
        ids = ("c", "C", "c ", "c/d", "c%", "c_", "ç", "漢字", long, f"{long}1", f"{long}2")
        async with self.open_store() as store:
            for one in ids:
                await store.commit(None, change(one, messages=[message("m", one)], rows=[row("r", one)]))
            for one in ids:
                assert [message("m", one)] == (await loaded(store, one)).messages
                assert [one] == await texts(store, one)
            everywhere = change(
                "all", queued=[message(one) for one in ids], message_ids=dict.fromkeys(ids, "d"), rows=[row(one) for one in ids]
            )
            await store.commit(None, everywhere)
            got = await loaded(store, "all")
            assert [message(one) for one in ids] == got.queue
            assert dict.fromkeys(ids, "d") == got.message_ids
            assert [*ids, "all"] == (await listed(store))[::-1]
            assert ["Hello"] * len(ids) == await texts(store, "all")
            assert await store.delete(None, "C")
            assert [message("m", "c")] == (await loaded(store, "c")).messages

    async def test_row_that_is_replaced(self) -> None:
        """A row with a known id is replaced, all of it, and keeps its place; within one commit, too."""
        async with self.open_store() as store:
            await store.commit(None, change(rows=[row("r1", "a"), row("r2", "b"), row("r1", "c")]))
            await store.commit(None, change("other", rows=[row("r1", "x")]))
            await store.commit(None, change(revision=2, rows=[row("r3", "d"), row("r2", "e")]))
            assert await texts(store) == ["c", "e", "d"]
            assert await texts(store, "other") == ["x"]
            later = DisplayMessage("r2", "another", "tool", "tool_result", {"text": "f", "n": [1]}, "cancelled", AT.replace(year=2028))
            await store.commit(None, change(revision=3, rows=[later]))
            assert [row("r1", "c"), later, row("r3", "d")] == list((await store.history(None, "c", before=None, limit=3)).rows)

    async def test_delete(self) -> None:
        """A deleted conversation is gone with all its parts; deleting again is False; a commit that builds on it is refused."""
        async with self.open_store() as store:
            parts = change(messages=[message("m")], queued=[message("q")], message_ids={"m": "d"}, state={"todos": []}, rows=[row("r")])
            await store.commit(None, parts)
            await store.commit(None, change("kept", rows=[row("r", "kept")], messages=[message("m")]))

            assert [await store.delete(None, name) for name in ("c", "c", "never")] == [True, False, False]

            assert await store.load(None, "c") is None
            assert await listed(store) == ["kept"]
            with pytest.raises(ConversationNotFound):
                await store.history(None, "c", before=None, limit=1)
            with pytest.raises(Conflict):
                await store.commit(None, change(revision=2))
            assert await texts(store, "kept") == ["kept"]
            await store.commit(None, change(messages=[message("n")], message_ids={"n": "e"}, rows=[row("s", "new")]))
            fresh = await loaded(store)
            assert (1, [message("n")], [], {"n": "e"}) == (fresh.revision, fresh.messages, fresh.queue, fresh.message_ids)
            assert fresh.state.get("todos") is None
            assert await texts(store) == ["new"]
            assert await store.delete(None, "c")
            await store.commit(None, parts)
            again = await loaded(store)
            assert (1, [message("m")], [message("q")], {"m": "d"}) == (again.revision, again.messages, again.queue, again.message_ids)
            assert await texts(store) == ["Hello"]

    async def test_nothing_is_shared(self) -> None:
        """What the caller does to what it gave, or to what it got, does not reach the store."""
        async with self.open_store() as store:
            given: dict[str, JSONValue] = {"metadata": {"list": [1]}}
            content: dict[str, JSONValue] = {"text": "Hello"}
            one = DisplayMessage("r", "m", "user", "text", content, "completed", AT)
            await store.commit(None, change(state=given, rows=[one], messages=[message("m")]))
            for _ in range(2):
                given["metadata"]["list"].append(2)
                content["text"] = "changed"
                got = await loaded(store)
                assert ({"list": [1]}, [message("m")]) == (got.state["metadata"], got.messages)
                cast("list[JSONValue]", got.state["metadata"]["list"]).append(3)
                cast("dict[str, JSONValue]", got.messages[0])["parts"] = []
                page = await store.history(None, "c", before=None, limit=1)
                assert page.rows[0].content == {"text": "Hello"}
                cast("dict[str, JSONValue]", page.rows[0].content)["text"] = "changed"

    async def test_awkward_text(self) -> None:
        """Text of any kind comes back as it was."""
        async with self.open_store() as store:
            for index, text in enumerate(AWKWARD):
                owner = f"o{text}"
                first = change(f"c{index}'%", owner=owner, messages=[message(f"m{text}", text)], rows=[row(f"r{text}", text)])
                await store.commit(None, first)
                got = await loaded(store, f"c{index}'%")
                assert (owner, [message(f"m{text}", text)]) == (got.owner, got.messages)
                assert [text] == await texts(store, f"c{index}'%")

    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, {1, 2}, b"bytes", "\ud800", object()],
        ids=["nan", "inf", "set", "bytes", "surrogate", "object"],
    )
    async def test_what_is_not_json(self, value: JSONValue) -> None:
        """What has no JSON form is refused, with nothing stored."""
        async with self.open_store() as store:
            for wrong in (change(messages=[{"x": value}]), change(state={"metadata": {"x": [value]}})):
                with pytest.raises((TypeError, ValueError)):
                    await store.commit(None, wrong)
            assert await store.load(None, "c") is None

    async def test_commits_to_many(self) -> None:
        """Commits to many conversations at once are all stored, each conversation's in order."""
        async with self.open_store() as store:

            async def run(name: str) -> None:
                for n in range(1, 6):
                    assert await store.commit(None, change(name, n, messages=[message(f"m{n}")], rows=[row(f"r{n}", str(n))])) == n

            names = [f"c{n}" for n in range(40)]
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(run, name)
            for name in names:
                assert [message(f"m{n}") for n in range(1, 6)] == (await loaded(store, name)).messages
                assert await texts(store, name) == ["1", "2", "3", "4", "5"]
            assert sorted(names) == sorted(await listed(store, 7))

    async def test_commits_to_one(self) -> None:
        """Of commits that build on the same revision one is stored, and the others are refused; a neighbour is not harmed."""
        async with self.open_store() as store:
            won: list[int] = []

            async def run(n: int) -> None:
                try:
                    await store.commit(None, change(messages=[message(f"m{n}")]))
                except Conflict as exc:
                    assert exc.found == (EPOCH_START, 1)
                else:
                    won.append(n)

            async with trio.open_nursery() as nursery:
                for n in range(20):
                    nursery.start_soon(run, n)
                nursery.start_soon(store.commit, None, change("other"))
            (winner,) = won
            assert [message(f"m{winner}")] == (await loaded(store)).messages
            assert (await loaded(store, "other")).revision == 1

    async def test_cancelled_before(self) -> None:
        """A call in a cancelled scope does nothing."""
        async with self.open_store() as store:
            await store.commit(None, change())
            with trio.CancelScope() as scope:
                scope.cancel()
                await store.commit(None, change(revision=2))
            with trio.CancelScope() as scope:
                scope.cancel()
                await store.load(None, "c")
            with trio.CancelScope() as scope:
                scope.cancel()
                await store.delete(None, "c")
            conversation = await loaded(store)
            assert (conversation.epoch, conversation.revision) == (EPOCH_START + 1, 1)

    async def test_cancelled_at_any_time(self) -> None:
        """A commit that is cancelled is stored whole or not at all, and one that returned is stored."""
        async with self.open_store() as store:
            returned: set[str] = set()

            async def run(name: str, passes: int) -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_after, nursery.cancel_scope, passes)
                    await store.commit(None, change(name, messages=[message("m")], rows=[row("r")]))
                    returned.add(name)

            async def cancel_after(scope: trio.CancelScope, passes: int) -> None:
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                for n in range(30):
                    nursery.start_soon(run, f"c{n}", n % 10)
            stored = set(await listed(store))
            assert returned <= stored
            for name in stored:
                assert ([message("m")], ["Hello"]) == ((await loaded(store, name)).messages, await texts(store, name))


__all__ = ("StoreConformance",)

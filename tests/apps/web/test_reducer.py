"""The reducer of the page, run by Node: whatever is cut, and wherever, the page shows what an uncut page shows."""

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

from tests.apps.web._kit import as_user, open_world
from tests.support.people import Effects, gated, scripted
from tests.support.scenarios import slow_agent
from trio_sagents import SessionPolicy
from trio_sagents.testing import Call

NODE: Final = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="the reducer of the page is run by Node.js, and there is none")

ALICE = as_user("alice")
SONG = "".join(f"{number} bottles 🍾 of beer; " for number in range(30))


@attrs.define(eq=False)
class Reducer:
    """The module of the page, in a process of its own."""

    process: "subprocess.Popen[str]"

    def apply(self, *actions: Any) -> Any:
        """Apply actions, and return what the page has of its only conversation."""
        return self._say(list(actions))

    def restart(self) -> None:
        """Forget everything, as a page that is loaded again."""
        self._say(None)

    def _say(self, line: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        return found[0] if found else None


@pytest.fixture
def reducer() -> Iterator[Reducer]:
    command = [NODE or "", str(Path(__file__).with_name("reducer.mjs"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        made = Reducer(process)
        made.apply({"type": "opened", "conversationId": "42"})
        yield made
    assert 0 == process.returncode


async def follow(reducer: Reducer, socket: Any, *, until: str, stop_after: int | None = None) -> Any:
    """Do as the page's client does: subscribe with the cursor, and ask for what the state says is missing."""
    count = 0
    about: dict[str, Any] = {"conversation_id": "42"}
    page = reducer.apply({"type": "opened", "conversationId": "42"})
    subscribe, history = socket.send(op="subscribe", **about, after=page["cursor"]), None
    while True:
        frame = await socket.next()
        actions = [{"type": "frame", "frame": frame}]
        if frame["op"] == "reply" and frame["id"] == subscribe:
            actions = [{"type": "subscribed", "conversationId": "42", "state": frame["result"]["state"]}]
        elif frame["op"] == "reply" and frame["id"] == history:
            history = None
            read = frame.get("result") or {"rows": [], "before": None}
            actions = [{"type": "history", "conversationId": "42", **read}]
        page = reducer.apply(*actions)
        count += len(frame.get("events", ()))
        if stop_after is not None and count >= stop_after:
            return reducer.apply({"type": "link", "link": "offline"})
        if page["isHoled"]:
            socket.send(op="unsubscribe", **about)
            subscribe = socket.send(op="subscribe", **about, after=None)
            page = reducer.apply({"type": "subscribed", "conversationId": "42", "state": ""})
        if page["subscription"] and page["isStale"] and page["touched"] is None:
            history = socket.send(op="history", **about, limit=100)
            page = reducer.apply({"type": "asked", "conversationId": "42"})
        if page["status"] == until and not page["isStale"] and page["touched"] is None and page["streaming"] is None:
            reducer.apply({"type": "link", "link": "offline"})
            return page


def plain(row: Any) -> Any:
    """Return a row as the history has it."""
    return {name: value for name, value in row.items() if name != "type"}


def shown(page: Any) -> Any:
    """Return what a person sees."""
    page["rows"] = [plain(row) for row in page["rows"]]
    names = ("rows", "items", "status", "interrupt", "streaming", "todos", "queued", "sent", "isHoled")
    return {name: page[name] for name in names}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kept", [8, 10_000])
async def test_page_when_an_answer_is_cut(autojump_clock: Any, reducer: Reducer, seed: int, kept: int) -> None:
    """An answer with characters outside the basic plane, cut many times, by a server that keeps few events or many: the page is whole."""
    moments = random.Random(seed)
    policy = SessionPolicy(replay_events=kept, subscriber_events=kept)
    async with open_world(slow_agent(SONG, seconds=60), policy_of_sessions=policy) as world:
        await world.sessions.post("42", "sing", scope="alice", message_id="m-1")
        cuts = 0
        while True:
            async with world.client.socket(headers=ALICE) as socket:
                page = await follow(reducer, socket, until="idle", stop_after=moments.randint(1, 9))
            if page["status"] == "idle" and page["subscription"]:
                break
            cuts += 1
            await trio.sleep(moments.choice([0, 0, 0.3, 2]))

        assert cuts >= 10
        assert ["sing", SONG] == [row["content"]["text"] for row in page["rows"]] == await world.texts()


async def test_page_when_a_turn_is_cut_at_every_event(autojump_clock: Any, reducer: Reducer) -> None:
    """A turn with a tool call and an approval: a page that was cut shows what an uncut page shows, when it waits and in the end."""
    number = 0
    while True:
        number += 1
        effects = Effects()
        agent = scripted(Call("pay", amount=1), "All is paid now.", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
        async with open_world(agent) as world:
            await world.sessions.post("42", "Pay", scope="alice", message_id="m-1")
            pages = []
            for until in ("interrupted", "idle"):
                reducer.restart()
                async with world.client.socket(headers=ALICE) as socket:
                    cut = await follow(reducer, socket, until=until, stop_after=number)
                async with world.client.socket(headers=ALICE) as socket:
                    mended = await follow(reducer, socket, until=until)
                reducer.restart()
                async with world.client.socket(headers=ALICE) as socket:
                    whole = await follow(reducer, socket, until=until)
                pages.append((shown(mended), shown(whole)))
                if until == "interrupted":
                    (call,) = whole["interrupt"]["calls"]
                    decision = {"type": "approve", **{name: call[name] for name in ("interrupt_id", "call_id", "digest")}}
                    async with world.client.socket(headers=ALICE) as socket:
                        await socket.result(op="resume", conversation_id="42", decisions=[decision])
            stored = (await world.client.get("/conversations/42/history?limit=1000", ALICE)).json["rows"]

            for mended, whole in pages:
                assert whole == mended
            assert stored == pages[-1][1]["rows"]
        if cut["subscription"]:
            break
    assert number >= 2


def envelope(number: int, **event: Any) -> Any:
    place = {"conversation_id": "42", "channel": "main", "seq": number, "first_seq": number, "cursor": f"1.x-1.main.{number}"}
    return {"type": "frame", "frame": {"op": "events", "events": [{**place, "event": event}]}}


def row(number: int, text: str = "") -> Any:
    return {"row_id": f"m:{number}:0", "message_id": str(number), "role": "user", "content_type": "text", "content": {"text": text}}


def saved(number: int, text: str = "") -> Any:
    return envelope(number, type="DisplayMessageSaved", row=row(number, text))


def test_history_when_it_is_older_than_an_event(reducer: Reducer) -> None:
    """A row that an event has brought since the history was asked for is newer than the row in the history."""
    reducer.apply(saved(1, "old"), {"type": "asked", "conversationId": "42"}, saved(1, "new"), saved(2, "also new"))
    page = reducer.apply({"type": "history", "conversationId": "42", "rows": [row(0, "first"), row(1, "old")], "before": "b"})

    assert ["first", "new", "also new"] == [row["content"]["text"] for row in page["rows"]]
    assert "b" == page["before"]


def test_history_when_it_has_nothing_in_common(reducer: Reducer) -> None:
    """After a long absence the rows between are missing: the page begins anew, and older rows can be asked for."""
    reducer.apply({"type": "asked", "conversationId": "42"})
    reducer.apply({"type": "history", "conversationId": "42", "rows": [row(0), row(1)], "before": None})
    reducer.apply({"type": "asked", "conversationId": "42"})
    page = reducer.apply({"type": "history", "conversationId": "42", "rows": [row(8), row(9)], "before": "b"})

    assert ["8", "9"] == [row["message_id"] for row in page["rows"]]
    assert "b" == page["before"]
    page = reducer.apply({"type": "older", "conversationId": "42", "rows": [row(7), row(8)], "before": None})
    assert ["7", "8", "9"] == [row["message_id"] for row in page["rows"]]


def delta(number: int, text: str, offset: int) -> Any:
    return envelope(number, type="TextDelta", text=text, message_id="m", part=0, offset=offset, turn_id="t")


def test_text_when_a_piece_is_missing(reducer: Reducer) -> None:
    """A piece that does not fit says so, and changes no text; a piece that comes again takes the place of itself."""
    reducer.apply(delta(1, "🍾a", 0), delta(2, "b", 2), delta(3, "ab", 1))
    page = reducer.apply(delta(4, "z", 9))

    assert "🍾ab" == page["streaming"]["parts"][0]["text"]
    assert page["isHoled"]

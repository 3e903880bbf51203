"""The client of the page, run by Node with a socket and a clock of the test's: what is missing is asked for until it is there."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

NODE: Final = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="the client of the page is run by Node.js, and there is none")
WELCOME: Final = {"op": "welcome", "protocol": 1, "viewer": "me", "may_debug": False, "ping_interval": 20}
UNAVAILABLE: Final = {"type": "PersistenceError", "message": "the store does not answer", "retry_after": None}


def row(name: str, text: str = "") -> Any:
    named = {"row_id": name, "message_id": name, "role": "user", "turn_id": None, "is_final": True}
    return {**named, "content_type": "text", "content": {"text": text or name}}


def envelope(event: Any, number: int = 1) -> Any:
    return {"conversation_id": "42", "channel": "main", "cursor": f"1.a.main.{number}", "event": event}


@attrs.define(eq=False)
class Page:
    """A client in a process of its own, with one conversation."""

    process: "subprocess.Popen[str]"
    sent: list[Any] = attrs.field(factory=list)
    """What the client has sent and nobody has answered."""
    shown: Any = None

    def say(self, do: str, **members: Any) -> None:
        """Have something done, and wait until the client has come to rest."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **members}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.sent += answer["sent"]
        self.shown = answer["conversations"][0] if answer["conversations"] else None

    def hear(self, op: str, **members: Any) -> None:
        """Let a frame of the server come."""
        self.say("hear", frame={"op": op, **members})

    def answer(self, op: str, result: Any = None, error: Any = None) -> None:
        """Answer the only open command of a kind."""
        (command,) = [frame for frame in self.sent if frame["op"] == op]
        self.sent.remove(command)
        outcome = {"ok": True, "result": result} if error is None else {"ok": False, "error": error}
        self.hear("reply", id=command["id"], **outcome)

    @property
    def ops(self) -> list[str]:
        """The commands that wait for an answer."""
        return [frame["op"] for frame in self.sent]

    @property
    def texts(self) -> list[str]:
        return [each["content"]["text"] for each in self.shown["rows"]]

    def begin(self, *names: str) -> None:
        """Connect, subscribe, and read a history of these rows."""
        self.say("open", id="42")
        self.say("connect")
        self.say("hear", frame=WELCOME)
        self.answer("subscribe", {"state": "subscribed"})
        self.answer("history", {"rows": [row(name) for name in names], "before": "b"})


@pytest.fixture
def page() -> Iterator[Page]:
    command = [NODE or "", str(Path(__file__).with_name("client.mjs"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        made = Page(process)
        made.say("wait", seconds=0)
        yield made
    assert 0 == process.returncode


def test_history_when_it_cannot_be_read(page: Page) -> None:
    """Rows stay on the page, which says that some are missing; the history is asked for with growing pauses, until it comes."""
    page.begin("one", "two")
    page.hear("events", events=[envelope({"type": "Gap", "first": 1, "last": 9})])
    for pause in (1, 2, 5, 10, 20, 20):
        page.answer("history", error=UNAVAILABLE)
        assert (["one", "two"], "b", True) == (page.texts, page.shown["before"], page.shown["isUnread"])
        page.hear("events", events=[envelope({"type": "TodosUpdated", "todos": []}, 2)])
        page.say("wait", seconds=pause - 0.01)
        assert [] == page.ops
        page.say("wait", seconds=0.02)
        assert ["history"] == page.ops
    page.answer("history", {"rows": [row("one"), row("two"), row("three")], "before": "b"})

    assert (["one", "two", "three"], False) == (page.texts, page.shown["isUnread"])
    page.hear("events", events=[envelope({"type": "Gap", "first": 1, "last": 9})])
    page.answer("history", error={**UNAVAILABLE, "retry_after": 3})
    page.say("wait", seconds=2.9)
    assert [] == page.ops
    page.say("wait", seconds=0.2)
    assert ["history"] == page.ops


def test_history_when_the_conversation_is_gone(page: Page) -> None:
    """A conversation that is not there any more, or may not be seen any more, is shown no more; nothing is asked again."""
    page.begin("one")
    page.hear("events", events=[envelope({"type": "Gap", "first": 1, "last": 9})])
    page.answer("history", error={"type": "ConversationNotFound", "message": "no conversation '42'", "retry_after": None})
    page.say("wait", seconds=15)

    assert ([], [], False) == (page.texts, page.ops, page.shown["isUnread"])


def test_subscription_when_it_is_refused(page: Page) -> None:
    """A page that cannot listen yet says so, and tries again."""
    page.say("open", id="42")
    page.say("connect")
    page.say("hear", frame=WELCOME)
    page.answer("subscribe", error={"type": "StartFailed", "message": "the agent could not be started", "retry_after": None})
    assert page.shown["isUnread"]
    page.say("wait", seconds=1)
    page.answer("subscribe", {"state": "subscribed"})
    page.answer("history", {"rows": [row("one")], "before": None})

    assert (["one"], False) == (page.texts, page.shown["isUnread"])


def test_history_when_the_connection_is_cut(page: Page) -> None:
    """A history that was asked for by a lost connection is asked for once by the next one, behind its subscription; rows stay."""
    page.begin("one")
    page.hear("events", events=[envelope({"type": "Gap", "first": 1, "last": 9})])
    assert ["history"] == page.ops
    page.sent.clear()
    page.say("cut")
    assert ["one"] == page.texts
    page.say("wait", seconds=1)
    page.say("hear", frame=WELCOME)
    assert ["subscribe"] == page.ops
    page.answer("subscribe", {"state": "subscribed"})
    page.answer("history", {"rows": [row("one"), row("two")], "before": "b"})

    assert (["one", "two"], []) == (page.texts, page.ops)


def test_history_when_it_failed_before_the_connection_was_cut(page: Page) -> None:
    """A new connection asks at once, and the pause of the old one does not ask a second time."""
    page.begin("one")
    page.hear("events", events=[envelope({"type": "Gap", "first": 1, "last": 9})])
    page.answer("history", error={**UNAVAILABLE, "retry_after": 10})
    page.say("cut")
    page.say("wait", seconds=1)
    page.say("hear", frame=WELCOME)
    page.answer("subscribe", {"state": "subscribed"})
    page.answer("history", {"rows": [row("one"), row("two")], "before": "b"})
    page.say("wait", seconds=15)

    assert (["one", "two"], [], False) == (page.texts, page.ops, page.shown["isUnread"])


def test_cost_when_turns_end(page: Page) -> None:
    """What turns have cost is added up, once for each turn."""
    page.begin()
    ended = {"type": "TurnEnded", "turn_id": "t", "outcome": {"type": "Completed"}}
    page.hear("events", events=[{**envelope(ended), "cost": 0.25}, envelope(ended, 2), {**envelope(ended, 3), "cost": 0.5}])

    assert 0.75 == page.shown["cost"]


def test_commands_when_the_server_says_welcome(page: Page) -> None:
    """Each command is sent once on each connection: those that begin with it, and those that the last one left open."""
    page.say("open", id="42")
    page.say("connect")
    page.say("hear", frame=WELCOME)

    assert ["subscribe"] == page.ops

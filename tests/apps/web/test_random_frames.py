"""Random frames: whatever a page sends, the bridge does not crash, and nobody else's conversation is touched."""

import faulthandler
import json
import os
import random
from typing import Any, Final

import pytest

from tests.apps.web._client import Ended
from tests.apps.web._kit import World, as_user, open_world
from trio_sagents.web import WebPolicy
from trio_sagents.web._wire import OPS

FRAMES: Final = 100_000 if os.environ.get("TRIO_SAGENTS_NIGHTLY") else 10_000
NAMES: Final = (
    "op", "id", "conversation_id", "message_id", "text", "parts", "overlap", "turn_id", "decisions", "interrupt_id", "before", "after",
    "limit", "channel", "start", "visible", "watch", "type", "call_id", "digest", "arguments", "reason", "value", "other", "cancel", "data",
)  # fmt: skip
TEXTS: Final = (
    "", "42", "of-bob", "x" * 300, "\x00", "\ud800", "main", "debug", "queue", "interrupt", "steer", "approve", "edit", "reject", "answer",
    "text", "image", "file", "image/png", "aGk=", "1.0a-1.main.3", "1.0a-1.debug.999999999999", "ä", "__proto__", "../..", "é", "m-1",
)  # fmt: skip
DAMAGE: Final = ('{"', "}", "[", '\\ud800"', "NaN", "1e999", "\x00", '{"op":', "true", "-", "9" * 5000)


def value(chance: random.Random, depth: int = 0) -> Any:
    """Return any JSON value."""
    kind = chance.randrange(8 if depth < 4 else 6)
    match kind:
        case 0:
            return None
        case 1:
            return chance.random() < 0.5
        case 2:
            return chance.choice([0, 1, -1, 100, 1001, 2**63, 10**400, 0.5, -0.0])
        case 3 | 4 | 5:
            return chance.choice(TEXTS)
        case 6:
            return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
        case _:
            return {chance.choice(NAMES): value(chance, depth + 1) for _ in range(chance.randrange(5))}


def frame(chance: random.Random, number: int) -> str | bytes:
    """Return a frame: mostly a command with some members wrong, sometimes damaged."""
    members: dict[str, Any] = {"op": chance.choice([*sorted(OPS), "none"]), "id": f"f{number}", "conversation_id": "42"}
    members |= {"message_id": f"m-{chance.randrange(50)}", "text": "hello", "turn_id": "t", "interrupt_id": "i"}
    for _ in range(chance.randrange(5)):
        members[chance.choice(NAMES)] = value(chance)
    text = json.dumps(members, ensure_ascii=chance.random() < 0.5)
    if chance.random() < 0.03:
        place = chance.randrange(len(text))
        text = text[:place] + chance.choice(DAMAGE) + text[place + chance.randrange(9) :]
    return text.encode("utf-8", "surrogatepass") if chance.random() < 0.003 else text


async def _attack(world: World, chance: random.Random, count: int) -> None:
    """Send so many frames, on one socket after another."""
    sent = 0
    while sent < count:
        async with world.client.socket(headers=as_user("alice")) as socket:
            try:
                await socket.until("welcome")
                while sent < count:
                    for _ in range(10):
                        socket.send_text(frame(chance, sent))
                        sent += 1
                    await socket.ask(id="check", op="ping")
            except Ended:
                assert 1008 == socket.code  # the frame was no command, and nothing else has happened
            assert "Internal" not in {reply.get("error", {}).get("type") for reply in socket.frames}


@pytest.mark.slow
async def test_random_frames(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """10^4 random frames (10^5 at night): no crash, no defect in the log, nothing of another scope is read or changed."""
    faulthandler.dump_traceback_later(120 if FRAMES == 10_000 else 1800, exit=True)
    chance = random.Random(FRAMES)
    policy = WebPolicy(event_interval=0, presence_grace=0, frames_per_second=1e9, frame_burst=10**9, commands_per_socket=100)
    async with open_world(policy=policy, inactivity_timeout=0.5) as world:
        await (await world.sessions.post("of-bob", "secret", scope="bob")).wait()
        before = await world.texts("of-bob", "bob")
        await _attack(world, chance, FRAMES)

        assert before == await world.texts("of-bob", "bob")
        assert (0, 0, 0) == world.left
    assert [] == [record for record in caplog.records if record.name == "trio_sagents.web"]

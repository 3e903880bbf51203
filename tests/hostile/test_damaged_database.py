"""A database that somebody has edited: a load that cannot be right fails, and leaves the rows alone."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.support.scenarios import (
    answer_to,
    opened,
)
from trio_sagents import (
    SqliteStore,
    StartFailed,
    StateError,
)

_QUEUED = {"v": 1, "message_id": "q1", "role": "user", "parts": [{"type": "text", "text": "x"}]}


_RESULT = {"type": "tool_result", "call_id": "zz", "name": "n", "content": "c", "status": "completed"}


def queued(**fields: Any) -> str:
    return f"insert into queue(conversation, message_id, body) values (1, 'q1', '{json.dumps(_QUEUED | fields)}')"


def said(**fields: Any) -> str:
    return (
        f"insert into messages(conversation, body) values (1, '{json.dumps(_QUEUED | fields)}');"
        "update conversations set message_count = message_count + 1"
    )


_CALL = {"type": "tool_call", "call_id": "zz", "name": "n", "arguments": {}, "status": "pending"}


DAMAGE = {
    "epoch too high": "update conversations set epoch = 9007199254740992",
    "epoch at the end": "update conversations set epoch = 9223372036854775807",
    "revision too high": "update conversations set revision = 9007199254740992",
    "queue repeats the history": "insert into queue(conversation, message_id, body)"
    " select 1, 'm1', body from messages where body like '%m1%'",
    "queued answer": queued(role="assistant"),
    "queued result": queued(role="tool", parts=[_RESULT]),
    "queued call": queued(parts=[_CALL]),
    "call of a user": said(parts=[_CALL]),
    "empty id": said(message_id=""),
    "endless id": said(message_id="a" * 1_000_000),
    "draft of a user": f"insert into state values (1, 'draft', '{json.dumps(_QUEUED)}')",
    "todos with one id": """update state set body = '[{"id":1,"content":"a","status":"pending"},{"id":1,"content":"b","status":"pending"}]'
        where name = 'todos'""",
    "todo with a negative id": """update state set body = '[{"id":-1,"content":"a","status":"pending"}]' where name = 'todos'""",
    "metadata without end": """update state set body = '{"a":1e999}' where name = 'metadata'""",
    "message without end": said(metadata={"a": "QQ"}).replace('"QQ"', "1e999"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
async def test_damaged_file(tmp_path: Path, damage: str) -> None:
    """R30: what cannot be right is a StateError at the load, and the rows stay as they are."""

    def rows() -> list[Any]:
        with contextlib.closing(sqlite3.connect(path)) as database:
            tables = ("conversations", "messages", "queue", "message_ids", "state", "transcript")
            return [database.execute(f"select * from {table}").fetchall() for table in tables]

    path = tmp_path / "x.db"
    async with opened(store=SqliteStore(path)) as sessions:
        await answer_to(sessions, "hello", message_id="m1")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(DAMAGE[damage])
        database.commit()
    before = rows()
    async with opened(store=SqliteStore(path)) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")
        assert isinstance(caught.value.__cause__, StateError)
    assert before == rows()

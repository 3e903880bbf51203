"""A conversation at pipes: commands, lists, what is broken."""

import contextlib
import re
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.apps.cli._kit import RUN, Chat

pytestmark = pytest.mark.slow


def test_a_conversation_at_pipes(chat: Chat) -> None:
    """Each line is answered in turn; the end of the input leaves."""
    done = chat.run(said="add milk to my todos\n\nshow my todos\r\nwhat is 2+2?")

    assert done.returncode == 0
    assert done.stderr == ""
    assert str(chat.folder / "chat.db") in done.stdout
    assert "embedded offline model" in done.stdout
    assert "> add milk to my todos\n  [ ] 1. milk\n(offline) Added to your todos: milk.\n[title: Add milk to my todos]\n> " in done.stdout
    assert "(offline) Your todos:\n1. [ ] milk\n> what is 2+2?\n" in done.stdout
    assert "(offline) 2+2 = 4\n> \n" in done.stdout


def test_conversations_are_listed_and_reopened(chat: Chat) -> None:
    """A conversation is opened by number or by id, with the end of its history. Without a name the last conversation is opened."""
    chat.run("--conversation", "one", said="what is 1+1?\n")
    chat.run("--conversation", "two", said="what is 2+2?\n")
    done = chat.run(said="/list\n/open 2\n/open two\n/open three\n/open\n/list\n/quit\nnot read\n")

    assert done.returncode == 0
    assert "Conversation two:\n[title: What is 2+2]\n> what is 2+2?\n" in done.stdout
    assert re.search(r"\*  1 two .*What is 2\+2\n   2 one .*What is 1\+1\n", done.stdout)
    assert (
        "Conversation one:\n[title: What is 1+1]\n> what is 1+1?\n"
        '  · calculate(expression="1+1") completed\n  · calculate completed: 2\n(offline) 1+1 = 2\n' in done.stdout
    )
    assert "no conversation 'three'" in done.stdout
    assert "Which conversation?" in done.stdout
    assert "--conversation two" in done.stdout
    assert "not read" not in done.stdout


def test_new_begins_a_conversation(chat: Chat) -> None:
    """/new and --new leave the old conversation unchanged."""
    done = chat.run(
        "--conversation", "old", said="remember that my cat is Tom\n/new\nwhat do you remember?\n/open old\nwhat do you remember?\n"
    )

    assert done.stdout.count("(offline) I have no notes yet") == 1
    assert done.stdout.count("(offline) I remember:\n- my cat is Tom") == 1
    assert ", a new one." in chat.run("--new", said="").stdout


def test_commands_that_are_none_are_told(chat: Chat) -> None:
    """A line that begins with a space is said, whatever it looks like."""
    done = chat.run(said="/what\n/help\n /quit\n")

    assert "/what is not a command" in done.stdout
    assert "/open N or ID" in done.stdout
    assert "I have no rule for “/quit”" in done.stdout


def test_a_broken_conversation_does_not_take_the_others_along(chat: Chat) -> None:
    """A broken conversation is named, and another one can be opened."""
    chat.run("--conversation", "good", said="what is 1+1?\n")
    chat.run("--conversation", "bad", said="what is 2+2?\n")
    _damage(chat.folder / "chat.db", "bad")
    done = chat.run(said="hello\n/open good\nwhat is 3+3?\n")

    assert "error: " in done.stdout
    assert "'bad'" in done.stdout
    assert "No conversation is open" in done.stdout
    assert "(offline) 3+3 = 6\n" in done.stdout
    assert done.returncode == 0


def _damage(path: Path, conversation_id: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        (number,) = db.execute("SELECT number FROM conversations WHERE conversation_id = ?", [conversation_id]).fetchone()
        assert db.execute("UPDATE messages SET body = '{damaged' WHERE conversation = ?", [number]).rowcount


def test_a_reader_that_goes_away_ends_the_chat_quietly(chat: Chat) -> None:
    """A broken pipe gives no traceback."""
    with subprocess.Popen(
        [*RUN], cwd=chat.folder, env=chat.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"tell me a long story\n")
            process.stdin.flush()
        err = process.stderr.read()
        assert process.wait(60) == 1

    assert err == b""

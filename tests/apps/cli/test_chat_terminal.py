"""A conversation at a terminal: keys, signals, and a kill -9 at any moment."""

import contextlib
import re
import signal
import sqlite3
from typing import Any

import pexpect  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.apps.cli._kit import PLAIN_PROMPT, PROMPT, READERS, Chat, leave

pytestmark = pytest.mark.slow

CRASHED = "error: The turn was cut off: its process ended while it ran"


@READERS
def test_ctrl_c_cancels_the_answer_and_stays(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """The text so far is kept and marked, the next question is answered; at the prompt two presses leave."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("tell me a long story\r")
        child.expect("On night 3,")
        child.sendintr()
        child.expect(r"\[cancelled\]")
        child.expect(prompt)
        child.send("what is 3+4?\r")
        child.expect(r"3\+4 = 7")
        child.expect(prompt)
        child.sendintr()
        child.expect("Ctrl-C once more leaves")
        child.expect(prompt)
        child.sendintr()
        child.expect("Saved")

        assert leave(child) == 0
    tail = chat.run(said="").stdout
    assert re.search(r"> tell me a long story\n\(offline\) On night 1.*On night 3,.*\n\[cancelled\]\n> what is 3\+4\?\n", tail)


@READERS
@pytest.mark.parametrize("end", ["\x04", "/quit\r", "/exit\r"])
def test_leaving(chat: Chat, arguments: tuple[str, ...], prompt: str, end: str) -> None:
    """Ctrl-D and the commands leave at once, with status 0."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send(end)

        assert leave(child) == 0


@READERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_chat_in_mid_answer(chat: Chat, arguments: tuple[str, ...], prompt: str, number: signal.Signals) -> None:
    """The turn is settled first: its text is marked as cut by the host, not by a crash."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("tell me a long story\r")
        child.expect("On night 3,")
        child.kill(number)

        assert leave(child) == 128 + number
    tail = chat.run(said="").stdout
    assert "On night 3," in tail
    assert "[cancelled]" in tail


@READERS
def test_a_signal_ends_the_chat_at_the_prompt(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """A reader that waits in a thread ends as well."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.kill(signal.SIGTERM)

        assert leave(child) == 128 + signal.SIGTERM


@READERS
def test_an_interrupt_from_outside_counts_as_ctrl_c(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """`kill -INT` reaches the prompt as the key does."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.kill(signal.SIGINT)
        child.expect("Ctrl-C once more leaves")
        child.expect(prompt)
        child.send("what is 3+4?\r")
        child.expect(r"3\+4 = 7")


def test_ctrl_c_drops_a_line_that_is_being_typed(chat: Chat) -> None:
    """With prompt_toolkit, only an empty prompt counts."""
    with chat.terminal() as child:
        child.expect(PROMPT)
        child.send("what is")
        child.expect("what is")
        child.sendintr()
        child.send("what is 3+4?\r")
        child.expect(r"3\+4 = 7")
        child.expect(PROMPT)

        assert "once more leaves" not in f"{child.before}{child.after}"


def test_colours_and_control_characters(chat: Chat) -> None:
    """At a terminal the tools have a colour, and what a file says cannot steer the screen."""
    del chat.environ["NO_COLOR"]
    (chat.folder / "evil.txt").write_text("a\x1b[2Jb")
    with chat.terminal("--plain") as child:
        child.expect(PLAIN_PROMPT)
        child.send("read evil.txt\r")
        child.expect(r"\x1b\[36m  · read_file")
        child.expect("1 line:")
        child.expect("> ")

        assert "a\N{REPLACEMENT CHARACTER}[2Jb" in str(child.before)


def test_two_programs_at_one_conversation(chat: Chat) -> None:
    """The chat notices what the other program wrote, shows it, and continues from there."""
    with chat.terminal("--plain", "--conversation", "c") as child:
        child.expect(PLAIN_PROMPT)
        child.send("what is 1+1?\r")
        child.expect(r"1\+1 = 2\r\n> ")
        other = chat.run("--once", "what is 2+2?", "--conversation", "c")
        child.send("what is 3+3?\r")
        child.expect("another program has written")
        child.expect(r"> what is 2\+2\?")
        child.expect(r"2\+2 = 4")
        child.expect(r"3\+3 = 6\r\n> ")
        child.send("\x04")

        assert leave(child) == 0
    assert other.stdout == "(offline) 2+2 = 4\n"
    assert chat.run(said="").stdout.count("> what is") == 3


def test_two_programs_at_one_decision(chat: Chat) -> None:
    """The decision in the older program is refused, because it may no longer write. It says how to decide, and the call runs once."""
    with chat.terminal("--plain", "--conversation", "c") as child:
        child.expect(PLAIN_PROMPT)
        child.send("write a file hello.txt that says hi\r")
        child.expect("eject: ")
        assert chat.run("--plain", "--conversation", "c").returncode == 3
        child.send("a\r")
        child.expect("another program has written to this conversation; the next message, or /decide, continues")
        child.expect("> ")
        assert not (chat.folder / "hello.txt").exists()
        child.send("/decide\r")
        child.expect("eject: ")
        child.send("a\r")
        child.expect("Created /hello.txt")
        child.send("\x04")

        assert leave(child) == 0
    assert (chat.folder / "hello.txt").read_text() == "hi\n"


@READERS
@pytest.mark.parametrize("night", [1, 8])
def test_killed_in_mid_answer(chat: Chat, arguments: tuple[str, ...], prompt: str, night: int) -> None:
    """The next run shows every acknowledged message, what is stored of the answer, and that the answer was cut; then it continues."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("remember that my cat is Tom\r")
        child.expect("Noted")
        child.expect(prompt)
        child.send("tell me a long story\r")
        child.expect(f"On night {night},")
        child.kill(signal.SIGKILL)
        child.expect(pexpect.EOF)
    with chat.terminal(*arguments) as child:
        child.expect(f"{CRASHED}\r\n")
        tail = f"{child.before}{child.after}".replace("\r\n", "\n")
        child.expect(prompt)
        child.send("what do you remember about my cat?\r")
        child.expect("my cat is Tom")
        child.expect(prompt)

    assert "> remember that my cat is Tom\n" in tail
    assert "> tell me a long story\n" in tail
    nights = [int(number) for number in re.findall(r"On night (\d+),", tail)]
    assert not nights or "[cut by a crash]\n" in tail  # nothing is stored of an answer that has only just begun
    assert nights == list(range(1, len(nights) + 1))
    assert len(nights) >= night - 5  # draft_interval is a second, and a sentence takes a third of one


def test_killed_again_and_again(chat: Chat) -> None:
    """Whenever the program is killed, what was acknowledged is there, and the conversation continues."""
    for round_ in range(4):
        with chat.terminal("--plain", "--conversation", "c") as child:
            child.expect(PLAIN_PROMPT)
            child.send(f"what is {round_}+1000?\r")
            child.expect(f"{round_}\\+1000 = {round_ + 1000}")
            child.send("tell me a story\r")
            child.expect(f"On night {1 + round_}")
            child.kill(signal.SIGKILL)
            child.expect(pexpect.EOF)
    done = chat.run("--conversation", "c", said="what is 9+9?\n")
    with contextlib.closing(sqlite3.connect(chat.folder / "chat.db")) as db:
        check: Any = db.execute("PRAGMA integrity_check").fetchone()

    assert "(offline) 9+9 = 18\n" in done.stdout
    assert done.stdout.count(CRASHED) == 4
    assert check == ("ok",)


def test_a_line_that_the_terminal_cuts_is_not_sent(chat: Chat) -> None:
    """Of a very long line the plain reader gets only the beginning: the person is told, nothing is sent, and the next line is."""
    with chat.terminal("--plain") as child:
        child.expect(PLAIN_PROMPT)
        for _ in range(60):
            child.send("x" * 100)
            child.expect([r"x{50}|\a", pexpect.TIMEOUT], timeout=0.05)  # what a terminal echoes is read, or it takes no more
        child.send("END\r")
        child.expect("not sent: this line is too long")
        child.expect(PLAIN_PROMPT)
        child.send("what is 3+4?\r")
        child.expect(r"3\+4 = 7")
        child.expect(PLAIN_PROMPT)
        child.send("/quit\r")

        assert leave(child) == 0
    tail = chat.run(said="").stdout
    assert "xxx" not in tail


def test_a_long_line_is_sent_whole(chat: Chat) -> None:
    """A line that just fits is sent, and so is a longer one from a pipe."""
    with chat.terminal("--plain") as child:
        child.expect(PLAIN_PROMPT)
        for _ in range(40):
            child.send("y" * 100)
            child.expect("y{50}")
        child.send("END\r")
        child.expect(r"\(offline\)")
        child.expect(PLAIN_PROMPT)
        child.send("/quit\r")

        assert leave(child) == 0
    assert "z" * 6000 + "END" in chat.run(said="z" * 6000 + "END\n").stdout

"""The chat as people run it: a process of its own, at pipes and at a terminal, in real time.

Every wait is for output, never for a while.
"""

import contextlib
import faulthandler
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pexpect  # type: ignore[import-untyped]  # it has no types
import pytest

from trio_sagents import (
    CancelCause,
    Cancelled,
    Completed,
    Failed,
    Interrupt,
    Interrupted,
    Message,
    ModelFailed,
    ShutdownReason,
    TurnOutcome,
    Unanswered,
)
from trio_sagents.cli import main
from trio_sagents.cli._models import UsageError, choose_model
from trio_sagents.cli._once import status_of
from trio_sagents.cli._setup import Options, default_database, set_up

ROOT: Final = Path(__file__).parents[2]
RUN: Final = (sys.executable, "-W", "error", "-m", "trio_sagents.cli", "chat")
SECRET: Final = "sk-not-to-be-seen"
PLAIN_PROMPT: Final = "> "
PROMPT: Final = r"\x1b\[\?2004h"  # prompt_toolkit switches bracketed paste on when it begins to read


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment without keys, at home in an empty folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "OPENAI_", "TRIO_SAGENTS_", "XDG_"))}
    return {
        **kept,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "TERM": "xterm",
        "NO_COLOR": "1",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "TRIO_SAGENTS_DB": str(tmp_path / "chat.db"),
    }


class Chat:
    """Runs the command in an empty folder."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = dict(environ)

    def run(self, *arguments: str, said: str = "") -> "subprocess.CompletedProcess[str]":
        """Run to the end, with `said` on standard input."""
        done = subprocess.run(
            [*RUN, *arguments], input=said, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    @contextlib.contextmanager
    def terminal(self, *arguments: str) -> Iterator["pexpect.spawn[str]"]:
        """Run at a terminal."""
        command, *rest = [*RUN, *arguments]
        child = pexpect.spawn(command, rest, cwd=str(self.folder), env=self.environ, encoding="utf-8", timeout=30, dimensions=(50, 200))
        try:
            yield child
        finally:
            child.close(force=True)


@pytest.fixture
def chat(tmp_path: Path, environ: dict[str, str]) -> Chat:
    """The command, in an empty folder; its tests may take longer than others, for they start processes."""
    faulthandler.dump_traceback_later(120, exit=True)
    return Chat(tmp_path, environ)


def leave(child: "pexpect.spawn[str]") -> int | None:
    """Wait for the end and return the exit status."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


# ── --once ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_once_prints_the_answer_and_nothing_else(chat: Chat) -> None:
    """Standard output has the answer; what tools do, and where it is kept, goes to standard error."""
    done = chat.run("--once", "what is 12*(3+4)?")

    assert (0, "(offline) 12*(3+4) = 84\n") == (done.returncode, done.stdout)
    assert 'calculate(expression="12*(3+4)") runs' in done.stderr
    assert "calculate completed: 84" in done.stderr
    assert "offline model" in done.stderr
    assert str(chat.folder / "chat.db") in done.stderr


def test_once_reads_standard_input(chat: Chat) -> None:
    """A dash stands for it."""
    done = chat.run("--once", "-", said="what is 2+2?\n")

    assert (0, "(offline) 2+2 = 4\n") == (done.returncode, done.stdout)


def test_once_goes_on_with_a_conversation(chat: Chat) -> None:
    """Runs of the program share what the conversation keeps, and others do not see it."""
    chat.run("--once", "remember that my cat is Tom and add milk to my todos", "--conversation", "home")
    mine = chat.run("--once", "what is my cat called and show my todos", "--conversation", "home")
    other = chat.run("--once", "what is my cat called?")

    assert mine.stdout == "(offline) I remember:\n- my cat is Tom\nYour todos:\n1. [ ] milk\n"
    assert other.stdout == "(offline) I have no notes yet.\n"


def test_once_reads_files_of_the_working_folder_alone(chat: Chat) -> None:
    """The folder in which the command runs is the one that may be read."""
    (chat.folder / "README.md").write_text("# Hello\n")

    assert chat.run("--once", "read README.md").stdout == "(offline) README.md has 1 line:\n\n# Hello\n\n"
    assert "outside the working folder" in chat.run("--once", "read /etc/hostname").stdout
    assert "own database" in chat.run("--once", "read chat.db").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--once", " "), "empty"),
        (("--once",), "--once"),
        (("--once", "hi", "--conversation", ""), "--conversation"),
        (("--once", "hi", "--conversation", "a\tb"), "control"),
        (("--once", "hi", "--provider", "anthropic"), "ANTHROPIC_API_KEY"),
        (("--once", "hi", "--provider", "openai"), "OPENAI_API_KEY"),
        (("--once", "hi", "--provider", "other"), "invalid choice"),
        (("--once", "hi", "--model", "large"), "needs a provider"),
        (("--once", "hi", "--new", "--conversation", "a"), "not allowed"),
        (("--once", "hi", "--db", "nowhere/chat.db"), "nowhere"),
        (("--once", "hi", "--db", "."), "is a folder"),
        (("--tree",), "unrecognized"),
    ],
)
def test_a_usage_error_has_status_2(chat: Chat, arguments: tuple[str, ...], words: str) -> None:
    """It says what is wrong, and touches nothing."""
    done = chat.run(*arguments)

    assert (2, "") == (done.returncode, done.stdout)
    assert words in done.stderr
    assert not (chat.folder / "nowhere").exists()


def test_a_provider_that_cannot_be_reached_has_status_1(chat: Chat) -> None:
    """The turn failed: there is no answer, and no key is shown."""
    pytest.importorskip("openai")
    chat.environ |= {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": SECRET}
    done = chat.run("--once", "hi", "--model", "small")

    assert (1, "") == (done.returncode, done.stdout)
    assert "error: " in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize("arguments", [("--once", "hi"), ()])
def test_a_file_that_is_no_database_is_named(chat: Chat, arguments: tuple[str, ...]) -> None:
    """The message says which file and what to do; the file is left as it was."""
    (chat.folder / "chat.db").write_bytes(b"this is no database" * 100)
    done = chat.run(*arguments)

    assert (1, "") == (done.returncode, done.stdout)
    assert str(chat.folder / "chat.db") in done.stderr
    assert "--db" in done.stderr
    assert (chat.folder / "chat.db").read_bytes() == b"this is no database" * 100


def test_ctrl_c_ends_once_with_status_130(chat: Chat) -> None:
    """The turn is cut and the conversation stays usable."""
    command = [*RUN, "--once", "tell me a long story", "--conversation", "c"]
    with subprocess.Popen(command, cwd=chat.folder, env=chat.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("conversation c"):
                break
        while not _drafts(chat.folder / "chat.db"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

    assert (130, "") == (process.returncode, out)
    assert "[cancelled]" in err
    assert chat.run("--once", "what is 1+1?", "--conversation", "c").stdout == "(offline) 1+1 = 2\n"


def _drafts(path: Path) -> bool:
    """Return whether the store holds some text of the answer: whatever its tables are, it is on the disk."""
    return any(b"On night 1" in one.read_bytes() for one in (path, path.with_name("chat.db-wal")) if one.exists())


def test_once_and_the_chat_work_without_the_tui_extra(chat: Chat) -> None:
    """The core has no rich and no prompt_toolkit."""
    code = "import sys; sys.modules.update(rich=None, prompt_toolkit=None); from trio_sagents.cli import main; sys.exit(main())"
    for arguments in (["--once", "what is 2+3?"], []):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, "chat", *arguments],
            input="what is 2+3?\n",
            cwd=chat.folder,
            env=chat.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.returncode == 0
        assert "(offline) 2+3 = 5\n" in done.stdout


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Completed(Message("a", "assistant")), 0),
        (Failed(ModelFailed("no")), 1),
        (Unanswered(ShutdownReason.STOPPED), 1),
        (Interrupted(Interrupt("i", "t")), 3),
        (Cancelled(CancelCause.STOPPED), 4),
    ],
)
def test_each_outcome_has_its_status(outcome: TurnOutcome, status: int) -> None:
    """Scripts can tell them apart."""
    assert status == status_of(outcome)


@pytest.mark.parametrize(("arguments", "said"), [(("--once", "-"), b"\xff\xfe"), (("--once", "-"), None), ((), None)])
def test_input_that_cannot_be_read_has_status_2(chat: Chat, arguments: tuple[str, ...], said: bytes | None) -> None:
    """No text, or no input at all: a line that says so."""
    close = "" if said is not None else " <&-"
    command = f'exec "$@"{close}'
    done = subprocess.run(
        ["sh", "-c", command, "sh", *RUN, *arguments],
        input=said,
        cwd=chat.folder,
        env=chat.environ,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (2, b"") == (done.returncode, done.stdout)
    assert b"standard input" in done.stderr or b"surrogates" in done.stderr  # as the locale has it
    assert b"Traceback" not in done.stderr


def test_an_answer_that_cannot_be_written_has_status_1(chat: Chat) -> None:
    """A full disk is told, without a traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*RUN, "--once", "what is 1+1?"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=chat.folder,
            env=chat.environ,
            timeout=60,
            check=False,
        )

    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


# ── at pipes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_conversation_at_pipes(chat: Chat) -> None:
    """Each line is answered in turn; the end of the input leaves."""
    done = chat.run(said="add milk to my todos\n\nshow my todos\r\nwhat is 2+2?")

    assert done.returncode == 0
    assert done.stderr == ""
    assert str(chat.folder / "chat.db") in done.stdout
    assert "embedded offline model" in done.stdout
    assert '> add milk to my todos\n  · add_todos(items=["milk"]) runs\n  · add_todos completed: added 1. milk\n' in done.stdout
    assert "(offline) Your todos:\n1. [ ] milk\n> what is 2+2?\n" in done.stdout
    assert "(offline) 2+2 = 4\n> \n" in done.stdout


def test_conversations_are_listed_and_reopened(chat: Chat) -> None:
    """By number and by id; the tail of the history is shown; without a name the last one is opened."""
    chat.run("--conversation", "one", said="what is 1+1?\n")
    chat.run("--conversation", "two", said="what is 2+2?\n")
    done = chat.run(said="/list\n/open 2\n/open two\n/open three\n/open\n/list\n/quit\nnot read\n")

    assert done.returncode == 0
    assert "Conversation two:\n> what is 2+2?\n" in done.stdout
    assert re.search(r"\*  1 two .*what is 2\+2\?\n   2 one .*what is 1\+1\?", done.stdout)
    assert (
        'Conversation one:\n> what is 1+1?\n  · calculate(expression="1+1") completed\n  · calculate completed: 2\n(offline) 1+1 = 2\n'
        in done.stdout
    )
    assert "no conversation 'three'" in done.stdout
    assert "Which one?" in done.stdout
    assert "--conversation two" in done.stdout
    assert "not read" not in done.stdout


def test_new_begins_a_conversation(chat: Chat) -> None:
    """/new and --new leave the old one as it is."""
    done = chat.run(
        "--conversation", "old", said="remember that my cat is Tom\n/new\nwhat do you remember?\n/open old\nwhat do you remember?\n"
    )

    assert done.stdout.count("(offline) I have no notes yet") == 1
    assert done.stdout.count("(offline) I remember:\n- my cat is Tom") == 1
    assert ", a new one." in chat.run("--new", said="").stdout


def test_commands_that_are_none_are_told(chat: Chat) -> None:
    """A line that begins with a space is said, whatever it looks like."""
    done = chat.run(said="/what\n/help\n /quit\n")

    assert "/what is no command" in done.stdout
    assert "/open N or ID" in done.stdout
    assert "I have no rule for “/quit”" in done.stdout


def test_a_broken_conversation_does_not_take_the_others_along(chat: Chat) -> None:
    """It is named, and another one can be opened."""
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
    """A broken pipe is no traceback."""
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
        assert process.wait(30) == 1

    assert err == b""


# ── at a terminal ────────────────────────────────────────────────────────────────────────────────────────────────────

READERS: Final = pytest.mark.parametrize(
    ("arguments", "prompt"), [((), PROMPT), (("--plain",), PLAIN_PROMPT)], ids=["prompt_toolkit", "plain"]
)


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
    """Also a reader that waits in a thread lets go."""
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
    """The chat learns what the other one wrote, shows it, and goes on from there."""
    with chat.terminal("--plain", "--conversation", "c") as child:
        child.expect(PLAIN_PROMPT)
        child.send("what is 1+1?\r")
        child.expect(r"1\+1 = 2\r\n> ")
        other = chat.run("--once", "what is 2+2?", "--conversation", "c")
        child.send("what is 3+3?\r")
        child.expect("another program wrote")
        child.expect(r"> what is 2\+2\?")
        child.expect(r"2\+2 = 4")
        child.expect(r"3\+3 = 6\r\n> ")
        child.send("\x04")

        assert leave(child) == 0
    assert other.stdout == "(offline) 2+2 = 4\n"
    assert chat.run(said="").stdout.count("> what is") == 3


# ── killed ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@READERS
@pytest.mark.parametrize("night", [1, 8])
def test_killed_in_mid_answer(chat: Chat, arguments: tuple[str, ...], prompt: str, night: int) -> None:
    """The command again shows every acknowledged message and the marked partial answer, and goes on."""
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
        child.expect(r"\[cut by a crash\]\r\n")
        tail = f"{child.before}{child.after}".replace("\r\n", "\n")
        child.expect(prompt)
        child.send("what do you remember about my cat?\r")
        child.expect("my cat is Tom")
        child.expect(prompt)

    assert "> remember that my cat is Tom\n" in tail
    assert "> tell me a long story\n" in tail
    assert "[cut by a crash]\n" in tail
    nights = [int(number) for number in re.findall(r"On night (\d+),", tail)]
    assert nights == list(range(1, len(nights) + 1))
    assert len(nights) >= night - 5  # draft_interval is a second, and a sentence takes a third of one


def test_killed_again_and_again(chat: Chat) -> None:
    """Whenever it happens, what was acknowledged is there, and the conversation goes on."""
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
    assert done.stdout.count("[cut by a crash]") >= 1
    assert check == ("ok",)


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "provider", "name", "label"),
    [
        ({}, None, None, "offline"),
        ({"ANTHROPIC_API_KEY": SECRET}, None, None, "anthropic claude-sonnet-5-5"),
        ({"ANTHROPIC_API_KEY": SECRET}, "offline", None, "offline"),
        ({"ANTHROPIC_API_KEY": SECRET, "OPENAI_API_KEY": SECRET}, "openai", "x", "openai x"),
        ({"OPENAI_API_KEY": SECRET}, None, None, "openai gpt-5.4-mini"),
        ({"OPENAI_API_KEY": SECRET, "TRIO_SAGENTS_MODEL": "y"}, None, None, "openai y"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, None, "llama", "openai llama"),
    ],
)
def test_the_model_is_the_one_whose_key_is_set(
    environ: dict[str, str], provider: Any, name: str | None, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anthropic's first, then OpenAI's or a compatible server, else the embedded one; asked for by name it is that one."""
    for key in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)

    choice = choose_model(provider, name, environ)

    assert label == choice.label
    assert SECRET not in repr(choice)


@pytest.mark.parametrize(("provider", "package"), [("anthropic", "anthropic"), ("openai", "openai")])
def test_a_missing_package_is_named_with_its_install_line(provider: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without the extra is a line on how to install it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package or name == f"trio_sagents.models.{provider}"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"pip install 'trio-sagents\[{provider}\]'"):
        choose_model(provider, "x", {"ANTHROPIC_API_KEY": SECRET, "OPENAI_API_KEY": SECRET})


def test_a_server_of_ones_own_needs_the_models_name() -> None:
    """There is no default for it."""
    with pytest.raises(UsageError, match="--model"):
        choose_model(None, None, {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})


def test_the_database_is_found(tmp_path: Path) -> None:
    """The variable, then the data folder, which must be absolute to count."""
    assert default_database({"TRIO_SAGENTS_DB": "x.db"}) == Path("x.db")
    assert default_database({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "trio-sagents" / "chat.db"
    assert default_database({"XDG_DATA_HOME": "relative"}) == Path.home() / ".local" / "share" / "trio-sagents" / "chat.db"
    assert set_up(Options(), {"XDG_DATA_HOME": str(tmp_path)}).database == tmp_path / "trio-sagents" / "chat.db"
    assert (tmp_path / "trio-sagents").stat().st_mode & 0o777 == 0o700


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """With the way out."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--db"):
        set_up(Options(), {"XDG_DATA_HOME": str(tmp_path / "file")})


def test_help_names_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    """A script's author finds them where they are looked for."""
    with pytest.raises(SystemExit) as caught:
        main(["chat", "--help"])

    assert caught.value.code == 0
    assert "3 a person must decide" in capsys.readouterr().out

"""`trio-sagents chat --once`: one message, one answer, an exit status."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.apps.cli._kit import RUN, SECRET, Chat
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
from trio_sagents.cli._once import status_of

pytestmark = pytest.mark.slow


def test_once_prints_the_answer_and_nothing_else(chat: Chat) -> None:
    """Standard output has the answer. The tools' progress and the place of the conversation go to standard error."""
    done = chat.run("--once", "what is 12*(3+4)?")

    assert (0, "(offline) 12*(3+4) = 84\n") == (done.returncode, done.stdout)
    assert 'calculate(expression="12*(3+4)") runs' in done.stderr
    assert "calculate completed: 84" in done.stderr
    assert "offline model" in done.stderr
    assert str(chat.folder / "chat.db") in done.stderr


def test_once_reads_standard_input(chat: Chat) -> None:
    """A dash means standard input."""
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
    """Only the folder in which the command runs may be read."""
    (chat.folder / "README.md").write_text("# Hello\n")

    assert chat.run("--once", "read README.md").stdout == "(offline) README.md has 1 line:\n\n# Hello\n\n"
    assert "there is no file" in chat.run("--once", "read /etc/hostname").stdout
    assert "there is no file" in chat.run("--once", "read chat.db").stdout
    assert "own database" in chat.run("--once", "write a file chat.db-wal with nothing", "--allow", "create_file").stdout
    assert "hidden" in chat.run("--once", "write a file .profile with evil", "--allow", "create_file").stdout


def test_once_says_what_waits_for_a_person(chat: Chat) -> None:
    """Nothing is done without a decision: the status is 3, and the notes show the whole pending call and how to decide it."""
    done = chat.run("--once", "write a file hello.txt that says hi", "--conversation", "c")

    assert (3, "") == (done.returncode, done.stdout)
    assert "Approve this call?\n  create_file /hello.txt\n  + hi\n[a person must decide: trio-sagents chat --conversation c;" in done.stderr
    assert not (chat.folder / "hello.txt").exists()


def test_the_command_to_decide_names_the_same_database_and_folder(chat: Chat, tmp_path: Path) -> None:
    """The conversation exists only in this database, and an approved write must not become a file of another folder."""
    notes = tmp_path / "other notes"
    notes.mkdir()

    done = chat.run("--once", "write a file hello.txt that says hi", "--conversation", "c", "--db", "o.db", "--files", "other notes")
    command = done.stderr.partition("decide: ")[2].partition(";")[0]

    assert f"trio-sagents chat --db {tmp_path / 'o.db'} --files '{notes}' --conversation c" == command
    assert "create_file /hello.txt" in chat.run(*shlex.split(command)[2:], "--plain").stdout


def test_what_is_allowed_on_the_command_line_does_not_ask(chat: Chat) -> None:
    """Only the tool that is named may run without approval."""
    done = chat.run("--once", "write a file hello.txt that says hi", "--conversation", "c", "--allow", "create_file")
    other = chat.run("--once", "delete hello.txt", "--conversation", "c", "--allow", "create_file")

    assert (0, "(offline) Created /hello.txt.\n") == (done.returncode, done.stdout)
    assert other.returncode == 3
    assert (chat.folder / "hello.txt").read_text() == "hi\n"


def test_another_folder_is_named_on_the_command_line(chat: Chat) -> None:
    """The files of that folder are read, and no others."""
    (chat.folder / "notes").mkdir()
    (chat.folder / "notes" / "a.txt").write_text("hi\n")

    assert chat.run("--once", "list files", "--files", "notes").stdout == "(offline) The files here:\n/a.txt (3 bytes)\n"


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
        (("--once", "hi", "--files", "nowhere"), "there is no folder"),
        (("--once", "hi", "--allow", "everything"), "create_file"),
        (("--once", "hi", "--mcp", ""), "--mcp takes the command"),
        (("--once", "hi", "--mcp", "a 'b"), "quot"),
    ],
)
def test_a_usage_error_has_status_2(chat: Chat, arguments: tuple[str, ...], words: str) -> None:
    """The error says what is wrong, and nothing is touched."""
    done = chat.run(*arguments)

    assert (2, "") == (done.returncode, done.stdout)
    assert words in done.stderr
    assert not (chat.folder / "nowhere").exists()


def test_a_provider_that_cannot_be_reached_has_status_1(chat: Chat) -> None:
    """The turn failed: there is no answer, and no key is shown."""
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
        out, err = process.communicate(timeout=60)

    assert (130, "") == (process.returncode, out)
    assert "[cancelled]" in err
    assert chat.run("--once", "what is 1+1?", "--conversation", "c").stdout == "(offline) 1+1 = 2\n"


def _drafts(path: Path) -> bool:
    """Return whether the store holds some text of the answer: whatever its tables are, it is on the disk."""
    return any(b"On night 1" in file.read_bytes() for file in (path, path.with_name("chat.db-wal")) if file.exists())


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

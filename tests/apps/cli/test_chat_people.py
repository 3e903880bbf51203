"""What a person sees and decides at a terminal: approvals, questions, halts, todos, sub-agents, titles, MCP; with kills in the middle."""

import shutil
import signal
import sys
from pathlib import Path

import pexpect  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.apps.cli._kit import READERS, Chat, leave

pytestmark = pytest.mark.slow

ECHO = Path(__file__).with_name("echo_server.py")
HELLO = "write a file hello.txt that says hi\r"
CHOOSE = r"\[r\]eject:"
ANSWER = "answer:"


@READERS
def test_an_approved_call_runs_as_it_was_shown(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """The tool, the change as a difference, and nothing is done before the person says so."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send(HELLO)
        child.expect(r"Approve this call\?\r\n  create_file /hello.txt\r\n  \+ hi\r\n")
        child.expect(CHOOSE)
        assert not (chat.folder / "hello.txt").exists()
        child.send("a\r")
        child.expect(r"\(offline\) Created /hello.txt")
        child.expect(prompt)
        child.send("\x04")

        assert leave(child) == 0
    assert (chat.folder / "hello.txt").read_text() == "hi\n"


@READERS
def test_an_edited_call_runs_as_it_was_edited(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """A text that is not a JSON object is reported, and asked for again; so are arguments that do not fit the tool."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send(HELLO)
        child.expect(CHOOSE)
        child.send("e\r")
        child.expect("arguments:")
        child.send("\x15{bad\r")
        child.expect("this is not JSON: .* at character 2")
        child.expect("arguments:")
        child.send('\x15["/hello.txt"]\r')
        child.expect("the arguments must be a JSON object")
        child.expect("arguments:")
        child.send('\x15{"file": "/other.txt"}\r')
        child.expect("was not accepted: .*file")
        child.expect(CHOOSE)
        child.send("e\r")
        child.expect("arguments:")
        child.send('\x15{"path": "/other.txt", "content": "ho"}\r')
        child.expect(r"\(offline\) Created /other.txt")
    assert (chat.folder / "other.txt").read_text() == "ho"
    assert not (chat.folder / "hello.txt").exists()


@READERS
def test_an_edit_begins_with_what_the_model_wrote(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """With prompt_toolkit the arguments can be edited in the line; without it they are shown above the line."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("send 20 euros to Ann\r")
        child.expect(r'"amount": 20,\r\n +"currency": "EUR",\r\n +"to": "Ann"')
        child.expect(CHOOSE)
        child.send("edit\r")
        child.expect(r'\{"amount": 20, "currency": "EUR", "to": "Ann"\}')
        child.send("\r" if arguments else "\x7f" * 2 + 'e"}\r')
        if arguments:
            child.expect(CHOOSE)
            child.send("a\r")
            child.expect(r"Sent 20 EUR to Ann \(pretended")
        else:
            child.expect(r"Sent 20 EUR to Anne \(pretended")


@READERS
def test_several_calls_are_decided_one_after_the_other(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """Each call is decided alone. A reason goes to the model. An empty line, or an unknown word, decides nothing."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("send 20 euros to Ann and send 5 euros to Bob\r")
        child.expect(r"\(1 of 2\)")
        child.expect(CHOOSE)
        child.send("\r")
        child.expect("is not a decision")
        child.expect(CHOOSE)
        child.send("reject\r")
        child.expect("why .*:")
        child.send("too much\r")
        child.expect(r"\(2 of 2\)")
        child.expect(CHOOSE)
        child.send("yes\r")
        child.expect("a person rejected it: too much")
        child.expect("Sent 5 EUR to Bob")


@READERS
def test_ctrl_c_leaves_a_call_open(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """The prompt is gone and the program is not. /decide asks again, and a new message continues without the call."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send(HELLO)
        child.expect(CHOOSE)
        child.sendintr()
        child.expect("It stays open")
        child.expect(prompt)
        child.send("/decide\r")
        child.expect(r"\+ hi")
        child.expect(CHOOSE)
        child.send("e\r")
        child.expect("arguments:")
        child.sendintr()
        child.expect("It stays open")
        child.expect(prompt)
        child.send("what is 3+4?\r")
        child.expect(r"3\+4 = 7")
        child.expect(prompt)
        child.send("/decide\r")
        child.expect("Nothing waits for you")
    assert not (chat.folder / "hello.txt").exists()


@READERS
def test_an_open_call_survives_a_kill(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """The next run shows the pending calls without those decided before, and the approved call runs once."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("send 5 euros to Bob and write a file b.txt that says two\r")
        child.expect(r"\(1 of 2\)")
        child.expect(CHOOSE)
        child.send("r\r")
        child.expect("why .*:")
        child.send("\r")
        child.expect(r"\(2 of 2\)")
        child.expect(CHOOSE)
        child.kill(signal.SIGKILL)
        child.expect(pexpect.EOF)
    with chat.terminal(*arguments) as child:
        child.expect(r"\(2 of 2\)\r\n  create_file /b.txt\r\n  \+ two")
        child.expect(CHOOSE)
        child.send("\x04")

        assert leave(child) == 0
    with chat.terminal(*arguments) as child:
        child.expect(r"\(2 of 2\)\r\n  create_file /b.txt")
        child.expect(CHOOSE)
        child.send("a\r")
        child.expect(r"send_money was not done.*\r\nCreated /b.txt")
        child.expect(prompt)
    assert (chat.folder / "b.txt").read_text() == "two\n"


def test_a_script_is_told_what_waits(chat: Chat) -> None:
    """At pipes nobody can be asked: further lines are not read, and the status is 3. A new message continues without the call."""
    done = chat.run("--conversation", "c", said=HELLO.replace("\r", "\n") + "delete everything\n")
    again = chat.run("--conversation", "c")
    other = chat.run("--conversation", "c", said="what is 2+2?\n")

    assert (3, 3, 0) == (done.returncode, again.returncode, other.returncode)
    assert "  create_file /hello.txt\n  + hi\n[a person must decide: trio-sagents chat --conversation c;" in done.stdout
    assert "delete everything" not in done.stdout
    assert "  create_file /hello.txt\n" in again.stdout
    assert "(offline) 2+2 = 4\n" in other.stdout
    assert not (chat.folder / "hello.txt").exists()


@pytest.mark.parametrize("key", ["a\r", "y\r"])
def test_what_was_typed_before_the_question_is_no_answer(chat: Chat, key: str) -> None:
    """Keys pressed while the agent still spoke approve nothing."""
    with chat.terminal("--plain") as child:
        child.expect("> ")
        child.send("tell me a story and write a file hello.txt that says hi\r" + key)
        child.expect(CHOOSE)
        child.send("r\r")
        child.expect("why .*:")
        child.send("\r")
        child.expect("was not done")
    assert not (chat.folder / "hello.txt").exists()


@READERS
def test_questions_are_answered_by_number_word_or_text(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """A question is answered by one option, several, a free text, or nothing; an invalid answer is reported."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("ask me for my favourite colour\r")
        child.expect(r"favourite colour\?\r\n    1  red\r\n    2  green")
        child.expect(ANSWER)
        child.send("7\r")
        child.expect("there is no option 7")
        child.expect(ANSWER)
        child.send("2\r")
        child.expect("You said: green")
        child.expect(prompt)
        child.send("ask me for my favourite colour\r")
        child.expect(ANSWER)
        child.send("teal\r")
        child.expect("You said: teal")
        child.expect(prompt)
        child.send("which toppings\r")
        child.expect(ANSWER)
        child.send("1, onions, salt\r")
        child.expect("You said: mushrooms, onions, salt")
        child.expect(prompt)
        child.send("ask me my name\r")
        child.expect(ANSWER)
        child.send("Ann\r")
        child.expect("You said: Ann")
        child.expect(prompt)
        child.send("ask me my name\r")
        child.expect(ANSWER)
        child.send("/cancel\r")
        child.expect("You did not want to say")


@READERS
def test_a_halt_is_acknowledged_by_enter(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """The words of the halt are shown. Afterwards the conversation continues, without repeating the history."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("halt: there is smoke\r")
        child.expect("Halted by a tool:\r\n  there is smoke")
        child.expect("acknowledges it:")
        child.send("\r")
        child.expect(r"\[acknowledged\]")
        child.expect(prompt)
        child.send("what is 3+4?\r")
        child.expect(r"\(offline\) 3\+4 = 7")


@READERS
def test_a_sub_agents_progress_is_one_line(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """Each sub-agent has a line that is redrawn. A question shows which sub-agent asks it. (The last line before may never be drawn.)"""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("hand two tasks to sub-agents\r")
        child.expect(r"» general-purpose \(.*\): .*\r\n.*» general-purpose \(.*\): ")
        child.expect(r"\x1b\[2A\x1b\[J")
        child.expect(r"sub-agent general-purpose completed: \(offline\)")
        child.expect(r"\(offline\) The sub-agent says: 12\*7 = 84")
        child.expect(prompt)
        child.send("have a sub-agent send 5 euros to Ann\r")
        child.expect(r"Approve this call of the sub-agent general-purpose\?")
        child.expect(CHOOSE)
        child.send("a\r")
        child.expect("The sub-agent says: Sent 5 EUR to Ann")


def test_a_sub_agent_goes_on_after_a_kill(chat: Chat) -> None:
    """What it waited for is asked again by the next run."""
    with chat.terminal("--plain") as child:
        child.expect("> ")
        child.send("have a sub-agent send 5 euros to Ann\r")
        child.expect(CHOOSE)
        child.kill(signal.SIGKILL)
        child.expect(pexpect.EOF)
    with chat.terminal("--plain") as child:
        child.expect("of the sub-agent general-purpose")
        child.expect(CHOOSE)
        child.send("a\r")
        child.expect("The sub-agent says: Sent 5 EUR to Ann")


def test_todos_are_a_list_that_changes(chat: Chat) -> None:
    """Drawn in place while the agent works; /todos, and the next run, show it."""
    with chat.terminal("--plain") as child:
        child.expect("> ")
        child.send("plan a picnic\r")
        child.expect(r"\[~\] 1\. collect ideas for a picnic\r\n")
        child.expect(r"\x1b\[4A\x1b\[J")
        child.expect(r"\[x\] 1\. collect ideas for a picnic\r\n  \[~\] 2\.")
        child.expect("is in your todos")
        child.expect("> ")
        child.send("done 2 and remove 4\r")
        child.expect("Removed")
        child.expect("> ")
        child.send("/todos\r")
        child.expect(r"\[x\] 2\. choose a day for a picnic\r\n  \[ \] 3\. write down what a picnic needs\r\n> ")
    again = chat.run(said="done 1\ndone 3\n").stdout

    assert "  [ ] 3. write down what a picnic needs\n> done 1\n" in again
    assert "nothing is left to do" in again


@READERS
def test_a_title_comes_by_itself_and_can_be_set(chat: Chat, arguments: tuple[str, ...], prompt: str) -> None:
    """The title is shown when it is there, in the list, and when the conversation is opened again."""
    with chat.terminal(*arguments) as child:
        child.expect(prompt)
        child.send("please tell me what 2+2 makes\r")
        child.expect(r"\[title: Tell me what 2\+2 makes\]")
        child.send("/title Sums and more\r")
        child.expect(r"\[title: Sums and more\]")
        child.expect(prompt)
        child.send(f"/title {'x' * 81}\r")
        child.expect("error: .*1 to 80 characters")
        child.expect(prompt)
        child.send("/list\r")
        child.expect("messages  Sums and more")
        child.expect(prompt)
    assert "[title: Sums and more]\n> please" in chat.run(said="").stdout


def test_the_files_of_the_folder(chat: Chat) -> None:
    """/files lists the files as they are now. The agent changes them after an approval; link and database stay as they are."""
    (chat.folder / "link").symlink_to("/etc")
    with chat.terminal("--plain") as child:
        child.expect("> ")
        (chat.folder / "docs").mkdir()
        (chat.folder / "docs" / "a.txt").write_text("hello\nworld\n")
        child.send("/files\r")
        child.expect(r"/files\r\n  /docs/a.txt  12 bytes\r\n> ")
        child.send("replace world with moon in docs/a.txt\r")
        child.expect(r"replace_file_text /docs/a.txt\r\n  - world\r\n  \+ moon\r\n")
        child.expect(CHOOSE)
        child.send("a\r")
        child.expect(r"Replaced the text in /docs/a.txt\.\r\n.*> ")
        assert (chat.folder / "docs" / "a.txt").read_text() == "hello\nmoon\n"
        child.send("move docs/a.txt to b.txt\r")
        child.expect("move_file /docs/a.txt → /b.txt\r\n")
        child.expect(CHOOSE)
        child.send("a\r")
        child.expect("/docs/a.txt is now /b.txt")
        child.expect(r"\(offline\) Moved")
        child.expect("> ")
        (chat.folder / "b.txt").write_text("changed by somebody else\n")
        child.send("find else in my files\r")
        child.expect("/b.txt:1: changed by somebody else")
        child.expect("> ")
        child.send("delete b.txt\r")
        child.expect("delete_file /b.txt\r\n")
        child.expect(CHOOSE)
        child.send("a\r")
        child.expect("Deleted /b.txt")
    assert not (chat.folder / "b.txt").exists()


def test_mcp_servers_are_tools_behind_approvals(chat: Chat) -> None:
    """Named on the command line; each call asks, and says whose tool it is."""
    server = f"{sys.executable} -I '{shutil.copy(ECHO, chat.folder / 'echo server.py')}'"
    with chat.terminal("--plain", "--mcp", server, "--mcp", server) as child:
        child.expect("> ")
        child.send('use echo_server_echo with {"text": "hello"}\r')
        child.expect(r'  echo_server_echo\r\n    \{\r\n      "text": "hello"')
        child.expect(CHOOSE)
        child.send("a\r")
        child.expect(r"\(offline\) echo: hello\r\n")
        child.expect("> ")
        child.send("use echo_server2_echo with text=ho\r")
        child.expect(CHOOSE)
        child.sendintr()
        child.expect("It stays open")
        child.send("\x04")

        assert leave(child) == 0
    done = chat.run("--once", "use echo_server_echo with text=hi", "--mcp", server, "--allow", "echo_server_echo")
    assert (0, "(offline) echo: hi\n") == (done.returncode, done.stdout)


def test_a_server_that_cannot_be_started_is_named(chat: Chat) -> None:
    """The conversation does not open, and the reason is a line."""
    done = chat.run("--once", "hi", "--mcp", "nowhere/server")

    assert (1, "") == (done.returncode, done.stdout)
    assert "'nowhere/server' cannot be started" in done.stderr


def test_a_long_conversation_is_summed_up(chat: Chat) -> None:
    """The model reads a summary, and continues. The transcript is whole."""
    (chat.folder / "big.txt").write_text("all-work-and-no-play-makes-Jack-a-dull-boy\n" * 250)
    done = chat.run("--conversation", "c", said="read big.txt\n" * 4 + "what is 2+2?\n")

    assert "tokens: its older part is being summed up for the model]" in done.stdout
    assert "[summed up: the model reads about" in done.stdout
    assert "(offline) 2+2 = 4\n" in done.stdout
    assert chat.run("--conversation", "c").stdout.count("> read big.txt\n") == 4

"""`DebugLog`: a bounded file for each agent, which never harms a run."""

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.middleware import StrictModel, agent_with, on_file
from tests.support.scenarios import ask, opened
from trio_sagents import Cancelled, Completed, Failed, ModelFailed, Usage
from trio_sagents.middleware import DebugLog, SubAgents, Task, debug_log
from trio_sagents.middleware.debug_log import file_name
from trio_sagents.testing import Call, Hang

LOG = "conversation-c.log"


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kinds(path: Path) -> list[str]:
    return [line["what"] for line in lines(path)]


async def tool(word: str) -> str:
    """Do."""
    return f"canary-result {word}"


async def broken() -> str:
    """Fail."""
    raise RuntimeError("canary-error")


def logging_agent(log: DebugLog, *replies: Any, **more: Any) -> Any:
    return agent_with(log, replies=list(replies), usage=Usage(3, 4), tools=[tool, broken], **more)


async def test_log_when_the_process_is_restarted(autojump_clock: Any, database: Path) -> None:
    """When the agent has ended, the file has its history in order, with ids, sizes and seconds. A new agent continues the file."""
    folder = database.parent / "logs"
    first = logging_agent(DebugLog(folder), ["canary-said", Call("tool", word="canary-word"), Call("broken")], "canary-answer")
    async with on_file(database, first, policy={}) as sessions:
        await ask(sessions, "canary-question", message_id="m-1")
    whats = kinds(folder / LOG)
    found = lines(folder / LOG)
    async with on_file(database, logging_agent(DebugLog(folder), ModelFailed("canary-failure"))) as sessions:
        failed = await ask(sessions, "again")

    assert isinstance(failed, Failed)
    assert whats[:4] == ["start", "turn", "model", "model_answer"]
    assert sorted(whats[4:8]) == ["tool", "tool", "tool_result", "tool_result"]
    assert whats[8:] == ["model", "model_answer", "turn_end", "end"]
    assert ["start", "turn", "model", "model_failed", "turn_end", "end"] == kinds(folder / LOG)[len(whats) :]
    assert "canary" not in (folder / LOG).read_text()
    answer = found[3]
    assert {"conversation_id": "c", "stop_reason": "tool_calls", "chars": 11} == {
        key: answer[key] for key in ("conversation_id", "stop_reason", "chars")
    }
    assert 4 == answer["usage"]["output_tokens"]
    assert {"completed", "failed"} == {line["status"] for line in found if line["what"] == "tool_result"}
    assert ["Completed"] == [line["outcome"] for line in found if line["what"] == "turn_end"]
    assert 0o600 == stat.S_IMODE((folder / LOG).stat().st_mode)


async def test_log_when_contents_are_wanted(autojump_clock: Any, database: Path) -> None:
    """Contents are written if the host asks for them."""
    log = DebugLog(database.parent, contents=True)
    async with opened(logging_agent(log, Call("tool", word="canary-word"), "canary-answer")) as sessions:
        await ask(sessions, "canary-question")
    text = (database.parent / LOG).read_text()

    for word in ("canary-question", "canary-word", "canary-result", "canary-answer"):
        assert word in text


async def test_log_when_disabled(autojump_clock: Any, database: Path) -> None:
    """A log that is switched off makes no file, no task and no thread, wherever it points to."""
    missing = database.parent / "missing"
    agent = logging_agent(DebugLog(missing, enabled=False), Call("tool", word="x"), "ok")
    async with opened(agent) as sessions:
        before = trio.lowlevel.current_statistics().tasks_living
        await sessions.start("c")
        started = trio.lowlevel.current_statistics().tasks_living
        await ask(sessions)
    async with opened(agent_with(replies=["ok"])) as sessions:
        assert trio.lowlevel.current_statistics().tasks_living == before
        await sessions.start("c")
        assert trio.lowlevel.current_statistics().tasks_living == started

    assert not missing.exists()


async def test_log_when_the_disk_fails(autojump_clock: Any, database: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be written costs its lines, not the turn; it is said once for each try, and later lines are tried again."""
    blocked = database.parent / "file"
    blocked.write_text("in the way")
    async with opened(logging_agent(DebugLog(blocked), Call("tool", word="x"), "one", "two")) as sessions:
        first = await ask(sessions)
        blocked.unlink()
        second = await ask(sessions)

    assert isinstance(first, Completed)
    assert isinstance(second, Completed)
    assert any("DebugLog cannot write" in record.message for record in caplog.records)
    assert "end" == kinds(blocked / LOG)[-1]


async def test_log_when_the_path_function_fails(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What a host's function does wrong is logged, and harms no turn."""

    def nowhere(context: Any) -> str:
        raise LookupError("no folder for you")

    async with opened(logging_agent(DebugLog(nowhere), "ok")) as sessions:
        outcome = await ask(sessions)

    assert isinstance(outcome, Completed)
    assert any("could not note" in record.message for record in caplog.records)


async def test_log_when_the_thread_hangs(autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs delays nobody: the turn continues, and the agent ends in bounded time."""
    release = threading.Event()
    log = DebugLog(tmp_path)
    monkeypatch.setattr(DebugLog, "_append", lambda self, lines: release.wait(10))
    try:
        async with opened(logging_agent(log, "ok")) as sessions:
            outcome = await ask(sessions)
            began = trio.current_time()
            await sessions.stop("c")
            seconds = trio.current_time() - began
    finally:
        release.set()

    assert isinstance(outcome, Completed)
    assert seconds <= 5


async def test_log_when_it_is_full(autojump_clock: Any, database: Path) -> None:
    """Two files, together no larger than the limit; the newest lines are there."""
    log = DebugLog(database.parent, max_bytes=8192)
    async with opened(logging_agent(log, *["x"] * 60)) as sessions:
        for number in range(60):
            await ask(sessions, str(number))
    newest, older = database.parent / LOG, database.parent / f"{LOG}.1"

    assert newest.stat().st_size + older.stat().st_size <= 8192
    assert "end" == kinds(newest)[-1]
    assert lines(older)
    assert {LOG, f"{LOG}.1"} == {name for name in os.listdir(database.parent) if ".log" in name}


async def test_log_when_lines_come_too_fast(autojump_clock: Any, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody could write in time is dropped, the oldest first, and the log says how much."""
    monkeypatch.setattr(debug_log, "MAX_LINES", 3)
    async with opened(logging_agent(DebugLog(database.parent), [Call("tool", word="x") for _ in range(8)], "ok")) as sessions:
        await ask(sessions)
    found = lines(database.parent / LOG)

    assert sum(line["lines"] for line in found if line["what"] == "lost") > 0
    assert "end" == found[-1]["what"]


async def test_log_when_a_turn_is_cut(autojump_clock: Any, database: Path) -> None:
    """A cancelled call is in the log as cancelled, and so is the end of an agent that is stopped in the middle of a turn."""
    async with opened(logging_agent(DebugLog(database.parent), Hang(), Hang())) as sessions:
        receipt = await sessions.post("c", "go")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        outcome = await receipt.wait()
        await sessions.post("c", "go")
        await trio.sleep(1)
        await sessions.stop("c")

    assert isinstance(outcome, Cancelled)
    whats = kinds(database.parent / LOG)
    assert ["start", *["turn", "model", "model_failed", "turn_end"] * 2] == [what for what in whats if what != "end"]
    assert 1 == whats.count("end")
    assert ["user", "stopped"] == [line["cause"] for line in lines(database.parent / LOG) if line["what"] == "turn_end"]
    assert {"Cancelled"} == {line["error"] for line in lines(database.parent / LOG) if line["what"] == "model_failed"}


async def test_log_when_a_sub_agent_runs(autojump_clock: Any, database: Path) -> None:
    """A sub-agent with the same middleware writes into the file of its agent, under its own path."""
    log = DebugLog(database.parent)
    task = Task(name="helper", description="helps", middleware=(log,), model=StrictModel(["helped"]))
    agent = agent_with(log, SubAgents((task,), general_purpose=False), replies=[Call("task", name="helper", instructions="Help."), "ok"])
    async with opened(agent) as sessions:
        await ask(sessions)
    found = lines(database.parent / LOG)

    assert ["start", "turn", "model", "model_answer", "turn_end", "end"] == [line["what"] for line in found if line["path"] == ["helper"]]


async def test_log_when_agents_share_it(autojump_clock: Any, database: Path) -> None:
    """Each agent has its own file. A file that a function names is shared, and no line is torn."""
    shared = DebugLog(lambda context: database.parent / "all.jsonl")
    async with opened(agent_with(DebugLog(database.parent), Shared(shared))) as sessions:
        async with trio.open_nursery() as nursery:
            for name in ("c", "d", "../e"):
                nursery.start_soon(ask, sessions, "hi", name)

    logs = {name for name in os.listdir(database.parent) if name.endswith(".log")}
    assert {"c", "d", "../e"} == {line["conversation_id"] for line in lines(database.parent / "all.jsonl")}
    assert 3 == len(logs)
    assert {"conversation-c.log", "conversation-d.log"} < logs


class Shared(DebugLog):
    """A second log in one agent, under an id of its own."""

    def __init__(self, other: DebugLog) -> None:
        super().__init__(other.path)


@pytest.mark.parametrize(("agent_id", "name"), [("conversation-1", "conversation-1"), ("../x", ".._x"), ("a.b", "a.b"), ("", "")])
def test_file_name_when_odd(agent_id: str, name: str) -> None:
    """No file name leads out of the folder, and two agents never share a file."""
    found = file_name(agent_id)

    assert "/" not in found
    assert not found.startswith(".")
    assert found == agent_id or found != name


@pytest.mark.parametrize("arguments", [{"path": 5}, {"path": "x", "max_bytes": 10}])
def test_debug_log_when_arguments_are_wrong(arguments: Any) -> None:
    """What cannot be meant is refused when it is built."""
    with pytest.raises((TypeError, ValueError), match="DebugLog"):
        DebugLog(**arguments)


def test_log_when_threads_are_real(tmp_path: Path) -> None:
    """The same in real time, with real threads: nothing is open when the sessions are closed."""

    async def main() -> None:
        async with opened(logging_agent(DebugLog(tmp_path), Call("tool", word="x"), "ok")) as sessions:
            await ask(sessions)

    before = len(os.listdir("/proc/self/fd"))
    trio.run(main)

    assert before == len(os.listdir("/proc/self/fd"))
    assert ["start", "end"] == [kinds(tmp_path / LOG)[0], kinds(tmp_path / LOG)[-1]]

"""Three hundred turns with every feature: a strict provider accepts the history at each save and at each request."""

import faulthandler
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.middleware import StrictModel
from tests.support.scenarios import ask, make_config
from tests.support.strict_provider import check_request
from trio_sagents import (
    Agent,
    Commit,
    Completed,
    Message,
    ModelRequest,
    SqliteStore,
    SubAgents,
    Summarization,
    Task,
    TodoList,
    open_sessions,
)
from trio_sagents.data.wire import decode_message
from trio_sagents.files import FilesConfig, open_files
from trio_sagents.middleware.files import Files
from trio_sagents.testing import Call

TURNS = 300


def reply(request: ModelRequest) -> Any:
    """Work through a turn: by its number a plain answer, todos, files, or sub-agents; then say so."""
    last = request.messages[-1]
    if last.role != "user":
        return "done " + "and " * 30
    if "summar" in (request.system + last.text).lower():
        return "They have worked through many turns."
    number = int(last.text.rpartition(" ")[2]) if last.text.rpartition(" ")[2].isdigit() else 0
    match number % 4:
        case 0:
            return [f"todo {number}", Call("write_todos", todos=[{"id": 1, "content": f"step {number}", "status": "in_progress"}])]
        case 1:
            return [Call("create_file", path=f"/n{number}.txt", content="text"), Call("list_files", folder="/")]
        case 2:
            return [Call("task", name="count", instructions="count"), Call("task", name="count", instructions="count again")]
        case _:
            return f"plain answer {number} " + "word " * 60


def check_whole(messages: Sequence[Message]) -> None:
    """Fail if the history could not be sent. Open calls at its end are closed first, as before a request."""
    opened = {call.call_id: call for message in messages[-20:] for call in message.calls}
    for message in messages[-20:]:
        for result in message.results:
            opened.pop(result.call_id, None)
    if opened:  # in the middle of an answer: everything before it must be whole
        index = next(i for i in range(len(messages) - 1, -1, -1) if messages[i].calls)
        messages = messages[:index]
    if messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    check_request(ModelRequest("", tuple(messages)))


@pytest.mark.slow
async def test_three_hundred_turns_are_valid_at_every_save(tmp_path: Path) -> None:
    """A conversation with summaries, todos, files and sub-agents stays valid for a strict provider, also after a restart in the middle."""
    faulthandler.dump_traceback_later(120, exit=True)
    history: list[Message] = []
    saves = 0

    class Watching(SqliteStore):
        async def commit(self, scope: Any, commit: Commit) -> int:
            nonlocal saves
            revision = await super().commit(scope, commit)
            history.extend(decode_message("c", record) for record in commit.messages)
            saves += 1
            if commit.messages:
                check_whole(history if len(history) < 400 else history[_turn_start(history) :])
            return revision

    async with open_files(FilesConfig()) as files:
        model = StrictModel(reply)
        sub = Agent(model=StrictModel(lambda request: "42"))
        agent = Agent(
            model=model,
            middleware=[
                TodoList(),
                Summarization(trigger_tokens=4_000, keep_messages=6),
                Files(files, scope="c"),
                SubAgents([Task(name="count", description="counts", agent=sub)]),
            ],
        )
        for part in range(3):
            async with open_sessions(make_config(agent, store=Watching(tmp_path / "chat.db"))) as sessions:
                for number in range(part * TURNS // 3, (part + 1) * TURNS // 3):
                    outcome = await ask(sessions, f"turn {number}")
                    assert isinstance(outcome, Completed), outcome
                state = await (await sessions.get("c")).state()
                assert history[state.older :] == list(state.messages)
                assert len(state.messages) < 100  # what is summed up is not loaded

    assert TURNS == sum(message.role == "user" for message in history)
    assert saves > 3 * TURNS
    assert max(len(request.messages) for request in model.requests) < len(history) / 4  # it was summarised
    check_request(ModelRequest("", tuple(history[:-1])))


def _turn_start(history: Sequence[Message]) -> int:
    """Return where a turn begins, some hundred messages before the end."""
    return next(index for index in range(len(history) - 300, -1, -1) if history[index].role == "user")
